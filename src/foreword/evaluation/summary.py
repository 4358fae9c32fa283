"""Means over collections, which always say over how many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def mean(values: Sequence[float]) -> float:
    """The unweighted mean."""
    return sum(values) / len(values)


def row_of_means(collection: str, rows: Sequence[Row], measures: Sequence[str]) -> dict[str, Any]:
    """One row for several collections of one system: the unweighted means, the sums of what is counted.

    Where the rows agree on anything else it stands in this one too; else None.
    """
    values = {name: mean([row["measures"][name] for row in rows]) for name in measures}
    summed = {name: sum(row[name] for row in rows) for name in ("queries", "documents", "unanswered", "seconds")}
    same = {key: rows[0][key] if all(row.get(key) == rows[0][key] for row in rows) else None for key in rows[0]}
    has_met = [row["seen_by_backbone"] for row in rows]
    return {
        **same,
        **summed,
        "collection": collection,
        "measures": values,
        "seen_by_backbone": True if True in has_met else None if None in has_met else False,
        "supervision": same["supervision"] if len({row["supervision"] for row in rows}) == 1 else "mixed",
        "notes": list(dict.fromkeys(note for row in rows for note in row["notes"])),
        "mean_over": [row["collection"] for row in rows],
    }


def means_of(
    rows: Mapping[tuple[str, str], Row], collections: Sequence[str], systems: Sequence[str], measures: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The mean row of each system, and those over the collections that all have where one lacks some.

    Args:
        rows: by collection and system.
        collections: all that there should be.
        systems: the columns.
        measures: to be averaged.

    Returns:
        Two lists with `{system, values, over, of, missing}` for each system; the second may be empty.
    """
    have = {system: [name for name in collections if (name, system) in rows] for system in systems}
    common = [name for name in collections if all((name, system) in rows for system in systems)]

    def over(system: str, names: Sequence[str]) -> dict[str, Any]:
        values = {m: mean([rows[name, system]["measures"][m] for name in names]) for m in measures} if names else {}
        missing = [name for name in collections if name not in names]
        return {"system": system, "values": values, "over": list(names), "of": len(collections), "missing": missing}

    uneven = any(len(names) != len(common) for names in have.values())
    return (
        [over(system, have[system]) for system in systems],
        [over(system, common) for system in systems] if uneven and common else [],
    )
