"""Data sets by URL, in fsspec's memory and by file://, as they would be in a bucket."""

import threading
import time
from pathlib import Path

import fsspec
import pytest

from jaxllm.data import find_text_set
from jaxllm.data.fetch import fetch
from jaxllm.data.tfds_builder import write_set
from jaxllm.data.whole import write_whole

TEXTS = [f"text {number}" for number in range(20)]


@pytest.fixture
def bucket(tmp_path: Path):
    """memory://sets with the set `mine`; the folder it was copied from."""
    write_set("mine", {"train": [(str(n), text) for n, text in enumerate(TEXTS)]}, tmp_path / "sets", description="test")
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "sets"), "/sets", recursive=True)
    yield tmp_path / "sets"
    memory.rm("/sets", recursive=True)


@pytest.mark.parametrize("by", ["set", "folder", "environment", "file"])
def test_a_set_in_a_bucket(bucket, own_cache, monkeypatch, by):
    name, data_dir = {
        "set": ("memory://sets/mine", None),
        "folder": ("mine", "memory://sets"),
        "environment": ("mine", None),
        "file": ("mine", f"file://{bucket}"),
    }[by]
    if by == "environment":
        monkeypatch.setenv("JAXLLM_DATA", "memory://sets/")
    found = find_text_set(name, data_dir=data_dir)
    assert sorted(found.open("train")) == sorted(TEXTS) and found.folder.is_relative_to(own_cache)
    again = find_text_set(name, data_dir=data_dir)
    assert again.folder == found.folder and again.open("train").fingerprint == found.open("train").fingerprint


def test_a_set_that_changed_is_copied_again(bucket):
    before = fetch("memory://sets/mine")
    with fsspec.open("memory://sets/mine/new.txt", "w") as file:
        file.write("more")
    after = fetch("memory://sets/mine")
    assert after != before and (after / "new.txt").is_file() and not (before / "new.txt").exists()


def test_what_is_not_there_or_not_readable():
    with pytest.raises(FileNotFoundError, match="expected a folder at memory://none/mine: there is nothing"):
        find_text_set("mine", data_dir="memory://none")
    with pytest.raises(ValueError, match=r"nosuch://x cannot be opened here \(.*\): give a folder of this host"):
        find_text_set("nosuch://x")


def test_one_writes_and_the_others_wait(tmp_path):
    """As several processes on a host do that want the same tokens."""
    writes = []

    def write(work: Path) -> None:
        writes.append(work)
        time.sleep(0.2)
        (work / "done").write_text("")

    threads = [threading.Thread(target=write_whole, args=(tmp_path / "cache" / "it", write)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(writes) == 1 and [path.name for path in (tmp_path / "cache").iterdir()] == ["it"]
