"""Data sets, and exported models, in a bucket: `gs://bucket/sets/stories` and whatever else fsspec reads, copied to the cache
when first used.

Rows are read at random places, thousands of times a second; over a network that takes a copy on the host's own disk.
"""

import hashlib
from pathlib import Path

from jaxllm.data.whole import write_whole
from jaxllm.distributed import beat
from jaxllm.hardware import cache_dir
from jaxllm.hardware.bucket import bucket_error, open_url, version_of


def fetch(url: str) -> Path:
    """The folder at `url` on this disk; copied again where one of its files has another size or time.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: fsspec cannot read this kind of URL here.
      OSError: what the bucket refuses.
    """
    files, path = open_url(url)
    try:
        found = files.find(path, detail=True)
    except Exception as error:
        raise bucket_error(error, url) or error from error
    if not found:
        raise FileNotFoundError(f"expected a folder at {url}: there is nothing, or no access to it")
    state = [(name, version_of(found[name])) for name in sorted(found)]
    digest = hashlib.sha256(repr((url, state)).encode()).hexdigest()[:24]
    folder = cache_dir() / "fetched" / digest / path.rstrip("/").rpartition("/")[2]
    if not folder.is_dir():
        print(f"copying {url} to {folder}", flush=True)
        write_whole(folder, lambda work: _copy(files, path, list(found), work))
    return folder


def _copy(files, path: str, names: list[str], work: Path) -> None:
    for name in names:
        beat(0, "copying the data from its bucket", long=True)
        target = work / name.removeprefix(path).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        files.get_file(name, str(target))
