"""LoRA: to each chosen matrix a product of two thin ones is added, which alone learn (arXiv:2106.09685).

    y = x · W + (alpha / r) · x · A · B        A: [inputs, r], B: [r, outputs], B = 0 at first

rsLoRA divides alpha by √r (arXiv:2312.03732). DoRA scales each column of W + (alpha / r) · A · B to a length m of its own, that
learns, too; the length that it had is taken as a constant by the gradient (arXiv:2402.09353). PiSSA begins with the r largest
singular vectors of W in A and B (arXiv:2404.02948): W stays as it is, and the product that A and B begin with is taken off in
parameters that do not learn; dropout acts on what both read. LoRA+ trains B faster than A (arXiv:2402.12354).

An embedding is a matrix as others, A at first 0. Where the output matrix is the embedding's table, that one keeps its own
numbers: only what is read changes. The output matrix itself is `unembed`; it is added to before it is used.

Layers are stacked, so those with a smaller rank, or that are not meant, have zeros in A and B, which stay zeros.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from jaxllm.finetune.low_rank import added, column_norms, delta, dropped, kernel_axes, low_rank, singular
from jaxllm.finetune.method import HEADS, Defaults, listed
from jaxllm.finetune.targets import (
    EVERY,
    Target,
    begun,
    beside,
    by_layer,
    check_patterns,
    computed,
    find_targets,
    matches,
    prepared_heads,
    transform,
)
from jaxllm.models import EncoderDecoderConfig, ModelConfig
from jaxllm.models.layers import Embed
from jaxllm.models.partition import paths
from jaxllm.training import scale_by_path

LEARNT = ("a", "b", "magnitude", "bias")
"""Names of the parameters that learn; `scale`, `initial_a` and `initial_b` do not."""
_OF_LAYER = re.compile(r"layers/[\d\[?]")
EMBEDDINGS = ("embed", "position", "token_type")
"""Modules that are embeddings."""


@dataclass(frozen=True, kw_only=True)
class LoRA(Defaults):
    leaf: ClassVar[str | None] = "lora"

    rank: int = 8
    """R: width of the product."""
    alpha: float = 16.0
    """The product counts alpha / rank times."""
    dropout: float = 0.0
    """Probability of dropping a value of the product's input."""
    targets: tuple[str, ...] = ("query", "value")
    """Modules, by the end of their path, * for any text: "attention/*", "layers/3/*", "embed", "unembed"; "all-linear" for all
    projections of the blocks."""
    exclude: tuple[str, ...] = ()
    """Modules that are left alone though `targets` means them."""
    layers: tuple[int, ...] | None = None
    """Layers, counted from 0, to change. By default all."""
    rank_patterns: tuple[tuple[str, int], ...] = ()
    """Pattern and rank of modules that have another, also by layer, "layers/3/*"; the first that matches."""
    alpha_patterns: tuple[tuple[str, float], ...] = ()
    """Pattern and alpha of modules that have another, likewise."""
    rank_stabilized: bool = False
    """Divide alpha by the root of the rank (rsLoRA)."""
    dora: bool = False
    """Learn the length of each column, too (DoRA)."""
    initialization: Literal["kaiming", "gaussian", "pissa"] = "kaiming"
    """How A begins: uniform in ±1/√inputs; normal with deviation 1/rank; or with B, as the largest singular vectors of the
    matrix (PiSSA)."""
    lora_bias: bool = False
    """Whether B has a bias."""
    bias: Literal["none", "all", "lora_only"] = "none"
    """Which biases of the model learn: none, all, or those of the targets."""
    also: tuple[str, ...] = HEADS
    """Paths of parameters of the model that learn whole, * for any text; by default the head of a task."""
    lora_plus_ratio: float | None = None
    """How many times faster than A learns B (LoRA+). By default as fast."""

    def __post_init__(self) -> None:
        for rank in (self.rank, *(rank for _, rank in self.rank_patterns)):
            if rank < 1:
                raise ValueError(f"method.rank must be at least 1: got {rank}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"method.dropout must be in [0, 1): got {self.dropout}")
        if self.lora_plus_ratio is not None and self.lora_plus_ratio <= 0:
            raise ValueError(f"method.lora_plus_ratio must be positive: got {self.lora_plus_ratio}; leave it out for LoRA")
        if self.dora and (self.initialization == "pissa" or self.lora_bias):
            other = "initialization='pissa'" if self.initialization == "pissa" else "lora_bias=True"
            raise ValueError(f"method.dora cannot go with {other}: choose one of them")
        some = self.layers is not None or any(_OF_LAYER.search(pattern) for pattern in (*self.targets, *self.exclude))
        if self.bias == "lora_only" and some:
            raise ValueError(
                "method.bias='lora_only' needs all layers of each target: biases are stacked over layers; use 'all', or leave "
                "out method.layers and patterns of layers"
            )

    def check(self, model: ModelConfig) -> None:
        shared = isinstance(model, EncoderDecoderConfig) and model.share_embeddings
        targets = tuple(pattern for pattern in self.targets if pattern != EVERY)
        tables = [path for path in ("encoder/embed", "decoder/embed") if not _means(self.exclude, path)]
        if shared and any(_means(targets, path) for path in tables):
            raise ValueError(
                "method.targets must not mean an embedding that encoder and decoder share: exclude 'embed', or make it learn "
                "whole by method.also"
            )

    @property
    def begins_apart(self) -> bool:
        return self.initialization == "pissa"

    def learns(self, path: str) -> bool:
        module, _, name = path.rpartition("/")
        if module.endswith("/lora"):
            return name in LEARNT
        meant = _means(self.targets, module) and not _means(self.exclude, module) and not module.endswith("norm")
        own = {"none": False, "all": True, "lora_only": meant}
        return (name == "bias" and own[self.bias]) or listed(path, self.also)

    def init(self, key: Array, params: Any, axes: Any, model: ModelConfig) -> tuple[Any, Any]:
        targets = find_targets(params, axes, self.targets, exclude=self.exclude, layers=self.layers)
        for field in ("rank_patterns", "alpha_patterns"):
            check_patterns([pattern for pattern, _ in getattr(self, field)], targets, f"method.{field}", "target")
        outside = [target.path for target in targets if {"unembed", "head"} & set(target.path.split("/"))]
        if self.lora_bias and (bare := [path for path in outside if f"{path}/bias" not in paths(params)]):
            raise ValueError(
                f"method.lora_bias needs a bias at {bare[0]}, which it is added to before each step: there is none; exclude it"
            )
        return begun(targets, "lora", self.init_target, key)

    def init_target(self, key: Array, target: Target) -> tuple[dict[str, Array], dict[str, tuple[str, ...]]]:
        """The parameters of one module, and their logical axes."""
        (leading, inputs, outputs), count = target.sizes, target.axes[: target.leading]
        ranks = [
            rank if chosen else 0
            for rank, chosen in zip(by_layer(target, self.rank_patterns, self.rank), target.chosen, strict=True)
        ]
        rank = max(ranks)
        if rank > min(target.widths):
            raise ValueError(
                f"method.rank must be at most the smaller side of a matrix: got {rank} for {target.path} of "
                f"{target.widths[0]} x {target.widths[1]}"
            )
        alphas = by_layer(target, self.alpha_patterns, self.alpha)
        divide = (lambda rank: rank**0.5) if self.rank_stabilized else (lambda rank: rank)
        scales = [alpha / divide(rank) if rank else 0.0 for alpha, rank in zip(alphas, ranks, strict=True)]
        scale = target.stacked(scales)
        a, b = self._begin(key, target, rank, scale)
        used = jnp.arange(rank).reshape((1,) * target.leading + (rank,)) < target.stacked(ranks, jnp.int32)[..., None]
        a = jnp.where(used[..., None, :], a, 0).reshape(*leading, *inputs, rank)
        b = jnp.where(used[..., :, None], b, 0).reshape(*leading, rank, *outputs)
        values = {"a": a, "b": b, "scale": scale}
        names = {"a": (*count, *target.inputs, "rank"), "b": (*count, "rank", *target.outputs), "scale": count}
        if self.initialization == "pissa":
            values |= {"initial_a": a, "initial_b": b}
            names |= {"initial_a": names["a"], "initial_b": names["b"]}
        if self.dora:
            values["magnitude"] = jnp.linalg.norm(target.matrix(), axis=-2).reshape(*leading, *outputs)
            names["magnitude"] = (*count, *target.outputs)
        if self.lora_bias:
            values["bias"], names["bias"] = jnp.zeros((*leading, *outputs), jnp.float32), (*count, *target.outputs)
        return values, names

    def _begin(self, key: Array, target: Target, rank: int, scale: Array) -> tuple[Array, Array]:
        """A as [*, inputs, R] and B as [*, R, outputs]."""
        leading, (inputs, outputs) = target.sizes[0], target.widths
        if self.initialization == "pissa":
            u, s, v = singular(target.matrix(), rank)
            root = jnp.sqrt(s / jnp.where(scale > 0, scale, 1)[..., None])
            return u * root[..., None, :], root[..., :, None] * v
        zeros = jnp.zeros
        if target.is_embedding:
            return zeros((*leading, inputs, rank)), jax.random.normal(key, (*leading, rank, outputs), jnp.float32)
        shape = (*leading, inputs, rank)
        if self.initialization == "gaussian":
            return jax.random.normal(key, shape, jnp.float32) / rank, zeros((*leading, rank, outputs))
        return jax.random.uniform(key, shape, jnp.float32, -(inputs**-0.5), inputs**-0.5), zeros((*leading, rank, outputs))

    def run(self, module: nn.Module, own: Any, call: Callable, inputs: tuple, key: Array | None) -> Any:
        (x,) = inputs
        own = whole_product(own, 0 if isinstance(module, Embed) else len(kernel_axes(module)[0]) - 1)
        given = dropped(module, x, self.dropout, key)
        y, more = call(x), low_rank(module, own, given)
        if "magnitude" in own:
            return _scaled(module, own, y, y if given is x else _alone(module, given), more)
        if "bias" in own:
            outputs = kernel_axes(module)[1]
            bias = computed(own["bias"], outputs, y.dtype)
            more = more + beside(own["scale"].astype(y.dtype), 0, y) * beside(bias, len(outputs), y)
        return y + more

    def prepare(self, params: Any) -> Any:
        return prepared(params, "lora", _add_output)

    def merge(self, params: Any) -> Any:
        return transform(params, "lora", merge_module)

    def wrap(self, rule: optax.GradientTransformation, steps: int) -> optax.GradientTransformation:
        ratio = self.lora_plus_ratio
        if ratio is None:
            return rule
        return optax.chain(rule, scale_by_path(lambda path: ratio if _is_b(path) else 1.0))


def _is_b(path: str) -> bool:
    """B of a matrix: of an embedding A is 0 at first, and B does not hurry."""
    module, _, name = path.rpartition("/lora/")
    return name == "b" and module.rpartition("/")[2] not in EMBEDDINGS


def _means(patterns: tuple[str, ...], module: str) -> bool:
    return any(matches(module, pattern) for pattern in patterns)


def prepared(params: Any, leaf: str, change: Callable[[Any, Any, int], Any]) -> Any:
    """The parameters with a method's own worked into each output matrix, as `change` does, and each task's head."""

    def outputs(params: Any) -> Any:
        if not isinstance(params, dict):
            return params
        changed = {name: value if name == "layers" else outputs(value) for name, value in params.items()}
        if leaf in changed.get("unembed", {}):
            changed["unembed"] = transform(changed["unembed"], leaf, change)
        return changed

    return prepared_heads(outputs(params), leaf, merge_module)


def _add_output(module: Any, own: Any, leading: int) -> Any:
    if "magnitude" in own or "bias" in own:
        return merge_module(module, own, leading)
    return module | {"kernel": added(module["kernel"], whole_product(own, 0), ("embed", "vocab"))}


def whole_product(own: Any, more_inputs: int) -> Any:
    """LoRA's parameters with the product that they began with taken off: twice the rank, and that once more negative."""
    if "initial_a" not in own:
        return own
    others = {name: value for name, value in own.items() if not name.startswith("initial_")}
    place = own["a"].ndim - 2 - more_inputs  # of the rank in B, behind layers or rows
    return others | {
        "a": jnp.concatenate([own["a"], own["initial_a"]], axis=-1),
        "b": jnp.concatenate([own["b"], -own["initial_b"]], axis=place),
    }


def _alone(module: nn.Module, x: Array) -> Array:
    """What a projection gives by itself, a second time: one that is bound may make its parameters only once."""
    params = {name: value for name, value in module.variables["params"].items() if name in ("kernel", "bias")}
    return module.clone(parent=None, name=None).apply({"params": params}, x)  # type: ignore[return-value]


def _scaled(module: nn.Module, own: Any, y: Array, base: Array, more: Array) -> Array:
    """y + (m / n - 1) · x' W + (m / n) · scale · x' A B, with n the column norms as they are (DoRA).

    Args:
      base: the module's result for x', its bias included.
    """
    params, outputs = module.variables["params"], kernel_axes(module)[1]
    kernel = params["table"] if isinstance(module, Embed) else params["kernel"]
    norms = jax.lax.stop_gradient(column_norms(module, kernel, own))
    magnitude = computed(own["magnitude"], outputs, jnp.float32)
    used = own["scale"] != 0
    used = used.reshape(used.shape + (1,) * len(outputs))
    factor = jnp.where(used, magnitude / jnp.maximum(norms, jnp.finfo(jnp.float32).tiny), 1.0).astype(y.dtype)
    factor = beside(factor, len(outputs), y)
    if "bias" in params:
        base = base - beside(computed(params["bias"], outputs, y.dtype), len(outputs), y)
    return y + (factor - 1) * base + factor * more


def merge_module(module: Any, own: Any, leading: int) -> Any:
    """A module's parameters with LoRA's worked in."""
    name = "table" if "table" in module else "kernel"
    kernel, scale = module[name], own["scale"]
    own = whole_product(own, own["a"].ndim - leading - 2)
    total: Float[Array, ...] = kernel.astype(jnp.float32) + delta(kernel, own)
    if "magnitude" in own:
        contracted = tuple(range(leading, own["a"].ndim - 1))
        norms = jax.lax.stop_gradient(jnp.sqrt(jnp.sum(jnp.square(total), axis=contracted)))
        used = (scale != 0).reshape(scale.shape + (1,) * (norms.ndim - leading))
        longer = own["magnitude"] / jnp.maximum(norms, jnp.finfo(jnp.float32).tiny)
        total = total * jnp.expand_dims(jnp.where(used, longer, 1.0), contracted)
    merged = module | {name: total.astype(kernel.dtype)}
    if "bias" in own:
        if "bias" not in module:
            raise ValueError("method.lora_bias cannot be merged into a projection without a bias: go on with the adapter")
        more = scale.reshape(scale.shape + (1,) * (own["bias"].ndim - leading)) * own["bias"]
        merged["bias"] = (module["bias"].astype(jnp.float32) + more).astype(module["bias"].dtype)
    return merged
