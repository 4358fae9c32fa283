"""How figures look and what they become: PNG and SVG files, and SVG inside a page, which follows its colours.

A figure is drawn once, by matplotlib, in the colours of `COLOURS`. In a page these are the style sheet's variables, so
that it follows light and dark; what is read out and shown under the pointer is put there too.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree

from foreword.files import atomic_write
from foreword.tables import value
from foreword.terminal import harmless

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#6b4ba1", "#3c4650")
"""Of lines and dots: Okabe and Ito, "Color Universal Design" (2008), two darkened and two added."""
MARKERS = "osD^vPX*"
"""One for each colour, so that nothing hangs on colour alone."""
INK, SOFT, RULE, CARD = "#1a1f26", "#56616e", "#dde2e8", "#ffffff"
WIN, LOSS, HEAT, ON_HEAT = "#2b73b8", "#c8640c", "#08407c", "#fefefe"

COLOURS: Mapping[str, str] = {
    **{colour: f"c{place}" for place, colour in enumerate(LINES)},
    **{INK: "ink", SOFT: "soft", RULE: "rule", CARD: "card", WIN: "win", LOSS: "loss", HEAT: "heat"},
    ON_HEAT: "heat-ink",
}
"""Colour -> the variable of `style.css` that it is in a page."""

_DPI = 200  # of PNGs, and of the measuring of texts
_FONT = 9.0  # points, which are 12 px in a page
_STYLE: Mapping[str, Any] = {
    "text.parse_math": False,  # a dollar sign in a name is one
    "svg.hashsalt": "foreword",  # names inside an SVG are random without one
    "font.family": ["DejaVu Sans"],  # comes with matplotlib
    "font.size": _FONT,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.spines.left": False,
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
    "xtick.bottom": False,
    "ytick.left": False,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "legend.frameon": False,
    "figure.facecolor": CARD,
}


@contextmanager
def canvas(width: float, height: float, title: str = "") -> Iterator[tuple[Figure, Axes]]:
    """A figure (inches) and its axes in the common style; what is drawn inside has it, the user's plots do not.

    The title over the axes is left out in a page.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with _styled():
        figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.set_title(plain(title, 96))
        yield figure, axes


