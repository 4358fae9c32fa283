"""Vectors that are kept on the disk: whose they are, and what becomes of a file that is damaged, full or shared."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from shell import Shell
from tiny import random_prompt, toy_collection, write_beir

from foreword.errors import ForewordError
from foreword.prompts import encoder as encoding
from foreword.prompts.cache import VectorCache
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.loading import load_encoder
from foreword.prompts.routes import Routes
from foreword.prompts.spec import PromptSpec
from foreword.training.config import TrainingConfig
from foreword.training.train import train

TEXTS = ["a cat", "the dog and the cat", "red", "a green bird", ""]


class Passes:
    """Counts the texts that go through the model."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.texts = 0
        own = encoding._encode

        def counted(encoder: Any, texts: Any, *given: Any, **how: Any) -> Any:
            self.texts += len(texts)
            return own(encoder, texts, *given, **how)

        monkeypatch.setattr(encoding, "_encode", counted)

    def take(self) -> int:
        """Those since it was asked last."""
        self.texts, texts = 0, self.texts
        return texts


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Passes:
    return Passes(monkeypatch)


@pytest.fixture
def encoder(tiny_bert: Path, tmp_path: Path) -> SentenceTransformer:
    loaded = load_encoder(str(tiny_bert), device="cpu")
    transformer_of(loaded).vectors = VectorCache(tmp_path / "vectors.sqlite")
    for name, sides in (("one", "shared"), ("two", "shared"), ("asked", "query")):
        prompt = random_prompt(loaded, PromptSpec(length=2, sides=sides), seed=len(name), scale=0.5)  # type: ignore[arg-type]
        transformer_of(loaded).add(name, prompt)
    with torch.no_grad():
        for value in transformer_of(loaded).prompt("two").parameters():
            value.add_(0.3)
    return loaded


def plain(encoder: SentenceTransformer, *given: Any, **how: Any) -> Any:
    """As without a cache."""
    transformer = transformer_of(encoder)
    transformer.vectors, cache = None, transformer.vectors
    try:
        return encode(encoder, *given, **how, quiet=True)
    finally:
        transformer.vectors = cache


def test_what_is_known_is_not_embedded_again_and_equal(encoder: SentenceTransformer, passes: Passes) -> None:
    first = encode(encoder, TEXTS[:3], "document", route=None, quiet=True)
    assert passes.take() == 3
    np.testing.assert_array_equal(encode(encoder, TEXTS[:3], "document", route=None, quiet=True), first)
    assert passes.take() == 0
    mixed = encode(encoder, [*reversed(TEXTS), TEXTS[4]], "document", route=None, quiet=True)
    assert passes.take() == 3  # the two new ones, one of them twice
    np.testing.assert_allclose(mixed, plain(encoder, [*reversed(TEXTS), TEXTS[4]], "document", route=None), atol=2e-6)


@pytest.mark.parametrize(
    "how",
    [
        {"route": "one"},
        {"route": "two"},
        {"route": {"one": 0.5, "two": 0.5}},
        {"route": {"one": 0.25, "two": 0.75}},
        {"route": {"one": 0.75, "two": 0.25}},
        {"route": Routes("one", "two")},
        {"route": None, "max_length": 4},
        {"route": None, "precision": "bfloat16"},
    ],
    ids=str,
)
def test_nothing_is_taken_for_another_route_or_setting(
    encoder: SentenceTransformer, passes: Passes, how: dict[str, Any]
) -> None:
    encode(encoder, TEXTS, "document", route=None, quiet=True)
    encode(encoder, TEXTS, "document", route={"one": 0.6, "two": 0.4}, quiet=True)
    passes.take()
    np.testing.assert_array_equal(
        encode(encoder, TEXTS, "document", quiet=True, **how), plain(encoder, TEXTS, "document", **how)
    )
    assert passes.take() == 2 * len(TEXTS)


