"""The loss of long sequences over large vocabularies: the logits of a few time steps exist at once.

Where it is differentiated, the gradients of a piece are made together with its logits, so that logits are neither kept nor
computed twice. On a mesh each device adds up the gradient of the output matrix over its own tokens, and the sum over devices
is taken once, behind the last piece.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec
from jaxtyping import Float, Int

from jaxllm.models import TransformerConfig, unembed
from jaxllm.sharding import axis_names, map_shards, scatter_sum, spec
from jaxllm.sharding.constrain import current_mesh, is_explicit, reshard
from jaxllm.training.cross_entropy import LossConfig, LossSums, cross_entropy

MATRICES = {"kernel": ("embed", "vocab"), "table": ("vocab", "embed")}
"""Logical axes of the output matrix, under either of its names in `unembed_parts`."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def loss_in_pieces(
    stack: TransformerConfig,
    config: LossConfig,
    parts: dict[str, Any],
    hidden: Float[Array, "B T D"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
) -> LossSums:
    """The cross-entropy of last hidden states, `config.chunk` time steps at a time.

    Only `total` has a gradient, by `parts` and `hidden`: that by `weights` is given as 0, and JAX refuses forward-mode
    differentiation (`jax.jvp`).

    Args:
      parts: what hidden states are unembedded with, from `unembed_parts`.
    """
    split = _split(hidden.shape)
    count = _count(config, hidden.shape[1], split)

    def local(parts: Any, *arrays: Array) -> LossSums:
        def add(sums: LossSums, piece: tuple[Array, ...]) -> tuple[LossSums, None]:
            return jax.tree.map(jnp.add, sums, _piece(stack, config, parts, *piece)), None

        return split.sum(jax.lax.scan(add, LossSums.zeros(), _pieces(arrays, count))[0])

    return split.map(local, PartitionSpec())(parts, hidden, targets, weights)


def _with_gradients(
    stack: TransformerConfig, config: LossConfig, parts: dict[str, Any], hidden: Array, targets: Array, weights: Array
) -> tuple[LossSums, tuple[Any, Array, Array]]:
    split = _split(hidden.shape)
    count = _count(config, hidden.shape[1], split)
    layouts = {name: split.stored(name, part) for name, part in parts.items()}

    def total(parts: Any, *piece: Array) -> tuple[Array, LossSums]:
        sums = _piece(stack, config, parts, *piece)
        return sums.total, sums

    def local(parts: Any, *arrays: Array) -> tuple[LossSums, Any, Array]:
        def add(so_far: tuple[LossSums, Any], piece: tuple[Array, ...]) -> tuple[Any, Array]:
            (_, sums), (of_parts, of_hidden) = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(parts, *piece)
            summed = jax.tree.map(lambda old, new: old + new.astype(old.dtype), so_far[1], of_parts)
            return (jax.tree.map(jnp.add, so_far[0], sums), summed), of_hidden

        zeros = jax.tree.map(lambda part: jnp.zeros_like(part, jnp.float32), parts)
        (sums, of_parts), of_hidden = jax.lax.scan(add, (LossSums.zeros(), zeros), _pieces(arrays, count))
        of_parts = jax.tree.map(lambda gradient, part: gradient.astype(part.dtype), of_parts, parts)
        of_parts = {name: split.sum_into(name, layouts[name], gradient) for name, gradient in of_parts.items()}
        of_hidden = jnp.moveaxis(of_hidden, 0, 1).reshape(arrays[0].shape)
        return split.sum(sums), of_parts, of_hidden

    out = (PartitionSpec(), layouts, split.rows(3))
    sums, of_parts, of_hidden = split.map(local, out)(parts, hidden, targets, weights)
    return sums, (jax.tree.map(_alike, of_parts, parts), of_hidden, weights)


def _scaled(stack: TransformerConfig, config: LossConfig, kept: tuple[Any, Array, Array], cotangent: LossSums) -> tuple:
    of_parts, of_hidden, weights = kept
    scale = lambda gradient: (cotangent.total * gradient.astype(jnp.float32)).astype(gradient.dtype)  # noqa: E731
    return jax.tree.map(scale, of_parts), scale(of_hidden), None, jnp.zeros_like(weights)


