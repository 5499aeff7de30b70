"""Checkpoints in a folder of the file system: written beside and renamed, so that every name is a whole one.

<folder>/<step>/              `jaxllm.checkpoint.files`
<folder>/<step>.damaged/      a checkpoint found damaged, out of the way: kept for its owner to look at or delete
<folder>/<step>.aside/        set aside while another of that step is written: put back where that was never finished
<folder>/<step>.leaving/      on its way out
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".orbax-checkpoint-tmp"
ASIDE = ".aside"
LEAVING = ".leaving"
DAMAGED = ".damaged"


class OnDisk:
    """`InBucket` has the same methods."""

    def __init__(self, folder: Path):
        self.folder = folder.absolute()

    def __str__(self) -> str:
        return str(self.folder)

    def name(self, step: int) -> str:
        return str(self.folder / str(step))

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal())

    def read(self, step: int, name: str) -> bytes:
        """A small file of a checkpoint."""
        return (self.folder / str(step) / name).read_bytes()

    def make_room(self, size: int) -> None:
        """Raises OSError for a disk that is full or read-only, before anything is written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=self.folder).close()
        free = shutil.disk_usage(self.folder).free
        if free < size:
            message = f"No space left on device, {size / 1e6:.1f} MB needed and {free / 1e6:.1f} MB free"
            raise OSError(errno.ENOSPC, message)

    def begin(self, step: int) -> str:
        """Where a step is to be written."""
        return self.name(step)

    def end(self, step: int) -> None:
        """What was written is whole: Orbax renames it as its last act, so it has the name it shall have."""

    @contextmanager
    def opened(self, step: int) -> Iterator[str]:
        """Where a step is to be read."""
        yield self.name(step)

    def set_aside(self, step: int) -> None:
        """Make room for a new save of `step`, if there is one already."""
        if (self.folder / str(step)).exists():
            (self.folder / str(step)).rename(self.folder / f"{step}{ASIDE}")

    def put_back(self) -> None:
        """Undo `set_aside` for each step of which no other checkpoint came to be."""
        for step in self.aside():
            (self.folder / f"{step}{ASIDE}").rename(self.folder / str(step))

    def aside(self) -> list[int]:
        """Steps that `put_back` would put back, oldest first."""
        steps = steps_aside(path.name for path in self.folder.glob(f"*{ASIDE}"))
        return [step for step in steps if not (self.folder / str(step)).exists()]

    def keep_as_damaged(self, step: int) -> None:
        """Rename a step, if it is there, so that it is no checkpoint any more; an earlier one of that name stays, too."""
        if (self.folder / str(step)).exists():
            there = {path.name for path in self.folder.iterdir()}
            (self.folder / str(step)).rename(self.folder / name_of_damaged(step, there))

    def remove_step(self, step: int) -> None:
        """Delete a step so that it disappears at once, even if the deletion is interrupted."""
        leaving = self.folder / f"{step}{LEAVING}"
        (self.folder / str(step)).rename(leaving)
        shutil.rmtree(leaving)

    def remove_unfinished(self) -> None:
        """Delete what interrupted saves and deletions left behind, and what was set aside for a checkpoint that is there."""
        if not self.folder.is_dir():
            return
        replaced = [f"{step}{ASIDE}" for step in self.steps()]
        for path in self.folder.iterdir():
            if UNFINISHED in path.name or path.name.endswith(LEAVING) or path.name in replaced:
                shutil.rmtree(path, ignore_errors=True)

    def refusal(self, step: int) -> OSError | None:
        """Why some file of a step cannot be opened, if so: Orbax takes one for missing that it is not allowed to see."""

        def refuse(error: OSError) -> None:
            raise error

        try:
            for parent, _, names in os.walk(self.folder / str(step), onerror=refuse):
                for name in names:
                    open(os.path.join(parent, name), "rb").close()
        except OSError as error:
            return OSError(error.errno, error.strerror, error.filename)  # a new one: not tied to the failed read's remains
        return None

    def explain(self, error: BaseException) -> BaseException:
        """What a library raised, in words of the place."""
        return error


def name_of_damaged(step: int, there: Collection[str]) -> str:
    """What a damaged step is renamed to, beside the names that are there."""
    target, copies = f"{step}{DAMAGED}", 1
    while target in there:
        copies += 1
        target = f"{step}{DAMAGED}-{copies}"
    return target


def steps_aside(names: Iterable[str]) -> list[int]:
    """The steps that were set aside, of the names in a folder."""
    steps = (name.removesuffix(ASIDE) for name in names if name.endswith(ASIDE))
    return sorted(int(step) for step in steps if step.isdecimal())
