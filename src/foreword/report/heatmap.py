"""Heatmaps, as of domain similarity, as inline SVG coloured by the page's style sheet."""

from __future__ import annotations

from collections.abc import Sequence

from foreword.report.markup import Child, Markup, element
from foreword.report.svg import CHARACTER, picture

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
