"""Writing records as a TFDS data set in ArrayRecord files, in one move and without TensorFlow."""

import contextlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

VERSION = "1.0.0"
Document = tuple[str, ...]
"""The id of a document, which says where it came from, and its text; of pairs and labelled texts also the second."""
Record = tuple[Any, ...]
"""The same, with an encoded image where a text may stand, or what else a feature takes."""


@dataclass(frozen=True)
class Image:
    """A feature that holds an encoded image."""


@dataclass(frozen=True)
class Label:
    """A feature that holds one of some names."""

    names: tuple[str, ...]


Features = Mapping[str, Image | Label | tfds.features.FeatureConnector | None]
"""What each field of a record is, in order: None is text; others are features as TFDS has them."""
TEXT: Features = {"id": None, "text": None}


class RecordBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS builder whose name, features and splits are given when it is made; records keep the order they come in."""

    VERSION = tfds.core.Version(VERSION)

    def __init__(
        self, *, name: str, description: str, features: Features, splits: Mapping[str, Iterable[Record]], data_dir: str
    ):
        self.name = name  # pyright: ignore[reportAttributeAccessIssue]  # TFDS takes it from the class otherwise
        self._description = description
        self._features = features
        self._splits = splits
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {name: _feature(kind) for name, kind in self._features.items()}
        return tfds.core.DatasetInfo(
            builder=self,
            description=self._description,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {split: self._generate_examples(records) for split, records in self._splits.items()}

    def _generate_examples(self, records: Iterable[Record]) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, record in enumerate(records):
            values = zip(self._features.items(), record, strict=True)
            yield number, {name: io.BytesIO(value) if isinstance(value, bytes) else value for (name, _), value in values}


def _feature(kind: Image | Label | tfds.features.FeatureConnector | None) -> Any:
    match kind:
        case tfds.features.FeatureConnector():
            return kind
        case Image():
            return tfds.features.Image(shape=(None, None, 3))
        case Label(names):
            return tfds.features.ClassLabel(names=list(names))
        case _:
            return tfds.features.Text()


def write_set(
    name: str,
    splits: Mapping[str, Iterable[Record]],
    data_dir: Path,
    *,
    description: str,
    features: Features = TEXT,
    overwrite: bool = False,
    records: Mapping[str, Any] | None = None,
) -> Path:
    """Write a data set to `data_dir/name/1.0.0` and return that folder.

    Everything is written to a hidden folder beside it that takes its name at the end: whoever looks sees the whole set or
    none, and an error leaves what was there before.

    Args:
      records: JSON values to keep beside the data, by file name.
    """
    check_new_name(name, data_dir, overwrite=overwrite)
    data_dir.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{name}.building-", dir=data_dir))
    try:
        builder = RecordBuilder(name=name, description=description, features=features, splits=splits, data_dir=str(work))
        _prepare(builder)
        for file, value in (records or {}).items():
            (work / name / VERSION / file).write_text(json.dumps(value, indent=1, ensure_ascii=False), "utf-8")
        if overwrite and (data_dir / name).exists():
            os.rename(data_dir / name, work / "earlier")
        try:
            os.rename(work / name, data_dir / name)
        except OSError as error:
            if (data_dir / name).exists():
                raise _exists(name, data_dir) from error
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return data_dir / name / VERSION


def check_new_name(name: str, data_dir: Path, *, overwrite: bool) -> None:
    """Refuse a name that TFDS cannot take, or that a data set in the folder already has."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(
            f"a data set's name is made of small letters, digits and _, beginning with a letter: got {name!r}; "
            f"try {re.sub(r'[^a-z0-9]+', '_', name.lower()).strip('_') or 'my_text'!r}"
        )
    if (data_dir / name).exists() and not overwrite:
        raise _exists(name, data_dir)


class DataSetExists(FileExistsError, ValueError):
    """The name is taken."""


def _exists(name: str, data_dir: Path) -> DataSetExists:
    return DataSetExists(f"the data set {name} is already in {data_dir}; choose another name, or replace it with --overwrite")


def _prepare(builder: RecordBuilder) -> None:
    """`download_and_prepare` without its own printing and progress bars."""
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare()
