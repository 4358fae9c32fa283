"""A collection seen differently: what views share. Everything not overridden is the source's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from foreword.collections.records import Collection, Document, Qrels, Query, TrainingPair


def documents_for(collection: Collection, split: str) -> Iterable[Document]:
    """The corpus that a split's judgements are about: the collection's, unless it says otherwise.

    It does for Natural Questions' train split, which has a corpus of its own, and for pseudo-queries, whose text
    is taken out of the documents.
    """
    own = getattr(collection, "documents_for", None)
    found: Iterable[Document] = collection.documents() if own is None else own(split)
    return found


def own_corpora(collection: Collection) -> tuple[str, ...]:
    """The splits whose judgements may be about another corpus than `documents()`."""
    return collection.splits if hasattr(collection, "documents_for") else ()


class View:
    """A `Collection` that passes everything on to `source`."""

    source: Collection

    @property
    def id(self) -> str:
        """The source's."""
        return self.source.id

    @property
    def group(self) -> str:
        """The source's."""
        return self.source.group

    @property
    def splits(self) -> tuple[str, ...]:
        """The source's."""
        return self.source.splits

    @property
    def exclude_self(self) -> bool:
        """As in the source."""
        return self.source.exclude_self

    @property
    def facts(self) -> Mapping[str, object]:
        """The source's."""
        return self.source.facts

    def documents(self) -> Iterable[Document]:
        """The source's."""
        return self.source.documents()

    def documents_for(self, split: str) -> Iterable[Document]:
        """The corpus that a split's judgements are about."""
        return documents_for(self.source, split)

    def queries(self, split: str = "test") -> Iterable[Query]:
        """The source's queries of a split."""
        return self.source.queries(split)

    def qrels(self, split: str = "test") -> Qrels:
        """The source's judgements of a split."""
        return self.source.qrels(split)

    def pairs(self, split: str = "train", *, hard_negatives: int | None = None) -> Iterable[TrainingPair]:
        """The source's pairs of a split."""
        return self.source.pairs(split, hard_negatives=hard_negatives)
