"""The small files of a run in a bucket, as a folder of this host: everything but the checkpoints, which Orbax writes there.

A bucket has no file to append to, and loads no tokenizer. So a run works in a folder of its host as any run does, and sends
what changed: its description at the start, its log now and then and before each checkpoint, its report at the end.
"""

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path

from jaxllm.hardware.bucket import PROBE, Bucket, in_bucket, local_path
from jaxllm.recipe.serialize import RECIPE_FILE

CLAIM_FILE = "claim.txt"
"""Object of the process that trains there: `jaxllm.recipe.claim`."""
NOT_FETCHED = ("checkpoints/", "tensorboard/", "wandb/", CLAIM_FILE, PROBE)
"""What no process of this host reads: a run that goes on writes new event files beside the old ones."""


class WorkingCopy:
    """One for each process and URL: `working_copy`."""

    def __init__(self, url: str):
        self.bucket = Bucket(url)
        work = tempfile.mkdtemp(prefix="jaxllm-run-")
        atexit.register(shutil.rmtree, work, ignore_errors=True)
        self.path = Path(work, self.bucket.url.rpartition("/")[2])
        self.path.mkdir()
        self._sent: dict[str, tuple[int, int]] = {}
        """Size and time of each file when it was last the same on both sides."""
        self._fetched: dict[str, str] = {}
        """Which version of each object was copied here."""

    def fetch(self) -> None:
        """Makes the folder what the bucket has now; what is not there goes here, too. Copies only what changed since."""
        there = {name: found for name, found in self.bucket.versions().items() if not name.startswith(NOT_FETCHED)}
        here = self._files()
        whole = {name for name in there if self._fetched.get(name) == there[name] and self._sent.get(name) == here.get(name)}
        for name in here.keys() - whole:
            (self.path / name).unlink()
        for parent, _, _ in os.walk(self.path, topdown=False):
            if parent != str(self.path) and not os.listdir(parent):
                os.rmdir(parent)
        for name in there.keys() - whole:
            self.bucket.download(name, self.path / name)
            self._sent[name] = _state(self.path / name)
        self._sent = {name: self._sent[name] for name in there}
        self._fetched = there

    def publish(self) -> None:
        """Sends each file that changed; the recipe last, so that it marks a whole folder."""
        changed = {name: state for name, state in self._files().items() if self._sent.get(name) != state}
        for name, state in sorted(changed.items(), key=lambda file: (file[0] == RECIPE_FILE, file)):
            self._fetched.pop(name, None)
            self.bucket.upload(self.path / name, name)
            self._sent[name] = state

    def _files(self) -> dict[str, tuple[int, int]]:
        paths = (Path(parent, name) for parent, _, names in os.walk(self.path) for name in names)
        return {path.relative_to(self.path).as_posix(): _state(path) for path in paths if not path.is_symlink()}


def _state(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_size, about.st_mtime_ns


@functools.cache
def working_copy(url: str) -> WorkingCopy:
    """The copy of this process; nothing is fetched yet."""
    return WorkingCopy(url)


def fetched(place: str | Path) -> Path:
    """A folder itself; of a URL its working copy, as it is in the bucket now.

    Raises:
      ValueError, OSError: see `Bucket`.
    """
    if not in_bucket(place):
        return local_path(place)
    copy = working_copy(str(place).rstrip("/"))
    copy.fetch()
    return copy.path
