"""Adapters that PEFT has written, read here, against what PEFT makes of them; written again, and kept in our own folder.

The cases are of scripts/oracle/peft_methods.py, a batch of each. scripts/benchmark/peft_interchange.py does the same with all
of them, and gives what is written here to PEFT.
"""

import dataclasses
import json
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxllm.finetune import LoRA, adapt, begin_params
from jaxllm.finetune.peft import CONFIG
from jaxllm.finetune.peft.incoming import TENSORS
from jaxllm.interchange.safetensors_folder import Outgoing, SafetensorsFolder, read_header, write_file
from jaxllm.models import HeadConfig, make_model, partition, path_of
from jaxllm.recipe import Loaded, load, load_adapter, save_adapter

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.stem for path in (GOLDEN / "peft_files").glob("*.npz"))
NAMES = {"tokens": "tokens", "mask": "segment_ids", "positions": "positions", "token_types": "token_types",
         "decoder_tokens": "decoder_tokens"}  # fmt: skip


@cache
def base(kind):
    with pytest.warns(UserWarning, match="no tokenizer"):
        return load(GOLDEN / "peft" / "base" / kind)


@cache
def golden(case):
    with np.load(GOLDEN / "peft_files" / f"{case}.npz") as stored:
        return {name: stored[name] for name in stored.files}


def write_peft(folder, config, tensors):
    folder.mkdir()
    (folder / CONFIG).write_text(json.dumps(config))
    write_file(folder / TENSORS, [Outgoing(name, x.shape, x.dtype, lambda x=x: x) for name, x in tensors.items()])
    return folder


def files_of(case):
    found = golden(case)
    tensors = {name.removeprefix("tensor/"): x for name, x in found.items() if name.startswith("tensor/")}
    return json.loads(str(found["config"])), tensors


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """The name of a case, and the model with its adapter."""
    folder = write_peft(tmp_path_factory.mktemp("adapters") / "theirs", *files_of(request.param))
    return request.param, load_adapter(base(request.param.rpartition("-")[2]), folder)


