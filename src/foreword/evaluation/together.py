"""Several prompts on one corpus in as few passes over its documents as can be."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foreword.collections.records import Collection, Document, Query
from foreword.common.errors import ForewordError
from foreword.evaluation.candidates import Candidate, carrying, document_key
from foreword.prompts.encoder import Precision, encode
from foreword.retrieval.dense import exact_search
from foreword.retrieval.runs import Run
from foreword.retrieval.search import document_blocks

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_BETWEEN = "\x1f"  # parts a job's name from the query's id, which holds no control characters


@dataclass(frozen=True)
class Job:
    """Queries to be searched for by one prompt (None: the base model)."""

    name: str
    candidate: Candidate | None
    queries: Sequence[Query]


@dataclass
class Done:
    """What came of a job."""

    run: Run
    seconds: float
    """For its queries."""
    shared: tuple[int, float] = (0, 0.0)
    """The number of its pass over the documents, and the seconds of that; other jobs may have the same."""
    error: Exception | None = None
    """Why there is no run."""


class Corpus:
    """A collection's documents, counted and hashed as they pass by."""

    def __init__(self, collection: Collection) -> None:
        self.id, self._collection = collection.id, collection
        self.documents_seen, self.fingerprint = 0, ""

    def documents(self) -> Iterator[Document]:
        """The documents; when they are through, `documents_seen` and `fingerprint` (SHA-256) hold."""
        digest, count = hashlib.sha256(), 0
        for doc in self._collection.documents():
            count += 1
            digest.update(_line(doc))
            yield doc
        self.documents_seen, self.fingerprint = count, digest.hexdigest()


def _line(doc: Document) -> bytes:
    return f"{doc.doc_id}\x1f{doc.title}\x1f{doc.text}\x1e".encode("utf-8", "surrogatepass")


def search_together(
    encoder: SentenceTransformer,
    corpus: Corpus,
    jobs: Sequence[Job],
    *,
    k: int,
    exclude_self: bool,
    query_length: int | None = None,
    document_length: int | None = None,
    precision: Precision = "float32",
    batch_size: int = 64,
    quiet: bool = False,
) -> Iterator[tuple[str, Done]]:
    """The k nearest documents of each job's queries; jobs that agree on the documents' vectors share a pass.

    So the base model and every prompt of the query side alone cost one pass between them. At any time one prompt
    is carried, and one block of documents, the queries' vectors and their best hits are held.

    Args:
        encoder: without prompts; comes back without.
        corpus: what to search.
        jobs: by distinct names. One that fails does not stop the others.
        k: hits a query.
        exclude_self: never return a document whose id is the query's.
        query_length: tokens a query is cut to; None: the encoder's limit.
        document_length: tokens a document is cut to; None: the encoder's limit.
        precision: of the forward passes.
        batch_size: texts in one forward pass.
        quiet: no progress bars.

    Yields:
        Each job's name with what came of it, as soon as its pass is done.
    """
    how: dict[str, Any] = {"precision": precision, "batch_size": batch_size, "quiet": quiet}
    passes: dict[str, list[_Encoded]] = {}
    for job in jobs:
        began = time.perf_counter()
        try:
            with carrying(encoder, job.candidate) as route:
                texts = [query.text for query in job.queries]
                what = f"queries of {corpus.id}"
                vectors = encode(encoder, texts, "query", route=route, max_length=query_length, what=what, **how)
                key = document_key(encoder, route)
        except (ForewordError, OSError) as error:
            yield job.name, Done({}, 0.0, error=error)
            continue
        passes.setdefault(key, []).append(_Encoded(job, vectors, time.perf_counter() - began))
    for number, sharing in enumerate(passes.values()):
        began = time.perf_counter()
        try:
            runs = _pass(encoder, corpus, sharing, k, exclude_self, document_length, how)
        except (ForewordError, OSError) as error:
            yield from ((one.job.name, Done({}, one.seconds, error=error)) for one in sharing)
            continue
        took = time.perf_counter() - began
        for one in sharing:
            yield one.job.name, Done(runs[one.job.name], one.seconds, (number, took))


@dataclass(frozen=True)
class _Encoded:
    job: Job
    vectors: Any
    seconds: float


def _pass(
    encoder: SentenceTransformer,
    corpus: Corpus,
    sharing: Sequence[_Encoded],
    k: int,
    exclude_self: bool,
    document_length: int | None,
    how: dict[str, Any],
) -> dict[str, Run]:
    import numpy as np

    places = [(one.job.name, query.query_id) for one in sharing for query in one.job.queries]
    names = [f"{job}{_BETWEEN}{query_id}" for job, query_id in places]
    exclude = {name: (query_id,) for name, (_, query_id) in zip(names, places, strict=True)} if exclude_self else None
    vectors = np.concatenate([one.vectors for one in sharing])
    with carrying(encoder, sharing[0].job.candidate) as route:
        blocks = document_blocks(encoder, corpus, route=route, max_length=document_length, **how)  # type: ignore[arg-type]
        found = exact_search(vectors, names, blocks, k, exclude=exclude, device=str(encoder.device))
    runs: dict[str, Run] = {one.job.name: {} for one in sharing}
    for name, (job, query_id) in zip(names, places, strict=True):
        runs[job][query_id] = found[name]
    return runs
