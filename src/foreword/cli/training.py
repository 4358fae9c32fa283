"""`foreword train`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from foreword.cli import grammar as cli
from foreword.cli.data import expand
from foreword.errors import DataError, ForewordError
from foreword.settings import PseudoQueries, choices

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from foreword.collections.collection import Collection
    from foreword.prompts.store import StoredPrompt
    from foreword.training.config import StartConfig, TrainingConfig
    from foreword.training.group import Outcome


def train_options(parser: cli.Parser) -> None:
    """The collections, the prompt and the training."""
    from foreword.prompts.spec import PromptSpec
    from foreword.training.config import TrainingConfig

    parser.add_argument("collections", nargs="*", metavar=cli.COLLECTION, help="e.g. pydoc/torch, beir/fiqa, a folder")
    parser.add_argument("--group", metavar="GROUP", help="train a prompt for each collection of a group, e.g. beir")
    parser.add_argument(
        "--multitask",
        action="store_true",
        help="train one prompt for all collections; other prompts can --start from it",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the prompt, or for all of them",
    )
    cli.data_options(parser)
    cli.template_options(parser)
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar=cli.COLLECTION,
        help="leave this collection's texts out of the training data (repeatable)",
    )
    parser.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help="for collections with test labels only: train K prompts, each without one fold",
    )
    parser.add_argument(
        "--together",
        type=int,
        metavar="N",
        help="of a prompt for each collection, train up to N in one pass over the model (default: 8); 1: one by one",
    )
    parser.add_argument("--domain", metavar="NAME", help="name of the prompt (default: the collection, or multitask)")
    parser.add_argument("--no-resume", action="store_true", help="start again and overwrite what is in the folder")
    cli.dry_run_option(parser)
    cli.encoder_options(parser, prompt=False, precision="auto")
    prompt = parser.add_argument_group("prompt")
    prompt.add_argument(
        "--start",
        metavar=cli.PROMPT,
        help="folder of a prompt to start from, or for a new one: words, text, noise or first-ids (default: words)",
    )
    prompt.add_argument("--untied", action="store_true", help="one prompt for queries and another for documents")
    cli.settings_options(prompt, PromptSpec, ("kind", "length", "feed_forward", "top_layers", "placement"))
    training = parser.add_argument_group(
        "training", "some defaults differ with --side both and --multitask; --dry-run prints all of them"
    )
    training.add_argument(
        "--supervision",
        choices=["auto", "train", "dev", "pseudo-queries"],
        default="auto",
        help="labels to train on; auto: the first of these that the collection has (default: %(default)s)",
    )
    training.add_argument(
        "--pseudo-queries",
        choices=choices(PseudoQueries),
        help="train on queries made from the documents instead of labels, by this method",
    )
    training.add_argument("--negatives", type=Path, metavar="FILE", help="hard negatives, as foreword mine writes them")
    training.add_argument(
        "--documents",
        type=Path,
        metavar="FILE",
        help="with --side query: existing document vectors, .npy (with --ids) or .parquet",
    )
    training.add_argument("--ids", type=Path, metavar="FILE", help="document ids for a .npy, one per line")
    names = [field.name for field in fields(TrainingConfig) if field.name != "precision"]
    cli.settings_options(training, TrainingConfig, names, **TrainingConfig.usual("query"))


def run_train(options: cli.Options) -> None:
    """Train one prompt, or one for each of several collections."""
    from foreword.training.config import TrainingConfig

    options.side = options.side or ("both" if options.multitask else "query")
    names = [*options.collections, *(expand([options.group], options.data) if options.group else [])]
    names = list(dict.fromkeys(names))
    if not names:
        raise ForewordError("no collection to train on; name one, e.g. pydoc/torch, or a --group")
    query, idle = options.side == "query", "would do nothing here; it needs"
    corpus = f"{idle} --side both (the query side has the whole corpus as negatives)"
    cli.needs(options, "negatives hard_negatives", not query, corpus)
    cli.needs(options, "gather_negatives mini_batch_size", not query, f"{idle} --side both")
    cli.needs(options, "negatives", options.pseudo_queries is None, f"{idle} labels, not --pseudo-queries")
    cli.needs(options, "corpus_negatives document_side documents", query, f"{idle} --side query")
    labels = options.supervision in ("train", "dev")
    cli.needs(options, "pseudo_queries", not labels, f"{idle} no --supervision {options.supervision}")
    cli.needs(options, "folds", not options.multitask, f"{idle} a prompt for each collection, not --multitask")
    cli.needs(options, "ids", options.documents is not None, "names the rows of --documents, which is missing")
    config = TrainingConfig.default(several=options.multitask, **cli.given(options, TrainingConfig))
    one = options.multitask or (len(names) == 1 and options.group is None and options.folds is None)
    cli.needs(options, "together", not one, f"{idle} a prompt for each of several collections")
    if one:
        _train_one(options, names, config)
    else:
        _train_each(options, names, config)


def _structure(options: cli.Options) -> dict[str, Any]:
    """What the options say of a prompt's structure."""
    from foreword.prompts.spec import PromptSpec

    return cli.given(options, PromptSpec) | ({"sides": "untied"} if options.untied else {})


