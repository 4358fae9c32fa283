"""Pseudo-queries for text without labels: title -> text, first sentence -> rest, random span -> rest, phrases -> text.

Span -> rest is the Inverse Cloze Task (Lee et al., "Latent Retrieval for Weakly Supervised Open Domain Question
Answering", 2019). A title, sentence or span that becomes the query is taken out of the document: what is left must be
found by what it means. Key phrases stay in it: they come from all over the text, which would be full of holes without
them, and a user's keywords are in the documents that they are meant to find.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple, get_args

from foreword.collections.collection import Document, TrainingPair, contains, normalise
from foreword.errors import ForewordError, UnknownNameError
from foreword.settings import PseudoQueries

# A short query from a document's most telling phrases: the keywords that a hurried user would type.
#
# A phrase is up to four content words in a row, nothing between them but spaces; its worth is the sum of its words'
# tf-idf (Salton & Buckley, "Term-weighting approaches in automatic text retrieval", 1988; for phrases as in Hasan &
# Ng, "Conundrums in Unsupervised Keyphrase Extraction", 2010), each less the document's mean, so that a dull word at
# its edge makes a phrase worse, not better.


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
            # Stems met more often than the one in the place after: as many, or fewer, whatever their order.
            bound = sorted(counts.values(), reverse=True)[most // 2]
            counts = Counter({stem: count for stem, count in counts.items() if count > bound})
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
    for phrase in sorted(_phrases(runs, frequencies), key=lambda p: (-p.worth, -len(p.words), p.start)):
        if len(chosen) == MAX_PHRASES or (phrase.worth <= 0 and len(taken) >= MIN_WORDS):
            break
        stems = {word.stem for word in phrase.words}
        if not stems & taken and len(stems) + len(taken) <= MAX_WORDS:
            chosen.append(phrase)
            taken |= stems
    if len(taken) < MIN_WORDS:
        return ""
    return " ".join(word.text for phrase in sorted(chosen, key=lambda p: p.start) for word in phrase.words)


def _phrases(runs: Sequence[Sequence[_Word]], frequencies: Frequencies) -> Iterator[_Phrase]:
    """Every row of up to `MAX_PHRASE_WORDS` words inside a run in which no stem comes twice.

    A stem weighs `(1 + ln tf) * idf`, less the mean of all: what a word tells above what most words here do.
    """
    counts = Counter(word.stem for run in runs for word in run)
    weights = {stem: (1 + math.log(count)) * frequencies.idf(stem) for stem, count in counts.items()}
    mean = math.fsum(weights.values()) / max(1, len(weights))
    # Rounded, so that equal phrases tie whatever the order in which their words are added.
    weights = {stem: round(weight - mean, 9) for stem, weight in weights.items()}
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
    # A signature that the text begins with is left out: names of arguments are no phrases.
    prose = document.text.removeprefix(document.metadata.get("signature", ""))
    for part in (document.title, prose):
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


def _content_word(core: str) -> _Word | None:
    """The word, unless it is a stop word, a number, one letter, code, or too long."""
    # Combining marks are letters' parts: without them Indic scripts would fall to pieces.
    if not 2 <= len(core) <= _LONGEST_WORD or not (
        core.isalnum() or all(c.isalnum() or c in _INSIDE or unicodedata.category(c)[0] == "M" for c in core)
    ):
        return None
    stop_words, stem = _english()
    plain = core.casefold().replace("’", "'")
    if plain in stop_words or not any(map(str.isalpha, core)):
        return None
    return _Word(core, stem(plain))


@cache
def _english() -> tuple[frozenset[str], Callable[[str], str]]:
    """The stop words, and the stemmer."""
    import Stemmer
    from bm25s.stopwords import STOPWORDS_EN_PLUS

    return frozenset(STOPWORDS_EN_PLUS), Stemmer.Stemmer("english").stemWord


# The first sentence of a text, told apart from abbreviations, initials and dots in code.


# A dot after one of these does not end a sentence. Of those in _OPEN_ENDED it may, before a capital.
_ABBREVIATIONS = frozenset(
    {"e.g", "i.e", "eg", "ie", "cf", "vs", "viz", "resp", "approx", "ca", "al", "esp", "incl", "excl", "ex"}
    | {"fig", "figs", "eq", "eqs", "eqn", "sec", "sect", "ch", "vol", "vols", "pp", "ref", "refs", "tab"}
    | {"dr", "mr", "mrs", "ms", "prof", "st", "dept", "univ", "def", "thm", "lem", "prop"}
    | {"jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec"}
)
_OPEN_ENDED = frozenset({"etc", "inc", "ltd", "jr", "sr", "co", "corp", "a.m", "p.m", "u.s", "u.k", "ph.d"})
_BEFORE_NUMBER = frozenset({"no", "nos", "p", "art"})

_PARAGRAPH = re.compile(r"\n[ \t\r\f\v]*\n")
_END = re.compile(r"(?P<mark>[.!?]+)(?P<close>[\"'”’)\]`*]*)(?=\s|$)|(?P<wide>[。！？])")
_SPACES = re.compile(r"\s*")
_OPENERS = re.compile(r"\s*[\"'“‘(\[{`*:]*")  # what may stand between a sentence's end and the next word


def split_first_sentence(text: str) -> tuple[str, str]:
    """The first sentence and what follows it, both stripped; the rest is empty when there is no more.

    A blank line ends a sentence too. Spaces within both parts are left as they are.

    >>> split_first_sentence("Use torch.nn, e.g. for layers. Then train.")
    ('Use torch.nn, e.g. for layers.', 'Then train.')
    """
    start, end = next(sentence_spans(text), (0, 0))
    return text[start:end].strip(), text[end:].strip()


def first_sentence(text: str) -> str:
    """The first sentence of a text."""
    return split_first_sentence(text)[0]


def split_sentences(text: str) -> list[str]:
    """All sentences of a text, in order."""
    return [text[start:end].strip() for start, end in sentence_spans(text)]


def sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """Where each sentence begins and ends. A book is gone through once, and no part of it copied."""
    start, last = _SPACES.match(text).end(), len(text.rstrip())  # type: ignore[union-attr]  # matches everywhere
    while start < last:
        blank = _PARAGRAPH.search(text, start, last)
        stop = last if blank is None else blank.start()
        capital = next((place for place in range(stop - 1, start - 1, -1) if text[place].isupper()), -1)
        while start < stop:
            cased, first = capital >= start, start
            marks = _END.finditer(text, start, stop)
            ends = (m.end() for m in marks if m["wide"] or _ends_sentence(text, m, first, stop, cased))
            end = next(ends, stop)
            yield start, end
            start = _SPACES.match(text, end).end()  # type: ignore[union-attr]


def _ends_sentence(text: str, match: re.Match[str], start: int, stop: int, cased: bool) -> bool:
    """Whether the mark found is the end of the sentence that begins at `start`, by the words before and after it.

    The paragraph ends at `stop`; `cased`: the rest of it, from `start`, has capitals.
    """
    at = _OPENERS.match(text, match.end(), stop).end()  # type: ignore[union-attr]
    following = text[at : at + 1] if at < stop else ""
    if not following:
        return True
    if match["mark"] != ".":
        # "..." and "?!" inside a sentence go on in lower case.
        return not (cased and following.islower())
    at = before = match.start() - text.endswith("\n", start, match.start())
    while at > start and (text[at - 1] in "._" or text[at - 1].isalnum()):
        at -= 1
    word = text[at:before].lstrip(".").casefold()
    if not word:  # a dot set apart (" . "), as in the oldest collections
        return True
    if word in _ABBREVIATIONS:
        return False
    if word in _OPEN_ENDED:
        return following.isupper()
    if word in _BEFORE_NUMBER and following.isdigit():
        return False
    if len(word) == 1 and word.isalpha() and cased and text[match.start() - 1].isupper():
        return not following.isupper()  # an initial: "J. Smith"
    if word.isdigit() and match.start() - start == len(word):  # a list's number: "1. First"
        return False
    # Lower case after a dot is an abbreviation not listed above, unless all of the text is lower case.
    return not (cased and following.islower())


METHODS = get_args(PseudoQueries)

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
            `key-phrases` (see `foreword.collections.pseudo`), `auto`: the title where there is one, else the
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
    text, title = document.text[len(signature) :].strip(), " ".join(document.title.split())
    kept = False
    if recipe.method == "title" or (recipe.method == "auto" and title):
        if not title:
            return None
        words, length = text.split(), len(title.split())
        starts = normalise(" ".join(words[:length])) == normalise(title)  # with the title, as Cranfield's texts do
        query, rest = title, " ".join(words[length:]) if starts else text
    elif recipe.method in ("first-sentence", "auto"):
        first, rest = split_first_sentence(text)
        query = " ".join(first.split())
    else:
        chance = _random(recipe.seed, document.doc_id)
        query, rest = _span(text, chance)
        if kept := chance.random() < recipe.keep:
            rest = text
    return _Taken(query, f"{signature} {rest}" if signature else rest, kept)


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
