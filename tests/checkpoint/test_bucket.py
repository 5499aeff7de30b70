"""Checkpoints in buckets: Google's, as far as a stand-in is one, and fsspec's memory."""

import contextlib
import errno
import re
from contextlib import closing
from typing import Any

import pytest
import requests

from jaxllm.checkpoint import CheckpointConfig, CheckpointError, SaveError, Store
from jaxllm.checkpoint.in_bucket import InBucket
from jaxllm.checkpoint.manifest import Damaged
from jaxllm.checkpoint.verify import _judge
from jaxllm.hardware.bucket import Bucket
from tests.checkpoint.states import abstract, assert_same, train_state


def save(url: str, *steps: int, **config: Any) -> None:
    with closing(Store(url, CheckpointConfig(**config))) as store:
        for step in steps:
            store.save(step, train_state(step), {"examples": step}, metrics={"loss": 1.0 / step})


def test_a_state_comes_back_and_old_ones_go(bucket_url):
    save(bucket_url, 1, 2, 3, keep_last=1, keep_best=0)
    with closing(Store(bucket_url)) as store:
        assert store.steps() == [3] and store.best_step() == 3
        step, state, meta = store.restore(abstract(train_state()))
        assert_same(state, train_state(3))
        assert (step, meta) == (3, {"examples": 3})
        params = store.restore_params(abstract(train_state().params)).state
        assert_same(params, train_state(3).params)
    assert Bucket(bucket_url).names() == ["3"]


def test_a_save_that_was_cut_short_does_not_count_and_goes(bucket_url):
    save(bucket_url, 1)
    bucket = Bucket(bucket_url)
    for name in bucket.find("1"):
        if name != "1/commit_success.txt":
            bucket.copy(name, name.replace("1/", "2/", 1))
            bucket.copy(name, name.replace("1/", "1.aside/", 1))
    with closing(Store(bucket_url)) as store:
        assert store.steps() == [1] and store.restore(abstract(train_state())).step == 1
        store.save(3, train_state(3), {})
    assert bucket.names() == ["1", "3"]


def test_another_save_of_a_step_takes_its_place_or_leaves_it(bucket_url, monkeypatch, request):
    save(bucket_url, 1)
    with closing(Store(bucket_url)) as store:
        store.save(1, train_state(7), {})
        store.wait()
        assert_same(store.restore(abstract(train_state())).state, train_state(7))
        if bucket_url.startswith("gs:"):
            google = request.getfixturevalue("google")
            answers = [400]
            google.refuse = lambda method, name: (
                answers.pop() if answers and method == "POST" and name.endswith("/1/commit_success.txt") else None
            )
        else:
            monkeypatch.setattr(store._place, "end", fail)
        store.save(1, train_state(8), {})
        with pytest.raises(SaveError, match="step 1 could not be saved in .*The newest there is step 1"):
            store.wait()
    assert Bucket(bucket_url).names() == ["1"]
    with closing(Store(bucket_url)) as store:
        assert_same(store.restore(abstract(train_state())).state, train_state(7))


class Killed(BaseException):
    """Nothing is tidied up behind it."""


MOVES = ("copy", "delete", "delete_folder", "write")
OLD = {"1/a": b"old", "1/b": b"old", "1/commit_success.txt": b"old"}
NEW = {"1/a": b"new", "1/c": b"new", "1/commit_success.txt": b"new"}


