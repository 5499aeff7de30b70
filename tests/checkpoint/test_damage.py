"""Whatever happens to the files of a checkpoint is noticed, or does not matter to a single bit."""

import errno
import os
import shutil
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from jaxllm.checkpoint import CheckpointConfig, CheckpointError, Store
from jaxllm.checkpoint.on_disk import OnDisk
from tests.checkpoint.states import abstract, assert_same, train_state

SHAPES = abstract(train_state())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Good checkpoints of steps 5 and 10, to be copied."""
    folder = tmp_path_factory.mktemp("saved")
    store = Store(folder)
    for step in (5, 10):
        store.save(step, train_state(step), {"examples": step})
    store.close()
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def files_of(folder):
    return sorted(path for path in (folder / "10").rglob("*") if path.is_file())


def largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def restore(folder):
    """The restored checkpoint and the messages about damaged ones."""
    messages = []
    store = Store(folder)
    found = store.restore(SHAPES, on_damaged=lambda step, message: messages.append((step, message)))
    store.close()
    return found, messages


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def delete(path):
    path.unlink()


def garble(path):
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def test_undamaged(folder):
    found, messages = restore(folder)
    assert_same(found.state, train_state(10))
    assert found.step == 10 and not messages


def one_of_each_kind(files):
    """The largest file of each folder by its ending, and the manifests: other names are hashes."""
    ordered = sorted(files, key=lambda path: (path.stem == "manifest", path.stat().st_size))
    return list({(path.parent, path.suffix): path for path in ordered}.values())


@pytest.mark.parametrize("chosen", [one_of_each_kind, pytest.param(list, marks=pytest.mark.slow, id="all")])
@pytest.mark.parametrize("damage", [truncate, empty, delete, garble])
def test_every_file(folder, damage, chosen):
    """Noticed, and step 5 used instead; or the file holds nothing that a restore needs, and every bit is right."""
    noticed = set()
    for path in chosen(files_of(folder)):
        good = path.read_bytes()
        damage(path)
        found, messages = restore(folder)
        assert_same(found.state, train_state(found.step))
        assert found.meta == {"examples": found.step}
        if found.step == 5:
            assert [step for step, _ in messages] == [10]
            assert messages[0][1].startswith("checkpoint of step 10 is damaged (")
            assert messages[0][1].endswith("): step 5 is used instead")
            noticed.add(str(path.relative_to(folder / "10")))
        else:
            assert not messages
        path.write_bytes(good)
    assert {"manifest/manifest.json", "state/manifest.ocdbt"} <= noticed
    assert any(place.startswith("state/ocdbt.process_0/d/") for place in noticed)


@pytest.mark.parametrize("count", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_random_bytes(folder, count):
    """So many flipped bytes, files drawn as often as each other: noticed, or every bit is right."""
    rng = np.random.default_rng(0)
    files = sorted(rng.permutation(np.array(files_of(folder), object)), key=lambda path: path.stem != "manifest")
    noticed = 0
    for path in [files[i % len(files)] for i in range(count)]:
        good = path.read_bytes()
        if not good:
            continue
        raw = bytearray(good)
        raw[rng.integers(len(raw))] ^= int(rng.integers(1, 256))
        path.write_bytes(raw)
        found, messages = restore(folder)
        assert_same(found.state, train_state(found.step))
        assert found.meta == {"examples": found.step}
        assert bool(messages) == (found.step == 5)
        noticed += bool(messages)
        path.write_bytes(good)
    assert noticed > count // 6  # the two manifests at least; of the others, whose names are hashes, not every byte counts


@pytest.mark.parametrize("missing", ["manifest", "state", "*"])
def test_missing_folders(folder, missing):
    if missing == "*":
        shutil.rmtree(folder / "10")
        (folder / "10").mkdir()
    else:
        shutil.rmtree(folder / "10" / missing)
    found, messages = restore(folder)
    assert found.step == 5 and [step for step, _ in messages] == [10]


def test_warning_by_default(folder):
    delete(folder / "10" / "manifest" / "manifest.json")
    store = Store(folder)
    with pytest.warns(UserWarning, match=r"checkpoint of step 10 is damaged \(.*manifest.json is missing\): step 5 is used"):
        assert store.restore(SHAPES).step == 5
    with pytest.warns(UserWarning, match="step 5 is used"):
        assert store.restore_params(SHAPES.params).step == 5
    store.close()


def test_asked_for_by_number(folder):
    garble(folder / "10" / "manifest" / "manifest.json")
    store = Store(folder)
    with pytest.raises(CheckpointError, match=r"checkpoint .*/10 is damaged \(.*\): the previous good one is step 5"):
        store.restore(SHAPES, step=10)
    assert store.restore(SHAPES, step=5).step == 5
    store.close()


def test_no_good_one(folder):
    for step in ("5", "10"):
        delete(folder / step / "manifest" / "manifest.json")
    store = Store(folder)
    with pytest.raises(CheckpointError, match=r"no good checkpoint in .*: step 10: .* is missing; step 5: .* is missing"):
        store.restore(SHAPES)
    with pytest.raises(CheckpointError, match=r"no good checkpoint"):
        store.restore(SHAPES, step=10)
    store.close()


def test_folder_of_another_step(folder):
    (folder / "10").rename(folder / "20")
    found, messages = restore(folder)
    assert found.step == 5 and "the folder is named 20 and holds step 10" in messages[0][1]


def test_out_of_memory_is_not_damage(folder, monkeypatch):
    def read(*args):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes")

    monkeypatch.setattr("jaxllm.checkpoint.files.read", read)
    store = Store(folder)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Out of memory"):
        store.restore(SHAPES)
    store.close()


TOO_MANY_OPEN_FILES = """
    import errno, os, resource, sys

    import jax.numpy as jnp

    from jaxllm.checkpoint import Store

    state = {"x": jnp.arange(2.0**12)}
    store = Store(sys.argv[1])
    for step in (1, 2):
        store.save(step, state, {})
        store.wait()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    for room in range(12):
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + room, limits[1]))
        try:
            outcome = store.restore(state).step
        except OSError as error:
            outcome = errno.errorcode[error.errno]
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        print(outcome)
"""


def test_too_many_open_files_is_not_damage(tmp_path):
    """With no file to open left, one, two..., the limit is met in our code, in Orbax, in TensorStore; never step 1 is used."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TOO_MANY_OPEN_FILES), str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    outcomes = done.stdout.split()
    assert outcomes[0] == "EMFILE" and outcomes[-1] == "2" and set(outcomes) == {"EMFILE", "2"}


