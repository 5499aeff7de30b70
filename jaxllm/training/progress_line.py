"""What a run shows while it trains: one live line, or plain ones."""

import sys
import time
from collections import deque
from contextlib import ExitStack

SECONDS_BETWEEN_PLAIN_LINES = 10.0


class ProgressLine:
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
