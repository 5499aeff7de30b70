"""The little language that says how the axes of a published tensor become ours, and back.

    "(N H) D -> D N H"

Left of the arrow are the axes of the published tensor, right those of ours, outermost first. A letter is one axis; letters
in parentheses are one axis that is made of them. A number is an axis of that size, so "(N I 2) D -> D N (2 I)" undoes an
interleaving; a 1 may be on one side only. Nothing is computed, so the way back is the same pattern with its sides swapped.
Sizes of letters come from the shape of our array.
"""

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Shaped

Group = tuple[str, ...]
Range = tuple[int, int]

_TOKEN = re.compile(r"\(|\)|[A-Za-z]\w*|\d+|\S")


@dataclass(frozen=True)
class Pattern:
    """A pattern taken apart; `parse` makes one."""

    text: str
    published: tuple[Group, ...]
    """The axes of the published tensor, each with the letters it is made of; a 1 is an axis of no letters."""
    ours: tuple[Group, ...]
    """The axes of our array, likewise."""

    def sizes(self, shape: Sequence[int]) -> dict[str, int]:
        """The size of each letter when our array has this shape.

        Raises:
          ValueError: the shape does not fit the pattern.
        """
        if len(shape) != len(self.ours):
            raise ValueError(f"pattern {self.text!r} is for arrays of {len(self.ours)} axes: got shape {tuple(shape)}")
        sizes = {letter: _number(letter) for group in self.ours for letter in group if letter[0].isdigit()}
        for group, size in zip(self.ours, shape, strict=True):
            known = math.prod(sizes[letter] for letter in group if letter in sizes)
            unknown = [letter for letter in group if letter not in sizes]
            if size % known or (not unknown and size != known):
                raise ValueError(
                    f"pattern {self.text!r} needs an axis of {'a multiple of ' * bool(unknown)}{known}: got {size}"
                )
            sizes |= {letter: size // known for letter in unknown}
        return sizes

    def published_shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        return _shape(self.published, sizes)

    def to_published(self, array: Shaped[np.ndarray, "..."], sizes: Mapping[str, int]) -> Shaped[np.ndarray, "..."]:
        """Our whole array as the published tensor."""
        letters = [letter for group in self.ours for letter in group]
        order = [letters.index(letter) for group in self.published for letter in group]
        return array.reshape([sizes[letter] for letter in letters]).transpose(order).reshape(self.published_shape(sizes))

    def read(
        self,
        wanted: Sequence[slice],
        sizes: Mapping[str, int],
        read: Callable[[tuple[slice, ...]], Shaped[np.ndarray, "..."]],
    ) -> Shaped[np.ndarray, "..."]:
        """The part `wanted` of our array; a view of what was read where that is possible.

        Args:
          wanted: one slice an axis of ours.
          read: gives a rectangle of the published tensor. Only what `wanted` needs is asked for.
        """
        chosen: dict[str, Range] = {}
        cuts = [_choose(group, sizes, piece, chosen) for group, piece in zip(self.ours, wanted, strict=True)]
        spans = [_spans(group, sizes, chosen) for group in self.published]
        counts = {letter: stop - start for letter, (start, stop) in chosen.items()}
        letters = [letter for group in self.published for letter in group]
        block = None
        for combination in itertools.product(*spans):
            piece = read(tuple(slice(*span.where) for span in combination))
            if all(len(group) == 1 for group in spans):
                block = piece.reshape([counts[letter] for letter in letters])
                break
            if block is None:
                block = np.empty([counts[letter] for letter in letters], piece.dtype)
            place = tuple(part for span in combination for part in (*span.outer, *[slice(None)] * span.inner))
            block[place] = piece.reshape(block[place].shape)
        assert block is not None
        order = [letters.index(letter) for group in self.ours for letter in group]
        return block.transpose(order).reshape(_shape(self.ours, counts))[tuple(cuts)]


@dataclass(frozen=True)
class _Span:
    """A stretch of one published axis that can be read at once."""

    outer: tuple[int, ...]
    """Where it goes: an index for each outer letter, counted from the first chosen one."""
    inner: int
    """How many letters it spans."""
    where: Range


def _choose(group: Group, sizes: Mapping[str, int], wanted: slice, chosen: dict[str, Range]) -> slice:
    """Puts the ranges of letters that cover `wanted` into `chosen`; returns what to keep of the axis they make."""
    if not group:
        return wanted
    whole = math.prod(sizes[letter] for letter in group)
    start, stop, _ = wanted.indices(whole)
    inner = whole // sizes[group[0]]
    first, last = start // inner, -(-stop // inner)
    chosen |= {letter: (0, sizes[letter]) for letter in group[1:]}
    chosen[group[0]] = (first, last)
    return slice(start - first * inner, stop - first * inner)


def _spans(group: Group, sizes: Mapping[str, int], chosen: Mapping[str, Range]) -> list[_Span]:
    """The stretches of an axis made of `group` that hold the chosen ranges, outer letters one by one where they must be."""
    if not group:
        return [_Span((), 0, (0, 1))]
    split = len(group) - 1  # the letters after this one are wanted whole, so its range is one stretch
    while split > 0 and chosen[group[split]] == (0, sizes[group[split]]):
        split -= 1
    block = math.prod(sizes[letter] for letter in group[split + 1 :])
    start, stop = chosen[group[split]]
    outer = group[:split]
    stretch = sizes[group[split]] * block
    spans = []
    for index in itertools.product(*(range(*chosen[letter]) for letter in outer)):
        base = 0
        for letter, i in zip(outer, index, strict=True):
            base = base * sizes[letter] + i
        relative = tuple(i - chosen[letter][0] for letter, i in zip(outer, index, strict=True))
        where = (base * stretch + start * block, base * stretch + stop * block)
        spans.append(_Span(relative, len(group) - split, where))
    return spans


def _shape(groups: Sequence[Group], sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(math.prod(sizes[letter] for letter in group) for group in groups)


def _number(letter: str) -> int:
    return int(letter.split("#")[0])


@lru_cache(maxsize=1024)
def parse(text: str) -> Pattern:
    """The pattern written in `text`.

    Raises:
      ValueError: not a pattern: says what is wrong with it.
    """
    sides = text.split("->")
    if len(sides) != 2:
        raise ValueError(f"a pattern has two sides with one -> between them: got {text!r}")
    pattern = Pattern(text, _parse_side(sides[0], text), _parse_side(sides[1], text))
    left, right = ({letter for group in side for letter in group} for side in (pattern.published, pattern.ours))
    if left != right:
        one_sided = min(left ^ right)
        side = "left" if one_sided in left else "right"
        letter = one_sided.split("#")[0]
        raise ValueError(f"pattern {text!r} must have the same letters on both sides: {letter} is on the {side} only")
    for group in pattern.ours:
        unknown = [letter for letter in group if not letter[0].isdigit()]
        if len(unknown) > 1:
            raise ValueError(
                f"pattern {text!r} leaves sizes open: {' and '.join(unknown)} share an axis of ours; "
                "write all but one as numbers"
            )
    return pattern


def _parse_side(side: str, text: str) -> tuple[Group, ...]:
    groups: list[list[str]] = []
    seen: list[str] = []
    inside = False
    for token in _TOKEN.findall(side):
        if token in "()":
            if inside == (token == "("):
                raise ValueError(f"pattern {text!r} must have balanced parentheses, none inside others")
            inside = token == "("
            groups += [[]] if inside else []
            continue
        if not token.isalnum():
            raise ValueError(f"a pattern has letters, numbers, parentheses and one ->: got {token!r} in {text!r}")
        if not inside:
            groups.append([])
        if token == "1":
            continue
        name = f"{token}#{seen.count(token)}" if token.isdigit() else token
        if name in seen:
            raise ValueError(f"pattern {text!r} has {token} twice on one side: give each axis its own letter")
        seen.append(token)
        groups[-1].append(name)
    if inside:
        raise ValueError(f"pattern {text!r} must have balanced parentheses, none inside others")
    return tuple(tuple(group) for group in groups)
