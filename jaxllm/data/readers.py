"""Documents out of files: text, JSONL and JSON, CSV and TSV, Parquet; any of the text kinds may be gzipped (`.gz`).

A document has an id that says where it came from, such as `stories.jsonl:17`, and its text, with line ends as `\\n`; where a
second column is named, also what stands there: the other text of a pair, or a label.
"""

import csv
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxllm.data.lines import check_encoding, read_lines
from jaxllm.data.tfds_builder import Document

TEXT_ENDINGS = (".txt", ".text", ".md")
ENDINGS = (*TEXT_ENDINGS, ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_SHOWN_RECORDS = 5


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


def find_files(paths: Iterable[str | Path]) -> list[Path]:
    """The files that some files and folders stand for; folders are searched whole, for the endings in `ENDINGS`."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and _ending(p) in ENDINGS)
            if not inside:
                raise FileNotFoundError(f"expected files ending in {', '.join(ENDINGS)} in the folder {path}: found none")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"expected a file or a folder at {path}: there is nothing there; check the path")
    return found


def read_documents(files: Iterable[Path], config: ReadConfig, skipped: Skipped) -> Iterator[Document]:
    """The documents of some files, in order."""
    aligned: list[Path] = []
    for path in files:
        if path.stat().st_size == 0:
            raise ValueError(f"{path} is empty: expected text in it; leave the file out")
        if config.second is None or _reader(path) is not _read_text:
            yield from _reader(path)(path, config, skipped)
            continue
        aligned.append(path)
        if len(aligned) == 2:
            yield from _read_aligned(aligned[0], aligned[1], config)
            aligned.clear()
    if aligned:
        raise ValueError(
            f"pairs in text files need two files, line by line: got {aligned[0]} alone; name that of the second texts after it"
        )


def _read_aligned(first: Path, second: Path, config: ReadConfig) -> Iterator[Document]:
    """Line n of both files is pair n."""
    sides = (_without_last_empty(read_lines(path, config.encoding)) for path in (first, second))
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


def _reader(path: Path) -> Callable[[Path, ReadConfig, Skipped], Iterator[Document]]:
    match _ending(path):
        case ".jsonl" | ".ndjson":
            return _read_jsonl
        case ".json":
            return _read_json
        case ".csv" | ".tsv":
            return _read_table
        case ".parquet":
            return _read_parquet
        case _:
            return _read_text


def _ending(path: Path) -> str:
    return Path(path.stem).suffix.lower() if path.suffix == ".gz" else path.suffix.lower()


def _read_text(path: Path, config: ReadConfig, skipped: Skipped) -> Iterator[Document]:
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


def _read_jsonl(path: Path, config: ReadConfig, skipped: Skipped) -> Iterator[Document]:
    for number, line in enumerate(read_lines(path, config.encoding), 1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            _refuse(f"{place}: expected one JSON object: {error}", config, skipped)
            continue
        texts = _texts_of(record, place, config, skipped)
        if texts is not None:
            yield f"{path.name}:{number}", *texts


def _read_json(path: Path, config: ReadConfig, skipped: Skipped) -> Iterator[Document]:
    """A list of objects; JSON lines under the wrong ending are read too."""
    whole = "\n".join(read_lines(path, config.encoding))
    try:
        records = json.loads(whole)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            yield from _read_jsonl(path, config, skipped)
            return
        raise ValueError(f"{path}, line {error.lineno}: expected a list of JSON objects: {error}") from error
    if not isinstance(records, list):
        raise ValueError(
            f"{path}: expected a list of JSON objects: got one {type(records).__name__}; write one object a line (.jsonl)"
        )
    for number, record in enumerate(records, 1):
        texts = _texts_of(record, f"{path}, object {number}", config, skipped)
        if texts is not None:
            yield f"{path.name}:{number}", *texts


def _read_table(path: Path, config: ReadConfig, skipped: Skipped) -> Iterator[Document]:
    """CSV with quotes, or TSV without."""
    csv.field_size_limit(2**31 - 1)
    lines = (line + "\n" for line in read_lines(path, config.encoding))
    if _ending(path) == ".tsv":
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        rows = csv.reader(lines, strict=True)
    columns: list[int] | None = None if config.header else [int(column) - 1 for column in config.columns]
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise ValueError(f"{path}, line {rows.line_num}: expected a row of a table: {error}") from error
        if row is None:
            return
        if columns is None:
            columns = [_column_of(name, row, path) for name in config.columns]
        elif max(columns) < len(row):
            yield f"{path.name}:{rows.line_num}", *(row[column] for column in columns)
        elif row:
            message = f"{path}, line {rows.line_num}: expected at least {max(columns) + 1} columns: got {len(row)}"
            _refuse(message, config, skipped)


def _column_of(name: str, header: list[str], path: Path) -> int:
    if name in header:
        return header.index(name)
    if name.isdigit() and 1 <= int(name) <= len(header):
        return int(name) - 1
    shown = ", ".join(repr(title[:40]) for title in header)
    raise ValueError(
        f"{path} has no column {name!r}: its first line has {shown}; choose with --column NAME, or with --no-header "
        "--column NUMBER if that line is data"
    )


def _read_parquet(path: Path, config: ReadConfig, skipped: Skipped) -> Iterator[Document]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a Parquet file that can be read: {error}") from error
    with file:
        names = file.schema_arrow.names
        for name in config.columns:
            if name not in names:
                raise ValueError(f"{path} has no column {name!r}: it has {', '.join(names)}; choose with --column")
        number = 0
        for batch in file.iter_batches(columns=list(config.columns), batch_size=1000):
            for record in batch.to_pylist():
                number += 1
                texts = _texts_of(record, f"{path}, row {number}", config, skipped)
                if texts is not None:
                    yield f"{path.name}:{number}", *texts


def _texts_of(record: Any, place: str, config: ReadConfig, skipped: Skipped) -> list[str] | None:
    """The texts of a JSON record, or None where one is missing and such records are skipped."""
    if isinstance(record, str) and config.column is None and config.second is None:
        return [record]
    if not isinstance(record, dict):
        _refuse(f"{place}: expected a JSON object: got {type(record).__name__}", config, skipped)
        return None
    texts: list[str] = []
    for name in config.columns:
        if name not in record:
            keys = ", ".join(map(str, record)) or "no keys"
            _refuse(f"{place}: expected the key {name!r}: the object has {keys}; choose with --column", config, skipped)
            return None
        value = record[name]
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            value = "\n".join(value)
        if isinstance(value, int) and name == config.second:  # a label
            value = str(int(value))
        if not isinstance(value, str):
            _refuse(f"{place}: expected text under {name!r}: got {type(value).__name__}", config, skipped)
            return None
        texts.append(value)
    return texts


def _refuse(message: str, config: ReadConfig, skipped: Skipped) -> None:
    if config.on_error == "stop":
        raise ValueError(f"{message}; correct it, or leave such records out with --on-error skip")
    skipped.add(message)
