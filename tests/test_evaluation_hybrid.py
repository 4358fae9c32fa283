"""The weight of BM25 in hybrid search: what chooses it, and what it does."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shell import Shell
from tiny import toy_collection

from foreword.collections.collection import Collection, MemoryCollection, Query
from foreword.errors import DataError
from foreword.evaluation.hybrid import HybridSearch, HybridWeight, choose_weight, weigh
from foreword.prompts.loading import load_encoder
from foreword.retrieval.bm25 import BM25
from foreword.retrieval.runs import Run

QRELS = {f"q{number}": {"right": 1} for number in range(40)}


def runs(dense: dict[str, float], words: dict[str, float]) -> tuple[Run, Run]:
    """The same hits for every query."""
    return dict.fromkeys(QRELS, dense), dict.fromkeys(QRELS, words)


@pytest.mark.parametrize(
    ("dense", "words", "by_labels", "by_text"),
    [
        # words lead astray, as soon as they count, or not before 0.6 (1 - w) < 0.3 (1 - w) + w
        ({"right": 0.6, "wrong": 0.59}, {"wrong": 1.0}, 0.0, 0.0),
        ({"right": 0.6, "wrong": 0.3}, {"wrong": 1.0}, 0.0, 0.0),
        # they help where 0.6 (1 - w) < 0.5 (1 - w) + w, that is w > 0.09
        ({"wrong": 0.6, "right": 0.5}, {"right": 1.0}, 0.1, 0.1),
        # 0.6 (1 - w) < 0.1 (1 - w) + 0.45 w, w > 0.53: more than pseudo-queries may say
        ({"wrong": 0.6, "right": 0.1}, {"right": 0.45}, 0.6, 0.0),
        # only alone: 0.8 (1 - w) > 0.05 w up to w = 0.94
        ({"wrong": 0.8, "right": 0.0}, {"right": 0.05, "wrong": 0.0}, 1.0, 0.0),
        # both agree, or nobody knows
        ({"right": 0.6, "wrong": 0.3}, {"right": 1.0}, 0.0, 0.0),
        ({"wrong": 0.6}, {"wrong": 1.0}, 0.0, 0.0),
    ],
)
def test_a_weight_by_hand(dense: dict[str, float], words: dict[str, float], by_labels: float, by_text: float) -> None:
    assert choose_weight(*runs(dense, words), QRELS, "dev queries").bm25 == by_labels
    assert choose_weight(*runs(dense, words), QRELS, "pseudo-queries").bm25 == by_text


def test_a_gain_that_may_be_chance_is_none() -> None:
    """Of 40 queries one is better with words: a difference of one standard error. With 12 it is no chance any more."""
    dense, words = runs({"right": 0.6, "wrong": 0.3}, {"right": 1.0})
    for number in range(12):
        dense[f"q{number}"] = {"wrong": 0.6, "right": 0.5}
        chosen = choose_weight(dense, words, QRELS, "dev queries")
        assert chosen.bm25 == (0.1 if number else 0.0)
        second = 1 / math.log2(3)  # nDCG of the one relevant document at rank 2
        assert chosen.dense == pytest.approx(1 - (number + 1) / 40 * (1 - second), abs=1e-4)
    assert (chosen.queries, chosen.hybrid, chosen.words) == (40, 1.0, 1.0)
    assert str(chosen) == (
        "hybrid gives BM25 a weight of 0.1, chosen on 40 dev queries (nDCG@10 1.000, dense 0.889, bm25 1.000)"
    )
    assert str(HybridWeight(0.0, "you")) == "hybrid is dense search alone: BM25 has no weight (as you said)"


class Guarded(MemoryCollection):
    """Whose test judgements nobody may see."""

    def qrels(self, split: str = "test") -> Any:
        """Of the other splits."""
        assert split != "test"
        return super().qrels(split)


def guarded(documents: int = 60, splits: tuple[str, ...] = ("train", "dev", "test")) -> Guarded:
    made = toy_collection(documents=documents, splits=splits)
    return Guarded(made.id, made.group, made.corpus, made.query_texts, made.judgements)


def asked_of(collection: Collection, **how: Any) -> tuple[HybridWeight, list[Query]]:
    """The weight, and the queries whose answers were looked at; vectors are random."""
    seen: list[Query] = []

    def both(queries: Iterable[Query]) -> tuple[Run, Run]:
        seen.extend(queries)
        return {query.query_id: {} for query in seen}, BM25(collection.documents()).search(seen, shares=True)

    def embed(texts: Any, side: str) -> np.ndarray[Any, Any]:
        return np.random.default_rng(len(texts)).standard_normal((len(texts), 8), dtype=np.float32)

    return weigh(collection, embed, both, **how), seen


def test_what_chooses() -> None:
    """Dev where it has 30 queries, else train, else the texts; never test, nor the split that is measured."""
    whole = guarded()
    weight, seen = asked_of(whole)
    assert weight.chosen_by == "train queries"  # dev has 12
    assert {query.query_id for query in seen} == {query.query_id for query in whole.queries("train")}
    assert weight.hybrid >= weight.dense
    for collection, how in (
        (whole, {"reported": "train"}),
        (whole, {"reported": "dev"}),
        (guarded(splits=("test",)), {}),
    ):
        weight, seen = asked_of(collection, **how)
        assert (weight.chosen_by, seen) == ("pseudo-queries", [])
        assert 60 < weight.queries < 120  # a first sentence of each document, a random one of those with words left
    assert asked_of(guarded(14, splits=()))[0] == HybridWeight(0.2, "default")
    assert str(HybridWeight()) == "hybrid gives BM25 a weight of 0.2 (the default)"


def test_a_search_is_the_weighted_sum(tiny_bert: Path) -> None:
    """Against sentence-transformers' own vectors, and BM25 asked for every document."""
    tiny_encoder = load_encoder(str(tiny_bert), device="cpu")
    collection = toy_collection()
    texts = [document.content for document in collection.documents()]
    queries = list(collection.queries())
    search = HybridSearch(tiny_encoder, collection, 0.25, quiet=True)
    assert search.weight == HybridWeight(0.25, "you")
    vectors = [tiny_encoder.encode(part, normalize_embeddings=True) for part in ([q.text for q in queries], texts)]
    words = BM25(collection.documents()).search(queries, 60, shares=True)
    for row, (query_id, hits) in zip(vectors[0] @ vectors[1].T, search.run(queries, 60).items(), strict=True):
        expected = {f"d{n}": 0.75 * cosine + 0.25 * words[query_id].get(f"d{n}", 0.0) for n, cosine in enumerate(row)}
        assert hits == pytest.approx(expected, abs=1e-5)
        assert list(hits.values()) == sorted(hits.values(), reverse=True)
    with pytest.raises(DataError, match="no documents"):
        HybridSearch(tiny_encoder, replace(collection, corpus=()), quiet=True)


