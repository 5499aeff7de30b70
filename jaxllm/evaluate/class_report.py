"""Precision, recall and F1 of each class, their averages, and which class was taken for which.

As scikit-learn's `classification_report` and `confusion_matrix` define them, and for entities seqeval's; where there is nothing
to divide by, a value is 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxllm.evaluate.metrics import Numbers, confusion_matrix, entities, f1

Of = Literal["class", "label", "entity"]


class ClassLine(NamedTuple):
    precision: float
    """Share of those found that are right."""
    recall: float
    """Share of those wanted that were found."""
    f1: float
    """The harmonic mean of both."""
    support: int
    """How many are wanted."""


@dataclass(frozen=True, kw_only=True)
class ClassReport:
    """How good predictions are, class by class."""

    of: Of
    """class: one an example; label: any number an example; entity: whole spans of words, by kind."""
    lines: Mapping[str, ClassLine]
    """By class, those that are wanted or found."""
    accuracy: float | None
    """Share of examples whose class is right; None where that is no question."""
    averages: Mapping[str, ClassLine]
    """By kind of average."""
    confusion: Int[np.ndarray, "C C"] | None
    """Examples of class i that were taken for class j, in the order of `lines`; None where an example has several or none."""

    def tree(self) -> dict[str, Any]:
        """As JSON has it."""
        found: dict[str, Any] = {
            "of": self.of,
            "classes": {name: line._asdict() for name, line in self.lines.items()},
            "accuracy": self.accuracy,
            "averages": {name: line._asdict() for name, line in self.averages.items()},
        }
        if self.confusion is not None:
            found["confusion"] = {"labels": list(self.lines), "counts": self.confusion.tolist()}
        return found


def class_report(wanted: Numbers, found: Numbers, names: Sequence[str]) -> ClassReport:
    """Of one class an example.

        class_report(np.array([0, 1, 1]), np.array([0, 1, 0]), ("bad", "good")).lines["good"].recall    # 0.5

    Args:
      names: of all classes; one that is neither wanted nor found is left out, as scikit-learn does.
    """
    counts = confusion_matrix(wanted, found, len(names))
    there = counts.sum(axis=0) + counts.sum(axis=1) > 0
    counts = counts[np.ix_(there, there)]
    table = _table(np.diag(counts), counts.sum(axis=0), counts.sum(axis=1))
    return ClassReport(
        of="class",
        lines=_lines([name for name, yes in zip(names, there, strict=True) if yes], table),
        accuracy=float(np.trace(counts) / max(counts.sum(), 1)),
        averages=_averages(table),
        confusion=counts,
    )


def label_report(wanted: Bool[np.ndarray, "n C"], found: Bool[np.ndarray, "n C"], names: Sequence[str]) -> ClassReport:
    """Of any number of labels an example. The average "samples" is that over examples."""
    right = wanted & found
    table = _table(*(each.sum(axis=0) for each in (right, found, wanted)))
    by_example = _table(*(each.sum(axis=1) for each in (right, found, wanted)))
    samples = ClassLine(*by_example[:, :3].mean(axis=0).tolist(), support=int(wanted.sum()))
    micro = _micro(right.sum(), found.sum(), wanted.sum())
    averages = {"micro": micro, **_averages(table), "samples": samples}
    return ClassReport(of="label", lines=_lines(names, table), accuracy=None, averages=averages, confusion=None)


def entity_report(wanted: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> ClassReport:
    """Of whole entities by kind, from tags such as B-PER, I-PER, O for each word of each text."""
    there = [(text, entity) for text, tags in enumerate(wanted) for entity in entities(tags)]
    here = [(text, entity) for text, tags in enumerate(found) for entity in entities(tags)]
    both = set(there) & set(here)
    names = sorted({entity.kind for _, entity in (*there, *here)})
    counts = [[sum(entity.kind == name for _, entity in each) for name in names] for each in (both, here, there)]
    table = _table(*np.array(counts, np.int64).reshape(3, -1))
    micro = _micro(len(both), len(here), len(there))
    averages = {"micro": micro, **_averages(table)} if names else {}
    return ClassReport(of="entity", lines=_lines(names, table), accuracy=None, averages=averages, confusion=None)


def _table(
    right: Int[np.ndarray, " C"], found: Int[np.ndarray, " C"], wanted: Int[np.ndarray, " C"]
) -> Float[np.ndarray, "C 4"]:
    """Precision, recall, F1 and support of each class."""
    return np.stack([right / np.maximum(found, 1), right / np.maximum(wanted, 1), f1(right, found, wanted), wanted], axis=1)


def _micro(right: int | np.integer, found: int | np.integer, wanted: int | np.integer) -> ClassLine:
    """Of all classes together."""
    (line,) = _lines(["micro"], _table(*np.array([[right], [found], [wanted]], np.int64))).values()
    return line


def _averages(table: Float[np.ndarray, "C 4"]) -> dict[str, ClassLine]:
    """macro: the mean over classes; weighted: each class as often as it is wanted."""
    support, total = table[:, 3], int(table[:, 3].sum())
    weighted = support @ table[:, :3] / max(total, 1)
    means = {"macro": table[:, :3].mean(axis=0), "weighted": weighted}
    return {name: ClassLine(*values.tolist(), support=total) for name, values in means.items()}


def _lines(names: Sequence[str], table: Float[np.ndarray, "C 4"]) -> dict[str, ClassLine]:
    rows = zip(names, table.tolist(), strict=True)
    return {name: ClassLine(*values, support=int(support)) for name, (*values, support) in rows}


def report_text(tree: Mapping[str, Any]) -> str:
    """A report as lines of text, from `ClassReport.tree`."""
    rows = [("", "precision", "recall", "F1", "support")]
    rows += [_row(name, line) for name, line in tree["classes"].items()]
    everything = sum(line["support"] for line in tree["classes"].values())
    if tree["accuracy"] is not None:
        rows.append(("accuracy", "", "", f"{tree['accuracy']:.4f}", f"{everything:,}"))
    rows += [_row(f"{name} average", line) for name, line in tree["averages"].items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]) for first, *others in rows)
    return "\n".join(line.rstrip() for line in lines)


def _row(name: str, line: Mapping[str, Any]) -> tuple[str, ...]:
    return name, *(f"{line[each]:.4f}" for each in ("precision", "recall", "f1")), f"{line['support']:,}"
