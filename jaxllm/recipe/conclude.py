"""The end of a run: the sample, results.json, report.html, and the last words."""

import json
import math
import shlex
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxllm.distributed import beat, from_first, is_first, num_processes
from jaxllm.evaluate import write_report
from jaxllm.evaluate.report import REPORT_FILE
from jaxllm.hardware.counted import counted
from jaxllm.models import num_params
from jaxllm.recipe.assemble import Job
from jaxllm.recipe.run_folder import RunFolder
from jaxllm.recipe.sample import make_sample
from jaxllm.sharding import replicated
from jaxllm.training import Progress, TrainState, evaluation_params, read_metrics

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
    sample = _sample(job, state, say) if ended in WHOLE else None
    if not is_first():
        return
    beat(progress.step, "writing the report", long=True)
    results = {
        "step": progress.step,
        "parameters": num_params(state.params),
        job.recipe.objective.reports.unit: progress.examples * job.recipe.objective.tokens(job.recipe.data),
        "seconds": sum(line["step_seconds"] for line in read_metrics(folder.path) if line["split"] == "train"),
        "compile_seconds": compile_seconds,
    }
    write_report(folder.path, command=command or f"jaxllm train {folder.place}", sample=sample, results=results)
    if ended in WHOLE:
        words = json.dumps({**results, "sample": sample}, indent=2, ensure_ascii=False)
        (folder.path / RESULTS_FILE).write_text(words + "\n", encoding="utf-8")
    folder.publish()
    _closing_words(job, folder, progress, ended, sample, say)


def _sample(job: Job, state: TrainState, say: Say) -> str | None:
    """What the model makes of an example, on one device of process 0; None where the parameters have no room there."""
    params = evaluation_params(state.params, state.opt_state)
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
