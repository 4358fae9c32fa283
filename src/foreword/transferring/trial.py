"""Try a bank's prompts on a target: the base model, prompts alone and the fitted mixture, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from foreword.common.errors import DataError, ForewordError, PromptError
from foreword.evaluation.candidates import document_key
from foreword.evaluation.measures import evaluate_run
from foreword.evaluation.significance import bootstrap_interval
from foreword.prompts.routes import Route, Weight
from foreword.prompts.store import StoredPrompt
from foreword.retrieval.search import dense_run
from foreword.training.vectors import DocumentVectors, embed_documents
from foreword.transferring.advice import Compared
from foreword.transferring.combine import check_mixable, shared_document_source
from foreword.transferring.comparison import compare, fit_mixture, pseudo_material
from foreword.transferring.decision import route_of
from foreword.transferring.evidence import Basis, Gain
from foreword.transferring.fit import FitConfig
from foreword.transferring.reach import nearness, source_domains
from foreword.transferring.sample import Sample
from foreword.transferring.similarity import Array

MEASURE = "nDCG@10"
BASE, FITTED = "base", "fitted"
"""Candidates that are not prompts of the bank."""


@dataclass(frozen=True)
class AdviceConfig:
    """How much is looked at.

    Attributes:
        documents: of the target, at most; a seeded sample of more.
        queries: labelled queries, at most.
        prompts: of the bank that are tried alone, at most: those whose own documents are nearest to the target's.
        labels: split whose labels are looked at: `dev` or `train`; `none`; None: dev, else train. Never test.
        pseudo: how pseudo-queries are made, see `foreword.collections.pseudo`.
        seconds: to stay within, by looking at less, as the machine's speed allows; None: whatever it takes. Under
            a budget, equal runs may look at different samples.
        seed: of the samples.
        fit: how a mixture is fitted and candidates compared.
    """

    documents: int = 2000
    queries: int = 200
    prompts: int = 4
    labels: str | None = None
    pseudo: str = "auto"
    seconds: float | None = None
    seed: int = 0
    fit: FitConfig = field(default_factory=FitConfig)

    def __post_init__(self) -> None:
        if min(self.documents, self.queries, self.prompts) < 1 or (self.seconds is not None and self.seconds <= 0):
            raise ForewordError(
                f"documents {self.documents}, queries {self.queries}, prompts {self.prompts}, seconds {self.seconds}: "
                "expected at least 1 of each, and more than 0 seconds"
            )

    def as_dict(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Trial:
    """Candidates by name, and their scores by query; `weights` are the fitted mixture's."""

    routes: Mapping[str, Route]
    weights: Mapping[str, Weight]
    pseudo: Mapping[str, Mapping[str, float]]
    labels: Mapping[str, Mapping[str, float]]


def nearest_prompts(
    bank: Mapping[str, StoredPrompt], own: Array, features: Mapping[str, Array], most: int, notes: list[str]
) -> list[str]:
    """The prompts to try alone: those whose own training documents are nearest to the target's, each value once.

    One trained on several domains has the documents of all.

    Args:
        bank: the prompts.
        own: the target's document features.
        features: the domains'.
        most: prompts to give, at most.
        notes: what is left out is added here.
    """
    first: dict[str, str] = {}
    for name, stored in bank.items():
        first.setdefault(stored.prompt.digest(), name)
    if copies := [name for name in bank if name not in first.values()]:
        notes.append(f"equal to another prompt, value by value, so not tried alone: {', '.join(copies)}")
    distinct = {name: bank[name] for name in first.values()}
    if len(distinct) <= most:
        return list(distinct)
    near: dict[str, float] = {}
    for name, stored in distinct.items():
        trained = StoredPrompt(stored.prompt, {"data": stored.card.get("data") or {}})  # not what it started from
        known = [features[domain] for domain in source_domains({name: trained}) if domain in features]
        near[name] = nearness(own, known) if known else -1.0
    kept = sorted(near, key=lambda name: (-near[name], name))[:most]
    notes.append(f"of the bank's {len(distinct)} prompts, the nearest {most} are tried alone: {', '.join(kept)}")
    return kept


def try_prompts(
    encoder: SentenceTransformer,
    sample: Sample,
    labelled: Sample | None,
    bank: Mapping[str, StoredPrompt],
    names: Sequence[str],
    config: AdviceConfig,
    notes: list[str],
    quiet: bool,
) -> Trial:
    """Score the base model, prompts alone and the fitted mixture."""
    routes: dict[str, Route] = {BASE: None, **{name: name for name in names}}
    weights: dict[str, Weight] = {}
    pseudo: dict[str, dict[str, float]] = {}
    try:
        fitting, checks = pseudo_material(sample.collection, config.pseudo, config.fit)
    except DataError as error:
        notes.append(f"no pseudo-queries are compared on, and no mixture is fitted: {error}")
    else:
        try:
            check_mixable(bank)
        except PromptError as error:
            notes.append(f"no mixture is fitted: {error}")
        else:
            weights = dict(fit_mixture(encoder, bank, fitting, config.fit, quiet=quiet).weights)
            routes[FITTED] = route_of(weights, shared_document_source(bank))
        pseudo = compare(encoder, routes, checks, config.fit)
    labels: dict[str, Mapping[str, float]] = {}
    if labelled is not None:
        labels = _on_labels(encoder, labelled, routes, config.fit)
        if labelled.documents < labelled.of:
            notes.append(
                f"labelled queries search {labelled.documents} of {labelled.of} documents, all relevant ones among "
                f"them, so {MEASURE} is higher than on all"
            )
        notes.append(
            "the candidate was chosen on the labelled queries that its gain is given for, so that is a bit high"
        )
    return Trial(routes, weights, pseudo, labels)


def _on_labels(
    encoder: SentenceTransformer, labelled: Sample, routes: Mapping[str, Route], config: FitConfig
) -> dict[str, Mapping[str, float]]:
    """nDCG@10 by route and labelled query; documents are embedded once for all routes that encode them alike."""
    target = labelled.collection
    [split] = target.splits
    queries, qrels = list(target.queries(split)), target.qrels(split)
    embedded: dict[str, DocumentVectors] = {}
    scores: dict[str, Mapping[str, float]] = {}
    how: dict[str, Any] = {"precision": config.precision, "quiet": True}
    for name, route in routes.items():
        key = document_key(encoder, route)
        if key not in embedded:
            embedded[key] = embed_documents(encoder, target, route=route, max_length=config.document_length, **how)
        vectors = (embedded[key].doc_ids, embedded[key].vectors)
        run = dense_run(
            encoder, target, queries, route=route, vectors=vectors, k=10, query_length=config.query_length, **how
        )
        scores[name] = evaluate_run(run, qrels, [MEASURE]).per_query[MEASURE]
    return scores


def compared_candidates(trial: Trial, seed: int) -> list[Compared]:
    """Every candidate's means and gains, the base model first; none that was measured on nothing."""
    kinds: dict[Basis, Mapping[str, Mapping[str, float]]] = {"pseudo-queries": trial.pseudo, "labels": trial.labels}
    made = []
    for name in trial.routes:
        found: dict[str, Any] = {}
        for basis, scores in kinds.items():
            if not scores:
                continue
            key = "labels" if basis == "labels" else "pseudo"
            found[key] = float(np.mean(list(scores[name].values())))
            if name != BASE:
                low, high = bootstrap_interval(scores[name], scores[BASE], seed=seed)
                base = float(np.mean(list(scores[BASE].values())))
                found[f"{key}_gain"] = Gain(found[key] - base, low, high, basis, len(scores[name]))
        if found:
            made.append(Compared(name, **found))
    return made
