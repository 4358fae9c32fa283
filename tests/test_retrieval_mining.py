"""Hard negatives mined from hits: a hand-worked example, the guard, BM25, an encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from foreword.collections.collection import Document, MemoryCollection, Query, View
from foreword.collections.views import WithNegatives, read_hard_negatives, write_hard_negatives
from foreword.errors import DataError, ForewordError, UnknownNameError
from foreword.prompts.encoder import encode
from foreword.retrieval.mining import Guard, mine
from foreword.retrieval.search import bm25_run, dense_run

if TYPE_CHECKING:
    from pathlib import Path

    from sentence_transformers import SentenceTransformer


def small(*, exclude_self: bool = False) -> MemoryCollection:
    """Six documents: d2 is a copy of the relevant d1, d3 has another text, d6 was judged not relevant."""
    corpus = (
        Document("d1", "The cat sat."),
        Document("d2", "the CAT, sat"),
        Document("d3", "a dog ran"),
        Document("d4", "a bird flew"),
        Document("d5", "a fish swam"),
        Document("d6", "a horse jumped"),
        Document("q1", "what sat"),
    )
    queries = (Query("q1", "what sat?"), Query("q2", "who ran?"))
    judged = {"q1": {"d1": 1, "d6": 0}, "q2": {"d3": 2, "d4": 1}}
    return MemoryCollection(
        "toy/small", "toy", corpus, {"train": queries}, {"train": judged}, exclude_self=exclude_self
    )


HITS = {"d6": 12.0, "d1": 10.0, "d2": 10.0, "d3": 9.6, "d4": 9.4, "d5": 5.0}


def test_by_hand() -> None:
    """95 % of 10.0 is 9.5: d3 is too near, d4 is not; d6 was judged, so its score says nothing."""
    mined = mine(small(), {"q1": HITS, "q2": {"d4": 3.0, "d3": 2.0, "d5": 1.0}})
    assert mined.negatives == {"q1": ("d6", "d4", "d5"), "q2": ("d5",)}
    assert mined.counts == {
        "queries": 2,
        "negatives": 4,
        "dropped_by_relevance": 3,
        "dropped_by_copy": 1,
        "dropped_by_margin": 1,
        "dropped_own": 0,
        "relevant_not_found": 0,
        "queries_without_negatives": 0,
    }


def test_margins_depth_skip_and_count() -> None:
    run = {"q1": HITS}

    def found(**options: float | None) -> tuple[str, ...]:
        return mine(small(), run, **options).negatives.get("q1", ())  # type: ignore[arg-type]

    assert found(relative_margin=None) == ("d6", "d3", "d4", "d5")
    assert found(relative_margin=None, margin=0.5) == ("d6", "d4", "d5")
    assert found(relative_margin=0.04, margin=5) == ("d6", "d5")
    assert found(relative_margin=0.5) == ("d6", "d5")
    assert found(skip=1) == ("d4", "d5")
    assert found(skip=1, depth=5) == ("d4",)
    assert found(count=2) == ("d6", "d4")


def test_the_guard_below_zero_asks_for_less_not_more() -> None:
    guard = Guard(relative_margin=0.1)
    assert not guard.passes(-1.05, -1.0)
    assert guard.passes(-1.2, -1.0)
    assert Guard(relative_margin=None).passes(99.0, 1.0)
    for wrong in ({"margin": -1.0}, {"relative_margin": 1.5}, {"margin": float("nan")}):
        with pytest.raises(ForewordError, match="expected 0"):
            Guard(**wrong)


def test_a_planted_false_negative_is_held_back_by_the_guard() -> None:
    """d2 answers as well as the relevant d1, in other words, and nobody judged it."""
    corpus = (
        Document("d1", "Gradients stop flowing when the tensor is detached from the graph."),
        Document("d2", "If the tensor is detached, gradients stop flowing into the graph."),
        Document("d3", "A graph of a function shows where it stops growing."),
        Document("d4", "Rivers flow to the sea."),
    )
    query = (Query("q1", "gradients stop flowing tensor detached graph"),)
    collection = MemoryCollection("toy/planted", "toy", corpus, {"train": query}, {"train": {"q1": {"d1": 1}}})
    unguarded = mine(collection, relative_margin=None).negatives
    assert unguarded == {"q1": ("d2", "d3", "d4")}
    guarded = mine(collection)
    assert guarded.negatives == {"q1": ("d3", "d4")}
    assert guarded.counts["dropped_by_margin"] == 1


def test_test_queries_are_refused() -> None:
    with pytest.raises(DataError, match="test queries are for scoring alone"):
        mine(small(), split="test")
    with pytest.raises(UnknownNameError, match="no split 'dev'"):
        mine(small(), split="dev")
    for wrong in ({"count": 0}, {"skip": 100}, {"skip": -1}, {"depth": 0}):
        with pytest.raises(ForewordError, match="expected 0 <= skip < depth"):
            mine(small(), **wrong)  # type: ignore[arg-type]
    with pytest.raises(ForewordError, match="route: for an encoder only"):
        mine(small(), route=None)


def test_a_querys_own_document_is_no_negative() -> None:
    run = {"q1": {"q1": 8.0, "d1": 10.0, "d5": 5.0}}
    mined = mine(small(exclude_self=True), run)
    assert (mined.negatives["q1"], mined.counts["dropped_own"]) == (("d5",), 1)
    mined = mine(small(), run)  # there q1 is only a document that says what the query says
    assert (mined.negatives["q1"], mined.counts["dropped_by_copy"]) == (("d5",), 1)


def test_a_relevant_document_that_a_run_has_not() -> None:
    """Its score is taken as the lowest hit's: with a margin, no unjudged hit can be trusted."""
    run = {"q1": {"d3": 3.0, "d6": 2.0, "d5": 1.0}}
    mined = mine(small(), run)
    assert mined.negatives == {"q1": ("d6",)}
    assert (mined.counts["relevant_not_found"], mined.counts["dropped_by_margin"]) == (2, 2)
    assert mined.counts["queries_without_negatives"] == 1
    assert mine(small(), run, relative_margin=None).negatives == {"q1": ("d3", "d6", "d5")}


