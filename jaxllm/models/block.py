"""One Transformer block: attention and feed-forward, with norms where the config puts them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Bool, Float, Int

from jaxllm.models.attention import Attention, Seen
from jaxllm.models.config import TransformerConfig
from jaxllm.models.experts import Experts
from jaxllm.models.kernels import keeps_kernels
from jaxllm.models.layers import ACTIVATIONS, GATED, RESIDUAL, Norm, Project, dropout, read
from jaxllm.models.quantized import PRODUCT
from jaxllm.sharding import shard

KeysValues = tuple[Array, Array]


class FeedForward(nn.Module):
    """down(f(up(x))), or down(f(gate(x)) · up(x)) when the activation is gated."""

    config: TransformerConfig
    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        config, f, x = self.config, ACTIVATIONS[self.config.activation], read(x)
        up = self._widen("up", x)
        hidden = f(self._widen("gate", x)) * up if config.activation in GATED else f(up)
        return Project(
            config,
            equation="BTF,FD->BTD",
            shape=(self.width, config.embed_dim),
            axes=("ffw", "embed"),
            out=RESIDUAL,
            std=config.init_std / (2 * config.num_layers) ** 0.5,
            use_bias=config.bias,
            quantize=True,
            name="down",
        )(hidden)

    def _widen(self, name: str, x: Array) -> Array:
        config = self.config
        return Project(
            config,
            equation="BTD,DF->BTF",
            shape=(config.embed_dim, self.width),
            axes=("embed", "ffw"),
            out=("batch", "time", "ffw"),
            std=config.init_std,
            use_bias=config.bias,
            quantize=True,
            name=name,
        )(x)


class Memory(NamedTuple):
    """An encoder's output, as a decoder sees it."""

    hidden: Float[Array, "B S M"] | None
    """None where its keys and values are cached."""
    mask: Bool[Array, "B T S"]
    """Which of it each token may look at."""


class BlockInput(NamedTuple):
    """What one block is given beside the residual stream."""

    seen: Seen
    memory: Memory | None = None
    keys_values: KeysValues | None = None
    """The cache of this block."""
    memory_keys_values: KeysValues | None = None
    """Cached keys and values of the encoder's output."""
    start: Int[Array, ""] | None = None
    """The slot of the cache that the first token is written to."""
    index: Int[Array, ""] | int = 0
    """Which block this is."""
    dropout_key: Array | None = None


class BlockOutput(NamedTuple):
    """What one block hands back beside the residual stream; what nobody reads costs nothing."""

    keys_values: KeysValues | None
    memory_keys_values: KeysValues | None
    attention: Float[Array, "B N T S"] | None
    """None where a kernel has computed it."""
    cross_attention: Float[Array, "B N T S"] | None
    router_logits: Float[Array, "B T E"] | None


class Block(nn.Module):
    """x + f(norm(x)) for attention, cross-attention and feed-forward; where norms stand and the parallel form by config."""

    config: TransformerConfig
    removed: int = 0
    """Attention heads that pruning has taken from this layer."""

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], given: BlockInput) -> tuple[Float[Array, "B T D"], BlockOutput]:
        config, key = self.config, given.dropout_key
        found: dict = dict.fromkeys(BlockOutput._fields)

        def attend(y: Array) -> Array:
            layer = Attention(config, removed=self.removed, name="attention")
            out, found["keys_values"], found["attention"] = layer(
                y, given.seen, None, given.keys_values, given.start, dropout_key=key
            )
            return dropout(out, config.dropout, key, 1, RESIDUAL)

        def attend_memory(y: Array) -> Array:
            assert given.memory is not None
            layer, seen = Attention(config, cross=True, name="cross_attention"), Seen(given.memory.mask)
            out, found["memory_keys_values"], found["cross_attention"] = layer(
                y, seen, given.memory.hidden, given.memory_keys_values, dropout_key=key
            )
            return dropout(out, config.dropout, key, 4, RESIDUAL)

        def feed_forward(y: Array) -> Array:
            if config.experts is None:
                out = FeedForward(config, config.ffw_width, name="ffw")(y)
            else:
                out, found["router_logits"] = Experts(config, name="experts")(y)
                if config.experts.shared_ffw_dim is not None:
                    out = out + FeedForward(config, config.experts.shared_ffw_dim, name="shared_expert")(y)
            return dropout(out, config.dropout, key, 2, RESIDUAL)

        if config.parallel_block:
            y = self._attention_input(x, given.index)
            separate = config.parallel_norms == "separate"
            x = x + attend(y) + feed_forward(Norm(config, name="ffw_norm")(x) if separate else y)
        else:
            x = self._residual("attention", attend, x, given.index)
            if config.cross_attention:
                x = self._residual("cross_attention", attend_memory, x)
            x = self._residual("ffw", feed_forward, x)
        return shard(x, *RESIDUAL), BlockOutput(**found)

    def _residual(self, name: str, sublayer: Callable[[Array], Array], x: Array, index: Array | int | None = None) -> Array:
        config, placement = self.config, self.config.norm_placement
        if placement == "post":
            return Norm(config, name=f"{name}_norm")(x + sublayer(x))
        y = x
        if placement in ("pre", "sandwich"):
            y = Norm(config, name=f"{name}_norm")(x) if index is None else self._attention_input(x, index)
        y = sublayer(y)
        if placement in ("sandwich", "output"):
            y = Norm(config, name=f"{name}_post_norm")(y)
        return x + y

    def _attention_input(self, x: Array, index: Array | int) -> Array:
        y = Norm(self.config, name="attention_norm")(x)
        return y if self.config.first_attention_norm else jnp.where(jnp.asarray(index) == 0, x, y)


BLOCK_INPUT = "block_input"
"""Name, for the remat policy that moves it, of the residual stream that a block is given."""


def _keeps_projections(primitive: Any, *avals: Any, **params: Any) -> bool:
    """Products without batch dimensions; of those in 8 bits the result in its own type."""
    if primitive.name == "dot_general" and avals[0].dtype.itemsize == 1:
        return False
    quantized = primitive.name == "name" and params["name"] == PRODUCT
    return quantized or bool(jax.checkpoint_policies.dots_with_no_batch_dims_saveable(primitive, *avals, **params))


def _keeps_products(primitive: Any, *avals: Any, **params: Any) -> bool:
    wide = primitive.name in ("dot_general", "ragged_dot_general") and avals[0].dtype.itemsize > 1
    return wide or _keeps_projections(primitive, *avals, **params) or keeps_kernels(primitive, *avals, **params)


REMAT_POLICIES: dict[str, Callable[..., Any] | None] = {
    "minimal": _keeps_products,
    "dots": _keeps_projections,
    "block": None,
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[BLOCK_INPUT],
        offload_src="device",
        offload_dst="pinned_host",
    ),
}
"""What is kept of a block for its backward pass; None keeps its input alone."""


def block_function(config: TransformerConfig, removed: int = 0) -> Callable:
    """`f(params, x, given) -> (x, BlockOutput)`: one block as a pure function, under remat."""
    block = Block(config, removed, parent=None)

    def apply(params, x, given):
        if config.layer_loop == "scan":  # or XLA would make a copy of the whole stack in the type it is computed with
            params, x = jax.lax.optimization_barrier((params, x))
        if config.remat == "offload":
            x = checkpoint_name(x, BLOCK_INPUT)
        return block.apply({"params": params}, x, given)

    if config.remat == "none":
        return apply
    return jax.checkpoint(apply, policy=REMAT_POLICIES[config.remat], prevent_cse=config.layer_loop == "unroll")
