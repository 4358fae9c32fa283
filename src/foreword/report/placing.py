"""Where names stand in a plot: beside their points, clear of one another."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from foreword.report.drawing import SOFT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

LABELLED = 40
EXTREMES = 4

_NEAR = 6.0  # points from a dot's centre to its label; farther labels get a line to their dot
_PLACES = [
    (distance, math.radians(angle))
    for distance in (_NEAR, 11.0, 17.0, 24.0, 33.0, 44.0, 58.0)
    for angle in (0, 180, 90, 270, 30, 330, 150, 210, 60, 120, 240, 300)
]


def label_points(axes: Axes, points: Sequence[tuple[float, float]], names: Mapping[int, str]) -> None:
    """Write names beside points, each where it covers no other name and no point; `settle` comes first.

    Args:
        axes: with limits that will not change.
        points: all that are drawn, in the axes' units.
        names: by the number of their point.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    scale = figure.dpi / 72  # pixels in a point
    dots = [tuple(axes.transData.transform(point)) for point in points]
    frame = axes.get_window_extent()
    taken: list[Bbox] = []
    for number, name in names.items():
        text = axes.annotate(name, points[number], (0, 0), textcoords="offset points", va="bottom", fontsize=7.5)
        text.set_zorder(2.5)  # over lines, which the white hides, and under dots
        size = text.get_window_extent()
        boxes = [_box(dots[number], size.width, size.height, d * scale, angle) for d, angle in _PLACES]
        costs = [_cost(box, frame, taken, dots) for box in boxes]
        best = min(range(len(boxes)), key=lambda place: (costs[place], place))
        box, (distance, _) = boxes[best], _PLACES[best]
        taken.append(box)
        offset = (box.x0 - dots[number][0]) / scale, (box.y0 - dots[number][1]) / scale
        text.set_position(offset)
        text.set_bbox({"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.5})
        if distance > _NEAR:
            end = min(max(dots[number][0], box.x0), box.x1), min(max(dots[number][1], box.y0), box.y1)
            line = axes.transData.inverted().transform([dots[number], end])
            axes.plot(line[:, 0], line[:, 1], color=SOFT, linewidth=0.5, zorder=2, scalex=False, scaley=False)


def _box(dot: tuple[float, ...], width: float, height: float, distance: float, angle: float) -> Bbox:
    """Where a label (px) stands at a distance (px) and an angle of its dot: its nearest edge touches there."""
    from matplotlib.transforms import Bbox

    x, y = dot[0] + distance * math.cos(angle), dot[1] + distance * math.sin(angle)
    left = x - width * (1 - math.cos(angle)) / 2
    bottom = y - height * (1 - math.sin(angle)) / 2
    return Bbox.from_bounds(left, bottom, width, height)


def _cost(box: Bbox, frame: Bbox, taken: Sequence[Bbox], dots: Sequence[tuple[float, ...]]) -> float:
    """How bad a place is: names covered, then points covered, then being outside the frame."""
    outside = box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1
    covered: int = sum(box.x0 - 3 < x < box.x1 + 3 and box.y0 - 3 < y < box.y1 + 3 for x, y in dots)
    names = sum(bool(box.overlaps(other)) for other in taken)
    return 4.0 * names + covered + 8.0 * bool(outside)


def spread_out(heights: Sequence[float], gap: float) -> list[float]:
    """Heights moved apart to at least `gap`, their order and about their places kept."""
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    clusters: list[tuple[float, list[int]]] = []  # the mean height of each, and its members from below
    for place in order:
        centre, members = heights[place], [place]
        while clusters and centre - clusters[-1][0] < gap * (len(members) + len(clusters[-1][1])) / 2:
            below, others = clusters.pop()
            centre = (below * len(others) + centre * len(members)) / (len(others) + len(members))
            members = others + members
        clusters.append((centre, members))
    moved = list(heights)
    for centre, members in clusters:
        for rank, place in enumerate(members):
            moved[place] = centre + gap * (rank - (len(members) - 1) / 2)
    return moved


def short_names(domains: Iterable[str]) -> dict[str, str]:
    """The last part of each domain's id where no other domain's is the same, else the whole id."""
    last = {domain: domain.rpartition("/")[2] for domain in domains}
    counts = Counter(last.values())
    return {domain: part if part and counts[part] == 1 else domain for domain, part in last.items()}


def standing_out(values: Sequence[float]) -> list[int]:
    """Which points to name: all of a few, the `EXTREMES` least and greatest of more than `LABELLED`."""
    order = sorted(range(len(values)), key=lambda number: (values[number], number))
    return order if len(order) <= LABELLED else order[:EXTREMES] + order[-EXTREMES:]
