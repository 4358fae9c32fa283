"""`foreword benchmark`: what transfer is worth, measured on held-out domains."""

from __future__ import annotations

from pathlib import Path

from foreword.benchmark.parts import PARTS
from foreword.cli.shared import Add, Options, data_options, dry_run_option, print_json, say
from foreword.prompts.defaults import DEFAULT_BACKBONE


def add(command: Add) -> None:
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
    from foreword.benchmark.plan import chosen, load_plan

    seeds = None if options.seeds is None else tuple(options.seeds)
    plan = chosen(load_plan(options.plan, group=options.group), seeds=seeds)
    output = options.output or Path("runs") / "benchmark-transfer"
    if options.dry_run:
        print_json({"plan": plan.as_dict(), "parts": options.parts, "output": str(output)})
        return
    from foreword.benchmark.run import run_benchmark, write_results

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
