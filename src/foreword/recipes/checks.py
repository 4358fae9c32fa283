"""Whether a recipe's training learnt anything: for every prompt, and for the backbone that must not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from foreword.common.errors import ForewordError
from foreword.prompts.prompt import Prompt
from foreword.prompts.store import DTYPES, StoredPrompt


@dataclass(frozen=True)
class Made:
    """A prompt that a run trained, or found trained, and what it started from."""

    stored: StoredPrompt
    start: Prompt

    def as_dict(self) -> dict[str, Any]:
        """What the record says of it."""
        card = self.stored.card
        return {
            "domain": self.stored.domain,
            "folder": str(self.stored.path),
            "parameters": card["parameters"],
            "bytes": card["bytes"],
            "supervision": card["supervision"],
            "start_digest": card["start_digest"],
            "digest": card["digest"],
            "best_step": card["metrics"]["best_step"],
            "dev": card["metrics"]["dev"],
        }


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        prompt: the domain, or the backbone's name.
        what: `dev loss`, `values` or `backbone`.
        passed: as it should be.
        said: the figures.
    """

    prompt: str
    what: str
    passed: bool
    said: str

    def as_dict(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        return asdict(self)


def check_prompt(made: Made) -> list[Check]:
    """What a trained prompt must show: a lower dev loss than its start, and other values.

    The start is compared as it would be stored, rounded to the card's dtype.
    """
    return [_loss(made.stored), _values(made.stored, made.start)]


def check_state(name: str, before: str, after: str) -> Check:
    """The backbone must be the same, bit by bit, after all trainings as before (SHA-256 of its state)."""
    same = before == after
    return Check(name, "backbone", same, f"{before[:12]} before, {after[:12]} after")


def require(checks: Sequence[Check], recipe: str, record: str) -> None:
    """Raise `ForewordError` with the figures of every check that failed."""
    failed = [check for check in checks if not check.passed]
    if failed:
        listed = "".join(f"\n  {check.prompt}: {check.what}: {check.said}" for check in failed)
        raise ForewordError(
            f"{recipe}: {len(failed)} of {len(checks)} checks failed, so the training is not to be trusted:{listed}\n"
            f"All figures are in {record}"
        )


def _loss(stored: StoredPrompt) -> Check:
    history = stored.card["metrics"]["dev"]
    looked = {entry["step"]: entry["loss"] for entry in history if entry.get("loss") is not None}
    if len(looked) < 2 or 0 not in looked:
        return Check(stored.domain, "dev loss", False, "no dev split, or too few steps, to see it by")
    best, last = stored.card["metrics"]["best_step"], max(looked)
    reached = {step: looked[step] for step in (best, last) if step > 0}
    step = min(reached, key=lambda step: reached[step])
    said = f"{looked[0]:.6f} at the start, {reached[step]:.6f} at step {step}"
    return Check(stored.domain, "dev loss", reached[step] < looked[0], said)


def _values(stored: StoredPrompt, start: Prompt) -> Check:
    rounded = start.rounded(DTYPES[stored.card["dtype"]]).digest()
    digest, step = stored.card["digest"], stored.card["metrics"]["best_step"]
    changed = digest != rounded and step > 0
    said = f"{rounded[:12]} at the start, {digest[:12]} stored, of step {step}"
    if step == 0:
        said += ": no step retrieved better on the dev split than the start, which was kept"
    return Check(stored.domain, "values", changed, said)
