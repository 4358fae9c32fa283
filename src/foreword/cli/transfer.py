"""`foreword transfer` and `foreword advise`."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.cli import grammar as cli
from foreword.errors import ForewordError
from foreword.settings import DEFAULT_BACKBONE
from foreword.tables import duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sentence_transformers import SentenceTransformer

    from foreword.collections.collection import Collection
    from foreword.prompts.store import StoredPrompt
    from foreword.transferring.advise import Advice
    from foreword.transferring.transfer import Transfer


def transfer_options(parser: cli.Parser) -> None:
    """The target, the bank, and how its prompts are combined."""
    from foreword.transferring.config import ProofConfig, TransferConfig

    parser.add_argument("collection", metavar=cli.COLLECTION, help="the target; only its documents are used")
    bank_options(parser)
    names = ("method", "similarity", "sample", "top_k", "temperature", "pseudo=pseudo-queries", "reach")
    cli.settings_options(parser, TransferConfig, names)
    cli.settings_options(parser, ProofConfig, ("seed",))
    parser.add_argument(
        "--features", metavar="BACKBONE", help="model whose embeddings similarity compares (default: the backbone)"
    )
    parser.add_argument(
        "--distil",
        action="store_true",
        help="distil a mixture into one prompt on the target's text, so that queries cost no more than with any prompt",
    )
    cli.dry_run_option(parser)
    cli.encoder_options(parser, prompt=False, precision="auto")


def bank_options(parser: cli.Parser, *, required: bool = True) -> None:
    """The prompts to choose from, and where the result goes."""
    parser.add_argument(
        "--bank",
        type=Path,
        required=required,
        metavar=cli.BANK,
        help="folder of prompts" + ("" if required else " to try"),
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="store the result here, for use with --prompt")
    parser.add_argument("--only", nargs="+", metavar="DOMAIN", help="use only these prompts of the bank")
    parser.add_argument(
        "--exclude",
        nargs="+",
        default=[],
        metavar="DOMAIN",
        help="use all prompts but these (the target's own is never used)",
    )
    cli.data_options(parser)
    cli.template_options(parser)


def run_transfer(options: cli.Options) -> None:
    """Combine a bank's prompts for a target."""
    from foreword.prompts.routes import plain_weight
    from foreword.prompts.store import load_bank
    from foreword.transferring.config import FitConfig, ProofConfig, TransferConfig
    from foreword.transferring.transfer import transfer as run

    same = {"precision": options.precision, "seed": options.seed or 0}
    config = TransferConfig(**cli.given(options, TransferConfig), fit=FitConfig(**same), proof=ProofConfig(**same))
    if options.distil and options.output is None:
        raise ForewordError("--distil makes a prompt; name its folder with --output")
    if options.dry_run:
        cli.print_json({"target": options.collection, "bank": str(options.bank), "transfer": asdict(config)})
        return
    target = cli.load_collection(options, options.collection)
    encoder = cli.load_encoder(options)
    bank = load_bank(options.bank, encoder)
    used = usable(options, bank, target.id)
    sources: dict[str, Collection] = {}
    if config.method in ("similarity", "average"):
        sources, features = _compared(options, list(used), target, config.sample)
    elif config.checks_reach:
        features = reach_features(options, encoder, used)
    else:
        features = {}
    result = run(encoder, target, used, config, sources=sources, features=features, quiet=options.json)
    if options.output is not None and options.distil and result.weights and result.prompt is None:
        _distil(options, encoder, target, result, used)
    elif options.output is not None:
        store_transfer(options.output, result, used, encoder)
    if cli.printed_json(options, result.as_dict()):
        return
    print(f"{result.target}: {result.advice} ({result.reason})")
    if result.weights and result.prompt is None:
        plain = {name: plain_weight(name, weight) for name, weight in result.weights.items()}
        each = {name: weight if isinstance(weight, list) else [weight] for name, weight in plain.items()}
        order = sorted(each, key=lambda name: -sum(each[name]))
        rows = [(name, " ".join(f"{weight:.3f}" for weight in each[name])) for name in order]
        cli.print_table("", ("source", "weight"), rows)
    if options.output is not None:
        print(f"stored: use it with --prompt {options.output}")


def usable(options: cli.Options, bank: Mapping[str, StoredPrompt], target: str) -> dict[str, StoredPrompt]:
    """The prompts of a bank that --only and --exclude leave, without those that have seen the target."""
    from foreword.transferring.transfer import has_seen

    unknown = sorted({*(options.only or []), *options.exclude} - set(bank))
    if unknown:
        raise ForewordError(f"{options.bank} holds no prompt for {', '.join(unknown)}; it holds: {', '.join(bank)}")
    seen = [name for name, stored in bank.items() if has_seen(stored, target)]
    if seen:
        cli.say(f"left out, because they were trained on {target} itself: {', '.join(seen)}")
    return {
        name: stored
        for name, stored in bank.items()
        if name not in (target, *seen, *options.exclude) and (not options.only or name in options.only)
    }


