"""Streaming: only what a device needs is read, nothing exists twice, and tensors that do not fit are named."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxllm.interchange import Family, SafetensorsFolder, Tensor, load_params, open_published
from jaxllm.interchange.keymap import bind_all, published_shapes
from jaxllm.interchange.stream import aligned_empty
from jaxllm.models import Transformer, abstract_params
from jaxllm.sharding import MeshConfig, make_mesh, shardings_for
from tests.interchange.battery import ROWS, load, write_published

F32 = 4


class Counting:
    """A folder that notes how many values are read of each tensor."""

    def __init__(self, folder: SafetensorsFolder) -> None:
        self.folder, self.read_values = folder, {name: 0 for name in folder.names}

    def __getattr__(self, name):
        return getattr(self.folder, name)

    path = property(lambda self: self.folder.path)
    names = property(lambda self: self.folder.names)
    shape = property(lambda self: self.folder.shape)
    dtype = property(lambda self: self.folder.dtype)
    where = property(lambda self: self.folder.where)

    def read(self, name, wanted):
        piece = self.folder.read(name, wanted)
        self.read_values[name] += piece.size
        return piece


@pytest.fixture(params=ROWS)
def folder(request, tmp_path):
    write_published(tmp_path, request.param)
    return tmp_path


@pytest.mark.parametrize(
    "mesh", [MeshConfig(data=1), MeshConfig(data=8), MeshConfig(data=2, fsdp=4), MeshConfig(data=1, fsdp=4, tensor=2)]
)
def test_each_value_is_read_once_on_every_mesh(folder, mesh):
    """Each shard is read by itself, copies of a shard are read once, and together they are the whole folder."""
    published = open_published(folder)
    abstract, axes = abstract_params(Transformer(published.config))
    shardings = shardings_for(abstract, axes, make_mesh(mesh))
    source = Counting(published.tensors)
    params = load_params(source, published.family, published.config, abstract, shardings)
    assert source.read_values == {name: math.prod(source.shape(name)) for name in source.names}
    whole = load(folder)[2]
    jax.tree.map(lambda got, want: np.testing.assert_array_equal(got, want), params, whole)
    assert jax.tree.map(lambda array: array.sharding, params) == shardings


def test_no_device_holds_the_whole_model(folder):
    published = open_published(folder)
    abstract, axes = abstract_params(Transformer(published.config))
    mesh = make_mesh(MeshConfig(data=1, fsdp=8))
    params = load_params(published.tensors, published.family, published.config, abstract, shardings_for(abstract, axes, mesh))
    held = {device: 0 for device in mesh.devices.flat}
    for array in jax.tree.leaves(params):
        for shard in array.addressable_shards:
            held[shard.device] += shard.data.nbytes
    total = sum(array.nbytes for array in jax.tree.leaves(params))
    assert max(held.values()) <= 1.2 * total / 8  # what cannot be split is small


def test_arrays_are_made_where_they_stay():
    """On a CPU JAX takes the assembled array over: a copy would hold each stacked array twice."""
    array = aligned_empty((3, 5), np.dtype(np.float32))
    array[:] = 1
    taken = jax.make_array_from_callback((3, 5), jax.sharding.SingleDeviceSharding(jax.devices()[1]), lambda index: array)
    assert taken.unsafe_buffer_pointer() == array.ctypes.data


@pytest.mark.parametrize(("stored", "kept"), [("float16", "float32"), ("bfloat16", "float32"), ("float32", "bfloat16")])
def test_types_are_converted_on_the_way(tmp_path, stored, kept):
    tensors = write_published(tmp_path, "LlamaForCausalLM", jax.numpy.dtype(stored))
    params = load(tmp_path, dtype=kept)[2]
    assert {array.dtype for array in jax.tree.leaves(params)} == {jax.numpy.dtype(kept)}
    want = tensors["model.embed_tokens.weight"].astype(kept)
    np.testing.assert_array_equal(params["embed"]["table"], want)


def change(folder: Path, edit) -> None:
    """Rewrites a folder's tensors."""
    tensors = {name: np.array(value) for name, value in whole(folder).items()}
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def whole(folder: Path):
    source = open_published(folder).tensors
    return {name: source.read(name, tuple(slice(0, n) for n in source.shape(name))) for name in source.names}


@pytest.fixture
def llama(tmp_path):
    write_published(tmp_path, "LlamaForCausalLM")
    return tmp_path


@pytest.fixture
def gpt2(tmp_path):
    write_published(tmp_path, "GPT2LMHeadModel")
    return tmp_path


