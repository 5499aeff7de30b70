"""Processes that come together, or not, in threads of this one; and the ways to tell a process who it is."""

import contextlib
import socket
import threading
import time
from typing import Any

import pytest

from jaxllm.cli import run
from jaxllm.distributed import Hosts, find_hosts, meeting
from jaxllm.distributed.hosts import CLUSTER_SIGNS, ENVIRONMENT
from jaxllm.distributed.line import Line
from jaxllm.distributed.meeting import meet
from tests.distributed.launch import free_port


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in (*ENVIRONMENT.values(), *CLUSTER_SIGNS):
        monkeypatch.delenv(name, raising=False)


def meet_and_part(hosts: Hosts) -> tuple[list[int], list[str]]:
    """To whom there were connections, and all hosts."""
    lines, names = meet(hosts)
    for line in lines.values():
        line.close()
    return sorted(lines), names


def come(*whos: tuple[int, int], seconds: float = 10.0) -> list[Any]:
    """What `meet` gives, or the words of its error, for processes of (index, count)."""
    address = f"127.0.0.1:{free_port()}"
    found: list[Any] = [None] * len(whos)

    def one(number: int, index: int, count: int) -> None:
        hosts = Hosts(coordinator=address, process_index=index, num_processes=count, connect_timeout=seconds)
        try:
            found[number] = meet_and_part(hosts)
        except ValueError as error:
            found[number] = str(error)

    threads = [threading.Thread(target=one, args=(number, *who)) for number, who in enumerate(whos)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    return found


def test_all_come():
    found = come((0, 3), (2, 3), (1, 3))
    assert [there for there, _ in found] == [[1, 2], [0], [0]]
    assert all(names == [socket.gethostname()] * 3 for _, names in found)


def test_the_port_is_free_for_jax_when_all_have_come():
    address = f"127.0.0.1:{free_port()}"
    hosts = [Hosts(coordinator=address, process_index=i, num_processes=2, connect_timeout=10.0) for i in (0, 1)]
    found: list[Any] = []
    threads = [threading.Thread(target=lambda each=each: found.append(meet(each))) for each in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    with socket.create_server(("127.0.0.1", hosts[0].address[1])):
        assert len(found) == 2  # the connections are still there
    for lines, _ in found:
        for line in lines.values():
            line.close()


def test_one_that_is_missing_is_named():
    found = come((0, 4), (1, 4), (3, 4), seconds=2.0)
    assert len(set(found)) == 1
    assert "all 4 processes must come to 127.0.0.1:" in found[0] and "within 2 s: process 2 is missing" in found[0]


def test_what_is_waited_for_is_said(monkeypatch, capfd):
    monkeypatch.setattr(meeting, "QUIET_SECONDS", 0.3)
    come((0, 4), (2, 4), seconds=1.5)
    assert "waiting at 127.0.0.1:" in (said := capfd.readouterr().err) and "for processes 1, 3, for up to 1.5 s" in said
    come((1, 2), seconds=1.5)
    said = capfd.readouterr().err
    assert said.count("waiting for process 0 at 127.0.0.1:") == 1 and "(Connection refused), for up to 1.5 s" in said


def test_one_that_came_and_went_ends_the_wait_of_the_others():
    """It was killed while others were still to come."""
    address = ("127.0.0.1", free_port())
    host = f"{address[0]}:{address[1]}"
    found: list[str] = []

    def first() -> None:
        with pytest.raises(ValueError) as error:
            meet(Hosts(coordinator=host, process_index=0, num_processes=3, connect_timeout=60.0))
        found.append(str(error.value))

    thread = threading.Thread(target=first)
    thread.start()
    with contextlib.closing(Line(meeting._connect(Hosts(coordinator=host), time.monotonic() + 10))) as line:
        line.send({"hello": meeting.GREETING, "index": 2, "count": 3, "host": "there"})
        time.sleep(0.3)
    thread.join(20)
    assert found == ["process 2 (there) came and went again: look at what it said"]


def test_two_with_one_number():
    found = come((0, 3), (1, 3), (1, 3))
    assert "each process needs its own --process-index: two have 1" in found[0]


def test_another_number_of_processes():
    found = come((0, 3), (1, 2), seconds=2.0)
    assert found[0] == found[1] and "process 1" in found[0] and "has 2, process 0 has 3" in found[0]


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        hosts = Hosts(coordinator=f"127.0.0.1:{taken.getsockname()[1]}", process_index=0, num_processes=2)
        with pytest.raises(ValueError, match=r"process 0 must be able to listen on port \d+ of its host \(Address already"):
            meet(hosts)


def test_strangers_are_ignored():
    address = f"127.0.0.1:{free_port()}"
    hosts = [Hosts(coordinator=address, process_index=i, num_processes=2, connect_timeout=10.0) for i in (0, 1)]
    found: list[Any] = []
    first = threading.Thread(target=lambda: found.append(meet_and_part(hosts[0])))
    first.start()
    for words in (b"GET / HTTP/1.1\r\n\r\n", b'"hello"\n', b'{"hello": 1}\n', b""):
        while True:
            try:
                stranger = socket.create_connection(hosts[0].address)
                break
            except ConnectionRefusedError:
                continue
        stranger.sendall(words)
        stranger.close()
    found.append(meet_and_part(hosts[1]))
    first.join(20)
    assert len(found) == 2


def test_a_coordinator_that_cannot_be_reached(capsys):
    """In a sentence, after a bounded time, before the recipe is even read."""
    where = ["--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", "2", "--process-index", "1"]
    assert run(["train", "no_such_recipe.py", *where, "--connect-timeout", "0.5"]) == 2
    said = capsys.readouterr().err
    assert "process 1 could not reach it within 0.5 s (Connection refused)" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--coordinator", "10.0.0.1"], "--coordinator must be HOST:PORT, such as 10.0.0.1:8476: got '10.0.0.1'"),
        (["--num-processes", "2"], "--coordinator and --process-index are missing"),
        (["--num-processes", "two"], "--num-processes: invalid int value: 'two'"),
        (["--num-processes", "2", "--process-index", "2"], "--process-index must be in 0..1: got 2"),
        (["--connect-timeout", "0"], "--connect-timeout must be a number of seconds above 0: got 0"),
    ],
)
def test_bad_options(capsys, options, message):
    assert run(["train", "tests/recipe/tiny.py", *options]) == 2
    assert message in capsys.readouterr().err


def test_the_environment_tells(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "10.0.0.1:8476")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "4")
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    hosts = find_hosts(Hosts(process_index=3))
    assert hosts == Hosts(coordinator="10.0.0.1:8476", num_processes=4, process_index=3)
    monkeypatch.delenv("JAX_PROCESS_ID")
    with pytest.raises(ValueError, match="tells: --process-index is missing; add it, or set"):
        find_hosts(Hosts())
    monkeypatch.setenv("JAX_PROCESS_ID", "first")
    with pytest.raises(ValueError, match="JAX_PROCESS_ID must be a whole number: got 'first'"):
        find_hosts(Hosts())


def test_slurm_tells(monkeypatch):
    settings = {"JOB_ID": "7", "STEP_NODELIST": "node[003-004]", "NTASKS": "2", "PROCID": "1", "LOCALID": "0"}
    for name, value in settings.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    hosts = find_hosts(Hosts())
    assert hosts is not None and (hosts.num_processes, hosts.process_index, hosts.local_devices) == (2, 1, (0,))
    assert hosts.address[0] == "node003"
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert find_hosts(Hosts()) is None


def test_alone():
    assert find_hosts(Hosts()) is None and find_hosts(Hosts(num_processes=1)) is None
