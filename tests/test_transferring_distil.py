"""Distilling a mixture into one prompt: exact where it can be, nearer than its start elsewhere, and honest in its card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny import random_prompt, sentences, toy_collection

from foreword.collections.collection import Document, MemoryCollection, Qrels
from foreword.errors import DataError, ForewordError, PromptError
from foreword.evaluation.candidates import chosen_by_dev
from foreword.prompts.encoder import encode, state_digest, transformer_of
from foreword.prompts.loading import load_encoder
from foreword.prompts.prompt import Prompt
from foreword.prompts.routes import Route, Routes
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import StoredPrompt, attach_mixture, save_mixture, trained_on
from foreword.transferring.config import DistilConfig
from foreword.transferring.distil import (
    SideLesson,
    ancestry,
    distance,
    distil,
    form_of,
    nearness,
    start_from,
    student_of,
    texts_of,
)

SPEC = PromptSpec("gated", 3)
UNTIED = replace(SPEC, sides="untied")
CONFIG = DistilConfig(steps=12, batch_size=16, learning_rate=0.03, evaluate_every=6, precision="float32")
TEXTS = sentences(9, seed=5)


def stored(prompt: Prompt, **card: Any) -> StoredPrompt:
    """As a file of float16 gives it back."""
    return StoredPrompt(
        prompt.rounded(torch.float16), {"domain": "x", "start_digest": "here", "dtype": "float16", **card}
    )


def carry(encoder: SentenceTransformer, spec: PromptSpec = SPEC, **cards: dict[str, Any]) -> dict[str, StoredPrompt]:
    """Three sources, which the encoder carries."""
    bank = {
        name: stored(random_prompt(encoder, spec, seed, scale=0.7), **cards.get(name, {}))
        for seed, name in enumerate("abc")
    }
    for name, source in bank.items():
        transformer_of(encoder).add(name, source.prompt)
    return bank


def part_of(prompt: Prompt, part: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in prompt.tensors().items() if name.startswith(f"{part}.")}


# -- exactly ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", [{"a": 1.0}, {"a": [1.0, 1.0]}, "a"])
def test_one_source_distilled_from_itself_stays(
    encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path, route: Route
) -> None:
    bank = carry(encoder)
    made = distil(encoder, toy, route, tmp_path / "it", sources=bank, start=bank["a"], config=CONFIG, quiet=True)
    metrics = made.card["metrics"]
    assert metrics["before"] == {"query": 1.0, "document": 1.0, "top_10": 1.0} == metrics["after"]
    assert metrics["best_step"] == 0
    assert min(metrics["base"].values()) < 0.99
    assert made.prompt.digest() == bank["a"].prompt.digest()
    assert all(look["query"] > 0.999 for look in metrics["held_out"])


@pytest.mark.parametrize("weight", [0.5, -0.25, [0.5, 2.0]])
def test_one_source_of_another_weight_is_its_gates_times_that(
    encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path, weight: Any
) -> None:
    bank = carry(encoder)
    made = distil(
        encoder, toy, {"b": weight}, tmp_path / "it", sources=bank, config=replace(CONFIG, steps=1), quiet=True
    )
    np.testing.assert_allclose(
        encode(encoder, TEXTS, "query", route={"b": weight}), embedded(encoder, made, "query"), atol=2e-3
    )
    assert made.card["metrics"]["before"]["query"] == pytest.approx(1, abs=1e-5)
    assert made.card["start"]["from"] == "b"


def embedded(encoder: SentenceTransformer, made: StoredPrompt, side: Any) -> np.ndarray:
    transformer_of(encoder).add("made", made.prompt)
    return encode(encoder, TEXTS, side, route="made")


# -- mixtures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "weights"),
    [
        (SPEC, {"a": 0.6, "b": 0.4}),
        (UNTIED, {"a": [0.9, 0.1], "b": 0.5}),
        (replace(SPEC, sides="query"), {"a": 0.5, "b": 0.2, "c": 0.3}),
    ],
)
def test_a_mixture_is_learnt(
    encoder: SentenceTransformer,
    tiny_bert: Path,
    toy: MemoryCollection,
    tmp_path: Path,
    spec: PromptSpec,
    weights: Route,
) -> None:
    bank = carry(encoder, spec)
    config = replace(CONFIG, steps=60, evaluate_every=30)
    made = distil(encoder, toy, weights, tmp_path / "it", sources=bank, start=bank["a"], config=config, quiet=True)
    assert made.prompt.spec == spec
    metrics = made.card["metrics"]
    trained = ("query",) if spec.sides == "query" else ("query", "document")
    for side in trained:
        assert 1 - metrics["after"][side] < 0.7 * (1 - metrics["before"][side])
    assert np.mean(metrics["loss"][-5:]) < np.mean(metrics["loss"][:5])
    # Texts that neither side has seen, by an encoder that knows the stored folder alone.
    again = load_encoder(str(tiny_bert), prompt=tmp_path / "it", device="cpu")
    for side in trained:
        teacher, student, first = (
            encode(encoder, TEXTS, side, route=weights),  # type: ignore[arg-type]
            encode(again, TEXTS, side),  # type: ignore[arg-type]
            encode(encoder, TEXTS, side, route="a"),  # type: ignore[arg-type]
        )
        np.testing.assert_allclose(student, embedded(encoder, made, side), atol=1e-6)
        assert (teacher * student).sum(axis=1).mean() > (teacher * first).sum(axis=1).mean()


def test_the_documents_of_one_source_are_kept(
    encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path
) -> None:
    bank = carry(encoder, UNTIED)
    route = Routes({"a": 0.5, "b": 0.5}, "b")
    made = distil(encoder, toy, route, tmp_path / "it", sources=bank, start=bank["a"], config=CONFIG, quiet=True)
    assert made.prompt.spec == UNTIED
    kept, source = (part_of(prompt, "document") for prompt in (made.prompt, bank["b"].prompt))
    assert all(torch.equal(kept[name], source[name]) for name in source)
    np.testing.assert_array_equal(embedded(encoder, made, "document"), encode(encoder, TEXTS, "document", route="b"))
    metrics = made.card["metrics"]
    assert metrics["before"]["document"] == metrics["after"]["document"] == 1.0
    assert metrics["after"]["query"] > metrics["before"]["query"]
    assert made.card["training"]["side"] == "query"


def test_kept_documents_are_stored_as_exactly_as_their_source(
    encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path
) -> None:
    bank = carry(encoder, UNTIED)
    exact = StoredPrompt(random_prompt(encoder, UNTIED, 7), {"domain": "exact", "dtype": "float32"})
    transformer_of(encoder).add("exact", exact.prompt)
    sources = {**bank, "exact": exact}
    config = replace(CONFIG, steps=1)
    made = distil(
        encoder, toy, Routes({"a": 1.0}, "exact"), tmp_path / "it", sources=sources, config=config, quiet=True
    )
    assert made.card["dtype"] == "float32"
    assert torch.equal(made.prompt.tensors()["document.keys"], exact.prompt.tensors()["document.keys"])


def test_a_mixture_gives_way_to_the_prompt_that_it_became(
    encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path
) -> None:
    bank, weights, config = carry(encoder), {"a": 0.5, "b": 0.5}, replace(CONFIG, steps=1)
    save_mixture(tmp_path / "it", toy.id, weights, bank, encoder)
    route = attach_mixture(encoder, tmp_path / "it")
    assert isinstance(route, dict)
    sources = {name: bank[name.rpartition(" ")[2]] for name in route}
    made = distil(encoder, toy, route, tmp_path / "it", sources=sources, config=config, quiet=True)
    assert made.card["distilled"]["route"] == {"toy/one <- a": 0.5, "toy/one <- b": 0.5}
    assert sorted(path.name for path in (tmp_path / "it").iterdir()) == [
        "prompt.json",
        "prompt.safetensors",
        "run.json",
    ]


# -- form and start ------------------------------------------------------------------------------------------------


def test_which_prompt_can_say_what_a_route_says(encoder: SentenceTransformer) -> None:
    shared, untied = carry(encoder), carry(encoder, UNTIED)
    query = {n: stored(random_prompt(encoder, replace(SPEC, sides="query"), s)) for s, n in enumerate("abc")}
    mixture = {"a": 0.5, "b": 0.5}
    found = [
        (form.spec.sides, form.trained, form.kept)
        for form in (
            form_of(mixture, shared),
            form_of(mixture, query),
            form_of(Routes(mixture, "c"), shared),
            form_of(Routes(mixture, None), untied),
            form_of(Routes(mixture, {"a": 0.1}), untied),
            form_of(Routes(mixture, "a"), query),
        )
    ]
    assert found == [
        ("shared", ("query", "document"), None),
        ("query", ("query",), None),
        ("untied", ("query",), "c"),
        ("query", ("query",), None),
        ("untied", ("query", "document"), None),
        ("query", ("query",), None),
    ]
    longer = {**untied, "c": stored(random_prompt(encoder, PromptSpec("gated", 4)))}
    prefix = {"p": stored(random_prompt(encoder, PromptSpec("prefix", 3)))}
    for route, sources, said in (
        (None, shared, "nothing to distil"),
        (Routes(None, "a"), shared, "nothing to distil"),
        ("p", prefix, "only mixtures of memory or gated prompts are distilled"),
        ({"a": 0.5, "c": 0.5}, longer, "different kind, length, layers or sides"),
        (Routes(mixture, "c"), longer, "one prompt cannot hold both"),
    ):
        with pytest.raises(PromptError, match=said):
            form_of(route, sources)


def test_where_distilling_starts(encoder: SentenceTransformer) -> None:
    bank = carry(encoder)
    a, b = (bank[name].prompt.tensors() for name in "ab")
    name, mean = start_from({"a": 0.3, "b": 0.1}, bank)
    assert name == "average of a, b"
    torch.testing.assert_close(mean.tensors()["both.keys"], 0.75 * a["both.keys"] + 0.25 * b["both.keys"])
    torch.testing.assert_close(mean.tensors()["both.gate"], 0.4 * (0.75 * a["both.gate"] + 0.25 * b["both.gate"]))
    name, greatest = start_from({"a": 0.1, "b": [-0.5, -0.3]}, bank)  # no average of what is subtracted
    assert name == "b"
    torch.testing.assert_close(greatest.tensors()["both.gate"], b["both.gate"] * torch.tensor([[-0.4], [-0.2]]))
    bank["b"] = stored(bank["b"].prompt, start_digest="elsewhere")
    assert start_from({"a": 0.6, "b": 0.4}, bank)[0] == "a"
    source = stored(random_prompt(encoder, PromptSpec("memory", 3, 2)))
    memory = source.prompt
    name, found = start_from({"m": [0.5, -2.0]}, {"m": source})
    for key, tensor in memory.tensors().items():
        by_layer = torch.tensor([0.5, -2.0]).view(2, *[1] * (tensor.ndim - 1)) if key in memory.linear else 1.0
        torch.testing.assert_close(found.tensors()[key], tensor * by_layer)


def test_a_start_of_another_structure_is_refused(encoder: SentenceTransformer) -> None:
    untied, shared = carry(encoder, UNTIED), carry(encoder)
    query = random_prompt(encoder, replace(SPEC, sides="query"))
    for form, start, said in (
        (form_of({"a": 1.0}, shared), random_prompt(encoder, PromptSpec("gated", 4)), "of the mixture's structure"),
        (form_of({"a": 1.0}, shared), query, "the start's sides are 'query'"),
        (form_of({"a": 1.0}, untied), query, "the prompt to start from does not"),
    ):
        with pytest.raises(PromptError, match=said):
            student_of(form, start, untied)
    assert student_of(form_of(Routes("a", "b"), untied), query, untied).spec == UNTIED


# -- the card ------------------------------------------------------------------------------------------------------


def test_the_card_follows_the_labels_of_all_sources(
    encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path
) -> None:
    multitask = {"trained_on": {"m/one": "train", "m/two": "pseudo-queries"}}
    a = {"start": multitask, "data": {"s/a": {}}, "supervision": {"method": "train"}}
    b = {
        "start": multitask,
        "data": {"m/two": {}},
        "supervision": {"method": "dev"},
        "metrics": {"dev": [{"dev": 0.5}]},
    }
    bank = carry(encoder, a=a, b=b)
    start = stored(random_prompt(encoder, SPEC, 8), data={"s/start": {}}, supervision={"method": "train"})
    config = replace(CONFIG, steps=1)
    made = distil(
        encoder, toy, {"a": 0.25, "b": 0.75}, tmp_path / "it",
        sources=bank, start=start, config=config, domain="named", record={"note": 1}, quiet=True,
    )  # fmt: skip
    assert trained_on(made.card) == {
        "m/one": "train",
        "m/two": "dev",
        "s/a": "train",
        "s/start": "train",
        toy.id: "pseudo-queries",
    }
    assert made.domain == "named"
    assert made.card["note"] == 1
    assert made.card["start"]["digest"] == start.prompt.digest() == made.card["start_digest"]
    assert made.card["distilled"] == {
        "route": {"a": 0.25, "b": 0.75},
        "sources": {name: bank[name].prompt.digest() for name in "ab"},
        "chosen_by_dev": True,
    }
    assert made.card["supervision"]["reported"] == ["dev", "test"]
    assert made.card["data"][toy.id]["document_texts"] == 60 - len(
        texts_of(toy, most=99, share=0.2, seed=0)[1].document
    )


def test_labels_of_the_target_in_a_source_are_not_forgotten(
    encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path
) -> None:
    bank = carry(encoder, a={"data": {toy.id: {}}, "supervision": {"method": "train"}})
    made = distil(encoder, toy, "a", tmp_path / "it", sources=bank, config=replace(CONFIG, steps=1), quiet=True)
    assert trained_on(made.card) == {toy.id: "train"} == ancestry(bank.values())


def test_cards_from_before_are_read_as_they_were() -> None:
    assert chosen_by_dev([{}, {"folded": {"chosen_by_dev": True}}])
    assert chosen_by_dev([{"distilled": {"chosen_by_dev": True}}])
    assert not chosen_by_dev([{"folded": {"chosen_by_dev": False}}, {"metrics": {"dev": [{"dev": None}]}}])


class Blind(MemoryCollection):
    """A target whose queries and judgements may not be looked at."""

    def queries(self, split: str = "test") -> Any:
        raise AssertionError("queries of the target were read")

    def qrels(self, split: str = "test") -> Qrels:
        raise AssertionError("judgements of the target were read")

    def pairs(self, split: str = "train", *, hard_negatives: int | None = None) -> Any:
        raise AssertionError("pairs of the target were read")


def test_only_documents_are_read_and_the_encoder_comes_back_as_it_was(
    encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path
) -> None:
    bank = carry(encoder)
    transformer = transformer_of(encoder)
    transformer.route = "c"
    before = state_digest(encoder), [source.prompt.digest() for source in bank.values()]
    target = Blind(toy.id, toy.group, toy.corpus, toy.query_texts, toy.judgements)
    made = [
        distil(
            encoder, target, {"a": 0.5, "b": 0.5}, tmp_path / f"{n}", sources=bank, config=replace(CONFIG, seed=seed), quiet=True
        )
        for n, seed in enumerate((0, 0, 1))
    ]  # fmt: skip
    assert (transformer.domains, transformer.route) == (["a", "b", "c"], "c")
    assert (state_digest(encoder), [source.prompt.digest() for source in bank.values()]) == before
    assert not any(p.requires_grad or p.grad is not None for p in encoder.parameters())
    assert made[0].prompt.digest() != made[2].prompt.digest()
    for file in ("prompt.json", "prompt.safetensors"):
        assert (tmp_path / "0" / file).read_bytes() == (tmp_path / "1" / file).read_bytes()


def test_sources_that_are_not_those_carried(
    encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path
) -> None:
    bank = carry(encoder)
    for sources, said in (
        ({"a": bank["a"]}, "the route names b; the sources given are a"),
        ({"a": bank["a"], "b": bank["c"]}, "b: the encoder carries another prompt"),
    ):
        with pytest.raises(PromptError, match=said):
            distil(encoder, toy, {"a": 0.5, "b": 0.5}, tmp_path / "it", sources=sources)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch_size": 1},
        {"learning_rate": 0.0},
        {"warmup": 1.0},
        {"held_out": 0.0},
        {"document_length": 2},
        {"most": 1},
        {"dtype": "int8"},
        {"precision": "float8"},
    ],
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ForewordError, match=next(iter(wrong))):
        DistilConfig(**wrong)


# -- texts ---------------------------------------------------------------------------------------------------------


def test_texts_are_divided_by_document(toy: MemoryCollection) -> None:
    learnt, held = texts_of(toy, most=100, share=0.3, seed=0)
    assert len(learnt.document) + len(held.document) == 60
    assert 8 <= len(held.document) <= 28
    assert not {*learnt.document, *learnt.query} & {*held.document, *held.query}
    for texts in (learnt, held):
        assert all(any(query in text for text in texts.document) for query in texts.query)
    assert texts_of(replace(toy, corpus=toy.corpus[::-1]), most=100, share=0.3, seed=0) == (learnt, held)
    assert texts_of(toy, most=100, share=0.3, seed=1) != (learnt, held)
    few = texts_of(toy, most=20, share=0.3, seed=0)
    assert len(few[0].document) + len(few[1].document) == 20


def test_copies_are_on_one_side(toy: MemoryCollection) -> None:
    twice = tuple(replace(document, doc_id=f"copy-{document.doc_id}") for document in toy.corpus)
    learnt, held = texts_of(replace(toy, corpus=(*toy.corpus, *twice)), most=1000, share=0.3, seed=0)
    assert not set(learnt.document) & set(held.document)
    assert len(learnt.document) + len(held.document) == 60


def test_too_little_text() -> None:
    short = MemoryCollection("t", "t", tuple(Document(f"d{n}", f"word{n}") for n in range(9)), {}, {})
    with pytest.raises(DataError, match="t: 9 documents gave 0 pseudo-queries to learn on"):
        texts_of(short, most=100, share=0.3, seed=0)
    with pytest.raises(DataError, match="too few to divide"):
        texts_of(toy_collection(documents=1, splits=()), most=100, share=0.3, seed=0)


# -- loss and measures ----------------------------------------------------------------------------------------------


def test_the_loss_by_hand() -> None:
    theirs = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    ours = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    # A unit vector: 1 - cosine = .4; half as long: (2 - 1)^2 / (2 * 2^2) = .125.
    assert distance(ours, theirs).item() == pytest.approx((0.4 + 0.125) / 2)
    assert distance(theirs, theirs).item() == 0


def test_nearness_by_hand(encoder: SentenceTransformer) -> None:
    queries, documents = sentences(5, seed=8), sentences(30, seed=9)
    other = np.random.default_rng(0).normal(size=(30, 32)).astype(np.float32)
    own = {"query": encode(encoder, queries, "query"), "document": encode(encoder, documents, "document")}
    lessons = [
        SideLesson("query", True, 64, (), torch.empty(0), queries, own["query"]),
        SideLesson("document", True, 64, (), torch.empty(0), documents, other),
    ]
    found = nearness(encoder, None, lessons, "float32")
    cosines = [o @ t / np.linalg.norm(o) / np.linalg.norm(t) for o, t in zip(own["document"], other, strict=True)]
    ranks = [np.argsort(-(own["query"] @ vectors.T), axis=1)[:, :10] for vectors in (own["document"], other)]
    shares = [len({*a} & {*b}) / 10 for a, b in zip(*ranks, strict=True)]
    assert found == pytest.approx({"query": 1.0, "document": np.mean(cosines), "top_10": np.mean(shares)}, abs=1e-5)
    assert 0 < found["top_10"] < 1
