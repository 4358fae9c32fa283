"""Which words of a query moved a document: leave out one word at a time and look again, with and without a prompt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from foreword.collections.records import Document
from foreword.common.errors import DataError, UnknownNameError
from foreword.evaluation.candidates import document_key
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.routes import OWN, Default, Route

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Array = np.ndarray[Any, np.dtype[np.float32]]

_BLOCK = 8192  # documents scored at a time: 24 MiB of float64 at width 384


@dataclass(frozen=True)
class TwoViews:
    """Documents as the base model and as a prompt see them; see `embed_views`.

    Attributes:
        doc_ids: N ids.
        base: (N, d') vectors by the base model.
        prompted: (N, d') vectors by the prompt's route; the same array where documents are the base model's.
        route: the prompt's.
    """

    doc_ids: tuple[str, ...]
    base: Array
    prompted: Array
    route: Route


@dataclass(frozen=True)
class Standing:
    """How a document stands for a query."""

    score: float
    margin: float
    """Its score less the best other document's: above 0 it is first."""
    rank: int
    """From 1, ties as trec_eval breaks them."""


@dataclass(frozen=True)
class WordInfluence:
    """What one word does: the margin with the whole query less the margin without the word; above 0 it helps."""

    word: str
    start: int
    """Its place in the query, in characters."""
    base: float
    """With the base model."""
    prompted: float
    """With the prompt."""
    gain: float
    """`prompted - base`: how much of the prompt's gain comes by this word."""
    without_base: Standing
    """The document's standing without the word, with the base model."""
    without_prompted: Standing
    """The same with the prompt."""


@dataclass(frozen=True)
class Influence:
    """The words of a query, in order, and how the document stands for the whole of it."""

    query: str
    doc_id: str
    base: Standing
    prompted: Standing
    words: tuple[WordInfluence, ...]

    @property
    def gain(self) -> float:
        """The margin with the prompt less the margin with the base model."""
        return self.prompted.margin - self.base.margin

    def as_dict(self) -> dict[str, Any]:
        """JSON values, the gain among them."""
        return {**asdict(self), "gain": self.gain}


def embed_views(
    encoder: SentenceTransformer, documents: Iterable[Document], *, route: Route | Default = OWN, **how: Any
) -> TwoViews:
    """Embed documents by the base model and by a prompt: once, where both give documents the same vectors.

    Args:
        encoder: from `load_encoder`.
        documents: at least two: a corpus that fits in memory, or the best hits of both systems.
        route: the prompt or mixture; OWN: what the encoder is routed to.
        how: further arguments of `foreword.prompts.encoder.encode`.

    Raises:
        DataError: fewer than two documents.
    """
    found = list(documents)
    if len(found) < 2:
        raise DataError(f"{len(found)} documents; how one stands takes at least one other")
    chosen = transformer_of(encoder).route if isinstance(route, Default) else route
    texts = [doc.content for doc in found]
    base = encode(encoder, texts, "document", route=None, **{"quiet": True, **how})
    same = document_key(encoder, chosen) == document_key(encoder, None)
    prompted = base if same else encode(encoder, texts, "document", route=chosen, **{"quiet": True, **how})
    return TwoViews(tuple(doc.doc_id for doc in found), base, prompted, chosen)


def token_influence(encoder: SentenceTransformer, query: str, views: TwoViews, doc_id: str, **how: Any) -> Influence:
    """How each word of a query moves a document, with the base model and with the prompt of `views`.

    Words are parted by white space. A word that occurs twice is left out once at a time. All the shorter queries are
    encoded together. Words do not add up: leaving out two is not the sum of leaving out either.

    Args:
        encoder: the one that `views` are from.
        query: with at least one word.
        views: the documents.
        doc_id: the document to watch, as a relevant one.
        how: further arguments of `foreword.prompts.encoder.encode`, as `max_length`.

    Raises:
        UnknownNameError: `views` have no such document.
        DataError: the query has no word.
    """
    if doc_id not in views.doc_ids:
        raise UnknownNameError(f"no document {doc_id!r} among the {len(views.doc_ids)} given; embed it with them")
    words = list(re.finditer(r"\S+", query))
    if not words:
        raise DataError("the query is empty; give one with words")
    texts = [query, *(_without(query, word) for word in words)]
    base, prompted = (
        _standings(encode(encoder, texts, "query", route=route, **{"quiet": True, **how}), vectors, views, doc_id)
        for route, vectors in ((None, views.base), (views.route, views.prompted))
    )
    effects = []
    for word, plain, tuned in zip(words, base[1:], prompted[1:], strict=True):
        own, new = base[0].margin - plain.margin, prompted[0].margin - tuned.margin
        effects.append(WordInfluence(word[0], word.start(), own, new, new - own, plain, tuned))
    return Influence(query, doc_id, base[0], prompted[0], tuple(effects))


def _without(query: str, word: re.Match[str]) -> str:
    """The query without one word and the white space behind it (before it, for the last)."""
    return (query[: word.start()] + query[word.end() :].lstrip()).rstrip()


def _standings(queries: Array, documents: Array, views: TwoViews, doc_id: str) -> Sequence[Standing]:
    """How the document stands for each of the queries (Q, d') among all (N, d')."""
    wide = queries.astype(np.float64)
    blocks = [documents[first : first + _BLOCK] for first in range(0, len(documents), _BLOCK)]
    scores = np.concatenate([wide @ block.astype(np.float64).T for block in blocks], axis=1).astype(np.float32)
    place = views.doc_ids.index(doc_id)
    ahead = np.array([other > doc_id for other in views.doc_ids])  # of equal scores the greater id comes first
    own = scores[:, place]
    ranks = 1 + (scores > own[:, None]).sum(axis=1) + ((scores == own[:, None]) & ahead).sum(axis=1)
    others = np.delete(scores, place, axis=1).max(axis=1)
    margins = own.astype(np.float64) - others
    return [Standing(*line) for line in zip(own.tolist(), margins.tolist(), ranks.tolist(), strict=True)]
