"""Folders that are there whole or not at all: those of the cache, which several processes want at once, and new ones."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder to fill, beside `folder`, whose name it takes at the end; where something goes wrong it is gone.

    Args:
      folder: is not there yet.
    """
    unfinished = folder.with_name(f".{folder.name}.unfinished-{os.getpid()}")
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


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