def test_a_save_killed_at_any_moment_leaves_the_old_checkpoint_or_the_new(monkeypatch):
    """Move by move: set aside, written, cleared; and put back, which is killed as well."""
    left = [0]

    def killed_in_time(name: str):
        move = getattr(Bucket, name)

        def act(*arguments, **options):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return move(*arguments, **options)

        return act

    def save_again(place: InBucket) -> None:
        place.set_aside(1)
        for name, content in NEW.items():
            bucket.write(name, content)
        place.remove_unfinished()

    bucket, moments, ends = Bucket("memory://killed"), 0, set()
    for name in MOVES:
        monkeypatch.setattr(Bucket, name, killed_in_time(name))
    for first in range(50):
        for second in range(15):
            left[0] = 10**6
            bucket.delete_folder("")
            for name, content in OLD.items():
                bucket.write(name, content)
            left[0] = first
            with contextlib.suppress(Killed):
                save_again(InBucket(bucket.url))
            whole = left[0] >= 0
            left[0] = second
            with contextlib.suppress(Killed):
                if second % 2:  # as after a save that failed
                    InBucket(bucket.url).remove_unfinished()
                InBucket(bucket.url).put_back()
            left[0] = 10**6
            InBucket(bucket.url).put_back()
            InBucket(bucket.url).remove_unfinished()
            found = {name: bucket.read(name) for name in bucket.find("1")}
            assert found in (OLD, NEW) and bucket.names() == ["1"], (first, second)
            moments, ends = moments + 1, ends | set(found.values())
        if whole:
            break
    assert ends == {b"old", b"new"} and 150 < moments < 700


def fail(step):
    raise OSError(5, "disk on fire")


def test_a_damaged_one_is_found_and_kept_aside(bucket_url):
    save(bucket_url, 1, 2)
    bucket = Bucket(bucket_url)
    largest = max(bucket.find("2"), key=lambda name: bucket.find("2")[name] if "/state/d/" in name else 0)
    content = bytearray(bucket.read(largest))
    content[len(content) // 2] ^= 1
    bucket.write(largest, bytes(content))
    with closing(Store(bucket_url)) as store:
        told = []
        found = store.restore(abstract(train_state()), on_damaged=lambda step, words: told.append((step, words)))
        assert_same(found.state, train_state(1))
        assert [step for step, _ in told] == [2] and "step 1 is used instead" in told[0][1]
        store.save(2, train_state(5), {})
        store.wait()
        assert_same(store.restore(abstract(train_state())).state, train_state(5))
    assert bucket.names() == ["1", "2", "2.damaged"]


def test_what_the_bucket_refuses_is_no_damage(google):
    save("gs://bucket/run/checkpoints", 1, 2)
    google.refuse = lambda method, name: 403 if "2/state" in name else None
    with closing(Store("gs://bucket/run/checkpoints")) as store:
        with pytest.raises(OSError, match="PERMISSION_DENIED|no access|refused by the test"):
            store.restore(abstract(train_state()))
        google.refuse = lambda method, name: 403
        with pytest.raises(PermissionError, match="gcloud auth application-default login"):
            store.steps()
        google.refuse = lambda method, name: 403 if method == "POST" else None
        with pytest.raises(SaveError, match=r"step 3 could not be saved in gs://bucket.*no access.*newest there is step 2"):
            store.save(3, train_state(3), {})
        google.refuse = lambda method, name: None
        store.save(3, train_state(3), {})
        store.wait()
        assert store.steps() == [2, 3] or store.steps() == [1, 2, 3]


def test_a_network_that_fails_is_no_damage(bucket_url):
    place = InBucket(bucket_url)
    for error in (requests.exceptions.ProxyError(), TimeoutError("read"), PermissionError("Forbidden: state")):
        judged = _judge(error, place, 1)
        assert isinstance(judged, OSError) and judged.filename == bucket_url and judged.errno in (errno.EIO, errno.EACCES)
    for error in (FileNotFoundError("state"), KeyError("state"), ValueError("DATA_LOSS: state")):
        assert isinstance(_judge(error, place, 1), Damaged)


def test_no_checkpoint_there(bucket_url):
    with closing(Store(bucket_url)) as store:
        assert store.steps() == []
        with pytest.raises(CheckpointError, match=re.escape(f"no checkpoint in {bucket_url}: train first")):
            store.restore(abstract(train_state()))


def test_a_bucket_that_nothing_opens():
    with pytest.raises(ValueError, match=r"nosuch://bucket/run cannot be opened here .*give a folder of this host"):
        Store("nosuch://bucket/run")


def test_a_file_url_is_a_folder(tmp_path):
    save(f"file://{tmp_path}/run", 1)
    assert (tmp_path / "run" / "1").is_dir()
