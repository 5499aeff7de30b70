"""A mixture of experts: a router sends each token to its best few feed-forward layers, and none is dropped."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.sharding import PartitionSpec
from jaxtyping import Float, Int

from jaxllm.models.config import TransformerConfig
from jaxllm.models.expert_exchange import exchange
from jaxllm.models.layers import ACTIVATIONS, GATED, READ, RESIDUAL, Project, parameter, read
from jaxllm.models.options import ExpertsConfig
from jaxllm.sharding import einsum, gather, map_shards, spec
from jaxllm.sharding.constrain import current_mesh

# B batch, T time, D residual width, F feed-forward width, E experts, X = B T tokens, C = X top_k choices


WIDEN, NARROW = ("experts", "embed", "ffw"), ("experts", "ffw", "embed")
"""Logical axes of the experts' kernels, into and out of the feed-forward width."""


class Experts(nn.Module):
    """Σ over a token's best `top_k` experts of weight · down(f(gate(x)) · up(x)); the plain form without gate likewise."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> tuple[Float[Array, "B T D"], Float[Array, "B T E"]]:
        """Returns the output and the router's logits, in float32."""
        config, experts = self.config, self._experts
        x = read(x)
        logits = self._router(x)
        weights, chosen = choose(logits, experts)
        kernels = [self._kernel(name) for name in (("gate", "up") if config.activation in GATED else ("up",))]
        down = self._kernel("down")
        compute = self._every_expert if experts.dispatch == "dense" else self._sorted_by_expert
        return compute(x, kernels, down, weights, chosen), logits

    @property
    def _experts(self) -> ExpertsConfig:
        assert self.config.experts is not None
        return self.config.experts

    def _router(self, x: Array) -> Float[Array, "B T E"]:
        config = self.config
        return Project(
            config,
            equation="BTD,DE->BTE",
            shape=(config.embed_dim, self._experts.num_experts),
            axes=("embed", "label"),
            out=("batch", "time", "label"),
            std=config.init_std,
            use_bias=False,
            name="router",
        )(x).astype(jnp.float32)

    def _kernel(self, name: str) -> Float[Array, "E I O"]:
        """As it is stored."""
        config, into_residual = self.config, name == "down"
        sizes, axes = (config.embed_dim, config.ffw_width), WIDEN
        std = config.init_std
        if into_residual:
            sizes, axes, std = sizes[::-1], NARROW, std / (2 * config.num_layers) ** 0.5
        shape, initial = (self._experts.num_experts, *sizes), nn.initializers.normal(std)
        return parameter(self, config, name, initial, shape, axes, gathered=False)

    def _hidden(self, products: list[Array]) -> Array:
        f = ACTIVATIONS[self.config.activation]
        return f(products[0]) * products[1] if len(products) == 2 else f(products[0])

    def _every_expert(self, x: Array, kernels: list[Array], down: Array, weights: Array, chosen: Array) -> Array:
        """Every expert sees every token: num_experts / top_k times the work, but no token moves."""
        out, down = ("batch", "time", "experts", "ffw"), gather(down, *NARROW)
        kernels = [gather(kernel, *WIDEN) for kernel in kernels]
        hidden_BTEF = self._hidden([einsum("BTD,EDF->BTEF", x, kernel, out=out) for kernel in kernels])
        one_hot = chosen[..., None] == jnp.arange(self._experts.num_experts)[None, None, None, :]
        weight_BTE = jnp.sum(jnp.where(one_hot, weights[..., None], 0.0), axis=2).astype(x.dtype)
        return einsum("BTEF,EFD->BTD", hidden_BTEF * weight_BTE[..., None], down, out=RESIDUAL)

    def _sorted_by_expert(self, x: Array, kernels: list[Array], down: Array, weights: Array, chosen: Array) -> Array:
        """Choices sorted by expert, so that each expert multiplies one stretch of rows; on a mesh, each device sorts its own
        tokens, sends them to the devices of their experts, gathers its experts' kernels, and sums their gradients into the
        parts that are stored."""
        mesh = current_mesh()
        if mesh is None:
            return self._routed(x, kernels, down, weights, chosen, 1)
        given, written = spec(READ, x.shape, mesh), spec(RESIDUAL, x.shape, mesh)
        widen = [spec(WIDEN, kernel.shape, mesh, stored=True) for kernel in kernels]
        narrow = spec(NARROW, down.shape, mesh, stored=True)
        sum_over = "tensor" if mesh.shape["tensor"] > 1 else None
        scatter = written[1] != given[1]  # the sum over parts of the feed-forward width is spread along the sequence

        def whole(kernel: Array, layout: PartitionSpec, axis: int) -> Array:
            names = layout[axis]
            return kernel if names is None else jax.lax.all_gather(kernel, names, axis=axis, tiled=True)

        def local(x: Array, kernels: list[Array], down: Array, weights: Array, chosen: Array) -> Array:
            kernels = [whole(kernel, layout, 1) for kernel, layout in zip(kernels, widen, strict=True)]
            y = self._routed(x, kernels, whole(down, narrow, 2), weights, chosen, mesh.shape["expert"])
            if sum_over is None:
                return y
            return jax.lax.psum_scatter(y, sum_over, scatter_dimension=1, tiled=True) if scatter else jax.lax.psum(y, sum_over)

        mapped = map_shards(local, (given, widen, narrow, given, given), written)
        return mapped(x, kernels, down, weights, chosen)

    def _routed(self, x: Array, kernels: list[Array], down: Array, weights: Array, chosen: Array, parts: int) -> Array:
        """The tokens of one device.

        Args:
          parts: devices that the experts are spread over.
        """
        B, T, D = x.shape
        experts = self._experts
        expert_C = chosen.reshape(-1)
        order = jnp.argsort(expert_C, stable=True)
        sizes = jnp.bincount(expert_C, length=experts.num_experts).astype(jnp.int32)
        rows = x.reshape(B * T, D)[order // experts.top_k]
        if parts == 1:
            out_CD = self._grouped(rows, kernels, down, sizes)
        else:
            sent = exchange(rows, sizes, parts, experts.room(len(rows), parts), ragged=experts.exchange == "ragged")
            by_expert = jnp.argsort(sent.expert, stable=True)
            results = self._grouped(sent.rows[by_expert], kernels, down, sent.sizes)
            out_CD = sent.back(jnp.zeros_like(results).at[by_expert].set(results))
        out_XKD = jnp.zeros_like(out_CD).at[order].set(out_CD).reshape(B * T, experts.top_k, D)
        return jnp.sum(out_XKD * weights.reshape(B * T, experts.top_k, 1).astype(x.dtype), axis=1).reshape(B, T, D)

    def _grouped(self, rows: Array, kernels: list[Array], down: Array, sizes: Array) -> Array:
        """Each stretch of rows through its expert; 0 for rows behind the last stretch."""
        hidden = self._hidden([jax.lax.ragged_dot(rows, kernel, sizes) for kernel in kernels])
        return jax.lax.ragged_dot(hidden, down, sizes)


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
