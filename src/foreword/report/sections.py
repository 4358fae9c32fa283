"""The sections of the page: what of the results each one shows; how it looks is in `templates/`.

Each takes the results and gives its part of the page, or None where there is nothing to show.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from foreword.report import plots
from foreword.report.html import fill
from foreword.report.results import (
    BASELINE,
    Gains,
    QueryGains,
    Results,
    SystemRow,
    better_same_worse,
    gather,
    query_gains,
    unique,
)
from foreword.tables import NOTHING, top, value

if TYPE_CHECKING:
    from markupsafe import Markup

_SYSTEMS = {
    "bm25": "words only",
    "base": "the frozen encoder, no prompt",
    "multitask": "one prompt for all sources",
    "transfer-uniform": "source prompts, equal weights",
    "transfer-similarity": "weights from domain similarity",
    "transfer-fitted": "weights fitted on pseudo-queries",
    "best-single": "the one source chosen as best",
    "transfer": "multitask, where the target's text speaks for it",
    "supervised-query": "target's labels, query side",
    "supervised-both": "target's labels, both sides",
}
DESCRIPTIONS: Mapping[str, str] = _SYSTEMS | {f"{name}+bm25": f"{name} and bm25, fused" for name in _SYSTEMS}
"""What a system is, in a few words, for the names that Foreword's own commands use."""


def results_tables(results: Results) -> Markup | None:
    """Systems by measures for every collection; over several, first an overview of the main measure."""
    rows = results.get("rows") or []
    measures, collections = unique(rows, "measure"), unique(rows, "collection")
    if not measures or not collections:
        return None
    baseline = str(results.get("baseline") or BASELINE)
    gathered = gather(rows, measures, baseline)
    parts = []
    for collection in collections:
        own = [row for row in gathered if row.collection == collection]
        tops = {measure: top(row.values[measure] for row in own) for measure in measures}
        widest = max((abs(row.difference) for row in own if row.difference is not None), default=0.0)
        parts.append({"collection": collection, "rows": own, "tops": tops, "widest": widest})
    return fill(
        "results.html",
        overview=_overview(gathered, collections, measures[0], baseline) if len(collections) > 1 else None,
        parts=parts,
        measures=measures,
        baseline=baseline,
        about=DESCRIPTIONS,
        tested=any(row.p_value is not None for row in gathered),
    )


def _overview(rows: Sequence[SystemRow], collections: list[str], measure: str, baseline: str) -> dict[str, Any]:
    """Systems by collections on one measure, with the mean where a system has them all."""
    found = {(row.system, row.collection): row for row in rows}
    lines: dict[str, list[dict[str, float | None]]] = {}
    for system in dict.fromkeys(row.system for row in rows):
        own = [row for name in collections if (row := found.get((system, name))) is not None]
        shown = {row.collection: {"value": row.values.get(measure), "gain": row.difference} for row in own}
        cells = [shown.get(name, {"value": None, "gain": None}) for name in collections]
        numbers = [number for cell in cells if (number := cell["value"]) is not None]
        mean = sum(numbers) / len(numbers) if len(numbers) == len(collections) else None
        lines[system] = [*cells, {"value": mean, "gain": None}]
    base = lines[baseline][-1]["value"] if baseline in lines else None
    for system, cells in lines.items():
        mean = cells[-1]["value"]
        if base is not None and mean is not None and system != baseline:
            cells[-1]["gain"] = mean - base
    return {
        "collections": collections,
        "caption": f"{measure} of every system on every collection, and below it the difference from {baseline}",
        "lines": list(lines.items()),
        "tops": [top(cell["value"] for cell in column) for column in zip(*lines.values(), strict=True)],
    }


def advice(results: Results) -> Markup | None:
    """One card for each target: what to do, and why."""
    cards = []
    for item in results.get("advice") or []:
        choice = str(item.get("choice", ""))
        against = choice.lower().replace("’", "'").startswith(("don't", "do not", "no "))
        cards.append({"target": "", "reason": "", **item, "choice": choice, "against": against})
    return fill("advice.html", cards=cards) if cards else None


