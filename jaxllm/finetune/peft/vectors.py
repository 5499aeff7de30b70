"""IA3 and VeRA in PEFT's files.

IA3's `ia3_l` is [1, inputs] of a feed-forward module, else [outputs, 1]. VeRA's two random matrices are stored once, `vera_A`
[R, most inputs] and `vera_B` [most outputs, R]; each module takes their first columns and rows, in published order.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxllm.finetune.ia3 import IA3
from jaxllm.finetune.peft.base import Tensors, paths_of
from jaxllm.finetune.peft.config import endings
from jaxllm.finetune.peft.described import all_layers, parts_of, patterns_of, same, targets_by_path
from jaxllm.finetune.peft.flat import Flat, Place, stacked
from jaxllm.finetune.peft.incoming import Incoming
from jaxllm.finetune.peft.modules import Layout, Module
from jaxllm.finetune.vera import VeRA


def read_ia3(incoming: Incoming, also: tuple[str, ...]) -> tuple[IA3, Any]:
    """The method, and its parameters."""
    flats: dict[Place, Flat] = {}
    for name in incoming.own:
        module = incoming.module(name)
        is_input = incoming.shaped(name, "ia3_l", (None, None)).shape[0] == 1 and module.outputs != 1
        vector = incoming.shaped(name, "ia3_l", (1, module.inputs) if is_input else (module.outputs, 1)).reshape(-1)
        for part, target in enumerate(module.targets):
            order = module.order
            flat: Flat = {"input": order.own_inputs(vector)} if is_input else {"output": order.own_outputs(vector, part)}
            flats[target.path, module.layer] = flat
    targets = targets_by_path(incoming.layout)
    multiplied, feedforward = (
        all_layers([place for place, flat in flats.items() if kind in flat], targets, "IA3") for kind in ("output", "input")
    )
    return IA3(targets=multiplied, feedforward=feedforward, also=also), stacked(flats, targets, "ia3")


def write_ia3(layout: Layout, method: IA3, flats: Mapping[Place, Flat]) -> tuple[dict[str, Any], Tensors, list[str]]:
    """The config's fields, the tensors, and the names of the modules that are adapted."""
    tensors: Tensors = {}
    names: dict[str, list[str]] = {"input": [], "output": []}
    for name, module in layout.modules.items():
        parts = parts_of(module, flats)
        there = [part for part in parts if part is not None]
        if not there:
            continue
        kind = "input" if "input" in there[0] else "output"
        names[kind].append(name)
        tensors[f"{name}.ia3_l"] = _multiplier(module, parts, kind)
    everything, both = paths_of(layout), [*names["input"], *names["output"]]
    feedforward = endings(names["input"], everything)
    # PEFT compares the two lists word by word, so each feed-forward name must be among the targets as it is.
    targets = [*endings(names["output"], everything), *feedforward]
    fields = {
        "target_modules": targets,
        "feedforward_modules": feedforward,
        "fan_in_fan_out": any(layout.modules[name].order.fan_in_fan_out for name in both),
        "init_ia3_weights": True,
    }
    return fields, tensors, both


def _multiplier(module: Module, parts: list[Flat | None], kind: str) -> Float[np.ndarray, "..."]:
    if kind == "input":
        there = [part["input"] for part in parts if part is not None]
        if len(there) < len(parts) or not same(there):
            raise ValueError(
                f"PEFT multiplies the input of {module.name} once: this adapter does so for its parts apart; keep jaxllm's own "
                "layout"
            )
        return module.order.published_inputs(there[0])[None]
    ones = [np.ones(target.widths[1], np.float32) for target in module.targets]
    own = [one if part is None else part["output"] for one, part in zip(ones, parts, strict=True)]
    return module.order.published_outputs(own)[:, None]


