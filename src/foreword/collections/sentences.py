"""The first sentence of a text, told apart from abbreviations, initials and dots in code."""

from __future__ import annotations

import re

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
_WORD_BEFORE = re.compile(r"[\w.]*$")
_OPENERS = "\"'“‘([{`*:"


def split_first_sentence(text: str) -> tuple[str, str]:
    """The first sentence and what follows it, both stripped; the rest is empty when there is no more.

    A blank line ends a sentence too. Spaces within both parts are left as they are.

    >>> split_first_sentence("Use torch.nn, e.g. for layers. Then train.")
    ('Use torch.nn, e.g. for layers.', 'Then train.')
    """
    text = text.strip()
    blank = _PARAGRAPH.search(text)
    paragraph = text if blank is None else text[: blank.start()]
    cased = any(character.isupper() for character in paragraph)
    for match in _END.finditer(paragraph):
        if match["wide"] or _ends_sentence(paragraph, match, cased):
            return paragraph[: match.end()].strip(), text[match.end() :].strip()
    return paragraph.strip(), text[len(paragraph) :].strip()


def first_sentence(text: str) -> str:
    """The first sentence of a text."""
    return split_first_sentence(text)[0]


def split_sentences(text: str) -> list[str]:
    """All sentences of a text, in order."""
    sentences = []
    while text:
        first, text = split_first_sentence(text)
        if first:
            sentences.append(first)
    return sentences


def _ends_sentence(text: str, match: re.Match[str], cased: bool) -> bool:
    """Whether the mark found is the end of a sentence, by the word before it and the one after it."""
    following = text[match.end() :].lstrip().lstrip(_OPENERS)[:1]
    if not following:
        return True
    if match["mark"] != ".":
        # "..." and "?!" inside a sentence go on in lower case.
        return not (cased and following.islower())
    found = _WORD_BEFORE.search(text, 0, match.start())
    word = found[0].lstrip(".").casefold() if found else ""
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
    if word.isdigit() and match.start() == len(word):  # a list's number: "1. First"
        return False
    # Lower case after a dot is an abbreviation not listed above, unless all of the text is lower case.
    return not (cased and following.islower())
