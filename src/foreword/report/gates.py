"""The section on gated prompts: in which layers and heads they act."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foreword.report import numbers
from foreword.report.heatmap import heatmap
from foreword.report.markup import Markup, element
from foreword.report.parts import Results, scroll

_SIDES = {"query": "queries", "document": "documents"}

_TEXT = (
    "How large what a prompt adds to a head's output is against that output itself: the ratio of their norms over a "
    "text's tokens, the mean over texts. At 1 the prompt says as much as the text does; at 0 it is silent. Layers "
    "count from the bottom."
)


def gates(results: Results) -> Markup | None:
    """A heatmap of layers by heads for each gated prompt and side, the first one open."""
    found = [item for item in results.get("gates") or [] if _whole(item)]
    if not found:
        return None
    parts = [_folded(f"gates-{number}", item, number == 0) for number, item in enumerate(found)]
    return element("figure", element("figcaption", _TEXT), parts)


def _whole(item: Mapping[str, Any]) -> bool:
    """Whether a record has a row for each layer, and rows of one length."""
    layers, values = item.get("layers") or [], item.get("strength") or []
    return bool(layers) and len(values) == len(layers) and len({len(row) for row in values}) == 1 and bool(values[0])


def _folded(key: str, item: Mapping[str, Any], opened: bool) -> Markup:
    """One prompt's heatmap under its name, with the place where it acts most."""
    side = str(item.get("side", ""))
    name = f"{item.get('domain', '')}, {_SIDES.get(side, side)}"
    layers, values = [int(layer) + 1 for layer in item["layers"]], item["strength"]
    heads = range(1, len(values[0]) + 1)
    picture = heatmap(
        key,
        f"Prompt of {name}: strength by layer and head",
        [f"layer {layer}" for layer in layers],
        [f"head {head}" for head in heads],
        values,
        what=f"Strength of the prompt of {name} in {len(layers)} layers (rows) and {len(heads)} heads (columns)",
        outline=False,
    )
    summary = element("summary", element("b", name), f": {_strongest(layers, values)}")
    return element("details", summary, scroll(picture), open=opened)


def _strongest(layers: Sequence[int], values: Sequence[Sequence[float]]) -> str:
    """The strongest head and layer, in words."""
    most, layer, head = max(
        (value, -row, -column) for row, line in enumerate(values) for column, value in enumerate(line)
    )
    means = [sum(line) / len(line) for line in values]
    top = means.index(max(means))
    return (
        f"most in layer {layers[-layer]}, head {1 - head} ({numbers.value(most)}); "
        f"by the mean of its heads in layer {layers[top]} ({numbers.value(means[top])})"
    )
