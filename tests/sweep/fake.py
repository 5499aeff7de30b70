"""A `fit` that trains nothing: its loss is a formula of the recipe, its folder looks like that of a run."""

import dataclasses
import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jaxllm.checkpoint import Best
from jaxllm.recipe import Fitted, Recipe, save_json
from jaxllm.sweep import SearchConfig, Searched, Sweep, search
from tests.recipe import tiny

SPACE = ("optimizer.learning_rate=0.0001..0.1:log", "batch_size=4,8,16")


def loss_of(recipe: Recipe, step: int) -> float:
    """Lowest at a learning rate of 0.003 and a batch of 16."""
    away = math.log10(recipe.optimizer.learning_rate / 0.003) ** 2
    return 2.0 + away + (recipe.batch_size != 16) * 0.1 + 1.0 / step


def fake_fit(loss: Callable[[Recipe, int], float] = loss_of, ended: Callable[[Recipe], str] = lambda recipe: "finished") -> Any:
    def fit(recipe: Recipe, *, command: str | None = None, on_evaluation: Any = None) -> Fitted:
        assert recipe.run_dir is not None
        path, step = Path(recipe.run_dir), 0
        path.mkdir(parents=True, exist_ok=True)
        save_json(dataclasses.replace(recipe, run_dir=None), path / "recipe.json")
        with (path / "metrics.jsonl").open("w") as file:
            for step in range(recipe.evaluate.every, recipe.steps + 1, recipe.evaluate.every):
                value = loss(recipe, step)
                metrics = {"loss": value, "accuracy": 1 / value, "tokens": 64.0}
                file.write(json.dumps({"step": step, "split": "validation", **metrics}) + "\n")
                file.flush()
                reason = on_evaluation(step, metrics) if on_evaluation else None
                if step < recipe.steps and (reason or ended(recipe) != "finished"):
                    return Fitted(path, step, reason or ended(recipe), value)
            file.write(json.dumps({"step": step, "split": "test", "loss": value + 0.5}) + "\n")
        (path / "results.json").write_text(json.dumps({"step": step}))
        return Fitted(path, step, "finished", value)

    return fit


def use(monkeypatch: pytest.MonkeyPatch, fit: Any, goal: Best | None = None) -> None:
    """Sweeps run with this `fit`, and open no data."""
    goal = goal or Best()
    monkeypatch.setattr("jaxllm.sweep.attempt.fit", fit)
    for room in ("search", "repeat"):
        module = importlib.import_module(f"jaxllm.sweep.{room}")  # the package has a function of this name
        monkeypatch.setattr(module, "goal_of", lambda recipe: goal)


def a_sweep(trials: int, space: tuple[str, ...] = SPACE, **changes: Any) -> Sweep:
    prune = changes.pop("prune", "median")
    return Sweep(recipe=tiny.config(steps=12, **changes), config=SearchConfig(space=space, trials=trials, prune=prune))


def run_quietly(sweep: Sweep, folder: Path) -> Searched:
    return search(sweep, folder, say=lambda line: None)
