"""Folds of a collection that has test judgements alone: `glasgow/cranfield#fold1of5`.

The queries are divided into k folds; fold i is the test split of `#fold<i>of<k>`, the other folds' queries are its
train and dev. Over all k, every query is tested once, by a prompt that never saw it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from foreword.collections.records import Collection
from foreword.collections.resplit import Part, Resplit, held_out, position
from foreword.common.errors import DataError, UnknownNameError

METHOD = "k-fold"
DEV_SHARE = 0.1
"""Of the queries outside the fold."""

_SUFFIX = re.compile(r"(\d+)of(\d+)(?:@(-?\d+))?")
_MARK = "#fold"


@dataclass(frozen=True, slots=True)
class Fold:
    """One of `folds` folds, counted from 1.

    Raises:
        UnknownNameError: fewer than two folds, or no such fold.
    """

    fold: int
    folds: int
    seed: int = 0
    """Of the division; another seed gives other folds."""

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise UnknownNameError(f"at least 2 folds are needed, got {self.folds}: #fold1of5 is the first of five")
        if not 1 <= self.fold <= self.folds:
            raise UnknownNameError(f"no fold {self.fold} of {self.folds}; they are numbered from 1 to {self.folds}")

    @property
    def suffix(self) -> str:
        """What is put behind a collection's id: `#fold1of5`, with `@<seed>` for a seed other than 0."""
        return f"{_MARK}{self.fold}of{self.folds}" + (f"@{self.seed}" if self.seed else "")

    @classmethod
    def of(cls, text: str) -> Fold:
        """The fold that `1of5` or `1of5@7` names. Raises `UnknownNameError` for anything else."""
        found = _SUFFIX.fullmatch(text)
        if found is None:
            raise UnknownNameError(
                f"a fold is named <i>of<k> or <i>of<k>@<seed>, e.g. 1of5 (id: #fold1of5); got {text!r}"
            )
        return cls(int(found[1]), int(found[2]), int(found[3] or 0))


def split_fold(collection_id: str) -> tuple[str, Fold | None]:
    """An id without its fold, and the fold: `("beir/arguana", Fold(2, 5, 7))` of `beir/arguana#fold2of5@7`.

    Raises:
        UnknownNameError: `#fold` followed by something else, or by a fold that cannot be.
    """
    base, mark, fold = collection_id.rpartition(_MARK)
    if not mark or "/" in fold:  # a folder's path may have such a part
        return collection_id, None
    return base, Fold.of(fold)


class FoldCollection(Resplit):
    """`source` with fold i of its judged test queries as test, and the others as train and dev.

    The folds are a partition: by the SHA-256 of the seed and the normalised text, so that copies of a query are in
    one fold. Splits of the source other than test are not offered.

    Args:
        source: with a test split.
        fold: which fold, of how many, by which seed.
        dev_share: of the queries outside the fold, held out of train to choose by.

    Raises:
        DataError: no test split; or, at the first use of the queries, an empty fold or too few others.
    """

    def __init__(self, source: Collection, fold: Fold, *, dev_share: float = DEV_SHARE) -> None:
        if "test" not in source.splits:
            have = ", ".join(source.splits) or "none"
            raise DataError(f"{source.id} has no test split (it has: {have}); folds are folds of test queries")
        super().__init__(source, ("train", "dev", "test"))
        self.fold, self.dev_share = fold, dev_share

    @property
    def id(self) -> str:
        """The source's, with the fold behind it."""
        return self.source.id + self.fold.suffix

    def make_parts(self) -> Mapping[str, Part]:
        """Every test query's part, by its text."""
        fold = self.fold
        inside: set[str] = set()
        others: dict[str, float] = {}
        for query in self.source.queries("test"):
            if int(position(query.text, "fold", fold.seed) * fold.folds) == fold.fold - 1:
                inside.add(query.query_id)
            else:
                others[query.query_id] = position(query.text, "fold-dev", fold.seed)
        if not inside:
            raise DataError(
                f"{self.id} has no test queries: the {len(others)} of {self.source.id} are too few for {fold.folds} "
                "folds; take fewer folds, or another seed (#fold1of5@7)"
            )
        dev = held_out(others, self.dev_share, f"{self.id}, outside the fold")
        return {
            "train": Part("test", frozenset(others.keys() - dev)),
            "dev": Part("test", dev),
            "test": Part("test", frozenset(inside)),
        }

    def supervision(self) -> Mapping[str, object]:
        """The fold and the counts; only its test split may be reported."""
        return {
            "method": METHOD,
            "folds": self.fold.folds,
            "fold": self.fold.fold,
            "seed": self.fold.seed,
            **{f"{split}_queries": self.count(split) for split in self.splits},
            "reported": ["test"],
        }
