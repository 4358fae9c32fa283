"""Is one system better than another on the same queries: a randomisation test and a bootstrap interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from foreword.common.errors import ForewordError

_EXACT = 12  # differing queries up to which all 2^n sign patterns are gone through
_CHUNK_VALUES = 2**20  # random values held at a time: 8 MiB of float64


@dataclass(frozen=True, slots=True)
class Comparison:
    """System a against system b, query by query."""

    difference: float
    """Mean of a - b."""
    p_value: float
    """Two-sided: how often chance alone gives a mean difference at least as large."""
    wins: int
    """Queries on which a is better."""
    ties: int
    losses: int
    n: int
    """Queries."""


def paired_randomization(
    a: Mapping[str, float], b: Mapping[str, float], *, trials: int = 10_000, seed: int = 0
) -> Comparison:
    """Fisher's two-sided paired randomisation test on the mean difference of two systems.

    Under the null hypothesis the two systems' values on a query may be swapped, which flips the sign of their
    difference (Smucker, Allan & Carterette, "A Comparison of Statistical Significance Tests for Information
    Retrieval Evaluation", 2007). With 12 differing queries or fewer the p-value is exact, over all sign
    patterns; otherwise it is `(1 + hits) / (1 + trials)` over random ones, which is never 0 (Phipson & Smyth,
    2010).

    Args:
        a: `query_id -> value` of the system of interest.
        b: the same queries' values of the baseline.
        trials: random sign patterns.
        seed: of the random signs; equal seeds give equal p-values.

    Raises:
        ForewordError: the queries differ, there are none, or a value is not finite.
    """
    deltas = _differences(a, b)
    if trials < 1:
        raise ForewordError(f"trials is {trials}; expected 1 or more.")
    moved = deltas[deltas != 0]  # a query without a difference has no sign to flip
    observed = abs(moved.sum())
    edge = observed * (1 - 1e-12)  # equal sums added in another order still count as equal
    if len(moved) <= _EXACT:
        patterns = (np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved))) & 1
        p_value = float(np.mean(np.abs((1.0 - 2.0 * patterns) @ moved) >= edge))
    else:
        rng = np.random.default_rng(seed)
        hits = 0
        for rows in _chunks(trials, len(moved)):
            signs = 1.0 - 2.0 * rng.integers(0, 2, size=(rows, len(moved)), dtype=np.int8)
            hits += int(np.count_nonzero(np.abs(signs @ moved) >= edge))
        p_value = (1 + hits) / (1 + trials)
    wins, losses = int((deltas > 0).sum()), int((deltas < 0).sum())
    n = len(deltas)
    return Comparison(float(deltas.mean()), p_value, wins, n - wins - losses, losses, n)


def bootstrap_interval(
    a: Mapping[str, float],
    b: Mapping[str, float],
    *,
    level: float = 0.95,
    trials: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of a - b over queries drawn with replacement.

    (Efron, 1979; for retrieval, Sakai, "Evaluating Evaluation Metrics Based on the Bootstrap", 2006.)

    Args:
        a: `query_id -> value` of the system of interest.
        b: the same queries' values of the baseline.
        level: coverage, between 0 and 1.
        trials: samples of the queries.
        seed: of the samples.

    Returns:
        The interval's lower and upper end.

    Raises:
        ForewordError: as `paired_randomization`, or a level outside 0 to 1.
    """
    deltas = _differences(a, b)
    if not 0 < level < 1 or trials < 1:
        raise ForewordError(f"level={level}, trials={trials}; expected a level between 0 and 1 and 1 or more trials.")
    rng = np.random.default_rng(seed)
    n = len(deltas)
    means = [deltas[rng.integers(0, n, size=(rows, n))].mean(axis=1) for rows in _chunks(trials, n)]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _differences(a: Mapping[str, float], b: Mapping[str, float]) -> np.ndarray:
    """a - b by query id, in the order of sorted ids, so that the caller's order changes nothing."""
    if a.keys() != b.keys():
        odd = sorted(a.keys() ^ b.keys())
        raise ForewordError(
            f"The two systems are judged on different queries ({len(a)} and {len(b)}; in one only: "
            f"{', '.join(map(repr, odd[:3]))}{', ...' if len(odd) > 3 else ''}). Evaluate both on one set."
        )
    if not a:
        raise ForewordError("There are no queries to compare on.")
    deltas = np.array([float(a[query_id]) - float(b[query_id]) for query_id in sorted(a)])
    if not np.isfinite(deltas).all():
        raise ForewordError("A query's value is NaN or infinite; evaluate the runs again.")
    return deltas


def _chunks(trials: int, width: int) -> Iterator[int]:
    """Numbers of rows that add up to `trials`, each with at most `_CHUNK_VALUES` values."""
    most = max(1, _CHUNK_VALUES // width)
    for first in range(0, trials, most):
        yield min(most, trials - first)
