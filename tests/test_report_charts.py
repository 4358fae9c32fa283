"""The charts' geometry: round ticks, a bar for every query, colours that follow the values."""

from __future__ import annotations

import re

import pytest

from foreword.report.charts import Curve, gain_bars, heatmap, line_chart, line_class, nice_ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.5, 1.0]),
        (0.41, 0.58, [0.4, 0.45, 0.5, 0.55, 0.6]),
        (-0.7, 1.0, [-1.0, -0.5, 0.0, 0.5, 1.0]),
        (0, 400, [0, 100, 200, 300, 400]),
        (2.0, 2.0, [1.5, 2.0, 2.5]),
    ],
)
def test_ticks_are_round_and_span_the_values(low: float, high: float, expected: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(expected)


def test_ticks_span_any_values() -> None:
    for low, high in ((0.0, 1e-6), (-3.2, 17.9), (1e5, 3e9), (0.512, 0.513)):
        ticks = nice_ticks(low, high)
        assert ticks[0] <= low
        assert ticks[-1] >= high
        assert 2 <= len(ticks) <= 8


def test_one_bar_for_each_query_sorted() -> None:
    svg = gain_bars("k", "t", [("worse", -0.5), ("best", 1.0), ("same", 0.0), ("good", 0.25)], "AP")
    assert re.findall(r"<title>([^<]*)</title>", svg) == [
        "+1.000  best",
        "+.250  good",
        ".000  same",
        "−.500  worse",
    ]
    heights = [float(text) for text in re.findall(r'height="([\d.]+)" class="(?:win|loss)"', svg)]
    assert heights == pytest.approx([heights[0], heights[0] / 4, heights[0] / 2], rel=0.01)
    assert "2 queries better, 1 worse, 1 the same; differences from +1.000 to −.500." in svg


def test_many_queries_are_thinned_out_but_counted() -> None:
    svg = gain_bars("k", "t", [(f"q{number}", number / 5000) for number in range(5000)], "AP", most=100)
    titles = re.findall(r"<title>([^<]*)</title>", svg)
    assert len(titles) == 100
    assert titles[0].endswith("q4999")
    assert titles[-1].endswith("q0")
    assert "5,000 queries" in svg


def test_heatmap_colours_and_values() -> None:
    svg = heatmap("k", "t", ["a", "b"], ["a", "b", "far target name"], [[1.0, 0.2, 0.8], [0.5, 1.0, -0.1]])
    cells = re.findall(
        r'class="(heat[^"]*)" fill-opacity="([\d.]+)"></rect><text[^>]*?(?:class="(\w+)")?>([^<]+)<', svg
    )
    assert [(outline, text) for outline, _, _, text in cells] == [
        ("heat", "1.00"),  # itself
        ("heat outlined", "0.20"),  # nearest of b, the only other
        ("heat outlined", "0.80"),
        ("heat outlined", "0.50"),
        ("heat", "1.00"),
        ("heat", "−0.10"),
    ]
    opacity = {text: float(shade) for _, shade, _, text in cells}
    assert opacity["1.00"] == 0.0
    assert opacity["−0.10"] == 0.06
    assert opacity["0.80"] == 0.96
    assert {text: name for _, _, name, text in cells}["0.80"] == "on"  # light text on a strong colour
    assert "from -0.10 to 0.80" in svg


def test_lines() -> None:
    curves = [Curve("one", [(0, 0.4), (100, 0.5)]), Curve("two", [(50, 0.45)])]
    svg = line_chart("k", "dev nDCG@10", curves, {"one": 0, "two": 9}, "dev nDCG@10")
    points = re.findall(r'polyline points="([^"]+)"', svg)
    assert [len(line.split()) for line in points] == [2, 1]
    assert 'class="curve c0"' in svg
    assert 'class="curve c1 dashed"' in svg
    assert "one from .400 to .500; two from .450 to .450" in svg
    assert line_class(16) == "c0"
