"""Pseudo-queries for text without labels: title -> text, first sentence -> rest, random span -> rest, phrases -> text.

Span -> rest is the Inverse Cloze Task (Lee et al., "Latent Retrieval for Weakly Supervised Open Domain Question
Answering", 2019). A title, sentence or span that becomes the query is taken out of the document: what is left must be
found by what it means. Key phrases stay in it: they come from all over the text, which would be full of holes without
them, and a user's keywords are in the documents that they are meant to find.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from foreword.collections.key_phrases import Frequencies, document_frequencies, key_phrases
from foreword.collections.records import Document, TrainingPair
from foreword.collections.sentences import split_first_sentence, split_sentences
from foreword.collections.splits import contains, normalise
from foreword.common.errors import ForewordError, UnknownNameError

METHODS = ("auto", "title", "first-sentence", "span", "key-phrases", "mixed")

MIXED = ("auto", "span", "key-phrases")
"""What `mixed` chooses from."""
MIN_QUERY_WORDS = 3
MIN_REST_WORDS = 8
MAX_SPAN_WORDS = 32


def pseudo_pairs(
    documents: Iterable[Document],
    method: str = "auto",
    seed: int = 0,
    *,
    keep: float = 0.0,
    frequencies: Frequencies | None = None,
    skipped: Counter[str] | None = None,
) -> Iterator[TrainingPair]:
    """At most one (pseudo-query, document) pair per document, lazily and in the documents' order.

    The random choices of a document depend on the seed and its doc_id alone, not on its neighbours. Nor does any
    other document decide whether it gives a pair, or what is left of it; only which of its words are key phrases.

    Args:
        documents: any documents; nothing is held.
        method: `title`, `first-sentence`, `span` (a random sentence, or words in a row of a long one),
            `key-phrases` (see `foreword.collections.key_phrases`), `auto`: the title where there is one, else the
            first sentence, or `mixed`: for each document one of `auto`, `span` and `key-phrases`, at random among
            those that give a pair.
        seed: of the random choices.
        keep: the share of documents (0 to 1) that keep their span, so that matching words count too; the
            original task's 0.1. Of spans only.
        frequencies: in how many of the domain's documents each word occurs, for key phrases (see
            `frequencies_for`); None: `documents` are gone through once more, first, to count it.
        skipped: counts, by reason, the documents that gave no pair.

    Raises:
        UnknownNameError: an unknown method.
        ForewordError: `documents` must be counted and can be gone through only once.
    """
    _check(method)
    if frequencies is None and _needs_frequencies(method) and isinstance(documents, Iterator):
        raise ForewordError(
            f"{method} goes through the documents twice and got an iterator, which is empty after one pass; "
            "give a list of them, or frequencies=frequencies_for(method, documents) from another pass"
        )
    return _pairs(documents, _Recipe(method, seed, keep, frequencies), Counter() if skipped is None else skipped)


def frequencies_for(method: str, documents: Iterable[Document]) -> Frequencies | None:
    """The document frequencies that a method needs, counted in one pass; None, and no pass, if it needs none.

    Raises:
        UnknownNameError: an unknown method.
    """
    _check(method)
    return document_frequencies(documents) if _needs_frequencies(method) else None


@dataclass(frozen=True)
class _Recipe:
    method: str
    seed: int
    keep: float
    frequencies: Frequencies | None


@dataclass(frozen=True)
class _Taken:
    """A pseudo-query and the document's text beside it; `kept`: the query is in that text on purpose."""

    query: str
    rest: str
    kept: bool = False


def _check(method: str) -> None:
    if method not in METHODS:
        raise UnknownNameError(f"unknown method {method!r} for pseudo-queries; known: {', '.join(METHODS)}")


def _needs_frequencies(method: str) -> bool:
    return method in ("key-phrases", "mixed")


def _pairs(documents: Iterable[Document], recipe: _Recipe, skipped: Counter[str]) -> Iterator[TrainingPair]:
    if recipe.frequencies is None:
        recipe = replace(recipe, frequencies=frequencies_for(recipe.method, documents))
    for document in documents:
        made = _mixed(document, recipe) if recipe.method == "mixed" else _pair(document, recipe)
        if isinstance(made, str):
            skipped[made] += 1
        else:
            yield made


def _mixed(document: Document, recipe: _Recipe) -> TrainingPair | str:
    """The pair of a recipe chosen at random among those that give one: the first such in a random order."""
    order = list(MIXED)
    # A generator beside the spans' own, so that a span is the one that `span` would take.
    _random(recipe.seed, f"{document.doc_id}\0mixed").shuffle(order)
    for method in order:
        made = _pair(document, replace(recipe, method=method))
        if not isinstance(made, str):
            return made
    return "no_recipe_fits"


def _pair(document: Document, recipe: _Recipe) -> TrainingPair | str:
    """The document's pair, or the reason why there is none."""
    taken = _taken(document, recipe)
    if taken is None:
        return "no_title"
    key = normalise(taken.query)
    if len(key.split()) < MIN_QUERY_WORDS:
        return "query_too_short"
    if len(taken.rest.split()) < MIN_REST_WORDS:
        return "rest_too_short"
    if not taken.kept and contains(normalise(taken.rest), key):
        return "query_repeated_in_rest"
    return TrainingPair(f"pseudo:{document.doc_id}", taken.query, document.doc_id, taken.rest)


def _taken(document: Document, recipe: _Recipe) -> _Taken | None:
    """The pseudo-query and what is left of the document; None: there is no title to take."""
    if recipe.method == "key-phrases":
        assert recipe.frequencies is not None  # counted before the first document
        return _Taken(key_phrases(document, recipe.frequencies), document.content, kept=True)
    # A signature that a text begins with is no sentence: it stays with the document.
    signature = document.metadata.get("signature", "")
    signature = signature if signature and document.text.startswith(signature) else ""
    found = _chosen(document, document.text[len(signature) :].strip(), recipe)
    return replace(found, rest=f"{signature} {found.rest}") if found is not None and signature else found


def _chosen(document: Document, text: str, recipe: _Recipe) -> _Taken | None:
    title = " ".join(document.title.split())
    if recipe.method == "title" or (recipe.method == "auto" and title):
        return _Taken(title, _without_start(text, title)) if title else None
    if recipe.method in ("first-sentence", "auto"):
        first, rest = split_first_sentence(text)
        return _Taken(" ".join(first.split()), rest)
    chance = _random(recipe.seed, document.doc_id)
    query, rest = _span(text, chance)
    kept = chance.random() < recipe.keep
    return _Taken(query, text if kept else rest, kept)


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
