"""What a run is worth: its model on each split, and what of its language a pretrained one has lost."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxllm.recipe.base import NoBase, base_of
from jaxllm.recipe.forgetting import Forgetting, NoText, forgetting, no_language
from jaxllm.recipe.job import Job
from jaxllm.recipe.measure import is_measured, measure, writes


@dataclass(frozen=True)
class Measured:
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What `measure` says of each, by name; empty for what is measured by its loss alone."""
    forgetting: Forgetting | None = None
    reason: str | None = None
    """Why there is no `forgetting`, of a model that was pretrained."""

    def lost(self) -> dict[str, Any]:
        """`forgetting` as it is written: {"forgetting": None} where it could not be measured, {} where nothing was to lose."""
        if self.forgetting is None and self.reason is None:
            return {}
        return {"forgetting": None if self.forgetting is None else self.forgetting._asdict()}


def measure_run(job: Job, params: Any, step: int | None, splits: Mapping[str, str]) -> Measured:
    """By all processes.

    Args:
      params: all of the run's model.
      splits: of the data, by the names that the results have for them.
    """
    base, reason, lost = None, None, None
    if job.recipe.pretrained is not None:
        try:
            reason = no_language(job)
            base = base_of(job, params) if reason is None or writes(job) else None
            lost = forgetting(job, params, base) if base is not None and reason is None else None
        except (NoBase, NoText) as error:
            reason = reason or str(error)
    chosen = splits if is_measured(job) else {}
    return Measured({name: measure(job, params, split, step, base=base) for name, split in chosen.items()}, lost, reason)
