"""A model ready to be used: called, asked to write, or to embed texts."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import ArrayLike, Float, Float32, Int

from jaxllm.data import Tokenizer
from jaxllm.data.image_input import ImageInput, is_picture, prepare_images
from jaxllm.finetune import AnyMethod
from jaxllm.inference import SamplingConfig, embed, generate
from jaxllm.interchange import GenerationDefaults, SentenceConfig
from jaxllm.interchange.labels import default_names
from jaxllm.models import EncoderDecoder, Model, ModelConfig, Output, Transformer, VisionTransformer
from jaxllm.recipe.given import check_options, normalized_images, prompt_list, switched_off, text_list, token_ids
from jaxllm.recipe.reading import Reading
from jaxllm.recipe.recipe import Recipe

Chat = Sequence[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Loaded(Reading):
    """A model with its parameters and, of text, its tokenizer."""

    model: Model
    params: Any
    tokenizer: Tokenizer | None
    """None for images, and where a published folder has none."""
    source: Path | str
    """Where it was loaded from: a path, or a URL in a bucket."""
    generation: GenerationDefaults = GenerationDefaults()
    """Tokens that end a text, and those that are forced or barred in what it writes."""
    prefix: bool = False
    """Whether it reads a prompt from both sides, having been trained by the objective PrefixLM."""
    sentence: SentenceConfig | None = None
    """How a published sentence encoder makes one vector of a text."""
    image_input: ImageInput | None = None
    """How pictures become the input of a model of images: as it was trained with, or as its preprocessor_config.json says."""
    image_problem: str | None = None
    """Why there is no image_input, where its preprocessor_config.json cannot be followed."""
    architecture: str | None = None
    """The published class it was loaded as or can be exported as; None for a model that was trained here."""
    stored_dtypes: Mapping[str, str] = field(default_factory=dict)
    """The type that each published tensor had in the folder it was loaded from, which an export keeps."""
    method: AnyMethod | None = None
    """What has learnt the adapter that `load_adapter` has put on it."""
    recipe: Recipe | None = None
    """What it was trained by, for a run."""
    step: int | None = None
    """Steps it was trained for, for a run."""

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    def __call__(
        self,
        tokens: Int[ArrayLike, "B S"] | Sequence[Sequence[int]] | None = None,
        mask: ArrayLike | None = None,
        decoder_tokens: Int[ArrayLike, "B T"] | Sequence[Sequence[int]] | None = None,
        *,
        images: Any = None,
        **arguments: Any,
    ) -> Output:
        """The model's output, with `.logits` and `.hidden`.

        As in most models of Hugging Face transformers, positions count from the beginning of a row, padding included, unless
        `positions` are given or the config has position_skips_padding, as RoBERTa's does; that matters where a row is padded on
        the left.

        Args:
          mask: 1 for tokens, 0 for padding. By default no padding.
          decoder_tokens: what the decoder of an encoder-decoder has written so far.
          images: pictures, as `images` takes them; or an array [B, height, width, channels] or [B, channels, height, width] of
            floats that is normalized already, by the mean and standard deviation of `image_input`.
          arguments: further ones of the model, such as `capture=("hidden", "attention")` or `token_types`.
        """
        if isinstance(self.model, VisionTransformer):
            if images is None:
                raise ValueError("a model of images is called with images=: got none")
            pixels = self.images(images) if is_picture(images) else images
            return _call(self.model, self.params, normalized_images(pixels, self.model), **_static(arguments))
        if tokens is None:
            raise ValueError("a model of text is called with tokens: got none")
        stack = self.model.config.encoder if isinstance(self.model, EncoderDecoder) else self.model.config
        inputs = [token_ids(tokens, stack)]
        if isinstance(self.model, EncoderDecoder):
            if decoder_tokens is None:
                raise ValueError(
                    "a model with encoder and decoder is called with tokens and decoder_tokens: got no decoder_tokens"
                )
            inputs.append(token_ids(decoder_tokens, self.model.config.decoder))
        elif decoder_tokens is not None:
            raise ValueError("decoder_tokens are for a model with encoder and decoder: this one has one stack only")
        if mask is not None:
            arguments["segment_ids"] = jnp.asarray(np.asarray(mask) != 0, jnp.int32)
        return _call(self.model, self.params, *inputs, **_static(arguments))

    def images(self, images: Any) -> Float32[np.ndarray, "B height width channels"]:
        """Pictures as the model reads them: scaled, cut and normalized as `image_input` says.

        A Pillow image is turned upright as its camera says, as a file is: by `load_image` and the pipelines of transformers,
        too, but not by their image processors, which turn files only.

        Args:
          images: one or several of: a path, a Pillow image, an array of bytes [height, width], with colours last or first,
            which may be kept as longer integers.

        Raises:
          ValueError: what is no picture, or a model that does not say how pictures become its input.
        """
        if not isinstance(self.model, VisionTransformer):
            raise ValueError(f"images are for a model of images: {self.source} has one of text")
        if self.image_input is None:
            size, channels = self.config.image_size, self.config.channels  # type: ignore[union-attr]
            give = f"give it an array of floats [B, {size}, {size}, {channels}] that is normalized as in its training"
            if self.image_problem is not None:
                raise ValueError(f"{self.source} takes no pictures, since {self.image_problem}; {give}")
            raise ValueError(
                f"{self.source} does not say how a picture becomes its input, having no preprocessor_config.json: {give}"
            )
        try:
            return prepare_images(images, self.image_input)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"there is no picture {error.filename}: give the path of a file, or a Pillow image"
            ) from None

    def classify(self, inputs: Any) -> list[tuple[str, float]]:
        """The most likely label of each text or picture, and its probability.

            m.classify("cat.png")                                     # [("cat", 0.93)]
            m.classify(["a great film", "two hours that I miss"])     # [("positive", 0.99), ("negative", 0.97)]

        Args:
          inputs: pictures, as `images` takes them; or a text, a pair of texts as a tuple, or a list of either.
        """
        if isinstance(self.model, VisionTransformer):
            logits = self(images=inputs).logits
            if logits is None:
                raise ValueError(f"classify needs a model with labels: {self.source} gives hidden states only")
            probabilities, names = np.asarray(jax.nn.softmax(logits, axis=-1)), self.config.label_names  # type: ignore[union-attr]
        else:
            probabilities = self.probabilities(inputs)
            names = self.config.head.label_names  # type: ignore[union-attr]
        names = names or default_names(probabilities.shape[1])
        return [(names[row.argmax()], float(row.max())) for row in probabilities]

    def generate(self, prompts: str | Sequence[str] | Chat, **sampling: Any) -> list[str]:
        """Completions; see `SamplingConfig` for the options.

            m.generate("Once upon a time", max_tokens=100, temperature=0.8)
            m.generate([{"role": "user", "content": "What is gravity?"}], temperature=0)

        Args:
          prompts: a text, several, or one chat, which is written down as the model was trained on chats.
        """
        model, tokenizer = self._of_text("generate")
        config, texts = self.sampling(**sampling), prompt_list(prompts)
        if texts and isinstance(texts[0], dict):
            texts = [self.chat_ids(texts)]
        given: Any = {"eos_ids": self.generation.eos_ids, "prefix": self.prefix}
        return generate(model, self.params, tokenizer, texts, config, **given)

    def sampling(self, **options: Any) -> SamplingConfig:
        """The options with the tokens that the model was published with: those never to be written are added to the ones
        given; what is forced counts where the options do not say otherwise. None switches off what was published.

            m.sampling(suppress=None, begin_suppress=None, forced_bos=None, forced_eos=None)        # nothing forced or barred
        """
        check_options(options)
        published = {name: getattr(self.generation, name) for name in ("forced_bos", "forced_eos")}
        for name in ("suppress", "begin_suppress"):
            if options.get(name, ()) is not None:
                published[name] = tuple(dict.fromkeys([*getattr(self.generation, name), *options.pop(name, ())]))
        return SamplingConfig(**{**published, **switched_off(options)})

    def embed(self, texts: str | Sequence[str], **options: Any) -> Float[np.ndarray, "B D"]:
        """One vector a text; see `inference.embed`. A sentence encoder has its own pooling as the default."""
        if isinstance(self.model, EncoderDecoder):
            raise ValueError(
                f"embed needs an encoder or a decoder alone: {self.source} has an encoder-decoder; load a sentence encoder, or "
                "an encoder such as BERT"
            )
        published = {} if self.sentence is None else dataclasses.asdict(self.sentence)
        model, tokenizer = self._of_text("embed")
        assert isinstance(model, Transformer)
        return embed(model, self.params, tokenizer, text_list(texts), **{**published, **options})

    def _of_text(self, what: str) -> tuple[Transformer | EncoderDecoder, Tokenizer]:
        """The model and its tokenizer, for what needs both."""
        if isinstance(self.model, VisionTransformer):
            raise ValueError(f"{what} needs a model of text: {self.source} has one of images")
        if self.tokenizer is None:
            raise ValueError(f"{what} needs a model with a tokenizer: {self.source} has none; put its tokenizer files there")
        return self.model, self.tokenizer

    def chat_ids(self, messages: str | Chat) -> list[int]:
        """Ids of a chat, written down as the model was trained to answer it; a single text is a user's message."""
        encode = getattr(self.tokenizer, "encode_chat", None)
        if encode is None or self.tokenizer.chat_template is None:  # type: ignore[union-attr]
            raise ValueError(f"a chat needs a tokenizer with a chat template: {self.source} has none; give the prompt as text")
        return encode([{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages))

    @property
    def reads_prompt(self) -> bool:
        """Whether a prompt is read by an encoder, so that what is written does not continue it."""
        return isinstance(self.model, EncoderDecoder)


def _static(arguments: dict[str, Any]) -> dict[str, Any]:
    return {**arguments, "capture": tuple(arguments["capture"])} if "capture" in arguments else arguments


def _call(model: Model, params: Any, *inputs: Array, capture: tuple[str, ...] = (), **arguments: Any) -> Output:
    return _jitted(model, capture, params, inputs, arguments)


@jax.jit(static_argnums=(0, 1))
def _jitted(
    model: Model, capture: tuple[str, ...], params: Any, inputs: tuple[Array, ...], arguments: dict[str, Any]
) -> Output:
    return model.apply({"params": params}, *inputs, capture=capture, **arguments)  # type: ignore[return-value]
