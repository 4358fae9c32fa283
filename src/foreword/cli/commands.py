"""What each command does. Heavy imports happen inside, when the command runs."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.common.errors import DataError, ForewordError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from foreword.collections.records import Collection
    from foreword.prompts.store import StoredPrompt
    from foreword.training.config import StartConfig, TrainingConfig

Options = argparse.Namespace


def print_json(value: Any) -> None:
    """One JSON value on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def say(text: str) -> None:
    """A line for the person at the terminal, kept off standard output, which may be read by a program."""
    print(text, file=sys.stderr)


def print_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """A table on standard output."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, box=SIMPLE_HEAD, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number == 0, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


# -- collections -----------------------------------------------------------------------------------------------


def collections(options: Options) -> None:
    """List the collections."""
    from foreword.collections.registry import catalogue

    entries = [entry for entry in catalogue(data=options.data) if options.group in (None, entry.group)]
    if not entries:
        groups = sorted({entry.group for entry in catalogue(data=options.data)})
        raise ForewordError(f"no group {options.group!r}; there are: {', '.join(groups)}")
    if options.json:
        print_json([asdict(entry) for entry in entries])
        return
    rows = [(entry.id, "yes" if entry.available else "no", entry.description) for entry in entries]
    print_table("", ("id", "here", "what"), rows)


def load_collection(options: Options, name: str, *, exclude: Iterable[Collection] = ()) -> Collection:
    """A collection by its id."""
    from foreword.collections.registry import load

    return load(name, data=options.data, exclude=exclude)


def load_encoder(options: Options, *, prompt: Path | str | None = None) -> SentenceTransformer:
    """The encoder that the options ask for, with a prompt."""
    from foreword.prompts.encoder import load_encoder as load

    return load(
        options.backbone,
        prompt=prompt,
        revision=options.revision,
        device=options.device,
        max_length=getattr(options, "max_length", None),
    )


def chosen_prompt(options: Options) -> Path | None:
    """The value of --prompt; None for `none`."""
    return None if options.prompt == "none" else Path(options.prompt)


# -- training --------------------------------------------------------------------------------------------------


def pretrain(options: Options) -> None:
    """Train a multitask prompt."""
    _train(options, several=True)


def train(options: Options) -> None:
    """Train a domain's prompt."""
    _train(options, several=False)


def training_config(options: Options, *, several: bool) -> TrainingConfig:
    """The settings that the options give, the defaults of the side elsewhere."""
    from foreword.training.config import TrainingConfig

    names = [f.name for f in fields(TrainingConfig) if f.name != "side"]
    given = {name: getattr(options, name, None) for name in names}
    changes = {name: value for name, value in given.items() if value is not None}
    return TrainingConfig.default(options.side, several=several, **changes)


def _start(options: Options, encoder: SentenceTransformer) -> StoredPrompt | StartConfig:
    from foreword.prompts.store import load_prompt

    return load_prompt(options.start_from, encoder) if options.start_from else _start_config(options)


def _start_config(options: Options) -> StartConfig:
    from foreword.prompts.spec import PromptSpec
    from foreword.training.config import StartConfig

    spec = PromptSpec(options.kind, options.length, options.top_layers, options.sides, options.placement)
    return StartConfig(spec, options.start, options.seed or 0)


def _train(options: Options, *, several: bool) -> None:
    config = training_config(options, several=several)
    resolved = {
        "collections": options.collections,
        "output": str(options.output),
        "backbone": options.backbone,
        "start_from": str(options.start_from) if options.start_from else None,
        "prompt": None if options.start_from else _start_config(options).spec.as_dict(),
        "pseudo_queries": options.pseudo_queries,
        "excluded": options.target,
        "training": config.as_dict(),
    }
    if options.dry_run:
        print_json(resolved)
        return
    from foreword.collections.pseudo import pseudo_pairs
    from foreword.collections.unlabelled import Unlabelled
    from foreword.training.train import train as run
    from foreword.training.vectors import read_vectors

    targets = [load_collection(options, name) for name in options.target]
    sources: list[Collection] = [load_collection(options, name, exclude=targets) for name in options.collections]
    encoder = load_encoder(options)
    documents = None
    if options.documents is not None:
        if len(sources) > 1 or config.side != "query":
            raise ForewordError("--documents is for training the query side (--side query) on one collection")
        documents = {sources[0].id: read_vectors(options.documents, options.ids)}
    pairs = None
    if options.pseudo_queries:
        sources = [Unlabelled(c) for c in sources]  # nor may labels choose the best step
        pairs = {c.id: list(pseudo_pairs(c.documents(), options.pseudo_queries, config.seed)) for c in sources}
    stored = run(
        encoder,
        sources,
        options.output,
        domain=options.name or ("multitask" if several else None),
        config=config,
        start=_start(options, encoder),
        documents=documents,
        pairs=pairs,
        resume=not options.no_resume,
        quiet=options.json,
    )
    _print_trained(options, stored)


