"""What the demo prints at its end: the table, the advice and three searches."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foreword.collections.records import Collection
from foreword.demo.record import Recorder
from foreword.evaluation.searches import compare_searches
from foreword.retrieval.runs import read_run, trec_name

BEFORE, AFTER = "base", "supervised-both"
SHOWN = 3


def headline(recorder: Recorder, target: str) -> str:
    """The demo's outcome in a sentence."""
    measure = recorder.measures[0]
    base, without, best = (recorder.value(name, target) for name in ("base", "transfer-adapted", AFTER))
    return (
        f"{target}, {measure}: {base:.3f} with the base model, {without:.3f} by transfer without any of its labels, "
        f"{best:.3f} with a prompt trained on its labels."
    )


def searches(recorder: Recorder, collection: Collection, folder: Path, count: int, seed: int) -> list[dict[str, Any]]:
    """Test queries whose relevant document moved, drawn by seed, with the hits before and after."""
    known = recorder.per_query[collection.id]
    before, after = (read_run(folder / "runs" / f"{name}.{trec_name(collection.id)}.trec") for name in (BEFORE, AFTER))
    values = known["systems"]
    moved = [query for query in values[BEFORE] if values[BEFORE][query] != values[AFTER][query]]
    chosen = sorted(moved, key=lambda query: hashlib.sha256(f"{seed}\x1f{query}".encode()).digest())[:count]
    qrels = collection.qrels("test")
    pairs = compare_searches(before, after, qrels, collection, chosen, systems=(BEFORE, AFTER), hits=SHOWN)
    return [pair.as_dict() for pair in pairs]


def show(results: Mapping[str, Any], output: Path) -> None:
    """Print the table, the advice for each target, and the searches."""
    from rich.markup import escape

    from foreword.common.terminal import console as terminal
    from foreword.report import format_table

    console = terminal()
    console.print(format_table(results["rows"], results["configuration"]["measures"], title=results["title"]))
    console.print(results["headline"], highlight=False, markup=False)
    console.print()
    for advice in results["advice"]:
        said = f"{advice['target']}: [bold]{advice['choice']}[/bold], {escape(advice['reason'])}"
        console.print(said, highlight=False)
    for search in results["searches"]:
        console.print(f"\n[bold]{escape(search['query'])}[/bold]  ({escape(str(search['relevant']))})", highlight=False)
        for label, hits in ((search["before_system"], search["before"]), (search["after_system"], search["after"])):
            names = [f"{'*' if hit['relevant'] else ''}{hit['name']}" for hit in hits]
            console.print(f"  {label:>16}: {', '.join(names)}", highlight=False, markup=False)
    console.print(f"\n* relevant. Written: {output / 'results.json'}, {output / 'report.html'}, {output / 'runs'}/")
