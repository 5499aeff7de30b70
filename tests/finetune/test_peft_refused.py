"""Adapters that cannot be read or written say why, and what to do."""

import json

import jax
import numpy as np
import pytest

from jaxllm.finetune import IA3, Bottleneck, LoRA, PrefixTuning, VeRA, adapt, begin_params
from jaxllm.finetune.peft import CONFIG
from jaxllm.finetune.peft.config import endings, of_pattern
from jaxllm.finetune.peft.incoming import TENSORS
from jaxllm.recipe import Loaded, load_adapter, save_adapter
from tests.finetune.test_peft_files import base, files_of, stored, write_peft

CONFIGS = {
    "peft_type in .* must be one of LORA, ADALORA.*got .LOHA": {"peft_type": "LOHA"},
    "not known here: alora_invocation_tokens=.1., use_qalora=True": {"use_qalora": True, "alora_invocation_tokens": [1]},
    "layer_replication=": {"layer_replication": [[0, 1]]},
    "init_lora_weights in .* must be one of": {"init_lora_weights": "olora"},
}


def refused(folder, match, kind="gpt2"):
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        load_adapter(base(kind), folder)


@pytest.mark.parametrize("match", CONFIGS)
def test_fields_that_would_change_the_numbers(match, tmp_path):
    config, tensors = files_of("lora_lora_bias--gpt2")
    refused(write_peft(tmp_path / "a", config | CONFIGS[match], tensors), match)


def test_files_that_are_not_there_or_not_safe(tmp_path):
    refused(tmp_path / "nowhere", "expected an adapter in .*: no such folder")
    folder = write_peft(tmp_path / "a", *files_of("lora_lora_bias--gpt2"))
    (folder / TENSORS).rename(folder / "adapter_model.bin")
    refused(folder, "adapter_model.bin, a pickle, which can run any program")
    (folder / "adapter_model.bin").unlink()
    refused(folder, "expected adapter_model.safetensors")


def test_tensors_of_another_model_or_incomplete(tmp_path):
    config, tensors = files_of("lora_lora_bias--gpt2")
    name = "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"
    refused(write_peft(tmp_path / "a", config, tensors), "a module transformer.h.0.attn.c_attn, .* made for the/base", "llama")
    wider = tensors | {name: np.zeros((3, 40), np.float32)}
    refused(write_peft(tmp_path / "b", config, wider), r"weight must have shape \[any, 32\] .* got \[3, 40\]; .*the/base")
    less = {key: x for key, x in tensors.items() if key != name}
    refused(write_peft(tmp_path / "c", config, less), "must have transformer.h.0.attn.c_attn.lora_A.weight: there is none")
    more = tensors | {"base_model.model.score.weight": np.zeros((2, 32), np.float32)}
    refused(write_peft(tmp_path / "d", config, more), "tensors that mean nothing in this model: base_model.model.score.weight")
    tied = tensors | {"base_model.model.lm_head.weight": np.zeros((61, 32), np.float32)}
    refused(write_peft(tmp_path / "e", config, tied), "a lm_head.weight of its own, which this model shares")


def test_zeros_count(tmp_path):
    """0 is a number like others, and no default takes its place."""
    config, tensors = files_of("lora_lora_bias--gpt2")
    adapted = load_adapter(base("gpt2"), write_peft(tmp_path / "a", config | {"lora_alpha": 0}, tensors))
    assert adapted.model.method.alpha == 0
    eva = config | {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}}
    assert load_adapter(base("gpt2"), write_peft(tmp_path / "b", eva, tensors)).model.method.rank == adapted.model.method.rank


def test_a_module_that_is_not_adapted_here(tmp_path):
    config, tensors = files_of("lora_lora_bias--gpt2")
    more = {key.replace("attn.c_attn", "ln_1"): x for key, x in tensors.items() if "h.0.attn.c_attn" in key}
    refused(write_peft(tmp_path / "a", config, tensors | more), "adapts transformer.h.0.ln_1, which is not adapted here")


