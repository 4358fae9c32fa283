"""The figures of a run's results: each is drawn once, and goes into the page and into files, PNG and SVG."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from foreword.report.drawing import (
    HEAT,
    LINES,
    LOSS,
    MARKERS,
    RULE,
    SOFT,
    WIN,
    Plot,
    canvas,
    dots,
    heat,
    heat_size,
    legend,
    plain,
    value_axis,
)
from foreword.report.results import BASELINE, Results, better_same_worse, gather, query_gains, unique
from foreword.tables import NOTHING, count, difference, value

FOLDER = "plots"
"""Of the files, beside the page."""

_MARKED = 25  # points up to which a line has a mark at each
_LARGEST = 8.0  # points: the diameter of the bin with the most hits


def write_plots(folder: Path | str, results: Results) -> list[Plot]:
    """Draw what there is, in the page's order: effectiveness, gains by query, domains' similarity, learning curves."""
    drawn = [effectiveness(results), *gains(results), similarity(results), *curves(results)]
    return [plot.save(folder) for plot in drawn if plot is not None]


def effectiveness(results: Results) -> Plot | None:
    """What each system scores on each collection, by the first measure; None where there is no value."""
    rows = results.get("rows") or []
    measures = unique(rows, "measure")[:1]
    baseline = str(results.get("baseline") or BASELINE)
    found = [row for row in gather(rows, measures, baseline) if measures and row.values[measures[0]] is not None]
    if not found:
        return None
    (measure,) = measures
    systems = list(dict.fromkeys(row.system for row in found))
    collections = list(dict.fromkeys(row.collection for row in found))
    title = f"{measure} of every system"
    with canvas(7.0, 1.6 + 0.3 * len(systems) + 0.2 * len(collections), title) as (figure, axes):
        for place, collection in enumerate(collections):
            own = [row for row in found if row.collection == collection]
            points = [(float(row.values[measure] or 0.0), systems.index(row.system)) for row in own]
            dots(axes, points, place, plain(collection))
            for x in [x for x, y in points if systems[y] == baseline]:
                axes.axvline(x, color=LINES[place % len(LINES)], linestyle=(0, (5, 3)), linewidth=1.0, zorder=1)
        axes.set_yticks(range(len(systems)), map(plain, systems))
        axes.set_ylim(len(systems) - 0.5, -0.5)
        axes.margins(x=0.06)
        value_axis(axes, plain(measure), of="x")
        legend(figure)
    data = [{"collection": row.collection, "system": row.system, "value": row.values[measure]} for row in found]
    return Plot("effectiveness", title, f"A dot is a system on a collection; dashed: {baseline}.", data, figure)


def gains(results: Results) -> list[Plot]:
    """For each collection that has them, one system's gain on every query."""
    plots: list[Plot] = []
    for collection, about in (results.get("per_query") or {}).items():
        if (found := query_gains(about)) is not None:
            words = re.sub(r"[^\w.]+", "-", plain(collection)).strip("-.")
            name = f"gains-{words}" if words else "gains"
            if name in [plot.name for plot in plots]:
                name += f"-{len(plots) + 1}"
            title = f"{found.system} against {found.baseline} on {collection}"
            plot = gain_bars(name, title, found.shown, found.measure, found.baseline)
            differences = sorted(found.gains[found.system].values(), reverse=True)
            data = [{"collection": collection, "system": found.system, "differences": differences}]
            plots.append(replace(plot, data=data))
    return plots


