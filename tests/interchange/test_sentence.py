"""Folders of the sentence-transformers library."""

import json

import pytest

from jaxllm.interchange.sentence import SentenceConfig, read_sentence_config

MODES = {f"pooling_mode_{name}": False for name in ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")}


def write(folder, *, modules=("Transformer", "Pooling", "Normalize"), pooling=None, encoder="", **files):
    paths = {"Transformer": encoder, "Pooling": "1_Pooling"}
    rows = [
        {"idx": i, "name": str(i), "path": paths.get(name, f"{i}_{name}"), "type": f"sentence_transformers.models.{name}"}
        for i, name in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(rows))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling or MODES | {"pooling_mode_mean_tokens": True}))
    for name, fields in files.items():
        (folder / f"{name}.json").write_text(json.dumps(fields))
    return folder


def test_a_folder_that_says_all(tmp_path):
    write(tmp_path, sentence_bert_config={"max_seq_length": 256, "do_lower_case": False})
    assert read_sentence_config(tmp_path) == SentenceConfig(pooling="mean", normalize=True, max_len=256)


def test_the_first_token_without_normalization(tmp_path):
    write(tmp_path, modules=("Transformer", "Pooling"), pooling=MODES | {"pooling_mode_cls_token": True})
    assert read_sentence_config(tmp_path) == SentenceConfig(pooling="first", normalize=False, max_len=None)


def test_pooling_named_by_one_word(tmp_path):
    config = read_sentence_config(write(tmp_path, pooling={"word_embedding_dimension": 384, "pooling_mode": "cls"}))
    assert config is not None and config.pooling == "first"


def test_another_folder_says_nothing(tmp_path):
    assert read_sentence_config(tmp_path) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modules": ("Transformer", "Pooling", "Dense")}, "must name Transformer, Pooling and perhaps Normalize"),
        (
            {"pooling": MODES | {"pooling_mode_max_tokens": True}},
            "must pool by mean or by the first token .* got pooling_mode_max",
        ),
        (
            {"pooling": MODES | {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}},
            "got pooling_mode_mean_tokens, pooling_mode_max_tokens",
        ),
        ({"encoder": "0_Transformer"}, "must have the encoder in .*: it is in .*0_Transformer; copy its files there"),
        ({"sentence_bert_config": {"do_lower_case": True}}, "do_lower_case in .* must be false"),
        ({"config_sentence_transformers": {"default_prompt_name": "query"}}, "default_prompt_name in .* must be null"),
    ],
)
def test_steps_that_are_not_computed_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        read_sentence_config(write(tmp_path, **options))


def test_a_damaged_file(tmp_path):
    (tmp_path / "modules.json").write_text("[{")
    with pytest.raises(ValueError, match=r"modules.json is not JSON .* copy or download it again"):
        read_sentence_config(tmp_path)
