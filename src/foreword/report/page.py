"""One self-contained HTML page from the results of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foreword.files import atomic_write
from foreword.report import sections
from foreword.report.html import document, fill

_SECTIONS = (
    ("results", "Results", sections.results_tables),
    ("advice", "Advice", sections.advice),
    ("gains", "Gains by query", sections.gains),
    ("searches", "Searches before and after", sections.searches),
    ("influence", "Words of the queries", sections.influence),
    ("calibration", "Calibration", sections.calibration),
    ("similarity", "Domain similarity", sections.similarity),
    ("weights", "Mixture weights", sections.weights),
    ("words", "Words near the prompts", sections.words),
    ("strength", "Where prompts act", sections.strength),
    ("curves", "Learning curves", sections.curves),
    ("provenance", "How this was run", sections.provenance),
)
"""Key, name and contents of each, in order."""


def write_report(path: Path | str, results: Mapping[str, Any]) -> None:
    """Write the page. Equal results give equal bytes; a section without data is left out.

    Args:
        path: the HTML file; its folder is made when missing.
        results: a JSON-able object with any of `title`, `created`, `headline`, `configuration`, `versions`,
            `rows` (`system, collection, measure, value, seconds, trained_parameters, bytes`, optionally
            `difference, p_value`), `similarity` (`method, domains, targets, values`), `per_query`
            (collection -> `measure, baseline, systems, texts`, optionally `ranks` of the first relevant
            document by system and query, and the `chosen` system), `curves` (`name, points` of `step, loss,
            dev`), `weights` (`target, system, weights`), `advice` (`target, choice, reason`), `searches`
            (`query, collection, relevant, before, after, before_system, after_system`), `influence`
            (`systems, document` and what `foreword.evaluation.influence.Influence.as_dict` gives), `calibration`
            (`domain, system` and what `foreword.evaluation.calibration.Calibration.as_dict` gives), `words` (as
            `foreword.prompts.inspect.words_record` makes them) and `strength` (as
            `foreword.prompts.inspect.PromptStrength.as_dict`).
    """
    page = render(results)
    with atomic_write(path) as file:
        file.write(page)


def render(results: Mapping[str, Any]) -> str:
    """The page as text; `results` as for `write_report`."""
    title = str(results.get("title") or "Foreword report")
    versions = results.get("versions") or {}
    facts = [results["created"]] if results.get("created") else []
    facts += [f"{name} {version}" for name, version in versions.items()]
    header = fill("header.html", title=title, facts=facts, headline=results.get("headline"))
    built = [(key, name, build(results)) for key, name, build in _SECTIONS]
    return document(title, header, [(key, name, part) for key, name, part in built if part is not None])
