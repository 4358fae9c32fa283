"""The randomisation test and the bootstrap interval, on worked values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from foreword.errors import ForewordError
from foreword.evaluation.measures import bootstrap_interval, paired_randomization


def named(values) -> dict[str, float]:  # type: ignore[no-untyped-def]
    return {f"q{number}": float(value) for number, value in enumerate(values)}


def test_exact_by_hand() -> None:
    # Differences 1, 2, 3: of the eight sign patterns only +++ and --- reach a sum of 6.
    result = paired_randomization(named([1, 2, 3]), named([0, 0, 0]))
    assert (result.difference, result.p_value) == (2.0, 2 / 8)
    # Differences 1, 2, -1 sum to 2; sums of the patterns: +-2, +-4, 0, 0 and +-2 again: 6 of 8 reach it.
    result = paired_randomization(named([1, 2, 0]), named([0, 0, 1]))
    assert result.p_value == 6 / 8
    assert (result.wins, result.ties, result.losses, result.n) == (2, 0, 1, 3)


def test_ties_have_no_sign_to_flip() -> None:
    few = paired_randomization(named([1, 2, 3]), named([0, 0, 0]))
    padded = paired_randomization(named([1, 2, 3] + [5] * 40), named([0, 0, 0] + [5] * 40))
    assert padded.p_value == few.p_value
    assert (padded.wins, padded.ties, padded.n) == (3, 40, 43)
    assert paired_randomization(named([1, 1]), named([1, 1])).p_value == 1.0


def test_sampled_p_value_is_close_to_the_exact_one() -> None:
    # 20 differences of 1, 15 up and 5 down: the flips are a fair coin's, P(|2X - 20| >= 10).
    a = named([1] * 15 + [0] * 5)
    b = named([0] * 15 + [1] * 5)
    exact = 2 * sum(math.comb(20, ups) for ups in range(15, 21)) / 2**20
    result = paired_randomization(a, b, trials=40_000, seed=1)
    assert result.p_value == pytest.approx(exact, abs=0.004)
    assert result.p_value == paired_randomization(a, b, trials=40_000, seed=1).p_value
    reversed_ids = dict(reversed(a.items()))
    assert paired_randomization(reversed_ids, b, trials=40_000, seed=1) == result


def test_a_clear_win_is_never_exactly_zero() -> None:
    result = paired_randomization(named(np.arange(1, 101)), named(np.zeros(100)), trials=999)
    assert result.p_value == 1 / 1000


def test_bootstrap_interval() -> None:
    assert bootstrap_interval(named([3, 3, 3]), named([1, 1, 1])) == (2.0, 2.0)
    rng = np.random.default_rng(0)
    a = named(rng.standard_normal(400) + 0.3)
    b = named(np.zeros(400))
    low, high = bootstrap_interval(a, b, trials=4000)
    mean = np.mean(list(a.values()))
    margin = 1.96 * np.std(list(a.values())) / 20  # the normal theory's
    assert low == pytest.approx(mean - margin, abs=0.01)
    assert high == pytest.approx(mean + margin, abs=0.01)


def test_mistakes_are_told() -> None:
    with pytest.raises(ForewordError, match=r"different queries.*'q1'"):
        paired_randomization({"q0": 1.0, "q1": 1.0}, {"q0": 1.0})
    with pytest.raises(ForewordError, match="no queries"):
        paired_randomization({}, {})
    with pytest.raises(ForewordError, match="NaN"):
        bootstrap_interval({"q": math.nan}, {"q": 1.0})
    with pytest.raises(ForewordError, match="level=95"):
        bootstrap_interval({"q": 1.0}, {"q": 1.0}, level=95)
