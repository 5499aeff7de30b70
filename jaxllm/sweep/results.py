"""`results.json` of a sweep, and what is printed of it."""

import json
import math
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jaxllm.recipe.conclude import RESULTS_FILE
from jaxllm.recipe.serialize import RECIPE_FILE
from jaxllm.sweep.repeat import Repeated, Spread
from jaxllm.sweep.search import Searched, Trial


def write_results(done: Searched | Repeated) -> Path:
    """Everything that the report shows, as JSON; a number that is none is null."""
    tree = _searched(done) if isinstance(done, Searched) else _repeated(done)
    path = done.folder / RESULTS_FILE
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(json.dumps(_finite(tree), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path


def best_command(searched: Searched, trial: Trial) -> str:
    """What trains the recipe with a trial's values in a run of its own."""
    if searched.sweep.train:
        return shlex.join([*searched.sweep.train, *trial.options])
    return shlex.join(["jaxllm", "train", str(trial.run_dir / RECIPE_FILE)])


def describe(done: Searched | Repeated) -> str:
    """The last words of a sweep."""
    if done.stopped is not None:
        return f"stopped by {done.stopped}. Go on with: jaxllm sweep {shlex.quote(str(done.folder))}"
    if isinstance(done, Repeated):
        rows = [f"  {name:<28} {in_words(spread)}" for name, spread in done.spreads.items()]
        failed = [f"  {run.name} {run.ending}: {run.said}" for run in done.runs if run.ending != "complete"]
        return "\n".join([f"mean and deviation of {len(done.runs) - len(failed)} runs", *rows, *failed])
    best = done.best
    if best is None:
        said = next((f": {trial.said}" for trial in done.trials if trial.said), "")
        return f"no trial came to its end{said}"
    return (
        f"best: trial {best.number}, {done.goal.metric} {best.value:.4f} at step {best.step}, in {best.run_dir}\n"
        f"the same again: {best_command(done, best)}"
    )


def in_words(spread: Spread) -> str:
    """ "2.8402 ± 0.0123"."""
    return f"{spread.mean:.4f}" + ("" if spread.deviation is None else f" ± {spread.deviation:.4f}")


def _searched(done: Searched) -> dict[str, Any]:
    best = done.best
    trials = [{**asdict(trial), "run_dir": str(trial.run_dir), "options": shlex.join(trial.options)} for trial in done.trials]
    return {
        "metric": done.goal.metric,
        "best_is": done.goal.direction,
        "search": [each.text for each in done.space],
        "whole": done.stopped is None and len(done.trials) >= getattr(done.sweep.config, "trials", 0),
        "best": None if best is None else {**trials[done.trials.index(best)], "command": best_command(done, best)},
        "importance": done.importance,
        "trials": trials,
    }


def _repeated(done: Repeated) -> dict[str, Any]:
    return {
        "metric": done.goal.metric,
        "best_is": done.goal.direction,
        "whole": done.stopped is None and len(done.runs) == done.asked,
        "spreads": {name: asdict(spread) for name, spread in done.spreads.items()},
        "runs": [{**asdict(run), "run_dir": str(run.run_dir)} for run in done.runs],
    }


def _finite(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _finite(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
