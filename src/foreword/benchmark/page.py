"""The benchmark's page, with nothing beside it, and the same results as JSON."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from foreword.benchmark.summary import Verdict
from foreword.benchmark.tables import Entry, Table, hypothesis_table
from foreword.common.files import atomic_write, write_json
from foreword.report.drawing import Plot
from foreword.report.markup import Child, Markup, element
from foreword.report.page import document
from foreword.report.parts import data_table, row

FORMAT = "foreword-benchmark/1"
PAGE, RESULTS = "report.html", "results.json"


def write_page(
    folder: Path | str,
    title: str,
    intro: str,
    tables: Sequence[Table],
    hypotheses: Sequence[Verdict],
    plots: Sequence[Plot],
) -> Path:
    """Write `report.html`, which needs no other file, and `results.json`; equal results give equal bytes.

    Args:
        folder: of the benchmark; made when missing.
        title: of the page.
        intro: text over the results, paragraphs parted by blank lines.
        tables: in order.
        hypotheses: with their verdicts; they come first on the page.
        plots: whose SVGs go into the page.

    Returns:
        The page's path.
    """
    folder = Path(folder)
    results = {
        "format": FORMAT,
        "title": title,
        "intro": intro,
        "hypotheses": [verdict.as_dict() for verdict in hypotheses],
        "tables": [table.as_dict() for table in tables],
        "plots": [plot.as_dict() for plot in plots],
    }
    page = render(title, intro, tables, hypotheses, plots)
    write_json(folder / RESULTS, results)
    with atomic_write(folder / PAGE) as file:
        file.write(page)
    return folder / PAGE


def render(
    title: str, intro: str, tables: Sequence[Table], hypotheses: Sequence[Verdict], plots: Sequence[Plot]
) -> str:
    """The page as text; arguments as for `write_page`."""
    shown = [hypothesis_table(hypotheses)] if hypotheses else []
    sections = [(f"table-{number}", t.title, _table(t)) for number, t in enumerate([*shown, *tables], start=1)]
    sections += [(plot.name, plot.title, _figure(plot)) for plot in plots]
    paragraphs = [element("p", text) for text in intro.split("\n\n") if text.strip()]
    return document(title, element("header", element("h1", title), paragraphs), sections)


def _table(table: Table) -> Markup:
    """A table in a box that scrolls, its notes below."""
    body = []
    for line in table.lines:
        cells = [
            element("td", _text(entry), class_=None if place in table.words else "n")
            for place, entry in enumerate(line[1:], start=1)
        ]
        body.append(row(element("th", _text(line[0]), scope="row"), cells))
    notes = [element("p", note, class_="note") for note in table.notes]
    return element("div", data_table(table.columns, body, words=table.words), notes)


def _text(entry: Entry) -> Child:
    return element("b", entry.text) if entry.best else entry.text


def _figure(plot: Plot) -> Markup:
    """A plot as an image inside the page: on its own, its names and styles cannot meddle with the page's."""
    encoded = base64.b64encode(plot.svg.read_bytes()).decode("ascii")
    image = element(
        "img",
        src=f"data:image/svg+xml;base64,{encoded}",
        alt=f"{plot.title}. {plot.caption}",
        style="display:block;max-width:100%;height:auto;background:#fff",
    )
    return element("figure", element("figcaption", plot.caption), image)
