"""Which values of some fields are best? Optuna's TPE (Bergstra et al. 2011) draws them; bad trials are given up.

A trial that was cut off, by a signal or a kill, goes on from the checkpoints in its folder when the search does.
"""

import math
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from jaxllm.checkpoint import Best
from jaxllm.recipe import Recipe
from jaxllm.sweep.attempt import PRUNED, Attempt, attempt
from jaxllm.sweep.field import Value, as_options, with_values
from jaxllm.sweep.outcome import best_point, curve
from jaxllm.sweep.prepare import goal_of
from jaxllm.sweep.space import Space, own_values, read_space
from jaxllm.sweep.study import Study, open_study, report
from jaxllm.sweep.sweep_folder import SearchConfig, Sweep, claimed, open_folder

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One that has ended."""

    number: int
    values: dict[str, Value]
    ending: str
    """complete, pruned, diverged, out of memory or refused."""
    said: str | None
    """The error, if there was one."""
    value: float | None
    """The metric at its best evaluation; None where there was none."""
    step: int | None
    """Of that evaluation."""
    points: list[tuple[int, float]]
    """Step and metric of each evaluation."""
    run_dir: Path
    seconds: float
    options: list[str]
    """Words of a command that put the values in."""


@dataclass(frozen=True, kw_only=True)
class Searched:
    """How far a search has come."""

    sweep: Sweep
    folder: Path
    goal: Best
    space: Space
    trials: list[Trial]
    importance: dict[str, float]
    """Share of each field in what makes a trial good; empty with few trials."""
    stopped: str | None
    """What stopped it before its end, if something did."""

    @property
    def best(self) -> Trial | None:
        """Of the trials that came to their end."""
        complete = [trial for trial in self.trials if trial.ending == "complete" and trial.value is not None]
        return min(complete, key=lambda trial: self.goal.key(trial.value or 0.0), default=None)


def search(sweep: Sweep, folder: Path, say: Say = print, after_trial: Callable[[Searched], Any] = lambda _: None) -> Searched:
    """Runs trials in `folder` until there are as many as asked, or a signal stops one.

        sweep = Sweep(recipe=recipe, config=SearchConfig(space=("batch_size=8,16",), trials=2))
        search(sweep, Path("runs/search")).best

    Raises:
      ValueError: before anything runs: a field or value that the recipe has not, a recipe that cannot run, a folder of
        another sweep.
    """
    recipe, config = sweep.recipe, sweep.config
    assert isinstance(config, SearchConfig)
    space, goal, stopped = read_space(recipe, config.space), goal_of(recipe), None
    with claimed(folder):
        open_folder(folder, sweep)
        if config.prune != "none" and recipe.evaluate.every >= recipe.steps:
            say(f"no trial can be given up early: evaluate.every={recipe.evaluate.every} is not below steps={recipe.steps}")
        with open_study(folder, space, goal, config.prune, recipe.seed, recipe.steps) as study:
            study.begin(own_values(recipe, space))
            searched = _searched(sweep, folder, goal, study, None)
            while stopped is None and len(searched.trials) < config.trials:
                if (drawn := study.next()) is None:
                    say(f"all {len(searched.trials)} combinations have been tried")
                    break
                stopped = _run(study, drawn, recipe, folder, goal, config.trials, say)
                searched = _searched(sweep, folder, goal, study, stopped)
                _tell(searched, say)
                after_trial(searched)
    return searched


def run_dir(folder: Path, number: int) -> Path:
    return folder / f"trial-{number}"


def _run(
    study: Study,
    drawn: tuple[optuna.Trial, dict[str, Value]],
    recipe: Recipe,
    folder: Path,
    goal: Best,
    trials: int,
    say: Say,
) -> str | None:
    """One trial; returns what stopped it, when the search is to stop with it."""
    trial, values = drawn
    place = run_dir(folder, trial.number)
    say(f"\ntrial {trial.number}, of {trials}: {shlex.join(as_options(recipe, values))}")

    def on_evaluation(step: int, metrics: dict[str, float]) -> str | None:
        return PRUNED if report(trial, step, metrics[goal.metric]) else None

    try:
        changed = with_values(recipe, values)
    except ValueError as error:
        done = Attempt(ending="refused", said=str(error), seconds=0.0)
    else:
        if place.is_dir() and trial.should_prune():  # which it was when a kill came before that was noted
            done = Attempt(ending="pruned", seconds=0.0)
        else:
            done = attempt(changed, place, f"jaxllm train {place}", on_evaluation)
    if done.ending == "stopped":
        return done.said
    points = curve(place, goal)
    step, value = best_point(points, goal) or (None, None)
    ending = "diverged" if done.ending == "complete" and value is None else done.ending
    facts = {"values": values, "ending": ending, "said": done.said, "seconds": done.seconds}
    study.end(trial, value if ending == "complete" else None, facts | {"value": value, "step": step, "points": points})
    return None


def _searched(sweep: Sweep, folder: Path, goal: Best, study: Study, stopped: str | None) -> Searched:
    trials = [
        Trial(run_dir=run_dir(folder, facts["number"]), options=as_options(sweep.recipe, facts["values"]), **facts)
        for facts in study.facts
    ]
    importance = {name: share for name, share in study.importance().items() if math.isfinite(share)}
    return Searched(
        sweep=sweep, folder=folder, goal=goal, space=study.space, trials=trials, importance=importance, stopped=stopped
    )


def _tell(searched: Searched, say: Say) -> None:
    if searched.stopped is not None or not searched.trials:
        return
    trial, best = searched.trials[-1], searched.best
    value = "" if trial.value is None else f", {searched.goal.metric} {trial.value:.4f} at step {trial.step}"
    said = "" if trial.said is None else f": {trial.said}"
    so_far = "" if best is None else f"; best so far: trial {best.number}, {best.value:.4f}"
    say(f"trial {trial.number} {trial.ending}{value}{said}{so_far}")
