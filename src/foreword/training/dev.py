"""Which state of a training is kept: the one that retrieves best on the dev part of the training split."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator

from foreword.collections.collection import Collection, Document, Qrels, Query
from foreword.evaluation.measures import evaluate_run
from foreword.files import atomic_write, read_json, write_json
from foreword.prompts.encoder import encode
from foreword.prompts.routes import Route
from foreword.prompts.store import DTYPES
from foreword.retrieval.search import exact_search
from foreword.training.config import TrainingConfig
from foreword.training.trainee import Trainee, is_main, on_main
from foreword.training.vectors import DocumentVectors

MEASURE = "nDCG@10"
FEW = 60
"""Dev queries from which a dev part decides alone."""

BEST = "best.safetensors"
"""The file of the best values, rounded as they will be stored."""

HISTORY = "best.json"
"""The file of all evaluations."""


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
        queries: int | None,
        documents: int,
        seed: int,
        splits: Sequence[str] = ("dev",),
        vectors: DocumentVectors | None = None,
        trained: Set[str] = frozenset(),
    ) -> DevSet | None:
        """The dev set of a collection, sampled by `seed`; None where it has no dev split.

        Args:
            collection: its splits give queries and judgements.
            queries: at most so many; None: all.
            documents: at most so many, beside the relevant ones; ignored with `vectors`.
            seed: of both samples.
            splits: whose queries; all about one corpus.
            vectors: the whole corpus, embedded.
            trained: documents that are trained on. What is learnt of them says little of others: where enough queries
                have none of them, these alone are taken.
        """
        there = [split for split in splits if split in collection.splits]
        judged = {query_id: docs for split in there for query_id, docs in collection.qrels(split).items()}
        relevant = {q: {doc_id for doc_id, grade in docs.items() if grade > 0} for q, docs in judged.items()}
        usable = [query_id for query_id, docs in relevant.items() if docs]
        fresh = [query_id for query_id in usable if relevant[query_id].isdisjoint(trained)]
        usable = fresh if len(fresh) >= FEW else usable
        chosen = set(usable) if queries is None else _sample(usable, queries, seed)
        qrels = {query_id: docs for query_id, docs in judged.items() if query_id in chosen}
        if not qrels:
            return None
        every = {query.query_id: query for split in there for query in collection.queries(split)}
        found = [query for query_id, query in every.items() if query_id in chosen]
        if vectors is not None:
            kept = [Document(doc_id, "") for doc_id in vectors.doc_ids]
            return cls(found, qrels, kept, np.asarray(vectors.vectors))
        corpus = partial(collection.documents_for, there[-1])
        sample = _sample([doc.doc_id for doc in corpus()], documents, seed).union(*qrels.values())
        return cls(found, qrels, [doc for doc in corpus() if doc.doc_id in sample], None)

    def part(self, query_ids: Set[str]) -> DevSet:
        """The same corpus with some of the queries."""
        queries = [query for query in self.queries if query.query_id in query_ids]
        return replace(self, queries=queries, qrels={query.query_id: self.qrels[query.query_id] for query in queries})


Scores = Mapping[str, Sequence[float]]
"""nDCG@10 of each dev query, by collection; in one order in all evaluations of a training."""


@dataclass(frozen=True)
class PairedGain:
    """What a step gains in nDCG@10 over the start, on the same queries.

    Attributes:
        mean: over collections, of the mean over queries.
        error: its standard error; infinite where a collection has one query.
    """

    mean: float
    error: float

    @classmethod
    def of(cls, start: Scores, step: Scores) -> PairedGain:
        """The paired gain."""
        differences = [np.subtract(step[name], values) for name, values in start.items()]
        variances = [float(d.var(ddof=1)) / len(d) if len(d) > 1 else math.inf for d in differences]
        return cls(float(np.mean([d.mean() for d in differences])), math.sqrt(sum(variances)) / len(differences))

    @property
    def counts(self) -> bool:
        """Whether it is more than chance."""
        return self.mean > self.error


def chosen(steps: Sequence[int], scores: Sequence[Scores]) -> tuple[int, dict[str, Any]]:
    """The step to keep, and why, as JSON values: the best of those whose gain over the first, the start, counts.

    The best of several steps looks better than it is, on few queries much better: where no gain is more than chance,
    the start stays. `step` and `gain` of the reason are the best-looking step's.
    """
    gains = {step: PairedGain.of(scores[0], one) for step, one in zip(steps[1:], scores[1:], strict=True)}
    reason: dict[str, Any] = {"queries": sum(map(len, scores[0].values()))}
    if not gains:
        return steps[0], reason
    looks = max(gains, key=lambda step: gains[step].mean)
    best = max((step for step in gains if gains[step].counts), key=lambda step: gains[step].mean, default=steps[0])
    gain = gains[best or looks]
    error = round(gain.error, 6) if math.isfinite(gain.error) else None
    return best, {**reason, "step": best or looks, "gain": round(gain.mean, 6), "error": error}


def keep(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write the values that are best so far."""
    with atomic_write(folder / BEST, "wb") as file:
        file.write(save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}))


