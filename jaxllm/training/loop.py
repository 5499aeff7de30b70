"""The training loop: step, log, evaluate, save, stop. Everything it calls is built before and passed in."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import jax

from jaxllm.checkpoint import Best, SaveError, Store
from jaxllm.distributed import beat
from jaxllm.hardware import ProfileWindow, StepTimer
from jaxllm.training.interrupt import Interrupt
from jaxllm.training.loss import Batch
from jaxllm.training.run_log import RunLog
from jaxllm.training.state import TrainState
from jaxllm.training.step import Metrics


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    every: int = 250
    """Steps between evaluations; the last step is evaluated, too."""
    batch_size: int | None = None
    """Rows a batch. By default the training batch; rounded up to what the mesh divides."""
    batches: int | None = None
    """Batches of the split to look at. By default all of it."""
    patience: int | None = None
    """Stop after this many evaluations in a row without a new best value of `metric`. By default never."""
    metric: str = "loss"
    """What the best checkpoint and `patience` go by: the loss, or a metric that the objective reports."""

    def __post_init__(self) -> None:
        for name in ("every", "batch_size", "batches", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"evaluate.{name} must be at least 1: got {value}")


class NonFiniteLoss(RuntimeError):
    """The loss or the gradient became infinite or NaN."""


@dataclass
class Progress:
    """What the loop remembers beside the state; saved with each checkpoint."""

    step: int = 0
    """Steps taken."""
    examples: int = 0
    """Examples consumed: the position in the data."""
    best_loss: float | None = None
    """Lowest validation loss so far."""
    best: float | None = None
    """Best value so far of another metric that the evaluations go by."""
    evaluations_since_best: int = 0
    """Evaluations since the best value of the metric that they go by."""
    skipped_in_a_row: int = 0
    """Updates skipped since the last finite one."""
    metric: str | None = None
    """Metric that the evaluations went by; None where an older checkpoint does not say."""

    def going_by(self, metric: str) -> "Progress":
        """The same for evaluations that go by this metric from now on: what was best by another is forgotten."""
        if self.metric in (None, metric):
            return dataclasses.replace(self, metric=metric)
        return dataclasses.replace(self, metric=metric, best=None, evaluations_since_best=0)


MOST_SKIPS_IN_A_ROW = 10
"""With on_nonfinite=skip, the run stops when more updates than this in a row are not finite: it will not recover."""


@dataclass(frozen=True, kw_only=True)
class Loop:
    """The pieces of one run."""

    steps: int
    batch_size: int
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    compile_new: Callable[[Batch], str | None] = lambda batch: None
    """Compiles the step for a batch of a shape that is new, and says so."""
    batches: Generator[Batch]
    """Batches on their devices, from the first one not yet consumed."""
    evaluate: Callable[[TrainState], dict[str, float]] | None
    """Validation metrics, `loss` among them; None where the data has no validation split."""
    after_evaluation: Callable[[int, dict[str, float]], str | None] = lambda step, metrics: None
    """Told of each evaluation; a reason that it gives ends the run after this step, which is saved."""
    observe: Callable[[int, TrainState], str | None] = lambda step, state: None
    """Looks at the state where an evaluation is due, validation split or not; what it says is printed."""
    config: EvaluateConfig
    best: Best = Best()
    """What evaluations go by."""
    checkpoint_every: int
    keep_best: bool
    """Save when an evaluation is the best so far, so that the best parameters are kept."""
    store: Store
    log: RunLog
    timer: StepTimer
    profile: ProfileWindow
    utilization: Callable[[float], float | None]
    """Model FLOPs utilization at so many tokens (or images) per second."""
    unit: str
    """What the timer counts: tokens or images."""
    describe_examples: Callable[[int], str]
    """Which documents the examples of the batch starting at this position came from, for an error message."""
    skip_nonfinite: bool
    identity: dict[str, str]
    """Fingerprints of what the run must find again when it goes on; saved with each checkpoint."""
    pending: list[tuple[int, Metrics]] = field(default_factory=list)
    """Steps dispatched and not yet looked at."""


def train(loop: Loop, state: TrainState, progress: Progress, interrupt: Interrupt) -> tuple[TrainState, str]:
    """Runs from `progress.step` to `loop.steps`; returns the state and why it ended: "finished", "patience", a signal, or
    what `after_evaluation` said.

    Raises:
      NonFiniteLoss: naming the step, the last good checkpoint and the examples of the batch.
      SaveError: the last checkpoint could not be written.
    """
    ended = "finished"
    for step in range(progress.step + 1, loop.steps + 1):
        loop.profile.before(step)
        beat(step, "waiting for its data")
        batch = next(loop.batches)
        with loop.timer.paused():
            if (told := loop.compile_new(batch)) is not None:
                loop.log.message(told)
        beat(step, "in the step")
        state, metrics = loop.train_step(state, batch)
        loop.profile.after(step, metrics)
        loop.pending.append((step, metrics))
        progress.step, progress.examples = step, step * loop.batch_size
        stop, last = interrupt.after(step), step == loop.steps
        look = last or step % loop.config.every == 0
        save = last or step % loop.checkpoint_every == 0 or stop is not None
        if look or save or step % loop.log.config.every == 0 or step == 1:
            _catch_up(loop, progress)
        if look and (told := loop.observe(step, state)) is not None:
            loop.log.message(told)
        validation = None
        if look and loop.evaluate is not None:
            beat(step, "evaluating")
            with loop.timer.paused():
                validation, improved = _evaluate(loop, state, progress)
            save = save or (improved and loop.keep_best)
            reason = loop.after_evaluation(step, validation)
            stop = stop or reason
        enough = out_of_patience(loop.config, progress)
        ends = last or enough or stop is not None
        if save or ends:
            beat(step, "saving")
            with loop.timer.paused():
                _save(loop, state, progress, validation, must_succeed=ends)
        if ends:
            ended = "finished" if last else stop or "patience"
            break
    loop.profile.close()
    beat(progress.step, "saving")
    loop.store.wait()
    _warn_of_failures(loop)
    return state, ended


def _catch_up(loop: Loop, progress: Progress) -> None:
    """Waits for the steps dispatched so far, checks them, times them and hands them to the log."""
    if not loop.pending:
        return
    pending = [(step, dict(jax.device_get(metrics))) for step, metrics in loop.pending]
    loop.pending.clear()
    interval = loop.timer.mark(pending[-1][0])
    for step, metrics in pending:
        finite = math.isfinite(metrics["loss"]) and math.isfinite(metrics["grad_norm"])
        if interval is not None:
            metrics[f"{loop.unit}_per_second"] = interval.tokens_per_second
            metrics["step_seconds"] = interval.step_seconds
            metrics["mfu"] = loop.utilization(interval.tokens_per_second)
        loop.log.train(step, metrics)
        progress.skipped_in_a_row = 0 if finite else progress.skipped_in_a_row + 1
        if not finite:
            _report_nonfinite(loop, step, metrics, progress.skipped_in_a_row)
    loop.log.flush()


def _report_nonfinite(loop: Loop, step: int, metrics: Any, skipped: int) -> None:
    found = f"loss {float(metrics['loss'])}, gradient norm {float(metrics['grad_norm'])}"
    if loop.skip_nonfinite and skipped < MOST_SKIPS_IN_A_ROW:
        loop.log.message(f"step {step}: {found}: update skipped")
        return
    loop.log.flush()
    with contextlib.suppress(SaveError):
        loop.store.wait()
    # A loss that is not finite speaks of the parameters that the step before left, so a checkpoint of that step is none.
    suspect = step - 1 if not math.isfinite(metrics["loss"]) else step
    good = [saved for saved in loop.store.steps() if saved < suspect]
    last_good = f"the last good checkpoint is step {good[-1]}" if good else "there is no good checkpoint yet"
    if suspect in loop.store.steps():
        last_good += f" (step {suspect} is suspect: delete it to go on from an earlier one)"
    raise NonFiniteLoss(
        f"loss and gradient must be finite: got {found} at step {step}; {last_good}. "
        f"The batch: {loop.describe_examples((step - 1) * loop.batch_size)}. "
        "Lower optimizer.learning_rate, look at those examples, or set on_nonfinite=skip"
    )


def _evaluate(loop: Loop, state: TrainState, progress: Progress) -> tuple[dict[str, float], bool]:
    assert loop.evaluate is not None
    metrics = loop.evaluate(state)
    loop.log.evaluation(progress.step, "validation", metrics)
    lower = progress.best_loss is None or metrics["loss"] < progress.best_loss
    progress.best_loss = metrics["loss"] if lower else progress.best_loss
    improved = lower
    if loop.best.metric != "loss":
        value, best = metrics[loop.best.metric], progress.best
        if improved := best is None or loop.best.key(value) < loop.best.key(best):
            progress.best = value
    progress.evaluations_since_best = 0 if improved else progress.evaluations_since_best + 1
    return metrics, improved


def out_of_patience(config: EvaluateConfig, progress: Progress) -> bool:
    return config.patience is not None and progress.evaluations_since_best >= config.patience


def _save(
    loop: Loop, state: TrainState, progress: Progress, validation: dict[str, float] | None, *, must_succeed: bool
) -> None:
    """A failed save on the way does not end the run: the next one may find room again, and the last one must."""
    loop.log.settle()
    _warn_of_failures(loop)
    try:
        loop.store.save(
            progress.step, state._replace(frozen={}), {"progress": vars(progress).copy(), **loop.identity}, metrics=validation
        )
    except SaveError as error:
        if must_succeed or not error.agreed:
            raise
        loop.log.message(f"warning: {error}. Training goes on")


def _warn_of_failures(loop: Loop) -> None:
    """Says what went wrong in the background since the last look; raises what the run cannot outlive."""
    while (failure := loop.store.failure()) is not None:
        if not failure.agreed:
            raise failure
        loop.log.message(f"warning: {failure}")
