"""A model ready to be used: called, asked to write, or to embed texts."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import ArrayLike, Float, Int

from jaxllm.data import Tokenizer
from jaxllm.inference import SamplingConfig, embed, generate
from jaxllm.interchange import SentenceConfig
from jaxllm.models import EncoderDecoder, Model, ModelConfig, Output, Transformer, TransformerConfig, VisionTransformer
from jaxllm.recipe.recipe import Recipe
from jaxllm.training.objectives import PrefixLM

Chat = Sequence[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model with its parameters and, of text, its tokenizer."""

    model: Model
    params: Any
    tokenizer: Tokenizer | None
    """None for images, and where a published folder has none."""
    source: Path
    """Where it was loaded from."""
    eos_ids: tuple[int, ...] = ()
    """Tokens that end a text."""
    suppress: tuple[int, ...] = ()
    """Tokens that it was published with as never to be written."""
    sentence: SentenceConfig | None = None
    """How a published sentence encoder makes one vector of a text."""
    architecture: str | None = None
    """The published class it was loaded as or can be exported as; None for a model that was trained here."""
    recipe: Recipe | None = None
    """What it was trained by, for a run."""
    step: int | None = None
    """Steps it was trained for, for a run."""

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    def __call__(
        self,
        tokens: Int[ArrayLike, "B T"] | Sequence[Sequence[int]] | None = None,
        mask: ArrayLike | None = None,
        decoder_tokens: Int[ArrayLike, "B T"] | Sequence[Sequence[int]] | None = None,
        *,
        images: ArrayLike | None = None,
        **arguments: Any,
    ) -> Output:
        """The model's output, with `.logits` and `.hidden`.

        As in most models of Hugging Face transformers, positions count from the beginning of a row, padding included, unless
        `positions` are given; that matters where a row is padded on the left. RoBERTa counts tokens only.

        Args:
          mask: 1 for tokens, 0 for padding. By default no padding.
          decoder_tokens: what the decoder of an encoder-decoder has written so far.
          images: [B, height, width, channels] or [B, channels, height, width], normalized.
          arguments: further ones of the model, such as `capture=("hidden", "attention")` or `token_types`.
        """
        if isinstance(self.model, VisionTransformer):
            if images is None:
                raise ValueError("a model of images is called with images=: got none")
            return _call(self.model, self.params, _channels_last(images, self.model), **_static(arguments))
        if tokens is None:
            raise ValueError("a model of text is called with tokens: got none")
        stack = self.model.config.encoder if isinstance(self.model, EncoderDecoder) else self.model.config
        inputs = [_ids(tokens, stack)]
        if isinstance(self.model, EncoderDecoder):
            if decoder_tokens is None:
                raise ValueError(
                    "a model with encoder and decoder is called with tokens and decoder_tokens: got no decoder_tokens"
                )
            inputs.append(_ids(decoder_tokens, self.model.config.decoder))
        elif decoder_tokens is not None:
            raise ValueError("decoder_tokens are for a model with encoder and decoder: this one has one stack only")
        if mask is not None:
            arguments["segment_ids"] = real = jnp.asarray(np.asarray(mask) != 0, jnp.int32)
            if stack.position_offset and not stack.causal and not self.reads_prompt:
                arguments.setdefault("positions", jnp.maximum(jnp.cumsum(real, axis=1) - 1, 0))  # as RoBERTa counts
        return _call(self.model, self.params, *inputs, **_static(arguments))

    def generate(self, prompts: str | Sequence[str] | Chat, **sampling: Any) -> list[str]:
        """Completions; see `SamplingConfig` for the options.

            m.generate("Once upon a time", max_tokens=100, temperature=0.8)
            m.generate([{"role": "user", "content": "What is gravity?"}], temperature=0)

        Args:
          prompts: a text, several, or one chat, which is written down as the model was trained on chats.
        """
        if isinstance(self.model, VisionTransformer) or self.tokenizer is None:
            raise ValueError(f"generate needs a model of text with a tokenizer: {self.source} has none")
        self.check_prompts()
        suppress = tuple(dict.fromkeys([*self.suppress, *sampling.pop("suppress", ())]))
        config = SamplingConfig(**sampling, suppress=suppress)
        texts: list[Any] = [prompts] if isinstance(prompts, str) else list(prompts)
        if texts and isinstance(texts[0], dict):
            texts = [self.chat_ids(texts)]
        return generate(self.model, self.params, self.tokenizer, texts, config, eos_ids=self.eos_ids)

    def embed(self, texts: str | Sequence[str], **options: Any) -> Float[np.ndarray, "B D"]:
        """One vector a text; see `inference.embed`. A sentence encoder has its own pooling as the default."""
        if not isinstance(self.model, Transformer) or self.tokenizer is None:
            raise ValueError(f"embed needs an encoder or decoder of text with a tokenizer: {self.source} has none")
        published = {} if self.sentence is None else dataclasses.asdict(self.sentence)
        texts = [texts] if isinstance(texts, str) else list(texts)
        return embed(self.model, self.params, self.tokenizer, texts, **{**published, **options})

    def chat_ids(self, messages: str | Chat) -> list[int]:
        """Ids of a chat, written down as the model was trained to answer it; a single text is a user's message."""
        encode = getattr(self.tokenizer, "encode_chat", None)
        if encode is None or self.tokenizer.chat_template is None:  # type: ignore[union-attr]
            raise ValueError(f"a chat needs a tokenizer with a chat template: {self.source} has none; give the prompt as text")
        return encode([{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages))

    def check_prompts(self) -> None:
        """Refuse to continue prompts with a model that was trained to read them from both sides, which generation cannot."""
        if self.recipe is not None and isinstance(self.recipe.objective, PrefixLM):
            raise ValueError(
                f"{self.source} was trained with a prefix that is read from both sides: generation would read the prompt from "
                "one side only, so it is not supported; call the model with prefix= instead"
            )

    @property
    def reads_prompt(self) -> bool:
        """Whether a prompt is read by an encoder, so that what is written does not continue it."""
        return isinstance(self.model, EncoderDecoder)


def _ids(tokens: Any, config: TransformerConfig) -> Int[Array, "B T"]:
    """Refuses what an array on a device would silently take for the nearest entry of its table."""
    ids = np.asarray(tokens)
    if ids.size and not 0 <= ids.min() <= ids.max() < config.vocabulary:
        raise ValueError(f"token ids must be in 0..{config.vocabulary - 1}: got {ids.min()}..{ids.max()}")
    if config.position in ("learned", "relative_key", "relative_key_query") and ids.shape[-1] > config.context_len:
        raise ValueError(f"a row must have at most {config.context_len} tokens, one for each position: got {ids.shape[-1]}")
    return jnp.asarray(ids, jnp.int32)


def _static(arguments: dict[str, Any]) -> dict[str, Any]:
    return {**arguments, "capture": tuple(arguments["capture"])} if "capture" in arguments else arguments


def _call(model: Model, params: Any, *inputs: Array, capture: tuple[str, ...] = (), **arguments: Any) -> Output:
    return _jitted(model, capture, params, inputs, arguments)


@jax.jit(static_argnums=(0, 1))
def _jitted(
    model: Model, capture: tuple[str, ...], params: Any, inputs: tuple[Array, ...], arguments: dict[str, Any]
) -> Output:
    return model.apply({"params": params}, *inputs, capture=capture, **arguments)  # type: ignore[return-value]


def _channels_last(images: ArrayLike, model: VisionTransformer) -> Float[Array, "B height width channels"]:
    array, channels = jnp.asarray(np.asarray(images), jnp.float32), model.config.channels
    if array.ndim == 4 and array.shape[-1] != channels and array.shape[1] == channels:
        return jnp.moveaxis(array, 1, -1)
    return array
