"""Which state of a training is kept: the one that retrieves best on the dev part of the training split."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator

from foreword.collections.collection import Collection, Document, Qrels, Query
from foreword.evaluation.measures import evaluate_run
from foreword.files import atomic_write, write_json
from foreword.prompts.encoder import encode
from foreword.prompts.routes import Route
from foreword.prompts.store import DTYPES
from foreword.retrieval.search import exact_search
from foreword.training.config import TrainingConfig
from foreword.training.trainee import Trainee, is_main
from foreword.training.vectors import DocumentVectors

MEASURE = "nDCG@10"


def _sample(keys: Sequence[str], count: int, seed: int) -> set[str]:
    """A choice that does not depend on the order: the `count` keys with the smallest hashes."""
    return set(sorted(keys, key=lambda key: hashlib.sha256(f"{seed}\x1f{key}".encode()).digest())[:count])


@dataclass(frozen=True)
class DevSet:
    """Queries, judgements and a corpus to search, small enough to look at during training."""

    queries: Sequence[Query]
    qrels: Qrels
    documents: Sequence[Document]
    vectors: np.ndarray[Any, Any] | None
    """Fixed vectors of the documents (N, d') for query-side training; None: they are embedded at each evaluation."""

    @classmethod
    def of(
        cls,
        collection: Collection,
        *,
        queries: int,
        documents: int,
        seed: int,
        vectors: DocumentVectors | None = None,
    ) -> DevSet | None:
        """The dev set of a collection, sampled by `seed`; None where it has no dev split.

        Args:
            collection: its `dev` split gives queries and judgements.
            queries: at most so many.
            documents: at most so many, beside the relevant ones; ignored with `vectors`.
            seed: of both samples.
            vectors: the whole corpus, embedded.
        """
        if "dev" not in collection.splits:
            return None
        judged = collection.qrels("dev")
        chosen = _sample([q for q, docs in judged.items() if any(r > 0 for r in docs.values())], queries, seed)
        qrels = {query_id: docs for query_id, docs in judged.items() if query_id in chosen}
        if not qrels:
            return None
        found = [query for query in collection.queries("dev") if query.query_id in chosen]
        if vectors is not None:
            kept = [Document(doc_id, "") for doc_id in vectors.doc_ids]
            return cls(found, qrels, kept, np.asarray(vectors.vectors))
        relevant = {doc_id for docs in qrels.values() for doc_id in docs}
        corpus = partial(collection.documents_for, "dev")
        sample = _sample([doc.doc_id for doc in corpus()], documents, seed) | relevant
        return cls(found, qrels, [doc for doc in corpus() if doc.doc_id in sample], None)


class DevEvaluator(BaseEvaluator):
    """Mean nDCG@10 over the dev sets, with what is trained as it would be stored; the best is kept on disk.

    Step 0, where it starts from, is a candidate too: training that does not help leaves it as it was.
    """

    primary_metric = "dev"

    def __init__(
        self,
        dev_sets: Mapping[str, DevSet],
        trainee: Trainee,
        route: Route,
        folder: Path,
        config: TrainingConfig,
    ) -> None:
        """`trainee` is what is trained, in play by `route`; `folder` keeps `best.safetensors` and `best.json`."""
        super().__init__()
        self.dev_sets, self.trainee, self.route, self.folder, self.config = dev_sets, trainee, route, folder, config
        self.history: list[dict[str, Any]] = []
        self.seconds = 0.0  # taken by evaluations in this process
        self.best: float | None = None
        self.best_step = 0
        self.since_best = 0
        if (folder / "best.json").exists():  # a training that goes on
            state = json.loads((folder / "best.json").read_text())
            self.best, self.best_step = state["best"], state["step"]
            self.history, self.since_best = state["history"], state["since_best"]

    def __call__(  # type: ignore[override]  # narrower: it encodes with prompts
        self, model: SentenceTransformer, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Evaluate, keep what is trained if it is the best so far, return `{"dev": score}`."""
        if not is_main():
            return {}
        if self.history and self.history[-1]["step"] >= steps:  # evaluated before an interruption
            return {"dev": self.history[-1]["dev"]}
        began = time.monotonic()
        rounded = self.trainee.rounded(DTYPES[self.config.dtype]).tensors()
        exact = {name: tensor.clone() for name, tensor in self.trainee.tensors().items()}
        self.trainee.assign(rounded)
        try:
            scores = [self._score(model, dev) for dev in self.dev_sets.values()]
        finally:
            self.trainee.assign(exact)
        score, loss = np.mean(scores, axis=0).tolist() if scores else (0.0, None)
        self.history.append({"step": steps, "dev": round(score, 6) if scores else None, "loss": loss})
        improved = self.best is None or score > self.best or not scores
        self.since_best = 0 if improved else self.since_best + 1
        if improved:
            self.best, self.best_step = score, steps
            with atomic_write(self.folder / "best.safetensors", "wb") as file:
                file.write(save({name: t.cpu().contiguous() for name, t in rounded.items()}))
        write_json(
            self.folder / "best.json",
            {"best": self.best, "step": self.best_step, "history": self.history, "since_best": self.since_best},
        )
        self.seconds += time.monotonic() - began
        return {"dev": score}

    def _score(self, model: SentenceTransformer, dev: DevSet) -> tuple[float, float]:
        """nDCG@10, and the training's loss with all documents of the dev set as negatives."""
        was_training = model.training
        how: dict[str, Any] = {"route": self.route, "precision": self.config.precision, "quiet": True}
        documents = dev.vectors
        if documents is None:
            texts = [doc.content for doc in dev.documents]
            documents = encode(model, texts, "document", max_length=self.config.document_length, **how)
        queries = encode(model, [q.text for q in dev.queries], "query", max_length=self.config.query_length, **how)
        model.train(was_training)
        run = exact_search(
            queries,
            [query.query_id for query in dev.queries],
            documents,
            k=10,
            document_ids=[doc.doc_id for doc in dev.documents],
        )
        return evaluate_run(run, dev.qrels, [MEASURE]).values[MEASURE], self._loss(dev, queries, documents)

    def _loss(self, dev: DevSet, queries: np.ndarray[Any, Any], documents: np.ndarray[Any, Any]) -> float:
        """Mean of `-log softmax(sim(q, d+) / t)` over the queries; of several relevant documents, the best one."""
        rows = {doc.doc_id: row for row, doc in enumerate(dev.documents)}
        losses = []
        for query, vector in zip(dev.queries, queries, strict=True):
            scores = torch.from_numpy(documents @ vector).double() / self.config.temperature
            relevant = [rows[doc] for doc, grade in dev.qrels[query.query_id].items() if grade > 0 and doc in rows]
            if relevant:
                losses.append(float(torch.logsumexp(scores, 0) - scores[relevant].max()))
        return round(float(np.mean(losses)), 6) if losses else 0.0

    def best_tensors(self) -> dict[str, torch.Tensor]:
        """The values that were best, rounded as they will be stored."""
        return load_file(self.folder / "best.safetensors")
