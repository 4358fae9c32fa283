"""`foreword recipe`: the settings of earlier systems, run."""

from __future__ import annotations

from pathlib import Path

from foreword.cli.shared import Add, Options, data_options, dry_run_option, print_json, print_table
from foreword.common.errors import ForewordError


def add(command: Add) -> None:
    """The grammar of the command."""
    parser = command(
        "recipe",
        recipe,
        "run a recipe of the original system, or list them",
        "foreword recipe dpr-multitask --miniature",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="e.g. beir-domains (none: list them)")
    parser.add_argument("--miniature", action="store_true", help="the same recipe on small data made here, in a minute")
    parser.add_argument(
        "--values",
        choices=["as-written", "as-took-effect"],
        default="as-took-effect",
        help="the original's settings, where the two differ (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="(default: runs/NAME, or runs/NAME-miniature)")
    data_options(parser)
    parser.add_argument("--steps", nargs="+", metavar="STEP", help="only these; --dry-run lists them")
    parser.add_argument("--multitask", type=Path, metavar="PROMPT", help="a multitask prompt to start from")
    parser.add_argument("--bank", type=Path, metavar="DIR", help="prompts of the domains, instead of training them")
    parser.add_argument("--mirror", action="append", default=[], metavar="URL", help="of downloads (may be repeated)")
    parser.add_argument("--offline", action="store_true", help="ask no network; say what is missing")
    dry_run_option(parser)


def recipe(options: Options) -> None:
    """Run a recipe, show it, or list them all."""
    from foreword.recipes import describe, load_recipe, recipe_names

    if options.name is None:
        found = [load_recipe(name) for name in recipe_names()]
        if options.json:
            print_json([{"name": r.name, "title": r.title, "command": r.command} for r in found])
            return
        print_table("", ("recipe", "what", "command"), [(r.name, r.title, r.command) for r in found])
        return
    chosen = load_recipe(options.name)
    if options.miniature and options.mirror:
        raise ForewordError("--mirror: a miniature downloads nothing, it makes its own data")
    from foreword.recipes.run import plan, run_recipe

    given = {"values": options.values, "miniature": options.miniature, "steps": options.steps}
    given |= {"multitask": options.multitask, "bank": options.bank, "data": options.data}
    if options.dry_run:
        resolved = plan(chosen, **given)
        print_json(resolved) if options.json else print(describe(chosen))
        return
    from foreword.downloads import Transport

    output = options.output or Path("runs") / f"{chosen.name}{'-miniature' if options.miniature else ''}"
    transport = Transport(offline=options.offline, mirrors=tuple(options.mirror), quiet=options.json)
    results = run_recipe(chosen, output, **given, transport=transport, quiet=options.json)
    if options.json:
        print_json(results)
        return
    for group in results["tables"]:
        print((output / "tables" / f"{group}.md").read_text("utf-8"))
    rows = [(c["prompt"], c["what"], "yes" if c["passed"] else "no", c["said"]) for c in results["checks"]]
    print_table("", ("prompt", "check", "passed", "figures"), rows)
    print(f"{output}: done in {results['seconds']['all']:.0f} s; {output / 'recipe.json'} holds it all")
