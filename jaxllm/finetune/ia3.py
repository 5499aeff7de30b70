"""IA3: keys, values and the feed-forward layer's inner activations are multiplied by learned vectors, 1 at first
(arXiv:2205.05638)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from jaxllm.finetune.low_rank import kernel_axes
from jaxllm.finetune.method import HEADS, Defaults, listed
from jaxllm.finetune.targets import Target, begun, beside, computed, find_targets, matches, prepared_heads, transform
from jaxllm.models import ModelConfig
from jaxllm.models.layers import Project
from jaxllm.sharding import shard


@dataclass(frozen=True, kw_only=True)
class IA3(Defaults):
    leaf: ClassVar[str | None] = "ia3"

    targets: tuple[str, ...] = ("key", "value")
    """Projections whose result is multiplied, by the end of their path, * for any text."""
    feedforward: tuple[str, ...] = ("down",)
    """Projections whose input is multiplied."""
    also: tuple[str, ...] = HEADS
    """Paths of parameters of the model that learn whole, * for any text; by default the head of a task."""

    def __post_init__(self) -> None:
        if not self.targets and not self.feedforward:
            raise ValueError("method IA3 needs targets or feedforward: got neither")

    @property
    def dropout(self) -> float:
        return 0.0

    def learns(self, path: str) -> bool:
        return "/ia3/" in path or listed(path, self.also)

    def init(self, key: Array, params: Any, axes: Any, model: ModelConfig) -> tuple[Any, Any]:
        found = []
        for patterns, field in ((self.targets, "method.targets"), (self.feedforward, "method.feedforward")):
            if patterns:
                found += find_targets(params, axes, patterns, field=field, partly=False)
        twice = [target.path for number, target in enumerate(found) if target.path in [other.path for other in found[:number]]]
        if twice:
            raise ValueError(f"method.targets and method.feedforward must not mean the same projection: both mean {twice[0]}")
        outside = [target.path for target in found if target.is_embedding or target.path.endswith("unembed")]
        if outside:
            raise ValueError(f"method IA3 changes projections only: {outside[0]} is none; take LoRA")
        return begun(found, "ia3", self._vector, key)

    def _vector(self, key: Array, target: Target) -> tuple[dict[str, Array], dict[str, tuple[str, ...]]]:
        (leading, inputs, outputs), count = target.sizes, target.axes[: target.leading]
        if any(matches(name, pattern) for name in target.names(0) for pattern in self.feedforward):
            return {"input": jnp.ones((*leading, *inputs), jnp.float32)}, {"input": (*count, *target.inputs)}
        return {"output": jnp.ones((*leading, *outputs), jnp.float32)}, {"output": (*count, *target.outputs)}

    def run(self, module: nn.Module, own: Any, call: Callable, inputs: tuple, key: Array | None) -> Any:
        assert isinstance(module, Project)
        (x,) = inputs
        contracted, produced = kernel_axes(module)
        if "input" in own:
            x = shard(x, "batch", "time", *contracted)
            return call(x * beside(computed(own["input"], contracted, x.dtype), len(contracted), x))
        y = shard(call(x), *module.out)
        return y * beside(computed(own["output"], produced, y.dtype), len(produced), y)

    def prepare(self, params: Any) -> Any:
        return prepared_heads(params, "ia3", _merge_module)

    def merge(self, params: Any) -> Any:
        return transform(params, "ia3", _merge_module)


def _merge_module(module: Any, own: Any, leading: int) -> Any:
    """The vector multiplies rows, or columns and the bias."""
    (name, vector), kernel = next(iter(own.items())), module["kernel"]
    ones = (1,) * (kernel.ndim - vector.ndim)
    shape = (*vector.shape, *ones) if name == "input" else (*vector.shape[:leading], *ones, *vector.shape[leading:])
    merged = module | {"kernel": kernel * vector.reshape(shape).astype(kernel.dtype)}
    if name == "output" and "bias" in module:
        merged["bias"] = module["bias"] * vector.astype(module["bias"].dtype)
    return merged
