"""Scores as probabilities: worked by hand, against scikit-learn, and by what must hold of any run."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pytest

from foreword.collections.collection import Qrels
from foreword.errors import ForewordError
from foreword.evaluation.calibration import (
    Bin,
    brier,
    calibrate,
    calibrate_from_dev,
    fit_temperature,
    reliability,
)
from foreword.report import render
from foreword.report.sections import calibration
from foreword.retrieval.runs import Run, ranked

# Softmax over two hits: .8 and .2, .6 and .4. Only the first query has a relevant hit.
RUN: Run = {"q1": {"a": math.log(4), "b": 0.0}, "q2": {"a": math.log(1.5), "b": 0.0}}
QRELS: Qrels = {"q1": {"a": 1, "b": 0}, "q2": {"z": 1}}


def drawn(queries: int = 3000, temperature: float = 0.05, hits: int = 5, seed: int = 0) -> tuple[Run, Qrels]:
    """Queries whose one relevant hit is drawn by the softmax of their scores over `temperature`."""
    random = np.random.default_rng(seed)
    run: Run = {}
    qrels: Qrels = {}
    for number in range(queries):
        scores = random.normal(0.5, 0.08, hits).astype(np.float32).astype(float)
        chances = np.exp(scores / temperature)
        run[f"q{seed}-{number}"] = {f"d{place}": float(score) for place, score in enumerate(scores)}
        qrels[f"q{seed}-{number}"] = {f"d{random.choice(hits, p=chances / chances.sum())}": 1}
    return run, qrels


def test_by_hand() -> None:
    found = calibrate(RUN, QRELS, k=2, bins=2)
    assert (found.queries, found.hits, found.unanswered) == (2, 4, 0)
    assert found.ece == pytest.approx(0.25)  # bins {.2, .4} and {.6, .8}: half of .3 - 0 and of .7 - .5
    assert [(b.confidence, b.accuracy, b.count) for b in found.pairs.curve] == [
        (pytest.approx(0.3), 0.0, 2),
        (pytest.approx(0.7), 0.5, 2),
    ]
    assert found.top.ece == pytest.approx(0.7 - 0.5)  # both first hits are above one half
    assert found.nll == pytest.approx(-(2 * math.log(0.8) + math.log(0.4) + math.log(0.6)) / 4)
    parts = found.brier
    assert parts.score == pytest.approx((0.2**2 + 0.2**2 + 0.6**2 + 0.4**2) / 4)
    assert (parts.reliability, parts.resolution) == (pytest.approx(0.065), pytest.approx(0.0625))
    assert (parts.uncertainty, parts.within_bins) == (pytest.approx(0.1875), pytest.approx(-0.04))
    fine = calibrate(RUN, QRELS, k=2, bins=7)
    assert fine.equal_width.ece == pytest.approx((0.2 + 0.2 + 0.6 + 0.4) / 4)  # each in a bin of its own
    assert fine.top.ece == pytest.approx((0.2 + 0.6) / 2)


def test_as_json() -> None:
    written = json.loads(json.dumps(calibrate(RUN, QRELS, k=2, bins=2).as_dict()))
    assert written["ece"] == pytest.approx(0.25)
    assert written["brier"] == pytest.approx(0.15)
    parts = written["reliability"] - written["resolution"] + written["uncertainty"] + written["within_bins"]
    assert parts == pytest.approx(written["brier"])
    assert written["curve"][0] == {"confidence": pytest.approx(0.3), "accuracy": 0.0, "count": 2}
    assert {"ece_equal_width", "ece_top", "curve_equal_width", "curve_top", "temperature", "k"} <= written.keys()


def test_temperature_and_the_number_of_hits_shape_the_probabilities() -> None:
    run, qrels = {"q": {"a": math.log(4), "b": 0.0, "c": -9.0}}, {"q": {"a": 1}}
    assert calibrate(run, qrels, k=2, temperature=0.5).top.curve[0].confidence == pytest.approx(16 / 17)
    assert calibrate(run, qrels, k=2, temperature=1e6).top.curve[0].confidence == pytest.approx(1 / 2, abs=1e-5)
    assert calibrate(run, qrels, k=3, temperature=1e6).top.curve[0].confidence == pytest.approx(1 / 3, abs=1e-5)
    assert calibrate(run, qrels, k=1).top.curve == (Bin(1.0, 1.0, 1),)


def test_several_relevant_hits_count_each_or_share_one() -> None:
    run, qrels = {"q": {"a": 0.0, "b": 0.0, "c": -99.0}}, {"q": {"a": 2, "b": 1, "far": 1}}
    each, share = calibrate(run, qrels, k=3), calibrate(run, qrels, k=3, several="share")
    assert each.ece == pytest.approx(2 / 3 * 0.5)  # at most one half can be said of either
    assert share.ece == pytest.approx(0.0, abs=1e-9)
    assert share.brier.score == pytest.approx(0.0, abs=1e-9)
    assert share.top.curve[0].accuracy == 1.0  # the first hit is relevant, whoever shares


def test_queries_without_hits_or_judgements() -> None:
    qrels: Qrels = {**QRELS, "q3": {"a": 1}, "q4": {}}
    found = calibrate({**RUN, "q4": {"a": 1.0}, "q5": {"a": 1.0}, "q3": {}}, qrels, k=2, bins=2)
    assert (found.queries, found.unanswered) == (2, 1)
    assert found.ece == calibrate(RUN, QRELS, k=2, bins=2).ece


def test_hits_of_one_probability_share_a_bin() -> None:
    chances, outcomes = np.array([0.5] * 6 + [0.1, 0.9]), np.array([1.0, 0, 0, 0, 0, 1, 0, 1])
    assert [point.count for point in reliability(chances, outcomes, 4, "count").curve] == [7, 1]
    shuffled = np.array([5, 7, 1, 0, 6, 2, 4, 3])
    again = reliability(chances[shuffled], outcomes[shuffled], 4, "count")
    assert again.ece == pytest.approx(reliability(chances, outcomes, 4, "count").ece)


@pytest.mark.parametrize("bins", [1, 5, 10, 20])
def test_curves_agree_with_scikit_learn(bins: int) -> None:
    sklearn = pytest.importorskip("sklearn.calibration")
    random = np.random.default_rng(3)
    chances = random.beta(1, 4, 5000)
    outcomes = (random.random(5000) < chances**0.7).astype(float)
    true, said = sklearn.calibration_curve(outcomes, chances, n_bins=bins, strategy="uniform")
    curve = reliability(chances, outcomes, bins, "width").curve
    assert [point.accuracy for point in curve] == pytest.approx(true)
    assert [point.confidence for point in curve] == pytest.approx(said)
    true, said = sklearn.calibration_curve(outcomes, chances, n_bins=bins, strategy="quantile")
    curve = reliability(chances, outcomes, bins, "count").curve  # edges differ by one probability at most
    assert [point.confidence for point in curve] == pytest.approx(said, abs=0.005)
    assert {point.count for point in curve} == {5000 // bins}


@pytest.mark.parametrize("bins", [1, 3, 10, 100])
def test_the_brier_scores_parts_add_up(bins: int) -> None:
    random = np.random.default_rng(bins)
    chances, outcomes = random.random(400), random.choice([0.0, 0.5, 1.0], 400)
    for binning in ("count", "width"):
        parts = brier(chances, outcomes, bins, binning)
        total = parts.reliability - parts.resolution + parts.uncertainty + parts.within_bins
        assert total == pytest.approx(parts.score, abs=1e-12)
        assert parts.score == pytest.approx(np.mean((chances - outcomes) ** 2))


def test_a_perfectly_calibrated_run_and_a_wrong_temperature() -> None:
    run, qrels = drawn(temperature=0.05)
    right = calibrate(run, qrels, temperature=0.05, k=5)
    assert right.ece < 0.015
    assert right.equal_width.ece < 0.015
    assert right.brier.reliability < 0.0005
    for wrong in (0.01, 1.0):  # too sure, and not sure at all
        other = calibrate(run, qrels, temperature=wrong, k=5)
        assert other.ece > 5 * right.ece
        assert other.nll > right.nll
        assert other.brier.uncertainty == right.brier.uncertainty


@pytest.mark.parametrize("temperature", [0.02, 0.05, 0.3])
def test_the_fit_recovers_a_known_temperature(temperature: float) -> None:
    run, qrels = drawn(8000, temperature)
    assert fit_temperature(run, qrels, k=5) == pytest.approx(temperature, rel=0.1)
    assert fit_temperature(run, qrels, k=5, several="share") == fit_temperature(run, qrels, k=5)


def test_the_fit_is_least_and_moves_with_the_scores() -> None:
    run, qrels = drawn(400)
    best = fit_temperature(run, qrels, k=5)
    least = calibrate(run, qrels, temperature=best, k=5).nll
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert calibrate(run, qrels, temperature=best * factor, k=5).nll > least
    tens = {query: {doc: 8 * score for doc, score in hits.items()} for query, hits in run.items()}
    assert fit_temperature(tens, qrels, k=5) == pytest.approx(8 * best, rel=1e-5)
    shifted = {query: {doc: score + 1 for doc, score in hits.items()} for query, hits in run.items()}
    assert fit_temperature(shifted, qrels, k=5) == pytest.approx(best, rel=1e-3)  # float32 scores near 1
    assert fit_temperature(run, qrels, k=5) == best


def test_no_temperature_changes_the_ranking() -> None:
    run, _ = drawn(50)
    for hits in run.values():
        order = [doc for doc, _ in ranked(hits)]
        for temperature in (0.01, 0.5, 20.0):
            assert [doc for doc, _ in ranked({d: s / temperature for d, s in hits.items()})] == order


def test_scores_that_say_all_or_nothing_stay_within_bounds() -> None:
    run = {f"q{n}": {"a": 2.0, "b": 1.0} for n in range(4)}
    sure = fit_temperature(run, {query: {"a": 1} for query in run}, k=2)
    wrong = fit_temperature(run, {query: {"b": 1} for query in run}, k=2)
    assert 0 < sure < 0.1
    assert wrong == pytest.approx(0.5e3, rel=0.01)
    found = calibrate(run, {query: {"b": 1} for query in run}, temperature=1e-9, k=2)
    assert math.isfinite(found.nll)
    assert found.ece == pytest.approx(1.0)


def test_dev_and_test_are_kept_apart() -> None:
    dev, test = drawn(800, seed=1), drawn(800, seed=2)
    found = calibrate_from_dev(*test, *dev, k=5)
    assert found.temperature == fit_temperature(*dev, k=5)
    assert found == calibrate(*test, temperature=found.temperature, k=5)
    with pytest.raises(ForewordError, match="800 queries are in dev and test"):
        calibrate_from_dev(*dev, *dev)


@pytest.mark.parametrize(
    "change", [{"temperature": 0.0}, {"temperature": math.nan}, {"k": 0}, {"bins": 0}, {"several": "all"}]
)
def test_bad_arguments_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ForewordError, match="expected"):
        calibrate(RUN, QRELS, **change)


def test_what_cannot_be_calibrated_is_said() -> None:
    with pytest.raises(ForewordError, match="of one split"):
        calibrate(RUN, {"other": {"a": 1}})
    with pytest.raises(ForewordError, match="'a' for query 'q1' is inf"):
        calibrate({"q1": {"a": math.inf}}, QRELS)
    with pytest.raises(ForewordError, match="no temperature can be fitted"):
        fit_temperature(RUN, {"q1": {"z": 1}})
    with pytest.raises(ForewordError, match="all equal"):
        fit_temperature({"q1": {"a": 1.0, "b": 1.0}}, QRELS)


# -- the report's section ------------------------------------------------------------------------------------------


def records() -> list[dict[str, Any]]:
    run, qrels = drawn(300)
    return [
        {"domain": domain, "system": system, **calibrate(run, qrels, temperature=temperature, k=5).as_dict()}
        for domain in ("pydoc/torch", "<b>other</b>")
        for system, temperature in (("base", 1.0), ("prompt", 0.05))
    ]


def test_the_section_shows_every_domain_and_system() -> None:
    section = calibration({"calibration": records()})
    assert section is not None
    assert section.count("<svg") == 2
    assert re.findall(r"<h3[^>]*>([^<]*)</h3>", section) == ["pydoc/torch", "&lt;b&gt;other&lt;/b&gt;"]
    assert section.count("<circle") == sum(len(item["curve"]) for item in records())
    for item in records():
        assert f"{item['ece']:.3f}".lstrip("0") in section
    assert len(re.findall(r'role="img" aria-labelledby="calibration-\d-title calibration-\d-desc"', section)) == 2
    assert 'id="calibration"' in render({"calibration": records()})


def test_dots_lie_on_the_diagonal_when_calibrated() -> None:
    curve = [{"confidence": c, "accuracy": c, "count": 10} for c in (0.1, 0.4, 0.9)]
    section = calibration({"calibration": [{"domain": "d", "system": "s", "ece": 0.0, "curve": curve}]})
    assert section is not None
    dots = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', section)]
    assert len(dots) == 3
    lines = re.findall(r'<path d="M ([\d.]+) ([\d.]+) L ([\d.]+) ([\d.]+)"', section)
    ((x1, y1, x2, y2),) = (
        found for line in lines if (found := [float(n) for n in line])[0] != found[2] and found[1] != found[3]
    )
    for x, y in dots:
        assert (x - x1) / (x2 - x1) == pytest.approx((y - y1) / (y2 - y1), abs=0.002)


@pytest.mark.parametrize("found", [None, [], [{"domain": "d", "system": "s", "ece": 0.1, "curve": []}]])
def test_the_section_is_left_out_without_curves(found: Any) -> None:
    assert calibration({"calibration": found}) is None
