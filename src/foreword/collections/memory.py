"""A collection whose documents fit in memory, as most do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from foreword.collections.records import Document, Qrels, Query, TrainingPair, pairs_from_qrels
from foreword.common.errors import UnknownNameError


def require_split(collection_id: str, split: str, splits: Sequence[str]) -> None:
    """Raise `UnknownNameError`, naming the splits there are, when `split` is not one of them."""
    if split not in splits:
        have = ", ".join(splits) or "no judgements at all"
        raise UnknownNameError(f"{collection_id} has no split {split!r}; it has {have}")


@dataclass(frozen=True)
class MemoryCollection:
    """A `Collection` held in memory once; `judgements` maps a split to its qrels, queries to their texts.

    Args:
        id: as given to `foreword.load`.
        group: the family.
        corpus: the documents, in order.
        query_texts: the judged queries of every split, in order.
        judgements: `split -> query_id -> doc_id -> relevance`.
        facts: what a result should record besides.
        exclude_self: leave out hits whose doc_id is the query_id.
    """

    id: str
    group: str
    corpus: tuple[Document, ...]
    query_texts: Mapping[str, tuple[Query, ...]]
    judgements: Mapping[str, Qrels]
    facts: Mapping[str, object] = field(default_factory=dict)
    exclude_self: bool = False

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have judgements, in the order train, dev, test."""
        return tuple(self.judgements)

    def documents(self) -> Iterable[Document]:
        """The corpus."""
        return self.corpus

    def queries(self, split: str = "test") -> Iterable[Query]:
        """The judged queries of a split. Raises `UnknownNameError` for a split that is not there."""
        require_split(self.id, split, self.splits)
        return self.query_texts[split]

    def qrels(self, split: str = "test") -> Qrels:
        """The judgements of a split, as the caller's own copy."""
        require_split(self.id, split, self.splits)
        return {query_id: dict(judged) for query_id, judged in self.judgements[split].items()}

    def pairs(self, split: str = "train", *, hard_negatives: int | None = None) -> Iterator[TrainingPair]:
        """Every query of a split with each of its relevant documents; there are no hard negatives."""
        require_split(self.id, split, self.splits)
        return pairs_from_qrels(self, split)
