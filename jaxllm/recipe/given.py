"""What a caller of a loaded model gave: as its functions take it, or refused in a sentence that says what they do take."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxllm.inference import SamplingConfig
from jaxllm.models import TransformerConfig, VisionTransformer

ELSEWHERE = {"max_length": "max_tokens", "max_new_tokens": "max_tokens", "stop_strings": "stop", "bad_words_ids": "suppress"}
"""Options of `generate` by the names that they have in other libraries."""


def token_ids(tokens: Any, config: TransformerConfig) -> Int[Array, "B T"]:
    """Refuses what an array on a device would silently take for the nearest entry of its table."""
    shape = "rows of token ids, all of one length, such as [[1, 2, 3]]"
    advice = "m.tokenizer.encode(text) makes the ids of a text, and a mask marks padding"
    try:
        ids = np.asarray(tokens)
    except ValueError:  # NumPy's word for rows of different lengths
        raise ValueError(f"tokens must be {shape}: got rows of different lengths; {advice}") from None
    if ids.ndim != 2 or (ids.size and ids.dtype.kind not in "iu"):
        got = f"{tokens[:30]!r}" if isinstance(tokens, str) else f"{type(tokens).__name__} of shape {list(ids.shape)}"
        raise ValueError(f"tokens must be {shape}: got {got}; {advice}")
    if ids.size and not 0 <= ids.min() <= ids.max() < config.vocabulary:
        raise ValueError(f"token ids must be in 0..{config.vocabulary - 1}: got {ids.min()}..{ids.max()}")
    if config.position in ("learned", "relative_key", "relative_key_query") and ids.shape[-1] > config.context_len:
        raise ValueError(f"a row must have at most {config.context_len} tokens, one for each position: got {ids.shape[-1]}")
    return jnp.asarray(ids, jnp.int32)


def normalized_images(images: Any, model: VisionTransformer) -> Float[Array, "B height width channels"]:
    """An array that is normalized already, with its channels last."""
    if not (isinstance(images, list | tuple) or hasattr(images, "__array__")):
        raise ValueError(f"images must be paths, Pillow images or arrays, one or a list of them: got {type(images).__name__}")
    array, channels = np.asarray(images), model.config.channels
    if array.dtype.kind in "biu":  # nested lists, which `is_picture` takes for no picture
        raise ValueError(f"images as numbers must be floats that are normalized already: got {array.dtype}; see `images`")
    array = jnp.asarray(array, jnp.float32)
    if array.ndim == 4 and array.shape[-1] != channels and array.shape[1] == channels:
        return jnp.moveaxis(array, 1, -1)
    return array


def text_list(texts: Any) -> list[str]:
    """One text, or several."""
    listed = [texts] if isinstance(texts, str) else _listed(texts)
    wrong = texts if listed is None else next((text for text in listed if not isinstance(text, str)), None)
    if listed is None or wrong is not None:
        where = "" if listed is None else " in a list"
        raise ValueError(f"embed takes a text or a list of texts: got {type(wrong).__name__}{where}")
    return listed


def prompt_list(prompts: Any) -> list[Any]:
    """One prompt, several texts or rows of ids, or one chat, as a list."""
    takes = 'a text, a list of texts, or a chat such as [{"role": "user", "content": "..."}]'
    listed = [prompts] if isinstance(prompts, str) else _listed(prompts)
    if listed is None:
        raise ValueError(f"generate takes {takes}: got {type(prompts).__name__}")
    for prompt in listed:
        if not isinstance(prompt, Iterable):
            raise ValueError(f"generate takes {takes}: got {type(prompt).__name__} in a list; ids are a list of rows of ids")
    return listed


def _listed(values: Any) -> list[Any] | None:
    """None for what is no list of things."""
    return list(values) if isinstance(values, Iterable) and not isinstance(values, Mapping | bytes) else None


def check_options(options: Iterable[str]) -> None:
    """Refuses an option that SamplingConfig has not, with the one that was probably meant."""
    known = [field.name for field in fields(SamplingConfig)]
    for name in options:
        if name not in known:
            near = [ELSEWHERE[name]] if name in ELSEWHERE else difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise ValueError(f"generate has no option {name}: {hint}")


def switched_off(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of SamplingConfig; a list of tokens that is None has none."""
    lists = ("suppress", "begin_suppress", "forced_eos")
    return {name: () if value is None and name in lists else value for name, value in options.items()}


def check_source(name_or_path: Any) -> None:
    if not isinstance(name_or_path, str | Path):
        raise ValueError(
            f"a model must be named by the path of a run, a folder or a GGUF file, or by its name on the hub: got "
            f"{name_or_path!r}"
        )
