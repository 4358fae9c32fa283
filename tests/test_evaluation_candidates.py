"""Whose labels took part in a prompt's training."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import random_prompt

from foreword.evaluation.candidates import Candidate, read_candidate
from foreword.prompts.loading import load_encoder
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import load_prompt, save_mixture, save_prompt


def candidate(*trained_on: str, supervision: str = "train", dev: bool = True) -> Candidate:
    return Candidate(Path("x"), "x", "digest", supervision, trained_on, dev)


@pytest.mark.parametrize(
    ("prompt", "collection", "split", "used"),
    [
        (candidate("a/b"), "a/b", "test", False),
        (candidate("a/b"), "a/b", "train", True),
        (candidate("a/b"), "a/b", "dev", True),
        (candidate("a/b", dev=False), "a/b", "dev", False),
        (candidate("a/b", dev=False, supervision="dev"), "a/b", "dev", True),
        (candidate("a/b"), "a/c", "train", False),
        (candidate("a/b#fold1of2", supervision="k-fold"), "a/b#fold1of2", "test", False),
        (candidate("a/b#fold1of2", supervision="k-fold"), "a/b#fold2of2", "test", True),
        (candidate("a/b#fold1of2", supervision="k-fold"), "a/b", "test", True),
        (candidate("a/b#fold1of2", "a/b#fold2of2", supervision="k-fold"), "a/b#fold1of2", "test", True),
        (candidate("cqadupstack/unix"), "beir/cqadupstack", "train", True),
        (candidate("cqadupstack/unix"), "beir/cqadupstack", "test", False),
    ],
)
def test_used_labels(prompt: Candidate, collection: str, split: str, used: bool) -> None:
    assert prompt.has_used(collection, split) is used


def test_a_mixture_has_used_what_its_sources_have(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = load_encoder(str(tiny_bert), device="cpu")
    for name in ("a", "b"):
        record = {"data": {f"toy/{name}#fold1of2": {}}, "metrics": {"dev": [{"step": 0, "dev": 0.5}]}}
        save_prompt(tmp_path / name, random_prompt(encoder, PromptSpec("gated", 2)), encoder, name, record=record)
    sources = {name: load_prompt(tmp_path / name) for name in ("a", "b")}
    save_mixture(tmp_path / "mixed", "toy/c", {"a": 0.5, "b": 0.5}, sources, encoder, record={"transfer": {}})
    found = read_candidate(tmp_path / "mixed")
    assert found.trained_on == ("toy/a#fold1of2", "toy/b#fold1of2")
    assert (found.supervision, found.chose_by_dev) == ("transfer", True)
    assert found.has_used("toy/a", "test")
    assert not found.has_used("toy/c", "test")


@pytest.mark.parametrize(
    ("supervision", "expected"),
    [
        ({"method": "dev"}, "dev"),
        ({"a/b": {"method": "train"}, "a/c": {"method": "train"}}, "train"),
        ({"a/b": {"method": "train"}, "a/c": {"method": "pseudo-queries"}}, "mixed"),
        (None, None),
    ],
)
def test_supervision_of_a_card(tiny_bert: Path, tmp_path: Path, supervision: object, expected: str | None) -> None:
    encoder = load_encoder(str(tiny_bert), device="cpu")
    save_prompt(
        tmp_path / "p",
        random_prompt(encoder, PromptSpec("gated", 2)),
        encoder,
        "p",
        record={"supervision": supervision},
    )
    assert read_candidate(tmp_path / "p").supervision == expected
