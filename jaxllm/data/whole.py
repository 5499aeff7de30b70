"""Folders of the cache that several processes want at once: written by one, whole or not at all."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


def write_whole(folder: Path, write: Callable[[Path], None]) -> None:
    """Has `write` fill a hidden folder, which then takes the name `folder`: a reader sees all of it or nothing.

    Of several processes on this host one writes, and the others wait for it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if folder.is_dir():
            return
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            write(work)
            try:
                os.rename(work, folder)
            except OSError:
                if not folder.is_dir():  # else a process of another host finished first, with the same result
                    raise
        finally:
            shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps other processes out as long as the file system can; two that write the same do no harm."""
    lock = folder.with_name(f".{folder.name}.lock")
    with open(lock, "w") as handle:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
