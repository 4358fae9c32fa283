"""HTML and SVG elements as strings, escaped unless they are elements already."""

from __future__ import annotations

import html
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foreword.tables import NOTHING, Entry, byte_size, count, difference, duration, markdown_rows, p_value, value

if TYPE_CHECKING:
    from rich.table import Table


_VOID = frozenset({"br", "link", "meta"})


class Markup(str):
    """Text that is HTML already; every other string is escaped when it becomes part of an element."""

    __slots__ = ()


Child = str | int | float | None | Iterable["Child"]


def escape(value: object) -> str:
    """`value` as text that is safe between tags and inside quoted attributes."""
    text = str(value).encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair cannot be written
    return html.escape(text, quote=True)


def element(name: str, /, *children: Child, **attributes: object) -> Markup:
    """One element with its children.

    Args:
        name: the tag.
        children: text (escaped), elements, or nested lists of both; None is left out.
        attributes: `class_` is written `class`, `aria_label` `aria-label`; None and False are left out, True
            is a bare attribute.
    """
    written = []
    for key, given in attributes.items():
        if given is None or given is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        written.append(f" {key}" if given is True else f' {key}="{escape(given)}"')
    opened = f"<{name}{''.join(written)}>"
    return Markup(opened if name in _VOID else f"{opened}{_inner(children)}</{name}>")


def _inner(child: Child) -> str:
    """A child, or a nested list of them, as one string."""
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str | int | float):
        return escape(child)
    return "".join(map(_inner, child))


# The table of results: systems by measures, for a terminal, Markdown and the page.


BASELINE = "base"

DESCRIPTIONS: Mapping[str, str] = {
    "bm25": "words only",
    "base": "the frozen encoder, no prompt",
    "base+bm25": "the two above, fused",
    "multitask": "one prompt for all sources",
    "transfer-uniform": "source prompts, equal weights",
    "transfer-similarity": "weights from domain similarity",
    "transfer-fitted": "weights fitted on pseudo-queries",
    "best-single": "the one source chosen as best",
    "transfer-adapted": "multitask, adapted to the target's text",
    "supervised-query": "target's labels, query side",
    "supervised-both": "target's labels, both sides",
}
"""What a system is, in a few words, for the names that Foreword's own commands use."""


@dataclass(frozen=True, slots=True)
class SystemRow:
    """One system on one collection, gathered from its rows (one for each measure)."""

    collection: str
    system: str
    values: Mapping[str, float | None]
    """Measure -> value."""
    difference: float | None
    """From the baseline, on the first measure."""
    p_value: float | None
    trained_parameters: int | None
    bytes: int | None
    seconds: float | None


def unique(rows: Iterable[Mapping[str, Any]], key: str) -> list[str]:
    """The values of `key` in the order in which they first appear."""
    return list(dict.fromkeys(str(row[key]) for row in rows if row.get(key) is not None))


def gather(rows: Sequence[Mapping[str, Any]], measures: Sequence[str], baseline: str = BASELINE) -> list[SystemRow]:
    """One `SystemRow` for each collection and system, in order of appearance.

    A difference that the rows do not carry is computed from the baseline's value; a p-value is not.
    """
    cells = {(row["collection"], row["system"], row["measure"]): row for row in rows}
    gathered = []
    for collection in unique(rows, "collection"):
        for system in unique((row for row in rows if row["collection"] == collection), "system"):
            own = [cells.get((collection, system, measure), {}) for measure in measures]
            values = {measure: row.get("value") for measure, row in zip(measures, own, strict=True)}
            base = cells.get((collection, baseline, measures[0]), {}).get("value") if measures else None
            first = own[0] if own else {}
            difference = first.get("difference")
            if difference is None and base is not None and first.get("value") is not None:
                difference = first["value"] - base
            if system == baseline:
                difference = None
            every = [row for key, row in cells.items() if key[:2] == (collection, system)]
            gathered.append(
                SystemRow(
                    collection,
                    system,
                    values,
                    difference,
                    first.get("p_value") if system != baseline else None,
                    *(_first(every, key) for key in ("trained_parameters", "bytes", "seconds")),
                )
            )
    return gathered


