"""Four members of a group in threads of this process, joined over loopback as processes are."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jaxllm.distributed import group as group_module
from jaxllm.distributed import leader as leader_module
from jaxllm.distributed.group import Group
from jaxllm.distributed.leader import Leader, Place
from jaxllm.distributed.line import Line

COUNT = 4


class Members:
    """The groups of `COUNT` processes, and with which code each would have ended."""

    def __init__(self) -> None:
        names = [f"host{index}" for index in range(COUNT)]
        self.codes: dict[int, int] = {}
        self.lines: dict[int, Line] = {}
        to_members = {}
        with socket.create_server(("127.0.0.1", 0)) as server:
            for index in range(1, COUNT):
                self.lines[index] = Line(socket.create_connection(server.getsockname()))
                to_members[index] = Line(server.accept()[0])
        self.lines[0] = to_members[1]  # cut, it parts process 1 from the coordinator
        ends = {0: to_members, **{index: {0: self.lines[index]} for index in range(1, COUNT)}}
        self.groups = [Group(index, names, ends[index], self.leaving(index)) for index in range(COUNT)]
        assert self.groups[0]._leader is not None
        self.leader = self.groups[0]._leader
        for each in self.groups:
            each.set_busy(True)

    def leaving(self, index: int) -> Callable[[int], None]:
        def leave(code: int) -> None:
            self.codes[index] = code

        return leave

    def cut(self, index: int) -> None:
        """As the system does when a process dies; the other side may have closed it already."""
        with contextlib.suppress(OSError):
            self.lines[index]._socket.shutdown(socket.SHUT_RDWR)

    def together(self, act: Callable[[Group], Any]) -> list[Any]:
        """What each gives, all of them at the same time."""
        results: list[Any] = [None] * COUNT

        def run(index: int) -> None:
            results[index] = act(self.groups[index])

        threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(COUNT)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        return results

    def wait_for_ends(self, count: int) -> None:
        wait_until(lambda: len(self.codes) >= count)


def wait_until(holds: Callable[[], bool]) -> None:
    """However busy the machine is."""
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def members(monkeypatch) -> Iterator[Members]:
    monkeypatch.setattr(group_module, "PULSE_SECONDS", 0.05)
    monkeypatch.setattr(group_module, "OTHERS_SECONDS", 0.1)  # nobody ends here
    members = Members()
    yield members
    for each in members.groups:
        each._over = True  # its thread goes on, and has nothing more to say


def test_gather_gives_every_text_to_all(members):
    for turn in range(3):
        found = members.together(lambda group, turn=turn: group.gather(f"{turn} of {group.index}"))
        assert found == [[f"{turn} of {index}" for index in range(COUNT)]] * COUNT


@pytest.mark.parametrize("asking", [0, 2])
@pytest.mark.parametrize("first", [1, 501])
def test_all_stop_after_the_same_step(members, asking, first):
    """However far apart they are when one of them wants to stop; also when it wants to from its first step on."""

    def run(group: Group) -> tuple[int, str]:
        step, why = first - 1, None
        while why is None:
            step += 1
            time.sleep(0.0005 * (1 + group.index))
            asks = group.index == asking and (step == first + 20 or (first > 1 and step == first))
            why = group.agreed_stop(step, "SIGTERM" if asks else None)
        return step, why

    ends = members.together(run)
    assert len(set(ends)) == 1, ends
    assert ends[0][1] == ("SIGTERM" if asking == 0 else "SIGTERM (process 2, host2)")


def test_a_stop_that_is_wanted_before_the_first_step(members):
    assert members.groups[1].agreed_stop(0, "SIGTERM") is None
    wait_until(lambda: all(each._stop for each in members.groups))
    assert len(set(members.together(lambda group: group.agreed_stop(7, None)))) == 1
    assert members.groups[3].agreed_stop(7, None) == "SIGTERM (process 1, host1)"


def test_steps_without_a_stop_cost_microseconds(members):
    begin = time.thread_time()
    for step in range(10_000):
        members.groups[0].beat(step, "in the step")
        assert members.groups[0].agreed_stop(step, None) is None
    assert (time.thread_time() - begin) / 10_000 < 1e-4


def test_a_dead_process_is_named_by_all_others(members, capfd):
    members.groups[2].beat(57, "in the step")
    wait_until(lambda: members.leader._places[2].step == 57)
    members.cut(2)
    members.wait_for_ends(COUNT)
    said = capfd.readouterr().err
    assert said.count("error: process 2 (host2) is gone") == COUNT - 1
    assert "while it was in the step (step 57)" in said and set(members.codes.values()) == {1}


def test_a_dead_coordinator_is_named_by_all_others(members, capfd, monkeypatch):
    monkeypatch.setattr(members.groups[0], "_send", lambda index, message: None)  # the dead say nothing
    for index in range(1, COUNT):
        members.cut(index)
    members.wait_for_ends(COUNT)
    said = capfd.readouterr().err
    assert said.count("error: process 0 (host0), the coordinator, is gone") == COUNT - 1


def test_an_error_is_told_to_all_others(members, capfd):
    members.groups[3].fail(ValueError("found no data set 'x'"))
    members.wait_for_ends(COUNT - 1)
    said = capfd.readouterr().err
    assert said.count("error: process 3 (host3) failed: found no data set 'x'") == COUNT - 1
    assert 3 not in members.codes  # it ends by itself, with its own words


def test_a_process_whose_connections_broke_is_not_blamed(members, monkeypatch, capfd):
    """Its error comes before anybody knows which process died; the dead one is named."""
    failing, is_broken_connection = threading.Event(), group_module._is_broken_connection

    def asked(error: BaseException) -> bool:
        failing.set()
        return is_broken_connection(error)

    monkeypatch.setattr(group_module, "_is_broken_connection", asked)
    error = ValueError("Gloo AllGather failed: closed by peer")
    threading.Thread(target=members.groups[1].fail, args=(error,), daemon=True).start()
    assert failing.wait(20)
    members.cut(2)
    members.wait_for_ends(COUNT)
    said = capfd.readouterr().err
    assert said.count("error: process 2 (host2) is gone") == COUNT - 1 and "process 1 (host1) failed" not in said


def test_who_is_done_may_leave(members, capfd):
    for each in members.groups:
        each.set_busy(False)
    wait_until(lambda: len(members.leader._idle) == COUNT and not any(each._leader_busy for each in members.groups))
    for index in (2, 1, 0):
        members.cut(index)
    wait_until(lambda: [len(each._lines) for each in members.groups] == [1, 0, 0, 1])
    assert members.codes == {} and capfd.readouterr().err == ""


@pytest.mark.parametrize("gone", [0, 2])
def test_who_has_left_is_missed_by_the_next_run(members, capfd, gone):
    for each in members.groups:
        each.set_busy(False)
    time.sleep(0.3)
    for index in range(1, COUNT) if gone == 0 else [gone]:
        members.cut(index)
    time.sleep(0.3)
    assert members.codes == {}
    for each in members.groups[1:] if gone == 0 else members.groups[:2]:
        each.set_busy(True)
    members.wait_for_ends(COUNT - 1)
    said = capfd.readouterr().err
    assert said.count(f"error: process {gone} (host{gone})") >= COUNT - 1 and "takes no part in another run" in said


def test_a_hung_process_is_named_with_the_step_and_stacks(members, capfd):
    for each in members.groups:
        each.step_seconds = 0.5
        each.beat(57, "waiting for its data" if each.index == 1 else "in the step")
    members.wait_for_ends(COUNT)
    said = capfd.readouterr().err
    assert "in the step (step 57), the others wait for process 1 (host1), which is waiting for its data (step 57)" in said
    assert said.count("the stacks of process") == COUNT and "test_a_hung_process" in said


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def judged(monkeypatch):
    """A leader by itself, its clock, and what it tells."""
    clock, told = Clock(), []
    monkeypatch.setattr(leader_module, "time", clock)
    leader = Leader(["a", "b", "c"], lambda index, message: told.append((index, message)))

    def verdicts() -> list[str]:
        return [message["over"] for index, message in told if "over" in message and index == 1]

    return leader, clock, verdicts


def place(*, step: int = 9, doing: str = "in the step", limit: float | None = 60.0, beats: int = 1) -> dict:
    return {"alive": list(Place(step, doing, limit, beats))}


def test_a_run_that_moves_is_not_hung(judged):
    leader, clock, verdicts = judged
    for beats in range(10):
        clock.now += 50
        leader.hear(0, place(beats=beats))
        for index in (1, 2):
            leader.hear(index, place())
        leader.judge()
    assert verdicts() == []
    clock.now += 61
    leader.judge()
    assert len(verdicts()) == 1


def test_what_may_take_long_has_its_own_limit(judged):
    """The slowest place counts: one process compiles, and the others that are through wait for it as long."""
    leader, clock, verdicts = judged

    def hear() -> None:
        for index, (doing, limit) in enumerate((("in the step", 60.0), ("compiling", 3600.0), ("in the step", 60.0))):
            leader.hear(index, place(step=0, doing=doing, limit=limit))

    hear()
    clock.now += 3590
    hear()
    leader.judge()
    assert verdicts() == []
    clock.now += 11
    hear()
    leader.judge()
    assert (
        "no process has moved for 3601 s: in the step, the others wait for process 1 (b), which is compiling" in verdicts()[0]
    )


@pytest.mark.parametrize("doing", ["starting", "in no run"])
def test_a_process_that_never_begins_is_waited_for_as_long_as_others_may_take(judged, doing):
    """It hangs where nothing has been said of limits yet, or does something of its own after another run."""
    leader, clock, verdicts = judged

    def wait(seconds: float) -> None:
        clock.now += seconds
        for index in range(3):
            waits = place(step=0, doing="comparing what each runs", limit=3600.0)
            leader.hear(index, waits if index else {"alive": list(Place(doing=doing))})
        leader.judge()

    wait(0)
    wait(3590)
    assert verdicts() == []
    wait(11)
    assert len(verdicts()) == 1
    assert f"comparing what each runs, the others wait for process 0 (a), which is {doing}" in verdicts()[0]


def test_where_nobody_has_said_how_long_it_may_take_there_is_no_limit(judged):
    leader, clock, verdicts = judged
    for _ in range(2):
        clock.now += 10_000
        for index in range(3):
            leader.hear(index, place(step=0, doing="starting", limit=None))
        leader.judge()
    assert verdicts() == []


def test_a_frozen_process_is_named_by_its_silence(judged):
    leader, clock, verdicts = judged
    for index in range(3):
        leader.hear(index, place())
    for _ in range(30):
        clock.now += 2
        for index in (0, 2):
            leader.hear(index, place())
    leader.judge()
    assert "the others wait for process 1 (b), silent since it was in the step (step 9)" in verdicts()[0]


def test_a_process_that_froze_where_it_may_take_long_is_named(judged):
    """What it said last, that it may stay there, does not count for ever."""
    leader, clock, verdicts = judged
    leader.hear(1, place(step=0, doing="compiling", limit=3600.0))
    for _ in range(7):
        clock.now += 2
        for index in (0, 2):
            leader.hear(index, place(limit=12.0))
    leader.judge()
    assert "no process has moved for 12 s: the others wait for process 1 (b), silent since it was compiling" in verdicts()[0]


def test_a_process_of_which_nothing_is_heard_is_named_while_others_may_take_long(judged):
    leader, clock, verdicts = judged
    for _ in range(20):
        leader.judge()
        assert verdicts() == []
        clock.now += 2.1
        for index in (0, 1):
            leader.hear(index, place(doing="writing the report", limit=3600.0))
    leader.judge()
    assert "process 2 (c) has said nothing for 42 s, since it was starting" in verdicts()[0] and len(verdicts()) == 1


def test_the_coordinator_leaves_last(members, monkeypatch):
    monkeypatch.setattr(group_module, "OTHERS_SECONDS", 20.0)
    members.groups[3].fail(ValueError("found no data set 'x'"))
    wait_until(lambda: set(members.codes) == {1, 2})
    for index in (1, 2):
        members.cut(index)
    time.sleep(0.1)
    assert 0 not in members.codes
    members.cut(3)
    wait_until(lambda: 0 in members.codes)


def test_where_all_wait_at_the_same_place_no_process_is_blamed(judged):
    leader, clock, verdicts = judged
    clock.now += 61
    for index in range(3):
        leader.hear(index, place(beats=0))
    leader.judge()
    assert "a device or the network hangs" in verdicts()[0]