def test_the_command_line_says_what_chose(shell: Shell, beir: Path, tiny_bert: Path) -> None:
    how = (f"folder:{beir}", "--backbone", tiny_bert)
    chosen = shell.json("evaluate", *how, "--system", "hybrid", "--measures", "nDCG@10")
    assert chosen["hybrid"]["chosen_by"] == "train queries"
    told = shell("evaluate", *how, "--system", "hybrid", "--measures", "nDCG@10")
    assert f"{chosen['hybrid']['bm25']:g}, chosen on 32 train queries (nDCG@10 " in told
    query = next(iter(toy_collection().queries())).text
    (found,) = shell.json("search", *how, query, "--system", "hybrid", "--k", "3")
    assert found["hybrid"] == chosen["hybrid"]
    for weight, system in ((0, "dense"), (1, "bm25")):
        given = ("--system", "hybrid", "--bm25-weight", weight)
        (found,) = shell.json("search", *how, query, *given, "--k", "3")
        (alone,) = shell.json("search", *how, query, "--system", system, "--k", "3")
        assert [hit["doc_id"] for hit in found["hits"]] == [hit["doc_id"] for hit in alone["hits"]]
        assert found["hybrid"]["chosen_by"] == "you"
    assert "expected 0 (dense search alone) to 1" in shell.usage("search", *how, "x", "--bm25-weight", "1.5")
    assert "--bm25-weight is for --system hybrid" in shell.fails("search", *how, "x", "--bm25-weight", "0.5")
