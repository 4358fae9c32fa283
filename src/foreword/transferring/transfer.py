"""Give a domain without labels a retriever made of other domains' prompts, or say that the base model is better."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from foreword.collections.collection import Collection, TrainingPair
from foreword.collections.pseudo import frequencies_for, pseudo_pairs
from foreword.collections.registry import overlap
from foreword.collections.views import Unlabelled
from foreword.errors import ForewordError, NoGainError, PromptError, TooLittleTextError
from foreword.evaluation.candidates import document_key
from foreword.evaluation.measures import paired_randomization
from foreword.files import rounded
from foreword.prompts.encoder import transformer_of
from foreword.prompts.prompt import Prompt
from foreword.prompts.routes import Route, Routes, Weight, plain_weight
from foreword.prompts.store import StoredPrompt, trained_on
from foreword.transferring.config import FeatureSettings, FitConfig, TransferConfig
from foreword.transferring.fit import Fit, embed_pair_documents, fit_weights, pseudo_scores, split_pairs
from foreword.transferring.proof import proof_pairs, prove
from foreword.transferring.reach import (
    Array,
    Reach,
    document_features,
    reach_of,
    similarity,
    softmax_weights,
    source_domains,
)


@dataclass(frozen=True)
class Transfer:
    """What was decided for a target.

    Attributes:
        method: how the sources were combined.
        weights: of the sources; empty: the base model, no prompt.
        advice: `transfer`, or `don't transfer`.
        reason: in a sentence.
        similarities: source -> similarity to the target, where it was looked at.
        pseudo: candidate -> mean nDCG@10 on held-out pseudo-queries, where it was looked at.
        document: the one source that encodes documents; None: the mixture does (or the base model, for sources
            that have no document side).
        prompt: for `multitask` and `average`, the one prompt.
        reach: how near the target is to the bank; None: not looked at, or no source's documents are known.
    """

    target: str
    method: str
    weights: Mapping[str, Weight]
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
            return made_name(self.target)
        return route_of(self.weights, self.document)

    def as_dict(self) -> dict[str, Any]:
        """The decision as JSON values."""
        return {
            "target": self.target,
            "method": self.method,
            "weights": {name: plain_weight(name, weight) for name, weight in self.weights.items()},
            "document": self.document,
            "advice": self.advice,
            "reason": self.reason,
            "similarities": rounded(self.similarities),
            "reach": None if self.reach is None else self.reach.as_dict(),
            "pseudo_nDCG@10": rounded(self.pseudo),
            "seconds": round(self.seconds, 2),
        }


def made_name(target: str) -> str:
    """The name under which an encoder carries the one prompt made for a target."""
    return f"made for {target}"


def route_of(weights: Mapping[str, Weight], document: str | None) -> Route:
    """The route of a mixture whose documents are encoded by `document` (None: by the mixture); None when empty."""
    if not weights:
        return None
    return weights if document is None else Routes(weights, document)


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
        bank: source prompts by name; memory or gated ones, except for `multitask` and `average`.
        sources: the sources' collections, for `similarity` and `average`, and for the reach.
        features: document features by domain id (see `document_features`), where they are there already; a bank's
            own are in its folder, see `foreword.transferring.reach`.

    Raises:
        PromptError: prompts that cannot be mixed or averaged, or none of several domains.
        DataError: too little text to fit on.
        ForewordError: similarity asked for without the sources' documents.
    """
    config = config or TransferConfig()
    if not bank:
        raise PromptError("no source prompts to transfer from")
    check_unseen(bank, target.id)
    began = time.perf_counter()
    transformer = transformer_of(encoder)
    if config.method == "auto":
        config = replace(config, method="fitted" if several_domains(bank) is None else "multitask")
    if config.method not in ("multitask", "average"):
        check_mixable(bank)
    for name, stored in bank.items():
        transformer.add(name, stored.prompt)
    work = _Work(encoder, Unlabelled(target), bank, config, quiet)
    alike = config.method in ("similarity", "average")
    domains = source_domains(bank) if config.checks_reach else []
    known = work.features([*bank, *domains], sources or {}, features or {}) if domains or alike else {}
    of_sources = {name: known[name] for name in domains if name in known}
    reach = reach_of(known[target.id], of_sources) if of_sources else None
    if reach is not None and not reach.within and config.method != "multitask":
        made = Transfer(target.id, config.method, {}, "don't transfer", reach.said(target.id))
    elif config.method == "uniform":
        made = work.made(uniform_weights(bank), "every source alike, unchecked")
    elif alike:
        made = work.by_similarity(known)
    elif config.method == "multitask":
        made = work.by_multitask(reach)
    else:
        made = work.by_pseudo_queries()
    if made.prompt is not None:
        transformer.add(made_name(target.id), made.prompt)
    document = shared_document_source(bank) if made.prompt is None and made.weights else None
    return replace(made, document=document, reach=reach, seconds=time.perf_counter() - began)


