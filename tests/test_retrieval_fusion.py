"""Fusion, worked by hand."""

from __future__ import annotations

import pytest

from foreword.errors import ForewordError
from foreword.retrieval.runs import hybrid, min_max, reciprocal_rank, top_k

DENSE = {"q": {"a": 0.9, "b": 0.5, "c": 0.1}, "only dense": {"x": 0.3}}
WORDS = {"q": {"b": 12.0, "d": 4.0}, "empty": {}}


def test_min_max() -> None:
    # dense: a 1, b .5, c 0; words: b 1, d 0; the mean of both, and a query that only one run knows.
    fused = min_max([DENSE, WORDS])
    assert fused == {"q": {"b": 0.75, "a": 0.5, "d": 0.0, "c": 0.0}, "only dense": {"x": 0.5}, "empty": {}}
    assert list(fused["q"]) == ["b", "a", "d", "c"]  # the tie: doc_id descending


def test_min_max_weights_are_shares() -> None:
    fused = min_max([DENSE, WORDS], weights=[3, 1], k=2)["q"]
    assert fused == {"a": 0.75, "b": 0.625}
    assert min_max([DENSE, WORDS], weights=[1, 0])["q"]["d"] == 0.0


def test_one_value_for_all_hits_counts_in_full() -> None:
    assert min_max([{"q": {"a": 5.0, "b": 5.0}}, {"q": {}}])["q"] == {"b": 0.5, "a": 0.5}


def test_reciprocal_rank() -> None:
    fused = reciprocal_rank([DENSE, WORDS])["q"]
    assert fused == pytest.approx({"b": 1 / 62 + 1 / 61, "a": 1 / 61, "d": 1 / 62, "c": 1 / 63}, rel=1e-6)
    assert list(fused) == ["b", "a", "d", "c"]
    weighted = reciprocal_rank([DENSE, WORDS], k=0, weights=[0.5, 2.0])["q"]
    assert weighted == {"b": 0.25 + 2.0, "d": 1.0, "a": 0.5, "c": pytest.approx(0.5 / 3)}


def test_scores_as_they_are() -> None:
    shares = {"q": {"b": 0.5, "d": 0.25}, "empty": {}}
    fused = hybrid(DENSE, shares, 0.5)
    # a .9 / 2; b .5 / 2 + .5 / 2; c .1 / 2; d, which dense search did not return, .1 / 2 + .25 / 2.
    assert fused["q"] == pytest.approx({"b": 0.5, "a": 0.45, "d": 0.175, "c": 0.05})
    assert list(fused["q"]) == ["b", "a", "d", "c"]
    assert fused["only dense"] == pytest.approx({"x": 0.15})
    assert fused["empty"] == {}
    assert hybrid(DENSE, shares, 0.0) == {**top_k(DENSE, 9), "empty": {}}  # dense search alone
    assert hybrid(DENSE, shares, 1.0, k=1) == {"q": {"b": 0.5}, "empty": {}, "only dense": {}}
    assert hybrid(DENSE, WORDS, 0.25, shares=False) == min_max([DENSE, WORDS], [0.75, 0.25])
    assert hybrid(DENSE, shares, 0.25, k=1)["q"] == {"a": pytest.approx(0.675)}
    with pytest.raises(ForewordError, match=r"1\.5; expected 0 to 1"):
        hybrid(DENSE, shares, 1.5)


def test_what_words_say_little_of_is_left_to_dense_search() -> None:
    """Of a sure answer and a chance match of one word among many, min-max makes equals; scores as they are do not."""
    dense = {"q": {"sure": 0.9, "other": 0.3, "chance": 0.2}}
    chance = {"q": {"chance": 0.05}}
    assert list(hybrid(dense, chance)["q"]) == ["sure", "other", "chance"]
    assert min_max([dense, chance])["q"]["chance"] == min_max([dense, chance])["q"]["sure"]


def test_scores_are_float32_so_that_files_keep_them() -> None:
    import numpy as np

    for fused in (reciprocal_rank([DENSE, WORDS]), min_max([DENSE, WORDS], weights=[0.1, 0.7])):
        assert all(score == float(np.float32(score)) for score in fused["q"].values())


def test_mistakes_are_told() -> None:
    for weights in ([1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]):
        with pytest.raises(ForewordError, match="weights"):
            min_max([DENSE, WORDS], weights=weights)
    with pytest.raises(ForewordError, match="0 runs"):
        reciprocal_rank([])
    with pytest.raises(ForewordError, match="k=-1"):
        reciprocal_rank([DENSE], k=-1)
