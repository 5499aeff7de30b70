"""Documents out of files: text, JSONL and JSON, CSV and TSV, Parquet; any of the text kinds may be gzipped (`.gz`).

A document has an id that says where it came from, such as `stories.jsonl:17`, and its text, with line ends as `\\n`.
"""

import codecs
import csv
import gzip
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxllm.data.tfds_builder import Document

TEXT_ENDINGS = (".txt", ".text", ".md")
ENDINGS = (*TEXT_ENDINGS, ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_BLOCK_BYTES = 1 << 20
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
    """Encoding of text, JSON, CSV and TSV files. A byte order mark is dropped."""
    column: str | None = None
    """The column, or the key of JSON objects, that holds the text; a list of strings is joined by line ends. In files
    without a header, the number of the column, from 1. None means `text`."""
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
        try:
            codecs.lookup(self.encoding)
        except LookupError as error:
            raise ValueError(
                f"encoding must be one that Python knows, such as utf-8, latin-1 or gb18030: got {self.encoding!r}"
            ) from error
        if not self.header and not (self.column or "").isdigit():
            raise ValueError(f"without a header, column must be the number of the text's column, from 1: got {self.column!r}")


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
    for path in files:
        if path.stat().st_size == 0:
            raise ValueError(f"{path} is empty: expected text in it; leave the file out")
        yield from _reader(path)(path, config, skipped)


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
        yield path.name, "\n".join(_lines(path, config.encoding))
        return
    lines = _lines(path, config.encoding)
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
    for number, line in enumerate(_lines(path, config.encoding), 1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            _refuse(f"{place}: expected one JSON object: {error}", config, skipped)
            continue
        text = _text_of(record, place, config, skipped)
        if text is not None:
            yield f"{path.name}:{number}", text


def _read_json(path: Path, config: ReadConfig, skipped: Skipped) -> Iterator[Document]:
    """A list of objects; JSON lines under the wrong ending are read too."""
    whole = "\n".join(_lines(path, config.encoding))
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
        text = _text_of(record, f"{path}, object {number}", config, skipped)
        if text is not None:
            yield f"{path.name}:{number}", text


def _read_table(path: Path, config: ReadConfig, skipped: Skipped) -> Iterator[Document]:
    """CSV with quotes, or TSV without."""
    csv.field_size_limit(2**31 - 1)
    lines = (line + "\n" for line in _lines(path, config.encoding))
    if _ending(path) == ".tsv":
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        rows = csv.reader(lines, strict=True)
    column: int | None = None if config.header else int(config.column or "") - 1
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise ValueError(f"{path}, line {rows.line_num}: expected a row of a table: {error}") from error
        if row is None:
            return
        if column is None:
            column = _column_of(row, path, config)
        elif column < len(row):
            yield f"{path.name}:{rows.line_num}", row[column]
        elif row:
            message = f"{path}, line {rows.line_num}: expected at least {column + 1} columns: got {len(row)}"
            _refuse(message, config, skipped)


def _column_of(header: list[str], path: Path, config: ReadConfig) -> int:
    name = config.column or "text"
    if name in header:
        return header.index(name)
    if config.column and config.column.isdigit() and 1 <= int(config.column) <= len(header):
        return int(config.column) - 1
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
        name = config.column or "text"
        names = file.schema_arrow.names
        if name not in names:
            raise ValueError(f"{path} has no column {name!r}: it has {', '.join(names)}; choose with --column")
        number = 0
        for batch in file.iter_batches(columns=[name], batch_size=1000):
            for value in batch.column(0).to_pylist():
                number += 1
                text = _text_of({name: value}, f"{path}, row {number}", config, skipped)
                if text is not None:
                    yield f"{path.name}:{number}", text


def _text_of(record: Any, place: str, config: ReadConfig, skipped: Skipped) -> str | None:
    """The text of a JSON record, or None where it has none and such records are skipped."""
    if isinstance(record, str) and config.column is None:
        return record
    name = config.column or "text"
    if not isinstance(record, dict):
        _refuse(f"{place}: expected a JSON object: got {type(record).__name__}", config, skipped)
        return None
    if name not in record:
        keys = ", ".join(map(str, record)) or "no keys"
        _refuse(f"{place}: expected the key {name!r}: the object has {keys}; choose with --column", config, skipped)
        return None
    value = record[name]
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "\n".join(value)
    if not isinstance(value, str):
        _refuse(f"{place}: expected text under {name!r}: got {type(value).__name__}", config, skipped)
        return None
    return value


def _refuse(message: str, config: ReadConfig, skipped: Skipped) -> None:
    if config.on_error == "stop":
        raise ValueError(f"{message}; correct it, or leave such records out with --on-error skip")
    skipped.add(message)


def _lines(path: Path, encoding: str) -> Iterator[str]:
    """The lines of a file without their ends; a wrong byte is named by its place in the file."""
    rest = ""
    for text in _decoded(path, encoding):
        parts = (rest + text).split("\n")
        rest = parts.pop()
        yield from (part.removesuffix("\r") for part in parts)
    yield rest


def _decoded(path: Path, encoding: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding)()
    offset = 0
    with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
        while True:
            try:
                block = file.read(_BLOCK_BYTES)
            except (gzip.BadGzipFile, EOFError) as error:
                raise ValueError(f"{path} is not a gzip file that can be read: {error}") from error
            if offset == 0 and block.startswith(codecs.BOM_UTF8) and codecs.lookup(encoding).name == "utf-8":
                block, offset = block[3:], 3
            waiting = len(decoder.getstate()[0])
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                place = offset - waiting + error.start
                wrong = error.object[error.start]
                raise ValueError(
                    f"{path} is not {encoding}: byte {place} is 0x{wrong:02x}; name the file's encoding with --encoding, "
                    "for example latin-1 or gb18030"
                ) from error
            offset += len(block)
            yield text
            if not block:
                return
