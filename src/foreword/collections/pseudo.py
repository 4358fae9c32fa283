"""Pseudo-queries for text without labels: title -> text, first sentence -> rest, random span -> rest.

The last is the Inverse Cloze Task (Lee et al., "Latent Retrieval for Weakly Supervised Open Domain Question
Answering", 2019). What becomes the query is taken out of the document.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Iterator

from foreword.collections.records import Document, TrainingPair
from foreword.collections.sentences import split_first_sentence, split_sentences
from foreword.collections.splits import contains, normalise
from foreword.common.errors import UnknownNameError

METHODS = ("auto", "title", "first-sentence", "span")

MIN_QUERY_WORDS = 3
MIN_REST_WORDS = 8
MAX_SPAN_WORDS = 32


def pseudo_pairs(
    documents: Iterable[Document],
    method: str = "auto",
    seed: int = 0,
    *,
    keep: float = 0.0,
    skipped: Counter[str] | None = None,
) -> Iterator[TrainingPair]:
    """At most one (pseudo-query, document) pair per document, lazily and in the documents' order.

    The random choices of a document depend on the seed and its doc_id alone, not on its neighbours.

    Args:
        documents: any documents; nothing is held.
        method: `title`, `first-sentence`, `span` (a random sentence, or words in a row of a long one), or
            `auto`: the title where there is one, else the first sentence.
        seed: of the random spans.
        keep: the share of documents (0 to 1) that keep their span, so that matching words count too; the
            original task's 0.1. Of `span` only.
        skipped: counts, by reason, the documents that gave no pair.

    Raises:
        UnknownNameError: an unknown method.
    """
    if method not in METHODS:
        raise UnknownNameError(f"unknown method {method!r} for pseudo-queries; known: {', '.join(METHODS)}")
    return _pairs(documents, method, seed, keep, Counter() if skipped is None else skipped)


def _pairs(
    documents: Iterable[Document], method: str, seed: int, keep: float, skipped: Counter[str]
) -> Iterator[TrainingPair]:
    for document in documents:
        found, kept = _query_and_rest(document, method, seed, keep)
        if found is None:
            skipped["no_title"] += 1
            continue
        query, rest = found
        key = normalise(query)
        if len(key.split()) < MIN_QUERY_WORDS:
            skipped["query_too_short"] += 1
        elif len(rest.split()) < MIN_REST_WORDS:
            skipped["rest_too_short"] += 1
        elif not kept and contains(normalise(rest), key):
            skipped["query_repeated_in_rest"] += 1
        else:
            yield TrainingPair(f"pseudo:{document.doc_id}", query, document.doc_id, rest)


def _query_and_rest(document: Document, method: str, seed: int, keep: float) -> tuple[tuple[str, str] | None, bool]:
    """The pseudo-query and what is left of the document; and whether the query was kept in it on purpose."""
    title = " ".join(document.title.split())
    # A signature that a text begins with is no sentence: it stays with the document.
    signature = document.metadata.get("signature", "")
    signature = signature if signature and document.text.startswith(signature) else ""
    text = document.text[len(signature) :].strip()
    found, kept = _chosen(document, title, text, method, seed, keep)
    if found is not None and signature:
        found = (found[0], f"{signature} {found[1]}")
    return found, kept


def _chosen(
    document: Document, title: str, text: str, method: str, seed: int, keep: float
) -> tuple[tuple[str, str] | None, bool]:
    if method == "title" or (method == "auto" and title):
        return ((title, _without_start(text, title)) if title else None), False
    if method in ("first-sentence", "auto"):
        first, rest = split_first_sentence(text)
        return (" ".join(first.split()), rest), False
    chance = _random(seed, document.doc_id)
    query, rest = _span(text, chance)
    kept = chance.random() < keep
    return (query, text if kept else rest), kept


def _without_start(text: str, title: str) -> str:
    """A text without the title that it starts with, as Cranfield's do."""
    words, wanted = text.split(), title.split()
    if normalise(" ".join(words[: len(wanted)])) != normalise(title):
        return text
    return " ".join(words[len(wanted) :])


def _span(text: str, chance: random.Random) -> tuple[str, str]:
    """A random sentence, at most `MAX_SPAN_WORDS` words of it, and the text without it."""
    sentences = split_sentences(text)
    long_enough = [i for i, s in enumerate(sentences) if len(s.split()) >= MIN_QUERY_WORDS]
    if not long_enough:
        return "", text
    chosen = chance.choice(long_enough)
    words = sentences[chosen].split()
    start = chance.randrange(max(1, len(words) - MAX_SPAN_WORDS + 1))
    end = start + MAX_SPAN_WORDS
    left = [*sentences[:chosen], *words[:start], *words[end:], *sentences[chosen + 1 :]]
    return " ".join(words[start:end]), " ".join(left)


def _random(seed: int, doc_id: str) -> random.Random:
    """A generator of the document's own. `hash()` would differ from process to process."""
    digest = hashlib.sha256(f"{seed}\0{doc_id}".encode("utf-8", "surrogatepass")).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))