def _compared(
    options: cli.Options, names: Sequence[str], target: Collection, sample: int
) -> tuple[dict[str, Collection], dict[str, Any]]:
    """The sources' collections, and with --features all documents' embeddings by it."""
    sources: dict[str, Collection] = {}
    for name in names:
        try:
            sources[name] = cli.load_collection(options, name, exclude=[target])
        except ForewordError as error:  # a multitask prompt is no collection, and files may not be here
            warnings.warn(f"{name}: left out, since its documents cannot be compared: {error}", stacklevel=2)
    if options.features is None or not sources:
        return sources, {}
    from foreword.prompts.loading import load_encoder as load
    from foreword.transferring.reach import document_features

    encoder = load(options.features, device=options.device)
    how: dict[str, Any] = {"limit": sample, "precision": options.precision, "quiet": options.json}
    every = {target.id: target, **sources}
    return sources, {key: document_features(encoder, collection, **how) for key, collection in every.items()}


def reach_features(
    options: cli.Options, encoder: SentenceTransformer, used: Mapping[str, StoredPrompt]
) -> dict[str, Any]:
    """Document features of all domains behind a bank's prompts, kept in its folder; what is missing is warned of."""
    from foreword.transferring.config import FeatureSettings
    from foreword.transferring.reach import bank_features, source_domains

    written = {"document_template": options.document_template} if options.document_template else {}
    found = bank_features(
        options.bank,
        encoder,
        source_domains(used),
        lambda name: cli.load_collection(options, name),
        FeatureSettings(**written),
        precision=options.precision,
        quiet=options.json,
    )
    if found.left_out:
        warnings.warn(found.said(), stacklevel=2)
    return dict(found.features)


def _distil(
    options: cli.Options,
    encoder: SentenceTransformer,
    target: Collection,
    result: Transfer,
    used: Mapping[str, StoredPrompt],
) -> None:
    """Store a mixture as one prompt."""
    from foreword.transferring.config import DistilConfig
    from foreword.transferring.distil import distil

    needed = {*result.weights, *([result.document] if result.document is not None else [])}
    distil(
        encoder,
        target,
        result.route,
        options.output,
        sources={name: stored for name, stored in used.items() if name in needed},
        config=DistilConfig(precision=options.precision, seed=options.seed or 0),
        record={"transfer": _record(result)},
        quiet=options.json,
    )


def _record(result: Transfer) -> dict[str, Any]:
    return {key: value for key, value in result.as_dict().items() if key != "seconds"}


def store_transfer(
    output: Path, result: Transfer, used: Mapping[str, StoredPrompt], encoder: SentenceTransformer
) -> None:
    """Store what was decided for a target, so that `--prompt` takes it."""
    from foreword.prompts.store import save_mixture, save_prompt
    from foreword.transferring.distil import ancestry

    record: dict[str, Any] = {"transfer": _record(result)}
    if result.prompt is not None:
        # Whose labels went into it is not forgotten, however it was made.
        labels = ancestry(used[name] for name in result.weights)
        record["start"] = {"from": " + ".join(result.weights), "trained_on": labels}
        record["supervision"] = {"method": "transfer"}
        save_prompt(output, result.prompt, encoder, result.target, record=record)
    else:
        save_mixture(output, result.target, result.weights, used, encoder, document=result.document, record=record)


def advise_options(parser: cli.Parser) -> None:
    """The texts, the bank, and how much is looked at."""
    from foreword.transferring.config import AdviceConfig

    parser.add_argument(
        "collection",
        metavar=cli.COLLECTION,
        help="a folder of text files or in BEIR's layout, or any collection, e.g. pydoc/torch",
    )
    bank_options(parser, required=False)
    parser.add_argument(
        "--labels",
        choices=["dev", "train", "none"],
        help="labels to compare candidates on, never test (default: dev, else train)",
    )
    cli.settings_options(parser, AdviceConfig, ("seconds", "seed"))
    cli.dry_run_option(parser)
    cli.encoder_options(parser, prompt=False, precision="auto")


