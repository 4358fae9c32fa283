"""Score systems on one collection, whole or put together from its folds."""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from foreword.collections.records import Collection, Qrels, Query
from foreword.common.errors import DataError, ForewordError
from foreword.evaluation.candidates import Candidate
from foreword.evaluation.evaluate import judged_queries
from foreword.evaluation.measures import evaluate_run
from foreword.evaluation.members import Leaf
from foreword.evaluation.together import Corpus, Done, Job, search_together
from foreword.retrieval.bm25 import BM25
from foreword.retrieval.runs import Run

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_FIRST_DOCUMENTS = 1000  # that the quick identity of a collection looks at


class Subject:
    """The judged queries of a collection by fold (one, when it is whole), over one corpus."""

    def __init__(self, leaf: Leaf, parts: Iterable[Collection]) -> None:
        """Read the queries and judgements of each part, and keep the first for its documents, which are all alike.

        Raises:
            UnknownNameError: a part has no such split.
            DataError: a part has no judgements, or a query is in two folds.
        """
        self.first: Collection
        self.leaf = leaf
        self.queries: list[list[Query]] = []
        self.qrels: Qrels = {}
        for number, part in enumerate(parts):
            if number == 0:
                self.first = part
            self.queries.append(judged_queries(part, leaf.split))
            qrels = part.qrels(leaf.split)
            if twice := sorted(set(qrels) & set(self.qrels)):
                raise DataError(f"{part.id}: query {twice[0]!r} is in another fold, too; folds must not overlap")
            self.qrels |= qrels
        self._identity: dict[str, Any] | None = None
        self._corpus_sha256: str | None = None

    def every_query(self) -> list[Query]:
        """The queries of all folds."""
        return [query for queries in self.queries for query in queries]

    def identity(self) -> dict[str, Any]:
        """What tells this collection from another without a pass over its documents: 1000 of them are looked at."""
        if self._identity is None:
            digest = hashlib.sha256()
            for fields in self._lines():
                digest.update(("\x1f".join(fields) + "\x1e").encode("utf-8", "surrogatepass"))
            self._identity = {
                "id": self.leaf.id,
                "split": self.leaf.split,
                "folds": [self.leaf.folds, self.leaf.seed],
                "facts": json.loads(json.dumps(self.first.facts, default=str)),
                "exclude_self": self.first.exclude_self,
                "sha256": digest.hexdigest(),
            }
        return self._identity

    def corpus_sha256(self) -> str:
        """The digest of every document, as a row holds it, by one pass, once; empty if they cannot be read."""
        if self._corpus_sha256 is None:
            corpus = Corpus(self.first)
            with suppress(ForewordError, OSError):  # no row holds "", and the scoring meets the error and says so
                deque(corpus.documents(), maxlen=0)
            self._corpus_sha256 = corpus.fingerprint
        return self._corpus_sha256

    def _lines(self) -> Iterator[tuple[str, ...]]:
        for doc in islice(self.first.documents(), _FIRST_DOCUMENTS):
            yield "d", doc.doc_id, doc.title, doc.text
        for fold, queries in enumerate(self.queries):
            yield from (("q", str(fold), query.query_id, query.text) for query in queries)
        for query_id, judged in self.qrels.items():
            yield from (("j", query_id, doc_id, str(relevance)) for doc_id, relevance in judged.items())


@dataclass(frozen=True)
class Scored:
    """A system's run on a collection and the part of its row that follows from it."""

    row: dict[str, Any]
    run: Run


class Scorer:
    """Runs systems on one collection after another under one configuration."""

    def __init__(self, encoder: SentenceTransformer | None, *, measures: Sequence[str], k: int, **how: Any) -> None:
        """Keep the configuration; `how` goes to `search_together`."""
        self.encoder, self.measures, self.k, self.how = encoder, measures, k, how

    def score(
        self, subject: Subject, wanted: Mapping[str, Sequence[Candidate | None]], kinds: Mapping[str, str]
    ) -> Iterator[tuple[str, Scored | Exception]]:
        """Score systems, BM25 first; the others as the passes over the documents end.

        Args:
            subject: the collection.
            wanted: for each system its candidate, or one for each fold (None: the base model).
            kinds: `bm25`, or any other for what the encoder does.

        Yields:
            A system's name with its score, or with the error that it met.
        """
        corpus = Corpus(subject.first)
        for name in wanted:
            if kinds[name] == "bm25":
                yield name, self._bm25(subject, corpus)
        dense = {name: found for name, found in wanted.items() if kinds[name] != "bm25"}
        if dense:
            yield from self._dense(subject, corpus, dense)

    def _bm25(self, subject: Subject, corpus: Corpus) -> Scored | Exception:
        began = time.perf_counter()
        try:
            index = BM25(corpus.documents())
            run = index.search(subject.every_query(), self.k, exclude_self=subject.first.exclude_self)
        except (ForewordError, OSError) as error:
            return error
        return self._scored(subject, corpus, run, time.perf_counter() - began)

    def _dense(
        self, subject: Subject, corpus: Corpus, wanted: Mapping[str, Sequence[Candidate | None]]
    ) -> Iterator[tuple[str, Scored | Exception]]:
        assert self.encoder is not None
        jobs = {
            name: [
                Job(f"{name} {number}", candidate, queries)
                for number, (candidate, queries) in enumerate(
                    zip(found, subject.queries, strict=True) if len(found) > 1 else [(found[0], subject.every_query())]
                )
            ]
            for name, found in wanted.items()
        }
        done: dict[str, Done] = {}
        together = search_together(
            self.encoder,
            corpus,
            [job for own in jobs.values() for job in own],
            k=self.k,
            exclude_self=subject.first.exclude_self,
            **self.how,
        )
        for job_name, one in together:
            done[job_name] = one
            for name in [name for name, own in jobs.items() if all(job.name in done for job in own)]:
                yield name, self._put_together(subject, corpus, [done[job.name] for job in jobs.pop(name)])

    def _put_together(self, subject: Subject, corpus: Corpus, done: Sequence[Done]) -> Scored | Exception:
        if errors := [one.error for one in done if one.error is not None]:
            return errors[0]
        run = {query_id: hits for one in done for query_id, hits in one.run.items()}
        seconds = sum(one.seconds for one in done) + sum(dict(one.shared for one in done).values())
        return self._scored(subject, corpus, run, seconds)

    def _scored(self, subject: Subject, corpus: Corpus, run: Run, seconds: float) -> Scored | Exception:
        try:
            evaluation = evaluate_run(run, subject.qrels, self.measures)
        except ForewordError as error:
            return error
        row = {
            "queries": evaluation.queries,
            "documents": corpus.documents_seen,
            "measures": evaluation.values,
            "unanswered": evaluation.unanswered,
            "seconds": round(seconds, 3),
            "subsample": subject.first.facts.get("subsample"),
            "corpus_sha256": corpus.fingerprint,
        }
        return Scored(json.loads(json.dumps(row, default=str)), run)
