"""LoRA with its variants, and AdaLoRA, in PEFT's files.

    ours: A [inputs, R], B [R, outputs]        theirs: lora_A [R, inputs], lora_B [outputs, R]

A published module that is several matrices of ours has one A for all. Read, each of ours gets a copy. Written, copies that are
still alike become one again; others stand above each other, and B is 0 where they do not meet.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxllm.finetune.adalora import AdaLoRA
from jaxllm.finetune.lora import LoRA
from jaxllm.finetune.peft.config import of_pattern
from jaxllm.finetune.peft.described import all_layers, patterns_of, same, targets_by_path, values_by_pattern
from jaxllm.finetune.peft.flat import Flat, Place, kept, stacked
from jaxllm.finetune.peft.incoming import Incoming
from jaxllm.finetune.peft.modules import Module

PLAIN = (True, False, "gaussian", "eva", "orthogonal")
"""Values of init_lora_weights that leave the base as it is."""


def read_lora(incoming: Incoming, also: tuple[str, ...]) -> tuple[LoRA, Any]:
    """The method, and its parameters."""
    reader, layout = incoming.reader, incoming.layout
    rank, alpha, stabilized = reader.read("r", 8), reader.read("lora_alpha", 8), reader.read("use_rslora", False)
    dora, bias, lora_bias = reader.read("use_dora", False), reader.read("bias", "none"), reader.read("lora_bias", False)
    begins = reader.must_be("init_lora_weights", True, *PLAIN[1:], "pissa")
    reader.read("rank_pattern", None)
    if begins == "eva":
        reader.ignore("eva_config")  # how it began
    alphas = reader.read("alpha_pattern", None)
    flats: dict[Place, Flat] = {}
    ranks: dict[Place, int] = {}
    by_place: dict[Place, float] = {}
    for name in incoming.own:
        module = incoming.module(name)
        a, b = _pair(incoming, name, module)
        own_alpha = float(of_pattern(alphas, name, alpha))
        scale = own_alpha / (len(a) ** 0.5 if stabilized else len(a))
        whole: Flat = {"a": a, "b": b, "scale": np.asarray(scale, np.float32)}
        if begins == "pissa":
            whole |= _pissa(layout.weight(module), len(a), scale, is_table=module.is_embedding)
        if dora:
            whole["magnitude"] = incoming.shaped(name, "lora_magnitude_vector", (module.outputs,))
        if lora_bias:
            whole["bias"] = incoming.shaped(name, "lora_B.bias", (module.outputs,))
        for place, flat in _given_out(module, whole).items():
            flats[place], ranks[place], by_place[place] = flat, len(a), own_alpha
    _check_any(flats, incoming)
    targets = targets_by_path(layout)
    if bias == "lora_only":
        all_layers(flats, targets, "LORA with bias='lora_only'")
    rank, rank_patterns = values_by_pattern(ranks, targets)
    alpha, alpha_patterns = values_by_pattern(by_place, targets)
    method = LoRA(
        rank=rank,
        alpha=alpha,
        dropout=float(reader.read("lora_dropout", 0.0)),
        targets=patterns_of(flats, targets),
        rank_patterns=rank_patterns,
        alpha_patterns=alpha_patterns,
        rank_stabilized=stabilized,
        dora=dora,
        initialization="pissa" if begins == "pissa" else "kaiming",
        lora_bias=lora_bias,
        bias=bias,
        also=also,
    )
    return method, stacked(flats, targets, "lora")


def _pair(
    incoming: Incoming, name: str, module: Module
) -> tuple[Float[np.ndarray, "R inputs"], Float[np.ndarray, "outputs R"]]:
    names = ("lora_embedding_A", "lora_embedding_B") if module.is_embedding else ("lora_A.weight", "lora_B.weight")
    a = incoming.shaped(name, names[0], (None, module.inputs))
    return a, incoming.shaped(name, names[1], (module.outputs, len(a)))


def _pissa(weight: Float[np.ndarray, "outputs inputs"], rank: int, scale: float, *, is_table: bool) -> Flat:
    """The product that PEFT takes off the base whenever it opens such a file: that of the largest singular vectors."""
    if is_table:  # of an embedding it takes nothing
        return {"initial_a": np.zeros((rank, weight.shape[1])), "initial_b": np.zeros((weight.shape[0], rank))}
    u, s, v = np.linalg.svd(weight, full_matrices=False)
    root = np.sqrt(s[:rank] / np.float32(scale))
    return {"initial_a": root[:, None] * v[:rank], "initial_b": u[:, :rank] * root}


def _given_out(module: Module, whole: Mapping[str, Any]) -> dict[Place, Flat]:
    """A published module's parameters as those of our matrices."""
    order, found = module.order, {}
    for part, target in enumerate(module.targets):
        flat: Flat = {}
        for name, value in whole.items():
            if name in ("a", "initial_a"):
                flat[name] = order.own_inputs(value).T
            elif name in ("b", "initial_b"):
                flat[name] = order.own_outputs(value.T, part)
            else:
                flat[name] = order.own_outputs(value, part) if name in ("magnitude", "bias") else value
        found[target.path, module.layer] = flat
    return found


