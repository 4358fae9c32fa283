"""A prompt for each collection of a group: cut and gone on with, skipped when done, past failures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from nine_domains import train_nine
from tiny import toy_collection

from foreword.collections.collection import Collection
from foreword.errors import DataError, ForewordError
from foreword.prompts.loading import load_encoder
from foreword.prompts.store import load_bank
from foreword.training.config import TrainingConfig
from foreword.training.group import RECORD, failures, train_group

HERE = Path(__file__).parent
QUICK = TrainingConfig.default("query", steps=4, evaluate_every=2, batch_size=8, precision="float32", dev_folds=0)


def test_nine_domains_survive_a_kill(tiny_bert: Path, tmp_path: Path) -> None:
    """One process is killed in the second pass of four; this one goes on, and does all nine in another folder."""
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "nine_domains.py"), str(tiny_bert), str(tmp_path / "cut"), "0.1"]
    cut = subprocess.Popen(command, env=environment)
    first, work = tmp_path / "cut" / "toy-3" / "prompt.json", tmp_path / "cut" / ".foreword-training"
    deadline = time.monotonic() + 120
    while not (first.exists() and any(work.glob("*/checkpoint-2/trainer_state.json"))) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(cut.pid, signal.SIGKILL)
    cut.wait()
    assert any(work.glob("*/checkpoint-*"))
    assert not (tmp_path / "cut" / "toy-4" / "prompt.json").exists()
    goes_on, uncut = train_nine(tiny_bert, tmp_path / "cut"), train_nine(tiny_bert, tmp_path / "uncut")
    assert [one.status for one in uncut] == ["trained"] * 9
    assert [one.status for one in goes_on] == ["done"] * 4 + ["trained"] * 5
    assert not work.exists()
    bank, other = load_bank(tmp_path / "uncut"), load_bank(tmp_path / "cut")
    assert list(bank) == list(other) == [f"toy/{number}" for number in range(9)]
    for name, stored in bank.items():
        assert stored.card == other[name].card
        own, its = (one.path / "prompt.safetensors" for one in (stored, other[name]))  # type: ignore[operator]
        assert own.read_bytes() == its.read_bytes()


def load(name: str) -> Collection:
    if name == "toy/broken":
        raise DataError("its files are broken")
    if name == "toy/bug":
        raise ZeroDivisionError("by zero")
    return toy_collection(name)


def test_a_failed_domain_does_not_stop_the_others(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = load_encoder(str(tiny_bert), device="cpu")
    names = ["toy/a", "toy/broken", "toy/bug", "toy/b"]
    results = train_group(encoder, names, tmp_path, load=load, config=QUICK, quiet=True)
    assert [result.status for result in results] == ["trained", "failed", "failed", "trained"]
    assert [entry["error"] for entry in failures(results)] == ["its files are broken", "ZeroDivisionError: by zero"]
    assert list(load_bank(tmp_path, encoder)) == ["toy/a", "toy/b"]
    recorded = json.loads((tmp_path / RECORD).read_text())["collections"]
    assert [entry["status"] for entry in recorded] == ["trained", "failed", "failed", "trained"]
    again = train_group(encoder, names, tmp_path, load=load, config=QUICK, quiet=True)
    assert [result.status for result in again] == ["done", "failed", "failed", "done"]


def test_other_settings_are_a_failure_of_each(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = load_encoder(str(tiny_bert), device="cpu")
    train_group(encoder, ["toy/a"], tmp_path, load=load, config=QUICK, quiet=True)
    (result,) = train_group(encoder, ["toy/a"], tmp_path, load=load, config=replace(QUICK, steps=5), quiet=True)
    assert result.status == "failed"
    assert "trained with other settings" in result.error


def test_two_of_one_folder_are_refused(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = load_encoder(str(tiny_bert), device="cpu")
    with pytest.raises(ForewordError, match="same folder name"):
        train_group(encoder, ["a/b", "a-b"], tmp_path, load=load, config=QUICK, quiet=True)
