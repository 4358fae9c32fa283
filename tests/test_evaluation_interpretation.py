"""What a prompt did: by word of a query, by layer and head, and by search."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny import POSITIONS, random_prompt, save_model, sentences, words

from foreword.collections.collection import Document, MemoryCollection, Query
from foreword.errors import DataError, PromptError, UnknownNameError
from foreword.evaluation import influence
from foreword.evaluation.influence import (
    Standing,
    TwoViews,
    compare_searches,
    embed_views,
    token_influence,
    wins_and_losses,
)
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.inspect import prompt_strength, prompt_strengths
from foreword.prompts.loading import load_encoder
from foreword.prompts.prompt import Prompt
from foreword.prompts.routes import Routes
from foreword.prompts.spec import PromptSpec
from foreword.prompts.start import new_prompt
from foreword.report import render
from foreword.report.sections import strength
from foreword.retrieval.search import exact_search

TEXTS = sentences(9, seed=5)


def carry(encoder: SentenceTransformer, name: str = "a", seed: int = 0, **spec: Any) -> Prompt:
    prompt = random_prompt(encoder, PromptSpec(**{"kind": "gated", "length": 3, **spec}), seed)
    transformer_of(encoder).add(name, prompt)
    return prompt


def changed(prompt: Prompt, **factors: float) -> Prompt:
    """The prompt with some of its tensors times a factor."""
    tensors = {name: value * factors.get(name.split(".")[1], 1.0) for name, value in prompt.tensors().items()}
    return Prompt(prompt.spec, tensors)


# -- words of a query ----------------------------------------------------------------------------------------------


def test_words_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Word counts for vectors; the prompt has learnt that "the" says nothing."""

    def count(_encoder: Any, texts: list[str], _side: str, *, route: Any, **_: Any) -> np.ndarray[Any, Any]:
        rows = [[text.split().count(word) for word in ("red", "fox", "the")] for text in texts]
        return np.array(rows, np.float32) * ((1, 1, 1) if route is None else (1, 1, 0))

    monkeypatch.setattr(influence, "encode", count)
    documents = np.array([[1, 1, 0], [0, 1, 1]], np.float32)
    found = token_influence(None, "the red  fox", TwoViews(("d1", "d2"), documents, documents, "p"), "d1")  # type: ignore[arg-type]
    assert found.base == Standing(2.0, 0.0, 2)  # the other's id is greater: it comes first
    assert found.prompted == Standing(2.0, 1.0, 1)
    assert found.gain == 1.0
    assert [(w.word, w.start, w.base, w.prompted, w.gain) for w in found.words] == [
        ("the", 0, -1.0, 0.0, 1.0),  # with the base model it speaks for d2
        ("red", 4, 1.0, 1.0, 0.0),
        ("fox", 9, 0.0, 0.0, 0.0),
    ]
    assert found.words[1].without_base == Standing(1.0, -1.0, 2)
    written = json.loads(json.dumps(found.as_dict()))
    assert written["gain"] == 1.0
    assert written["words"][0]["without_base"] == {"score": 2.0, "margin": 1.0, "rank": 1}


def test_words_agree_with_retrieval(encoder: SentenceTransformer, toy: MemoryCollection) -> None:
    carry(encoder)
    views = embed_views(encoder, toy.documents(), route="a")
    query = next(iter(toy.queries("test"))).text
    found = token_influence(encoder, query, views, "d7")
    assert [word.word for word in found.words] == query.split()
    for place in (0, len(found.words) - 1):
        shorter = " ".join(word for number, word in enumerate(query.split()) if number != place)
        for route, vectors, text, standing in (
            (None, views.base, query, found.base),
            ("a", views.prompted, query, found.prompted),
            (None, views.base, shorter, found.words[place].without_base),
            ("a", views.prompted, shorter, found.words[place].without_prompted),
        ):
            own = encode(encoder, [text], "query", route=route, quiet=True)
            hits = exact_search(own, ["q"], vectors, 100, document_ids=views.doc_ids)["q"]
            assert standing.rank == 1 + list(hits).index("d7")
            assert standing.score == pytest.approx(hits["d7"], rel=1e-4)
            best = max(score for doc, score in hits.items() if doc != "d7")
            assert standing.margin == pytest.approx(hits["d7"] - best, abs=1e-3)


