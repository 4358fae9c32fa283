"""The benchmark's plots, each as PNG and SVG: who helps whom, nearness, few labels, and what gains cost.

Each returns None where the cells hold nothing to draw.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from foreword.lab.records import BenchmarkCell
from foreword.lab.statistics import (
    Summaries,
    differences,
    macro_mean,
    only,
    rank_correlation,
    seed_means,
    seed_spread,
)
from foreword.report.drawing import (
    CARD,
    LINES,
    MARKERS,
    SOFT,
    Plot,
    canvas,
    dots,
    heat,
    heat_size,
    legend,
    signed,
    value_axis,
)
from foreword.tables import difference

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SINGLE = "single:"
"""Systems with the prompt of one source are named `single:<source>`."""

_COSTS = {
    "parameters": ("trained parameters (log scale)", "trained parameters"),
    "seconds": ("time to adapt to one target (seconds, log scale)", "time"),
}
_NO_LABELS, _LABELS = "without labels of the target", "with labels of the target"
_FEW_SHOT = re.compile(r"(?P<family>.+)@(?P<labels>\d+|all)")


def transfer_matrix(
    cells: Sequence[BenchmarkCell], targets: Sequence[str], *, baseline: str = "base", measure: str = "nDCG@10"
) -> Plot | None:
    """Sources by targets: what each single source's prompt gives over the baseline."""
    gains = _domain_means(cells, _singles(cells), targets, baseline, measure)
    found = {system.removeprefix(SINGLE) for system, _ in gains}
    sources = [*(name for name in targets if name in found), *sorted(found - set(targets))]
    columns = [target for target in targets if any((SINGLE + source, target) in gains for source in sources)]
    if not gains:
        return None
    most = max(abs(value) for value in gains.values()) or 1.0
    values = [[gains.get((SINGLE + source, target)) for target in columns] for source in sources]
    title = f"Gain in {measure} by source and target"
    with canvas(*heat_size(sources, columns), title) as (figure, axes):
        told = heat(axes, (sources, columns), values, lambda value: value / most, difference)
        axes.set_ylabel("source of the prompt")
        axes.set_xlabel("target (held out)")
    caption = (
        f"Difference in {measure} from {baseline} when one source's prompt is used as it is: blue is better, orange is "
        "worse. Without colour: not run, or the target itself."
    )
    data = [
        {"source": system.removeprefix(SINGLE), "target": target, "difference": value}
        for (system, target), value in sorted(gains.items())
    ]
    return Plot("transfer-matrix", title, caption, data, figure, hover={"cells": told})


def gain_by_similarity(
    cells: Sequence[BenchmarkCell],
    targets: Sequence[str],
    systems: Sequence[str] | None = None,
    *,
    baseline: str = "base",
    measure: str = "nDCG@10",
) -> Plot | None:
    """Gain over the baseline against similarity, a point for each system and target that has one.

    `systems` None: every single source, which makes a point of each source and target.
    """
    chosen = _singles(cells) if systems is None else list(systems)
    measured: dict[tuple[str, str], list[float]] = {}  # by seed
    for cell in cells:
        if cell.similarity is not None:
            measured.setdefault((cell.system, cell.target), []).append(cell.similarity)
    near = {key: math.fsum(values) / len(values) for key, values in measured.items()}
    gains = _domain_means(cells, chosen, targets, baseline, measure)
    keys = sorted(key for key in gains if key in near)
    if not keys:
        return None
    points = [(near[key], gains[key]) for key in keys]
    genres = {cell.target: cell.genre for cell in cells}
    rho = rank_correlation(*map(list, zip(*points, strict=True)))
    pairs = [(system.removeprefix(SINGLE), target) for system, target in keys]
    short = short_names(name for pair in pairs for name in pair)
    names = [" → ".join(short[name] for name in (pair if len(chosen) > 1 else pair[1:])) for pair in pairs]
    told = {}
    title = f"Gain in {measure} against similarity"
    with canvas(7.0, 4.6, title) as (figure, axes):
        for place, genre in enumerate(sorted({genres[target] for _, target in keys})):
            own = [number for number, (_, target) in enumerate(keys) if genres[target] == genre]
            dots(axes, [points[number] for number in own], place, genre)
            told[f"dots-{place}"] = [f"{names[number]}: {difference(points[number][1])}" for number in own]
        axes.margins(0.1)
        value_axis(axes, f"difference in {measure} from {baseline}", signs=True)
        axes.set_xlabel("similarity of the target's documents to the source's (cosine)")
        legend(figure, 4, title="genre of the target")
        label_points(axes, points, {number: names[number] for number in standing_out([gain for _, gain in points])})
    correlated = "" if rho is None else f" Spearman's rank correlation {signed(rho)} over {len(points)} points."
    some = f" Named: the {EXTREMES} points at each end." if len(points) > LABELLED else ""
    caption = f"A point is a source (or system) and a target; difference from {baseline}.{correlated}{some}"
    data = [
        {"system": system, "target": target, "similarity": x, "difference": y}
        for (system, target), (x, y) in zip(keys, points, strict=True)
    ]
    return Plot("gain-by-similarity", title, caption, data, figure, hover=told)


