"""Documents into an index: what is new or changed is embedded and written, block by block; the rest is passed over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np

from foreword.collections.records import Document
from foreword.indexing.errors import IndexingError
from foreword.indexing.schema import DENSE, VARCHAR_BYTES, row_of
from foreword.indexing.store import Store

BLOCK = 1024
"""Documents that are embedded, then written: what a cut loses."""

Embed = Callable[[Sequence[str]], "np.ndarray[Any, Any]"]
"""Vectors (N, d') of N texts."""


@dataclass(frozen=True)
class Written:
    """What became of the documents.

    Attributes:
        added: that were not there.
        changed: that were there with another title, text or metadata.
        unchanged: that were there as they are, and were not embedded again.
        removed: that were there and were not given, where those were to go.
        shortened: of those added and changed, how many have more text than Milvus holds; the beginning is stored.
    """

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    shortened: int = 0

    def as_dict(self) -> dict[str, int]:
        """JSON values."""
        return asdict(self)

    def with_block(self, added: int, changed: int, unchanged: int, shortened: int) -> Written:
        """The counts with another block's."""
        return Written(
            self.added + added,
            self.changed + changed,
            self.unchanged + unchanged,
            self.removed,
            self.shortened + shortened,
        )


def write_documents(
    store: Store,
    domain: str,
    documents: Iterable[Document],
    embed: Embed,
    dimension: int,
    *,
    new: bool,
) -> tuple[Written, set[str]]:
    """Write documents whose content is not there yet.

    Args:
        store: of the index.
        domain: whose they are.
        documents: gone through once.
        embed: embeds contents.
        dimension: d', that the vectors must have.
        new: the domain is empty, so that nothing is looked up.

    Returns:
        What became of them, and the keys of all that were given.

    Raises:
        IndexingError: two documents have one id, or the vectors are not finite ones of the index's dimension.
    """
    done = Written()
    seen: set[str] = set()
    for block in _blocks(documents, BLOCK):
        rows = [row_of(domain, document) for document in block]
        for row in rows:
            if row["pk"] in seen:
                raise IndexingError(f"two documents of {domain!r} have the doc_id {row['doc_id']!r}; ids must differ")
            seen.add(row["pk"])
        known = {} if new else store.hashes([row["pk"] for row in rows])
        chosen = [number for number, row in enumerate(rows) if known.get(row["pk"]) != row["hash"]]
        if chosen:
            texts = [block[number].content for number in chosen]
            vectors = _checked(embed(texts), len(texts), dimension)
            store.upsert([rows[number] | {DENSE: vector} for number, vector in zip(chosen, vectors, strict=True)])
        changed = sum(rows[number]["pk"] in known for number in chosen)
        long = sum(len(block[number].content.encode("utf-8", "replace")) > VARCHAR_BYTES for number in chosen)
        done = done.with_block(len(chosen) - changed, changed, len(rows) - len(chosen), long)
    return done, seen


def _blocks(items: Iterable[Document], size: int) -> Iterator[list[Document]]:
    rest = iter(items)
    while block := list(islice(rest, size)):
        yield block


def _checked(vectors: Any, count: int, dimension: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Vectors as float32 (count, dimension). Raises `IndexingError` for others, and for any that is not finite."""
    found = np.ascontiguousarray(vectors, dtype=np.float32)
    if found.shape != (count, dimension):
        raise IndexingError(f"{count} texts have vectors of shape {found.shape}; expected ({count}, {dimension})")
    if not np.isfinite(found).all():
        raise IndexingError("a vector holds NaN or infinity; embed the documents in float32")
    return found
