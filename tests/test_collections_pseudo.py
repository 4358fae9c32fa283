"""Pseudo-queries: what is taken, what is left, and that nothing depends on order."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from foreword.collections import pseudo_pairs
from foreword.collections.collection import Document, TrainingPair, contains, normalise
from foreword.collections.pseudo import METHODS, Frequencies, document_frequencies, frequencies_for, key_phrases
from foreword.errors import ForewordError, UnknownNameError

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
    with pytest.raises(UnknownNameError, match="known: auto, title, first-sentence, span, key-phrases, mixed"):
        pseudo_pairs([], "magic")
    with pytest.raises(UnknownNameError, match="'magic'"):
        frequencies_for("magic", [])


def table(*common: str) -> Frequencies:
    """31 documents, all with the words that are given: idf is ln(32/31.5) = .016 for these, ln(32/.5) = 4.16 else."""
    return Frequencies(31, dict.fromkeys(common, 31))


def test_inverse_document_frequency():
    assert table("wing").idf("blade") == pytest.approx(math.log(64))
    assert table("wing").idf("wing") == pytest.approx(math.log(64 / 63))


def test_frequencies_count_documents_not_words():
    documents = [
        Document("1", "Wings, a wing and winged 42 x.", "The Wing"),
        Document("2", "the blade's wing"),
        Document("3", "f(x) -> blade A blade.", metadata={"signature": "f(x) -> blade"}),
    ]
    found = document_frequencies(iter(documents))
    # No stop words, numbers, single letters or signatures; "winged" has the stem of "wings".
    assert found.documents == 3
    assert dict(found.counts) == {"wing": 2, "blade": 2}


def test_rare_stems_make_room():
    once = ["alpha", "bravo", "cedar", "delta", "echo", "fox", "golf", "hotel", "india", "juliet"]
    documents = [Document(word, f"wing blade {word}") for word in once]
    # 7 stems after the 5th document, of which the two that were met more than once are left; again after the 10th.
    assert dict(document_frequencies(documents, most=6).counts) == {"wing": 10, "blade": 10}
    # 8 after the 6th; then four more.
    bounded = document_frequencies(documents, most=7).counts
    assert dict(bounded) == {"wing": 10, "blade": 10, "golf": 1, "hotel": 1, "india": 1, "juliet": 1}


TURBINE = "The turbine blade shows heavy wear, and the report says that cooling holes clog in sandy air."
DULL = ("show", "heavi", "wear", "report", "say", "clog", "air")


def test_key_phrases_are_the_rare_words_in_a_row():
    # Of 12 content words 5 are rare: the mean is (5 * 4.16 + 7 * .016) / 12 = 1.74; two rare words in a row are worth
    # 2 * 2.42, one alone 2.42, and a dull word beside them takes 1.73 off.
    assert key_phrases(Document("d", TURBINE), table(*DULL)) == "turbine blade cooling holes sandy"
    # "heavy" rare and "blade" dull: "turbine" and "heavy" have a dull word between them and are worth no more with it.
    again = table("blade", *(word for word in DULL if word != "heavi"))
    assert key_phrases(Document("d", TURBINE), again) == "turbine heavy cooling holes"


def test_key_phrases_are_in_order_of_appearance_and_each_stem_comes_once():
    # "flutter" comes three times: (1 + ln 3) * 4.16; its best row is the last, "flutter speed margin".
    text = "A wing and the flutter. Do flutters, or did they? What is the flutter speed margin of it?"
    assert key_phrases(Document("d", text), table("wing", "margin")) == "wing flutter speed"
    assert key_phrases(Document("d", text), table("wing")) == "flutter speed margin"


def test_key_phrases_end_at_marks_and_titles_count():
    document = Document("d", "blade (vortex) interaction; noise", "Rotor")
    # All are rare, hence worth 0 above their mean: as few as make a query, the first first.
    assert key_phrases(document, table()) == "Rotor blade vortex"
    joined = Document("d", "blade vortex interaction noise level", "Rotor")
    assert key_phrases(joined, table()) == "blade vortex interaction noise"


def test_key_phrases_are_at_most_eight_words_and_three_phrases():
    rare = "alpha bravo cedar delta"
    text = f"{rare}, echo fox golf hotel, dull. india juliet, dull, kilo, lima"
    found = key_phrases(Document("d", text), table("dull"))
    assert found == "alpha bravo cedar delta echo fox golf hotel"
    text = "alpha bravo, dull, echo fox, dull, india juliet, dull, lima mike"
    assert key_phrases(Document("d", text), table("dull")) == "alpha bravo echo fox india juliet"


def test_other_scripts_keep_their_words_whole():
    # Combining vowel signs are no letters to `str.isalnum`.
    document = Document("d", "हिन्दी विकिपीडिया लेख")
    assert key_phrases(document, table()) == document.text


def salad(number: int) -> Document:
    """A document of random words, stop words and marks; some have too few content words for a query."""
    chance = random.Random(number)
    words = ["wing", "wings", "blade", "noise", "rotor", "the", "of", "and", "flow.", "(jet)", "12", "x"]
    return Document(str(number), " ".join(chance.choices(words[chance.randrange(8) :], k=chance.randrange(1, 20))))


def test_the_table_never_decides_whether_there_is_a_query():
    own = document_frequencies(map(salad, range(200)))
    found = 0
    for document in map(salad, range(200)):
        stems = {"wing" if word == "wings" else word.strip(".()") for word in document.text.split()}
        stems -= {"the", "of", "and", "12", "x"}
        queries = [key_phrases(document, frequencies) for frequencies in (own, table(), table("wing", "nois"))]
        assert [bool(query) for query in queries] == [len(stems) >= 3] * 3
        for query in filter(None, queries):
            found += 1
            words = query.split()
            assert 3 <= len(words) <= 8
            assert len(set(words) - {"wings"}) + ("wings" in words) == len(words)
            assert not {"wing", "wings"} <= set(words)
            assert set(words) <= {word.strip(".()") for word in document.text.split()} - {"the", "of", "and", "12", "x"}
    assert found > 100


def test_key_phrase_pairs_keep_the_document():
    document = Document("d", f"f(x) {TURBINE}", "A report", {"signature": "f(x)"})
    pair, *_ = pseudo_pairs(iter([document]), "key-phrases", frequencies=table(*DULL))
    assert pair == TrainingPair("pseudo:d", "turbine blade cooling holes sandy", "d", document.content)
    skipped: Counter[str] = Counter()
    documents = [Document("few", "wing " * 9 + "blade"), Document("brief", "wing blade noise")]
    assert not list(pseudo_pairs(documents, "key-phrases", skipped=skipped))
    assert skipped == {"query_too_short": 1, "rest_too_short": 1}


def test_documents_are_counted_first_and_an_iterator_cannot_be():
    again = list(pseudo_pairs(DOCUMENTS, "key-phrases", frequencies=frequencies_for("key-phrases", iter(DOCUMENTS))))
    assert again == list(pseudo_pairs(DOCUMENTS, "key-phrases"))
    assert [pair.doc_id for pair in again] == ["titled", "repeats", "plain", "leaks"]
    for method in ("key-phrases", "mixed"):
        with pytest.raises(ForewordError, match="goes through the documents twice"):
            pseudo_pairs(iter(DOCUMENTS), method)
    assert frequencies_for("span", iter(DOCUMENTS)) is None
    assert len(list(pseudo_pairs(iter(DOCUMENTS), "span"))) >= 3


def test_mixed_takes_each_recipe_for_a_third_and_depends_on_seed_and_document_only():
    many = [Document(str(i), LONG) for i in range(300)]
    recipes = {m: {p.doc_id: p for p in pseudo_pairs(many, m, 5)} for m in ("auto", "span", "key-phrases")}
    found = {pair.doc_id: pair for pair in pseudo_pairs(many, "mixed", 5)}
    assert len(found) == 300
    chosen: Counter[str] = Counter()
    for doc_id, pair in found.items():
        of = [method for method, made in recipes.items() if made.get(doc_id) == pair]
        assert of
        chosen.update(of if len(of) == 1 else ["either"])  # a random sentence may be the first one
    assert 70 <= chosen["key-phrases"] <= 130
    assert 70 <= chosen["auto"] + chosen["either"] / 2 <= 150
    backwards = pseudo_pairs(reversed(many), "mixed", 5, frequencies=frequencies_for("mixed", many))
    assert {pair.doc_id: pair for pair in backwards} == found
    alone = list(pseudo_pairs([many[7]], "mixed", 5, frequencies=frequencies_for("mixed", many)))
    assert alone == [found["7"]]
    assert {pair.doc_id: pair for pair in pseudo_pairs(many, "mixed", 6)} != found


def test_mixed_falls_back_on_what_applies():
    # One sentence: nothing is left beside it, neither as the first nor as a span.
    only = [Document(str(i), "Rotor blades, in a gust of wind, twist more than the old theory says") for i in range(20)]
    found = list(pseudo_pairs(only, "mixed", frequencies=table()))
    assert len(found) == 20
    assert {pair.query for pair in found} == {key_phrases(only[0], table())}
    skipped: Counter[str] = Counter()
    assert not list(pseudo_pairs([Document("short", "Too short.")], "mixed", skipped=skipped))
    assert skipped == {"no_recipe_fits": 1}


@pytest.mark.parametrize("method", METHODS)
def test_no_neighbour_decides_what_is_left_of_a_document(method):
    together = {pair.doc_id: pair.document for pair in pseudo_pairs(DOCUMENTS, method, 1)}
    alone = {pair.doc_id: pair.document for doc in DOCUMENTS for pair in pseudo_pairs([doc], method, 1)}
    assert alone == together
