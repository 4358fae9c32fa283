"""`foreword export`, `foreword import` and `foreword push`: prompts in the forms of other tools, and on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from foreword.cli.grammar import (
    BANK,
    PROMPT,
    Command,
    Options,
    Parser,
    dry_run_option,
    encoder_options,
    load_encoder,
    print_json,
    say,
)
from foreword.errors import ForewordError, PromptError
from foreword.tables import byte_size

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from foreword.hub.push import Upload


FORMS = ("sentence-transformers", "plain", "peft", "onnx")


def export_options(parser: Parser) -> None:
    """Which prompts, in which form."""
    parser.add_argument(
        "prompts",
        nargs="+",
        type=Path,
        metavar=f"{PROMPT}|{BANK}",
        help="folders of prompts, of banks, or one mixture",
    )
    parser.add_argument(
        "--to",
        required=True,
        choices=FORMS,
        help="sentence-transformers: any prompt, loaded where Foreword is installed; plain: input prompts after [CLS] "
        "as a model that sentence-transformers loads alone; peft: adapter files; onnx: one graph, prompts its inputs",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a folder that is not there yet")
    parser.add_argument(
        "--default",
        metavar="DOMAIN",
        help="of a sentence-transformers model: what encodes texts that name no domain (default: the only one)",
    )
    parser.add_argument("--max-length", type=int, metavar="TOKENS", help="texts are cut to (default: the backbone's)")
    encoder_options(parser, prompt=False)


def import_options(parser: Parser) -> None:
    """Which adapter, and where to."""
    parser.add_argument("adapter", type=Path, metavar="DIR", help="with adapter_config.json, or query/ and document/")
    parser.add_argument("--domain", metavar="NAME", help="the name it goes by (default: the output folder's)")
    parser.add_argument("--output", type=Path, required=True, metavar=PROMPT, help="the stored prompt's folder")
    parser.add_argument(
        "--side",
        choices=["both", "query"],
        help="of a folder with one adapter: does it encode documents too (default: both)",
    )
    encoder_options(parser, prompt=False)


def push_options(parser: Parser) -> None:
    """What is pushed, where to, and what its card says."""
    parser.add_argument("folder", type=Path, metavar=PROMPT, help="the folder of a prompt, a mixture or a bank")
    parser.add_argument("repository", metavar="USER/NAME", help="the repository; it is made when missing")
    parser.add_argument("--private", action="store_true", help="only you see it")
    parser.add_argument("--revision", metavar="BRANCH", help="made when missing (default: main)")
    parser.add_argument("--license", metavar="ID", help="of the prompt, as the hub names it, e.g. apache-2.0")
    parser.add_argument(
        "--results", nargs="+", type=Path, default=[], metavar="FILE", help="what foreword evaluate --json printed"
    )
    parser.add_argument("--no-card", action="store_true", help="leave README.md on the hub as it is")
    parser.add_argument("--message", metavar="TEXT", help="of the commit")
    dry_run_option(parser)


def export(options: Options) -> None:
    """Export prompts."""
    from foreword.exporting import export_onnx, export_peft, export_plain, export_prompted
    from foreword.prompts.encoder import transformer_of
    from foreword.prompts.store import read_mixture_card

    if options.default is not None and options.to not in ("sentence-transformers", "plain"):
        raise ForewordError(f"--default is for a sentence-transformers model; there is none with --to {options.to}")
    if options.max_length is not None and options.to == "peft":
        raise ForewordError("--max-length does nothing with --to peft: an adapter's files do not say it")
    _refuse_precision(options)
    folders, mixture = prompt_folders(options.prompts)
    if mixture and options.to in ("plain", "peft"):
        raise ForewordError(
            f"{folders[0]} is a mixture of prompts, which --to {options.to} has no form of; foreword transfer --distil "
            "makes one prompt of it"
        )
    encoder = carrying(options, folders, mixture)
    names: list[str] = []
    notes: list[str] = []
    if options.to == "plain":
        names = [one.name for one in export_plain(encoder, options.output, default=options.default)]
    elif options.to == "peft":
        notes = export_peft(encoder, options.output)
    elif options.to == "onnx":
        name = str(read_mixture_card(folders[0])["domain"]) if mixture else ""
        export_onnx(encoder, options.output, routes={name: transformer_of(encoder).route} if mixture else None)
    else:
        export_prompted(encoder, options.output, default=options.default)
    if options.json:
        print_json({"output": str(options.output), "to": options.to, "prompt_names": names, "notes": notes})
        return
    print(f"{options.output}: written")
    if names:
        print(f"prompt names: {', '.join(names)}")
    print(f"how to use it: {options.output / 'README.md'}")
    if notes:
        say("note: PEFT runs this prompt otherwise unless told; the README says how")


def import_prompt(options: Options) -> None:
    """Import a PEFT adapter."""
    from foreword.exporting import import_peft

    _refuse_precision(options)
    encoder = load_encoder(options)
    domain = options.domain or options.output.name
    stored = import_peft(
        options.adapter, encoder, options.output, domain, sides="query" if options.side == "query" else None
    )
    spec = stored.prompt.spec
    summary = {
        "prompt": str(options.output),
        "domain": domain,
        **spec.as_dict(),
        "parameters": stored.card["parameters"],
    }
    if not stored.prompt.kind.among_words:
        say(
            "note: PEFT trains a prefix with the text's positions moved by its length, Foreword runs it without; "
            "evaluate it before you rely on it"
        )
    if options.json:
        print_json(summary)
        return
    print(f"{options.output}: {spec.kind}, {spec.length} vectors, sides {spec.sides}; use it with --prompt")


def _refuse_precision(options: Options) -> None:
    """Refuse an option of encoding that would do nothing here."""
    if options.precision != "float32":
        raise ForewordError("--precision is of encoding; a prompt and a backbone are written in the numbers they have")


def prompt_folders(paths: list[Path]) -> tuple[list[Path], bool]:
    """The folders of all prompts that the arguments name, and whether the one there is is a mixture.

    Raises:
        PromptError: an argument is neither a prompt nor a bank of prompts, or a mixture is not alone.
    """
    from foreword.prompts.store import CARD, is_mixture
    from foreword.prompts.store import MIXTURE_CARD as MIXTURE_CARD

    found: list[Path] = []
    for path in paths:
        if is_mixture(path):
            if len(paths) > 1:
                raise PromptError(f"{path} is a mixture, which brings its own prompts; export it alone")
            return [path], True
        if (path / CARD).is_file():
            found.append(path)
            continue
        mixtures = sorted(card.parent.name for card in path.glob(f"*/{MIXTURE_CARD}"))
        if mixtures:
            raise PromptError(f"{path} holds mixtures ({', '.join(mixtures)}): export each alone, and prompts by name")
        below = sorted(card.parent for card in path.glob(f"*/{CARD}"))
        if not below:
            raise PromptError(f"{path} holds no prompt, no mixture and no bank; give what foreword train wrote")
        found += below
    return found, False


def carrying(options: Options, folders: list[Path], mixture: bool) -> SentenceTransformer:
    """The encoder with all prompts; a single one, or a mixture, encodes texts that name no domain."""
    from foreword.prompts.encoder import transformer_of
    from foreword.prompts.store import attach_prompt, load_prompt

    encoder = load_encoder(options, prompt=folders[0])
    if mixture:
        return encoder
    transformer = transformer_of(encoder)
    for folder in folders[1:]:
        domain = load_prompt(folder).domain
        if domain in transformer.domains:
            raise PromptError(f"{folder}: another of the prompts is for {domain!r} too; export one of them")
        attach_prompt(encoder, folder)
    if len(folders) > 1:
        transformer.route = None
    return encoder


def push(options: Options) -> None:
    """Push a prompt. The token is HF_TOKEN's, or what `hf auth login` stored: a command line is read by others."""
    from foreword.hub.push import plan_push
    from foreword.hub.push import push as upload

    card = {"licence": options.license, "results": options.results, "card": not options.no_card}
    if options.dry_run:
        _print_plan(options, plan_push(options.folder, options.repository, **card))
        return
    done = upload(
        options.folder,
        options.repository,
        private=True if options.private else None,
        revision=options.revision,
        message=options.message,
        **card,
    )
    if options.json:
        print_json(vars(done))
        return
    if options.license is None and not options.no_card:
        say("the card states no licence, so nobody else may use the prompt; --license states one")
    removed = f", {len(done.removed)} files of an earlier prompt removed" if done.removed else ""
    size = byte_size(sum(done.files.values())) + ("" if done.changed else ", all there already")
    print(f"{done.url} ({done.revision}, {done.commit[:12]}): {len(done.files)} files, {size}{removed}")


def _print_plan(options: Options, plan: Upload) -> None:
    if options.json:
        print_json(
            {
                "repository": plan.repository,
                "kind": plan.contents.kind,
                "private": options.private,
                "revision": options.revision or "main",
                "files": plan.sizes,
                "card": plan.card,
            }
        )
        return
    print(f"{plan.repository} ({options.revision or 'main'}{', private' if options.private else ''}) would get")
    for name, size in plan.sizes.items():
        print(f"  {name}  {byte_size(size)}")
    if plan.card is not None:
        print(f"\nREADME.md:\n\n{plan.card}", end="")


COMMANDS = {
    "export": Command(
        export,
        export_options,
        "foreword export prompts/torch --to onnx --output torch-onnx",
        shown="default max-length backbone",
    ),
    "import": Command(
        import_prompt,
        import_options,
        "foreword import my-adapter --domain my-domain --output prompts/my-domain",
        shown="domain side backbone",
    ),
    "push": Command(
        push,
        push_options,
        "foreword push prompts/torch me/torch-docs-prompt --license apache-2.0 --dry-run",
    ),
}
