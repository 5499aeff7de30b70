"""What is in a data set, in words: its features, and its first records."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxllm.data.source import DataSet, open_builder

_COUNTED_RECORDS = 200_000


def feature_kinds(data_set: DataSet) -> list[str]:
    """The features and, where they are not text, what they hold: "label (2 classes: neg, pos)"."""
    return [f"{name}{_kind(feature)}" for name, feature in sorted(open_builder(data_set.folder).info.features.items())]


def _kind(feature: Any) -> str:
    if isinstance(feature, tfds.features.ClassLabel):
        names = ", ".join(feature.names[:10]) + (", ..." if len(feature.names) > 10 else "")
        return f" ({feature.num_classes} classes: {names})"
    if isinstance(feature, tfds.features.Image):
        return " (image)"
    if isinstance(feature, tfds.features.Sequence):
        return f" (list{_kind(feature.feature)})"
    if isinstance(feature, tfds.features.Scalar):
        return " (number)"
    if isinstance(feature, tfds.features.FeaturesDict):
        return f" ({', '.join(feature)})"
    return "" if isinstance(feature, tfds.features.Text) else f" ({type(feature).__name__})"


def label_counts(data_set: DataSet) -> dict[str, dict[str, int]]:
    """How often each label stands in each split, of the first feature that holds classes; empty where none does, or where
    there are too many records to look at."""
    builder = open_builder(data_set.folder)
    features = builder.info.features
    found = [name for name, kind in sorted(features.items()) if isinstance(_classes(kind), tfds.features.ClassLabel)]
    if not found or sum(data_set.sizes.values()) > _COUNTED_RECORDS:
        return {}
    names = _classes(features[found[0]]).names
    counts: dict[str, dict[str, int]] = {}
    for split in data_set.sizes:
        total = np.zeros(len(names), np.int64)
        for record in _records(builder, split):
            labels = np.atleast_1d(np.asarray(record[found[0]], np.int64))
            total += np.bincount(labels[labels >= 0], minlength=len(names))
        counts[split] = dict(zip(names, total.tolist(), strict=True))
    return counts


def _classes(feature: Any) -> Any:
    return feature.feature if isinstance(feature, tfds.features.Sequence) else feature


def shown_records(data_set: DataSet, split: str, count: int) -> Iterator[tuple[str, list[str]]]:
    """The first records of a split: the id of each, and its other features with their names where there are several."""
    builder = open_builder(data_set.folder)
    features = builder.info.features
    records = _records(builder, split)
    for number in range(min(count, len(records))):
        record = records[number]
        name = _text(record.pop("id")) if "id" in record else f"{split} document {number}"
        many = len(record) > 1
        parts = [
            f"{key}: {_value(features[key], record[key])}" if many else _value(features[key], record[key]) for key in record
        ]
        yield name, parts


def _records(builder: Any, split: str) -> Any:
    """The records of a split, images as they are in the file."""
    images = [name for name, feature in builder.info.features.items() if isinstance(feature, tfds.features.Image)]
    return builder.as_data_source(split, decoders={name: tfds.decode.SkipDecoding() for name in images})


def _value(feature: Any, value: Any) -> str:
    if isinstance(feature, tfds.features.ClassLabel):
        return feature.names[int(value)]
    if isinstance(feature, tfds.features.Image):
        import PIL.Image

        with PIL.Image.open(io.BytesIO(value)) as image:
            return f"{image.format} {image.width}x{image.height}"
    if isinstance(feature, tfds.features.Sequence):
        return " ".join(_value(feature.feature, each) for each in value)
    if isinstance(feature, tfds.features.FeaturesDict):
        return "  ".join(f"{key}: {_value(feature[key], value[key])}" for key in value)
    return f"{value:g}" if isinstance(value, float) else _text(value).replace("\n", "⏎")


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
