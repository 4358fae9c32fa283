"""The section on the words that prompts lie near."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foreword.report import numbers
from foreword.report.markup import Child, Markup, element
from foreword.report.parts import Results, data_table, row

_PARTS = {"both": "queries and documents", "query": "queries", "document": "documents"}


def words(results: Results) -> Markup | None:
    """A line of telling words for each prompt, and all of its vectors to unfold."""
    found = [item for item in results.get("words") or [] if any(item.get("rows") or [])]
    if not found:
        return None
    lines = [
        row(
            element("th", item.get("domain", ""), scope="row"),
            [element("td", _part(item)), element("td", _telling(item.get("summary") or []))],
        )
        for item in found
    ]
    caption = "The words that each prompt's vectors lie nearest to, most telling first"
    note = (
        "A word weighs the sum of its cosines with the vectors that have it among their nearest; × says how many "
        f"those are. {_left_out(found)}Nearness is a hint at what a prompt has learnt, not its meaning."
    )
    return element(
        "div",
        data_table(["Domain", "Encodes", "Words"], lines, caption=caption, words=range(3)),
        element("p", note, class_="note"),
        [_vectors(item) for item in found],
    )


def _part(item: Mapping[str, Any]) -> str:
    """What a part of a prompt encodes, in words."""
    part = str(item.get("part", ""))
    return _PARTS.get(part, part)


def _left_out(found: Sequence[Mapping[str, Any]]) -> str:
    """A sentence on the vocabulary, where the records tell its size and all agree."""
    sizes = {(item.get("candidates"), item.get("excluded")) for item in found}
    candidates, excluded = next(iter(sizes))
    if len(sizes) > 1 or candidates is None or excluded is None:
        return ""
    return (
        f"Of the vocabulary {numbers.count(candidates)} entries were compared; {numbers.count(excluded)} special "
        "tokens, placeholders and the like were left out. "
    )


def _telling(summary: Sequence[Mapping[str, Any]]) -> list[Child]:
    """Words in a line, each with the number of its vectors where they are several."""
    parts: list[Child] = []
    for place, item in enumerate(summary):
        near = int(item.get("vectors", 1))
        parts += [", " if place else None, _word(item), f" ×{near}" if near > 1 else None]
    return parts or [numbers.NOTHING]


def _word(item: Mapping[str, Any]) -> Markup:
    """A word set apart, so that its direction of writing leaves the line around it alone."""
    return element("bdi", item.get("word", ""))


def _vectors(item: Mapping[str, Any]) -> Markup:
    """The nearest words of every vector, with their cosines, folded."""
    rows = item["rows"]
    most = max(map(len, rows))
    lines = []
    for number, near in enumerate(rows, start=1):
        cells = [element("td", _word(w), element("small", numbers.value(w.get("similarity")))) for w in near]
        cells += [element("td", numbers.NOTHING)] * (most - len(near))
        lines.append(row(element("th", number, scope="row"), cells))
    columns = ["Vector", "nearest", *(f"{place}." for place in range(2, most + 1))]
    heading = element("summary", "All vectors of ", element("b", item.get("domain", "")), f", {_part(item)}")
    return element("details", heading, data_table(columns, lines, words=range(len(columns))))
