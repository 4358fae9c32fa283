"""Normalisation, splits, sentences and docstrings: the text that collections are made of."""

from __future__ import annotations

import doctest
import subprocess
import sys
from collections import Counter

import pytest

from foreword.collections import collection as splits
from foreword.collections import pseudo as sentences
from foreword.collections.collection import FRACTIONS, contains, normalise, split_of
from foreword.collections.pseudo import first_sentence, split_first_sentence, split_sentences
from foreword.collections.pydoc import docstrings
from foreword.collections.pydoc.docstrings import drop_noise, plain, summary_and_rest, take_signature


@pytest.mark.parametrize("module", [docstrings, sentences, splits])
def test_examples_in_docstrings(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Straße  und\nWEG!", "strasse und weg"),
        ("<b>bold</b> a < b", "bold a b"),
        ("ﬁne ①", "fine 1"),
        ("हिन्दी भाषा", "हिन्दी भाषा"),
        ("snake_case.path", "snake case path"),
        ("...", ""),
    ],
)
def test_normalise(text, expected):
    assert normalise(text) == expected
    assert normalise(normalise(text)) == normalise(text)


def test_contains_whole_words_only():
    assert contains("the norm of x", "norm of")
    assert not contains("the normal", "norm")
    assert not contains("anything", "")


def test_split_is_stable_and_follows_the_fractions():
    # Pinned: a change of the hash would move the items of every result published so far.
    assert [split_of(text) for text in ("item 0", "item 1", "item 6", "ITEM, <b>6</b>!")] == PINNED
    counts = Counter(split_of(f"text number {i}") for i in range(4000))
    for name, share in FRACTIONS:
        assert abs(counts[name] / 4000 - share) < 0.03
    assert abs(sum(share for _, share in FRACTIONS) - 1) < 1e-12


PINNED = ["test", "train", "dev", "dev"]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("Use torch.nn, e.g. for layers. Then train.", "Use torch.nn, e.g. for layers."),
        ("See Fig. 2 of J. Smith et al. for it. More.", "See Fig. 2 of J. Smith et al. for it."),
        ("It is 3.5 wide. Next.", "It is 3.5 wide."),
        ("Is it? Yes.", "Is it?"),
        ("No end here\n\nNext paragraph.", "No end here"),
        ('He said "stop." Then left.', 'He said "stop."'),
        ("wing in a slipstream .\n  an experimental study . more", "wing in a slipstream ."),
        ("1. First things first. Second.", "1. First things first."),
        ("Lists, sets, etc. are fine. Good.", "Lists, sets, etc. are fine."),
        ("これは文です。次の文。", "これは文です。"),
        ("", ""),
        ("Wait... what. Next", "Wait... what."),
    ],
)
def test_first_sentence(text, first):
    assert first_sentence(text) == first
    got, rest = split_first_sentence(text)
    assert "".join((got + rest).split()) == "".join(text.split())


def test_split_sentences_loses_no_word():
    text = "One is here. Two, i.e. the second, too!\n\nThree"
    assert split_sentences(text) == ["One is here.", "Two, i.e. the second, too!", "Three"]


def test_a_book_is_split_in_one_go():
    """Minutes, where each sentence copied the rest of the book."""
    text = "A dog ran, e.g. to Mr. Smith. It\n. barked? Yes.\n\nno end here\n\n" * 50_000
    expected = ["A dog ran, e.g. to Mr. Smith.", "It\n. barked?", "Yes.", "no end here"]
    assert split_sentences(text) == expected * 50_000


@pytest.mark.parametrize(
    ("doc", "name", "signature", "rest"),
    [
        (
            "abs(input, *, out=None) -> Tensor\n\nAbsolute value.",
            "abs",
            "(input, *, out=None) -> Tensor",
            "Absolute value.",
        ),
        ("f(a,\n  b=(1, 2)) -> int # noqa: B950\n\nText.", "f", "(a, b=(1, 2)) -> int", "Text."),
        ("f(a)\nf(a, b)\n\nText.", "f", "(a)", "Text."),
        ("special.f(a) -> T\nText.", "other", "(a) -> T", "Text."),
        ("abs(x) is the distance from zero.", "abs", "", "abs(x) is the distance from zero."),
        ("g(x)\nis not about f.", "f", "", "g(x)\nis not about f."),
        ("Text (with brackets).", "f", "", "Text (with brackets)."),
    ],
)
def test_take_signature(doc, name, signature, rest):
    assert take_signature(doc, name) == (signature, rest)


def test_plain_text_of_markup():
    doc = """The :class:`~a.B` with ``x``, see `the page <https://e.org>`_.

.. versionadded:: 1.2
   With more words.

.. note::

    Mind this.

Parameters
----------
x : int
    A number.

>>> f(1)
2
"""
    assert plain(drop_noise(doc)) == (
        "The a.B with x, see the page. Note: Mind this. Parameters x : int A number. f(1) 2"
    )


def test_summary_and_rest_are_apart():
    summary, rest = summary_and_rest("Sum of\n:attr:`x` over rows.  It is quick.\n\nArgs:\n    x: numbers")
    assert summary == "Sum of x over rows."
    assert rest == "It is quick. Args: x: numbers"


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("collections", ("torch", "numpy", "transformers", "subprocess", "urllib.request")),
        ("prompts.backbone", ("torch", "numpy", "transformers", "sentence_transformers")),
        ("indexing", ("torch", "transformers", "pymilvus")),  # what needs no model answers at once
        ("evaluation.hybrid", ("torch", "transformers")),
    ],
)
def test_import_is_light(module, heavy):
    code = f"import sys, foreword.{module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
