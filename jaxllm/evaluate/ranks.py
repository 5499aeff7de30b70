"""The ranks that AdaLoRA has left to each matrix, and its budget over the steps, as markup for a page."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxllm.evaluate.class_page import heat, heat_table
from jaxllm.evaluate.curve import metric_curve

RANKS_FILE = "ranks.jsonl"
"""Of a run folder: one JSON object a line, {"step": 10, "budget": 96, "ranks": {"layers/0/attention/query": 8, ...}}."""


def read_ranks(run_dir: Path) -> list[dict[str, Any]]:
    """What was logged, in order; nothing where there is no such file. A last line that a kill cut short is left out."""
    path = run_dir / RANKS_FILE
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1] if line]


def ranks_section(records: Sequence[Mapping[str, Any]]) -> str:
    """The rank of every matrix at the end, and the curve of the budget; nothing without records."""
    if not records or not records[-1]["ranks"]:
        return ""
    last = records[-1]
    total = sum(last["ranks"].values())
    points = [{"step": record["step"], "split": "train", "budget": record["budget"]} for record in records]
    curve = metric_curve(points, "budget", "budget, ranks in all") if len(points) > 1 else None
    drawn = "" if curve is None else f'<div class="curves budget">\n{curve}</div>'
    return (
        f"<h2>Ranks</h2>\n{_table(last['ranks'])}\n"
        f'<p class="note">At step {last["step"]:,}: {total:,} ranks over {len(last["ranks"]):,} matrices.</p>\n{drawn}'
    )


def _table(ranks: Mapping[str, int]) -> str:
    """Layers by matrices."""
    placed = {_place(path): rank for path, rank in ranks.items()}
    rows = sorted({row for row, _ in placed}, key=_in_order)
    columns = list(dict.fromkeys(column for _, column in placed))
    most = max(max(placed.values()), 1)
    lines = []
    for row in rows:
        there = [(column, placed.get((row, column))) for column in columns]
        cells = [
            "<td></td>" if rank is None else heat(rank / most, str(rank), f"{row}, {column}: rank {rank}")
            for column, rank in there
        ]
        lines.append((row, cells))
    return heat_table(columns, lines)


def _place(path: str) -> tuple[str, str]:
    """The row and the column of a matrix: "decoder/layers/3/attention/query" is query of attention in decoder layer 3."""
    found = re.fullmatch(r"(?:(.*)/)?layers/(\d+)/(.+)", path)
    if found is None:
        return "model", path.replace("/", " ")
    stack = f"{found[1].replace('/', ' ')} " if found[1] else ""
    return f"{stack}layer {found[2]}", found[3].replace("/", " ")


def _in_order(name: str) -> tuple[Any, ...]:
    """Layer 10 comes behind layer 9."""
    return tuple(int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name))
