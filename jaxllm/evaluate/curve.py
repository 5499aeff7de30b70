"""Curves of a run's metrics as SVG text that sits inside a page and takes its colours from it, in light and in dark."""

import re
from collections.abc import Sequence
from io import StringIO
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy import ndarray

# Matplotlib writes fixed colours. These stand in for the page's own, whose names replace them in the SVG text.
COLORS = {"#010101": "--ink", "#020202": "--faint", "#030303": "--train", "#040404": "--validation"}
INK, FAINT, TRAIN, VALIDATION = COLORS
MAX_POINTS = 1500
ROUND = [1, 2, 2.5, 5, 10]


def loss_curve(records: Sequence[dict]) -> str:
    """Training loss, raw (faint) and smoothed, and the validation loss, over steps."""
    steps, losses = _series(records, "train", "loss")
    with _style():
        figure, axes = _figure(width=9.0, height=3.6)
        if len(steps):
            axes.plot(*_thinned(steps, losses), color=TRAIN, alpha=0.25, linewidth=0.8)
            axes.plot(*_thinned(steps, _smooth(losses)), color=TRAIN, linewidth=1.6, label="train, smoothed")
        val_steps, val_losses = _series(records, "validation", "loss")
        if len(val_steps):
            axes.plot(val_steps, val_losses, color=VALIDATION, linewidth=1.6, marker="o", markersize=3.5)
            axes.plot([], [], color=VALIDATION, linewidth=1.6, marker="o", markersize=3.5, label="validation")
        if len(steps) or len(val_steps):
            axes.legend(loc="upper right", frameon=False, labelcolor=INK)
        axes.set_title("loss, nats, by step", loc="left", color=INK)
        return _svg(figure)


def metric_curve(records: Sequence[dict], name: str, title: str) -> str | None:
    """One training metric over steps, or None where the run has no value of it."""
    steps, values = _series(records, "train", name)
    if not np.isfinite(values).any():
        return None
    with _style():
        figure, axes = _figure(width=3.4, height=1.9)
        axes.plot(*_thinned(steps, values), color=TRAIN, linewidth=1.0)
        axes.set_ylim(bottom=0.0, top=_top(values))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=ROUND))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, steps=ROUND))
        axes.set_title(title, loc="left", color=INK)
        return _svg(figure)


def _series(records: Sequence[dict], split: str, name: str) -> tuple[Float[ndarray, " T"], Float[ndarray, " T"]]:
    points = [(r["step"], r[name]) for r in records if r["split"] == split and name in r]
    table = np.array(points, dtype=float).reshape(-1, 2)  # a null becomes NaN: a gap in the curve
    return table[:, 0], table[:, 1]


def _smooth(values: Float[ndarray, " T"]) -> Float[ndarray, " T"]:
    """Mean over a centred window of a fortieth of the run, shorter at the ends; NaN values do not count."""
    half = max(len(values) // 80, 1)
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0.0], np.cumsum(known)])
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))
    counted = counts[high] - counts[low]
    return np.where(counted > 0, (sums[high] - sums[low]) / np.maximum(counted, 1.0), np.nan)


def _thinned(steps: Float[ndarray, " T"], values: Float[ndarray, " T"]) -> tuple[Float[ndarray, " S"], Float[ndarray, " S"]]:
    """At most `MAX_POINTS` points. Of each stretch the lowest and the highest stay, so that no spike is lost."""
    stretch = -(-2 * len(values) // MAX_POINTS)
    if stretch <= 2:
        return steps, values
    rows = len(values) // stretch
    table = values[: rows * stretch].reshape(rows, stretch)
    starts = np.arange(rows) * stretch
    low = starts + np.where(np.isnan(table), np.inf, table).argmin(axis=1)
    high = starts + np.where(np.isnan(table), -np.inf, table).argmax(axis=1)
    kept = np.unique(np.concatenate([low, high, np.arange(rows * stretch, len(values))]))
    return steps[kept], values[kept]


def _top(values: Float[ndarray, " T"]) -> float:
    """A little above nearly all values: one spike may leave the picture rather than flatten all the rest."""
    known = values[np.isfinite(values)]
    return float(min(known.max(), 3.0 * np.quantile(known, 0.99))) * 1.05 or 1.0


def _style():
    fonts: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "jaxllm", "font.size": 9, "axes.titlesize": 9}
    return matplotlib.rc_context(fonts)


def _figure(width: float, height: float):
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0.0)
    axes = figure.subplots()
    axes.patch.set_alpha(0.0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.tick_params(colors=INK, length=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, steps=ROUND))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(_tick))
    axes.margins(x=0.01)
    return figure, axes


def _tick(value: float, _position: int) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _svg(figure: Figure) -> str:
    out = StringIO()
    FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    # Namespaces and size are the page's affair; ids that nothing points to would repeat from one picture to the next.
    head, body = svg.split(">", 1)
    head = re.sub(r'\s(?:xmlns(?::\w+)?|width|height)="[^"]*"', "", head)
    body = re.sub(r"<style\b.*?</style>|<defs>\s*</defs>", "", body, flags=re.DOTALL)
    body = re.sub(r' id="(?:figure|axes|patch|line2d|text|legend|xtick|ytick|matplotlib)[^"]*"', "", body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    svg = f"{head}>{body}"
    for color, name in COLORS.items():
        svg = svg.replace(color, f"var({name})")
    return svg
