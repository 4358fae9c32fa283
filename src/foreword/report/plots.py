"""The report's pictures as files of their own, PNG and SVG, for slides and papers.

Each function returns None where the results hold nothing to draw.
"""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import foreword.tables as numbers
from foreword.errors import ForewordError
from foreword.files import atomic_write
from foreword.report import html as table
from foreword.report.html import Results
from foreword.report.sections import shown_gains
from foreword.terminal import harmless

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox


# What the plots share: one look, labels that keep out of each other's way, files with equal bytes.


COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#6b4ba1", "#3c4650")
"""As the page's lines have them: Okabe and Ito, "Color Universal Design" (2008), two darkened and two added."""
MARKERS = "osD^vPX*"
"""One for each colour, so that nothing hangs on colour alone."""
INK, SOFT, RULE = "#1a1f26", "#56616e", "#dde2e8"

_DPI = 200  # of PNGs, and of the measuring of texts
_STYLE: Mapping[str, Any] = {
    "text.parse_math": False,  # a dollar sign in a name is one
    "svg.hashsalt": "foreword",  # names inside an SVG are random without one
    "svg.fonttype": "path",  # looks alike where the font is missing
    "font.family": ["DejaVu Sans"],  # comes with matplotlib
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10.0,
    "axes.unicode_minus": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


@dataclass(frozen=True)
class Plot:
    """A plot on disk.

    Attributes:
        name: of its files.
        title: what it shows.
        caption: how to read it.
        png: the file.
        svg: the file.
        data: what is drawn, as JSON objects.
    """

    name: str
    title: str
    caption: str
    png: Path
    svg: Path
    data: tuple[Mapping[str, Any], ...]

    def as_dict(self) -> dict[str, Any]:
        """Names, caption and data as JSON values."""
        files = {"png": self.png.name, "svg": self.svg.name}
        texts = {"name": self.name, "title": self.title, "caption": self.caption}
        return {**texts, **files, "data": [dict(one) for one in self.data]}


@contextmanager
def canvas(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure and its axes in the common style; what is drawn and saved inside has it, the user's plots do not.

    Args:
        width: inches.
        height: inches.

    Raises:
        ForewordError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ForewordError("plots need matplotlib: pip install 'foreword[bench]'") from error
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's matplotlibrc must not change the bytes
        matplotlib.rcParams.update(_STYLE)  # type: ignore[arg-type]  # its keys are typed one by one
        figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, figure.add_subplot()


def save(
    figure: Figure, folder: Path | str, name: str, title: str, caption: str, data: Sequence[Mapping[str, Any]]
) -> Plot:
    """Write `<name>.png` and `<name>.svg` to the folder; equal drawings give equal bytes (one matplotlib version)."""
    png, svg = (Path(folder) / f"{name}.{kind}" for kind in ("png", "svg"))
    with atomic_write(png, "wb") as file:
        figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
    with atomic_write(svg, "wb") as file:
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return Plot(name, title, caption, png, svg, tuple(data))


def settle(figure: Figure) -> None:
    """Lay the figure out for good, so that labels can be placed by where things are."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def signed(value: float, digits: int = 2) -> str:
    """A tick of a difference: `+.02`, `0`, `−.02`."""
    if abs(value) < 10**-digits / 2:
        return "0"
    text = f"{abs(value):.{digits}f}".removeprefix("0")
    return ("+" if value > 0 else "−") + text


# Where names stand in a plot: beside their points, clear of one another.


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


# The pieces that plots are made of: heat maps, dots, curves, and an axis with a place for 0 beside its log scale.


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


def draw_curves(axes: Axes, data: Sequence[Mapping[str, Any]], levels: Sequence[str]) -> list[End]:
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
