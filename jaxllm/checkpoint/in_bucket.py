"""Checkpoints in a bucket, where nothing can be renamed at once: a checkpoint is whole when its last object is there.

Orbax writes `gs://` by itself, every process its own pieces, and `commit_success.txt` when all are there. For other URLs it
writes to the disk of this host, one process only, and what it wrote is copied, that object last. To delete a checkpoint, that
object goes first. A move copies inside the bucket, object by object: what an interrupted one leaves is found, and goes.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxllm.checkpoint.on_disk import ASIDE, name_of_damaged, steps_aside
from jaxllm.distributed import num_processes
from jaxllm.hardware.bucket import PROBE, Bucket, bucket_error

COMMITTED = "commit_success.txt"


class InBucket:
    """`OnDisk` has the same methods, and their words.

    Raises:
      ValueError: many processes, and a bucket to which each cannot write its pieces.
      OSError: from every method, what the bucket refuses.
    """

    def __init__(self, url: str):
        self._bucket = Bucket(url)
        self._direct = self._bucket.url.startswith("gs://")
        self._work: tempfile.TemporaryDirectory | None = None
        """On this host, what is being written for another URL."""
        if not self._direct and num_processes() > 1:
            raise ValueError(f"many processes need a shared folder or a gs:// URL for a run: got {url}")

    def __str__(self) -> str:
        return self._bucket.url

    def name(self, step: int) -> str:
        return f"{self._bucket.url}/{step}"

    def steps(self) -> list[int]:
        steps = sorted(int(name) for name in self._bucket.names() if name.isdecimal())
        return [step for step in steps if self._is_whole(step)]

    def read(self, step: int, name: str) -> bytes:
        return self._bucket.read(f"{step}/{name}")

    def make_room(self, size: int) -> None:
        """Raises OSError where nothing can be written."""
        self._bucket.now()

    def begin(self, step: int) -> str:
        if self._direct:
            return self.name(step)
        self._work = tempfile.TemporaryDirectory(prefix="jaxllm-checkpoint-")
        return f"{self._work.name}/{step}"

    def end(self, step: int) -> None:
        if self._work is None:
            return
        with self._work as work:
            last = Path(work, str(step), COMMITTED)
            for path in sorted(Path(work).rglob("*")):
                if path.is_file() and path != last:
                    self._bucket.upload(path, path.relative_to(work).as_posix())
            self._bucket.write(f"{step}/{COMMITTED}", b"all objects of this checkpoint are there\n")
        self._work = None

    @contextmanager
    def opened(self, step: int) -> Iterator[str]:
        if self._direct:
            yield self.name(step)
            return
        with tempfile.TemporaryDirectory(prefix="jaxllm-checkpoint-") as work:
            for name in self._bucket.find(str(step)):
                if not name.endswith(f"/{COMMITTED}"):
                    self._bucket.download(name, Path(work, name))
            yield f"{work}/{step}"

    def set_aside(self, step: int) -> None:
        if self._is_whole(step):
            self._move(str(step), f"{step}{ASIDE}")

    def put_back(self) -> None:
        for step in self.aside():
            self._remove(str(step))
            self._move(f"{step}{ASIDE}", str(step))

    def aside(self) -> list[int]:
        steps = steps_aside(self._bucket.names())
        return [step for step in steps if self._bucket.exists(f"{step}{ASIDE}/{COMMITTED}") and not self._is_whole(step)]

    def keep_as_damaged(self, step: int) -> None:
        there = set(self._bucket.names())
        if str(step) in there:
            self._move(str(step), name_of_damaged(step, there))

    def remove_step(self, step: int) -> None:
        self._remove(str(step))

    def remove_unfinished(self) -> None:
        if self._work is not None:
            self._work.cleanup()
            self._work = None
        names = self._bucket.names()
        unfinished = [name for name in names if name.isdecimal() and not self._is_whole(int(name))]
        replaced = [f"{step}{ASIDE}" for step in steps_aside(names) if str(step) in names and str(step) not in unfinished]
        for name in names:
            if name.startswith(PROBE) or name in unfinished or name in replaced:
                self._remove(name)

    def refusal(self, step: int) -> OSError | None:
        """Why some object of a step cannot be read, if so."""
        try:
            for name, size in self._bucket.find(str(step)).items():
                self._bucket.read(name, length=min(size, 1) or None)
        except OSError as error:
            return error
        return None

    def explain(self, error: BaseException) -> BaseException:
        return bucket_error(error, self._bucket.url) or error

    def _is_whole(self, step: int) -> bool:
        return self._bucket.exists(f"{step}/{COMMITTED}")

    def _move(self, folder: str, target: str) -> None:
        last = f"{folder}/{COMMITTED}"
        for name in sorted(self._bucket.find(folder), key=lambda name: name == last):
            self._bucket.copy(name, target + name.removeprefix(folder))
        self._remove(folder)

    def _remove(self, folder: str) -> None:
        self._bucket.delete(f"{folder}/{COMMITTED}")
        self._bucket.delete_folder(folder)
