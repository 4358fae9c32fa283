"""Is one system better than another over many domains: intervals, tests, and shares of what labels would give.

Every number here is a mean over domains of means over queries, so that a domain counts once however many queries it
has, and what is averaged over queries has first been averaged over seeds. The intervals say what other domains like
these would have given; the tests say whether chance explains what was seen on these.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from foreword.benchmark.records import TRANSFER, Cell
from foreword.benchmark.resampling import (
    TRIALS,
    Array,
    Interval,
    PerQuery,
    arrays_of,
    hierarchical_bootstrap,
    holm,
    macro_mean,
    ratio_of_means,
    stratified_randomization,
)
from foreword.common.errors import ForewordError
from foreword.evaluation.significance import bootstrap_interval, paired_randomization

__all__ = [
    "DomainDifference",
    "Interval",
    "PerQuery",
    "Share",
    "WinTieLoss",
    "by_domain",
    "coverage",
    "differences",
    "hierarchical_bootstrap",
    "holm",
    "macro_mean",
    "only",
    "rank_correlation",
    "seed_means",
    "seed_spread",
    "share_of_gain",
    "stratified_randomization",
    "win_tie_loss",
]

_EXACT_DIGITS = 12  # of a difference: equal values averaged over other numbers of seeds must not seem to differ


@dataclass(frozen=True, slots=True)
class Share:
    """What share of a ceiling's gain over the baseline a system has; None where the ceiling gains nothing.

    `low` and `high` are None where the ceiling's gain is too uncertain for a ratio to have an interval.
    """

    share: float | None
    low: float | None
    high: float | None
    targets: tuple[str, ...]
    """That the system, the ceiling and the baseline all have."""


@dataclass(frozen=True, slots=True)
class DomainDifference:
    """Two systems on one target."""

    target: str
    mean: float
    low: float
    high: float
    p_value: float
    """Of this target alone."""
    p_holm: float
    """Corrected for having looked at all of the targets."""
    queries: int


@dataclass(frozen=True, slots=True)
class WinTieLoss:
    """On how many targets a system is better, alike and worse, and on how many significantly so."""

    wins: int
    ties: int
    losses: int
    significant_wins: int
    significant_losses: int


def seed_means(cells: Sequence[Cell], system: str, measure: str) -> dict[str, dict[str, float]]:
    """A system's values by target and query, the mean over its seeds on that target.

    Raises:
        ForewordError: a cell lacks the measure, is there twice, or its queries differ from another seed's.
    """
    found: dict[str, dict[int, Mapping[str, float]]] = defaultdict(dict)
    for cell in cells:
        if cell.system != system:
            continue
        where = f"{system} on {cell.target}, seed {cell.seed}"
        if measure not in cell.per_query:
            raise ForewordError(f"{where}: no {measure}; it has {', '.join(cell.per_query)}")
        if cell.seed in found[cell.target]:
            raise ForewordError(f"{where}: there are two cells; keep one")
        found[cell.target][cell.seed] = cell.per_query[measure]
        if cell.per_query[measure].keys() != next(iter(found[cell.target].values())).keys():
            raise ForewordError(f"{where}: other queries than with another seed; run the seeds on one collection")
    return {
        target: {query: math.fsum(seed[query] for seed in seeds.values()) / len(seeds) for query in sorted(first)}
        for target, seeds in sorted(found.items())
        for first in [next(iter(seeds.values()))]
    }


def differences(cells: Sequence[Cell], system: str, baseline: str, measure: str) -> dict[str, dict[str, float]]:
    """The system's mean over seeds less the baseline's, by query, on the targets that both have.

    The two may have different numbers of seeds; what does not depend on one has a single cell.

    Raises:
        ForewordError: as `seed_means`, or the two are scored on different queries of a target.
    """
    ours, theirs = (seed_means(cells, name, measure) for name in (system, baseline))
    shared = {target: (ours[target], theirs[target]) for target in ours if target in theirs}
    for target, (a, b) in shared.items():
        if a.keys() != b.keys():
            odd = sorted(a.keys() ^ b.keys())
            raise ForewordError(
                f"{system} and {baseline} are scored on different queries of {target} ({len(a)} and {len(b)}; in one "
                f"only: {', '.join(map(repr, odd[:3]))}); run both on one collection"
            )
    return {
        target: {query: round(a[query] - b[query], _EXACT_DIGITS) for query in a} for target, (a, b) in shared.items()
    }


def only(values: PerQuery, targets: Collection[str]) -> dict[str, Mapping[str, float]]:
    """The values of these targets."""
    return {target: values[target] for target in values if target in targets}


def by_domain(
    differences: PerQuery, trials: int = TRIALS, seed: int = 0, level: float = 0.95
) -> list[DomainDifference]:
    """Each target by itself: mean difference, bootstrap interval over its queries, and randomisation test.

    Raises:
        ForewordError: as `hierarchical_bootstrap`.
    """
    arrays_of(differences)  # raises
    found = []
    for target, values in sorted(differences.items()):
        zeros = dict.fromkeys(values, 0.0)
        test = paired_randomization(values, zeros, trials=trials, seed=seed)
        found.append((target, test, bootstrap_interval(values, zeros, level=level, trials=trials, seed=seed)))
    corrected = holm([test.p_value for _, test, _ in found])
    return [
        DomainDifference(target, test.difference, low, high, test.p_value, p_holm, test.n)
        for (target, test, (low, high)), p_holm in zip(found, corrected, strict=True)
    ]


def win_tie_loss(domains: Sequence[DomainDifference], tie: float = 0.001, alpha: float = 0.05) -> WinTieLoss:
    """Count the targets won and lost.

    Args:
        domains: from `by_domain`.
        tie: a mean difference of at most this, up or down, is a tie (in the measure's own unit).
        alpha: a win or loss is significant when its corrected p-value is below.
    """
    wins = [domain for domain in domains if domain.mean > tie]
    losses = [domain for domain in domains if domain.mean < -tie]
    return WinTieLoss(
        len(wins),
        len(domains) - len(wins) - len(losses),
        len(losses),
        *(sum(domain.p_holm < alpha for domain in side) for side in (wins, losses)),
    )


def share_of_gain(
    cells: Sequence[Cell],
    system: str,
    ceiling: str,
    baseline: str,
    measure: str = "nDCG@10",
    *,
    targets: Collection[str] | None = None,
    trials: int = TRIALS,
    seed: int = 0,
    level: float = 0.95,
) -> Share:
    """(mean of the system - baseline) / (mean of the ceiling - baseline), over the targets that all three have.

    The interval is a percentile one of the ratio under the same resamples as `hierarchical_bootstrap` takes. A
    resample in which the ceiling gains nothing has no ratio; it counts as below the lower end and above the upper.

    Args:
        cells: of all three.
        system: whose share it is.
        ceiling: e.g. what the target's own labels give.
        baseline: e.g. the base model.
        measure: of the values.
        targets: to be looked at; None: all.
        trials: resamples.
        seed: of the draws.
        level: coverage, between 0 and 1.
    """
    gains = [differences(cells, name, baseline, measure) for name in (system, ceiling)]
    shared = [t for t in gains[0] if t in gains[1] and (targets is None or t in targets)]
    if not shared:
        return Share(None, None, None, ())
    ours, most = (only(gain, shared) for gain in gains)
    return Share(*ratio_of_means(ours, most, trials, seed, level), tuple(shared))


def seed_spread(cells: Sequence[Cell], system: str, measure: str, targets: Collection[str]) -> float | None:
    """Standard deviation (n - 1) of the mean over the targets from seed to seed; None below two whole seeds."""
    means: dict[int, dict[str, float]] = defaultdict(dict)
    for cell in cells:
        if cell.system == system and cell.target in targets:
            means[cell.seed][cell.target] = cell.measures[measure]
    whole = [
        math.fsum(by_target.values()) / len(by_target)
        for by_target in means.values()
        if len(by_target) == len(set(targets))
    ]
    return float(np.std(whole, ddof=1)) if len(whole) > 1 else None


def coverage(cells: Sequence[Cell], system: str, targets: Collection[str] | None = None) -> float | None:
    """The share of a system's decisions, one for each target and seed, that are to transfer; None without any."""
    decisions = [
        cell.decision
        for cell in cells
        if cell.system == system and cell.decision is not None and (targets is None or cell.target in targets)
    ]
    return decisions.count(TRANSFER) / len(decisions) if decisions else None


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rho (1904), ties at their mean rank; None below three pairs or where one side is constant."""
    if len(a) != len(b):
        raise ForewordError(f"{len(a)} values beside {len(b)}; expected pairs")
    if len(a) < 3 or len(set(a)) == 1 or len(set(b)) == 1:
        return None
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: Sequence[float]) -> Array:
    """Ranks from 1 upwards, equal values at the mean of theirs."""
    _, place, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray(last - (counts - 1) / 2, dtype=np.float64)[place]
