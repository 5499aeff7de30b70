"""Documents out of files: text, JSONL and JSON, CSV and TSV, Parquet; any of the text kinds may be gzipped (`.gz`).

A document has an id that says where it came from, such as `stories.jsonl:17`, and its text, with line ends as `\\n`; where a
second column is named, also what stands there: the other text of a pair, or a label.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxllm.data.lines import check_encoding, read_lines
from jaxllm.data.table_files import TABLE_ENDINGS, TableKind, WrongRow, column_named, ending_of, read_rows
from jaxllm.data.tfds_builder import Document

TEXT_ENDINGS = (".txt", ".text", ".md")
ENDINGS = (*TEXT_ENDINGS, *TABLE_ENDINGS)
_SHOWN_RECORDS = 5
_ADVICE = "choose with --column NAME, or with --no-header --column NUMBER if its first line is data"


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """How files are read."""

    documents: Literal["file", "line", "blank-line", "article", "separator"] = "file"
    """What a document is in a text file: the whole file, each line, what stands between blank lines, or a WikiText
    article (from one ` = Title = ` line to the next), or what stands between lines equal to `separator`."""
    separator: str | None = None
    """The line between two documents, such as `<|endoftext|>`; it belongs to none."""
    encoding: str = "utf-8"
    """Encoding of text, JSON, CSV and TSV files; several, such as `utf-8,latin-1`: for each file the first that fits. A byte
    order mark is dropped."""
    column: str | None = None
    """The column, or the key of JSON objects, that holds the text; a list of strings is joined by line ends. In files
    without a header, the number of the column, from 1. None means `text`."""
    second: str | None = None
    """Another column or key, read into the same document: the second text of a pair, or a label. Text files are then read two
    by two: line n of one and line n of the other are a pair."""
    header: bool = True
    """Whether CSV and TSV files begin with the names of their columns."""
    on_error: Literal["stop", "skip"] = "stop"
    """What to do with a record that cannot be read: stop with its place, or leave it out and count it."""

    def __post_init__(self) -> None:
        if self.documents not in ("file", "line", "blank-line", "article", "separator"):
            raise ValueError(f"documents must be file, line, blank-line, article or separator: got {self.documents!r}")
        if (self.documents == "separator") != bool(self.separator):
            raise ValueError(
                "documents='separator' and the separator go together: got "
                f"documents={self.documents!r}, separator={self.separator!r}"
            )
        if self.on_error not in ("stop", "skip"):
            raise ValueError(f"on_error must be stop or skip: got {self.on_error!r}")
        check_encoding(self.encoding)
        for column in self.columns:
            if not self.header and not column.isdigit():
                raise ValueError(
                    "without a header, column must be the number of the text's column, from 1: got "
                    f"{None if column == 'text' else column!r}"
                )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that make a document."""
        return (self.column or "text",) if self.second is None else (self.column or "text", self.second)


class Skipped:
    """Counts the records left out, and keeps what was wrong with the first few."""

    def __init__(self) -> None:
        self.count = 0
        self.examples: list[str] = []

    def add(self, message: str) -> None:
        self.count += 1
        if self.count <= _SHOWN_RECORDS:
            self.examples.append(message)

    def refuse(self, message: str, on_error: Literal["stop", "skip"]) -> None:
        if on_error == "stop":
            raise ValueError(f"{message}; correct it, or leave such records out with --on-error skip")
        self.add(message)


