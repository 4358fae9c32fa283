"""Benchmarks in small: that they run, and what they say of what they measured; and the page of docs/reliability.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.speed import KINDS, made_texts, measure, shown


def test_every_way_has_its_time(tiny_bert: Path) -> None:
    how = {"texts": 6, "words": 12, "domains": 2, "documents": 500, "queries": 5, "rounds": 2}
    found = measure(str(tiny_bert), parts=("encode", "search"), **how)  # type: ignore[arg-type]
    ways = list(found["encode"]["seconds"])
    assert ways[0] == "sentence-transformers, float32"
    others = 3 if find_spec("onnxscript") and find_spec("onnxruntime") else 2
    assert len(ways) == others + len(found["machine"]["gflops"]) * (1 + 2 * len(KINDS))
    assert {"exact_search, in memory", "exact_search, from a mapped file"} <= set(found["search"]["seconds"])
    everything = [*found["encode"]["seconds"].values(), *found["search"]["seconds"].values()]
    assert all(len(each) == 2 and min(each) > 0 for each in everything)
    tables = shown(found).splitlines()
    assert sum(line.endswith("| 1.00 |") for line in tables) >= 2
    assert sum(line.startswith("| ") and " | s | " not in line for line in tables) == len(everything) + 2


@pytest.mark.slow
def test_every_way_to_train_has_its_time(tiny_bert: Path) -> None:
    found = measure(str(tiny_bert), parts=("train",), rounds=1)
    names = {name.rpartition(",")[0] for name in found["train"]["seconds"]}
    assert {"sentence-transformers, full", "prompt, both sides", "prompt, query side"} <= names


def test_texts_are_the_same_each_time_and_no_two_lengths_the_rule() -> None:
    texts = made_texts(50, 40)
    assert texts == made_texts(50, 40)
    assert {len(text.split()) for text in texts} <= set(range(8, 41))
    assert len({len(text.split()) for text in texts}) > 15


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(os, "fork") or not Path("/proc/self/statm").exists(), reason="processes are forked, on Linux"
)
def test_the_short_form_of_the_attacks_finds_nothing(tmp_path: Path) -> None:
    for package in ("pymilvus", "fastapi", "prometheus_client"):
        pytest.importorskip(package)
    program = Path(__file__).parents[1] / "benchmarks" / "reliability.py"
    command = [sys.executable, program, "--short", "--output", tmp_path / "record.json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    record = json.loads((tmp_path / "record.json").read_text())
    for part in ("malformed", "killed", "served", "equal", "measured"):
        assert record[part]["fault"] == 0
        assert f"| {record[part]['fault']} |" in done.stdout
    malformed = record["malformed"]
    assert malformed["refused"] + malformed["right"] == malformed["inputs"] == 115
    assert min(malformed["refused"], malformed["right"]) > 20  # neither is all that there is
    assert record["killed"]["tried"] == record["killed"]["states"] > 30
    assert set(record["served"]["statuses"]) == {"200"}