_MOVED = 5  # queries listed at either end


def gains(results: Results) -> Markup | None:
    """For each collection: one system's gain on every query, the queries that moved most, and how many each moves."""
    shown = [data for data in (results.get("per_query") or {}).values() if query_gains(data) is not None]
    parts = []
    for data, plot in zip(shown, plots.gains(results), strict=True):
        found = query_gains(data)
        assert found is not None
        lines = [
            {"system": system, "counts": better_same_worse(own.values()), "mean": sum(own.values()) / len(own)}
            for system, own in found.gains.items()
        ]
        ranks = data.get("ranks") or {}
        ranked = found.baseline in ranks and found.system in ranks
        groups = _movers(data, found, ranks if ranked else {})
        parts.append({"found": found, "plot": plot, "groups": groups, "ranked": ranked, "lines": lines})
    return fill("gains.html", parts=parts) if parts else None


def _movers(
    data: Mapping[str, Any], found: QueryGains, ranks: Mapping[str, Mapping[str, int | None]]
) -> list[tuple[str, list[dict[str, Any]]]]:
    """The queries that moved most, with the rank of the first relevant document where it is known."""
    own: Gains = found.gains[found.system]
    moved = sorted(own, key=lambda key: -own[key])
    pair = (found.baseline, found.system)

    def query(key: str) -> dict[str, Any]:
        before, after = (data["systems"][name][key] for name in pair)
        places = [ranks.get(name, {}).get(key) for name in pair]
        shown = [NOTHING if place is None else str(place) for place in places]
        text = found.texts.get(key, key)
        return {"text": text, "before": before, "after": after, "gain": own[key], "ranks": shown}

    gained = [query(key) for key in moved[:_MOVED] if own[key] > 0]
    lost = [query(key) for key in moved[::-1][:_MOVED] if own[key] < 0]
    return [(name, queries) for name, queries in (("Largest gains", gained), ("Largest losses", lost)) if queries]


def searches(results: Results) -> Markup | None:
    """Real searches before and after, side by side."""
    found = []
    for item in results.get("searches") or []:
        before, after = item.get("before") or [], item.get("after") or []
        if before or after:
            ranks = {hit.get("name"): rank for rank, hit in enumerate(before, start=1)}
            names = (str(item.get(key, key.removesuffix("_system"))) for key in ("before_system", "after_system"))
            lists = list(zip(names, (before, after), ({}, ranks), strict=True))
            found.append({**item, "lists": lists})
    return fill("searches.html", searches=found) if found else None


def influence(results: Results) -> Markup | None:
    """For each search the words of its query, shaded by what they do, for both systems; all numbers to unfold."""
    found = []
    for item in results.get("influence") or []:
        if item.get("words"):
            base, prompt = item.get("systems") or ("base", "prompt")
            systems = [(str(base), "base", item.get("base")), (str(prompt), "prompted", item.get("prompted"))]
            most = max(abs(float(word[key])) for word in item["words"] for key in ("base", "prompted"))
            why = "the first hit with the prompt" if item.get("relevant") is None else "relevant"
            document, change = item.get("document", item.get("doc_id", "")), item.get("change")
            told = {"systems": systems, "most": most, "why": why, "document": document, "change": change}
            found.append({**item, **told})
    return fill("influence.html", searches=found) if found else None


def calibration(results: Results) -> Markup | None:
    """For each domain a reliability diagram with a curve for each system, and the errors in a table."""
    found = [item for item in results.get("calibration") or [] if item.get("curve")]
    if not found:
        return None
    places = {system: place for place, system in enumerate(unique(found, "system"))}
    domains = {name: [item for item in found if str(item.get("domain")) == name] for name in unique(found, "domain")}
    lines = []
    for item in found:
        peers = [peer for peer in found if peer.get("domain") == item.get("domain")]
        numbers = {
            name: [peer[name] for peer in peers if peer.get(name) is not None] if len(peers) > 1 else []
            for name in ("ece", "brier")
        }
        least = {name: value(min(own, default=None)) for name, own in numbers.items()}  # as it is printed
        lines.append({"item": item, "least": least})
    drawn = [(name, plots.reliability_curves(name, own, places)) for name, own in domains.items()]
    return fill("calibration.html", plots=drawn, lines=lines, about=DESCRIPTIONS)


