"""Other splits over the same documents: what folds and supervised views share.

Which part a query falls in is a function of its normalised text and a seed alone, so copies of one query stay
together, and leaving out some queries moves none of the others.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from foreword.collections.memory import require_split
from foreword.collections.records import SPLITS, Collection, Document, Qrels, Query, TrainingPair
from foreword.collections.splits import normalise
from foreword.collections.view import View, documents_for
from foreword.common.errors import DataError, ForewordError

_RANGE = 1 << 64


def position(text: str, salt: str, seed: int) -> float:
    """A text's place in [0, 1): the SHA-256 of purpose, seed and normalised text. Copies have the same place."""
    digest = hashlib.sha256(f"{salt}\0{seed}\0{normalise(text)}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / _RANGE


def held_out(positions: Mapping[str, float], share: float, what: str) -> frozenset[str]:
    """The ids whose place is below `share`: at least one text's, and never all of them.

    Args:
        positions: `query_id -> place`, from `position`.
        share: of the texts to hold out, above 0 and below 1.
        what: the queries, as the error names them.

    Raises:
        DataError: fewer than two different texts.
        ForewordError: a share out of range.
    """
    if not 0 < share < 1:
        raise ForewordError(f"the share of queries held out as dev lies between 0 and 1, got {share}")
    low, high = min(positions.values(), default=0.0), max(positions.values(), default=0.0)
    if low == high:
        got = "one query" if positions else "no queries"
        raise DataError(f"{what}: {got}, too few to divide into train and dev; at least two different ones are needed")
    return frozenset(name for name, place in positions.items() if place != high and (place < share or place == low))


@dataclass(frozen=True, slots=True)
class Part:
    """Where a split comes from: queries of one split of the source."""

    split: str
    query_ids: frozenset[str] | None = None
    """None: all of them."""


class Resplit(View, ABC):
    """A collection with the documents of `source`, and splits made of parts of its splits.

    Streams like `source`; query ids are all that is held, from the first use of a query, a judgement or `facts`.
    """

    def __init__(self, source: Collection, splits: Iterable[str]) -> None:
        self.source = source
        offered = set(splits)
        self._splits = tuple(split for split in SPLITS if split in offered)
        self._found: Mapping[str, Part] | None = None

    @abstractmethod
    def make_parts(self) -> Mapping[str, Part]:
        """The part of each split; called once."""

    @abstractmethod
    def supervision(self) -> Mapping[str, object]:
        """What `facts` says under `supervision`: the method, the counts, the seed."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that it offers, in the order train, dev, test."""
        return self._splits

    @property
    def facts(self) -> Mapping[str, object]:
        """The source's, and `supervision`."""
        own = self.supervision()
        return {**self.source.facts, "supervision": own}

    def documents_for(self, split: str) -> Iterable[Document]:
        """The corpus that a split's judgements are about."""
        return documents_for(self.source, self._part(split).split)

    def queries(self, split: str = "test") -> Iterator[Query]:
        """The queries of a split. Raises `UnknownNameError` for a split that is not there."""
        part = self._part(split)
        return (q for q in self.source.queries(part.split) if part.query_ids is None or q.query_id in part.query_ids)

    def qrels(self, split: str = "test") -> Qrels:
        """The judgements of a split's queries."""
        part = self._part(split)
        qrels = self.source.qrels(part.split)
        return qrels if part.query_ids is None else {q: judged for q, judged in qrels.items() if q in part.query_ids}

    def pairs(self, split: str = "train", *, hard_negatives: int | None = None) -> Iterator[TrainingPair]:
        """The source's pairs of a split's queries."""
        part = self._part(split)
        pairs = self.source.pairs(part.split, hard_negatives=hard_negatives)
        return (pair for pair in pairs if part.query_ids is None or pair.query_id in part.query_ids)

    def _part(self, split: str) -> Part:
        require_split(self.id, split, self.splits)
        return self.parts[split]

    @property
    def parts(self) -> Mapping[str, Part]:
        """The part of each split."""
        if self._found is None:
            self._found = self.make_parts()
        return self._found

    def count(self, split: str) -> int:
        """How many queries a split has that is given by its ids; else they are counted in the source."""
        part = self.parts[split]
        return len(part.query_ids) if part.query_ids is not None else sum(1 for _ in self.source.queries(part.split))