def _print_trained(options: Options, stored: StoredPrompt) -> None:
    card = stored.card
    history = card["metrics"]["dev"]
    summary = {
        "prompt": str(options.output),
        "domain": card["domain"],
        "parameters": card["parameters"],
        "bytes": card["bytes"],
        "steps": card["training"]["steps"],
        "best_step": card["metrics"]["best_step"],
        "dev_nDCG@10": {"start": history[0]["dev"], "best": max(entry["dev"] for entry in history)}
        if history and history[0]["dev"] is not None
        else None,
    }
    if options.json:
        print_json(summary)
        return
    dev = summary["dev_nDCG@10"]
    gain = "no dev split, so the last step is kept; "
    if dev:
        gain = f"dev nDCG@10 {dev['start']:.3f} -> {dev['best']:.3f} (step {summary['best_step']}); "
    print(f"{options.output}: {gain}{card['parameters']:,} parameters, {card['bytes']:,} bytes")


# -- transfer --------------------------------------------------------------------------------------------------


def transfer(options: Options) -> None:
    """Combine a bank's prompts for a target."""
    from foreword.prompts.store import load_bank
    from foreword.transferring.fit import FitConfig
    from foreword.transferring.transfer import TransferConfig
    from foreword.transferring.transfer import transfer as run

    config = TransferConfig(
        options.method,
        options.similarity,
        options.top_k,
        options.temperature,
        pseudo=options.pseudo_queries,
        fit=FitConfig(precision=options.precision, seed=options.seed),
    )
    if options.dry_run:
        print_json({"target": options.collection, "bank": str(options.bank), "transfer": asdict(config)})
        return
    target = load_collection(options, options.collection)
    encoder = load_encoder(options)
    bank = load_bank(options.bank, encoder)
    unknown = sorted({*(options.only or []), *options.exclude} - set(bank))
    if unknown:
        raise ForewordError(f"{options.bank} holds no prompt for {', '.join(unknown)}; it holds: {', '.join(bank)}")
    seen = [name for name, stored in bank.items() if target.id in (stored.card.get("data") or {})]
    if seen:
        say(f"left out, since trained on {target.id} itself: {', '.join(seen)}")
    used = {
        name: stored
        for name, stored in bank.items()
        if name not in (target.id, *seen, *options.exclude) and (not options.only or name in options.only)
    }
    sources: dict[str, Collection] = {}
    if options.method in ("similarity", "average"):
        for name in used:
            with contextlib.suppress(ForewordError):  # a multitask prompt is no collection
                sources[name] = load_collection(options, name, exclude=[target])
    result = run(encoder, target, used, config, sources=sources, quiet=options.json)
    if options.output is not None:
        _store_transfer(options.output, result, used, encoder)
    if options.json:
        print_json(result.as_dict())
        return
    print(f"{result.target}: {result.advice} ({result.reason})")
    if result.weights:
        rows = [(name, f"{weight:.3f}") for name, weight in sorted(result.weights.items(), key=lambda item: -item[1])]
        print_table("", ("source", "weight"), rows)
    if options.output is not None:
        print(f"stored: use it with --prompt {options.output}")


def _store_transfer(output: Path, result: Any, used: Mapping[str, StoredPrompt], encoder: SentenceTransformer) -> None:
    from foreword.prompts.mixture import save_mixture
    from foreword.prompts.store import save_prompt

    record = {"transfer": {key: value for key, value in result.as_dict().items() if key != "seconds"}}
    if result.prompt is not None:
        save_prompt(output, result.prompt, encoder, result.target, record=record)
    else:
        save_mixture(output, result.target, result.weights, used, encoder, document=result.document, record=record)


# -- evaluation ------------------------------------------------------------------------------------------------


