"""Means over domains of means over queries: intervals, randomisation tests and corrections, from values alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foreword.common.errors import ForewordError
from foreword.evaluation.significance import paired_randomization

PerQuery = Mapping[str, Mapping[str, float]]
"""Values, or differences of two systems, by target and query id."""

Array = np.ndarray[Any, np.dtype[np.float64]]

TRIALS = 10_000
_CHUNK_VALUES = 2**20  # drawn query numbers held at a time: 8 MiB of int64


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over domains and the interval in which it lies."""

    mean: float
    low: float
    high: float


def macro_mean(values: PerQuery) -> float:
    """The mean over targets of the means over queries."""
    return float(np.mean([values.mean() for values in arrays_of(values)]))


def hierarchical_bootstrap(differences: PerQuery, trials: int = TRIALS, seed: int = 0, level: float = 0.95) -> Interval:
    """Percentile interval of the mean over domains of domain means, for domains drawn like these.

    In each trial domains are drawn with replacement and, in each drawn one, its queries with replacement (Davison &
    Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8; drawing with replacement at both levels
    makes the interval a little too wide rather than too narrow).

    Args:
        differences: by target and query.
        trials: resamples.
        seed: of the draws.
        level: coverage, between 0 and 1.

    Raises:
        ForewordError: no queries, a value that is not finite, or a level or number of trials out of range.
    """
    check_draws(trials, level)
    drawn = _resampled_means([values[:, None] for values in arrays_of(differences)], trials, seed)[:, 0]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(macro_mean(differences), float(low), float(high))


def ratio_of_means(
    part: PerQuery, whole: PerQuery, trials: int = TRIALS, seed: int = 0, level: float = 0.95
) -> tuple[float | None, float | None, float | None]:
    """The macro mean of one over that of the other, and its percentile interval under the hierarchical bootstrap.

    A resample in which `whole` is not above 0 has no ratio; it counts as below the lower end and above the upper.

    Args:
        part: by target and query, e.g. a system's gains.
        whole: the same targets and queries, e.g. the gains of a ceiling.
        trials: resamples.
        seed: of the draws.
        level: coverage, between 0 and 1.

    Returns:
        The ratio and its interval's ends; all None where `whole` is not above 0, an end None where too many
        resamples have no ratio.
    """
    check_draws(trials, level)
    top = macro_mean(whole)
    if top <= 0:
        return None, None, None
    pairs = zip(arrays_of(part), arrays_of(whole), strict=True)
    drawn = _resampled_means([np.stack(pair, axis=1) for pair in pairs], trials, seed)
    above = drawn[:, 1] > 0
    ratios = drawn[:, 0] / np.where(above, drawn[:, 1], 1.0)
    ends: list[float | None] = []
    for worst, quantile in ((-math.inf, (1 - level) / 2), (math.inf, (1 + level) / 2)):
        end = float(np.quantile(np.where(above, ratios, worst), quantile, method="nearest"))
        ends.append(end if math.isfinite(end) else None)
    return macro_mean(part) / top, ends[0], ends[1]


def stratified_randomization(differences: PerQuery, trials: int = TRIALS, seed: int = 0) -> float:
    """Two-sided p-value of the mean over domains of domain means, signs flipped query by query within the domains.

    The paired randomisation test (Smucker, Allan & Carterette, 2007) with each query's difference weighed as it
    counts in the mean: exact for few differing queries, else `(1 + hits) / (1 + trials)`. It is about the queries
    of these domains; whether other domains would agree is for `hierarchical_bootstrap` to say.

    Raises:
        ForewordError: no queries, a value that is not finite, or fewer than one trial.
    """
    arrays_of(differences)  # raises
    share = {
        f"{target}\t{query}": value / (len(values) * len(differences))
        for target, values in differences.items()
        for query, value in values.items()
    }
    return paired_randomization(share, dict.fromkeys(share, 0.0), trials=trials, seed=seed).p_value


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p-value corrected for having made all of the tests (Holm, "A Simple Sequentially Rejective Multiple Test
    Procedure", 1979): the i-th smallest of n times n - i + 1, never less than a smaller one's, at most 1.
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def check_draws(trials: int, level: float) -> None:
    """Raise unless the level is between 0 and 1 and there is a trial."""
    if not 0 < level < 1 or trials < 1:
        raise ForewordError(f"level={level}, trials={trials}; expected a level between 0 and 1 and 1 or more trials")


def arrays_of(values: PerQuery) -> list[Array]:
    """Each target's values, in the order of sorted targets and query ids, so that the caller's changes nothing."""
    if not values or not all(values.values()):
        raise ForewordError("there are no queries to compare on; run both systems on a target")
    arrays = [np.array([float(values[t][q]) for q in sorted(values[t])], dtype=np.float64) for t in sorted(values)]
    if not all(np.isfinite(array).all() for array in arrays):
        raise ForewordError("a query's value is NaN or infinite; evaluate the runs again")
    return arrays


def _resampled_means(stacks: Sequence[Array], trials: int, seed: int) -> Array:
    """Means over domains of means over queries, both drawn with replacement.

    Args:
        stacks: a domain each, (queries, V) for V statistics of the same queries.
        trials: T.
        seed: of the draws.

    Returns:
        (T, V).
    """
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(stacks), size=(trials, len(stacks)))
    means = np.empty((*drawn.shape, stacks[0].shape[1]))
    for place, stack in enumerate(stacks):
        where = drawn == place
        means[where] = _query_means(rng, stack, int(where.sum()))
    return np.asarray(means.mean(axis=1), dtype=np.float64)


def _query_means(rng: np.random.Generator, stack: Array, draws: int) -> Array:
    """(draws, V): the means of that many resamples of one domain's queries (queries, V)."""
    n = len(stack)
    parts = np.array_split(np.arange(draws), max(1, -(-draws * n // _CHUNK_VALUES)))
    return np.concatenate([stack[rng.integers(0, n, size=(len(part), n))].mean(axis=1) for part in parts])
