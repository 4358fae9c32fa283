"""Give a domain without labels a retriever made of other domains' prompts, or say that the base model is better."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from foreword.collections.records import Collection
from foreword.collections.unions import overlap
from foreword.collections.unlabelled import Unlabelled
from foreword.common.errors import ForewordError, PromptError, TooLittleTextError
from foreword.evaluation.significance import paired_randomization
from foreword.prompts.encoder import transformer_of
from foreword.prompts.routes import Weight
from foreword.prompts.store import StoredPrompt, trained_on
from foreword.transferring.adapt import adapt
from foreword.transferring.combine import (
    average_prompts,
    check_mixable,
    shared_document_source,
    uniform_weights,
)
from foreword.transferring.comparison import compare, fit_mixture, pseudo_material
from foreword.transferring.decision import Transfer, TransferConfig, made_name, route_of
from foreword.transferring.reach import reach_of, source_domains
from foreword.transferring.similarity import Array, document_features, similarity, softmax_weights


def several_domains(bank: Mapping[str, StoredPrompt]) -> str | None:
    """The prompt that was trained on most domains, of those that encode queries and documents; None: none on two."""
    both = {name: len(trained_on(stored.card)) for name, stored in bank.items() if stored.prompt.spec.sides != "query"}
    found = [name for name, count in both.items() if count > 1 and not _kept_documents(bank[name])]
    return min(found, key=lambda name: (-both[name], name), default=None)


def _kept_documents(stored: StoredPrompt) -> bool:
    """Whether its queries alone were trained, over the documents of what it started from."""
    return (stored.card.get("training") or {}).get("side") == "query"


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
    output: str | Path | None = None,
    quiet: bool = False,
) -> Transfer:
    """Combine the prompts of `bank` for a target, of which only the documents are looked at.

    Args:
        encoder: from `foreword.load_encoder`; the bank's prompts are added to it under their names.
        target: the domain without labels.
        bank: source prompts by name; gated ones, except for `adapted` and `average`.
        config: the settings; None: the defaults.
        sources: the sources' collections, for `similarity` and `average`, and for the reach.
        features: document features by domain id (see `document_features`), where they are there already; a bank's
            own are in its folder, see `foreword.transferring.features`.
        output: for `adapted`, the folder of the training and its prompt, which goes on there after a cut; None: one
            that is gone afterwards.
        quiet: no progress bars.

    Raises:
        PromptError: prompts that cannot be mixed, averaged or adapted.
        DataError: too little text to adapt to, or to fit on.
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
    if config.method == "auto":
        config = replace(config, method="fitted" if several_domains(bank) is None else "adapted", reach=config.reach)
    if config.method not in ("adapted", "average"):
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
    elif config.method == "adapted":
        result = _by_adapting(encoder, target, bank, config, output, quiet)
    else:
        result = _by_pseudo_queries(encoder, target, bank, config, quiet)
    if reach is not None and reach.limit is None:
        result["reason"] += f"; {reach.said(target.id)}"
    if "prompt" in result:
        transformer.add(made_name(target.id), result["prompt"])
    mixed = "prompt" not in result and bool(result["weights"])
    document = shared_document_source(bank) if mixed else None
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


def _by_adapting(
    encoder: SentenceTransformer,
    target: Collection,
    bank: Mapping[str, StoredPrompt],
    config: TransferConfig,
    output: str | Path | None,
    quiet: bool,
) -> dict[str, Any]:
    """The prompt of several domains, adapted to the target's text."""
    name = several_domains(bank)
    if name is None:
        raise PromptError(
            "adapting needs a prompt that was trained on several domains and encodes queries and documents "
            "(foreword pretrain makes one); this bank has none, so choose another method, e.g. fitted"
        )
    result: dict[str, Any] = {"weights": {name: 1.0}, "advice": "transfer"}
    try:
        with nullcontext(output) if output is not None else TemporaryDirectory() as folder:
            stored = adapt(encoder, target, bank[name], str(folder), config.adapt, quiet=quiet)
    except TooLittleTextError as error:
        return {**result, "prompt": bank[name].prompt, "reason": f"{name} as it is, unadapted: {error}"}
    kept = stored.card["adaptation"]["pairs"]["kept"]
    reason = f"{name}, adapted half-way to {target.id} by {kept} pseudo-queries of its own text"
    return {**result, "prompt": stored.prompt, "reason": reason}


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
    candidates: dict[str, dict[str, Weight]] = {name: {name: 1.0} for name in bank}
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
