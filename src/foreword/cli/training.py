"""`foreword pretrain` and `foreword train`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.cli.data import expand
from foreword.cli.grammar import (
    Add,
    Options,
    Parser,
    data_options,
    dry_run_option,
    encoder_options,
    load_collection,
    load_encoder,
    print_json,
    say,
    template_options,
)
from foreword.errors import DataError, ForewordError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from foreword.collections.collection import Collection
    from foreword.prompts.store import StoredPrompt
    from foreword.training.config import StartConfig, TrainingConfig
    from foreword.training.train import Outcome

_NUMBERS = (
    ("steps", int, "optimizer steps"),
    ("epochs", float, "passes over the training pairs, instead of steps"),
    ("batch-size", int, "queries a step, on each device"),
    ("learning-rate", float, "at its peak"),
    ("schedule", str, "of the learning rate, as transformers names it"),
    ("warmup", float, "share of the steps"),
    ("temperature", float, "of the softmax over similarities; 1 for inner products of vectors of any length"),
    ("hard-negatives", int, "a query, at most"),
    ("mini-batch-size", int, "texts embedded at once; below the batch size: GradCache"),
    ("corpus-negatives", int, "documents scored a step (query side)"),
    ("query-length", int, "tokens"),
    ("document-length", int, "tokens"),
    ("domain-temperature", float, "of the choice between domains"),
    ("evaluate-every", int, "steps between evaluations on dev, and checkpoints"),
    ("patience", int, "evaluations without gain before stopping; 0: never"),
    ("dev-queries", int, "queries in an evaluation, at most"),
    ("dev-documents", int, "documents searched in an evaluation, beside the relevant ones"),
    ("dtype", str, "of the stored prompt: float16, bfloat16, float32"),
    ("log-every", int, "steps between two records of the loss"),
    ("report-to", str, "trackers, as transformers names them: tensorboard, wandb, ... (default: none)"),
    ("seed", int, "of every random choice"),
)


def add(command: Add) -> None:
    """The grammar of these commands."""
    parser = command(
        "pretrain",
        pretrain,
        "train one multitask prompt on several collections",
        "foreword pretrain pydoc/numpy pydoc/scipy pydoc/pandas --target pydoc/torch --output prompts/multitask",
    )
    _options(parser, several=True)
    parser = command(
        "train",
        train,
        "train a prompt for one collection, or one for each of a group",
        "foreword train pydoc/torch --start-from prompts/multitask --output prompts/pydoc-torch",
    )
    _options(parser, several=False)


def _options(parser: Parser, *, several: bool) -> None:
    parser.add_argument("collections", nargs="*", metavar="COLLECTION", help="e.g. pydoc/torch, beir/fiqa, folder:PATH")
    parser.add_argument("--group", metavar="GROUP", help="all collections of a group, e.g. beir")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="the prompt's folder; of a group, that of all",
    )
    data_options(parser)
    template_options(parser)
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="COLLECTION",
        help="drop this one's texts from the training data (may be repeated)",
    )
    if not several:
        parser.add_argument("--folds", type=int, metavar="K", help="of collections with test labels alone: K prompts")
    parser.add_argument("--name", metavar="DOMAIN", help="the prompt's name (default: the collection, or multitask)")
    parser.add_argument(
        "--no-resume", action="store_true", help="begin anew, whatever the folder holds (it is overwritten)"
    )
    dry_run_option(parser)
    encoder_options(parser, prompt=False, precision="auto")
    _prompt_options(parser)
    _training_options(parser, several=several)


def _prompt_options(parser: Parser) -> None:
    prompt = parser.add_argument_group("prompt")
    prompt.add_argument("--start-from", type=Path, metavar="PROMPT", help="begin with another prompt's values")
    prompt.add_argument("--kind", choices=["gated", "prefix", "input"], help="(default: gated)")
    prompt.add_argument("--length", type=int, help="vectors (default: 16 a layer)")
    prompt.add_argument("--top-layers", type=int, metavar="K", help="only the top K layers (default: all)")
    prompt.add_argument("--sides", choices=["shared", "untied", "query"], help="(default: shared)")
    prompt.add_argument("--placement", choices=["after-cls", "before"], help="of input vectors")
    prompt.add_argument(
        "--start",
        choices=["words", "text", "noise", "first-ids"],
        help="of a new prompt (default: words)",
    )


def _training_options(parser: Parser, *, several: bool) -> None:
    training = parser.add_argument_group("training", "what is not given depends on the side; --dry-run prints it")
    training.add_argument(
        "--side",
        choices=["both", "query"],
        default="both" if several else "query",
        help="query: documents keep the base model's vectors (default: %(default)s)",
    )
    training.add_argument(
        "--supervision",
        choices=["auto", "train", "dev", "pseudo-queries"],
        default="auto",
        help="the labels to train by; auto: the first of these that there is (default: %(default)s)",
    )
    training.add_argument(
        "--pseudo-queries",
        choices=["auto", "title", "first-sentence", "span", "key-phrases", "mixed"],
        help="train on pseudo-queries of the documents instead of labels, made so",
    )
    training.add_argument("--negatives", type=Path, metavar="FILE", help="hard negatives that foreword mine wrote")
    training.add_argument(
        "--document-side",
        choices=["base", "start"],
        help="query side: what embeds documents once, the base model (default) or the prompt of --start-from",
    )
    training.add_argument(
        "--documents",
        type=Path,
        metavar="FILE",
        help="query side: your document vectors, .npy (with --ids) or .parquet",
    )
    training.add_argument("--ids", type=Path, metavar="FILE", help="document ids of a .npy, one a line")
    training.add_argument(
        "--gather-negatives",
        action=argparse.BooleanOptionalAction,
        help="several processes: negatives from all of them (default: yes)",
    )
    for option, kind, text in _NUMBERS:
        training.add_argument(f"--{option}", type=kind, help=text)


def pretrain(options: Options) -> None:
    """Train a multitask prompt."""
    names = _names(options)
    _refuse_idle(options)
    _run(options, names, several=True)


def train(options: Options) -> None:
    """Train a domain's prompt, or those of a group."""
    names = _names(options)
    _refuse_idle(options)
    if len(names) == 1 and options.group is None and options.folds is None:
        _run(options, names, several=False)
        return
    _run_group(options, names)


