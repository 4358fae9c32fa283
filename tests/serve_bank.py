"""A bank of random prompts on the tiny BERT, a service of it in this process, and one on a real port."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from on_a_port import on_a_port
from sentence_transformers import SentenceTransformer
from starlette.testclient import TestClient
from tiny import random_prompt, toy_collection

from foreword.collections.collection import Collection, MemoryCollection
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import folder_name, load_prompt, save_mixture, save_prompt
from foreword.serving.app import create_app
from foreword.serving.config import ServeConfig

SPECS = {
    "toy/shared": PromptSpec(length=3),
    "toy/untied": PromptSpec(length=3, sides="untied"),
    "toy/query": PromptSpec(length=3, sides="query"),
    "toy/prefix": PromptSpec(kind="prefix", length=4, sides="untied"),
    "toy/input": PromptSpec(kind="input", length=2),
}


def save(
    bank: Path, encoder: SentenceTransformer, domain: str, spec: PromptSpec, seed: int = 0, record: Any = None
) -> Path:
    """A random prompt in the bank."""
    prompt = random_prompt(encoder, spec, seed, scale=0.5)
    return save_prompt(bank / folder_name(domain), prompt, encoder, domain, dtype="float32", record=record)


def save_bank(bank: Path, encoder: SentenceTransformer) -> Path:
    """Prompts of three kinds and all sides, and a mixture of two."""
    for seed, (domain, spec) in enumerate(SPECS.items()):
        save(bank, encoder, domain, spec, seed)
    parts = {name: load_prompt(bank / folder_name(name), encoder) for name in ("toy/shared", "toy/untied")}
    other = save(bank.parent / "sources", encoder, "toy/other", SPECS["toy/shared"], 9)
    sources = {"toy/shared": parts["toy/shared"], "toy/other": load_prompt(other, encoder)}
    save_mixture(bank / "mixed", "toy/mixed", {"toy/shared": 0.75, "toy/other": [0.5, 0.25]}, sources, encoder)
    return bank


def load(name: str) -> Collection:
    """Toy collections of any name."""
    return toy_collection(name)


def config(backbone: Path, bank: Path | None = None, **settings: Any) -> ServeConfig:
    """Settings for a test."""
    return ServeConfig(backbone=str(backbone), bank=bank, device="cpu", **settings)


def with_metadata(name: str) -> MemoryCollection:
    """The toy collection, its documents of two kinds; every third one has no kind."""
    plain = toy_collection(name)
    corpus = tuple(
        replace(doc, title=f"T{n}", metadata={"kind": "odd" if n % 2 else "even", "n": str(n)} if n % 3 else {})
        for n, doc in enumerate(plain.corpus)
    )
    return replace(plain, corpus=corpus)


@contextlib.contextmanager
def client(settings: ServeConfig) -> Iterator[TestClient]:
    """A service in this process."""
    app = create_app(settings, load=load)
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as asked:
        yield asked


def ask(service: TestClient, domain: str, status: int = 200, **more: Any) -> dict[str, Any]:
    """What `/search` answers with this status."""
    answer = service.post("/search", json={"domain": domain, **more})
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def listening(settings: ServeConfig) -> contextlib.AbstractContextManager[str]:
    """A service on a free port; gives its address."""
    return on_a_port(create_app(settings, load=load))
