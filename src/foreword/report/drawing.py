"""What the plots share: one look, labels that keep out of each other's way, files with equal bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.common.errors import ForewordError
from foreword.common.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
