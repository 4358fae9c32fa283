"""The pieces that plots are made of: heat maps, dots, curves, and an axis with a place for 0 beside its log scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foreword.report import numbers
from foreword.report.drawing import COLOURS, INK, MARKERS, RULE, SOFT, signed
from foreword.report.placing import spread_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WORSE, _EVEN, _BETTER = "#c8640c", "#f7f7f7", "#14589e"
_FINE = 0.06  # height of an axis up to which its ticks have three digits
_DARK = 0.55  # share of the scale from which a number stands in white
_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
_APART = 0.007  # of a log axis's width: points are moved apart to this
_END_GAP = 11.0  # points between the names at the ends of curves


def heat(axes: Axes, values: Sequence[Sequence[float | None]], most: float) -> None:
    """A heat map of differences with its numbers: rows from above, `most` the end of the scale on both sides."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("gain", [_WORSE, _EVEN, _BETTER])
    _cells(axes, values, lambda value: (colours(0.5 + value / most / 2), abs(value) > _DARK * most), numbers.difference)


def shades(axes: Axes, values: Sequence[Sequence[float | None]], low: float, high: float) -> None:
    """A heat map of values with its numbers: rows from above, from faint at `low` to full at `high`."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("value", [_EVEN, _BETTER])

    def look(value: float) -> tuple[Any, bool]:
        place = min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.5
        return colours(place), place > _DARK

    _cells(axes, values, look, lambda value: numbers.value(value, 2))


def _cells(
    axes: Axes,
    values: Sequence[Sequence[float | None]],
    look: Callable[[float], tuple[Any, bool]],
    write: Callable[[float | None], str],
) -> None:
    """Squares with numbers; `look` gives a value's colour and whether it is dark; None is grey."""
    from matplotlib.patches import Rectangle

    for row, line in enumerate(values):
        for column, value in enumerate(line):
            face, dark = (RULE, False) if value is None else look(value)
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=face, edgecolor="white", linewidth=1.2))
            ink = SOFT if value is None else "white" if dark else INK
            axes.text(column, row, write(value), ha="center", va="center", fontsize=7.5, color=ink)
    axes.set_xlim(-0.5, len(values[0]) - 0.5)
    axes.set_ylim(len(values) - 0.5, -0.5)


def heat_axes(axes: Axes, rows: Sequence[str], columns: Sequence[str], labels: tuple[str, str]) -> None:
    """The names beside and below a heat map; `labels` say what rows and columns are."""
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_ylabel(labels[0])
    axes.set_xlabel(labels[1])


def value_axis(axes: Axes, label: str) -> None:
    """A vertical axis of values."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_ylabel(label)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    low, high = axes.get_ylim()
    digits = 2 if high - low > _FINE else 3
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: numbers.value(value, digits)))


def dots(axes: Axes, points: Sequence[tuple[float, float]], place: int, name: str | None) -> None:
    """Points in the colour and shape of their place in the legend."""
    xs, ys = zip(*points, strict=True)
    colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
    axes.plot(
        xs, ys, linestyle="none", marker=marker, markersize=5.5, color=colour, markeredgecolor="white",
        markeredgewidth=0.6, label=name, zorder=3,
    )  # fmt: skip


def gain_axis(axes: Axes, measure: str, baseline: str) -> None:
    """A vertical axis of differences, with a line at 0."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.axhline(0, color=SOFT, linewidth=1.0, zorder=1)
    axes.set_ylabel(f"difference in {measure} from {baseline}")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    low, high = axes.get_ylim()
    digits = 2 if high - low > _FINE else 3
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: signed(value, digits)))


def log_axis(axes: Axes, values: Sequence[float]) -> list[float]:
    """Make the horizontal axis a log scale with a place for 0 left of a break; returns where the values stand.

    Values that lie too near to be told apart are moved a little to the sides.
    """
    logs = [math.log10(value) for value in values if value > 0] or [0.0]
    first = math.floor(min(logs) + 1e-9)
    last = max(math.ceil(max(logs) - 1e-9), first + 1)
    width = last - first
    steps = (1, 2, 5) if width < 3 else (1,)
    amounts = [step * 10.0**power for power in range(first, last) for step in steps] + [10.0**last]
    ticks = {math.log10(amount): _short(amount) for amount in amounts}
    zero, left = first - 0.16 * width, first - 0.05 * width
    if min(values) <= 0:
        ticks, left = {zero: "0", **ticks}, zero - 0.06 * width
    axes.set_xlim(left, last + 0.05 * width)
    axes.set_xticks(list(ticks), list(ticks.values()))
    if min(values) <= 0:
        _break(axes, (first - 0.08 * width - left) / (last + 0.05 * width - left))
    return spread_out([math.log10(value) if value > 0 else zero for value in values], _APART * width)


@dataclass(frozen=True)
class End:
    """Where a curve ends, in the axes' units, and what is to be written there."""

    x: float
    y: float
    name: str
    colour: str


def curves(axes: Axes, data: Sequence[Mapping[str, Any]], levels: Sequence[str]) -> list[End]:
    """A curve with its band for each family; returns their ends.

    Args:
        axes: to draw on.
        data: `family, labels, value, spread`, in order.
        levels: the places of `labels`, from the left.
    """
    ends = []
    for place, family in enumerate(dict.fromkeys(one["family"] for one in data)):
        own = [one for one in data if one["family"] == family]
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        xs = [levels.index(one["labels"]) for one in own]
        ys = [one["value"] for one in own]
        spreads = [one["spread"] or 0.0 for one in own]
        low, high = ([y + sign * spread for y, spread in zip(ys, spreads, strict=True)] for sign in (-1, 1))
        axes.fill_between(xs, low, high, color=colour, alpha=0.15, linewidth=0, zorder=1)
        axes.plot(xs, ys, color=colour, marker=marker, markersize=5, linewidth=1.8, zorder=3)
        ends.append(End(xs[-1], ys[-1], family, colour))
    return ends


def end_labels(axes: Axes, ends: Sequence[End], last: float) -> None:
    """Names of curves: right of the axes for those that end at `last`, moved apart, and over the others' ends."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    right = [end for end in ends if end.x >= last]
    heights = [float(axes.transData.transform((end.x, end.y))[1]) for end in right]
    moved = spread_out(heights, _END_GAP * figure.dpi / 72)
    places = [(1.0, (height - frame.y0) / frame.height) for height in moved]
    same: dict[str, Any] = {"textcoords": "offset points", "fontweight": "bold", "fontsize": 8.5}
    for end, place in zip(right, places, strict=True):
        axes.annotate(end.name, place, (4, 0), xycoords="axes fraction", va="center", color=end.colour, **same)
    for end in ends:
        if end.x < last:
            axes.annotate(end.name, (end.x, end.y), (0, 6), ha="center", color=end.colour, **same)


def _break(axes: Axes, place: float) -> None:
    """Two strokes through the horizontal axis, at a share of its width."""
    axes.plot([place - 0.012, place + 0.012], [0, 0], transform=axes.transAxes, color="white", linewidth=2.5,
              clip_on=False, zorder=4)  # fmt: skip
    for shift in (-0.012, 0.012):
        xs = [place + shift - 0.006, place + shift + 0.006]
        axes.plot(xs, [-0.02, 0.02], transform=axes.transAxes, color=SOFT, linewidth=1.0, clip_on=False, zorder=5)


def _short(amount: float) -> str:
    """`0.1`, `50`, `200 k`, `1 M`."""
    for unit, letter in _UNITS:
        if amount >= unit * (1 - 1e-9):
            return f"{amount / unit:g} {letter}"
    return f"{amount:g}"
