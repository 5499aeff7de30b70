"""A disk that refuses: said once, nothing half-written stays, earlier checkpoints are as they were."""

import errno
import re
import subprocess
import sys
import textwrap

import jax.numpy as jnp
import pytest

from jaxllm.checkpoint import CheckpointConfig, SaveError, Store
from tests.checkpoint.states import abstract, assert_same, train_state


def test_too_full_is_seen_before_writing(tmp_path, monkeypatch):
    store = Store(tmp_path / "checkpoints")
    store.save(1, train_state(1), {})
    store.wait()
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(SaveError, match=r"step 2 could not be saved in .*checkpoints: No space left on device") as caught:
        store.save(2, train_state(2), {})
    assert "0.0 MB free. The newest there is step 1" in str(caught.value)
    assert isinstance(caught.value, OSError) and caught.value.errno == errno.ENOSPC
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]
    monkeypatch.undo()
    store.save(3, train_state(3), {})
    store.close()
    assert_same(store.restore(abstract(train_state())).state, train_state(3))


def test_folder_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "checkpoints")
    with pytest.raises(SaveError, match="step 1 could not be saved in .*: Not a directory. There is no earlier one"):
        store.save(1, train_state(), {})
    store.close()


def fail_once(store, monkeypatch, message):
    finished = store._checkpointer.wait_until_finished

    def fail():
        finished()
        monkeypatch.setattr(store._checkpointer, "wait_until_finished", finished)
        raise ValueError(message)

    monkeypatch.setattr(store._checkpointer, "save", lambda *args, **kwargs: None)
    monkeypatch.setattr(store._checkpointer, "wait_until_finished", fail)


def test_failure_in_the_background(tmp_path, monkeypatch):
    """`wait` raises that of the newest save once; the next `save` starts as if nothing was, and `failure` tells."""
    store = Store(tmp_path)
    assert store.failure() is None
    with monkeypatch.context() as patch:
        fail_once(store, patch, "disk on fire")
        store.save(1, train_state(1), {})
        with pytest.raises(SaveError, match="step 1 could not be saved in .*: disk on fire"):
            store.wait()
        store.wait()
        assert store.failure() is None
    with monkeypatch.context() as patch:
        fail_once(store, patch, "disk on fire [os_error_code='28']")
        store.save(2, train_state(2), {})
        store._join()
    store.save(3, train_state(3), {})
    store.wait()
    failure = store.failure()
    assert isinstance(failure, SaveError) and failure.errno == errno.ENOSPC
    assert "step 2 could not be saved in" in str(failure) and "No space left on device" in str(failure)
    assert store.failure() is None
    store.close()
    assert store.steps() == [3]


def test_newest_failure_is_raised_though_it_was_polled(tmp_path, monkeypatch):
    """A training loop that has warned of it still learns at the end that the last save is not there."""
    store = Store(tmp_path)
    for step in (1, 2):
        with monkeypatch.context() as patch:
            fail_once(store, patch, "disk on fire")
            store.save(step, train_state(1), {})
            store._join()
    assert [str(store.failure())[:20] for _ in range(2)] == ["checkpoint of step 1", "checkpoint of step 2"]
    with pytest.raises(SaveError, match="step 2 could not be saved"):
        store.wait()
    store.close()


def test_without_asynchronous_save_tells_of_itself(tmp_path, monkeypatch):
    store = Store(tmp_path, CheckpointConfig(asynchronous=False))
    with monkeypatch.context() as patch:
        fail_once(store, patch, "disk on fire")
        with pytest.raises(SaveError, match="step 1 could not be saved in .*: disk on fire"):
            store.save(1, train_state(1), {})
    store.save(2, train_state(2), {})
    assert store.failure() is None and store.steps() == [2]
    store.close()


def test_failed_replacement_leaves_the_earlier_one(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.save(1, train_state(1), {})
    store.wait()
    with monkeypatch.context() as patch:
        fail_once(store, patch, "disk on fire")
        store.save(1, train_state(2), {})
        with pytest.raises(SaveError, match="disk on fire"):
            store.wait()
    assert_same(store.restore(abstract(train_state())).state, train_state(1))
    store.close()


def test_old_one_cannot_be_deleted(tmp_path, monkeypatch):
    store = Store(tmp_path, CheckpointConfig(keep_last=1))
    store.save(1, train_state(1), {})

    def remove_step(folder, step):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("jaxllm.checkpoint.on_disk.OnDisk.remove_step", remove_step)
    store.save(2, train_state(2), {})
    store.wait()
    message = "step 2 is saved, but an older one in .* could not be read or deleted: Permission denied"
    assert re.search(message, str(store.failure()))
    assert store.steps() == [1, 2]
    store.close()


FILE_SIZE_LIMIT = """
    import resource
    import sys

    import jax.numpy as jnp

    from jaxllm.checkpoint import SaveError, Store

    store = Store(sys.argv[1])
    state = {"x": jnp.arange(2.0**18)}
    store.save(1, state, {})
    store.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    store.save(2, state, {})
    try:
        store.wait()
    except SaveError as error:
        print(error, error.errno)
    print(store.steps(), sorted(path.name for path in store._place.folder.iterdir()))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    store.save(3, state, {})
    store.close()
    print(store.restore(state).step, store.steps())
"""


def test_write_refused_by_the_system(tmp_path):
    """The real path of a failing write, without root: the system refuses files above 100 kB, as a full disk would."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FILE_SIZE_LIMIT), str(tmp_path / "checkpoints")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    error, after_failure, after_recovery = done.stdout.strip().splitlines()
    assert "step 2 could not be saved in" in error and "File too large. The newest there is step 1" in error
    assert error.endswith(str(errno.EFBIG))
    assert after_failure == "[1] ['1']"
    assert after_recovery == "3 [1, 3]"


def test_small_things_are_not_refused(tmp_path):
    store = Store(tmp_path)
    store.save(1, {"x": jnp.float32(1)}, {})
    store.close()
    assert store.steps() == [1]