def find_files(paths: Iterable[str | Path]) -> list[Path]:
    """The files that some files and folders stand for; folders are searched whole, for the endings in `ENDINGS`."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and ending_of(p) in ENDINGS)
            if not inside:
                raise FileNotFoundError(f"expected files ending in {', '.join(ENDINGS)} in the folder {path}: found none")
            found += inside
        elif path.is_file():
            _refuse_pickle(path)
            found.append(path)
        else:
            raise FileNotFoundError(f"expected a file or a folder at {path}: there is nothing there; check the path")
    return found


def _refuse_pickle(path: Path) -> None:
    """Known by its first bytes: a pickle, or the archive of one that torch writes."""
    with open(path, "rb") as file:
        head = file.read(256)
    if re.match(rb"\x80[\x02-\x05]", head) or (head.startswith(b"PK\x03\x04") and b"data.pkl" in head):
        raise ValueError(
            f"{path} is a pickle, which can run any program when it is read: expected text or a table; write it as JSON lines "
            "or Parquet where it comes from"
        )


def read_documents(files: Iterable[Path], config: ReadConfig, skipped: Skipped) -> Iterator[Document]:
    """The documents of some files, in order."""
    aligned: list[Path] = []
    for path in files:
        if path.stat().st_size == 0:
            raise ValueError(f"{path} is empty: expected text in it; leave the file out")
        if (kind := TABLE_ENDINGS.get(ending_of(path))) is not None:
            yield from _read_rows(path, kind, config, skipped)
        elif config.second is None:
            yield from _read_text(path, config)
        else:
            aligned.append(path)
    for first, second in in_twos(aligned):
        yield from read_aligned(first, second, config.encoding)


def in_twos(files: list[Path]) -> Iterator[tuple[Path, Path]]:
    """The files of first texts, each with that of its second texts."""
    if len(files) % 2:
        raise ValueError(
            f"pairs in text files need two files, line by line: got {files[-1]} alone; name that of the second texts after it"
        )
    return zip(files[::2], files[1::2], strict=True)


def read_aligned(first: Path, second: Path, encoding: str) -> Iterator[Document]:
    """Line n of both files is pair n."""
    sides = (_without_last_empty(read_lines(path, encoding)) for path in (first, second))
    for number, (text, other) in enumerate(itertools.zip_longest(*sides), 1):
        if text is None or other is None:
            short = first if text is None else second
            raise ValueError(
                f"{first} and {second} must have as many lines: {short} has {number - 1}; take files that belong together"
            )
        yield f"{first.name}:{number}", text, other


def _without_last_empty(lines: Iterator[str]) -> Iterator[str]:
    """The lines, less an empty one after the last line end."""
    before = next(lines)
    for line in lines:
        yield before
        before = line
    if before:
        yield before


def _read_text(path: Path, config: ReadConfig) -> Iterator[Document]:
    if config.documents == "file":
        yield path.name, "\n".join(read_lines(path, config.encoding))
        return
    lines = read_lines(path, config.encoding)
    if config.documents == "line":
        yield from ((f"{path.name}:{number}", line) for number, line in enumerate(lines, 1) if line.strip())
        return
    group: list[str] = []
    first = 1
    for number, line in enumerate(lines, 1):
        begins_article = config.documents == "article" and re.fullmatch(r" = [^=].*[^=] = ?", line)
        ends = line.strip() == {"blank-line": "", "separator": config.separator}.get(config.documents)
        if begins_article or ends:
            if any(text.strip() for text in group):
                yield f"{path.name}:{first}", "\n".join(group).strip("\n")
            group = [line] if begins_article else []
            first = number if begins_article else number + 1
        else:
            group.append(line)
    if any(text.strip() for text in group):
        yield f"{path.name}:{first}", "\n".join(group).strip("\n")


def _read_rows(path: Path, kind: TableKind, config: ReadConfig, skipped: Skipped) -> Iterator[Document]:
    def choose(columns: Sequence[str]) -> dict[str, str]:
        return {name: column_named(name, columns, path, _ADVICE) for name in config.columns}

    def refuse(message: str) -> None:
        skipped.refuse(message, config.on_error)

    for row in read_rows(path, kind, encoding=config.encoding, header=config.header, choose=choose, refuse=refuse):
        try:
            texts = _texts_of(row.values, config)
        except WrongRow as error:
            refuse(f"{row.place}: {error}")
        else:
            yield row.id, *texts


def _texts_of(record: Any, config: ReadConfig) -> list[str]:
    """The texts of a row."""
    if isinstance(record, str) and config.column is None and config.second is None:
        return [record]
    if not isinstance(record, dict):
        raise WrongRow(f"expected a JSON object: got {type(record).__name__}")
    texts: list[str] = []
    for name in config.columns:
        if name not in record:
            keys = ", ".join(map(str, record)) or "no keys"
            raise WrongRow(f"expected the key {name!r}: the object has {keys}; choose with --column")
        value = record[name]
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            value = "\n".join(value)
        if isinstance(value, int) and name == config.second:  # a label
            value = str(int(value))
        if not isinstance(value, str):
            raise WrongRow(f"expected text under {name!r}: got {type(value).__name__}")
        texts.append(value)
    return texts