def _source(options: cli.Options) -> Path | None:
    """The prompt that --start names; None: a new one begins with words, noise, ..."""
    from foreword.prompts.spec import Start

    return None if options.start in (None, *get_args(Start)) else Path(options.start)


def _start_config(options: cli.Options) -> StartConfig:
    from foreword.prompts.spec import PromptSpec
    from foreword.training.config import StartConfig

    if options.side == "query" and options.untied and options.document_side != "start":
        raise ForewordError(
            "--untied has a part for documents, which --side query does not train; ask for --side both, or leave "
            "--untied out"
        )
    return StartConfig(PromptSpec(**_structure(options)), options.start or "words", options.seed or 0)


def _start(options: cli.Options, encoder: SentenceTransformer) -> StoredPrompt | StartConfig:
    """What training begins with. Raises `ForewordError` for options that the prompt of --start contradicts."""
    from foreword.prompts.store import load_prompt

    source = _source(options)
    if source is None:
        return _start_config(options)
    stored = load_prompt(source, encoder)
    own = stored.prompt.spec.as_dict()
    for name, value in _structure(options).items():
        if value != own[name]:
            option = "--untied" if name == "sides" else f"--{name.replace('_', '-')}"
            asked = option if name == "sides" else f"{option} {value}"
            raise ForewordError(
                f"{asked} is asked for, but {source} has {own[name]}; leave {option} out, or train a new prompt "
                "without --start"
            )
    return stored


def _resolved(options: cli.Options, names: list[str], config: TrainingConfig) -> dict[str, Any]:
    source = _source(options)
    return {
        "collections": names,
        "output": str(options.output),
        "backbone": options.backbone,
        "start_from": None if source is None else str(source),
        "prompt": _start_config(options).spec.as_dict() if source is None else None,
        "supervision": options.supervision,
        "pseudo_queries": options.pseudo_queries,
        "excluded": options.target,
        "training": config.as_dict(),
    }


def _supervised(options: cli.Options, name: str, exclude: Iterable[Collection]) -> Collection:
    """A collection with the splits that a prompt is trained by."""
    from foreword.collections.supervision import supervise
    from foreword.collections.views import WithNegatives, read_hard_negatives

    collection = cli.load_collection(options, name, exclude=exclude)
    if options.negatives is not None:
        split = "train" if "train" in collection.splits and options.supervision != "dev" else "dev"
        collection = WithNegatives(collection, read_hard_negatives(options.negatives), split)
    method = "pseudo-queries" if options.pseudo_queries else options.supervision
    return supervise(collection, method=method, seed=options.seed or 0, pseudo=options.pseudo_queries or "auto")


