"""`report.html` of a sweep: what came out, on one page that needs no other file and no network."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from jaxllm.evaluate.page import page, table
from jaxllm.evaluate.report import REPORT_FILE
from jaxllm.sweep.field import as_text
from jaxllm.sweep.picture import curves, history, importance_bars, parallel, slices, trial_curves
from jaxllm.sweep.repeat import Repeated
from jaxllm.sweep.results import best_command, in_words
from jaxllm.sweep.search import Searched, Trial

SWEEP_STYLE = """
.slices { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1.25rem; }
.slices figure { margin: 0; }
figcaption, .note { color: var(--ink); font-size: .85rem; margin: .25rem 0; }
.key i { display: inline-block; width: .7rem; height: .7rem; border-radius: 50%; margin: 0 .35rem 0 .9rem; }
.scroll { overflow-x: auto; }
table.wide th { width: auto; }
table.wide td, table.wide th { padding-right: 1rem; overflow-wrap: normal; }
table.wide td:last-child { white-space: nowrap; }
tr.best td { color: var(--validation); }
"""
KEY = (
    '<p class="note key"><i style="background:var(--validation)"></i>best<i style="background:var(--train)"></i>complete'
    '<i style="background:var(--ink);opacity:.45"></i>pruned or failed; a point at the edge lies beyond it</p>'
)


def write_sweep_report(done: Searched | Repeated) -> Path:
    """Writes the page into the sweep's folder."""
    body = _searched(done) if isinstance(done, Searched) else _repeated(done)
    body += f"<h2>Command</h2>\n<pre>{escape(done.sweep.command)}</pre>"
    tiles = _tiles(done) if isinstance(done, Searched) else _spread_tiles(done)
    stopped = "" if done.stopped is None else f"; stopped by {done.stopped}"
    subtitle = f"{_kind(done)} of {escape(done.sweep.recipe.name)}{escape(stopped)}"
    path = done.folder / REPORT_FILE
    path.write_text(page(done.folder.resolve().name, subtitle, tiles, body, more_style=SWEEP_STYLE), encoding="utf-8")
    return path


def _kind(done: Searched | Repeated) -> str:
    asked = done.asked if isinstance(done, Repeated) else getattr(done.sweep.config, "trials", 0)
    ended = len(done.runs) if isinstance(done, Repeated) else len(done.trials)
    what = "Search over the hyperparameters" if isinstance(done, Searched) else "Repeated runs"
    return f"{what} ({ended} of {asked})"


def _tiles(done: Searched) -> list[tuple[str, str]]:
    endings = [trial.ending for trial in done.trials]
    best, first = done.best, done.trials[0] if done.trials else None
    tiles = [] if best is None else [(f"{best.value:.4f}", f"best {escape(done.goal.metric)}, trial {best.number}")]
    if best is not None and first is not None and first.number == 0 and first.value is not None and first is not best:
        tiles.append((f"{first.value:.4f}", f"{escape(done.goal.metric)} of trial 0"))
    tiles += [(str(endings.count(name)), name) for name in dict.fromkeys(endings)]
    return [*tiles, (_duration(sum(trial.seconds for trial in done.trials)), "in all trials")]


def _spread_tiles(done: Repeated) -> list[tuple[str, str]]:
    return [(in_words(spread), escape(name)) for name, spread in list(done.spreads.items())[:4]]


def _searched(done: Searched) -> str:
    if not done.trials:
        return "<p>No trial has ended yet.</p>"
    best, parts = done.best, []
    if best is not None:
        parts.append(f'<h2>The best again</h2>\n<pre class="sample">{escape(best_command(done, best))}</pre>')
    metric = escape(done.goal.metric)
    if any(trial.value is not None for trial in done.trials):
        parts += [
            f"<h2>Best {metric} of each trial</h2>\n{history(done)}{KEY}",
            f"<h2>{metric} by step</h2>\n{trial_curves(done)}",
        ]
        if done.importance:
            parts.append(
                f"<h2>Importance of each field</h2>\n{importance_bars(done)}"
                '<p class="note">PED-ANOVA over the complete trials: how differently the good ones are chosen.</p>'
            )
        shown = "".join(f"<figure><figcaption>{escape(name)}</figcaption>{svg}</figure>" for name, svg in slices(done))
        parts.append(f'<h2>{metric} by each field</h2>\n<div class="slices">{shown}</div>')
        parts.append(f"<h2>Trials as lines</h2>\n{parallel(done)}")
    return "\n".join([*parts, f"<h2>Trials</h2>\n{_trials(done)}"])


def _trials(done: Searched) -> str:
    """The best first, then the others in their order."""
    worst = float("inf")
    ordered = sorted(
        done.trials,
        key=lambda trial: (trial.ending != "complete", worst if trial.value is None else done.goal.key(trial.value)),
    )
    head = ["trial", done.goal.metric, "step", *(each.field for each in done.space), "ended", "time"]
    return _wide(head, [(trial is done.best, _row(trial)) for trial in ordered])


def _row(trial: Trial) -> list[str]:
    metric = "" if trial.value is None else f"{trial.value:.4f}"
    said = "" if trial.said is None else f": {trial.said}"
    values = map(as_text, trial.values.values())
    step = "" if trial.step is None else str(trial.step)
    return [str(trial.number), metric, step, *values, f"{trial.ending}{said}", _duration(trial.seconds)]


def _repeated(done: Repeated) -> str:
    if not done.runs:
        return "<p>No run has ended yet.</p>"
    rows = [
        (False, [name, in_words(spread), f"{spread.low:.4f}", f"{spread.high:.4f}", str(spread.count)])
        for name, spread in done.spreads.items()
    ]
    figures = _wide(["figure", "mean ± deviation", "lowest", "highest", "runs"], rows)
    each = table((run.name, _figures(run.measures) or f"{run.ending}: {run.said}") for run in done.runs)
    drawn = curves([(run.name, run.points, "--train", 0.75) for run in done.runs], done.goal)
    note = '<p class="note">The deviation is that of the sample (n - 1). Folds share training data, so theirs says less.</p>'
    return (
        f"<h2>Figures</h2>\n{figures}{note}\n<h2>{escape(done.goal.metric)} by step, each run</h2>\n{drawn}\n"
        f"<h2>Runs</h2>\n{each}\n"
    )


def _figures(measures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in measures.items())


def _wide(head: Sequence[str], rows: Iterable[tuple[bool, Sequence[str]]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "\n".join(
        f"<tr{' class=best' * best}>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>" for best, cells in rows
    )
    return f'<div class="scroll"><table class="wide">\n<tr>{top}</tr>\n{body}\n</table></div>'


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60:,} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
