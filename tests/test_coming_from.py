"""docs/coming-from.md and docs/collections.md: what they name exists, their tables are the data's.

Run as a program, this file writes the tables of docs/collections.md anew.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pages import DOCS, page

from foreword.cli.main import build_parser
from foreword.collections import beir
from foreword.collections.registry import INSTALLED, catalogue, describe, group_names, members
from foreword.collections.supervision import supervise
from foreword.evaluation import published
from foreword.evaluation import published as seen
from foreword.evaluation.group import GroupConfig
from foreword.training.config import TrainingConfig
from foreword.transferring.config import TransferConfig

PAGES = ("coming-from.md", "collections.md")

SETTINGS = tuple(
    """
    model_name_or_path use_delta freeze_plm soft_prompt_token_number init_from_vocab untie_encoder pooling normalize
    train_n_passages q_max_len p_max_len per_device_train_batch_size learning_rate num_train_epochs negatives_x_device
    grad_cache gc_q_chunk_size gc_p_chunk_size fp16 save_steps logging_steps report_to overwrite_output_dir seed template
    source_dataset_group target_dataset top_k temperature similarity_method retrieve_depth measures
    """.split()  # noqa: SIM905
)
GROUPS_THERE = ("beir", "beir_full", "beir_expand", "cqa", "oag", "oag_top_level")
OURS = ("here", "note", "what differs, and why", "")
"""Columns in which an option is one of ours; the others are about the other system."""
CONFIGS = {kind.__name__: kind for kind in (TrainingConfig, TransferConfig, GroupConfig)}


# -- reading the pages ---------------------------------------------------------------------------------------------


def tables(text: str) -> list[list[dict[str, str]]]:
    """Every table as a list of rows: column -> cell."""
    found: list[list[dict[str, str]]] = []
    header: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if cells and not header:
            header = cells
            found.append([])
        elif cells and not set(line) <= set("|- :"):
            assert len(cells) == len(header), f"{len(cells)} cells instead of {len(header)}: {line}"
            found[-1].append(dict(zip(header, cells, strict=True)))
        elif not cells:
            header = []
    return found


def spans(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def prose(text: str) -> str:
    """Neither tables nor fenced blocks."""
    without = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return "\n".join(line for line in without.splitlines() if not line.startswith("|"))


def ours() -> Iterator[tuple[str, str]]:
    """Every span in backticks that speaks of this program: the page, and the span."""
    for name in PAGES:
        text = page(name)
        yield from ((name, span) for span in spans(" ".join(prose(text).split())))
        for rows in tables(text):
            for row in rows:
                yield from ((name, span) for column in row if column in OURS for span in spans(row[column]))


# -- the parser ----------------------------------------------------------------------------------------------------


def commands() -> dict[str, argparse.ArgumentParser]:
    found = next(a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(found.choices)


COMMANDS = commands()
NEEDED = {
    "train": ["pydoc/torch", "--output", "o"],
    "transfer": ["pydoc/torch", "--bank", "b"],
    "evaluate": ["pydoc/torch"],
    "mine": ["pydoc/torch", "--output", "o"],
    "download": ["beir"],
}


def check_options(command: str, words: list[str]) -> None:
    """Every option exists in the command, and takes the value that it is given, if any."""
    options = COMMANDS[command]._option_string_actions
    for at, word in enumerate(words):
        if word.startswith("--"):
            assert word in options, f"{command} has no option {word}"
            action = options[word]
            value = words[at + 1] if at + 1 < len(words) and not words[at + 1].startswith("--") else None
            if action.nargs == 0:
                continue
            sample = value or str(next(iter(action.choices or "1")))
            if sample.isupper():  # FILE, DIR: a place to be filled in
                sample = "1"
            taken = ["pydoc/torch"] if command == "evaluate" and word == "--measures" else []
            line = [*taken, word, sample] if taken else [*NEEDED.get(command, []), word, sample]
            build_parser().parse_args([command, *line])


def check_python(span: str) -> None:
    """A dotted name with keywords, `foreword.transfer(features=...)`, or a field of a configuration."""
    name, _, keywords = span.partition("(")
    config, _, field = name.partition(".")
    if config in CONFIGS:
        kind: Any = CONFIGS[config]
        assert is_dataclass(kind)
        assert field in [f.name for f in fields(kind)], span
        return
    module, _, function = name.rpartition(".")
    found = getattr(importlib.import_module(module), function)
    for keyword in re.findall(r"(\w+)=", keywords):
        parameters = inspect.signature(found).parameters
        assert keyword in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values()), span


# -- tests ---------------------------------------------------------------------------------------------------------


def test_every_option_and_name_exists() -> None:
    checked = 0
    for name, span in ours():
        span = span.removeprefix("foreword ")
        if span.startswith("torchrun "):
            assert span.endswith("-m foreword")
        elif re.fullmatch(r"\w[\w.]*\.\w+(\(.*\))?", span) and (
            span.startswith("foreword.") or span.partition(".")[0] in CONFIGS
        ):
            check_python(span)
            checked += 1
        elif re.fullmatch(r"--[a-z][a-z-]*( .*)?", span):
            words = shlex.split(span)
            if name == "coming-from.md" or words[0] in COMMANDS["train"]._option_string_actions:
                check_options("train", words)
            else:  # of the commands shown beside it
                assert any(words[0] in parser._option_string_actions for parser in COMMANDS.values()), span
            checked += 1
        elif (words := span.split())[0] in COMMANDS:
            check_options(words[0], shlex.split(span)[1:])
            checked += 1
        else:
            assert not re.match(r"--[a-z-]+\b(?!_)", span), f"{name}: {span}"
    assert checked > 150


def test_every_setting_of_the_original_is_there() -> None:
    block = page("coming-from.md").partition("<!-- settings: begin -->")[2].partition("<!-- settings: end -->")[0]
    (rows,) = tables(block)
    assert [name for name in SETTINGS if name not in {row["name there"].strip("`") for row in rows}] == []
    assert [row["name there"] for row in rows if not all(row[column] for column in ("meaning", "here"))] == []


def test_every_group_of_the_original_is_there() -> None:
    (rows,) = [rows for rows in tables(page("coming-from.md")) if "group there" in rows[0]]
    named = {spans(row["group there"])[0]: row for row in rows}
    assert tuple(named) == GROUPS_THERE
    for row in named.values():
        (ours,) = spans(row["here"])
        size = re.search(r"\((\d+)\)", row["group there"])
        assert size is None or len(members(ours)) == int(size[1])


def test_python_runs_it_as_a_module() -> None:
    run = [sys.executable, "-m", "foreword", "--version"]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.startswith("foreword ")


def test_ids_and_groups_that_the_pages_name_exist() -> None:
    known = {entry.id for entry in catalogue(Path("nowhere"))}
    families = ("beir", "cqadupstack", "dpr", "oag-qa", "oag-qa-disciplines", "glasgow")
    pattern = rf"(?<![\w/-])({'|'.join(families)})/([a-z][\w-]*)(?![\w/.*-])"
    named = {match[0] for name in PAGES for match in re.finditer(pattern, page(name))}
    folders = {"beir/nq-train", "oag-qa/oagqa-topic-v2"}
    assert len(named) >= 30
    assert named - known - folders - _patterns() == set()


# -- the tables that are made from the data -------------------------------------------------------------------------


def _patterns() -> set[str]:
    """What the facts on backbones name: ids, and patterns of them."""
    return {row["collection"] for row in seen.table()}


def table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def groups() -> str:
    rows = [
        (f"`{name}`", "what is installed" if name in INSTALLED else str(len(members(name))), describe(name))
        for name in group_names()
    ]
    return table(("group", "collections", "what"), rows)


def supervision() -> str:
    rows = []
    for name, about in beir.facts()["sets"].items():
        headline = about.get("headline_split", "test")
        stub: Any = SimpleNamespace(id=name, splits=tuple(about["splits"]), facts={"headline_split": headline})
        method = supervise(stub).method if "train" in stub.splits or "dev" in stub.splits else "pseudo-queries"
        own_dev = method == "train" and "dev" in stub.splits and headline != "dev"
        dev = "the dev split" if own_dev else f"a tenth of {'them' if method == 'pseudo-queries' else method}"
        queries = ", ".join(f"{split} {count:,}" for split, count in about["queries"].items())
        rows.append((f"`beir/{name}`", f"{about['documents']:,}", queries, method, dev, headline))
    return table(("set", "documents", "judged queries", "trained by", "best step by", "reported"), rows)


def seen_backbones() -> str:
    entries = seen.facts()["backbones"]
    about = []
    for number, entry in enumerate(entries, start=1):
        through: dict[str, list[str]] = {}
        for collection, what in entry["seen"].items():
            through.setdefault(what, []).append(f"`{collection}`")
        trained = "; ".join(f"{what}: {', '.join(found)}" for what, found in through.items())
        about.append((str(number), ", ".join(f"`{n}`" for n in entry["names"]), trained or "none", entry["source"]))
    families: dict[str, list[str]] = {}
    for collection in catalogue(Path("nowhere")):
        if ":" not in collection.id:
            families.setdefault(collection.group, []).append(collection.id)
    said = {True: "yes", False: "no", None: "?"}
    rows = []
    for family, ids in families.items():
        answers = {i: tuple(said[seen.seen(entry["names"][0], i)] for entry in entries) for i in ids}
        if len(set(answers.values())) == 1:
            answers = {f"{family}/*": answers[ids[0]]}
        rows += [(f"`{name}`", *found) for name, found in answers.items()]
    numbers = tuple(str(number) for number in range(1, len(entries) + 1))
    return "\n\n".join(
        (
            seen.facts()["meaning"],
            table(("", "backbones", "trained on", "source"), about),
            "Seen by the backbones of that number (`?`: not known):",
            table(("collection", *numbers), rows),
        )
    )


def published_numbers() -> str:
    sources = published.sources()
    rows = []
    for measure in ("nDCG@10", "Success@20"):
        for system in published.published(measure):
            mean = f"the mean over {system.group or f'{len(system.members)} sets of BEIR'}"
            what = f"{len(system.values)} sets of BEIR" if system.values else mean
            about = sources[system.source]
            rows.append((system.name, measure, what, f"[{about['citation']}]({about['url']}): {about['note']}"))
    return table(("system", "measure", "on", "source, and what to know"), rows)


MADE = {"groups": groups, "supervision": supervision, "seen": seen_backbones, "published": published_numbers}


def between(name: str) -> tuple[str, str]:
    return f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"


@pytest.mark.parametrize("name", MADE)
def test_table_is_that_of_the_data(name: str) -> None:
    begin, end = between(name)
    found = page("collections.md").partition(begin)[2].partition(end)[0]
    assert found.strip() == MADE[name](), "write it anew with: python tests/test_coming_from.py"


def test_every_row_of_the_backbones_is_on_the_page() -> None:
    text = page("collections.md")
    for row in seen.table():
        assert all(f"`{row[part]}`" in text for part in ("backbone", "collection")), row
        assert row["through"] in text, row


if __name__ == "__main__":
    text = page("collections.md")
    for name, make in MADE.items():
        begin, end = between(name)
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{make()}\n\n{end}{rest.partition(end)[2]}"
    (DOCS / "collections.md").write_text(text, "utf-8")
