"""Train, transfer or stay at the base model: what is expected to be best for a user's own texts, and whether with BM25.

Without a bank there is nothing to transfer, and the answer follows from the labels and the text alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import numpy as np
from sentence_transformers import SentenceTransformer

from foreword.collections.collection import Collection
from foreword.collections.supervision import DEV_SHARE
from foreword.errors import PromptError
from foreword.evaluation.hybrid import HybridWeight
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.store import StoredPrompt
from foreword.training.config import TrainingConfig
from foreword.training.dev import FEW
from foreword.transferring.config import AdviceConfig, FeatureSettings, ProofConfig, TransferConfig
from foreword.transferring.reach import Array, Reach, document_features, reach_of, source_domains
from foreword.transferring.transfer import (
    Transfer,
    check_unseen,
    made_name,
    several_domains,
    shared_document_source,
    transfer,
)
from foreword.transferring.trial import (
    BASE,
    FITTED,
    Compared,
    Evidence,
    Gain,
    Trial,
    compared_candidates,
    expected_gain,
    label_split,
    labelled_sample,
    nearest_prompts,
    read_evidence,
    text_sample,
    training_pairs,
    training_split,
    try_prompts,
    words_beside,
)

LEAST_DOCUMENTS = 30
"""Documents with text from which anything can be told."""

ENOUGH_PAIRS = 100
"""Labelled training pairs from which training is weighed."""

Choice = Literal["train", "transfer", "stay"]


@dataclass(frozen=True)
class Found:
    """What was found out about a target, from which the advice follows.

    Attributes:
        reach: of the bank; None: no source's documents are known.
        base: the base model's scores; None: nothing was compared.
        best: the best candidate's.
        pairs: labelled training pairs that there are.
        split: the labels that candidates were compared on.
        evidence: domains in the evidence, whatever their side of the reach.
        expected: `transfer` and `train` -> the gain to expect; None: not known.
        sources: prompts that could be transferred.
    """

    reach: Reach | None
    base: Compared | None
    best: Compared | None
    pairs: int
    split: str | None
    evidence: int
    expected: Mapping[str, Gain | None]
    sources: int = 1

    @property
    def within(self) -> bool:
        """Whether the target is within the bank's reach, or that cannot be known."""
        return self.reach is None or self.reach.within

    @property
    def transferable(self) -> bool:
        """Whether transfer is better than the base model, as far as is known."""
        return self.within and self.best is not None and self.best.better

    def measured(self, best: Compared, base: Compared) -> str:
        """The best candidate beside the base model, in words."""
        labelled = best.labels_gain is not None
        gain = best.labels_gain if labelled else best.pseudo_gain
        one, other = (best.labels, base.labels) if labelled else (best.pseudo, base.pseudo)
        where = f"labelled queries ({self.split})" if labelled else "held-out pseudo-queries"
        assert gain is not None  # what is not measured is no candidate
        return (
            f"on {gain.count} {where}, nDCG@10 is {one:.3f} with {best.name}, the best candidate, and {other:.3f} with "
            "the base model"
        )

    def lacks(self) -> list[str]:
        """What cannot be said for lack of evidence."""
        transfer = self.expected["transfer"]
        if not self.sources:
            return []
        lack = "too few comparable measurements" if self.evidence else "no measurements installed"
        if transfer is not None and transfer.basis == "pseudo-queries":
            return [f"{lack}: the interval comes from pseudo-queries only, which overstate gains"]
        if transfer is None or (self.pairs >= ENOUGH_PAIRS and self.expected["train"] is None):
            return [f"{lack}: the gain of {'transfer' if transfer is None else 'training'} is not known"]
        return []


