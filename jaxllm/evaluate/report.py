"""`report.html`: a run on one page that needs no other file and no network: curves, numbers, sample, command."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

from jaxllm.evaluate.curve import loss_curve, metric_curve
from jaxllm.evaluate.page import page, table
from jaxllm.evaluate.perplexity import perplexity_of
from jaxllm.evaluate.task_page import STYLE
from jaxllm.training.metrics_file import read_metrics

REPORT_FILE = "report.html"
BODY = """<h2>Curves</h2>
{curves}
{sections}
{sample}
<h2>Numbers</h2>
{numbers}
<h2>Command</h2>
<pre>{command}</pre>
<h2>Environment</h2>
{environment}
<h2>Recipe</h2>
{recipe}"""


def write_report(
    run_dir: Path,
    *,
    command: str,
    sample: str | None = None,
    results: Mapping[str, Any] | None = None,
    tiles: Sequence[tuple[str, str]] = (),
    sections: str = "",
) -> Path:
    """Writes `report.html` into a run folder, from its `metrics.jsonl`, `environment.json` and `recipe.json`.

        write_report(Path("runs/demo"), command="jaxllm train configs/demo.py", sample="ROMEO: ...",
                     results={"parameters": 804_096, "tokens": 1_536_000, "seconds": 131.0, "compile_seconds": 6.5})

    Args:
      command: what was typed to get this run, exactly.
      sample: text that the trained model wrote.
      results: numbers that the log cannot know. The names in `NUMBERS` get a label and a unit there, others keep
        their name. A number given here wins over the same one taken from the log.
      tiles: further ones, before those of the numbers; see `page`.
      sections: markup that stands behind the curves, such as `task_sections`.
    """
    run_dir = Path(run_dir)
    records = read_metrics(run_dir)
    numbers = {**_logged_numbers(records), **(results or {})}
    shown = {_label(name): _text(name, numbers[name]) for name in sorted(numbers, key=_place)}
    body = BODY.format(
        curves=_curves(records),
        sections=sections,
        sample="" if sample is None else f'<h2>Sample</h2>\n<pre class="sample">{escape(sample)}</pre>',
        numbers=table(shown.items()),
        command=escape(command),
        environment=_environment(run_dir / "environment.json"),
        recipe=_recipe(run_dir / "recipe.json"),
    )
    subtitle = f"Report of {datetime.now().astimezone():%d %B %Y, %H:%M %Z}".rstrip()
    path = run_dir / REPORT_FILE
    shown = [*tiles, *_tiles(numbers, of_task=bool(tiles))]
    path.write_text(page(run_dir.resolve().name, subtitle, shown, body, more_style=STYLE), encoding="utf-8")
    return path


def _logged_numbers(records: Sequence[dict]) -> dict[str, Any]:
    """What the log itself says: last and best losses, steps, and the medians of the speeds."""
    numbers: dict[str, Any] = {}
    train = [r for r in records if r["split"] == "train"]
    counts_tokens = not any(f"{unit}_per_second" in r for r in train for unit in ("images", "examples"))
    for split in ("train", "validation", "test"):
        losses = [r["loss"] for r in records if r["split"] == split and r.get("loss") is not None]
        if losses:
            numbers[f"{split}_loss"] = losses[-1]
        if losses and split == "validation":
            numbers["best_validation_loss"] = min(losses)
            if counts_tokens:
                numbers["perplexity"] = perplexity_of(losses[-1])
        accuracies = [r["accuracy"] for r in records if r["split"] == split and r.get("accuracy") is not None]
        if accuracies and split != "train":
            numbers[f"{split}_accuracy"] = accuracies[-1]
    if train:
        numbers["steps"] = train[-1]["step"]
    for name in ("tokens_per_second", "images_per_second", "examples_per_second", "mfu", "step_seconds"):
        if values := [r[name] for r in train if r.get(name) is not None]:
            numbers[name] = median(values)
    return numbers


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _loss(value: float) -> str:
    return f"{value:.4f}"


def _duration(seconds: float) -> str:
    """Two units are enough: "2 h 5 min", "2 min 11 s", "6.5 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.1f} ms"


