"""The benchmark's summaries, hypotheses, tables, plots and page, from invented cells."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from invented_cells import benchmark, cell

from foreword.errors import ForewordError
from foreword.lab.page import domain_table, hypothesis_table, summary_table, write_page
from foreword.lab.plots import (
    draw_all,
    few_shot_curves,
    few_shot_families,
    gain_by_similarity,
    label_points,
    log_axis,
    short_names,
    spread_out,
    standing_out,
    transfer_matrix,
)
from foreword.lab.records import BenchmarkCell, Hypothesis
from foreword.lab.statistics import judge_hypotheses, summarise
from foreword.report.drawing import canvas

SYSTEMS = ("base", "bm25", "transfer-guarded", "supervised")
TARGETS = ("a", "b")


def two_targets() -> list[BenchmarkCell]:
    """Worked by hand: base .5 and .3; transfer +.1 and -.1 (two seeds); supervised +.2 on both."""
    cells = [cell("a", "base", [0.4, 0.6]), cell("b", "base", [0.3, 0.3, 0.3])]
    for seed, more in ((0, 0.0), (1, 0.2)):
        costs = {"trained_parameters": 10 + seed, "seconds": 2.0 * seed, "decision": "transfer"}
        cells.append(cell("a", "transfer", [0.4 + more, 0.6 + more], seed, **costs))
        cells.append(cell("b", "transfer", [0.2, 0.2, 0.2], seed, **costs))
    labelled = {"labels": None, "trained_parameters": 100}
    cells += [cell("a", "supervised", [0.6, 0.8], **labelled), cell("b", "supervised", [0.5, 0.5, 0.5], **labelled)]
    return [*cells, cell("a", "partial", [1, 1])]


# Summaries and hypotheses


def test_summary_by_hand() -> None:
    found = summarise(two_targets(), TARGETS, ["base", "transfer", "partial", "supervised", "absent"], trials=400)
    base, transfer, supervised = found.rows
    assert [base.system, transfer.system, supervised.system] == ["base", "transfer", "supervised"]
    assert base.measures == {"nDCG@10": pytest.approx(0.4), "R@100": pytest.approx(0.4)}
    assert (base.gain, base.share, base.coverage, base.spread, base.seeds) == (None, None, None, None, (1, 1))
    assert transfer.measures["nDCG@10"] == pytest.approx(0.4)
    assert transfer.gain is not None
    assert transfer.share is not None
    assert transfer.gain.difference.mean == pytest.approx(0.0)
    assert transfer.gain.worst_target == "b"
    assert transfer.gain.worst.mean == pytest.approx(-0.1)
    assert (transfer.gain.counts.wins, transfer.gain.counts.ties, transfer.gain.counts.losses) == (1, 0, 1)
    assert transfer.share.share == pytest.approx(0.0)
    assert (transfer.trained_parameters, transfer.seconds, transfer.coverage, transfer.seeds) == (
        10.5,
        1.0,
        1.0,
        (2, 2),
    )
    assert transfer.spread == pytest.approx(0.1 / 2**0.5)  # means of seeds .35 and .45
    assert (transfer.labels, supervised.labels) == ((0,), (None,))
    assert supervised.share is not None
    assert supervised.share.share == 1.0
    assert [(one.system, one.covered, one.missing) for one in found.incomplete] == [
        ("partial", ("a",), ("b",)),
        ("absent", (), ("a", "b")),
    ]


def test_without_the_baseline_there_are_no_differences() -> None:
    found = summarise(two_targets(), TARGETS, ["transfer", "partial"], baseline="partial", trials=50)
    assert found.rows[0].gain is None
    assert "No differences, since partial lacks targets: it covers 1 of 2 targets." in summary_table(found).notes
    with pytest.raises(ForewordError, match="0 targets"):
        summarise(two_targets(), [], ["base"])


def test_verdicts() -> None:
    cells = []
    for place in range(6):
        base = [0.1 * (place + query % 3) for query in range(20)]
        cells += [cell(f"t{place}", "base", base), cell(f"t{place}", "better", [value + 0.1 for value in base])]
        cells.append(cell(f"t{place}", "odd", [v + (0.1 if n % 2 else -0.1) for n, v in enumerate(base)]))
    targets = [f"t{place}" for place in range(6)]
    claims = [("up", "better", "base"), ("down", "base", "better"), ("even", "odd", "base"), ("gone", "lost", "base")]
    verdicts = judge_hypotheses(cells, [Hypothesis(n, f"claim {n}", s, b) for n, s, b in claims], targets, trials=999)
    outcomes = [verdict.outcome for verdict in verdicts]
    assert outcomes == ["supported", "contradicted", "undecided", "not tested"]
    up, down, even, gone = verdicts
    assert up.difference is not None
    assert down.difference is not None
    assert up.difference.mean == pytest.approx(0.1) == -down.difference.mean
    assert up.p_value == 1 / 1000
    assert up.p_holm == 3 / 1000  # three could be tested
    assert even.p_value is not None
    assert even.p_value > 0.5
    assert gone.missing == tuple(targets)
    assert judge_hypotheses(cells, [up.hypothesis], [])[0].outcome == "not tested"
    assert "not tested (missing: 6 targets)" in str(hypothesis_table(verdicts))
    assert "not tested (missing: t0, t5)" in str(hypothesis_table([replace(gone, missing=("t0", "t5"))]))


# Tables


def test_tables_in_markdown() -> None:
    cells = two_targets()
    text = str(summary_table(summarise(cells, TARGETS, ["base", "transfer", "partial", "supervised"], trials=100)))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {lines[0].count("|")}
    assert lines[-1].startswith("| supervised | **.600** | **.600** | +.200 [+.200, +.200] |")
    assert "| 0 | 100 % | .0707 | 2 | 10.5 |" in text
    assert "- No means, since they cover some of the 2 targets only: partial (1)." in text
    table = domain_table(cells, ["base", "transfer", "partial"], TARGETS)
    rows = str(table).splitlines()[4:7]
    assert rows[0] == "| a | documentation | .500 | .600 | **1.000** |"
    assert rows[1] == "| b | documentation | **.300** | .200 | – |"
    assert rows[2] == "| mean of 2 |  | **.400** | **.400** | – |"
    assert "partial: no mean, since it covers 1 of 2 targets." in table.notes
    assert table.as_dict()["rows"][1]["values"] == {"base": 0.3, "transfer": pytest.approx(0.2), "partial": None}


def test_a_bar_in_a_name_does_not_part_a_cell() -> None:
    text = str(domain_table([cell("a|b", "s", [1])], ["s"], ["a|b"]))
    assert "a\\|b" in text


# Plots


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Any:
    targets = ["pydoc/torch", "pydoc/numpy", "beir/scifact", "glasgow/cisi"]
    cells = benchmark(targets, 20, seeds=2)
    summaries = summarise(cells, targets, SYSTEMS, trials=200)
    return cells, summaries, draw_all(tmp_path_factory.mktemp("plots"), cells, summaries)


def test_every_plot_is_drawn_twice_alike(drawn: Any, tmp_path: Path) -> None:
    cells, summaries, plots = drawn
    names = ["transfer-matrix", "gain-by-similarity", "few-shot", "gain-by-parameters", "gain-by-seconds"]
    assert [plot.name for plot in plots] == names
    for first, second in zip(plots, draw_all(tmp_path, cells, summaries), strict=True):
        assert first.png.read_bytes().startswith(b"\x89PNG")
        assert first.svg.read_bytes() == second.svg.read_bytes()
        assert first.data == second.data
        assert ElementTree.parse(first.svg).getroot().tag.endswith("svg")


def test_the_matrix_has_each_single_source(drawn: Any) -> None:
    cells, _, plots = drawn
    data = {(one["source"], one["target"]): one["difference"] for one in plots[0].data}
    assert len(data) == 4 * 3
    means = {(c.system, c.target): c.measures["nDCG@10"] for c in cells if c.target == "glasgow/cisi"}
    expected = means["single:pydoc/torch", "glasgow/cisi"] - means["base", "glasgow/cisi"]
    assert data["pydoc/torch", "glasgow/cisi"] == pytest.approx(expected)


def test_few_shot_families_and_their_shared_targets() -> None:
    cells = [cell(target, f"new@{k}", [0.1 * k]) for target in "ab" for k in (4, 8)]
    cells += [cell("a", "new", [0.2]), cell("b", "new", [0.2]), cell("a", "new@all", [1.0], labels=None)]
    cells += [cell(target, "base", [0.1]) for target in "ab"]
    assert few_shot_families(cells) == {"new": {"0": "new", "4": "new@4", "8": "new@8", "all": "new@all"}}
    plot = few_shot_curves(cells, ["a", "b"])
    assert plot is not None
    assert [(one["labels"], one["value"]) for one in plot.data] == [
        ("0", 0.2), ("4", pytest.approx(0.4)), ("8", pytest.approx(0.8)), ("all", 1.0),
    ]  # fmt: skip
    assert "the 1 of 2 targets" in plot.caption
    assert few_shot_curves(cells, ["c"]) is None


def test_similarity_by_target_alone() -> None:
    cells = [cell(name, "s", [0.1 * place], similarity=0.1 * place) for place, name in enumerate("abcd")]
    cells += [cell(name, "base", [0.05]) for name in "abcd"]
    plot = gain_by_similarity(cells, list("abc"), ["s"])
    assert plot is not None
    assert plot.data[0] == {"system": "s", "target": "a", "similarity": 0.0, "difference": -0.05}
    assert "rank correlation +1.00 over 3 points" in plot.caption
    assert gain_by_similarity(cells, list("abc")) is None
    assert transfer_matrix(cells, list("abc")) is None


def test_a_log_axis_has_a_place_for_zero() -> None:
    with canvas(4, 3) as (_, axes):
        places = log_axis(axes, [0, 100, 10_000])
        assert places[1:] == [2.0, 4.0]
        assert axes.get_xlim()[0] < places[0] < 2
        assert axes.get_xticklabels()[0].get_text() == "0"
    with canvas(4, 3) as (_, axes):
        assert log_axis(axes, [0, 0])[1] < 0  # nothing above 0: still an axis
    with canvas(4, 3) as (_, axes):
        log_axis(axes, [20, 3000])
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["10", "100", "1 k", "10 k"]


def test_names_keep_clear_of_one_another() -> None:
    points = [(0.5 + 0.002 * number, 0.5) for number in range(5)]
    with canvas(5, 4) as (figure, axes):
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        label_points(axes, points, {number: f"system number {number}" for number in range(5)})
        boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 5
    assert not any(a.overlaps(b) for place, a in enumerate(boxes) for b in boxes[:place])


def test_spread_out() -> None:
    assert spread_out([5, 0, 5], 2) == [4, 0, 6]
    assert spread_out([0, 10], 2) == [0, 10]
    moved = spread_out([0.0, 0.5, 1.0, 7.0], 2)
    assert moved == [-1.5, 0.5, 2.5, 7.0]


def test_names_of_points() -> None:
    assert short_names(["a/x", "b/x", "a/y", "z"]) == {"a/x": "a/x", "b/x": "b/x", "a/y": "y", "z": "z"}
    assert standing_out([3, 1, 2]) == [1, 2, 0]
    assert standing_out(list(range(100))) == [0, 1, 2, 3, 96, 97, 98, 99]


# The page


def test_the_page_stands_alone(drawn: Any, tmp_path: Path) -> None:
    cells, summaries, plots = drawn
    tables = [summary_table(summaries), domain_table(cells, SYSTEMS, summaries.targets)]
    verdicts = judge_hypotheses(
        cells, [Hypothesis("H1", "x < y & z", "supervised", "base")], summaries.targets, trials=99
    )
    path = write_page(tmp_path, "Transfer <1>", "One.\n\nTwo.", tables, verdicts, plots)
    page = path.read_text("utf-8")
    assert "x &lt; y &amp; z" in page
    assert "<p>One.</p><p>Two.</p>" in page
    assert page.count("<svg") == page.count('role="img"') == len(plots) == 5
    assert (
        page.count("<title>") == 1 + sum(len(one.data) for one in plots if one.name != "few-shot") + 4
    )  # squares of a source with itself
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert page.count("<table") == 3
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert results["hypotheses"][0]["outcome"] == verdicts[0].outcome
    row = next(row for row in results["tables"][0]["rows"] if row["system"] == "supervised")
    assert row["measures"]["nDCG@10"] == summaries.rows[-1].measures["nDCG@10"]
    assert len(results["plots"]) == 5
    before = path.read_bytes()
    assert write_page(tmp_path, "Transfer <1>", "One.\n\nTwo.", tables, verdicts, plots).read_bytes() == before