@dataclass(frozen=True)
class Advice:
    """What to do for a target, and why.

    Attributes:
        advice: `train`, `transfer` or `stay`.
        reason: in one or two sentences.
        changes: what would change the advice.
        found: what it follows from; None: there is too little text.
        candidates: all that were compared, the base model first.
        transfer: the best transfer, stored with `save_mixture` or `save_prompt`; without weights: the base model.
        words: how much BM25 beside the base model should count, and what it is worth there.
        training_seconds: what `foreword train` takes here, roughly; None: there are no labels, or nothing was timed.
        notes: what was sampled, left out or not known.
    """

    target: str
    advice: Choice
    reason: str
    changes: str
    found: Found | None
    candidates: Sequence[Compared]
    transfer: Transfer
    words: HybridWeight
    training_seconds: float | None = None
    notes: Sequence[str] = ()
    seconds: float = 0.0

    @property
    def expected(self) -> Gain | None:
        """The gain to expect of what is advised; None: not known, or none since the base model stays."""
        return self.found.expected.get(self.advice) if self.found is not None else None

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        found = self.found
        options = {} if found is None else found.expected
        return {
            "target": self.target,
            "advice": self.advice,
            "chosen": found.best.name if found is not None and found.best is not None else None,
            "reason": self.reason,
            "changes": self.changes,
            "expected": {name: None if gain is None else gain.as_dict() for name, gain in options.items()},
            "reach": None if found is None or found.reach is None else found.reach.as_dict(),
            "candidates": [candidate.as_dict() for candidate in self.candidates],
            "labels": None if found is None else found.split,
            "training_pairs": None if found is None else found.pairs,
            "transfer": self.transfer.as_dict(),
            "hybrid": self.words.as_dict(),
            "training_seconds": self.training_seconds,
            "notes": list(self.notes),
            "seconds": round(self.seconds, 2),
        }


