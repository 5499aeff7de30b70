"""Published tokenizers against transformers and sentencepiece (scripts/oracle/published_tokenizers.py)."""

import json
import shutil
from pathlib import Path

import pytest

from jaxllm.data import Tokenizer, load_tokenizer
from jaxllm.data.subword import ROLES

GOLDEN = Path(__file__).parent / "golden" / "tokenizers"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text("utf-8"))
TEXTS, PAIRS = EXPECTED["texts"], EXPECTED["pairs"]
FULL = Path(__file__).parents[3] / "shared" / "data" / "tokenizers"
needs_full = pytest.mark.skipif(not FULL.is_dir(), reason="no full-size vocabularies in ../shared/data")
FOLDERS = ["bert", "bert_cased", "gpt2", "roberta", "qwen2", "fast"]


def check(tokenizer, expected: dict) -> None:
    assert [tokenizer.encode(text) for text in TEXTS] == expected["ids"]
    assert [list(ids) for ids in tokenizer.encode_batch(TEXTS)] == expected["ids"]
    assert [tokenizer.encode_special(text).ids for text in TEXTS] == expected["special"]
    assert [[list(part) for part in tokenizer.encode_special(*pair)] for pair in PAIRS] == expected["pairs"]
    short = [tokenizer.encode_special(*pair, max_len=n).ids for pair in PAIRS for n in (5, 8, 11)]
    assert short == expected["short"]


@pytest.mark.parametrize("name", FOLDERS)
def test_equals_transformers(name: str):
    tokenizer = load_tokenizer(GOLDEN / name)
    assert isinstance(tokenizer, Tokenizer)
    check(tokenizer, EXPECTED[name])
    assert {role: getattr(tokenizer, f"{role}_id") for role in ROLES} == EXPECTED[name]["roles"]
    assert tokenizer.max_len == (128 if name == "bert_cased" else None)


@pytest.mark.parametrize("name", FOLDERS)
def test_decodes_like_transformers(name: str):
    tokenizer = load_tokenizer(GOLDEN / name)
    assert [tokenizer.decode(ids) for ids in EXPECTED[name]["special"]] == EXPECTED[name]["decoded"]


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_equals_sentencepiece(name: str):
    tokenizer = load_tokenizer(GOLDEN / name)
    assert [tokenizer.encode(text) for text in TEXTS[:-1]] == EXPECTED[name]["ids"]
    assert tokenizer.decode(tokenizer.encode(TEXTS[0])) == TEXTS[0]


def test_templates_of_sentencepiece_classes():
    llama, t5 = load_tokenizer(GOLDEN / "llama"), load_tokenizer(GOLDEN / "t5")
    ids = llama.encode("winter")
    assert llama.encode_special("winter") == ([llama.bos_id, *ids], [0] * (1 + len(ids)))
    assert (llama.bos_id, llama.eos_id, llama.unk_id, llama.pad_id) == (1, 2, 0, None)
    ids = t5.encode("winter")
    assert t5.encode_special("winter", "winter").ids == [*ids, t5.eos_id, *ids, t5.eos_id]
    assert (t5.eos_id, t5.pad_id, t5.unk_id, t5.bos_id) == (1, 0, 2, None)
    assert [t5.token_id(f"<extra_id_{i}>") for i in (0, 99)] == [t5.vocab_size - 1, t5.vocab_size - 100]
    assert t5.encode("the <extra_id_0> of")[-2] == t5.vocab_size - 1


@pytest.mark.parametrize("name", [*FOLDERS, "llama", "t5"])
def test_saved_and_loaded_is_the_same(name: str, tmp_path: Path):
    tokenizer = load_tokenizer(GOLDEN / name)
    tokenizer.save(tmp_path / "saved")
    loaded = load_tokenizer(tmp_path / "saved")
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.encode_special(TEXTS[2], TEXTS[0]) == tokenizer.encode_special(TEXTS[2], TEXTS[0])
    for field in ("special_tokens", "chat_template", "max_len", "vocab_size"):
        assert getattr(loaded, field) == getattr(tokenizer, field)


def test_flags_choose_the_ends(tmp_path: Path):
    shutil.copytree(GOLDEN / "llama", tmp_path / "llama")
    for flags, before, after in (({"add_eos_token": True}, [], [2]), ({"add_bos_token": True}, [1], []), ({}, [1], [])):
        (tmp_path / "llama" / "tokenizer_config.json").write_text(json.dumps(flags))
        tokenizer = load_tokenizer(tmp_path / "llama")
        assert tokenizer.encode_special("winter").ids == [*before, *tokenizer.encode("winter"), *after]


