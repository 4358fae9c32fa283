"""One self-contained HTML page from the results of a run: no script, no other file, no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from foreword.files import atomic_write
from foreword.report import sections as calibration
from foreword.report import sections as domains
from foreword.report import sections as gates
from foreword.report import sections as influence
from foreword.report import sections as queries
from foreword.report import sections as systems
from foreword.report import sections as training
from foreword.report import sections as words
from foreword.report.html import Child, Markup, Results, element

_SECTIONS: tuple[tuple[str, str, Callable[[Results], Markup | None]], ...] = (
    ("results", "Results", systems.results_tables),
    ("advice", "Advice", domains.advice),
    ("gains", "Gains by query", queries.gains),
    ("searches", "Searches before and after", queries.searches),
    ("influence", "Words of the queries", influence.influence),
    ("calibration", "Calibration", calibration.calibration),
    ("similarity", "Domain similarity", domains.similarity),
    ("weights", "Mixture weights", domains.weights),
    ("words", "Words near the prompts", words.words),
    ("gates", "Where prompts act", gates.gates),
    ("curves", "Learning curves", training.curves),
    ("provenance", "How this was run", training.provenance),
)


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
            `foreword.prompts.inspect.words_record` makes them) and `gates` (as
            `foreword.prompts.inspect.GateStrength.as_dict`).
    """
    page = render(results)
    with atomic_write(path) as file:
        file.write(page)


def render(results: Mapping[str, Any]) -> str:
    """The page as text; `results` as for `write_report`."""
    title = str(results.get("title") or "Foreword report")
    built = [(key, name, build(results)) for key, name, build in _SECTIONS]
    present = [(key, name, part) for key, name, part in built if part is not None]
    return document(title, _header(title, results), present)


def document(title: str, header: Markup, sections: Sequence[tuple[str, str, Markup]]) -> str:
    """A page with nothing beside it.

    Args:
        title: of the window.
        header: above the sections.
        sections: key, name and contents of each, in order.
    """
    links = [element("a", name, href=f"#{key}") for key, name, _ in sections]
    style = resources.files("foreword.report").joinpath("style.css").read_text(encoding="utf-8")
    page = element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="color-scheme", content="light dark"),
            element("title", title),
            element("style", Markup(style)),
        ),
        element(
            "body",
            header,
            element("nav", links, aria_label="Sections") if len(links) > 1 else None,
            element(
                "main",
                [
                    element("section", element("h2", name, id=f"{key}-name"), part, id=key)
                    for key, name, part in sections
                ]
                or element("p", "These results are empty."),
            ),
        ),
        lang="en",
    )
    return f"<!DOCTYPE html>\n{page}\n"


def _header(title: str, results: Mapping[str, Any]) -> Markup:
    """What was run, when and with what, and the sentence to remember."""
    versions = results.get("versions") or {}
    facts: list[Child] = [element("li", str(results["created"]))] if results.get("created") else []
    facts += [element("li", f"{name} {version}") for name, version in versions.items()]
    headline = results.get("headline")
    return element(
        "header",
        element("h1", title),
        element("ul", facts, class_="facts") if facts else None,
        element("p", headline, class_="headline") if headline else None,
    )
