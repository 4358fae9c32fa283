"""What the charts share: the frame of a picture that can be read out, and round numbers for axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from foreword.report.markup import Child, Markup, element

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
