"""The pictures of a sweep's report, as SVG text that takes its colours from the page around it."""

from collections.abc import Sequence
from html import escape
from itertools import accumulate

from jaxllm.checkpoint import Best
from jaxllm.sweep.axis import Axis, field_axis, metric_axis
from jaxllm.sweep.field import as_text
from jaxllm.sweep.search import Searched, Trial
from jaxllm.sweep.space import Choice, Range

WIDE, SMALL = 900, 430
LEFT, RIGHT, TOP, BOTTOM = 60, 14, 12, 34
Points = Sequence[tuple[int, float]]


def history(done: Searched) -> str:
    """The metric of each trial in turn, and the best so far."""
    known = [trial for trial in done.trials if trial.value is not None]
    last = max(trial.number for trial in done.trials)
    frame = _Frame(WIDE, 260, Axis(low=0, high=max(last, 1), whole=True), _metric(done))
    complete = [(trial.number, trial.value) for trial in known if trial.ending == "complete" and trial.value is not None]
    choose = min if done.goal.direction == "lowest" else max
    best = list(accumulate((value for _, value in complete), choose))
    corners: list[tuple[int, float]] = []
    for (number, _), value in zip(complete, best, strict=True):
        if corners:
            corners.append((number, corners[-1][1]))
        corners.append((number, value))
    if corners:
        corners.append((last, corners[-1][1]))
    pieces = [frame.line(corners, "--validation", 1.6, 1.0, "best so far")]
    pieces += [frame.dot(trial.number, trial.value or 0.0, *_look(done, trial), _told(done, trial)) for trial in known]
    return frame.svg(pieces, "trial")


def curves(named: Sequence[tuple[str, Points, str, float]], goal: Best) -> str:
    """The metric by step of several runs, each with its name, its colour and how strongly it is drawn."""
    values = [value for _, points, _, _ in named for _, value in points]
    steps = [step for _, points, _, _ in named for step, _ in points] or [1]
    low = min(steps) if len(set(steps)) > 1 else 0
    frame = _Frame(WIDE, 260, Axis(low=low, high=max(steps), whole=True), metric_axis(values, goal.direction))
    pieces = []
    for name, points, color, strength in named:
        known = [(step, value) for step, value in points if value == value]
        pieces.append(frame.line(known, color, 1.6, strength, name))
        pieces += [
            frame.dot(*point, color, strength, f"{name}: {goal.metric} {point[1]:.4f} at step {point[0]}", 2.5)
            for point in known
        ]
    return frame.svg(pieces, "step")


def trial_curves(done: Searched) -> str:
    """The metric by step of each trial, the best on top."""
    ordered = sorted(done.trials, key=lambda trial: (trial is done.best, trial.ending == "complete"))
    return curves([(_told(done, trial), trial.points, *_look(done, trial)) for trial in ordered], done.goal)


def slices(done: Searched) -> list[tuple[str, str]]:
    """Of each field its name and the metric by its value."""
    return [(each.field, _slice(done, each)) for each in done.space]


def _slice(done: Searched, each: Range | Choice) -> str:
    frame = _Frame(SMALL, 220, field_axis(each), _metric(done))
    ordered = sorted(done.trials, key=lambda trial: trial is done.best)
    known = [(trial, trial.value) for trial in ordered if trial.value is not None]
    pieces = [frame.dot(trial.values[each.field], value, *_look(done, trial), _told(done, trial)) for trial, value in known]
    return frame.svg(pieces, "")


def importance_bars(done: Searched) -> str:
    """What share each field has in what makes a trial good."""
    pieces = []
    for row, (field, share) in enumerate(sorted(done.importance.items(), key=lambda pair: -pair[1])):
        top, wide = 6 + 26 * row, (WIDE - 400) * share
        pieces.append(_text(300, top + 14, field, "end"))
        pieces.append(f'<rect x="310" y="{top}" width="{max(wide, 1):.1f}" height="18" rx="2" fill="var(--train)"/>')
        pieces.append(_text(318 + wide, top + 14, f"{share:.0%}", "start"))
    return _svg(WIDE, 6 + 26 * len(done.importance), pieces)


