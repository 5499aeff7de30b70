import re
from pathlib import Path

import numpy as np
import pytest

from jaxllm.data import TokenizerConfig, tokens, train_tokenizer
from jaxllm.data.tokenizer import ByteTokenizer
from jaxllm.data.tokens import tokenize_split

TEXTS = ["one text 月", "", "another", "third " * 200]


def test_documents_end_with_the_end_mark(open_texts):
    table = open_texts(TEXTS).train.table
    assert table.tokens.dtype == np.uint16 and table.num_documents == 4
    for number, text in enumerate(TEXTS):
        ids = table.tokens[table.offsets[number] : table.offsets[number + 1]]
        assert ids.tolist() == [*text.encode(), 256]


def test_characters_have_no_end_mark_and_cover_all_splits(open_texts):
    data = open_texts(TEXTS, validation=["Ω is only here"], tokenizer=TokenizerConfig(kind="characters"))
    assert data.train.table.num_documents == 3  # an empty document has no token
    assert data.tokenizer.decode(data.rows("validation").table.tokens.tolist()) == "Ω is only here"


def test_tokens_and_tokenizer_are_computed_once(open_texts, own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    config = TokenizerConfig(kind="bpe", vocab_size=300)
    data = open_texts(TEXTS, tokenizer=config)
    first = data.train.table.tokens.tolist()

    def not_again(*_: object, **__: object) -> None:
        raise AssertionError("computed twice")

    monkeypatch.setattr(tokens, "_write", not_again)
    monkeypatch.setattr("jaxllm.data.opening.train_tokenizer", not_again)
    from jaxllm.data import open_data

    again = open_data(data.config, seed=0)
    assert again.train.table.tokens.tolist() == first
    assert again.tokenizer.fingerprint == data.tokenizer.fingerprint
    assert not [p for p in own_cache.rglob(".*")]  # no working folders stay behind


def test_failure_leaves_no_tokens(open_texts, own_cache: Path):
    data = open_texts(TEXTS, tokenizer=TokenizerConfig(kind="bytes"))
    poor = train_tokenizer(TokenizerConfig(kind="characters"), ["one"])
    with pytest.raises(ValueError, match="not among the 3 characters"):
        tokenize_split(data.text_set.open("train"), poor)
    assert list((own_cache / "tokens").iterdir()) == []


def test_worker_processes_give_the_same_tokens(open_texts, monkeypatch: pytest.MonkeyPatch):
    texts = [f"text {i}" for i in range(1100)]
    split = open_texts(texts).text_set.open("train")
    alone = tokenize_split(split, ByteTokenizer())
    expected = (alone.tokens.tolist(), alone.offsets.tolist())
    alone.folder.rename(alone.folder.with_name("elsewhere"))
    workers = tokenize_split(split, ByteTokenizer(), num_workers=2)
    assert (workers.tokens.tolist(), workers.offsets.tolist()) == expected


def test_stored_tokenizer_is_used(open_texts):
    from jaxllm.data import open_data

    stored = train_tokenizer(TokenizerConfig(kind="characters"), [*TEXTS, "what else ZZZ"])
    config = open_texts(TEXTS, tokenizer=TokenizerConfig(kind="characters")).config
    assert open_data(config, seed=0, tokenizer=stored).tokenizer is stored


def test_missing_splits(open_texts):
    data = open_texts(TEXTS)
    with pytest.raises(ValueError, match=r"no split 'test': it has train \(4 documents\), validation \(1 document\)"):
        data.rows("test")
    for split in ("dev", "train[:50", "train[:9]", "dev[:50%]"):
        assert not data.has_split(split)
        for field in ("train_split", "validation_split", "test_split"):
            with pytest.raises(ValueError, match=f"no split {re.escape(repr(split))}: it has train"):
                open_texts(TEXTS, **{field: split})
    with pytest.raises(ValueError, match=r"'validation\[:10%\]' .* must have a document: it has none"):
        open_texts(TEXTS, test_split="validation[:10%]")


def test_test_split(open_texts):
    data = open_texts(TEXTS)
    assert data.test_split is None and not data.has_split("test")
    assert open_texts(TEXTS, test_split=None).test_split is None
    for split in ("validation", "train[:50%]", "train[2:]", "train[:1]+validation"):
        data = open_texts(TEXTS, test_split=split)
        assert data.has_split(split) and data.test_split == split
        assert data.rows(split).rows_per_epoch
    with pytest.raises(ValueError, match="no split"):
        open_texts(TEXTS, test_split="test[:50%]")


def test_test_split_lends_its_characters(open_texts):
    config = TokenizerConfig(kind="characters")
    data = open_texts(
        TEXTS, validation=["only Ω", "there Ψ"], validation_split=None, test_split="validation[:1]", tokenizer=config
    )
    assert {"Ω", "Ψ"} & set(data.tokenizer.characters) == {"Ω"}


def test_fingerprint_is_that_of_the_rows(open_texts, own_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    first = open_texts(TEXTS).train.fingerprint
    assert open_texts(TEXTS).train.fingerprint == first  # built again: other files, the same tokens
    monkeypatch.setenv("JAXLLM_CACHE", str(tmp_path / "other"))
    assert open_texts(TEXTS).train.fingerprint == first
    assert open_texts([*TEXTS, "more"], train_split="train[:4]").train.fingerprint == first
    changed = [{"seq_len": 15}, {"packing": "fit"}, {"cross_document_attention": True}, {"seed": 1}]
    others = [open_texts(["zne" + TEXTS[0][3:], *TEXTS[1:]]).train.fingerprint]
    others += [open_texts(TEXTS, **fields).train.fingerprint for fields in changed]
    texts = (["one text 月", "another"], ["one text 月a", "nother"])  # the same characters, cut in other places
    others += [open_texts(t, tokenizer=TokenizerConfig(kind="characters")).train.fingerprint for t in texts]
    assert len({first, *others}) == 8
    assert open_texts(TEXTS).train.for_evaluation().fingerprint != first
    assert open_texts(TEXTS, num_workers=2, prefetch=5).train.fingerprint == first
