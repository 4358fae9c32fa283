"""Cells on disk, and the benchmark's statistics and summaries on worked values."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from invented_cells import cell

from foreword.errors import DataError, ForewordError
from foreword.lab.records import cell_path, load_cells, run_path, save_cell
from foreword.lab.statistics import (
    by_domain,
    coverage,
    differences,
    hierarchical_bootstrap,
    holm,
    macro_mean,
    rank_correlation,
    seed_means,
    seed_spread,
    share_of_gain,
    stratified_randomization,
    win_tie_loss,
)

MEASURE = "nDCG@10"


def named(*values: float) -> dict[str, float]:
    return {f"q{number}": value for number, value in enumerate(values)}


# Cells on disk


def test_a_cell_comes_back_as_it_was(tmp_path: Path) -> None:
    full = cell(
        "pydoc/torch", "base+bm25", [0.5, 0.25], 3, labels=None, seconds=1.5, decision="base", similarity=0.125,
        weights={"pydoc/numpy": 0.75}, details={"steps": 40},
    )  # fmt: skip
    path = save_cell(tmp_path, full)
    assert path == tmp_path / "cells" / "pydoc-torch" / "base+bm25" / "seed3.json"
    assert run_path(tmp_path, "pydoc/torch", "single:a/b", 0) == tmp_path / "runs/pydoc-torch/single:a-b/seed0.trec"
    others = [cell("pydoc/torch", "base", [1]), cell("a", "z", [1]), cell("pydoc/torch", "base+bm25", [1, 0], 2)]
    for other in others:
        save_cell(tmp_path, other)
    assert load_cells(tmp_path) == [others[1], others[0], others[2], full]
    assert json.loads(path.read_text())["measures"] == {MEASURE: 0.375, "R@100": 0.375} == full.measures
    before = path.read_bytes()
    assert save_cell(tmp_path, load_cells(tmp_path)[-1]).read_bytes() == before


def test_values_are_rounded_on_disk(tmp_path: Path) -> None:
    save_cell(tmp_path, cell("t", "s", [1 / 3], similarity=2 / 3))
    (back,) = load_cells(tmp_path)
    assert back.per_query[MEASURE] == {"q0": 0.333333}
    assert back.similarity == 0.666667


def test_no_cells_and_no_folder(tmp_path: Path) -> None:
    assert load_cells(tmp_path) == []
    with pytest.raises(DataError, match="no such folder"):
        load_cells(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "foreword-benchmark-cell/0"}, "format"),
        ({"seed": "0"}, "seed is '0'; expected a whole number"),
        ({"labels": True}, "labels is True"),
        ({"odd": 1}, "unknown key odd"),
        ({"decision": "perhaps"}, "decision is 'perhaps'"),
        ({"per_query": {MEASURE: {"q0": None}}}, "per_query is .*'q0': None"),
        ({"per_query": {MEASURE: {"q0": 1.0}, "R@100": {"q1": 1.0}}}, "different queries"),
        ({"per_query": {}}, "no values"),
        ({"seconds": -1}, "seconds is -1"),
        ({"system": "other"}, "holds the cell of t/other/seed0.json"),
    ],
)
def test_a_broken_cell_is_told_with_its_path(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = save_cell(tmp_path, cell("t", "s", [1]))
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=message) as caught:
        load_cells(tmp_path)
    assert caught.value.path == path


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": NaN}'])
def test_a_file_that_is_no_cell(tmp_path: Path, text: str) -> None:
    path = cell_path(tmp_path, "t", "s", 0)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(DataError, match=r"seed0\.json"):
        load_cells(tmp_path)


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ForewordError, match="NaN or infinite"):
        cell("t", "s", [math.nan])


# Statistics


def test_seeds_are_averaged_first() -> None:
    cells = [
        cell("t", "s", [0, 1]),
        cell("t", "s", [1, 1], 1),
        cell("t", "s", [0.5, 0.4], 2),
        cell("t", "base", [0.5, 1]),
    ]
    assert seed_means(cells, "s", MEASURE) == {"t": {"q0": 0.5, "q1": pytest.approx(0.8)}}
    assert differences(cells, "s", "base", MEASURE) == {"t": {"q0": 0.0, "q1": pytest.approx(-0.2)}}
    assert differences(cells, "base", "base", MEASURE) == {"t": named(0.0, 0.0)}
    # 3 x .1 / 3 is not .1 to the last bit, and must not count as a difference.
    alike = [cell("t", "s", [0.1], seed) for seed in range(3)] + [cell("t", "base", [0.1])]
    assert differences(alike, "s", "base", MEASURE) == {"t": {"q0": 0.0}}


def test_seeds_are_compared_with_themselves() -> None:
    ours = [replace(cell("t", "few", [0.6], 1), stored_bytes=9)]
    theirs = [replace(cell("t", "s", [0.5 + seed / 10], seed), stored_bytes=9) for seed in range(3)]
    assert differences(ours + theirs, "few", "s", MEASURE) == {"t": {"q0": 0.0}}  # not .6 - .6 of all, nor of seed 0
    theirs[1] = replace(theirs[1], per_query={MEASURE: {"q0": 0.9}})
    assert differences(ours + theirs, "few", "s", MEASURE) == {"t": {"q0": pytest.approx(-0.3)}}


def test_cells_that_cannot_be_compared() -> None:
    with pytest.raises(ForewordError, match="other queries than with another seed"):
        seed_means([cell("t", "s", [1]), cell("t", "s", [1, 1], 1)], "s", MEASURE)
    with pytest.raises(ForewordError, match="two cells"):
        seed_means([cell("t", "s", [1]), cell("t", "s", [1])], "s", MEASURE)
    with pytest.raises(ForewordError, match=r"different queries of t.*'q1'"):
        differences([cell("t", "s", [1, 1]), cell("t", "base", [1])], "s", "base", MEASURE)
    with pytest.raises(ForewordError, match="no MRR"):
        seed_means([cell("t", "s", [1])], "s", "MRR")
    with pytest.raises(ForewordError, match="no queries"):
        hierarchical_bootstrap({})


def test_domains_count_once_however_many_queries() -> None:
    assert macro_mean({"a": named(1, 1, 1, 1), "b": named(0)}) == 0.5


def test_bootstrap_of_constant_differences_has_no_width() -> None:
    interval = hierarchical_bootstrap({"a": named(0.25, 0.25), "b": named(0.25, 0.25, 0.25)}, trials=200)
    assert (interval.mean, interval.low, interval.high) == (0.25, 0.25, 0.25)


def test_bootstrap_of_constant_domains_draws_the_domains() -> None:
    # Two domains at 0 and 1: the mean of two draws is 0, 1/2 or 1 with chances 1/4, 1/2 and 1/4.
    values = {"a": named(0, 0, 0), "b": named(1, 1)}
    assert hierarchical_bootstrap(values, trials=4000, level=0.6).low == 0.0  # the 20 % quantile
    inner = hierarchical_bootstrap(values, trials=4000, level=0.4)  # the 30 % and 70 % quantiles
    assert (inner.low, inner.high) == (0.5, 0.5)


def test_bootstrap_has_the_variance_of_both_levels() -> None:
    # With D domains of n queries each, the variance over resamples is that of D drawn domain means plus the
    # mean of the domains' query variances over n, all over D (Davison & Hinkley, 1997, section 3.8).
    rng = np.random.default_rng(3)
    table = rng.normal(rng.normal(0, 0.3, (12, 1)), 1.0, (12, 40))
    values = {f"t{place:02}": named(*row) for place, row in enumerate(table)}
    expected = math.sqrt((table.mean(axis=1).var() + table.var(axis=1).mean() / 40) / 12)
    interval = hierarchical_bootstrap(values, trials=20_000)
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * expected, rel=0.04)
    assert interval == hierarchical_bootstrap(dict(reversed(values.items())), trials=20_000)  # order is nothing


def test_randomization_against_every_sign_pattern() -> None:
    values = {
        "a": named(0.3, -0.1, 0.2),
        "b": named(0.5, 0.1, -0.2, 0.4),
        "c": named(-0.3, 0.2, 0.6, 0.1, 0.3, -0.1, 0.25),
    }
    weighed = [value / len(own) / 3 for own in values.values() for value in own.values()]
    sums = [
        sum(sign * value for sign, value in zip(signs, weighed, strict=True))
        for signs in itertools.product((1, -1), repeat=14)
    ]
    exact = np.mean(np.abs(sums) >= abs(sum(weighed)) - 1e-12)
    assert stratified_randomization(values, trials=40_000) == pytest.approx(exact, abs=0.005)
    few = {"a": values["a"], "b": values["b"]}
    sums = [abs(np.mean(signs[:3] * np.array([0.3, -0.1, 0.2])) + np.mean(signs[3:] * np.array([0.5, 0.1, -0.2, 0.4])))
            for signs in map(np.array, itertools.product((1, -1), repeat=7))]  # fmt: skip
    assert stratified_randomization(few) == np.mean(np.array(sums) >= 0.4 / 3 + 0.2 - 1e-12)


def test_randomization_is_never_zero() -> None:
    assert stratified_randomization({"a": named(*range(1, 60))}, trials=99) == 1 / 100
    assert stratified_randomization({"a": named(0, 0), "b": named(0)}) == 1.0


def test_holm() -> None:
    # .01 x 4, .02 x 3, .03 x 2, and .04 x 1 raised to the one before it.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_each_domain_by_itself_and_the_counts() -> None:
    values = {
        "up": named(*[0.1] * 8),
        "even": named(0.0005, 0.0015),
        "down": named(-0.2, -0.1),
        "mixed": named(0.5, -0.2),
    }
    domains = {domain.target: domain for domain in by_domain(values, trials=500)}
    assert list(domains) == ["down", "even", "mixed", "up"]
    assert domains["up"].p_value == 2 / 2**8
    assert domains["up"].p_holm == 4 * 2 / 2**8
    assert (domains["up"].low, domains["up"].high) == pytest.approx((0.1, 0.1))
    assert domains["down"].p_value == 0.5
    assert domains["mixed"].queries == 2
    counts = win_tie_loss(list(domains.values()))
    assert (counts.wins, counts.ties, counts.losses, counts.significant_wins, counts.significant_losses) == (
        2,
        1,
        1,
        1,
        0,
    )
    assert win_tie_loss(list(domains.values()), tie=0.2).wins == 0


def test_share_of_gain() -> None:
    rng = np.random.default_rng(0)
    cells = []
    for target in ("a", "b", "c"):
        base, gain = rng.uniform(0, 0.5, 30), rng.uniform(0.1, 0.3, 30)
        cells += [cell(target, "base", base), cell(target, "top", base + gain), cell(target, "half", base + gain / 2)]
    cells.append(cell("d", "half", [1.0]))  # without the others it has no part in the share
    whole, half = (share_of_gain(cells, name, "top", "base", trials=300) for name in ("top", "half"))
    assert (whole.share, whole.low, whole.high) == (1.0, 1.0, 1.0)
    assert (half.share, half.low, half.high) == pytest.approx((0.5, 0.5, 0.5))
    assert half.targets == ("a", "b", "c")
    assert share_of_gain(cells, "base", "top", "base", trials=50).share == 0.0
    assert share_of_gain(cells, "top", "base", "half", trials=50).share is None  # a ceiling below the floor
    assert share_of_gain(cells, "top", "nothing", "base").targets == ()


def test_a_ceiling_too_uncertain_for_a_ratio() -> None:
    cells = [
        cell("t", "base", [0, 0, 0, 0]),
        cell("t", "top", [1, 1, -0.8, -0.8]),
        cell("t", "s", [0.1, 0.1, 0.1, 0.1]),
    ]
    share = share_of_gain(cells, "s", "top", "base", trials=500)
    assert share.share == pytest.approx(1.0)
    assert (share.low, share.high) == (None, None)


def test_spread_and_coverage() -> None:
    cells = [cell("a", "s", [0.2], seed, decision=kind) for seed, kind in ((0, "transfer"), (1, "base"))]
    cells += [cell("b", "s", [value], seed, decision="transfer") for seed, value in ((0, 0.4), (1, 0.8), (2, 0.9))]
    # Whole seeds: means .3 and .5; seed 2 lacks a target.
    assert seed_spread(cells, "s", MEASURE, ["a", "b"]) == pytest.approx(0.2 / math.sqrt(2))
    assert seed_spread(cells, "s", MEASURE, ["a", "b", "c"]) is None
    assert coverage(cells, "s") == 4 / 5
    assert coverage(cells, "s", ["a"]) == 1 / 2
    assert coverage([cell("a", "base", [1])], "base") is None


def test_rank_correlation() -> None:
    assert rank_correlation([1, 2, 3], [10, 20, 1000]) == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1.0)
    # Ranks 1, 2.5, 2.5, 4 and 2, 1, 3, 4: products add up to 3, squares to 4.5 and 5.
    assert rank_correlation([1, 2, 2, 9], [5, 4, 6, 7]) == pytest.approx(3 / math.sqrt(4.5 * 5))
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None
