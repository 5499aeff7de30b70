"""What a run writes down while it trains: `metrics.jsonl`, TensorBoard events, Weights & Biases, and one live line."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxllm.training.metrics_file import open_metrics, record_of
from jaxllm.training.progress_line import ProgressLine
from jaxllm.training.trackers import open_tensorboard, open_wandb

SECONDS_BETWEEN_PUBLISHING = 30.0
"""At least so long between two times that a log is sent to a bucket, checkpoints and evaluations aside."""


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    every: int = 10
    """Steps between two looks at the metrics: the device is waited for, files are written, the live line moves."""
    tensorboard: bool = True
    """Write TensorBoard events into `tensorboard/` of the run folder: the training metrics of each `every`th step."""
    wandb_project: str | None = None
    """Weights & Biases project to log the same to; None: none. An extra, `jaxllm[wandb]`; WANDB_MODE=offline works."""

    def __post_init__(self):
        if self.every < 1:
            raise ValueError(f"log.every must be a number of steps of at least 1: got {self.every}.")
        if self.wandb_project == "":
            raise ValueError("log.wandb_project must be a project's name, or None for no W&B: got an empty name.")


class RunLog:
    """The log of one run, kept open while the run trains.

    `train` only stores what it is given; the values may still be on their way on the device. Every `config.every`
    steps, and at each evaluation, they are fetched at once and written. Call `settle` before a checkpoint is saved:
    then no step that a resumed run skips can be missing from the log.

        with RunLog(folder, LogConfig(), total_steps=2000) as log:
            log.train(1, {"loss": loss, "learning_rate": 1e-3})
            log.evaluation(1, "validation", {"loss": 4.2})

    Args:
      resume_step: the last step that the restored checkpoint has seen: later lines of `metrics.jsonl`, and a line cut
        short by a kill, are dropped. None starts the file afresh.
      publish: sends what is in the folder to the bucket where the run is, if it is in one.
      enabled: False on every process but the first: nothing is written or printed.
    """

    def __init__(
        self,
        folder: Path,
        config: LogConfig,
        total_steps: int,
        resume_step: int | None = None,
        publish: Callable[[], None] | None = None,
        *,
        enabled: bool = True,
    ):
        self.config = config
        self.enabled = enabled
        self._publish = publish
        self._next_publish = 0.0
        self._pending: list[tuple[int, Mapping[str, Any]]] = []
        self._closing = ExitStack()
        self._sinks: list[Callable[[list[dict]], None]] = []
        if not enabled:
            return
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opened:
            self._sinks.append(open_metrics(folder, resume_step, opened))
            if config.tensorboard:
                self._sinks.append(open_tensorboard(folder, resume_step, opened))
            if config.wandb_project is not None:
                self._sinks.append(open_wandb(folder, config.wandb_project, opened))
            self._line = ProgressLine(total_steps, resume_step or 0, opened)
            self._closing = opened.pop_all()

    def train(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Notes one training step. Values are numbers or arrays of one element, or None where there is no value."""
        if not self.enabled:
            return
        self._pending.append((step, metrics))
        if step % self.config.every == 0 or step >= self._line.total_steps:
            self.flush()

    def evaluation(self, step: int, split: str, metrics: Mapping[str, Any]) -> None:
        """Notes an evaluation of `split` ("validation" or "test") after `step`, and prints it."""
        if not self.enabled:
            return
        self.flush()
        record = record_of(step, split, metrics)
        for write in self._sinks:
            write([record])
        self._line.show_evaluation(record)
        self._send()

    def message(self, text: str) -> None:
        """Prints `text` above the live line."""
        if self.enabled:
            self._line.print(text)

    def flush(self) -> None:
        """Fetches what the device still owes and hands every noted step to the operating system."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        values = jax.device_get([list(metrics.values()) for _, metrics in pending])
        records = [
            record_of(step, "train", dict(zip(metrics, numbers, strict=True)))
            for (step, metrics), numbers in zip(pending, values, strict=True)
        ]
        for write in self._sinks:
            write(records)
        self._line.show_train(records[-1])
        if time.monotonic() >= self._next_publish:
            self._send()

    def settle(self) -> None:
        """As `flush`, and in a bucket, too, all is there: to be called before a checkpoint is saved."""
        self.flush()
        self._send()

    def close(self) -> None:
        """Writes what is left and closes every file. Closing twice is harmless."""
        with self._closing:
            self.settle()

    def _send(self) -> None:
        """Each object is sent whole, since none can be appended to: the larger the log grows, the less often."""
        if self._publish is None or not self.enabled:
            return
        begin = time.monotonic()
        try:
            self._publish()
        except OSError as error:
            self.message(f"warning: the log is behind in the bucket: {error.filename}: {error.strerror or error}")
        seconds = time.monotonic() - begin
        self._next_publish = time.monotonic() + max(SECONDS_BETWEEN_PUBLISHING, 100 * seconds)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_) -> None:
        self.close()
