"""The report's pictures as files of their own, PNG and SVG, for slides and papers.

Each function returns None where the results hold nothing to draw.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from foreword.common.terminal import harmless
from foreword.report import numbers, table
from foreword.report.drawing import COLOURS, MARKERS, Plot, canvas, save
from foreword.report.marks import dots, gain_axis, heat_axes, shades, value_axis
from foreword.report.parts import Results
from foreword.report.queries import shown_gains

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FOLDER = "plots"
"""Of the pictures, beside the page."""

_WIN, _LOSS = "#2b73b8", "#c8640c"  # as on the page
_NAME = 48  # letters of a name, at most


def write_plots(folder: Path | str, results: Results) -> list[Plot]:
    """Draw what there is: effectiveness, gains by query, similarity of domains, learning curves.

    Without matplotlib (extra `bench`) nothing is drawn, which is warned of.

    Args:
        folder: for the files; made when missing.
        results: as `foreword.report.write_report` takes them.

    Returns:
        The plots, in the page's order.
    """
    if find_spec("matplotlib") is None:
        warnings.warn("no plots beside the page; they need matplotlib: pip install 'foreword[bench]'", stacklevel=2)
        return []
    drawn = [effectiveness(folder, results), *gains(folder, results), similarity(folder, results)]
    drawn += [curves(folder, results, field) for field in ("dev", "loss")]
    return [plot for plot in drawn if plot is not None]


def effectiveness(folder: Path | str, results: Results) -> Plot | None:
    """What each system scores on each collection, by the first measure."""
    rows = results.get("rows") or []
    measures = table.unique(rows, "measure")
    if not measures:
        return None
    measure, baseline = measures[0], str(results.get("baseline") or table.BASELINE)
    found = [row for row in table.gather(rows, measures, baseline) if row.values[measure] is not None]
    systems = list(dict.fromkeys(row.system for row in found))
    collections = list(dict.fromkeys(row.collection for row in found))
    if not found:
        return None
    with canvas(7.0, 1.6 + 0.3 * len(systems) + 0.2 * len(collections)) as (figure, axes):
        for place, collection in enumerate(collections):
            own = [row for row in found if row.collection == collection]
            points = [(float(row.values[measure] or 0.0), systems.index(row.system)) for row in own]
            dots(axes, points, place, _plain(collection))
            level = [x for x, y in points if systems[y] == baseline]
            for x in level:
                axes.axvline(x, color=COLOURS[place % len(COLOURS)], linestyle=(0, (5, 3)), linewidth=1.0, zorder=1)
        axes.set_yticks(range(len(systems)), [_plain(system) for system in systems])
        axes.set_ylim(len(systems) - 0.5, -0.5)
        axes.margins(x=0.06)
        axes.set_xlabel(_plain(measure))
        title = f"{measure} of every system"
        axes.set_title(_plain(title))
        figure.legend(loc="outside lower center", ncols=2)
        caption = f"A dot is a system on a collection; dashed: {baseline}."
        data = [{"collection": r.collection, "system": r.system, "value": r.values[measure]} for r in found]
        return save(figure, folder, "effectiveness", title, caption, data)


def gains(folder: Path | str, results: Results) -> list[Plot]:
    """For each collection, one system's gain on every query, the largest first."""
    plots: list[Plot] = []
    for collection, about in (results.get("per_query") or {}).items():
        found = shown_gains(about)
        if found is None:
            continue
        values = sorted(found.gains[found.system].values(), reverse=True)
        with canvas(7.0, 3.2) as (figure, axes):
            edges = range(len(values) + 1)
            for colour, own in ((_WIN, [max(v, 0.0) for v in values]), (_LOSS, [min(v, 0.0) for v in values])):
                axes.stairs(own, edges, fill=True, color=colour, zorder=2)
            gain_axis(axes, _plain(found.measure), _plain(found.baseline))
            axes.set_xlim(0, len(values))
            axes.set_xlabel(f"{len(values):,} queries, by difference")
            title = f"{found.system} against {found.baseline} on {collection}"
            axes.set_title(_plain(title, 2 * _NAME))
            better, worse = sum(v > 0 for v in values), sum(v < 0 for v in values)
            caption = f"{better} queries better, {len(values) - better - worse} the same, {worse} worse."
            data = [{"collection": collection, "system": found.system, "differences": values}]
            name = _file_name("gains", collection, [plot.name for plot in plots])
            plots.append(save(figure, folder, name, title, caption, data))
    return plots