def parallel(done: Searched) -> str:
    """Each trial as a line through its values to its metric."""
    axes = [(each.field, field_axis(each)) for each in done.space] + [(done.goal.metric, _metric(done))]
    top, height = 34, 300
    x = [70 + (WIDE - 140) * number / (len(axes) - 1) for number in range(len(axes))]
    y = lambda axis, value: top + (height - top - 10) * (1 - axis.place(value))  # noqa: E731
    known = [trial for trial in done.trials if trial.value is not None]
    pieces = []
    for trial in sorted(known, key=lambda trial: (trial is done.best, trial.ending == "complete")):
        values = [*(trial.values[each.field] for each in done.space), trial.value]
        points = " ".join(f"{at:.1f},{y(axis, value):.1f}" for at, (_, axis), value in zip(x, axes, values, strict=True))
        color, strength = _look(done, trial)
        wide = 2.4 if trial is done.best else 1.3
        pieces.append(
            f'<polyline points="{points}" fill="none" stroke="var({color})" stroke-opacity="{strength}" stroke-width="{wide}">'
            f"<title>{escape(_told(done, trial))}</title></polyline>"
        )
    for number, (at, (name, axis)) in enumerate(zip(x, axes, strict=True)):
        anchor = "start" if number == 0 else "end" if number == len(axes) - 1 else "middle"
        edge = {"start": at - 60, "end": at + 60, "middle": at}[anchor]
        pieces.append(_text(edge, 16 if number % 2 == 0 or len(axes) < 5 else 30, name, anchor))
        pieces.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{height - 10}" stroke="var(--faint)"/>')
        for place, label in axis.ticks():
            words = _text(at - 6, top + (height - top - 10) * (1 - place) + 4, label, "end")
            pieces.append(f'<g paint-order="stroke" stroke="var(--page)" stroke-width="4">{words}</g>')  # lines pass behind it
    return _svg(WIDE, height, pieces)


def _metric(done: Searched) -> Axis:
    return metric_axis([trial.value for trial in done.trials if trial.value is not None], done.goal.direction)


def _look(done: Searched, trial: Trial) -> tuple[str, float]:
    """Colour and strength: the best stands out, what was given up stands back."""
    if trial is done.best:
        return "--validation", 1.0
    return ("--train", 0.75) if trial.ending == "complete" else ("--ink", 0.45)


def _told(done: Searched, trial: Trial) -> str:
    values = ", ".join(f"{field} {as_text(value)}" for field, value in trial.values.items())
    metric = "" if trial.value is None else f", {done.goal.metric} {trial.value:.4f}"
    return f"trial {trial.number}, {trial.ending}{metric}: {values}"


class _Frame:
    """A picture with two axes; `line` and `dot` give its pieces."""

    def __init__(self, width: int, height: int, across: Axis, up: Axis):
        self.width, self.height, self.across, self.up = width, height, across, up

    def x(self, value) -> float:
        return LEFT + (self.width - LEFT - RIGHT) * self.across.place(value)

    def y(self, value: float) -> float:
        return TOP + (self.height - TOP - BOTTOM) * (1 - self.up.place(value))

    def line(self, points: Sequence[tuple[int | float, float]], color: str, width: float, strength: float, said: str) -> str:
        places = " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in points)
        return (
            f'<polyline points="{places}" fill="none" stroke="var({color})" stroke-opacity="{strength}" '
            f'stroke-width="{width}"><title>{escape(said)}</title></polyline>'
        )

    def dot(self, at, value: float, color: str, strength: float, said: str, radius: float = 4.0) -> str:
        return (
            f'<circle cx="{self.x(at):.1f}" cy="{self.y(value):.1f}" r="{radius}" fill="var({color})" '
            f'fill-opacity="{strength}"><title>{escape(said)}</title></circle>'
        )

    def svg(self, pieces: list[str], name: str) -> str:
        bottom, grid = self.height - BOTTOM, []
        for place, label in self.up.ticks(5):
            y = TOP + (self.height - TOP - BOTTOM) * (1 - place)
            grid.append(f'<line x1="{LEFT}" x2="{self.width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--faint)"/>')
            grid.append(_text(LEFT - 8, y + 4, label, "end"))
        for place, label in self.across.ticks(8 if self.width == WIDE else 5):
            grid.append(_text(LEFT + (self.width - LEFT - RIGHT) * place, bottom + 16, label, "middle"))
        grid.append(_text(self.width - RIGHT, self.height - 4, name, "end"))
        return _svg(self.width, self.height, grid + pieces)


def _svg(width: int, height: int, pieces: list[str]) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" font-size="13" fill="var(--ink)">{"".join(pieces)}</svg>'


def _text(x: int | float, y: int | float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
