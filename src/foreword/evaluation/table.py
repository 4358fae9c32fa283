"""The lines and columns of a group's table, before they are written in any format."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from foreword.common.errors import UnknownNameError
from foreword.evaluation.published import Published, sources, subset, to_compare
from foreword.evaluation.summary import mean

NOTHING = "–"


@dataclass(frozen=True)
class Column:
    """One column: a system of ours, a published one, or words."""

    title: str
    kind: Literal["words", "ours", "published"]
    mark: str = ""
    """The letter of its source below the table."""
    source: str = ""


@dataclass(frozen=True)
class Cell:
    """One cell as it is printed."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class GroupTable:
    """A table of one measure.

    Attributes:
        title: what it shows.
        measure: its name.
        columns: left to right.
        lines: as many cells as columns each.
        collections: how many of the lines are collections; means follow.
        notes: to stand below.
        published: the values in the published columns: column, collection (empty: a mean), value, how many
            collections it is over.
    """

    title: str
    measure: str
    columns: tuple[Column, ...]
    lines: tuple[tuple[Cell, ...], ...]
    collections: int
    notes: tuple[str, ...]
    published: tuple[tuple[Column, str, float, int], ...]


@dataclass(frozen=True)
class _Mean:
    """A line of means: over which collections, and what it is called."""

    title: str
    splits: Mapping[str, str]
    own: bool = False
    """The group's own mean, of which each system has what it has."""


def build(result: Mapping[str, Any], measure: str | None = None, *, published: bool = True) -> GroupTable:
    """The table of a measure (None: the headline) from a group's result.

    Raises:
        UnknownNameError: the result has no such measure.
    """
    measure = measure or str(result["headline"])
    known = list(dict.fromkeys(name for row in result["rows"] for name in row["measures"]))
    if known and measure not in known:
        raise UnknownNameError(f"the result has no measure {measure!r}; it has {', '.join(known)}")
    rows = {(row["collection"], row["system"]): row for row in result["rows"]}
    splits = dict(result["splits"])
    others = to_compare(measure, splits, result["group"]) if published else []
    marks = dict(zip(dict.fromkeys(other.source for other in others), string.ascii_lowercase, strict=False))
    theirs = [Column(other.name, "published", marks[other.source], other.source) for other in others]
    systems = list(result["systems"])
    words = [Column("collection", "words"), Column("labels", "words"), Column("seen", "words")]
    found: list[tuple[Column, str, float, int]] = []

    def published_cells(collection: str, values: Sequence[float | None], over: int) -> list[Cell]:
        found.extend((c, collection, v, over) for c, v in zip(theirs, values, strict=True) if v is not None)
        return [Cell(number(value)) for value in values]

    lines = []
    for collection in result["collections"]:
        own = [rows.get((collection, system)) for system in systems]
        values = [None if row is None else row["measures"][measure] for row in own]
        beside = [other.value(collection, splits[collection]) for other in others]
        labels = [Cell(_named(collection, splits[collection])), Cell(_labels(own)), Cell(_seen(own))]
        lines.append((*labels, *ranked_cells(values), *published_cells(collection, beside, 1)))
    for line in _means(result, splits, others, marks):
        values, texts = _mean_values(result, rows, systems, measure, line)
        beside = [other.mean_over(line.splits, result["group"]) for other in others]
        labels = [Cell(line.title), Cell(""), Cell("")]
        lines.append((*labels, *ranked_cells(values, texts), *published_cells("", beside, len(line.splits))))
    return GroupTable(
        f"{result['group']}: {measure}",
        measure,
        (*words, *(Column(name, "ours") for name in systems), *theirs),
        tuple(lines),
        len(result["collections"]),
        tuple(_notes(result, marks)),
        tuple(found),
    )


def number(value: float | None) -> str:
    """A measure with three digits; a dash for none."""
    return NOTHING if value is None else f"{value:.3f}"


