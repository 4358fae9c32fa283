"""Templates: what of a document or a query is embedded."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import toy_collection, write_beir

from foreword.collections.collection import Document, MemoryCollection, Query, TrainingPair, fingerprint
from foreword.collections.registry import load
from foreword.collections.views import ExcludingCollection, Templated, Texts, WithNegatives
from foreword.errors import DataError, ForewordError


def titled() -> MemoryCollection:
    return MemoryCollection(
        "toy/titled",
        "toy",
        (
            Document("1", "the text", "A title", {"year": "1999"}),
            Document("2", "no title {text} here"),
            Document("3", "another", "Third"),
        ),
        {"train": (Query("q", "what is it?"),)},
        {"train": {"q": {"1": 1}}},
    )


def test_fields_are_written_out() -> None:
    made = Templated(titled(), "{year}: {text} ({title})", "query: {text}")
    assert [doc.content for doc in made.documents()] == [
        "1999: the text (A title)",
        ": no title {text} here ()",
        ": another (Third)",
    ]
    assert [query.text for query in made.queries("train")] == ["query: what is it?"]
    assert list(made.pairs("train")) == [TrainingPair("q", "query: what is it?", "1", "1999: the text (A title)")]
    assert made.facts["templates"] == {"document": "{year}: {text} ({title})", "query": "query: {text}"}
    assert (made.id, made.splits, made.qrels("train")) == ("toy/titled", ("train",), {"q": {"1": 1}})
    assert [doc.name for doc in made.documents()] == ["A title", "2", "Third"]


def test_the_usual_templates_change_nothing() -> None:
    plain = titled()
    made = Templated(plain)
    assert [doc.content for doc in made.documents()] == [doc.content for doc in plain.documents()]
    assert list(made.pairs("train")) == list(plain.pairs("train"))


def test_hard_negatives_are_written_too() -> None:
    made = Templated(WithNegatives(titled(), {"q": ("3", "2")}), "{text}")
    (pair,) = made.pairs("train")
    assert (pair.document, pair.negatives) == ("the text", ("another", "no title {text} here"))
    (pair,) = made.pairs("train", hard_negatives=1)
    assert pair.negatives == ("another",)


@pytest.mark.parametrize("template", ["{", "{}", "{0}", "plain", "{title.x}"])
def test_broken_templates_are_refused(template: str) -> None:
    with pytest.raises(ForewordError, match="template"):
        Templated(titled(), template)


def test_texts_of_elsewhere_cannot_be_written() -> None:
    class Elsewhere(MemoryCollection):
        def pairs(self, split: str = "train", *, hard_negatives: int | None = None):  # type: ignore[no-untyped-def]
            yield TrainingPair("q", "what is it?", "9", "of another corpus")

    source = titled()
    elsewhere = Elsewhere(source.id, source.group, source.corpus, source.query_texts, source.judgements)
    with pytest.raises(DataError, match="1 texts of its training pairs are not among its documents"):
        list(Templated(elsewhere, "{text}").pairs("train"))


def test_by_name(tmp_path: Path) -> None:
    path = write_beir(tmp_path / "toy", toy_collection())
    plain, made = load(f"folder:{path}"), load(f"folder:{path}", query_template="about: {text}")
    assert all(query.text.startswith("about: ") for query in made.queries("test"))
    assert fingerprint(plain) != fingerprint(made)


def test_excluded_texts_are_no_negatives() -> None:
    source = WithNegatives(titled(), {"q": ("3", "2")})
    other = MemoryCollection("toy/other", "toy", (Document("x", "another", "Third"),), {}, {})
    left = ExcludingCollection(source, Texts.of([other]))
    assert [doc.doc_id for doc in left.documents()] == ["1", "2"]
    (pair,) = left.pairs("train")
    assert pair.negatives == ("no title {text} here",)
    assert left.facts["excluded_documents"] == 1
