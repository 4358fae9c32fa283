"""The one path of all trainings: data, dev sets and the trainer, for prompts and for what they are compared with."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from foreword.collections.records import Collection, TrainingPair
from foreword.common.errors import DataError
from foreword.prompts.routes import Route
from foreword.training.config import TrainingConfig
from foreword.training.dev import DevEvaluator, DevSet, seed_everything
from foreword.training.losses import CorpusPairs
from foreword.training.processes import is_main
from foreword.training.trainee import Trainee
from foreword.training.trainer import TimeBudget, build_trainer
from foreword.training.vectors import DocumentVectors, embed_documents

WORK = ".foreword-training"
"""The folder, in the output, of checkpoints and of what a training follows from; gone when it is finished."""


@dataclass(frozen=True)
class Course:
    """How a training went.

    Attributes:
        evaluator: with the values that were best, and the history.
        losses: `step` and `loss`, where they were recorded.
        parameters: numbers that were trained, of what the trainee has.
        steps: taken in all.
        seconds: spent in this process, the embedding of documents too, evaluations not.
    """

    evaluator: DevEvaluator
    losses: Sequence[Mapping[str, Any]]
    parameters: int
    steps: int
    seconds: float


def pairs_of(
    sources: Sequence[Collection], given: Mapping[str, Sequence[TrainingPair]] | None, config: TrainingConfig
) -> dict[str, list[TrainingPair]]:
    """The training pairs of each collection, by its id.

    Args:
        sources: the collections.
        given: pairs to take instead of a collection's own training split.
        config: says how many hard negatives they bring.

    Raises:
        DataError: a collection has none, or is there twice.
    """
    if not sources:
        raise DataError("no collection to train on")
    data = {c.id: _pairs(c, given, config.hard_negatives if config.side == "both" else 0) for c in sources}
    if len(data) < len(sources):
        raise DataError(f"a collection is given twice: {', '.join(c.id for c in sources)}")
    return data


def _pairs(
    collection: Collection, given: Mapping[str, Sequence[TrainingPair]] | None, hard_negatives: int
) -> list[TrainingPair]:
    if given is not None and collection.id in given:
        pairs = list(given[collection.id])
    elif "train" in collection.splits:
        pairs = list(collection.pairs("train", hard_negatives=hard_negatives))
    else:
        raise DataError(
            f"{collection.id} has no training split (it has: {', '.join(collection.splits) or 'none'}); judgements of "
            "its test split are not for training. Use pseudo-queries (--pseudo-queries), or transfer"
        )
    if not pairs:
        raise DataError(f"{collection.id} has no training pairs")
    return pairs


def run_training(
    encoder: SentenceTransformer,
    sources: Sequence[Collection],
    data: Mapping[str, Sequence[TrainingPair]],
    trainee: Trainee,
    work: Path,
    config: TrainingConfig,
    *,
    route: Route,
    document_route: Route,
    documents: Mapping[str, DocumentVectors],
    seconds: float | None,
    checkpoints: bool,
    quiet: bool,
) -> Course:
    """Train, and keep the best step in `work`; what accelerate leaves on the encoder is taken off again.

    Args:
        encoder: what is trained takes part in its forward pass already.
        sources: the collections.
        data: their training pairs, by id.
        trainee: what is trained; nothing else is.
        work: folder of checkpoints (it goes on from the last one there) and of the best values.
        config: the settings.
        route: what evaluations encode by.
        document_route: what embeds the documents once, for query-side training.
        documents: vectors by collection id, instead.
        seconds: stop after so many, even before `config.steps`; None: no limit. Evaluations are not counted.
        checkpoints: keep what is needed to go on after a cut.
        quiet: no progress bars.
    """
    began = time.monotonic()
    seed_everything(config.seed)
    vectors = _vectors(encoder, sources, config, document_route, documents, quiet) if config.side == "query" else {}
    evaluator = _evaluator(sources, vectors, trainee, route, work, config)
    corpus = {c.id: corpus_pairs(c.id, data[c.id], vectors[c.id]) for c in sources} if vectors else None
    budget = [] if seconds is None else [TimeBudget(seconds, began, evaluator)]
    try:
        trainer = build_trainer(
            encoder, trainee, data, corpus, evaluator, work, config,
            callbacks=budget, checkpoints=checkpoints, quiet=quiet,
        )  # fmt: skip
        parameters = sum(p.numel() for p in trainee.parameters() if p.requires_grad)
        found = sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
        complete = [path for path in found if (path / "trainer_state.json").exists()]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*pin_memory.*")
            trainer.train(resume_from_checkpoint=str(complete[-1]) if complete else None)
        spent = time.monotonic() - began - evaluator.seconds
        steps = trainer.state.global_step
        if is_main() and evaluator.history[-1]["step"] < steps:  # the steps end between evaluations
            evaluator(encoder, steps=steps)
    finally:
        # accelerate leaves its mixed precision on the model, and a mark that lets the next training's pass by.
        for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
            encoder.__dict__.pop(name, None)
        encoder.requires_grad_(False)
        encoder.eval()
    losses = [
        {"step": entry["step"], "loss": round(entry["loss"], 5)}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]
    return Course(evaluator, losses, parameters, steps, round(spent, 3))


def _vectors(
    encoder: SentenceTransformer,
    sources: Sequence[Collection],
    config: TrainingConfig,
    route: Route,
    documents: Mapping[str, DocumentVectors],
    quiet: bool,
) -> dict[str, DocumentVectors]:
    """Fixed vectors of every collection's documents: those given, else embedded by `route`."""
    vectors: dict[str, DocumentVectors] = {}
    for c in sources:
        if c.id in documents:
            vectors[c.id] = documents[c.id].checked(encoder)
            continue
        vectors[c.id] = embed_documents(
            encoder,
            c,
            split="train" if "train" in c.splits else None,
            route=route,
            precision=config.precision,
            max_length=config.document_length,
            quiet=quiet,
        )
    return vectors


def _evaluator(
    sources: Sequence[Collection],
    vectors: Mapping[str, DocumentVectors],
    trainee: Trainee,
    route: Route,
    work: Path,
    config: TrainingConfig,
) -> DevEvaluator:
    sampling: dict[str, Any] = {
        "queries": config.dev_queries,
        "documents": config.dev_documents,
        "seed": config.seed,
    }
    dev = {c.id: DevSet.of(c, vectors=vectors.get(c.id), **sampling) for c in sources}
    return DevEvaluator(
        {name: dev_set for name, dev_set in dev.items() if dev_set is not None},
        trainee,
        route,
        work,
        dtype=config.dtype,
        precision=config.precision,
        query_length=config.query_length,
        document_length=config.document_length,
        temperature=config.temperature,
    )


def corpus_pairs(name: str, pairs: Sequence[TrainingPair], vectors: DocumentVectors) -> CorpusPairs:
    """Each pair with the rows of all documents relevant to its query, its own first.

    Raises:
        DataError: a pair's document has no vector.
    """
    rows = {doc_id: row for row, doc_id in enumerate(vectors.doc_ids)}
    relevant: dict[str, list[int]] = {}
    for pair in pairs:
        if pair.doc_id not in rows:
            raise DataError(
                f"{name}: training pair {pair.query_id} names document {pair.doc_id!r}, which has no vector"
            )
        relevant.setdefault(pair.query_id, []).append(rows[pair.doc_id])
    positives = [[rows[p.doc_id], *(row for row in relevant[p.query_id] if row != rows[p.doc_id])] for p in pairs]
    return CorpusPairs(torch.as_tensor(vectors.vectors, dtype=torch.float32), positives)
