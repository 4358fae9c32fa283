"""Text normalisation, and train/dev/test by a hash of the normalised text.

Two texts are copies when they are equal after `normalise`; because the split is a function of the
normalised text alone, no copy straddles splits, and a new version of a source moves only what it reworded.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

FRACTIONS: tuple[tuple[str, float], ...] = (("train", 0.8), ("dev", 0.1), ("test", 0.1))
"""Each split's share of the items. A change of these moves items between splits: results then differ."""

_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_ROLE = re.compile(r":[a-zA-Z][\w:+-]*:(?=`)")
_HASH_RANGE = 1 << 64


class _PunctuationToSpace(dict[int, str]):
    """A table for `str.translate`, filled as characters are met: punctuation, symbols, controls -> space.

    Letters, digits and combining marks stay (`\\w` would lose the vowel signs of Indic scripts).
    """

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kept = " " if unicodedata.category(character)[0] in "PSZC" else character
        self[code] = kept
        return kept


_TABLE = _PunctuationToSpace()


def normalise(text: str) -> str:
    """The text as compared for equality: NFKC, casefolded, markup and punctuation out, single spaces.

    >>> normalise("  The :func:`norm`  of <b>x</b>, squared. ")
    'the norm of x squared'
    """
    if "<" in text:
        text = _TAG.sub(" ", text)
    if "`" in text:
        text = _ROLE.sub("", text)
    # Casefolding can undo NFKC (and the other way round), hence twice.
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(text.translate(_TABLE).split())


def contains(text: str, part: str) -> bool:
    """Whether normalised `part` occurs, in whole words, in normalised `text`; an empty part does not."""
    return bool(part) and f" {part} " in f" {text} "


def split_of(text: str, seed: int = 0) -> str:
    """`"train"`, `"dev"` or `"test"`, fixed by the SHA-256 of the normalised text (and the seed, unless it is 0)."""
    normal = normalise(text)
    hashed = normal if seed == 0 else f"{seed}\x1f{normal}"  # no normalised text has a control character
    digest = hashlib.sha256(hashed.encode("utf-8", "surrogatepass")).digest()
    position = int.from_bytes(digest[:8], "big") / _HASH_RANGE
    bound = 0.0
    for name, share in FRACTIONS[:-1]:
        bound += share
        if position < bound:
            return name
    return FRACTIONS[-1][0]
