"""Train, transfer or stay at the base model: what is expected to be best for a user's own texts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from foreword.collections.collection import Collection
from foreword.errors import PromptError
from foreword.prompts.encoder import transformer_of
from foreword.prompts.store import StoredPrompt
from foreword.transferring.config import AdviceConfig, FeatureSettings
from foreword.transferring.reach import Array, Reach, document_features, reach_of, source_domains
from foreword.transferring.transfer import Transfer, has_seen, made_name, shared_document_source
from foreword.transferring.trial import (
    BASE,
    ENOUGH_PAIRS,
    FITTED,
    Advice,
    Compared,
    Evidence,
    Found,
    Sample,
    Trial,
    changes_for,
    choose,
    compared_candidates,
    expected_gain,
    label_split,
    labelled_sample,
    nearest_prompts,
    read_evidence,
    reason_for,
    text_sample,
    training_pairs,
    try_prompts,
)

LEAST_DOCUMENTS = 30
"""Documents with text from which anything can be told."""


def advise(
    encoder: SentenceTransformer,
    target: Collection,
    bank: Mapping[str, StoredPrompt],
    config: AdviceConfig | None = None,
    *,
    features: Mapping[str, Array] | None = None,
    evidence: Sequence[Evidence] | None = None,
    quiet: bool = False,
) -> Advice:
    """Say whether to train, to transfer or to stay at the base model, and what to expect of it.

    Args:
        encoder: from `foreword.load_encoder`; the bank's prompts are added to it under their names.
        target: the user's texts; their labels, where there are some, are looked at, but those of test never.
        bank: source prompts by name, none of which was trained on the target.
        config: the settings.
        features: document features of the bank's domains, see `foreword.transferring.reach.bank_features`; without
            them the reach is not known.
        evidence: domains on which gains were measured; None: those that came with the package.
        quiet: no progress bars.

    Raises:
        PromptError: an empty bank, or a prompt trained on the target, or called `base` or `fitted`.
        DataError, UnknownNameError: labels asked for that are not there, or that are for scoring alone.
    """
    config, began = config or AdviceConfig(), time.perf_counter()
    _check_bank(bank, target.id)
    split, evidence = label_split(target, config.labels), read_evidence() if evidence is None else evidence
    sample = text_sample(target, config.documents, config.seed)
    if sample.documents < LEAST_DOCUMENTS:
        return _too_little(target.id, sample, time.perf_counter() - began)
    for name, stored in bank.items():
        transformer_of(encoder).add(name, stored.prompt)
    own, reach = _reach(encoder, sample, bank, features or {}, config, quiet)
    notes = _notes(sample, reach)
    config = _within_budget(config, split, len(own) / (time.perf_counter() - began), began, notes)
    labelled = None if split is None else labelled_sample(target, split, config.queries, config.documents, config.seed)
    trial = Trial({}, {}, {}, {})
    if reach is None or reach.within or labelled is not None:
        names = nearest_prompts(bank, own, features or {}, config.prompts, notes)
        trial = try_prompts(encoder, sample, labelled, bank, names, config, notes, quiet)
    candidates = compared_candidates(trial, config.seed)
    found = _found(target, reach, candidates, split, evidence)
    notes += _evidence_notes(found)
    choice = choose(found)
    reason = reason_for(target.id, choice, found)
    seconds = time.perf_counter() - began
    transfer = _transfer(encoder, target.id, bank, trial, found, reason, seconds)
    return Advice(target.id, choice, reason, changes_for(choice, found), found, candidates, transfer, notes, seconds)


def _check_bank(bank: Mapping[str, StoredPrompt], target: str) -> None:
    if not bank:
        raise PromptError("no source prompts to advise on; name a bank with one that was not trained on these texts")
    seen = [name for name, stored in bank.items() if has_seen(stored, target)]
    if seen:
        raise PromptError(f"{', '.join(seen)}: trained on {target} itself, so no transfer to it; leave it out")
    if {BASE, FITTED} & set(bank):
        raise PromptError(f"a source is called {BASE!r} or {FITTED!r}, which other candidates are here; rename it")


# -- what is looked at ---------------------------------------------------------------------------------------------


def _reach(
    encoder: SentenceTransformer,
    sample: Sample,
    bank: Mapping[str, StoredPrompt],
    features: Mapping[str, Array],
    config: AdviceConfig,
    quiet: bool,
) -> tuple[Array, Reach | None]:
    """The target's document features, and the reach, where a source's are known."""
    settings = FeatureSettings(seed=config.seed)
    own = document_features(
        encoder,
        sample.collection,
        limit=settings.sample,
        seed=settings.seed,
        precision=config.fit.precision,
        max_length=settings.max_length,
        quiet=quiet,
    )
    known = {name: features[name] for name in source_domains(bank) if name in features}
    return own, reach_of(own, known) if known else None


def _within_budget(
    config: AdviceConfig, split: str | None, rate: float, began: float, notes: list[str]
) -> AdviceConfig:
    """The settings with smaller samples where the time would not do, at `rate` documents a second."""
    if config.seconds is None:
        return config
    fit, tried = config.fit, config.prompts + 2  # the base model and the mixture
    texts = 6 * fit.steps * fit.batch_size + tried * 1.5 * (fit.most * fit.held_out + fit.spans)
    texts += 0 if split is None else tried * (config.documents + config.queries)
    share = (config.seconds - (time.perf_counter() - began)) * rate / texts
    if share >= 1:
        return config
    share = max(share, 0.05)
    notes.append(f"{share:.0%} of the usual samples are looked at, to stay within {config.seconds:g} seconds")
    less = {name: max(20, round(getattr(fit, name) * share)) for name in ("most", "spans")}
    fit = replace(fit, steps=max(10, round(fit.steps * share)), **less)
    documents, queries = round(config.documents * share), round(config.queries * share)
    return replace(config, documents=max(100, documents), queries=max(20, queries), fit=fit)


# -- what follows from it ------------------------------------------------------------------------------------------


def _found(
    target: Collection,
    reach: Reach | None,
    candidates: Sequence[Compared],
    split: str | None,
    evidence: Sequence[Evidence],
) -> Found:
    """The best candidate, by labels where there are some, and the gains to expect."""
    base = candidates[0] if candidates else None
    order = sorted(candidates[1:], key=lambda one: (-(one.labels or 0.0), -(one.pseudo or 0.0)))
    best = order[0] if order else None
    within, pairs = reach is None or reach.within, training_pairs(target)
    transfer = best.labels_gain if best is not None else None
    transfer = transfer or expected_gain(evidence, target.id, within=within, kind="transfer")
    transfer = transfer or (best.pseudo_gain if best is not None else None)
    enough = pairs >= ENOUGH_PAIRS
    train = expected_gain(evidence, target.id, within=within, kind="train") if enough else None
    return Found(reach, base, best, pairs, split, len(evidence), {"transfer": transfer, "train": train})


def _transfer(
    encoder: SentenceTransformer,
    target: str,
    bank: Mapping[str, StoredPrompt],
    trial: Trial,
    found: Found,
    reason: str,
    seconds: float,
) -> Transfer:
    """The best candidate as `foreword.transferring.transfer` gives it; the base model where that is no worse."""
    pseudo = {name: float(np.mean(list(values.values()))) for name, values in trial.pseudo.items()}
    about: dict[str, Any] = {"reach": found.reach, "pseudo": pseudo, "seconds": seconds}
    if not found.transferable or found.best is None:
        return Transfer(target, "best-single", {}, "don't transfer", reason, **about)
    if found.best.name == FITTED:
        document = shared_document_source(bank)
        return Transfer(target, "fitted", trial.weights, "transfer", reason, document=document, **about)
    name = found.best.name
    if bank[name].prompt.spec.kind == "gated":
        return Transfer(target, "best-single", {name: 1.0}, "transfer", reason, **about)
    transformer_of(encoder).add(made_name(target), bank[name].prompt)  # what is no mixture is stored as it is
    return Transfer(target, "best-single", {name: 1.0}, "transfer", reason, prompt=bank[name].prompt, **about)


def _too_little(target: str, sample: Sample, seconds: float) -> Advice:
    """The plain answer for a handful of documents."""
    reason = (
        f"{target} has {sample.documents} documents with text; with fewer than {LEAST_DOCUMENTS} nothing can be "
        "measured, and the base model is the safe choice"
    )
    transfer = Transfer(target, "best-single", {}, "don't transfer", reason, seconds=seconds)
    changes = f"{LEAST_DOCUMENTS} documents or more"
    return Advice(target, "stay", reason, changes, None, (), transfer, (), seconds)


def _notes(sample: Sample, reach: Reach | None) -> list[str]:
    notes = []
    if sample.documents < sample.of:
        notes.append(f"a seeded sample of {sample.documents} of {sample.of} documents is looked at")
    if reach is None:
        notes.append("no source's documents are known, so whether the target is within the bank's reach is not known")
    return notes


def _evidence_notes(found: Found) -> list[str]:
    """What cannot be said for lack of evidence."""
    transfer = found.expected["transfer"]
    lack = "too little evidence on this side of the reach" if found.evidence else "no evidence installed"
    if transfer is not None and transfer.basis == "pseudo-queries":
        return [f"{lack}: interval from the pseudo-queries alone, which overstate"]
    if transfer is None or (found.pairs >= ENOUGH_PAIRS and found.expected["train"] is None):
        what = "transfer" if transfer is None else "training"
        return [f"{lack}: what {what} would gain is not known"]
    return []
