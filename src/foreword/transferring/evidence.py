"""What transfer and training gained on domains where it was measured, by which a new one's gain is expected.

Gains on pseudo-queries are not gains on real queries. `data/evidence.json` lists domains on which both are known,
measured with labels that no choice had seen; what a new domain may expect is where those on its side of the reach lie.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from foreword.collections.unions import overlap
from foreword.common.errors import DataError

INSTALLED = Path(__file__).parent / "data" / "evidence.json"
LEAST_DOMAINS = 3
"""Domains from which a range is given; that of fewer would look narrower than it is."""

Basis = Literal["labels", "evidence", "pseudo-queries"]


@dataclass(frozen=True)
class Evidence:
    """One domain on which gains were measured.

    Attributes:
        target: the collection's id.
        genre: what kind of text it is, for people.
        nearness: to the bank, see `foreword.transferring.reach`.
        limit: of the bank; None: not known.
        within: whether the target was within reach.
        pseudo_gain: of transfer over the base model, in nDCG@10 on pseudo-queries; None: not measured.
        gain: of transfer on the test queries.
        supervised_gain: of a prompt trained on the domain's labels; None: not measured.
        pairs: labelled training pairs that it was trained on; None: not measured.
    """

    target: str
    genre: str
    nearness: float
    limit: float | None
    within: bool
    pseudo_gain: float | None
    gain: float
    supervised_gain: float | None = None
    pairs: int | None = None


@dataclass(frozen=True)
class Gain:
    """An expected difference in nDCG@10 from the base model.

    Attributes:
        value: the mean.
        low: the lower end of a 95 % interval.
        high: the upper end.
        basis: `labels` and `pseudo-queries`: of the mean over queries like those; `evidence`: where single domains'
            gains lay, which is wider.
        count: queries, or domains.
    """

    value: float
    low: float
    high: float
    basis: Basis
    count: int

    def said(self) -> str:
        """The numbers, and what they are of."""
        what = {
            "labels": f"95 % interval over {self.count} labelled queries",
            "evidence": f"where 95 % of {self.count} measured domains lay",
            "pseudo-queries": f"95 % interval over {self.count} pseudo-queries, which overstate",
        }[self.basis]
        return f"{self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f}: {what})"

    def as_dict(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        numbers = {name: round(getattr(self, name), 6) for name in ("value", "low", "high")}
        return {**numbers, "basis": self.basis, "count": self.count}


def read_evidence(path: Path | None = None) -> list[Evidence]:
    """The domains that a file of evidence lists.

    Args:
        path: a JSON list of objects with the fields of `Evidence`; None: the one that came with the package.

    Raises:
        DataError: it is none, or an entry lacks a field, has another, or one of another type.
    """
    path = path or INSTALLED
    try:
        listed = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"no evidence can be read ({error}); install the package again", path=path) from error
    if not isinstance(listed, list):
        raise DataError(f"expected a list of domains, got {type(listed).__name__}", path=path)
    return [_entry(record, number, path) for number, record in enumerate(listed, start=1)]


def _entry(record: Any, number: int, path: Path) -> Evidence:
    optional = {"supervised_gain", "pairs"}
    known = {f.name for f in fields(Evidence)}
    if not isinstance(record, dict) or not (known - optional) <= record.keys() <= known:
        got = sorted(record) if isinstance(record, dict) else type(record).__name__
        raise DataError(f"domain {number}: expected the fields {sorted(known)}, got {got}", path=path)
    entry = Evidence(**record)
    numbers = [entry.nearness, entry.gain]
    numbers += [n for n in (entry.limit, entry.pseudo_gain, entry.supervised_gain, entry.pairs) if n is not None]
    fine = all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers)
    if not fine or not isinstance(entry.within, bool) or not isinstance(entry.target, str):
        raise DataError(f"domain {number}: expected numbers, a name and true or false, got {record}", path=path)
    return entry


def expected_gain(
    evidence: Sequence[Evidence], target: str, *, within: bool, kind: Literal["transfer", "train"]
) -> Gain | None:
    """What a domain may expect: the mean gain of those on its side of the reach, and the range that they span.

    The range is the 2.5 and 97.5 % quantiles of single domains' gains: it is about one more domain, not about their
    mean. Nothing is scaled: what training gained, it gained with the evidence's own numbers of pairs.

    Args:
        evidence: the domains.
        target: the domain itself, whose own entries (and those of collections that share its data) do not count.
        within: whether the target is within reach.
        kind: `transfer`, or `train`, with labels.

    Returns:
        None when fewer than three domains say anything.
    """
    same = [entry for entry in evidence if entry.within == within and not overlap(entry.target, target)]
    gains = [entry.gain if kind == "transfer" else entry.supervised_gain for entry in same]
    known = [gain for gain in gains if gain is not None]
    if len(known) < LEAST_DOMAINS:
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return Gain(float(np.mean(known)), float(low), float(high), "evidence", len(known))
