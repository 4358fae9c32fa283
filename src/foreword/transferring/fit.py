"""Fit the weights of a mixture of gated prompts on a target's own pseudo-queries.

A handful of numbers, a few dozen steps: the mixture `sum_s w_s * term_s` is differentiable in its weights, so they
are trained like any parameter, with no label of the target. Weights of 0 are the base model.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from foreword.collections.pseudo import pseudo_pairs
from foreword.collections.records import Document, TrainingPair
from foreword.common.errors import DataError, ForewordError
from foreword.common.progress import track
from foreword.evaluation.measures import evaluate_run
from foreword.prompts.encoder import Precision, autocast, encode, routed, text_prompt
from foreword.prompts.routes import OneRoute, Route
from foreword.prompts.spec import Side
from foreword.retrieval.dense import exact_search


@dataclass(frozen=True)
class FitConfig:
    """How mixture weights are fitted.

    Attributes:
        steps: optimizer steps.
        batch_size: pseudo-queries in a step; the others' documents are the negatives.
        learning_rate: of the weights (Adam).
        anchor: penalty on the squared distance of the weights from where they start (the uniform mixture). Pseudo-
            queries are not queries: without it, a few hundred of them pull the weights too far.
        shrinkage: penalty on the squared weights, which pulls towards the base model.
        temperature: of the softmax.
        query_length: tokens a pseudo-query is cut to.
        document_length: tokens a document is cut to.
        held_out: share of the pseudo-queries kept for choosing between candidates.
        most: pseudo-queries used at most.
        spans: random spans of documents that join the held-out pseudo-queries in choosing, at most: a second kind,
            which the weights were not fitted on, tells near domains from far ones better than the first alone.
        precision: of the forward passes.
        seed: of the order of the pseudo-queries.
    """

    steps: int = 30
    batch_size: int = 32
    learning_rate: float = 0.05
    anchor: float = 0.3
    shrinkage: float = 0.0
    temperature: float = 0.05
    query_length: int = 64
    document_length: int = 128
    held_out: float = 0.3
    most: int = 1000
    spans: int = 400
    precision: Precision = "auto"
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Fit:
    """Fitted weights, by source, with the losses on the way and the seconds it took."""

    weights: Mapping[str, float]
    losses: Sequence[float]
    seconds: float


def split_pairs(pairs: Sequence[TrainingPair], config: FitConfig) -> tuple[list[TrainingPair], list[TrainingPair]]:
    """Pairs to fit on and pairs to choose by, seeded.

    Raises:
        DataError: too few pairs to do either.
    """
    order = np.random.default_rng(config.seed).permutation(len(pairs))[: config.most]
    held = round(len(order) * config.held_out)
    fitted, chosen = [pairs[i] for i in order[held:]], [pairs[i] for i in order[:held]]
    if len(fitted) < 2 or not chosen:
        raise DataError(f"{len(pairs)} pseudo-queries; fitting needs more text (at least a few dozen documents)")
    return fitted, chosen


def check_spans(documents: Iterable[Document], config: FitConfig) -> list[TrainingPair]:
    """Random spans with the rest of their documents, a seeded choice of `config.spans` of them."""
    pairs = list(pseudo_pairs(documents, "span", config.seed))
    order = np.random.default_rng(config.seed).permutation(len(pairs))[: config.spans]
    return [pairs[i] for i in order]


def fit_weights(
    encoder: SentenceTransformer,
    start: Mapping[str, float],
    pairs: Sequence[TrainingPair],
    config: FitConfig,
    *,
    document: OneRoute | Literal["mixed"] = "mixed",
    quiet: bool = False,
) -> Fit:
    """Fit weights of the prompts that the encoder carries under the names in `start`.

    Args:
        encoder: carrying gated prompts.
        start: the weights to begin from, by the prompts' names.
        pairs: pseudo-queries with their documents.
        config: the settings.
        document: what encodes documents: a fixed route, by which they are embedded once and all of them are
            negatives, or the mixture itself, by which those of a batch are embedded at each step.
        quiet: no progress bar.
    """
    if not start:
        raise ForewordError("no source prompts to mix")
    began = time.perf_counter()
    names = list(start)
    weights = torch.tensor([start[name] for name in names], requires_grad=True, device=encoder.device)
    origin = weights.detach().clone()
    optimizer = torch.optim.Adam([weights], lr=config.learning_rate)
    fixed: Tensor | None = None
    if document != "mixed":
        vectors = embed_pair_documents(encoder, document, pairs, config)
        fixed = torch.from_numpy(vectors).to(encoder.device)
    losses: list[float] = []
    encoder.requires_grad_(False)
    encoder.eval()
    for batch in track(batches_of(len(pairs), config), "fitting", config.steps, quiet=quiet):
        mixture = {name: weights[i] for i, name in enumerate(names)}
        with routed(encoder, mixture), autocast(config.precision, encoder.device):
            queries = embed_batch(encoder, [pairs[i].query for i in batch], "query", config.query_length)
            documents = fixed
            if documents is None:
                documents = embed_batch(encoder, [pairs[i].document for i in batch], "document", config.document_length)
        targets = torch.tensor(batch) if fixed is not None else torch.arange(len(batch))
        scores = queries @ documents.T / config.temperature
        loss = torch.nn.functional.cross_entropy(scores, targets.to(scores.device))
        total = loss + config.anchor * (weights - origin).square().sum() + config.shrinkage * weights.square().sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(round(float(loss.detach()), 5))
    fitted = {name: round(float(weight), 6) for name, weight in zip(names, weights.detach(), strict=True)}
    return Fit(fitted, losses, time.perf_counter() - began)


def batches_of(count: int, config: FitConfig) -> Iterator[list[int]]:
    """Seeded batches of pair numbers, without repeats inside one."""
    generator = np.random.default_rng(config.seed)
    size = min(config.batch_size, count)
    order: list[int] = []
    for _ in range(config.steps):
        if len(order) < size:
            order = generator.permutation(count).tolist()
        batch, order = order[:size], order[size:]
        yield batch


def embed_batch(encoder: SentenceTransformer, texts: list[str], side: Side, length: int) -> Tensor:
    """Embeddings (B, d') of the texts by what the encoder is routed to, cut to `length` tokens, with gradients."""
    words = text_prompt(encoder, side)
    features = encoder.preprocess(
        texts, prompt=words, task=side, max_length=min(length, encoder.max_seq_length or length)
    )
    features = {k: v.to(encoder.device) if isinstance(v, Tensor) else v for k, v in features.items()}
    vectors: Tensor = encoder(features)["sentence_embedding"].float()
    return torch.nn.functional.normalize(vectors, dim=1) if encoder.similarity_fn_name == "cosine" else vectors


def embed_pair_documents(
    encoder: SentenceTransformer, route: Route, pairs: Sequence[TrainingPair], config: FitConfig
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Vectors of the pairs' documents, in order."""
    return encode(
        encoder,
        [pair.document for pair in pairs],
        "document",
        route=route,
        precision=config.precision,
        max_length=config.document_length,
        quiet=True,
    )


def pseudo_scores(
    encoder: SentenceTransformer,
    route: Route,
    pairs: Sequence[TrainingPair],
    config: FitConfig,
    *,
    documents: np.ndarray[Any, np.dtype[np.float32]] | None = None,
) -> dict[str, float]:
    """nDCG@10 of each held-out pseudo-query against the held-out documents, with `route`.

    `documents` are the vectors of the pairs' documents, in order, when they are embedded already.
    """
    if not pairs:
        return {}
    documents = embed_pair_documents(encoder, route, pairs, config) if documents is None else documents
    queries = encode(
        encoder,
        [pair.query for pair in pairs],
        "query",
        route=route,
        precision=config.precision,
        max_length=config.query_length,
        quiet=True,
    )
    ids = [pair.query_id for pair in pairs]
    run = exact_search(queries, ids, documents, 10, document_ids=[pair.doc_id for pair in pairs])
    qrels = {pair.query_id: {pair.doc_id: 1} for pair in pairs}
    return dict(evaluate_run(run, qrels, ["nDCG@10"]).per_query["nDCG@10"])
