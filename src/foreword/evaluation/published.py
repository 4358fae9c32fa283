"""What is known of collections beside our own scores, in `data/*.json`: published numbers, and who has seen them.

Published numbers come from other systems under other conditions (text limits, ties, corpora as they were then), so a
table keeps them in columns of their own, with their source. Means over collections always say over how many.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from foreword.files import read_json

TEST = "test"

HEADLINES: Mapping[str, Any] = read_json(Path(__file__).parent / "data" / "headlines.json")
"""What groups are compared by: `measures`, `splits` of collections, and `means` over parts."""

HEADLINE_SPLITS: Mapping[str, str] = HEADLINES["splits"]
"""The split that a collection is reported on, where that is not `test`: MS MARCO's test judgements are few."""


@dataclass(frozen=True)
class Published:
    """One published system on one measure: values by collection, or a mean over a set of them alone."""

    name: str
    measure: str
    source: str
    """The key of its source in `sources()`."""
    values: Mapping[str, float] = field(default_factory=dict)
    """By collection; empty where only a mean was published."""
    splits: Mapping[str, str] = field(default_factory=dict)
    """Of the collections whose values are not on `test`."""
    mean: float | None = None
    members: tuple[str, ...] = ()
    """The collections that `mean` is over, where they are listed."""
    group: str | None = None
    """The group that `mean` is over, where it is a whole one."""
    collections: int | None = None
    """Collections in that group."""

    def value(self, collection: str, split: str) -> float | None:
        """What was published for a collection; None for another split or for none."""
        return self.values.get(collection) if self.splits.get(collection, TEST) == split else None

    def mean_over(self, splits: Mapping[str, str], group: str | None = None) -> float | None:
        """The mean over just these collections (id -> split); None where it was not published for each of them."""
        if self.mean is not None:
            on_test = all(split == TEST for split in splits.values())
            whole = (
                self.group == group and self.collections == len(splits)
                if self.group
                else set(self.members) == set(splits)
            )
            return self.mean if whole and on_test else None
        found = [self.value(collection, split) for collection, split in splits.items()]
        present = [value for value in found if value is not None]
        return sum(present) / len(present) if present and len(present) == len(found) else None


@cache
def _facts() -> dict[str, Any]:
    loaded: dict[str, Any] = read_json(Path(__file__).parent / "data" / "published.json")
    return loaded


def sources() -> dict[str, dict[str, str]]:
    """The publications by key: `citation`, `url`, and `note`, what to know when comparing."""
    return {key: dict(about) for key, about in _facts()["sources"].items()}


def published(measure: str) -> list[Published]:
    """The systems that have published numbers of a measure, in a fixed order."""
    found = []
    for entry in _facts()["systems"]:
        if entry["measure"] == measure:
            about = {name: value for name, value in entry.items() if name != "set"}
            found.append(Published(**about, members=tuple(_facts()["sets"].get(entry.get("set"), ()))))
    return found


def to_compare(measure: str, splits: Mapping[str, str], group: str | None = None) -> list[Published]:
    """Those of a measure that say something about these collections (id -> split)."""

    def says_something(system: Published) -> bool:
        parts = (splits, subset(system.members, splits) or splits)
        values = [system.value(collection, split) for collection, split in splits.items()]
        return any(value is not None for value in (*values, *(system.mean_over(part, group) for part in parts)))

    return [system for system in published(measure) if says_something(system)]


def subset(members: Collection[str], splits: Mapping[str, str]) -> dict[str, str] | None:
    """The entries of `splits` for `members`; None when one of these is not there, or there are none."""
    if not members or not set(members) <= set(splits):
        return None
    return {collection: split for collection, split in splits.items() if collection in members}


@cache
def facts() -> dict[str, Any]:
    """The contents of `data/seen.json`: `meaning`, and `backbones` with `names`, `source`, `seen` and `unseen`."""
    loaded: dict[str, Any] = read_json(Path(__file__).parent / "data" / "seen.json")
    return loaded


def seen(backbone: str, collection_id: str) -> bool | None:
    """Whether the backbone was trained on pairs of the collection, or of the source that it was taken from.

    What counts is said in `facts()["meaning"]`. The first backbone of the list that the name fits is used.

    `backbone` is a hub name, or the last part of one (`all-MiniLM-L6-v2`); a folder is not known. A fold
    (`...#fold1of5`) counts as its collection. None when it is not known.
    """
    base, bare = collection_id.partition("#")[0], "/" not in backbone
    for about in facts()["backbones"]:
        if _fits(backbone, [name.rpartition("/")[2] if bare else name for name in about["names"]]):
            return True if _fits(base, about["seen"]) else False if _fits(base, about["unseen"]) else None
    return None


def table() -> list[dict[str, str]]:
    """A row for each backbone and collection that it has seen: `backbone, collection, through, source`."""
    return [
        {"backbone": name, "collection": collection, "through": through, "source": about["source"]}
        for about in facts()["backbones"]
        for name in about["names"]
        for collection, through in about["seen"].items()
    ]


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


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

    The collections are all that there should be. Both lists have `{system, values, over, of, missing}` for each
    system; the second may be empty.
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
