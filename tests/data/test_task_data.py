"""Opened sets of tasks: records by number, few of them, and sets that others prepared."""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxllm.data import TaskDataConfig, TokenizerConfig, open_task_data
from jaxllm.data.tfds_builder import Label, write_set
from tests.data.conftest import unchecked


@pytest.fixture
def reviews(tmp_path: Path) -> TaskDataConfig:
    """60 sentences, 6 of them positive."""
    features = {"idx": tfds.features.Scalar(np.int32), "sentence": None, "label": Label(("neg", "pos"))}
    splits = {"train": [(i, f"sentence {i}", int(i % 10 == 3)) for i in range(60)], "validation": [(0, "sentence", 0)]}
    write_set("reviews", splits, tmp_path, description="test", features=features)
    return TaskDataConfig(dataset="reviews", data_dir=str(tmp_path), seq_len=8, text_feature="sentence")


def test_records_are_plain_values(reviews: TaskDataConfig):
    data = open_task_data(reviews, seed=0)
    records = data.records("train")
    assert records[3] == {"idx": 3, "sentence": "sentence 3", "label": 1} and type(records[3]["label"]) is int
    assert len(records) == 60 and list(records)[7] == records[7]
    assert records.describe(7) == "train record 7"
    again = pickle.loads(pickle.dumps(records))
    assert again.fingerprint == records.fingerprint and again[59] == records[59]
    assert data.records("train[:10]").fingerprint != records.fingerprint and len(data.records("train[:10]")) == 10
    with pytest.raises(IndexError, match="train has the records 0 to 59: got 60"):
        records[60]
    assert data.test_split is None and data.has_split("validation") and not data.has_split("dev")
    assert data.label_names("label") == ("neg", "pos")


def test_lists_and_dicts(tmp_path: Path):
    features = {
        "id": None,
        "tokens": tfds.features.Sequence(tfds.features.Text()),
        "tags": tfds.features.Sequence(tfds.features.ClassLabel(names=["B", "O"])),
        "answers": tfds.features.Sequence({"text": tfds.features.Text(), "start": np.int32}),
        "score": tfds.features.Scalar(np.float32),
    }
    record = ("a:1", ["月", "b"], ["O", "B"], {"text": ["b"], "start": [2]}, 0.5)
    write_set("tags", {"train": [record]}, tmp_path, description="test", features=features)
    config = TaskDataConfig(dataset="tags", data_dir=str(tmp_path), seq_len=8, validation_split=None)
    data = open_task_data(config, seed=0)
    assert data.records("train")[0] == {
        "id": "a:1",
        "tokens": ["月", "b"],
        "tags": [1, 0],
        "answers": {"text": ["b"], "start": [2]},
        "score": 0.5,
    }
    assert data.records("train").describe(0) == "a:1" and data.label_names("tags") == ("B", "O")


def test_few_examples_of_each_class(reviews: TaskDataConfig):
    def few(count: int, seed: int = 0):
        config = TaskDataConfig(**{**vars(reviews), "examples": count})
        return open_task_data(config, seed=seed).records("train")

    records = few(8)
    assert Counter(record["label"] for record in records) == {0: 4, 1: 4}
    numbers = [record["idx"] for record in records]
    assert numbers == sorted(set(numbers)) and numbers == [record["idx"] for record in few(8)]
    assert numbers != [record["idx"] for record in few(8, seed=1)] and few(8).fingerprint != few(8, seed=1).fingerprint
    assert Counter(record["label"] for record in few(20)) == {0: 14, 1: 6}  # a class that has no more
    assert records.describe(0) == f"train record {numbers[0]}" and pickle.loads(pickle.dumps(records))[2] == records[2]
    data = open_task_data(TaskDataConfig(**{**vars(reviews), "examples": 8}), seed=0)
    assert len(data.records("validation")) == 1  # only the training split is cut
    with pytest.raises(ValueError, match="data.examples must be at most the 60 examples of 'train': got 61; leave it out"):
        few(61)


def test_a_tokenizer_of_its_own(reviews: TaskDataConfig):
    config = TaskDataConfig(**{**vars(reviews), "tokenizer": TokenizerConfig(kind="characters")})
    tokenizer = open_task_data(config, seed=0).tokenizer
    assert tokenizer.decode(tokenizer.encode("sentence 59")) == "sentence 59"
    assert open_task_data(reviews, seed=0, tokenizer=tokenizer).tokenizer is tokenizer


def test_errors(reviews: TaskDataConfig):
    data = open_task_data(reviews, seed=0)
    with pytest.raises(ValueError, match="has no feature 'text': it has idx, label, sentence; choose with data.text_feature"):
        data.require("text", "data.text_feature")
    with pytest.raises(ValueError, match="has no split 'dev'"):
        data.records("dev")
    with pytest.raises(ValueError, match="has no split 'dev'"):
        open_task_data(TaskDataConfig(**{**vars(reviews), "validation_split": "dev"}), seed=0)
    with pytest.raises(ValueError, match="'sentence' .* must be a ClassLabel: it is Text"):
        data.label_names("sentence")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seq_len": 0}, "seq_len must be 1 or more: got 0"),
        ({"examples": 0}, "examples must be 1 or more: got 0"),
        ({"too_long": "cut"}, "too_long must be truncate, drop or refuse: got 'cut'"),
        ({"pair_feature": "text"}, "pair_feature must be another feature than text_feature: got 'text' for both"),
        ({"label_feature": ""}, "label_feature must not be empty"),
        ({"dataset": ""}, "dataset must name a data set"),
    ],
)
def test_impossible_configs(fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        unchecked(TaskDataConfig, **({"dataset": "a", "seq_len": 8} | fields))
