"""Small trained models in odd layouts, and what is known of them. Their files are not part of this repository.

Each reader gives a model with its parameters, put in order by a key map as any published model's are.
"""

import base64
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tokenizers

from jaxllm.data.vocabulary import BYTE, CONTROL, NORMAL, SPACE, UNKNOWN, Pieces, sentence_piece
from jaxllm.interchange import Family, Tensor, load_params
from jaxllm.interchange.rows import from_heads, linear, norm, to_heads
from jaxllm.models import (
    EncoderDecoderConfig,
    HeadConfig,
    Model,
    ModelConfig,
    TransformerConfig,
    abstract_params,
    make_model,
)

Arrays = dict[str, np.ndarray]


class Trained(NamedTuple):
    """A model that was read."""

    model: Any
    params: Any


@dataclass(frozen=True)
class ArraySource:
    """Published tensors that are in memory already."""

    path: Path
    arrays: Arrays

    @property
    def names(self) -> Sequence[str]:
        return list(self.arrays)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.arrays[name].shape

    def dtype(self, name: str) -> np.dtype:
        return self.arrays[name].dtype

    def where(self, name: str) -> str:
        return f"{name} in {self.path}"

    def read(self, name: str, wanted: tuple[slice, ...]) -> np.ndarray:
        return self.arrays[name][wanted]


def load_arrays(
    path: Path, arrays: Arrays, config: ModelConfig, tensors: Callable[[Any], list[Tensor]], ignored: tuple[str, ...] = ()
) -> Trained:
    """The model of this config with these tensors in it."""
    family = Family(
        architectures=(path.name,),
        read_config=lambda reader: config,
        write_config=lambda config: {},
        tensors=tensors,
        ignored=ignored,
    )
    model: Model = make_model(config)
    return Trained(model, load_params(ArraySource(path, arrays), family, config, abstract_params(model)[0]))


# --- stories260K: a Llama as llama2.c writes it, with rotary pairs side by side