def advise(
    encoder: SentenceTransformer,
    target: Collection,
    bank: Mapping[str, StoredPrompt] | None = None,
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
        bank: source prompts by name, none of which was trained on the target; None or empty: there are none.
        features: document features of the bank's domains, see `foreword.transferring.reach.bank_features`; without
            them the reach is not known.
        evidence: domains on which gains were measured; None: those that came with the package.

    Raises:
        PromptError: a prompt trained on the target, or called `base` or `fitted`.
        DataError, UnknownNameError: labels asked for that are not there, or that are for scoring alone.
    """
    config, bank, began = config or AdviceConfig(), bank or {}, time.perf_counter()
    check_unseen(bank, target.id)
    if {BASE, FITTED} & set(bank):
        raise PromptError(f"a source is called {BASE!r} or {FITTED!r}, which other candidates are here; rename it")
    split, evidence = label_split(target, config.labels), read_evidence() if evidence is None else evidence
    sample = text_sample(target, config.documents, config.seed)
    if sample.documents < LEAST_DOCUMENTS:
        reason = (
            f"{target.id} has {sample.documents} documents with text; with fewer than {LEAST_DOCUMENTS} nothing can be "
            "measured, and the base model is the safe choice"
        )
        none = Transfer(target.id, "best-single", {}, "don't transfer", reason, seconds=time.perf_counter() - began)
        changes = f"{LEAST_DOCUMENTS} documents or more"
        return Advice(target.id, "stay", reason, changes, None, (), none, HybridWeight(), seconds=none.seconds)
    for name, stored in bank.items():
        transformer_of(encoder).add(name, stored.prompt)
    features_of = FeatureSettings(seed=config.seed) if bank else FeatureSettings(64, config.seed)  # to time it, alone
    how = features_of.sampling(config.fit.precision)
    started = time.perf_counter()
    own = document_features(encoder, sample.collection, quiet=quiet, **how)
    rate = len(own) / (time.perf_counter() - started)
    known = {name: features[name] for name in source_domains(bank) if name in features} if features else {}
    reach = reach_of(own, known) if known else None
    notes = []
    if sample.documents < sample.of:
        notes.append(f"based on a random sample of {sample.documents} of {sample.of} documents")
    if reach is None and bank:
        notes.append(
            "the documents of the bank's domains are not known, so whether the target resembles them is not known"
        )
    config = _within_budget(config, split, rate, began, notes, len(bank))
    labelled = None if split is None else labelled_sample(target, split, config.queries, config.documents, config.seed)
    words = words_beside(encoder, sample, labelled, config)
    rest: dict[str, Any] = {
        "words": words,
        "training_seconds": _training_seconds(encoder, target, sample.of / rate),
        "notes": notes,
    }
    if reach is not None and not reach.within and labelled is None and several_domains(bank) is not None:
        lengths = {name: getattr(config.fit, name) for name in ("query_length", "document_length", "precision")}
        how_proven = TransferConfig("multitask", proof=ProofConfig(**lengths, seed=config.seed))
        there = {**known, target.id: own}
        proven = transfer(encoder, sample.collection, bank, how_proven, features=there, quiet=quiet)
        if proven.weights:
            changes = changes_for("transfer", _found(target, reach, (), split, evidence, len(bank)))
            rest["seconds"] = time.perf_counter() - began
            return Advice(target.id, "transfer", proven.reason, changes, None, (), proven, **rest)
    trial = Trial({}, {}, {}, {})
    if bank and (reach is None or reach.within or labelled is not None):
        names = nearest_prompts(bank, own, features or {}, config.prompts, notes)
        trial = try_prompts(encoder, sample, labelled, bank, names, config, notes, quiet)
    candidates = compared_candidates(trial, config.seed)
    found = _found(target, reach, candidates, split, evidence, len(bank))
    notes += found.lacks()
    choice = choose(found)
    reason = reason_for(target.id, choice, found)
    rest["seconds"] = time.perf_counter() - began
    chosen = _transfer(encoder, target.id, bank, trial, found, reason, rest["seconds"])
    return Advice(target.id, choice, reason, changes_for(choice, found), found, candidates, chosen, **rest)


def _training_seconds(encoder: SentenceTransformer, target: Collection, documents: float) -> float | None:
    """Roughly what `foreword train` takes for the query side, where embedding the documents takes so long.

    A step costs about twice the forward pass over its queries, which is timed on some; where labels are few, it is done
    for each fold and for all.
    """
    split, config = training_split(target), TrainingConfig.default()
    if split is None:
        return None
    queries = [query.text for query in islice(target.queries(split), 128)]
    for _ in range(2):  # the first time is slower
        began = time.perf_counter()
        encode(encoder, queries, "query", route=None, max_length=config.query_length, precision=config.precision)
    pass_seconds = (time.perf_counter() - began) / len(queries)
    held_out = (
        len(target.qrels("dev")) if {"train", "dev"} <= set(target.splits) else DEV_SHARE * training_pairs(target)
    )
    times = 1 + config.dev_folds if held_out < FEW else 1
    return round(documents + 2 * times * config.steps * config.batch_size * pass_seconds, 1)


def _within_budget(
    config: AdviceConfig, split: str | None, rate: float, began: float, notes: list[str], sources: int
) -> AdviceConfig:
    """The settings with smaller samples where the time would not do, at `rate` documents a second."""
    if config.seconds is None or not (sources or split):  # the text alone is looked at in some seconds
        return config
    fit, tried = config.fit, config.prompts + 2 if sources else 0  # the base model and the mixture
    texts = (6 * fit.steps * fit.batch_size if sources else 0) + tried * 1.5 * (fit.most * fit.held_out + fit.spans)
    tried += 1  # the base model beside BM25
    texts += 0 if split is None else tried * (config.documents + config.queries)
    share = (config.seconds - (time.perf_counter() - began)) * rate / texts
    if share >= 1:
        return config
    share = max(share, 0.05)
    notes.append(f"based on {share:.0%} of the usual samples, to stay within {config.seconds:g} seconds")
    less = {name: max(20, round(getattr(fit, name) * share)) for name in ("most", "spans")}
    fit = replace(fit, steps=max(10, round(fit.steps * share)), **less)
    documents, queries = round(config.documents * share), round(config.queries * share)
    return replace(config, documents=max(100, documents), queries=max(20, queries), fit=fit)


def _found(
    target: Collection,
    reach: Reach | None,
    candidates: Sequence[Compared],
    split: str | None,
    evidence: Sequence[Evidence],
    sources: int,
) -> Found:
    """The best candidate, by labels where there are some, and the gains to expect; without a bank, none is known."""
    base = candidates[0] if candidates else None
    order = sorted(candidates[1:], key=lambda one: (-(one.labels or 0.0), -(one.pseudo or 0.0)))
    best = order[0] if order else None
    within, pairs = reach is None or reach.within, training_pairs(target)
    if not sources:
        return Found(None, None, None, pairs, split, 0, {"transfer": None, "train": None}, 0)
    transfer = best.labels_gain if best is not None else None
    transfer = transfer or expected_gain(evidence, target.id, within=within, kind="transfer")
    transfer = transfer or (best.pseudo_gain if best is not None else None)
    enough = pairs >= ENOUGH_PAIRS
    train = expected_gain(evidence, target.id, within=within, kind="train") if enough else None
    return Found(reach, base, best, pairs, split, len(evidence), {"transfer": transfer, "train": train}, sources)


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
    name = found.best.name
    if name == FITTED:
        about["document"] = shared_document_source(bank)
        return Transfer(target, "fitted", trial.weights, "transfer", reason, **about)
    if not bank[name].prompt.kind.mixes:  # what is no mixture is stored as it is
        about["prompt"] = bank[name].prompt
        transformer_of(encoder).add(made_name(target), bank[name].prompt)
    return Transfer(target, "best-single", {name: 1.0}, "transfer", reason, **about)


def choose(found: Found) -> Choice:
    """Train where that promises more than transfer, or than nothing; else transfer where it is better; else stay.

    Without a bank: train where the labels are enough to see a gain by.
    """
    if not found.sources:
        return "train" if found.pairs >= ENOUGH_PAIRS else "stay"
    transfer, train = found.expected["transfer"], found.expected["train"]
    rival = transfer.value if found.transferable and transfer is not None else 0.0
    if found.pairs >= ENOUGH_PAIRS and train is not None and train.value > rival:
        return "train"
    return "transfer" if found.transferable else "stay"


def reason_for(target: str, choice: Choice, found: Found) -> str:
    """Why, in one or two sentences."""
    if not found.sources:
        there = f"there are {found.pairs} labelled training pairs" if found.pairs else "there are no labels to train on"
        if choice == "train":
            return f"{there}, and training keeps a gain only if it is larger than chance"
        few = f", and fewer than {ENOUGH_PAIRS} rarely show a gain" if found.pairs else ""
        return f"{there}{few}; and no prompt to transfer was given"
    if choice == "train":
        train, transfer = found.expected["train"], found.expected["transfer"]
        assert train is not None  # the choice needs it
        other = transfer.said() if transfer is not None and found.transferable else "nothing"
        with_labels = f"with {found.pairs} labelled training pairs, the expected gain of training is {train.said()}"
        return f"{with_labels}, and of transfer {other}"
    said = [] if found.reach is None or (found.within and choice == "stay") else [found.reach.said(target)]
    if found.best is not None and found.base is not None:
        said.append(found.measured(found.best, found.base))
    elif found.within:
        said.append(f"{target} has too little text for a comparison")
    return ". ".join(sentence[0].upper() + sentence[1:] for sentence in said)


def changes_for(choice: Choice, found: Found) -> str:
    """What would change the advice."""
    said = {
        "train": "a trained prompt that is no better than the base model on queries that it was not trained on",
        "transfer": "labelled queries on which it is significantly worse than the base model",
        "stay": "prompts trained on domains like this one (--bank)"
        if not found.sources
        else "labelled queries on which a candidate is better than the base model"
        if found.within
        else "a bank with domains more similar to these texts",
    }[choice]
    labelled = found.best.labels_gain if found.best is not None else None
    if not found.within and found.best is not None and labelled is not None and labelled.low > 0:
        said += (
            f"; on the labelled queries {found.best.name} is better nevertheless ({labelled.said()}); "
            "`foreword transfer --no-reach` may take it"
        )
    if choice == "train":
        return said
    if found.pairs < ENOUGH_PAIRS:
        return f"{said}; or {ENOUGH_PAIRS} labelled training pairs (there are {found.pairs})"
    if found.expected["train"] is None:
        return f"{said}; or training on the {found.pairs} labelled pairs; its gain cannot be estimated here, so try it"
    return f"{said}; or more than {found.pairs} labelled training pairs"
