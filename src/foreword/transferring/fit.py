"""Fit the weights of a mixture of prompts on a target's own pseudo-queries.

A handful of numbers, a few dozen steps: the mixture `sum_s w_s * term_s` is differentiable in its weights, so they
are trained like any parameter, with no label of the target. Weights of 0 are the base model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from foreword.collections.collection import TrainingPair
from foreword.errors import DataError, ForewordError
from foreword.evaluation.measures import evaluate_run
from foreword.files import rounded
from foreword.prompts.encoder import autocast, encode, routed, text_prompt, transformer_of
from foreword.prompts.routes import OneRoute, Route
from foreword.retrieval.search import exact_search
from foreword.settings import Side
from foreword.terminal import track
from foreword.training.vectors import DocumentVectors
from foreword.transferring.config import EmbeddingSettings, FitConfig

Vectors = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Fit:
    """Fitted weights, by source (one each, or one for each layer), with the losses on the way."""

    weights: Mapping[str, float | Sequence[float]]
    losses: Sequence[float]


def split_pairs(pairs: Sequence[TrainingPair], config: FitConfig) -> tuple[list[TrainingPair], list[TrainingPair]]:
    """Pairs to fit on and pairs to choose by, seeded. Raises `DataError` when there are too few."""
    order = np.random.default_rng(config.seed).permutation(len(pairs))[: config.most]
    held = round(len(order) * config.held_out)
    fitted, chosen = [pairs[i] for i in order[held:]], [pairs[i] for i in order[:held]]
    if len(fitted) < 2 or not chosen:
        raise DataError(f"{len(pairs)} pseudo-queries; fitting needs more text (at least a few dozen documents)")
    return fitted, chosen


def fit_weights(
    encoder: SentenceTransformer,
    start: Mapping[str, float],
    pairs: Sequence[TrainingPair],
    config: FitConfig,
    *,
    document: OneRoute | Literal["mixed"] = "mixed",
    corpus: DocumentVectors | None = None,
    quiet: bool = False,
) -> Fit:
    """Fit weights of the prompts that the encoder carries under the names in `start`.

    Args:
        encoder: carrying prompts of a kind that mixes.
        start: the weights to begin from, by the prompts' names.
        pairs: pseudo-queries with their documents.
        document: what encodes documents: a fixed route, by which they are embedded once and all of them are
            negatives, or the mixture itself, by which those of a batch are embedded at each step.
        corpus: for a fixed route, the vectors of all documents, which are negatives then; None: those of the pairs.

    Raises:
        ForewordError: nothing to mix.
        DataError: a pair's document is not in the corpus.
    """
    if not start:
        raise ForewordError("no source prompts to mix")
    names = list(start)
    given = torch.tensor([start[name] for name in names], device=encoder.device)
    if config.by_layer:
        transformer = transformer_of(encoder)
        first = transformer.prompt(names[0])
        layers = len(first.kind.layers(first.spec, transformer.shape))
        given = given[:, None].repeat(1, layers)
    weights = given.requires_grad_()
    origin = weights.detach().clone()
    optimizer = torch.optim.Adam([weights], lr=config.learning_rate)
    fixed, rows = None, torch.arange(len(pairs))  # vectors (N, d') that do not change, and each pair's row among them
    if document != "mixed" and corpus is None:
        fixed = torch.from_numpy(embed_pair_documents(encoder, document, pairs, config)).to(encoder.device)
    elif document != "mixed" and corpus is not None:
        place = {doc_id: row for row, doc_id in enumerate(corpus.doc_ids)}
        if missing := [pair.doc_id for pair in pairs if pair.doc_id not in place]:
            raise DataError(f"{len(missing)} documents of the pairs are not in the corpus (first: {missing[0]!r})")
        fixed = torch.from_numpy(corpus.checked(encoder).vectors).to(encoder.device)
        rows = torch.tensor([place[pair.doc_id] for pair in pairs])
    losses: list[float] = []
    encoder.requires_grad_(False)
    encoder.eval()
    batches = batches_of(len(pairs), config.steps, config.batch_size, config.seed)
    for batch in track(batches, "fitting", config.steps, quiet=quiet):
        mixture = {name: weights[i] for i, name in enumerate(names)}
        with routed(encoder, mixture), autocast(config.precision, encoder.device):
            queries = embed_batch(encoder, [pairs[i].query for i in batch], "query", config.query_length)
            documents = fixed
            if documents is None:
                documents = embed_batch(encoder, [pairs[i].document for i in batch], "document", config.document_length)
        targets = rows[batch] if fixed is not None else torch.arange(len(batch))
        scores = queries @ documents.T / config.temperature
        loss = torch.nn.functional.cross_entropy(scores, targets.to(scores.device))
        total = loss + config.anchor * _size(weights - origin) + config.shrinkage * _size(weights)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(round(float(loss.detach()), 5))
    fitted = rounded({name: weight.tolist() for name, weight in zip(names, weights.detach(), strict=True)})
    return Fit(fitted, losses)


def _size(weights: Tensor) -> Tensor:
    """The sum of squares over the sources; (S,), or (S, L), of which the mean over layers."""
    squares = weights.square()
    return squares.sum() if squares.ndim == 1 else squares.mean(dim=1).sum()


def batches_of(count: int, steps: int, size: int, seed: int) -> Iterator[list[int]]:
    """Seeded batches of `size` numbers below `count`, without repeats inside one."""
    generator = np.random.default_rng(seed)
    size = min(size, count)
    order: list[int] = []
    for _ in range(steps):
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


def embed(
    encoder: SentenceTransformer, texts: Sequence[str], side: Side, route: Route, config: EmbeddingSettings
) -> Vectors:
    """Vectors (N, d') of texts of one side by `route`, cut and computed as the settings say."""
    how: dict[str, Any] = {"precision": config.precision, "max_length": config.length(side), "quiet": True}
    return encode(encoder, texts, side, route=route, **how)


def embed_pair_documents(
    encoder: SentenceTransformer, route: Route, pairs: Sequence[TrainingPair], config: EmbeddingSettings
) -> Vectors:
    """Vectors of the pairs' documents, in order."""
    return embed(encoder, [pair.document for pair in pairs], "document", route, config)


def pseudo_scores(
    encoder: SentenceTransformer,
    route: Route,
    pairs: Sequence[TrainingPair],
    config: EmbeddingSettings,
    *,
    documents: Vectors | None = None,
) -> dict[str, float]:
    """nDCG@10 of each held-out pseudo-query against the held-out documents, with `route`.

    `documents` are the vectors of the pairs' documents, in order, when they are embedded already.
    """
    if not pairs:
        return {}
    documents = embed_pair_documents(encoder, route, pairs, config) if documents is None else documents
    queries = embed(encoder, [pair.query for pair in pairs], "query", route, config)
    ids = [pair.query_id for pair in pairs]
    run = exact_search(queries, ids, documents, 10, document_ids=[pair.doc_id for pair in pairs])
    qrels = {pair.query_id: {pair.doc_id: 1} for pair in pairs}
    return dict(evaluate_run(run, qrels, ["nDCG@10"]).per_query["nDCG@10"])
