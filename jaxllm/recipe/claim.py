"""One run at a time trains in a folder.

On a disk a lock says so, which ends with its process. In a bucket an object does: its process writes it again every few
seconds, so that one that nobody writes any more counts for nothing, and ends if it finds another's in its place. Who finds
one that counts for nothing deletes what it found and nothing newer: of many that do, one takes its place. A process that was
cut off from the bucket for longer than that and comes back to find its place taken ends without saving.
"""

import contextlib
import fcntl
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from jaxllm.distributed.group import leave
from jaxllm.hardware.bucket import Bucket
from jaxllm.recipe.working_copy import CLAIM_FILE

BEAT_SECONDS = 10.0
STALE_SECONDS = 3 * BEAT_SECONDS


@contextlib.contextmanager
def claimed_on_disk(path: Path) -> Iterator[None]:
    """Makes the folder; one in which nothing came to be is taken away.

    Raises:
      ValueError: another run trains in it.
    """
    path.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ValueError(f"another process is training in {path}: wait for it, or choose another --run-dir") from None
    try:
        yield
    finally:
        if not any(path.iterdir()):
            path.rmdir()
        os.close(handle)


@contextlib.contextmanager
def claimed_in_bucket(bucket: Bucket) -> Iterator[None]:
    """Raises:
    ValueError: another run trains in it.
    OSError: the bucket cannot be written.
    """
    mine = f"{socket.gethostname()}, process {os.getpid()}, {uuid4().hex}"
    _take(bucket, mine)
    ended = threading.Event()
    keeper = threading.Thread(target=_keep, args=(bucket, mine, ended), name="claim", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        with contextlib.suppress(OSError):
            version = bucket.version(CLAIM_FILE)
            if _holder(bucket) == mine:
                bucket.delete_version(CLAIM_FILE, version)


def _take(bucket: Bucket, mine: str) -> None:
    """Waits for at most `STALE_SECONDS`, where there is a claim, for a sign of who made it."""
    written: datetime | None = None
    while True:
        with contextlib.suppress(FileExistsError):
            bucket.write(CLAIM_FILE, mine.encode(), new=True)
            return
        with contextlib.suppress(FileNotFoundError):  # given up just now
            version = bucket.version(CLAIM_FILE)
            last = bucket.modified(CLAIM_FILE)
            if written not in (None, last):
                raise ValueError(
                    f"another process is training in {bucket.url} ({_holder(bucket)}): wait for it, or choose another --run-dir"
                )
            if (bucket.now() - last).total_seconds() > STALE_SECONDS:
                bucket.delete_version(CLAIM_FILE, version)
            elif written is None:
                print(f"waiting for a sign of who trained last in {bucket.url}: {_holder(bucket)}", flush=True)
                written = last
            else:
                time.sleep(min(1.0, BEAT_SECONDS))


def _keep(bucket: Bucket, mine: str, ended: threading.Event) -> None:
    while not ended.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):  # the next time it may get through
            holder = _holder(bucket)
            if holder not in (None, mine):
                print(f"error: another process has taken over {bucket.url} ({holder}): this one ends", file=sys.stderr)
                leave(1)
                return
            bucket.write(CLAIM_FILE, mine.encode(), new=holder is None)


def _holder(bucket: Bucket) -> str | None:
    with contextlib.suppress(FileNotFoundError):
        return bucket.read(CLAIM_FILE).decode()
    return None