def _check_any(flats: Mapping[Place, Flat], incoming: Incoming) -> None:
    if not flats:
        raise ValueError(f"the tensors beside {incoming.reader.source} must adapt a module: none does; copy them again")


def read_adalora(incoming: Incoming, also: tuple[str, ...]) -> tuple[AdaLoRA, Any]:
    """The method, and its parameters: ranks that are pruned are 0."""
    reader = incoming.reader
    rank, alpha = reader.read("init_r", 12), float(reader.read("lora_alpha", 8))
    masks = {name.removesuffix(".default"): mask for name, mask in (reader.read("rank_pattern", None) or {}).items()}
    reader.must_be("bias", "none")
    flats: dict[Place, Flat] = {}
    for name in incoming.own:
        module = incoming.module(name)
        mask = np.array(masks.get(f"{name}.lora_E", [True] * rank), bool)
        count = int(mask.sum())
        whole = {"a": np.zeros((rank, module.inputs), np.float32), "b": np.zeros((module.outputs, rank), np.float32)}
        whole["a"][mask] = incoming.shaped(name, "lora_A", (count, module.inputs))
        whole["b"][:, mask] = incoming.shaped(name, "lora_B", (module.outputs, count))
        values = np.zeros(rank, np.float32)
        values[mask] = incoming.shaped(name, "lora_E", (count, 1))[:, 0]
        flats |= _given_out(module, {**whole, "e": values, "scale": np.asarray(alpha / (rank + 1e-5), np.float32)})
    _check_any(flats, incoming)
    targets = targets_by_path(incoming.layout)
    method = AdaLoRA(
        init_rank=rank,
        target_rank=min(reader.read("target_r", 8), rank),
        alpha=alpha,
        dropout=float(reader.read("lora_dropout", 0.0)),
        targets=all_layers(flats, targets, "ADALORA"),
        tinit=reader.read("tinit", 0),
        tfinal=reader.read("tfinal", 0),
        delta_t=reader.read("deltaT", 1),
        beta1=reader.read("beta1", 0.85),
        beta2=reader.read("beta2", 0.85),
        orth_reg_weight=float(reader.read("orth_reg_weight", 0.5)),
        also=also,
    )
    return method, stacked(flats, targets, "adalora")


def joined_parts(module: Module, parts: Sequence[Flat | None]) -> Flat:
    """One A and B, with e and scale, of those of a published module's matrices: `a` as [inputs, R] and `b` as [R, outputs],
    both in published order."""
    there = [part for part in parts if part is not None]
    scale = float(next((part["scale"] for part in there if part["scale"] != 0), 0.0))
    shared = same([part["a"] for part in there]) and same([part.get("e", 0) for part in there])
    width = there[0]["a"].shape[1] if shared else sum(part["a"].shape[1] for part in there)
    outputs, place = [], 0
    for part, target in zip(parts, module.targets, strict=True):
        b = np.zeros((width, target.widths[1]), np.float32)
        if part is not None:
            count = part["a"].shape[1]
            b[place : place + count] = part["b"] * (part["scale"] / scale if scale else 1)
            place += 0 if shared else count
        outputs.append(b)
    taken = there[:1] if shared else there
    found = {
        "a": module.order.published_inputs(np.concatenate([part["a"] for part in taken], axis=1).T).T,
        "b": module.order.published_outputs(outputs),
        "scale": np.asarray(scale, np.float32),
    }
    if "e" in there[0]:
        found["e"] = np.concatenate([part["e"] for part in taken])
    return found


def learnt_ranks(flat: Flat) -> Flat:
    """AdaLoRA's parameters with the triplets only that are not pruned."""
    return kept(flat, flat["e"] != 0)
