"""`foreword push`, and prompts that other commands take from the hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.cli.shared import Add, Options, byte_size, dry_run_option, print_json, say

if TYPE_CHECKING:
    from foreword.hub.push import Upload

_FROM_HUB = ("prompt", "prompts", "bank", "start_from", "multitask")
"""Options whose value is the folder of a prompt, a mixture or a bank, or a list of such."""


def add(command: Add) -> None:
    """The grammar of the command."""
    parser = command(
        "push",
        push,
        "put a prompt, a mixture or a bank on the Hugging Face hub, with a model card",
        "foreword push prompts/torch me/torch-docs-prompt --license apache-2.0 --dry-run",
    )
    parser.add_argument("folder", type=Path, metavar="PROMPT", help="the folder of a prompt, a mixture or a bank")
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


def bring(options: Options) -> None:
    """Replace `hf:user/name`, where an option takes a prompt's folder, by the folder that comes from the hub.

    With --dry-run nothing is asked of the network, and the name stays.
    """
    if getattr(options, "dry_run", False):
        return
    from foreword.hub.fetch import from_hub, is_on_hub

    def brought(value: Any) -> Any:
        return from_hub(str(value)) if is_on_hub(value) else value

    for name in _FROM_HUB:
        value = getattr(options, name, None)
        if value is not None:
            setattr(options, name, [brought(one) for one in value] if isinstance(value, list) else brought(value))
