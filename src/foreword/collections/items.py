"""What domains of pairs, one query for one document, are made by: no copies, no ambiguous queries, nothing excluded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from foreword.collections.exclusion import Texts
from foreword.collections.records import Document


class Pair(Protocol):
    """A query and the document that answers it."""

    @property
    def query(self) -> str:
        """The query's text."""
        ...

    @property
    def query_key(self) -> str:
        """It, normalised."""
        ...

    def document(self, *, with_name: bool) -> Document:
        """The document."""
        ...


Item = TypeVar("Item", bound=Pair)


def distinct(items: Iterable[Item], text_key: Callable[[Item], str], dropped: Counter[str]) -> list[Item]:
    """One item per text (the first: others are aliases); none whose query stands for several documents."""
    by_text: dict[str, Item] = {}
    for item in items:
        if by_text.setdefault(text_key(item), item) is not item:
            dropped["repeated_text"] += 1
    times = Counter(item.query_key for item in by_text.values())
    kept = [item for item in by_text.values() if times[item.query_key] == 1]
    dropped["ambiguous_query"] += len(by_text) - len(kept)
    return kept


def without(items: Iterable[Item], excluded: Texts, dropped: Counter[str]) -> Iterator[Item]:
    """The items whose query and document both are not among the excluded texts."""
    for item in items:
        if excluded.has_query(item.query) or excluded.has_document(item.document(with_name=False)):
            dropped["excluded"] += 1
        else:
            yield item
