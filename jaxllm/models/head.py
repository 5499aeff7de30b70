"""What is read from the last hidden state: tokens of the vocabulary, labels, or nothing."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float, Int

from jaxllm.models.config import TransformerConfig
from jaxllm.models.layers import ACTIVATIONS, Norm, Project, parameter
from jaxllm.sharding import einsum, gather

# B batch, T time, D residual width, V vocabulary, C labels


def dense(config: TransformerConfig, outputs: int, *, use_bias: bool = True, name: str | None = None, **kwargs: Any) -> Project:
    """[B, T, D] to [B, T, outputs]."""
    return Project(
        config,
        equation="BTD,DC->BTC",
        shape=(config.embed_dim, outputs),
        axes=("embed", "label"),
        out=("batch", "time", "label"),
        std=config.init_std,
        use_bias=use_bias,
        name=name,
        **kwargs,
    )


class LabelHead(nn.Module):
    """Logits of labels: of the whole text from its first token, or of each token.

    A row padded on the left has its first token behind the padding.
    """

    config: TransformerConfig

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "B T D"], segment_ids: Int[Array, "B T"]
    ) -> tuple[Float[Array, "..."] | None, Float[Array, "B D"] | None]:
        """Returns the logits, [B, C] or [B, T, C] in float32, and what the pooler made of the first token, if there is one."""
        config, head = self.config, self.config.head
        first, pooled = _first_token(hidden, segment_ids), None
        if head.pooler:
            first = jnp.tanh(dense(config, config.embed_dim, name="pooler")(first))
            pooled = first[:, 0]
        if head.kind == "none":
            return None, pooled
        read = first if head.kind == "sequence" else hidden
        logits = dense(config, head.outputs, name="classifier")(read).astype(jnp.float32)
        return (logits[:, 0] if head.kind == "sequence" else logits), pooled


def _first_token(hidden: Float[Array, "B T D"], segment_ids: Int[Array, "B T"]) -> Float[Array, "B 1 D"]:
    """A sum over one entry: no gather, so layouts follow by themselves."""
    real = segment_ids != 0
    first = real & (jnp.cumsum(real, axis=1) == 1)
    return jnp.sum(jnp.where(first[:, :, None], hidden, jnp.zeros_like(hidden)), axis=1, keepdims=True)


class VocabularyHead(nn.Module):
    """Makes the parameters that `unembed_hidden` computes with, beside a tied table: `unembed` and `transform`."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, hidden: Float[Array, "B T D"]) -> None:
        config, head = self.config, self.config.head
        if head.transform:
            _transform(config, name="transform")(hidden)
            Norm(config, name="norm")(hidden)
        dtype = jnp.dtype(config.param_dtype)
        if not config.tie_embeddings:
            shape, initial = (config.embed_dim, config.vocabulary), nn.initializers.normal(config.init_std)
            parameter(self, "kernel", initial, shape, ("embed", "vocab"), dtype)
        if head.bias:
            parameter(self, "bias", nn.initializers.zeros, (config.vocabulary,), ("vocab",), dtype)


def _transform(config: TransformerConfig, **kwargs: Any) -> Project:
    return dense(config, config.embed_dim, use_bias=config.head.transform_bias, **kwargs)


def unembed_hidden(
    config: TransformerConfig, params: Any, hidden: Float[Array, "B T D"], table: Float[Array, "V D"] | None = None
) -> Float[Array, "B T V"]:
    """Logits, in float32, from the last hidden state.

    Args:
      table: the embedding to use as the output matrix, where it is not among the parameters but an encoder's.
    """
    own = params.get("unembed", {})
    if config.head.transform:
        hidden = _transform(config, parent=None).apply({"params": own["transform"]}, hidden)  # type: ignore[assignment]
        hidden = ACTIVATIONS[config.head.transform_activation](hidden)
        hidden = Norm(config, parent=None).apply({"params": own["norm"]}, hidden)  # type: ignore[assignment]
    if config.unembed_scale is not None:
        hidden = hidden * config.unembed_scale
    if config.tie_embeddings:
        kernel, axes, equation = params["embed"]["table"] if table is None else table, ("vocab", "embed"), "BTD,VD->BTV"
    else:
        kernel, axes, equation = own["kernel"], ("embed", "vocab"), "BTD,DV->BTV"
    kernel = gather(kernel, *axes).astype(config.compute_dtype)
    logits = einsum(equation, hidden, kernel, out=("batch", "time", "vocab"), dtype=jnp.dtype(jnp.float32))
    if config.head.bias:
        logits = logits + gather(own["bias"], "vocab").astype(jnp.float32)[None, None, :]
    cap = config.logit_softcap
    return logits if cap is None else cap * jnp.tanh(logits / cap)