def test_a_word_that_the_encoder_never_sees_changes_nothing(
    encoder: SentenceTransformer, toy: MemoryCollection
) -> None:
    carry(encoder)
    views = embed_views(encoder, toy.documents(), route="a")
    text = " ".join([*words()[:3], "\u200b", *words()[3:60]])  # the fourth is no token to BERT
    found = token_influence(encoder, text, views, "d1", max_length=POSITIONS)
    seen = POSITIONS - 2 + 1  # without [CLS] and [SEP], and with the one that is none
    for word in (found.words[3], *found.words[seen:]):
        assert (word.base, word.prompted, word.gain) == pytest.approx((0, 0, 0), abs=1e-4)
        assert word.without_prompted.rank == found.prompted.rank
    assert min(abs(word.prompted) for word in found.words[:3]) > 1e-3


def test_a_prompt_whose_gate_is_closed_gains_nothing(encoder: SentenceTransformer, toy: MemoryCollection) -> None:
    transformer_of(encoder).add("new", new_prompt(encoder, PromptSpec("gated", 3)))
    found = token_influence(encoder, "some words here", embed_views(encoder, toy.documents(), route="new"), "d1")
    assert found.gain == pytest.approx(0, abs=1e-4)
    assert [word.gain for word in found.words] == pytest.approx([0, 0, 0], abs=1e-4)


def test_documents_of_the_base_model_are_embedded_once(encoder: SentenceTransformer, toy: MemoryCollection) -> None:
    carry(encoder, sides="query")
    views = embed_views(encoder, toy.documents(), route="a")
    assert views.prompted is views.base
    carry(encoder, "b")
    other = embed_views(encoder, toy.documents(), route=Routes("a", "b"))
    assert other.prompted is not other.base
    assert np.array_equal(other.base, views.base)
    assert embed_views(encoder, toy.documents()).prompted is not None  # by the encoder's own route: the base model


def test_words_need_a_query_and_documents(encoder: SentenceTransformer, toy: MemoryCollection) -> None:
    views = embed_views(encoder, toy.documents(), route=None)
    with pytest.raises(UnknownNameError, match="no document 'x' among the 60"):
        token_influence(encoder, "a", views, "x")
    with pytest.raises(DataError, match="query is empty"):
        token_influence(encoder, "  ", views, "d1")
    with pytest.raises(DataError, match="1 documents"):
        embed_views(encoder, [Document("d", "text")], route=None)


# -- layers and heads ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gated", "memory"])
def test_strength_of_the_first_layer_by_hand(encoder: SentenceTransformer, kind: str) -> None:
    """One vector has all of the prompt's attention: it adds g V_h at every token; the layer's own output is BERT's."""
    prompt = carry(encoder, length=1, kind=kind)
    found = prompt_strength(encoder, TEXTS, "query", route="a", batch_size=4)
    tensors, model = prompt.tensors(), transformer_of(encoder).model
    contexts: list[torch.Tensor] = []
    layer = model.encoder.layer[0].attention.self  # type: ignore[union-attr]
    handle = layer.register_forward_hook(lambda _m, _i, output: contexts.append(output[0]))  # type: ignore[union-attr]
    expected = []
    for text in TEXTS:
        contexts.clear()
        encode(encoder, [text], "query", route=None, quiet=True)
        own = contexts[0][0].unflatten(-1, (4, 8))  # (T, H, h)
        gate = tensors["both.gate"][0].abs() if kind == "gated" else 1.0
        added = gate * tensors["both.values"][0, 0].norm(dim=-1) * len(own) ** 0.5
        expected.append((added / own.square().sum(dim=(0, 2)).sqrt()).double().numpy())
    handle.remove()
    assert found.strength[0, :4] == pytest.approx(np.mean(expected, axis=0), rel=1e-5)
    assert found.layers == (0, 1)
    assert found.texts == len(TEXTS)
    assert found.places == ("head 1", "head 2", "head 3", "head 4", *(["feed-forward"] if kind == "memory" else []))