def gain_bars(
    name: str, title: str, gains: Sequence[tuple[str, float]], measure: str, baseline: str = BASELINE, most: int = 800
) -> Plot:
    """A bar for each query's gain over the baseline, the largest first.

    `gains` are (query's text, difference), at least one, in any order. Of more than `most`, so many are drawn, at even
    steps through the sorted list.
    """
    ordered = sorted(gains, key=lambda gain: -gain[1])
    greatest, least = ordered[0][1], ordered[-1][1]
    if len(ordered) > most:
        ordered = [ordered[round(place * (len(ordered) - 1) / (most - 1))] for place in range(most)]
    with canvas(11.2, 3.0, title) as (figure, axes):
        edges = range(len(ordered) + 1)
        for colour, own in ((WIN, [max(v, 0.0) for _, v in ordered]), (LOSS, [min(v, 0.0) for _, v in ordered])):
            axes.stairs(own, edges, fill=True, color=colour, zorder=2, gid=f"bars-{colour[1:]}")
        label = f"Δ {plain(measure)} from {plain(baseline)}"
        value_axis(axes, label, (min(0.0, least), max(0.0, greatest)), signs=True)
        axes.set_xlim(0, len(ordered))
        axes.set_xticks([])
        axes.set_xlabel(f"{len(gains):,} queries, by difference in {plain(measure)}")
        # an unseen column for each, so that the pointer finds short bars too
        low, high = axes.get_ylim()
        columns = [(place, 1) for place in range(len(ordered))]
        axes.broken_barh(columns, (low, high - low), color=RULE, alpha=0, zorder=1.5, gid="hits")
    better, same, worse = better_same_worse(gain for _, gain in gains)
    said = f"{better} queries better, {worse} worse, {same} the same; differences from {difference(greatest)} to "
    texts = [f"{difference(gain)}  {plain(text, 160)}" for text, gain in ordered]
    return Plot(
        name,
        title,
        f"{better} queries better, {same} the same, {worse} worse.",
        [],
        figure,
        f"{said}{difference(least)}.",
        {"hits": texts, f"bars-{WIN[1:]}": "", f"bars-{LOSS[1:]}": ""},
    )


def similarity(results: Results) -> Plot | None:
    """Source by target domains, each target's nearest source outlined; a domain against itself is without colour."""
    found = results.get("similarity") or {}
    sources, values = found.get("domains") or [], found.get("values") or []
    targets = found.get("targets") or sources
    if not sources or len(values) != len(sources) or any(len(line) != len(targets) for line in values):
        return None
    places = [(row, column) for row in range(len(sources)) for column in range(len(targets))]
    own = {(row, column) for row, column in places if sources[row] == targets[column]}
    compared = {
        (row, column): float(values[row][column])
        for row, column in places
        if (row, column) not in own and values[row][column] is not None
    }
    nearest = [
        max((v for (_, c), v in compared.items() if c == column), default=None) for column in range(len(targets))
    ]
    outlined = {(row, column) for (row, column), number in compared.items() if number == nearest[column]}
    title, method = "Domain similarity", f" Measured by {found['method']}." if found.get("method") else ""
    low, high = min(compared.values(), default=0.0), max(compared.values(), default=1.0)
    with canvas(*heat_size(sources, targets), title) as (figure, axes):
        told = heat(
            axes,
            (sources, targets),
            values,
            _between(low, high),
            _two,
            colours=(HEAT, HEAT),
            bare=own,
            outlined=outlined,
        )
        axes.set_ylabel("source")
        axes.set_xlabel("target")
    caption = (
        "Rows are sources, columns are targets; a stronger colour is more similar, and the outline marks each target's "
        f"nearest source.{method} Only texts are looked at, no labels."
    )
    data = [
        {"source": sources[row], "target": targets[column], "similarity": compared.get((row, column))}
        for row, column in places
    ]
    said = f"Similarity of {len(sources)} source domains (rows) to {len(targets)} target domains (columns)"
    return Plot("similarity", title, caption, data, figure, f"{said}, from {low:.2f} to {high:.2f}.", {"cells": told})


def strength_map(name: str, layers: Sequence[int], columns: Sequence[str], values: Sequence[Sequence[float]]) -> Plot:
    """How strongly a prompt acts, layers (counted from 1, the lowest) by places: `values` are [layers][places]."""
    rows = [f"layer {layer}" for layer in layers]
    low, high = min(map(min, values)), max(map(max, values))
    with canvas(*heat_size(rows, columns), name) as (figure, axes):
        told = heat(axes, (rows, columns), values, _between(low, high), _two, colours=(HEAT, HEAT))
    said = f"Strength of the prompt of {name} in {len(rows)} layers (rows), {len(columns)} places in each (columns)"
    said += f", from {low:.2f} to {high:.2f}."
    return Plot("strength", f"Prompt of {name}: strength by layer and place", said, [], figure, hover={"cells": told})


def _between(low: float, high: float) -> Callable[[float], float]:
    """A value's place between the least and the greatest, 0 to 1."""
    return lambda number: (number - low) / (high - low) if high > low else 0.5


def _two(number: float | None) -> str:
    """`0.25`, as cosines are printed."""
    return NOTHING if number is None else f"{number:.2f}".replace("-", "−")


