"""A collection of which only the documents are seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from foreword.collections.records import Collection, Document, Qrels, Query, TrainingPair
from foreword.common.errors import DataError


class Unlabelled:
    """A collection without its queries and judgements, so that nothing can learn from, or be chosen by, labels."""

    splits: tuple[str, ...] = ()
    exclude_self = False

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    @property
    def id(self) -> str:
        """The collection's."""
        return self._collection.id

    @property
    def group(self) -> str:
        """The collection's."""
        return self._collection.group

    @property
    def facts(self) -> Mapping[str, object]:
        """The collection's."""
        return self._collection.facts

    def documents(self) -> Iterable[Document]:
        """The corpus."""
        return self._collection.documents()

    def queries(self, split: str = "test") -> Iterable[Query]:
        """None. Raises `DataError`."""
        raise self._refusal()

    def qrels(self, split: str = "test") -> Qrels:
        """None. Raises `DataError`."""
        raise self._refusal()

    def pairs(self, split: str = "train", *, hard_negatives: int | None = None) -> Iterable[TrainingPair]:
        """None. Raises `DataError`."""
        raise self._refusal()

    def _refusal(self) -> DataError:
        return DataError(f"{self.id} is used without its queries and judgements here")