def few_shot_families(cells: Sequence[BenchmarkCell]) -> dict[str, dict[str, str]]:
    """Families of systems named `<family>@<labels>`: family -> labels as text -> system.

    A system with the family's bare name and no labels is its point at 0.
    """
    families: dict[str, dict[str, str]] = {}
    for system in sorted({cell.system for cell in cells}):
        if found := _FEW_SHOT.fullmatch(system):
            families.setdefault(found["family"], {})[found["labels"]] = system
    for cell in cells:
        if cell.system in families and cell.labels == 0:
            families[cell.system].setdefault("0", cell.system)
    return families


def few_shot_curves(
    cells: Sequence[BenchmarkCell], targets: Sequence[str], *, baseline: str = "base", measure: str = "nDCG@10"
) -> Plot | None:
    """Means over targets by number of labels, a curve for each family, over the targets that all points have.

    The baseline is a level line, where it covers the targets.
    """
    families = few_shot_families(cells)
    means = {s: seed_means(cells, s, measure) for points in families.values() for s in points.values()}
    shared = [target for target in targets if all(target in own for own in means.values())]
    if not means or not shared:
        return None
    levels = sorted(
        {labels for points in families.values() for labels in points},
        key=lambda labels: math.inf if labels == "all" else int(labels),
    )
    data: list[dict[str, Any]] = [
        {
            "family": family,
            "labels": labels,
            "system": points[labels],
            "value": macro_mean(only(means[points[labels]], shared)),
            "spread": seed_spread(cells, points[labels], measure, shared),
        }
        for family, points in families.items()
        for labels in sorted(points, key=levels.index)
    ]
    level = only(seed_means(cells, baseline, measure), shared)
    title = f"{measure} by number of labels"
    with canvas(7.0, 4.2, title) as (figure, axes):
        for place, family in enumerate(families):
            own = [one for one in data if one["family"] == family]
            xs, ys = [levels.index(one["labels"]) for one in own], [one["value"] for one in own]
            spreads = [one["spread"] or 0.0 for one in own]
            low, high = ([y + sign * spread for y, spread in zip(ys, spreads, strict=True)] for sign in (-1, 1))
            look: dict[str, Any] = {"color": LINES[place % len(LINES)], "marker": MARKERS[place % len(MARKERS)]}
            axes.fill_between(xs, low, high, color=look["color"], alpha=0.15, linewidth=0, zorder=1)
            axes.plot(xs, ys, markersize=5, linewidth=1.8, zorder=3, label=family, **look)
        if len(level) == len(shared):
            dashed: dict[str, Any] = {"linestyle": (0, (5, 3)), "linewidth": 1.2, "zorder": 1}
            axes.plot([-0.3, len(levels) - 1], [macro_mean(level)] * 2, color=SOFT, label=baseline, **dashed)
        value_axis(axes, f"{measure}, mean over {len(shared)} targets")
        axes.set_xticks(range(len(levels)), levels)
        axes.set_xlim(-0.3, len(levels) - 0.85)
        axes.set_xlabel("training labels of the target (pairs)")
        _end_labels(axes, len(levels) - 1)
    caption = (
        f"Means over the {len(shared)} of {len(targets)} targets that every point has; bands are one standard "
        f"deviation over seeds. Dashed: {baseline}."
    )
    return Plot("few-shot", title, caption, data, figure)


