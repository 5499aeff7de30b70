"""`jaxllm data build`: files to a TFDS data set, cleaned and split."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from jaxllm.data.clean import CleanConfig, CleanCounts, Cleaner
from jaxllm.data.readers import ReadConfig, Skipped, find_files, read_documents
from jaxllm.data.source import datasets_dir
from jaxllm.data.tfds_builder import check_new_name, write_text_set

_FRACTION = 0.05


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How documents go to train, validation and test. A split with files of its own gets those and no others."""

    validation_fraction: float | None = None
    """Share of the documents for validation; None means 0.05, or 0 when validation or test has files of its own."""
    test_fraction: float | None = None
    """Share of the documents for test; None as above."""
    by: Literal["documents", "characters"] = "documents"
    """documents: each goes whole to one split, at random. characters: each document is cut, its beginning to train, its end
    to test, validation between; for a single long text."""
    seed: int = 0
    """Chooses the documents."""

    def __post_init__(self) -> None:
        fractions = {"validation_fraction": self.validation_fraction, "test_fraction": self.test_fraction}
        for name, value in fractions.items():
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"{name} must be 0 or more and below 1: got {value}")
        if (total := sum(value or 0 for value in fractions.values())) >= 1:
            raise ValueError(
                f"validation_fraction and test_fraction must leave something to train on: they add up to {total:g}; "
                "lower them"
            )
        if self.by not in ("documents", "characters"):
            raise ValueError(f"split by documents or characters: got {self.by!r}")


@dataclass(frozen=True)
class BuildReport:
    """What was built."""

    folder: Path
    splits: dict[str, tuple[int, int]]
    """Documents and characters of each split."""
    cleaning: CleanCounts
    skipped: Skipped = field(repr=False)


def build_text_set(
    name: str,
    sources: Sequence[str | Path],
    *,
    own_files: dict[str, Sequence[str | Path]] | None = None,
    data_dir: str | Path | None = None,
    read: ReadConfig | None = None,
    clean: CleanConfig | None = None,
    split: SplitConfig | None = None,
    overwrite: bool = False,
) -> BuildReport:
    """Build the data set `name` from files and folders.

        build_text_set("stories", ["stories.txt"], read=ReadConfig(documents="blank-line"))

    Args:
      own_files: Files of the validation or the test split; the fractions are taken from `sources`.
    """
    read, clean, split = read or ReadConfig(), clean or CleanConfig(), split or SplitConfig()
    target = datasets_dir(data_dir)
    check_new_name(name, target, overwrite=overwrite)
    own = {part: list(files) for part, files in (own_files or {}).items() if files}
    split = _with_fractions(split, own)
    # Those for evaluation come first, so that it is the copy for training that is dropped as a duplicate.
    groups = {part: find_files(own[part]) for part in ("test", "validation") if part in own}
    groups["train"] = find_files(sources)
    skipped, cleaner = Skipped(), Cleaner(clean)
    with _Spool() as spool:
        numbers: dict[str, np.ndarray] = {}
        for part, files in groups.items():
            first = len(spool)
            for document in cleaner.clean(read_documents(files, read, skipped)):
                spool.append(document)
            numbers[part] = np.arange(first, len(spool))
            if not len(numbers[part]):
                raise ValueError(_nothing_left(part, cleaner.counts, skipped))
        splits = _assign(spool, numbers, split)
        sizes = {part: (len(documents), documents.num_characters) for part, documents in splits.items()}
        record = {"counts": cleaner.counts.as_dict(), "records_skipped": skipped.count}
        record |= {"read": asdict(read), "clean": asdict(clean), "split": asdict(split)}
        names = ", ".join(path.name for files in groups.values() for path in files)
        folder = write_text_set(
            name,
            splits,
            target,
            description=f"Text from {names}"[:500],
            overwrite=overwrite,
            records={"cleaning.json": record},
        )
    return BuildReport(folder, sizes, cleaner.counts, skipped)


