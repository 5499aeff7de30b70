"""What a fine-tuned model is worth, as sections of a page: metrics with intervals, class reports, what it writes and forgets.

All is read from what `results.json` holds, so that both say the same.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from jaxllm.evaluate.class_page import STYLE as CLASS_STYLE
from jaxllm.evaluate.class_page import class_section, grid
from jaxllm.evaluate.page import page

STYLE = (
    CLASS_STYLE
    + """
.budget { max-width: 24rem; }
.answer { background: var(--card); border-radius: .5rem; padding: .75rem 1rem; margin: 0 0 .75rem; }
.answer p { margin: 0 0 .6rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.answer p:last-child { margin: 0; }
.answer b { display: block; color: var(--ink); font-size: .8rem; font-weight: 600; }
"""
)

Splits = Mapping[str, Mapping[str, Any]]
"""What was measured, by split."""


def task_sections(measured: Splits) -> str:
    """All that was measured of a task on some splits."""
    if not measured:
        return ""
    parts = [f"<h2>Metrics</h2>\n{_metrics(measured)}"]
    for name, split in measured.items():
        if "report" in split:
            parts.append(f"<h2>Classes, {escape(name)}</h2>\n{class_section(split['report'])}")
    parts += [
        f"<h2>Written, {escape(name)}</h2>\n{_answers(split['written'])}"
        for name, split in measured.items()
        if "written" in split
    ]
    return "\n".join(parts)


def _metrics(measured: Splits) -> str:
    """One row a metric, one column a split."""
    names = list(dict.fromkeys(name for split in measured.values() for name in _all_metrics(split)))
    rows = [("loss", *(f"{split['loss']:.4f}" for split in measured.values()))]
    rows += [(escape(name), *(_interval(_all_metrics(split).get(name)) for split in measured.values())) for name in names]
    head = ("", *(escape(name) for name in measured))
    first = next(iter(measured.values()))
    counts = ", ".join(f"{split[split['unit']]:,.0f} {split['unit']} of {escape(name)}" for name, split in measured.items())
    notes = [f"Of {counts}."]
    if any(split["metrics"] for split in measured.values()):
        notes.append("In brackets 95 % of the values that a metric has on as many examples drawn anew (bootstrap).")
    if written := next((split["written"] for split in measured.values() if split.get("written", {}).get("metrics")), None):
        notes.append(f"What is written is scored on the first {written['examples']:,} texts.")
    if first.get("step") is not None:
        notes.append(f"The checkpoint is that of step {first['step']:,}.")
    return f'{grid(head, rows)}\n<p class="note">{" ".join(notes)}</p>'


def _all_metrics(split: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    plain = {name: {"value": split[name]} for name in ("perplexity", "accuracy") if name in split}
    return {**plain, **split["metrics"], **split.get("written", {}).get("metrics", {})}


def _interval(found: Mapping[str, float] | None) -> str:
    if found is None:
        return ""
    if "low" not in found:
        return f"{found['value']:.4f}"
    return f"{found['value']:.4f} <small>({found['low']:.4f} to {found['high']:.4f})</small>"


def _answers(written: Mapping[str, Any]) -> str:
    """What was asked, and what the model wrote before and after."""
    blocks = []
    for answer in written["answers"]:
        lines = [("asked", answer["prompt"]), ("wanted", answer["wanted"])]
        lines += [("before", answer["before"])] if answer.get("before") is not None else []
        lines.append(("after" if answer.get("before") is not None else "written", answer["after"]))
        told = "\n".join(f"<p><b>{name}</b>{escape(text.strip())}</p>" for name, text in lines)
        blocks.append(f'<div class="answer">\n{told}\n</div>')
    return "\n".join(blocks)


def forgetting_section(found: Mapping[str, Any] | None, reason: str | None) -> str:
    """The language-model loss before and after, or why there is none."""
    if found is None:
        return "" if reason is None else f'<h2>Forgetting</h2>\n<p class="note">Not measured: {escape(reason)}.</p>'
    change = found["after"] - found["before"]
    row = (f"{found['before']:.4f}", f"{found['after']:.4f}", f"{change:+.4f}")
    table = grid(("", "before", "after", "change"), [("loss of a fixed text, nats a token", *row)])
    what = "hidden tokens" if found["of"] == "hidden tokens" else "tokens"
    note = (
        f"Of {found['tokens']:,} {what} of a plain English text that ships with jaxllm, before the run and after it; where the "
        "run's model has another head, read with the pretrained model's own output matrix. Above 0: the model has become worse "
        "at language that it was not trained on."
    )
    return f'<h2>Forgetting</h2>\n{table}\n<p class="note">{note}</p>'


def write_evaluation(
    path: Path, title: str, subtitle: str, measured: Splits, *, command: str, sample: str | None = None, more: str = ""
) -> None:
    """A page of what was measured alone, without a run.

    Args:
      more: HTML of another section.
    """
    shown = f'\n<h2>Sample</h2>\n<pre class="sample">{escape(sample)}</pre>' if sample else ""
    body = f"{task_sections(measured)}\n{more}{shown}\n<h2>Command</h2>\n<pre>{escape(command)}</pre>"
    path.write_text(page(title, escape(subtitle), task_tiles(measured), body, more_style=STYLE), encoding="utf-8")


def task_tiles(measured: Splits) -> Sequence[tuple[str, str]]:
    """The first metric of each split."""
    tiles = []
    for name, split in measured.items():
        if not split["metrics"]:
            tiles.append((f"{split['loss']:.4f}", f"{escape(name)} loss"))
            continue
        metric, found = next(iter(split["metrics"].items()))
        tiles.append((f"{found['value']:.4f}", f"{escape(name)} {escape(metric)}, {found['low']:.4f} to {found['high']:.4f}"))
    return tiles
