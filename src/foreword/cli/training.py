"""`foreword train`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from foreword.cli.data import expand
from foreword.cli.grammar import (
    COLLECTION,
    PROMPT,
    PSEUDO_QUERIES,
    Command,
    Options,
    Parser,
    data_options,
    dry_run_option,
    encoder_options,
    given,
    load_collection,
    load_encoder,
    needs,
    print_json,
    say,
    settings_options,
    template_options,
)
from foreword.errors import DataError, ForewordError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from foreword.collections.collection import Collection
    from foreword.prompts.store import StoredPrompt
    from foreword.training.config import StartConfig, TrainingConfig
    from foreword.training.train import Outcome


def train_options(parser: Parser) -> None:
    """The collections, the prompt and the training."""
    from foreword.prompts.spec import PromptSpec
    from foreword.training.config import TrainingConfig

    parser.add_argument("collections", nargs="*", metavar=COLLECTION, help="e.g. pydoc/torch, beir/fiqa, a folder")
    parser.add_argument("--group", metavar="GROUP", help="all collections of a group, e.g. beir")
    parser.add_argument(
        "--multitask", action="store_true", help="one prompt for all collections, where others start from"
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="the prompt's folder; of several prompts, that of all",
    )
    data_options(parser)
    template_options(parser)
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar=COLLECTION,
        help="drop this one's texts from the training data (may be repeated)",
    )
    parser.add_argument("--folds", type=int, metavar="K", help="of collections with test labels alone: K prompts")
    parser.add_argument("--domain", metavar="NAME", help="the prompt's name (default: the collection, or multitask)")
    parser.add_argument(
        "--no-resume", action="store_true", help="begin anew, whatever the folder holds (it is overwritten)"
    )
    dry_run_option(parser)
    encoder_options(parser, prompt=False, precision="auto")
    prompt = parser.add_argument_group("prompt")
    prompt.add_argument(
        "--start",
        metavar=PROMPT,
        help="begin with another prompt's values, or of a new prompt with those of words, text, noise or first-ids "
        "(default: words)",
    )
    prompt.add_argument("--untied", action="store_true", help="one prompt for queries and another for documents")
    settings_options(prompt, PromptSpec, ("kind", "length", "top_layers", "placement"))
    training = parser.add_argument_group(
        "training", "with --side both, and with --multitask, some defaults are others; --dry-run prints all"
    )
    training.add_argument(
        "--supervision",
        choices=["auto", "train", "dev", "pseudo-queries"],
        default="auto",
        help="the labels to train by; auto: the first of these that there is (default: %(default)s)",
    )
    training.add_argument(
        "--pseudo-queries",
        choices=PSEUDO_QUERIES,
        help="train on pseudo-queries of the documents instead of labels, made so",
    )
    training.add_argument("--negatives", type=Path, metavar="FILE", help="hard negatives that foreword mine wrote")
    training.add_argument(
        "--documents",
        type=Path,
        metavar="FILE",
        help="query side: your document vectors, .npy (with --ids) or .parquet",
    )
    training.add_argument("--ids", type=Path, metavar="FILE", help="document ids of a .npy, one a line")
    names = [field.name for field in fields(TrainingConfig) if field.name != "precision"]
    settings_options(training, TrainingConfig, names, **TrainingConfig.usual("query"))


def train(options: Options) -> None:
    """Train one prompt, or one for each of several collections."""
    options.side = options.side or ("both" if options.multitask else "query")
    names = [*options.collections, *(expand([options.group], options.data) if options.group else [])]
    names = list(dict.fromkeys(names))
    if not names:
        raise ForewordError("no collection to train on; name one, e.g. pydoc/torch, or a --group")
    _refuse_idle(options)
    if options.multitask or (len(names) == 1 and options.group is None and options.folds is None):
        _train_one(options, names)
    else:
        _train_each(options, names)


def _refuse_idle(options: Options) -> None:
    """Refuse options that would do nothing with the others."""
    query, idle = options.side == "query", "would do nothing here; it needs"
    needs(
        options,
        "negatives hard_negatives",
        not query,
        f"{idle} --side both (the query side has the whole corpus as negatives)",
    )
    needs(options, "gather_negatives mini_batch_size", not query, f"{idle} --side both")
    needs(options, "negatives", options.pseudo_queries is None, f"{idle} labels, not --pseudo-queries")
    needs(options, "corpus_negatives document_side documents", query, f"{idle} --side query")
    labels = options.supervision in ("train", "dev")
    needs(options, "pseudo_queries", not labels, f"{idle} no --supervision {options.supervision}")
    needs(options, "folds", not options.multitask, f"{idle} a prompt for each collection, not --multitask")
    needs(options, "ids", options.documents is not None, "names the rows of --documents, which is missing")


def training_config(options: Options) -> TrainingConfig:
    """The settings that the options give, the defaults of the side elsewhere."""
    from foreword.training.config import TrainingConfig

    return TrainingConfig.default(several=options.multitask, **given(options, TrainingConfig))


def _structure(options: Options) -> dict[str, Any]:
    """What the options say of a prompt's structure."""
    from foreword.prompts.spec import PromptSpec

    return given(options, PromptSpec) | ({"sides": "untied"} if options.untied else {})


def _source(options: Options) -> Path | None:
    """The prompt that --start names; None: a new one begins with words, noise, ..."""
    from foreword.prompts.spec import Start

    return None if options.start in (None, *get_args(Start)) else Path(options.start)


def _start_config(options: Options) -> StartConfig:
    from foreword.prompts.spec import PromptSpec
    from foreword.training.config import StartConfig

    if options.side == "query" and options.untied and options.document_side != "start":
        raise ForewordError(
            "--untied has a part for documents, which --side query does not train; ask for --side both, or leave "
            "--untied out"
        )
    return StartConfig(PromptSpec(**_structure(options)), options.start or "words", options.seed or 0)


def _start(options: Options, encoder: SentenceTransformer) -> StoredPrompt | StartConfig:
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


def _encoder(options: Options) -> SentenceTransformer:
    """The encoder; with --start PROMPT, with the pooling and length that the prompt was made for."""
    source = _source(options)
    encoder = load_encoder(options, prompt=source)
    if source is not None:
        from foreword.prompts.encoder import transformer_of

        transformer_of(encoder).remove_all()
    return encoder


def _resolved(options: Options, names: list[str], config: TrainingConfig) -> dict[str, Any]:
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


def _train_one(options: Options, names: list[str]) -> None:
    """One prompt, for one collection or for several."""
    config = training_config(options)
    if options.dry_run:
        print_json(_resolved(options, names, config))
        return
    from foreword.training.train import train as run
    from foreword.training.vectors import read_vectors

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
        domain=options.domain or ("multitask" if options.multitask else None),
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


def _train_each(options: Options, names: list[str]) -> None:
    """A prompt for each collection, or each fold of one."""
    config = training_config(options)
    needs(options, "documents negatives domain", False, "is of one collection; train it alone")
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


COMMANDS = {
    "train": Command(
        train,
        train_options,
        "foreword train pydoc/torch --start prompts/multitask --output prompts/pydoc-torch\n"
        "  foreword train pydoc/numpy pydoc/scipy --multitask --target pydoc/torch --output prompts/multitask",
        shown="multitask group side start untied supervision pseudo-queries negatives steps epochs batch-size "
        "learning-rate seed backbone data dry-run",
    ),
}
