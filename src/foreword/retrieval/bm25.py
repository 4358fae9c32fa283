"""BM25 over words: the lexical baseline, on bm25s with Snowball stems.

Scripts that write no blanks between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) are taken in pairs of
characters, as Lucene's CJK analyzer does, and in single ones, so that a query of one character finds something.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np
import regex

from foreword.collections.collection import Document, Query
from foreword.errors import ForewordError, UnknownNameError
from foreword.retrieval.runs import Run

_WORD = re.compile(r"\b\w\w+\b")  # words of two letters or more
_SCRIPTS = r"\p{Han}\p{Hiragana}\p{Katakana}\u30fc\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_LETTER = rf"[[{_SCRIPTS}]--[\p{{Nd}}\p{{M}}\p{{P}}]]"  # of a script that parts no words; numbers are words there, too
_CHARACTER = regex.compile(rf"(?V1){_LETTER}\p{{M}}*")
_WORDS = regex.compile(rf"(?V1)(?P<unparted>(?:{_LETTER}\p{{M}}*)+)|[\w--{_LETTER}]{{2,}}")  # marks are `\w` here
_UNSEEN = dict.fromkeys(map(ord, "\u00ad\u200d\ufeff"))  # soft hyphen, joiner, byte order mark: within words


class BM25:
    """An index over documents' titles and texts, scored as Lucene does.

    The score of a document is the sum over the query's words of
    `idf * tf / (tf + k1 * (1 - b + b * length / mean length))`, `idf = ln(1 + (N - df + 0.5) / (df + 0.5))`
    (Robertson & Zaragoza, "The Probabilistic Relevance Framework", 2009; Lucene's variant as in Kamphuis et
    al., "Which BM25 Do You Mean?", 2020).
    """

    def __init__(
        self,
        documents: Iterable[Document],
        *,
        k1: float = 1.5,
        b: float = 0.75,
        stemmer: str | None = "english",
        stopwords: str | Iterable[str] | None = "en",
    ) -> None:
        """Index `documents`, gone through once; their texts are not kept.

        Args:
            documents: title and text are indexed together.
            k1: how slowly repeated words stop counting.
            b: how much a long document's words are discounted, 0 to 1.
            stemmer: a Snowball stemmer's name, or None for words as they are.
            stopwords: a language that bm25s has a list for (e.g. `en`, `en_plus`, `de`), words, or None.

        Raises:
            ForewordError: there are no documents, or two have one id.
            UnknownNameError: the stemmer or the list of stop words is not known.
        """
        import bm25s

        self._stem = _stemmer(stemmer)
        self._stopwords = _stopwords(stopwords)
        self._vocabulary: dict[str, int] = {}  # stem -> number
        self._words: dict[str, int] = {}  # word -> its stem's number; -1 for a stop word
        self._found_in: Counter[int] = Counter()  # a stem's number -> documents that have it
        ids, tokens = [], []
        for document in documents:
            ids.append(document.doc_id)
            tokens.append([self._number(word) for word in _split(document.content)])
        tokens = [[number for number in numbers if number >= 0] for numbers in tokens]
        for numbers in tokens:
            self._found_in.update(set(numbers))
        if not ids or len(set(ids)) < len(ids):
            raise ForewordError(
                "BM25 got no documents." if not ids else "Two documents have one doc_id; ids must differ."
            )
        self._ids = ids
        # Equal scores are ranked by doc_id, descending, as trec_eval does: a document's place in that order.
        self._places = np.empty(len(ids), dtype=np.int64)
        self._places[sorted(range(len(ids)), key=ids.__getitem__, reverse=True)] = np.arange(len(ids))
        self._index = bm25s.BM25(k1=k1, b=b, method="lucene")
        if self._vocabulary:
            self._index.index((tokens, dict(self._vocabulary)), create_empty_token=False, show_progress=False)

    def __len__(self) -> int:
        """The number of documents."""
        return len(self._ids)

    def search(
        self, queries: Iterable[Query], k: int = 100, exclude_self: bool = False, *, shares: bool = False
    ) -> Run:
        """The best `k` documents of every query, in rank order.

        A document that shares no word with the query is not returned, so a query of unknown words only has an
        empty ranking. A word that a query repeats counts each time.

        Args:
            queries: what to search for.
            k: hits per query, 1 or more.
            exclude_self: leave out a document whose id is the query's.
            shares: divide the scores by the most that any document could have, the sum of the `idf` of all words of
                the query: 0 to 1, as near to 1 as a document has all of them often. A word that no document has
                counts too, with the idf of one in none.
        """
        if k < 1:
            raise ForewordError(f"k is {k}; expected 1 or more hits per query.")
        run: Run = {}
        for query in queries:
            hidden = query.query_id if exclude_self else None
            hits = self._search_one(query.text, k, hidden)
            most = self._most(query.text) if shares and hits else 1.0
            run[query.query_id] = {doc_id: score / most for doc_id, score in hits.items()}
        return run

    def _most(self, text: str) -> float:
        """What a document's score for a query stays below: `tf / (tf + ...)` is below 1 for each word."""
        counts = [
            self._found_in[self._known(word)]  # of an unknown word: 0
            for word in _split(text)
            if word not in self._stopwords
        ]
        return math.fsum(math.log1p((len(self) - count + 0.5) / (count + 0.5)) for count in counts)

    def _search_one(self, text: str, k: int, hidden: str | None) -> dict[str, float]:
        """`doc_id -> score` of the best `k` documents but `hidden`."""
        numbers = [self._known(word) for word in _split(text)]
        numbers = [number for number in numbers if number >= 0]
        if not numbers:
            return {}
        scores: np.ndarray = self._index.get_scores_from_ids(numbers)  # [N]
        found = np.flatnonzero(scores > 0)
        if hidden is not None:
            found = found[[self._ids[number] != hidden for number in found]]
        if len(found) > k:
            border = np.partition(scores[found], -k)[-k]
            found = found[scores[found] >= border]  # may be more than k: ties are cut below
        order = found[np.lexsort((self._places[found], -scores[found]))][:k]
        return {self._ids[number]: float(scores[number]) for number in order}

    def _number(self, word: str) -> int:
        """The number of a document's word, entered in the vocabulary when new; -1 for a stop word."""
        number = self._words.get(word)
        if number is None:
            stem = self._stem(word)
            number = -1 if word in self._stopwords else self._vocabulary.setdefault(stem, len(self._vocabulary))
            self._words[word] = number
        return number

    def _known(self, word: str) -> int:
        """The number of a query's word; -1 when no document has its stem or it is a stop word."""
        return -1 if word in self._stopwords else self._vocabulary.get(self._stem(word), -1)


