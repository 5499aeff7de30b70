"""A command that may crash its process goes on in a child of it: the crash is then told in a sentence."""

import contextlib
import os
import signal
import sys

KILLED = (
    "killed from outside, as the system does for lack of memory; free some, take a machine with more, or give smaller sizes "
    "(--batch-size, --data.seq-len)"
)
CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}


def go_on_in_child(crashed: str) -> int | None:
    """Forks. The child gets None and goes on; this process waits for it and gets its exit code. None, too, where there is no
    child: under Windows, and where JAX was imported already, whose threads a child would lack.

    Args:
      crashed: what to say on stderr, behind the signal's name, when the child crashes.
    """
    if not hasattr(os, "fork") or "jax" in sys.modules:
        return None
    sys.stdout.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until it is known to whom it is to be passed on
    child = os.fork()
    if child:
        signal.signal(signal.SIGTERM, lambda number, _: os.kill(child, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    if child == 0:
        return None
    status = _wait(child)
    if not os.WIFSIGNALED(status):
        return os.waitstatus_to_exitcode(status)
    ended = signal.Signals(os.WTERMSIG(status))
    if ended in CRASHES:
        print(f"error: {ended.name}: {crashed}", file=sys.stderr)
        return 1
    if ended == signal.SIGKILL:
        print(f"error: {ended.name}: {KILLED}", file=sys.stderr)
    return 128 + ended


def _wait(child: int) -> int:
    while True:
        with contextlib.suppress(KeyboardInterrupt):  # the child gets it, too, and ends
            return os.waitpid(child, 0)[1]
