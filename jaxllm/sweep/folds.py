"""The training split in parts, of which each in turn is held out: k-fold cross-validation by TFDS slices."""

from collections.abc import Sequence
from itertools import pairwise

import tensorflow_datasets as tfds

from jaxllm.data.source import find_set, open_builder
from jaxllm.data.task_data import Records
from jaxllm.recipe import Recipe

CONTEXT = "context"
"""Feature with a text that several records ask about."""
STRETCHES = 10
"""Pieces of a fold, spread evenly over the split: a set may stand in the order of its classes or its sources."""

Piece = tuple[str, int, int]
"""Split, first record, and the one after the last."""


def fold_splits(recipe: Recipe, folds: int) -> list[tuple[str, str]]:
    """For each fold the slices to train on and to evaluate on, such as ("train[0:80]+train[90:100]", "train[80:90]").

    Raises:
      ValueError: the training split has too few records, or too few texts that they ask about.
    """
    data = recipe.data
    found = find_set(data.dataset, data_dir=data.data_dir)
    found.check(data.train_split)
    infos = open_builder(found.folder).info.splits
    pieces = [
        (part.splitname, part.from_ or 0, infos[part.splitname].num_examples if part.to is None else part.to)
        for part in tfds.core.ReadInstruction.from_spec(data.train_split).to_absolute(infos)
    ]
    count = sum(stop - start for _, start, stop in pieces)
    if count < folds:
        raise ValueError(f"--folds must be at most the {count:,} records of {data.train_split!r}: got {folds}")
    blocks = folds * min(STRETCHES, count // folds)
    owners = [block % folds for block in range(blocks) for _ in range(block * count // blocks, (block + 1) * count // blocks)]
    if CONTEXT in found.features:
        owners = _together(owners, [record[CONTEXT] for record in Records(found.folder, data.train_split)])
    parts = _parts(pieces, owners, folds)
    if not all(train and held_out for train, held_out in parts):
        raise ValueError(f"--folds must be at most the texts of {data.train_split!r} that are asked about: got {folds}")
    return [(_spec(train), _spec(held_out)) for train, held_out in parts]


def _together(owners: Sequence[int], contexts: Sequence[str]) -> list[int]:
    """The fold of each record: questions about one text are where the first of them is."""
    first: dict[str, int] = {}
    return [first.setdefault(text, owner) if text else owner for owner, text in zip(owners, contexts, strict=True)]


def _parts(pieces: Sequence[Piece], owners: Sequence[int], folds: int) -> list[tuple[list[Piece], list[Piece]]]:
    """Each fold with what is left without it; `owners` says the fold of each record."""
    ends = [place for place in range(1, len(owners)) if owners[place] != owners[place - 1]]
    stretches = [(owners[start], _cut(pieces, start, stop)) for start, stop in pairwise([0, *ends, len(owners)])]
    return [
        (
            [piece for owner, stretch in stretches if owner != fold for piece in stretch],
            [piece for owner, stretch in stretches if owner == fold for piece in stretch],
        )
        for fold in range(folds)
    ]


def _cut(pieces: Sequence[Piece], start: int, stop: int) -> list[Piece]:
    """The records `start` to `stop` of the pieces put together."""
    found, passed = [], 0
    for split, first, last in pieces:
        low, high = max(start - passed, 0), min(stop - passed, last - first)
        if low < high:
            found.append((split, first + low, first + high))
        passed += last - first
    return found


def _spec(pieces: Sequence[Piece]) -> str:
    """As TFDS writes it; neighbours are one."""
    joined: list[Piece] = []
    for split, start, stop in pieces:
        if joined and joined[-1][0] == split and joined[-1][2] == start:
            split, start, _ = joined.pop()
        joined.append((split, start, stop))
    return "+".join(f"{split}[{start}:{stop}]" for split, start, stop in joined)