class DevEvaluator(BaseEvaluator):
    """Mean nDCG@10 over the dev sets, with what is trained as it would be stored; the best is kept on disk.

    Step 0, where it starts from, is a candidate too: training that does not help leaves it as it was. Without dev
    sets, the last step is kept.
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
        """`trainee` is what is trained, in play by `route`; `folder` keeps the best values and the evaluations."""
        super().__init__()
        self.dev_sets, self.trainee, self.route, self.folder, self.config = dev_sets, trainee, route, folder, config
        self.history: list[dict[str, Any]] = []
        self.scores: list[Scores] = []
        self.seconds = 0.0  # taken by evaluations in this process
        if (folder / HISTORY).exists():  # a training that goes on
            state = read_json(folder / HISTORY, "begin anew with --no-resume (resume=False)")
            self.history, self.scores = state["history"], state["scores"]

    @property
    def steps(self) -> list[int]:
        """Those that were evaluated."""
        return [entry["step"] for entry in self.history]

    @property
    def choice(self) -> tuple[int, dict[str, Any]]:
        """The step that is kept so far, and why."""
        if not self.dev_sets:
            return self.steps[-1], {"by": "last"}
        step, reason = chosen(self.steps, self.scores)
        return step, {"by": "dev", **reason}

    def stale(self, patience: int) -> bool:
        """Whether `patience` (0: any number of) evaluations brought no better score; asked by all processes at once."""
        if not patience or not self.dev_sets:
            return False

        def since_best() -> int:
            values = [entry["dev"] for entry in self.history]
            return len(values) - 1 - values.index(max(values)) if values else 0

        return on_main(lambda: since_best() >= patience)

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
            found = {name: self._score(model, dev) for name, dev in self.dev_sets.items()}
        finally:
            self.trainee.assign(exact)
        score: float | None = None
        loss: float | None = None
        if found:
            score, loss = (round(float(np.mean([np.mean(one[i]) for one in found.values()])), 6) for i in (0, 1))
        self.history.append({"step": steps, "dev": score, "loss": loss})
        self.scores.append({name: scores for name, (scores, _) in found.items()})
        if self.choice[0] == steps:
            keep(self.folder, rounded)
        write_json(self.folder / HISTORY, {"history": self.history, "scores": self.scores})
        self.seconds += time.monotonic() - began
        return {"dev": 0.0 if score is None else score}

    def _score(self, model: SentenceTransformer, dev: DevSet) -> tuple[list[float], list[float]]:
        """Of each query nDCG@10, and the training's loss with all documents of the dev set as negatives."""
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
        scores = evaluate_run(run, dev.qrels, [MEASURE]).per_query[MEASURE]
        return [scores[query.query_id] for query in dev.queries], self._losses(dev, queries, documents)

    def _losses(self, dev: DevSet, queries: np.ndarray[Any, Any], documents: np.ndarray[Any, Any]) -> list[float]:
        """`-log softmax(sim(q, d+) / t)` of the queries; of several relevant documents, the best one."""
        rows = {doc.doc_id: row for row, doc in enumerate(dev.documents)}
        losses = []
        for query, vector in zip(dev.queries, queries, strict=True):
            scores = torch.from_numpy(documents @ vector).double() / self.config.temperature
            relevant = [rows[doc] for doc, grade in dev.qrels[query.query_id].items() if grade > 0 and doc in rows]
            if relevant:
                losses.append(float(torch.logsumexp(scores, 0) - scores[relevant].max()))
        return losses or [0.0]