@dataclass(frozen=True)
class _Work:
    """The ways of combining a bank for a target."""

    encoder: SentenceTransformer
    target: Collection
    bank: Mapping[str, StoredPrompt]
    config: TransferConfig
    quiet: bool

    def made(self, weights: Mapping[str, Weight], reason: str, **more: Any) -> Transfer:
        """A transfer of these weights."""
        return Transfer(self.target.id, self.config.method, weights, "transfer", reason, **more)

    def features(
        self, names: Iterable[str], sources: Mapping[str, Collection], given: Mapping[str, Array]
    ) -> dict[str, Array]:
        """Document features of the sources that have any, and of the target; nothing where no source has."""
        asked = list(dict.fromkeys(names))
        if not any(name in given or name in sources for name in asked):
            return {}
        known = {name: given[name] for name in [*asked, self.target.id] if name in given}
        missing = {name: sources[name] for name in asked if name in sources and name not in known}
        if self.target.id not in known:
            missing[self.target.id] = self.target
        fit = self.config.fit
        how = FeatureSettings(sample=self.config.sample, max_length=fit.document_length).sampling(fit.precision)
        return known | {
            name: document_features(self.encoder, one, quiet=self.quiet, **how) for name, one in missing.items()
        }

    def by_similarity(self, known: Mapping[str, Array]) -> Transfer:
        """Sources weighed by the likeness of their documents to the target's."""
        config, own = self.config, [name for name in self.bank if name in known]
        if not own:
            raise ForewordError("similarity needs the documents of the sources; none of the bank's domains gave any")
        alike = {name: similarity(known[self.target.id], known[name], config.similarity) for name in own}
        weights = softmax_weights(alike, top_k=config.top_k, temperature=config.temperature)
        best = max(alike, key=lambda name: alike[name])
        others = [name for name in self.bank if name not in known]  # a multitask prompt has no documents of its own
        without = f"; left out: {', '.join(others)}, whose documents are not known" if others else ""
        nearest = f"most similar: {best}, {alike[best]:.2f}"
        reason = f"weighted by similarity of documents ({nearest}), without a check of the gain{without}"
        prompt = average_prompts(self.bank, weights) if config.method == "average" else None
        return self.made(weights, reason, similarities=alike, prompt=prompt)

    def by_multitask(self, reach: Reach | None) -> Transfer:
        """The prompt of several domains, where pseudo-queries find their documents better with it."""
        name = several_domains(self.bank)
        if name is None:
            raise PromptError(
                "method 'multitask' needs a prompt that was trained on several domains and encodes queries and "
                "documents (foreword train --multitask makes one); this bank has none, so choose another method, e.g. "
                "fitted"
            )
        far = "" if reach is None or reach.within else f"{reach.said(self.target.id)}; "
        try:
            proof = proven(self.encoder, name, self.target, self.config, reach)
        except (TooLittleTextError, NoGainError) as error:
            return replace(self.made({}, f"{far}the base model stays: {error}"), advice="don't transfer")
        shown = ", ".join(f"{mean['prompt']:.3f} (base {mean['base']:.3f}, {kind})" for kind, mean in proof.items())
        better = f"{name} is {'clearly better' if far else 'better'} on pseudo-queries"
        reason = f"{far}{better} of {self.target.id}: nDCG@10 is {shown}"
        return self.made({name: 1.0}, reason, prompt=self.bank[name].prompt)

    def by_pseudo_queries(self) -> Transfer:
        """Candidates compared on held-out pseudo-queries; the base model wins unless one is better."""
        encoder, bank, fit = self.encoder, self.bank, self.config.fit
        fitting, checks = pseudo_material(self.target, self.config.pseudo, fit)
        document = shared_document_source(bank)
        candidates: dict[str, Mapping[str, Weight]] = {name: {name: 1.0} for name in bank}
        if self.config.method == "fitted":
            candidates = {"fitted": fit_mixture(encoder, bank, fitting, fit, quiet=self.quiet).weights}
        routes = {name: route_of(weights, document) for name, weights in candidates.items()}
        scores = compare(encoder, {"base": None, **routes}, checks, fit)
        means = {name: float(np.mean(list(values.values()))) for name, values in scores.items()}
        best = max(candidates, key=lambda name: means[name])
        difference = paired_randomization(scores[best], scores["base"])
        said = (
            f"on {len(scores['base'])} held-out pseudo-queries of {self.target.id}, nDCG@10 is {means[best]:.3f} with "
            f"{best} and {means['base']:.3f} with the base model (p = {difference.p_value:.3f})"
        )
        if means[best] <= means["base"]:
            return replace(self.made({}, said, pseudo=means), advice="don't transfer")
        return self.made(candidates[best], said, pseudo=means)


