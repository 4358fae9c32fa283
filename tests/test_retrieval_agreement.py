"""Pseudo-pairs kept by whether runs find their documents: worked by hand."""

from __future__ import annotations

import pytest

from foreword.collections.collection import Document, TrainingPair
from foreword.collections.pseudo import pseudo_pairs
from foreword.errors import DataError, ForewordError, UnknownNameError
from foreword.retrieval.mining import agreeing, bm25_agreement, paired_documents, queries_of

PAIRS = [TrainingPair(f"q{i}", f"query {i}", f"d{i}", f"text {i}") for i in range(1, 6)]
# Ranks of each pair's own document, for k = 2 (-: not found):
#          q1 q2 q3 q4 q5
#   first   1  2  -  -  1    q3's is third; q4 has no hits; q5's ties and comes first by its greater doc_id
#   second  1  -  2  -  2    q2's is not there; q4's is third
FIRST = {
    "q1": {"d1": 3.0, "d2": 2.0},
    "q2": {"d1": 0.5, "d2": 0.4, "d3": 0.3},
    "q3": {"d3": 1.0, "d1": 3.0, "d2": 2.0},
    "q4": {},
    "q5": {"d1": 1.0, "d5": 1.0},
}
SECOND = {
    "q1": {"d1": 0.9},
    "q2": {"d5": 0.9},
    "q3": {"d4": 0.9, "d3": 0.8},
    "q4": {"d1": 0.9, "d2": 0.8, "d4": 0.7},
    "q5": {"d1": 0.9, "d5": 0.8},
}


def kept(runs, **options):
    found, counts = agreeing(PAIRS, runs, **options)
    assert counts["pairs"] == len(PAIRS)
    assert counts["kept"] == len(found)
    assert counts["kept"] + counts["dropped_not_found"] + counts["dropped_easy"] == counts["pairs"]
    return [pair.query_id for pair in found], counts


def test_any_run_or_all_of_them():
    either, counts = kept([FIRST, SECOND], k=2)
    assert either == ["q1", "q2", "q3", "q5"]
    assert counts == {
        "pairs": 5,
        "kept": 4,
        "dropped_not_found": 1,
        "dropped_easy": 0,
        "missed_by_run_1": 2,
        "missed_by_run_2": 2,
    }
    both, counts = kept([FIRST, SECOND], k=2, need="all")
    assert both == ["q1", "q5"]
    assert counts["dropped_not_found"] == 3
    assert kept([FIRST], k=2)[0] == kept([FIRST], k=2, need="all")[0] == ["q1", "q2", "q5"]


def test_depth():
    assert kept([FIRST, SECOND], k=1, need="all")[0] == ["q1"]
    assert kept([FIRST, SECOND], k=3, need="all")[0] == ["q1", "q3", "q5"]
    assert kept([SECOND])[0] == ["q1", "q3", "q4", "q5"]


def test_pairs_that_every_run_ranks_first_are_easy():
    hard, counts = kept([FIRST, SECOND], k=2, drop_easy=True)
    assert hard == ["q2", "q3", "q5"]
    assert counts["dropped_easy"] == 1
    # With one run, its first rank is enough to be easy: q1 and q5.
    assert kept([FIRST], k=2, drop_easy=True)[0] == ["q2"]


def test_a_query_without_a_line_in_a_run_was_not_found_and_a_run_of_others_is_refused():
    without = {query_id: hits for query_id, hits in FIRST.items() if hits}  # as read from a TREC file
    assert agreeing(PAIRS, [without], 2) == agreeing(PAIRS, [FIRST], 2)
    with pytest.raises(ForewordError, match="run 2 has none of the 5 queries, such as 'q1'"):
        agreeing(PAIRS, [FIRST, {"x1": {"d1": 1.0}}])
    assert agreeing([], [{}])[0] == []


@pytest.mark.parametrize(("runs", "k"), [([], 10), ([FIRST], 0)])
def test_refused(runs, k):
    with pytest.raises(ForewordError, match=f"{len(runs)} runs and k={k}"):
        agreeing(PAIRS, runs, k)


def test_unknown_need():
    with pytest.raises(UnknownNameError, match="expected any"):
        agreeing(PAIRS, [FIRST], need="most")  # type: ignore[arg-type]


CORPUS = [
    Document("rotor", "Helicopter rotors are noisy machines. A blade meets the vortex of the one before it.", "x"),
    Document("wing", "Swept wings delay the drag rise. Their tips stall first, which pitches a plane up."),
    Document("plane", "Drag of swept wings, measured in a tunnel; the rise was late."),
    Document("noise", "Noisy helicopter machines with rotors."),
]


def test_bm25_searches_the_corpus_without_the_pseudo_queries():
    pairs = list(pseudo_pairs(CORPUS[:2], "first-sentence"))
    assert [pair.query for pair in pairs] == [
        "Helicopter rotors are noisy machines.",
        "Swept wings delay the drag rise.",
    ]
    run = bm25_agreement(pairs, CORPUS)
    # What is left of "rotor" and "wing" shares no word with what was taken out; the others still do.
    assert {query_id: set(hits) for query_id, hits in run.items()} == {
        "pseudo:rotor": {"noise"},
        "pseudo:wing": {"plane"},
    }
    assert agreeing(pairs, [run])[1]["dropped_not_found"] == 2


def test_bm25_finds_a_title_by_the_text():
    document = Document(
        "tunnel", "The tunnel is cooled by nitrogen, and so the flow is cold.", "Cryogenic nitrogen tunnel"
    )
    pairs = list(pseudo_pairs([document], "title"))
    run = bm25_agreement(pairs, [*CORPUS, document], k=2)
    # "tunnel" is also in "plane"; "nitrogen" in the document's own text alone.
    assert list(run["pseudo:tunnel"]) == ["tunnel", "plane"]
    assert agreeing(pairs, [run]) == (
        pairs,
        {"pairs": 1, "kept": 1, "dropped_not_found": 0, "dropped_easy": 0, "missed_by_run_1": 0},
    )
    assert agreeing(pairs, [run], drop_easy=True)[0] == []


def test_documents_are_as_in_their_pairs():
    pairs = list(pseudo_pairs(CORPUS[1:2], "first-sentence"))
    found = list(paired_documents(pairs, iter(CORPUS)))
    assert [document.doc_id for document in found] == [document.doc_id for document in CORPUS]
    assert found[1].content == "Their tips stall first, which pitches a plane up."
    assert [found[0], *found[2:]] == [CORPUS[0], *CORPUS[2:]]


def test_pairs_that_contradict_the_corpus_or_each_other():
    with pytest.raises(DataError, match="5 of the pairs' documents are not in the corpus, among them 'd1'"):
        bm25_agreement(PAIRS, CORPUS)
    other = TrainingPair("q1", "other words", "d1", "other text")
    with pytest.raises(ForewordError, match="doc_id 'd1' and different texts"):
        paired_documents([PAIRS[0], other], CORPUS)
    with pytest.raises(ForewordError, match="query_id 'q1' and different texts"):
        queries_of([PAIRS[0], other])
    assert [query.query_id for query in queries_of([PAIRS[0], PAIRS[0], PAIRS[1]])] == ["q1", "q2"]