def test_strength_beside_the_first_feed_forward_part_by_hand(encoder: SentenceTransformer) -> None:
    prompt = carry(encoder, kind="memory", length=0, feed_forward=2)
    found = prompt_strength(encoder, TEXTS, "query", route="a", batch_size=4)
    keys, values = (prompt.tensors()[f"both.feed_forward_{name}"][0] for name in ("keys", "values"))
    layer: Any = transformer_of(encoder).model.encoder.layer[0]  # type: ignore[union-attr, index]
    seen: list[torch.Tensor] = []
    handles = [
        layer.intermediate.register_forward_pre_hook(lambda _m, given: seen.append(given[0][0])),
        layer.output.dense.register_forward_hook(lambda _m, _i, output: seen.append(output[0])),
    ]
    expected = []
    for text in TEXTS:
        seen.clear()
        encode(encoder, [text], "query", route=None, quiet=True)
        states, own = seen[:2]  # (T, d)
        added = torch.nn.functional.gelu(states @ keys.T) @ values
        expected.append(float(added.norm() / own.norm()))
    for handle in handles:
        handle.remove()
    assert found.places == ("feed-forward",)
    assert found.strength.shape == (2, 1)
    assert found.strength[0, 0] == pytest.approx(np.mean(expected), rel=1e-5)


def test_strength_follows_the_gate(encoder: SentenceTransformer) -> None:
    prompt = carry(encoder)
    transformer_of(encoder).add("twice", changed(prompt, gate=2.0))
    transformer_of(encoder).add("minus", changed(prompt, gate=-1.0))
    transformer_of(encoder).add("shut", changed(prompt, gate=0.0))
    one, twice, minus, shut = (
        prompt_strength(encoder, TEXTS, "query", route=n) for n in ("a", "twice", "minus", "shut")
    )
    assert twice.strength[0] == pytest.approx(2 * one.strength[0], rel=1e-5)  # what enters the first layer is the same
    assert minus.strength[0] == pytest.approx(one.strength[0], rel=1e-5)
    assert not shut.strength.any()
    half = prompt_strength(encoder, TEXTS, "query", route={"a": 0.5, "shut": 0.5})
    assert half.strength[0] == pytest.approx(one.strength[0] / 2, rel=1e-5)


def test_strength_is_the_texts_own_whatever_their_batch(encoder: SentenceTransformer) -> None:
    carry(encoder)
    together = prompt_strength(encoder, TEXTS, "query", route="a").strength
    apart = [prompt_strength(encoder, [text], "query", route="a").strength for text in TEXTS]
    assert together == pytest.approx(np.mean(apart, axis=0), rel=1e-4)


@pytest.mark.parametrize("family", ["roberta", "distilbert", "modernbert", "t5", "qwen3", "mpnet"])
def test_strength_in_every_kind_of_backbone(tmp_path: Path, family: str) -> None:
    encoder = load_encoder(str(save_model(tmp_path / family, family)), device="cpu")
    carry(encoder, kind="memory", length=0 if family == "mpnet" else 3, feed_forward=3, top_layers=1)
    found = prompt_strength(encoder, TEXTS, "document", route="a")
    assert found.strength.shape == (1, 1 if family == "mpnet" else 5)
    assert found.layers == (1,)
    assert (found.strength > 0).all()


