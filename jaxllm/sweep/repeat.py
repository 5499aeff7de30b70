"""How far can a recipe's figures be trusted? It is run with several seeds, or with each part of its training data held out."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxllm.checkpoint import Best
from jaxllm.finetune.tasks.mixture import Mixture
from jaxllm.recipe import Recipe
from jaxllm.sweep.attempt import attempt
from jaxllm.sweep.field import with_values
from jaxllm.sweep.folds import fold_splits
from jaxllm.sweep.outcome import curve, measures
from jaxllm.sweep.prepare import goal_of
from jaxllm.sweep.sweep_folder import RepeatConfig, Sweep, claimed, open_folder

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One that has ended."""

    name: str
    """Of its folder, such as "seed-1" or "fold-0"."""
    ending: str
    """complete, diverged, out of memory or refused."""
    said: str | None
    """The error, if there was one."""
    measures: dict[str, float]
    """By split and metric, such as "validation loss"; empty where it did not come to its end."""
    points: list[tuple[int, float]]
    """Step and metric of each evaluation."""
    run_dir: Path


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A figure over runs."""

    mean: float
    deviation: float | None
    """Of the sample, with n - 1 under the root; None of one run."""
    low: float
    high: float
    count: int
    """Runs."""


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """How far a repetition has come."""

    sweep: Sweep
    folder: Path
    goal: Best
    runs: list[Run]
    asked: int
    """Runs in all."""
    stopped: str | None
    """What stopped it before its end, if something did."""

    @property
    def spreads(self) -> dict[str, Spread]:
        """Each figure that all complete runs have; that which runs are compared by first."""
        complete = [run.measures for run in self.runs if run.ending == "complete"]
        names = [name for name in (complete[0] if complete else ()) if all(name in run for run in complete)]
        names.sort(key=lambda name: name != f"validation {self.goal.metric}")
        return {name: spread([run[name] for run in complete]) for name in names}


BLIND = {"checkpoint.keep_best": 0, "evaluate.patience": None}
"""What the best of a run's steps would be chosen by."""


def spread(values: Sequence[float]) -> Spread:
    return Spread(
        mean=statistics.fmean(values),
        deviation=statistics.stdev(values) if len(values) > 1 else None,
        low=min(values),
        high=max(values),
        count=len(values),
    )


def repeat(sweep: Sweep, folder: Path, say: Say = print, after_run: Callable[[Repeated], Any] = lambda _: None) -> Repeated:
    """Runs the recipe with each seed, or on each fold, or with each seed on each fold, those left out that are done.

        sweep = Sweep(recipe=recipe, config=RepeatConfig(seeds=(0, 1, 2)))
        repeat(sweep, Path("runs/seeds")).spreads["validation loss"].mean

    Raises:
      ValueError: before anything runs: a recipe that cannot run, fewer records than folds, another sweep's folder.
    """
    recipe, config = sweep.recipe, sweep.config
    assert isinstance(config, RepeatConfig)
    goal, variants, stopped, runs = goal_of(recipe), variants_of(recipe, config), None, []
    repeated = Repeated(sweep=sweep, folder=folder, goal=goal, runs=[], asked=len(variants), stopped=None)
    with claimed(folder):
        open_folder(folder, sweep)
        for name, changed in variants.items():
            say(f"\n{name}, {len(runs) + 1} of {len(variants)}")
            place = folder / name
            done = attempt(changed, place, f"jaxllm train {place}")
            stopped = done.said if done.ending == "stopped" else None
            if stopped is None:
                found = measures(place, goal) if done.ending == "complete" else {}
                points = curve(place, goal)
                runs.append(Run(name=name, ending=done.ending, said=done.said, measures=found, points=points, run_dir=place))
                say(f"{name} {done.ending}: {done.said or ', '.join(f'{key} {value:.4f}' for key, value in found.items())}")
            repeated = Repeated(sweep=sweep, folder=folder, goal=goal, runs=list(runs), asked=len(variants), stopped=stopped)
            after_run(repeated)
            if stopped is not None:
                break
    return repeated


def variants_of(recipe: Recipe, config: RepeatConfig) -> dict[str, Recipe]:
    """The recipe of each run, by the name of its folder. On a fold the last step is measured: to choose the best one by what is
    held out would be to look at it before."""
    splits = {"": {}}
    if config.folds is not None:
        if isinstance(recipe.objective, Mixture):
            raise ValueError(
                "--folds cuts one set, which a mixture has not: repeat it with --seeds, or fold each set by itself"
            )
        splits = {
            f"fold-{number}": {"data.train_split": train, "data.validation_split": held_out, **BLIND}
            for number, (train, held_out) in enumerate(fold_splits(recipe, config.folds))
        }
    seeds = {f"seed-{seed}": {"seed": seed} for seed in config.seeds} or {"": {}}
    return {
        "-".join(filter(None, (fold, seed))): with_values(recipe, {**split, **seeded})
        for fold, split in splits.items()
        for seed, seeded in seeds.items()
    }