def best(rows: Iterable[SystemRow], measure: str) -> str:
    """The greatest value of a measure as it is printed, so that values printed alike are marked alike."""
    present = [number for row in rows if (number := row.values.get(measure)) is not None]
    return value(max(present, default=None))


def format_table(
    rows: Sequence[Mapping[str, Any]],
    measures: Sequence[str] | None = None,
    *,
    baseline: str = BASELINE,
    title: str | None = None,
) -> Table:
    """The rows as a table for a terminal: systems by measures, the best of each collection in bold.

    Args:
        rows: records with `system, collection, measure, value` and, optionally, `difference, p_value,
            trained_parameters, bytes, seconds`.
        measures: the columns, in order; all that appear when None. The difference is on the first.
        baseline: the system that differences are from.
        title: a line over the table.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    columns, lines = _lines(rows, measures, baseline)
    several = "collection" in columns
    table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD, padding=(0, 0, 0, 1))
    for name in columns[1:] if several else columns:
        short = "Δ" if name.startswith("Δ") else "params" if name == "parameters" else name
        table.add_column(short, justify="left" if name == "system" else "right", no_wrap=True)
    previous = None
    for collection, cells in lines:
        if several and collection != previous:  # a line of its own: as a column it would not leave room in 80
            if previous is not None:
                table.add_section()
            table.add_row(_rich(collection, True))
        previous = collection
        *shown, (duration, _) = cells[1:] if several else cells
        table.add_row(*(_rich(text, bold) for text, bold in shown), duration.replace(" min ", "m").replace(" s", "s"))
    return table


def markdown_table(
    rows: Sequence[Mapping[str, Any]], measures: Sequence[str] | None = None, *, baseline: str = BASELINE
) -> str:
    """The same table in Markdown, the best values in bold; arguments as for `format_table`."""
    columns, lines = _lines(rows, measures, baseline)
    words = [place for place, name in enumerate(columns) if name in ("collection", "system")]
    return markdown_rows(columns, [[Entry(*cell) for cell in cells] for _, cells in lines], words) + "\n"


def _lines(
    rows: Sequence[Mapping[str, Any]], measures: Sequence[str] | None, baseline: str
) -> tuple[list[str], list[tuple[str, list[tuple[str, bool]]]]]:
    """The column names, and for each line its collection and its (text, bold) cells."""
    chosen = list(measures) if measures is not None else unique(rows, "measure")
    gathered = gather(rows, chosen, baseline)
    several = len({row.collection for row in gathered}) > 1
    main = chosen[0] if chosen else ""
    columns = [*(["collection"] if several else []), "system", *chosen]
    columns += [f"Δ {main}", "p", "parameters", "size", "time"]
    lines = []
    for row in gathered:
        peers = [peer for peer in gathered if peer.collection == row.collection]
        cells = [(row.collection, False)] if several else []
        cells.append((row.system, False))
        for measure in chosen:
            text = value(row.values[measure])
            cells.append((text, text != NOTHING and text == best(peers, measure)))
        cells += [
            (difference(row.difference), False),
            (p_value(row.p_value), False),
            (count(row.trained_parameters), False),
            (byte_size(row.bytes), False),
            (duration(row.seconds), False),
        ]
        lines.append((row.collection, cells))
    return columns, lines


def _rich(text: str, bold: bool) -> Any:
    """A cell for rich; its text is never read as rich's own mark-up."""
    from rich.text import Text

    return Text(text, style="bold" if bold else "")


def _first(rows: Iterable[Mapping[str, Any]], key: str) -> Any:
    """The first value of `key` that is there."""
    return next((row[key] for row in rows if row.get(key) is not None), None)


# What the sections share: tables and boxes that scroll.


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
    about = DESCRIPTIONS.get(system)
    return element("th", system, element("small", about) if about else None, scope="row")


def value_cell(number: float | None, top: str, gain: float | None = None) -> Markup:
    """A measure's value, bold when it is the best as printed, with its difference from the baseline."""
    text = value(number)
    best = text == top and text != NOTHING
    small = element("small", difference(gain)) if gain is not None else None
    return element("td", element("b", text) if best else text, small, class_="n")
