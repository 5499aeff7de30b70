"""Files and shards of safetensors: equal to what the safetensors package reads and writes, and damage named."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxllm.interchange.safetensors_folder import Outgoing, open_tensors, write_tensors

TENSORS = {
    "b.half": np.arange(10, dtype=np.float16).reshape(2, 5),
    "a.brain": np.arange(12, dtype=ml_dtypes.bfloat16).reshape(3, 4),
    "c.single": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "d.scalar": np.array(3.0, np.float32),
    "e.ids": np.arange(3),
}


def whole(folder, name):
    return folder.read(name, tuple(slice(0, size) for size in folder.shape(name)))


def write(folder, max_shard_bytes=10**9, tensors=TENSORS):
    folder.mkdir(exist_ok=True)
    write_tensors(folder, [Outgoing(n, t.shape, t.dtype, lambda t=t: t) for n, t in tensors.items()], max_shard_bytes)


def sharded(folder):
    write(folder, max_shard_bytes=60)
    return sorted(path.name for path in folder.glob("*.safetensors"))


def test_reads_what_the_package_writes(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors", {"format": "pt"})
    folder = open_tensors(tmp_path)
    assert set(folder.names) == set(TENSORS)
    for name, want in TENSORS.items():
        got = whole(folder, name)
        assert got.dtype == want.dtype == folder.dtype(name) and folder.shape(name) == want.shape
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(folder.read("a.brain", (slice(1, 3), slice(2, 4))), TENSORS["a.brain"][1:3, 2:4])


def test_the_package_reads_what_is_written(tmp_path):
    write(tmp_path)
    got = load_file(tmp_path / "model.safetensors")
    assert got.keys() == TENSORS.keys()
    for name, want in TENSORS.items():
        assert got[name].dtype == want.dtype and got[name].shape == want.shape
        np.testing.assert_array_equal(got[name], want)
    save_file(TENSORS, tmp_path / "package.safetensors", {"format": "pt"})
    assert (tmp_path / "package.safetensors").stat().st_size == (tmp_path / "model.safetensors").stat().st_size


def test_shards_and_their_index(tmp_path):
    files = sharded(tmp_path)
    assert files == [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in TENSORS.values())
    assert index["weight_map"].keys() == TENSORS.keys()
    assert not (tmp_path / "model.safetensors").exists()
    folder = open_tensors(tmp_path)
    for name, want in TENSORS.items():
        np.testing.assert_array_equal(whole(folder, name), want)


def test_an_index_that_names_a_missing_shard(tmp_path):
    files = sharded(tmp_path)
    (tmp_path / files[1]).unlink()
    with pytest.raises(FileNotFoundError, match=f"index.json says that c.single is in {files[1]}: there is no such file"):
        open_tensors(tmp_path)


def test_an_index_of_another_version(tmp_path):
    files = sharded(tmp_path)
    save_file({"other": TENSORS["b.half"]}, tmp_path / files[1])
    with pytest.raises(ValueError, match=f"says that c.single is in {files[1]}: it is not"):
        open_tensors(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{")
    with pytest.raises(ValueError, match="index.json must be JSON with a weight_map"):
        open_tensors(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:5], "model.safetensors is truncated or damaged: it has 5 bytes"),
        (lambda raw: raw[:100], "model.safetensors is truncated or damaged: it has 100 bytes, its header alone needs"),
        (lambda raw: raw[:-1], "model.safetensors is truncated: a.brain ends at byte"),
        (lambda raw: raw + b"more", "model.safetensors is damaged: its tensors end at byte"),
        (lambda raw: raw[:8] + b"x" + raw[9:], "its header is not the JSON"),
        (lambda raw: raw.replace(b'"shape":[3,4]', b'"shape":[3,5]'), r"a.brain of shape \(3, 5\), BF16, has 24 bytes"),
        (lambda raw: raw.replace(b'"data_offsets"', b'"data_offsetz"'), "its header is not the JSON"),
        (lambda raw: b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS.*run git lfs pull"),
    ],
)
def test_damage_is_named(tmp_path, damage, message):
    path = tmp_path / "model.safetensors"
    save_file({name: TENSORS[name] for name in ("c.single", "a.brain")}, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        open_tensors(tmp_path)


def test_tensors_must_follow_each_other(tmp_path):
    path = tmp_path / "model.safetensors"
    header = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(12))
    with pytest.raises(ValueError, match="a should begin at byte 0 of the data, not 4"):
        open_tensors(tmp_path)


def test_a_type_that_cannot_be_read(tmp_path):
    raw = json.dumps({"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(1))
    folder = open_tensors(tmp_path)
    with pytest.raises(ValueError, match="a in .*model.safetensors is of type F4, which cannot be read"):
        whole(folder, "a")


def test_pickles_are_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ValueError, match="pytorch_model.bin, a pickle, which can run any program when it is opened.*save_pre"):
        open_tensors(tmp_path)


def test_no_weights_at_all(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"expected model.safetensors or .* in .*: it holds config.json"):
        open_tensors(tmp_path)
