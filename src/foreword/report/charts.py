"""Bars and lines as inline SVG, coloured by the page's style sheet, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from foreword.report import numbers
from foreword.report.markup import Child, Markup, element
from foreword.report.svg import nice_ticks, picture

LINE_STYLES = 8
"""Colours of lines in the style sheet (`.c0` to `.c7`); the ninth line repeats the first's, dashed."""

_DOTS = 25  # points up to which a line has a dot at each


@dataclass(frozen=True, slots=True)
class Curve:
    """A line to draw: its name and (step, value) points, steps rising."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where a chart's values lie in the picture: px of its edges, and the values at them."""

    left: float
    right: float
    top: float
    bottom: float
    first: float
    last: float
    ticks: Sequence[float]
    """Of the vertical axis; the lowest and highest are its ends."""

    def x(self, value: float) -> float:
        """px from the left."""
        return self.left + (value - self.first) / (self.last - self.first) * (self.right - self.left)

    def y(self, value: float) -> float:
        """px from the top."""
        low, high = self.ticks[0], self.ticks[-1]
        return self.top + (high - value) / (high - low) * (self.bottom - self.top)

    def grid(self, *, signed: bool = False) -> list[Markup]:
        """Horizontal lines at the ticks, their values on the left, with a plus sign when `signed`."""
        digits = max(0, min(4, -math.floor(math.log10(self.ticks[1] - self.ticks[0]) + 1e-9)))
        drawn = []
        for tick in self.ticks:
            sign = "−" if tick < 0 else "+" if signed and tick > 0 else ""
            drawn.append(self.level(tick, "grid"))
            drawn.append(_text(f"{sign}{abs(tick):.{digits}f}", self.left - 8, self.y(tick) + 4, "end"))
        return drawn

    def level(self, value: float, name: str) -> Markup:
        """A horizontal line."""
        y = f"{self.y(value):.1f}"
        return element("line", x1=self.left, x2=self.right, y1=y, y2=y, class_=name)


def gain_bars(key: str, title: str, gains: Sequence[tuple[str, float]], measure: str, most: int = 800) -> Markup:
    """A bar for each query's gain over the baseline, the largest first; the text appears on hover.

    Args:
        key: a name unique on the page, for the title's and description's ids.
        title: read out and shown on hover.
        gains: (query text, difference), any order, at least one.
        measure: what the difference is of.
        most: with more queries, this many are drawn at even steps through the sorted list.
    """
    ordered = sorted(gains, key=lambda gain: -gain[1])
    greatest, least = ordered[0][1], ordered[-1][1]
    if len(ordered) > most:
        ordered = [ordered[round(place * (len(ordered) - 1) / (most - 1))] for place in range(most)]
    width, height = 960, 250
    ticks = nice_ticks(min(0.0, least), max(0.0, greatest))
    frame = _Frame(52, width - 8, 12, height - 26, 0, len(ordered), ticks)
    parts: list[Child] = [
        frame.grid(signed=True),
        [_bar(frame, place, text, gain) for place, (text, gain) in enumerate(ordered)],
        frame.level(0, "zero"),
        _text(f"{len(gains):,} queries, by difference in {measure}", width / 2 + 22, height - 6, "middle"),
    ]
    better, worse = sum(gain > 0 for _, gain in gains), sum(gain < 0 for _, gain in gains)
    description = (
        f"{better} queries better, {worse} worse, {len(gains) - better - worse} the same; differences from "
        f"{numbers.difference(greatest)} to {numbers.difference(least)}."
    )
    return picture(key, title, description, width, height, parts)


def _bar(frame: _Frame, place: int, text: str, gain: float) -> Markup:
    """One query's bar, over an unseen column that makes short bars easy to hit with the pointer."""
    x, step = frame.x(place), frame.x(1) - frame.x(0)
    gap = min(1.5, step * 0.2)
    upper, lower = frame.y(max(gain, 0.0)), frame.y(min(gain, 0.0))
    name = "win" if gain > 0 else "loss"
    line = " ".join(text.split())
    return element(
        "g",
        element("title", f"{numbers.difference(gain)}  {line if len(line) <= 160 else line[:159] + '…'}"),
        _rectangle(x, frame.top, step, frame.bottom - frame.top, "hit"),
        _rectangle(x + gap / 2, upper, step - gap, lower - upper, name) if gain else None,
        class_="bar",
    )


def line_chart(key: str, title: str, curves: Sequence[Curve], styles: Mapping[str, int], label: str) -> Markup:
    """Lines over steps, with a dot at every point when there are few.

    Args:
        key: a name unique on the page, for the title's and description's ids.
        title: read out and shown on hover.
        curves: at least one, each with at least one point.
        styles: curve's name -> number of its colour and dash, the same in every chart of the page.
        label: the vertical axis's name.
    """
    steps = [step for curve in curves for step, _ in curve.points]
    values = [value for curve in curves for _, value in curve.points]
    width, height = 520, 280
    first, last = min(steps), max(max(steps), min(steps) + 1e-9)  # a single step is drawn on the left
    frame = _Frame(52, width - 14, 30, height - 40, first, last, nice_ticks(min(values), max(values)))
    across = [tick for tick in nice_ticks(min(steps), max(steps), 6) if first <= tick <= last]
    parts: list[Child] = [
        element("text", label, x=12, y=14, class_="axis"),
        frame.grid(),
        [_text(f"{tick:g}", frame.x(tick), frame.bottom + 18, "middle") for tick in across],
        _text("step", (frame.left + frame.right) / 2, height - 4, "middle"),
        [_line(frame, curve, line_class(styles[curve.name])) for curve in curves],
    ]
    described = "; ".join(
        f"{curve.name} from {numbers.value(curve.points[0][1])} to {numbers.value(curve.points[-1][1])}"
        for curve in curves
    )
    return picture(key, title, f"{label} against training step: {described}.", width, height, parts)


def _line(frame: _Frame, curve: Curve, style: str) -> Markup:
    """One curve; its name and last value appear on hover."""
    places = [(f"{frame.x(step):.1f}", f"{frame.y(value):.1f}") for step, value in curve.points]
    step, value = curve.points[-1]
    return element(
        "g",
        element("title", f"{curve.name}: {numbers.value(value)} at step {step:g}"),
        element("polyline", points=" ".join(f"{x},{y}" for x, y in places)),
        [element("circle", cx=x, cy=y, r=2.6) for x, y in places] if len(places) <= _DOTS else None,
        class_=f"curve {style}",
    )


def line_class(number: int) -> str:
    """The classes of line `number` in the style sheet: a colour, and dashes once the colours are used up."""
    return f"c{number % LINE_STYLES}{' dashed' if number % (2 * LINE_STYLES) >= LINE_STYLES else ''}"


def line_sample(number: int) -> Markup:
    """A short piece of line `number`, for a legend."""
    line = element("polyline", points="1,6 27,6")
    group = element("g", line, element("circle", cx=14, cy=6, r=2.6), class_=f"curve {line_class(number)}")
    return element("svg", group, viewBox="0 0 28 12", width=28, height=12, aria_hidden="true", class_="sample")


def _text(text: str, x: float, y: float, anchor: str) -> Markup:
    """A label at a place."""
    return element("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)


def _rectangle(x: float, y: float, width: float, height: float, name: str) -> Markup:
    """A rectangle with a class."""
    size = {"width": f"{width:.2f}", "height": f"{height:.2f}"}
    return element("rect", x=f"{x:.2f}", y=f"{y:.2f}", **size, class_=name)
