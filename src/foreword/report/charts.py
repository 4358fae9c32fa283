"""Bars and lines as inline SVG, coloured by the page's style sheet, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import foreword.tables as numbers
from foreword.report.html import Child, Markup, element

# What the charts share: the frame of a picture that can be read out, and round numbers for axes.


CHARACTER = 7.2
"""px: the width of a letter of the charts' 12 px type, taken generously."""


def picture(
    key: str,
    title: str,
    description: str,
    width: float,
    height: float,
    parts: Sequence[Child],
    *,
    natural: bool = False,
) -> Markup:
    """The picture with its title and description; `natural` keeps its size in px whatever the window's."""
    return element(
        "svg",
        element("title", title, id=f"{key}-title"),
        element("desc", description, id=f"{key}-desc"),
        list(parts),
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        # A fluid picture shrinks by a quarter at most, so that its text stays legible; then its box scrolls.
        style=None if natural else f"min-width:{width * 0.75:.0f}px",
        width=f"{width:.0f}" if natural else None,
        height=f"{height:.0f}" if natural else None,
        role="img",
        aria_labelledby=f"{key}-title {key}-desc",
        class_="natural" if natural else "fluid",
    )


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten) that span `low` to `high`."""
    if not high > low:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


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


# Heatmaps, as of domain similarity, as inline SVG coloured by the page's style sheet.


_WIDTH, _HEIGHT = 76, 36  # px of a cell

Values = Sequence[Sequence[float | None]]
"""Similarities, [sources][targets]; None where there is none."""


def heatmap(
    key: str,
    title: str,
    sources: Sequence[str],
    targets: Sequence[str],
    values: Values,
    *,
    what: str | None = None,
    outline: bool = True,
) -> Markup:
    """A heatmap of sources (rows) by targets (columns), the value printed in every cell.

    The scale is one hue from faint to full over the values present; a domain against itself is left without
    colour, and the nearest source of each target is outlined.

    Args:
        key: a name unique on the page, for the title's and description's ids.
        title: read out and shown on hover.
        sources: row names.
        targets: column names.
        values: similarities.
        what: what the values are, for the description that is read out; None: similarities of domains.
        outline: mark each column's greatest value.
    """
    columns = [
        [None if source == target else values[row][column] for row, source in enumerate(sources)]
        for column, target in enumerate(targets)
    ]  # [targets][sources], without a domain's similarity to itself
    present = [value for column in columns for value in column if value is not None]
    low, high = min(present, default=0.0), max(present, default=1.0)
    longest = max(map(len, targets), default=0) * CHARACTER
    upright = longest <= _WIDTH - 6
    left = max(map(len, sources), default=0) * CHARACTER + 14
    top = 26 if upright else longest * 0.5 + 20  # names turned by 30 degrees rise by half their length

    parts: list[Child] = [
        _column_name(target, left + (column + 0.5) * _WIDTH, top - 10, upright) for column, target in enumerate(targets)
    ]
    for row, source in enumerate(sources):
        y = top + row * _HEIGHT
        name = element("text", source, x=f"{left - 10:.1f}", y=f"{y + 22:.1f}", text_anchor="end")
        parts.append(name)
        for column, target in enumerate(targets):
            value, compared = values[row][column], columns[column][row]
            strength = _strength(compared, low, high)
            nearest = max((peer for peer in columns[column] if peer is not None), default=None)
            outlined = outline and compared is not None and compared == nearest
            between = f"{source} → {target}"
            parts.append(_cell(left + column * _WIDTH, y, between, value, strength, outlined))
    room = 4 if upright else max(4.0, longest * 0.87 - _WIDTH / 2)  # what the last turned name needs
    what = what or f"Similarity of {len(sources)} source domains (rows) to {len(targets)} target domains (columns)"
    description = f"{what}, from {low:.2f} to {high:.2f}."
    size = left + len(targets) * _WIDTH + room, top + len(sources) * _HEIGHT + 4
    return picture(key, title, description, *size, parts, natural=True)


def _strength(value: float | None, low: float, high: float) -> float | None:
    """A value's place between the least and the greatest, 0 to 1; None for none."""
    if value is None:
        return None
    return (value - low) / (high - low) if high > low else 0.5


def _column_name(name: str, x: float, y: float, upright: bool) -> Markup:
    """A target's name over the middle of its column, turned when it is wider than the column."""
    if upright:
        return element("text", name, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor="middle")
    return element("text", name, transform=f"translate({x - 12:.1f} {y:.1f}) rotate(-30)")


def _cell(x: float, y: float, what: str, value: float | None, strength: float | None, outlined: bool) -> Markup:
    """One cell: a square whose colour is `strength` (0 to 1; None for none), and its value."""
    opacity = 0.0 if strength is None else 0.06 + 0.9 * strength
    # Above this opacity the square is nearer to the colour than to the page, and the text turns over.
    text_class = "own" if strength is None else "on" if opacity > 0.64 else None
    text = "–" if value is None else f"{value:.2f}".replace("-", "−")
    square = element(
        "rect",
        x=f"{x + 1:.1f}",
        y=f"{y + 1:.1f}",
        width=_WIDTH - 2,
        height=_HEIGHT - 2,
        rx=4,
        class_="heat outlined" if outlined else "heat",
        fill_opacity=f"{opacity:.2f}",
    )
    middle = f"{x + _WIDTH / 2:.1f}"
    label = element("text", text, x=middle, y=f"{y + 22:.1f}", text_anchor="middle", class_=text_class)
    return element("g", element("title", f"{what}: {text}"), square, label)
