"""All processes come together at the coordinator's address, or every one that came says in a sentence why not.

JAX's own service would end the program from C++ where a process cannot be reached. So they meet here first, on the same
port, and keep the connections; then process 0 hands the port to JAX.
"""

import contextlib
import socket
import sys
import time

from jaxllm.distributed.hosts import Hosts
from jaxllm.distributed.line import Line, Message, readable

RETRY_SECONDS = 0.2
QUIET_SECONDS = 5.0
"""After this long a process says what it waits for."""
GREETING = "jaxllm"


def meet(hosts: Hosts) -> tuple[dict[int, Line], list[str]]:
    """Connections to the other processes (for process 0), or to process 0 (for the others), and the host of each process.

    Raises:
      ValueError: not all processes came in time, or they do not fit together.
    """
    return _wait_for_all(hosts) if hosts.process_index == 0 else _come(hosts)


def _wait_for_all(hosts: Hosts) -> tuple[dict[int, Line], list[str]]:
    assert hosts.num_processes is not None
    lines: dict[int, Line] = {}
    names = {0: socket.gethostname()}
    guests: list[Line] = []
    with _listen(hosts) as server:
        try:
            _receive_guests(hosts, server, guests, lines, names)
        finally:
            for guest in guests:
                guest.close()
    hosts_of_all = [names[index] for index in range(hosts.num_processes)]
    for index, line in lines.items():
        try:
            line.send({"go": hosts_of_all})
        except OSError:
            raise _refuse(lines, f"process {index} ({names[index]}) came and went again: look at what it said") from None
    return lines, hosts_of_all


def _receive_guests(
    hosts: Hosts, server: socket.socket, guests: list[Line], lines: dict[int, Line], names: dict[int, str]
) -> None:
    """Until all processes are in `lines`; who has not yet said who it is waits in `guests`."""
    assert hosts.num_processes is not None
    deadline = time.monotonic() + hosts.connect_timeout
    quiet_until = time.monotonic() + QUIET_SECONDS
    while len(lines) < hosts.num_processes - 1:
        ready = readable([server, *guests, *lines.values()], min(deadline, quiet_until) - time.monotonic())
        if not ready and time.monotonic() < deadline:
            _say(f"waiting at {hosts.coordinator} for {_missing(hosts, set(lines))}, for up to {hosts.connect_timeout:g} s")
            quiet_until = deadline
            continue
        if not ready:
            raise _refuse(lines, _who_is_missing(hosts, set(lines)))
        if server in ready:
            guests.append(Line(server.accept()[0]))
        for index in [index for index, line in lines.items() if line in ready]:
            if _hello(lines[index]) == {}:
                raise _refuse(lines, f"process {index} ({names[index]}) came and went again: look at what it said")
        for guest in [line for line in ready if line in guests]:
            hello = _hello(guest)
            if hello is None:
                continue
            guests.remove(guest)
            if not hello:
                guest.close()  # no process of ours
                continue
            problem = _problem(hello, hosts, lines)
            if problem is not None:
                raise _refuse({**lines, -1: guest}, problem)
            lines[hello["index"]] = guest
            names[hello["index"]] = hello["host"]


def _listen(hosts: Hosts) -> socket.socket:
    port = hosts.address[1]
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
        return socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise ValueError(
            f"process 0 must be able to listen on port {port} of its host ({error.strerror}): choose another port in "
            "--coordinator, or end the program that has it"
        ) from None


def _hello(guest: Line) -> Message | None:
    """What a newcomer says; None: not yet all of it; empty: nothing that we understand."""
    try:
        messages = guest.receive()
    except (EOFError, ValueError):
        return {}
    if not messages:
        return None
    hello = messages[0]
    fits = hello.get("hello") == GREETING and all(isinstance(hello.get(name), int) for name in ("index", "count"))
    return hello if fits else {}


def _problem(hello: Message, hosts: Hosts, there: dict[int, Line]) -> str | None:
    index, count = hello["index"], hello["count"]
    if count != hosts.num_processes:
        return (
            f"all processes need the same --num-processes: process {index} ({hello['host']}) has {count}, process 0 has "
            f"{hosts.num_processes}"
        )
    if index == 0 or index in there:
        return f"each process needs its own --process-index: two have {index}, one of them on {hello['host']}"
    return None


def _missing(hosts: Hosts, there: set[int]) -> str:
    assert hosts.num_processes is not None
    missing = [str(index) for index in range(1, hosts.num_processes) if index not in there]
    return f"process {missing[0]}" if len(missing) == 1 else f"processes {', '.join(missing[:16])}"


def _who_is_missing(hosts: Hosts, there: set[int]) -> str:
    missing = _missing(hosts, there)
    return (
        f"all {hosts.num_processes} processes must come to {hosts.coordinator} within {hosts.connect_timeout:g} s: {missing} "
        f"{'are' if ',' in missing else 'is'} missing; start them at about the same time, and see what they say"
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _refuse(lines: dict[int, Line], problem: str) -> ValueError:
    for line in lines.values():
        try:
            line.send({"refused": problem})
        except OSError:
            pass
        line.close()
    return ValueError(problem)


def _come(hosts: Hosts) -> tuple[dict[int, Line], list[str]]:
    deadline = time.monotonic() + hosts.connect_timeout
    line = Line(_connect(hosts, deadline))
    hello = {"hello": GREETING, "index": hosts.process_index, "count": hosts.num_processes, "host": socket.gethostname()}
    with contextlib.suppress(OSError):  # then there is no answer, either
        line.send(hello)
    # Process 0 may have started later than this one, and waits as long from then.
    answer = _answer(line, deadline + hosts.connect_timeout)
    if answer is None:
        raise ValueError(
            f"the coordinator at {hosts.coordinator} must answer: process {hosts.process_index} reached it and got no "
            "answer; is --coordinator the address of process 0, and has process 0 failed?"
        )
    if "refused" in answer:
        line.close()
        raise ValueError(answer["refused"])
    return {0: line}, answer["go"]


def _connect(hosts: Hosts, deadline: float) -> socket.socket:
    quiet_until = time.monotonic() + QUIET_SECONDS
    while True:
        left = deadline - time.monotonic()
        try:
            return socket.create_connection(hosts.address, timeout=max(0.1, min(10.0, left)))
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
            if time.monotonic() >= quiet_until:
                quiet_until = deadline
                _say(f"waiting for process 0 at {hosts.coordinator} ({reason}), for up to {hosts.connect_timeout:g} s")
            if time.monotonic() + RETRY_SECONDS >= deadline:
                raise ValueError(
                    f"the coordinator at {hosts.coordinator} must be reachable: process {hosts.process_index} could not "
                    f"reach it within {hosts.connect_timeout:g} s ({reason}); is process 0 running there, and does a "
                    "firewall let the port through?"
                ) from None
        time.sleep(RETRY_SECONDS)


def _answer(line: Line, deadline: float) -> Message | None:
    try:
        while (left := deadline - time.monotonic()) > 0:
            if readable([line], left) and (messages := line.receive()):
                return messages[0]
    except (EOFError, ValueError):
        pass
    line.close()
    return None
