"""Examples of a task out of files.

The rows come from `table_files` and `task_formats`; which column plays which role is in `task_kinds`, and what it must hold
in `task_rows`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jaxllm.data.lines import check_encoding, read_lines
from jaxllm.data.readers import Skipped, in_twos, read_aligned
from jaxllm.data.table_files import TABLE_ENDINGS, Row, WrongRow, column_named, ending_of, read_rows
from jaxllm.data.task_formats import compiled, instances_of, line_pattern, read_conll, read_pattern, read_squad
from jaxllm.data.task_kinds import KINDS, roles_of, values_of
from jaxllm.data.task_labels import Labels
from jaxllm.data.task_rows import Reading

TaskKind = Literal["classification", "regression", "tokens", "qa", "text-to-text", "pairs", "chat", "preference"]
TaskFormat = Literal["jsonl", "json", "csv", "tsv", "parquet", "conll", "squad", "lines", "aligned"]
_ADVICE = "choose with --columns ROLE=NAME, or by numbers alone where its first line is data"


@dataclass(frozen=True, kw_only=True)
class TaskRead:
    """How the files of a task are read."""

    task: TaskKind
    """The kind of task."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """The column, or JSON key, of each role, such as {"text": "sentence"}; several with + between are joined. By number, from
    1, in files without a header. None at all: the usual names."""
    own_columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The same for "validation" or "test", where those files are laid out otherwise."""
    format: TaskFormat | None = None
    """What the files are; None tells it from their endings and contents."""
    line: str | None = None
    """How a line is made of its roles, such as "{label} {text}" or "{text}@{label}"."""
    encoding: str = "utf-8"
    """Encoding of the files; several, such as "utf-8,latin-1": for each file the first that fits."""
    labels: tuple[str, ...] = ()
    """The classes in the order of their numbers, as NAME or VALUE=NAME; none: those of the training files."""
    token_pattern: str | None = None
    """A pattern whose first group is what to keep of each token."""
    on_error: Literal["stop", "skip"] = "stop"
    """What to do with a row that cannot be used: stop with its place, or leave it out and count it."""

    def __post_init__(self) -> None:
        if self.task not in KINDS:
            raise ValueError(f"task must be one of {', '.join(KINDS)}: got {self.task!r}")
        check_encoding(self.encoding)
        for columns in (self.columns, *self.own_columns.values()):
            if unknown := set(columns) - set(KINDS[self.task].roles):
                roles = ", ".join(KINDS[self.task].roles)
                raise ValueError(f"the columns of {self.task} are {roles}: got {', '.join(sorted(unknown))}")
        if self.line is not None and line_pattern(self.line).groups < 1:
            raise ValueError(f'line must name the roles, as "{{label}} {{text}}" does: got {self.line!r}')
        if self.token_pattern is not None and compiled(self.token_pattern, "token_pattern").groups < 1:
            raise ValueError(f"token_pattern must have a group, as '(.+)[0-9]' has: got {self.token_pattern!r}")

    def columns_of(self, part: str) -> Mapping[str, str]:
        return self.own_columns.get(part) or self.columns


class TaskReader:
    """Reads files and counts; the training files first, which say which labels there are."""

    def __init__(self, config: TaskRead):
        self.config = config
        self.skipped = Skipped()
        self.labels = Labels(config.labels)
        pattern = None if config.token_pattern is None else compiled(config.token_pattern, "token_pattern")
        self._reading = Reading(self.labels, self._refuse, pattern)
        self._keys: set[str] | None = None

    @property
    def answers_moved(self) -> int:
        return self._reading.answers_moved

    def _refuse(self, message: str) -> None:
        self.skipped.refuse(message, self.config.on_error)

    def read(self, files: Iterable[Path], part: str) -> Iterator[dict[str, Any]]:
        """The examples of one split, each with its `id`."""
        kind, given = KINDS[self.config.task], self.config.columns_of(part)
        known: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = {}
        for row in self._rows(list(files), given):
            self._reading.refuse = lambda message, place=row.place: self._refuse(f"{place}: {message}")
            try:
                if not isinstance(row.values, dict):
                    raise WrongRow(f"expected a JSON object: got {type(row.values).__name__}")
                keys = tuple(row.values)
                if keys not in known:
                    known[keys] = roles_of(kind, given, keys)
                example = kind.convert(values_of(row.values, known[keys]), self._reading)
                if example is not None:
                    self._check_keys(set(example))
            except WrongRow as error:
                self._refuse(f"{row.place}: {error}")
            else:
                if example is not None:
                    yield {"id": row.id, **example}
        if part == "train":
            self.labels.close()

    def _check_keys(self, keys: set[str]) -> None:
        self._keys = self._keys or keys
        if keys != self._keys:
            raise WrongRow(f"expected {', '.join(sorted(self._keys))} as in the first row: got {', '.join(sorted(keys))}")

    def _rows(self, files: list[Path], given: Mapping[str, str]) -> Iterator[Row]:
        aligned: list[Path] = []
        for path in files:
            if path.stat().st_size == 0:
                raise ValueError(f"{path} is empty: expected rows in it; leave the file out")
            kind = format_of(path, self.config)
            if kind == "aligned":
                aligned.append(path)
                continue
            for row in self._rows_of(path, kind, given):
                yield from instances_of(row)
        second = {"pairs": "text_pair"}.get(self.config.task, "target")
        for first, other in in_twos(aligned):
            for number, (name, *texts) in enumerate(read_aligned(first, other, self.config.encoding), 1):
                yield Row(name, f"{first}, line {number}", dict(zip(("text", second), texts, strict=True)))

    def _rows_of(self, path: Path, kind: TaskFormat, given: Mapping[str, str]) -> Iterator[Row]:
        encoding = self.config.encoding
        match kind:
            case "squad":
                return read_squad(path, encoding, self._refuse)
            case "conll":
                return read_conll(path, encoding, self._refuse)
            case "lines":
                return read_pattern(path, encoding, self.config.line or "", self._refuse)
            case "aligned":
                raise AssertionError("aligned files are read two by two")
        numbers = bool(given) and all(name.isdigit() for names in given.values() for name in names.split("+"))

        def choose(columns: Sequence[str]) -> dict[str, str]:
            try:
                roles = roles_of(KINDS[self.config.task], given, columns, len(columns))
            except WrongRow as error:
                raise ValueError(f"{path}: {error}") from error
            return {name: column_named(name, columns, path, _ADVICE) for names in roles.values() for name in names}

        return read_rows(path, kind, encoding=encoding, header=not numbers, choose=choose, refuse=self._refuse)


def format_of(path: Path, config: TaskRead) -> TaskFormat:
    """What a file is: as told, by its ending, or by its first line."""
    if config.line is not None:
        return "lines"
    if config.format is not None:
        return config.format
    ending = ending_of(path)
    if config.task == "qa" and ending == ".json":
        return "squad"
    if ending in TABLE_ENDINGS:
        return TABLE_ENDINGS[ending]
    if config.task == "tokens":
        return "conll"
    head = next((line for line in read_lines(path, config.encoding) if line.strip()), "")
    if head.startswith("{"):
        return "jsonl"
    if "\t" in head:
        return "tsv"
    if config.task in ("text-to-text", "pairs"):
        return "aligned"
    raise ValueError(
        f"{path}: expected a file ending in {', '.join(TABLE_ENDINGS)}, or columns with tabs between: its first line is "
        f'{head[:60]!r}; say what a line is made of with --line "{{label}} {{text}}", or what the file is with --format'
    )
