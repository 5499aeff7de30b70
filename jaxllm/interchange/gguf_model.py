"""The tensors of a GGUF file under their published names, and as they were published.

llama.cpp changes some on the way in, and this takes it back: the rows of Llama's queries and keys (it turns neighbouring pairs
where the published model turns the halves of a head), GPT-2's matrices (published input x output) and Gemma's norms (it stores
1 + scale).
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from jaxllm.interchange.gguf_config import find_architecture, is_tied
from jaxllm.interchange.gguf_file import GgufFile, check_supported

_LLAMA = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "blk.#.attn_norm": "model.layers.#.input_layernorm",
    "blk.#.attn_q": "model.layers.#.self_attn.q_proj",
    "blk.#.attn_k": "model.layers.#.self_attn.k_proj",
    "blk.#.attn_v": "model.layers.#.self_attn.v_proj",
    "blk.#.attn_output": "model.layers.#.self_attn.o_proj",
    "blk.#.attn_q_norm": "model.layers.#.self_attn.q_norm",
    "blk.#.attn_k_norm": "model.layers.#.self_attn.k_norm",
    "blk.#.ffn_norm": "model.layers.#.post_attention_layernorm",
    "blk.#.ffn_gate": "model.layers.#.mlp.gate_proj",
    "blk.#.ffn_up": "model.layers.#.mlp.up_proj",
    "blk.#.ffn_down": "model.layers.#.mlp.down_proj",
}
_GEMMA = _LLAMA | {
    "blk.#.post_attention_norm": "model.layers.#.post_attention_layernorm",
    "blk.#.ffn_norm": "model.layers.#.pre_feedforward_layernorm",
    "blk.#.post_ffw_norm": "model.layers.#.post_feedforward_layernorm",
}
_GPT2 = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
    "blk.#.attn_norm": "transformer.h.#.ln_1",
    "blk.#.attn_qkv": "transformer.h.#.attn.c_attn",
    "blk.#.attn_output": "transformer.h.#.attn.c_proj",
    "blk.#.ffn_norm": "transformer.h.#.ln_2",
    "blk.#.ffn_up": "transformer.h.#.mlp.c_fc",
    "blk.#.ffn_down": "transformer.h.#.mlp.c_proj",
}
_BERT = {
    "token_embd": "embeddings.word_embeddings",
    "position_embd": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "token_embd_norm": "embeddings.LayerNorm",
    "blk.#.attn_q": "encoder.layer.#.attention.self.query",
    "blk.#.attn_k": "encoder.layer.#.attention.self.key",
    "blk.#.attn_v": "encoder.layer.#.attention.self.value",
    "blk.#.attn_output": "encoder.layer.#.attention.output.dense",
    "blk.#.attn_output_norm": "encoder.layer.#.attention.output.LayerNorm",
    "blk.#.ffn_up": "encoder.layer.#.intermediate.dense",
    "blk.#.ffn_down": "encoder.layer.#.output.dense",
    "blk.#.layer_output_norm": "encoder.layer.#.output.LayerNorm",
}
_NAMES = {"llama": _LLAMA, "qwen2": _LLAMA, "qwen3": _LLAMA, "gemma2": _GEMMA, "gemma3": _GEMMA, "gpt2": _GPT2, "bert": _BERT}
_CHANGES = {
    "llama": (r"attn_[qk]\.(weight|bias)$", "pairs"),
    "gpt2": (r"(attn_qkv|attn_output|ffn_up|ffn_down)\.weight$", "transposed"),
    "gemma2": (r"norm\.weight$", "plus_one"),
    "gemma3": (r"norm\.weight$", "plus_one"),
}
"""Which tensors of an architecture are changed, and how."""
_LAYER = re.compile(r"^blk\.(\d+)\.")


class _Stored(NamedTuple):
    """A tensor of the file."""

    name: str
    change: Literal["pairs", "transposed", "plus_one"] | None


@dataclass(frozen=True)
class GgufTensors:
    """The tensors of a model by their published names, float32, read by rows; `published_tensors` makes one."""

    file: GgufFile
    stored: Mapping[str, _Stored]

    @property
    def path(self) -> Path:
        return self.file.path

    @property
    def names(self) -> Collection[str]:
        return self.stored.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        shape = self.file.tensors[self.stored[name].name].shape
        return shape[::-1] if self.stored[name].change == "transposed" else shape

    def dtype(self, name: str) -> np.dtype:
        return np.dtype(np.float32)

    def where(self, name: str) -> str:
        """The tensor and its file, for messages."""
        return f"{name} ({self.stored[name].name} in {self.file.path})"

    def read(self, name: str, wanted: tuple[slice, ...]) -> Float32[np.ndarray, "..."]:
        """A rectangle of a tensor; whole rows of the file are dequantized for it."""
        stored, change = self.stored[name]
        if change == "transposed":
            return self.file.read(stored, wanted[1])[:, wanted[0]].T
        rows = self._order(stored)[wanted[0]] if change == "pairs" else wanted[0]
        values = self.file.read(stored, rows)[(slice(None), *wanted[1:])]
        return values - np.float32(1) if change == "plus_one" else values

    def _order(self, stored: str) -> Int[np.ndarray, " rows"]:
        """Where in the file each published row of queries or keys is: the halves of a head lie there in turn."""
        heads = self.file.metadata["llama.attention.head_count"]
        if "attn_k" in stored:
            heads = self.file.metadata.get("llama.attention.head_count_kv", heads)
        rows = np.arange(self.file.tensors[stored].shape[0])
        return rows.reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)


def published_tensors(file: GgufFile) -> GgufTensors:
    """The tensors of a model.

        tensors = published_tensors(open_gguf("SmolLM2-135M-Instruct.Q4_1.gguf"))
        tensors.read("model.embed_tokens.weight", (slice(0, 10), slice(None)))

    Raises:
      ValueError: an architecture, tensors or types of tensors that are not known; they are named.
    """
    architecture = find_architecture(file)
    pattern, change = _CHANGES.get(architecture, ("(?!)", None))
    tied, found, unknown = is_tied(file), {}, []
    for name in file.tensors:
        layer = _LAYER.match(name)
        stem, _, ending = _LAYER.sub("blk.#.", name).rpartition(".")
        published = _NAMES[architecture].get(stem)
        if published is None or ending not in ("weight", "bias"):
            unknown += [name] if name != "rope_freqs.weight" else []  # that one is in the config
        elif not (tied and name == "output.weight"):
            published = published.replace("#", layer[1] if layer else "")
            found[f"{published}.{ending}"] = _Stored(name, change if re.search(pattern, name) else None)  # pyright: ignore[reportArgumentType]
    if unknown:
        raise ValueError(
            f"{file.path} has tensors that a {architecture} model has no place for: {', '.join(sorted(unknown)[:8])}"
        )
    check_supported(file.path, list(file.tensors.values()))
    return GgufTensors(file, found)