def read_vera(incoming: Incoming, also: tuple[str, ...]) -> tuple[VeRA, Any]:
    """The method, and its parameters.

    Raises:
      ValueError: the random matrices are not in the file.
    """
    reader, rank = incoming.reader, incoming.reader.read("r", 256)
    reader.read("save_projection", True)
    if not {"vera_A", "vera_B"} <= set(incoming.others):
        raise ValueError(
            f"{reader.source} says save_projection=false, and VeRA's random matrices are not in the file: only torch's "
            "generator could make them again; save the adapter with save_projection=true"
        )
    bias = reader.must_be("bias", "none", "all", "vera_only")
    flats: dict[Place, Flat] = {}
    shared_a, shared_b = (incoming.others[name].astype(np.float32) for name in ("vera_A", "vera_B"))
    for name in incoming.own:
        module = incoming.module(name)
        vector_d = incoming.shaped(name, "vera_lambda_d", (rank,))
        vector_b = incoming.shaped(name, "vera_lambda_b", (module.outputs,))
        a, b = shared_a[:, : module.inputs], shared_b[: module.outputs]
        if a.shape != (rank, module.inputs) or b.shape != (module.outputs, rank):
            raise ValueError(
                f"vera_A and vera_B must be at least {(rank, module.inputs)} and {(module.outputs, rank)} for {name}: got "
                f"{shared_a.shape} and {shared_b.shape}; the adapter was made for {incoming.made_for}"
            )
        order = module.order
        for part, target in enumerate(module.targets):
            flats[target.path, module.layer] = {
                "a": order.own_inputs(a).T,
                "b": order.own_outputs(b.T, part),
                "lambda_d": vector_d,
                "lambda_b": order.own_outputs(vector_b, part),
            }
    targets = targets_by_path(incoming.layout)
    more = {"all": ("*/bias",), "vera_only": tuple(f"{path}/bias" for path, _ in flats), "none": ()}[bias]
    method = VeRA(
        rank=rank,
        d_initial=float(reader.read("d_initial", 0.1)),
        dropout=float(reader.read("vera_dropout", 0.0)),
        targets=patterns_of(flats, targets),
        also=tuple(dict.fromkeys((*also, *more))),
    )
    return method, stacked(flats, targets, "vera")


def write_vera(layout: Layout, method: VeRA, flats: Mapping[Place, Flat]) -> tuple[dict[str, Any], Tensors, list[str]]:
    """As `write_ia3`.

    Raises:
      ValueError: PEFT cannot have these matrices, as where a fused module has unlike vectors.
    """
    tensors: Tensors = {}
    inputs: list[np.ndarray] = []
    outputs: list[np.ndarray] = []
    names = []
    for name, module in layout.modules.items():
        parts = [part if part is not None and part["a"].any() else None for part in parts_of(module, flats)]
        there = [part for part in parts if part is not None]
        if not there:
            continue
        if len(there) < len(parts) or not same([part["lambda_d"] for part in there]) or not same([part["a"] for part in there]):
            _refuse(name)
        names.append(name)
        order = module.order
        inputs.append(order.published_inputs(there[0]["a"].T))
        outputs.append(order.published_outputs([part["b"] for part in there]).T)
        tensors[f"{name}.vera_lambda_d"] = there[0]["lambda_d"]
        tensors[f"{name}.vera_lambda_b"] = order.published_outputs([part["lambda_b"] for part in there])
    widest_a, widest_b = max(inputs, key=lambda a: a.shape[1]), max(outputs, key=len)
    for name, a, b in zip(names, inputs, outputs, strict=True):
        if not np.array_equal(widest_a[:, : a.shape[1]], a) or not np.array_equal(widest_b[: len(b)], b):
            _refuse(name)
    tensors |= {"vera_A": widest_a, "vera_B": widest_b}
    fields = {
        "r": method.rank,
        "target_modules": endings(names, paths_of(layout)),
        "projection_prng_key": 0,
        "save_projection": True,
        "vera_dropout": method.dropout,
        "d_initial": method.d_initial,
        "fan_in_fan_out": any(layout.modules[name].order.fan_in_fan_out for name in names),
        "bias": "none",
        "init_weights": True,
        "layers_to_transform": None,
        "layers_pattern": None,
    }
    return fields, tensors, names


def _refuse(name: str) -> None:
    raise ValueError(
        f"PEFT's VeRA has one vector of ranks for {name}, and takes its random matrices from the first rows and columns of "
        "two: this adapter has others, as where one published module is several here; keep jaxllm's own layout"
    )