@contextmanager
def _styled(letters: str = "path") -> Iterator[None]:
    """The common style; letters are outlines ("path"), which look alike where the font is missing, or text ("none")."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's matplotlibrc must not change the bytes
        matplotlib.rcParams.update({**_STYLE, "svg.fonttype": letters})  # type: ignore[dict-item]  # keys are typed one by one
        yield


@dataclass(frozen=True, eq=False)
class Plot:
    """A figure that is drawn.

    Attributes:
        name: of its files.
        caption: how to read it.
        data: what is drawn, as JSON objects.
        said: read out in a page; the caption when empty.
        hover: what is shown under the pointer: for a drawn thing's `gid` one text (none when empty), or one for each
            of its parts. What stands before the last hyphen of a `gid` is its class in the page.
        folder: where it was saved.
    """

    name: str
    title: str
    caption: str
    data: Sequence[Mapping[str, Any]]
    figure: Figure
    said: str = ""
    hover: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    folder: Path = Path()

    @property
    def png(self) -> Path:
        """The PNG file, once saved."""
        return self.folder / f"{self.name}.png"

    @property
    def svg(self) -> Path:
        """The SVG file, once saved; its letters are outlines."""
        return self.folder / f"{self.name}.svg"

    def as_dict(self) -> dict[str, Any]:
        """Names, caption and data as JSON values."""
        files = {"png": self.png.name, "svg": self.svg.name}
        texts = {"name": self.name, "title": self.title, "caption": self.caption}
        return {**texts, **files, "data": [dict(one) for one in self.data]}

    def save(self, folder: Path | str) -> Plot:
        """Write both files to the folder; equal drawings give equal bytes (with one version of matplotlib)."""
        saved = replace(self, folder=Path(folder))
        with _styled():
            with atomic_write(saved.png, "wb") as file:
                self.figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
            with atomic_write(saved.svg, "wb") as file:
                self.figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        return saved

    def inline(self, key: str) -> Markup:
        """The figure as an element of a page, to be read out too; `key` is unique there, and begins its ids."""
        from markupsafe import Markup

        file, axes = io.BytesIO(), self.figure.axes[0]
        with _styled("none"):
            heading = axes.get_title(loc="left")
            axes.set_title("")
            self.figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
            axes.set_title(heading)
        drawn = ElementTree.fromstring(file.getvalue())
        width, height = (float(side) for side in drawn.attrib["viewBox"].split()[2:])
        picture = ElementTree.Element(
            "svg",
            {
                "viewBox": f"0 0 {width:.0f} {height:.0f}",
                "style": f"width:{width * 4 / 3:.0f}px;min-width:{width:.0f}px",  # shrinks a little, then scrolls
                "role": "img",
                "aria-labelledby": f"{key}-title {key}-desc",
            },
        )
        for tag, said in (("title", self.title), ("desc", self.said or self.caption)):
            ElementTree.SubElement(picture, tag, id=f"{key}-{tag}").text = _one_line(said)
        picture.extend([part for child in drawn for part in _slim(child, key, self.hover)])
        return Markup(ElementTree.tostring(picture, encoding="unicode", short_empty_elements=False))


def plain(text: object, most: int = 48) -> str:
    """A name as a font can draw it: one line of at most `most` letters."""
    line = _one_line(text)
    return line if len(line) <= most else line[: most - 1] + "…"


def _one_line(text: object) -> str:
    return " ".join(harmless(str(text).encode("utf-8", "replace").decode("utf-8")).split())


# matplotlib's SVG made fit for a page: short, its colours the page's, its ids its own, texts under the pointer.

_LONG = re.compile(r"-?\d+\.\d+")  # numbers, which get two digits behind the point
_CIRCLE = 8  # curves of matplotlib's path of a circle


def _slim(
    node: ElementTree.Element, key: str, hover: Mapping[str, str | Sequence[str]], *, told: bool = False
) -> Iterator[ElementTree.Element]:
    """What an element becomes in a page: none, itself, or its children; `told`: unseen parts are of use."""
    tag, name = node.tag.rpartition("}")[2], node.get("id", "")
    if tag in ("metadata", "style", "clipPath"):
        return
    style = _style(node.get("style", ""))
    if style == {"fill": "none"} and not told:
        return
    kept = {
        attribute: " ".join(_LONG.sub(lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), text).split())
        for attribute, text in node.attrib.items()
        if attribute in ("d", "x", "y", "transform")
    }
    if kept.get("transform", "").startswith("rotate(-0"):
        del kept["transform"]
    slim = ElementTree.Element(tag, kept)
    slim.text = node.text if tag == "text" else None
    if style:
        slim.set("style", ";".join(f"{attribute}:{text}" for attribute, text in style.items()))
    if tag == "path" and name:
        slim.set("id", f"{key}-{name}")
    if tag == "use":
        slim.set("href", f"#{key}-{node.attrib['{http://www.w3.org/1999/xlink}href'][1:]}")
    texts = hover.get(name)
    parts = [part for child in node for part in _slim(child, key, hover, told=texts is not None)]
    if texts is None and tag in ("g", "defs"):
        yield from parts if tag == "g" or not parts else [_filled(slim, parts)]
        return
    if texts is not None:
        slim.set("class", name.rpartition("-")[0] or name)
        if isinstance(texts, str):
            parts = [*([_title(texts)] if texts else []), *parts]
        else:
            shapes = [part for part in parts if part.tag != "defs"]  # a single one is a mark that is defined and used
            told_parts = [_filled(_circle(s), [_title(text)]) for s, text in zip(shapes, texts, strict=True)]
            parts = [*(part for part in parts if part.tag == "defs"), *told_parts]
    yield _filled(slim, parts)


def _filled(element: ElementTree.Element, parts: Sequence[ElementTree.Element]) -> ElementTree.Element:
    element.extend(parts)
    return element


def _title(text: str) -> ElementTree.Element:
    title = ElementTree.Element("title")
    title.text = plain(text, 200)
    return title


def _style(text: str) -> dict[str, str]:
    """A style's properties, colours as the page's variables, without what the page says of all figures."""
    properties = dict(part.split(": ", 1) for part in text.split("; ") if part)
    usual = {"font-size": f"{_FONT:g}px", "text-anchor": "start", "stroke-width": "1", "font-style": "normal"}
    return {
        name: f"var(--{COLOURS[said]})" if said in COLOURS else said
        for name, said in properties.items()
        if usual.get(name) != said and name not in ("font-family", "stroke-linecap", "stroke-linejoin")
    }


def _circle(path: ElementTree.Element) -> ElementTree.Element:
    """A circle where matplotlib has drawn a path of eight curves."""
    if path.get("d", "").count("C") != _CIRCLE:
        return path
    numbers = [float(found) for found in re.findall(r"-?[\d.]+", path.attrib.pop("d"))]
    (left, right), top = (min(numbers[::2]), max(numbers[::2])), min(numbers[1::2])
    radius = (right - left) / 2
    middle = {"cx": f"{left + radius:.2f}", "cy": f"{top + radius:.2f}", "r": f"{radius:.2f}"}
    return ElementTree.Element("circle", {**middle, **path.attrib})


def value_axis(
    axes: Axes,
    label: str,
    values: Sequence[float] | None = None,
    *,
    signs: bool = False,
    of: Literal["x", "y"] = "y",
) -> None:
    """An axis of round numbers that span the values (None: what is drawn), with a line at 0 for differences.

    `signs` says that they are differences, `of` which axis it is.
    """
    from matplotlib.ticker import MaxNLocator

    axis = axes.yaxis if of == "y" else axes.xaxis
    spanned = values if values is not None else axis.get_view_interval()
    low, high = min(spanned), max(spanned)
    if not high > low:
        low, high = low - 0.5, high + 0.5
    ticks = [float(tick) for tick in MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(low, high)]
    digits = max(0, min(4, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9)))
    axis.set_ticks(ticks, labels=[signed(t, digits) if signs else value(t, digits) if t else "0" for t in ticks])
    axis.set_label_text(label)
    (axes.set_ylim if of == "y" else axes.set_xlim)(ticks[0], ticks[-1])
    if signs:
        axes.axhline(0, color=SOFT, linewidth=1.0, zorder=1)


def signed(number: float, digits: int = 2) -> str:
    """A tick of a difference: `+.02`, `0`, `−.02`."""
    if abs(number) < 10**-digits / 2:
        return "0"
    text = f"{abs(number):.{digits}f}".removeprefix("0")
    return ("+" if number > 0 else "−") + text


def dots(axes: Axes, points: Sequence[tuple[float, float]], place: int, name: str | None) -> None:
    """Points in the colour and shape of their place in the legend; their `gid` is "dots-" and the place."""
    xs, ys = zip(*points, strict=True)
    colour, marker = LINES[place % len(LINES)], MARKERS[place % len(MARKERS)]
    axes.plot(
        xs, ys, linestyle="none", marker=marker, markersize=5.5, color=colour, markeredgecolor=CARD,
        markeredgewidth=0.6, label=name, zorder=3, gid=f"dots-{place}",
    )  # fmt: skip


def legend(figure: Figure, columns: int = 2, **more: Any) -> None:
    """What colours and shapes stand for, below the axes; long names one below the other."""
    _, names = figure.axes[0].get_legend_handles_labels()
    room = figure.get_figwidth() * 72 / (0.65 * _FONT)  # letters in a line
    longest = max(map(len, names), default=0) + 6
    figure.legend(loc="outside lower center", ncols=max(1, min(columns, int(room // longest))), **more)


def heat(
    axes: Axes,
    names: tuple[Sequence[str], Sequence[str]],
    values: Sequence[Sequence[float | None]],
    strength: Callable[[float], float],
    write: Callable[[float | None], str],
    *,
    colours: tuple[str, str] = (LOSS, WIN),
    bare: Collection[tuple[int, int]] = (),
    outlined: Collection[tuple[int, int]] = (),
) -> list[str]:
    """A heat map with its numbers, rows from above; returns a text for each cell, of the `gid` "cells".

    Args:
        names: of rows and columns.
        values: [rows][columns]; None where there is none.
        strength: of a value's colour, from −1 (the first of `colours`, in full) to 1 (the second).
        colours: below 0 and above.
        bare: cells (row, column) without colour.
        outlined: cells with an edge.
    """
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    squares, faces, texts = [], [], []
    places = [(row, column) for row in range(len(names[0])) for column in range(len(names[1]))]
    for row, column in places:
        number = values[row][column]
        shade = None if number is None or (row, column) in bare else strength(number)
        share = 0.0 if shade is None else 0.06 + 0.9 * min(abs(shade), 1.0)
        faces.append(to_rgba(colours[(shade or 0.0) >= 0], round(share, 2)))
        ink = SOFT if shade is None else ON_HEAT if share > 0.64 else INK
        axes.text(column, row, write(number), ha="center", va="center", fontsize=8.0, color=ink)
        left, right, top, bottom = column - 0.47, column + 0.47, row - 0.45, row + 0.45
        squares.append([(left, top), (right, top), (right, bottom), (left, bottom)])
        texts.append(f"{names[0][row]} → {names[1][column]}: {write(number)}")
    edges = [LOSS if place in outlined else RULE for place in places]
    widths = [1.8 if place in outlined else 0.7 for place in places]
    axes.add_collection(PolyCollection(squares, facecolors=faces, edgecolors=edges, linewidths=widths, gid="cells"))
    axes.set_xlim(-0.5, len(names[1]) - 0.5)
    axes.set_ylim(len(names[0]) - 0.5, -0.5)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_xticks(range(len(names[1])), map(plain, names[1]), rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names[0])), map(plain, names[0]))
    return texts


def heat_size(rows: Sequence[str], columns: Sequence[str]) -> tuple[float, float]:
    """Inches that a heat map with these names takes."""
    left, below = (0.07 * max(len(plain(name)) for name in names) for names in (rows, columns))
    return max(4.4, 0.8 + left + 0.6 * len(columns)), 1.1 + 0.75 * below + 0.33 * len(rows)