def gain_by_cost(summaries: Summaries, what: Literal["parameters", "seconds"]) -> Plot | None:
    """Gain over the baseline against trained parameters, or the time to adapt to one target: a point a system.

    None where no system trains anything, or takes any time.
    """
    label, title = _COSTS[what]
    measure, baseline = summaries.measures[0], summaries.baseline
    rows = [(row, row.gain.difference) for row in summaries.rows if row.gain is not None]
    costs = [row.trained_parameters if what == "parameters" else row.seconds for row, _ in rows]
    if not any(costs):
        return None
    groups: dict[str, list[int]] = {}
    for number, (row, _) in enumerate(rows):
        groups.setdefault(_NO_LABELS if row.labels == (0,) else _LABELS, []).append(number)
    title, told = f"Gain in {measure} against {title}", {}
    with canvas(7.0, 4.8, title) as (figure, axes):
        places = log_axis(axes, costs)
        points = [(x, gain.mean) for x, (_, gain) in zip(places, rows, strict=True)]
        for x, (_, gain) in zip(places, rows, strict=True):
            axes.plot([x, x], [gain.low, gain.high], color=SOFT, alpha=0.35, linewidth=1.3, zorder=2)
        for place, (name, own) in enumerate(groups.items()):
            dots(axes, [points[number] for number in own], place, name)
            told[f"dots-{place}"] = [f"{rows[number][0].system}: {difference(points[number][1])}" for number in own]
        value_axis(axes, f"difference in {measure} from {baseline}", signs=True)
        axes.set_xlabel(label)
        legend(figure)
        bars = [
            (x, gain.low + n / 8 * (gain.high - gain.low))
            for x, (_, gain) in zip(places, rows, strict=True)
            for n in range(9)
        ]
        label_points(axes, [*points, *bars], {number: row.system for number, (row, _) in enumerate(rows)})
    caption = (
        f"Means over {len(summaries.targets)} targets, differences from {baseline}, with 95 % bootstrap intervals "
        "(domains and queries drawn). 0 stands left of the broken axis; points that would cover one another are moved "
        "a little to the sides."
    )
    data = [
        {"system": row.system, what: cost, "difference": gain.mean, "low": gain.low, "high": gain.high}
        for (row, gain), cost in zip(rows, costs, strict=True)
    ]
    return Plot(f"gain-by-{what}", title, caption, data, figure, hover=told)


def draw_all(folder: Path | str, cells: Sequence[BenchmarkCell], summaries: Summaries) -> list[Plot]:
    """Every plot that there is something for, in the page's order; written to the folder."""
    targets = summaries.targets
    same: dict[str, Any] = {"baseline": summaries.baseline, "measure": summaries.measures[0]}
    plots = [
        transfer_matrix(cells, targets, **same),
        gain_by_similarity(cells, targets, **same),
        few_shot_curves(cells, targets, **same),
        gain_by_cost(summaries, "parameters"),
        gain_by_cost(summaries, "seconds"),
    ]
    return [plot.save(folder) for plot in plots if plot is not None]


def _singles(cells: Sequence[BenchmarkCell]) -> list[str]:
    """The systems with one source's prompt."""
    return sorted({cell.system for cell in cells if cell.system.startswith(SINGLE)})


def _domain_means(
    cells: Sequence[BenchmarkCell], systems: Sequence[str], targets: Sequence[str], baseline: str, measure: str
) -> dict[tuple[str, str], float]:
    """The mean difference from the baseline by system and target."""
    return {
        (system, target): macro_mean({target: values})
        for system in systems
        for target, values in only(differences(cells, system, baseline, measure), targets).items()
    }


LABELLED = 40
EXTREMES = 4

_NEAR = 6.0  # points from a dot's centre to its label; farther labels get a line to their dot
_PLACES = [
    (distance, math.radians(angle))
    for distance in (_NEAR, 11.0, 17.0, 24.0, 33.0, 44.0, 58.0)
    for angle in (0, 180, 90, 270, 30, 330, 150, 210, 60, 120, 240, 300)
]


