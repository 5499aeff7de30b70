"""Patterns over modules and layers, and what is refused."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxllm.finetune import IA3, AdaLoRA, BitFit, Bottleneck, LoRA, VeRA, adapt
from jaxllm.finetune.targets import find_targets
from jaxllm.models import abstract_params, make_model, paths
from tests.finetune.programs import FAMILIES
from tests.models.options import tiny
from tests.models.programs import described, parameters

LLAMA, GPT, T5 = (FAMILIES[name] for name in ("llama", "gpt", "t5"))


def meant(config, *patterns, **options):
    """Chosen layers by path."""
    return {target.path: target.chosen for target in find_targets(*described(config), patterns, **options)}


def test_patterns_mean_ends_of_paths_and_layers():
    both, first, second = (True, True), (True, False), (False, True)
    assert meant(GPT, "query") == {"layers/attention/query": both}
    assert meant(GPT, "layers/1/ffw/*", "up") == {"layers/ffw/down": second, "layers/ffw/up": both}
    assert meant(GPT, "ffw/*", exclude=("layers/1/*", "up")) == {"layers/ffw/down": first}
    assert meant(GPT, "all-linear", layers=(1,)) == {
        f"layers/{name}": second
        for name in ("attention/query", "attention/key", "attention/value", "attention/output", "ffw/up", "ffw/down")
    }
    assert meant(GPT, "embed") == {"embed": (True,)} and meant(LLAMA, "unembed") == {"unembed": (True,)}
    assert len(meant(T5, "decoder/*/query")) == 2 and len(meant(T5, "query")) == 3
    assert not any(path.endswith("router") for path in meant(tiny("experts"), "all-linear"))


def test_ranks_and_scales_by_layer():
    method = LoRA(
        rank=4, alpha=8.0, targets=("query", "value"), layers=(0, 1), exclude=("layers/0/attention/value",),
        rank_patterns=(("layers/1/attention/query", 2),), alpha_patterns=(("value", 6.0),),
    )  # fmt: skip
    own = method.init(jax.random.key(0), parameters(LLAMA), described(LLAMA)[1], LLAMA)[0]["layers"]["attention"]
    a = np.asarray(own["query"]["lora"]["a"])
    assert a.shape == (2, 16, 4) and (a[0] != 0).all() and (a[1, :, :2] != 0).all() and not a[1, :, 2:].any()
    np.testing.assert_allclose(own["query"]["lora"]["scale"], [2.0, 4.0])
    np.testing.assert_allclose(own["value"]["lora"]["scale"], [0.0, 1.5])
    assert not np.asarray(own["value"]["lora"]["a"][0]).any()


REFUSED = {
    "unknown": (LoRA(targets=("q_proj",)), LLAMA, r"method.targets: 'q_proj' matches no projection: there are attention/key"),
    "near": (LoRA(targets=("querry",)), LLAMA, r"did you mean query\?"),
    "rank": (LoRA(rank=17), LLAMA, r"smaller side of a matrix: got 17 for layers/attention/query of 16 x 16"),
    "adalora rank": (AdaLoRA(init_rank=17, target_rank=1), LLAMA, "method.init_rank must be at most the smaller side"),
    "layers": (LoRA(rank=2, layers=(2,)), LLAMA, r"method.layers must be in 0..1: got 2"),
    "not excluded": (LoRA(rank=2, exclude=("qurey",)), LLAMA, r"method.exclude: 'qurey' matches .* did you mean query\?"),
    "no rank for it": (
        LoRA(rank=2, rank_patterns=(("key", 1),)),
        LLAMA,
        "method.rank_patterns: .key. matches no target: there are",
    ),
    "no bias to add to": (
        LoRA(rank=2, targets=("unembed",), lora_bias=True),
        LLAMA,
        "method.lora_bias needs a bias at unembed",
    ),
    "nothing": (LoRA(rank=2, exclude=("*",)), LLAMA, "together mean no module"),
    "tied": (LoRA(rank=2, targets=("unembed",)), GPT, "'unembed' matches no projection"),
    "shared": (LoRA(rank=2, targets=("embed",)), T5, "embedding that encoder and decoder share"),
    "partly": (IA3(targets=("layers/1/attention/key",)), LLAMA, "must mean all layers of a module"),
    "twice": (IA3(targets=("ffw/*",)), LLAMA, "both mean layers/ffw/down"),
    "embedding": (VeRA(targets=("embed",)), LLAMA, "VeRA changes projections only: embed is none"),
    "no biases": (BitFit(), LLAMA, "BitFit needs a model with biases"),
    "experts": (Bottleneck(), tiny("experts"), "needs feed-forward layers that are not experts"),
    "experts, too": (Bottleneck(kind="houlsby"), tiny("experts"), "needs feed-forward layers that are not experts"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(name):
    method, config, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        abstract_params(adapt(make_model(config), method))


def test_biases_of_targets_alone_learn():
    method = LoRA(targets=("all-linear",), bias="lora_only")
    learnt = [path for path in paths(parameters(GPT)) if method.learns(path)]
    assert "layers/attention/query/bias" in learnt and all(path.endswith("/bias") and "norm" not in path for path in learnt)


def test_a_gated_adapter_and_a_time_before_the_first_step_are_refused():
    with pytest.raises(ValueError, match="method.activation must be one without a gate: got swiglu"):
        Bottleneck(activation="swiglu")
    with pytest.raises(ValueError, match="method.tinit must be 0 or more: got -1"):
        AdaLoRA(tinit=-1)


def test_a_pruned_model_is_refused():
    config = dataclasses.replace(GPT, pruned_heads=((0, 1),))
    with pytest.raises(ValueError, match="needs a model with all its heads"):
        abstract_params(adapt(make_model(config), LoRA(rank=2)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 0}, "method.rank must be at least 1: got 0"),
        ({"rank_patterns": (("query", 0),)}, "method.rank must be at least 1: got 0"),
        ({"dropout": 1.0}, "method.dropout must be in"),
        ({"lora_plus_ratio": 0.0}, "method.lora_plus_ratio must be positive"),
        ({"dora": True, "initialization": "pissa"}, "dora cannot go with initialization='pissa'"),
        ({"bias": "lora_only", "layers": (0,)}, "'lora_only' needs all layers of each target"),
        ({"bias": "lora_only", "targets": ("layers/1/ffw/up",)}, "'lora_only' needs all layers of each target"),
    ],
)
def test_bad_settings_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        LoRA(**fields)
