"""How far a bank of prompts reaches: is a target as near to the sources' documents as the sources are to one another?

On domains far from all of a bank's, its prompts do harm. The limit needs neither a label nor a tuned number: each
source is left out in turn, and where one more domain like them would lie, nineteen times in twenty, says how far the
bank reaches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foreword.collections.folds import split_fold
from foreword.collections.unions import canonical, overlap
from foreword.common.errors import ForewordError
from foreword.prompts.store import StoredPrompt, trained_on
from foreword.transferring.similarity import Array

LEAST_SOURCES = 3
"""Source domains from which a limit is known: of two, each has but one other, and both have the same nearness."""

_ROWS = 1024  # of the target compared at a time, so that memory stays bounded


@dataclass(frozen=True)
class Reach:
    """A target's nearness to a bank, and the least that is to be expected of a domain like the bank's own.

    Attributes:
        nearness: of the target to all sources, see `nearness`.
        limit: the lower end of the 95 % prediction interval for one more domain, from `sources`; None: there are too
            few of them to know.
        sources: source domain -> its nearness to the others.
    """

    nearness: float
    limit: float | None
    sources: Mapping[str, float]

    @property
    def within(self) -> bool:
        """Whether the target is within reach; where that cannot be known, it counts as such."""
        return self.limit is None or self.nearness >= self.limit

    def said(self, target: str) -> str:
        """The comparison in plain words."""
        near = f"the documents of {target} have a mean cosine of {self.nearness:.3f} to their nearest in the bank"
        if self.limit is None:
            return f"{near}; whether that is within the bank's reach cannot be known from fewer than 3 source domains"
        where = "within" if self.within else "out of"
        return f"{near}, {where} its reach: of domains like its sources, nearly all have {self.limit:.3f} or more"

    def as_dict(self) -> dict[str, Any]:
        """The numbers as JSON values."""
        return {
            "nearness": round(self.nearness, 6),
            "limit": None if self.limit is None else round(self.limit, 6),
            "within": self.within,
            "sources": {name: round(value, 6) for name, value in self.sources.items()},
        }


def nearness(target: Array, others: Sequence[Array]) -> float:
    """The mean over a domain's documents of the greatest cosine to any document of others.

    Args:
        target: (N, d') unit-length document features, see `foreword.transferring.similarity.document_features`.
        others: the other domains', (M, d') each; of as many documents each, since more of them lie nearer.

    Raises:
        ForewordError: no documents on either side, or features of different width.
    """
    if not len(target) or not sum(map(len, others)):
        raise ForewordError("nearness needs documents of the target and of one other domain at least; got none")
    widths = {features.shape[1] for features in (target, *others)}
    if len(widths) > 1:
        raise ForewordError(f"document features have {sorted(widths)} numbers each; expected those of one encoder")
    every = np.concatenate([np.asarray(features, np.float32) for features in others]).T  # (d', M)
    best = [(target[i : i + _ROWS] @ every).max(axis=1) for i in range(0, len(target), _ROWS)]
    return float(np.concatenate(best).mean(dtype=np.float64))


def reach_of(target_features: Array, source_features: Mapping[str, Array]) -> Reach:
    """A target's nearness to a bank's domains, and the limit that they set.

    A domain left out is compared with those that share no data with it: a forum is near to the union it is part of.
    It has one domain fewer than the target to be near to, so the limit is on the low side, the more so with few. Of n
    sources with mean m and standard deviation s, the limit is m - t s sqrt(1 + 1/n), t the 97.5 % point of Student's
    distribution with n - 1 degrees of freedom. The least of the n would turn away one domain in n + 1 like them.

    Args:
        target_features: see `nearness`.
        source_features: by domain id, of the same encoder, at most as many documents each.

    Raises:
        ForewordError: as `nearness`.
    """
    own: dict[str, float] = {}
    for name, features in source_features.items():
        others = [other for key, other in source_features.items() if key != name and not overlap(key, name)]
        if others:
            own[name] = nearness(features, others)
    limit = prediction_limit(list(own.values())) if len(own) >= LEAST_SOURCES else None
    return Reach(nearness(target_features, list(source_features.values())), limit, own)


def prediction_limit(values: Sequence[float], level: float = 0.95) -> float:
    """The lower end of the interval that holds one more value from the same normal distribution with this chance."""
    from scipy.stats import t

    n = len(values)
    point = float(t.ppf((1 + level) / 2, n - 1))
    return float(np.mean(values) - point * np.std(values, ddof=1) * np.sqrt(1 + 1 / n))


def source_domains(bank: Mapping[str, StoredPrompt]) -> list[str]:
    """The collections behind a bank's prompts, each once, sorted.

    A prompt trained on several, or started from one that was, brings all of them; one whose card names none brings
    its own domain. A fold counts as its collection, whose documents it shares.
    """
    found: dict[str, str] = {}
    for name, stored in bank.items():
        for domain in trained_on(stored.card) or (name,):
            base = split_fold(domain)[0]
            found.setdefault(canonical(base), base)
    return sorted(found.values())
