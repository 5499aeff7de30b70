"""A Google Cloud that is not there: it answers commands from its own state, and time passes when somebody sleeps."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts" / "tpu_vm"


@pytest.fixture
def tool(monkeypatch) -> Callable[[str], ModuleType]:
    """A module of scripts/tpu_vm by name."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


@pytest.fixture
def google(tool, monkeypatch) -> Any:
    """The stand-in, as the `Cloud` that scripts/tpu_vm speaks to."""
    gcloud = tool("gcloud")
    monkeypatch.setattr(tool("launch"), "pack", lambda root, to: "abc1234")

    class Google(gcloud.Cloud):
        def __init__(self) -> None:
            super().__init__(dry_run=False)
            self.state = "ABSENT"
            self.type = "v5litepod-16"
            self.workers = ["idle"] * 4
            """What each says; "" is silence."""
            self.refuses: dict[str, str] = {}
            """Verbs that fail, and what they say."""
            self.events: list[Callable[[], Any]] = []
            """What happens in each sleep, in turn."""
            self.seconds = 0.0
            self.calls: list[str] = []
            self.said: list[str] = []

        def say(self, text):
            self.said.append(text)

        def sleep(self, seconds):
            assert self.events, f"sleeps for ever: {self.said}"
            self.seconds += seconds
            self.events.pop(0)()

        def now(self):
            return self.seconds

        def _call(self, command, pretend, *, capture):
            verb = self.verb(command)
            self.calls.append(verb)
            if verb in self.refuses:
                return gcloud.Answer(1, "", self.refuses[verb])
            if verb == "describe":
                if self.state == "ABSENT":
                    return gcloud.Answer(1, "", "ERROR: NOT_FOUND: Resource not found")
                return gcloud.Answer(0, json.dumps(self.described(command)), "")
            if verb == "create":
                self.state, self.workers = "READY", ["idle"] * 4
            elif verb == "delete":
                self.state = "ABSENT"
            elif verb == "install":
                return self.answer(["installed"] * 4)
            elif verb == "start":
                self.workers = ["running mine"] * 4
            elif verb == "end":
                self.workers = [words.replace("running mine", "interrupted mine") for words in self.workers]
            elif verb == "tail":
                return gcloud.Answer(0, "the last line\n", "")
            return self.answer(self.workers) if capture else gcloud.Answer(0, "", "")

        def described(self, command):
            if "tpu-vm" in command:
                return {"state": self.state, "acceleratorType": self.type}
            state = {"state": self.state.replace("READY", "ACTIVE")}
            return {"state": state, "tpu": {"nodeSpec": [{"node": {"acceleratorType": self.type}}]}}

        def answer(self, workers):
            lines = (f"jaxllm-worker host-{number} {words}" for number, words in enumerate(workers) if words)
            return gcloud.Answer(0, "\n".join(lines), "")

        @staticmethod
        def verb(command):
            script = next((word for word in command if word.startswith("--command=")), None)
            if script is None:
                return command[4]
            verbs = ("install", "start", "report", "follow", "tail", "stop", "end")
            return next(verb for verb in verbs if f" {verb}" in script.replace("tpu_vm/worker.sh --to-stdout", ""))

    return Google()