def test_missing_and_unexpected_tensors_are_named(llama):
    def edit(tensors):
        tensors["model.layers.0.self_attn.k_proj.bias"] = tensors.pop("model.norm.weight")

    change(llama, edit)
    with pytest.raises(
        ValueError, match="1 missing: model.norm.weight; 1 unexpected: model.layers.0.self_attn.k_proj.bias; correct config"
    ):
        load(llama)


def test_many_missing_tensors_are_counted(llama):
    change(llama, lambda tensors: [tensors.pop(name) for name in list(tensors) if ".layers.1." in name])
    with pytest.raises(ValueError, match=r"9 missing: model.layers.1.* and 1 more; correct"):
        load(llama)


def test_a_wrong_shape_is_named_with_its_file(llama):
    change(llama, lambda tensors: tensors.update({"model.norm.weight": np.zeros(31, np.float32)}))
    with pytest.raises(ValueError, match=r"model.norm.weight in .*model.safetensors must have shape \(32,\), .* got \(31,\)"):
        load(llama)


def test_quantized_weights_are_refused(llama):
    change(llama, lambda tensors: tensors.update({"model.norm.weight": np.zeros(32, np.int8)}))
    with pytest.raises(ValueError, match="model.norm.weight in .* floating type of 16 bits or more: got int8"):
        load(llama)


def test_buffers_and_older_names_are_accepted(gpt2):
    want = load(gpt2)[2]

    def edit(tensors):
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["h.0.attn.bias"] = np.ones((1, 1, 32, 32), np.bool_)
        tensors["h.0.attn.masked_bias"] = np.array(-1e4, np.float32)

    change(gpt2, edit)
    jax.tree.map(np.testing.assert_array_equal, load(gpt2)[2], want)


def test_a_tied_tensor_is_accepted_if_it_is_equal(gpt2):
    want = load(gpt2)[2]
    change(gpt2, lambda tensors: tensors.update({"lm_head.weight": tensors["transformer.wte.weight"].copy()}))
    jax.tree.map(np.testing.assert_array_equal, load(gpt2)[2], want)
    change(gpt2, lambda tensors: tensors.pop("transformer.wte.weight"))
    jax.tree.map(np.testing.assert_array_equal, load(gpt2)[2], want)


def test_a_tied_tensor_that_differs_is_refused(gpt2):
    def edit(tensors):
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"].copy()
        tensors["lm_head.weight"][-1, -1] += 1

    change(gpt2, edit)
    with pytest.raises(ValueError, match="lm_head.weight in .* must equal transformer.wte.weight, since config.json ties them"):
        load(gpt2)


def test_untied_the_output_matrix_must_be_there(llama):
    change(llama, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(ValueError, match="1 missing: lm_head.weight"):
        load(llama)


class Memory:
    """Tensors in memory, as a source."""

    def __init__(self, **tensors):
        self.tensors, self.path, self.names = tensors, Path("memory"), tensors.keys()

    def shape(self, name):
        return self.tensors[name].shape

    def dtype(self, name):
        return self.tensors[name].dtype

    def where(self, name):
        return f"{name} in memory"

    def read(self, name, wanted):
        return self.tensors[name][wanted]


def family(*rows: Tensor, **more) -> Family:
    return Family(
        architectures=("X",),
        read_config=lambda reader: None,
        write_config=lambda config: {},
        tensors=lambda _: list(rows),
        **more,
    )


def ones(*shape):
    return jax.ShapeDtypeStruct(shape, np.float32)


def test_experts_and_absent_layers():
    """Two placeholders are two leading axes; rows of layers without a tensor are zeros."""
    rows = family(
        Tensor("l.{layer}.e.{expert}.w", "layers/up", "F D -> D F"),
        Tensor("l.{layer}.norm", "layers/norm", "D -> D", absent=(0,)),
    )
    shapes = {"layers": {"up": ones(2, 3, 4, 5), "norm": ones(2, 4)}}
    tensors = {f"l.{i}.e.{j}.w": np.full((5, 4), 10.0 * i + j, np.float32) for i in range(2) for j in range(3)}
    params = load_params(Memory(**tensors, **{"l.1.norm": np.ones(4, np.float32)}), rows, None, shapes)
    np.testing.assert_array_equal(params["layers"]["up"][:, :, 0, 0], [[0, 1, 2], [10, 11, 12]])
    np.testing.assert_array_equal(params["layers"]["norm"], [[0] * 4, [1] * 4])


def test_parts_of_unequal_length_follow_each_other():
    """As in Phi-3: query, key and value heads in one matrix."""
    rows = family(Tensor("qkv", ("q", "k", "v"), ("(N H) D -> D N H",) * 3))
    shapes = {"q": ones(3, 4, 2), "k": ones(3, 2, 2), "v": ones(3, 2, 2)}
    qkv = np.arange(48, dtype=np.float32).reshape(16, 3)
    params = load_params(Memory(qkv=qkv), rows, None, shapes)
    for name, part in (("q", qkv[:8]), ("k", qkv[8:12]), ("v", qkv[12:])):
        np.testing.assert_array_equal(params[name], part.T.reshape(shapes[name].shape))
    bound = bind_all(rows.tensors(None), {name: leaf.shape for name, leaf in shapes.items()})
    assert published_shapes(bound) == {"qkv": (16, 3)}
    np.testing.assert_array_equal(bound[0].to_published([np.asarray(params[name]) for name in "qkv"]), qkv)


def test_renamed_endings():
    rows = dataclasses.replace(family(Tensor("norm.weight", "scale", "D -> D")), renamed=((".gamma", ".weight"),))
    params = load_params(Memory(**{"norm.gamma": np.ones(3, np.float32)}), rows, None, {"scale": ones(3)})
    np.testing.assert_array_equal(params["scale"], np.ones(3))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([Tensor("w", "kernel", "A B -> B A")], "bias is in no row"),
        ([Tensor("w", "kernel", "A -> A"), Tensor("b", "bias", "A -> A")], "row w does not fit the model: .* got shape"),
        (
            [Tensor("w", ("kernel", "bias"), "A B -> B A")],
            "row w does not fit the model: parts under one pattern must have one shape",
        ),
        ([Tensor("w", "kernel", "A B -> B A"), Tensor("b", "other", "A -> A")], "row b .* the model has no parameter other"),
        ([Tensor("w", "kernel", "A B B A")], "row w .* two sides"),
        (
            [Tensor(name, name, p) for name, p in (("kernel", "A B -> A B"), ("bias", "A -> A"), ("bias", "A -> A"))],
            "several rows",
        ),
    ],
)
def test_key_maps_that_do_not_fit(rows, message):
    shapes = {"kernel": ones(2, 3), "bias": ones(3)}
    with pytest.raises(ValueError, match=message):
        load_params(Memory(), family(*rows), None, shapes)


