"""Give a domain without labels a retriever made of other domains' prompts, or say that the base model is better."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from sentence_transformers import SentenceTransformer

from foreword.collections.records import Collection
from foreword.collections.unions import overlap
from foreword.collections.unlabelled import Unlabelled
from foreword.common.errors import ForewordError, PromptError
from foreword.evaluation.significance import paired_randomization
from foreword.prompts.encoder import transformer_of
from foreword.prompts.prompt import Prompt
from foreword.prompts.routes import Route, Routes
from foreword.prompts.store import StoredPrompt, trained_on
from foreword.transferring.combine import (
    average_prompts,
    check_mixable,
    shared_document_source,
    uniform_weights,
)
from foreword.transferring.comparison import compare, fit_mixture, pseudo_material
from foreword.transferring.fit import FitConfig
from foreword.transferring.reach import Reach, reach_of, source_domains
from foreword.transferring.similarity import Array, Method, document_features, similarity, softmax_weights

Combination = Literal["fitted", "uniform", "similarity", "best-single", "average"]


@dataclass(frozen=True)
class TransferConfig:
    """How sources are combined for a target.

    Attributes:
        method: `fitted`, weights fitted on the target's pseudo-queries; `uniform`; `similarity`, softmax over the
            similarity of documents; `best-single`, the source that is best on pseudo-queries; `average`, the mean
            of the parameters (one start only), weighted by similarity.
        similarity: see `foreword.transferring.similarity.similarity`.
        top_k: sources that `similarity` and `average` weigh.
        temperature: of their softmax.
        sample: documents of each domain that similarity looks at.
        pseudo: how pseudo-queries are made, see `foreword.collections.pseudo`.
        fit: how weights are fitted and candidates compared.
        reach: a target that lies out of the bank's reach (see `foreword.transferring.reach`) is advised against,
            where documents of the sources are known; None: for `fitted` alone, since the others are controls.
    """

    method: Combination = "fitted"
    similarity: Method = "mean"
    top_k: int = 5
    temperature: float = 0.1
    sample: int = 500
    pseudo: str = "auto"
    fit: FitConfig = field(default_factory=FitConfig)
    reach: bool | None = None

    @property
    def checks_reach(self) -> bool:
        """Whether the target's reach is looked at."""
        return self.method == "fitted" if self.reach is None else self.reach

    def __post_init__(self) -> None:
        if self.method not in get_args(Combination):
            raise ForewordError(f"method is {self.method!r}; expected one of {', '.join(get_args(Combination))}")
        if self.top_k < 1 or self.sample < 1 or not self.temperature > 0:
            raise ForewordError(
                f"top_k {self.top_k}, sample {self.sample}, temperature {self.temperature}: expected at least 1, at "
                "least 1 and above 0"
            )


@dataclass(frozen=True)
class Transfer:
    """What was decided for a target.

    Attributes:
        target: its id.
        method: how the sources were combined.
        weights: of the sources; empty: the base model, no prompt.
        advice: `transfer`, or `don't transfer`.
        reason: in a sentence.
        similarities: source -> similarity to the target, where it was looked at.
        pseudo: candidate -> mean nDCG@10 on held-out pseudo-queries, where it was looked at.
        document: the one source that encodes documents; None: the mixture does (or the base model, for sources
            that have no document side).
        prompt: for `average`, the averaged prompt.
        reach: how near the target is to the bank; None: not looked at, or no source's documents are known.
        seconds: it took.
    """

    target: str
    method: str
    weights: Mapping[str, float]
    advice: str
    reason: str
    similarities: Mapping[str, float] = field(default_factory=dict)
    pseudo: Mapping[str, float] = field(default_factory=dict)
    document: str | None = None
    prompt: Prompt | None = None
    reach: Reach | None = None
    seconds: float = 0.0

    @property
    def route(self) -> Route:
        """For an encoder that carries the sources under their names; None: the base model."""
        if self.prompt is not None:
            return average_name(self.target)
        return route_of(self.weights, self.document)

    def as_dict(self) -> dict[str, Any]:
        """The decision as JSON values."""
        return {
            "target": self.target,
            "method": self.method,
            "weights": dict(self.weights),
            "document": self.document,
            "advice": self.advice,
            "reason": self.reason,
            "similarities": {name: round(value, 6) for name, value in self.similarities.items()},
            "reach": None if self.reach is None else self.reach.as_dict(),
            "pseudo_nDCG@10": {name: round(value, 6) for name, value in self.pseudo.items()},
            "seconds": round(self.seconds, 2),
        }


def average_name(target: str) -> str:
    """The name under which an encoder carries the average made for a target."""
    return f"average for {target}"


def route_of(weights: Mapping[str, float], document: str | None) -> Route:
    """The route of a mixture whose documents are encoded by `document` (None: by the mixture); None when empty."""
    if not weights:
        return None
    return weights if document is None else Routes(weights, document)


def has_seen(stored: StoredPrompt, target: str) -> bool:
    """Whether a source, or what it started from, was trained on the target, a part of it, or a fold of it."""
    return any(overlap(name, target) for name in trained_on(stored.card))