def test_vera_without_its_random_matrices(tmp_path):
    config, tensors = files_of("vera--bert")
    tensors = {key: x for key, x in tensors.items() if not key.endswith(("vera_A", "vera_B"))}
    refused(
        write_peft(tmp_path / "a", config | {"save_projection": False}, tensors),
        "save the adapter with save_projection=true",
        "bert",
    )


def test_ia3_of_some_layers(tmp_path):
    config, tensors = files_of("ia3--gpt2")
    tensors = {key: x for key, x in tensors.items() if ".h.1.attn." not in key}
    refused(write_peft(tmp_path / "a", config, tensors), "must be for all layers of a module")


def adapted(kind, method):
    plain = base(kind)
    model = adapt(plain.model, method)
    params = jax.jit(lambda given: begin_params(model, jax.random.key(0), given))(plain.params)
    return Loaded(**{**vars(plain), "model": model, "params": params})


@pytest.mark.parametrize(
    ("kind", "method", "match"),
    [
        ("gpt2", Bottleneck(bottleneck_dim=2), "PEFT has no method Bottleneck"),
        ("gpt2", VeRA(rank=2), "one vector of ranks for transformer.h.0.attn.c_attn"),
        ("t5", PrefixTuning(tokens=2, initialization="random"), "decoder layers 0 and 1 of this model the same prefix"),
        ("gpt2", LoRA(rank=2, also=("embed/table",)), "an embedding that learns and is the output matrix"),
        ("llama", LoRA(rank=2, also=("layers/attention/query/kernel",)), "self_attn.q_proj is both"),
    ],
)
def test_what_peft_cannot_say(kind, method, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        save_adapter(adapted(kind, method), tmp_path / "a", to="peft")
    assert not (tmp_path / "a").exists()


def test_our_own_folder_is_for_its_base(tmp_path):
    folder = save_adapter(adapted("gpt2", Bottleneck(bottleneck_dim=2)), tmp_path / "a")
    refused(folder, r"is for another model: embed_norm/bias is absent in .*gpt2, which it was made for", "bert")
    with pytest.raises(FileExistsError, match="is there already"):
        save_adapter(adapted("gpt2", IA3()), folder)
    with pytest.raises(ValueError, match="all of .* has learnt"):
        save_adapter(base("gpt2"), tmp_path / "b")
    with pytest.raises(ValueError, match="has one already; load its base"):
        load_adapter(load_adapter(base("gpt2"), folder), folder)


def test_names_are_as_short_as_they_can_be():
    names = [f"h.{layer}.{part}" for layer in (0, 1) for part in ("attn.q", "attn.o", "mlp.o")]
    assert endings(["h.0.attn.q", "h.1.attn.q"], names) == ["q"]
    assert endings(["h.0.attn.o", "h.1.attn.o"], names) == ["attn.o"]
    assert endings(["h.1.attn.q"], names) == ["1.attn.q"]
    assert endings(["model.embed_tokens"], ["model.embed_tokens"]) == ["model.embed_tokens"]
    assert of_pattern({"attn.q": 2, r"h\.1\..*": 5}, "h.1.attn.q", 8) == 2 and of_pattern({"ttn.q": 2}, "h.1.attn.q", 8) == 8


def test_a_config_names_its_base_and_its_task(tmp_path):
    folder = save_adapter(adapted("llama", LoRA(rank=2, also=("final_norm/*",))), tmp_path / "a", to="peft")
    config = json.loads((folder / CONFIG).read_text())
    assert config["base_model_name_or_path"].endswith("base/llama") and config["task_type"] == "CAUSAL_LM"
    assert config["modules_to_save"] == ["model.norm"]  # "norm" alone would mean every input_layernorm, too
    assert config["target_modules"] == ["q_proj", "v_proj"] and "base_model.model.model.norm.weight" in stored(folder)
