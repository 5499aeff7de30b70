"""`metrics.jsonl` of a run: one JSON object a line, for each training step and each evaluation."""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from math import isfinite
from pathlib import Path
from typing import Any

from jaxllm.hardware.bucket import Bucket, in_bucket, local_path

METRICS_FILE = "metrics.jsonl"


def read_metrics(folder: str | Path) -> list[dict]:
    """The lines of `metrics.jsonl` in a run folder, or at its URL, in order. A last line that a kill cut short is left out."""
    try:
        there = in_bucket(folder)
        content = Bucket(str(folder)).read(METRICS_FILE) if there else (local_path(folder) / METRICS_FILE).read_bytes()
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


def record_of(step: int, split: str, metrics: Mapping[str, Any]) -> dict:
    """One line of the log. A float32 is widened to double, so no digit is lost; JSON has no NaN, so that is null."""
    record: dict[str, Any] = {"step": int(step), "split": split}
    for name, value in metrics.items():
        number = None if value is None else float(value)
        record[name] = number if number is not None and isfinite(number) else None
    return record


def open_metrics(folder: Path, resume_step: int | None, opened: ExitStack) -> Callable[[list[dict]], None]:
    """What writes records, until `opened` closes; first drops what a resumed run will write again."""
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
