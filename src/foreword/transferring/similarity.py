"""How alike two domains are, by the base embeddings of their documents alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from sentence_transformers import SentenceTransformer

from foreword.collections.records import Collection
from foreword.common.errors import DataError, ForewordError
from foreword.prompts.encoder import Precision, encode

Method = Literal["mean", "pairwise"]
Array = np.ndarray[Any, np.dtype[np.float32]]


def document_features(
    encoder: SentenceTransformer,
    collection: Collection,
    *,
    limit: int = 500,
    seed: int = 0,
    precision: Precision = "float32",
    max_length: int | None = 128,
    quiet: bool = False,
) -> Array:
    """Unit-length base embeddings (N, d') of a sample of the documents; no query and no judgement is looked at.

    Args:
        encoder: whose base model embeds.
        collection: the domain.
        limit: at most so many documents, those with the smallest seeded hashes of their ids.
        seed: of the sample.
        precision: of the forward passes.
        max_length: tokens a document is cut to.
        quiet: no progress bar.

    Raises:
        DataError: no documents, as when all of them are the target's too.
    """

    def rank(doc_id: str) -> bytes:
        return hashlib.sha256(f"{seed}\x1f{doc_id}".encode()).digest()

    chosen = set(sorted((doc.doc_id for doc in collection.documents()), key=rank)[:limit])
    texts = [doc.content for doc in collection.documents() if doc.doc_id in chosen]
    if not texts:
        raise DataError(f"{collection.id} has no documents (left), so there is nothing to compare")
    vectors = encode(
        encoder,
        texts,
        "document",
        route=None,
        precision=precision,
        max_length=max_length,
        what=collection.id,
        quiet=quiet,
    )
    return unit_rows(vectors)


def unit_rows(vectors: np.ndarray[Any, Any]) -> Array:
    """The rows scaled to length 1; rows of zeros stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)


def similarity(target: Array, source: Array, method: Method = "mean") -> float:
    """Likeness of two domains, from unit vectors (N, d') and (M, d').

    Args:
        target: one domain's document features.
        source: the other's.
        method: `mean`, the cosine of the mean embeddings; `pairwise`, the mean cosine over all pairs.
    """
    if method not in get_args(Method):
        raise ForewordError(f"similarity method is {method!r}; expected one of {', '.join(get_args(Method))}")
    a, b = target.mean(axis=0), source.mean(axis=0)
    product = float(a @ b)  # the mean of all pairs' products is the product of the means
    return product if method == "pairwise" else product / float(np.linalg.norm(a) * np.linalg.norm(b))


def softmax_weights(similarities: Mapping[str, float], *, top_k: int = 5, temperature: float = 0.1) -> dict[str, float]:
    """Weights of the `top_k` most similar sources, `softmax(similarity / temperature)`; they add up to 1.

    Ties are broken by name. Raises `ForewordError` when nothing is left to weigh.
    """
    if top_k < 1 or temperature <= 0 or not similarities:
        raise ForewordError(
            f"{len(similarities)} sources, top_k {top_k}, temperature {temperature}: expected at least one source, "
            "top_k at least 1 and a temperature above 0"
        )
    best = sorted(similarities.items(), key=lambda item: (-item[1], item[0]))[:top_k]
    scores = np.array([value for _, value in best]) / temperature
    shares = np.exp(scores - scores.max())
    return {name: float(share) for (name, _), share in zip(best, shares / shares.sum(), strict=True)}
