"""Rivals that choose: each query's expert by routing, a target's sources by the likeness of their prompts.

Routing is RouterRetriever's (Lee et al. 2024, 2409.02685): the training queries of every source domain are grouped by
the expert that does best on each; a group's centroid, of embeddings of the base model, is a pilot. A new query goes to
the expert whose pilots it is most like. Documents are encoded alike whatever the expert, so that one index serves all.
Likeness of prompts is SPoT's (Vu et al. 2022, 2110.07904).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from sentence_transformers import SentenceTransformer
from torch import Tensor

from foreword.collections.collection import Collection
from foreword.errors import DataError, ForewordError, PromptError
from foreword.evaluation.measures import evaluate_run
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.prompt import Prompt
from foreword.prompts.store import StoredPrompt
from foreword.retrieval.search import exact_search
from foreword.settings import Precision
from foreword.training.vectors import DocumentVectors
from foreword.transferring.config import Similarity
from foreword.transferring.reach import Array, similarity, softmax_weights, unit_rows

MEASURE = "nDCG@10"


@dataclass(frozen=True)
class PilotLibrary:
    """Pilots, by which queries are routed.

    Attributes:
        pilots: (P, d'), of unit length: centroids of base embeddings of queries.
        experts: the expert that each pilot stands for, a source's name.
        sources: the domain that each pilot's queries come from.
        counts: the queries behind each pilot.
    """

    pilots: Array
    experts: tuple[str, ...]
    sources: tuple[str, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        lengths = {len(self.experts), len(self.sources), len(self.counts)}
        if self.pilots.ndim != 2 or lengths != {len(self.pilots)} or not self.experts:
            raise ForewordError(
                f"pilots of shape {self.pilots.shape} for {len(self.experts)} experts, {len(self.sources)} sources and "
                f"{len(self.counts)} counts; expected one of each for every pilot, and one pilot at least"
            )


def build_pilots(
    encoder: SentenceTransformer,
    bank: Mapping[str, StoredPrompt],
    sources: Mapping[str, Collection],
    documents: Mapping[str, DocumentVectors],
    *,
    limit: int = 500,
    seed: int = 0,
    precision: Precision = "float32",
    query_length: int | None = 64,
    quiet: bool = False,
) -> PilotLibrary:
    """A pilot for every source domain and every expert that is best on some of its training queries.

    Best is the highest nDCG@10, of equal ones the greatest margin of a relevant document over the others, and then
    the first by name. (nDCG@10 ties often: without the margin, the first expert would take every query that all of
    them answer or none does.) An expert that is best on no query gets no pilot and is never chosen.

    Args:
        encoder: from `load_encoder`; the bank's prompts are added to it under their names.
        bank: the experts, which encode documents alike.
        sources: domains with a train split, the target not among them; a multitask expert needs none of its own.
        documents: domain -> its corpus embedded as the experts do, in which its queries search.
        limit: training queries of a domain that are looked at, at most.
        precision: of the forward passes.
        query_length: tokens a query is cut to.

    Raises:
        DataError: a domain without training queries, or whose vectors lack a relevant document or are another model's.
        ForewordError: no sources, or `limit` below 1.
    """
    if not sources or limit < 1:
        raise ForewordError(f"{len(sources)} source domains, limit {limit}; expected at least 1 of each")
    for name, stored in bank.items():
        transformer_of(encoder).add(name, stored.prompt)
    how: dict[str, Any] = {"precision": precision, "max_length": query_length, "quiet": quiet}
    made: list[tuple[Array, str, str, int]] = []
    for source, collection in sorted(sources.items()):
        asked, relevant = _drawn(collection, limit, seed)
        vectors = documents[source].checked(encoder)
        missing = sorted({doc_id for answers in relevant.values() for doc_id in answers}.difference(vectors.doc_ids))
        if missing:
            raise DataError(
                f"{collection.id}: {len(missing)} relevant documents have no vector, such as {missing[0]!r}; give "
                "vectors of the corpus that the training pairs are about"
            )
        by_expert = {name: encode(encoder, asked, "query", route=name, **how) for name in sorted(bank)}
        chosen = _best_experts(by_expert, relevant, vectors, exclude_self=collection.exclude_self)
        features = unit_rows(encode(encoder, asked, "query", route=None, **how))
        for expert in by_expert:
            own = [row for row, name in enumerate(chosen) if name == expert]
            if own:
                made.append((features[own].mean(axis=0), expert, source, len(own)))
    pilots, names, origins, counts = zip(*made, strict=True)
    return PilotLibrary(unit_rows(np.stack(pilots)), names, origins, counts)


def route_queries(library: PilotLibrary, query_vectors: np.ndarray[Any, Any]) -> list[str]:
    """The expert of each query: the one to whose pilots its base embedding is most similar (mean cosine).

    Args:
        library: from `build_pilots`.
        query_vectors: (Q, d') embeddings by the base model: `encode(encoder, texts, "query", route=None)`.

    Returns:
        Q names; of equally similar experts the first by name.

    Raises:
        ForewordError: another width than the pilots'.
    """
    if query_vectors.ndim != 2 or query_vectors.shape[1] != library.pilots.shape[1]:
        raise ForewordError(
            f"query vectors of shape {query_vectors.shape} for pilots of {library.pilots.shape[1]} numbers; expected "
            "rows of as many, from the same base model"
        )
    products = unit_rows(query_vectors) @ unit_rows(library.pilots).T  # (Q, P)
    experts = sorted(set(library.experts))
    of_expert = [products[:, [name == expert for name in library.experts]] for expert in experts]
    scores = np.stack([own.mean(axis=1) for own in of_expert])
    return [experts[place] for place in scores.argmax(axis=0)]


def _drawn(collection: Collection, limit: int, seed: int) -> tuple[list[str], dict[str, dict[str, str]]]:
    """A seeded choice of training queries, whatever their order: their texts; by id, their relevant documents."""
    texts: dict[str, str] = {}
    relevant: dict[str, dict[str, str]] = {}
    for pair in collection.pairs("train", hard_negatives=0):
        texts[pair.query_id] = pair.query
        relevant.setdefault(pair.query_id, {})[pair.doc_id] = pair.document
    if not texts:
        raise DataError(f"{collection.id} has no training queries, so it gives no pilots; leave it out")
    ids = sorted(texts)
    drawn = [ids[i] for i in sorted(np.random.default_rng(seed).permutation(len(ids))[:limit])]
    return [texts[query_id] for query_id in drawn], {query_id: relevant[query_id] for query_id in drawn}


def _best_experts(
    by_expert: Mapping[str, Array],
    relevant: Mapping[str, Mapping[str, str]],
    documents: DocumentVectors,
    *,
    exclude_self: bool,
) -> list[str]:
    """For each query the expert, of those that embedded it, that is best on it; see `build_pilots`."""
    places = {doc_id: place for place, doc_id in enumerate(documents.doc_ids)}
    qrels = {query_id: dict.fromkeys(answers, 1) for query_id, answers in relevant.items()}

    def margin(vector: Array, query_id: str) -> float:
        """The score of the best relevant document less that of the best other one."""
        scores = np.asarray(documents.vectors @ vector, dtype=np.float64)
        own = [places[doc_id] for doc_id in qrels[query_id]]
        best = scores[own].max()
        scores[[*own, *([places[query_id]] if exclude_self and query_id in places else [])]] = -np.inf
        return float(best - scores.max()) if np.isfinite(scores).any() else 0.0

    ranks: dict[str, list[tuple[float, float]]] = {}  # by expert and query: what is to be greatest
    for expert, vectors in by_expert.items():
        how: dict[str, Any] = {"document_ids": documents.doc_ids, "exclude_self": exclude_self}
        run = exact_search(vectors, list(qrels), documents.vectors, 10, **how)
        gains = evaluate_run(run, qrels, [MEASURE]).per_query[MEASURE]
        ranks[expert] = [(gains[query], margin(vector, query)) for query, vector in zip(qrels, vectors, strict=True)]
    return [max(ranks, key=lambda expert: ranks[expert][row]) for row in range(len(qrels))]


# How alike two domains are, by the prompts trained for them.
#
# SPoT takes a task's prompt as the task's embedding. Its prompts are n vectors before the text; those here lie in every
# layer, so token i is what vector i is to all layers together: its key and its value by layer, side by side. Of `gated`
# prompts it is the value times the gate of each head, since it never acts without: -g * -v is g * v.
# Prompts trained from one start share nearly all of it, which makes all of them alike. Given the start, what is
# compared is how each of them moved away from it.


AnyPrompt = Prompt | StoredPrompt


def prompt_tokens(prompt: AnyPrompt, *, start: AnyPrompt | None = None) -> Array:
    """The n tokens of a prompt's query part, (n, w), less those of `start` where it is given.

    w is d for `input` prompts, 2 L G h for `prefix` and L (G + H) h for `gated` ones (see `foreword.prompts.prompt`).
    `memory` prompts have n + m, those beside feed-forward parts after the others; w is 2 L G h + 2 L d, columns of
    either place apart, with 0 in the other's.

    Args:
        prompt: of any kind.
        start: what it was trained from; its sides may be others.

    Raises:
        PromptError: prompt and start differ in structure.
    """
    found = []
    for given in (prompt, start) if start is not None else (prompt,):
        own = given.prompt if isinstance(given, StoredPrompt) else given
        tensors = {name: tensor.detach().double().cpu() for name, tensor in (own.part("query") or {}).items()}
        found.append(own.kind.spots(tensors))
    _check_alike(found[0], found[-1], "the prompt and its start")
    tokens = found[0] - found[1] if start is not None else found[0]
    return np.asarray(tokens.numpy(), dtype=np.float32)


def prompt_similarity(
    a: AnyPrompt, b: AnyPrompt, method: Similarity = "mean", *, start: AnyPrompt | None = None
) -> float:
    """Likeness of two prompts, from -1 to 1; 0 where one of them did not move from `start` at all.

    Args:
        a: one prompt.
        b: another of the same length and layers.
        method: SPoT's two: `mean`, the cosine of the mean tokens; `pairwise`, the mean cosine over all pairs of a
            token of the one and a token of the other. Neither depends on the order of the tokens.
        start: what both were trained from, to compare how they moved; None: to compare the prompts as they are.

    Raises:
        PromptError: the prompts differ in structure.
        ForewordError: no such method.
    """
    if method not in get_args(Similarity):
        raise ForewordError(f"similarity method is {method!r}; expected one of {', '.join(get_args(Similarity))}")
    ours, theirs = (prompt_tokens(prompt, start=start) for prompt in (a, b))
    _check_alike(ours, theirs, "the two prompts")
    if method == "mean":
        ours, theirs = (tokens.mean(axis=0, keepdims=True) for tokens in (ours, theirs))
    return similarity(unit_rows(ours), unit_rows(theirs), "pairwise")  # rows of zeros give 0


def spot_weights(
    target: AnyPrompt,
    bank: Mapping[str, StoredPrompt],
    top_k: int = 5,
    temperature: float = 0.1,
    *,
    start: AnyPrompt | None = None,
) -> dict[str, float]:
    """Weights of the `top_k` sources whose prompts are most like the target's; they add up to 1.

    SPoT begins the target's prompt with the best of the top k, or with their average weighted by the similarities
    themselves, and goes on training it. The weights here are `softmax(similarity / temperature)`, as for similarity
    of documents (a cosine may be negative); with `top_k` 1 it is the nearest source alone, as in the paper.

    Args:
        target: a prompt trained on the target; where it has no labels, on its pseudo-queries, from the shared start.
        bank: the sources. The start itself has similarity 0 to everything, since it did not move; leave it out.
        temperature: of the softmax.
        start: what all were trained from.

    Raises:
        PromptError: as `prompt_similarity`, or the target's prompt is the start itself, which is like none.
    """
    if start is not None and not prompt_tokens(target, start=start).any():
        raise PromptError(
            "the target's prompt is still the start (no step of its training was kept), so it is like no source more "
            "than another; train it for longer, or weigh the sources alike"
        )
    alike = {name: prompt_similarity(target, source, start=start) for name, source in bank.items()}
    return softmax_weights(alike, top_k=top_k, temperature=temperature)


def _check_alike(a: Tensor | Array, b: Tensor | Array, which: str) -> None:
    if a.shape != b.shape:
        raise PromptError(
            f"{which} differ in structure: tokens of shape {tuple(a.shape)} and {tuple(b.shape)}; compare prompts of "
            "one kind, length and number of layers"
        )
