"""An advice in records and in words: train, transfer, or stay at the base model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from foreword.transferring.decision import Transfer
from foreword.transferring.evidence import Gain
from foreword.transferring.reach import Reach

ENOUGH_PAIRS = 100
"""Labelled training pairs from which training is weighed."""

Choice = Literal["train", "transfer", "stay"]


@dataclass(frozen=True)
class Compared:
    """A candidate on the target's text, and on its labels where there are some.

    Attributes:
        name: `base`, `fitted` (the mixture), or a prompt's.
        pseudo: nDCG@10 on held-out pseudo-queries.
        pseudo_gain: over the base model.
        labels: nDCG@10 on labelled queries.
        labels_gain: over the base model.
    """

    name: str
    pseudo: float | None = None
    pseudo_gain: Gain | None = None
    labels: float | None = None
    labels_gain: Gain | None = None

    @property
    def better(self) -> bool:
        """Whether it is above the base model: by labels not significantly below, and above by something."""
        gains = [gain for gain in (self.labels_gain, self.pseudo_gain) if gain is not None]
        harmful = self.labels_gain is not None and self.labels_gain.high < 0
        return not harmful and any(gain.value > 0 for gain in gains)

    def as_dict(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        return {
            "name": self.name,
            "pseudo_nDCG@10": None if self.pseudo is None else round(self.pseudo, 6),
            "pseudo_gain": None if self.pseudo_gain is None else self.pseudo_gain.as_dict(),
            "labels_nDCG@10": None if self.labels is None else round(self.labels, 6),
            "labels_gain": None if self.labels_gain is None else self.labels_gain.as_dict(),
        }


@dataclass(frozen=True)
class Found:
    """What was found out about a target, from which the advice follows.

    Attributes:
        reach: of the bank; None: no source's documents are known.
        base: the base model's scores; None: nothing was compared.
        best: the best candidate's; None: none.
        pairs: labelled training pairs that there are.
        split: the labels that candidates were compared on; None: none.
        evidence: domains in the evidence, whatever their side of the reach.
        expected: `transfer` and `train` -> the gain to expect; None: not known.
    """

    reach: Reach | None
    base: Compared | None
    best: Compared | None
    pairs: int
    split: str | None
    evidence: int
    expected: Mapping[str, Gain | None]

    @property
    def within(self) -> bool:
        """Whether the target is within the bank's reach, or that cannot be known."""
        return self.reach is None or self.reach.within

    @property
    def transferable(self) -> bool:
        """Whether transfer is better than the base model, as far as is known."""
        return self.within and self.best is not None and self.best.better


@dataclass(frozen=True)
class Advice:
    """What to do for a target, and why.

    Attributes:
        target: its id.
        advice: `train`, `transfer` or `stay`.
        reason: in one or two sentences.
        changes: what would change the advice.
        found: what it follows from; None: there is too little text.
        candidates: all that were compared, the base model first.
        transfer: the best transfer, stored with `save_mixture` or `save_prompt`; without weights: the base model.
        notes: what was sampled, left out or not known.
        seconds: it took.
    """

    target: str
    advice: Choice
    reason: str
    changes: str
    found: Found | None
    candidates: Sequence[Compared]
    transfer: Transfer
    notes: Sequence[str] = field(default_factory=tuple)
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
            "notes": list(self.notes),
            "seconds": round(self.seconds, 2),
        }


def choose(found: Found) -> Choice:
    """Train where that promises more than transfer, or than nothing; else transfer where it is better; else stay."""
    transfer, train = found.expected["transfer"], found.expected["train"]
    rival = transfer.value if found.transferable and transfer is not None else 0.0
    if found.pairs >= ENOUGH_PAIRS and train is not None and train.value > rival:
        return "train"
    return "transfer" if found.transferable else "stay"


def reason_for(target: str, choice: Choice, found: Found) -> str:
    """Why, in one or two sentences."""
    if choice == "train":
        train, transfer = found.expected["train"], found.expected["transfer"]
        assert train is not None  # the choice needs it
        other = transfer.said() if transfer is not None and found.transferable else "nothing"
        return f"with {found.pairs} labelled training pairs, training promises {train.said()}, and transfer {other}"
    said = [] if found.reach is None or (found.within and choice == "stay") else [found.reach.said(target)]
    if found.best is not None and found.base is not None:
        said.append(_measured(found.best, found.base, found.split))
    elif found.within:
        said.append(f"there is too little text in {target} to compare anything on")
    return ". ".join(sentence[0].upper() + sentence[1:] for sentence in said)


def _measured(best: Compared, base: Compared, split: str | None) -> str:
    """The best candidate beside the base model."""
    labelled = best.labels_gain is not None
    gain = best.labels_gain if labelled else best.pseudo_gain
    one, other = (best.labels, base.labels) if labelled else (best.pseudo, base.pseudo)
    where = f"labelled queries ({split})" if labelled else "held-out pseudo-queries"
    assert gain is not None  # what is not measured is no candidate
    return (
        f"on {gain.count} {where}, nDCG@10 is {one:.3f} with {best.name}, the best candidate, and {other:.3f} with the "
        "base model"
    )


def changes_for(choice: Choice, found: Found) -> str:
    """What would change the advice."""
    said = {
        "train": "a trained prompt that is not above the base model on queries that it was not trained on",
        "transfer": "labelled queries on which it is significantly below the base model",
        "stay": "labelled queries on which a candidate is above the base model"
        if found.within
        else "a bank with sources nearer to these texts",
    }[choice]
    labelled = found.best.labels_gain if found.best is not None else None
    if not found.within and found.best is not None and labelled is not None and labelled.low > 0:
        said += (
            f"; on the labelled queries {found.best.name} is better all the same ({labelled.said()}), and --no-reach "
            "makes `foreword transfer` take it"
        )
    if choice == "train":
        return said
    if found.pairs < ENOUGH_PAIRS:
        return f"{said}; or {ENOUGH_PAIRS} labelled training pairs to weigh training by (there are {found.pairs})"
    if found.expected["train"] is None:
        return f"{said}; or training on the {found.pairs} labelled pairs, which no evidence weighs here: try it"
    return f"{said}; or more labelled training pairs than the {found.pairs} that there are"
