"""A class report and its confusion matrix as markup for a page, from `ClassReport.tree`."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

MOST_IN_MATRIX = 20
"""Classes of a matrix that is drawn; of more, the pairs that are confused most are listed."""
MOST_WITH_SHARE = 10
"""Classes of a matrix whose cells have room for their share of the row."""
MOST_OPEN = 30
"""Classes of a report that is shown whole."""
PAIRS = 20
COLUMNS = ("precision", "recall", "f1")
MOST_ACROSS = 8
"""Columns whose names stand across; of more they stand upright."""

STYLE = """
:root { --right: #2f6fde; --wrong: #d9622b; --most: 70%; }
@media (prefers-color-scheme: dark) { :root { --right: #2f6fde; --wrong: #b5501f; --most: 85%; } }
.scroll { overflow-x: auto; }
.grid { width: 100%; }
.grid th, .grid td { padding: .3rem 0 .3rem 1rem; text-align: right; white-space: nowrap; width: auto; }
.grid th:first-child, .grid td:first-child { padding-left: 0; text-align: left; white-space: normal; }
.grid tr.rule > * { border-top: 2px solid var(--faint); }
.grid.pairs th:nth-child(2), .grid.pairs td:nth-child(2) { text-align: left; }
.grid small, .heat small { font-size: .8em; opacity: .8; }
.heat { width: auto; border-collapse: separate; border-spacing: 2px; }
.heat th { width: auto; border: 0; padding: .25rem .5rem; text-align: right; white-space: nowrap; vertical-align: middle; }
.heat thead td { background: none; }
.heat thead th { text-align: center; vertical-align: bottom; overflow-wrap: normal; white-space: normal; max-width: 7rem; }
.heat.upright thead th { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left; vertical-align: middle;
  white-space: nowrap; max-width: none; }
.heat td { border: 0; border-radius: .25rem; text-align: center; min-width: 3.25rem; padding: .35rem .4rem;
  background: color-mix(in srgb, var(--heat, var(--right)) calc(var(--share) * var(--most)), var(--card)); }
.heat td.miss { --heat: var(--wrong); }
.note { color: var(--ink); font-size: .9rem; margin: .5rem 0 0; max-width: 46rem; }
h3 { font-size: .95rem; font-weight: 600; margin: 1.5rem 0 .5rem; }
"""


def grid(head: Sequence[str], rows: Iterable[Sequence[str]], *, rule_before: int | None = None, kind: str = "grid") -> str:
    """A table of numbers, from markup.

    Args:
      rule_before: the row with a line above it.
      kind: its class in the style.
    """
    top = "".join(f"<th>{cell}</th>" for cell in head)
    lines = []
    for number, row in enumerate(rows):
        cells = "".join(f"<td>{cell}</td>" for cell in row)
        ruled = ' class="rule"' if number == rule_before else ""
        lines.append(f"<tr{ruled}>{cells}</tr>")
    body = "\n".join(lines)
    return f'<div class="scroll"><table class="{kind}">\n<tr>{top}</tr>\n{body}\n</table></div>'


def heat(value: float, text: str, title: str, *, miss: bool = False) -> str:
    """A cell that is the darker the nearer its value is to 1."""
    value = min(max(value, 0.0), 1.0)
    named = ' class="miss"' if miss else ""
    return f'<td{named} style="--share: {value:.3f}" title="{escape(title)}">{text}</td>'


def heat_table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Cells from `heat` in rows with names; names are plain text."""
    upright = " upright" if len(head) > MOST_ACROSS else ""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "\n".join(f"<tr><th>{escape(name)}</th>{''.join(cells)}</tr>" for name, cells in rows)
    return f'<div class="scroll"><table class="heat{upright}">\n<thead><tr><td></td>{top}</tr></thead>\n{body}\n</table></div>'


def class_section(tree: Mapping[str, Any]) -> str:
    """The report, and the matrix where there is one."""
    found = _report(tree)
    return f"{found}\n{_confusion(tree['confusion'])}" if "confusion" in tree else found


def _report(tree: Mapping[str, Any]) -> str:
    classes, averages = tree["classes"], tree["averages"]
    if not classes:
        return '<p class="note">Nothing is wanted, and nothing was found.</p>'
    rows = [_row(name, line) for name, line in classes.items()]
    total = sum(line["support"] for line in classes.values())
    below = [] if tree["accuracy"] is None else [("accuracy", "", "", f"{tree['accuracy']:.4f}", f"{total:,}")]
    below += [_row(f"{name} average", line) for name, line in averages.items()]
    head = (escape(tree["of"]), "precision", "recall", "F1", "support")
    if len(rows) <= MOST_OPEN:
        return grid(head, [*rows, *below], rule_before=len(rows))
    folded = f"<details><summary>{len(rows)} classes</summary>\n{grid(head, rows)}</details>"
    return f"{grid(head, below)}\n{folded}"


def _row(name: str, line: Mapping[str, Any]) -> tuple[str, ...]:
    return escape(name), *(f"{line[each]:.4f}" for each in COLUMNS), f"{line['support']:,}"


def _confusion(tree: Mapping[str, Any]) -> str:
    labels, counts = tree["labels"], np.array(tree["counts"], np.int64).reshape(len(tree["labels"]), -1)
    if len(labels) > MOST_IN_MATRIX:
        return _pairs(labels, counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    rows = []
    for i, name in enumerate(labels):
        cells = []
        for j, other in enumerate(labels):
            share = f"{shares[i, j]:.1%}"
            text = f"{counts[i, j]:,}" + (f"<br><small>{share}</small>" if len(labels) <= MOST_WITH_SHARE else "")
            cells.append(heat(shares[i, j], text, f"{name}, taken for {other}: {counts[i, j]:,}, {share}", miss=i != j))
        rows.append((name, cells))
    note = "Rows: the class it is. Columns: the class it was taken for. Shaded by the share of the row."
    return f'<h3>Confusion matrix</h3>\n{heat_table(labels, rows)}\n<p class="note">{note}</p>'


def _pairs(labels: Sequence[str], counts: np.ndarray) -> str:
    """The pairs of classes that are confused most often."""
    wrong = counts - np.diag(np.diag(counts))
    order = [divmod(int(place), len(labels)) for place in np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]]
    chosen = [(i, j) for i, j in order if wrong[i, j]]
    if not chosen:
        return '<p class="note">No class was taken for another.</p>'
    totals = counts.sum(axis=1)
    rows = [(escape(labels[i]), escape(labels[j]), f"{wrong[i, j]:,}", f"{wrong[i, j] / totals[i]:.1%}") for i, j in chosen]
    table = grid(("class", "taken for", "times", "of the class"), rows, kind="grid pairs")
    return f"<h3>Classes confused most often</h3>\n{table}"
