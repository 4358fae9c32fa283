"""The page of a recipe's run: its tables, learning curves, similarities, and the words that its prompts lie near."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.prompts.store import StoredPrompt
from foreword.prompts.words import bank_words
from foreword.report import write_report

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PAGE = "report.html"


def write_page(
    path: Path,
    record: Mapping[str, Any],
    prompts: Sequence[StoredPrompt],
    groups: Iterable[Path],
    encoder: SentenceTransformer,
) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        record: what `recipe.json` holds.
        prompts: the prompts that were trained.
        groups: the groups' `group.json`.
        encoder: whose vocabulary the words are from.
    """
    near = {stored.domain: stored for stored in prompts if stored.prompt.spec.kind == "input"}  # to words of its own
    results: dict[str, Any] = {
        "title": f"{record['title']}{' (miniature)' if record['miniature'] else ''}",
        "created": record["finished"],
        "configuration": record["configuration"],
        "versions": record["versions"],
        "rows": [row for group in groups for row in _rows(json.loads(group.read_text("utf-8")))],
        "curves": [{"name": stored.domain, "points": _points(stored.card)} for stored in prompts],
        "words": bank_words(encoder, near).records if near else [],
        "weights": [
            {"target": entry["target"], "system": entry["method"], "weights": entry["weights"]}
            for entry in record["transfers"]
        ],
    }
    write_report(path, results)


def _rows(group: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A group's rows, a measure each and the headline first, as the report takes them."""
    headline = group["headline"]
    return [
        {
            "system": row["system"],
            "collection": row["collection"],
            "measure": measure,
            "value": value,
            "seconds": row["seconds"],
        }
        for row in group["rows"]
        for measure, value in sorted(row["measures"].items(), key=lambda item: item[0] != headline)
    ]


def _points(card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Dev effectiveness and training loss by step."""
    points: dict[int, dict[str, Any]] = {}
    for entry in card["metrics"]["dev"]:
        points.setdefault(entry["step"], {"step": entry["step"]})["dev"] = entry["dev"]
    for entry in card["metrics"]["loss"]:
        points.setdefault(entry["step"], {"step": entry["step"]})["loss"] = entry["loss"]
    return [points[step] for step in sorted(points)]
