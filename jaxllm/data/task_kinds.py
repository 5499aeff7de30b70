"""The kinds of tasks: the roles that the columns of a file may play, and what makes an example of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxllm.data.chat_files import chat_of, preference_of
from jaxllm.data.table_files import WrongRow
from jaxllm.data.task_rows import Reading, classification_of, pairs_of, question_of, regression_of, text_to_text_of, tokens_of


@dataclass(frozen=True)
class Kind:
    """A kind of task: what its columns may be, and how a row becomes an example."""

    roles: Mapping[str, tuple[str, ...]]
    """The columns that are taken for each role where none is named, the first that is there."""
    needs: tuple[tuple[str, ...], ...]
    """The roles that must be there: all of one of these groups."""
    convert: Callable[[Mapping[str, Any], Reading], dict[str, Any] | None]
    """From what stands under each role to an example; None leaves it out. Of several columns a tuple of (column, value)."""


_SPARSE = ("tools", "system", "input", "history")
"""Roles that some JSON objects of a file may be without."""


def roles_of(kind: Kind, given: Mapping[str, str], columns: Sequence[str], numbers: int = 0) -> dict[str, tuple[str, ...]]:
    """The columns of each role.

    Args:
      given: A column for each role, or several with + between.
      numbers: So many columns can also be named by their number.
    """
    there = {*columns, *map(str, range(1, numbers + 1))}
    found: dict[str, tuple[str, ...]] = {}
    for role, aliases in kind.roles.items():
        if role in given:
            found[role] = (given[role],) if given[role] in there else tuple(given[role].split("+"))
            missing = [name for name in found[role] if name not in there]
            if missing and role in _SPARSE and not numbers:
                del found[role]
            elif missing:
                raise WrongRow(f"expected the column {missing[0]!r}: it has {_listed(columns)}; choose with --columns")
        elif not given:
            found |= next(({role: (name,)} for name in aliases if name in there), {})
    for group in kind.needs:
        if all(role in found for role in group):
            others = {role for other in kind.needs for role in other} - set(group)
            return {role: names for role, names in found.items() if role not in others}
    missing = next(role for role in kind.needs[0] if role not in found)
    raise WrongRow(f"found no column for {missing}: it has {_listed(columns)}; name them, as in --columns {missing}=COLUMN")


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(str(column)[:40] for column in columns) or "no columns"


def values_of(row: Any, roles: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """What stands under each role."""
    return {role: row[names[0]] if len(names) == 1 else tuple((n, row[n]) for n in names) for role, names in roles.items()}


_TEXT = ("text", "sentence", "sentence1", "review", "content", "premise", "question1")
_PAIR = ("text_pair", "sentence2", "hypothesis", "question2")
_PROMPT = {
    "messages": ("messages", "conversations", "conversation"),
    "prompt": ("prompt", "instruction", "question"),
    "input": ("input",),
    "system": ("system",),
    "history": ("history",),
}
KINDS: Mapping[str, Kind] = {
    "classification": Kind(
        {"text": _TEXT, "text_pair": _PAIR, "label": ("label", "class"), "labels": ("labels",)},
        (("text", "label"), ("text", "labels")),
        classification_of,
    ),
    "regression": Kind({"text": _TEXT, "text_pair": _PAIR, "label": ("label", "score")}, (("text", "label"),), regression_of),
    "tokens": Kind({"tokens": ("tokens", "words"), "tags": ("tags", "ner_tags", "labels")}, (("tokens", "tags"),), tokens_of),
    "qa": Kind(
        {"context": ("context",), "question": ("question",), "answers": ("answers", "answer")},
        (("context", "question", "answers"),),
        question_of,
    ),
    "text-to-text": Kind(
        {
            "text": ("text", "source", "document", "article", "dialogue", "input"),
            "target": ("target", "summary", "output"),
            "targets": ("targets", "references"),
        },
        (("text", "target"), ("text", "targets")),
        text_to_text_of,
    ),
    "pairs": Kind(
        {
            "text": (*_TEXT, "anchor", "query"),
            "text_pair": (*_PAIR, "positive"),
            "negative": ("negative",),
            "score": ("score",),
            "label": ("label",),
        },
        (("text", "text_pair"),),
        pairs_of,
    ),
    "chat": Kind(
        _PROMPT | {"response": ("response", "output", "completion", "answer"), "tools": ("tools",)},
        (("messages",), ("prompt", "response")),
        lambda values, reading: chat_of(values),
    ),
    "preference": Kind(
        _PROMPT | {"chosen": ("chosen",), "rejected": ("rejected",)},
        (("messages", "chosen", "rejected"), ("prompt", "chosen", "rejected"), ("chosen", "rejected")),
        lambda values, reading: preference_of(values),
    ),
}
