"""What can be done with adapters that have learnt: merge them and take them out again, exchange them, combine them, give each
row of a batch its own.

An adapter is a nested dict: all parameters that have learnt, and those of the method that have not. Put over the base model's
parameters it makes the adapted model's. Adapters of one shape are exchanged without compiling again.

    adapter = take_adapter(method, params)                          # of a model that has learnt
    params = overlay(base, adapter)                                 # that model again
    params = overlay(base, blank_adapter(model, base))              # a model that computes what the base does
    params = with_rows(base, stack_adapters([blank, one, other]), rows)         # row i of a batch has adapter rows[i]
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jaxtyping import ArrayLike, Int

from jaxllm.finetune.adapted import begin_params, unadapted
from jaxllm.finetune.lora import LoRA, whole_product
from jaxllm.finetune.low_rank import delta, singular
from jaxllm.finetune.method import Method
from jaxllm.finetune.targets import joined, nested
from jaxllm.models import EncoderDecoder, Model, Transformer, TransformerConfig, overlay, partition, path_of
from jaxllm.models.partition import paths


class Merged(NamedTuple):
    """A model without its method, and the way back."""

    model: Model
    params: Any
    replaced: Any
    """The base model's parameters that merging has changed, as they were."""
    added: tuple[str, ...] = ()
    """Paths of parameters that the base model has not."""


def take_adapter(method: Method, params: Any) -> Any:
    """What of a model's parameters is the adapter."""
    return partition(params, lambda path: _is_own(method, path) or method.learns(path))[0]


def take_base(method: Method, params: Any) -> Any:
    """A model's parameters without those that its method has added. Parameters of the model that have learnt are as they are
    now."""
    return partition(params, lambda path: not _is_own(method, path))[0]


def blank_adapter(model: Model, base: Any, key: Array | None = None) -> Any:
    """The adapter that changes nothing, in the shape of all others of an adapted model's method; of one with virtual tokens,
    which always change something, an adapter as it begins.

    Args:
      base: parameters of the model without its method.
    """
    key = jax.random.key(0) if key is None else key
    return take_adapter(model.method, begin_params(model, key, base))  # type: ignore[union-attr]


def merge(model: Model, params: Any) -> Merged:
    """An adapted model as one without a method that computes the same. Where an embedding was adapted whose table is also the
    output matrix, that matrix becomes one of its own.

    Raises:
      ValueError: what the method has learnt cannot be worked into a model.
    """
    plain = unadapted(model)
    if plain is model:
        return Merged(model, params, {})
    method: Method = model.method  # type: ignore[union-attr]
    plain, changed = _untied(plain, params)
    changed = method.merge(changed)
    if changed is None:
        raise ValueError(f"method {type(method).__name__} cannot be merged into its base model: go on with the adapter")
    before = {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(params)}
    after = {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(changed)}
    added = tuple(path for path in after if path not in before)
    replaced = partition(params, lambda path: path in after and after[path] is not before[path])[0]
    return Merged(plain, changed, replaced, added)


def unmerge(merged: Merged) -> Any:
    """The base model's parameters as they were before `merge`, bit by bit; those of its own that learn stay as learnt."""
    return partition(overlay(merged.params, merged.replaced), lambda path: path not in merged.added)[0]


def _untied(model: Model, params: Any) -> tuple[Model, Any]:
    """The model whose output matrix has numbers of its own, those of the table, where merging changes the table."""
    if isinstance(model, EncoderDecoder) and not model.config.share_embeddings:
        config, own = _untied_stack(model.config.decoder, params["decoder"])
        return EncoderDecoder(dataclasses.replace(model.config, decoder=config)), {**params, "decoder": own}
    if isinstance(model, Transformer):
        config, own = _untied_stack(model.config, params)
        return Transformer(config), own
    return model, params


def _untied_stack(config: TransformerConfig, params: Any) -> tuple[TransformerConfig, Any]:
    if config.head.kind != "vocabulary" or not config.tie_embeddings or "lora" not in params["embed"]:
        return config, params
    own = params.get("unembed", {}) | {"kernel": jnp.swapaxes(params["embed"]["table"], 0, 1)}
    return dataclasses.replace(config, tie_embeddings=False), {**params, "unembed": own}


