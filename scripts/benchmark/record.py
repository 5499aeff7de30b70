"""Benchmark records: results/<topic>--<recipe>--<device>--<date>.json, with all that is needed to measure again."""

import dataclasses
import datetime
import json
import os
import re
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxllm.hardware import environment
from jaxllm.recipe import Recipe

RESULTS = Path(__file__).parent / "results"
CHECKOUT = Path(os.path.abspath(__file__)).parents[2]
_PATH = ("/", "~", "./", "../")


def spread(values: list[float]) -> dict[str, Any]:
    """Repeats with their min, median and max."""
    return {
        "min": min(values),
        "median": statistics.median(values),
        "max": max(values),
        "repeats": len(values),
        "values": values,
    }


def write_record(topic: str, recipe: Recipe, results: dict[str, Any], notes: str, where: dict[str, Any] | None = None) -> Path:
    """Writes a record of a recipe, or of a run of it, and returns its path; for the arguments see `write_named_record`."""
    described = dataclasses.replace(recipe, run_dir=None)
    return write_named_record(topic, recipe.name, without_folders(dataclasses.asdict(described)), results, notes, where)


def without_folders(tree: Any) -> Any:
    """A config with whole paths in it, as `shown_command` has them: folders outside the checkout are this machine's."""
    if isinstance(tree, dict):
        return {name: without_folders(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [without_folders(value) for value in tree]
    return _shown(tree) if isinstance(tree, str) and tree.startswith("/") else tree


def write_named_record(
    topic: str,
    name: str,
    config: dict[str, Any],
    results: dict[str, Any],
    notes: str,
    where: dict[str, Any] | None = None,
) -> Path:
    """Writes a record of anything that has a name and a config, such as a published model, and returns its path.

    Args:
      results: by metric; a metric's name ends in its unit, its value is a number or a `spread`.
      notes: what was measured how, in a sentence or two.
      where: the environment that was measured. By default that of this process.
    """
    where = environment() if where is None else where
    kind = f"cpu {where['cores']} cores" if where["platform"] == "cpu" else where["device_kind"]
    device = re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-")
    record = {
        "topic": topic,
        "recipe": name,
        "date": datetime.date.today().isoformat(),
        "command": shown_command(sys.argv),
        "notes": notes,
        "results": results,
        "environment": where,
        "config": config,
    }
    path = RESULTS / f"{topic}--{name}--{device}--{record['date']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def shown_command(words: Sequence[str]) -> str:
    """The command that these words were given to Python in. Where a word is a path, or what is behind its first "=", folders
    outside the checkout are cut away: they are this machine's. Paths elsewhere in a word stay.

    >>> shown_command(["scripts/benchmark/step.py", "/data/gpt", "--torch-python=~/torch/bin/python", "runs/tiny"])
    'python scripts/benchmark/step.py gpt --torch-python=python runs/tiny'
    """
    return shlex.join(["python", *(_shown(word) for word in words)])


def _shown(word: str) -> str:
    before, path = "", word
    if "=" in word and not word.startswith(_PATH):
        before, path = word[: word.index("=") + 1], word[word.index("=") + 1 :]
    if not path.startswith(_PATH) and ".." not in Path(path).parts:
        return word
    here = Path(os.path.abspath(os.path.expanduser(path)))
    return before + (str(here.relative_to(CHECKOUT)) if CHECKOUT in here.parents else Path(path).name or path)


def newest_record(topic: str, recipe_name: str) -> dict[str, Any] | None:
    """The newest record of a topic, or None."""
    paths = sorted(RESULTS.glob(f"{topic}--{recipe_name}--*.json"), key=lambda path: path.stem.rpartition("--")[2])
    return json.loads(paths[-1].read_text("utf-8")) if paths else None
