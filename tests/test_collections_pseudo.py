"""Pseudo-queries: what is taken, what is left, and that nothing depends on order."""

from __future__ import annotations

from collections import Counter

import pytest

from foreword.collections import pseudo_pairs
from foreword.collections.records import Document, TrainingPair
from foreword.collections.splits import contains, normalise
from foreword.common.errors import UnknownNameError

LONG = (
    "The first sentence speaks of wings. The second one, i.e. this, speaks of the weather over the sea. "
    "A third one closes the text with a few more words."
)
REST = LONG.split(". ", 1)[1]
DOCUMENTS = [
    Document("titled", LONG, "A study of wings"),
    Document("repeats", f"A study\nof wings {LONG}", "A study of wings"),
    Document("plain", LONG),
    Document("short", "Too short."),
    Document("leaks", f"{LONG} The first sentence speaks of wings."),
]


def by_document(method, **options):
    return {pair.doc_id: pair for pair in pseudo_pairs(DOCUMENTS, method, **options)}


def test_titles():
    skipped: Counter[str] = Counter()
    found = by_document("title", skipped=skipped)
    assert set(found) == {"titled", "repeats"}
    assert found["titled"] == TrainingPair("pseudo:titled", "A study of wings", "titled", LONG)
    assert found["repeats"].document == LONG
    assert skipped == {"no_title": 3}


def test_first_sentences():
    skipped: Counter[str] = Counter()
    found = by_document("first-sentence", skipped=skipped)
    assert found["plain"].query == "The first sentence speaks of wings."
    assert found["plain"].document == REST
    assert skipped == {"query_too_short": 1, "query_repeated_in_rest": 1}


def test_auto_takes_the_title_where_there_is_one():
    found = by_document("auto")
    assert found["titled"].query == "A study of wings"
    assert found["plain"].query == "The first sentence speaks of wings."


def test_spans_depend_on_seed_and_document_only():
    found = by_document("span", seed=3)
    assert set(found) == {"titled", "repeats", "plain", "leaks"} & set(found)
    again = list(pseudo_pairs(reversed(DOCUMENTS), "span", seed=3))
    assert {pair.doc_id: pair for pair in again} == found
    queries = {seed: by_document("span", seed=seed).get("plain") for seed in range(8)}
    assert len({pair.query for pair in queries.values() if pair}) > 1
    assert found["plain"].query in LONG


def test_spans_of_a_long_sentence_are_cut():
    words = [f"w{i}" for i in range(200)]
    [pair] = pseudo_pairs([Document("d", " ".join(words))], "span")
    query = pair.query.split()
    start = words.index(query[0])
    assert query == words[start : start + 32]
    assert pair.document.split() == words[:start] + words[start + 32 :]


@pytest.mark.parametrize("method", ["auto", "title", "first-sentence", "span"])
def test_the_query_never_stays_in_the_document(method):
    for seed in range(5):
        for pair in pseudo_pairs(DOCUMENTS, method, seed):
            assert not contains(normalise(pair.document), normalise(pair.query))


def test_a_share_of_spans_can_be_kept():
    many = [Document(str(i), LONG) for i in range(400)]
    kept = sum(pair.document == LONG for pair in pseudo_pairs(many, "span", keep=0.1))
    assert 20 <= kept <= 65


def test_unknown_method_is_said_at_once():
    with pytest.raises(UnknownNameError, match="known: auto, title, first-sentence, span"):
        pseudo_pairs([], "magic")
