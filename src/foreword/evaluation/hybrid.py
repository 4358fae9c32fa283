"""Hybrid search: by vectors and by words at once, with a weight that the collection's own labels or text choose.

How much the words count is what such a search stands and falls with, and it differs from collection to collection. It
is chosen on judged queries of the train or dev split where there are enough, never of test; else on pseudo-queries:
titles or first sentences, and random ones, taken out of their documents, which are to be found again.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from foreword.collections.collection import Collection, Document, Qrels, Query
from foreword.collections.supervision import PSEUDO_METHOD, position, sampled_pairs, supervise
from foreword.errors import DataError
from foreword.evaluation.measures import evaluate_run
from foreword.files import json_digest
from foreword.retrieval.bm25 import BM25
from foreword.retrieval.passages import Coverage
from foreword.retrieval.runs import DEPTH, HYBRID_WEIGHT, RANGE_WEIGHT, Run, hybrid
from foreword.settings import Side

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from foreword.retrieval.search import BestRows

WEIGHTS = (0.0, 0.05, 0.1, 0.2, RANGE_WEIGHT, HYBRID_WEIGHT, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""What is chosen from."""
DEFAULT = 0.2
"""The weight where nothing can be said: half of what is right for most collections, which harms none."""
FEWEST, MOST = 30, 200
"""Queries that a weight is chosen on; of text, two for each of so many documents."""
MEASURE = "nDCG@10"

Both = Callable[[Sequence[Query]], tuple[Run, Run]]
"""The best `DEPTH` documents of a collection for each query, by vectors and by words."""

Judged = tuple[Sequence[Query], Qrels, str]
"""Queries that a weight may be chosen on, what is relevant to them, and their split."""

Embed = Callable[[Sequence[str], Side], "np.ndarray[Any, Any]"]
"""Vectors (N, d') of N texts of one side."""


@dataclass(frozen=True)
class HybridWeight:
    """How much words count in a hybrid search, and what said so.

    Attributes:
        bm25: the share of the score that is BM25's: 0 is dense search alone, 1 BM25 alone.
        chosen_by: what it was chosen on: `dev queries`, `train queries`, `pseudo-queries`; `default`: too little of
            all; `you`: it was given.
        queries: how many.
        dense: their mean nDCG@10 by vectors alone; `hybrid`: with this weight; `words`: by BM25 alone.
    """

    bm25: float = DEFAULT
    chosen_by: str = "default"
    queries: int = 0
    dense: float | None = None
    hybrid: float | None = None
    words: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """In a sentence, for people."""
        alone = {0.0: "is dense search alone: BM25 has no weight", 1.0: "is BM25 alone"}
        said = f"hybrid {alone.get(self.bm25, f'gives BM25 a weight of {self.bm25:g}')}"
        if self.dense is None:
            return f"{said} ({'as you said' if self.chosen_by == 'you' else 'the default'})"
        values = f"nDCG@10 {self.hybrid:.3f}, dense {self.dense:.3f}, bm25 {self.words:.3f}"
        return f"{said}, chosen on {self.queries} {self.chosen_by} ({values})"


def choose_weight(dense: Run, words: Run, qrels: Qrels, chosen_by: str, *, shares: bool = True) -> HybridWeight:
    """The least weight whose queries are answered as well as by the best one, but for chance.

    That is, no worse by more than one standard error of the mean of the paired differences: a margin towards dense
    search, which hybrid search is not to be worse than. Pseudo-queries are made of words that documents have, and
    flatter BM25: by them its weight is never above `HYBRID_WEIGHT` or `RANGE_WEIGHT`.

    Args:
        dense: hits of judged queries by vectors.
        words: by BM25.
        qrels: what is relevant to these queries.
        chosen_by: see `HybridWeight`.
        shares: see `foreword.retrieval.runs.hybrid`.
    """

    def scores(run: Run) -> np.ndarray[Any, Any]:
        return np.array(list(evaluate_run(run, qrels, [MEASURE]).per_query[MEASURE].values()))

    most = 1.0 if chosen_by != PSEUDO_METHOD else HYBRID_WEIGHT if shares else RANGE_WEIGHT
    found = {w: scores(hybrid(dense, words, w, 10, shares=shares)) for w in WEIGHTS if w <= most}
    best = max(found.values(), key=lambda values: float(values.mean()))
    errors = {weight: (best - values).std(ddof=1) / len(best) ** 0.5 for weight, values in found.items()}
    weight = min(w for w, values in found.items() if (best - values).mean() <= errors[w] * (1 + 1e-9))
    means = [round(float(values.mean()), 4) for values in (found[0.0], found[weight], scores(words))]
    return HybridWeight(weight, chosen_by, len(best), *means)


def weigh(
    collection: Collection, embed: Embed, both: Both | None, *, reported: str = "test", shares: bool = True
) -> HybridWeight:
    """The weight of BM25 for a collection, chosen on its labels, else on pseudo-queries.

    Args:
        collection: its documents, and its train or dev labels where it has some.
        embed: for pseudo-queries and a sample of the documents.
        both: searches all documents, for judged queries; None: the text alone decides.
        reported: the split that is to be measured: its labels, like those of test, are not looked at.
        shares: whether words' scores of `both` are; see `foreword.retrieval.runs.hybrid`.
    """
    found = judged_sample(collection, reported) if both is not None else None
    if both is not None and found is not None:
        queries, qrels, split = found
        return choose_weight(*both(queries), qrels, f"{split} queries", shares=shares)
    dense, words, qrels = _of_text(collection, embed)
    return choose_weight(dense, words, qrels, PSEUDO_METHOD, shares=shares) if len(qrels) >= FEWEST else HybridWeight()