def proven(
    encoder: SentenceTransformer, route: Route, target: Collection, config: TransferConfig, reach: Reach | None
) -> dict[str, dict[str, float]]:
    """What speaks for a prompt on a target's own text, see `foreword.transferring.proof.prove`, which says what it
    raises. Where the bank does not reach the target, or that cannot be known, it has to be sure.
    """
    surely = config.checks_reach and (reach is None or not reach.within)
    return prove(encoder, route, proof_pairs(Unlabelled(target), config.proof), config.proof, surely=surely)


def several_domains(bank: Mapping[str, StoredPrompt]) -> str | None:
    """The prompt that was trained on most domains, of those that encode queries and documents; None: none on two.

    One whose queries alone were trained, over the documents of what it started from, does not count.
    """
    counts = {
        name: len(trained_on(stored.card))
        for name, stored in bank.items()
        if stored.prompt.spec.sides != "query" and (stored.card.get("training") or {}).get("side") != "query"
    }
    found = [name for name, count in counts.items() if count > 1]
    return min(found, key=lambda name: (-counts[name], name), default=None)


def has_seen(stored: StoredPrompt, target: str) -> bool:
    """Whether a source, or what it started from, was trained on the target, a part of it, or a fold of it."""
    return any(overlap(name, target) for name in trained_on(stored.card))


def check_unseen(bank: Mapping[str, StoredPrompt], target: str) -> None:
    """Raise `PromptError` where a source was trained on the target."""
    if seen := [name for name, stored in bank.items() if has_seen(stored, target)]:
        raise PromptError(f"{', '.join(seen)}: trained on {target} itself, so no transfer to it; leave it out")


def uniform_weights(sources: Mapping[str, object]) -> dict[str, float]:
    """The same weight for every source; they add up to 1."""
    return {name: 1 / len(sources) for name in sources}


def check_mixable(sources: Mapping[str, StoredPrompt]) -> None:
    """Raise `PromptError` unless all are prompts of one structure, of a kind that can be mixed exactly."""
    specs = {name: stored.prompt.spec for name, stored in sources.items()}
    odd = [name for name, stored in sources.items() if not stored.prompt.kind.mixes]
    if odd:
        raise PromptError(
            f"{', '.join(odd)}: only memory and gated prompts can be mixed exactly; average prefix or input prompts "
            "that have one start (method 'average')"
        )
    if len(set(specs.values())) > 1:
        raise PromptError(f"the sources differ in length, layers or sides: {specs}")


def shared_document_source(sources: Mapping[str, StoredPrompt]) -> str | None:
    """The source that encodes documents for all, when every source's own document part is the same; else None.

    Prompts trained on the query side over one prompt's documents are such: their mixture leaves documents alone.
    """
    parts = {}
    for name, stored in sources.items():
        if stored.prompt.spec.sides != "untied":
            return None
        tensors = stored.prompt.tensors()
        parts[name] = {key: tensor for key, tensor in tensors.items() if key.startswith("document.")}
    names = list(parts)
    first = parts[names[0]]
    same = all(torch.equal(part[key], first[key]) for part in parts.values() for key in first)
    return names[0] if same else None