def similarity(results: Results) -> Markup | None:
    """The heatmap of source and target domains."""
    plot = plots.similarity(results)
    return None if plot is None else fill("plot.html", plot=plot)


def weights(results: Results) -> Markup | None:
    """For each target, the share of every source in each transfer system's mixture."""
    found = [item for item in results.get("weights") or [] if item.get("weights")]
    targets = []
    for target in unique(found, "target"):
        systems = {item["system"]: item["weights"] for item in found if item["target"] == target}
        sources = list(dict.fromkeys(source for shares in systems.values() for source in shares))
        targets.append((target, systems, sources))
    return fill("weights.html", targets=targets) if targets else None


_ENCODES = {"both": "queries and documents", "query": "queries", "document": "documents"}


def words(results: Results) -> Markup | None:
    """A line of telling words for each prompt, and all of its vectors to unfold."""
    found = [item for item in results.get("words") or [] if any(item.get("rows") or [])]
    if not found:
        return None
    prompts = []
    for item in found:
        part, most = str(item.get("part", "")), max(map(len, item["rows"]))
        own = {"encodes": _ENCODES.get(part, part), "places": [f"{place}." for place in range(2, most + 1)]}
        prompts.append({"domain": "", **item, "summary": item.get("summary") or [], **own})
    sizes = {(item.get("candidates"), item.get("excluded")) for item in found}
    candidates, excluded = sizes.pop() if len(sizes) == 1 else (None, None)
    known = candidates if excluded is not None else None
    return fill("words.html", prompts=prompts, candidates=known, excluded=excluded)


def strength(results: Results) -> Markup | None:
    """A heatmap of layers by heads and feed-forward part for each prompt and side, the first one open."""
    parts = []
    for item in results.get("strength") or []:
        layers, values = [int(layer) + 1 for layer in item.get("layers") or []], item.get("strength") or []
        places = [str(place) for place in item.get("places") or []]
        if not layers or len(values) != len(layers) or {len(row) for row in values} != {len(places)} or not places:
            continue  # not a row for each layer, with a number for each place
        side = str(item.get("side", ""))
        name = f"{item.get('domain', '')}, {_ENCODES.get(side, side)}"
        most, row, column = max((v, -row, -column) for row, line in enumerate(values) for column, v in enumerate(line))
        means = [sum(line) / len(line) for line in values]
        highest = means.index(max(means))
        strongest = (
            f"most in layer {layers[-row]}, {places[-column]} ({value(most)}); "
            f"by the mean of its places in layer {layers[highest]} ({value(means[highest])})"
        )
        parts.append({"name": name, "strongest": strongest, "plot": plots.strength_map(name, layers, places, values)})
    return fill("strength.html", parts=parts) if parts else None


def curves(results: Results) -> Markup | None:
    """Dev effectiveness and training loss against step, one line for each prompt."""
    drawn = plots.curves(results)
    return fill("curves.html", plots=drawn) if drawn else None


def provenance(results: Results) -> Markup | None:
    """Configuration and versions, so that the numbers can be made again."""
    parts = [(name.capitalize(), _flat(results.get(name) or {})) for name in ("configuration", "versions")]
    parts = [(caption, lines) for caption, lines in parts if lines]
    return fill("provenance.html", parts=parts) if parts else None


def _flat(found: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested mappings as (dotted name, plain text or JSON) lines."""
    lines: list[tuple[str, str]] = []
    for key, inner in found.items():
        if isinstance(inner, Mapping):
            lines += _flat(inner, f"{prefix}{key}.")
        elif isinstance(inner, list | tuple) and all(isinstance(item, str) for item in inner):
            lines.append((f"{prefix}{key}", ", ".join(inner)))
        else:
            text = inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False, default=str)
            lines.append((f"{prefix}{key}", text))
    return lines
