"""Each test has its own cache and data folder, and can write a small data set of its own."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from jaxllm.data import Data, DataConfig, TokenizerConfig, open_data
from jaxllm.data.tfds_builder import write_set


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JAXLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("JAXLLM_DATA", raising=False)
    return tmp_path / "cache"


def unchecked(config: type, **fields: object) -> object:
    """A config as the command line builds it, without the type checks that tests add to `__init__`."""
    value = object.__new__(config)
    for field in dataclasses.fields(config):
        object.__setattr__(value, field.name, fields.get(field.name, field.default))
    value.__post_init__()
    return value


@pytest.fixture
def open_texts(tmp_path: Path) -> Callable[..., Data]:
    """Writes texts as a data set and opens it; bytes as tokens unless told otherwise."""

    def opened(texts: list[str], *, validation: list[str] | None = None, seed: int = 0, **config: object) -> Data:
        splits = {"train": [(f"train:{i}", text) for i, text in enumerate(texts)]}
        splits["validation"] = [(f"validation:{i}", text) for i, text in enumerate(validation or ["what else"])]
        write_set("texts", splits, tmp_path, description="test", overwrite=True)
        settings = {"seq_len": 16, "tokenizer": TokenizerConfig(kind="bytes")} | config
        return open_data(DataConfig(dataset="texts", data_dir=str(tmp_path), **settings), seed=seed)

    return opened