def stack_adapters(adapters: Sequence[Any]) -> Any:
    """Adapters of one method as one, each array with an axis over them, behind that over layers. Lower ranks are filled up with
    zeros.

    Raises:
      ValueError: adapters that change different modules, that have parameters of the model itself, which stay those of all, or
        virtual tokens of another number or still made by a network.
    """
    trees = [{path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)} for tree in adapters]
    for tree in trees:
        if tree.keys() != trees[0].keys():
            apart = sorted(tree.keys() ^ trees[0].keys())
            raise ValueError(f"adapters of one batch must change the same modules: {apart[0]} is in some only")

    _refuse_whole(adapters, "adapters of one batch", _BY_ROW)
    made = [path for path in trees[0] if {"prefix", "prompt"} & set(path.split("/"))]
    for path in made:
        if not path.endswith(("prefix/keys", "prefix/values", "prompt/table")):
            raise ValueError(
                f"adapters of one batch must have their virtual tokens themselves: {path} is of the network that makes them; "
                "take the adapter of method.settle(params)"
            )
        counts = {tree[path].shape for tree in trees}
        if len(counts) > 1:
            raise ValueError(f"adapters of one batch must have as many virtual tokens: got {sorted(counts)} for {path}")

    def stacked(keys: Any, first: Array) -> Array:
        path = path_of(keys)
        leaves = [tree[path] for tree in trees]
        shape = tuple(max(sizes) for sizes in zip(*(leaf.shape for leaf in leaves), strict=True))
        return jnp.stack([_filled(leaf, shape) for leaf in leaves], axis=_place(path))

    return jax.tree_util.tree_map_with_path(stacked, adapters[0])


def with_rows(base: Any, stacked: Any, rows: Int[ArrayLike, " B"]) -> Any:
    """Parameters for a batch whose row i has adapter rows[i] of `stack_adapters`, for the adapted model as it is. `rows` may be
    an argument of the compiled program: other rows need no other program, and a number that is not there is then the nearest.

    Raises:
      ValueError: the output matrix or the head of a task is adapted, which all rows share; or numbers that are known when this
        is called, and are of no adapter.
    """
    shared = {"unembed", "head"} & {part for path in paths(stacked) for part in path.split("/")}
    if shared:
        names = " and ".join("'head/*'" if name == "head" else "'unembed'" for name in sorted(shared))
        raise ValueError(
            "adapters of one batch must leave the output matrix and the head alone, which all rows share: exclude " + names
        )
    index, leaves = jnp.asarray(rows, jnp.int32), jax.tree_util.tree_leaves_with_path(stacked)
    if leaves and not isinstance(index, Tracer):
        keys, leaf = leaves[0]
        last = leaf.shape[_place(path_of(keys))] - 1
        wrong = [row for row in np.asarray(index).tolist() if not 0 <= row <= last]
        if wrong:
            raise ValueError(f"rows must be in 0..{last}, the adapters that were stacked: got {wrong[0]}")

    def taken(keys: Any, leaf: Array) -> Array:
        return jnp.take(leaf, index, axis=_place(path_of(keys)), mode="clip")

    return overlay(base, jax.tree_util.tree_map_with_path(taken, stacked))


def combine(
    method: LoRA,
    adapters: Sequence[Any],
    weights: Sequence[float],
    kind: Literal["linear", "cat", "svd"] = "cat",
    rank: int | None = None,
) -> tuple[LoRA, Any]:
    """LoRA adapters as one, whose product is the weighted sum of theirs, and its method.

    Args:
      kind: cat: exact, with the sum of the ranks; svd: the best of `rank`; linear: A and B are summed apart, each by the root
        of weight and scale, which is far from exact, and cheap.
      rank: for svd. By default the largest of the adapters'.

    Raises:
      ValueError: adapters that are not plain LoRA, or of different modules; for linear, of different ranks.
    """
    if kind not in ("linear", "cat", "svd"):
        raise ValueError(f"kind must be linear, cat or svd: got {kind!r}")
    if rank is not None and rank < 1:
        raise ValueError(f"rank must be at least 1: got {rank}")
    if len(adapters) != len(weights) or not adapters:
        raise ValueError(f"one weight an adapter: got {len(weights)} for {len(adapters)}")
    if method.dora or method.lora_bias:
        raise ValueError("combining needs LoRA without dora and lora_bias: merge such adapters one after the other")
    modules = [_modules(tree, "lora") for tree in adapters]
    for other in modules[1:]:
        if other.keys() != modules[0].keys():
            apart = sorted(other.keys() ^ modules[0].keys())
            raise ValueError(f"adapters to combine must change the same modules: {apart[0]} is in some only")
    _refuse_whole(adapters, "adapters to combine", {"lora"})
    for own in (own for tree in modules for own in tree.values()):
        if more := own.keys() & {"magnitude", "bias"}:
            raise ValueError(f"adapters to combine must be LoRA without dora and lora_bias: one has {min(more)}")
    combined = {path: _combined(path, [_plain(tree[path]) for tree in modules], weights, kind, rank) for path in modules[0]}
    widest = max(own["a"].shape[-1] for own in combined.values())
    found = joined([nested(f"{path}/lora", _widened(own, widest)) for path, own in combined.items()])
    fields = {"rank": widest, "alpha": float(widest), "rank_patterns": (), "alpha_patterns": (), "rank_stabilized": False}
    return dataclasses.replace(method, **fields, initialization="kaiming"), found


