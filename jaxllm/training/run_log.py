"""What a run writes down while it trains: `metrics.jsonl`, TensorBoard events, Weights & Biases, and one live line."""

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any
from uuid import uuid4

import jax

from jaxllm.hardware.bucket import Bucket, is_url, local_path

METRICS_FILE = "metrics.jsonl"
SECONDS_BETWEEN_PLAIN_LINES = 10.0
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
            self._sinks.append(_open_metrics(folder, resume_step, opened))
            if config.tensorboard:
                self._sinks.append(_open_tensorboard(folder, resume_step, opened))
            if config.wandb_project is not None:
                self._sinks.append(_open_wandb(folder, config.wandb_project, opened))
            self._line = _ProgressLine(total_steps, resume_step or 0, opened)
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
        record = _record(step, split, metrics)
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
            _record(step, "train", dict(zip(metrics, numbers, strict=True)))
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


def read_metrics(folder: str | Path) -> list[dict]:
    """The lines of `metrics.jsonl` in a run folder, or at its URL, in order. A last line that a kill cut short is left out."""
    try:
        content = Bucket(str(folder)).read(METRICS_FILE) if is_url(folder) else (local_path(folder) / METRICS_FILE).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"A run folder holds {METRICS_FILE}: there is none in {folder}. Check the path.") from None
    return [record for _, record in _complete_lines(content, f"{folder}/{METRICS_FILE}")]


def _complete_lines(content: bytes, path: str) -> list[tuple[bytes, dict]]:
    *lines, cut_short = content.split(b"\n")
    del cut_short  # every complete line ends in a newline, so this is empty or half a line
    parsed = []
    for number, line in enumerate(lines, start=1):
        try:
            parsed.append((line, json.loads(line)))
        except ValueError as error:
            raise ValueError(
                f"Each line of {path} must be one JSON object: line {number} is not ({error}). Repair or remove it."
            ) from None
    return parsed


def _record(step: int, split: str, metrics: Mapping[str, Any]) -> dict:
    """One line of the log. A float32 is widened to double, so no digit is lost; JSON has no NaN, so that is null."""
    record: dict[str, Any] = {"step": int(step), "split": split}
    for name, value in metrics.items():
        number = None if value is None else float(value)
        record[name] = number if number is not None and isfinite(number) else None
    return record


def _open_metrics(folder: Path, resume_step: int | None, opened: ExitStack) -> Callable[[list[dict]], None]:
    path = folder / METRICS_FILE
    if resume_step is None:
        path.unlink(missing_ok=True)
    elif path.is_file():
        kept = [line + b"\n" for line, record in _complete_lines(path.read_bytes(), str(path)) if record["step"] <= resume_step]
        replacement = path.with_suffix(".jsonl.new")
        replacement.write_bytes(b"".join(kept))
        os.replace(replacement, path)
    file = opened.enter_context(path.open("a", encoding="utf-8"))

    def write(records: list[dict]) -> None:
        file.write("".join(json.dumps(record, allow_nan=False) + "\n" for record in records))
        file.flush()

    return write


def _open_tensorboard(folder: Path, resume_step: int | None, opened: ExitStack) -> Callable[[list[dict]], None]:
    from tensorboardX import SummaryWriter

    purge_step = 0 if resume_step is None else resume_step + 1
    # Files are named by the second: without a suffix, a run resumed at once would overwrite what it resumes.
    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=purge_step, filename_suffix=f".{purge_step}")
    opened.callback(writer.close)

    def write(records: list[dict]) -> None:
        for name, value in _values(records[-1]).items():
            writer.add_scalar(name, value, records[-1]["step"])
        writer.flush()

    return write


def _open_wandb(folder: Path, project: str, opened: ExitStack) -> Callable[[list[dict]], None]:
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError(
            f"log.wandb_project needs the package wandb: got {project!r}, but wandb is not installed. "
            "Run `pip install 'jaxllm[wandb]'`, or leave log.wandb_project out."
        ) from None
    id_file = folder / "wandb_run_id"
    if not id_file.exists():
        id_file.write_text(uuid4().hex)
    run = wandb.init(project=project, dir=str(folder), name=folder.name, id=id_file.read_text(), resume="allow")
    opened.callback(run.finish)
    # A resumed run may repeat steps. W&B refuses a step it has seen as its own counter, but not as a value to plot by.
    run.define_metric("*", step_metric="step")

    def write(records: list[dict]) -> None:
        run.log({"step": records[-1]["step"], **_values(records[-1])})

    return write


def _values(record: dict) -> dict[str, float]:
    """The numbers of a record under the names that trackers show: `train/loss`."""
    return {
        f"{record['split']}/{name}": value
        for name, value in record.items()
        if name not in ("step", "split") and value is not None
    }


class _ProgressLine:
    """Where the run is: a live line with a bar on a terminal, otherwise a plain line every few seconds."""

    def __init__(self, total_steps: int, start_step: int, opened: ExitStack):
        self.total_steps = total_steps
        # The clock of "time left" starts with the first look at the metrics, so compiling does not count.
        self._looks: deque[tuple[int, float]] = deque(maxlen=50)
        self._validation_loss: float | None = None
        self._printed_at: float | None = None
        self._live = None
        if sys.stdout.isatty():
            from rich.progress import BarColumn, Progress, TextColumn

            # No refresh thread: the line moves when there is something new, and training keeps the cores.
            columns = TextColumn("{task.description}"), BarColumn(bar_width=None)
            self._live = Progress(*columns, auto_refresh=False, expand=True)
            self._task = self._live.add_task("compiling ...", total=total_steps, completed=start_step)
            opened.enter_context(self._live)

    def show_train(self, record: dict) -> None:
        now = time.monotonic()
        self._looks.append((record["step"], now))
        if self._live is not None:
            self._live.update(self._task, completed=record["step"], description=self._text(record), refresh=True)
            return
        due = self._printed_at is None or now - self._printed_at >= SECONDS_BETWEEN_PLAIN_LINES
        if due or record["step"] >= self.total_steps:
            self._printed_at = now
            self.print(self._text(record))

    def show_evaluation(self, record: dict) -> None:
        if record["split"] == "validation":
            self._validation_loss = record.get("loss")
        accuracy = f", accuracy {record['accuracy']:.1%}" if record.get("accuracy") is not None else ""
        self.print(f"{self._position(record['step'])}  {record['split']} loss {_number(record.get('loss'))}{accuracy}")

    def print(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, flush=True)

    def _position(self, step: int) -> str:
        return f"{step:>{len(str(self.total_steps))}}/{self.total_steps}"

    def _text(self, record: dict) -> str:
        parts = [self._position(record["step"]), f"loss {_number(record.get('loss'))}"]
        if self._validation_loss is not None:
            parts.append(f"validation {_number(self._validation_loss)}")
        for unit in ("tokens", "images", "examples"):
            if record.get(f"{unit}_per_second") is not None:
                parts.append(f"{record[f'{unit}_per_second']:,.0f} {unit}/s")
        if (seconds := self._seconds_left(record["step"])) is not None:
            parts.append(f"{_duration(seconds)} left")
        return "  ".join(parts)

    def _seconds_left(self, step: int) -> float | None:
        (first_step, first_time), (last_step, last_time) = self._looks[0], self._looks[-1]
        if last_step == first_step:
            return None
        return (self.total_steps - step) * (last_time - first_time) / (last_step - first_step)


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
