"""A group's table as text, Markdown, LaTeX, CSV and JSON.

Lines are collections and means, columns are systems; published numbers follow in columns of their own, marked with a
letter that names their source below. The best of our own systems in a line is marked, never a published one.
"""

from __future__ import annotations

import csv
import io
import json
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from foreword.errors import UnknownNameError
from foreword.evaluation.hybrid import HybridWeight
from foreword.evaluation.published import Published, mean, sources, subset, to_compare
from foreword.tables import NOTHING, Table, TableCell

Result = Mapping[str, Any]
"""What `GroupResult.as_dict` gives, or `group.json` holds."""


def build(result: Result, measure: str | None = None, *, published: bool = True) -> tuple[Table, list[dict[str, Any]]]:
    """The table of a measure (None: the headline), and what is printed in it of others' publications.

    Lines are collections, then means; what others have published stands in columns of its own on the right. Of each
    published value there are the `system`, `collection` (None: a mean), `value`, how many collections it is `over`, and
    the key of its `source`. `UnknownNameError`: the result has no such measure.
    """
    measure = measure or str(result["headline"])
    known = list(dict.fromkeys(name for row in result["rows"] for name in row["measures"]))
    if known and measure not in known:
        raise UnknownNameError(f"the result has no measure {measure!r}; it has {', '.join(known)}")
    rows = {(row["collection"], row["system"]): row for row in result["rows"]}
    splits = dict(result["splits"])
    others = to_compare(measure, splits, result["group"]) if published else []
    marks = dict(zip(dict.fromkeys(other.source for other in others), string.ascii_lowercase, strict=False))
    systems = list(result["systems"])
    found: list[dict[str, Any]] = []

    def published_cells(collection: str | None, values: Sequence[float | None], over: int) -> list[TableCell]:
        for other, value in zip(others, values, strict=True):
            if value is not None:
                about = {"system": other.name, "collection": collection, "value": value}
                found.append({**about, "over": over, "source": other.source})
        return [TableCell(number(value)) for value in values]

    lines = []
    for collection in result["collections"]:
        split = splits[collection]
        own = [rows.get((collection, system)) for system in systems]
        values = [None if row is None else row["measures"][measure] for row in own]
        beside = [other.value(collection, split) for other in others]
        named = collection if split == "test" else f"{collection} ({split})"
        there = [row for row in own if row is not None]
        methods = dict.fromkeys(row["supervision"] or "unknown" for row in there if row["prompts"] != [])
        has_met = [row["seen_by_backbone"] for row in there if row["backbone"] is not None]
        met = {True: "yes", False: "no", None: "?"}[has_met[0]] if has_met else NOTHING
        about = (TableCell(named), TableCell(", ".join(methods) or NOTHING), TableCell(met))
        lines.append((*about, *ranked_cells(values), *published_cells(collection, beside, 1)))
    means = {one["system"]: one for one in result["means"]}
    for place, (title, part) in enumerate(_means(result, splits, others, marks)):
        if place == 0:  # the group's own mean, of which each system has what it has
            values = [means[system]["values"].get(measure) for system in systems]
            over = [f" ({len(means[s]['over'])} of {means[s]['of']})" if means[s]["missing"] else "" for s in systems]
        else:
            values = [mean([rows[n, s]["measures"][measure] for n in part]) for s in systems]
            over = [""] * len(systems)
        beside = [other.mean_over(part, result["group"]) for other in others]
        cells = (*ranked_cells(values, over), *published_cells(None, beside, len(part)))
        lines.append((TableCell(title), TableCell(""), TableCell(""), *cells))
    table = Table(
        f"{result['group']}: {measure}",
        ("collection", "labels", "seen", *systems, *(other.name for other in others)),
        frozenset({0, 1, 2}),
        tuple(lines),
        tuple(_notes(result, marks)),
        marks={place: marks[other.source] for place, other in enumerate(others, start=3 + len(systems))},
        ruled=len(result["collections"]),
    )
    return table, found


