"""What a model fitted to a task is worth on a split: losses, metrics with intervals, a report by class, and what it writes."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

from jaxllm.distributed import from_first, is_first, num_processes
from jaxllm.finetune.tasks import InstructionTuning, TextToText, is_task
from jaxllm.finetune.tasks.images import MeasuredImages
from jaxllm.finetune.tasks.written import Written
from jaxllm.recipe.base import Base
from jaxllm.recipe.job import Job
from jaxllm.sharding import replicated
from jaxllm.training.objectives import ImageClassification

ANSWERS = 4
"""Texts of a page that a model writes, each beside what it wrote before it learned."""
TEXTS = 100
"""Texts that are scored, of a task that is to write them."""


def is_measured(job: Job) -> bool:
    """Whether the objective is measured on what it predicts: a task's, or of images."""
    return is_task(job.recipe.objective) or isinstance(job.recipe.objective, ImageClassification)


def measure(job: Job, params: Any, split: str, step: int | None, *, base: Base | None = None) -> dict[str, Any]:
    """Over a whole split: losses; each metric with its 95 % interval; where there are classes a report of them; a few
    predictions, in words; and of a task that writes, what it writes. By all processes.

    Args:
      base: the model before it learned, whose answers are put beside its own.
    """
    if isinstance(job.recipe.objective, ImageClassification):
        job = predicting(job)
    objective: Any = job.recipe.objective
    results, scores, found = job.predict_split(params, split, batches=None)
    rows = job.rows(split)
    metrics = scores.measured(job.recipe.seed)
    told: dict[str, Any] = {
        "split": split,
        "step": step,
        "unit": objective.reports.unit,
        **{name: metrics[name].value if name in metrics else value for name, value in results.items()},
        "metrics": {name: measured._asdict() for name, measured in metrics.items()},
        "sample": objective.show(found, rows, job.data),
    }
    report = objective.report(found, rows, job.data) if hasattr(objective, "report") else None
    if report is not None:
        told["report"] = report.tree()
    written = _written(job, params, rows, base)
    return told if written is None else told | {"written": written}


def predicting(job: Job) -> Job:
    """A job of images whose evaluations keep what is predicted; nothing else of the recipe is another, or checked anew."""
    assert isinstance(job.recipe.objective, ImageClassification)
    measured: Any = MeasuredImages.of(job.recipe.objective)
    return dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, objective=measured))


def writes(job: Job) -> bool:
    """Whether the model is asked for texts."""
    return isinstance(_task(job), InstructionTuning | TextToText)


def _written(job: Job, params: Any, rows: Any, base: Base | None) -> dict[str, Any] | None:
    """What the model writes for the first texts of a split; of texts to write, not of chats, also how good that is."""
    if not writes(job):
        return None
    scored = isinstance(_task(job), TextToText)
    after = write(job, job.model, params, rows, TEXTS if scored else ANSWERS)
    before = None if base is None else write(job, base.model, base.params, rows, ANSWERS)
    if after is None or not after.texts:
        return None
    measured = after.scores().measured(job.recipe.seed) if scored else {}
    return {
        "examples": len(after.texts),
        "metrics": {name: value._asdict() for name, value in measured.items()},
        "answers": [
            {
                "prompt": after.prompts[place],
                "wanted": after.references[place][0],
                "before": None if before is None else before.texts[place],
                "after": after.texts[place],
            }
            for place in range(min(ANSWERS, len(after.texts)))
        ],
    }


def write(job: Job, model: Any, params: Any, rows: Any, examples: int) -> Written | None:
    """By process 0, on one device; None on others, and where the parameters have no room there. By all processes."""
    objective: Any = job.recipe.objective
    here = on_one_device(job, params)
    return None if here is None else objective.write(model, here, rows, job.data, examples=examples)


def _task(job: Job) -> Any:
    """The objective; of a mixture the task that its sets share."""
    return getattr(job.recipe.objective, "task", job.recipe.objective)


def on_one_device(job: Job, params: Any) -> Any | None:
    """Parameters on one device of process 0; None on other processes, and where they have no room there. By all processes."""
    first = jax.local_devices()[0]
    places = [leaf.sharding for leaf in jax.tree.leaves(params)]
    there = num_processes() == 1 and all(place.is_fully_replicated and first in place.device_set for place in places)
    if not there and not from_first(lambda: _fit_one_device(params)):
        return None
    if num_processes() > 1:
        params = jax.tree.map(lambda leaf: _on_first(leaf, replicated(job.mesh)), params)
    here = SingleDeviceSharding(first)  # a device alone would leave the axes of an explicit mesh in the types
    return jax.device_put(params, here) if is_first() else None


def _fit_one_device(params: Any) -> bool:
    stats = jax.local_devices()[0].memory_stats() or {}
    free = stats.get("bytes_limit", math.inf) - stats.get("bytes_in_use", 0)
    return 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(params)) < free


def _on_first(leaf: jax.Array, everywhere: jax.sharding.Sharding) -> np.ndarray | None:
    """An array gathered into the host memory of process 0; all processes take part."""
    whole = jax.device_put(leaf, everywhere)
    return np.asarray(whole.addressable_data(0)) if is_first() else None


def in_words(split: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The metrics of a split, each as "0.9128 (0.8946 to 0.9300)"."""
    metrics = {**split["metrics"], **split.get("written", {}).get("metrics", {})}
    return [(name, f"{found['value']:.4f} ({found['low']:.4f} to {found['high']:.4f})") for name, found in metrics.items()]