class _Spool:
    """Documents on disk while they wait for their split; a temporary file, gone at the end."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()
        self._ends = array("q", [0])
        self.characters = array("q")

    def __enter__(self) -> "_Spool":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self.characters)

    def append(self, document: Document) -> None:
        data = "\0".join(document).encode("utf-8", "surrogatepass")
        self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))
        self.characters.append(len(document[1]))

    def __getitem__(self, number: int) -> Document:
        self._file.seek(self._ends[number])
        data = self._file.read(self._ends[number + 1] - self._ends[number])
        document_id, _, text = data.decode("utf-8", "surrogatepass").partition("\0")
        return document_id, text


@dataclass(frozen=True)
class _Part:
    """The documents of one split, or the same share of each: what lies between `begin` and `end` of its characters."""

    spool: _Spool
    numbers: np.ndarray
    begin: float = 0.0
    end: float = 1.0

    def __len__(self) -> int:
        return len(self.numbers)

    def _cut(self, number: int) -> slice:
        count = self.spool.characters[number]
        return slice(round(self.begin * count), round(self.end * count))

    def __iter__(self) -> Iterator[Document]:
        for number in self.numbers.tolist():
            document_id, text = self.spool[number]
            yield document_id, text[self._cut(number)]

    @property
    def num_characters(self) -> int:
        return sum((cut := self._cut(number)).stop - cut.start for number in self.numbers.tolist())


def _with_fractions(split: SplitConfig, own: dict[str, list[str | Path]]) -> SplitConfig:
    """Fill in the fractions that were not given."""
    if unknown := set(own) - {"validation", "test"}:
        raise ValueError(f"own_files are for validation and test: got {', '.join(sorted(unknown))}")
    given = {"validation": split.validation_fraction, "test": split.test_fraction}
    for part in own:
        if given[part]:
            raise ValueError(f"{part} must have a fraction of the documents or files of its own: got both; leave one out")
    filled = {f"{k}_fraction": (0.0 if own else _FRACTION) if v is None else v for k, v in given.items()}
    return replace(split, **filled)


def _assign(spool: _Spool, numbers: dict[str, np.ndarray], split: SplitConfig) -> dict[str, _Part]:
    """The documents of each split, in the order in which they were read."""
    fractions = {"validation": split.validation_fraction or 0.0, "test": split.test_fraction or 0.0}
    train = numbers["train"]
    parts: dict[str, _Part] = {}
    if split.by == "characters":
        begin = 1.0 - sum(fractions.values())
        parts["train"] = _Part(spool, train, 0.0, begin)
        for part, fraction in fractions.items():
            if fraction:
                parts[part] = _Part(spool, train, begin, begin + fraction)
                begin += fraction
    else:
        counts = {part: max(1, round(fraction * len(train))) if fraction else 0 for part, fraction in fractions.items()}
        if sum(counts.values()) >= len(train):
            raise ValueError(
                f"{sum(counts.values()) + 1} documents or more are needed for the splits: there are {len(train)}; cut each "
                "document with --split-by characters, make smaller documents with --documents, or set "
                "--validation-fraction and --test-fraction to 0"
            )
        order = train[random_order(split.seed, len(train))]
        first = 0
        for part, count in counts.items():
            if count:
                parts[part] = _Part(spool, np.sort(order[first : first + count]))
            first += count
        parts = {"train": _Part(spool, np.sort(order[first:]))} | parts
    return parts | {part: _Part(spool, own) for part, own in numbers.items() if part != "train"}


def _nothing_left(part: str, counts: CleanCounts, skipped: Skipped) -> str:
    removed = ", ".join(f"{c.step} {c.documents_removed:,}" for c in counts.steps.values() if c.documents_removed)
    skips = f"; {skipped.count:,} records could not be read, first {skipped.examples[0]}" if skipped.count else ""
    return (
        f"no document is left for {part}: {counts.documents_read:,} were read and these steps removed them: "
        f"{removed or 'none'}{skips}; check the files and the cleaning options"
    )
