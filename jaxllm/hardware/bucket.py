"""Buckets: `gs://bucket/folder`, and whatever else fsspec reads and writes, in the few moves that a bucket has.

An object appears whole or not at all, and can be replaced but not appended to; there are no folders, only names with
slashes; nothing can be renamed at once. What goes wrong is an OSError that says what to do.
"""

import errno
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from jaxllm.hardware.reach import check_google_storage

os.environ.setdefault("EPATH_USE_TF", "false")  # by which Orbax reads gs://: else by TensorFlow, wherever that is installed

NEEDED = {"gs": "'jaxllm[gcs]'", "s3": "s3fs", "abfs": "adlfs", "az": "adlfs"}
"""What pip installs for a kind of URL."""
ADVICE = (
    "log in by `gcloud auth application-default login`, or on a machine of Google Cloud give its service account "
    "the role Storage Object User (roles/storage.objectUser) on the bucket; does the bucket exist?"
)
PROBE = ".jaxllm-probe"

_deleting = threading.Lock()


def is_url(place: str | Path) -> bool:
    """Whether a place is written as a URL, `file://` among them."""
    return "://" in str(place)


def in_bucket(place: str | Path) -> bool:
    """Whether a place is in a bucket; `file://` is a folder of this host."""
    return is_url(place) and not str(place).startswith("file://")


def local_path(place: str | Path) -> Path:
    """A place that is no URL, or a `file://` one, as a path.

    Raises:
      ValueError: a URL with a slash too few.
    """
    if isinstance(place, str) and re.match(r"(gs|gcs|s3|az|abfs|memory|file):/(?!/)", place):
        raise ValueError(f"a URL has two slashes, as in gs://bucket/folder: got {place}")
    return Path(str(place).removeprefix("file://"))


