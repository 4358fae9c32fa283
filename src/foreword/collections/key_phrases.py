"""A short query from a document's most telling phrases: the keywords that a hurried user would type.

A phrase is up to four content words in a row, nothing between them but spaces; its worth is the sum of its words'
tf-idf (Salton & Buckley, "Term-weighting approaches in automatic text retrieval", 1988; for phrases as in Hasan &
Ng, "Conundrums in Unsupervised Keyphrase Extraction", 2010), each less the document's mean, so that a dull word at
its edge makes a phrase worse, not better.
"""

from __future__ import annotations

import math
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from foreword.collections.records import Document

MAX_PHRASES = 3
MAX_PHRASE_WORDS = 4
MIN_WORDS, MAX_WORDS = 3, 8
"""Of the query: as long as most that users type."""
HEAD_WORDS = 512
"""Of a document's text, where phrases are looked for and counted: encoders cut off most of what comes later."""
MOST_STEMS = 1_000_000
"""In a table of document frequencies, which bounds its memory (some 100 MB) whatever the corpus."""

_LONGEST_WORD = 30  # letters; longer ones are keys, addresses and texts without spaces
_EDGES = string.punctuation + "“”„‘’‚«»‹›…–—•·¿¡、。，"
_INSIDE = frozenset("-'’")


@dataclass(frozen=True)
class Frequencies:
    """In how many of a domain's documents each stem occurs; a stem that is not there counts as in none."""

    documents: int
    counts: Mapping[str, int]

    def idf(self, stem: str) -> float:
        """`ln(1 + (N - df + 0.5) / (df + 0.5))`, as BM25 in Lucene: above 0 whatever the stem."""
        count = self.counts.get(stem, 0)
        return math.log1p((self.documents - count + 0.5) / (count + 0.5))


class _Word(NamedTuple):
    text: str
    stem: str


class _Phrase(NamedTuple):
    worth: float
    start: int  # its place among the document's content words
    words: Sequence[_Word]


def document_frequencies(documents: Iterable[Document], most: int = MOST_STEMS) -> Frequencies:
    """Count, in one pass, in how many documents each stem occurs (title, and the first `HEAD_WORDS` of the text).

    With more than `most` stems at once, those met least often are forgotten until no more than half are left, in the
    manner of lossy counting (Manku & Motwani, 2002): telling the rare from the rarest is not what idf is for.

    Args:
        documents: of the domain, or a sample of them; none is held.
        most: stems held at most, 2 or more.
    """
    counts: Counter[str] = Counter()
    number = 0
    for document in documents:
        number += 1
        counts.update(dict.fromkeys((word.stem for run in _runs(document) for word in run), 1))
        if len(counts) > most:
            counts = _without_rarest(counts, most // 2)
    return Frequencies(number, counts)


def key_phrases(document: Document, frequencies: Frequencies) -> str:
    """The document's two or three best phrases, `MIN_WORDS` to `MAX_WORDS` words, in order of appearance.

    Taken greedily: the best phrase, then the best of those that share no stem with it, and so on, as long as one is
    better than the document's mean or the query is too short. Empty for a document of fewer than `MIN_WORDS`
    different stems, and for no other: the frequencies decide which words make a query, never whether there is one.
    """
    runs = _runs(document)
    chosen: list[_Phrase] = []
    taken: set[str] = set()
    for phrase in sorted(_phrases(runs, _weights(runs, frequencies)), key=lambda p: (-p.worth, -len(p.words), p.start)):
        if len(chosen) == MAX_PHRASES or (phrase.worth <= 0 and len(taken) >= MIN_WORDS):
            break
        stems = {word.stem for word in phrase.words}
        if not stems & taken and len(stems) + len(taken) <= MAX_WORDS:
            chosen.append(phrase)
            taken |= stems
    if len(taken) < MIN_WORDS:
        return ""
    return " ".join(word.text for phrase in sorted(chosen, key=lambda p: p.start) for word in phrase.words)


def _weights(runs: Sequence[Sequence[_Word]], frequencies: Frequencies) -> dict[str, float]:
    """`(1 + ln tf) * idf` of each stem, less their mean: what a word tells above what most words here do."""
    counts = Counter(word.stem for run in runs for word in run)
    weights = {stem: (1 + math.log(count)) * frequencies.idf(stem) for stem, count in counts.items()}
    mean = math.fsum(weights.values()) / max(1, len(weights))
    # Rounded, so that equal phrases tie whatever the order in which their words are added.
    return {stem: round(weight - mean, 9) for stem, weight in weights.items()}


def _phrases(runs: Sequence[Sequence[_Word]], weights: Mapping[str, float]) -> Iterator[_Phrase]:
    """Every row of up to `MAX_PHRASE_WORDS` words inside a run in which no stem comes twice."""
    offset = 0
    for run in runs:
        for first in range(len(run)):
            for last in range(first + 1, min(first + MAX_PHRASE_WORDS, len(run)) + 1):
                words = run[first:last]
                if len({word.stem for word in words}) < len(words):
                    break
                yield _Phrase(round(math.fsum(weights[word.stem] for word in words), 9), offset + first, words)
        offset += len(run)


def _runs(document: Document) -> list[list[_Word]]:
    """Content words in a row, of the title and then of the text; a stop word or a mark ends a run."""
    found: list[list[_Word]] = [[]]
    for part in (document.title, _prose(document)):
        for token in part.split(maxsplit=HEAD_WORDS)[:HEAD_WORDS]:
            core = token.strip(_EDGES)
            word = _content_word(core)
            if word is None or not token.startswith(core):
                found.append([])
            if word is not None:
                found[-1].append(word)
            if not token.endswith(core):
                found.append([])
        found.append([])
    return [run for run in found if run]


def _prose(document: Document) -> str:
    """The text without the signature that it may begin with: names of arguments are no phrases."""
    return document.text.removeprefix(document.metadata.get("signature", ""))


def _content_word(core: str) -> _Word | None:
    """The word, unless it is a stop word, a number, one letter, code, or too long."""
    if not 2 <= len(core) <= _LONGEST_WORD or not (core.isalnum() or all(map(_belongs, core))):
        return None
    plain = core.casefold().replace("’", "'")
    if plain in _stop_words() or not any(map(str.isalpha, core)):
        return None
    return _Word(core, _stemmer()(plain))


def _belongs(character: str) -> bool:
    # Combining marks are letters' parts: without them Indic scripts would fall to pieces.
    return character.isalnum() or character in _INSIDE or unicodedata.category(character)[0] == "M"


def _without_rarest(counts: Counter[str], most: int) -> Counter[str]:
    """The stems met more often than the one in place `most + 1`: `most` of them, or fewer, whatever their order."""
    bound = sorted(counts.values(), reverse=True)[most]
    return Counter({stem: count for stem, count in counts.items() if count > bound})


@cache
def _stop_words() -> frozenset[str]:
    from bm25s.stopwords import STOPWORDS_EN_PLUS

    return frozenset(STOPWORDS_EN_PLUS)


@cache
def _stemmer() -> Callable[[str], str]:
    import Stemmer

    stem: Callable[[str], str] = Stemmer.Stemmer("english").stemWord
    return stem
