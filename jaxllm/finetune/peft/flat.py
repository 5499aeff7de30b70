"""A method's parameters of one matrix of one layer, laid flat: `a` as [inputs, R], `b` as [R, outputs], vectors. In our trees
the same are stacked over layers, with zeros where a layer has a smaller rank or none, and inputs and outputs have axes of their
own."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jaxllm.finetune.targets import Target, joined, nested

SHAPES = {
    "a": "IR",
    "b": "RO",
    "initial_a": "IR",
    "initial_b": "RO",
    "e": "R",
    "scale": "",
    "magnitude": "O",
    "bias": "O",
    "lambda_d": "R",
    "lambda_b": "O",
    "input": "I",
    "output": "O",
}
"""Axes of each parameter of a method: inputs, outputs, rank."""
Flat = dict[str, Float[np.ndarray, "..."]]
Place = tuple[str, int]
"""A module's path and a layer."""


def stacked(flats: Mapping[Place, Flat], targets: Mapping[str, Target], leaf: str) -> dict[str, Any]:
    """Flat parameters by module and layer as a tree of ours.

    Args:
      targets: the modules by path.
      leaf: name of the method's parameters in a module's.
    """
    trees = []
    for path in dict.fromkeys(path for path, _ in flats):
        target = targets[path]
        own = {layer: flats[path, layer] for layer in range(target.layers) if (path, layer) in flats}
        values = {name: _stack(name, own, target) for name in next(iter(own.values()))}
        trees.append(nested(f"{path}/{leaf}", values))
    return joined(trees)


def _stack(name: str, own: Mapping[int, Flat], target: Target) -> Float[np.ndarray, "..."]:
    axes = SHAPES[name]
    widths = dict(zip("IO", target.widths, strict=True))
    rank = max((flat[name].shape[axes.index("R")] for flat in own.values()), default=0) if "R" in axes else 0
    whole = np.zeros((target.layers, *({**widths, "R": rank}[axis] for axis in axes)), np.float32)
    for layer, flat in own.items():
        whole[(layer, *map(slice, flat[name].shape))] = flat[name]
    return whole.reshape((*target.sizes[0], *_sizes(axes, target, rank)))


def _sizes(axes: str, target: Target, rank: int) -> list[int]:
    _, inputs, outputs = target.sizes
    return [size for axis in axes for size in {"I": inputs, "O": outputs, "R": (rank,)}[axis]]


def taken_apart(own: Any, target: Target) -> list[Flat]:
    """The flat parameters of each layer of a module."""
    found: list[Flat] = [{} for _ in range(target.layers)]
    for name, value in own.items():
        axes, array = SHAPES[name], np.asarray(jax.device_get(value), np.float32)
        width = {"I": target.widths[0], "O": target.widths[1]}
        if "R" in axes:
            others = int(np.prod([width[axis] for axis in axes if axis != "R"]))
            width["R"] = array.size // target.layers // others
        array = array.reshape(target.layers, *(width[axis] for axis in axes))
        for layer in range(target.layers):
            found[layer][name] = np.asarray(array[layer])
    return found


def without_padding(flat: Flat, names: Sequence[str] = ("a", "b")) -> Flat:
    """The parameters with only those ranks that have a number other than 0 in A or B; at least one stays."""
    used = np.any(flat[names[0]] != 0, axis=0) | np.any(flat[names[1]] != 0, axis=1)
    if not used.any():
        used[:1] = True
    return kept(flat, used)


def kept(flat: Flat, used: Any) -> Flat:
    """The parameters with some of the ranks only."""
    return {
        name: np.compress(used, value, axis=SHAPES[name].index("R")) if "R" in SHAPES[name] else value
        for name, value in flat.items()
    }
