"""The end of a run: the sample, results.json, report.html, and the last words."""

import json
import shlex
from collections.abc import Callable, Mapping
from contextlib import closing
from statistics import median
from typing import Any

from jaxllm.data.example_rows import ExampleRows
from jaxllm.distributed import beat, from_first, is_first
from jaxllm.evaluate import write_report
from jaxllm.evaluate.ranks import ranks_section, read_ranks
from jaxllm.evaluate.report import REPORT_FILE
from jaxllm.evaluate.task_page import forgetting_section, task_sections, task_tiles
from jaxllm.hardware.counted import counted
from jaxllm.hardware.peak_memory import peak_memory_bytes
from jaxllm.models import num_params
from jaxllm.recipe.job import Job
from jaxllm.recipe.measure import in_words, is_measured, on_one_device
from jaxllm.recipe.measure_run import Measured, measure_run
from jaxllm.recipe.run_folder import RunFolder
from jaxllm.recipe.sample import make_sample
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
    peak = peak_memory_bytes(list(job.mesh.devices.flat))  # before what follows needs some
    whole, told = ended in WHOLE, Measured()
    if whole:
        beat(progress.step, "measuring", long=True)
        named = {"validation": job.recipe.data.validation_split, "test": job.data.test_split}
        params, step = _best(job, folder, state, progress)
        told = measure_run(job, params, step, {name: split for name, split in named.items() if split is not None})
        beat(progress.step, "making the sample", long=True)
    sample = _sample(job, state, say) if whole and not told.splits else None
    sample = next(iter([split.pop("sample") for split in told.splits.values()]), sample) or None
    if not is_first():
        return
    beat(progress.step, "writing the report", long=True)
    results = {
        "step": progress.step,
        "parameters": num_params(state.whole),
        "trainable_parameters": num_params(state.params),
        job.recipe.objective.reports.unit: progress.examples * job.recipe.objective.tokens(job.recipe.data),
        "compile_seconds": compile_seconds,
        "peak_memory_bytes": peak,
        **_speed(job, read_metrics(folder.path)),
    }
    write_report(
        folder.path,
        command=command or f"jaxllm train {folder.place}",
        sample=sample,
        results=results | _best_losses(told.splits) | _origin(job),
        tiles=task_tiles(told.splits),
        sections=_sections(told, folder),
    )
    if whole:
        words = json.dumps({**results, **told.splits, **told.lost(), "sample": sample}, indent=2, ensure_ascii=False)
        (folder.path / RESULTS_FILE).write_text(words + "\n", encoding="utf-8")
    folder.publish()
    for split in told.splits.values():
        words = ", ".join(f"{name} {text}" for name, text in in_words(split))
        say(f"{split['split']}, step {split['step']}: {words}")
    if told.forgetting is not None:
        say(told.forgetting.told())
    _closing_words(job, folder, progress, ended, sample, say)


def _best(job: Job, folder: RunFolder, state: TrainState, progress: Progress) -> tuple[Any, int]:
    """The parameters of the best checkpoint, for what is measured on predictions, else the last; and their step."""
    if is_measured(job):
        with closing(folder.store(job.recipe)) as store:
            best = from_first(store.best_step)
            if best is not None and best != progress.step:
                restored = store.restore(job.abstract._replace(frozen={}), best).state
                return evaluated(restored._replace(frozen=state.frozen)), best
    return evaluated(state), progress.step


def _origin(job: Job) -> dict[str, str]:
    """What was fitted how to what."""
    recipe = job.recipe
    fitted = {} if recipe.pretrained is None else {"fitted": recipe.pretrained, "method": type(recipe.method).__name__}
    return {**fitted, "data": recipe.data.dataset}


def _speed(job: Job, records: list[dict]) -> dict[str, float]:
    """The seconds of all steps, and the median speed; of examples also in tokens, padding not counted."""
    lines = [line for line in records if line["split"] == "train"]
    found: dict[str, float] = {"seconds": sum(line["step_seconds"] for line in lines)}
    name = f"{job.recipe.objective.reports.unit}_per_second"
    if speeds := [line[name] for line in lines if line.get(name) is not None]:
        found[name] = median(speeds)
        if isinstance(job.train, ExampleRows):
            found["tokens_per_second"] = found[name] * job.train.tokens_per_item
    return found


def _best_losses(splits: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """What was measured, in place of what the last evaluation of the run says."""
    names = ("loss", "accuracy", "perplexity")
    found = {f"{name}_{metric}": split[metric] for name, split in splits.items() for metric in names if metric in split}
    return found | ({"perplexity": found["validation_perplexity"]} if "validation_perplexity" in found else {})


def _sections(told: Measured, folder: RunFolder) -> str:
    """What stands in the report between the curves and the sample."""
    lost = forgetting_section(told.lost().get("forgetting"), told.reason)
    parts = (task_sections(told.splits), lost, ranks_section(read_ranks(folder.path)))
    return "\n".join(part for part in parts if part)


def _sample(job: Job, state: TrainState, say: Say) -> str | None:
    """What the model makes of an example, on one device of process 0; None where the parameters have no room there."""
    params = on_one_device(job, evaluated(state))
    if params is None:
        say("no sample: the parameters do not fit one device")
        return None
    return make_sample(job, params)


def _closing_words(job: Job, folder: RunFolder, progress: Progress, ended: str, sample: str | None, say: Say) -> None:
    path = shlex.quote(str(folder.place))
    if sample is not None:
        say(f"\n{sample.strip()}\n")
    if ended == "patience":
        looks = counted(job.recipe.evaluate.patience or 0, "evaluation")
        say(f"stopped at step {progress.step}: no better validation {job.recipe.evaluate.metric} in {looks}")
    elif ended != "finished":
        say(f"stopped by {ended} after step {progress.step}, which is saved. Go on with: jaxllm train {path}")
    say(f"report: {folder.place}/{REPORT_FILE}")