@pytest.mark.parametrize("part", ["manifest/manifest.json", "state", "array_metadatas", "state/manifest.ocdbt", "arrays"])
def test_what_the_system_refuses_is_not_damage(folder, part):
    """What is a link to itself cannot be opened by anybody, root included; nor does saving delete it then."""
    parts = {"arrays": largest(folder / "10" / "state"), "array_metadatas": folder / "10/state/array_metadatas/process_0"}
    path = parts.get(part, folder / "10" / part)
    path.rename(folder / "aside")
    path.symlink_to(path.name)
    store = Store(folder, CheckpointConfig(keep_last=1))
    with pytest.raises(OSError) as caught:
        store.restore(SHAPES)
    assert caught.value.errno == errno.ELOOP and str(folder / "10") in caught.value.filename
    if part == "manifest/manifest.json":
        store.save(15, train_state(15), {})
        store.wait()
        assert "step 15 is saved, but an older one in" in str(store.failure())
        assert store.steps() == [5, 10, 15]
    path.unlink()
    (folder / "aside").rename(path)
    assert store.restore(SHAPES, step=10).step == 10
    store.close()


STATUS = 'Error opening "zarr3" driver: Error reading "step/zarr.json" in OCDBT database'


@pytest.mark.parametrize(
    "error, number",
    [
        (ValueError(f"PERMISSION_DENIED: {STATUS} [tensorstore_spec='{{}}'] [os_error_code='13']"), errno.EACCES),
        (ValueError(f"RESOURCE_EXHAUSTED: {STATUS} [os_error_code[1]='24'] [os_error_code='24']"), errno.EMFILE),
        (ValueError(f"UNKNOWN: {STATUS}: Input/output error [os_error_code='5']"), errno.EIO),
        (OSError(errno.ESTALE, "Stale file handle"), errno.ESTALE),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_system_errors_come_out_as_such(folder, monkeypatch, error, number, wrapped):
    """As TensorStore words them, and as Orbax wraps those of single arrays."""

    def read(*args):
        if wrapped:
            raise Exception("Encountered error while reading array index: ()") from error
        raise error

    monkeypatch.setattr("jaxllm.checkpoint.files.read", read)
    store = Store(folder)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        store.restore(SHAPES)
    assert caught.value.errno == number
    store.close()


@pytest.mark.parametrize("place", ["files.request", "files.read", "verify.digest"])
def test_bugs_are_not_damage(folder, monkeypatch, place):
    def bug(*args):
        raise (RuntimeError if place == "files.read" else TypeError)("a bug")

    monkeypatch.setattr(f"jaxllm.checkpoint.{place}", bug)
    store = Store(folder)
    with pytest.raises((RuntimeError, TypeError), match="a bug"):
        store.restore(SHAPES)
    store.close()


@pytest.mark.parametrize("part", ["manifest", "state"])
def test_damaged_ones_are_kept_and_not_counted(folder, part):
    """With keep_last=2 and step 10 damaged, saving 15 keeps 5 and 15; 10 is no step any more, its files are all there."""
    count = len(files_of(folder))
    garble(largest(folder / "10" / part))
    store = Store(folder, CheckpointConfig(keep_last=2))
    with pytest.warns(UserWarning, match="step 5 is used"):
        store.restore(SHAPES)
    assert store.steps() == [5, 10]
    store.save(15, train_state(15), {})
    store.close()
    assert store.steps() == [5, 15]
    assert len([path for path in (folder / "10.damaged").rglob("*") if path.is_file()]) == count
    store = Store(folder, CheckpointConfig(keep_last=1))
    store.save(20, train_state(20), {})
    store.close()
    assert sorted(path.name for path in folder.iterdir()) == ["10.damaged", "20"]


def test_saving_over_a_damaged_one(folder):
    garble(largest(folder / "10"))
    store = Store(folder, CheckpointConfig(keep_last=2))
    with pytest.warns(UserWarning, match="step 5 is used"):
        store.restore(SHAPES)
    store.save(10, train_state(11), {})
    assert_same(store.restore(SHAPES).state, train_state(11))
    assert (folder / "10.damaged").is_dir()
    garble(largest(folder / "10"))
    with pytest.warns(UserWarning, match="step 5 is used"):
        store.restore(SHAPES)
    store.save(10, train_state(12), {})
    store.save(15, train_state(15), {})
    store.close()
    assert store.steps() == [10, 15] and (folder / "10.damaged-2").is_dir()


def test_interrupted_deletion_is_no_damage(folder, monkeypatch):
    """A step disappears before its files do."""
    monkeypatch.setattr("shutil.rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        OnDisk(folder).remove_step(10)
    assert Store(folder).steps() == [5]
