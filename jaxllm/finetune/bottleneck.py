"""Bottleneck adapters: small networks of two layers in each block, x + s · (f(x · D + d) · U + u), U and u 0 at first.

Houlsby (arXiv:1902.00751) puts one behind attention and one behind the feed-forward layer, each before it is added to the
residual stream; Pfeiffer (arXiv:2005.00247) one behind the feed-forward layer alone; the parallel form (arXiv:2110.04366) reads
what the feed-forward layer reads, and is added to what that gives.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from jaxllm.finetune.method import HEADS, Defaults, listed
from jaxllm.finetune.targets import Target, begun, beside, computed, letters_of, targets_of
from jaxllm.models import ModelConfig
from jaxllm.models.layers import ACTIVATIONS, GATED, RESIDUAL
from jaxllm.models.options import Activation
from jaxllm.sharding import einsum, shard

LAST = {"attention": "output", "cross_attention": "output", "ffw": "down", "shared_expert": "down"}
"""The last projection of each kind of sublayer, whose result is added to the residual stream."""
THIN = ("batch", "residual_time", "rank")


@dataclass(frozen=True, kw_only=True)
class Bottleneck(Defaults):
    leaf: ClassVar[str | None] = "adapter"

    kind: Literal["houlsby", "pfeiffer", "parallel"] = "pfeiffer"
    """Where the adapters stand: behind attention and feed-forward, behind feed-forward, or beside feed-forward."""
    bottleneck_dim: int = 64
    """Width of the inner layer."""
    activation: Activation = "relu"
    """Non-linearity of the inner layer, one without a gate."""
    scaling: float = 1.0
    """Factor s on what is added; 4 is usual for the parallel form."""
    also: tuple[str, ...] = HEADS
    """Paths of parameters of the model that learn whole, * for any text; by default the head of a task."""

    def __post_init__(self) -> None:
        if self.bottleneck_dim < 1:
            raise ValueError(f"method.bottleneck_dim must be at least 1: got {self.bottleneck_dim}")
        if self.activation in GATED:
            raise ValueError(f"method.activation must be one without a gate: got {self.activation}")

    @property
    def dropout(self) -> float:
        return 0.0

    def learns(self, path: str) -> bool:
        return "/adapter/" in path or listed(path, self.also)

    def init(self, key: Array, params: Any, axes: Any, model: ModelConfig) -> tuple[Any, Any]:
        places = (
            ("attention", "cross_attention", "ffw", "shared_expert") if self.kind == "houlsby" else ("ffw", "shared_expert")
        )
        found = []
        for target in targets_of(params, axes):
            module, _, last = target.path.rpartition("/")
            name = module.rpartition("/")[2]
            if "layers" in module.split("/") and name in places and last == LAST[name]:
                found.append(target._replace(path=module))
        if not any(target.path.endswith(("ffw", "shared_expert")) for target in found):
            raise ValueError(
                f"method Bottleneck of kind {self.kind!r} needs feed-forward layers that are not experts: got none"
            )
        return begun(found, "adapter", self._networks, key)

    def _networks(self, key: Array, target: Target) -> tuple[dict[str, Array], dict[str, tuple[str, ...]]]:
        leading, count = target.sizes[0], target.axes[: target.leading]
        width, inner = target.kernel.shape[-1], self.bottleneck_dim
        down = jax.random.uniform(key, (*leading, width, inner), jnp.float32, -(width**-0.5), width**-0.5)
        values = {
            "a": down,
            "a_bias": jnp.zeros((*leading, inner), jnp.float32),
            "b": jnp.zeros((*leading, inner, width), jnp.float32),
            "b_bias": jnp.zeros((*leading, width), jnp.float32),
        }
        names = {
            "a": (*count, "embed", "rank"),
            "a_bias": (*count, "rank"),
            "b": (*count, "rank", "embed"),
            "b_bias": (*count, "embed"),
        }
        return values, names

    def run(self, module: nn.Module, own: Any, call: Callable, inputs: tuple, key: Array | None) -> Any:
        found = call(*inputs)
        y = shard(found[0] if isinstance(found, tuple) else found, *RESIDUAL)
        read = shard(inputs[0], *RESIDUAL) if self.kind == "parallel" else y
        y = y + self.scaling * self._network(own, read)
        return (y, *found[1:]) if isinstance(found, tuple) else y

    def _network(self, own: Any, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        a, a_bias = computed(own["a"], ("embed", "rank"), x.dtype), computed(own["a_bias"], ("rank",), x.dtype)
        b, b_bias = computed(own["b"], ("rank", "embed"), x.dtype), computed(own["b_bias"], ("embed",), x.dtype)
        inner = einsum(f"BTD,{letters_of('DR', a)}->BTR", x, a, out=THIN)
        inner = ACTIVATIONS[self.activation](inner + beside(a_bias, 1, inner))
        out = einsum(f"BTR,{letters_of('RD', b)}->BTD", inner, b, out=RESIDUAL)
        return out + beside(b_bias, 1, out)

    def merge(self, params: Any) -> None:
        """A non-linear network cannot be worked into a matrix."""
