"""The end of a run: the sample, results.json, report.html, and the last words."""

import json
import math
import shlex
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import jax
import numpy as np

from jaxllm.checkpoint import Store
from jaxllm.distributed import beat, from_first, is_first, num_processes
from jaxllm.evaluate import write_report
from jaxllm.evaluate.report import REPORT_FILE
from jaxllm.finetune.tasks import is_task
from jaxllm.hardware.counted import counted
from jaxllm.models import num_params
from jaxllm.recipe.assemble import Job
from jaxllm.recipe.run_folder import RunFolder
from jaxllm.recipe.sample import make_sample
from jaxllm.sharding import replicated
from jaxllm.training import Progress, TrainState, evaluated, read_metrics

Say = Callable[[str], None]

RESULTS_FILE = "results.json"
WHOLE = ("finished", "patience")
"""Ends after which nothing is left to do."""


def conclude(
    job: Job,
    folder: RunFolder,
    state: TrainState,
    progress: Progress,
    ended: str,
    compile_seconds: float,
    command: str | None,
    say: Say,
) -> None:
    """results.json, report.html, and the last words; by process 0."""
    beat(progress.step, "making the sample", long=True)
    measured = _measured(job, folder, state, progress) if ended in WHOLE and is_task(job.recipe.objective) else {}
    sample = _sample(job, state, say) if ended in WHOLE else None
    sample = next(iter([split.pop("sample") for split in measured.values()]), sample)
    if not is_first():
        return
    beat(progress.step, "writing the report", long=True)
    results = {
        "step": progress.step,
        "parameters": num_params(state.whole),
        "trainable_parameters": num_params(state.params),
        job.recipe.objective.reports.unit: progress.examples * job.recipe.objective.tokens(job.recipe.data),
        "seconds": sum(line["step_seconds"] for line in read_metrics(folder.path) if line["split"] == "train"),
        "compile_seconds": compile_seconds,
    }
    told = results | {name: text for split in measured.values() for name, text in in_words(split)}
    write_report(folder.path, command=command or f"jaxllm train {folder.place}", sample=sample, results=told)
    if ended in WHOLE:
        words = json.dumps({**results, **measured, "sample": sample}, indent=2, ensure_ascii=False)
        (folder.path / RESULTS_FILE).write_text(words + "\n", encoding="utf-8")
    folder.publish()
    for split in measured.values():
        told = ", ".join(f"{name} {text}" for name, text in in_words(split, short=True))
        say(f"{split['split']}, step {split['step']}: {told}")
    _closing_words(job, folder, progress, ended, sample, say)


def _measured(job: Job, folder: RunFolder, state: TrainState, progress: Progress) -> dict[str, Any]:
    """For a task: the metrics of the best checkpoint on each split that is there, with their intervals."""
    params, step = evaluated(state), progress.step
    with closing(Store(folder.checkpoints, job.recipe.checkpoint)) as store:
        best = from_first(store.best_step)
        if best is not None and best != progress.step:
            restored = store.restore(job.abstract._replace(frozen={}), best).state
            params, step = evaluated(restored._replace(frozen=state.frozen)), best
    splits = {"validation": job.recipe.data.validation_split, "test": job.data.test_split}
    return {name: measure(job, params, split, step) for name, split in splits.items() if split is not None}


def measure(job: Job, params: Any, split: str, step: int) -> dict[str, Any]:
    """For a task: losses and metrics over a whole split, each metric with its 95 % interval, and a few predictions."""
    objective: Any = job.recipe.objective
    results, scores, found = job.predict_split(params, split, batches=None)
    metrics = {name: measured._asdict() for name, measured in scores.measured(job.recipe.seed).items()}
    sample = objective.show(found, job.rows(split), job.data)
    return {"split": split, "step": step, **results, "metrics": metrics, "sample": sample}


def in_words(split: Mapping[str, Any], *, short: bool = False) -> list[tuple[str, str]]:
    """The metrics of a split, each as "0.9128 (0.8946-0.9300)"."""
    metrics = split["metrics"].items()
    told = [(name, f"{found['value']:.4f} ({found['low']:.4f} to {found['high']:.4f})") for name, found in metrics]
    return told if short else [(f"{split['split']} {name}, 95 % interval", text) for name, text in told]


def _sample(job: Job, state: TrainState, say: Say) -> str | None:
    """What the model makes of an example, on one device of process 0; None where the parameters have no room there."""
    params = evaluated(state)
    if num_processes() > 1:
        if not from_first(lambda: _fit_one_device(params)):
            say("no sample: the parameters do not fit one device")
            return None
        params = jax.tree.map(lambda leaf: _on_first(leaf, replicated(job.mesh)), params)
    return make_sample(job, jax.device_put(params, jax.local_devices()[0])) if is_first() else None


def _fit_one_device(params: Any) -> bool:
    stats = jax.local_devices()[0].memory_stats() or {}
    free = stats.get("bytes_limit", math.inf) - stats.get("bytes_in_use", 0)
    return 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(params)) < free


def _on_first(leaf: jax.Array, everywhere: jax.sharding.Sharding) -> np.ndarray | None:
    """An array gathered into the host memory of process 0; all processes take part."""
    whole = jax.device_put(leaf, everywhere)
    return np.asarray(whole.addressable_data(0)) if is_first() else None


def _closing_words(job: Job, folder: RunFolder, progress: Progress, ended: str, sample: str | None, say: Say) -> None:
    path = shlex.quote(str(folder.place))
    if sample is not None:
        say(f"\n{sample.strip()}\n")
    if ended == "patience":
        looks = counted(job.recipe.evaluate.patience or 0, "evaluation")
        say(f"stopped at step {progress.step}: no better validation loss in {looks}")
    elif ended != "finished":
        say(f"stopped by {ended} after step {progress.step}, which is saved. Go on with: jaxllm train {path}")
    say(f"report: {folder.place}/{REPORT_FILE}")
