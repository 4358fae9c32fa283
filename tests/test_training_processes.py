"""Two processes over gloo train as one process with the joined batch does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from two_processes import train_once

HERE = Path(__file__).parent

COMMON = {"steps": 4, "evaluate_every": 4, "learning_rate": 0.01, "dev_folds": 0}
TRAININGS: tuple[dict[str, Any], ...] = (
    {"sides": "untied", **COMMON},
    {"sides": "shared", **COMMON},
    {"sides": "untied", "mini_batch_size": 2, **COMMON},  # GradCache
)
APART = {"sides": "shared", "gather_negatives": False, **COMMON}


@pytest.fixture(scope="module")
def two(tiny_bert: Path, beir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Where two processes left their records, `rank0.json` and `rank1.json`, and a command its prompt `it`; and what
    was printed.
    """
    folder = tmp_path_factory.mktemp("processes")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    half = json.dumps([{**training, "batch_size": 4} for training in (*TRAININGS, APART)])
    command = ["train", f"folder:{beir}", "--side", "both", "--steps", "2", "--batch-size", "4", "--dev-folds", "2"]
    command += ["--json", "--backbone", str(tiny_bert), "--device", "cpu", "--output", str(folder / "it")]
    done = subprocess.run(
        [*launcher, str(HERE / "two_processes.py"), str(tiny_bert), str(folder), half, *command],
        env={**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return folder, done.stdout


@pytest.fixture(scope="module")
def recorded(tiny_bert: Path, two: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    """Both processes' records, then a single one's, this one's, of the trainings."""
    first, second = (json.loads((two[0] / f"rank{rank}.json").read_text()) for rank in range(2))
    folder = tmp_path_factory.mktemp("one-process")
    one = [
        train_once(str(tiny_bert), str(folder / str(number)), {**training, "batch_size": 8})
        for number, training in enumerate((*TRAININGS, APART))
    ]
    return first, second, one


def texts(record: dict[str, Any], side: str) -> list[tuple[int, ...]]:
    """The texts of a step as token ids, without padding."""
    rows = next(value for key, value in record["inputs"].items() if key.startswith(side))
    return [tuple(token for token in row if token) for row in rows]


def distance(a: list[Any], b: list[Any]) -> float:
    """Of two gradients, relative to their size."""
    x, y = np.asarray(a), np.asarray(b)
    return float(np.linalg.norm(x - y) / np.linalg.norm(y))


@pytest.mark.parametrize("number", range(len(TRAININGS)))
def test_the_gradient_is_that_of_the_joined_batch(recorded: tuple[Any, Any, Any], number: int) -> None:
    first, second, one = (records[number] for records in recorded)
    assert (first["world"], second["world"], one["world"]) == (2, 2, 1)
    assert len(first["steps"]) == len(second["steps"]) == len(one["steps"]) == 4
    for mine, other, joined in zip(first["steps"], second["steps"], one["steps"], strict=True):
        for side in ("query", "document"):
            assert sorted(texts(mine, side) + texts(other, side)) == sorted(texts(joined, side))
        assert mine["gradients"].keys() == joined["gradients"].keys()
        assert len(joined["gradients"]) == (4 if TRAININGS[number]["sides"] == "untied" else 2)  # keys and values
        for name, expected in joined["gradients"].items():
            assert distance(mine["gradients"][name], other["gradients"][name]) < 1e-6
            assert distance(mine["gradients"][name], expected) < 1e-3
    assert first["digest"] == second["digest"]
    assert first["dev"] == second["dev"]
    assert [entry["loss"] for entry in first["dev"]] == pytest.approx([entry["loss"] for entry in one["dev"]], rel=1e-3)


def test_without_gathering_the_gradient_is_another(recorded: tuple[Any, Any, Any]) -> None:
    first, _, one = (records[-1] for records in recorded)
    apart, joined = first["steps"][0]["gradients"], one["steps"][0]["gradients"]
    assert joined
    assert all(distance(apart[name], joined[name]) > 0.05 for name in joined)


def test_the_command_line_trains_on_several_processes(two: tuple[Path, str]) -> None:
    folder, printed = two
    assert json.loads(printed)["steps"] == 2  # said once
    card = json.loads((folder / "it" / "prompt.json").read_text())
    assert card["training"]["processes"] == 2
    assert sorted(path.name for path in (folder / "it").iterdir()) == [
        "prompt.json",
        "prompt.safetensors",
        "run.json",
    ]