def leaves(tree):
    return {path_of(keys): np.asarray(leaf) for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def stored(folder):
    tensors = SafetensorsFolder(folder, read_header(folder / TENSORS))
    return {name: np.array(tensors.read(name, tuple(slice(None) for _ in tensors.shape(name)))) for name in tensors.names}


def test_logits_are_those_of_peft(case):
    name, m = case
    found = golden(name)
    given = {ours: found[theirs].astype(np.int32) for theirs, ours in NAMES.items() if theirs in found}
    run = jax.jit(lambda params, given: m.model.apply({"params": params}, **given).logits)
    got = np.asarray(run(m.params, given))
    real = found["mask"] != 0 if got.ndim == 3 and got.shape[1] == found["mask"].shape[1] else np.ones(got.shape[:-1], bool)
    np.testing.assert_allclose(got[real], found["logits"][real], atol=1e-4)


def test_the_method_describes_what_the_file_has(case):
    """A run that goes on with an adapter makes the same shapes by itself."""
    _, m = case
    fresh = jax.eval_shape(lambda: begin_params(m.model, jax.random.key(0)))
    assert {path: leaf.shape for path, leaf in leaves(m.params).items()} == {
        path_of(keys): leaf.shape for keys, leaf in jax.tree_util.tree_leaves_with_path(fresh)
    }


LEFT_OUT = {"use_rslora": False, "use_dora": False, "alpha_pattern": {}}
"""What PEFT takes a field to be that a file has not."""


def test_written_again_it_is_the_same_file(case, tmp_path):
    """Names and numbers; fields where they say the same in another way are left out."""
    name, m = case
    config, tensors = files_of(name)
    save_adapter(m, tmp_path / "ours", to="peft")
    ours, again = json.loads((tmp_path / "ours" / CONFIG).read_text()), stored(tmp_path / "ours")
    if name.startswith("lora_pissa"):
        assert ours["init_lora_weights"] is True
        assert [ours["r"], ours["lora_alpha"]] == [2 * config["r"], 2 * config["lora_alpha"]]
        return
    if name.startswith("lora_embedding"):  # the base's own table need not be there
        tensors = {key: x for key, x in tensors.items() if ".base_layer." not in key}
    if name == "prefix--t5":  # the layer that no decoder layer reads is left empty
        assert np.array_equal(again["prompt_embeddings"][:, :48], tensors["prompt_embeddings"][:, :48])
        return
    assert again.keys() == tensors.keys()
    for key, x in tensors.items():
        if ".original_module." not in key:
            np.testing.assert_allclose(again[key], x, rtol=1e-6, atol=1e-7, err_msg=key)
    assert set(config["modules_to_save"] or ()) >= set(ours["modules_to_save"] or ())
    fields = {"use_rslora", "use_dora", "fan_in_fan_out", "bias", "num_virtual_tokens", "task_type", "init_r"}
    if not name.startswith("lora_patterns"):  # where ranks differ, any of them may be the one that others differ from
        fields |= {"r", "lora_alpha", "rank_pattern", "alpha_pattern"}
    fields &= config.keys()
    assert {key: ours.get(key, LEFT_OUT.get(key)) for key in fields} == {key: config[key] for key in fields}


def test_our_own_folder_keeps_every_bit(case, tmp_path):
    name, m = case
    folder = save_adapter(m, tmp_path / "ours")
    back = load_adapter(base(name.rpartition("-")[2]), folder)
    assert back.model == m.model
    theirs = leaves(m.params)
    for path, leaf in leaves(back.params).items():
        np.testing.assert_array_equal(leaf, theirs[path], err_msg=path)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 60_000


@pytest.mark.parametrize("layout", ["peft", "jaxllm"])
def test_a_head_comes_with_the_adapter(layout, tmp_path):
    """Onto a model that has none."""
    whole = base("bert")
    tuned = load_adapter(whole, write_peft(tmp_path / "theirs", *files_of("ia3--bert")))
    folder = save_adapter(tuned, tmp_path / "ours", to=layout)
    config = dataclasses.replace(whole.config, head=HeadConfig(kind="none", pooler=True))
    params = partition(whole.params, lambda path: not path.startswith("head/classifier"))[0]
    plain = Loaded(**{**vars(whole), "model": make_model(config), "params": params, "architecture": "BertModel"})
    back = load_adapter(plain, folder)
    assert back.config.head == tuned.config.head
    theirs = leaves(tuned.params)
    assert all(np.array_equal(leaf, theirs[path]) for path, leaf in leaves(back.params).items())
    if layout == "peft":
        return
    bare = partition(params, lambda path: not path.startswith("head/"))[0]
    config = dataclasses.replace(config, head=HeadConfig(kind="none"))
    with pytest.raises(ValueError, match="must bring head/pooler/bias, which .* has not"):
        load_adapter(Loaded(**{**vars(plain), "model": make_model(config), "params": bare, "architecture": None}), folder)


def test_parts_of_a_fused_matrix_that_have_gone_apart_are_written_above_each_other(tmp_path):
    plain = base("gpt2")
    method = LoRA(rank=2, targets=("query", "value", "ffw/up"), alpha_patterns=(("value", 6.0),), dora=True)
    model = adapt(plain.model, method)
    params = jax.tree_util.tree_map_with_path(move, begin_params(model, jax.random.key(1), plain.params))
    m = Loaded(**{**vars(plain), "model": model, "params": params})
    folder = save_adapter(m, tmp_path / "peft", to="peft")
    config, tensors = json.loads((folder / CONFIG).read_text()), stored(folder)
    assert config["target_modules"] == ["c_attn", "c_fc"] and config["rank_pattern"] in ({"c_attn": 4}, {"c_fc": 2})
    a, b = (tensors[f"base_model.model.transformer.h.1.attn.c_attn.lora_{letter}.weight"] for letter in "AB")
    assert a.shape == (4, 32) and b.shape == (96, 4) and not b[:32, 2:].any() and not b[32:64].any()
    back = load_adapter(plain, folder)
    ours, theirs = (leaves(jax.jit(one.model.method.merge)(one.params)) for one in (m, back))
    for path, leaf in ours.items():
        np.testing.assert_allclose(theirs[path], leaf, rtol=1e-5, atol=1e-6, err_msg=path)


def move(keys, leaf):
    path = path_of(keys)
    rng = np.random.default_rng(len(path))
    return leaf + (0.1 * rng.standard_normal(leaf.shape)).astype(np.float32) if path.endswith(("lora/a", "lora/b")) else leaf
