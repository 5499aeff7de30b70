"""A mixture of experts: a router sends each token to its best few feed-forward layers, and none is dropped."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float, Int

from jaxllm.models.config import TransformerConfig
from jaxllm.models.layers import ACTIVATIONS, GATED, Project, parameter
from jaxllm.models.options import ExpertsConfig
from jaxllm.sharding import einsum
from jaxllm.sharding.constrain import current_mesh

# B batch, T time, D residual width, F feed-forward width, E experts, X = B T tokens, C = X top_k choices


class Experts(nn.Module):
    """Σ over a token's best `top_k` experts of weight · down(f(gate(x)) · up(x)); the plain form without gate likewise."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> tuple[Float[Array, "B T D"], Float[Array, "B T E"]]:
        """Returns the output and the router's logits, in float32."""
        config, experts = self.config, self._experts
        logits = self._router(x)
        weights, chosen = choose(logits, experts)
        kernels = [self._kernel(name) for name in (("gate", "up") if config.activation in GATED else ("up",))]
        down = self._kernel("down")
        if self._dense():
            y = self._every_expert(x, kernels, down, weights, chosen)
        else:
            y = self._sorted_by_expert(x, kernels, down, weights, chosen)
        return y, logits

    @property
    def _experts(self) -> ExpertsConfig:
        assert self.config.experts is not None
        return self.config.experts

    def _dense(self) -> bool:
        if self._experts.dispatch is not None:
            return self._experts.dispatch == "dense"
        mesh = current_mesh()
        return mesh is not None and mesh.size > 1

    def _router(self, x: Array) -> Float[Array, "B T E"]:
        config = self.config
        return Project(
            config,
            equation="BTD,DE->BTE",
            shape=(config.embed_dim, self._experts.num_experts),
            axes=("embed", "experts"),
            out=("batch", "time", "experts"),
            std=config.init_std,
            use_bias=False,
            name="router",
        )(x).astype(jnp.float32)

    def _kernel(self, name: str) -> Float[Array, "E I O"]:
        config, into_residual = self.config, name == "down"
        sizes, axes = (config.embed_dim, config.ffw_width), ("embed", "ffw")
        std = config.init_std
        if into_residual:
            sizes, axes, std = sizes[::-1], axes[::-1], std / (2 * config.num_layers) ** 0.5
        shape, initial = (self._experts.num_experts, *sizes), nn.initializers.normal(std)
        kernel = parameter(self, name, initial, shape, ("experts", *axes), jnp.dtype(config.param_dtype))
        return kernel.astype(config.compute_dtype)

    def _hidden(self, products: list[Array]) -> Array:
        f = ACTIVATIONS[self.config.activation]
        return f(products[0]) * products[1] if len(products) == 2 else f(products[0])

    def _every_expert(self, x: Array, kernels: list[Array], down: Array, weights: Array, chosen: Array) -> Array:
        """Every expert sees every token: num_experts / top_k times the work, but no token moves."""
        out = ("batch", "time", "experts", "ffw")
        hidden_BTEF = self._hidden([einsum("BTD,EDF->BTEF", x, kernel, out=out) for kernel in kernels])
        one_hot = chosen[..., None] == jnp.arange(self._experts.num_experts)[None, None, None, :]
        weight_BTE = jnp.sum(jnp.where(one_hot, weights[..., None], 0.0), axis=2).astype(x.dtype)
        return einsum("BTEF,EFD->BTD", hidden_BTEF * weight_BTE[..., None], down, out=("batch", "time", "embed"))

    def _sorted_by_expert(self, x: Array, kernels: list[Array], down: Array, weights: Array, chosen: Array) -> Array:
        """Choices sorted by expert, so that each expert multiplies one stretch of rows."""
        B, T, D = x.shape
        top_k = self._experts.top_k
        expert_C = chosen.reshape(-1)
        order = jnp.argsort(expert_C, stable=True)
        sizes = jnp.bincount(expert_C, length=self._experts.num_experts).astype(jnp.int32)
        rows = x.reshape(B * T, D)[order // top_k]
        hidden = self._hidden([jax.lax.ragged_dot(rows, kernel, sizes) for kernel in kernels])
        out_CD = jax.lax.ragged_dot(hidden, down, sizes)
        out_XKD = jnp.zeros_like(out_CD).at[order].set(out_CD).reshape(B * T, top_k, D)
        return jnp.sum(out_XKD * weights.reshape(B * T, top_k, 1).astype(x.dtype), axis=1).reshape(B, T, D)


def choose(logits: Float[Array, "B T E"], experts: ExpertsConfig) -> tuple[Float[Array, "B T top_k"], Int[Array, "B T top_k"]]:
    """The best `top_k` experts of each token by router probability, and their weights."""
    weights, chosen = jax.lax.top_k(jax.nn.softmax(logits, axis=-1), experts.top_k)
    if experts.normalize:
        weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
    return weights, chosen


def router_losses(
    logits: Float[Array, "L B T E"], token_weights: Float[Array, "B T"], experts: ExpertsConfig
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The load-balance loss, E Σ_e (choices of e a token) (mean probability of e), over the tokens of all layers together, and
    the mean over them of (log Σ exp logits)².

    Args:
      token_weights: 0 for padding, 1 for tokens.
    """
    logits = logits.astype(jnp.float32)
    chosen = jax.lax.top_k(logits, experts.top_k)[1]
    weight = token_weights[None, :, :, None].astype(jnp.float32)
    total = jnp.sum(token_weights) * logits.shape[0]
    one_hot = (chosen[..., None] == jnp.arange(experts.num_experts)[None, None, None, None, :]).astype(jnp.float32)
    share = jnp.sum(jnp.sum(one_hot, axis=3) * weight, axis=(0, 1, 2)) / total
    probability = jnp.sum(jax.nn.softmax(logits, axis=-1) * weight, axis=(0, 1, 2)) / total
    z = jnp.sum(jnp.square(jax.nn.logsumexp(logits, axis=-1)) * weight[..., 0]) / total
    return experts.num_experts * jnp.sum(share * probability), z
