"""The trials of a search as Optuna keeps them: an SQLite file in the sweep's folder.

What is drawn for a trial is a function of the seed, the trial's number and the trials before it, so that a search that was
killed and goes on is the search that was not.
"""

import contextlib
import itertools
import json
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from jaxllm.checkpoint import Best
from jaxllm.sweep.field import Value, as_text
from jaxllm.sweep.space import Choice, Range, Space
from jaxllm.sweep.sweep_folder import Pruner

DATABASE = "optuna.db"
NAME = "sweep"
"""Of the study in the database; hyperband's choices depend on it."""
FACTS = "facts"
"""What Optuna keeps of a trial for us, as JSON."""
MOST_COUNTED = 1000
"""Where there are no more combinations than this, none is tried twice."""
SPARED = 4
"""Trials that came to their end before the median says anything."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A search in progress."""

    kept: optuna.Study
    space: Space
    seed: int

    def begin(self, own: dict[str, Value] | None) -> None:
        """Of a new study: the recipe's own values are tried first."""
        if own is not None and not self.kept.trials:
            self._enqueue(own)

    def next(self) -> tuple[optuna.Trial, dict[str, Value]] | None:
        """A trial and what it tries: that which an earlier process began and did not end, else a new one; None where everything
        has been tried."""
        untried = self._untried()
        if untried == []:
            return None
        trial, values = self._draw()
        if untried is None or values in untried:
            return trial, values
        self.kept.tell(trial, state=TrialState.FAIL)  # drawn once more, which tells nothing new
        self._enqueue(untried[int(np.random.default_rng((self.seed, trial.number)).integers(len(untried)))])
        return self._draw()

    def _draw(self) -> tuple[optuna.Trial, dict[str, Value]]:
        left = [each for each in self.kept.trials if each.state == TrialState.RUNNING]
        number = left[0].number if left else len(self.kept.trials)
        seed = int(np.random.SeedSequence((self.seed, number)).generate_state(1)[0])
        self.kept.sampler = optuna.samplers.TPESampler(seed=seed)
        trial = optuna.Trial(self.kept, left[0]._trial_id) if left else self.kept.ask()
        return trial, {each.field: _drawn(each, trial) for each in self.space}

    def _enqueue(self, values: dict[str, Value]) -> None:
        self.kept.enqueue_trial({each.field: _stored(each, values[each.field]) for each in self.space})

    def _untried(self) -> list[dict[str, Value]] | None:
        """Where the combinations can be counted, those that no trial had."""
        every = [each.every for each in self.space if each.every is not None]
        if len(every) < len(self.space) or math.prod(map(len, every)) > MOST_COUNTED:
            return None
        tried = [facts["values"] for facts in self.facts]
        found = (dict(zip((each.field for each in self.space), values, strict=True)) for values in itertools.product(*every))
        return [values for values in found if values not in tried]

    @property
    def ended(self) -> list[FrozenTrial]:
        return [each for each in self.kept.trials if each.state in (TrialState.COMPLETE, TrialState.PRUNED)]

    @property
    def facts(self) -> list[dict[str, Any]]:
        """What `end` was told of each trial that has ended, and its number."""
        told = [{"number": each.number, **json.loads(each.user_attrs[FACTS])} for each in self.ended]
        return [facts | {"points": [tuple(point) for point in facts["points"]]} for facts in told]

    def end(self, trial: optuna.Trial, value: float | None, facts: dict[str, Any]) -> None:
        """Without a value it counts as worse than all that have one, so that what is like it is not tried."""
        trial.set_user_attr(FACTS, json.dumps(facts))
        self.kept.tell(trial, value, TrialState.PRUNED if value is None else TrialState.COMPLETE)

    def importance(self) -> dict[str, float]:
        """The share of each field in what makes a trial good, by PED-ANOVA (Watanabe et al. 2023); empty with few."""
        complete = [each for each in self.ended if each.state == TrialState.COMPLETE]
        if len(complete) < SPARED or len({each.value for each in complete}) < 2 or len(self.space) < 2:
            return {}
        return optuna.importance.get_param_importances(self.kept)


def report(trial: optuna.Trial, step: int, value: float) -> bool:
    """Notes an evaluation; returns whether the trial is not worth going on with."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of an evaluation that was noted before a kill
        trial.report(value, step)
    return bool(trial.should_prune())


@contextlib.contextmanager
def open_study(folder: Path, space: Space, goal: Best, prune: Pruner, seed: int, steps: int) -> Iterator[Study]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder.resolve() / DATABASE}")
    try:
        study = optuna.create_study(
            storage=storage,
            study_name=NAME,
            direction="minimize" if goal.direction == "lowest" else "maximize",
            pruner=_pruner(prune, steps),
            load_if_exists=True,
        )
        yield Study(kept=study, space=space, seed=seed)
    finally:
        storage.engine.dispose()


def _pruner(name: Pruner, steps: int) -> optuna.pruners.BasePruner:
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=SPARED, n_warmup_steps=steps // 4)
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=max(steps // 9, 1), max_resource=steps, reduction_factor=3)
    return optuna.pruners.NopPruner()


def _drawn(each: Range | Choice, trial: optuna.Trial) -> Value:
    if not isinstance(each, Range):
        return each.values[each.labels.index(trial.suggest_categorical(each.field, each.labels))]
    if each.whole:
        return each.rounded(trial.suggest_int(each.field, int(each.low), int(each.high), log=each.log))
    return each.rounded(trial.suggest_float(each.field, each.low, each.high, log=each.log))


def _stored(each: Range | Choice, value: Value) -> Any:
    """A value as Optuna knows it."""
    return value if isinstance(each, Range) else as_text(value)
