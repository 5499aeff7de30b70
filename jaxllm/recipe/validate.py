"""What the evaluations of a run say: losses, and the metric that the best checkpoint and patience go by."""

from collections.abc import Callable
from typing import Any

from jaxllm.distributed import beat, from_first
from jaxllm.finetune.tasks.written import written_metrics
from jaxllm.recipe.job import Job
from jaxllm.recipe.measure import TEXTS, predicting, write, writes
from jaxllm.training import TrainState, evaluated
from jaxllm.training.objectives import ImageClassification

Validate = Callable[[TrainState, Callable[[int], None]], dict[str, float]]
"""`validate(state, on_batch)`: metrics over the validation split, by all processes; `on_batch(number)` before each batch."""


def make_validate(job: Job) -> Validate:
    """Evaluations that cost no more than their metric needs: predictions of images are kept, and texts written, only for it."""
    metric = job.recipe.evaluate.metric
    if isinstance(job.recipe.objective, ImageClassification) and metric not in ("loss", "accuracy"):
        return predicting(job).evaluate_state
    if not writes(job) or metric not in written_metrics():
        return job.evaluate_state

    def validate(state: TrainState, on_batch: Callable[[int], None]) -> dict[str, float]:
        return job.evaluate_state(state, on_batch) | _of_texts(job, evaluated(state))

    return validate


def _of_texts(job: Job, params: Any) -> dict[str, float]:
    """How good the first texts are that the model writes for the validation split.

    Raises:
      ValueError: the parameters have no room on one device.
    """
    split = job.recipe.data.validation_split
    assert split is not None
    beat(0, "writing texts", long=True)
    written = write(job, job.model, params, job.rows(split), TEXTS)
    found = from_first(lambda: None if written is None else written.scores().values())
    if found is None:
        raise ValueError(
            f"evaluate.metric {job.recipe.evaluate.metric} is of texts that one device writes: the parameters have no room "
            "there; take loss or accuracy"
        )
    return found
