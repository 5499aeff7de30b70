"""Tokenizers in GGUF files against llama.cpp's own texts and ids, and against the same vocabularies in published folders."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxllm.data import load_tokenizer
from jaxllm.data.sentencepiece_file import read_sentencepiece
from jaxllm.interchange.gguf_file import open_gguf
from jaxllm.interchange.gguf_tokenizer import read_gguf_tokenizer
from tests.interchange.gguf_writer import write_gguf

FULL = Path(__file__).parents[3] / "shared" / "data" / "tokenizers"
SMALL = Path(__file__).parents[1] / "data" / "golden" / "tokenizers"
TEXTS = json.loads((SMALL / "expected.json").read_text("utf-8"))["texts"]
needs_full = pytest.mark.skipif(not FULL.is_dir(), reason="no full-size vocabularies in ../shared/data")


def references(name: str) -> list[tuple[str, list[int]]]:
    texts = (FULL / "gguf" / f"ggml-vocab-{name}.gguf.inp").read_bytes().decode("utf-8").split("\n__ggml_vocab_test__\n")
    ids = (FULL / "gguf" / f"ggml-vocab-{name}.gguf.out").read_text("utf-8").split("\n")
    return [(text, list(map(int, line.split()))) for text, line in zip(texts, ids, strict=True)]


@needs_full
@pytest.mark.parametrize("name", ["llama-spm", "gpt-2", "bert-bge"])
def test_reference_texts(name: str):
    tokenizer = read_gguf_tokenizer(open_gguf(FULL / "gguf" / f"ggml-vocab-{name}.gguf"))
    pairs = references(name)
    assert len(pairs) == 47
    assert [tokenizer.encode(text) for text, _ in pairs] == [ids for _, ids in pairs]


@needs_full
def test_reference_texts_of_qwen2(tmp_path: Path):
    vocab = json.loads((FULL / "qwen2" / "vocab.json").read_text("utf-8"))
    merges = (FULL / "qwen2" / "merges.txt").read_text("utf-8").removesuffix("\n").split("\n")
    fields = {"model": "gpt2", "pre": "qwen2", "tokens": list(vocab), "merges": merges[1:] if merges[0][0] == "#" else merges}
    tokenizer = read_gguf_tokenizer(open_gguf(write(tmp_path, fields)))
    assert [tokenizer.encode(text) for text, _ in references("qwen2")] == [ids for _, ids in references("qwen2")]


def write(folder: Path, fields: dict, **more: object) -> Path:
    metadata = {f"tokenizer.ggml.{name}": value for name, value in fields.items()}
    return write_gguf(folder / "model.gguf", metadata | {f"tokenizer.{k}": v for k, v in more.items()}, {})


def byte_level(pre: str = "gpt-2") -> dict:
    """The small GPT-2 vocabulary with two more tokens."""
    vocab = json.loads((SMALL / "gpt2" / "vocab.json").read_text("utf-8"))
    merges = (SMALL / "gpt2" / "merges.txt").read_text("utf-8").removesuffix("\n").split("\n")[1:]
    kinds = np.array([3] + [1] * (len(vocab) - 1) + [3, 4], np.int32)
    tokens = [*sorted(vocab, key=vocab.__getitem__), "<|im_end|>", "<keep>"]
    ids = {"bos_token_id": 0, "eos_token_id": len(vocab), "padding_token_id": 0}
    return {"model": "gpt2", "pre": pre, "tokens": tokens, "token_type": kinds, "merges": merges} | ids


def sentence_pieces() -> dict:
    pieces = read_sentencepiece(SMALL / "llama" / "tokenizer.model")
    arrays = {"scores": np.array(pieces.scores, np.float32), "token_type": np.array(pieces.kinds, np.int32)}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
    return {"model": "llama", "pre": "default", "tokens": list(pieces.pieces)} | arrays | ids


def word_pieces(name: str) -> dict:
    """BERT's vocabulary as llama.cpp writes it: a mark before words, none before their other pieces."""
    words = (SMALL / name / "vocab.txt").read_text("utf-8").removesuffix("\n").split("\n")
    tokens = [
        word if word[0] == "[" and word[-1] == "]" else word[2:] if word[:2] == "##" else "\u2581" + word for word in words
    ]
    ids = {
        f"{role}_token_id": words.index(word) for role, word in {"cls": "[CLS]", "seperator": "[SEP]", "mask": "[MASK]"}.items()
    }
    kinds = np.array([3 if word[0] == "[" and word[-1] == "]" else 1 for word in words], np.int32)
    return {"model": "bert", "pre": "bert-bge", "tokens": tokens, "token_type": kinds, "unknown_token_id": 1} | ids


