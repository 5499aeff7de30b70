"""`report.html` of a plan: memory bar, roofline, collectives and figures on one page that needs no other file."""

from html import escape
from pathlib import Path

from jaxllm.evaluate.page import page, table
from jaxllm.plan.describe import as_json, title
from jaxllm.plan.memory import advice
from jaxllm.plan.picture import memory_bar, roofline, time_bars
from jaxllm.plan.plan import Plan

PLAN_STYLE = """
:root { --third: #3a9a6b; --fourth: #8a63c9; --fifth: #b9c0c8; }
@media (prefers-color-scheme: dark) { :root { --third: #58c08e; --fourth: #b08cf0; --fifth: #59626c; } }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: .25rem 0 0; color: var(--ink); font-size: .85rem; }
.legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: .15rem; margin-right: .4rem; }
table.wide th { width: auto; }
table.wide td, table.wide th { padding-right: 1rem; }
"""
BODY = """<h2>Memory of a device</h2>
{memory}
{time}
<h2>Sent by a device in a step</h2>
{collectives}
<h2>Computing by part of the model, estimated</h2>
{parts}
<h2>Figures</h2>
{figures}
<h2>Command</h2>
<pre>{command}</pre>"""


def write_plan_report(plan: Plan, path: Path, *, command: str, price: float | None = None) -> Path:
    """Writes the page and returns its path.

    Args:
      command: what was typed to get this plan.
      price: dollars per chip and hour.
    """
    body = BODY.format(
        memory=memory_bar(plan.memory) + _advice(plan),
        time=_time(plan),
        collectives=_collectives(plan),
        parts=table((part, f"{share:.1%}") for part, share in plan.shares.items()) if plan.shares else "<p>Not known.</p>",
        figures=_figures(plan, price),
        command=escape(command),
    )
    subtitle = "Bytes are the compiler's. Times, and what follows from them, are estimates."
    path.write_text(page(title(plan), subtitle, _tiles(plan, price), body, more_style=PLAN_STYLE), encoding="utf-8")
    return path


def _tiles(plan: Plan, price: float | None) -> list[tuple[str, str]]:
    fits = {True: "fits", False: "does not fit", None: "not known"}[plan.memory.fits]
    tiles = [(fits, "memory"), (_count(plan.parameters), "parameters")]
    if plan.seconds is not None and plan.tokens_per_second is not None:
        tiles += [
            (f"{plan.seconds.step:.3g} s", "step, estimated"),
            (f"{plan.tokens_per_second:,.0f}", f"{plan.unit} per second, estimated"),
            (f"{plan.mfu or 0.0:.1%}", "MFU, estimated"),
            (plan.seconds.bound, "bound, by the roofline"),
        ]
        if price is not None and (cost := plan.dollars_per_billion_tokens(price)) is not None:
            tiles.append((f"{cost:,.2f}", f"dollars per billion {plan.unit}, estimated"))
    return tiles


def _count(value: int) -> str:
    """Three digits and the unit: "6.74 B"."""
    for letter, unit in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= unit:
            return f"{value / unit:.3g} {letter}"
    return str(value)


def _advice(plan: Plan) -> str:
    if plan.memory.fits is not False:
        return ""
    return (
        "<p>It does not fit. What to change:</p><ul>" + "".join(f"<li>{escape(x)}</li>" for x in advice(plan.memory)) + "</ul>"
    )


def _time(plan: Plan) -> str:
    bars, roof = time_bars(plan), roofline(plan)
    text = "" if bars is None else f"<h2>Time of a step, estimated</h2>\n{bars}"
    return text if roof is None else f"{text}\n<h2>Roofline of a device, estimated</h2>\n{roof}"


def _collectives(plan: Plan) -> str:
    if not plan.collectives:
        return "<p>Nothing.</p>"
    alone = plan.collective_seconds or [None] * len(plan.collectives)
    head = (
        "<tr><th>collective</th><th>mesh axes</th><th>times</th><th>bytes</th><th>waited for</th><th>alone, estimated</th></tr>"
    )
    rows = (
        (
            row.kind,
            " ".join(row.axes) + ", between slices" * row.between_slices,
            f"{row.count:,}",
            f"{row.bytes / 1e9:.3f} GB",
            f"{row.exposed_bytes / row.bytes:.0%}" if row.bytes else "",
            "" if seconds is None else f"{1e3 * seconds:.1f} ms",
        )
        for row, seconds in zip(plan.collectives, alone, strict=True)
    )
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<table class="wide">\n{head}\n{body}\n</table>'


def _figures(plan: Plan, price: float | None) -> str:
    simple = {name: value for name, value in as_json(plan, price).items() if isinstance(value, bool | int | float | str)}
    notes = [("note", warning) for warning in plan.warnings]
    return table([(name.replace("_", " "), _figure(name, value)) for name, value in simple.items()] + notes)


def _figure(name: str, value: bool | int | float | str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if "bytes" in name:
        return f"{value:,} ({float(value) / 1e9:.3f} GB)"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else value