def weighed_by(collection: Collection, query_side: str | None) -> str:
    """A digest of what a weight follows from besides the documents: the labels, but those of test, and the query side.

    `query_side`: `foreword.evaluation.candidates.side_fingerprint` of what embeds the queries; None: the base model.
    """
    splits = sorted({"train", "dev"} & set(collection.splits))
    asked = {split: sorted((query.query_id, query.text) for query in collection.queries(split)) for split in splits}
    return json_digest([query_side, asked, {split: collection.qrels(split) for split in splits}])


def judged_sample(collection: Collection, reported: str) -> Judged | None:
    """Queries of dev, or else of train, with their judgements; None: there are too few that may be looked at.

    No query is a copy of one that is reported.
    """
    try:
        view = supervise(collection)
        supervision: Any = view.facts["supervision"]
    except DataError:  # labels that cannot be divided into train and dev
        return None
    if supervision["method"] == PSEUDO_METHOD or reported not in ("test", *supervision["reported"]):
        return None
    for split in sorted({"dev", "train"} - set(view.own_corpora)):
        qrels = view.qrels(split)
        judged = [query for query in view.queries(split) if any(r > 0 for r in qrels.get(query.query_id, {}).values())]
        queries = heapq.nsmallest(MOST, judged, key=lambda query: position(query.query_id, "hybrid", 0))
        if len(queries) >= FEWEST:
            return queries, {query.query_id: qrels[query.query_id] for query in queries}, split
    return None


def _of_text(collection: Collection, embed: Embed) -> tuple[Run, Run, Qrels]:
    """Hits of pseudo-queries of two kinds by vectors and by words, each among the texts that its kind was taken out of.

    Other documents would have an advantage over these: they have their titles.
    """
    from foreword.retrieval.search import exact_search

    dense: Run = {}
    words: Run = {}
    qrels: Qrels = {}
    for kind, pairs in sampled_pairs(collection, ("auto", "span"), documents=MOST).items():
        queries = [Query(f"{kind} {pair.query_id}", pair.query) for pair in pairs]
        names, ids = [query.query_id for query in queries], [pair.doc_id for pair in pairs]
        rests = [Document(pair.doc_id, pair.document) for pair in pairs]
        vectors = embed([query.text for query in queries], "query"), embed([rest.text for rest in rests], "document")
        dense |= exact_search(vectors[0], names, vectors[1], DEPTH, document_ids=ids)
        words |= BM25(rests).search(queries, DEPTH, shares=True)
        qrels |= {name: {doc_id: 1} for name, doc_id in zip(names, ids, strict=True)}
    return dense, words, qrels


class HybridSearch:
    """Searches a collection by vectors and by words, again and again: both are held in memory.

    Attributes:
        weight: how much words count, and what it was chosen by.
    """

    def __init__(
        self,
        encoder: SentenceTransformer,
        collection: Collection,
        weight: float | None = None,
        *,
        reported: str = "test",
        document_length: int | None = None,
        query_length: int | None = None,
        passages: bool | None = None,
        coverage: Coverage | None = None,
        **how: Any,
    ) -> None:
        """Embed the documents, and choose the weight.

        Args:
            encoder: with the prompt it is routed to.
            collection: what is searched.
            weight: of BM25, 0 to 1; None: it is chosen, see `weigh`.
            reported: see `weigh`.
            document_length: see `foreword.retrieval.search.dense_run`, as for the next three.
            query_length: tokens a query is cut to.
            passages: whether longer documents are searched in passages.
            coverage: counts what of the documents is embedded.
            how: `precision`, `batch_size` and `quiet` of `foreword.encode`.

        Raises:
            DataError: there are no documents.
        """
        from foreword.prompts.encoder import encode
        from foreword.retrieval.search import dense_run, document_blocks

        cutting: dict[str, Any] = {"max_length": document_length, "passages": passages, "coverage": coverage}
        blocks = list(document_blocks(encoder, collection, **cutting, **how))
        if not blocks:
            raise DataError(f"{collection.id} has no documents, so there is nothing to search")
        vectors = list(chain.from_iterable(ids for ids, _ in blocks)), np.concatenate([rows for _, rows in blocks])
        index = BM25(collection.documents())
        lengths = {"query": query_length, "document": document_length}

        def both(queries: Sequence[Query], k: int = DEPTH, best_rows: BestRows | None = None) -> tuple[Run, Run]:
            given: dict[str, Any] = {"vectors": vectors, "k": k, "query_length": query_length, "best_rows": best_rows}
            dense = dense_run(encoder, collection, queries, **given, **how)
            return dense, index.search(queries, k, exclude_self=collection.exclude_self, shares=True)

        def embed(texts: Sequence[str], side: Side) -> np.ndarray[Any, Any]:
            return encode(encoder, texts, side, max_length=lengths[side], what="to weigh BM25", **how)

        self._both, self._shares = both, encoder.similarity_fn_name == "cosine"
        if weight is None:
            self.weight = weigh(collection, embed, both, reported=reported, shares=self._shares)
        else:
            self.weight = HybridWeight(weight, "you")

    def run(self, queries: Sequence[Query], k: int = 100, *, best_rows: BestRows | None = None) -> Run:
        """The k best documents of each query; for `best_rows` see `foreword.retrieval.search.dense_run`."""
        found = self._both(queries, max(k, DEPTH), best_rows)
        return hybrid(*found, self.weight.bm25, k, shares=self._shares)
