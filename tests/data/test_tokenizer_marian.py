import json
import shutil
from pathlib import Path

import pytest

from jaxllm.data import Tokenizer, load_tokenizer

GOLDEN = Path(__file__).parent / "golden" / "tokenizers"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text("utf-8"))
TEXTS = EXPECTED["texts"]


def test_equals_transformers():
    tokenizer = load_tokenizer(GOLDEN / "marian")
    assert isinstance(tokenizer, Tokenizer)
    expected = EXPECTED["marian"]
    special = [tokenizer.encode_special(text).ids for text in TEXTS]
    assert special == expected["special"]
    assert [tokenizer.encode(text) for text in TEXTS] == expected["ids"]
    assert [[*tokenizer.encode_target(text), tokenizer.eos_id] for text in TEXTS] == expected["targets"]
    assert [tokenizer.decode(ids) for ids in special] == expected["decoded"]
    assert {role: getattr(tokenizer, f"{role}_id") for role in expected["roles"]} == expected["roles"]


def test_the_language_is_one_token():
    tokenizer = load_tokenizer(GOLDEN / "marian")
    assert tokenizer.encode(">>fra<< winter") == [tokenizer.token_id(">>fra<<"), *tokenizer.encode(" winter")]
    assert tokenizer.encode_special("winter is come", max_len=3).ids == [*tokenizer.encode("winter is come")[:2], 0]


def test_saved_and_loaded_is_the_same(tmp_path: Path):
    tokenizer = load_tokenizer(GOLDEN / "marian")
    tokenizer.save(tmp_path / "saved")
    tokenizer = load_tokenizer(tmp_path / "saved")
    tokenizer.save(tmp_path / "saved")  # over its own files
    assert load_tokenizer(tmp_path / "saved").fingerprint == load_tokenizer(GOLDEN / "marian").fingerprint


def test_incomplete_folder(tmp_path: Path):
    shutil.copytree(GOLDEN / "marian", tmp_path / "marian")
    (tmp_path / "marian" / "tokenizer_config.json").write_text('{"eos_token": "<end>"}')
    with pytest.raises(ValueError, match="vocab.json must have the special tokens <end>"):
        load_tokenizer(tmp_path / "marian")
    (tmp_path / "marian" / "target.spm").unlink()
    with pytest.raises(FileNotFoundError, match="has source.spm, target.spm, vocab.json: .* has no target.spm"):
        load_tokenizer(tmp_path / "marian")
    with pytest.raises(ValueError, match="one text at a time"):
        load_tokenizer(GOLDEN / "marian").encode_special("a", "b")
