"""Labelled images as rows: decoded once, brought to one size, kept on disk, found by global position."""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int32, Int64, UInt8

from jaxllm.data.config import ImageDataConfig
from jaxllm.data.image_input import ImageInput, fit_image, open_image
from jaxllm.data.rows import Batch
from jaxllm.data.shuffle import epoch_order
from jaxllm.data.source import DataSet, files_fingerprint, find_set, open_builder
from jaxllm.data.whole import write_whole
from jaxllm.distributed import beat
from jaxllm.hardware import cache_dir

_LAYOUT = 3
_SAY_FROM = 100_000


@dataclass(frozen=True)
class ImageTable:
    """The images of a split on disk, mapped into memory when first used."""

    folder: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return ImageTable, (self.folder,)

    @cached_property
    def images(self) -> UInt8[np.ndarray, "images size size 3"]:
        return np.asarray(np.load(self.folder / "images.npy", mmap_mode="r"))

    @cached_property
    def labels(self) -> Int32[np.ndarray, " images"]:
        return np.load(self.folder / "labels.npy")

    @cached_property
    def fingerprint(self) -> str:
        """The same for two tables exactly when they hold the same images and labels."""
        return json.loads((self.folder / "meta.json").read_text("utf-8"))["fingerprint"]


@dataclass(frozen=True)
class ImageSource:
    """Images of a split by global position: each once an epoch, in an order of its own."""

    table: ImageTable
    data_set: DataSet
    split: str
    seed: int | None = None
    image_feature: str = "image"

    def __reduce__(self) -> tuple[Any, ...]:
        return ImageSource, tuple(getattr(self, field.name) for field in dataclasses.fields(self))

    def for_evaluation(self) -> "ImageSource":
        return dataclasses.replace(self, seed=None)

    @property
    def rows_per_epoch(self) -> int:
        return len(self.table.labels)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.table.fingerprint} {self.seed}".encode()).hexdigest()[:24]

    def rows(self, positions: Int64[np.ndarray, " B"]) -> Batch:
        """`images` [B, size, size, 3] (uint8), `labels` (int32) and `loss_weights` (float32) [B]."""
        rows, _ = epoch_order(positions, self.rows_per_epoch, self.seed)
        return {
            "images": self.table.images[rows],
            "labels": self.table.labels[rows],
            "loss_weights": np.ones(len(rows), np.float32),
        }

    def describe(self, position: int) -> list[str]:
        (row,), _ = epoch_order(np.array([position]), self.rows_per_epoch, self.seed)
        record = _records(self.data_set.folder, self.split, self.image_feature)[int(row)]
        return [_name(record) or f"{self.split} image {row}"]


@dataclass(frozen=True)
class ImageData:
    """An opened set of labelled images."""

    config: ImageDataConfig
    seed: int
    data_set: DataSet

    @cached_property
    def label_names(self) -> tuple[str, ...]:
        return self.data_set.label_names(self.config.label_feature)

    @property
    def test_split(self) -> str | None:
        """The split for the final figure; None where the config names none, or "test" and the set has no such split."""
        return self.data_set.test_split(self.config.test_split)

    def has_split(self, split: str) -> bool:
        """Whether there is a split of this name, or the name is a TFDS slice of one."""
        return self.data_set.has_split(split)

    def rows(self, split: str, *, seed: int | None = None) -> ImageSource:
        """The images of any split; in its own order without a seed."""
        config = self.config
        table = decode_split(self.data_set, self.data_set.check(split), config)
        return ImageSource(table, self.data_set, split, seed, config.image_feature)


def open_images(config: ImageDataConfig, *, seed: int) -> ImageData:
    """Open the images that `config` describes.

    data = open_images(ImageDataConfig(dataset="cifar10", image_size=32), seed=0)
    data.label_names, data.rows("train", seed=0).rows(np.arange(4))["images"].shape
    """
    data_set = find_set(config.dataset, data_dir=config.data_dir)
    for feature, field in ((config.image_feature, "data.image_feature"), (config.label_feature, "data.label_feature")):
        data_set.require(feature, field)
    for split in (config.train_split, config.validation_split, data_set.test_split(config.test_split)):
        if split:
            data_set.check(split)
    return ImageData(config, seed, data_set)


def decode_split(data_set: DataSet, split: str, config: ImageDataConfig) -> ImageTable:
    """The images of a split, from the cache or decoded now."""
    files = files_fingerprint(data_set.folder, split, config.image_feature, config.label_feature)
    name = hashlib.sha256(f"{_LAYOUT} {files} {config.image_size}".encode()).hexdigest()[:24]
    folder = cache_dir() / "images" / name
    if not folder.is_dir():
        write_whole(folder, lambda work: _write(data_set, split, config, work))
    return ImageTable(folder)


def _write(data_set: DataSet, split: str, config: ImageDataConfig, folder: Path) -> None:
    records = _records(data_set.folder, split, config.image_feature)
    if len(records) >= _SAY_FROM:
        print(f"decoding the {len(records):,} images of {split}, once for all runs", file=sys.stderr, flush=True)
    size = config.image_size
    digest = hashlib.sha256()
    labels = np.zeros(len(records), np.int32)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (len(records), size, size, 3))
    how, classes = table_input(size), len(data_set.label_names(config.label_feature))
    for number, record in enumerate(_each(records)):
        beat(0, "decoding the images", long=True)
        name = "" if _name(record) is None else f" ({_name(record)})"
        place = f"image {number}{name} of {split} in {data_set.folder}"
        label = int(record[config.label_feature])
        if not 0 <= label < classes:
            raise ValueError(
                f"the label of {place} must be one of the {classes} classes, 0..{classes - 1}: got {label}; take it out, or "
                "name a split with labels"
            )
        try:
            images[number] = fit_image(open_image(record[config.image_feature], name=place), how)
        except ValueError as error:
            raise ValueError(f"{error}; build the set again") from error
        labels[number] = label
        digest.update(images[number].tobytes())
    images.flush()
    digest.update(labels.astype("<i4").tobytes())
    np.save(folder / "labels.npy", labels)
    meta = {"data_set": str(data_set.folder), "split": split, "images": len(records), "fingerprint": digest.hexdigest()}
    (folder / "meta.json").write_text(json.dumps(meta, indent=1), "utf-8")


def table_input(size: int) -> ImageInput:
    """How the pictures of a set are brought to one size: the shorter side to it, and the middle of the longer one. Pixels stay
    bytes."""
    return ImageInput(
        shorter_side=size, crop=(size, size), resample="bicubic", scale=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )


def _name(record: dict[str, Any]) -> str | None:
    name = record.get("id")
    return name.decode("utf-8") if isinstance(name, bytes) else None if name is None else str(name)


def _records(folder: Path, split: str, image_feature: str) -> Any:
    """The records of a split with their images still encoded."""
    return open_builder(folder).as_data_source(split, decoders={image_feature: tfds.decode.SkipDecoding()})


def _each(records: Any) -> Iterator[dict[str, Any]]:
    for start in range(0, len(records), 1000):
        yield from records.__getitems__(list(range(start, min(start + 1000, len(records)))))
