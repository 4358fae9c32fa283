"""`foreword evaluate`: one collection, or a group."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.cli.data import expand
from foreword.cli.grammar import (
    Add,
    Options,
    Parser,
    chosen_prompt,
    data_options,
    dry_run_option,
    encoder_options,
    load_collection,
    load_encoder,
    print_json,
    print_table,
    say,
    template_options,
)
from foreword.errors import DataError, ForewordError

if TYPE_CHECKING:
    from foreword.collections.collection import Collection
    from foreword.evaluation.group import System


def add_evaluate(command: Add) -> None:
    """The grammar of the command."""
    parser = command(
        "evaluate",
        evaluate,
        "evaluate a prompt, the base model, BM25 or a run on a collection, or systems on a group",
        "foreword evaluate pydoc/torch --prompt prompts/pydoc-torch --measures nDCG@10 R@100 --json",
    )
    parser.add_argument("collection", nargs="?", metavar="COLLECTION", help="e.g. pydoc/torch, beir/fiqa, folder:PATH")
    data_options(parser)
    template_options(parser)
    parser.add_argument("--split", choices=["train", "dev", "test"], help="(default: test; of MS MARCO, dev)")
    parser.add_argument(
        "--measures",
        nargs="+",
        metavar="M",
        help="as ir_measures names them (default: nDCG@10 R@100 AP RR@10 Success@20)",
    )
    parser.add_argument("--k", type=int, help="hits a query (default: what the measures look at, at least 100)")
    parser.add_argument("--query-length", type=int, metavar="TOKENS", help="queries are cut to")
    parser.add_argument("--document-length", type=int, metavar="TOKENS", help="documents are cut to")
    parser.add_argument(
        "--mteb",
        nargs="+",
        metavar="TASK",
        help="evaluate on tasks of mteb by name, e.g. SciFact; writes mteb's results",
    )
    _one_options(parser)
    _group_options(parser)
    dry_run_option(parser)
    encoder_options(parser)


def _one_options(parser: Parser) -> None:
    one = parser.add_argument_group("one collection")
    one.add_argument(
        "--system",
        choices=["dense", "bm25", "min-max", "reciprocal-rank"],
        default="dense",
        help="the last two fuse dense and bm25 (default: %(default)s)",
    )
    one.add_argument("--run", dest="run_file", type=Path, metavar="FILE", help="evaluate this TREC run instead")
    one.add_argument("--write-run", type=Path, metavar="FILE", help="write the hits as a TREC run")
    one.add_argument("--baseline", type=Path, metavar="FILE", help="a TREC run to test the difference against")


def _group_options(parser: Parser) -> None:
    group = parser.add_argument_group("a group")
    group.add_argument("--group", metavar="GROUP", help="e.g. beir, cqadupstack, oag-qa; or `glasgow`")
    group.add_argument(
        "--bank", type=Path, metavar="DIR", help="a prompt for each collection, by foreword train --group"
    )
    group.add_argument(
        "--systems",
        nargs="+",
        choices=["base", "bm25", "bank", "prompt", "each"],
        help="each: every prompt of the bank on every collection (default: base, and what is given)",
    )
    group.add_argument("--folds", type=int, metavar="K", help="as in foreword train --folds")
    group.add_argument("--fold-seed", type=int, default=0, metavar="N", help="of the folds (default: %(default)s)")
    group.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="results and runs (default: runs/evaluate-GROUP, of --mteb: runs/mteb)",
    )
    group.add_argument(
        "--format",
        choices=["text", "markdown", "csv", "latex", "json"],
        default="text",
        help="of the table (default: %(default)s)",
    )
    group.add_argument("--no-published", action="store_true", help="leave out the numbers that others published")


def evaluate(options: Options) -> None:
    """Evaluate a system on a collection, or systems on a group."""
    if [options.collection, options.group, options.mteb].count(None) != 2:
        raise ForewordError("name one collection, e.g. pydoc/torch, or a --group, or tasks of --mteb")
    _refuse_idle(options)
    if options.mteb is not None:
        _mteb(options)
        return
    if options.group is not None:
        _group(options)
    else:
        _one(options)


_ONE = {"system": "dense", "run_file": None, "write_run": None, "baseline": None}
_GROUP = {
    "bank": None,
    "systems": None,
    "folds": None,
    "fold_seed": 0,
    "output": None,
    "format": "text",
    "no_published": False,
}
_NOT_MTEB = {"measures": None, "k": None, "data": None, "document_template": None, "query_template": None}


def _refuse_idle(options: Options) -> None:
    """Refuse options that would do nothing here."""
    idle, what = (_ONE, "one collection") if options.group is not None else (_GROUP, "a --group")
    if options.mteb is not None:
        idle = {name: default for name, default in {**_ONE, **_GROUP, **_NOT_MTEB}.items() if name != "output"}
        what = "collections; the tasks of --mteb say it themselves"
    for name, default in idle.items():
        if getattr(options, name) != default:
            raise ForewordError(f"--{name.removesuffix('_file').replace('_', '-')} is for {what}")
    if options.run_file is not None and chosen_prompt(options):
        raise ForewordError("--prompt is not used with --run, which is scored as it is")


# -- mteb ------------------------------------------------------------------------------------------------------


def _mteb(options: Options) -> None:
    """Run tasks of mteb."""
    output = options.output or Path("runs") / "mteb"
    if options.dry_run:
        print_json({"mteb": options.mteb, "split": options.split, "prompt": options.prompt, "output": str(output)})
        return
    from foreword.evaluation.mteb import as_mteb, find_tasks, run_tasks

    tasks = find_tasks(options.mteb, options.split)  # a wrong name is said before anything is loaded
    model = as_mteb(
        load_encoder(options, prompt=chosen_prompt(options)),
        precision=options.precision,
        query_length=options.query_length,
        document_length=options.document_length,
    )
    results = run_tasks(tasks, model, output, quiet=options.json)
    if options.json:
        meta = model.mteb_model_meta
        print_json({"model": meta.name, "revision": meta.revision, "tasks": results})
        return
    rows = [(each["task"], each["measure"], f"{each['main_score']:.4f}", each["file"]) for each in results]
    print_table(f"{model.mteb_model_meta.name}", ("task", "measure", "value", "file"), rows)


# -- a group ---------------------------------------------------------------------------------------------------


def _group(options: Options) -> None:
    from foreword.evaluation.group import GroupConfig, evaluate_group
    from foreword.evaluation.table import format_group

    names = _folded(options, expand([options.group], options.data))
    systems = _systems(options)
    config = GroupConfig(
        measures=tuple(options.measures or GroupConfig.measures),
        k=options.k,
        query_length=options.query_length,
        document_length=options.document_length,
        precision=options.precision,
        splits=dict.fromkeys(names, options.split) if options.split else {},
    )
    output = options.output or Path("runs") / f"evaluate-{options.group}"
    if options.dry_run:
        print_json(
            {
                "group": options.group,
                "collections": names,
                "systems": [system.name for system in systems],
                "output": str(output),
                **vars(config),
            }
        )
        return
    dense = any(system.kind != "bm25" for system in systems)
    prompt = next((system.path for system in systems if system.path is not None), None)
    encoder = _bare_encoder(options, prompt) if dense else None

    def told(row: Mapping[str, Any]) -> None:
        values = " ".join(f"{name} {value:.4f}" for name, value in row["measures"].items())
        say(f"{row['collection']} {row['system']}: {values}")

    result = evaluate_group(
        options.group,
        names,
        systems,
        output,
        load=lambda name: load_collection(options, name),
        encoder=encoder,
        config=config,
        quiet=options.json,
        on_row=told,
    )
    style = "json" if options.json else options.format
    print(format_group(result.as_dict(), style, published=not options.no_published))
    if result.failures:
        if style not in ("text", "markdown"):  # those two say it themselves
            for entry in result.failures:
                say(f"{entry['collection']} {entry['system']}: {entry['error']}")
        missing = dict.fromkeys(entry["collection"] for entry in result.failures)
        raise ForewordError(f"not scored by every system: {', '.join(missing)}; the reasons are above")


def _bare_encoder(options: Options, prompt: Path | None) -> Any:
    """The encoder without a prompt, pooled and normalised as the prompts were made."""
    from foreword.prompts.encoder import transformer_of
    from foreword.prompts.store import CARD, is_mixture

    if prompt is not None and not (prompt / CARD).exists() and not is_mixture(prompt):  # a bank: the first one's
        prompt = next((path for path in sorted(prompt.iterdir()) if (path / CARD).exists() or is_mixture(path)), None)
    encoder = load_encoder(options, prompt=prompt)
    transformer_of(encoder).remove_all()
    return encoder


def _systems(options: Options) -> list[System]:
    from foreword.evaluation.group import System

    prompt = chosen_prompt(options)
    given = [name for name, path in (("prompt", prompt), ("bank", options.bank)) if path is not None]
    wanted = options.systems or ["base", *given]
    paths = {"prompt": prompt, "bank": options.bank, "each": options.bank}
    for name in wanted:
        if name in paths and paths[name] is None:
            raise ForewordError(f"--systems {name} needs --{'bank' if name == 'each' else name}")
    systems = [System(name, name, paths.get(name)) for name in wanted if name != "each"]
    if "each" in wanted:
        from foreword.evaluation.candidates import read_bank

        systems += [System(one.path.name, "prompt", one.path) for one in read_bank(options.bank).values()]
    return systems


def _folded(options: Options, names: list[str]) -> list[str]:
    if options.folds is None:
        return names
    from foreword.cli.training import folded

    return folded(names, options.folds, options.fold_seed, lambda name: load_collection(options, name))


# -- one collection --------------------------------------------------------------------------------------------


def _one(options: Options) -> None:
    """Evaluate a system on one collection."""
    from foreword.evaluation.group import HEADLINE_SPLITS
    from foreword.evaluation.measures import DEFAULT_MEASURES, depth, largest_cutoff

    measures = [name for given in options.measures or DEFAULT_MEASURES for name in given.split(",") if name]
    needed = depth(measures)  # a wrong name is said before anything is computed
    if options.k is not None and options.k < min(needed, largest_cutoff(measures)):
        raise ForewordError(
            f"--k {options.k} is fewer hits than the measures look at ({largest_cutoff(measures)}); name others"
        )
    options.k = needed if options.k is None else options.k
    if options.system == "bm25" and chosen_prompt(options):
        raise ForewordError("--prompt is for dense retrieval; --system bm25 has none")
    options.split = options.split or HEADLINE_SPLITS.get(options.collection, "test")
    resolved = {
        "collection": options.collection,
        "split": options.split,
        "system": "run" if options.run_file else options.system,
        "prompt": str(options.prompt),
        "backbone": options.backbone,
        "measures": measures,
        "k": options.k,
        "precision": options.precision,
        "max_length": options.max_length,
        "query_length": options.query_length,
        "document_length": options.document_length,
    }
    if options.dry_run:
        print_json(resolved)
        return
    from foreword.evaluation.evaluate import evaluate as score
    from foreword.evaluation.published import seen
    from foreword.prompts.store import library_versions
    from foreword.retrieval.runs import read_run, write_run

    collection = load_collection(options, options.collection)
    dense = options.run_file is None and options.system != "bm25"
    supervision = _supervision(options, collection) if dense else "none"
    began = time.perf_counter()
    system = read_run(options.run_file) if options.run_file else _run_of(options, collection)
    seconds = time.perf_counter() - began
    result = score(collection, system, split=options.split, measures=measures, k=options.k)
    summary = {
        **result.as_dict(),
        "seconds": round(seconds, 3),
        "system": resolved["system"],
        "prompt": resolved["prompt"],
        "configuration": {
            **resolved,
            "document_template": options.document_template,
            "query_template": options.query_template,
            "versions": library_versions(),
        },
        "supervision": supervision,
        "seen_by_backbone": seen(options.backbone, collection.id) if dense else None,
    }
    if "subsample" in collection.facts:
        summary["subsample"] = collection.facts["subsample"]
    if options.baseline is not None:
        summary["against"] = _compare(options, collection, result, measures)
    if options.write_run is not None:
        write_run(options.write_run, result.run, "foreword")
    if options.json:
        print_json(summary)
        return
    print(f"{result.collection} ({result.split}): {result.queries} queries, {result.documents} documents")
    if dense:
        print(f"supervision: {supervision}; {_SEEN[summary['seen_by_backbone']]}")
    rows = [(name, f"{value:.4f}", *_against(summary, name)) for name, value in result.measures.items()]
    columns = ("measure", "value", *(("difference", "p") if options.baseline else ()))
    print_table("", columns, rows)


_SEEN = {
    True: "the backbone was trained on this collection",
    False: "the backbone was not trained on this collection",
    None: "whether the backbone was trained on this collection is not known",
}


def _supervision(options: Options, collection: Collection) -> str:
    """What the prompt was trained by; says so when it is scored on labels that trained or chose it.

    Raises:
        DataError: these are test labels, of which other folds' prompts were trained.
    """
    prompt = chosen_prompt(options)
    if prompt is None:
        return "none"
    from foreword.evaluation.candidates import read_candidate

    candidate = read_candidate(prompt)
    if candidate.has_used(collection.id, options.split):
        trained = ", ".join(candidate.trained_on)
        if options.split == "test":
            raise DataError(f"{prompt} was trained on test queries of {collection.id} (as {trained}); score it on that")
        say(f"no result to report: the {options.split} labels of {collection.id} trained or chose {prompt}")
    return candidate.supervision or "unknown"


def _run_of(options: Options, collection: Collection) -> Any:
    from foreword.evaluation.evaluate import judged_queries
    from foreword.prompts.encoder import transformer_of
    from foreword.retrieval.runs import min_max, reciprocal_rank, top_k
    from foreword.retrieval.search import bm25_run, dense_run

    queries = judged_queries(collection, options.split)
    if options.system == "bm25":
        return bm25_run(collection, queries, k=options.k)
    encoder = load_encoder(options, prompt=chosen_prompt(options))
    route = transformer_of(encoder).route
    dense = dense_run(
        encoder,
        collection,
        queries,
        route=route,
        k=options.k,
        query_length=options.query_length,
        document_length=options.document_length,
        precision=options.precision,
        quiet=options.json,
    )
    if options.system == "dense":
        return dense
    runs = [dense, bm25_run(collection, queries, k=options.k)]
    return min_max(runs, k=options.k) if options.system == "min-max" else top_k(reciprocal_rank(runs), options.k)


def _compare(options: Options, collection: Collection, result: Any, measures: list[str]) -> dict[str, Any]:
    from foreword.evaluation.evaluate import evaluate as score
    from foreword.evaluation.measures import paired_randomization
    from foreword.retrieval.runs import read_run

    baseline = score(collection, read_run(options.baseline), split=options.split, measures=measures)
    tests = {name: paired_randomization(result.per_query[name], baseline.per_query[name]) for name in result.measures}
    return {
        name: {
            "baseline": baseline.measures[name],
            "difference": test.difference,
            "p_value": test.p_value,
            "wins": test.wins,
            "ties": test.ties,
            "losses": test.losses,
        }
        for name, test in tests.items()
    }


def _against(summary: Mapping[str, Any], measure: str) -> tuple[str, ...]:
    if "against" not in summary:
        return ()
    test = summary["against"][measure]
    return f"{test['difference']:+.4f}", f"{test['p_value']:.4f}"


# `foreword explain`.


_WORDS = 4  # of each query that the terminal shows, the strongest ones


def add_explain(command: Add) -> None:
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
    from foreword.evaluation.group import HEADLINE_SPLITS
    from foreword.files import write_json

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
