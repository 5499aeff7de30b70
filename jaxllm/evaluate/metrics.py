"""Metrics of predictions on labelled examples, as scikit-learn, SciPy and seqeval define them, with intervals.

A metric is a function of the numbers of the examples that count, so that its bootstrap interval (Efron 1979) is the same
function of examples drawn with replacement.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

Numbers = Int[np.ndarray, " n"]
Statistic = Callable[[Numbers], float]
RESAMPLES = 1000


class Measured(NamedTuple):
    value: float
    low: float
    """Below it lie 2.5 % of the values of examples drawn anew."""
    high: float
    """Above it lie 2.5 %."""


@dataclass(frozen=True)
class Scores:
    """What some predictions are worth: a function for each metric."""

    count: int
    """Examples."""
    statistics: Mapping[str, Statistic]

    def values(self) -> dict[str, float]:
        """Each metric over all examples."""
        everything = np.arange(self.count)
        return {name: statistic(everything) for name, statistic in self.statistics.items()}

    def measured(self, seed: int = 0) -> dict[str, Measured]:
        """Each metric with its 95 % interval, the same for the same seed."""
        random = np.random.default_rng(seed)
        drawn: dict[str, list[float]] = {name: [] for name in self.statistics}
        for _ in range(RESAMPLES):
            numbers = random.integers(0, self.count, self.count)
            for name, statistic in self.statistics.items():
                drawn[name].append(statistic(numbers))
        ends = {name: np.quantile(values, [0.025, 0.975]) for name, values in drawn.items()}
        return {name: Measured(value, *map(float, ends[name])) for name, value in self.values().items()}


def mean_of(values: Float[np.ndarray, " n"] | Bool[np.ndarray, " n"]) -> Statistic:
    """The mean of one value an example, such as accuracy of [right]."""
    return lambda numbers: float(values[numbers].mean())


def confusion_matrix(wanted: Numbers, found: Numbers, classes: int) -> Int[np.ndarray, "C C"]:
    """Examples of class i that were taken for class j."""
    return np.bincount(wanted * classes + found, minlength=classes * classes).reshape(classes, classes)


def class_scores(wanted: Numbers, found: Numbers, classes: int) -> dict[str, Statistic]:
    """Of one class an example."""
    return {
        "accuracy": mean_of(wanted == found),
        "macro_f1": lambda numbers: macro_f1(confusion_matrix(wanted[numbers], found[numbers], classes)),
        "matthews": lambda numbers: matthews(confusion_matrix(wanted[numbers], found[numbers], classes)),
    }


def f1(right: Int[np.ndarray, "*C"], found: Int[np.ndarray, "*C"], wanted: Int[np.ndarray, "*C"]) -> Float[np.ndarray, "*C"]:
    """2 · right / (found + wanted); 0 where there is neither."""
    return 2 * right / np.maximum(found + wanted, 1)


def macro_f1(confusion: Int[np.ndarray, "C C"]) -> float:
    """The mean of F1 over the classes that are wanted or found."""
    found, wanted = confusion.sum(axis=0), confusion.sum(axis=1)
    there = found + wanted > 0
    return float(f1(np.diag(confusion)[there], found[there], wanted[there]).mean())


def matthews(confusion: Int[np.ndarray, "C C"]) -> float:
    """The correlation of wanted and found classes (Gorodkin 2004); 0 where either are all the same."""
    found, wanted = confusion.sum(axis=0).astype(float), confusion.sum(axis=1).astype(float)
    count = confusion.sum()
    spread = (count**2 - found @ found) * (count**2 - wanted @ wanted)
    return float((np.trace(confusion) * count - found @ wanted) / np.sqrt(spread)) if spread > 0 else 0.0


def set_scores(wanted: Bool[np.ndarray, "n C"], found: Bool[np.ndarray, "n C"]) -> dict[str, Statistic]:
    """Of several classes an example; accuracy counts those where all are right."""

    def counts(numbers: Numbers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return (wanted & found)[numbers].sum(axis=0), found[numbers].sum(axis=0), wanted[numbers].sum(axis=0)

    return {
        "accuracy": mean_of((wanted == found).all(axis=1)),
        "macro_f1": lambda numbers: float(f1(*counts(numbers)).mean()),
        "micro_f1": lambda numbers: float(f1(*(each.sum(keepdims=True) for each in counts(numbers)))[0]),
    }


def correlation_scores(wanted: Float[np.ndarray, " n"], found: Float[np.ndarray, " n"]) -> dict[str, Statistic]:
    """Of one number an example."""
    return {
        "pearson": lambda numbers: pearson(wanted[numbers], found[numbers]),
        "spearman": lambda numbers: pearson(ranks(wanted[numbers]), ranks(found[numbers])),
    }


def pearson(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """The correlation of two rows of numbers; 0 where either are all the same."""
    a, b = a - a.mean(), b - b.mean()
    length = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / length) if length > 0 else 0.0


def ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Places in ascending order; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


class Entity(NamedTuple):
    kind: str
    begin: int
    end: int
    """One past its last word."""


def entities(tags: Sequence[str]) -> set[Entity]:
    """The spans that tags such as B-PER, I-PER, O mean, as seqeval's default mode reads them: an I or E without a running
    entity of its kind begins one; S is one by itself."""
    found, begin, kind, open_ended = set(), 0, "", False
    for place, tag in enumerate([*tags, "O"]):
        mark, own = tag[:1], tag[1:].split("-", 1)[-1] or "_"
        goes_on = open_ended and mark not in "BSO" and own == kind
        if not goes_on:
            if kind:
                found.add(Entity(kind, begin, place))
            begin, kind = place, "" if mark == "O" else own
        open_ended = bool(kind) and mark not in "ES"
    return found


def entity_scores(wanted: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> dict[str, Statistic]:
    """Of tags for each word of each text: precision, recall and F1 of whole entities, and the share of tags that are right."""
    table = np.zeros((len(wanted), 5))
    for row, texts in enumerate(zip(wanted, found, strict=True)):
        there, here = (entities(tags) for tags in texts)
        right = sum(a == b for a, b in zip(*texts, strict=True))
        table[row] = len(there & here), len(here), len(there), right, len(texts[0])

    def statistic(compute: Callable[..., float]) -> Statistic:
        return lambda numbers: float(compute(*table[numbers].sum(axis=0)))

    return {
        "entity_f1": statistic(lambda right, here, there, *_: 2 * right / max(here + there, 1)),
        "entity_precision": statistic(lambda right, here, *_: right / max(here, 1)),
        "entity_recall": statistic(lambda right, _, there, *__: right / max(there, 1)),
        "accuracy": statistic(lambda *counts: counts[3] / max(counts[4], 1)),
    }