def test_no_room_for_special_tokens():
    with pytest.raises(ValueError, match="must leave room for the special tokens, 3: got 2"):
        load_tokenizer(GOLDEN / "bert").encode_special("a", "b", max_len=2)


def test_what_is_not_a_tokenizer(tmp_path: Path):
    (tmp_path / "README").touch()
    with pytest.raises(
        FileNotFoundError, match=r"one of tokenizer.json, vocab.txt, vocab.json with merges.txt.*it holds README"
    ):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\x10nothing")
    with pytest.raises(ValueError, match="tokenizer.model is not a SentencePiece model, or is damaged"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizerFast"}')
    with pytest.raises(ValueError, match="must be a BertTokenizer.*has one for XLMRobertaTokenizer; write a tokenizer.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    with pytest.raises(FileNotFoundError, match="a GPT2Tokenizer needs .*there is no such file"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(ValueError, match="tokenizer_config.json must hold fields"):
        load_tokenizer(tmp_path)


def test_vocabulary_without_its_special_tokens(tmp_path: Path):
    (tmp_path / "vocab.txt").write_text("moon\n[UNK]\n[SEP]")
    with pytest.raises(ValueError, match=r"must have \[CLS\]: it has not"):
        load_tokenizer(tmp_path)


def test_files_that_contradict_each_other(tmp_path: Path):
    shutil.copytree(GOLDEN / "gpt2", tmp_path / "gpt2")
    (tmp_path / "gpt2" / "added_tokens.json").write_text('{"<new>": 777}')
    with pytest.raises(ValueError, match="'<new>' is listed with 777, its place in the vocabulary is 500"):
        load_tokenizer(tmp_path / "gpt2")
    (tmp_path / "gpt2" / "added_tokens.json").write_text('{"<new>": 500}')
    assert load_tokenizer(tmp_path / "gpt2").encode("<new>") == [500]
    (tmp_path / "gpt2" / "special_tokens_map.json").write_text('{"mask_token": "<gone>"}')
    with pytest.raises(ValueError, match="names '<gone>' as mask_token, but its vocabulary has no such entry"):
        load_tokenizer(tmp_path / "gpt2")
    with (tmp_path / "gpt2" / "merges.txt").open("a") as file:
        file.write("one two three\n")
    with pytest.raises(ValueError, match="two tokens with a space between: got 'one two three'"):
        load_tokenizer(tmp_path / "gpt2")


def test_unigram_over_words_is_refused(tmp_path: Path):
    data = bytearray((GOLDEN / "t5" / "spiece.model").read_bytes())
    model_type = data.rindex(b"\x18\x01", 0, data.rindex(b"identity"))  # field 3 of the trainer's, 1 for unigram
    data[model_type + 1] = 3
    (tmp_path / "spiece.model").write_bytes(data)
    with pytest.raises(ValueError, match="must be of unigram or BPE pieces.*an algorithm for whole words"):
        load_tokenizer(tmp_path)


@needs_full
@pytest.mark.parametrize("name", ["gpt2", "bert-base-uncased", "qwen2", "t5"])
def test_full_size_equals_transformers(name: str):
    check(load_tokenizer(FULL / name), json.loads((GOLDEN / "full_size.json").read_text("utf-8"))[name])


def references(name: str) -> list[tuple[str, list[int]]]:
    """The texts of llama.cpp and their ids, published with its vocabularies."""
    texts = (FULL / "gguf" / f"ggml-vocab-{name}.gguf.inp").read_bytes().decode("utf-8").split("\n__ggml_vocab_test__\n")
    ids = (FULL / "gguf" / f"ggml-vocab-{name}.gguf.out").read_text("utf-8").split("\n")
    return [(text, list(map(int, line.split()))) for text, line in zip(texts, ids, strict=True)]


@needs_full
@pytest.mark.parametrize(
    ("folder", "name"),
    [("gpt2", "gpt-2"), ("llama2", "llama-spm"), ("qwen2", "qwen2"), ("bert-base-uncased", "bert-bge")],
)
def test_reference_texts(folder: str, name: str):
    tokenizer = load_tokenizer(FULL / folder)
    pairs = references(name)
    assert len(pairs) == 47
    assert [tokenizer.encode(text) for text, _ in pairs] == [ids for _, ids in pairs]


@needs_full
def test_t5_from_its_sentencepiece_model(tmp_path: Path):
    shutil.copy(FULL / "t5" / "spiece.model", tmp_path)
    built, published = load_tokenizer(tmp_path), load_tokenizer(FULL / "t5")
    for text, _ in references("gpt-2"):
        assert built.encode_special(text, "<extra_id_7>") == published.encode_special(text, "<extra_id_7>")
    assert (built.vocab_size, built.special_tokens) == (published.vocab_size, published.special_tokens)
