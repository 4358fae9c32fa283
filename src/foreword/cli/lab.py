"""`foreword demo` and `foreword benchmark`: whole experiments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from foreword.cli import grammar as cli
from foreword.errors import UnknownNameError
from foreword.files import read_toml
from foreword.lab import PARTS
from foreword.settings import DEFAULT_BACKBONE

if TYPE_CHECKING:
    from foreword.lab.in_domain import InDomainPlan
    from foreword.lab.recipe import Recipe
    from foreword.lab.records import Plan


def demo_options(parser: cli.Parser) -> None:
    """How much, and where to."""
    parser.add_argument(
        "--full", action="store_true", help="all documents, longer texts, more steps, sources, systems and targets"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), metavar="DIR", help="(default: %(default)s)")
    cli.data_options(parser)
    parser.add_argument("--seed", type=int, default=0, help="of every random choice (default: %(default)s)")
    cli.dry_run_option(parser)


def run_demo(options: cli.Options) -> None:
    """Run the demo."""
    from foreword.lab.demo import DemoConfig

    config = DemoConfig.full() if options.full else DemoConfig()
    config = replace(config, seed=options.seed)
    if options.dry_run:
        cli.print_json(config.as_dict())
        return
    from foreword.lab.demo import run_demo

    results = run_demo(config, options.output, data=options.data, quiet=options.json)
    if options.json:
        cli.print_json({key: results[key] for key in ("configuration", "rows")})


TRANSFER, IN_DOMAIN = "transfer", "in-domain"


def benchmark_names() -> list[str]:
    """The benchmarks that are there by name: of transfer, in a domain, and the recipes of earlier systems."""
    from foreword.lab.recipe import recipe_names

    return [TRANSFER, IN_DOMAIN, *recipe_names()]


def benchmark_options(parser: cli.Parser) -> None:
    """Which one, and how much of it."""
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="transfer, in-domain, a recipe of an earlier system, e.g. beir-domains, or your own plan or recipe, a "
        ".toml file. Without it: list them",
    )
    parser.add_argument(
        "--parts", nargs="+", metavar="PART", help="run only these parts (default: all; --dry-run lists them)"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="(default: runs/benchmark-transfer, runs/NAME)")
    cli.data_options(parser)
    cli.dry_run_option(parser)
    group = parser.add_argument_group("transfer and in-domain")
    group.add_argument(
        "--targets",
        nargs="+",
        metavar=cli.COLLECTION,
        help="for in-domain: your collections instead of the plan's, with the learning rates of the plan",
    )
    group.add_argument(
        "--group", metavar="GROUP", help="transfer: sources and targets, a group or one of the plan's banks"
    )
    group.add_argument("--seeds", nargs="+", type=int, metavar="N", help="random seeds (default: the plan's)")
    group.add_argument("--backbone", default=DEFAULT_BACKBONE, metavar="NAME", help="(default: %(default)s)")
    group.add_argument(
        "--report-only", action="store_true", help="run nothing; write tables, plots and page from existing results"
    )
    group = parser.add_argument_group("recipes")
    group.add_argument("--miniature", action="store_true", help="run the recipe on small generated data, in a minute")
    group.add_argument(
        "--values",
        choices=["as-written", "as-took-effect"],
        default="as-took-effect",
        help="which of the original's settings to use, where they differ (default: %(default)s)",
    )
    group.add_argument("--start", type=Path, metavar=cli.PROMPT, help="a multitask prompt to start from")
    group.add_argument("--bank", type=Path, metavar=cli.BANK, help="prompts of the domains, instead of training them")
    group.add_argument("--mirror", action="append", default=[], metavar="URL", help="mirror to try first (repeatable)")
    group.add_argument("--offline", action="store_true", help="use no network; report what is missing")
    group = parser.add_argument_group("records (these run nothing)")
    group.add_argument("--record", type=Path, metavar="FILE", help="write the results in --output to one file")
    group.add_argument(
        "--tables",
        nargs="+",
        type=Path,
        metavar="PAGE",
        help="recompute the marked tables in Markdown pages",
    )


def run_benchmark(options: cli.Options) -> None:
    """Run an experiment, show it, or list them all."""
    from foreword.lab.recipe import Recipe, load_recipe, recipe_names
    from foreword.lab.records import Plan

    cli.needs(options, "record tables", options.name is None, "runs nothing; leave the name out")
    cli.needs(options, "record", options.output is not None, "needs --output, the folder of a run")
    if options.record or options.tables:
        _publish(options)
        return
    if options.name is None:
        found = [load_recipe(name) for name in recipe_names()]
        rows = [(TRANSFER, "What transfer gives held-out domains", f"foreword benchmark {TRANSFER}")]
        rows += [(IN_DOMAIN, "Prompts, LoRA and full fine-tuning in the same time", f"foreword benchmark {IN_DOMAIN}")]
        rows += [(recipe.name, recipe.title, recipe.command) for recipe in found]
        if options.json:
            cli.print_json([{"name": name, "title": title, "command": command} for name, title, command in rows])
        else:
            cli.print_table("", ("name", "what", "command"), rows)
        return
    chosen = _chosen(options)
    recipe = isinstance(chosen, Recipe)
    cli.needs(options, "seeds backbone report_only", not recipe, "is for the benchmarks transfer and in-domain")
    cli.needs(options, "group", isinstance(chosen, Plan), "is for the benchmark of transfer")
    cli.needs(options, "targets", not recipe and not isinstance(chosen, Plan), "is for the benchmark in-domain")
    cli.needs(options, "miniature values start bank mirror offline", recipe, "is for recipes")
    if isinstance(chosen, Recipe):
        _run_recipe(options, chosen)
    elif isinstance(chosen, Plan):
        _run_transfer(options, chosen)
    else:
        _run_in_domain(options, chosen)


def _publish(options: cli.Options) -> None:
    """Keep a run in one file, and compute pages' tables from such files."""
    from foreword.lab.published import write_tables
    from foreword.lab.records import write_record

    if options.record:
        write_record(options.record, options.output)
        cli.say(f"{options.record}: {options.record.stat().st_size:,} bytes")
    for page in options.tables or ():
        cli.say(f"{page}: {'written' if write_tables(page) else 'as it was'}")


