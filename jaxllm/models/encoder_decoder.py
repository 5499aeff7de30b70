"""A Transformer that reads one text and writes another: an encoder, and a decoder that attends to its output."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float, Int

from jaxllm.models.cache import Cache, init_cache
from jaxllm.models.config import TransformerConfig
from jaxllm.models.head import unembed_hidden, unembed_parts
from jaxllm.models.transformer import Encoded, Output, Transformer, encoded
from jaxllm.sharding import AxisSize


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig:
    """An encoder and a decoder over text, as T5, BART, Marian and the first Transformer."""

    encoder: TransformerConfig
    """The stack that reads; without causality and without a head."""
    decoder: TransformerConfig
    """The stack that writes; with cross_attention."""
    share_embeddings: bool = True
    """Whether the decoder reads its tokens by the encoder's embedding."""
    start_id: int | None = None
    """Token that the decoder begins each text with. By default the tokenizer's start token, else its padding, else its end."""

    def __post_init__(self) -> None:
        if self.encoder.causal or self.encoder.head.kind != "none":
            raise ValueError("encoder must have causal=False and head.kind='none'")
        if not self.decoder.cross_attention or not self.decoder.causal:
            raise ValueError("decoder must have cross_attention=True and causal=True")
        for field in ("embed_dim", "vocab_size"):
            sizes = getattr(self.encoder, field), getattr(self.decoder, field)
            if self.share_embeddings and sizes[0] != sizes[1]:
                raise ValueError(
                    f"share_embeddings needs an encoder and a decoder of the same {field}: got {sizes[0]} and {sizes[1]}"
                )

    @property
    def context_len(self) -> int:
        """Longest text in tokens that it writes."""
        return self.decoder.context_len

    @property
    def vocabulary(self) -> int:
        """V: entries of the vocabulary that it writes in."""
        return self.decoder.vocabulary

    @property
    def dropout(self) -> float:
        """Where anything is dropped at all: the larger of the two probabilities."""
        return max(self.encoder.dropout, self.decoder.dropout)

    @property
    def compute_dtype(self) -> str:
        """Type of activations."""
        return self.decoder.compute_dtype

    def axis_sizes(self, name: str = "model") -> tuple[AxisSize, ...]:
        """Of each dimension that a mesh may split; `name` is this config's in a recipe."""
        return (*self.encoder.axis_sizes(f"{name}.encoder"), *self.decoder.axis_sizes(f"{name}.decoder"))


class EncoderDecoder(nn.Module):
    """The encoder's output for `tokens`, and the decoder's logits for `decoder_tokens`.

    >>> size = dict(vocab_size=65, position="relative", norm="rms_norm", bias=False)
    >>> encoder = TransformerConfig(causal=False, head=HeadConfig(kind="none"), **size)
    >>> model = EncoderDecoder(EncoderDecoderConfig(encoder=encoder, decoder=TransformerConfig(cross_attention=True, **size)))
    >>> params = init_params(model, jax.random.key(0))
    >>> model.apply({"params": params}, jnp.zeros((1, 8), jnp.int32), jnp.zeros((1, 3), jnp.int32)).logits.shape
    (1, 3, 65)
    """

    config: EncoderDecoderConfig

    def setup(self) -> None:
        self.encoder = Transformer(self.config.encoder)
        self.decoder = Transformer(self.config.decoder)

    def example_inputs(self) -> tuple[Array, ...]:
        """The smallest inputs, to make parameters with."""
        return jnp.zeros((1, 1), jnp.int32), jnp.zeros((1, 1), jnp.int32)

    @property
    def context_len(self) -> int:
        """Longest text in tokens that it writes."""
        return self.config.context_len

    @property
    def source_len(self) -> int:
        """Longest text in tokens that it reads."""
        return self.config.encoder.context_len

    @nn.nowrap
    def prepare(self, params: Any) -> Any:
        """The parameters as `unembed_parts` reads them."""
        return params

    @nn.nowrap
    def begin_cache(self, params: Any, batch_size: int, cache_len: int, *, stacked: bool = True) -> Cache:
        """The decoder's cache that a text begins with, with room for `cache_len` tokens; see `init_cache`."""
        return init_cache(self.config.decoder, batch_size, cache_len, stacked=stacked)

    def __call__(
        self,
        tokens: Int[Array, "B S"],
        decoder_tokens: Int[Array, "B T"],
        *,
        positions: Int[Array, "B S"] | None = None,
        segment_ids: Int[Array, "B S"] | None = None,
        decoder_positions: Int[Array, "B T"] | None = None,
        decoder_segment_ids: Int[Array, "B T"] | None = None,
        head_mask: Float[Array, "L N"] | None = None,
        decoder_head_mask: Float[Array, "L N"] | None = None,
        dropout_key: Array | None = None,
        capture: Collection[str] = (),
        unembed: bool = True,
    ) -> Output:
        """Logits of the token after each of `decoder_tokens`; see `Transformer` for the arguments.

        A decoder token attends to encoder tokens of its own segment.
        """
        keys = (None, None) if dropout_key is None else tuple(jax.random.split(dropout_key))
        read = self.encode(
            tokens, positions=positions, segment_ids=segment_ids, head_mask=head_mask, dropout_key=keys[0],
            capture=[name for name in capture if name != "cross_attention"],
        )  # fmt: skip
        segment_ids = jnp.ones_like(tokens) if segment_ids is None else segment_ids
        written = self.decode(
            decoder_tokens, encoded(read.hidden, segment_ids), positions=decoder_positions, segment_ids=decoder_segment_ids,
            head_mask=decoder_head_mask, dropout_key=keys[1], capture=capture, unembed=unembed,
        )  # fmt: skip
        return written._replace(encoder=read)

    def encode(self, tokens: Int[Array, "B S"], **arguments: Any) -> Output:
        """The encoder alone: `model.apply(variables, tokens, method="encode")`."""
        return self.encoder(tokens, **arguments)

    def decode(
        self, tokens: Int[Array, "B T"], memory: Encoded | None = None, *, cache: Cache | None = None, **arguments: Any
    ) -> Output:
        """The decoder alone. With a cache, `memory` is given in the first call only: later ones find it in the cache."""
        table = self.encoder.variables["params"]["embed"]["table"] if self.config.share_embeddings else None
        return self.decoder(tokens, memory=memory, table=table, cache=cache, **arguments)


def unembed_decoder(config: EncoderDecoderConfig, params: Any, hidden: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
    """Logits, in float32, from the decoder's last hidden state."""
    table = params["encoder"]["embed"]["table"] if config.share_embeddings else None
    return unembed_hidden(config.decoder, params["decoder"], hidden, table)


def decoder_unembed_parts(config: EncoderDecoderConfig, params: Any) -> dict[str, Any]:
    """`unembed_parts` of the decoder."""
    table = params["encoder"]["embed"]["table"] if config.share_embeddings else None
    return unembed_parts(config.decoder, params["decoder"], table)