def run_advise(options: cli.Options) -> None:
    """Say what is best for a user's own texts."""
    from foreword.prompts.store import load_bank
    from foreword.transferring.advise import advise as run
    from foreword.transferring.config import AdviceConfig, FitConfig

    fit = FitConfig(precision=options.precision, seed=options.seed or 0)
    config = AdviceConfig(**cli.given(options, AdviceConfig), fit=fit)
    if options.dry_run:
        bank = None if options.bank is None else str(options.bank)
        cli.print_json({"target": options.collection, "bank": bank, "advice": config.as_dict()})
        return
    cli.needs(options, "output only exclude", options.bank is not None, "is for the prompts of a --bank")
    target = cli.load_collection(options, options.collection)
    encoder = cli.load_encoder(options)
    used: dict[str, StoredPrompt] = {}
    features: dict[str, Any] = {}
    if options.bank is not None:
        used = usable(options, load_bank(options.bank, encoder), target.id)
        features = reach_features(options, encoder, used)
    found = run(encoder, target, used, config, features=features, quiet=options.json)
    if options.output is not None:
        store_transfer(options.output, found.transfer, used, encoder)
    command = next_command(options, found, used)
    if cli.printed_json(options, {**found.as_dict(), "command": command}):
        return
    show(found)
    print(f"next: {command}")
    if options.output is not None:
        print(f"stored: use it with --prompt {options.output}")


def next_command(options: cli.Options, found: Advice, used: Mapping[str, StoredPrompt]) -> str:
    """What to type next, quoted for a shell."""
    unmade = found.transfer.method == "fitted"  # a mixture is yet to be made
    if found.advice == "train":
        words = ["train", found.target, *_start(found, used), "--output", _place("prompts", found.target)]
    elif found.advice == "transfer" and options.output is None and unmade:
        words = ["transfer", found.target, "--bank", str(options.bank)]
        words += ["--only", *options.only] if options.only else []
        words += ["--exclude", *options.exclude] if options.exclude else []
        words += ["--seed", str(options.seed)] if options.seed else []
        words += ["--output", _place("transferred", found.target)]
    else:
        words = ["search", found.target, "your question"]
        prompt = options.output
        if prompt is None:  # one prompt alone is in the bank already
            prompt = next((used[name].path for name in found.transfer.weights), None)
        words += ["--prompt", str(prompt)] if found.advice == "transfer" else []
        words += ["--system", "hybrid"] if found.words.bm25 > 0 else []
    return shlex.join(["foreword", *words, *_same(options, words[0])])


def _start(found: Advice, used: Mapping[str, StoredPrompt]) -> list[str]:
    """Both sides, from the bank's prompt of the most domains where that reaches the target; else what is usual."""
    if not used:
        return []
    many = {name: len(stored.card.get("data") or {}) for name, stored in used.items()}
    best = max(sorted(many), key=lambda name: many[name])
    path, sides = used[best].path, used[best].prompt.spec.sides
    within = found.found is not None and found.found.within
    usable_start = within and many[best] > 1 and path is not None and sides != "query"
    return ["--side", "both", *(["--start", str(path)] if usable_start else [])]


def _place(folder: str, target: str) -> str:
    """A folder to store a result for the target in."""
    from foreword.prompts.store import folder_name

    name = target.removeprefix("folder:").strip("./")
    return f"{folder}/{folder_name(name or 'here')}"


def _same(options: cli.Options, command: str) -> list[str]:
    """The options that the next command needs too, to speak of the same texts and the same encoder."""
    names = ["data", "backbone", "revision", "pooling"]
    names += [] if command == "search" else ["document_template", "query_template", "precision"]
    usual = {"backbone": DEFAULT_BACKBONE, "precision": "auto"}
    words = [
        word
        for name, value in ((name, getattr(options, name)) for name in names)
        if value is not None and value != usual.get(name)
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    if options.normalize is not None:
        words.append("--normalize" if options.normalize else "--no-normalize")
    return words


def show(found: Advice) -> None:
    """Print an advice."""
    best = found.found.best if found.found is not None else None
    chosen = f" ({best.name})" if found.advice == "transfer" and best is not None else ""
    print(f"{found.target}: {found.advice}{chosen}{', with hybrid search' if found.words.bm25 else ''}")
    if found.found is not None:
        for name, gain in found.found.expected.items():
            if gain is not None:
                print(f"expected gain in nDCG@10 by {'training' if name == 'train' else name}: {gain.said()}")
    print(f"reason: {found.reason}")
    print(found.words)
    if found.training_seconds is not None:
        print(f"time: training takes about {duration(found.training_seconds)} on this machine")
    print(f"what would change this: {found.changes}")
    if found.candidates:
        split = found.found.split if found.found is not None else None
        columns = ["candidate", "pseudo-queries", "gain", *([] if split is None else [f"labels ({split})", "gain"])]
        rows = []
        for one in found.candidates:
            rows.append([one.name])
            for value, gain in ((one.pseudo, one.pseudo_gain), (one.labels, one.labels_gain)):
                rows[-1].append("" if value is None else f"{value:.3f}")
                rows[-1].append("" if gain is None else f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})")
        cli.print_table("", columns, [row[: len(columns)] for row in rows])
    for note in found.notes:
        print(f"note: {note}")
