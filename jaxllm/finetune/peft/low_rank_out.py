"""LoRA and AdaLoRA as PEFT's files have them; see `low_rank`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxllm.finetune.adalora import AdaLoRA
from jaxllm.finetune.lora import LoRA
from jaxllm.finetune.peft.base import Tensors, paths_of
from jaxllm.finetune.peft.config import by_pattern, endings
from jaxllm.finetune.peft.described import parts_of
from jaxllm.finetune.peft.flat import Flat, Place, without_padding
from jaxllm.finetune.peft.low_rank import joined_parts, learnt_ranks
from jaxllm.finetune.peft.modules import Layout, Module

_STORED_WITH_BASE = ("embed_tokens", "lm_head")


def write_lora(layout: Layout, method: LoRA, flats: Mapping[Place, Flat]) -> tuple[dict[str, Any], Tensors, list[str]]:
    """The config's fields, the tensors, and the names of the modules that are adapted.

    PiSSA goes out as LoRA of twice the rank on the base as it is, which needs no singular vectors to be found again.
    """
    flats = {place: _plain(flat) for place, flat in flats.items() if flat["scale"] != 0}
    tensors: Tensors = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, int | float] = {}
    for name, module in layout.modules.items():
        parts = parts_of(module, flats)
        if all(part is None for part in parts):
            continue
        whole = joined_parts(module, parts)
        ranks[name] = rank = whole["a"].shape[1]
        alphas[name] = _alpha(float(whole["scale"]), rank**0.5 if method.rank_stabilized else rank)
        kinds = ("lora_embedding_A", "lora_embedding_B") if module.is_embedding else ("lora_A.weight", "lora_B.weight")
        tensors |= {f"{name}.{kinds[0]}": whole["a"].T, f"{name}.{kinds[1]}": whole["b"].T}
        if method.dora:
            tensors[f"{name}.lora_magnitude_vector"] = _magnitude(layout, module, parts)
        if method.lora_bias:
            tensors[f"{name}.lora_B.bias"] = _bias(module, parts, float(whole["scale"]))
    everything = paths_of(layout)
    (rank, rank_pattern), (alpha, alpha_pattern) = by_pattern(ranks, everything), by_pattern(alphas, everything)
    names = endings(ranks, everything)
    if any(name in _STORED_WITH_BASE for name in names):
        for name in ranks:
            if name.rpartition(".")[2] in _STORED_WITH_BASE:
                module = layout.modules[name]
                tensors[f"{name}.base_layer.weight"] = layout.published(module.tensor, module.index())
    fields = {
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": method.dropout,
        "target_modules": names,
        "fan_in_fan_out": _fan_in_fan_out(layout, ranks),
        "bias": method.bias,
        "init_lora_weights": True,
        "layers_to_transform": None,
        "layers_pattern": None,
        "rank_pattern": rank_pattern,
        "alpha_pattern": alpha_pattern,
        "use_rslora": method.rank_stabilized,
        "use_dora": method.dora,
        "megatron_config": None,
        "megatron_core": "megatron.core",
        "loftq_config": {},
        **({"lora_bias": True} if method.lora_bias else {}),
    }
    return fields, tensors, list(ranks)


def _plain(flat: Flat) -> Flat:
    """Without padding, and without a product that is taken off."""
    if "initial_a" in flat:
        others = {name: value for name, value in flat.items() if not name.startswith("initial_")}
        whole_a = np.concatenate([flat["a"], flat["initial_a"]], axis=1)
        flat = others | {"a": whole_a, "b": np.concatenate([flat["b"], -flat["initial_b"]])}
    return without_padding(flat)


def _alpha(scale: float, divided: int | float) -> int | float:
    """The shortest number that gives this scale in float32."""
    exact = scale * divided
    for digits in (6, 9):
        short = float(f"{exact:.{digits}g}")
        if np.float32(short / divided) == np.float32(scale):
            return int(short) if short == int(short) else short
    return exact


def _magnitude(layout: Layout, module: Module, parts: list[Flat | None]) -> np.ndarray:
    norms = np.linalg.norm(layout.weight(module), axis=1).astype(np.float32)
    own = [module.order.own_outputs(norms, number) if part is None else part["magnitude"] for number, part in enumerate(parts)]
    return module.order.published_outputs(own)


def _bias(module: Module, parts: list[Flat | None], scale: float) -> np.ndarray:
    own = [
        np.zeros(target.widths[1], np.float32) if part is None else part["bias"] * np.float32(part["scale"] / scale)
        for part, target in zip(parts, module.targets, strict=True)
    ]
    return module.order.published_outputs(own)


def _fan_in_fan_out(layout: Layout, names: Any) -> bool:
    return any(layout.modules[name].order.fan_in_fan_out and not layout.modules[name].is_embedding for name in names)


def write_adalora(layout: Layout, method: AdaLoRA, flats: Mapping[Place, Flat]) -> tuple[dict[str, Any], Tensors, list[str]]:
    """As `write_lora`. Triplets whose e is 0 are left away, unless none has learnt yet."""
    pruned = any(np.any(flat["e"] != 0) for flat in flats.values())
    whole: dict[str, Flat] = {}
    masks: dict[str, list[bool]] = {}
    for name, module in layout.modules.items():
        parts = parts_of(module, flats)
        if any(part is not None for part in parts):
            whole[name] = joined_parts(module, parts)
    most = max(flat["a"].shape[1] for flat in whole.values())
    tensors: Tensors = {}
    for name, flat in whole.items():
        mask = flat["e"] != 0 if pruned else np.ones(len(flat["e"]), bool)
        masks[f"{name}.lora_E"] = [*mask.tolist(), *[False] * (most - len(mask))]
        flat = learnt_ranks(flat) if pruned else flat
        tensors |= {f"{name}.lora_A": flat["a"].T, f"{name}.lora_B": flat["b"].T, f"{name}.lora_E": flat["e"][:, None]}
    scale = float(next(iter(whole.values()))["scale"])
    allocation = {"tinit": method.tinit or 0, "tfinal": method.tfinal or 0}
    fields = {
        "r": 8,
        "lora_alpha": _alpha(scale, most + 1e-5),
        "lora_dropout": method.dropout,
        "target_modules": endings(whole, paths_of(layout)),
        "fan_in_fan_out": _fan_in_fan_out(layout, whole),
        "bias": "none",
        "init_lora_weights": True,
        "init_r": most,
        "target_r": min(method.target_rank, most),
        **allocation,
        "total_step": sum(allocation.values()) + 1,
        "deltaT": method.delta_t,
        "beta1": method.beta1,
        "beta2": method.beta2,
        "orth_reg_weight": method.orth_reg_weight,
        "rank_pattern": None if all(all(mask) for mask in masks.values()) else masks,
    }
    return fields, tensors, list(whole)
