"""The sections on how the numbers came about: learning curves, configuration and versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from foreword.report import charts
from foreword.report.markup import Markup, element
from foreword.report.parts import Results, scroll


def curves(results: Results) -> Markup | None:
    """Dev effectiveness and training loss against step, one line for each prompt."""
    found = [curve for curve in results.get("curves") or [] if curve.get("points")]
    styles = {str(curve["name"]): number for number, curve in enumerate(found)}
    pictures = []
    for field, label in (
        ("dev", str(results.get("dev_measure") or "dev nDCG@10")),
        ("loss", "training loss"),
    ):
        lines = [charts.Curve(str(curve["name"]), _points(curve, field)) for curve in found]
        lines = [line for line in lines if line.points]
        if lines:
            pictures.append(scroll(charts.line_chart(f"curve-{field}", label, lines, styles, label)))
    if not pictures:
        return None
    names = [element("li", charts.line_sample(number), name) for name, number in styles.items()]
    return element("figure", element("ul", names, class_="legend"), element("div", pictures, class_="pair"))


def _points(curve: Mapping[str, Any], field: str) -> list[tuple[float, float]]:
    """The (step, value) points at which a curve has this field."""
    points = [point for point in curve["points"] if point.get(field) is not None]
    return sorted((float(point["step"]), float(point[field])) for point in points)


def provenance(results: Results) -> Markup | None:
    """Configuration and versions, so that the numbers can be made again."""
    parts = []
    for key, caption in (("configuration", "Configuration"), ("versions", "Versions")):
        body = [
            element("tr", element("th", name, scope="row"), element("td", element("code", text)))
            for name, text in _flat(results.get(key) or {})
        ]
        if body:
            parts.append(scroll(element("table", element("caption", caption), element("tbody", body))))
    return element("div", parts, class_="pair") if parts else None


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested mappings as (dotted name, plain text or JSON) lines."""
    lines: list[tuple[str, str]] = []
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            lines += _flat(inner, f"{prefix}{key}.")
        elif isinstance(inner, list | tuple) and all(isinstance(item, str) for item in inner):
            lines.append((f"{prefix}{key}", ", ".join(inner)))
        else:
            text = inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False, default=str)
            lines.append((f"{prefix}{key}", text))
    return lines