def test_looking_changes_nothing(encoder: SentenceTransformer) -> None:
    carry(encoder)
    hooks = [dict(module._forward_pre_hooks) for module in transformer_of(encoder).modules()]
    before = encode(encoder, TEXTS, "query", route="a", quiet=True)
    prompt_strength(encoder, TEXTS, "query", route="a")
    assert np.array_equal(encode(encoder, TEXTS, "query", route="a", quiet=True), before)
    assert hooks == [dict(module._forward_pre_hooks) for module in transformer_of(encoder).modules()]


def test_sides_of_their_own(encoder: SentenceTransformer) -> None:
    carry(encoder, "untied", sides="untied")
    carry(encoder, "query", sides="query")
    query, document = prompt_strengths(encoder, TEXTS, TEXTS, route="untied")
    assert (query.side, document.side) == ("query", "document")
    assert not np.allclose(query.strength, document.strength)
    (only,) = prompt_strengths(encoder, TEXTS, TEXTS, route="query")
    assert only.side == "query"
    (routed,) = prompt_strengths(encoder, TEXTS, TEXTS, route=Routes(None, "untied"))
    assert routed.strength == pytest.approx(document.strength)
    with pytest.raises(PromptError, match="no memory or gated prompt encodes a document"):
        prompt_strength(encoder, TEXTS, "document", route="query")
    with pytest.raises(PromptError, match="the base model encodes"):
        prompt_strengths(encoder, TEXTS, TEXTS)
    with pytest.raises(PromptError, match="no texts"):
        prompt_strength(encoder, [], "query", route="query")
    carry(encoder, "prefix", kind="prefix")
    with pytest.raises(PromptError, match="no memory or gated prompt encodes a query"):
        prompt_strengths(encoder, TEXTS, TEXTS, route="prefix")


def test_the_reports_section_on_strength(encoder: SentenceTransformer) -> None:
    carry(encoder, sides="untied")
    records = [found.as_dict("pydoc/<torch>") for found in prompt_strengths(encoder, TEXTS, TEXTS, route="a")]
    assert json.loads(json.dumps(records)) == records
    records[0]["strength"] = [[0.1, 0.2, 0.0, 0.0], [0.0, 0.75, 0.0, 0.05]]
    section = strength({"strength": records})
    assert section is not None
    assert "most in layer 2, head 2 (.750); by the mean of its places in layer 2 (.200)" in section
    assert len(re.findall("<title>layer", section)) == 2 * 2 * 4
    assert "--loss" not in section  # no cell is outlined
    assert "<title>layer 2 → head 2: 0.75</title>" in section
    assert "queries in 2 layers (rows), 4 places in each (columns), from 0.00 to 0.75." in section
    assert "<torch>" not in section
    assert section.count("<details open>") == 1
    assert 'id="strength"' in render({"strength": records})
    for wrong in (None, [], [{**records[0], "strength": [[1.0]]}], [{**records[0], "strength": [[], []]}]):
        assert strength({"strength": wrong}) is None
    carry(encoder, kind="memory", feed_forward=2)
    section = strength({"strength": [prompt_strength(encoder, TEXTS, "query", route="a").as_dict("it")]})
    assert "layer 2 → feed-forward: " in str(section)


# -- searches ------------------------------------------------------------------------------------------------------


def named(doc_id: str) -> Document:
    return Document(doc_id, f"text  of\n{doc_id}", metadata={"name": f"module.{doc_id}"})


COLLECTION = MemoryCollection(
    "own/tiny",
    "own",
    tuple(named(f"d{number}") for number in range(4)),
    {"test": tuple(Query(f"q{number}", f"query {number}") for number in range(4))},
    {"test": {"q0": {"d0": 1, "d3": 0}, "q1": {"d1": 2, "gone": 1}, "q2": {"d2": 1}, "q3": {"d3": 1}}},
)
BEFORE = {
    "q0": {"d1": 3.0, "d2": 2.0, "d0": 1.0},
    "q1": {"d1": 2.0, "d0": 1.0},
    "q2": {"d2": 1.0},
    "q3": {"d0": 1.0},
}
AFTER = {
    "q0": {"d0": 1.0, "d1": 0.5},
    "q1": {"d0": 2.0, "d1": 1.0},
    "q2": {"d2": 5.0},
    "q3": {"d1": 2.0, "d3": 1.0},
}