def _train_one(options: cli.Options, names: list[str], config: TrainingConfig) -> None:
    """One prompt, for one collection or for several."""
    if options.dry_run:
        cli.print_json(_resolved(options, names, config))
        return
    from foreword.training.train import train as run
    from foreword.training.vectors import read_vectors

    if options.negatives is not None and len(names) > 1:
        raise ForewordError("--negatives are those of one collection")
    targets = [cli.load_collection(options, name) for name in options.target]
    sources = [_supervised(options, name, targets) for name in names]
    for source in sources:
        found = source.facts.get("supervision")
        if isinstance(found, dict) and found.get("method") != "train":
            cli.say(f"{source.id}: trained on its {found['method']}")
    encoder = cli.load_bare_encoder(options, _source(options))
    documents = None
    if options.documents is not None:
        if len(sources) > 1 or config.side != "query":
            raise ForewordError("--documents is for training the query side (--side query) on one collection")
        documents = {sources[0].id: read_vectors(options.documents, options.ids)}
    stored = run(
        encoder,
        sources,
        options.output,
        domain=options.domain or ("multitask" if options.multitask else None),
        config=config,
        start=_start(options, encoder),
        documents=documents,
        resume=not options.no_resume,
        quiet=options.json,
    )
    card, metrics = stored.card, stored.card["metrics"]
    kept, choice = metrics["best_step"], metrics["choice"]
    curve = {entry["step"]: entry["dev"] for entry in metrics["dev"]}
    summary = {
        "prompt": str(options.output),
        **{name: card[name] for name in ("domain", "supervision", "parameters", "bytes")},
        "steps": card["training"]["steps"],
        "best_step": kept,
        "learnt": kept > 0,
        "choice": choice,
        "dev_nDCG@10": None if choice["by"] == "last" else {"start": curve[0], "best": curve[kept]},
    }
    if cli.printed_json(options, summary):
        return
    print(f"{options.output}: {_said(options, stored)}; {card['parameters']:,} parameters, {card['bytes']:,} bytes")
    if not kept and choice["by"] != "last":
        start = "another --start" if _source(options) else "a --start from a prompt for similar texts"
        print(f"what may help: more labels, {start}, or another --learning-rate; foreword advise compares the options")


def _said(options: cli.Options, stored: StoredPrompt) -> str:
    """Which step a prompt is of, and by what evidence."""
    metrics = stored.card["metrics"]
    kept, choice = metrics["best_step"], metrics["choice"]
    if choice["by"] == "last":
        return "no dev split, so the last step is kept"
    curve = {entry["step"]: entry["dev"] for entry in metrics["dev"]}
    step, queries = choice.get("step", 0), f"{choice['queries']} dev queries"
    if choice["by"] == "folds":
        queries = f"the {choice['queries']} labels, held out in {choice['folds']} folds"
    if kept:
        return f"nDCG@10 {curve[0]:.3f} -> {curve[step]:.3f} (step {step}) on {queries}"
    start = _source(options) or ("the base model" if stored.prompt.kind.linear else "what it started from")
    chance = ", which may be chance" if choice.get("gain", 0) > 0 else ""
    if chance and choice.get("error"):
        chance += f" (standard error {choice['error']:.3f})"
    change = f"nDCG@10 is {curve[0]:.3f} at the start and {curve[step]:.3f} after {step} steps{chance}"
    return f"nothing was learnt, so the prompt is {start}: on {queries}, {change}"


def _train_each(options: cli.Options, names: list[str], config: TrainingConfig) -> None:
    """A prompt for each collection, or each fold of one."""
    cli.needs(options, "documents negatives domain", False, "is of one collection; train it alone")
    if options.folds is not None:
        names = folded(names, options.folds, options.seed or 0, lambda name: cli.load_collection(options, name))
    if options.dry_run:
        cli.print_json(_resolved(options, names, config))
        return
    from foreword.training.group import TOGETHER, failures, train_group

    targets = [cli.load_collection(options, name) for name in options.target]
    encoder = cli.load_bare_encoder(options, _source(options))

    def told(result: Outcome) -> None:
        what = result.error or f"{result.status} in {result.seconds:.0f} s: {result.prompt}"
        what += "" if result.learnt else "; nothing was learnt, so it stays what it started from"
        cli.say(f"{result.collection}: {what}")

    results = train_group(
        encoder,
        names,
        options.output,
        load=lambda name: _supervised(options, name, targets),
        config=config,
        start=_start(options, encoder),
        together=TOGETHER if options.together is None else options.together,
        resume=not options.no_resume,
        quiet=options.json,
        on_trained=told,
    )
    failed = failures(results)
    if options.json:
        cli.print_json({"collections": [vars(result) for result in results], "failed": len(failed)})
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