def _chosen(options: cli.Options) -> Plan | InDomainPlan | Recipe:
    """The plan or the recipe that the name stands for."""
    from foreword.lab.in_domain import load_in_domain
    from foreword.lab.recipe import load_recipe, read_recipe
    from foreword.lab.records import load_plan

    path = Path(options.name)
    if options.name == TRANSFER:
        return load_plan(group=options.group)
    if options.name == IN_DOMAIN:
        return load_in_domain()
    if path.suffix != ".toml":
        return load_recipe(options.name)
    tables = read_toml(path)
    if "methods" in tables:
        return load_in_domain(path)
    return read_recipe(path) if "step" in tables else load_plan(path, group=options.group)


def _run_transfer(options: cli.Options, plan: Plan) -> None:
    """Run the benchmark of transfer, or what is missing of it, and say where its results are."""
    parts = options.parts or list(PARTS)
    if unknown := [part for part in parts if part not in PARTS]:
        raise UnknownNameError(f"no part {', '.join(unknown)}; there are: {', '.join(PARTS)}")
    if options.seeds is not None:
        plan = replace(plan, seeds=tuple(options.seeds))
    output = options.output or Path("runs") / "benchmark-transfer"
    if options.dry_run:
        cli.print_json({"plan": plan.as_dict(), "parts": parts, "output": str(output)})
        return
    from foreword.lab.benchmark import run_benchmark, write_results

    if options.report_only:
        page = write_results(plan, output)
    else:
        how = {"data": options.data, "backbone": options.backbone, "quiet": options.json}
        page = run_benchmark(plan, output, parts=parts, **how)
    _show(options, output, page)


def _run_in_domain(options: cli.Options, plan: InDomainPlan) -> None:
    """Run the benchmark in a domain, or what is missing of it, and say where its results are."""
    if options.seeds is not None:
        plan = replace(plan, seeds=tuple(options.seeds))
    parts = options.parts
    if options.targets is not None:
        plan = plan.on(options.targets)
        parts = parts or list(plan.targets)
    output = options.output or Path("runs") / "benchmark-in-domain"
    if options.dry_run:
        cli.print_json({"plan": plan.as_dict(), "parts": parts, "output": str(output)})
        return
    from foreword.lab.in_domain import run_in_domain, write_in_domain

    if options.report_only:
        page = write_in_domain(plan, output)
    else:
        how = {"data": options.data, "backbone": options.backbone, "quiet": options.json}
        page = run_in_domain(plan, output, parts=parts, **how)
    _show(options, output, page)


def _show(options: cli.Options, output: Path, page: Path) -> None:
    """The results, and where they are."""
    if options.json:
        print((output / "results.json").read_text(encoding="utf-8"))
        return
    print((output / "results.md").read_text(encoding="utf-8"))
    cli.say(f"{page}: the same with plots; {output / 'cells'} and {output / 'runs'} hold what it was made from")


def _run_recipe(options: cli.Options, chosen: Recipe) -> None:
    """Run a recipe, or show it."""
    from foreword.lab.recipe import describe

    cli.needs(
        options,
        "mirror",
        not options.miniature,
        "does nothing here: a miniature downloads nothing, it makes its own data",
    )
    from foreword.lab.recipe_run import plan, run_recipe

    given = {"values": options.values, "miniature": options.miniature, "steps": options.parts}
    given |= {"multitask": options.start, "bank": options.bank, "data": options.data}
    if options.dry_run:
        resolved = plan(chosen, **given)
        cli.print_json(resolved) if options.json else print(describe(chosen))
        return
    from foreword.downloads import Transport

    output = options.output or Path("runs") / f"{chosen.name}{'-miniature' if options.miniature else ''}"
    transport = Transport(offline=options.offline, mirrors=tuple(options.mirror), quiet=options.json)
    results = run_recipe(chosen, output, **given, transport=transport, quiet=options.json)
    if cli.printed_json(options, results):
        return
    for group in results["tables"]:
        print((output / "tables" / f"{group}.md").read_text("utf-8"))
    rows = [(c["prompt"], c["what"], "yes" if c["passed"] else "no", c["said"]) for c in results["checks"]]
    cli.print_table("", ("prompt", "check", "passed", "figures"), rows)
    print(f"{output}: done in {results['seconds']['all']:.0f} s; {output / 'recipe.json'} holds it all")
