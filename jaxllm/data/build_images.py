"""`jaxllm data build --images`: folders or archives of class folders to a TFDS data set of labelled images."""

import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from jaxllm.data.build import BuildReport
from jaxllm.data.clean import CleanCounts
from jaxllm.data.image_input import decode
from jaxllm.data.readers import Skipped
from jaxllm.data.source import datasets_dir
from jaxllm.data.splits import SplitConfig, Spool, assign, with_fractions
from jaxllm.data.task_labels import label_names
from jaxllm.data.tfds_builder import Image, Label, Record, check_new_name, write_set

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")
ARCHIVE_ENDINGS = (".tar", ".tar.gz", ".tgz", ".zip")


def build_image_set(
    name: str,
    sources: Sequence[str | Path],
    *,
    own_files: dict[str, Sequence[str | Path]] | None = None,
    data_dir: str | Path | None = None,
    split: SplitConfig | None = None,
    on_error: Literal["stop", "skip"] = "stop",
    overwrite: bool = False,
) -> BuildReport:
    """Build the data set `name` from folders, or archives of folders, of JPEG and PNG files; they are kept as they are.

    The folder that a file lies in is its class: `cifar10/train/airplane/0001.jpg` is an airplane.

        build_image_set("cifar10", ["train.tar.gz"], own_files={"test": ["test.tar.gz"]})
    """
    split = split or SplitConfig()
    if split.by == "characters":
        raise ValueError("images stay whole: split by documents, got by='characters'")
    target = datasets_dir(data_dir)
    check_new_name(name, target, overwrite=overwrite)
    own = {part: list(files) for part, files in (own_files or {}).items() if files}
    split = with_fractions(split, own)
    groups = {"train": list(sources)} | own
    skipped = Skipped()
    with Spool() as spool:
        numbers: dict[str, np.ndarray] = {}
        labels: set[str] = set()
        for part, paths in groups.items():
            first = len(spool)
            for record in _read(paths, on_error, skipped):
                spool.append(record)
                labels.add(str(record[2]))
            numbers[part] = np.arange(first, len(spool))
            if not len(numbers[part]):
                raise ValueError(f"no image is left for {part}: found none that can be read in {', '.join(map(str, paths))}")
        splits = assign(spool, numbers, split)
        sizes = {part: (len(images), images.num_characters) for part, images in splits.items()}
        folder = write_set(
            name,
            splits,
            target,
            description=f"Images from {', '.join(Path(p).name for paths in groups.values() for p in paths)}"[:500],
            features={"id": None, "image": Image(), "label": Label(label_names(labels))},
            overwrite=overwrite,
            records={"build.json": {"records_skipped": skipped.count, "split": asdict(split)}},
        )
    return BuildReport(folder, sizes, CleanCounts(len(spool), len(spool), 0, {}), skipped)


def _read(paths: Sequence[str | Path], on_error: Literal["stop", "skip"], skipped: Skipped) -> Iterator[Record]:
    """Name, encoded image and class of each file, those of a folder in the order of their names."""
    for path in map(Path, paths):
        for name, data in _files(path):
            place = PurePosixPath(name)
            problem = _problem(data) if place.parent.name else "it lies in no folder that could name its class"
            if problem is None:
                yield name, data, place.parent.name
                continue
            message = f"{path}, {name}: expected a JPEG or PNG image in a folder named by its class: {problem}"
            if on_error == "stop":
                raise ValueError(f"{message}; take the file away, or leave such files out with --on-error skip")
            skipped.add(message)


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_ENDINGS):
            yield f"{path.name}/{file.relative_to(path).as_posix()}", file.read_bytes()
    elif not path.is_file():
        raise FileNotFoundError(f"expected a folder or an archive at {path}: there is nothing there; check the path")
    elif not path.name.lower().endswith(ARCHIVE_ENDINGS):
        raise ValueError(f"{path} must be a folder of class folders, or one in {', '.join(ARCHIVE_ENDINGS)}: it is neither")
    else:
        try:
            yield from _zipped(path) if path.suffix.lower() == ".zip" else _tarred(path)
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
            raise ValueError(f"{path} is not an archive that can be read: {error}") from error


def _zipped(path: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for name in sorted(n for n in archive.namelist() if n.lower().endswith(IMAGE_ENDINGS)):
            yield name, archive.read(name)


def _tarred(path: Path) -> Iterator[tuple[str, bytes]]:
    """In the archive's own order, in which alone a compressed one is read once."""
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.lower().endswith(IMAGE_ENDINGS) else None
            if file is not None:
                yield member.name.removeprefix("./"), file.read()


def _problem(data: bytes) -> str | None:
    """What is wrong with an image file."""
    try:
        decode(data, ("JPEG", "PNG"))
    except ValueError as error:
        return str(error)
    return None
