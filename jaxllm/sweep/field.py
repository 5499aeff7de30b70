"""Fields of a recipe by their dotted names: which there are, a value for one from text, and a recipe with other values."""

import dataclasses
import difflib
import math
import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jaxllm.recipe import Recipe
from jaxllm.recipe.serialize import describe, fits

T = TypeVar("T")
Value = bool | int | float | str | None
"""What a field that can be searched holds."""

FIXED = ("name", "run_dir", "seed", "evaluate", "checkpoint", "log", "profile", "sample", "watch")
"""Fields, or groups of them, that are the same in all runs of a sweep: they decide how runs are compared and kept."""


def field_hint(recipe: Recipe, field: str) -> Any:
    """The type of a field that may differ from run to run.

    Raises:
      ValueError: no such field, with the nearest, or one that a sweep does not change.
    """
    hints = dict(_hints(recipe, ""))
    if field not in hints:
        groups = [name for name in hints if name.startswith(f"{field}.")]
        if groups:
            raise ValueError(f"{field} is a group of fields: name one of them, such as {groups[0]}")
        near = difflib.get_close_matches(field, hints, n=1)
        raise ValueError(f"unknown field {field}: " + (f"did you mean {near[0]}?" if near else "see recipe.json of a run"))
    if field == "seed":
        raise ValueError("seed is not searched: several seeds are run by --seeds 0,1,2")
    if any(field == name or field.startswith(f"{name}.") for name in FIXED):
        raise ValueError(f"{field} is not searched: it must be the same in all trials; give it as --{dashed(field)} VALUE")
    return hints[field]


def read_value(hint: Any, field: str, text: str) -> Value:
    """The value that a text means for a field of this type."""
    for value in _meanings(text.strip()):
        if isinstance(value, int) and not isinstance(value, bool) and _holds(hint, float) and not _holds(hint, int):
            return float(value)
        if fits(value, hint):
            return value
    raise ValueError(f"{field} must be {describe(hint)}: got {text.strip()!r}")


def is_number(hint: Any) -> bool:
    """Whether a field takes any number, whole or not."""
    return _holds(hint, int) or _holds(hint, float)


def with_values(node: T, values: Mapping[str, Any]) -> T:
    """The recipe with other values in some fields, put in together.

    Raises:
      ValueError: the recipe refuses them.
    """
    groups: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        head, _, rest = name.partition(".")
        groups.setdefault(head, {})[rest] = value
    changes = {name: inner[""] if "" in inner else with_values(getattr(node, name), inner) for name, inner in groups.items()}
    return dataclasses.replace(node, **changes)  # type: ignore[type-var]


def value_of(recipe: Recipe, field: str) -> Any:
    node: Any = recipe
    for name in field.split("."):
        node = getattr(node, name)
    return node


def as_options(recipe: Recipe, values: Mapping[str, Value]) -> list[str]:
    """The words of a command that put these values in."""
    hints, words = dict(_hints(recipe, "")), []
    for field, value in values.items():
        group, dot, last = dashed(field).rpartition(".")
        if hints[field] is bool:
            words.append(f"--{group}{dot}{last}" if value else f"--{group}{dot}no-{last}")
        else:
            words += [f"--{group}{dot}{last}", as_text(value)]
    return words


def as_text(value: Value) -> str:
    """As it is typed."""
    return repr(value) if isinstance(value, float) else str(value)


def dashed(field: str) -> str:
    return field.replace("_", "-")


def _hints(node: Any, where: str) -> Iterator[tuple[str, Any]]:
    hints = get_type_hints(type(node))
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            yield from _hints(value, f"{where}{field.name}.")
        else:
            yield f"{where}{field.name}", hints[field.name]


def _meanings(text: str) -> Iterator[Value]:
    if text.lower() in ("none", "null"):
        yield None
    if text.lower() in ("true", "false"):
        yield text.lower() == "true"
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if math.isfinite(value):
            yield value
    yield text


def _holds(hint: Any, kind: type) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return any(_holds(each, kind) for each in get_args(hint))
    return hint is kind and get_origin(hint) is not Literal
