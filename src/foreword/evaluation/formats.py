"""A group's table as text, Markdown, LaTeX, CSV and JSON, from what `GroupResult.as_dict` gives or `group.json` holds.

Lines are collections and means, columns are systems; published numbers follow in columns of their own, marked with
a letter that names their source below. The best of our own systems in a line is marked, never a published one.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from foreword.common.errors import UnknownNameError
from foreword.evaluation.published import sources
from foreword.evaluation.table import NOTHING, Cell, build

Result = Mapping[str, Any]

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{mark: f"\\{mark}" for mark in "_%&#${}"},
    NOTHING: "--",
}


def text_table(result: Result, measure: str | None = None, *, published: bool = True) -> str:
    """For a terminal: columns of equal width, `*` behind the best."""
    table = build(result, measure, published=published)
    lines = [[column.title + (f"[{column.mark}]" if column.mark else "") for column in table.columns]]
    lines += [[cell.text + ("*" if cell.best else "") for cell in line] for line in table.lines]
    widths = [max(len(line[place]) for line in lines) for place in range(len(table.columns))]
    left = [column.kind == "words" for column in table.columns]

    def laid_out(line: Sequence[str]) -> str:
        cells = zip(line, widths, left, strict=True)
        return "  ".join(text.ljust(width) if at_left else text.rjust(width) for text, width, at_left in cells).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    body = [laid_out(line) for line in lines]
    ruled = [body[0], rule, *body[1 : 1 + table.collections], rule, *body[1 + table.collections :]]
    return "\n".join([table.title, "", *ruled, "", *table.notes]).rstrip() + "\n"


def markdown_table(result: Result, measure: str | None = None, *, published: bool = True) -> str:
    """In Markdown, the best in bold."""
    table = build(result, measure, published=published)

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    def escaped(text: str) -> str:
        return text.replace("|", "\\|")

    titles = [escaped(c.title) + (f" <sup>{c.mark}</sup>" if c.mark else "") for c in table.columns]
    rule = [":--" if column.kind == "words" else "--:" for column in table.columns]
    body = [[f"**{cell.text}**" if cell.best else escaped(cell.text) for cell in row] for row in table.lines]
    notes = [f"- {escaped(note)}" for note in table.notes]
    return "\n".join([f"{table.title}.", "", line(titles), line(rule), *map(line, body), "", *notes]).rstrip() + "\n"


def latex_table(result: Result, measure: str | None = None, *, published: bool = True) -> str:
    """In LaTeX, for the package booktabs: a `table` with a caption, the best in bold and notes below."""
    table = build(result, measure, published=published)

    def shown(cell: Cell) -> str:
        return f"\\textbf{{{escape_latex(cell.text)}}}" if cell.best else escape_latex(cell.text)

    def line(cells: Sequence[str]) -> str:
        return f"{' & '.join(cells)} \\\\"

    titles = [escape_latex(c.title) + (f"\\textsuperscript{{{c.mark}}}" if c.mark else "") for c in table.columns]
    body = [line([shown(cell) for cell in row]) for row in table.lines]
    align = "".join("l" if column.kind == "words" else "r" for column in table.columns)
    head = [
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{escape_latex(table.title)}}}",
        f"\\begin{{tabular}}{{{align}}}",
    ]
    middle = ["\\toprule", line(titles), "\\midrule", *body[: table.collections], "\\midrule"]
    tail = [*body[table.collections :], "\\bottomrule", "\\end{tabular}"]
    notes = [f"\\par\\footnotesize {escape_latex(note)}" for note in table.notes]
    return "\n".join([*head, *middle, *tail, *notes, "\\end{table}"]) + "\n"


def escape_latex(text: str) -> str:
    """The text with LaTeX's special characters escaped."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


COLUMNS = (
    "kind",
    "group",
    "collection",
    "split",
    "system",
    "measure",
    "value",
    "queries",
    "documents",
    "supervision",
    "seen_by_backbone",
    "backbone",
    "prompts",
    "folds",
    "subsample",
    "seconds",
    "over",
    "of",
    "source",
    "error",
)
"""Of the CSV."""


def csv_table(result: Result, measure: str | None = None, *, published: bool = True) -> str:
    """One line for each collection (or mean), system and measure; `kind` is `result`, `part`, `mean`, `common`,
    `published` or `failure`. All measures when none is given, and published values of these.
    """
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_records(result, measure, published))
    return file.getvalue()


def _records(result: Result, measure: str | None, published: bool) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []

    def add(kind: str, values: Mapping[str, float], **fields: Any) -> None:
        for name, value in values.items():
            if measure in (None, name):
                records.append({**fields, "kind": kind, "group": result["group"], "measure": name, "value": value})

    for kind, rows in (("result", result["rows"]), ("part", result["parts"])):
        for row in rows:
            known = {key: "" if value is None else value for key, value in row.items() if key in COLUMNS}
            subsample = json.dumps(row["subsample"], sort_keys=True) if row["subsample"] else ""
            add(kind, row["measures"], **{**known, "prompts": " ".join(row["prompts"] or ()), "subsample": subsample})
    for kind in ("means", "common"):
        for one in result[kind]:
            counts = {"over": len(one["over"]), "of": one["of"]}
            add("mean" if kind == "means" else kind, one["values"], system=one["system"], **counts)
    names = dict.fromkeys(name for row in result["rows"] for name in row["measures"]) if measure is None else [measure]
    for name in names:
        table = build(result, name, published=published)
        for column, collection, value, over in table.published:
            url = sources()[column.source]["url"] if column.source else ""
            add("published", {name: value}, system=column.title, collection=collection, over=over, source=url)
    for failure in result["failures"]:
        records.append({"kind": "failure", "group": result["group"], **failure})
    return records


def json_table(result: Result, measure: str | None = None, *, published: bool = True) -> str:
    """The result itself, with the published values of one measure (None: the headline) and their sources."""
    table = build(result, measure, published=published)
    values = [
        {
            "system": column.title,
            "collection": collection or None,
            "value": value,
            "over": over,
            "source": column.source,
        }
        for column, collection, value, over in table.published
    ]
    used = {name: about for name, about in sources().items() if any(value["source"] == name for value in values)}
    added = {"published": {"measure": table.measure, "values": values, "sources": used}} if published else {}
    return json.dumps({**result, **added}, indent=2, ensure_ascii=False) + "\n"


FORMATS: Mapping[str, Callable[..., str]] = {
    "text": text_table,
    "markdown": markdown_table,
    "latex": latex_table,
    "csv": csv_table,
    "json": json_table,
}


def format_group(result: Result, style: str = "text", measure: str | None = None, *, published: bool = True) -> str:
    """The table in a format.

    Args:
        result: from `GroupResult.as_dict`, or `group.json`.
        style: one of `FORMATS`.
        measure: the one that the table shows; None: the group's headline (in CSV: all).
        published: also what others have published on these collections, measure and splits.

    Raises:
        UnknownNameError: no such format, or the result has no such measure.
    """
    if style not in FORMATS:
        raise UnknownNameError(f"no format {style!r}; there are: {', '.join(FORMATS)}")
    return FORMATS[style](result, measure, published=published)