def test_wins_and_losses_by_hand() -> None:
    qrels = COLLECTION.qrels("test")
    found = wins_and_losses(BEFORE, AFTER, qrels, COLLECTION, measure="RR", systems=("base", "prompt"), hits=2)
    assert [(pair.query.query_id, pair.gain, pair.ranks) for pair in found.wins] == [
        ("q0", pytest.approx(2 / 3), (3, 1)),
        ("q3", pytest.approx(1 / 2), (None, 2)),
    ]
    assert [(pair.query.query_id, pair.gain, pair.ranks) for pair in found.losses] == [("q1", -0.5, (1, 2))]
    assert (found.better, found.same, found.worse) == (2, 1, 1)
    assert found.wins[0].as_dict() == {
        "query": "query 0",
        "query_id": "q0",
        "collection": "own/tiny",
        "relevant": "module.d0",
        "relevant_text": "text of d0",
        "before": [
            {"name": "module.d1", "text": "text of d1", "score": 3.0, "relevant": False},
            {"name": "module.d2", "text": "text of d2", "score": 2.0, "relevant": False},
        ],
        "after": [
            {"name": "module.d0", "text": "text of d0", "score": 1.0, "relevant": True},
            {"name": "module.d1", "text": "text of d1", "score": 0.5, "relevant": False},
        ],
        "before_system": "base",
        "after_system": "prompt",
        "ranks": [3, 1],
        "gain": pytest.approx(2 / 3),
    }
    assert found.losses[0].as_dict()["relevant"] == "module.d1, gone"  # judged, but not in the collection
    written = json.loads(json.dumps([pair.as_dict() for pair in found.wins]))
    assert found.measure == "RR"
    assert "module.d0" in render({"searches": written})


def test_the_largest_first_and_equal_ones_by_id() -> None:
    qrels = COLLECTION.qrels("test")
    found = wins_and_losses(BEFORE, AFTER, qrels, COLLECTION, 1)
    assert [pair.query.query_id for pair in found.wins] == ["q3"]  # from 0 to .63, q0 from .5 to 1
    nothing = {query: {} for query in qrels}
    tied = wins_and_losses(nothing, {query: {f"d{query[1]}": 1.0} for query in qrels}, qrels, COLLECTION, 2)
    assert [pair.query.query_id for pair in tied.wins] == ["q0", "q2"]  # q1 has another relevant document
    back = wins_and_losses(AFTER, BEFORE, qrels, COLLECTION, measure="RR")
    there = wins_and_losses(BEFORE, AFTER, qrels, COLLECTION, measure="RR")
    assert [pair.query for pair in back.losses] == [pair.query for pair in there.wins]
    assert not wins_and_losses(BEFORE, BEFORE, qrels, COLLECTION).wins


def test_searches_of_chosen_queries() -> None:
    qrels = COLLECTION.qrels("test")
    pairs = compare_searches(BEFORE, {}, qrels, COLLECTION, ["q2", "q0"])
    assert [pair.query.query_id for pair in pairs] == ["q2", "q0"]
    assert [len(pair.before) for pair in pairs] == [1, 3]
    assert [pair.after for pair in pairs] == [(), ()]
    assert pairs[0].ranks == (1, None)
    assert "gain" not in pairs[0].as_dict()
    with pytest.raises(DataError, match="no query 'q9' in test"):
        compare_searches(BEFORE, AFTER, qrels, COLLECTION, ["q9"])
