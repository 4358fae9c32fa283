"""Numbers that others have published, to be put beside our own; they are in `data/published.json`.

They come from other systems under other conditions (text limits, ties, corpora as they were then), so a table
keeps them in columns of their own, with their source.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

TEST = "test"


@dataclass(frozen=True)
class Published:
    """One published system on one measure: values by collection, or a mean over a set of them alone."""

    name: str
    measure: str
    source: str
    """The key of its source in `sources()`."""
    values: Mapping[str, float]
    """By collection; empty where only a mean was published."""
    splits: Mapping[str, str]
    """Of the collections whose values are not on `test`."""
    mean: float | None = None
    members: tuple[str, ...] = ()
    """The collections that `mean` is over, where they are listed."""
    group: str | None = None
    """The group that `mean` is over, where it is a whole one."""
    size: int | None = None
    """Collections in that group."""

    def value(self, collection: str, split: str) -> float | None:
        """What was published for a collection; None for another split or for none."""
        return self.values.get(collection) if self.splits.get(collection, TEST) == split else None

    def mean_over(self, splits: Mapping[str, str], group: str | None = None) -> float | None:
        """The mean over just these collections (id -> split); None where it was not published for each of them."""
        if self.mean is not None:
            on_test = all(split == TEST for split in splits.values())
            whole = self.group == group and self.size == len(splits) if self.group else set(self.members) == set(splits)
            return self.mean if whole and on_test else None
        found = [self.value(collection, split) for collection, split in splits.items()]
        present = [value for value in found if value is not None]
        return sum(present) / len(present) if present and len(present) == len(found) else None


@cache
def _facts() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "published.json").read_text("utf-8"))
    return loaded


def sources() -> dict[str, dict[str, str]]:
    """The publications by key: `citation`, `url`, and `note`, what to know when comparing."""
    return {key: dict(about) for key, about in _facts()["sources"].items()}


def published(measure: str) -> list[Published]:
    """The systems that have published numbers of a measure, in a fixed order."""
    return [
        Published(
            entry["name"],
            entry["measure"],
            entry["source"],
            entry.get("values", {}),
            entry.get("splits", {}),
            entry.get("mean"),
            tuple(_facts()["sets"].get(entry.get("set"), ())),
            entry.get("group"),
            entry.get("collections"),
        )
        for entry in _facts()["systems"]
        if entry["measure"] == measure
    ]


def to_compare(measure: str, splits: Mapping[str, str], group: str | None = None) -> list[Published]:
    """Those of a measure that say something about these collections (id -> split)."""

    def says_something(system: Published) -> bool:
        if any(system.value(collection, split) is not None for collection, split in splits.items()):
            return True
        return any(system.mean_over(part, group) is not None for part in _parts(system, splits))

    return [system for system in published(measure) if says_something(system)]


def _parts(system: Published, splits: Mapping[str, str]) -> list[Mapping[str, str]]:
    mine = subset(system.members, splits)
    return [splits, *([mine] if mine else [])]


def subset(members: Collection[str], splits: Mapping[str, str]) -> dict[str, str] | None:
    """The entries of `splits` for `members`; None when one of these is not there, or there are none."""
    if not members or not set(members) <= set(splits):
        return None
    return {collection: split for collection, split in splits.items() if collection in members}
