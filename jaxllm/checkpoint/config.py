"""When to save and what to keep, the two errors of this room, and which checkpoints retention deletes."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When a run saves its state, and which checkpoints stay on disk."""

    every: int = 500
    """Save after each this many steps; the last step and a stop signal save too."""
    keep_last: int = 2
    """Newest checkpoints to keep; with 2 or more a damaged one can be replaced by the one before."""
    keep_best: int = 1
    """Checkpoints with the best metric to keep besides; 0 keeps none for their metric."""
    asynchronous: bool = True
    """Write to disk while the next steps run."""

    def __post_init__(self) -> None:
        for field, least in (("every", 1), ("keep_last", 1), ("keep_best", 0)):
            if getattr(self, field) < least:
                raise ValueError(f"checkpoint.{field} must be at least {least}: got {getattr(self, field)}")


Direction = Literal["lowest", "highest"]
"""Which value of a metric is the best."""


class Best(NamedTuple):
    """By what one checkpoint, or one run, is better than another; steps saved without the metric are no candidates."""

    metric: str = "loss"
    direction: Direction = "lowest"

    def key(self, value: float) -> float:
        """To sort by: the best value has the lowest."""
        return value if self.direction == "lowest" else -value


class CheckpointError(ValueError):
    """No usable checkpoint, or one that does not fit what is asked of it."""


class SaveError(OSError):
    """A checkpoint could not be written; earlier ones are as they were."""

    agreed = True
    """Whether all processes of the run know it and may go on; else it is this one's alone, and the run cannot."""


def best_steps(metrics: dict[int, dict[str, float]], best: Best) -> list[int]:
    """Of the saved steps, each with its metrics, those that have the metric that counts, best first."""
    scores = {step: best.key(values.get(best.metric, math.nan)) for step, values in metrics.items()}
    return sorted((step for step in scores if not math.isnan(scores[step])), key=lambda step: (scores[step], -step))


def steps_to_delete(metrics: dict[int, dict[str, float]], config: CheckpointConfig, best: Best) -> list[int]:
    """Of the saved steps, each with its metrics, those that are neither among the newest nor among the best."""
    newest = sorted(metrics)[-config.keep_last :]
    return sorted(metrics.keys() - set(newest) - set(best_steps(metrics, best)[: config.keep_best]))