def _memory(count: float) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _percent(fraction: float) -> str:
    return f"{fraction:.1%}"


NUMBERS: dict[str, tuple[str, Callable[[float], str]]] = {
    "validation_loss": ("validation loss, nats", _loss),
    "best_validation_loss": ("best validation loss", _loss),
    "perplexity": ("validation perplexity", lambda value: f"{value:,.3f}"),
    "validation_accuracy": ("validation accuracy", _percent),
    "test_accuracy": ("test accuracy", _percent),
    "bits_per_character": ("bits per character", _loss),
    "test_loss": ("test loss", _loss),
    "train_loss": ("training loss, last step", _loss),
    "steps": ("steps", _count),
    "tokens": ("tokens trained on", _count),
    "images": ("images trained on", _count),
    "examples": ("examples trained on", _count),
    "parameters": ("parameters", _count),
    "trainable_parameters": ("parameters that learn", _count),
    "seconds": ("training time", _duration),
    "compile_seconds": ("compile time", _duration),
    "step_seconds": ("step time, median", _milliseconds),
    "tokens_per_second": ("tokens per second, median", _count),
    "images_per_second": ("images per second, median", _count),
    "examples_per_second": ("examples per second, median", _count),
    "peak_memory_bytes": ("peak memory", _memory),
    "mfu": ("model FLOPs utilization, median", _percent),
}
"""Known results in the order of the table: label, and how the value is written."""

TILES = (
    "validation_loss", "perplexity", "validation_accuracy", "seconds", "tokens_per_second", "images_per_second",
    "examples_per_second", "parameters",
)  # fmt: skip
TASK_TILES = ("trainable_parameters", "seconds", "tokens_per_second", "images_per_second", "peak_memory_bytes")
"""Behind the metrics of a task."""


def _label(name: str) -> str:
    return NUMBERS[name][0] if name in NUMBERS else name.replace("_", " ")


def _place(name: str) -> int:
    return list(NUMBERS).index(name) if name in NUMBERS else len(NUMBERS)


def _text(name: str, value: Any) -> str:
    if value is None:
        return "unknown"
    if name in NUMBERS:
        return NUMBERS[name][1](float(value))
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def _tiles(numbers: Mapping[str, Any], *, of_task: bool) -> list[tuple[str, str]]:
    names = TASK_TILES if of_task else TILES
    return [(_text(name, numbers[name]), _label(name)) for name in names if numbers.get(name) is not None]


def _curves(records: Sequence[dict]) -> str:
    titles = {
        "learning_rate": "learning rate",
        "grad_norm": "gradient norm",
        "accuracy": "accuracy",
        "tokens_per_second": "tokens per second",
        "images_per_second": "images per second",
    }
    small = [metric_curve(records, name, title) for name, title in titles.items()]
    return f'{loss_curve(records)}\n<div class="curves">\n{"".join(svg for svg in small if svg is not None)}</div>'


def _environment(path: Path) -> str:
    if not path.is_file():
        return "<p>The run folder has no environment.json.</p>"
    return table((name.replace("_", " "), text) for name, text in _flat(json.loads(path.read_text(encoding="utf-8"))))


def _flat(value: Any, name: str = "") -> Iterable[tuple[str, str]]:
    """A nested object as rows, under the innermost names: `versions: {jax: 0.10.2}` becomes `jax`, `0.10.2`."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, key)
    elif isinstance(value, list):
        yield name, ", ".join(str(item) for item in value)
    elif name.endswith("bytes") and value is not None:
        yield name.removesuffix("bytes").strip("_ "), f"{value / 2**30:.1f} GiB"
    else:
        yield name, "unknown" if value is None else str(value) or "none"


def _recipe(path: Path) -> str:
    if not path.is_file():
        return "<p>The run folder has no recipe.json.</p>"
    return f"<details><summary>recipe.json</summary>\n<pre>{escape(path.read_text(encoding='utf-8'))}</pre></details>"
