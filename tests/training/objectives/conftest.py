"""Small data sets of each kind, and a row for each objective: itself, its data, and a model that learns by it."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from jaxllm.data import Data, DataConfig, ImageData, ImageDataConfig, TokenizerConfig, open_data, open_images
from jaxllm.data.tfds_builder import Image, Label, write_set

WORDS = "the old sailor went down to the sea with a long rope and sang. nobody heard him but gulls! was it so? it was".split()


def story(number: int, count: int) -> str:
    random = np.random.default_rng(number)
    return " ".join(random.choice(WORDS, count))


STORIES = [story(i, 20 + 7 * (i % 9)) for i in range(60)]
PAIRS = [(story(i, 2 + i % 13), story(i + 1000, 1 + (i * 7) % 11)) for i in range(120)]


def picture(number: int) -> bytes:
    """An image of a size of its own, whose pixels are unlike those of any other."""
    random = np.random.default_rng(number)
    file = io.BytesIO()
    pixels = random.integers(0, 256, (8, 8 if number % 3 else 12, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    text = {"train": [(str(i), s) for i, s in enumerate(STORIES)], "validation": [("v", story(99, 200)), ("w", story(98, 33))]}
    write_set("stories", text, folder, description="")
    pairs = [(str(i), *pair) for i, pair in enumerate(PAIRS)]
    features = {"id": None, "here": None, "there": None}
    write_set("pairs", {"train": pairs[:100], "validation": pairs[100:]}, folder, description="", features=features)
    images = [(str(i), picture(i), "ab"[i % 2]) for i in range(50)]
    features = {"id": None, "image": Image(), "label": Label(("a", "b"))}
    write_set("pictures", {"train": images[:40], "validation": images[40:]}, folder, description="", features=features)
    return folder


@pytest.fixture
def open_set(sets: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Data]:
    """Opens one of the text sets; subwords unless told otherwise."""
    monkeypatch.setenv("JAXLLM_CACHE", str(sets / "cache"))

    def opened(dataset: str = "stories", *, seed: int = 0, **config: object) -> Data:
        settings = {"seq_len": 32, "test_split": None, "tokenizer": TokenizerConfig(kind="wordpiece", vocab_size=320)}
        if dataset == "pairs":
            settings |= {"text_feature": "here", "target_feature": "there"}
        return open_data(DataConfig(dataset=dataset, data_dir=str(sets), **(settings | config)), seed=seed)

    return opened


@pytest.fixture
def open_pictures(sets: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ImageData]:
    monkeypatch.setenv("JAXLLM_CACHE", str(sets / "cache"))

    def opened(*, seed: int = 0) -> ImageData:
        config = ImageDataConfig(dataset="pictures", image_size=8, data_dir=str(sets), test_split=None)
        return open_images(config, seed=seed)

    return opened
