"""Prefix tuning: each layer's attention sees n more keys and values, which learn (arXiv:2101.00190).

They stand before the text like tokens already seen. With `projection` they are made from n vectors by a network of two layers,

    keys, values of all layers = W₂ tanh(W₁ e + b₁) + b₂

which trains more steadily; `settle` leaves what it has made of them, as files of PEFT have it. Of a model with encoder and
decoder the decoder has them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from jaxllm.finetune.soft import Soft, computed_keys_values, look_up_rows, named, sampled_ids, uniform
from jaxllm.finetune.targets import whole
from jaxllm.models import ModelConfig, TransformerConfig

# L layers, R 1 or rows of a batch, K key/value heads, n virtual tokens, H head width, W width of their vectors, K H


@dataclass(frozen=True, kw_only=True)
class PrefixTuning(Soft):
    """Keys and values before the text, of every layer."""

    leaf: ClassVar[str | None] = "prefix"
    side: ClassVar = "decoder"

    projection: bool = False
    """Make them by a network, which learns instead."""
    hidden: int | None = None
    """Width of that network. By default that of all keys of a token."""
    initialization: Literal["activations", "random"] = "activations"
    """How they begin without a network: as the model's own keys and values of tokens drawn from its vocabulary, or normal with
    deviation 1."""

    def slots(self, model: ModelConfig) -> int:
        return self.tokens

    def init(self, key: Array, params: Any, axes: Any, model: ModelConfig) -> tuple[Any, Any]:
        config, own = self.stack(model), self.inner(model, params)
        if "embed" not in own:  # the encoder's serves both
            own = {**own, "embed": params["encoder"]["embed"]}
        begin = self._network if self.projection else self._plain
        values, names = named(*begin(config, own, key))
        return self.outer(model, values), self.outer(model, names)

    def _plain(self, config: TransformerConfig, params: Any, key: Array) -> tuple[dict[str, Any], dict[str, Any]]:
        if self.initialization == "activations":
            virtual = look_up_rows(config, params, sampled_ids(params, key, self.tokens))
            keys, values = (found[:, 0].astype(jnp.float32) for found in computed_keys_values(config, params, virtual[None]))
        else:
            shape = (config.num_layers, config.kv_heads, self.tokens, config.head_width)
            keys, values = jax.random.normal(key, (2, *shape), jnp.float32)
        names = ("layers", "kv_heads", "position", "head_dim")
        return {"keys": keys, "values": values}, {"keys": names, "values": names}

    def _network(self, config: TransformerConfig, params: Any, key: Array) -> tuple[dict[str, Any], dict[str, Any]]:
        width = config.kv_heads * config.head_width
        hidden, shape = self.hidden or width, (2, config.num_layers, config.kv_heads, config.head_width)
        draw = [jax.random.fold_in(key, number) for number in range(5)]
        values = {
            "embedding": jax.random.normal(draw[0], (self.tokens, width)),
            "hidden": {"kernel": uniform(draw[1], (width, hidden), width), "bias": uniform(draw[2], (hidden,), width)},
            "output": {"kernel": uniform(draw[3], (hidden, *shape), hidden), "bias": uniform(draw[4], shape, hidden)},
        }
        made = ("label", "layers", "kv_heads", "head_dim")
        names = {
            "embedding": ("position", "rank"),
            "hidden": {"kernel": ("rank", "rank"), "bias": ("rank",)},
            "output": {"kernel": ("rank", *made), "bias": made},
        }
        return values, names

    def keys_values(self, config: TransformerConfig, params: Any) -> tuple[Array, Array]:
        found = settled(whole(params["prefix"]))
        keys, values = found["keys"], found["values"]
        return (keys, values) if keys.ndim == 5 else (keys[:, None], values[:, None])

    def run(self, module: nn.Module, own: Any, call: Callable, inputs: tuple, key: Array | None) -> Any:
        return self.run_behind_slots(module, call, inputs)  # type: ignore[arg-type]

    def settle(self, params: Any) -> Any:
        """The parameters with the network worked in."""
        if "decoder" in params:
            return {**params, "decoder": self.settle(params["decoder"])}
        return {**params, "prefix": settled(params["prefix"])}


def settled(own: Any) -> dict[str, Float[Array, "..."]]:
    """Keys and values, each [L, K, n, H], of the parameters of a prefix with or without a network."""
    if "keys" in own:
        return own
    hidden = jnp.tanh(jnp.matmul(own["embedding"], own["hidden"]["kernel"]) + own["hidden"]["bias"][None])
    made = jnp.einsum("nM,MPLKH->PLKnH", hidden, own["output"]["kernel"]) + own["output"]["bias"][:, :, :, None]
    return {"keys": made[0], "values": made[1]}
