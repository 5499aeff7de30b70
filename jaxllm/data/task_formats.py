"""Rows of the files that are no tables: lines made of parts, CoNLL columns, SQuAD's articles."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxllm.data.lines import read_lines
from jaxllm.data.table_files import Refuse, Row, load_json, read_rows


def line_pattern(template: str) -> re.Pattern[str]:
    """What a line is made of, as a pattern; only texts may hold what stands between the parts."""
    pattern = ""
    for number, part in enumerate(re.split(r"\{(\w+)\}", template)):
        pattern += f"(?P<{part}>{'.*' if part.startswith('text') else '.*?'})" if number % 2 else re.escape(part)
    return compiled(pattern, "line")


def compiled(pattern: str, field: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{field} must be a regular expression, with each name once: got {pattern!r} ({error})") from error


def read_pattern(path: Path, encoding: str, template: str, refuse: Refuse) -> Iterator[Row]:
    pattern = line_pattern(template)
    for number, line in enumerate(read_lines(path, encoding), 1):
        place = f"{path}, line {number}"
        if (found := pattern.fullmatch(line)) is not None:
            yield Row(f"{path.name}:{number}", place, found.groupdict())
        elif line.strip():
            refuse(f"{place}: expected a line like {template!r}: got {line[:60]!r}")


def read_conll(path: Path, encoding: str, refuse: Refuse) -> Iterator[Row]:
    """A token a line, with its columns between tabs or spaces; a blank line ends a sentence.

    The columns are "1", "2" and so on; the first is also "tokens", the last "tags".
    """
    count: int | None = None
    sentence: list[list[str]] = []
    wrong: str | None = None
    for number, line in enumerate((*read_lines(path, encoding), ""), 1):
        if line.strip():
            cells = line.split("\t") if "\t" in line else line.split()
            if cells[0] == "-DOCSTART-":
                continue
            count = count or len(cells)
            if len(cells) != count or count < 2:
                wrong = wrong or f"{path}, line {number}: expected {max(count, 2)} columns, as on other lines: got {len(cells)}"
            sentence.append(cells)
            continue
        first = number - len(sentence)
        if wrong is not None:
            refuse(wrong)
        elif sentence:
            columns = [list(column) for column in zip(*sentence, strict=True)]
            values = {str(column): cells for column, cells in enumerate(columns, 1)}
            values |= {"tokens": columns[0], "tags": columns[-1]}
            yield Row(f"{path.name}:{first}", f"{path}, line {first}", values)
        sentence, wrong = [], None


def read_squad(path: Path, encoding: str, refuse: Refuse) -> Iterator[Row]:
    """SQuAD 1.1 and 2.0: articles of paragraphs with questions. Other JSON is read as rows."""
    try:
        whole = load_json(path, encoding)
    except json.JSONDecodeError:
        whole = None
    if not isinstance(whole, dict) or not isinstance(whole.get("data"), list):
        yield from read_rows(path, "json", encoding=encoding, header=True, choose=lambda columns: {}, refuse=refuse)
        return
    number = 0
    for position, article in enumerate(whole["data"], 1):
        place = f"{path}, object {position} of data"
        if not isinstance(article, dict) or "paragraphs" not in article:
            yield Row(f"{path.name}:{position}", place, article)
            continue
        try:
            found = [(paragraph["context"], question) for paragraph in article["paragraphs"] for question in paragraph["qas"]]
            values = [_squad_values(context, question) for context, question in found]
        except (TypeError, KeyError, AttributeError) as error:
            refuse(f'{place}: expected "paragraphs", each with its "context" and "qas": got others ({error})')
            continue
        for (_, question), each in zip(found, values, strict=True):
            number += 1
            name = question.get("id", number)
            yield Row(f"{path.name}:{name}", f"{path}, question {number} ({name})", each)


def _squad_values(context: Any, question: Any) -> dict[str, Any]:
    answers = [] if question.get("is_impossible") else question.get("answers")
    return {"context": context, "question": question.get("question"), "answers": answers}


def instances_of(row: Row) -> Iterator[Row]:
    """Self-Instruct keeps several inputs and outputs under one instruction."""
    instances = row.values.get("instances") if isinstance(row.values, dict) else None
    if not isinstance(instances, list) or not all(isinstance(each, dict) for each in instances):
        yield row
        return
    for instance in instances:
        yield Row(row.id, row.place, {**row.values, **instance})
