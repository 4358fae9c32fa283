"""What the rows of a group's table are made of: collections, k folds of one, or the mean of several."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from foreword.collections.folds import Fold, split_fold
from foreword.collections.groups import group_names, members
from foreword.common.errors import ForewordError


@cache
def _headlines() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "headlines.json").read_text("utf-8"))
    return loaded


HEADLINE_SPLITS: Mapping[str, str] = _headlines()["splits"]
"""The split that a collection is reported on, where that is not `test`: MS MARCO's test judgements are few."""


def headline_measure(group: str) -> str:
    """The measure that a group is compared by."""
    return str(_headlines()["measures"].get(group, "nDCG@10"))


@dataclass(frozen=True)
class Leaf:
    """One collection to be scored: loaded by its id, or put together from its k folds."""

    id: str
    ids: tuple[str, ...]
    """What is loaded: the id itself, or the folds' ids in order."""
    split: str
    folds: int = 0
    """k; 0: not in folds."""
    seed: int = 0
    """Of the folds."""
    missing: tuple[str, ...] = ()
    """The ids of folds that were not given."""

    @property
    def folder(self) -> str:
        """The name of its folder in the results: the id, with `/` written `-`, and how it is cut into folds."""
        cut = f"#{self.folds}folds{f'@{self.seed}' if self.seed else ''}" if self.folds else ""
        return f"{self.id}{cut}".replace("/", "-")


@dataclass(frozen=True)
class Member:
    """One row of the group: a leaf, or the unweighted mean of several (CQADupStack of its 12 forums)."""

    id: str
    leaves: tuple[Leaf, ...]
    is_mean: bool = False


def plan(ids: Sequence[str], splits: Mapping[str, str] | None = None) -> list[Member]:
    """The rows that a list of collection ids gives, in order; the folds of one collection become one row.

    Args:
        ids: a fold is `<id>#fold<i>of<k>`, i from 1, optionally `@<seed>`.
        splits: id -> the split to score on, over `HEADLINE_SPLITS`; what is in neither is scored on `test`.

    Raises:
        ForewordError: there are none, or a collection is given whole and in folds, or in folds of two kinds.
        UnknownNameError: a fold that cannot be.
        ForewordError: folds are to be scored on another split than `test`.
    """
    chosen = {**HEADLINE_SPLITS, **(splits or {})}
    given: dict[str, dict[Fold | None, None]] = {}
    for name in ids:
        base, fold = split_fold(name)
        given.setdefault(base, {})[fold] = None
        asked = {(splits or {}).get(key, "test") for key in (name, base)}
        if fold is not None and asked != {"test"}:
            other = min(asked - {"test"})
            raise ForewordError(f"{name} is to be scored on {other!r}; a fold offers its test queries alone for that")
    if not given:
        raise ForewordError("the group holds no collection to evaluate")
    return [_member(base, tuple(folds), chosen) for base, folds in given.items()]


def union_of(name: str) -> str | None:
    """The collection whose score is a mean over this one among others, e.g. beir/cqadupstack of a forum; or None."""
    means = _headlines()["means"].items()
    return next((str(whole) for whole, parts in means if parts in group_names() and name in members(parts)), None)


def _member(base: str, given: Sequence[Fold | None], splits: Mapping[str, str]) -> Member:
    split = splits.get(base, "test")
    folds = [fold for fold in given if fold is not None]
    if not folds:
        parts = _headlines()["means"].get(base)
        if parts in group_names():
            leaves = tuple(Leaf(name, (name,), splits.get(name, split)) for name in members(parts))
            return Member(base, leaves, is_mean=True)
        return Member(base, (Leaf(base, (base,), split),))
    first = folds[0]
    if len(folds) < len(given) or len({(fold.folds, fold.seed) for fold in folds}) > 1:
        raise ForewordError(f"{base} is given in two ways; give it whole, or in the folds of one division")
    names = {i: base + replace(first, fold=i).suffix for i in range(1, first.folds + 1)}
    there = {fold.fold for fold in folds}
    here, missing = (tuple(name for i, name in names.items() if (i in there) is wanted) for wanted in (True, False))
    return Member(base, (Leaf(base, here, "test", first.folds, first.seed, missing),))
