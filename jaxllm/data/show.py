"""What is in a data set, in words: its features, and its first records."""

import io
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from jaxllm.data.source import DataSet, open_builder


def feature_kinds(data_set: DataSet) -> list[str]:
    """The features and, where they are not text, what they hold: "label (2 classes: neg, pos)"."""
    return [f"{name}{_kind(feature)}" for name, feature in sorted(open_builder(data_set.folder).info.features.items())]


def _kind(feature: Any) -> str:
    if isinstance(feature, tfds.features.ClassLabel):
        names = ", ".join(feature.names[:10]) + (", ..." if len(feature.names) > 10 else "")
        return f" ({feature.num_classes} classes: {names})"
    if isinstance(feature, tfds.features.Image):
        return " (image)"
    return "" if isinstance(feature, tfds.features.Text) else f" ({type(feature).__name__})"


def shown_records(data_set: DataSet, split: str, count: int) -> Iterator[str]:
    """The first records of a split, a line each: the id, and the other features."""
    builder = open_builder(data_set.folder)
    features = builder.info.features
    images = [name for name, feature in features.items() if isinstance(feature, tfds.features.Image)]
    records = builder.as_data_source(split, decoders={name: tfds.decode.SkipDecoding() for name in images})
    for number in range(min(count, len(records))):
        record = records[number]
        name = _text(record.pop("id")) if "id" in record else f"{split} document {number}"
        many = len(record) > 1
        parts = [
            f"{key}: {_value(features[key], record[key])}" if many else _value(features[key], record[key]) for key in record
        ]
        yield f"{name}  " + "  ".join(parts)


def _value(feature: Any, value: Any) -> str:
    if isinstance(feature, tfds.features.ClassLabel):
        return feature.names[int(value)]
    if isinstance(feature, tfds.features.Image):
        import PIL.Image

        with PIL.Image.open(io.BytesIO(value)) as image:
            return f"{image.format} {image.width}x{image.height}"
    return _text(value).replace("\n", "⏎")


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
