"""The pictures of a plan's report, as SVG text that takes its colours from the page around it."""

import math
from html import escape

from jaxllm.plan.describe import memory_rows
from jaxllm.plan.memory import Memory
from jaxllm.plan.plan import Plan

WIDTH = 900
COLORS = ("--train", "--validation", "--third", "--fourth", "--fifth")


def memory_bar(memory: Memory) -> str:
    """What the peak is made of, as one bar, with the device's capacity as a line across it."""
    rows = memory_rows(memory)
    whole = max(memory.peak, memory.capacity or 0) * 1.02
    scale, at, pieces = (WIDTH - 20) / whole, 10.0, []
    for (_, size), color in zip(rows, COLORS, strict=False):
        wide = size * scale
        pieces.append(f'<rect x="{at:.1f}" y="28" width="{wide:.1f}" height="44" fill="var({color})"/>')
        at += wide
    if memory.capacity is not None:
        line = 10 + memory.capacity * scale
        pieces.append(f'<line x1="{line:.1f}" x2="{line:.1f}" y1="18" y2="82" stroke="var(--text)" stroke-width="2"/>')
        pieces.append(_text(line - 6, 14, f"capacity {_size(memory.capacity)}", "end"))
    pieces.append(_text(10, 98, f"peak {_size(memory.peak)}", "start"))
    return _svg(112, pieces) + _legend(
        [(f"{name}, {_size(size)}", color) for (name, size), color in zip(rows, COLORS, strict=False)]
    )


def roofline(plan: Plan) -> str | None:
    """Where the step lies under the roof that peak and memory bandwidth make; None without an estimate."""
    if plan.seconds is None or not plan.peak_flops or not plan.bandwidth or not plan.traffic_bytes:
        return None
    flops = plan.flops_per_step / plan.devices
    intensity, reached, ridge = flops / plan.traffic_bytes, flops / plan.seconds.step, plan.peak_flops / plan.bandwidth
    low, high = min(intensity, ridge) / 20, max(intensity, ridge) * 20
    top, bottom = plan.peak_flops * 3, min(reached, low * plan.bandwidth) / 2
    x = lambda value: 70 + (WIDTH - 90) * math.log(value / low) / math.log(high / low)  # noqa: E731
    y = lambda value: 20 + 270 * math.log(top / value) / math.log(top / bottom)  # noqa: E731
    pieces = [
        _grid_line(x(tick), 20, x(tick), 290) + _text(x(tick), 306, f"{tick:g}", "middle") for tick in _decades(low, high)
    ]
    for tick in _decades(bottom, top):
        pieces.append(_grid_line(70, y(tick), WIDTH - 20, y(tick)) + _text(64, y(tick) + 4, _rate(tick), "end"))
    roof = [(low, low * plan.bandwidth), (ridge, plan.peak_flops), (high, plan.peak_flops)]
    points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in roof)
    pieces += [
        f'<polyline points="{points}" fill="none" stroke="var(--ink)" stroke-width="2"/>',
        _text(WIDTH - 24, y(plan.peak_flops) - 8, f"peak {_rate(plan.peak_flops)}FLOP/s", "end"),
        _text(x(ridge) - 10, y(plan.peak_flops) - 8, f"memory {plan.bandwidth / 1e9:,.0f} GB/s", "end"),
        f'<circle cx="{x(intensity):.1f}" cy="{y(reached):.1f}" r="6" fill="var(--validation)"/>',
        _text(x(intensity), y(reached) + 22, f"this step: {_rate(reached)}FLOP/s (estimate)", "middle"),
        _text(WIDTH / 2, 326, "the model's FLOPs for each byte of memory traffic", "middle"),
    ]
    return _svg(334, pieces)


def time_bars(plan: Plan) -> str | None:
    """What the estimated step is made of: each alone, and the step."""
    if plan.seconds is None:
        return None
    seconds = plan.seconds
    rows = [
        ("FLOPs at peak", seconds.flops, "--train"),
        ("computing", seconds.compute, "--train"),
        ("memory traffic", seconds.traffic, "--third"),
        ("network, beside computing", seconds.hidden, "--validation"),
        ("network, waited for", seconds.exposed, "--validation"),
        ("step", seconds.step, "--ink"),
    ]
    longest = max(value for _, value, _ in rows) or 1.0
    pieces = []
    for place, (name, value, color) in enumerate(rows):
        top, wide = 6 + 26 * place, (WIDTH - 330) * value / longest
        pieces.append(_text(195, top + 14, name, "end"))
        pieces.append(f'<rect x="205" y="{top}" width="{max(wide, 1):.1f}" height="18" rx="2" fill="var({color})"/>')
        pieces.append(_text(212 + wide, top + 14, _seconds(value), "start"))
    return _svg(6 + 26 * len(rows), pieces)


def _svg(height: int, pieces: list[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" font-size="13" fill="var(--ink)">{"".join(pieces)}</svg>'


def _legend(rows: list[tuple[str, str]]) -> str:
    items = (f'<span><i style="background:var({color})"></i>{escape(name)}</span>' for name, color in rows)
    return f'<p class="legend">{"".join(items)}</p>'


def _text(x: int | float, y: int | float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _grid_line(x1: int | float, y1: int | float, x2: int | float, y2: int | float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="var(--faint)"/>'


def _decades(low: float, high: float) -> list[float]:
    return [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]


def _rate(value: float) -> str:
    """With the unit's prefix: "197 T"."""
    for prefix, unit in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= unit:
            return f"{value / unit:.3g} {prefix}"
    return f"{value:.3g} "


def _size(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"