def start_of(stored: StoredPrompt) -> str:
    """What a prompt's training started from: the other prompt's digest, or how a new one was made."""
    start = stored.card.get("start") or {}
    return str(
        stored.card.get("start_digest")
        or start.get("digest")
        or (start.get("from"), start.get("seed"), start.get("prompt"))
    )


def average_prompts(sources: Mapping[str, StoredPrompt], weights: Mapping[str, float]) -> Prompt:
    """The weighted mean of the prompts' parameters.

    Prompts trained from different starts lie in unrelated places, and their mean means nothing (Belanec et al.,
    "Task Prompt Vectors", 2024); they are refused.

    Args:
        weights: of some or all of them; divided by their sum.

    Raises:
        PromptError: different starts or structures, or no weight above 0.
    """
    chosen = {name: sources[name] for name, weight in weights.items() if weight}
    total = sum(weights[name] for name in chosen)
    if not chosen or total <= 0:
        raise PromptError("nothing to average: no source has a weight above 0")
    starts = {name: start_of(stored) for name, stored in chosen.items()}
    if len(set(starts.values())) > 1:
        listing = "; ".join(f"{name}: {start[:40]}" for name, start in starts.items())
        raise PromptError(
            f"prompts trained from different starts cannot be averaged ({listing}); mix memory or gated prompts "
            "instead, or train all of them from one prompt"
        )
    if len({stored.prompt.spec for stored in chosen.values()}) > 1:
        raise PromptError("prompts of different kind, length, layers or sides cannot be averaged")
    first = next(iter(chosen.values())).prompt
    mean = {name: torch.zeros_like(tensor) for name, tensor in first.tensors().items()}
    for name, stored in chosen.items():
        for key, tensor in stored.prompt.tensors().items():
            mean[key] += tensor * (weights[name] / total)
    return Prompt(first.spec, mean)


def pseudo_material(
    target: Collection, pseudo: str, config: FitConfig
) -> tuple[list[TrainingPair], list[list[TrainingPair]]]:
    """Pseudo-queries to fit on, and two kinds of them to compare by, none of which was fitted on.

    Args:
        target: only its documents are looked at.
        pseudo: how pseudo-queries are made, see `foreword.collections.pseudo`.
        config: the shares, and the seed.

    Raises:
        DataError: too little text.
    """
    counted = frequencies_for(pseudo, target.documents())
    pairs = list(pseudo_pairs(target.documents(), pseudo, config.seed, frequencies=counted))
    fitting, held = split_pairs(pairs, config)
    taken = {pair.doc_id for pair in fitting} if pseudo in ("span", "mixed") else set()
    unseen = (doc for doc in target.documents() if doc.doc_id not in taken)
    spans = list(pseudo_pairs(unseen, "span", config.seed))
    order = np.random.default_rng(config.seed).permutation(len(spans))[: config.spans]
    return fitting, [held, [spans[i] for i in order]]


def fit_mixture(
    encoder: SentenceTransformer,
    bank: Mapping[str, StoredPrompt],
    fitting: Sequence[TrainingPair],
    config: FitConfig,
    *,
    quiet: bool = False,
) -> Fit:
    """Weights of a bank's prompts, which the encoder carries, fitted from the uniform mixture."""
    document = shared_document_source(bank)
    query_only = all(stored.prompt.spec.sides == "query" for stored in bank.values())
    fixed = document if document is not None or query_only else "mixed"
    return fit_weights(encoder, uniform_weights(bank), fitting, config, document=fixed, quiet=quiet)


def compare(
    encoder: SentenceTransformer,
    routes: Mapping[str, Route],
    checks: Sequence[Sequence[TrainingPair]],
    config: FitConfig,
) -> dict[str, dict[str, float]]:
    """nDCG@10 by route and pseudo-query, each against the documents of its own kind of pseudo-queries.

    Documents are embedded once for all routes that encode them alike.
    """
    scores: dict[str, dict[str, float]] = {name: {} for name in routes}
    for number, check in enumerate(checks):
        embedded: dict[str, Array] = {}
        for name, route in routes.items():
            key = document_key(encoder, route)
            if key not in embedded:
                embedded[key] = embed_pair_documents(encoder, route, check, config)
            values = pseudo_scores(encoder, route, check, config, documents=embedded[key])
            scores[name] |= {f"{number}:{query_id}": value for query_id, value in values.items()}
    return scores
