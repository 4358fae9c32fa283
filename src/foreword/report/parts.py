"""What the sections share: tables and boxes that scroll."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from foreword.report import numbers, table
from foreword.report.markup import Child, Markup, element

Results = Mapping[str, Any]
"""The object that `write_report` takes."""


def scroll(child: Markup) -> Markup:
    """Something wide in a box that scrolls sideways in a narrow window, with the keyboard too."""
    return element("div", child, class_="scroll", tabindex=0)


def data_table(
    columns: Sequence[str],
    body: Sequence[Markup],
    *,
    caption: str | None = None,
    words: Collection[int] = (0,),
    class_: str | None = None,
) -> Markup:
    """A table in a scrolling box.

    Args:
        columns: the header's names.
        body: `tr` elements, or `tbody` elements of one's own.
        caption: what the table shows.
        words: the columns that are text; the others' names stand on the right, over their numbers.
        class_: of the table.
    """
    head = [
        element("th", name, scope="col", class_=None if place in words else "n") for place, name in enumerate(columns)
    ]
    grouped = all(part.startswith("<tbody") for part in body)
    return scroll(
        element(
            "table",
            element("caption", caption) if caption else None,
            element("thead", element("tr", head)),
            body if grouped else element("tbody", body),
            class_=class_,
        )
    )


def row(head: Child, cells: Sequence[Child], *, class_: str | None = None) -> Markup:
    """A line of a table: `th` and `td` elements as they are, other cells as numbers."""
    return element("tr", head, [as_cell(cell) for cell in cells], class_=class_)


def as_cell(cell: Child) -> Child:
    """A cell as it is, or plain text as a number's cell."""
    return cell if isinstance(cell, Markup) else element("td", cell, class_="n")


def system_name(system: str) -> Markup:
    """A line's head: a system's name and, for the usual ones, what it is."""
    about = table.DESCRIPTIONS.get(system)
    return element("th", system, element("small", about) if about else None, scope="row")


def value_cell(number: float | None, top: str, gain: float | None = None) -> Markup:
    """A measure's value, bold when it is the best as printed, with its difference from the baseline."""
    text = numbers.value(number)
    best = text == top and text != numbers.NOTHING
    small = element("small", numbers.difference(gain)) if gain is not None else None
    return element("td", element("b", text) if best else text, small, class_="n")
