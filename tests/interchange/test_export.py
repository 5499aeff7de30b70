"""Folders that are written: whole or not at all, never over another, and loaded by transformers with equal logits."""

import dataclasses
import json
import os
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxllm.data import load_tokenizer
from jaxllm.data.subword import train_subword
from jaxllm.interchange import find_family, open_published, write_folder
from jaxllm.interchange.export import published_config
from jaxllm.interchange.safetensors_folder import open_tensors
from jaxllm.models import Transformer, TransformerConfig, abstract_params, init_params
from jaxllm.sharding import MeshConfig, make_mesh, shardings_for
from tests.interchange.battery import load
from tests.quick import some

GPT2 = TransformerConfig(vocab_size=300, context_len=32, num_layers=2, embed_dim=32, num_heads=4)
LLAMA = dataclasses.replace(
    GPT2,
    norm="rms_norm",
    position="rotary",
    activation="swiglu",
    bias=False,
    num_kv_heads=2,
    ffw_dim=48,
    tie_embeddings=False,
)
CONFIGS = {
    "GPT2LMHeadModel": GPT2,
    "LlamaForCausalLM": LLAMA,
    "MistralForCausalLM": dataclasses.replace(LLAMA, window=3),
    "Qwen2ForCausalLM": dataclasses.replace(LLAMA, qkv_bias=True, tie_embeddings=True),
    "Qwen3ForCausalLM": dataclasses.replace(LLAMA, qk_norm="head", head_dim=16),
}
ORACLE = os.environ.get("JAXLLM_ORACLE_PYTHON")


def fresh(config):
    """Parameters of random numbers, norms and biases included."""
    params = jax.jit(lambda key: init_params(Transformer(config), key))(jax.random.key(0))
    return jax.tree.map(lambda p: p + 0.1 * jnp.sin(jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape), params)


def write(dst, architecture="LlamaForCausalLM", config=None, **more):
    config = config or CONFIGS[architecture]
    params = fresh(config)
    return params, write_folder(dst, find_family(architecture), config, params, **more)


@pytest.mark.parametrize("architecture", some(CONFIGS, ["LlamaForCausalLM", "GPT2LMHeadModel"]))
def test_ours_out_and_in_again(architecture, tmp_path):
    params, folder = write(tmp_path / "out", architecture)
    published, _, back = load(folder)
    jax.tree.map(np.testing.assert_array_equal, back, params)
    family = find_family(architecture)
    assert published_config(family, published.config) == published_config(family, CONFIGS[architecture])


def test_parameters_on_a_mesh_are_written_alike(tmp_path):
    params, folder = write(tmp_path / "one", "GPT2LMHeadModel")
    abstract, axes = abstract_params(Transformer(GPT2))
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    spread = jax.device_put(params, shardings_for(abstract, axes, mesh))
    write_folder(tmp_path / "spread", find_family("GPT2LMHeadModel"), GPT2, spread)
    assert (tmp_path / "spread/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_the_type_and_the_shards_asked_for(tmp_path):
    params, folder = write(tmp_path / "out", dtype="bfloat16", max_shard_bytes=20_000)
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    table = open_tensors(folder).read("model.embed_tokens.weight", (slice(None), slice(None)))
    np.testing.assert_array_equal(table, np.asarray(params["embed"]["table"].astype(jnp.bfloat16)))


def test_the_tokenizer_goes_with_it(tmp_path):
    tokenizer = train_subword("bpe", 280, ["to be or not to be"])
    _, folder = write(tmp_path / "out", tokenizer=tokenizer)
    fields = json.loads((folder / "config.json").read_text())
    assert fields["eos_token_id"] == tokenizer.eos_id is not None and fields["bos_token_id"] is None
    assert load_tokenizer(folder).fingerprint == tokenizer.fingerprint
    open_published(folder)


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="out is there already: name a folder that is not there yet"):
        write(tmp_path / "out")


def test_a_failed_export_leaves_nothing_behind(tmp_path):
    class Broken:
        eos_id = bos_id = pad_id = None

        def save(self, folder: Path) -> None:
            (folder / "tokenizer.json").write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write(tmp_path / "out", tokenizer=Broken())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("architecture", "change", "lost"),
    [
        ("LlamaForCausalLM", {"window": 4}, "window=4"),
        ("LlamaForCausalLM", {"logit_softcap": 30.0}, "logit_softcap=30.0"),
        ("GPT2LMHeadModel", {"position": "rotary"}, "position='rotary'"),
        ("GPT2LMHeadModel", {"parallel_block": True}, "parallel_block=True"),
        ("GPT2LMHeadModel", {"num_kv_heads": 2}, "num_kv_heads=2"),
    ],
)
def test_what_a_family_cannot_say_is_refused(architecture, change, lost, tmp_path):
    config = dataclasses.replace(CONFIGS[architecture], **change)
    with pytest.raises(
        ValueError, match=f"a {architecture} must be able to say .*: it cannot say .*{lost}.*; export as another"
    ):
        write_folder(tmp_path / "out", find_family(architecture), config, {})
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(ORACLE is None, reason="JAXLLM_ORACLE_PYTHON names no Python with torch and transformers")
@pytest.mark.parametrize("architecture", CONFIGS)
def test_transformers_loads_it_with_equal_logits(architecture, tmp_path):
    params, folder = write(tmp_path / "out", architecture, max_shard_bytes=50_000)
    script = Path(__file__).parents[2] / "scripts" / "oracle" / "load_exported.py"
    assert ORACLE is not None
    subprocess.run([ORACLE, script, folder, tmp_path / "oracle.npz"], check=True, capture_output=True)
    with np.load(tmp_path / "oracle.npz") as oracle:
        logits = Transformer(CONFIGS[architecture]).apply({"params": params}, jnp.asarray(oracle["tokens"])).logits
        np.testing.assert_allclose(logits, oracle["logits"], atol=1e-4, rtol=0)
