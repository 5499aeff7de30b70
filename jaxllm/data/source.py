"""Finding and reading TFDS data sets: built by jaxllm, prepared elsewhere, or the one that ships with the package.

TensorFlow is never imported: the files must be ArrayRecord, which also gives random access.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core.constants import DATA_DIR

from jaxllm.data.fetch import fetch
from jaxllm.data.tfds_builder import DataSetExists, write_set
from jaxllm.hardware import cache_dir
from jaxllm.hardware.bucket import is_url
from jaxllm.hardware.counted import counted

SHIPPED = "tiny_shakespeare"
_ASSET = Path(__file__).parent / "assets" / "tiny_shakespeare.txt"


@dataclass(frozen=True)
class TextSplit:
    """The documents of one split, by number. Holds only names, so that worker processes open the files themselves."""

    folder: Path
    split: str
    text_feature: str

    def __reduce__(self) -> tuple[Any, ...]:
        return TextSplit, (self.folder, self.split, self.text_feature)

    @cached_property
    def _records(self) -> Any:
        return open_builder(self.folder).as_data_source(self.split)

    def __len__(self) -> int:
        return len(self._records)

    def texts(self, start: int, stop: int) -> list[str]:
        """The texts of documents `start` to `stop`."""
        return [_text(record[self.text_feature]) for record in self._records.__getitems__(list(range(start, stop)))]

    def document_id(self, number: int) -> str:
        """Where a document came from, when the set says so, else its number in the split."""
        record = self._records[number]
        return _text(record["id"]) if "id" in record else f"{self.split} document {number}"

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), 1000):
            yield from self.texts(start, min(start + 1000, len(self)))

    @cached_property
    def fingerprint(self) -> str:
        """Changes when the files of the set, the split or the feature do."""
        return files_fingerprint(self.folder, self.split, self.text_feature)


@dataclass(frozen=True)
class DataSet:
    """A prepared TFDS set."""

    folder: Path
    sizes: dict[str, int]
    """Documents, or images, of each split."""
    features: tuple[str, ...]
    """Names of all features."""

    def check(self, split: str) -> str:
        """The name again, of a split or a TFDS slice of one such as "train[:99%]", once it is known to hold something."""
        there = ", ".join(f"{name} ({counted(size, 'document')})" for name, size in self.sizes.items())
        count = self._num_documents(split)
        if count is None:
            raise ValueError(
                f"the data set in {self.folder} has no split {split!r}: it has {there}; name one of these, or a slice such "
                'as "train[:99%]"'
            )
        if count == 0:
            raise ValueError(
                f"the split {split!r} of the data set in {self.folder} must have a document: it has none, of {there}; "
                "choose another split or a larger slice"
            )
        return split

    def has_split(self, split: str) -> bool:
        """Whether there is a split of this name, or the name is a TFDS slice of one."""
        return self._num_documents(split) is not None

    def test_split(self, wanted: str | None) -> str | None:
        """ "test", the default, may be missing; another name was chosen by someone, who wants to know."""
        return None if wanted == "test" and not self.has_split("test") else wanted

    def require(self, feature: str, field: str) -> None:
        """Refuse a feature that the set has not."""
        if feature not in self.features:
            raise ValueError(
                f"the data set in {self.folder} has no feature {feature!r}: it has {', '.join(self.features)}; choose "
                f"with {field}"
            )

    def holds_classes(self, feature: str) -> bool:
        """Whether a feature is a class, or a list of them."""
        return isinstance(self._each(feature), tfds.features.ClassLabel)

    def label_names(self, feature: str) -> tuple[str, ...]:
        """The names of the classes that a feature holds, one or a list of them."""
        labels = self._each(feature)
        if not isinstance(labels, tfds.features.ClassLabel):
            raise ValueError(
                f"the feature {feature!r} of the data set in {self.folder} must be a ClassLabel: it is "
                f"{type(labels).__name__}; choose the feature with the class, or build the set with `jaxllm data build`"
            )
        return tuple(labels.names)

    def _each(self, feature: str) -> Any:
        """What a feature holds, one or a list of them."""
        kind = open_builder(self.folder).info.features[feature]
        return kind.feature if isinstance(kind, tfds.features.Sequence) else kind

    def _num_documents(self, split: str) -> int | None:
        """None where there is no such split."""
        if split in self.sizes:
            return self.sizes[split]
        try:
            return open_builder(self.folder).info.splits[split].num_examples
        except (KeyError, ValueError, AssertionError):  # TFDS, of a name that is not there or a slice it cannot read
            return None


@dataclass(frozen=True)
class TextSet(DataSet):
    """A prepared TFDS set with a text feature."""

    text_feature: str

    def open(self, split: str) -> TextSplit:
        """A split by its name, or a TFDS slice of one such as "train[:99%]"."""
        return TextSplit(self.folder, self.check(split), self.text_feature)


def files_fingerprint(folder: Path, *names: str) -> str:
    """Changes when the files in a folder, by size and time, or the names do."""
    digest = hashlib.sha256("".join(f"{part}\n" for part in (folder.resolve(), *names)).encode())
    for path in sorted(folder.iterdir()):
        state = path.stat()
        digest.update(f"{path.name} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:24]


def datasets_dir(data_dir: str | Path | None) -> Path:
    """Where named data sets are on this host: the argument, else $JAXLLM_DATA, else `datasets` in the cache folder."""
    named = data_dir or os.environ.get("JAXLLM_DATA")
    return Path(named).expanduser() if named and not is_url(str(named)) else cache_dir() / "datasets"


def find_text_set(dataset: str, *, data_dir: str | Path | None = None, text_feature: str = "text") -> TextSet:
    """Find a data set by folder or by name; the shipped one is built on first use."""
    found = find_set(dataset, data_dir=data_dir)
    found.require(text_feature, "text_feature")
    return TextSet(found.folder, found.sizes, found.features, text_feature)


def find_set(dataset: str, *, data_dir: str | Path | None = None) -> DataSet:
    """Find a data set of any kind by folder or by name."""
    folder = _folder_of(dataset, data_dir)
    builder = open_builder(folder)
    formats = [getattr(f, "value", str(f)) for f in builder.info.available_file_formats()]
    if "array_record" not in formats:
        raise ValueError(
            f"the data set in {folder} must be written as array_record to be read without TensorFlow: it is "
            f"{', '.join(formats)}; prepare it again with `tfds build --file_format=array_record`"
        )
    sizes = {name: info.num_examples for name, info in builder.info.splits.items()}
    return DataSet(folder, sizes, tuple(sorted(builder.info.features)))


def url_of(dataset: str, data_dir: str | Path | None = None) -> str | None:
    """Where in a bucket a data set is, if it is in one."""
    if is_url(dataset):
        return dataset
    given = str(data_dir or os.environ.get("JAXLLM_DATA", ""))
    if is_url(given) and dataset != SHIPPED and not Path(dataset).expanduser().is_absolute():
        return f"{given.rstrip('/')}/{dataset.replace(':', '/')}"
    return None


def _folder_of(dataset: str, data_dir: str | Path | None) -> Path:
    if (url := url_of(dataset, data_dir)) is not None:
        return _prepared_folder(fetch(url), dataset)
    named_dir, path = datasets_dir(data_dir), Path(dataset).expanduser()
    if path.is_absolute() or dataset.startswith(".") or "~" in dataset:
        if not path.is_dir():
            raise FileNotFoundError(f"expected a prepared TFDS data set in {path}: there is no such folder")
        return _prepared_folder(path, dataset)
    name, _, version = dataset.partition(":")
    for place in (named_dir, Path(DATA_DIR).expanduser()):
        if (place / name / version).is_dir():
            return _prepared_folder(place / name / version, dataset)
    if path.is_dir():
        return _prepared_folder(path, dataset)
    if dataset == SHIPPED:
        return _build_shipped(named_dir)
    return _prepare_published(dataset, named_dir)


def _prepared_folder(path: Path, dataset: str) -> Path:
    """The folder with `dataset_info.json`: the path itself, or the newest version (and only config) below it."""
    if (path / "dataset_info.json").is_file():
        return path
    found = [p.parent for p in (*path.glob("*/dataset_info.json"), *path.glob("*/*/dataset_info.json"))]
    if not found:
        raise FileNotFoundError(
            f"expected a prepared TFDS data set (dataset_info.json) for {dataset!r} in {path}: found none; make one from text "
            "files with `jaxllm data build NAME FILES`"
        )
    configs = {p.parent for p in found}
    if len(configs) > 1:
        there = ", ".join(sorted(str(p.relative_to(path)) for p in found))
        raise ValueError(f"{path} holds several data sets: {there}; name one of them")
    return max(found, key=lambda p: [int(part) if part.isdigit() else -1 for part in p.name.split(".")])


def _build_shipped(named_dir: Path) -> Path:
    """The first 90 % of the characters to train on, the last 10 % to validate, as in nanoGPT: one document each."""
    text = _ASSET.read_text("utf-8")
    cut = int(0.9 * len(text))
    splits = {"train": [(f"{SHIPPED}:train", text[:cut])], "validation": [(f"{SHIPPED}:validation", text[cut:])]}
    description = "About 40,000 lines of Shakespeare's plays; the first 90 % of the characters are for training."
    try:
        return write_set(SHIPPED, splits, named_dir, description=description)
    except DataSetExists:  # another process built it at the same moment
        return _prepared_folder(named_dir / SHIPPED, SHIPPED)


def _prepare_published(dataset: str, named_dir: Path) -> Path:
    """Prepare a data set that TFDS knows by name, as ArrayRecord; may download."""
    try:
        builder = tfds.builder(dataset, data_dir=str(named_dir), file_format="array_record")
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as error:
        there = ", ".join(list_names(named_dir)) or "none yet"
        raise ValueError(
            f"found no data set {dataset!r}: it is neither a folder, nor in {named_dir} (there: {there}; and {SHIPPED} ships "
            "with the package), nor a name that TFDS knows; make one from text files with "
            f"`jaxllm data build {dataset.partition(':')[0]} FILES`"
        ) from error
    tfds.disable_progress_bar()
    builder.download_and_prepare()
    return Path(builder.data_dir)


def list_names(named_dir: Path) -> list[str]:
    """Names of the data sets in a folder."""
    if not named_dir.is_dir():
        return []
    return sorted(p.name for p in named_dir.iterdir() if not p.name.startswith(".") and any(p.rglob("dataset_info.json")))


def open_builder(folder: Path) -> Any:
    try:
        return tfds.builder_from_directory(str(folder))
    except Exception as error:  # a damaged folder shows as many kinds of error
        raise ValueError(
            f"{folder} is not a TFDS data set that can be read ({type(error).__name__}: {error}); build it again"
        ) from error


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
