"""The cloud's notice that the machine will be taken away stops a run as a signal does."""

import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.cli import run
from jaxllm.distributed import Notice, notice
from jaxllm.distributed.notice import coming_event
from jaxllm.recipe import save_json
from jaxllm.training import EvaluateConfig, read_metrics
from tests.recipe import tiny


class Metadata(ThreadingHTTPServer):
    """A metadata server: what it says is in `instance`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.instance = {"maintenanceEvent": "NONE", "preempted": "FALSE"}
        self.asked = 0
        self.busy = self.cuts_off = False

    def wait_asked(self, times: int) -> None:
        deadline = time.monotonic() + 20
        while self.asked < times:
            assert time.monotonic() < deadline
            time.sleep(0.01)


class Answer(BaseHTTPRequestHandler):
    server: Metadata

    def do_GET(self) -> None:
        self.server.asked += 1
        right = self.path.startswith("/computeMetadata/v1/instance/") and self.headers["Metadata-Flavor"] == "Google"
        self.send_response(503 if self.server.busy else 200 if right else 403)
        if self.server.cuts_off:
            self.send_header("Content-Length", "1000")
        self.end_headers()
        if self.server.cuts_off:
            return
        self.wfile.write(json.dumps(self.server.instance).encode())

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def metadata(monkeypatch) -> Iterator[Metadata]:
    with Metadata() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{server.server_port}")
        monkeypatch.setattr(notice, "POLL_SECONDS", 0.02)
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    ("said", "event"),
    [
        ({}, None),
        ({"maintenanceEvent": "NONE", "preempted": "FALSE"}, None),
        ({"maintenanceEvent": "MIGRATE_ON_HOST_MAINTENANCE"}, None),
        ({"maintenanceEvent": "TERMINATE_ON_HOST_MAINTENANCE"}, "maintenance of this machine (TERMINATE_ON_HOST_MAINTENANCE)"),
        ({"preempted": "TRUE"}, "preemption of this machine"),
    ],
)
def test_what_ends_a_machine(said, event):
    assert coming_event(said) == event


def test_it_is_told_once_and_not_after_closing(metadata):
    told = []
    open_, closed = Notice(told.append), Notice(told.append)
    metadata.wait_asked(4)
    closed.close()
    assert told == []
    metadata.instance["preempted"] = "TRUE"
    metadata.wait_asked(metadata.asked + 1)
    time.sleep(0.2)
    assert told == ["preemption of this machine"]
    open_.close()


@pytest.mark.parametrize("failure", ["busy", "cuts_off"])
def test_a_server_that_fails_is_asked_again(metadata, failure):
    told: list[str] = []
    setattr(metadata, failure, True)
    notice_ = Notice(told.append)
    metadata.wait_asked(3)
    setattr(metadata, failure, False)
    metadata.instance["preempted"] = "TRUE"
    metadata.wait_asked(metadata.asked + 1)
    time.sleep(0.2)
    notice_.close()
    assert told == ["preemption of this machine"]


def test_other_machines_ask_nobody(monkeypatch, tmp_path):
    monkeypatch.delenv("GCE_METADATA_HOST", raising=False)
    monkeypatch.setattr(notice, "PRODUCT", tmp_path / "none")
    assert notice.metadata_server() is None
    (tmp_path / "none").write_text("Google Compute Engine\n")
    assert notice.metadata_server() == "metadata.google.internal"


def test_a_run_saves_and_stops(metadata, tmp_path, capsys):
    run_dir = tmp_path / "run"
    every = {"evaluate": EvaluateConfig(every=10**6), "checkpoint": CheckpointConfig(every=10**6, keep_best=0)}

    def announce() -> None:
        metadata.wait_asked(3)
        metadata.instance["maintenanceEvent"] = "TERMINATE_ON_HOST_MAINTENANCE"

    threading.Thread(target=announce, daemon=True).start()
    save_json(tiny.config(steps=10**5, run_dir=str(run_dir), **every), tmp_path / "recipe.json")
    assert run(["train", f"{tmp_path}/recipe.json"]) == 75
    said = re.search(
        r"stopped by maintenance of this machine \(TERMINATE_ON_HOST_MAINTENANCE\) after step (\d+), which is saved",
        capsys.readouterr().out,
    )
    assert said is not None
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == [said[1]]
    assert len([line for line in read_metrics(run_dir) if line["split"] == "train"]) == int(said[1])
