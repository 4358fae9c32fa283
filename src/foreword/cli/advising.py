"""`foreword advise`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from foreword.cli.shared import (
    Add,
    Options,
    data_options,
    dry_run_option,
    encoder_options,
    load_collection,
    load_encoder,
    print_json,
    print_table,
    template_options,
)
from foreword.cli.transferring import reach_features, store_transfer, usable
from foreword.prompts.defaults import DEFAULT_BACKBONE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from foreword.prompts.store import StoredPrompt
    from foreword.transferring.advice import Advice, Compared


def add(command: Add) -> None:
    """The grammar of the command."""
    parser = command(
        "advise",
        advise,
        "say whether to train, to transfer or to stay at the base model for your texts, and what to expect",
        "foreword advise my-texts --bank bank",
    )
    parser.add_argument(
        "collection",
        metavar="FOLDER|COLLECTION",
        help="a folder of .txt or .md files or in BEIR's layout, or any collection, e.g. pydoc/torch",
    )
    parser.add_argument("--bank", type=Path, required=True, metavar="DIR", help="folder of prompts")
    parser.add_argument("--output", type=Path, metavar="DIR", help="store the best transfer here, for --prompt")
    data_options(parser)
    template_options(parser)
    parser.add_argument(
        "--labels",
        choices=["dev", "train", "none"],
        help="split (qrels/SPLIT.tsv) that candidates are compared on; never test (default: dev, else train)",
    )
    parser.add_argument("--only", nargs="+", metavar="DOMAIN", help="use only these prompts of the bank")
    parser.add_argument("--exclude", nargs="+", default=[], metavar="DOMAIN", help="use all but these")
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="N",
        help="look at less where more time would be needed, the sources' features not counted",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default: %(default)s)")
    dry_run_option(parser)
    encoder_options(parser, prompt=False, precision="auto")


def advise(options: Options) -> None:
    """Say what is best for a user's own texts."""
    from foreword.prompts.store import load_bank
    from foreword.transferring.advise import advise as run
    from foreword.transferring.fit import FitConfig
    from foreword.transferring.trial import AdviceConfig

    name = collection_id(options)
    config = AdviceConfig(
        labels=options.labels,
        seconds=options.seconds,
        seed=options.seed,
        fit=FitConfig(precision=options.precision, seed=options.seed),
    )
    if options.dry_run:
        print_json({"target": name, "bank": str(options.bank), "advice": config.as_dict()})
        return
    target = load_collection(options, name)
    encoder = load_encoder(options)
    used = usable(options, load_bank(options.bank, encoder), target.id)
    features = reach_features(options, encoder, used)
    found = run(encoder, target, used, config, features=features, quiet=options.json)
    if options.output is not None:
        store_transfer(options.output, found.transfer, used, encoder)
    command = next_command(options, found, used)
    if options.json:
        print_json({**found.as_dict(), "command": command})
        return
    show(found)
    print(f"next: {command}")
    if options.output is not None:
        print(f"stored: use it with --prompt {options.output}")


def collection_id(options: Options) -> str:
    """The collection that the argument names; a folder may be given by its path alone."""
    from foreword.collections.registry import FAMILIES, split_id

    name: str = options.collection
    if split_id(name)[0] in FAMILIES or not Path(name).expanduser().is_dir():
        return name
    # --data is where `folder:` starts from, a bare path starts from here
    return f"folder:{Path(name).expanduser().resolve() if options.data else name}"


# -- the next command ----------------------------------------------------------------------------------------------


