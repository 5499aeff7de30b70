"""What the model said of a run's examples before it learned, for an objective that compares with it."""

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from jaxllm.data.example_rows import ExampleRows
from jaxllm.data.example_table import ExampleTable
from jaxllm.distributed import gather
from jaxllm.finetune.tasks.reference import REFERENCE, has_reference, with_reference
from jaxllm.training import make_predict_step

if TYPE_CHECKING:
    from jaxllm.recipe.job import Job


def compare(job: "Job") -> str | None:
    """Has the model as it was speak of all splits, unless this machine has kept that; tells so in a line. None where nothing is
    compared."""
    if not job.compares:
        return None
    start, splits = time.perf_counter(), (job.recipe.data.validation_split, job.data.test_split)
    rows: list[Any] = [job.plain_train, *(job.open(split, None) for split in splits if split is not None)]
    with_references(job, rows)
    count, seconds = sum(len(each.table) for each in rows), time.perf_counter() - start
    return f"compared with the model as it was: what that says of {count:,} examples, in {seconds:.1f} s"


def with_references(job: "Job", several: list[Any]) -> list[Any]:
    """Examples with what the model as it was says of them, where the objective asks for that."""
    if not job.compares:
        return several
    new = [rows for rows in several if rows.table.fingerprint not in job.references]
    if new:
        job.references.update(_said_before(job, new))
    return [dataclasses.replace(rows, table=job.references[rows.table.fingerprint]) for rows in several]


def _said_before(job: "Job", several: list[ExampleRows]) -> dict[str, ExampleTable]:
    objective: Any = job.recipe.objective
    if job.first is None:
        raise ValueError(
            f"objective {type(objective).__name__} compares with the model as it was before it learned, which only a run "
            "knows: name the folder of one"
        )
    params, found = job.first(job), {}
    name = objective.reference_name(job.model, params)
    step = job.jitted(make_predict_step(objective.make_reference(job.model, job.recipe.loss)))
    for rows in several:
        values: Any = None
        if set(gather(str(has_reference(rows, name)))) != {"True"}:  # all processes take part, or none
            values = job.predict(params, rows, step)[1][REFERENCE]
        found[rows.table.fingerprint] = with_reference(rows, name, lambda values=values: values).table
    return found
