"""BM25 against its formula by hand, and the edges: unknown words, ties, empty texts."""

from __future__ import annotations

import math
import subprocess
import sys
import unicodedata

import pytest

from foreword.collections.collection import Document, Query
from foreword.errors import ForewordError, UnknownNameError
from foreword.retrieval.bm25 import BM25

DOCUMENTS = [
    Document("d1", "the cat sat on the mat"),
    Document("d2", "cats and dogs", title="Pets"),
    Document("d3", "dogs chase cats and cats chase mice"),
    Document("d4", ""),
]


def test_scores_are_the_formula() -> None:
    # Without stop words ("the", "on", "and"), stemmed:
    # d1 = cat sat mat, d2 = pet cat dog, d3 = dog chase cat cat chase mice, d4 = nothing.
    k1, b, mean_length = 1.5, 0.75, (3 + 3 + 6 + 0) / 4
    idf = math.log(1 + (4 - 3 + 0.5) / (3 + 0.5))  # `cat` is in three of four documents

    def score(tf: int, length: int) -> float:
        return idf * tf / (tf + k1 * (1 - b + b * length / mean_length))

    hits = BM25(DOCUMENTS).search([Query("q", "Cat")])["q"]
    assert list(hits) == sorted(hits, key=lambda doc_id: (hits[doc_id], doc_id), reverse=True)
    assert hits == pytest.approx({"d1": score(1, 3), "d2": score(1, 3), "d3": score(2, 6)}, rel=1e-5)
    assert list(BM25(DOCUMENTS).search([Query("q", "Cat")], k=2)["q"]) == ["d3", "d2"]


def test_shares_of_what_the_query_could_score() -> None:
    idf = {"cat": math.log(1 + 1.5 / 3.5), "dog": math.log(1 + 2.5 / 2.5), "zebra": math.log(1 + 4.5 / 0.5)}
    queries = [Query("one", "Cat"), Query("known", "the cat and the dogs"), Query("unknown", "cat, cat, zebra")]
    plain, shares = (BM25(DOCUMENTS).search(queries, shares=shares) for shares in (False, True))
    for query_id, most in (
        ("one", idf["cat"]),
        ("known", idf["cat"] + idf["dog"]),
        ("unknown", 2 * idf["cat"] + idf["zebra"]),
    ):
        assert list(shares[query_id]) == list(plain[query_id])
        assert shares[query_id] == pytest.approx({d: score / most for d, score in plain[query_id].items()})
        assert 0 < max(shares[query_id].values()) < 1
    # The more often the word, the nearer to 1, whatever the word.
    many = BM25([Document("a", "dog " * 2000), Document("b", "cat")]).search([Query("q", "dog")], shares=True)
    assert many["q"]["a"] > 0.99
    assert BM25(DOCUMENTS).search([Query("q", "yak")], shares=True) == {"q": {}}


def test_queries_without_a_known_word_have_no_hits() -> None:
    queries = [Query("unknown", "zebra"), Query("empty", ""), Query("stop", "the and"), Query("dog", "dog")]
    run = BM25(DOCUMENTS).search(queries)
    assert {query_id: len(hits) for query_id, hits in run.items()} == {
        "unknown": 0,
        "empty": 0,
        "stop": 0,
        "dog": 2,
    }
    assert BM25([Document("a", "the"), Document("b", "")]).search([Query("q", "the a")]) == {"q": {}}


def test_ties_at_the_border_go_to_the_greater_doc_id() -> None:
    index = BM25([Document(f"d{number:02d}", "same words") for number in range(30)])
    assert len(index) == 30
    assert list(index.search([Query("q", "words")], k=3)["q"]) == ["d29", "d28", "d27"]
    hits = index.search([Query("d29", "words")], k=3, exclude_self=True)["d29"]
    assert list(hits) == ["d28", "d27", "d26"]


def test_words_as_they_are() -> None:
    plain = BM25(DOCUMENTS, stemmer=None, stopwords=None)
    assert list(plain.search([Query("q", "cat")])["q"]) == ["d1"]
    assert list(plain.search([Query("q", "the")])["q"]) == ["d1"]
    assert BM25(DOCUMENTS, stopwords=["Cat", "cats"]).search([Query("q", "cat cats")]) == {"q": {}}


def test_mistakes_are_told() -> None:
    with pytest.raises(UnknownNameError, match=r"No stemmer 'klingon'; known: .*english"):
        BM25(DOCUMENTS, stemmer="klingon")
    with pytest.raises(UnknownNameError, match="klingon"):
        BM25(DOCUMENTS, stopwords="klingon")
    with pytest.raises(ForewordError, match="no documents"):
        BM25([])
    with pytest.raises(ForewordError, match="ids must differ"):
        BM25([Document("a", "x"), Document("a", "y")])
    with pytest.raises(ForewordError, match="k is 0"):
        BM25(DOCUMENTS).search([], k=0)


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = {"torch", "bm25s", "ir_measures", "scipy", "transformers", "rich", "jinja2", "matplotlib"}
    code = (
        "import sys, foreword.retrieval, foreword.evaluation, foreword.report;"
        f"print(sorted({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("हिन्दी", "hi"),  # the signs for vowels are marks
        ("किताब", "hi"),
        ("r\u00e9sum\u00e9", "fr"),
        ("re\u0301sume\u0301", "fr"),
        ("RE\u0301SUME\u0301", "fr"),
        ("ｒéｓumé", "fr"),  # full width
        ("東京大学", "ja"),
        ("コーヒー", "ja"),
        ("ｺｰﾋｰ", "ja"),  # half width
        ("猫", "ja"),
        ("机器学习", "zh"),
        ("ภาษาไทย", "th"),
        ("한국어를", "ko"),
        ("தமிழ்", "ta"),
        ("می\u200cخواهم", "fa"),
        ("co\u00adoperate", "en"),
        ("İSTANBUL", "tr"),
        ("HAUPTSTRASSE", "de"),
        ("ΟΔΟΣ", "el"),
        ("ﬁne", "en"),
        ("၁၂၃", "my"),
    ],
)
def test_words_of_many_scripts(query: str, found: str) -> None:
    texts = {
        "hi": "यह हिन्दी की एक किताब है",
        "fr": "envoyez votre re\u0301sume\u0301 demain",
        "ja": "猫は東京大学でコーヒーを飲みます。",
        "zh": "我们研究机器学习和语言",
        "th": "ฉันเรียนภาษาไทยทุกวัน",
        "ko": "나는 한국어를 배웁니다",
        "ta": "நான் தமிழ் படிக்கிறேன்",
        "fa": "من می\u200cخواهم بروم",
        "en": "fine people cooperate",
        "tr": "İstanbul büyük bir şehir",
        "de": "die Hauptstraße ist gesperrt",
        "el": "η οδός μου, ο οδος",
        "my": "စာမျက်နှာ ၁၂၃",
    }
    index = BM25([Document(name, text) for name, text in texts.items()])
    assert next(iter(index.search([Query("q", query)])["q"])) == found


def test_every_form_of_a_text_finds_the_same() -> None:
    texts = ["Ångström Über naïve façade", "हिन्दी में पढ़ना", "ガギグ 東京", "ไทย น้ำ", "Tiếng Việt", "한글 가나다"]
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        index = BM25([Document(str(n), unicodedata.normalize(form, text)) for n, text in enumerate(texts)])
        for n, text in enumerate(texts):
            for other in ("NFC", "NFD"):
                hits = index.search([Query("q", unicodedata.normalize(other, text))], shares=True)["q"]
                assert list(hits) == [str(n)]