def _names(options: Options) -> list[str]:
    names = [*options.collections, *(expand([options.group], options.data) if options.group else [])]
    if not names:
        raise ForewordError("no collection to train on; name one, e.g. pydoc/torch, or a --group")
    return list(dict.fromkeys(names))


def _refuse_idle(options: Options) -> None:
    """Refuse options that would do nothing with the others."""
    query = options.side == "query"
    for name, idle, needs in (
        ("negatives", query, "--side both (the query side has the whole corpus as negatives)"),
        ("hard_negatives", query, "--side both (the query side has the whole corpus as negatives)"),
        ("gather_negatives", query, "--side both"),
        ("mini_batch_size", query, "--side both"),
        ("negatives", options.pseudo_queries is not None, "labels, not --pseudo-queries"),
        ("corpus_negatives", not query, "--side query"),
        ("document_side", not query, "--side query"),
        ("documents", not query, "--side query"),
        ("pseudo_queries", options.supervision in ("train", "dev"), f"no --supervision {options.supervision}"),
    ):
        if idle and getattr(options, name) is not None:
            raise ForewordError(f"--{name.replace('_', '-')} would do nothing here; it needs {needs}")


def training_config(options: Options, *, several: bool) -> TrainingConfig:
    """The settings that the options give, the defaults of the side elsewhere."""
    from foreword.training.config import TrainingConfig

    names = [f.name for f in fields(TrainingConfig) if f.name != "side"]
    given = {name: getattr(options, name, None) for name in names}
    changes = {name: value for name, value in given.items() if value is not None}
    return TrainingConfig.default(options.side, several=several, **changes)


def _structure(options: Options) -> dict[str, Any]:
    """What the options say of a prompt's structure."""
    given = {name: getattr(options, name) for name in ("kind", "length", "top_layers", "sides", "placement")}
    return {name: value for name, value in given.items() if value is not None}


def _start_config(options: Options) -> StartConfig:
    from foreword.prompts.spec import PromptSpec
    from foreword.training.config import StartConfig

    if options.side == "query" and options.sides in ("shared", "untied") and options.document_side != "start":
        raise ForewordError(
            f"--sides {options.sides} has a part for documents, which --side query does not train; ask for --side "
            "both, or leave --sides out"
        )
    return StartConfig(PromptSpec(**_structure(options)), options.start or "words", options.seed or 0)


def _start(options: Options, encoder: SentenceTransformer) -> StoredPrompt | StartConfig:
    """What training begins with. Raises `ForewordError` for options that the prompt of --start-from contradicts."""
    from foreword.prompts.store import load_prompt

    if options.start_from is None:
        return _start_config(options)
    if options.start is not None:
        raise ForewordError(f"--start {options.start} is of a new prompt; --start-from begins with another's values")
    stored = load_prompt(options.start_from, encoder)
    own = stored.prompt.spec.as_dict()
    for name, value in _structure(options).items():
        if value != own[name]:
            option = f"--{name.replace('_', '-')}"
            raise ForewordError(
                f"{option} {value} is asked for, but {options.start_from} has {own[name]}; leave {option} out, or "
                "train a new prompt without --start-from"
            )
    return stored


def _encoder(options: Options) -> SentenceTransformer:
    """The encoder; with --start-from, with the pooling and length that the prompt was made for."""
    encoder = load_encoder(options, prompt=options.start_from)
    if options.start_from is not None:
        from foreword.prompts.encoder import transformer_of

        transformer_of(encoder).remove_all()
    return encoder