def next_command(options: Options, found: Advice, used: Mapping[str, StoredPrompt]) -> str:
    """What to type next, quoted for a shell."""
    if found.advice == "train":
        words = ["train", found.target, *_start(found, used), "--output", _place("prompts", found.target)]
    elif found.advice == "transfer" and options.output is None and _still_made(found, used):
        words = ["transfer", found.target, "--bank", str(options.bank), *_sources(options)]
        words += ["--output", _place("transferred", found.target)]
    else:
        words = ["search", found.target, "your question"]
        prompt = options.output
        if prompt is None:  # one prompt alone is in the bank already
            prompt = next((used[name].path for name in found.transfer.weights), None)
        words += ["--prompt", str(prompt)] if found.advice == "transfer" else []
    return shlex.join(["foreword", *words, *_same(options, words[0])])


def _still_made(found: Advice, used: Mapping[str, StoredPrompt]) -> bool:
    """Whether the transfer is yet to be made: a mixture, or a prompt of several domains that adapts to the target."""
    from foreword.transferring.transfer import several_domains

    return found.transfer.method == "fitted" or several_domains(used) in found.transfer.weights


def _sources(options: Options) -> list[str]:
    """The options by which `foreword transfer` fits the same mixture."""
    chosen = ["--only", *options.only] if options.only else []
    chosen += ["--exclude", *options.exclude] if options.exclude else []
    return [*chosen, *(["--seed", str(options.seed)] if options.seed else [])]


def _start(found: Advice, used: Mapping[str, StoredPrompt]) -> list[str]:
    """Both sides, from the bank's prompt of the most domains where the target is within its reach."""
    many = {name: len(stored.card.get("data") or {}) for name, stored in used.items()}
    best = max(sorted(many), key=lambda name: many[name])
    path, sides = used[best].path, used[best].prompt.spec.sides
    within = found.found is not None and found.found.within
    usable_start = within and many[best] > 1 and path is not None and sides != "query"
    return ["--side", "both", *(["--start-from", str(path)] if usable_start else [])]


def _place(folder: str, target: str) -> str:
    """A folder to store a result for the target in."""
    from foreword.prompts.store import folder_name

    name = target.removeprefix("folder:").strip("./")
    return f"{folder}/{folder_name(name) or 'here'}"


def _same(options: Options, command: str) -> list[str]:
    """The options that the next command needs too, to speak of the same texts and the same encoder."""
    names = ["data", "backbone", "revision", "pooling"]
    names += [] if command == "search" else ["document_template", "query_template", "precision"]
    usual = {"backbone": DEFAULT_BACKBONE, "precision": "auto"}
    given = [(name, getattr(options, name)) for name in names]
    words = [
        word
        for name, value in given
        if value is not None and value != usual.get(name)
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    if options.normalize is not None:
        words.append("--normalize" if options.normalize else "--no-normalize")
    return words


# -- the terminal --------------------------------------------------------------------------------------------------


def show(found: Advice) -> None:
    """Print an advice."""
    best = found.found.best if found.found is not None else None
    chosen = f" ({best.name})" if found.advice == "transfer" and best is not None else ""
    print(f"{found.target}: {found.advice}{chosen}")
    if found.found is not None:
        for name, gain in found.found.expected.items():
            if gain is not None:
                print(f"expected gain in nDCG@10 of {_NOUNS[name]}: {gain.said()}")
    print(f"reason: {found.reason}")
    print(f"would change it: {found.changes}")
    if found.candidates:
        split = found.found.split if found.found is not None else None
        columns = ["candidate", "pseudo-queries", "gain", *([] if split is None else [f"labels ({split})", "gain"])]
        lines = [(one.name, *_cells(one))[: len(columns)] for one in found.candidates]
        print_table("", columns, lines)
    for note in found.notes:
        print(f"note: {note}")


_NOUNS = {"transfer": "transfer", "train": "training"}


def _cells(one: Compared) -> tuple[str, str, str, str]:
    """A candidate's four cells; empty where it was not measured."""
    cells = []
    for value, gain in ((one.pseudo, one.pseudo_gain), (one.labels, one.labels_gain)):
        cells.append("" if value is None else f"{value:.3f}")
        cells.append("" if gain is None else f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})")
    return cells[0], cells[1], cells[2], cells[3]
