"""`foreword benchmark`: what transfer is worth, measured on held-out domains."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from foreword.cli.grammar import (
    Add,
    Options,
    data_options,
    dry_run_option,
    encoder_options,
    load_encoder,
    print_json,
    print_table,
    say,
)
from foreword.errors import DataError, ForewordError
from foreword.lab import PARTS
from foreword.settings import DEFAULT_BACKBONE


def add_benchmark(command: Add) -> None:
    """The grammar of the command."""
    parser = command(
        "benchmark",
        benchmark,
        "leave each domain of a group out, and measure what the others' prompts give it",
        "foreword benchmark transfer --parts primary far",
    )
    parser.add_argument("what", choices=["transfer"], help="the benchmark")
    parser.add_argument("--group", metavar="NAME", help="domains that are sources and targets (default: the plan's)")
    parser.add_argument("--plan", type=Path, metavar="TOML", help="settings (default: the committed ones)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="(default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="instead of the plan's")
    parser.add_argument("--output", type=Path, metavar="DIR", help="(default: runs/benchmark-transfer)")
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE, metavar="NAME", help="(default: %(default)s)")
    parser.add_argument(
        "--report-only", action="store_true", help="run nothing; tables, plots and page from the cells that are there"
    )
    data_options(parser)
    dry_run_option(parser)


def benchmark(options: Options) -> None:
    """Run the benchmark, or what is missing of it, and say where its results are."""
    from foreword.lab.records import chosen, load_plan

    seeds = None if options.seeds is None else tuple(options.seeds)
    plan = chosen(load_plan(options.plan, group=options.group), seeds=seeds)
    output = options.output or Path("runs") / "benchmark-transfer"
    if options.dry_run:
        print_json({"plan": plan.as_dict(), "parts": options.parts, "output": str(output)})
        return
    from foreword.lab.benchmark import run_benchmark, write_results

    if options.report_only:
        page = write_results(plan, output)
    else:
        how = {"data": options.data, "backbone": options.backbone, "quiet": options.json}
        page = run_benchmark(plan, output, parts=options.parts, **how)
    if options.json:
        print((output / "results.json").read_text(encoding="utf-8"))
        return
    print((output / "results.md").read_text(encoding="utf-8"))
    say(f"{page}: the same with plots; {output / 'cells'} and {output / 'runs'} hold what it was made from")


# `foreword recipe`: the settings of earlier systems, run.


def add_recipe(command: Add) -> None:
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
    from foreword.lab.recipe import describe, load_recipe, recipe_names

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
    from foreword.lab.recipe_run import plan, run_recipe

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


# `foreword words`, `report` and `demo`: what was learnt, to look at.


def add_show(command: Add) -> None:
    """The grammar of these commands."""
    parser = command(
        "words",
        words,
        "the vocabulary words nearest to the vectors of an input prompt, or of a bank's",
        "foreword words prompts/pydoc-torch",
    )
    parser.add_argument("prompt", type=Path, metavar="PROMPT", help="a prompt's folder, or a bank's")
    parser.add_argument("--count", type=int, default=5, help="words a vector (default: %(default)s)")
    encoder_options(parser, prompt=False)

    parser = command(
        "report",
        report,
        "write the HTML report of a results.json, and its plots",
        "foreword report runs/demo/results.json --output report.html",
    )
    parser.add_argument("results", type=Path, metavar="RESULTS.json", help="as foreword demo writes it")
    parser.add_argument("--output", type=Path, metavar="FILE", help="(default: report.html beside it)")
    parser.add_argument("--no-plots", action="store_true", help="the page alone, without plots/ beside it")

    parser = command(
        "demo",
        demo,
        "the whole job on the documentation of installed packages, in minutes",
        "foreword demo --quick",
    )
    parser.add_argument("--quick", action="store_true", help="fewer sources and steps: under 4 minutes on two cores")
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), metavar="DIR", help="(default: %(default)s)")
    data_options(parser)
    parser.add_argument("--seed", type=int, default=0, help="of every random choice (default: %(default)s)")
    dry_run_option(parser)


def words(options: Options) -> None:
    """Show the words nearest to a prompt's vectors."""
    from foreword.prompts.inspect import bank_words
    from foreword.prompts.store import CARD, load_bank, load_prompt

    encoder = load_encoder(options)
    if (options.prompt / CARD).exists():
        stored = load_prompt(options.prompt)
        bank = {stored.domain: stored}
    else:
        bank = load_bank(options.prompt)
    found = bank_words(encoder, bank, count=options.count)
    for domain, kind in found.left_out.items():
        say(f"{domain}: left out, its prompt is of kind {kind}; only input prompts have words")
    if options.json:
        print_json({"words": found.records, "left_out": found.left_out})
        return
    for record in found.records:
        print(f"{record['domain']} ({record['part']}): {', '.join(entry['word'] for entry in record['summary'])}")
        rows = [
            (str(number), " ".join(f"{near['word']} {near['similarity']:.2f}" for near in row))
            for number, row in enumerate(record["rows"], start=1)
        ]
        print_table("", ("vector", "nearest words, cosine"), rows)


def report(options: Options) -> None:
    """Write the HTML report of a results file."""
    from foreword.report import write_plots, write_report
    from foreword.report.plots import FOLDER

    try:
        results = json.loads(options.results.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError("no such file; foreword demo writes one", path=options.results) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"cannot be read as JSON: {error}", path=options.results) from error
    if not isinstance(results, dict) or "rows" not in results:
        raise DataError("is not a results file: an object with 'rows'", path=options.results)
    output = options.output or options.results.with_name("report.html")
    write_report(output, results)
    plots = [] if options.no_plots else write_plots(output.parent / FOLDER, results)
    if options.json:
        print_json({"report": str(output), "plots": [str(file) for plot in plots for file in (plot.png, plot.svg)]})
        return
    print(f"report: {output}" + (f"; {len(plots)} plots in {output.parent / FOLDER}" if plots else ""))


def demo(options: Options) -> None:
    """Run the demo."""
    from foreword.lab.demo import DemoConfig

    config = DemoConfig.quick() if options.quick else DemoConfig()
    config = replace(config, seed=options.seed)
    if options.dry_run:
        print_json(config.as_dict())
        return
    from foreword.lab.demo import run_demo

    results = run_demo(config, options.output, data=options.data, quiet=options.json)
    if options.json:
        print_json({key: results[key] for key in ("configuration", "rows")})
