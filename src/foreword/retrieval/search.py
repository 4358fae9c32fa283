"""Retrieve a collection's documents with an encoder, or with BM25."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from foreword.collections.records import Collection, Document, Query
from foreword.prompts.encoder import Precision, encode
from foreword.prompts.routes import OWN, Default, Route
from foreword.retrieval.bm25 import BM25
from foreword.retrieval.dense import exact_search
from foreword.retrieval.runs import Run

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Vectors = tuple[Sequence[str], np.ndarray[Any, Any]]

BLOCK_DOCUMENTS = 20_000
"""Documents embedded before they are searched and let go: their vectors (30 MB at width 384) bound the memory."""


def dense_run(
    encoder: SentenceTransformer,
    collection: Collection,
    queries: Sequence[Query],
    *,
    route: Route | Default = OWN,
    documents: Iterable[Document] | None = None,
    vectors: Vectors | None = None,
    k: int = 100,
    query_length: int | None = None,
    document_length: int | None = None,
    precision: Precision = "float32",
    batch_size: int = 64,
    quiet: bool = False,
) -> Run:
    """The k nearest documents of each query, by exact search in memory bounded by blocks of documents.

    Args:
        encoder: from `foreword.load_encoder`.
        collection: its documents are searched.
        queries: what to search for.
        route: the prompt or mixture that encodes queries and documents (where it has a side for them); None: base;
            OWN: what the encoder is routed to.
        documents: what is searched in place of the collection's own; None: these.
        vectors: ids and vectors (N, d') of the documents, when they are embedded already.
        k: hits a query.
        query_length: tokens a query is cut to; None: the encoder's limit.
        document_length: tokens a document is cut to; None: the encoder's limit.
        precision: of the forward passes.
        batch_size: texts in one forward pass.
        quiet: no progress bars.
    """
    kind: dict[str, Any] = {"precision": precision, "batch_size": batch_size, "quiet": quiet}
    query_vectors = encode(
        encoder,
        [q.text for q in queries],
        "query",
        route=route,
        max_length=query_length,
        what="queries",
        **kind,
    )
    blocks = (
        [vectors]
        if vectors is not None
        else document_blocks(encoder, collection, documents, route=route, max_length=document_length, **kind)
    )
    query_ids = [query.query_id for query in queries]
    device = str(encoder.device)
    return exact_search(query_vectors, query_ids, blocks, k, exclude_self=collection.exclude_self, device=device)


def document_blocks(
    encoder: SentenceTransformer,
    collection: Collection,
    documents: Iterable[Document] | None = None,
    *,
    size: int = BLOCK_DOCUMENTS,
    **how: Any,
) -> Iterator[Vectors]:
    """The collection's documents, or those given, embedded `size` at a time; `how` goes to `encode`."""
    rest = iter(collection.documents() if documents is None else documents)
    while block := list(islice(rest, size)):
        texts = [doc.content for doc in block]
        yield (
            [doc.doc_id for doc in block],
            encode(encoder, texts, "document", what=f"documents of {collection.id}", **how),
        )


def bm25_run(collection: Collection, queries: Sequence[Query], *, k: int = 100) -> Run:
    """The k best documents of each query by BM25."""
    return BM25(collection.documents()).search(queries, k, exclude_self=collection.exclude_self)


@dataclass(frozen=True)
class Hit:
    """One document that was found; `score` is the inner product (or BM25's score), higher is better."""

    doc_id: str
    score: float
    document: Document


def search(
    encoder: SentenceTransformer | None,
    collection: Collection,
    queries: Sequence[str | Query],
    *,
    k: int = 10,
    **how: Any,
) -> list[list[Hit]]:
    """The k best documents for each of the user's queries, best first.

    Args:
        encoder: with the prompt it is routed to; None: BM25.
        collection: what to search.
        queries: texts, or queries with names of their own.
        k: hits a query.
        how: further arguments of `dense_run`.
    """
    asked = [q if isinstance(q, Query) else Query(f"q{number}", q) for number, q in enumerate(queries)]
    run = bm25_run(collection, asked, k=k) if encoder is None else dense_run(encoder, collection, asked, k=k, **how)
    wanted = {doc_id for hits in run.values() for doc_id in hits}
    found = {doc.doc_id: doc for doc in collection.documents() if doc.doc_id in wanted}
    return [
        [Hit(doc_id, score, found[doc_id]) for doc_id, score in run.get(query.query_id, {}).items()] for query in asked
    ]
