"""`foreword evaluate`: one collection, or a group."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.cli import grammar as cli
from foreword.cli.data import expand
from foreword.errors import DataError, ForewordError

if TYPE_CHECKING:
    from foreword.collections.collection import Collection
    from foreword.evaluation.evaluate import Result
    from foreword.evaluation.group import System
    from foreword.evaluation.hybrid import HybridWeight
    from foreword.retrieval.passages import Coverage
    from foreword.retrieval.runs import Run


def evaluate_options(parser: cli.Parser) -> None:
    """What is evaluated, on what, and by which measures."""
    parser.add_argument(
        "collection", nargs="?", metavar=cli.COLLECTION, help="e.g. pydoc/torch, beir/fiqa, or a folder"
    )
    cli.data_options(parser)
    cli.template_options(parser)
    parser.add_argument("--split", choices=["train", "dev", "test"], help="(default: test; for MS MARCO: dev)")
    parser.add_argument(
        "--measures",
        nargs="+",
        metavar="M",
        help="names as in ir_measures (default: nDCG@10 R@100 AP RR@10 Success@20)",
    )
    parser.add_argument("--k", type=int, help="hits per query (default: as many as the measures need, at least 100)")
    parser.add_argument("--query-length", type=int, metavar="TOKENS", help="truncate queries to")
    parser.add_argument("--document-length", type=int, metavar="TOKENS", help="truncate documents or passages to")
    cli.passages_option(parser, "passages, unless --document-length is given")
    parser.add_argument(
        "--mteb",
        nargs="+",
        metavar="TASK",
        help="evaluate on tasks of mteb, e.g. SciFact, and write mteb's result files",
    )
    one = parser.add_argument_group("one collection")
    one.add_argument(
        "--system",
        choices=["dense", "bm25", "hybrid", "min-max", "reciprocal-rank"],
        default="dense",
        help="what to evaluate; the last three combine dense and bm25 (default: %(default)s)",
    )
    cli.weight_option(one)
    one.add_argument("--run", dest="run_file", type=Path, metavar="FILE", help="evaluate this TREC run instead")
    one.add_argument("--write-run", type=Path, metavar="FILE", help="write the hits as a TREC run")
    one.add_argument(
        "--baseline", type=Path, metavar="FILE", help="a TREC run to compare with, with a significance test"
    )
    group = parser.add_argument_group("a group")
    group.add_argument(
        "--group", nargs="+", metavar="GROUP", help="e.g. beir, cqadupstack, glasgow; or several collections"
    )
    group.add_argument(
        "--bank",
        type=Path,
        metavar=cli.BANK,
        help="folder with a prompt for each collection, as foreword train --group writes it",
    )
    group.add_argument(
        "--systems",
        nargs="+",
        choices=["base", "bm25", "bank", "prompt", "each", "base+bm25", "bank+bm25", "prompt+bm25"],
        metavar="SYSTEM",
        help="base, bm25, prompt, bank; base+bm25, prompt+bm25, bank+bm25: hybrid search, its weight chosen for each "
        "collection; each: every prompt of the bank on every collection (default: base, prompt, bank, as given)",
    )
    group.add_argument("--folds", type=int, metavar="K", help="as in foreword train --folds")
    group.add_argument("--seed", type=int, default=0, help="random seed of the folds (default: %(default)s)")
    group.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for results and runs (default: runs/evaluate-GROUP or -several; with --mteb: runs/mteb)",
    )
    group.add_argument(
        "--format",
        choices=["text", "markdown", "csv", "latex"],
        default="text",
        help="format of the table (default: %(default)s)",
    )
    group.add_argument("--no-published", action="store_true", help="leave out published results of other systems")
    cli.dry_run_option(parser)
    cli.encoder_options(parser)


def run_evaluate(options: cli.Options) -> None:
    """Evaluate a system on a collection, or systems on a group."""
    if [options.collection, options.group, options.mteb].count(None) != 2:
        raise ForewordError("name one collection, e.g. pydoc/torch, or a --group, or tasks of --mteb")
    itself = "is for collections; the tasks of --mteb say it themselves"
    cli.needs(options, f"{_ONE} {_GROUP} {_NOT_MTEB}", options.mteb is None, itself)
    cli.needs(options, _ONE, options.group is None, "is for one collection")
    cli.needs(options, _GROUP, options.group is not None, "is for a --group")
    cli.needs(options, "output", options.collection is None, "is for a --group")
    cli.needs(options, "prompt", options.run_file is None, "is not used with --run, which is scored as it is")
    run = _mteb if options.mteb is not None else _group if options.group is not None else _one
    run(options)


_ONE = "system bm25_weight run_file write_run baseline"
_GROUP = "bank systems folds seed format no_published"
_NOT_MTEB = "measures k data document_template query_template passages"


def _mteb(options: cli.Options) -> None:
    """Run tasks of mteb."""
    output = options.output or Path("runs") / "mteb"
    if options.dry_run:
        cli.print_json({"mteb": options.mteb, "split": options.split, "prompt": options.prompt, "output": str(output)})
        return
    from foreword.evaluation.mteb import as_mteb, find_tasks, run_tasks

    tasks = find_tasks(options.mteb, options.split)  # a wrong name is said before anything is loaded
    model = as_mteb(
        cli.load_encoder(options, prompt=cli.chosen_prompt(options)),
        precision=options.precision,
        query_length=options.query_length,
        document_length=options.document_length,
    )
    results = run_tasks(tasks, model, output, quiet=options.json)
    if options.json:
        meta = model.mteb_model_meta
        cli.print_json({"model": meta.name, "revision": meta.revision, "tasks": results})
        return
    rows = [(each["task"], each["measure"], f"{each['main_score']:.4f}", each["file"]) for each in results]
    cli.print_table(f"{model.mteb_model_meta.name}", ("task", "measure", "value", "file"), rows)


def _group(options: cli.Options) -> None:
    from foreword.cli.training import folded
    from foreword.evaluation.group import GroupConfig, evaluate_group
    from foreword.evaluation.table import format_group

    names, group = expand(options.group, options.data), "+".join(options.group)
    if options.folds is not None:
        names = folded(names, options.folds, options.seed, lambda name: cli.load_collection(options, name))
    systems = _systems(options)
    chosen = cli.given(options, GroupConfig) | {"measures": tuple(options.measures or GroupConfig.measures)}
    config = GroupConfig(**chosen, splits=dict.fromkeys(names, options.split) if options.split else {})
    output = options.output or Path("runs") / f"evaluate-{group if len(options.group) == 1 else 'several'}"
    if options.dry_run:
        about = {"group": group, "collections": names, "systems": [system.name for system in systems]}
        cli.print_json({**about, "output": str(output), **vars(config)})
        return
    dense = any(system.kind != "bm25" for system in systems)
    prompt = next((system.path for system in systems if system.path is not None), None)
    if dense and prompt is not None and not _is_prompt(prompt):  # a bank: the first one's
        prompt = next(filter(_is_prompt, sorted(prompt.iterdir())), None)
    encoder = cli.load_bare_encoder(options, prompt) if dense else None

    def told(row: Mapping[str, Any]) -> None:
        values = " ".join(f"{name} {value:.4f}" for name, value in row["measures"].items())
        cli.say(f"{row['collection']} {row['system']}: {values}")

    result = evaluate_group(
        group,
        names,
        systems,
        output,
        load=lambda name: cli.load_collection(options, name),
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
                cli.say(f"{entry['collection']} {entry['system']}: {entry['error']}")
        missing = dict.fromkeys(entry["collection"] for entry in result.failures)
        raise ForewordError(f"not scored by every system: {', '.join(missing)}; the reasons are above")


def _is_prompt(path: Path) -> bool:
    from foreword.prompts.store import CARD, is_mixture

    return (path / CARD).exists() or is_mixture(path)


def _systems(options: cli.Options) -> list[System]:
    from foreword.evaluation.group import System

    prompt = cli.chosen_prompt(options)
    given = [name for name, path in (("prompt", prompt), ("bank", options.bank)) if path is not None]
    wanted = options.systems or ["base", *given]
    paths = {"prompt": prompt, "bank": options.bank, "each": options.bank}
    kinds = {name: name.removesuffix("+bm25") for name in wanted}
    for name, kind in kinds.items():
        if kind in paths and paths[kind] is None:
            raise ForewordError(f"--systems {name} needs --{'bank' if kind == 'each' else kind}")
    systems = [System(name, kind, paths.get(kind), name != kind) for name, kind in kinds.items() if name != "each"]
    if "each" in wanted:
        from foreword.evaluation.candidates import read_bank

        systems += [System(one.path.name, "prompt", one.path) for one in read_bank(options.bank).values()]
    return systems


_RESOLVED = (
    *("collection", "split", "system", "prompt", "backbone", "measures", "k", "precision"),
    *("max_length", "query_length", "document_length", "passages"),
)


def _one(options: cli.Options) -> None:
    """Evaluate a system on one collection."""
    from foreword.collections.collection import require_split
    from foreword.evaluation.measures import DEFAULT_MEASURES, depth, largest_cutoff
    from foreword.evaluation.published import HEADLINE_SPLITS, seen
    from foreword.retrieval.passages import Coverage, wanted

    measures = [name for given in options.measures or DEFAULT_MEASURES for name in given.split(",") if name]
    needed = depth(measures)  # a wrong name is said before anything is computed
    if options.k is not None and options.k < min(needed, largest_cutoff(measures)):
        raise ForewordError(
            f"--k {options.k} is fewer hits than the measures look at ({largest_cutoff(measures)}); name others"
        )
    options.k = needed if options.k is None else options.k
    cli.needs(options, "bm25_weight", options.system == "hybrid", "is for --system hybrid")
    if options.system == "bm25" and cli.chosen_prompt(options):
        raise ForewordError("--prompt is for dense retrieval; --system bm25 has none")
    options.split = options.split or HEADLINE_SPLITS.get(options.collection, "test")
    resolved = {name: getattr(options, name) for name in _RESOLVED}
    resolved |= {"system": "run" if options.run_file else options.system, "measures": measures}
    resolved["passages"] = wanted(options.passages, options.document_length)
    if options.dry_run:
        cli.print_json(resolved)
        return
    collection = cli.load_collection(options, options.collection)
    require_split(collection.id, options.split, collection.splits)  # before torch is loaded, which takes seconds
    from foreword.evaluation.evaluate import evaluate as score
    from foreword.prompts.store import library_versions
    from foreword.retrieval.runs import read_run, write_run

    dense = options.run_file is None and options.system != "bm25"
    supervision = _supervision(options, collection) if dense else "none"
    began = time.perf_counter()
    coverage, weight = Coverage(), None
    if options.run_file:
        system = read_run(options.run_file)
    else:
        system, weight = _run_of(options, collection, coverage)
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
        "text": coverage.as_dict() if dense else None,
    }
    if weight is not None:
        summary["hybrid"] = weight.as_dict()
    if "subsample" in collection.facts:
        summary["subsample"] = collection.facts["subsample"]
    baseline = None
    if options.baseline is not None:
        baseline = score(collection, read_run(options.baseline), split=options.split, measures=measures)
        summary["against"] = _compare(result, baseline)
        summary["baseline"] = {"unanswered": baseline.unanswered, "unjudged": baseline.unjudged}
    if options.write_run is not None:
        write_run(options.write_run, result.run, "foreword")
    if cli.printed_json(options, summary):
        return
    print(f"{result.collection} ({result.split}): {result.queries} queries, {result.documents} documents")
    for name, scored in (("", result), (f"{options.baseline}: ", baseline)):
        if scored is not None and (scored.unanswered or scored.unjudged):
            lacking = f"{scored.unanswered} of {scored.queries} judged queries have no hit and count 0"
            print(f"{name}{lacking}; {scored.unjudged} queries of the run are not judged and left out")
    if dense:
        print(f"supervision: {supervision}; {_SEEN[summary['seen_by_backbone']]}")
        print(f"text: {coverage}")
    if weight is not None:
        print(weight)
    rows = [[name, f"{value:.4f}"] for name, value in result.measures.items()]
    if options.baseline is not None:
        for row, test in zip(rows, summary["against"].values(), strict=True):
            row += [f"{test['difference']:+.4f}", f"{test['p_value']:.4f}"]
    cli.print_table("", ("measure", "value", *(("difference", "p") if options.baseline else ())), rows)


_SEEN = {
    True: "the backbone was trained on this collection",
    False: "the backbone was not trained on this collection",
    None: "whether the backbone was trained on this collection is not known",
}


def _supervision(options: cli.Options, collection: Collection) -> str:
    """What the prompt was trained by; says so when it is scored on labels that trained or chose it."""
    prompt = cli.chosen_prompt(options)
    if prompt is None:
        return "none"
    from foreword.evaluation.candidates import read_candidate

    candidate = read_candidate(prompt)
    if candidate.has_used(collection.id, options.split):
        trained = ", ".join(candidate.trained_on)
        if options.split == "test":
            raise DataError(f"{prompt} was trained on test queries of {collection.id} (as {trained}); score it on that")
        cli.say(f"no result to report: the {options.split} labels of {collection.id} trained or chose {prompt}")
    return candidate.supervision or "unknown"


def _run_of(options: cli.Options, collection: Collection, coverage: Coverage) -> tuple[Run, HybridWeight | None]:
    """The hits, and of a hybrid search how much words count."""
    from foreword.collections.collection import judged_queries
    from foreword.evaluation.hybrid import HybridSearch
    from foreword.retrieval.runs import min_max, reciprocal_rank, top_k
    from foreword.retrieval.search import bm25_run, dense_run

    queries = judged_queries(collection, options.split)
    if options.system == "bm25":
        return bm25_run(collection, queries, k=options.k), None
    encoder = cli.load_encoder(options, prompt=cli.chosen_prompt(options))
    how = {name: getattr(options, name) for name in ("query_length", "document_length", "passages", "precision")}
    how |= {"coverage": coverage, "quiet": options.json}
    if options.system == "hybrid":
        search = HybridSearch(encoder, collection, options.bm25_weight, reported=options.split, **how)
        return search.run(queries, options.k), search.weight
    dense = dense_run(encoder, collection, queries, k=options.k, **how)
    if options.system == "dense":
        return dense, None
    runs = [dense, bm25_run(collection, queries, k=options.k)]
    fused = min_max(runs, k=options.k) if options.system == "min-max" else top_k(reciprocal_rank(runs), options.k)
    return fused, None


def _compare(result: Result, baseline: Result) -> dict[str, Any]:
    """The difference to a baseline by measure, over all judged queries, whether or not both runs answer them."""
    from foreword.evaluation.measures import paired_randomization

    tests = {name: paired_randomization(result.per_query[name], baseline.per_query[name]) for name in result.measures}
    return {
        name: {
            "baseline": baseline.measures[name],
            **{each: getattr(test, each) for each in ("difference", "p_value", "wins", "ties", "losses")},
        }
        for name, test in tests.items()
    }
