"""Whatever phase of a run hangs, the watchdog says which: each is held up until it has."""

import importlib
import time
from collections.abc import Callable
from typing import Any

import pytest

from jaxllm.checkpoint import Store
from jaxllm.distributed import group as group_module
from jaxllm.distributed import leader as leader_module
from jaxllm.distributed.group import Group
from jaxllm.recipe import conclude as conclude_module
from jaxllm.recipe import fit, run_folder
from jaxllm.recipe.program import Program
from jaxllm.recipe.recipe import WatchConfig
from tests.recipe import tiny

# Functions have these names in their rooms.
joined_module = importlib.import_module("jaxllm.distributed.joined")
fit_module = importlib.import_module("jaxllm.recipe.fit")


class Watched:
    """This process as the only one of its group, with a watchdog whose clock can be put forward and who only notes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.later = 0.0
        self.verdicts: list[str] = []
        self.said: list[str] = []
        self.patch = monkeypatch.setattr
        self.patch(group_module, "PULSE_SECONDS", 0.05)
        self.patch(leader_module, "LOST_SECONDS", 1e6)  # the clock may be put forward between a sign of life and the look
        self.patch(leader_module, "time", self)
        self.group = Group(0, ["host0"], {}, lambda code: None)
        assert self.group._leader is not None
        self.leader = self.group._leader
        self.patch(self.leader, "end", lambda why, **_: self.verdicts.append(why))
        self.patch(joined_module, "_group", self.group)
        self.looks, judge = 0, self.leader.judge

        def look() -> None:
            judge()
            self.looks += 1

        self.patch(self.leader, "judge", look)

    def monotonic(self) -> float:
        return time.monotonic() + self.later

    def hold(self, owner: Any, name: str, when: Callable[..., bool] = lambda *_: True) -> None:
        """Holds up a function, longer than a step may take and then longer than a phase may."""
        function = getattr(owner, name)

        def held(*arguments, **options):
            if when(*arguments):
                self._wait_until(lambda: self.leader._places[0] == self.group._place)
                self.verdicts.clear()
                self.later += 950
                looks = self.looks
                self._wait_until(lambda: self.looks >= looks + 2)  # the first may have begun before the clock was put forward
                early, place = list(self.verdicts), self.group._place.words()
                self.later += 2700
                self._wait_until(lambda: bool(self.verdicts))
                assert not early and place in self.verdicts[0], (name, early, self.verdicts)
                self.said.append(place)
            return function(*arguments, **options)

        self.patch(owner, name, held)

    def _wait_until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < deadline, f"nothing is said of: {self.group._place.words()}"
            time.sleep(0.01)


@pytest.fixture
def watched(monkeypatch):
    watched = Watched(monkeypatch)
    yield watched
    watched.group._over = True  # its thread goes on, and has nothing more to say


def test_every_phase_that_hangs_is_named(watched, tmp_path):
    watched.patch(fit_module, "num_processes", lambda: 2)  # so that they are compared
    watched.hold(fit_module, "check_same", when=lambda facts, advice: "recipe" in facts)
    watched.hold(fit_module, "agree_on_folder")
    watched.hold(fit_module, "assembled")
    watched.hold(run_folder, "claimed_on_disk")
    watched.hold(Program, "compile_step")
    watched.hold(fit_module, "gather")
    watched.hold(fit_module, "first_state")
    watched.hold(fit_module, "RunLog")
    watched.hold(conclude_module, "make_sample")
    watched.hold(conclude_module, "write_report")
    watched.hold(joined_module, "gather", when=lambda text: text == "")
    fit(tiny.config(run_dir=str(tmp_path / "run"), steps=2))
    assert watched.said == [
        "comparing what each runs",
        "looking at the run folder",
        "opening the data",
        "claiming the run folder",
        "compiling",
        "waiting for the others to compile",
        "making the first parameters",
        "opening the log",
        "waiting for the others to be ready",
        "making the sample (step 2)",
        "writing the report (step 2)",
        "ending",
    ]


def test_a_checkpoint_that_cannot_be_read_to_its_end_is_named(watched, tmp_path):
    fit(tiny.config(run_dir=str(tmp_path / "run"), steps=1))
    watched.hold(Store, "restore")
    fit(tiny.config(run_dir=str(tmp_path / "run"), steps=2))
    assert watched.said == ["restoring a checkpoint"]


@pytest.mark.parametrize("name", ["step_seconds", "phase_seconds"])
def test_no_time_at_all_is_refused(name):
    with pytest.raises(ValueError, match=f"watch.{name} must be above 0: got 0"):
        WatchConfig(**{name: 0.0})