def _split(text: str) -> list[str]:
    """The words of a text without case (ß is ss) and in one form of Unicode (NFKC)."""
    if text.isascii():
        return _WORD.findall(text.lower())
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold().translate(_UNSEEN))
    if max(text, default="") < "\u0300":  # below all marks and all those scripts
        return _WORD.findall(text)
    words: list[str] = []
    for found in _WORDS.finditer(text):
        if found["unparted"] is None:
            words.append(found[0])
        else:
            single = _CHARACTER.findall(found[0])
            words += single
            words += map("".join, pairwise(single))
    return words


def _stemmer(name: str | None) -> Callable[[str], str]:
    """The Snowball stemmer of a language; raises `UnknownNameError`."""
    if name is None:
        return str
    import Stemmer

    try:
        stem: Callable[[str], str] = Stemmer.Stemmer(name).stemWord
    except KeyError:
        known = ", ".join(sorted(Stemmer.algorithms()))
        raise UnknownNameError(f"No stemmer {name!r}; known: {known}. None leaves words as they are.") from None
    return stem


def _stopwords(chosen: str | Iterable[str] | None) -> frozenset[str]:
    """A language's stop words, or those given; raises `UnknownNameError`."""
    if chosen is None:
        return frozenset()
    if not isinstance(chosen, str):
        return frozenset(word.casefold() for word in chosen)
    from bm25s.tokenization import Tokenizer

    try:
        return frozenset(word.casefold() for word in Tokenizer(stopwords=chosen).stopwords)
    except ValueError as error:
        raise UnknownNameError(f"No stop words {chosen!r}. {error}") from None
