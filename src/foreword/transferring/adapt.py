"""Adapt a prompt to a domain's own text without its labels, half-way.

The prompt is trained further on pseudo-queries of the domain's documents, and averaged with what it was before. Pseudo-
queries are not queries: what they teach of a domain's words is worth having, what they teach of what a query looks
like is not. The average of a model before and after fine-tuning keeps much of both (Wortsman et al., "Robust
fine-tuning of zero-shot models", 2022); prompts with one start may be averaged (Belanec et al., "Task Prompt Vectors",
2024).

What helps near domains harms others, so the result is compared with the base model before it is used: on pseudo-queries
of kinds that it did not learn from, of documents that it did not learn from.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from foreword.collections.collection import Collection, TrainingPair, normalise
from foreword.collections.pseudo import MIXED, frequencies_for, pseudo_pairs
from foreword.collections.supervision import position
from foreword.collections.views import Unlabelled
from foreword.errors import ForewordError, NoGainError, OtherTrainingError, TooLittleTextError
from foreword.evaluation.measures import bootstrap_interval
from foreword.files import rounded
from foreword.prompts.encoder import transformer_of
from foreword.prompts.prompt import Prompt
from foreword.prompts.store import StoredPrompt, load_prompt, save_prompt
from foreword.retrieval.search import exact_search
from foreword.training.train import train
from foreword.transferring.config import AdaptConfig
from foreword.transferring.fit import embed, pseudo_scores

TEACHER = "(before adaptation)"
"""The name under which the encoder carries the prompt that pseudo-queries are filtered by."""

CANDIDATE = "(to be proven)"
"""The name under which it carries the prompt that is compared with the base model."""

FEWEST = 64
"""Pseudo-queries that adaptation needs."""

ALIKE = 10
"""Documents that may have one title for it to be a query; a title of more is a heading such as "Introduction"."""


def adaptation_pairs(
    encoder: SentenceTransformer, target: Collection, teacher: StoredPrompt, config: AdaptConfig
) -> tuple[list[TrainingPair], dict[str, int]]:
    """Pseudo-queries of a target whose documents a prompt finds; with counts of what was dropped.

    A title that up to `ALIKE` documents have is a query that all of them answer, as the answers to one question of a
    forum do; it is enough that the prompt finds one of them. Any other text that several documents give is nobody's
    query. Only documents are looked at.
    """
    frequencies = frequencies_for(config.pseudo, target.documents())
    made = list(pseudo_pairs(target.documents(), config.pseudo, config.seed, frequencies=frequencies))[: config.most]
    titles = {document.doc_id: normalise(document.title) for document in target.documents()}
    groups: dict[str, list[TrainingPair]] = {}
    for pair in made:
        groups.setdefault(normalise(pair.query), []).append(pair)
    kept = {
        query: pairs
        for query, pairs in groups.items()
        if len(pairs) == 1 or (len(pairs) <= ALIKE and all(titles[pair.doc_id] == query for pair in pairs))
    }
    # One query for a group, so that its documents are no negatives of one another.
    pairs = [
        replace(p, query_id=first.query_id, query=first.query) for first, *rest in kept.values() for p in (first, *rest)
    ]
    counts = {"made": len(made), "repeated": len(made) - len(pairs)}
    if not config.agree or not pairs:
        return pairs, {**counts, "kept": len(pairs)}
    transformer = transformer_of(encoder)
    transformer.add(TEACHER, teacher.prompt)
    try:
        queries = embed(encoder, [pair.query for pair in pairs], "query", TEACHER, config)
        documents = embed(encoder, [pair.document for pair in pairs], "document", TEACHER, config)
    finally:
        transformer.remove(TEACHER)
    ids = [pair.doc_id for pair in pairs]
    relevant: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        relevant[pair.query_id].add(pair.doc_id)
    run = exact_search(queries, ids, documents, config.agree, document_ids=ids)  # a pair is known by its document
    found = [pair for pair in pairs if relevant[pair.query_id] & run[pair.doc_id].keys()]
    return found, {**counts, "not_found": len(pairs) - len(found), "kept": len(found)}


FEWEST_PROOFS = 10
"""Pseudo-queries of a kind that a proof needs."""


def kept_back(target: Collection, config: AdaptConfig) -> frozenset[str]:
    """The documents that the result is proven on: a fifth of them or `proofs`, those first in a seeded order."""
    if not config.prove:
        return frozenset()
    places = {doc.doc_id: position(doc.doc_id, "proof", config.seed) for doc in target.documents()}
    return frozenset(
        sorted(places, key=lambda doc_id: (places[doc_id], doc_id))[: min(config.proofs, len(places) // 5)]
    )


def proof_pairs(target: Collection, doc_ids: AbstractSet[str], config: AdaptConfig) -> dict[str, list[TrainingPair]]:
    """Pseudo-queries of these documents, by kind: those that adaptation does not learn from (all, for `mixed`)."""
    learnt = "auto" if config.pseudo in ("title", "first-sentence") else config.pseudo
    documents = [doc for doc in target.documents() if doc.doc_id in doc_ids]
    found: dict[str, list[TrainingPair]] = {}
    for kind in MIXED:
        counted = frequencies_for(kind, target.documents())
        pairs = list(pseudo_pairs(documents, kind, config.seed, frequencies=counted)) if kind != learnt else []
        if len(pairs) >= FEWEST_PROOFS:
            found[kind] = pairs
    return found


def prove(
    encoder: SentenceTransformer,
    prompt: Prompt,
    checks: Mapping[str, Sequence[TrainingPair]],
    config: AdaptConfig,
) -> dict[str, dict[str, float]]:
    """nDCG@10 of the base model and of a prompt by kind of pseudo-query, where the prompt is better.

    It is where its mean over the kinds is higher, and for none the 95 % interval of the difference is below 0. To ask
    that the whole interval be above 0 would refuse most of what helps: a prompt that gained .09 on the queries of
    `pydoc/huggingface_hub` gained .001 on 77 of its spans and .023 on 79 of its key phrases.

    Raises:
        NoGainError: it is not.
        TooLittleTextError: there is nothing to compare on.
    """
    if not checks:
        raise TooLittleTextError(
            f"no kind of pseudo-query is there {FEWEST_PROOFS} times among the documents kept back, so nothing can be "
            "compared with the base model"
        )
    transformer = transformer_of(encoder)
    transformer.add(CANDIDATE, prompt)
    try:
        scores = {
            (kind, name): pseudo_scores(encoder, route, pairs, config)
            for kind, pairs in checks.items()
            for name, route in (("base", None), ("adapted", CANDIDATE))
        }
    finally:
        transformer.remove(CANDIDATE)
    means = {
        kind: {name: float(np.mean(list(scores[kind, name].values()))) for name in ("base", "adapted")}
        for kind in checks
    }
    gain = float(np.mean([mean["adapted"] - mean["base"] for mean in means.values()]))
    intervals = [bootstrap_interval(scores[kind, "adapted"], scores[kind, "base"], seed=config.seed) for kind in checks]
    if gain <= 0 or any(high < 0 for _, high in intervals):
        said = ", ".join(
            f"{mean['adapted']:.3f} with it and {mean['base']:.3f} without ({kind})" for kind, mean in means.items()
        )
        raise NoGainError(
            "the adapted prompt is no better than the base model: on pseudo-queries that it did not learn from, "
            f"nDCG@10 is {said}"
        )
    return {kind: rounded(mean) for kind, mean in means.items()}


def adapt(
    encoder: SentenceTransformer,
    target: Collection,
    start: StoredPrompt,
    output: str | Path,
    config: AdaptConfig | None = None,
    *,
    domain: str | None = None,
    quiet: bool = False,
) -> StoredPrompt:
    """Adapt a prompt that encodes both sides to a target's text, and store it.

    A few labels come after it: `foreword.training.train.train_few` with the result as its start.

    Args:
        encoder: from `foreword.load_encoder`.
        target: its documents alone are looked at; its test queries never.
        start: the prompt, e.g. a multitask one; its structure is kept, so queries cost what they did.
        output: the prompt's folder; in it `adapted`, the prompt that was trained all the way. A training of the same
            settings found there is gone on with, or taken as it is; one of others is replaced.
        domain: its name; None: the target's id.

    Raises:
        TooLittleTextError: the target's text gives too few pseudo-queries.
        NoGainError: the result is no better than the base model; only `adapted` is stored.
        PromptError: `start` has no document side, or does not fit the backbone.
    """
    config = config or AdaptConfig()
    began = time.perf_counter()
    held = kept_back(target, config)
    pairs, counts = adaptation_pairs(encoder, Unlabelled(target), start, config)
    pairs = [pair for pair in pairs if pair.doc_id not in held]
    counts["learnt"] = len(pairs)
    if len(pairs) < FEWEST:
        raise TooLittleTextError(
            f"{target.id} gives {len(pairs)} pseudo-queries that the prompt finds the documents of ({counts}); "
            f"adaptation needs {FEWEST} at least"
        )
    output = Path(output)
    how: dict[str, Any] = {"domain": domain or target.id, "config": config.training(), "start": start}
    how |= {"pairs": {target.id: pairs}, "quiet": quiet}
    try:
        stored = train(encoder, Unlabelled(target), output / "adapted", **how)
    except OtherTrainingError:  # of other settings, another start, or other text
        stored = train(encoder, Unlabelled(target), output / "adapted", resume=False, **how)
    prompt = averaged(start.prompt, stored.prompt, config.share)
    proof = prove(encoder, prompt, proof_pairs(Unlabelled(target), held, config), config) if config.prove else None
    kept = ("start", "start_digest", "training", "data", "metrics", "text", "trained_parameters")
    record = {key: stored.card[key] for key in kept if key in stored.card}
    record["supervision"] = {"method": "pseudo-queries", "train_queries": len(pairs), **counts}
    record["adaptation"] = {**asdict(config), "pairs": counts, "proof": proof}
    run = {"seconds": round(time.perf_counter() - began, 2)}
    save_prompt(output, prompt, encoder, domain or target.id, record=record, run=run)
    return load_prompt(output, encoder)


def averaged(before: Prompt, after: Prompt, share: float) -> Prompt:
    """`(1 - share) * before + share * after`, of two prompts of one structure, the second trained from the first."""
    if before.spec != after.spec:
        raise ForewordError(f"the prompts differ in structure: {before.spec} and {after.spec}")
    ours, theirs = before.tensors(), after.tensors()
    return Prompt(before.spec, {name: (1 - share) * ours[name] + share * theirs[name] for name in ours})
