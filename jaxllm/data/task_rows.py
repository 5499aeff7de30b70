"""From what stands under each role of a row to the example of a task, checked, and how its parts are written.

Under a role stands the value of one column, or, of several, a tuple of (column, value).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxllm.data.table_files import Refuse, WrongRow
from jaxllm.data.task_labels import Labels
from jaxllm.data.tfds_builder import Features, Label


@dataclass
class Reading:
    """What the conversion of rows needs, and what it counts."""

    labels: Labels
    refuse: Refuse
    """Takes what is wrong with a part of the present row, which can do without it."""
    token_pattern: re.Pattern[str] | None = None
    answers_moved: int = 0
    """Answers that stand in their context, at another place than the file says."""


def features_of(example: Mapping[str, Any], labels: Labels) -> Features:
    """How the parts of an example are written."""

    def feature(name: str, value: Any) -> Label | tfds.features.FeatureConnector | None:
        match name:
            case "label":
                return Label(labels.names) if isinstance(value, str) else tfds.features.Scalar(np.float32)
            case "labels" | "tags":
                return tfds.features.Sequence(tfds.features.ClassLabel(names=list(labels.names)))
            case "tokens" | "targets":
                return tfds.features.Sequence(tfds.features.Text())
            case "answers":
                parts = {"text": tfds.features.Text(), "start": np.int32}
                return tfds.features.FeaturesDict({key: tfds.features.Sequence(part) for key, part in parts.items()})
            case _:
                return None

    return {name: feature(name, value) for name, value in example.items()}


def classification_of(values: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    texts = _texts(values, "text", "text_pair")
    if "label" in values:
        return texts | {"label": reading.labels.name(values["label"])}
    return texts | {"labels": _several_labels(values["labels"], reading.labels)}


def _several_labels(value: Any, labels: Labels) -> list[str]:
    """A list, names with commas between, or a column of 0 and 1 for each class."""
    if isinstance(value, tuple):
        names = [labels.name(column) for column, _ in value]
        numbers = [_number(cell, column) for column, cell in value]
        if any(number not in (0, 1) for number in numbers):
            raise WrongRow(f"expected 0 or 1 under {', '.join(column for column, _ in value)}: got {numbers}")
        return [name for name, number in zip(names, numbers, strict=True) if number]
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    if not isinstance(value, list):
        raise WrongRow(f"expected a list of labels: got {value!r}")
    return [labels.name(each) for each in value]


def regression_of(values: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    return _texts(values, "text", "text_pair") | {"label": _number(values["label"], "label")}


def pairs_of(values: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    texts = _texts(values, "text", "text_pair", "negative")
    if "score" in values:
        return texts | {"label": _number(values["score"], "score")}
    return texts | ({"label": reading.labels.name(values["label"])} if "label" in values else {})


def tokens_of(values: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    tokens, tags = values["tokens"], values["tags"]
    if not isinstance(tokens, list) or not isinstance(tags, list) or not tokens or len(tokens) != len(tags):
        sizes = [len(each) if isinstance(each, list) else type(each).__name__ for each in (tokens, tags)]
        raise WrongRow(f"expected tokens and as many tags: got {sizes[0]} and {sizes[1]}")
    return {
        "tokens": [_token(token, reading.token_pattern) for token in tokens],
        "tags": [reading.labels.name(tag) for tag in tags],
    }


def _token(token: Any, pattern: re.Pattern[str] | None) -> str:
    if not isinstance(token, str) or not token:
        raise WrongRow(f"expected text as a token: got {token!r}")
    if pattern is None:
        return token
    if (found := pattern.fullmatch(token)) is None:
        raise WrongRow(f"expected tokens like {pattern.pattern!r}: got {token!r}")
    return found[1]


def text_to_text_of(values: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    text = _texts(values, "text")
    if "target" in values:
        return text | _texts(values, "target")
    targets = values["targets"]
    if isinstance(targets, tuple):
        targets = [cell for _, cell in targets]
    targets = [_text(target, "targets") for target in (targets if isinstance(targets, list) else [targets])]
    if not targets:
        raise WrongRow("expected one target or more: got none")
    return text | {"target": targets[0], "targets": targets}


def question_of(values: Mapping[str, Any], reading: Reading) -> dict[str, Any] | None:
    texts = _texts(values, "context", "question")
    texts_kept: list[str] = []
    starts: list[int] = []
    answers = _answers(values["answers"])
    for answer, start in answers:
        found = _find(answer, start, texts["context"])
        if found is None:
            reading.refuse(f"expected an answer that stands in its context: got {answer[:60]!r}")
            continue
        reading.answers_moved += start is not None and found != start
        texts_kept.append(answer)
        starts.append(found)
    if answers and not starts:
        return None
    return texts | {"answers": {"text": texts_kept, "start": starts}}


def _answers(value: Any) -> list[tuple[str, int | None]]:
    """Texts and where they begin, of any of: a text, a list of texts, SQuAD's list of objects, an object of two lists."""
    if value is None:
        return []
    pairs: list[tuple[Any, Any]]
    if isinstance(value, Mapping):
        starts = value.get("answer_start", value.get("start"))
        texts = value.get("text")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise WrongRow(f'expected answers as {{"text": [...], "answer_start": [...]}}: got {str(value)[:60]!r}')
        pairs = list(zip(texts, starts, strict=True))
    elif isinstance(value, list):
        pairs = [(each.get("text"), each.get("answer_start")) if isinstance(each, Mapping) else (each, None) for each in value]
    else:
        pairs = [(value, None)] if value != "" else []
    for text, start in pairs:
        if not isinstance(text, str) or not text.strip() or not isinstance(start, int | None):
            raise WrongRow(f"expected an answer's text and where it begins: got {text!r} and {start!r}")
    return pairs


def _find(answer: str, start: int | None, context: str) -> int | None:
    """Where the answer begins: where the file says, else the place nearest to that."""
    if start is not None and start >= 0 and context.startswith(answer, start):
        return start
    places = [found.start() for found in re.finditer(f"(?={re.escape(answer)})", context)]
    return min(places, key=lambda place: abs(place - (start or 0)), default=None)


def _texts(values: Mapping[str, Any], *roles: str) -> dict[str, str]:
    return {role: _text(values[role], role) for role in roles if role in values}


def _text(value: Any, role: str) -> str:
    """A text, or several of them (a list, or columns) with spaces between."""
    parts = [cell for _, cell in value] if isinstance(value, tuple) else value if isinstance(value, list) else [value]
    for part in parts:
        if not isinstance(part, str):
            raise WrongRow(f"expected text under {role!r}: got {part!r}"[:200])
    text = " ".join(part for part in parts if part.strip())
    if not text.strip():
        raise WrongRow(f"expected text under {role!r}: got an empty one")
    return text


def _number(value: Any, role: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise WrongRow(f"expected a number under {role!r}: got {value!r}")
    return number
