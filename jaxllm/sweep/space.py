"""What a search may choose from: for each field a range of numbers, or some values."""

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from jaxllm.recipe import Recipe
from jaxllm.recipe.pretrained import with_rate
from jaxllm.sweep.field import Value, as_text, field_hint, is_number, read_value, value_of, with_values

MOST_COMBINATIONS = 4096
"""So many combinations are tried on the recipe, to see which values it refuses in all of them."""
DIGITS = 4
"""Of a number that is drawn from a range of numbers that need not be whole: what is printed is what is run."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from `low` to `high`, both among them."""

    field: str
    """Dotted name in the recipe."""
    low: int | float
    high: int | float
    log: bool = False
    """Drawn evenly by their logarithm."""
    whole: bool = False
    """Only whole numbers."""

    @property
    def text(self) -> str:
        return f"{self.field}={as_text(self.low)}..{as_text(self.high)}{':log' * self.log}"

    @property
    def ends(self) -> tuple[Value, ...]:
        return (self.low, self.high)

    @property
    def every(self) -> Sequence[Value] | None:
        """All that can be drawn; None where that cannot be counted."""
        return range(int(self.low), int(self.high) + 1) if self.whole else None

    def holds(self, value: Value) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def rounded(self, drawn: int | float) -> int | float:
        """As it is run."""
        if self.whole:
            return int(drawn)
        return min(max(float(f"{drawn:.{DIGITS}g}"), self.low), self.high)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of some values, without an order."""

    field: str
    """Dotted name in the recipe."""
    values: tuple[Value, ...]

    @property
    def text(self) -> str:
        return f"{self.field}={','.join(map(as_text, self.values))}"

    @property
    def ends(self) -> tuple[Value, ...]:
        return self.values

    @property
    def every(self) -> Sequence[Value]:
        return self.values

    def holds(self, value: Value) -> bool:
        return as_text(value) in self.labels

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(map(as_text, self.values))


Space = tuple[Range | Choice, ...]


def read_space(recipe: Recipe, texts: Sequence[str]) -> Space:
    """What `FIELD=LOW..HIGH`, `FIELD=LOW..HIGH:log` and `FIELD=a,b,c` mean for this recipe.

        read_space(recipe, ["optimizer.learning_rate=1e-4..1e-2:log", "batch_size=8,16"])

    Raises:
      ValueError: an unknown field, a value of the wrong type, or one that the recipe refuses whatever the others are.
    """
    space = tuple(_read(recipe, text) for text in texts)
    fields = [each.field for each in space]
    for field in fields:
        if fields.count(field) > 1:
            raise ValueError(f"each field can be searched once: got {field} {fields.count(field)} times; join its values")
    check_space(recipe, space)
    return space


def _read(recipe: Recipe, text: str) -> Range | Choice:
    name, equals, wanted = text.partition("=")
    field = name.strip().lstrip("-").replace("-", "_")
    if not equals or not wanted.strip():
        raise ValueError(f"--search needs FIELD=LOW..HIGH, FIELD=LOW..HIGH:log or FIELD=A,B,C: got {text!r}")
    hint = field_hint(recipe, field)
    found = re.fullmatch(r"([^,]+?)\.\.([^,:]+)(?::(\w*))?", wanted.strip())
    if found and is_number(hint):
        if found[3] not in (None, "log"):
            raise ValueError(f"a range is LOW..HIGH or LOW..HIGH:log: got {wanted!r} for {field}")
        return _range(field, read_value(hint, field, found[1]), read_value(hint, field, found[2]), found[3] == "log")
    values = tuple(read_value(hint, field, word) for word in wanted.split(","))
    if len(set(map(as_text, values))) < len(values):
        raise ValueError(f"the values of {field} must differ: got {wanted}")
    if len(values) < 2:
        raise ValueError(f"a search needs two values of {field} or more: got {wanted}; one alone is --{name.strip()} {wanted}")
    return Choice(field=field, values=values)


def _range(field: str, low: Value, high: Value, log: bool) -> Range:
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        raise ValueError(f"a range of {field} must be between numbers: got {low} and {high}")
    if low >= high:
        raise ValueError(f"a range of {field} must go from the lower number to the higher: got {low} to {high}")
    if log and low <= 0:
        raise ValueError(f"a logarithmic range of {field} must begin above 0: got {low}")
    return Range(field=field, low=low, high=high, log=log, whole=isinstance(low, int) and isinstance(high, int))


def check_space(recipe: Recipe, space: Space) -> None:
    """Refuses a value, or the end of a range, with which the recipe is impossible whatever the other fields are."""
    if math.prod(len(each.ends) for each in space) <= MOST_COMBINATIONS:
        tried = [
            dict(zip((e.field for e in space), values, strict=True)) for values in itertools.product(*(e.ends for e in space))
        ]
    else:
        tried = [{each.field: value} for each in space for value in each.ends]
    possible: set[tuple[str, str]] = set()
    refused: dict[tuple[str, str], str] = {}
    for values in tried:
        named = [(field, as_text(value)) for field, value in values.items()]
        try:
            with_values(recipe, values)
            possible.update(named)
        except ValueError as error:
            refused |= {each: str(error) for each in named if each not in refused}
    wrong = {each: why for each, why in refused.items() if each not in possible}
    for (field, value), why in wrong.items():
        if len({name for name, _ in wrong}) == 1 or field in why or field.rpartition(".")[2] in why:
            raise ValueError(f"--search {field}: the recipe refuses {value}: {why}")
    if wrong:
        raise ValueError(f"--search: the recipe refuses every combination: {next(iter(wrong.values()))}")


def own_values(recipe: Recipe, space: Space) -> dict[str, Value] | None:
    """The recipe's own values of the fields, where all are among those to choose from."""
    recipe = with_rate(recipe)
    values = {each.field: value_of(recipe, each.field) for each in space}
    return values if all(each.holds(values[each.field]) for each in space) else None