def test_what_else_a_vector_follows_from(encoder: SentenceTransformer, passes: Passes, tiny_bert: Path) -> None:
    transformer = transformer_of(encoder)
    encode(encoder, TEXTS, "document", route="one", quiet=True)
    encode(encoder, TEXTS, "document", route=None, quiet=True)
    passes.take()
    encode(encoder, TEXTS, "document", route="asked", quiet=True)  # it leaves documents to the base model
    assert passes.take() == 0
    transformer.add("renamed", transformer.prompt("one"))
    encode(encoder, TEXTS, "document", route="renamed", quiet=True)
    assert passes.take() == 0
    with torch.no_grad():
        next(transformer.prompt("one").parameters()).add_(0.1)  # another prompt of the same name
    encode(encoder, TEXTS, "document", route="one", quiet=True)
    assert passes.take() == len(TEXTS)
    encoder.prompts = {"query": "", "document": "text: "}
    encode(encoder, TEXTS, "document", route=None, quiet=True)
    assert passes.take() == len(TEXTS)
    encoder.prompts = {}
    encode(encoder, TEXTS, "query", route=None, quiet=True)
    encode(encoder, TEXTS, "document", domains=[None] * len(TEXTS), quiet=True)
    assert passes.take() == 2 * len(TEXTS)
    other = load_encoder(str(tiny_bert), device="cpu", pooling="cls")
    transformer_of(other).vectors = transformer.vectors
    encode(other, TEXTS, "document", route=None, quiet=True)
    assert passes.take() == len(TEXTS)


def test_nothing_is_kept_of_what_learns_or_was_changed(
    encoder: SentenceTransformer, passes: Passes, tmp_path: Path
) -> None:
    transformer = transformer_of(encoder)
    config = TrainingConfig.default("both", steps=2, evaluate_every=1, dev_folds=0)
    train(encoder, toy_collection("toy"), tmp_path / "trained", config=config, quiet=True)
    assert passes.take() > 0
    assert transformer.vectors is not None
    assert not transformer.vectors.path.exists()
    transformer.backbone = None
    for _ in range(2):
        encode(encoder, TEXTS, "document", route=None, quiet=True)
    assert passes.take() == 2 * len(TEXTS)


def test_a_damaged_file_is_made_anew(encoder: SentenceTransformer, passes: Passes) -> None:
    cache = transformer_of(encoder).vectors
    assert cache is not None
    right = encode(encoder, TEXTS, "document", route=None, quiet=True)
    with sqlite3.connect(cache.path) as file:
        file.execute("UPDATE vectors SET vector = zeroblob(length(vector)) WHERE rowid = 2")
    passes.take()
    np.testing.assert_allclose(encode(encoder, TEXTS, "document", route=None, quiet=True), right, atol=2e-6)
    assert passes.take() == 1
    cache.path.write_bytes(b"no database at all" * 100)
    np.testing.assert_array_equal(encode(encoder, TEXTS, "document", route=None, quiet=True), right)
    assert passes.take() == len(TEXTS)
    encode(encoder, TEXTS, "document", route=None, quiet=True)
    encode(encoder, TEXTS, "document", route=None, quiet=True)
    assert passes.take() in (0, len(TEXTS))


def test_a_place_that_cannot_be_written_is_done_without(
    encoder: SentenceTransformer, passes: Passes, tmp_path: Path
) -> None:
    (tmp_path / "a file").write_text("")
    transformer_of(encoder).vectors = VectorCache(tmp_path / "a file" / "vectors.sqlite")
    for _ in range(2):
        encode(encoder, TEXTS, "document", route=None, quiet=True)
    assert passes.take() == 2 * len(TEXTS)


def test_it_is_bounded_and_what_was_longest_unused_goes(encoder: SentenceTransformer, tmp_path: Path) -> None:
    cache = VectorCache(tmp_path / "vectors.sqlite", limit_mb=2)
    made: list[int] = []

    def embed(number: int) -> None:
        def make(missing: Sequence[int]) -> Any:
            made.append(len(missing))
            return np.full((len(missing), 384), number, np.float32)

        texts = [f"{number} {place}" for place in range(100)]
        assert (cache.embed(encoder, None, {}, texts, make) == number).all()

    for number in range(40):
        embed(number)
    assert made == [100] * 40
    assert cache.path.stat().st_size < 3e6
    embed(39)
    assert len(made) == 40  # the last are there
    embed(0)
    assert len(made) == 41  # the first are gone


def test_a_command_repeated_embeds_no_document_again(
    tiny_bert: Path, tmp_path: Path, shell: Shell, passes: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOREWORD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FOREWORD_VECTORS_MB", "")
    write_beir(Path("toy"), toy_collection("toy"))
    command = ("search", "folder:toy", "a cat", "--backbone", str(tiny_bert), "--json")
    first = shell(*command)
    assert passes.take() > 20
    again = shell(*command)
    assert passes.take() == 1  # the query
    assert again == first
    monkeypatch.setenv("FOREWORD_VECTORS_MB", "0")
    shell(*command)
    assert passes.take() > 20
    monkeypatch.setenv("FOREWORD_VECTORS_MB", "much")
    with pytest.raises(ForewordError, match="FOREWORD_VECTORS_MB is 'much'"):
        VectorCache.of_user()
