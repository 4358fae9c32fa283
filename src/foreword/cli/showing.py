"""`foreword words`, `report` and `demo`: what was learnt, to look at."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from foreword.cli.shared import (
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
from foreword.common.errors import DataError


def add(command: Add) -> None:
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
    from foreword.prompts.store import CARD, load_bank, load_prompt
    from foreword.prompts.words import bank_words

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
    from foreword.demo.config import DemoConfig

    config = DemoConfig.quick() if options.quick else DemoConfig()
    config = replace(config, seed=options.seed)
    if options.dry_run:
        print_json(config.as_dict())
        return
    from foreword.demo.run import run_demo

    results = run_demo(config, options.output, data=options.data, quiet=options.json)
    if options.json:
        print_json({key: results[key] for key in ("configuration", "rows")})
