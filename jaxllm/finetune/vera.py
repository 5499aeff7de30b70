"""VeRA: as LoRA, but A and B are random, the same for all matrices, and do not learn; two vectors of each matrix do
(arXiv:2310.11454).

    y = x · W + v ⊙ ((d ⊙ (x · A)) · B)        d: [r], v: [outputs], v = 0 at first

Each matrix takes as many of A's first rows and B's first columns as it has inputs and outputs. A copy stands beside each
matrix, where a loop over layers finds it; none is in a checkpoint.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from jaxllm.finetune.low_rank import dropped, flat, kernel_axes, narrow, widen
from jaxllm.finetune.method import HEADS, Defaults, listed
from jaxllm.finetune.targets import Target, begun, beside, computed, find_targets, prepared_heads, transform
from jaxllm.models import ModelConfig
from jaxllm.models.layers import Project


@dataclass(frozen=True, kw_only=True)
class VeRA(Defaults):
    leaf: ClassVar[str | None] = "vera"

    rank: int = 256
    """R: width of the random product."""
    d_initial: float = 0.1
    """What d begins with."""
    dropout: float = 0.0
    """Probability of dropping a value of the product's input."""
    targets: tuple[str, ...] = ("query", "value")
    """Projections, by the end of their path, * for any text; "all-linear" for all of the blocks."""
    exclude: tuple[str, ...] = ()
    """Projections that are left alone though `targets` means them."""
    layers: tuple[int, ...] | None = None
    """Layers, counted from 0, to change. By default all."""
    also: tuple[str, ...] = HEADS
    """Paths of parameters of the model that learn whole, * for any text; by default the head of a task."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"method.rank must be at least 1: got {self.rank}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"method.dropout must be in [0, 1): got {self.dropout}")

    def learns(self, path: str) -> bool:
        module, _, name = path.rpartition("/")
        return name in ("lambda_d", "lambda_b") if module.endswith("/vera") else listed(path, self.also)

    def init(self, key: Array, params: Any, axes: Any, model: ModelConfig) -> tuple[Any, Any]:
        targets = find_targets(params, axes, self.targets, exclude=self.exclude, layers=self.layers)
        outside = [target.path for target in targets if target.is_embedding or target.path.endswith("unembed")]
        if outside:
            raise ValueError(f"method VeRA changes projections only: {outside[0]} is none; take LoRA")
        rows, columns = (max(target.widths[side] for target in targets) for side in (0, 1))
        keys = jax.random.split(key)
        shared = _kaiming(keys[0], (rows, self.rank), rows), _kaiming(keys[1], (self.rank, columns), self.rank)
        return begun(targets, "vera", lambda _, target: self._vectors(target, *shared), key)

    def _vectors(self, target: Target, a: Array, b: Array) -> tuple[dict[str, Array], dict[str, tuple[str, ...]]]:
        (leading, inputs, outputs), count = target.sizes, target.axes[: target.leading]
        rows, columns = target.widths
        used = target.stacked([1.0 if chosen else 0.0 for chosen in target.chosen])
        a = used[..., None, None] * a[:rows].reshape((1,) * target.leading + (rows, self.rank))
        b = jnp.broadcast_to(b[:, :columns], (*leading, self.rank, columns))
        values = {
            "a": a.reshape(*leading, *inputs, self.rank),
            "b": b.reshape(*leading, self.rank, *outputs),
            "lambda_d": jnp.full((*leading, self.rank), self.d_initial, jnp.float32),
            "lambda_b": jnp.zeros((*leading, *outputs), jnp.float32),
        }
        names = {
            "a": (*count, *target.inputs, "rank"),
            "b": (*count, "rank", *target.outputs),
            "lambda_d": (*count, "rank"),
            "lambda_b": (*count, *target.outputs),
        }
        return values, names

    def run(self, module: nn.Module, own: Any, call: Callable, inputs: tuple, key: Array | None) -> Any:
        assert isinstance(module, Project)
        (x,) = inputs
        outputs = kernel_axes(module)[1]
        thin = narrow(module, dropped(module, x, self.dropout, key), own["a"])
        wide = widen(module, thin * beside(own["lambda_d"].astype(thin.dtype), 1, thin), own["b"])
        return call(x) + wide * beside(computed(own["lambda_b"], outputs, wide.dtype), len(outputs), wide)

    def prepare(self, params: Any) -> Any:
        return prepared_heads(params, "vera", _merge_module)

    def merge(self, params: Any) -> Any:
        return transform(params, "vera", _merge_module)


def _kaiming(key: Array, shape: tuple[int, int], inputs: int) -> Array:
    bound = math.sqrt(6.0 / inputs)
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def _merge_module(module: Any, own: Any, leading: int) -> Any:
    kernel = module["kernel"]
    a, b = flat(own["a"], leading, of_rows=True), flat(own["b"], leading, of_rows=False)
    a = a * own["lambda_d"][..., None, :]
    b = b * own["lambda_b"].reshape(*b.shape[:leading], 1, b.shape[-1])
    product = jnp.matmul(a, b, precision="highest").reshape(kernel.shape)
    return module | {"kernel": (kernel.astype(jnp.float32) + product).astype(kernel.dtype)}
