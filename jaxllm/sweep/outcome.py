"""What a run of a sweep came to, read from its folder."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxllm.checkpoint import Best
from jaxllm.recipe.conclude import RESULTS_FILE
from jaxllm.training import read_metrics


def curve(run_dir: Path, goal: Best) -> list[tuple[int, float]]:
    """Step and metric of each evaluation so far."""
    try:
        records = read_metrics(run_dir)
    except FileNotFoundError:
        return []
    found = ((record["step"], record.get(goal.metric)) for record in records if record["split"] == "validation")
    return [(step, math.nan if value is None else value) for step, value in found]


def best_point(points: list[tuple[int, float]], goal: Best) -> tuple[int, float] | None:
    """Step and metric of the best evaluation: that of the checkpoint that is kept as the best."""
    known = [point for point in points if math.isfinite(point[1])]
    return min(known, key=lambda point: goal.key(point[1]), default=None)


def is_whole(run_dir: Path) -> bool:
    """Whether the run came to its end."""
    return (run_dir / RESULTS_FILE).is_file()


def measures(run_dir: Path, goal: Best) -> dict[str, float]:
    """Each metric by split, such as "validation loss": on the validation split at the best evaluation; on the test split as at
    the end of the run. Of a task both are those of the best checkpoint over the whole split."""
    records = read_metrics(run_dir)
    point = best_point(curve(run_dir, goal), goal)
    results = json.loads((run_dir / RESULTS_FILE).read_text(encoding="utf-8"))
    found: dict[str, float] = {}
    for split in ("validation", "test"):
        of_split = [record for record in records if record["split"] == split]
        if split == "validation":
            of_split = [record for record in of_split if point is not None and record["step"] == point[0]]
        measured = results.get(split) if isinstance(results.get(split), dict) else (of_split or [{}])[-1]
        found |= {f"{split} {name.replace('_', ' ')}": value for name, value in _numbers(measured).items()}
    return found


COUNTS = ("step", "tokens", "images", "examples")
"""Numbers of an evaluation that say nothing of how good the model is."""


def _numbers(measured: Mapping[str, Any]) -> dict[str, float]:
    flat = {name: value for name, value in measured.items() if name not in COUNTS}
    metrics = {**flat.pop("metrics", {}), **(flat.pop("written", None) or {}).get("metrics", {})}
    flat |= {name: metric["value"] for name, metric in metrics.items()}
    return {name: float(value) for name, value in flat.items() if isinstance(value, int | float)}
