"""One Transformer block: attention and feed-forward, with norms where the config puts them."""

from collections.abc import Callable

import jax
from flax import linen as nn
from jax import Array
from jaxtyping import Bool, Float, Int

from jaxllm.models.attention import Attention
from jaxllm.models.config import TransformerConfig
from jaxllm.models.layers import ACTIVATIONS, GATED, RESIDUAL, Norm, Project, dropout
from jaxllm.sharding import shard


class FeedForward(nn.Module):
    """down(f(up(x))), or down(f(gate(x)) · up(x)) when the activation is gated."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        config, f = self.config, ACTIVATIONS[self.config.activation]
        up = self._widen("up", x)
        hidden = f(self._widen("gate", x)) * up if config.activation in GATED else f(up)
        return Project(
            config,
            equation="BTF,FD->BTD",
            shape=(config.ffw_width, config.embed_dim),
            axes=("ffw", "embed"),
            out=("batch", "time", "embed"),
            std=config.init_std / (2 * config.num_layers) ** 0.5,
            use_bias=config.bias,
            name="down",
        )(hidden)

    def _widen(self, name: str, x: Array) -> Array:
        config = self.config
        return Project(
            config,
            equation="BTD,DF->BTF",
            shape=(config.embed_dim, config.ffw_width),
            axes=("embed", "ffw"),
            out=("batch", "time", "ffw"),
            std=config.init_std,
            use_bias=config.bias,
            name=name,
        )(x)


class Block(nn.Module):
    """x + f(norm(x)) for attention and feed-forward; post and sandwich placement and the parallel form by config."""

    config: TransformerConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        positions: Int[Array, "B T"],
        mask: Bool[Array, "B T S"],
        bias: Float[Array, "B N T S"] | None = None,
        cache: tuple[Array, Array] | None = None,
        start: Int[Array, ""] | None = None,
        dropout_key: Array | None = None,
    ) -> tuple[Float[Array, "B T D"], tuple[Array, Array] | None, Float[Array, "B N T S"]]:
        """Returns the residual stream, the updated (keys, values), and the attention weights."""
        config = self.config
        attention = Attention(config, name="attention")
        ffw = FeedForward(config, name="ffw")
        by_products: list = []

        def attention_sublayer(y: Array) -> Array:
            out, new_cache, weights = attention(y, positions, mask, bias, cache, start, dropout_key)
            by_products.extend((new_cache, weights))
            return dropout(out, config.dropout, dropout_key, 1, RESIDUAL)

        def ffw_sublayer(y: Array) -> Array:
            return dropout(ffw(y), config.dropout, dropout_key, 2, RESIDUAL)

        if config.parallel_block:
            y = Norm(config, name="attention_norm")(x)
            x = x + attention_sublayer(y) + ffw_sublayer(y)
        else:
            x = self._residual("attention", attention_sublayer, x)
            x = self._residual("ffw", ffw_sublayer, x)
        return shard(x, "batch", "time", "embed"), *by_products

    def _residual(self, name: str, sublayer: Callable[[Array], Array], x: Array) -> Array:
        config = self.config
        if config.norm_placement == "post":
            return Norm(config, name=f"{name}_norm")(x + sublayer(x))
        y = sublayer(Norm(config, name=f"{name}_norm")(x))
        if config.norm_placement == "sandwich":
            y = Norm(config, name=f"{name}_post_norm")(y)
        return x + y


REMAT_POLICIES: dict[str, Callable | None] = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": None,
}


def block_function(config: TransformerConfig) -> Callable:
    """`f(params, x, positions, mask, bias, cache, start, dropout_key)`: one block as a pure function, under remat."""
    block = Block(config, parent=None)

    def apply(params, *args):
        return block.apply({"params": params}, *args)

    if config.remat == "none":
        return apply
    return jax.checkpoint(apply, policy=REMAT_POLICIES[config.remat], prevent_cse=config.layer_loop == "unroll")
