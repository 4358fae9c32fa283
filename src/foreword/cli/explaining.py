"""`foreword explain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from foreword.cli.shared import (
    Add,
    Options,
    chosen_prompt,
    data_options,
    dry_run_option,
    encoder_options,
    load_collection,
    load_encoder,
    print_json,
    print_table,
    template_options,
)
from foreword.common.errors import ForewordError

_WORDS = 4  # of each query that the terminal shows, the strongest ones


def add(command: Add) -> None:
    """The grammar of the command."""
    parser = command(
        "explain",
        explain,
        "what a prompt does on a collection: measures, calibration, searches, words, layers and heads",
        "foreword explain pydoc/torch --prompt prompts/pydoc-torch --query 'stop gradients from flowing'",
    )
    parser.add_argument("collection", metavar="COLLECTION", help="e.g. pydoc/torch, beir/fiqa, folder:PATH")
    data_options(parser)
    template_options(parser)
    parser.add_argument("--split", choices=["train", "dev", "test"], help="(default: test; of MS MARCO, dev)")
    parser.add_argument(
        "--queries", type=int, default=5, metavar="N", help="wins, and losses, to show (default: %(default)s)"
    )
    parser.add_argument(
        "--influence",
        type=int,
        default=6,
        metavar="N",
        help="of these searches, those whose words are left out in turn (default: %(default)s)",
    )
    parser.add_argument(
        "--query", action="append", default=[], metavar="TEXT", help="a query of your own; may be given several times"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="explain.json and report.html (default: runs/explain/...)"
    )
    dry_run_option(parser)
    encoder_options(parser)


def explain(options: Options) -> None:
    """Compare a prompt with the base model, and write what was found as JSON and as a page."""
    from foreword.common.files import write_json
    from foreword.evaluation.members import HEADLINE_SPLITS

    prompt = chosen_prompt(options)
    if prompt is None:
        raise ForewordError("there is nothing to explain; name a prompt's or mixture's folder with --prompt")
    split = options.split or HEADLINE_SPLITS.get(options.collection, "test")
    output = options.output or _default_output(options.collection, prompt)
    if options.dry_run:
        print_json(_resolved(options, split, output))
        return
    from foreword.evaluation.explain import explain as compare
    from foreword.report import write_report

    collection = load_collection(options, options.collection)
    found = compare(
        load_encoder(options, prompt=prompt),
        collection,
        prompt,
        split=split,
        queries=options.queries,
        influence=options.influence,
        own=options.query,
        precision=options.precision,
        quiet=options.json,
    )
    write_json(output / "explain.json", found)
    write_report(output / "report.html", found)
    if options.json:
        print_json(found)
        return
    show(found)
    print(f"written: {output / 'explain.json'}, {output / 'report.html'}")


def _default_output(collection: str, prompt: Path) -> Path:
    """`runs/explain/<collection>-<prompt>`."""
    name = f"{collection}-{prompt.resolve().name}"
    return Path("runs/explain") / name.replace("/", "-").replace(":", "-")


def _resolved(options: Options, split: str, output: Path) -> dict[str, Any]:
    """The configuration as it would take effect."""
    same = ("collection", "prompt", "backbone", "queries", "influence", "query", "precision", "max_length")
    return {**{name: getattr(options, name) for name in same}, "split": split, "output": str(output)}


# -- the terminal --------------------------------------------------------------------------------------------------


def show(found: Mapping[str, Any]) -> None:
    """Print a summary of what `foreword.evaluation.explain.explain` gives."""
    print(found.get("headline", found["title"]))
    if "rows" in found:
        _show_rows(found["rows"])
        _show_calibration(found["calibration"])
    _show_searches(found["searches"], found.get("changes"))
    _show_words(found["influence"])
    for item in found["gates"]:
        most = item["most"]
        print(f"acts most on a {item['side']} in layer {most['layer']}, head {most['head']} ({most['strength']:.2f})")
    for item in found["words"]:
        print(f"words near the vectors ({item['part']}): {', '.join(word['word'] for word in item['summary'])}")
    about = found["configuration"]
    met = {True: "yes", False: "no", None: "not known"}[about["seen_by_backbone"]]
    print(f"supervision: {about['supervision']}; was the backbone trained on this collection: {met}")
    for name, note in about["notes"].items():
        print(f"{name}: {note}")


def _show_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Measures by system, with the difference and its p-value."""
    values = {(row["measure"], row["system"]): row for row in rows}
    systems = list(dict.fromkeys(row["system"] for row in rows))
    lines = []
    for measure in dict.fromkeys(row["measure"] for row in rows):
        base, tuned = (values[measure, system] for system in systems)
        numbers = (f"{base['value']:.4f}", f"{tuned['value']:.4f}", f"{tuned['difference']:+.4f}")
        lines.append((measure, *numbers, f"{tuned['p_value']:.4f}"))
    print_table("", ("measure", *map(_plain, systems), "difference", "p"), lines)


def _show_calibration(records: Sequence[Mapping[str, Any]]) -> None:
    """A line for each system: with the fitted temperature, and by PT-Retrieval's definition."""
    theirs = {item["system"]: item for item in records if item["definition"] == "pt-retrieval"}
    lines = [
        (
            _plain(item["system"]),
            f"{item['temperature']:.3g}" + ("" if item["fitted"] else " (not fitted)"),
            f"{item['ece']:.4f}",
            f"{item['brier']:.4f}",
            f"{theirs[item['system']]['ece']:.4f}",
        )
        for item in records
        if item["definition"] == "fitted"
    ]
    print_table("", ("calibration", "T", "ECE", "Brier", "ECE as PT-Retrieval (T 1, 5 hits)"), lines)


def _show_searches(searches: Sequence[Mapping[str, Any]], changes: Mapping[str, Any] | None) -> None:
    """Wins and losses, a line each; the reader's own queries with both rankings."""
    for search in searches:
        if "gain" not in search:
            names = [[_plain(hit["name"]) for hit in search[side]] for side in ("before", "after")]
            systems = (search["before_system"], search["after_system"])
            print_table(_plain(search["query"]), map(_plain, systems), zip_longest(*names, fillvalue=""))
    lines = [
        (
            f"{search['gain']:+.3f}",
            " → ".join(str(rank or "none") for rank in search["ranks"]),
            _plain(search["query"]),
            _plain(search["relevant"]),
        )
        for search in searches
        if "gain" in search
    ]
    if changes is not None and lines:
        print_table("", (changes["measure"], "first relevant", "query", "relevant document"), lines)


def _show_words(records: Sequence[Mapping[str, Any]]) -> None:
    """The words that move each watched document most, by both systems."""
    lines = [
        (
            f"{item['base']['rank']} → {item['prompted']['rank']}",
            _plain(item["document"]),
            _strongest(item["words"], "base"),
            _strongest(item["words"], "prompted"),
        )
        for item in records
    ]
    if lines:
        base, prompt = map(_plain, records[0]["systems"])
        print_table("", ("rank", "document", f"words, {base}", f"words, {prompt}"), lines)


def _strongest(words: Sequence[Mapping[str, Any]], key: str) -> str:
    """The words that do most to a margin, in the query's order."""
    chosen = sorted(words, key=lambda word: -abs(word[key]))[:_WORDS]
    kept = sorted(chosen, key=lambda word: int(word["start"]))
    return ", ".join(f"{_plain(word['word'])} {word[key]:+.3f}" for word in kept)


def _plain(text: str) -> str:
    """A text on one line."""
    return " ".join(text.split())