loss_in_pieces.defvjp(_with_gradients, _scaled)


def _piece(stack: TransformerConfig, config: LossConfig, parts: Any, hidden: Array, targets: Array, weights: Array) -> LossSums:
    return cross_entropy(unembed(stack, parts, hidden), targets, weights, config)


def _count(config: LossConfig, time: int, split: "_Split") -> int:
    """Pieces. Where a device has fewer time steps of its own than there are pieces, or a number they do not divide, it computes
    in fewer: no time step moves."""
    assert config.chunk is not None
    if time % config.chunk:
        raise ValueError(f"loss.chunk must divide the sequence length: got chunk={config.chunk} and {time} time steps")
    return math.gcd(time // config.chunk, time // split.time_parts)


def _pieces(arrays: tuple[Array, ...], count: int) -> tuple[Array, ...]:
    """[B, T, ...] as [count, B, T / count, ...]."""
    apart = (array.reshape(array.shape[0], count, -1, *array.shape[2:]) for array in arrays)
    return tuple(jnp.moveaxis(array, 1, 0) for array in apart)


class _Split(NamedTuple):
    """How the tokens of a batch lie on the mesh. What is done with each device's own is done inside `jax.shard_map` over the
    mesh axes that split them."""

    batch: tuple[str, ...]
    time: tuple[str, ...]

    @property
    def axes(self) -> tuple[str, ...]:
        return self.batch + self.time

    @property
    def time_parts(self) -> int:
        mesh = current_mesh()
        return 1 if mesh is None else math.prod(mesh.shape[axis] for axis in self.time)

    def rows(self, ndim: int) -> PartitionSpec:
        return PartitionSpec(self.batch or None, self.time or None, *[None] * (ndim - 2))

    def map(self, function: Callable, out: Any) -> Callable:
        if not self.axes:
            return function
        given = (PartitionSpec(), self.rows(3), self.rows(2), self.rows(2))
        return map_shards(function, given, out, self.axes)

    def sum(self, tree: Any) -> Any:
        return jax.lax.psum(tree, self.axes) if self.axes else tree

    def stored(self, name: str, part: Any) -> Any:
        """The layout of a part's gradient: the output matrix's is spread as that is stored, others are everywhere."""
        mesh = current_mesh()
        if name not in MATRICES or not self.axes or mesh is None or is_explicit(mesh):
            return jax.tree.map(lambda _: PartitionSpec(), part)
        entries = spec(MATRICES[name], part.shape, mesh, stored=True)
        return PartitionSpec(*(tuple(axis for axis in axis_names(entry) if axis in self.axes) or None for entry in entries))

    def sum_into(self, name: str, layout: Any, gradient: Any) -> Any:
        """The sum over devices, each of which keeps its part of the layout."""
        if not self.axes:
            return gradient
        if not isinstance(gradient, Array):
            return self.sum(gradient)

        def summed(gradient: Array) -> Array:
            scattered: tuple[str, ...] = ()
            for dimension, entry in enumerate(layout):
                if names := axis_names(entry):
                    gradient = scatter_sum(gradient, names, dimension)
                    scattered += names
            rest = tuple(axis for axis in self.axes if axis not in scattered)
            return jax.lax.psum(gradient, rest) if rest else gradient

        mesh = current_mesh()
        if mesh is None or name not in MATRICES or is_explicit(mesh):
            return summed(gradient)
        own = spec(MATRICES[name], gradient.shape, mesh)  # left to itself, the compiler would gather the vocabulary first
        return map_shards(summed, own, own)(gradient)


def _split(shape: tuple[int, ...]) -> _Split:
    mesh = current_mesh()
    if mesh is None:
        return _Split((), ())
    batch, time, _ = (axis_names(entry) for entry in spec(("batch", "time", "embed"), shape, mesh))
    return _Split(batch, time)


def _alike(gradient: Array, part: Array) -> Array:
    """On an Explicit mesh a gradient must lie as what it is the gradient of."""
    mesh = current_mesh()
    return reshard(gradient, jax.typeof(part).sharding.spec) if mesh is not None and is_explicit(mesh) else gradient