PEAK = """
import json, sys
from pathlib import Path
import jax
from jaxllm.interchange import load_params, open_published
from jaxllm.models import Transformer, abstract_params

def peak():  # ru_maxrss would begin with the peak of the process that started this one
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])

published = open_published(Path(sys.argv[1]))
abstract, _ = abstract_params(Transformer(published.config))
jax.block_until_ready(jax.numpy.zeros(1))
before = peak()
params = load_params(published.tensors, published.family, published.config, abstract, dtype=sys.argv[2])
jax.block_until_ready(params)
print(json.dumps({"grown": peak() - before, "params": sum(leaf.nbytes for leaf in jax.tree.leaves(params))}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from Linux's /proc")
@pytest.mark.parametrize(("stored", "kept"), [("float32", "float32"), ("bfloat16", "float32"), ("bfloat16", "bfloat16")])
def test_peak_memory_of_a_load(tmp_path, stored, kept):
    """At most the parameters, the largest tensor and 0.3 of the folder, on a folder of 200 MB."""
    width = 512 if stored == "float32" else 704
    fields = {"architectures": ["LlamaForCausalLM"], "vocab_size": 8000, "max_position_embeddings": 64, "num_hidden_layers": 12}
    fields |= {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": 8}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    write_random_llama(tmp_path, fields, jax.numpy.dtype(stored))
    size = (tmp_path / "model.safetensors").stat().st_size
    largest = 8000 * width * jax.numpy.dtype(stored).itemsize
    done = subprocess.run([sys.executable, "-c", PEAK, tmp_path, kept], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    print(f"folder {size / 1e6:.0f} MB, parameters {found['params'] / 1e6:.0f} MB, grown by {found['grown'] / 1e6:.0f} MB")
    assert size > 190e6
    assert found["grown"] <= found["params"] + largest + 0.3 * size


def write_random_llama(folder: Path, fields: dict, dtype: np.dtype) -> None:
    from jaxllm.interchange import ConfigReader, find_family

    family = find_family("LlamaForCausalLM")
    config = family.read_config(ConfigReader(fields, "config.json"))
    leaves = jax.tree_util.tree_leaves_with_path(abstract_params(Transformer(config))[0])
    shapes = {"/".join(key.key for key in keys): leaf.shape for keys, leaf in leaves}
    rng = np.random.default_rng(0)
    wanted = published_shapes(bind_all(family.tensors(config), shapes))
    tensors = {name: rng.standard_normal(shape, np.float32).astype(dtype) for name, shape in wanted.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