def open_url(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and its words for the place.

    Raises:
      ValueError: fsspec cannot open this kind of URL here.
      OSError: Google's storage cannot be reached.
    """
    import fsspec.config

    for name in ("gcsfs", "google.auth"):  # what they print of an error is raised, too
        if logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(logging.CRITICAL)
    # Other processes write in a bucket, too: a listing is never old.
    fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
    try:
        if url.startswith(("gs://", "gcs://")):
            fsspec.get_filesystem_class("gs")  # a package that is missing is told first
            _check_reachable(url)
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        package = NEEDED.get(url.partition("://")[0])
        advice = f"pip install {package}" if package else "give a folder of this host, or a gs:// URL"
        raise ValueError(f"{url} cannot be opened here ({error}): {advice}") from None


def _check_reachable(url: str) -> None:
    try:
        check_google_storage()
    except OSError as error:
        advice = "is this host on the network? Try again there, or give a folder of this host"
        raise OSError(errno.EHOSTUNREACH, f"the bucket is out of reach ({error}): {advice}", url) from None


def version_of(about: Mapping[str, Any]) -> str:
    """What changes when an object is written again, of what a file system tells about it."""
    changes = ("size", "generation", "etag", "ETag", "mtime", "updated", "LastModified", "last_modified", "created")
    return " ".join(f"{key}={about[key]}" for key in changes if key in about)


class Bucket:
    """A folder in a bucket. Names are relative to it.

        bucket = Bucket("gs://bucket/runs/try")
        bucket.write("recipe.json", b"{}")

    Raises:
      ValueError: fsspec cannot open this kind of URL here.
      PermissionError, FileNotFoundError, FileExistsError, or another OSError: from every function, with the URL.
    """

    def __init__(self, url: str):
        if not re.match(r"[a-z][a-z0-9+.-]+://[^/]", url):
            raise ValueError(f"a URL must name a kind and a bucket, as in gs://bucket/folder: got {url}")
        self.url = url.replace("gcs://", "gs://").rstrip("/")
        self._files, self._root = open_url(self.url)

    def names(self, folder: str = "") -> list[str]:
        """What is right in a folder, objects and folders; none where there is no such folder."""
        with self._told(folder):
            self._files.invalidate_cache()
            try:
                found = self._files.ls(self._path(folder), detail=False)
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted({path.rstrip("/").rpartition("/")[2] for path in found} - {""})

    def find(self, folder: str = "") -> dict[str, int]:
        """Every object in a folder and below, and its bytes."""
        return {name: int(about["size"]) for name, about in self._find(folder).items()}

    def versions(self, folder: str = "") -> dict[str, str]:
        """Every object in a folder and below, and which version of it is there."""
        return {name: version_of(about) for name, about in self._find(folder).items()}

    def exists(self, name: str) -> bool:
        with self._told(name):
            self._files.invalidate_cache()
            try:  # isfile would answer no where it cannot tell
                return self._files.info(self._path(name))["type"] == "file"
            except FileNotFoundError:
                return False

    def read(self, name: str, length: int | None = None) -> bytes:
        """Args:
        length: bytes to read, at most, of an object that is not empty; by default all.
        """
        with self._told(name):
            return self._files.cat_file(self._path(name), end=length)

    def write(self, name: str, content: bytes, *, new: bool = False) -> None:
        """Args:
        new: there must be no such object yet; of two that write at once, one gets FileExistsError.
        """
        with self._told(name):
            self._files.pipe_file(self._path(name), content, mode="create" if new else "overwrite")

    def upload(self, file: Path, name: str) -> None:
        with self._told(name):
            self._files.put_file(str(file), self._path(name))

    def download(self, name: str, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with self._told(name):
            self._files.get_file(self._path(name), str(file))

    def copy(self, name: str, target: str) -> None:
        """Within the bucket; nothing comes through this host."""
        with self._told(name):
            self._files.cp_file(self._path(name), self._path(target))

    def delete(self, name: str) -> None:
        """Where there is none, nothing."""
        with self._told(name):
            try:
                self._files.rm_file(self._path(name))
            except FileNotFoundError:
                pass

    def version(self, name: str) -> str:
        """Which version of an object is there: another one each time it is written."""
        with self._told(name):
            self._files.invalidate_cache()
            return version_of(self._files.info(self._path(name)))

    def delete_version(self, name: str, version: str) -> bool:
        """Deletes an object if it still is of that `version`; whether it was. Of many that try, at most one is told so: where
        Google decides, in one piece; elsewhere among those of this process, and there what somebody writes between the look
        and the deletion is deleted, too.
        """
        with self._told(name), _deleting:
            self._files.invalidate_cache()
            try:
                about = self._files.info(self._path(name))
                if version_of(about) != version:
                    return False
                if "generation" in about and hasattr(self._files, "split_path"):
                    place = self._files.split_path(self._path(name))[:2]
                    self._files.call("DELETE", "b/{}/o/{}", *place, ifGenerationMatch=about["generation"])
                else:
                    self._files.rm_file(self._path(name))
            except (FileNotFoundError, FileExistsError):  # gone, or written again
                return False
            return True

    def delete_folder(self, folder: str) -> None:
        with self._told(folder):
            self._files.invalidate_cache()
            try:
                self._files.rm(self._path(folder), recursive=True)
            except FileNotFoundError:
                pass

    def modified(self, name: str) -> datetime:
        """By the clock of the bucket."""
        with self._told(name):
            self._files.invalidate_cache()
            return self._files.modified(self._path(name))

    def now(self) -> datetime:
        """By the clock of the bucket; writes, reads and deletes a small object, and raises OSError where that does not work."""
        name = f"{PROBE}-{uuid4().hex[:8]}"
        self.write(name, b"probe")
        if self.read(name) != b"probe":
            raise OSError(errno.EIO, "an object that was just written reads otherwise", self.url)
        time = self.modified(name)
        self.delete(name)
        return time

    def _find(self, folder: str) -> dict[str, Mapping[str, Any]]:
        with self._told(folder):
            self._files.invalidate_cache()
            found = self._files.find(self._path(folder), detail=True)
        return {path.removeprefix(self._root).lstrip("/"): about for path, about in found.items()}

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}".rstrip("/")

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Whatever the file system raises, as an OSError with the URL and what to do."""
        try:
            yield
        except Exception as error:
            told = bucket_error(error, f"{self.url}/{name}".rstrip("/"))
            if told is None:
                raise
            raise told from error


def bucket_error(error: BaseException, url: str) -> OSError | None:
    """What the libraries behind `gs://` raised, as an OSError that says what to do; None for an error of another kind."""
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "there is no such object", url)
    if isinstance(error, FileExistsError):
        return FileExistsError(errno.EEXIST, "there is such an object already", url)
    words = " ".join(str(error).split())[:300]
    library = type(error).__module__.partition(".")[0]
    refused = isinstance(error, OSError) and words.startswith("Forbidden")
    if refused or getattr(error, "code", None) in (401, 403) or type(error).__module__.startswith("google.auth"):
        return PermissionError(errno.EACCES, f"no access ({words}): {ADVICE}", url)
    if isinstance(error, OSError) and error.errno is not None and library != "aiohttp":
        return error
    if isinstance(error, OSError | TimeoutError) or library in ("gcsfs", "aiohttp", "google", "requests"):
        return OSError(errno.EIO, f"the bucket did not do what it was asked ({type(error).__name__}: {words}); try again", url)
    return None
