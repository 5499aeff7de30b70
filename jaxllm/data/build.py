"""`jaxllm data build`: files to a TFDS data set, cleaned and split."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from jaxllm.data.clean import CleanConfig, CleanCounts, Cleaner
from jaxllm.data.readers import ReadConfig, Skipped, find_files, read_documents
from jaxllm.data.source import datasets_dir
from jaxllm.data.splits import SplitConfig, Spool, assign, with_fractions
from jaxllm.data.task_labels import label_names
from jaxllm.data.tfds_builder import TEXT, Features, Label, Record, check_new_name, write_set
from jaxllm.hardware.counted import counted


@dataclass(frozen=True)
class BuildReport:
    """What was built."""

    folder: Path
    splits: dict[str, tuple[int, int]]
    """Documents and characters of each split."""
    cleaning: CleanCounts
    skipped: Skipped = field(repr=False)
    fractions: dict[str, float] = field(default_factory=dict)
    """Share of the documents that validation and test were to get; without those that have files of their own."""


def build_text_set(
    name: str,
    sources: Sequence[str | Path],
    *,
    own_files: dict[str, Sequence[str | Path]] | None = None,
    data_dir: str | Path | None = None,
    read: ReadConfig | None = None,
    clean: CleanConfig | None = None,
    split: SplitConfig | None = None,
    labelled: bool = False,
    overwrite: bool = False,
) -> BuildReport:
    """Build the data set `name` from files and folders.

        build_text_set("stories", ["stories.txt"], read=ReadConfig(documents="blank-line"))
        build_text_set("captions", ["train.de.gz", "train.en.gz"], read=ReadConfig(column="de", second="en"))

    Args:
      own_files: Files of the validation or the test split; the fractions are taken from `sources`.
      labelled: `read.second` is the column of a label, not the second text of a pair.
    """
    read, clean, split = read or ReadConfig(), clean or CleanConfig(), split or SplitConfig()
    if labelled and read.second is None:
        raise ValueError("labelled=True needs read.second, the column that holds the label: got none")
    if read.second is not None and split.by == "characters":
        raise ValueError("pairs and labelled texts stay whole: split by documents, got by='characters'")
    target = datasets_dir(data_dir)
    check_new_name(name, target, overwrite=overwrite)
    own = {part: list(files) for part, files in (own_files or {}).items() if files}
    split = with_fractions(split, own)
    # Those for evaluation come first, so that it is the copy for training that is dropped as a duplicate.
    groups = {part: find_files(own[part]) for part in ("test", "validation") if part in own}
    groups["train"] = find_files(sources)
    skipped, cleaner = Skipped(), Cleaner(clean)
    with Spool() as spool:
        numbers: dict[str, np.ndarray] = {}
        for part, files in groups.items():
            first = len(spool)
            for document in cleaner.clean(read_documents(files, read, skipped)):
                spool.append(document)
            numbers[part] = np.arange(first, len(spool))
            if not len(numbers[part]):
                raise ValueError(_nothing_left(part, cleaner.counts, skipped))
        splits = assign(spool, numbers, split)
        sizes = {part: (len(documents), documents.num_characters) for part, documents in splits.items()}
        record = {"counts": cleaner.counts.as_dict(), "records_skipped": skipped.count}
        record |= {"read": asdict(read), "clean": asdict(clean), "split": asdict(split)}
        names = ", ".join(path.name for files in groups.values() for path in files)
        folder = write_set(
            name,
            splits,
            target,
            description=f"Text from {names}"[:500],
            features=_features(read, labelled, splits.values()),
            overwrite=overwrite,
            records={"cleaning.json": record},
        )
    asked = {"validation": split.validation_fraction, "test": split.test_fraction}
    fractions = {part: fraction for part, fraction in asked.items() if fraction}
    return BuildReport(folder, sizes, cleaner.counts, skipped, fractions)


def _features(read: ReadConfig, labelled: bool, splits: Iterable[Iterable[Record]]) -> Features:
    """Plain text and labelled text are under "text" (and "label"), pairs under the names of their columns."""
    if read.second is None:
        return TEXT
    if labelled:
        return {"id": None, "text": None, "label": Label(label_names({str(record[2]) for part in splits for record in part}))}
    return {"id": None, read.column or "text": None, read.second: None}


def _nothing_left(part: str, counts: CleanCounts, skipped: Skipped) -> str:
    removed = ", ".join(f"{c.step} {c.documents_removed:,}" for c in counts.steps.values() if c.documents_removed)
    skips = f"; {counted(skipped.count, 'record')} could not be read, first {skipped.examples[0]}" if skipped.count else ""
    return (
        f"no document is left for {part}: {counts.documents_read:,} were read and these steps removed them: "
        f"{removed or 'none'}{skips}; check the files and the cleaning options"
    )