def similarity(folder: Path | str, results: Results) -> Plot | None:
    """Source by target domains."""
    found = results.get("similarity") or {}
    sources, values = found.get("domains") or [], found.get("values") or []
    targets = found.get("targets") or sources
    if not sources or len(values) != len(sources) or any(len(line) != len(targets) for line in values):
        return None
    others = [
        [None if source == target else value for target, value in zip(targets, line, strict=True)]
        for source, line in zip(sources, values, strict=True)
    ]  # a domain's similarity to itself says nothing
    present = [value for line in others for value in line if value is not None]
    if not present:
        return None
    rows, columns = ([_plain(name) for name in names] for names in (sources, targets))
    left, below = (0.07 * max(map(len, names)) for names in (rows, columns))  # inches that names take
    with canvas(max(5.6, 1.0 + left + 0.52 * len(columns)), 1.4 + 0.75 * below + 0.3 * len(rows)) as (figure, axes):
        axes.grid(False)
        shades(axes, others, min(present), max(present))
        heat_axes(axes, rows, columns, ("source", "target"))
        title = "Domain similarity"
        axes.set_title(title)
        method = f"Measured by {found['method']}. " if found.get("method") else ""
        caption = f"{method}Rows are sources, columns are targets; grey: not compared, or the domain itself."
        data = [
            {"source": source, "target": target, "similarity": value}
            for source, line in zip(sources, others, strict=True)
            for target, value in zip(targets, line, strict=True)
        ]
        return save(figure, folder, "similarity", title, caption, data)


def curves(folder: Path | str, results: Results, field: str) -> Plot | None:
    """A line for each prompt over training steps: `dev` effectiveness or `loss`."""
    label = str(results.get("dev_measure") or "dev nDCG@10") if field == "dev" else "training loss"
    lines = {
        str(curve["name"]): sorted(
            (float(point["step"]), float(point[field]))
            for point in curve.get("points") or []
            if point.get(field) is not None
        )
        for curve in results.get("curves") or []
    }
    places = {name: place for place, name in enumerate(lines)}  # the same colours in both plots
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return None
    with canvas(7.0, 4.2 + 0.09 * len(lines)) as (figure, axes):
        for name, points in lines.items():
            _line(axes, points, places[name], _plain(name))
        value_axis(axes, _plain(label))
        axes.set_xlabel("step")
        title = f"{label} by step"
        axes.set_title(_plain(title))
        figure.legend(loc="outside lower center", ncols=2)
        ends = "; ".join(f"{name} ends at {numbers.value(points[-1][1])}" for name, points in lines.items())
        data = [{"name": name, "step": step, field: value} for name, points in lines.items() for step, value in points]
        return save(figure, folder, f"curves-{field}", title, f"{ends}.", data)


def _line(axes: Axes, points: Sequence[tuple[float, float]], place: int, name: str) -> None:
    """A line with its marks, told apart from the others by colour, mark and, beyond those, dashes."""
    xs, ys = zip(*points, strict=True)
    style = "-" if place < len(COLOURS) else "--"
    colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
    axes.plot(xs, ys, style, color=colour, marker=marker, markersize=4, linewidth=1.6, label=name)


def _plain(text: object, most: int = _NAME) -> str:
    """A name as a font can draw it: one line, not too long."""
    line = " ".join(harmless(str(text).encode("utf-8", "replace").decode("utf-8")).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _file_name(kind: str, of: object, taken: Sequence[str]) -> str:
    """`gains-pydoc-torch`, with a number behind it where that is taken."""
    words = re.sub(r"[^\w.]+", "-", _plain(of)).strip("-.")
    name = f"{kind}-{words}" if words else kind
    return f"{name}-{len(taken) + 1}" if name in taken else name
