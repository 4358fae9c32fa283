"""A collection whose train and dev splits are pseudo-queries: trained without a single label."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

from foreword.collections.key_phrases import Frequencies
from foreword.collections.memory import require_split
from foreword.collections.pseudo import frequencies_for, pseudo_pairs
from foreword.collections.records import Collection, Document, Qrels, Query, TrainingPair
from foreword.collections.resplit import held_out, position
from foreword.collections.splits import normalise
from foreword.collections.view import View
from foreword.common.errors import DataError, ForewordError

METHOD = "pseudo-queries"
MOST = 100_000
"""Pseudo-queries by default; memory grows with them, not with the corpus."""


class PseudoQueries(View):
    """`source` with pseudo-queries as train and dev, each with the rest of its document; its test split as it is.

    A pseudo-query that is, word for word, a query of the source's dev or test split is left out, so that no query
    to be reported is trained on by chance; nothing else of the source's queries and judgements is looked at.

    Args:
        source: only its documents make the pairs.
        method: of `foreword.collections.pseudo`.
        seed: of the spans, of the choice of documents and of the division into train and dev.
        dev_share: of the pseudo-queries, held out as dev, copies together.
        most: pseudo-queries at most; of a larger corpus, those of a sample of its documents.

    Raises:
        DataError: at the first use of the queries: the documents give too few.
    """

    def __init__(
        self, source: Collection, *, method: str = "auto", seed: int = 0, dev_share: float = 0.1, most: int = MOST
    ) -> None:
        if most < 2:
            raise ForewordError(f"at least 2 pseudo-queries are needed, got most={most}")
        self.source = source
        self._splits = ("train", "dev", *(["test"] if "test" in source.splits else []))
        self.method, self.seed, self.dev_share, self.most = method, seed, dev_share, most
        self._reported = tuple(split for split in source.splits if split != "train")
        self._found: dict[str, str] | None = None
        self._skipped: Counter[str] = Counter()

    @property
    def splits(self) -> tuple[str, ...]:
        """Train and dev, and the source's test split."""
        return self._splits

    @property
    def facts(self) -> Mapping[str, object]:
        """The source's, and `supervision`: the method, the counts, and that all its splits may be reported."""
        counts = Counter(self._split_of().values())
        supervision = {
            "method": METHOD,
            "train_queries": counts["train"],
            "dev_queries": counts["dev"],
            "seed": self.seed,
            "made_by": self.method,
            "skipped": dict(sorted(self._skipped.items())),
            "reported": list(self._reported),
        }
        return {**self.source.facts, "supervision": supervision}

    def documents(self) -> Iterable[Document]:
        """The source's, whole, as test queries search them; for dev see `documents_for`."""
        return self.source.documents()

    def documents_for(self, split: str) -> Iterable[Document]:
        """For train and dev, the documents without the texts that became queries; for test, `documents()`."""
        require_split(self.id, split, self.splits)
        return self.documents() if split == "test" else self._rests()

    def queries(self, split: str = "test") -> Iterable[Query]:
        """The pseudo-queries of train and dev; the source's test queries."""
        require_split(self.id, split, self.splits)
        if split == "test":
            return self.source.queries(split)
        return (Query(pair.query_id, pair.query) for pair in self.pairs(split))

    def qrels(self, split: str = "test") -> Qrels:
        """Each pseudo-query's one document; the source's test judgements."""
        require_split(self.id, split, self.splits)
        if split == "test":
            return self.source.qrels(split)
        return {pair.query_id: {pair.doc_id: 1} for pair in self.pairs(split)}

    def pairs(self, split: str = "train", *, hard_negatives: int | None = None) -> Iterator[TrainingPair]:
        """The pairs of train or dev; there are no hard negatives. Raises `DataError` for test."""
        require_split(self.id, split, self.splits)
        if split == "test":
            raise DataError(f"{self.id} is supervised by {METHOD}; its test split gives no training pairs")
        chosen = self._split_of()
        return (pair for pair in self._made() if chosen.get(pair.doc_id) == split)

    @cached_property
    def _frequencies(self) -> Frequencies | None:
        """Of the source's words, where the method needs them; one pass over the corpus."""
        return frequencies_for(self.method, self.source.documents())

    def _made(self, skipped: Counter[str] | None = None) -> Iterator[TrainingPair]:
        return self._pairs_of(self.source.documents(), skipped)

    def _pairs_of(self, documents: Iterable[Document], skipped: Counter[str] | None = None) -> Iterator[TrainingPair]:
        return pseudo_pairs(documents, self.method, self.seed, frequencies=self._frequencies, skipped=skipped)

    def _rests(self) -> Iterator[Document]:
        chosen = self._split_of()
        for document in self.source.documents():
            if document.doc_id in chosen:
                (pair,) = self._pairs_of([document])
                yield Document(document.doc_id, pair.document, "", document.metadata)
            else:
                yield document

    def _split_of(self) -> dict[str, str]:
        """`doc_id -> train or dev` of the documents that give a pseudo-query; one pass over the corpus."""
        if self._found is None:
            judged = {normalise(q.text) for split in self._reported for q in self.source.queries(split)}
            skipped: Counter[str] = Counter()
            kept = heapq.nsmallest(self.most, self._candidates(judged, skipped))
            positions = {doc_id: place for _, doc_id, place in kept}
            dev = held_out(positions, self.dev_share, f"{self.id}, pseudo-queries")
            self._skipped = skipped
            self._found = {doc_id: "dev" if doc_id in dev else "train" for doc_id in positions}
        return self._found

    def _candidates(self, judged: set[str], skipped: Counter[str]) -> Iterator[tuple[float, str, float]]:
        """Each pair's place in the sample, its doc_id, and its place in the division into train and dev."""
        for pair in self._made(skipped):
            if normalise(pair.query) in judged:
                skipped["is_a_judged_query"] += 1
            else:
                yield position(pair.doc_id, "sample", self.seed), pair.doc_id, position(pair.query, "dev", self.seed)