def curves(results: Results) -> list[Plot]:
    """A line for each prompt over training steps: effectiveness on dev, and loss, where they are."""
    from matplotlib.ticker import MaxNLocator

    found = [curve for curve in results.get("curves") or [] if curve.get("points")]
    places = {name: place for place, name in enumerate(unique(found, "name"))}  # the same colours in both plots
    plots = []
    for field, label in (("dev", str(results.get("dev_measure") or "dev nDCG@10")), ("loss", "training loss")):
        lines = {
            str(curve["name"]): sorted(
                (float(point["step"]), float(point[field])) for point in curve["points"] if point.get(field) is not None
            )
            for curve in found
        }
        lines = {name: points for name, points in lines.items() if points}
        if not lines:
            continue
        title, told = f"{label} by step", {}
        with canvas(5.8, 3.4 + 0.1 * len(lines), title) as (figure, axes):
            for name, points in lines.items():
                xs, ys = zip(*points, strict=True)
                look, key = line_look(places[name]), f"line-{places[name]}"
                marked = {} if len(points) <= _MARKED else {"marker": ""}
                axes.plot(xs, ys, label=plain(name), gid=key, **{**look, **marked})
                told[key] = f"{name}: {value(ys[-1])} at step {xs[-1]:g}"
            value_axis(axes, plain(label), [y for points in lines.values() for _, y in points])
            axes.set_xlabel("step")
            axes.xaxis.set_major_locator(
                MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True)
            )  # there is no half step
            legend(figure)
        ends = [f"{name} from {value(points[0][1])} to {value(points[-1][1])}" for name, points in lines.items()]
        data = [{"name": name, "step": step, field: y} for name, points in lines.items() for step, y in points]
        said = f"{label} against training step: {'; '.join(ends)}."
        plots.append(Plot(f"curves-{field}", title, said, data, figure, hover=told))
    return plots


def line_look(place: int) -> dict[str, Any]:
    """How line `place` is told apart from the others: colour, mark and, beyond the colours, dashes."""
    colour, marker = LINES[place % len(LINES)], MARKERS[place % len(MARKERS)]
    dashed = place % (2 * len(LINES)) >= len(LINES)
    return {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.6, "linestyle": "--" if dashed else "-"}


def reliability_curves(domain: str, found: Sequence[Mapping[str, Any]], places: Mapping[str, int]) -> Plot:
    """Confidence across, the share that is relevant upwards, the diagonal, and a curve for each system.

    `found` has for each system `system`, `curve` (bins of `confidence`, `accuracy`, `count`), `ece` and, where one was
    fitted, `temperature`; `places` has the number of its colour.
    """
    bins = [point for item in found for point in item["curve"]]
    largest = max(point["count"] for point in bins)
    title, told, said = f"Calibration on {domain}", {}, []
    with canvas(4.6, 4.3 + 0.1 * len(found), title) as (figure, axes):
        for item in found:
            system = str(item["system"])
            xs, ys, sizes = zip(
                *((one["confidence"], one["accuracy"], one["count"]) for one in item["curve"]), strict=True
            )
            look, group = line_look(places[system]), f"dots-{places[system]}"
            axes.plot(xs, ys, label=plain(system), **{**look, "marker": ""})
            areas = [max(_LARGEST * math.sqrt(size / largest), 3.0) ** 2 for size in sizes]
            axes.scatter(xs, ys, areas, color=look["color"], linewidths=0, zorder=3, gid=group)
            told[group] = [
                f"{system}: confidence {value(x)}, relevant {value(y)}, {count(size)} hits"
                for x, y, size in zip(xs, ys, sizes, strict=True)
            ]
            error, temperature = (
                f"{system} has an expected calibration error of {value(item.get('ece'))}",
                item.get("temperature"),
            )
            said.append(error if temperature is None else f"{error} at temperature {temperature:.3g}")
        ends = 0.0, max(max(point["confidence"], point["accuracy"]) for point in bins)
        value_axis(axes, "confidence", ends, of="x")
        value_axis(axes, "share that is relevant", ends)
        axes.axline((0, 0), slope=1, color=SOFT, linewidth=0.9, zorder=1)
        legend(figure)
    described = f"Reliability of hits on {domain}, confidence against the share that is relevant: {'; '.join(said)}."
    return Plot("calibration", title, described, [], figure, hover=told)
