"""`foreword explain`: what a prompt does on a collection, which words it is near to, and the page of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from foreword.cli import grammar as cli
from foreword.errors import DataError, ForewordError
from foreword.files import read_json

_WORDS = 4  # of each query that the terminal shows, the strongest ones


def explain_options(parser: cli.Parser) -> None:
    """What is explained."""
    parser.add_argument(
        "collection",
        nargs="?",
        metavar=f"{cli.COLLECTION}|RESULTS.json",
        help="e.g. pydoc/torch, or a folder. Without it: show the words nearest to an input prompt's vectors. With a "
        "results.json or explain.json: write its page and plots again",
    )
    parser.add_argument(
        "--bank", type=Path, metavar=cli.BANK, help="instead of --prompt: nearest words for every prompt in a folder"
    )
    parser.add_argument("--words", type=int, default=5, metavar="N", help="nearest words per vector (default: 5)")
    cli.data_options(parser)
    cli.template_options(parser)
    parser.add_argument("--split", choices=["train", "dev", "test"], help="(default: test; for MS MARCO: dev)")
    parser.add_argument(
        "--max-queries",
        type=int,
        default=5,
        metavar="N",
        help="number of wins, and of losses, to show (default: %(default)s)",
    )
    parser.add_argument(
        "--influence",
        type=int,
        default=6,
        metavar="N",
        help="for how many of these queries to measure the influence of each word (default: %(default)s)",
    )
    parser.add_argument("--query", action="append", default=[], metavar="TEXT", help="a query of your own (repeatable)")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for explain.json and report.html (default: runs/explain/...; for existing results, their folder)",
    )
    parser.add_argument(
        "--no-plots", action="store_true", help="for existing results: write the page only, without plots/"
    )
    cli.dry_run_option(parser)
    cli.encoder_options(parser)


_SEARCHES = "split max_queries influence query"


def run_explain(options: cli.Options) -> None:
    """Explain a prompt on a collection, its vectors by words, or show results again."""
    from foreword.collections.registry import full_id

    name = options.collection
    page = name is not None and name.endswith(".json")
    cli.needs(options, "no_plots", page, "is for a file of results, e.g. runs/demo/results.json")
    cli.needs(options, "words bank", name is None, "is for the words of prompts, without a collection")
    cli.needs(options, f"{_SEARCHES} output", name is not None, "needs a collection that the prompt is explained on")
    cli.needs(options, f"{_SEARCHES} prompt", not page, "does nothing with results that are there")
    if page:
        _page_of(options, Path(name))
    elif name is None:
        _nearest_words(options)
    else:
        options.collection = full_id(name, options.data)
        _compare(options)


def _compare(options: cli.Options) -> None:
    """Compare a prompt with the base model, and write what was found as JSON and as a page."""
    from foreword.collections.collection import require_split
    from foreword.evaluation.published import HEADLINE_SPLITS
    from foreword.files import write_json

    prompt = cli.chosen_prompt(options)
    if prompt is None:
        raise ForewordError("there is nothing to explain; name a prompt's or mixture's folder with --prompt")
    split = options.split or HEADLINE_SPLITS.get(options.collection, "test")
    name = f"{options.collection}-{prompt.resolve().name}".replace("/", "-").replace(":", "-")
    output = options.output or Path("runs/explain") / name
    if options.dry_run:
        same = ("collection", "prompt", "backbone", "influence", "query", "precision", "max_length")
        about = {name: getattr(options, name) for name in same} | {"queries": options.max_queries, "split": split}
        cli.print_json({**about, "output": str(output)})
        return
    collection = cli.load_collection(options, options.collection)
    require_split(collection.id, split, collection.splits)  # before torch is loaded, which takes seconds
    from foreword.evaluation.explain import explain as compare
    from foreword.report import write_report

    found = compare(
        cli.load_encoder(options, prompt=prompt),
        collection,
        prompt,
        split=split,
        queries=options.max_queries,
        influence=options.influence,
        own=options.query,
        precision=options.precision,
        quiet=options.json,
    )
    write_json(output / "explain.json", found)
    write_report(output / "report.html", found)
    if cli.printed_json(options, found):
        return
    show(found)
    print(f"written: {output / 'explain.json'}, {output / 'report.html'}")


def _nearest_words(options: cli.Options) -> None:
    """Show the words nearest to the vectors of an input prompt, or of those of a bank."""
    from foreword.prompts.inspect import bank_words
    from foreword.prompts.store import load_bank, load_prompt

    path = cli.chosen_prompt(options)
    if (path is None) == (options.bank is None):
        raise ForewordError(
            "there is nothing to explain; name a prompt's or mixture's folder with --prompt, or a --bank"
        )
    encoder = cli.load_encoder(options)
    if path is not None:
        stored = load_prompt(path)
        bank = {stored.domain: stored}
    else:
        bank = load_bank(options.bank)
    found = bank_words(encoder, bank, count=options.words)
    for domain, kind in found.left_out.items():
        cli.say(f"{domain}: left out, its prompt is of kind {kind}; only input prompts have words")
    if cli.printed_json(options, {"words": found.records, "left_out": found.left_out}):
        return
    for record in found.records:
        print(f"{record['domain']} ({record['part']}): {', '.join(entry['word'] for entry in record['summary'])}")
        rows = [
            (str(number), " ".join(f"{near['word']} {near['similarity']:.2f}" for near in row))
            for number, row in enumerate(record["rows"], start=1)
        ]
        cli.print_table("", ("vector", "nearest words, cosine"), rows)


def _page_of(options: cli.Options, path: Path) -> None:
    """Write the HTML page of a file of results, and its plots."""
    from foreword.report import write_plots, write_report
    from foreword.report.plots import FOLDER

    try:
        results = read_json(path)
    except FileNotFoundError:
        raise DataError("no such file; foreword demo writes one", path=path) from None
    if not isinstance(results, dict) or "rows" not in results:
        raise DataError("is not a results file: an object with 'rows'", path=path)
    folder = options.output or path.parent
    page = folder / "report.html"
    write_report(page, results)
    plots = [] if options.no_plots else write_plots(folder / FOLDER, results)
    if cli.printed_json(
        options, {"report": str(page), "plots": [str(file) for plot in plots for file in (plot.png, plot.svg)]}
    ):
        return
    print(f"report: {page}" + (f"; {len(plots)} plots in {folder / FOLDER}" if plots else ""))


def show(found: Mapping[str, Any]) -> None:
    """Print a summary of what `foreword.evaluation.explain.explain` gives."""
    print(found.get("headline", found["title"]))
    if "rows" in found:
        values = {(row["measure"], row["system"]): row for row in found["rows"]}
        systems = list(dict.fromkeys(row["system"] for row in found["rows"]))
        lines = []
        for measure in dict.fromkeys(row["measure"] for row in found["rows"]):
            base, tuned = (values[measure, system] for system in systems)
            numbers = (f"{base['value']:.4f}", f"{tuned['value']:.4f}", f"{tuned['difference']:+.4f}")
            lines.append((measure, *numbers, f"{tuned['p_value']:.4f}"))
        cli.print_table("", ("measure", *map(_plain, systems), "difference", "p"), lines)
        _show_calibration(found["calibration"])
    _show_searches(found["searches"], found.get("changes"))
    _show_words(found["influence"])
    for item in found["strength"]:
        most = item["most"]
        print(f"acts most on a {item['side']} in layer {most['layer']}, {most['place']} ({most['strength']:.2f})")
    for item in found["words"]:
        print(f"words near the vectors ({item['part']}): {', '.join(word['word'] for word in item['summary'])}")
    about = found["configuration"]
    met = {True: "yes", False: "no", None: "not known"}[about["seen_by_backbone"]]
    print(f"supervision: {about['supervision']}; was the backbone trained on this collection: {met}")
    for name, note in about["notes"].items():
        print(f"{name}: {note}")


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
    cli.print_table("", ("calibration", "T", "ECE", "Brier", "ECE as PT-Retrieval (T 1, 5 hits)"), lines)


def _show_searches(searches: Sequence[Mapping[str, Any]], changes: Mapping[str, Any] | None) -> None:
    """Wins and losses, a line each; the reader's own queries with both rankings."""
    for search in searches:
        if "gain" not in search:
            names = [[_plain(hit["name"]) for hit in search[side]] for side in ("before", "after")]
            systems = (search["before_system"], search["after_system"])
            cli.print_table(_plain(search["query"]), map(_plain, systems), zip_longest(*names, fillvalue=""))
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
        cli.print_table("", (changes["measure"], "first relevant", "query", "relevant document"), lines)


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
        cli.print_table("", ("rank", "document", f"words, {base}", f"words, {prompt}"), lines)


def _strongest(words: Sequence[Mapping[str, Any]], key: str) -> str:
    """The words that do most to a margin, in the query's order."""
    chosen = sorted(words, key=lambda word: -abs(word[key]))[:_WORDS]
    kept = sorted(chosen, key=lambda word: int(word["start"]))
    return ", ".join(f"{_plain(word['word'])} {word[key]:+.3f}" for word in kept)


def _plain(text: str) -> str:
    """A text on one line."""
    return " ".join(text.split())