def label_points(axes: Axes, points: Sequence[tuple[float, float]], names: Mapping[int, str]) -> None:
    """Write names beside points, each where it covers no other name and no point.

    The figure is laid out for good, since names are placed by where things are: the limits of `axes` must not change
    after. `points` are all that no name is to cover, in the axes' units; `names` go by the number of their point.
    """
    from matplotlib.figure import Figure

    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    scale = figure.dpi / 72  # pixels in a point
    dots = axes.transData.transform(np.asarray(points, dtype=float))
    x, y = dots[:, :1], dots[:, 1:]
    frame = axes.get_window_extent()
    distances, angles = np.array(_PLACES).T
    turns = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    taken = np.empty((0, 4))  # left, bottom, right, top of each name
    for number, name in names.items():
        text = axes.annotate(name, points[number], (0, 0), textcoords="offset points", va="bottom", fontsize=7.5)
        text.set_zorder(2.5)  # over lines, which the white hides, and under dots
        size = np.array(text.get_window_extent().size)
        corner = dots[number] + distances[:, None] * scale * turns - size * (1 - turns) / 2  # nearest edge at the place
        boxes = np.hstack([corner, corner + size])
        left, bottom, right, top = boxes.T
        covered = (left <= taken[:, 2:3]) & (right >= taken[:, :1]) & (bottom <= taken[:, 3:]) & (top >= taken[:, 1:2])
        hit = (left - 3 < x) & (x < right + 3) & (bottom - 3 < y) & (y < top + 3)
        out = (left < frame.x0) | (right > frame.x1) | (bottom < frame.y0) | (top > frame.y1)
        best = int(np.argmin(4 * covered.sum(axis=0) + hit.sum(axis=0) + 8 * out))
        taken = np.vstack([taken, boxes[best]])
        offset = (boxes[best, :2] - dots[number]) / scale
        text.set_position(offset)
        text.set_bbox({"facecolor": CARD, "alpha": 0.75, "edgecolor": "none", "pad": 0.5})
        if distances[best] > _NEAR:
            end = np.clip(dots[number], boxes[best, :2], boxes[best, 2:])
            line = axes.transData.inverted().transform([dots[number], end])
            axes.plot(line[:, 0], line[:, 1], color=SOFT, linewidth=0.5, zorder=2, scalex=False, scaley=False)


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


_APART = 0.007  # of a log axis's width: points are moved apart to this
_END_GAP = 11.0  # points between the names at the ends of curves


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
    units = ((1e9, " G"), (1e6, " M"), (1e3, " k"), (1e-9, ""))
    ticks = {}
    for amount in amounts:  # `0.1`, `50`, `200 k`, `1 M`
        unit, letter = next((unit, letter) for unit, letter in units if amount >= unit * (1 - 1e-9))
        ticks[math.log10(amount)] = f"{amount / (unit if letter else 1):g}{letter}"
    zero, left, right = first - 0.16 * width, first - 0.05 * width, last + 0.05 * width
    if min(values) <= 0:
        ticks, left = {zero: "0", **ticks}, zero - 0.06 * width
        place = (first - 0.08 * width - left) / (right - left)  # of two strokes through the axis, and a gap
        same: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False, "scalex": False, "scaley": False}
        axes.plot([place - 0.012, place + 0.012], [0, 0], color=CARD, linewidth=2.5, zorder=4, **same)
        for x in (place - 0.012, place + 0.012):
            axes.plot([x - 0.006, x + 0.006], [-0.02, 0.02], color=SOFT, linewidth=1.0, zorder=5, **same)
    axes.set_xlim(left, right)
    axes.set_xticks(list(ticks), list(ticks.values()))
    return spread_out([math.log10(value) if value > 0 else zero for value in values], _APART * width)


def _end_labels(axes: Axes, last: float) -> None:
    """Names of curves: right of the axes for those that end at `last`, moved apart, and over the others' ends."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    lines: list[Any] = list(axes.lines)
    ends = [(line, *map(float, line.get_xydata()[-1])) for line in lines]
    right = [float(axes.transData.transform((x, y))[1]) for _, x, y in ends if x >= last]
    moved = iter(spread_out(right, _END_GAP * figure.dpi / 72))
    for line, x, y in ends:
        same: dict[str, Any] = {"color": line.get_color(), "fontweight": "bold", "fontsize": 8.5}
        name = line.get_label()
        if x >= last:
            place = 1.0, (next(moved) - frame.y0) / frame.height
            axes.annotate(name, place, (4, 0), "axes fraction", "offset points", va="center", **same)
        else:
            axes.annotate(name, (x, y), (0, 6), textcoords="offset points", ha="center", **same)
