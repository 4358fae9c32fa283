"""Routing queries to experts by pilots (RouterRetriever)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from tiny import random_prompt, toy_collection

from foreword.collections.collection import MemoryCollection
from foreword.errors import DataError, ForewordError
from foreword.lab.routing import PilotLibrary, build_pilots, route_queries
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.prompt import Prompt
from foreword.prompts.spec import PromptSpec, Sides
from foreword.prompts.store import StoredPrompt
from foreword.training.vectors import DocumentVectors, embed_documents

TEXTS = ["babe bale", "bame bape bare", "dade", "gage gale fade", "kare"]


def experts(encoder: SentenceTransformer, names: str = "ab", sides: Sides = "query") -> dict[str, StoredPrompt]:
    spec = PromptSpec("gated", 3, sides=sides)
    return {n: StoredPrompt(random_prompt(encoder, spec, seed), {"domain": n}) for seed, n in enumerate(names)}


def over_one_document_part(encoder: SentenceTransformer) -> dict[str, StoredPrompt]:
    bank = experts(encoder, sides="untied")
    shared = {n: t for n, t in bank["a"].prompt.tensors().items() if n.startswith("document.")}
    prompt = bank["b"].prompt
    return {**bank, "b": replace(bank["b"], prompt=Prompt(prompt.spec, prompt.tensors() | shared))}


def library(rows: list[list[float]], names: str) -> PilotLibrary:
    count = len(rows)
    return PilotLibrary(np.array(rows, np.float32), tuple(names), ("s",) * count, (1,) * count)


# -- routing -------------------------------------------------------------------------------------------------------


def test_routes_by_hand() -> None:
    pilots = library([[1.0, 0.0], [-0.6, 0.8], [0.6, 0.8]], "aab")
    queries = np.array([[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0]])
    # a: 1 and -.6, b: .6; a: 0 and .8, b: .8; a: -1 and .6, b: -.6.
    assert route_queries(pilots, queries) == ["b", "b", "a"]
    assert route_queries(pilots, queries[:0]) == []
    with pytest.raises(ForewordError, match="for pilots of 2 numbers"):
        route_queries(pilots, np.ones((2, 3)))


def test_a_library_has_one_of_each_for_every_pilot() -> None:
    with pytest.raises(ForewordError, match="one of each for every pilot"):
        library([[1.0, 0.0]], "ab")
    with pytest.raises(ForewordError, match="one pilot at least"):
        PilotLibrary(np.zeros((0, 2), np.float32), (), (), ())


def embedded(encoder: SentenceTransformer, *collections: MemoryCollection, route: Any = None) -> dict[str, Any]:
    names = ("toy", "two")
    vectors = [embed_documents(encoder, one, route=route, quiet=True) for one in collections]
    return dict(zip(names, vectors, strict=False))


# -- pilots --------------------------------------------------------------------------------------------------------


def test_a_single_expert_gets_every_query(encoder: SentenceTransformer, toy: MemoryCollection) -> None:
    pilots = build_pilots(encoder, experts(encoder, "a"), {"toy": toy}, embedded(encoder, toy), quiet=True)
    assert (pilots.experts, pilots.sources, pilots.counts) == (("a",), ("toy",), (32,))
    base = encode(encoder, TEXTS, "query", route=None, quiet=True)
    chosen = route_queries(pilots, base)
    assert chosen == ["a"] * len(TEXTS)
    np.testing.assert_allclose(
        encode(encoder, TEXTS, "query", domains=chosen, quiet=True),
        encode(encoder, TEXTS, "query", route="a", quiet=True),
        atol=1e-6,
    )
    # The pilot of a group that is the whole domain: the mean of its queries' base embeddings, of unit length.
    features = encode(encoder, [q.text for q in toy.queries("train")], "query", route=None, quiet=True)
    mean = (features / np.linalg.norm(features, axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(pilots.pilots[0], mean / np.linalg.norm(mean), atol=1e-5)


def by_hand(encoder: SentenceTransformer, toy: MemoryCollection, names: list[str], document: Any) -> list[str]:
    """The best expert of each training query over the whole corpus: by rank of its one document, then by margin."""
    texts = [doc.content for doc in toy.corpus]
    documents = encode(encoder, texts, "document", route=document, quiet=True)
    chosen = []
    for query in toy.queries("train"):
        found = []
        for name in names:
            (vector,) = encode(encoder, [query.text], "query", route=name, quiet=True)
            (wanted,) = toy.qrels("train")[query.query_id]
            scores = {doc.doc_id: float(row @ vector) for doc, row in zip(toy.corpus, documents, strict=True)}
            own = scores.pop(wanted)
            rank = 1 + sum(score > own for score in scores.values())
            found.append((1 / np.log2(1 + rank) if rank <= 10 else 0.0, own - max(scores.values())))
        chosen.append(names[max(range(len(names)), key=lambda i: found[i])])
    return chosen


@pytest.mark.parametrize("shared", [False, True])
def test_queries_are_grouped_by_the_expert_that_is_best_on_them(
    encoder: SentenceTransformer, toy: MemoryCollection, shared: bool
) -> None:
    bank = over_one_document_part(encoder) if shared else experts(encoder)
    route = "a" if shared else None
    for name, source in bank.items():
        transformer_of(encoder).add(name, source.prompt)
    pilots = build_pilots(encoder, bank, {"toy": toy}, embedded(encoder, toy, route=route), quiet=True)
    chosen = by_hand(encoder, toy, ["a", "b"], route)
    counts = {name: chosen.count(name) for name in sorted(set(chosen))}
    assert len(counts) > 1  # else it would show nothing
    assert dict(zip(pilots.experts, pilots.counts, strict=True)) == counts
    features = encode(encoder, [q.text for q in toy.queries("train")], "query", route=None, quiet=True)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    for name, pilot in zip(pilots.experts, pilots.pilots, strict=True):
        mean = features[[i for i, own in enumerate(chosen) if own == name]].mean(axis=0)
        np.testing.assert_allclose(pilot, mean / np.linalg.norm(mean), atol=1e-5)


def test_pilots_of_several_domains_depend_on_no_order(encoder: SentenceTransformer, toy: MemoryCollection) -> None:
    bank, other = experts(encoder), toy_collection("toy/two")
    turned = replace(toy, query_texts={s: q[::-1] for s, q in toy.query_texts.items()})
    backwards = replace(turned, judgements={s: dict(list(j.items())[::-1]) for s, j in toy.judgements.items()})
    vectors = embedded(encoder, toy, other)
    one = build_pilots(encoder, bank, {"toy": toy, "two": other}, vectors, limit=20, quiet=True)
    again = build_pilots(
        encoder, dict(list(bank.items())[::-1]), {"two": other, "toy": backwards}, vectors, limit=20, quiet=True
    )
    assert (one.experts, one.sources, one.counts) == (again.experts, again.sources, again.counts)
    np.testing.assert_allclose(one.pilots, again.pilots, atol=1e-5)
    assert {s: sum(c for c, o in zip(one.counts, one.sources, strict=True) if o == s) for s in one.sources} == {
        "toy": 20,
        "two": 20,
    }
    drawn = build_pilots(encoder, bank, {"toy": toy, "two": other}, vectors, limit=20, seed=1, quiet=True)
    assert drawn.pilots.tolist() != one.pilots.tolist()


def test_what_cannot_be_routed(encoder: SentenceTransformer, toy: MemoryCollection) -> None:
    bank = experts(encoder)
    with pytest.raises(ForewordError, match="0 source domains"):
        build_pilots(encoder, bank, {}, {}, quiet=True)
    short = {"toy": DocumentVectors(["d0"], np.ones((1, 32), np.float32))}
    with pytest.raises(DataError, match="relevant documents have no vector, such as"):
        build_pilots(encoder, bank, {"toy": toy}, short, quiet=True)
    empty = replace(toy, query_texts={"train": ()}, judgements={"train": {}})
    with pytest.raises(DataError, match="no training queries"):
        build_pilots(encoder, bank, {"toy": empty}, short, quiet=True)