def number(value: float | None) -> str:
    """A measure with three digits; a dash for none."""
    return NOTHING if value is None else f"{value:.3f}"


def ranked_cells(values: Sequence[float | None], suffixes: Sequence[str] | None = None) -> list[TableCell]:
    """The values of one line, the greatest as it is printed marked; a lone one, or one with a suffix, is not.

    A suffix says that a mean is over fewer collections than its neighbours, so it cannot be the best of them.
    """
    suffixes = suffixes or [""] * len(values)
    whole = [value for value, suffix in zip(values, suffixes, strict=True) if value is not None and not suffix]
    top = number(max(whole)) if len(whole) > 1 else None
    return [
        TableCell(number(value) + suffix, not suffix and value is not None and number(value) == top)
        for value, suffix in zip(values, suffixes, strict=True)
    ]


def _means(
    result: Mapping[str, Any], splits: Mapping[str, str], others: Sequence[Published], marks: Mapping[str, str]
) -> list[tuple[str, Mapping[str, str]]]:
    """The lines of means and what they are over: the group's, what all systems have, what others published too."""
    common = {name: splits[name] for name in splits if all(name in one["over"] for one in result["means"])}
    lines = [(f"mean of {len(splits)}", splits)]
    if result["common"]:
        lines.append((f"mean of the {len(common)} that all systems have", common))
    for other in others:
        if other.values:
            part: dict[str, str] | None = {n: s for n, s in common.items() if other.value(n, s) is not None}
        else:
            part = subset(other.members, common)
        if part and all(set(part) != set(over) for _, over in lines):
            lines.append((f"mean of the {len(part)} also in [{marks[other.source]}]", part))
    return lines


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
        about_row += dict.fromkeys(str(HybridWeight(**weight)) for weight in row.get("hybrid") or ())
        notes += [f"{row['collection']}, {row['system']}: {note}." for note in about_row]
    failed: dict[tuple[str, str], list[str]] = {}
    for failure in result["failures"]:
        failed.setdefault((failure["collection"], failure["error"]), []).append(failure["system"])
    notes += [f"failed: {name}, {', '.join(systems)}: {error}" for (name, error), systems in failed.items()]
    return notes


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
        for one in build(result, name, published=published)[1]:
            about = {"system": one["system"], "collection": one["collection"] or "", "over": one["over"]}
            url = sources()[one["source"]]["url"] if one["source"] else ""
            add("published", {name: one["value"]}, **about, source=url)
    for failure in result["failures"]:
        records.append({"kind": "failure", "group": result["group"], **failure})
    return records


def json_table(result: Result, measure: str | None = None, *, published: bool = True) -> str:
    """The result itself, with the published values of one measure (None: the headline) and their sources."""
    values = build(result, measure, published=published)[1]
    used = {name: about for name, about in sources().items() if any(value["source"] == name for value in values)}
    shown = {"measure": measure or str(result["headline"]), "values": values, "sources": used}
    added = {"published": shown} if published else {}
    return json.dumps({**result, **added}, indent=2, ensure_ascii=False) + "\n"


FORMATS: Mapping[str, Callable[..., str]] = {
    "text": lambda *of, **how: build(*of, **how)[0].text(),
    "markdown": lambda *of, **how: build(*of, **how)[0].markdown(),
    "latex": lambda *of, **how: build(*of, **how)[0].latex(),
    "csv": csv_table,
    "json": json_table,
}


def format_group(result: Result, style: str = "text", measure: str | None = None, *, published: bool = True) -> str:
    """The table in a format.

    `result` is that of `GroupResult.as_dict`, or `group.json`; the measure is the group's headline when None (in CSV:
    all). `published`: also what others have published on these collections, measure and splits.

    `UnknownNameError`: no such format, or the result has no such measure.
    """
    if style not in FORMATS:
        raise UnknownNameError(f"no format {style!r}; there are: {', '.join(FORMATS)}")
    return FORMATS[style](result, measure, published=published)
