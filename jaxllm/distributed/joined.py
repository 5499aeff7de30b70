"""The one place where this process joins the others, and what the rest of the program asks of them."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from jaxllm.distributed.group import Group
from jaxllm.distributed.hosts import Hosts, find_hosts
from jaxllm.distributed.meeting import meet
from jaxllm.distributed.same import Different, differences, fingerprint
from jaxllm.hardware.counted import counted

T = TypeVar("T")

HEARTBEAT_SECONDS = 100
"""JAX's own watch over its processes, should ours be caught in a process that does nothing else; it ends them from C++. It may
do so after half of this, and ours is to be the first."""
SHUTDOWN_SECONDS = 20

_group: Group | None = None
_depth = 0


@contextlib.contextmanager
def joined(given: Hosts | None = None) -> Iterator[None]:
    """Inside, this process is one of those of its run: that `given`, the environment or the cluster tells of. To be entered
    before JAX has chosen its devices. At its end it waits for the others.

    An error that leaves it ends the run: the other processes say which process failed, and why, and stop at once; this one has
    some seconds for what it wants to say. Inside another, `joined` does that much sooner: before what lies between them waits
    for other processes.

    Raises:
      ValueError: the coordinator could not be reached, or not all processes came in time.
    """
    global _group, _depth
    if _depth == 0:
        _group = _group or _find_group(given or Hosts())
        if _group is not None:
            _group.set_busy(True)
    _depth += 1
    try:
        yield
        if _group is not None and _depth == 1:
            beat(0, "ending", long=True)
            gather("")
    except (Different, SystemExit):  # the same on all processes
        raise
    except BaseException as error:
        if _group is not None:
            _group.fail(error)
        raise
    finally:
        _depth -= 1
        if _group is not None and _depth == 0:
            _group.set_busy(False)


def _find_group(given: Hosts) -> Group | None:
    import jax

    hosts = find_hosts(given)
    if hosts is not None:
        return _connect(hosts)
    if jax.distributed.is_initialized():
        raise ValueError(
            "processes must be joined by jaxllm.distributed.joined, not by jax.distributed.initialize: leave that call out, "
            "and give Hosts(coordinator=..., num_processes=..., process_index=...) where the cluster does not tell"
        )
    return None


def _connect(hosts: Hosts) -> Group:
    import jax

    assert hosts.process_index is not None
    lines, names = meet(hosts)
    group = Group(hosts.process_index, names, lines)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # Its handler would swallow SIGTERM until the process ends; here that is agreed by `agreed_stop`, for any signal.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        coordinator_address=hosts.coordinator,
        num_processes=hosts.num_processes,
        process_id=hosts.process_index,
        local_device_ids=hosts.local_devices,
        cluster_detection_method="deactivate",
        initialization_timeout=max(1, int(hosts.connect_timeout)),
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=SHUTDOWN_SECONDS,
    )
    return group


def process_index() -> int:
    """Which process this is, from 0. Touches no device."""
    return 0 if _group is None else _group.index


def num_processes() -> int:
    """How many processes the run has. Touches no device."""
    return 1 if _group is None else _group.count


def is_first() -> bool:
    """Whether this is process 0, which prints, logs and writes for all."""
    return process_index() == 0


def gather(text: str) -> list[str]:
    """What each process gave, by process: all call it, in the same order, from their main threads."""
    return [text] if _group is None else _group.gather(text)


def from_first(make: Callable[[], T]) -> T:
    """What process 0 makes, a JSON value, on all processes: all call it, as `gather`. Also a barrier that none passes before
    it is made."""
    if _group is None:
        return make()
    made = make() if _group.index == 0 else None
    told = gather(json.dumps(made) if _group.index == 0 else "")[0]
    return json.loads(told) if made is None else made


def beat(step: int, doing: str, *, long: bool = False) -> None:
    """Notes where the main thread is, for the case that the run hangs. Cheap.

    Args:
      step: the step it works on; 0 before the first and where steps do not matter.
      doing: in a few words, as in "process 1 is compiling".
      long: whether it may take as long as a phase, and not only as long as a step: `limit_time`.
    """
    if _group is not None:
        _group.beat(step, doing, long=long)


def limit_time(*, step_seconds: float, phase_seconds: float) -> None:
    """A run in which no process moves for so long is ended, with what they do, the process that is missing, and stacks. Holds
    from the next `beat` on; before the first there is no limit. A process that is in no run, or on its way into one, is waited
    for as long as the others may take where they are."""
    if _group is not None:
        _group.step_seconds, _group.phase_seconds = step_seconds, phase_seconds


def agreed_stop(step: int, wanted: str | None) -> str | None:
    """Why all processes stop after this step, once one of them wants to; the same answer on all of them, without waiting for
    any device. All call it once a step."""
    return wanted if _group is None else _group.agreed_stop(step, wanted)


def check_same(facts: Mapping[str, Any], advice: str) -> None:
    """Refuses to go on unless these facts are the same on all processes; all call it, as `gather`.

    Raises:
      Different: a ValueError, on all of them, that names what differs and on which process.
    """
    if _group is None or len(set(gather(fingerprint(facts)))) == 1:
        return
    first = from_first(lambda: dict(facts))
    found = gather("; ".join(differences(first, dict(facts))))
    told = [f"process {index} ({_group.names[index]}): {text}" for index, text in enumerate(found) if text]
    more = f"; and {len(told) - 4} more processes" if len(told) > 4 else ""
    raise Different(
        f"all processes must be the same as process 0 ({_group.names[0]}), which is not so for {'; '.join(told[:4])}{more}. "
        f"{advice}"
    )


def describe_hosts() -> str:
    """The processes in a few words, "4 processes on 2 hosts"; nothing where there is one."""
    if _group is None:
        return ""
    return f"{counted(_group.count, 'process')} on {counted(len(set(_group.names)), 'host')}"


def unseen_by(path: str) -> list[str]:
    """Processes, by number and host, that do not see a file or folder; all call it, as `gather`."""
    seen = gather("seen" if os.path.exists(path) else "")
    return [] if _group is None else [f"{index} ({_group.names[index]})" for index, text in enumerate(seen) if not text]
