"""Fitting mixture weights: one for each layer, and among a corpus that is embedded already."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tiny import random_prompt

from foreword.collections.pseudo import pseudo_pairs
from foreword.errors import DataError
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.spec import PromptSpec
from foreword.training.vectors import DocumentVectors
from foreword.transferring.config import FitConfig
from foreword.transferring.fit import embed_pair_documents, fit_weights

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from foreword.collections.collection import MemoryCollection, TrainingPair

FIT = FitConfig(precision="float32", steps=6)
START = {"a": 0.5, "b": 0.5}


@pytest.fixture
def carrying(encoder: SentenceTransformer) -> SentenceTransformer:
    for seed, name in enumerate(START):
        transformer_of(encoder).add(name, random_prompt(encoder, PromptSpec("gated", 3, sides="query"), seed))
    return encoder


@pytest.fixture
def pairs(toy: MemoryCollection) -> list[TrainingPair]:
    return list(pseudo_pairs(toy.documents()))


def test_weights_by_layer_differ_from_layer_to_layer(carrying: SentenceTransformer, pairs: list[TrainingPair]) -> None:
    config = replace(FIT, by_layer=True)
    fit = fit_weights(carrying, START, pairs, config, document=None, quiet=True)
    assert {name: len(weights) for name, weights in fit.weights.items()} == {"a": 2, "b": 2}
    assert len({value for weights in fit.weights.values() for value in weights}) > 2
    vectors = encode(carrying, ["babe bale"], "query", route=dict(fit.weights))
    assert np.isfinite(vectors).all()
    # Without a step they are what they start from, for every layer, and encode as one number does.
    still = fit_weights(carrying, START, pairs, replace(config, steps=0), document=None, quiet=True)
    assert still.weights == {"a": [0.5, 0.5], "b": [0.5, 0.5]}
    one, other = (encode(carrying, ["babe bale"], "query", route=dict(each)) for each in (still.weights, START))
    assert np.array_equal(one, other)


def test_shrinkage_pulls_every_layer_towards_the_base_model(
    carrying: SentenceTransformer, pairs: list[TrainingPair]
) -> None:
    config = replace(FIT, by_layer=True, anchor=0.0, shrinkage=100.0, steps=40)
    fit = fit_weights(carrying, START, pairs, config, document=None, quiet=True)
    assert max(abs(value) for weights in fit.weights.values() for value in weights) < 0.2


def test_a_corpus_of_the_pairs_own_documents_changes_nothing(
    carrying: SentenceTransformer, pairs: list[TrainingPair]
) -> None:
    vectors = embed_pair_documents(carrying, None, pairs, FIT)
    corpus = DocumentVectors([pair.doc_id for pair in pairs], vectors)
    plain = fit_weights(carrying, START, pairs, FIT, document=None, quiet=True)
    given = fit_weights(carrying, START, pairs, FIT, document=None, corpus=corpus, quiet=True)
    assert given.weights == plain.weights
    few = fit_weights(carrying, START, pairs[:4], replace(FIT, batch_size=4), document=None, corpus=corpus, quiet=True)
    assert (
        few.losses[0] > fit_weights(carrying, START, pairs[:4], FIT, document=None, quiet=True).losses[0]
    )  # more rivals


def test_a_corpus_without_a_pairs_document_is_refused(carrying: SentenceTransformer, pairs: list[TrainingPair]) -> None:
    corpus = DocumentVectors(["elsewhere"], np.ones((1, 32), np.float32))
    with pytest.raises(DataError, match="not in the corpus"):
        fit_weights(carrying, START, pairs, FIT, document=None, corpus=corpus, quiet=True)
