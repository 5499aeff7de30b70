"""Rows of the files that hold tables: JSON lines and lists, CSV, TSV, Parquet; the text kinds may be gzipped (`.gz`)."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxllm.data.lines import read_lines

TableKind = Literal["jsonl", "json", "csv", "tsv", "parquet"]
TABLE_ENDINGS: Mapping[str, TableKind] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
Choose = Callable[[Sequence[str]], Mapping[str, str]]
"""From the columns of a file to those that are wanted: the name that the reader gives each, and the column's own."""
Refuse = Callable[[str], None]
"""Takes what is wrong with one row, and returns where such rows are left out."""


class WrongRow(ValueError):
    """What is wrong with a row, without its place."""


@dataclass(frozen=True)
class Row:
    """What stands in one row."""

    id: str
    """Where it came from, such as "stories.jsonl:17"."""
    place: str
    """The same for a message: the whole path, and the line, object or row."""
    values: Any
    """By column; of JSON whatever stands there."""


def ending_of(path: Path) -> str:
    """In small letters, without ".gz"."""
    return Path(path.stem).suffix.lower() if path.suffix == ".gz" else path.suffix.lower()


def read_rows(path: Path, kind: TableKind, *, encoding: str, header: bool, choose: Choose, refuse: Refuse) -> Iterator[Row]:
    """The rows of a table, in order.

    Args:
      header: Whether a CSV or TSV file begins with the names of its columns; they are numbers from 1 otherwise.
      choose: Called once with the columns of a CSV, TSV or Parquet file, before its rows; JSON objects come whole.
    """
    match kind:
        case "jsonl":
            return _read_jsonl(path, encoding, refuse)
        case "json":
            return _read_json(path, encoding, refuse)
        case "parquet":
            return _read_parquet(path, choose)
        case _:
            return _read_delimited(path, kind, encoding, header, choose, refuse)


def column_named(name: str, columns: Sequence[str], path: Path, advice: str) -> str:
    """The column of this name, or of this number from 1."""
    if name in columns:
        return name
    if name.isdigit() and 1 <= int(name) <= len(columns):
        return columns[int(name) - 1]
    raise ValueError(f"{path} has no column {name!r}: it has {', '.join(c[:40] for c in columns)}; {advice}")


def _read_jsonl(path: Path, encoding: str, refuse: Refuse) -> Iterator[Row]:
    for number, line in enumerate(read_lines(path, encoding), 1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            values = json.loads(line)
            if "\\u" in line:
                _check_text(values)
        except (ValueError, RecursionError) as error:
            refuse(f"{place}: expected one JSON object: {error}")
        else:
            yield Row(f"{path.name}:{number}", place, values)


def _read_json(path: Path, encoding: str, refuse: Refuse) -> Iterator[Row]:
    """A list of objects; JSON lines under the wrong ending are read too."""
    try:
        records = load_json(path, encoding)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            yield from _read_jsonl(path, encoding, refuse)
            return
        raise ValueError(f"{path}, line {error.lineno}: expected a list of JSON objects: {error}") from error
    if not isinstance(records, list):
        raise ValueError(
            f"{path}: expected a list of JSON objects: got one {type(records).__name__}; write one object a line (.jsonl)"
        )
    for number, record in enumerate(records, 1):
        place = f"{path}, object {number}"
        try:
            _check_text(record)
        except UnicodeEncodeError as error:
            refuse(f"{place}: expected one JSON object: {error}")
        else:
            yield Row(f"{path.name}:{number}", place, record)


def _check_text(values: Any) -> None:
    """Refuse half of a surrogate pair, which JSON can write and UTF-8 cannot.

    Raises:
      UnicodeEncodeError: there is one.
    """
    json.dumps(values, ensure_ascii=False).encode("utf-8")


def load_json(path: Path, encoding: str) -> Any:
    """The one value that a file holds."""
    return json.loads("\n".join(read_lines(path, encoding)))


def _read_delimited(path: Path, kind: TableKind, encoding: str, header: bool, choose: Choose, refuse: Refuse) -> Iterator[Row]:
    """CSV with quotes, or TSV without."""
    csv.field_size_limit(2**31 - 1)
    lines = (line + "\n" for line in read_lines(path, encoding))
    tabs = kind == "tsv"
    rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(lines, strict=True)
    places: dict[str, int] | None = None
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise ValueError(f"{path}, line {rows.line_num}: expected a row of a table: {error}") from error
        if row is None:
            return
        if places is None:
            columns = row if header else [str(number) for number in range(1, len(row) + 1)]
            places = {name: columns.index(column) for name, column in choose(columns).items()}
            if header:
                continue
        place = f"{path}, line {rows.line_num}"
        if max(places.values()) < len(row):
            yield Row(f"{path.name}:{rows.line_num}", place, {name: row[column] for name, column in places.items()})
        elif row:
            refuse(f"{place}: expected at least {max(places.values()) + 1} columns: got {len(row)}")


def _read_parquet(path: Path, choose: Choose) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a Parquet file that can be read: {error}") from error
    with file:
        wanted = choose(file.schema_arrow.names)
        number = 0
        for batch in file.iter_batches(columns=list(wanted.values()), batch_size=1000):
            for record in batch.to_pylist():
                number += 1
                values = {name: record[column] for name, column in wanted.items()}
                yield Row(f"{path.name}:{number}", f"{path}, row {number}", values)
