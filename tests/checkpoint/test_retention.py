"""Which checkpoints stay, and what interrupted work leaves behind."""

from contextlib import closing

import jax.numpy as jnp
import pytest

from jaxllm.checkpoint import Best, CheckpointConfig, CheckpointError, Store
from jaxllm.checkpoint.config import best_steps, steps_to_delete
from tests.checkpoint.states import abstract

STATE = {"x": jnp.arange(4.0)}
LOSSES = {10: 3.0, 20: 1.0, 30: 2.0, 40: None, 50: 1.0, 60: float("nan"), 70: 2.5}


def metrics():
    return {step: {} if loss is None else {"loss": loss} for step, loss in LOSSES.items()}


@pytest.mark.parametrize(
    "config, by, kept, best",
    [
        (dict(keep_last=1, keep_best=0), Best(), {70}, 50),
        (dict(keep_last=2, keep_best=1), Best(), {50, 60, 70}, 50),
        (dict(keep_last=1, keep_best=2), Best(), {20, 50, 70}, 50),
        (dict(keep_last=1, keep_best=3), Best(direction="highest"), {10, 30, 70}, 10),
        (dict(keep_last=1, keep_best=9), Best(), {10, 20, 30, 50, 70}, 50),
        (dict(keep_last=9), Best(), set(LOSSES), 50),
        (dict(keep_last=1, keep_best=2), Best("accuracy"), {70}, None),
    ],
)
def test_which_steps_stay(config, by, kept, best):
    assert set(LOSSES) - set(steps_to_delete(metrics(), CheckpointConfig(**config), by)) == kept
    assert next(iter(best_steps(metrics(), by)), None) == best


@pytest.mark.parametrize("config, kept", [(dict(keep_last=1, keep_best=1), [50, 70]), (dict(keep_last=3), [50, 60, 70])])
def test_store_deletes_the_others(tmp_path, config, kept):
    store = Store(tmp_path, CheckpointConfig(**config))
    for step, values in metrics().items():
        store.save(step, STATE, {}, values)
    store.close()
    assert store.steps() == kept and store.best_step() == 50
    assert Store(tmp_path, CheckpointConfig(**config)).best_step() == 50


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(every=0), "checkpoint.every must be at least 1: got 0"),
        (dict(keep_last=0), "checkpoint.keep_last must be at least 1: got 0"),
        (dict(keep_best=-1), "checkpoint.keep_best must be at least 0: got -1"),
    ],
)
def test_config_is_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        CheckpointConfig(**fields)


def test_leftovers_are_no_checkpoints_and_go_with_the_next_save(tmp_path):
    store = Store(tmp_path)
    store.save(5, STATE, {})
    store.wait()
    leftovers = [tmp_path / name for name in ("10.orbax-checkpoint-tmp", "7.orbax-checkpoint-tmp-123", "3.leaving")]
    for path in leftovers:
        (path / "state").mkdir(parents=True)
        (path / "state" / "part").write_bytes(b"half")
    assert store.steps() == [5]
    store.save(10, STATE, {})
    store.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "5"]
    for name in ("10.leaving", "10.aside"):
        (tmp_path / name / "state").mkdir(parents=True)
    store.save(10, STATE, {"again": True})
    store.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "5"]
    assert store.restore(abstract(STATE)).meta == {"again": True}


class Killed(BaseException):
    """Nothing is tidied up behind it."""


def test_what_a_killed_save_set_aside_comes_back(tmp_path, monkeypatch):
    """The only checkpoint there is, while another of its step was being written."""
    store = Store(tmp_path)
    store.save(5, STATE, {"first": True})
    store.wait()

    def write(checkpointer, folder, arrays, manifest):
        (tmp_path / "5.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr("jaxllm.checkpoint.files.write", write)
        store.save(5, STATE, {"first": False})
    assert Store(tmp_path).steps() == []
    for step in (None, 5):  # to one that only reads
        with pytest.raises(CheckpointError, match="had set step 5 aside; `jaxllm train` on this run puts it back"):
            Store(tmp_path).restore(abstract(STATE), step)
    with pytest.raises(CheckpointError, match="no checkpoint of step 4 in .*: there are none"):
        Store(tmp_path).restore(abstract(STATE), 4)
    assert Store(tmp_path).recover() == [5]
    assert Store(tmp_path).restore(abstract(STATE)).meta == {"first": True}
    store = Store(tmp_path)
    store.save(5, STATE, {"first": False})
    store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["5"]


def test_a_save_puts_back_what_a_killed_one_set_aside(tmp_path):
    """Where nobody recovered it before."""
    with closing(Store(tmp_path)) as store:
        store.save(5, STATE, {})
    (tmp_path / "5").rename(tmp_path / "5.aside")
    with closing(Store(tmp_path)) as store:
        store.save(6, STATE, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["5", "6"]


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "old").mkdir()
    store = Store(tmp_path, CheckpointConfig(keep_last=1))
    for step in (1, 2):
        store.save(step, STATE, {})
    store.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "notes.txt", "old"]
