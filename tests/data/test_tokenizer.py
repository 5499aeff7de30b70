import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from jaxllm.data import Tokenizer, TokenizerConfig, load_tokenizer, train_tokenizer

ENGLISH = "Now is the winter of our discontent\nMade glorious summer by this sun of York;\n" * 20
CHINESE = "床前明月光，疑是地上霜。\n举头望明月，低头思故乡。\n" * 20
KINDS = ["bytes", "characters", "bpe", "wordpiece", "unigram"]


def trained(kind: str) -> Tokenizer:
    size = 400 if kind in ("bpe", "wordpiece", "unigram") else None
    return train_tokenizer(TokenizerConfig(kind=kind, vocab_size=size), [ENGLISH, CHINESE])


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(kind: str):
    tokenizer = trained(kind)
    for text in ("the winter of York", "举头望明月", ENGLISH[:100] + CHINESE[:30], ""):
        decoded = tokenizer.decode(tokenizer.encode(text))
        if kind == "wordpiece":  # gives words back, not the space between them
            assert "".join(decoded.split()) == "".join(text.split())
        else:
            assert decoded == text


@pytest.mark.parametrize("kind", ["bytes", "bpe", "unigram"])
def test_unseen_text_round_trips(kind: str):
    text = "Ω ≠ \t é 🙂 \n\n  한국어"
    tokenizer = trained(kind)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("kind", KINDS)
def test_batch_is_the_same_as_one_by_one(kind: str):
    tokenizer = trained(kind)
    texts = ["winter", "", "明月光 sun", ENGLISH[:50]]
    batch = tokenizer.encode_batch(texts)
    assert [ids.tolist() for ids in batch] == [tokenizer.encode(text) for text in texts]
    assert all(ids.dtype == np.int32 for ids in batch)
    assert max(ids.max(initial=0) for ids in batch) < tokenizer.vocab_size
    assert tokenizer.encode_batch([]) == []


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_is_the_same(kind: str, tmp_path: Path):
    tokenizer = trained(kind)
    tokenizer.save(tmp_path / "tokenizer")
    loaded = load_tokenizer(tmp_path / "tokenizer")
    assert isinstance(loaded, Tokenizer)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.encode(CHINESE[:40]) == tokenizer.encode(CHINESE[:40])
    names = ("vocab_size", "eos_id", "bos_id", "pad_id", "unk_id", "cls_id", "sep_id", "mask_id")
    assert [getattr(loaded, n) for n in names] == [getattr(tokenizer, n) for n in names]


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_training_twice_gives_the_same_tokenizer(kind: str):
    assert trained(kind).fingerprint == trained(kind).fingerprint
    assert trained(kind).vocab_size <= 400


def test_wordpiece_is_made_for_masked_models():
    tokenizer = trained("wordpiece")
    ids = [tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id]
    assert ids == [0, 1, 2, 3, 4]
    words = tokenizer.encode("the winter")
    assert tokenizer.encode_special("the winter") == ([2, *words, 3], [0] * (len(words) + 2))
    assert tokenizer.encode("the [MASK]")[-1] == 4


def test_fingerprints_differ():
    first, second = (train_tokenizer(TokenizerConfig(kind="characters"), [text]) for text in ("abc", "abd"))
    assert first.fingerprint != second.fingerprint
    assert len({trained(kind).fingerprint for kind in KINDS}) == len(KINDS)


def test_bytes_have_an_end_mark():
    tokenizer = trained("bytes")
    assert (tokenizer.vocab_size, tokenizer.eos_id) == (257, 256)
    assert tokenizer.decode([104, 105, 256]) == "hi"


def test_characters_are_sorted():
    tokenizer = train_tokenizer(TokenizerConfig(kind="characters"), ["to be"])
    assert tokenizer.encode(" beot") == [0, 1, 2, 3, 4]


def test_unknown_character_is_named():
    tokenizer = train_tokenizer(TokenizerConfig(kind="characters"), ["abc"])
    for text in ("abζ", "ab\x00", "ab🙂"):
        with pytest.raises(ValueError, match=rf"holds {text[-1]!r}.*\(U\+.*not among the 3 characters.*'bytes' reads any"
                           if text[-1].isprintable() else "U[+]0000"):  # fmt: skip
            tokenizer.encode(text)


def test_ids_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"0\.\.256: got 3\.\.300"):
        trained("bytes").decode([3, 300])


def test_no_text_to_learn_from():
    for kind in ("characters", "bpe"):
        with pytest.raises(ValueError, match="needs text"):
            train_tokenizer(TokenizerConfig(kind=kind, vocab_size=300 if kind == "bpe" else None), [])


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
def test_published_folder(tmp_path: Path, file: str):
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "<end>": 1, "moon": 2, "[UNK]": 3}, "[UNK]"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    core.add_special_tokens(["<s>", "<end>"])
    core.post_processor = tokenizers.processors.TemplateProcessing("<s> $A <end>", special_tokens=[("<s>", 0), ("<end>", 1)])
    core.enable_truncation(2)
    core.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / file).write_text(json.dumps({"eos_token": {"content": "<end>"}, "bos_token": "<s>", "pad_token": None}))
    tokenizer = train_tokenizer(TokenizerConfig(kind="pretrained", path=str(tmp_path)), [])
    assert (tokenizer.eos_id, tokenizer.bos_id, tokenizer.pad_id, tokenizer.vocab_size) == (1, 0, None, 4)
    assert tokenizer.encode("moon moon moon") == [2, 2, 2]  # neither special tokens nor truncation


def test_published_folder_errors(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_tokenizer(tmp_path / "nothing")
    (tmp_path / "merges.txt").write_text("a")
    with pytest.raises(
        FileNotFoundError, match=r"expected a tokenizer in .*one of tokenizer.json, .*it holds merges.txt; copy"
    ):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="is not a tokenizer that the tokenizers package reads"):
        load_tokenizer(tmp_path)
    (tmp_path / "jaxllm_tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a tokenizer that jaxllm saved"):
        load_tokenizer(tmp_path)
