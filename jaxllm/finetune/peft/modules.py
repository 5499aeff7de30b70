"""The published modules of a model as its family's key map has them: which of our matrices each is, how its inputs and outputs
are ours, and which of our parameters are its weights.

A published module may be several of ours side by side, as GPT-2's `c_attn` is query, key and value. All that is needed to give
each its part is the order of inputs and outputs, which the key map's patterns say; so a new family needs nothing here.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int, Shaped

from jaxllm.finetune.targets import Target, targets_of
from jaxllm.interchange import Family
from jaxllm.interchange.keymap import BoundTensor, Index, bind_all
from jaxllm.models import path_of

WEIGHT = ".weight"


@dataclass(frozen=True)
class Order:
    """How the inputs and outputs of one row of a key map are those of our matrices, laid flat."""

    inputs: Int[np.ndarray, " inputs"]
    """Our place of each published input."""
    owner: Int[np.ndarray, " outputs"]
    """Which of our matrices has each published output."""
    outputs: Int[np.ndarray, " outputs"]
    """Its place there."""
    fan_in_fan_out: bool
    """Whether the published weight has inputs first."""

    def own_inputs(self, x: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """[..., inputs] in our order."""
        found = np.empty_like(x)
        found[..., self.inputs] = x
        return found

    def published_inputs(self, x: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        return x[..., self.inputs]

    def own_outputs(self, x: Float[np.ndarray, "..."], part: int) -> Float[np.ndarray, "..."]:
        """Of [..., outputs] those of one of our matrices, in our order."""
        mine = self.owner == part
        found = np.empty((*x.shape[:-1], int(mine.sum())), x.dtype)
        found[..., self.outputs[mine]] = x[..., mine]
        return found

    def published_outputs(self, parts: Sequence[Float[np.ndarray, "..."]]) -> Float[np.ndarray, "..."]:
        """[..., outputs] of what our matrices have each."""
        found = np.empty((*parts[0].shape[:-1], len(self.owner)), parts[0].dtype)
        for part, x in enumerate(parts):
            mine = self.owner == part
            found[..., mine] = x[..., self.outputs[mine]]
        return found


@dataclass(frozen=True)
class Module:
    """A published module of one layer whose weight is a matrix."""

    name: str
    """Its path: "model.layers.0.self_attn.q_proj"."""
    layer: int
    """Which layer it is of, counted along ours; 0 outside of layers."""
    targets: tuple[Target, ...]
    """Our matrices that it is, without values."""
    order: Order
    tensor: BoundTensor
    """The row of its weight."""

    @property
    def inputs(self) -> int:
        return len(self.order.inputs)

    @property
    def outputs(self) -> int:
        return len(self.order.owner)

    @property
    def is_embedding(self) -> bool:
        return self.targets[0].is_embedding

    def index(self) -> Index:
        return (self.layer,) if self.targets[0].leading else ()


@dataclass(frozen=True)
class Layout:
    """A model's published modules and tensors, and its base parameters."""

    find_family: Callable[[], Family]
    """The published family that the model is of; asked for published names only, which not every model with a head has."""
    config: Any
    params: Any
    """Of the model without a method: nested dicts of arrays."""
    axes: Any
    """Their logical axes."""

    @cached_property
    def family(self) -> Family:
        return self.find_family()

    @cached_property
    def leaves(self) -> dict[str, Any]:
        return {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(self.params)}

    @cached_property
    def bound(self) -> list[BoundTensor]:
        return bind_all(self.family.tensors(self.config), {path: tuple(leaf.shape) for path, leaf in self.leaves.items()})

    @cached_property
    def tensors(self) -> dict[str, tuple[BoundTensor, Index]]:
        """Every published tensor by its name."""
        return {tensor.name(index): (tensor, index) for tensor in self.bound for index in tensor.indices()}

    @cached_property
    def modules(self) -> dict[str, Module]:
        """Every module with a matrix, by its name."""
        targets = {f"{target.path}/{_kind(target)}": target for target in targets_of(self.params, self.axes)}
        found = {}
        for tensor in self.bound:
            paths = tensor.tensor.paths
            if not tensor.tensor.name.endswith(WEIGHT) or any(path not in targets for path in paths):
                continue
            if len(tensor.shape) != 2:
                continue
            mine = tuple(targets[path] for path in paths)
            order = _order(tensor, mine)
            for index in tensor.indices():
                name = tensor.name(index).removesuffix(WEIGHT)
                found[name] = Module(name, index[0] if index else 0, mine, order, tensor)
        return found

    def named(self, name: str, known: Mapping[str, Any]) -> str | None:
        """What a name in a file is called here: files name modules with or without the model's own prefix."""
        return next((text for text in self.family.spellings(name) if text in known), None)

    def weight(self, module: Module) -> Float[np.ndarray, "outputs inputs"]:
        """The published weight as a linear layer has it, in float32."""
        found = self.published(module.tensor, module.index()).astype(np.float32)
        return found.T if module.order.fan_in_fan_out or module.is_embedding else found

    def published(self, tensor: BoundTensor, index: Index, other: Mapping[str, Any] | None = None) -> Shaped[np.ndarray, "..."]:
        """A published tensor of the base, or of `other` parameters by path."""
        leaves = self.leaves if other is None else {**self.leaves, **other}
        return tensor.to_published([np.asarray(leaves[path][index] if index else leaves[path]) for path in tensor.tensor.paths])


def _kind(target: Target) -> str:
    return "table" if target.is_embedding else "kernel"


def _order(tensor: BoundTensor, targets: Sequence[Target]) -> Order:
    """The order of inputs and outputs, by sending their numbers the way that the weight goes."""
    many = tensor.stacked
    inputs, owners, outputs, first = None, [], [], False
    patterns = tensor.patterns * len(targets) if many else tensor.patterns
    for part, (pattern, target) in enumerate(zip(patterns, targets, strict=True)):
        sizes = tensor.sizes[0 if many else part]
        groups = pattern.ours[1:] if many else pattern.ours
        counting = pattern.ours[0] if many else ()
        read = {letter for group in groups[: target.contracted] for letter in group}
        made = {letter for group in groups[target.contracted :] for letter in group}
        ones = dict.fromkeys(sizes, 1)
        own = _numbers(pattern, ones | {letter: sizes[letter] for letter in read})
        inputs = own if inputs is None else inputs
        first = set(pattern.published[0]) <= read
        whole = _numbers(pattern, ones | {letter: sizes[letter] for letter in (*made, *counting)})
        if many:
            width = math.prod(sizes[letter] for letter in made)
            return Order(inputs, whole // width, whole % width, first)
        owners.append(np.full(len(whole), part))
        outputs.append(whole)
    assert inputs is not None
    if len(targets) > 1 and first:
        raise ValueError(f"the key map's row {tensor.tensor.name} must have its parts along its outputs; correct the family")
    return Order(inputs, np.concatenate(owners), np.concatenate(outputs), first)


def _numbers(pattern: Any, sizes: Mapping[str, int]) -> Int[np.ndarray, " places"]:
    """In published order, the place in ours of each number of an array of these sizes."""
    count = math.prod(sizes[letter] for group in pattern.ours for letter in group)
    return pattern.to_published(np.arange(count), sizes).reshape(-1)