def transfer(
    encoder: SentenceTransformer,
    target: Collection,
    bank: Mapping[str, StoredPrompt],
    config: TransferConfig | None = None,
    *,
    sources: Mapping[str, Collection] | None = None,
    features: Mapping[str, Array] | None = None,
    quiet: bool = False,
) -> Transfer:
    """Combine the prompts of `bank` for a target, of which only the documents are looked at.

    Args:
        encoder: from `foreword.load_encoder`; the bank's prompts are added to it under their names.
        target: the domain without labels.
        bank: source prompts by name; gated ones, except for `average`.
        config: the settings; None: weights fitted on pseudo-queries.
        sources: the sources' collections, for `similarity` and `average`, and for the reach.
        features: document features by domain id (see `document_features`), where they are there already; a bank's
            own are in its folder, see `foreword.transferring.features`.
        quiet: no progress bars.

    Raises:
        PromptError: prompts that cannot be mixed, or averaged.
        ForewordError: similarity asked for without the sources' documents.
    """
    config = config or TransferConfig()
    if not bank:
        raise PromptError("no source prompts to transfer from")
    seen = [name for name, stored in bank.items() if has_seen(stored, target.id)]
    if seen:
        raise PromptError(f"{', '.join(seen)}: trained on {target.id} itself, so no transfer to it; leave it out")
    target = Unlabelled(target)
    began = time.perf_counter()
    transformer = transformer_of(encoder)
    if config.method != "average":
        check_mixable(bank)
    for name, stored in bank.items():
        transformer.add(name, stored.prompt)
    known: dict[str, Array] = {}
    domains = source_domains(bank) if config.checks_reach else []
    if domains or config.method in ("similarity", "average"):
        known = _known(encoder, target, [*bank, *domains], config, sources or {}, features or {}, quiet)
    of_sources = {name: known[name] for name in domains if name in known}
    reach = reach_of(known[target.id], of_sources) if of_sources else None
    result: dict[str, Any]
    if reach is not None and not reach.within:
        result = {"weights": {}, "advice": "don't transfer", "reason": reach.said(target.id)}
    elif config.method == "uniform":
        result = {
            "weights": uniform_weights(bank),
            "advice": "transfer",
            "reason": "every source alike, unchecked",
        }
    elif config.method in ("similarity", "average"):
        result = _by_similarity(target, bank, config, known)
    else:
        result = _by_pseudo_queries(encoder, target, bank, config, quiet)
    if reach is not None and reach.limit is None:
        result["reason"] += f"; {reach.said(target.id)}"
    if "prompt" in result:
        transformer.add(average_name(target.id), result["prompt"])
    document = shared_document_source(bank) if config.method != "average" and result["weights"] else None
    seconds = time.perf_counter() - began
    return Transfer(target.id, config.method, document=document, reach=reach, seconds=seconds, **result)


def _known(
    encoder: SentenceTransformer,
    target: Collection,
    names: Iterable[str],
    config: TransferConfig,
    sources: Mapping[str, Collection],
    features: Mapping[str, Array],
    quiet: bool,
) -> dict[str, Array]:
    """Document features of the sources that have any, and of the target; nothing where no source has."""
    asked = list(dict.fromkeys(names))
    known = {name: features[name] for name in asked if name in features}
    missing = {name: sources[name] for name in asked if name in sources and name not in known}
    if known or missing:
        missing |= {} if target.id in features else {target.id: target}
        known |= {target.id: features[target.id]} if target.id in features else {}
    for name, collection in missing.items():
        known[name] = document_features(
            encoder,
            collection,
            limit=config.sample,
            precision=config.fit.precision,
            max_length=config.fit.document_length,
            quiet=quiet,
        )
    return known


def _by_similarity(
    target: Collection, bank: Mapping[str, StoredPrompt], config: TransferConfig, known: Mapping[str, Array]
) -> dict[str, Any]:
    comparable = [name for name in bank if name in known]
    if not comparable:
        raise ForewordError("similarity needs the documents of the sources; none of the bank's domains gave any")
    alike = {name: similarity(known[target.id], known[name], config.similarity) for name in comparable}
    weights = softmax_weights(alike, top_k=config.top_k, temperature=config.temperature)
    best = max(alike, key=lambda name: alike[name])
    others = [name for name in bank if name not in known]  # a multitask prompt has no documents of its own
    without = f"; without {', '.join(others)}, of which no documents are known" if others else ""
    result: dict[str, Any] = {
        "weights": weights,
        "similarities": alike,
        "advice": "transfer",
        "reason": f"weighed by similarity of documents (nearest: {best}, {alike[best]:.2f}), unchecked{without}",
    }
    if config.method == "average":
        result["prompt"] = average_prompts(bank, weights)
    return result


def _by_pseudo_queries(
    encoder: SentenceTransformer,
    target: Collection,
    bank: Mapping[str, StoredPrompt],
    config: TransferConfig,
    quiet: bool,
) -> dict[str, Any]:
    """Candidates compared on held-out pseudo-queries; the base model wins unless one is better."""
    fitting, checks = pseudo_material(target, config.pseudo, config.fit)
    document = shared_document_source(bank)
    candidates: dict[str, dict[str, float]] = {name: {name: 1.0} for name in bank}
    if config.method == "fitted":
        candidates = {"fitted": dict(fit_mixture(encoder, bank, fitting, config.fit, quiet=quiet).weights)}
    routes = {name: route_of(weights, document) for name, weights in candidates.items()}
    scores = compare(encoder, {"base": None, **routes}, checks, config.fit)
    means = {name: float(np.mean(list(values.values()))) for name, values in scores.items()}
    best = max(candidates, key=lambda name: means[name])
    difference = paired_randomization(scores[best], scores["base"])
    said = (
        f"on {len(scores['base'])} held-out pseudo-queries of {target.id}, nDCG@10 is {means[best]:.3f} with "
        f"{best} and {means['base']:.3f} with the base model (p = {difference.p_value:.3f})"
    )
    if means[best] <= means["base"]:
        return {"weights": {}, "advice": "don't transfer", "reason": said, "pseudo": means}
    return {"weights": candidates[best], "advice": "transfer", "reason": said, "pseudo": means}