def _resolved(options: Options, names: list[str], config: TrainingConfig) -> dict[str, Any]:
    return {
        "collections": names,
        "output": str(options.output),
        "backbone": options.backbone,
        "start_from": str(options.start_from) if options.start_from else None,
        "prompt": None if options.start_from else _start_config(options).spec.as_dict(),
        "supervision": options.supervision,
        "pseudo_queries": options.pseudo_queries,
        "excluded": options.target,
        "training": config.as_dict(),
    }


def _supervised(options: Options, name: str, exclude: Iterable[Collection]) -> Collection:
    """A collection with the splits that a prompt is trained by."""
    from foreword.collections.supervision import supervise
    from foreword.collections.views import WithNegatives, read_hard_negatives

    collection = load_collection(options, name, exclude=exclude)
    if options.negatives is not None:
        split = "train" if "train" in collection.splits and options.supervision != "dev" else "dev"
        collection = WithNegatives(collection, read_hard_negatives(options.negatives), split)
    method = "pseudo-queries" if options.pseudo_queries else options.supervision
    return supervise(collection, method=method, seed=options.seed or 0, pseudo=options.pseudo_queries or "auto")


def _run(options: Options, names: list[str], *, several: bool) -> None:
    config = training_config(options, several=several)
    if options.dry_run:
        print_json(_resolved(options, names, config))
        return
    from foreword.training.train import train as run
    from foreword.training.vectors import read_vectors

    if options.ids is not None and options.documents is None:
        raise ForewordError("--ids names the rows of --documents, which is missing")
    if options.negatives is not None and len(names) > 1:
        raise ForewordError("--negatives are those of one collection")
    targets = [load_collection(options, name) for name in options.target]
    sources = [_supervised(options, name, targets) for name in names]
    for source in sources:
        _say_supervision(source)
    encoder = _encoder(options)
    documents = None
    if options.documents is not None:
        if len(sources) > 1 or config.side != "query":
            raise ForewordError("--documents is for training the query side (--side query) on one collection")
        documents = {sources[0].id: read_vectors(options.documents, options.ids)}
    stored = run(
        encoder,
        sources,
        options.output,
        domain=options.name or ("multitask" if several else None),
        config=config,
        start=_start(options, encoder),
        documents=documents,
        resume=not options.no_resume,
        quiet=options.json,
    )
    _print_trained(options, stored)


def _say_supervision(collection: Collection) -> None:
    found = collection.facts.get("supervision")
    if isinstance(found, dict) and found.get("method") != "train":
        say(f"{collection.id}: trained by its {found['method']}")


def _run_group(options: Options, names: list[str]) -> None:
    config = training_config(options, several=False)
    for option in ("documents", "negatives", "name"):
        if getattr(options, option) is not None:
            raise ForewordError(f"--{option} is of one collection; train it alone")
    if options.folds is not None:
        names = folded(names, options.folds, options.seed or 0, lambda name: load_collection(options, name))
    if options.dry_run:
        print_json(_resolved(options, names, config))
        return
    from foreword.training.train import failures, train_group

    targets = [load_collection(options, name) for name in options.target]
    encoder = _encoder(options)

    def told(result: Outcome) -> None:
        what = result.error or f"{result.status} in {result.seconds:.0f} s: {result.prompt}"
        say(f"{result.collection}: {what}")

    results = train_group(
        encoder,
        names,
        options.output,
        load=lambda name: _supervised(options, name, targets),
        config=config,
        start=_start(options, encoder),
        resume=not options.no_resume,
        quiet=options.json,
        on_trained=told,
    )
    failed = failures(results)
    if options.json:
        print_json({"collections": [vars(result) for result in results], "failed": len(failed)})
    else:
        print(f"{options.output}: {len(results) - len(failed)} of {len(results)} prompts are there")
    if failed:
        said = "; ".join(f"{entry['collection']}: {entry['error']}" for entry in failed)
        raise ForewordError(f"failed: {said}")


def folded(names: list[str], folds: int, seed: int, load: Callable[[str], Collection]) -> list[str]:
    """The folds of every collection that has test judgements alone, in its place; the others as they are."""
    from foreword.collections.supervision import Fold

    found: list[str] = []
    for name in names:
        try:
            splits = load(name).splits
        except DataError:  # its files are missing, which is said when its turn comes
            splits = ("train",)
        if "train" in splits or "dev" in splits:
            found.append(name)
        else:
            found += [f"{name}{Fold(i, folds, seed).suffix}" for i in range(1, folds + 1)]
    return found


def _print_trained(options: Options, stored: StoredPrompt) -> None:
    card = stored.card
    history = card["metrics"]["dev"]
    summary = {
        "prompt": str(options.output),
        "domain": card["domain"],
        "supervision": card["supervision"],
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