@pytest.mark.parametrize(
    ("name", "fields"), [("llama", sentence_pieces()), ("bert", word_pieces("bert")), ("bert_cased", word_pieces("bert_cased"))]
)
def test_equals_the_published_folder(tmp_path: Path, name: str, fields: dict):
    tokenizer, published = read_gguf_tokenizer(open_gguf(write(tmp_path, fields))), load_tokenizer(SMALL / name)
    for text in TEXTS:
        assert tokenizer.encode_special(text, "Winter") == published.encode_special(text, "Winter")
        assert tokenizer.encode(text) == published.encode(text)
    for role in ("bos", "eos", "unk", "cls", "sep", "mask"):
        assert getattr(tokenizer, f"{role}_id") == getattr(published, f"{role}_id")
    assert tokenizer.vocab_size == published.vocab_size


def test_byte_level_and_its_tokens(tmp_path: Path):
    template = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    path = write(tmp_path, byte_level(), chat_template=template)
    tokenizer, published = read_gguf_tokenizer(open_gguf(path)), load_tokenizer(SMALL / "gpt2")
    for text in TEXTS:
        assert tokenizer.encode(text) == published.encode(text) == tokenizer.encode_special(text).ids
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.unk_id) == (0, 500, 0, None)
    assert tokenizer.encode("<keep>the<|im_end|>") == [501, *tokenizer.encode("the"), 500]
    assert tokenizer.decode(tokenizer.encode("<keep>the<|im_end|>")) == "<keep>the"
    assert tokenizer.apply_chat_template([{"role": "user", "content": "winter"}]) == "winter<|im_end|>"


def test_words_are_cut_as_the_file_says(tmp_path: Path):
    text = "in 1234 \n\n days"
    cut = {}
    for pre in ("gpt-2", "smollm", "llama-bpe", "qwen2"):
        tokenizer = read_gguf_tokenizer(open_gguf(write(tmp_path, byte_level(pre))))
        cut[pre] = [text[a:b] for _, (a, b) in tokenizer._core.pre_tokenizer.pre_tokenize_str(text)]
    assert cut == {
        "gpt-2": ["in", " 1234", " \n\n", " days"],
        "smollm": ["in", " ", "1", "2", "3", "4", " \n\n", " days"],
        "llama-bpe": ["in", " ", "123", "4", " \n\n", " days"],
        "qwen2": ["in", " ", "1", "2", "3", "4", " \n\n", " days"],
    }
    assert read_gguf_tokenizer(open_gguf(write(tmp_path, byte_level("llama-bpe")))).encode_special("in").ids[0] == 0  # bos


def test_flags(tmp_path: Path):
    fields = sentence_pieces() | {"add_bos_token": False, "add_eos_token": True, "add_space_prefix": False}
    tokenizer = read_gguf_tokenizer(open_gguf(write(tmp_path, fields)))
    assert tokenizer.encode_special("the").ids == [*tokenizer.encode("the"), 2]
    assert tokenizer.encode(" the") == load_tokenizer(SMALL / "llama").encode("the")


def test_what_is_not_known_is_named(tmp_path: Path):
    for fields, message in [
        (byte_level() | {"model": "rwkv"}, "tokenizer.ggml.model must be one of llama, gpt2, bert: .* has 'rwkv'"),
        ({}, "has None"),
        (byte_level("tekken"), r"tokenizer.ggml.pre, .*must be one of .*qwen2, .*: .*model.gguf has 'tekken'"),
        (byte_level() | {"token_type": np.zeros(3, np.int32)}, "502 tokens and 3 types of tokens"),
        (byte_level() | {"eos_token_id": 502}, "its eos token is 502 of 502"),
        ({"model": "gpt2", "tokens": ["a"], "pre": "gpt-2"}, "has no tokenizer.ggml.merges"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_gguf_tokenizer(open_gguf(write(tmp_path, fields)))
