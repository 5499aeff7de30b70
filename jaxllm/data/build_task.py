"""`jaxllm data build --task`: files to a TFDS data set of examples of a task, checked and split."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxllm.data.readers import Skipped, find_files
from jaxllm.data.source import datasets_dir
from jaxllm.data.splits import Part, SplitConfig, Spool, assign, with_fractions
from jaxllm.data.task_files import TaskRead, TaskReader
from jaxllm.data.task_rows import features_of
from jaxllm.data.tfds_builder import check_new_name, write_set

WITH_CLASSES = ("classification", "tokens", "pairs")
"""Tasks whose examples may have classes."""


@dataclass(frozen=True)
class TaskReport:
    """What was built."""

    folder: Path
    sizes: dict[str, int]
    """Examples of each split."""
    labels: dict[str, dict[str, int]]
    """How often each label stands in each split; empty where the task has none."""
    answers_moved: int
    """Answers that stand elsewhere in their context than the file says."""
    skipped: Skipped = field(repr=False)

    def warnings(self) -> list[str]:
        """A class that a split is without."""
        return [
            f"{part} has no example of {', '.join(missing)}; take more rows for it, or another --seed"
            for part, counts in self.labels.items()
            if (missing := [name for name, count in counts.items() if not count])
        ]


def build_task_set(
    name: str,
    sources: Sequence[str | Path],
    *,
    read: TaskRead,
    own_files: dict[str, Sequence[str | Path]] | None = None,
    data_dir: str | Path | None = None,
    split: SplitConfig | None = None,
    overwrite: bool = False,
) -> TaskReport:
    """Build the data set `name` of a task from files.

        columns = {"text": "sentence", "label": "polarity"}
        build_task_set("reviews", ["train.tsv"], read=TaskRead(task="classification", columns=columns))

    Splits that are cut off go by example, those of questions by context, so that no text is in two of them.
    """
    split = split or SplitConfig()
    if read.labels and read.task not in WITH_CLASSES:
        raise ValueError(f"labels are the classes of {', '.join(WITH_CLASSES)}: got them for {read.task}; leave them out")
    if split.by == "characters":
        raise ValueError("examples of a task stay whole: split by documents, got by='characters'")
    target = datasets_dir(data_dir)
    check_new_name(name, target, overwrite=overwrite)
    own = {part: list(files) for part, files in (own_files or {}).items() if files}
    split = with_fractions(split, own)
    files = {part: find_files(paths) for part, paths in ({"train": list(sources)} | own).items()}
    reader = TaskReader(read)
    with Spool() as spool:
        numbers: dict[str, np.ndarray] = {}
        contexts: list[int] = []
        seen: dict[str, int] = {}
        example: dict[str, Any] = {}
        tools = False
        for part, paths in files.items():
            first = len(spool)
            for example in reader.read(paths, part):
                spool.append((example["id"], json.dumps(example, ensure_ascii=False)))
                tools = tools or bool(example.get("tools"))
                contexts.append(seen.setdefault(example.get("context", example["id"]), len(seen)))
            numbers[part] = np.arange(first, len(spool))
            if not len(numbers[part]):
                raise ValueError(_nothing_left(part, paths, reader.skipped))
        parts = _assign(spool, numbers, split, contexts if read.task == "qa" else None)
        labels = (
            {part: _count_labels(records, reader.labels.names) for part, records in parts.items()}
            if reader.labels.names
            else {}
        )
        features = {name: kind for name, kind in features_of(example, reader.labels).items() if tools or name != "tools"}
        folder = write_set(
            name,
            {part: _Examples(records, tuple(features)) for part, records in parts.items()},
            target,
            description=f"Task {read.task} from {', '.join(path.name for paths in files.values() for path in paths)}"[:500],
            features=features,
            overwrite=overwrite,
            records={
                "task.json": {"records_skipped": reader.skipped.count, "read": asdict(read), "split": asdict(split)},
            },
        )
        sizes = {part: len(records) for part, records in parts.items()}
    return TaskReport(folder, sizes, labels, reader.answers_moved, reader.skipped)


def _assign(spool: Spool, numbers: dict[str, np.ndarray], split: SplitConfig, contexts: list[int] | None) -> dict[str, Part]:
    """The examples of each split; those that share a context go to the same one."""
    if contexts is None:
        return assign(spool, numbers, split)
    groups = np.array(contexts)[numbers["train"]]
    parts = assign(spool, numbers | {"train": np.unique(groups)}, split)
    cut = {part: Part(spool, numbers["train"][np.isin(groups, each.numbers)]) for part, each in parts.items()}
    return {part: Part(spool, numbers[part]) if part in numbers and part != "train" else cut[part] for part in parts}


@dataclass(frozen=True)
class _Examples:
    """The examples of a split as the builder takes them."""

    part: Part
    names: tuple[str, ...]

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for _, text in self.part:
            example = json.loads(text)
            yield tuple(example[name] for name in self.names)


def _count_labels(part: Part, names: tuple[str, ...]) -> dict[str, int]:
    counts = Counter(dict.fromkeys(names, 0))
    for _, text in part:
        example = json.loads(text)
        found = example.get("label", example.get("labels", example.get("tags")))
        counts.update(found if isinstance(found, list) else [found] if isinstance(found, str) else [])
    return dict(counts)


def _nothing_left(part: str, paths: Sequence[Path], skipped: Skipped) -> str:
    skips = f"; {skipped.count:,} rows could not be used, first {skipped.examples[0]}" if skipped.count else ""
    return f"no example is left for {part}: expected rows in {', '.join(map(str, paths))}{skips}; check the files and --columns"