def _combined(path: str, owns: Sequence[Any], weights: Sequence[float], kind: str, rank: int | None) -> dict[str, Array]:
    """One module's A, B and scale, which is 1."""
    leading = owns[0]["scale"].ndim
    spread = lambda x, like: x.reshape(x.shape + (1,) * (like.ndim - leading))  # noqa: E731
    factors = [weight * own["scale"] for weight, own in zip(weights, owns, strict=True)]
    pairs = list(zip(factors, owns, strict=True))
    scale = jnp.ones_like(owns[0]["scale"])
    if kind == "cat":
        a = jnp.concatenate([spread(factor, own["a"]) * own["a"] for factor, own in pairs], axis=-1)
        return {"a": a, "b": jnp.concatenate([own["b"] for own in owns], axis=leading), "scale": scale}
    if kind == "linear":
        if len({own["a"].shape for own in owns}) > 1:
            raise ValueError(f"kind='linear' needs adapters of one rank: those of {path} differ; take kind='svd' or 'cat'")
        roots = [jnp.sqrt(jnp.abs(factor)) for factor in factors]
        a = sum(spread(jnp.sign(f) * root, own["a"]) * own["a"] for (f, own), root in zip(pairs, roots, strict=True))
        b = sum(spread(root, own["b"]) * own["b"] for own, root in zip(owns, roots, strict=True))
        return {"a": jnp.asarray(a), "b": jnp.asarray(b), "scale": scale}
    a, b = owns[0]["a"], owns[0]["b"]
    inputs, outputs = a.shape[leading:-1], b.shape[leading + 1 :]
    flat_sizes = (*scale.shape, math.prod(inputs), math.prod(outputs))
    zero = jnp.zeros(flat_sizes, jnp.float32)
    total = sum((weight * delta(zero, own) for weight, own in zip(weights, owns, strict=True)), zero)
    width = min(rank or max(own["b"].shape[leading] for own in owns), *flat_sizes[leading:])
    u, s, v = singular(total, width)
    b = s[..., None] * v
    shapes = (*scale.shape, *inputs, width), (*scale.shape, width, *outputs)
    return {"a": u.reshape(shapes[0]), "b": b.reshape(shapes[1]), "scale": scale}


_BY_ROW = {"lora", "adalora", "ia3", "adapter", "vera", "prefix", "prompt"}
"""Names of methods' parameters of which each row of a batch may have its own."""


def _refuse_whole(adapters: Sequence[Any], what: str, leaves: set[str]) -> None:
    whole = [path for tree in adapters for path in paths(tree) if not leaves & set(path.split("/"))]
    if whole:
        raise ValueError(
            f"{what} must leave the model's own parameters alone: {whole[0]} has learnt; train with method.also=()"
        )


def _filled(leaf: Array, shape: Sequence[int]) -> Array:
    """With zeros up to a shape."""
    more = [(0, want - size) for want, size in zip(shape, leaf.shape, strict=True)]
    return jnp.pad(leaf, more) if any(after for _, after in more) else leaf


def _widened(own: dict[str, Array], rank: int) -> dict[str, Array]:
    """With zeros up to a rank."""
    leading, shape = own["scale"].ndim, own["b"].shape
    a = _filled(own["a"], (*own["a"].shape[:-1], rank))
    return own | {"a": a, "b": _filled(own["b"], (*shape[:leading], rank, *shape[leading + 1 :]))}


def _is_own(method: Method, path: str) -> bool:
    return method.leaf in path.split("/")


def _place(path: str) -> int:
    """Of the axis over adapters, or rows."""
    return 1 if {"layers", "prefix"} & set(path.split("/")) else 0


def _plain(own: Any) -> Any:
    """A product that PiSSA began with counts as part of it."""
    return whole_product(own, own["a"].ndim - own["scale"].ndim - 2)


def _modules(tree: Any, leaf: str, at: str = "") -> dict[str, Any]:
    """A method's parameters by the path of their module."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if name == leaf:
            found[at.removesuffix("/")] = value
        elif isinstance(value, dict):
            found |= _modules(value, leaf, f"{at}{name}/")
    return found