def ranked_cells(values: Sequence[float | None], suffixes: Sequence[str] | None = None) -> list[Cell]:
    """The values of one line, the greatest as it is printed marked; a lone one, or one with a suffix, is not.

    A suffix says that a mean is over fewer collections than its neighbours, so it cannot be the best of them.
    """
    suffixes = suffixes or [""] * len(values)
    whole = [value for value, suffix in zip(values, suffixes, strict=True) if value is not None and not suffix]
    top = number(max(whole)) if len(whole) > 1 else None
    return [
        Cell(number(value) + suffix, not suffix and value is not None and number(value) == top)
        for value, suffix in zip(values, suffixes, strict=True)
    ]


def _named(collection: str, split: str) -> str:
    return collection if split == "test" else f"{collection} ({split})"


def _labels(own: Sequence[Mapping[str, Any] | None]) -> str:
    """By which labels the prompts of a line were trained."""
    methods = [row["supervision"] or "unknown" for row in own if row is not None and row["prompts"] != []]
    return ", ".join(dict.fromkeys(methods)) or NOTHING


def _seen(own: Sequence[Mapping[str, Any] | None]) -> str:
    known = [row["seen_by_backbone"] for row in own if row is not None and row["backbone"] is not None]
    return {True: "yes", False: "no", None: "?"}[known[0]] if known else NOTHING


def _means(
    result: Mapping[str, Any], splits: Mapping[str, str], others: Sequence[Published], marks: Mapping[str, str]
) -> list[_Mean]:
    """The group's mean, that over what all systems have, and those over what others have published too."""
    common = {name: splits[name] for name in splits if all(name in one["over"] for one in result["means"])}
    lines = [_Mean(f"mean of {len(splits)}", splits, own=True)]
    if result["common"]:
        lines.append(_Mean(f"mean of the {len(common)} that all systems have", common))
    for other in others:
        if other.values:
            part: dict[str, str] | None = {n: s for n, s in common.items() if other.value(n, s) is not None}
        else:
            part = subset(other.members, common)
        if part and all(set(part) != set(line.splits) for line in lines):
            lines.append(_Mean(f"mean of the {len(part)} also in [{marks[other.source]}]", part))
    return lines


def _mean_values(
    result: Mapping[str, Any],
    rows: Mapping[tuple[str, str], Mapping[str, Any]],
    systems: Sequence[str],
    measure: str,
    line: _Mean,
) -> tuple[list[float | None], list[str]]:
    """The systems' means in a line, and behind each over how many it is where that is not all."""
    if not line.own:
        values: list[float | None] = [mean([rows[n, s]["measures"][measure] for n in line.splits]) for s in systems]
        return values, [""] * len(systems)
    own = {one["system"]: one for one in result["means"]}
    suffixes = [f" ({len(own[s]['over'])} of {own[s]['of']})" if own[s]["missing"] else "" for s in systems]
    return [own[system]["values"].get(measure) for system in systems], suffixes


def _notes(result: Mapping[str, Any], marks: Mapping[str, str]) -> list[str]:
    notes = [
        "labels: what the prompts of the line were trained by. seen: pairs of the collection or its source were in "
        "the backbone's own training (?: not known)."
    ]
    known = sources()
    for source, mark in marks.items():
        about = known[source]
        notes.append(f"[{mark}] published, not run here: {about['citation']}, {about['url']}. {about['note']}.")
    for one in result["means"]:
        if one["missing"]:
            over = f"{len(one['over'])} of {one['of']}"
            notes.append(f"{one['system']}: the mean is over {over}; missing: {', '.join(one['missing'])}.")
    for row in result["rows"]:
        about_row = [*row["notes"], *(["a subsample of its documents"] if row["subsample"] else [])]
        notes += [f"{row['collection']}, {row['system']}: {note}." for note in about_row]
    failed: dict[tuple[str, str], list[str]] = {}
    for failure in result["failures"]:
        failed.setdefault((failure["collection"], failure["error"]), []).append(failure["system"])
    notes += [f"failed: {name}, {', '.join(systems)}: {error}" for (name, error), systems in failed.items()]
    return notes
