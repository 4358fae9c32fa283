"""The section on calibration: whether scores, read as probabilities, come true."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from foreword.report import charts, numbers, table
from foreword.report.markup import Child, Markup, element
from foreword.report.parts import Results, data_table, row, scroll, system_name
from foreword.report.svg import nice_ticks, picture

_WIDTH, _HEIGHT = 420, 400  # px of a diagram
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 406, 26, 350  # px of the edges of its field
_LARGEST = 6.0  # px: the radius of the bin with the most hits

Item = Mapping[str, Any]


def calibration(results: Results) -> Markup | None:
    """For each domain a reliability diagram with a curve for each system, and the errors in a table."""
    found = [item for item in results.get("calibration") or [] if item.get("curve")]
    if not found:
        return None
    styles = {system: number for number, system in enumerate(table.unique(found, "system"))}
    articles = [
        element(
            "article",
            element("h3", domain, style="margin-top:0"),
            scroll(_diagram(f"calibration-{number}", domain, own, styles)),
        )
        for number, domain in enumerate(table.unique(found, "domain"))
        if (own := [item for item in found if str(item.get("domain")) == domain])
    ]
    text = (
        "A hit's confidence is a softmax over its query's best scores, divided by the temperature T. On the diagonal "
        "it comes true; below it the system is too sure, above it not sure enough. Each dot is a bin of hits, larger "
        "with more of them."
    )
    names = [element("li", charts.line_sample(number), name) for name, number in styles.items()]
    return element(
        "figure",
        element("figcaption", text),
        element("ul", names, class_="legend"),
        element("div", articles, class_="pair"),
        _table(found),
    )


def _diagram(key: str, domain: str, own: Sequence[Item], styles: Mapping[str, int]) -> Markup:
    """Confidence across, relevance upwards, the diagonal, and a curve for each system."""
    points = [point for item in own for point in item["curve"]]
    ticks = nice_ticks(0.0, max(max(point["confidence"], point["accuracy"]) for point in points), 6)
    largest = max(point["count"] for point in points)
    parts: list[Child] = [
        element("text", "share that is relevant", x=8, y=14, class_="axis"),
        [_tick(tick, ticks[-1]) for tick in ticks],
        element("line", x1=_LEFT, x2=_RIGHT, y1=_BOTTOM, y2=_TOP, class_="zero"),
        _label("confidence", (_LEFT + _RIGHT) / 2, _HEIGHT - 10, "middle"),
        [_curve(item, ticks[-1], largest, charts.line_class(styles[str(item["system"])])) for item in own],
    ]
    described = "; ".join(_said(item) for item in own)
    description = f"Reliability of hits on {domain}, confidence against the share that is relevant: {described}."
    return picture(key, f"Calibration on {domain}", description, _WIDTH, _HEIGHT, parts)


def _said(item: Item) -> str:
    """A system's outcome in words."""
    error = f"{item['system']} has an expected calibration error of {numbers.value(item.get('ece'))}"
    temperature = item.get("temperature")
    return error if temperature is None else f"{error} at temperature {temperature:.3g}"


def _tick(tick: float, top: float) -> list[Markup]:
    """A value on both axes, with a line across."""
    x, y, text = _x(tick, top), _y(tick, top), f"{tick:g}"
    line = element("line", x1=_LEFT, x2=_RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid")
    return [line, _label(text, _LEFT - 8, y + 4, "end"), _label(text, x, _BOTTOM + 18, "middle")]


def _curve(item: Item, top: float, largest: int, style: str) -> Markup:
    """One system's curve; a dot's numbers appear on hover."""
    places = [(f"{_x(p['confidence'], top):.1f}", f"{_y(p['accuracy'], top):.1f}") for p in item["curve"]]
    dots = []
    for (x, y), point in zip(places, item["curve"], strict=True):
        said = (
            f"{item['system']}: confidence {numbers.value(point['confidence'])}, relevant "
            f"{numbers.value(point['accuracy'])}, {numbers.count(point['count'])} hits"
        )
        radius = max(2.0, _LARGEST * math.sqrt(point["count"] / largest))
        dots.append(element("circle", element("title", said), cx=x, cy=y, r=f"{radius:.1f}"))
    return element(
        "g", element("polyline", points=" ".join(f"{x},{y}" for x, y in places)), dots, class_=f"curve {style}"
    )


def _x(value: float, top: float) -> float:
    """px from the left."""
    return _LEFT + value / top * (_RIGHT - _LEFT)


def _y(value: float, top: float) -> float:
    """px from the top."""
    return _BOTTOM - value / top * (_BOTTOM - _TOP)


def _label(text: str, x: float, y: float, anchor: str) -> Markup:
    """A text at a place."""
    return element("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)


def _table(found: Sequence[Item]) -> Markup:
    """The errors of every system on every domain, the least of each domain in bold."""
    several = len(table.unique(found, "domain")) > 1
    body = []
    for item in found:
        peers = [peer for peer in found if peer.get("domain") == item.get("domain")]
        cells: list[Child] = [element("td", item.get("domain"))] if several else []
        cells.append(numbers.NOTHING if item.get("temperature") is None else f"{item['temperature']:.3g}")
        cells += [_least(item, peers, name) for name in ("ece", "brier")]
        cells += [numbers.value(item.get(name), 4) for name in ("reliability", "resolution", "uncertainty")]
        cells.append(numbers.count(sum(point["count"] for point in item["curve"])))
        body.append(row(system_name(str(item["system"])), cells))
    columns = ["System", *(["Domain"] if several else [])]
    columns += ["T", "ECE", "Brier", "reliability", "resolution", "uncertainty", "hits"]
    caption = "Expected calibration error and Brier score (less is better), and the Brier score's parts"
    return data_table(columns, body, caption=caption, words=range(2 if several else 1))


def _least(item: Item, peers: Sequence[Item], name: str) -> Markup:
    """A number that should be small, bold when none of its domain prints less."""
    text = numbers.value(item.get(name))
    least = numbers.value(min((peer[name] for peer in peers if peer.get(name) is not None), default=None))
    bold = text == least and text != numbers.NOTHING and len(peers) > 1
    return element("td", element("b", text) if bold else text, class_="n")