def test_bm25_scores_a_relevant_document_below_the_depth() -> None:
    corpus = (
        Document("far", "one two three four five six seven eight nine ten apple"),
        *(Document(f"near{n}", "apple pear") for n in range(3)),
        Document("other", "plum tree"),
    )
    query = (Query("q", "pear apple"), Query("r", "plum"))
    judged = {"q": {"far": 1}, "r": {"near0": 1}}
    collection = MemoryCollection("toy/far", "toy", corpus, {"train": query}, {"train": judged})
    assert list(bm25_run(collection, query, k=2)["q"]) == ["near2", "near1"]
    with pytest.raises(DataError, match=r"no hard negative was found for any query .*dropped_by_margin 3"):
        mine(collection, depth=2)
    everything = bm25_run(collection, query, k=9)["q"]
    above = everything["near0"] - everything["far"]
    assert above > 0
    loose = mine(collection, depth=2, relative_margin=None)
    assert loose.negatives == {"q": ("near2", "near1"), "r": ("other",)}


def test_an_encoder_with_its_own_scores(encoder: SentenceTransformer, toy: MemoryCollection) -> None:
    queries = list(toy.queries("train"))
    mined = mine(toy, encoder, depth=5, count=3, relative_margin=None, margin=0.0, quiet=True)
    documents = list(toy.documents())
    asked = encode(encoder, [query.text for query in queries], "query", quiet=True)
    vectors = encode(encoder, [doc.content for doc in documents], "document", quiet=True)
    scores = asked @ vectors.T
    places = {doc.doc_id: place for place, doc in enumerate(documents)}
    wanted: dict[str, tuple[str, ...]] = {}
    for row, query in zip(scores, queries, strict=True):
        (relevant,) = toy.qrels("train")[query.query_id]
        best = sorted(places, key=lambda doc_id: (row[places[doc_id]], doc_id), reverse=True)[:5]
        kept = [d for d in best if d != relevant and row[places[d]] <= row[places[relevant]]]
        if kept:
            wanted[query.query_id] = tuple(kept[:3])
    assert 0 < mined.counts["relevant_not_found"] < len(queries)
    assert mined.negatives == wanted
    given = mine(
        toy,
        encoder,
        depth=5,
        count=3,
        relative_margin=None,
        margin=0.0,
        quiet=True,
        vectors=([doc.doc_id for doc in documents], np.asarray(vectors)),
    )
    assert given == mined
    run = dense_run(encoder, toy, queries, k=60, quiet=True)
    assert mine(toy, run, depth=5, count=3, relative_margin=None, margin=0.0) == mined


class OwnCorpus(View):
    """A view whose train split is about another corpus than `documents()`."""

    def __init__(self, source: MemoryCollection, corpus: tuple[Document, ...]) -> None:
        self.source, self.corpus = source, corpus

    def documents(self) -> tuple[Document, ...]:
        return self.corpus

    def documents_for(self, split: str) -> tuple[Document, ...]:
        return self.source.corpus if split == "train" else self.corpus


@pytest.mark.parametrize("dense", [False, True])
def test_a_split_with_a_corpus_of_its_own_is_mined_in_it(
    encoder: SentenceTransformer, toy: MemoryCollection, dense: bool
) -> None:
    other = tuple(Document(f"x{number}", doc.text) for number, doc in enumerate(toy.corpus))
    retriever, how = (encoder, {"quiet": True}) if dense else (None, {})
    found = mine(OwnCorpus(toy, other), retriever, depth=5, relative_margin=None, **how)
    assert found == mine(toy, retriever, depth=5, relative_margin=None, **how)
    assert found.counts["dropped_by_relevance"] > 0


def test_what_was_mined_becomes_pairs(toy: MemoryCollection, tmp_path: Path) -> None:
    mined = mine(toy, count=2)
    path = write_hard_negatives(tmp_path / "hard-negatives/train.jsonl.gz", mined.negatives, "bm25")
    assert read_hard_negatives(path) == mined.negatives
    pairs = list(WithNegatives(toy, read_hard_negatives(path)).pairs(hard_negatives=1))
    texts = {doc.doc_id: doc.content for doc in toy.documents()}
    for pair in pairs:
        assert pair.negatives == tuple(texts[doc_id] for doc_id in mined.negatives.get(pair.query_id, ())[:1])
    assert sum(len(pair.negatives) for pair in pairs) == len(mined.negatives) > 0
