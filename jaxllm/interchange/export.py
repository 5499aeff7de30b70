"""Our parameters as a published folder: config.json, safetensors and the tokenizer's files; no torch needed."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Shaped

from jaxllm.data.image_input import ImageInput
from jaxllm.data.whole import new_folder
from jaxllm.interchange.config_reader import ConfigReader
from jaxllm.interchange.family import Family
from jaxllm.interchange.generation import FILE, GenerationDefaults, generation_fields, writes_text
from jaxllm.interchange.keymap import BoundTensor, Index, bind_all
from jaxllm.interchange.open import read_config
from jaxllm.interchange.preprocessor import write_image_input
from jaxllm.interchange.safetensors_folder import Outgoing, write_tensors
from jaxllm.interchange.sentence import SentenceConfig, write_sentence_config
from jaxllm.models import VisionConfig

SHARD_BYTES = 5 * 10**9
_NOT_COMPUTED = (
    "dropout",
    "init_std",
    "param_dtype",
    "compute_dtype",
    "matmul_dtype",
    "layer_loop",
    "norm_barrier",
    "attention_kernel",
    "microbatches",
    "remat",
    "label_names",
)
"""Fields of ours that do not change what a trained model computes."""


def write_folder(
    dst: str | Path,
    family: Family,
    config: Any,
    params: Any,
    tokenizer: Any = None,
    dtype: str | Mapping[str, str] | None = None,
    max_shard_bytes: int = SHARD_BYTES,
    generation: GenerationDefaults | None = None,
    sentence: SentenceConfig | None = None,
    image_input: ImageInput | None = None,
) -> Path:
    """Writes a folder that Hugging Face transformers loads, and so does `open_published`.

        write_folder("exported", find_family("LlamaForCausalLM"), model.config, params, tokenizer)

    The folder appears when everything is in it. The host holds one published tensor at a time.

    Args:
      tokenizer: its `save(folder)` writes its files, and its special tokens go into config.json.
      dtype: the type to store, or one for each published tensor, such as `stored_dtypes` gives. By default, and for tensors
        without one, that of the parameter.
      generation: tokens for config.json and generation_config.json; they count for more than the tokenizer's.
      sentence: how a sentence encoder makes one vector of a text, for the files of sentence-transformers.
      image_input: how pictures become the input of a model of images, for preprocessor_config.json.

    Raises:
      FileExistsError: `dst` is there already.
      ValueError: the family cannot say what the config says.
    """
    dst = Path(dst)
    if dst.exists():
        raise FileExistsError(f"{dst} is there already: name a folder that is not there yet, or remove it first")
    fields = published_config(family, config)
    outgoing = published_tensors(family, config, params, dtype)
    special = {name: getattr(tokenizer, name.replace("_token", ""), None) for name in _SPECIAL}
    written = max((tensor.dtype for tensor in outgoing), key=lambda kind: kind.itemsize)
    with new_folder(dst) as unfinished:
        content = {**special, **fields, "dtype": str(written)}
        if generation is not None:
            told = generation_fields(generation)
            # A list of ends is for generation only; what config.json says of padding and the start is for training, too.
            # What the family says of them, it reads back: RoBERTa's padding token tells where positions begin.
            content |= {name: told[name] for name in _SPECIAL if name not in fields and isinstance(told.get(name), int)}
            if writes_text(config):  # transformers reads nothing of config.json beside this file
                start = {name: content[name] for name in _GENERATION if content.get(name) is not None}
                (unfinished / FILE).write_text(json.dumps(start | told, indent=2) + "\n", "utf-8")
        (unfinished / "config.json").write_text(json.dumps(content, indent=2) + "\n", "utf-8")
        if tokenizer is not None:
            tokenizer.save(unfinished)
        if sentence is not None:
            write_sentence_config(unfinished, sentence, config.embed_dim)
        if image_input is not None:
            write_image_input(unfinished, image_input, config)
        write_tensors(unfinished, outgoing, max_shard_bytes)
    return dst


_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
_GENERATION = ("decoder_start_token_id", *_SPECIAL)


def published_tensors(family: Family, config: Any, params: Any, dtype: str | Mapping[str, str] | None = None) -> list[Outgoing]:
    """Every published tensor that these parameters are; each is made when asked for. Serves for gradients as well."""
    leaves = {"/".join(str(key.key) for key in keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(params)}
    bound = bind_all(family.tensors(config), {path: tuple(leaf.shape) for path, leaf in leaves.items()})
    return [_outgoing(tensor, index, leaves, dtype) for tensor in bound for index in tensor.indices()]


def published_config(family: Family, config: Any) -> dict[str, Any]:
    """The fields of config.json for one of our configs, checked by reading them back.

    Raises:
      ValueError: the family cannot say all that the config says.
    """
    try:
        fields = family.write_config(config)
    except (AttributeError, TypeError, KeyError) as error:
        raise ValueError(
            f"a {family.architectures[0]} must be able to say what the config says: it is of another kind than "
            f"{type(config).__name__} ({error}); export as another architecture"
        ) from error
    back = _dotted(_computed(read_config(family, ConfigReader(fields, "the config to be written"))))
    lost = {name: value for name, value in _dotted(_computed(config)).items() if back.get(name) != value}
    if lost:
        listed = ", ".join(f"{name}={value!r}" for name, value in lost.items())
        raise ValueError(
            f"a {family.architectures[0]} must be able to say what the config says: it cannot say {listed}; export as another "
            "architecture"
        )
    return fields


def _dotted(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields as one level, such as head.kind."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat |= _dotted(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _computed(config: Any, *, of_images: bool = False) -> dict[str, Any]:
    """The fields that change the numbers, with defaults written out and those left away that say nothing here."""
    fields = {
        field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.name not in _NOT_COMPUTED
    }
    if fields.get("experts") is not None:  # how tokens travel says nothing about the model
        fields["experts"] = dataclasses.replace(fields["experts"], exchange=None)
    defaults = {
        "num_kv_heads": "kv_heads",
        "head_dim": "head_width",
        "ffw_dim": "ffw_width",
        "rotary_dim": "rotary_width",
        "qkv_bias": "bias",
        "attention_output_bias": "bias",
        "local_rope_theta": "rope_theta",
        "final_norm": "has_final_norm",
    }
    for name, meant in defaults.items():
        if name in fields and fields[name] is None:
            fields[name] = getattr(config, meant)
    unused = ["vocab_size", "context_len", "tie_embeddings", "head"] if of_images else []
    if fields.get("norm") == "rms_norm":
        unused.append("norm_bias")
    if fields.get("position") != "rotary":
        unused += ["rope_theta", "local_rope_theta", "rope_scaling", "rotary_dim"]
    if fields.get("position") != "relative":
        unused += ["relative_buckets", "relative_max_distance"]
    if fields.get("position") != "sinusoidal":
        unused.append("sinusoids")
    return {
        name: _computed(value, of_images=isinstance(config, VisionConfig)) if dataclasses.is_dataclass(value) else value
        for name, value in fields.items()
        if name not in unused
    }


def _outgoing(tensor: BoundTensor, index: Index, leaves: dict[str, Any], dtype: str | Mapping[str, str] | None) -> Outgoing:
    parts, name = [leaves[path] for path in tensor.tensor.paths], tensor.name(index)
    wanted = dtype.get(name) if isinstance(dtype, Mapping) else dtype
    kind = jnp.dtype(wanted or parts[0].dtype)

    def make() -> Shaped[np.ndarray, "..."]:
        return tensor.to_published([_at(part, index) for part in parts]).astype(kind, copy=False)

    return Outgoing(name, tensor.shape, kind, make)


def _at(array: Any, index: Sequence[int]) -> Shaped[np.ndarray, "..."]:
    """One place along the leading axes, on the host; only that is copied there."""
    if not index or isinstance(array, np.ndarray):
        return np.asarray(array)[tuple(index)]
    return np.asarray(_take(array, np.asarray(index, np.int32)))


@jax.jit
def _take(array: jax.Array, index: Int[jax.Array, " axes"]) -> jax.Array:
    """One program for all layers."""
    return array[tuple(index)]
