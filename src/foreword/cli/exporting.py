"""`foreword export` and `foreword import`: prompts in the forms of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from foreword.cli.shared import Add, Options, encoder_options, load_encoder, print_json, say
from foreword.common.errors import ForewordError, PromptError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

FORMS = ("sentence-transformers", "plain", "peft", "onnx")


def add(command: Add) -> None:
    """The grammar of these commands."""
    parser = command(
        "export",
        export,
        "write prompts in another tool's form: sentence-transformers, PEFT or ONNX",
        "foreword export prompts/torch --to onnx --output torch-onnx",
    )
    parser.add_argument(
        "prompts", nargs="+", type=Path, metavar="PROMPT|BANK", help="folders of prompts, of banks, or one mixture"
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

    parser = command(
        "import",
        import_prompt,
        "store a PEFT adapter (prompt tuning or prefix tuning) as a prompt",
        "foreword import my-adapter --domain my-domain --output prompts/my-domain",
    )
    parser.add_argument("adapter", type=Path, metavar="DIR", help="with adapter_config.json, or query/ and document/")
    parser.add_argument("--domain", metavar="NAME", help="the name it goes by (default: the output folder's)")
    parser.add_argument("--output", type=Path, required=True, metavar="PROMPT", help="the stored prompt's folder")
    parser.add_argument(
        "--sides",
        choices=["shared", "query", "untied"],
        help="of a folder with one adapter: does it encode documents too (default: shared)",
    )
    encoder_options(parser, prompt=False)


def export(options: Options) -> None:
    """Export prompts."""
    from foreword.exporting import export_onnx, export_peft, export_plain, export_prompted
    from foreword.prompts.encoder import transformer_of
    from foreword.prompts.mixture import read_mixture_card

    if options.default is not None and options.to not in ("sentence-transformers", "plain"):
        raise ForewordError(f"--default is for a sentence-transformers model; there is none with --to {options.to}")
    if options.max_length is not None and options.to == "peft":
        raise ForewordError("--max-length does nothing with --to peft: an adapter's files do not say it")
    _refuse_precision(options)
    folders, mixture = prompt_folders(options.prompts)
    if mixture and options.to in ("plain", "peft"):
        raise ForewordError(
            f"{folders[0]} is a mixture of prompts, which --to {options.to} has no form of; foreword transfer --fold "
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
    stored = import_peft(options.adapter, encoder, options.output, domain, sides=options.sides)
    spec = stored.prompt.spec
    summary = {
        "prompt": str(options.output),
        "domain": domain,
        **spec.as_dict(),
        "parameters": stored.card["parameters"],
    }
    if spec.kind == "prefix":
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
    from foreword.prompts.mixture import CARD as MIXTURE_CARD
    from foreword.prompts.mixture import is_mixture
    from foreword.prompts.store import CARD

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
