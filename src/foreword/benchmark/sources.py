"""The query-side prompts that rivals combine: every domain's own, from one start, over the base model's documents."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice

from foreword.benchmark.prompts import new_start, settings, trained
from foreword.benchmark.stage import Stage
from foreword.collections.records import Document
from foreword.prompts.start import new_prompt
from foreword.prompts.store import StoredPrompt, folder_name, load_prompt, save_prompt
from foreword.training.vectors import DocumentVectors
from foreword.transferring.routing import PilotLibrary, build_pilots

PILOT_QUERIES = 150
"""Training queries of each source that say which expert is best for what."""


@dataclass(frozen=True)
class Shared:
    """What a fold's targets share: the sources' prompts, their start, and the pilots, made when first asked for."""

    bank: Mapping[str, StoredPrompt]
    start: StoredPrompt
    pilots: Callable[[], tuple[PilotLibrary, float]]


def pilots(stage: Stage, bank: Mapping[str, StoredPrompt], seed: int) -> tuple[PilotLibrary, float]:
    """RouterRetriever's pilot embeddings of a bank, and the seconds that they took."""
    began = time.perf_counter()
    library = build_pilots(
        stage.encoder, bank, {name: stage.source(name) for name in bank}, seed=seed, limit=PILOT_QUERIES,
        precision=stage.precision, documents={name: stage.documents(name, None, "base") for name in bank},
        query_length=stage.plan.query_length, document_length=stage.plan.document_length, quiet=True,
    )  # fmt: skip
    return library, time.perf_counter() - began


def shared_start(stage: Stage, seed: int) -> StoredPrompt:
    """The one prompt that all sources start from."""
    folder = stage.output / "prompts" / f"sources-seed{seed}" / "start"
    if not (folder / "prompt.json").exists():
        spec = new_start(stage, seed, sides="query").spec
        texts = [doc.content for name in stage.plan.domains for doc in _first(stage, name, 8)]
        made = new_prompt(stage.encoder, spec, start="words", texts=texts, seed=seed)
        save_prompt(folder, made, stage.encoder, "start", record={"start": {"from": "words", "seed": seed}})
    return load_prompt(folder, stage.encoder)


def _first(stage: Stage, name: str, count: int) -> list[Document]:
    return list(islice(stage.source(name).documents(), count))


def source_prompt(stage: Stage, name: str, start: StoredPrompt, seed: int) -> StoredPrompt:
    """A domain's own query-side prompt, over the base model's document vectors."""
    every = stage.documents(name, None, "base")
    source = stage.source(name)
    kept = {document.doc_id for document in source.documents()}
    rows = [row for row, doc_id in enumerate(every.doc_ids) if doc_id in kept]
    vectors = DocumentVectors([every.doc_ids[row] for row in rows], every.vectors[rows])
    config = settings(stage, "query", seed, stage.plan.source)
    folder = f"sources-seed{seed}/{folder_name(name)}"
    return trained(stage, folder, source, name, config, start, documents={name: vectors})