def read_stories(folder: Path) -> tuple[Trained, tokenizers.Tokenizer]:
    path = folder / "stories260K.bin"
    data = path.read_bytes()
    dim, ffw_dim, layers, heads, kv_heads, vocab_size, context_len = struct.unpack_from("<7i", data)
    head_dim = dim // heads
    shapes = {
        "tok_embeddings": (vocab_size, dim),
        "attention_norm": (layers, dim),
        "wq": (layers, heads * head_dim, dim),
        "wk": (layers, kv_heads * head_dim, dim),
        "wv": (layers, kv_heads * head_dim, dim),
        "wo": (layers, dim, heads * head_dim),
        "ffn_norm": (layers, dim),
        "w1": (layers, ffw_dim, dim),
        "w2": (layers, dim, ffw_dim),
        "w3": (layers, ffw_dim, dim),
        "norm": (dim,),
        "freq_cos": (context_len, head_dim // 2),
        "freq_sin": (context_len, head_dim // 2),
    }
    arrays, start = {}, 7 * 4
    for name, shape in shapes.items():
        arrays[name] = np.frombuffer(data, "<f4", int(np.prod(shape)), start).reshape(shape)
        start += arrays[name].nbytes
    assert start == len(data)
    config = TransformerConfig(
        vocab_size=vocab_size,
        context_len=context_len,
        num_layers=layers,
        embed_dim=dim,
        num_heads=heads,
        num_kv_heads=kv_heads,
        ffw_dim=ffw_dim,
        activation="swiglu",
        norm="rms_norm",
        position="rotary",
        bias=False,
    )
    return load_arrays(path, arrays, config, _llama2c_tensors, ("freq_*",)), _read_pieces(folder / "tok512.bin")


def _llama2c_tensors(config: TransformerConfig) -> list[Tensor]:
    attention, ffw = "layers/attention", "layers/ffw"
    return [
        Tensor("tok_embeddings", "embed/table", "V D -> V D"),
        Tensor("attention_norm", "layers/attention_norm/scale", "L D -> L D"),
        Tensor("wq", f"{attention}/query/kernel", "L (N I 2) D -> L D N (2 I)"),
        Tensor("wk", f"{attention}/key/kernel", "L (N I 2) D -> L D N (2 I)"),
        Tensor("wv", f"{attention}/value/kernel", "L (N H) D -> L D N H"),
        Tensor("wo", f"{attention}/output/kernel", "L D (N H) -> L N H D"),
        Tensor("ffn_norm", "layers/ffw_norm/scale", "L D -> L D"),
        Tensor("w1", f"{ffw}/gate/kernel", "L F D -> L D F"),
        Tensor("w2", f"{ffw}/down/kernel", "L D F -> L F D"),
        Tensor("w3", f"{ffw}/up/kernel", "L F D -> L D F"),
        Tensor("norm", "final_norm/scale", "D -> D"),
    ]


def _read_pieces(path: Path) -> tokenizers.Tokenizer:
    data, start = path.read_bytes(), 4
    pieces: list[str] = []
    scores: list[float] = []
    while start < len(data):
        score, length = struct.unpack_from("<fi", data, start)
        pieces.append(data[start + 8 : start + 8 + length].decode().replace(" ", SPACE))
        scores.append(score)
        start += 8 + length
    kinds = [UNKNOWN, CONTROL, CONTROL, *(BYTE if piece.startswith("<0x") else NORMAL for piece in pieces[3:])]
    pieces[1:3] = "<s>", "</s>"
    return sentence_piece(Pieces(pieces=pieces, scores=scores, kinds=kinds, algorithm="bpe"))


# --- gpt_nano_sort: a GPT-2 as minGPT writes it, its matrices [outputs, inputs] and its output matrix of its own


def read_sorter(folder: Path) -> Trained:
    path = folder / "gpt-nano-sort-model.json"
    fields, arrays = read_json_arrays(path)
    config = TransformerConfig(
        vocab_size=fields["vocab_size"],
        context_len=fields["block_size"],
        num_layers=fields["n_layer"],
        embed_dim=fields["n_embd"],
        num_heads=fields["n_head"],
        tie_embeddings=False,
    )
    return load_arrays(path, arrays, config, _mingpt_tensors, ("transformer.h.*.attn.bias",))


def read_json_arrays(path: Path) -> tuple[dict[str, Any], Arrays]:
    """The config and the tensors in a file."""
    content = json.loads(path.read_text())
    arrays = {
        name: np.frombuffer(base64.b64decode(entry["data"]), "<f4").reshape(entry["shape"])
        for name, entry in content.items()
        if name != "config"
    }
    return content["config"], arrays


def _mingpt_tensors(config: TransformerConfig) -> list[Tensor]:
    block, layer = "transformer.h.{layer}", "layers"
    kernels, biases = (
        tuple(f"{layer}/attention/{part}/{leaf}" for part in ("query", "key", "value")) for leaf in ("kernel", "bias")
    )
    return [
        Tensor("transformer.wte.weight", "embed/table", "V D -> V D"),
        Tensor("transformer.wpe.weight", "position/table", "C D -> C D"),
        Tensor(f"{block}.attn.c_attn.weight", kernels, "(P N H) D -> P D N H"),
        Tensor(f"{block}.attn.c_attn.bias", biases, "(P N H) -> P N H"),
        *from_heads(f"{block}.attn.c_proj", f"{layer}/attention/output"),
        *norm(f"{block}.ln_1", f"{layer}/attention_norm"),
        *linear(f"{block}.mlp.c_fc", f"{layer}/ffw/up"),
        *linear(f"{block}.mlp.c_proj", f"{layer}/ffw/down"),
        *norm(f"{block}.ln_2", f"{layer}/ffw_norm"),
        *norm("transformer.ln_f", "final_norm"),
        Tensor("lm_head.weight", "unembed/kernel", "V D -> D V"),
    ]


# --- ct2_aren_transliteration: an encoder-decoder as CTranslate2 writes it, with fused projections


@dataclass(frozen=True, kw_only=True)
class Transliterator:
    trained: Trained
    source: list[str]
    """The character of each id."""
    target: list[str]

    def encode(self, word: str) -> list[int]:
        return [self.source.index(letter) for letter in word]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.target[i] for i in ids if i > 2)


EOS = 2


def read_transliterator(folder: Path) -> Transliterator:
    path = folder / "model.bin"
    arrays = _read_ctranslate2(path)
    source, target = (
        [*(folder / f"{side}_vocabulary.txt").read_text("utf-8").removesuffix("\n").split("\n"), "<unk>"]
        for side in ("source", "target")
    )
    size: dict[str, Any] = {
        "context_len": 64,
        "num_layers": 6,
        "embed_dim": 32,
        "num_heads": 8,
        "ffw_dim": 128,
        "activation": "relu",
        "embed_scale": 32**0.5,
        "position": "sinusoidal",
        "sinusoids": "tensor2tensor",
        "position_offset": 1,
    }
    config = EncoderDecoderConfig(
        encoder=TransformerConfig(vocab_size=len(source), causal=False, head=HeadConfig(kind="none"), **size),
        decoder=TransformerConfig(
            vocab_size=len(target), cross_attention=True, tie_embeddings=False, head=HeadConfig(bias=True), **size
        ),
        share_embeddings=False,
        start_id=1,
    )
    return Transliterator(trained=load_arrays(path, arrays, config, _ctranslate2_tensors), source=source, target=target)


def _read_ctranslate2(path: Path) -> Arrays:
    data, start = path.read_bytes(), 0

    def take(kind: str) -> int:
        nonlocal start
        start += struct.calcsize(f"<{kind}")
        return struct.unpack_from(f"<{kind}", data, start - struct.calcsize(f"<{kind}"))[0]

    def take_text() -> str:
        nonlocal start
        length = take("H")
        start += length
        return data[start - length : start - 1].decode()

    assert (take("I"), take_text(), take("I")) == (2, "TransformerBase", 2)
    arrays: Arrays = {}
    for _ in range(take("I")):
        name = take_text()
        shape = [take("I") for _ in range(take("B"))]
        assert take("B") == 4, "float32"
        arrays[name] = np.frombuffer(data, "<f4", take("I"), start).reshape(shape)
        start += arrays[name].nbytes
    assert start == len(data)
    return arrays


def _ctranslate2_tensors(config: EncoderDecoderConfig) -> list[Tensor]:
    rows = linear("decoder/projection", "decoder/unembed")
    for stack in ("encoder", "decoder"):
        block, ours = f"{stack}/layer_{{layer}}", f"{stack}/layers"
        rows += [
            Tensor(f"{stack}/embeddings/weight", f"{stack}/embed/table", "V D -> V D"),
            *norm(f"{stack}/layer_norm", f"{stack}/final_norm"),
            *norm(f"{block}/self_attention/layer_norm", f"{ours}/attention_norm"),
            *_fused(f"{block}/self_attention/linear_0", f"{ours}/attention", ("query", "key", "value")),
            *from_heads(f"{block}/self_attention/linear_1", f"{ours}/attention/output"),
            *norm(f"{block}/ffn/layer_norm", f"{ours}/ffw_norm"),
            *linear(f"{block}/ffn/linear_0", f"{ours}/ffw/up"),
            *linear(f"{block}/ffn/linear_1", f"{ours}/ffw/down"),
        ]
    rows += [
        *norm(f"{block}/attention/layer_norm", f"{ours}/cross_attention_norm"),
        *to_heads(f"{block}/attention/linear_0", f"{ours}/cross_attention/query"),
        *_fused(f"{block}/attention/linear_1", f"{ours}/cross_attention", ("key", "value")),
        *from_heads(f"{block}/attention/linear_2", f"{ours}/cross_attention/output"),
    ]
    spelling = {".": "/", "layer_norm/weight": "layer_norm/gamma", "layer_norm/bias": "layer_norm/beta"}
    return [Tensor(_replaced(row.name, spelling), row.parts, row.pattern) for row in rows]


def _fused(published: str, ours: str, parts: Sequence[str]) -> list[Tensor]:
    kernels, biases = (tuple(f"{ours}/{part}/{leaf}" for part in parts) for leaf in ("kernel", "bias"))
    return [
        Tensor(f"{published}/weight", kernels, "(P N H) D -> P D N H"),
        Tensor(f"{published}/bias", biases, "(P N H) -> P N H"),
    ]


def _replaced(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        text = text.replace(old, new)
    return text
