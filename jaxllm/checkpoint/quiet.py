"""Keeps off the terminal what Orbax leaves behind after an error that it also raises, and that is handled here.

When one of many arrays cannot be read or written, Orbax closes its event loop on the others: their coroutines are never
awaited, their errors never fetched, and the replies that still come in find no loop. Python would print each of those.
"""

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOGS = ("absl", "asyncio")


_lock = threading.Lock()
_users = 0


@contextmanager
def quiet_orbax() -> Iterator[None]:
    """Inside, drop Orbax's log lines and the remains of its failed reads and writes; all else passes as before.

    After an error the hook for the remains stays: the replies that find no loop come when they like, seconds later from
    a slow disk. Threads may be inside at the same time: the first one in starts it, the last one out ends it.
    """
    global _users
    with _lock:
        _users += 1
        for name in LOGS:
            logging.getLogger(name).addFilter(_not_about_orbax)
        if not isinstance(sys.unraisablehook, _Hook):
            sys.unraisablehook = _Hook(sys.unraisablehook)
        hook = sys.unraisablehook
    try:
        yield
    except BaseException:
        hook.stays = True
        raise
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                for name in LOGS:
                    logging.getLogger(name).removeFilter(_not_about_orbax)
                if sys.unraisablehook is hook and not hook.stays:
                    sys.unraisablehook = hook.earlier


@contextmanager
def no_coroutine_warnings() -> Iterator[None]:
    """Let abandoned coroutines be collected without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        yield


def _not_about_orbax(record: logging.LogRecord) -> bool:
    return not any(name in record.pathname or name in record.getMessage() for name in ("orbax", "tensorstore"))


class _Hook:
    """A `sys.unraisablehook` that passes on what is not about Orbax's closed loops."""

    def __init__(self, earlier):
        self.earlier = earlier
        self.stays = False

    def __call__(self, unraisable: "sys.UnraisableHookArgs") -> None:
        code = getattr(unraisable.object, "cr_code", None)
        abandoned = code is not None and "orbax" in code.co_filename
        late = isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == "Event loop is closed"
        if not abandoned and not late:
            self.earlier(unraisable)