def evaluate(options: Options) -> None:
    """Evaluate a system on a collection."""
    from foreword.evaluation.measures import DEFAULT_MEASURES, depth

    measures = [name for given in options.measures or DEFAULT_MEASURES for name in given.split(",") if name]
    options.k = depth(measures) if options.k is None else options.k  # a wrong name is said before anything is computed
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
    }
    if options.dry_run:
        print_json(resolved)
        return
    from foreword.evaluation.evaluate import evaluate as score
    from foreword.retrieval.runs import read_run, write_run

    collection = load_collection(options, options.collection)
    began = time.perf_counter()
    system = read_run(options.run_file) if options.run_file else _run_of(options, collection)
    seconds = time.perf_counter() - began
    result = score(collection, system, split=options.split, measures=measures, k=options.k)
    summary = {
        **result.as_dict(),
        "seconds": round(seconds, 3),
        "system": resolved["system"],
        "prompt": resolved["prompt"],
    }
    if options.baseline is not None:
        summary["against"] = _compare(options, collection, result, measures)
    if options.write_run is not None:
        write_run(options.write_run, result.run, "foreword")
    if options.json:
        print_json(summary)
        return
    print(f"{result.collection} ({result.split}): {result.queries} queries, {result.documents} documents")
    rows = [(name, f"{value:.4f}", *_against(summary, name)) for name, value in result.measures.items()]
    columns = ("measure", "value", *(("difference", "p") if options.baseline else ()))
    print_table("", columns, rows)


def _run_of(options: Options, collection: Collection) -> Any:
    from foreword.evaluation.evaluate import judged_queries
    from foreword.prompts.encoder import transformer_of
    from foreword.retrieval.fusion import min_max, reciprocal_rank
    from foreword.retrieval.runs import top_k
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
        precision=options.precision,
        quiet=options.json,
    )
    if options.system == "dense":
        return dense
    runs = [dense, bm25_run(collection, queries, k=options.k)]
    return min_max(runs, k=options.k) if options.system == "min-max" else top_k(reciprocal_rank(runs), options.k)


def _compare(options: Options, collection: Collection, result: Any, measures: list[str]) -> dict[str, Any]:
    from foreword.evaluation.evaluate import evaluate as score
    from foreword.evaluation.significance import paired_randomization
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


# -- search ----------------------------------------------------------------------------------------------------


def search(options: Options) -> None:
    """Search a collection."""
    from foreword.retrieval.search import search as find

    queries = options.queries or [line.strip() for line in sys.stdin if line.strip()]
    if not queries:
        raise ForewordError("nothing to search for; give queries as arguments or on standard input, one a line")
    collection = load_collection(options, options.collection)
    encoder = load_encoder(options, prompt=chosen_prompt(options)) if options.system == "dense" else None
    how = {"precision": options.precision, "quiet": options.json} if encoder is not None else {}
    found = find(encoder, collection, queries, k=options.k, **how)
    if options.json:
        print_json(
            [
                {
                    "query": query,
                    "hits": [
                        {
                            "doc_id": h.doc_id,
                            "score": h.score,
                            "title": h.document.title,
                            "text": h.document.text,
                        }
                        | {"metadata": dict(h.document.metadata)}
                        for h in hits
                    ],
                }
                for query, hits in zip(queries, found, strict=True)
            ]
        )
        return
    for query, hits in zip(queries, found, strict=True):
        rows = [(f"{h.score:.3f}", h.document.name, shorten(h.document.text)) for h in hits]
        print_table(query, ("score", "document", "text"), rows)


def shorten(text: str, width: int = 160) -> str:
    """The beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1].rsplit(" ", 1)[0] + "…"


# -- report and demo -------------------------------------------------------------------------------------------


def report(options: Options) -> None:
    """Write the HTML report of a results file."""
    from foreword.report import write_report

    try:
        results = json.loads(options.results.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError("no such file; foreword demo writes one", path=options.results) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"cannot be read as JSON: {error}", path=options.results) from error
    if not isinstance(results, dict) or "rows" not in results:
        raise DataError("is not a results file: an object with 'rows'", path=options.results)
    output = options.output or options.results.with_name("report.html")
    write_report(output, results)
    print_json({"report": str(output)}) if options.json else print(f"report: {output}")


def demo(options: Options) -> None:
    """Run the demo."""
    from foreword.demo.config import DemoConfig

    config = DemoConfig.quick() if options.quick else DemoConfig()
    config = replace(config, seed=options.seed)
    if options.dry_run:
        print_json(config.as_dict())
        return
    from foreword.demo.run import run_demo

    results = run_demo(config, options.output, data=options.data, quiet=options.json)
    if options.json:
        print_json({key: results[key] for key in ("configuration", "rows")})
