"""A recipe as JSON, and back, with every name and type checked."""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jaxllm.recipe.recipe import MAY_CHANGE, Recipe

T = TypeVar("T")
RECIPE_FILE = "recipe.json"
"""Of a run folder."""


def save_json(recipe: Recipe, path: Path) -> None:
    """Writes the recipe, every field of it, in one move."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(to_tree(recipe), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def to_tree(node: Any, hint: Any = None) -> Any:
    """A dataclass as nested dicts. Where its field may hold one of several, `type` says which, unless it is the first."""
    if not dataclasses.is_dataclass(node) or isinstance(node, type):
        return node
    hints = get_type_hints(type(node))
    tree = {field.name: to_tree(getattr(node, field.name), hints[field.name]) for field in dataclasses.fields(node)}
    choices = _choices(hint)
    return {"type": type(node).__name__} | tree if choices and type(node) is not choices[0] else tree


def _choices(hint: Any) -> list[type]:
    """The dataclasses that a field may hold."""
    return [each for each in (hint, *get_args(hint)) if dataclasses.is_dataclass(each) and isinstance(each, type)]


def load_json(path: Path) -> Recipe:
    """The recipe in a JSON file.

    Raises:
      ValueError: not JSON, an unknown field (with the nearest name), or a value of the wrong type.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must hold a recipe as JSON: {error}") from None
    return from_tree(Recipe, tree, "", str(path))


def from_tree(kind: type[T], tree: Any, where: str, source: str) -> T:
    """A dataclass from nested dicts."""
    if not isinstance(tree, dict):
        raise ValueError(f"{source}: {where or 'the recipe'} must be an object: got {tree!r}")
    hints = get_type_hints(kind)
    for name in tree:
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=1)
            hint = f"; did you mean {where}{near[0]}?" if near else f"; there are {', '.join(hints)}"
            raise ValueError(f"{source}: unknown field {where}{name}{hint}")
    values = {name: _value(hints[name], value, f"{where}{name}", source) for name, value in tree.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{source}: {where or 'the recipe'}: {error}") from None


def _value(hint: Any, value: Any, where: str, source: str) -> Any:
    if (choices := _choices(hint)) and (value is not None or not fits(None, hint)):
        return from_tree(_choice(choices, value, where, source), _untyped(value), f"{where}.", source)
    if isinstance(value, list):
        value = _as_tuple(value)
    if not fits(value, hint):
        raise ValueError(f"{source}: {where} must be {describe(hint)}: got {value!r}")
    wants_float = hint is float or float in get_args(hint)
    return float(value) if wants_float and isinstance(value, int) else value


def _as_tuple(value: Any) -> Any:
    """JSON's lists as the tuples that configs have, inner ones too."""
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _choice(choices: list[type], tree: Any, where: str, source: str) -> type:
    """Which of the dataclasses a tree describes."""
    name = tree.get("type") if isinstance(tree, dict) else None
    if name is None:
        return choices[0]
    for choice in choices:
        if choice.__name__ == name:
            return choice
    raise ValueError(f"{source}: {where}.type must be one of {', '.join(c.__name__ for c in choices)}: got {name!r}")


def _untyped(tree: Any) -> Any:
    return {name: value for name, value in tree.items() if name != "type"} if isinstance(tree, dict) else tree


def fits(value: Any, hint: Any) -> bool:
    """Whether a value may stand in a field of this type; a whole number may stand for a float."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, each) for each in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if origin is tuple:
        kinds = get_args(hint)
        if not isinstance(value, tuple):
            return False
        if len(kinds) == 2 and kinds[1] is Ellipsis:
            return all(fits(each, kinds[0]) for each in value)
        return len(value) == len(kinds) and all(fits(*pair) for pair in zip(value, kinds, strict=True))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def describe(hint: Any) -> str:
    """A type in words for a message."""
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(describe(each) for each in get_args(hint))
    if get_origin(hint) is tuple:
        return "a list of " + ", ".join(describe(each) for each in get_args(hint) if each is not Ellipsis)
    return names.get(hint) or getattr(hint, "__name__", str(hint))


def check_types(recipe: Recipe, source: str) -> None:
    """Refuses a recipe made in Python with a value of the wrong type."""
    for where, hint, value in _fields(recipe, ""):
        if not fits(value, hint):
            raise ValueError(f"{source}: {where} must be {describe(hint)}: got {value!r}")


def _fields(node: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    hints = typing.get_type_hints(type(node))
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            if len(_choices(hints[field.name])) > 1:
                yield f"{where}{field.name}.type", str, type(value).__name__
            yield from _fields(value, f"{where}{field.name}.")
        else:
            yield f"{where}{field.name}", hints[field.name], value


def differences(there: Recipe, here: Recipe) -> dict[str, tuple[Any, Any]]:
    """Fields that make two recipes different runs: name, value there, value here."""
    values_there, values_here = ({name: value for name, _, value in _fields(recipe, "")} for recipe in (there, here))
    return {
        name: (values_there.get(name), values_here.get(name))
        for name in values_there | values_here
        if values_there.get(name) != values_here.get(name)
        and not any(name == may or name.startswith(f"{may}.") for may in MAY_CHANGE)
    }
