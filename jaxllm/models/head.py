"""What is read from the last hidden state: tokens of the vocabulary, labels, or nothing."""

from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float, Int

from jaxllm.models.config import TransformerConfig
from jaxllm.models.layers import ACTIVATIONS, Norm, Project, parameter
from jaxllm.sharding import einsum, gather, shard

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
    """Logits of labels: of the whole text of a row, or of each token."""

    config: TransformerConfig

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "B T D"], segment_ids: Int[Array, "B T"]
    ) -> tuple[Float[Array, "..."] | None, Float[Array, "B D"] | None]:
        """Returns the logits, [B, C] or [B, T, C] in float32, and what the pooler made of the text, if there is one."""
        config, head = self.config, self.config.head
        text, pooled = _read_text(hidden, segment_ids, head.read), None
        if head.pooler:
            text = jnp.tanh(dense(config, config.embed_dim, name="pooler")(text))
            pooled = text[:, 0]
        if head.kind == "none":
            return None, pooled
        read = text if head.kind == "sequence" else hidden
        logits = dense(config, head.outputs, name="classifier")(read).astype(jnp.float32)
        return (logits[:, 0] if head.kind == "sequence" else logits), pooled


def _read_text(
    hidden: Float[Array, "B T D"], segment_ids: Int[Array, "B T"], read: Literal["first", "last", "mean"]
) -> Float[Array, "B 1 D"]:
    """The hidden state that stands for each row's text, wherever the row has padding. A weighted sum: no gather, so layouts
    follow by themselves."""
    real = shard(segment_ids, "batch", None) != 0
    count = jnp.cumsum(real, axis=1)
    if read == "mean":
        weights = real / jnp.maximum(count[:, -1:], 1)
    else:
        weights = real & (count == (1 if read == "first" else count[:, -1:]))
    weights = shard(weights, "batch", "time")[:, :, None].astype(hidden.dtype)
    return jnp.sum(hidden * weights, axis=1, keepdims=True)


def label_logits(
    config: TransformerConfig, params: Any, hidden: Float[Array, "B T D"], segment_ids: Int[Array, "B T"]
) -> Float[Array, "B T C"]:
    """What the label head says at every token, in float32: of rows with several texts, each read where its own first or last
    token is. With read="mean" every token reads the mean of its segment.

    Args:
      params: the model's.
    """
    head, own = config.head, params["head"]
    if head.kind == "sequence" and head.read == "mean":
        same = (segment_ids[:, :, None] == segment_ids[:, None, :]).astype(hidden.dtype)
        mean = same / jnp.sum(same, axis=2, keepdims=True)
        hidden = einsum("BTS,BSD->BTD", shard(mean, "batch", "time", "cache"), hidden, out=("batch", "time", "embed"))
    if head.kind == "sequence" and head.pooler:
        hidden = jnp.tanh(dense(config, config.embed_dim, parent=None).apply({"params": own["pooler"]}, hidden))  # type: ignore[arg-type]
    logits: Any = dense(config, head.outputs, parent=None).apply({"params": own["classifier"]}, hidden)
    return logits.astype(jnp.float32)


class VocabularyHead(nn.Module):
    """Makes the parameters that `unembed_hidden` computes with, beside a tied table: `unembed` and `transform`."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, hidden: Float[Array, "B T D"]) -> None:
        config, head = self.config, self.config.head
        if head.transform:
            _transform(config, name="transform")(hidden)
            Norm(config, name="norm")(hidden)
        if not config.tie_embeddings:
            shape, initial = (config.embed_dim, config.vocabulary), nn.initializers.normal(config.init_std)
            parameter(self, config, "kernel", initial, shape, ("embed", "vocab"))
        if head.bias:
            parameter(self, config, "bias", nn.initializers.zeros, (config.vocabulary,), ("vocab",))


def _transform(config: TransformerConfig, **kwargs: Any) -> Project:
    return dense(config, config.embed_dim, use_bias=config.head.transform_bias, **kwargs)


def unembed_parts(config: TransformerConfig, params: Any, table: Float[Array, "V D"] | None = None) -> dict[str, Any]:
    """What hidden states are unembedded with, the output matrix gathered and in the type it is computed with: to read hidden
    states in pieces without gathering it for each.

    Args:
      table: the embedding to use as the output matrix, where it is not among the parameters but an encoder's.
    """
    own = dict(params.get("unembed", {}))
    if config.tie_embeddings:
        table = table if table is not None else params["embed"]["table"]
        assert table is not None
        return own | {"table": gather(table.astype(config.compute_dtype), "vocab", "embed")}
    return own | {"kernel": gather(own["kernel"].astype(config.compute_dtype), "embed", "vocab")}


def unembed(config: TransformerConfig, parts: dict[str, Any], hidden: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
    """Logits, in float32, from the last hidden state and `unembed_parts`."""
    if config.head.transform:
        hidden = _transform(config, parent=None).apply({"params": parts["transform"]}, hidden)  # type: ignore[assignment]
        hidden = ACTIVATIONS[config.head.transform_activation](hidden)
        hidden = Norm(config, parent=None).apply({"params": parts.get("norm", {})}, hidden)  # type: ignore[assignment]
    if config.unembed_scale is not None:
        hidden = hidden * config.unembed_scale
    kernel, equation = (parts["table"], "BTD,VD->BTV") if config.tie_embeddings else (parts["kernel"], "BTD,DV->BTV")
    logits = einsum(equation, hidden, kernel, out=("batch", "time", "vocab"), dtype=jnp.dtype(jnp.float32))
    if config.head.bias:
        logits = logits + gather(parts["bias"].astype(jnp.float32), "vocab")[None, None, :]
    cap = config.logit_softcap
    return logits if cap is None else cap * jnp.tanh(logits / cap)


def unembed_hidden(
    config: TransformerConfig, params: Any, hidden: Float[Array, "B T D"], table: Float[Array, "V D"] | None = None
) -> Float[Array, "B T V"]:
    """Logits, in float32, from the last hidden state.

    Args:
      table: see `unembed_parts`.
    """
    return unembed(config, unembed_parts(config, params, table), hidden)
