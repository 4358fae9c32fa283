"""Long documents in passages: cut where sentences and sections end, each headed by the document's title.

A model takes so many tokens of a text and passes over the rest. What is longer is cut into passages that overlap, by
the backbone's own tokens, and a document's score is its best passage's (MaxP: Dai and Callan, Deeper Text Understanding
for IR with Contextual Neural Language Modeling, SIGIR 2019). `Cutter` is the one place that cuts, and
`foreword.retrieval.search.exact_search` the one that joins what it searches itself.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from foreword.collections.collection import Document
from foreword.collections.pseudo import sentence_spans
from foreword.errors import ForewordError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

MOST_CHARACTERS = 1_000_000
"""Of a document that are looked at: a book of five hundred pages, in some 1,100 passages of 256 tokens."""

OVERLAP = 8
"""A passage begins at most an eighth of its room before the last one's end."""

TITLE = 4
"""A title takes at most a quarter of a passage."""

BLOCK = 100
"""Documents that are tokenised at a time."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document; of one that the model takes whole, all of it.

    Attributes:
        number: from 1, in the order of the text.
        of: how many passages the document has.
        start: where `document.text[start:end]`, the piece, begins, in characters as Python counts them.
        end: where it ends.
        content: what is embedded: the document's title and the piece.
    """

    doc_id: str
    number: int
    of: int
    start: int
    end: int
    content: str

    @property
    def place(self) -> dict[str, int] | None:
        """`number`, `of`, `start` and `end`, as JSON values; None for a document that is whole."""
        return None if self.of == 1 else {name: getattr(self, name) for name in ("number", "of", "start", "end")}


@dataclass
class Coverage:
    """What of the documents is embedded, counted while they are.

    Attributes:
        documents: gone through.
        whole: of them, those that the model takes whole, in one piece.
        passages: pieces of the others.
        characters: of titles and texts.
        left_out: of these characters, those that no piece holds.
    """

    documents: int = 0
    whole: int = 0
    passages: int = 0
    characters: int = 0
    left_out: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The counts, and the `share_left_out`, 0 to 1."""
        return {**vars(self), "share_left_out": round(self.left_out / max(1, self.characters), 4)}

    def __str__(self) -> str:
        said = f"{self.whole:,} of {self.documents:,} documents whole"
        if self.passages > self.documents - self.whole:
            said += f", the others split into {self.passages:,} passages"
        percent = 100 * self.left_out / max(1, self.characters)
        return f"{said}; {_percent(percent)} of the text is left out" if self.left_out else said


def _percent(percent: float) -> str:
    return "less than 1 %" if percent < 1 else "more than 99 %" if percent > 99 else f"{percent:.0f} %"


def wanted(passages: bool | None, length: int | None) -> bool:
    """Whether documents are cut into passages: as asked, and (None) unless a length to cut them to was given."""
    return length is None if passages is None else passages


class Cutter:
    """Cuts documents into passages that the model takes whole, title and the backbone's own words included.

    It keeps a copy of the tokenizer, so that it may be used while another thread encodes; itself from one thread.
    """

    def __init__(
        self,
        encoder: SentenceTransformer,
        length: int | None = None,
        *,
        passages: bool | None = None,
        coverage: Coverage | None = None,
    ) -> None:
        """Take the encoder's tokenizer and limit, which a prompt that it carries may have lowered.

        Args:
            encoder: from `foreword.load_encoder`.
            length: tokens of a passage, special ones included; None: the encoder's limit.
            passages: False: a document is one piece, cut when it is embedded; None: see `wanted`.
            coverage: counts what is cut, and what is lost.

        Raises:
            ForewordError: passages are asked for, and the tokenizer does not say where in a text its tokens are.
        """
        from foreword.prompts.encoder import text_prompt, transformer_of

        transformer = transformer_of(encoder)
        tokenizer: Any = transformer.tokenizer
        self.passages, self._coverage = wanted(passages, length), coverage
        self.room: int | None = None
        """Tokens of a title and a piece together; None: no limit, or nobody asks."""
        if self.passages and not getattr(tokenizer, "is_fast", False):
            lacking = f"{type(tokenizer).__name__} does not say where in a text its tokens are: documents are cut"
            if passages:
                raise ForewordError(f"{lacking}, and not into passages (--no-passages)")
            logger.warning("%s", lacking)
            self.passages = False
        limits = [limit for limit in (length, transformer.max_seq_length) if limit is not None]
        if limits and getattr(tokenizer, "is_fast", False) and (self.passages or coverage is not None):
            words = text_prompt(encoder, "document") or ""
            self.room = max(1, min(limits) - len(tokenizer(words, truncation=False)["input_ids"]))
            self._tokens = copy.deepcopy(tokenizer.backend_tokenizer)
            self._tokens.no_truncation()
            self._tokens.no_padding()

    def __call__(self, documents: Sequence[Document]) -> list[list[Passage]]:
        """Each document's passages, in the order of its text; there is always one."""
        found: list[Any] = [()] * len(documents)
        if self.room is not None:
            texts = [_HALVES.sub("?", document.content[:MOST_CHARACTERS]) for document in documents]
            found = self._tokens.encode_batch(texts, add_special_tokens=False)
        return [self._cut(document, tokens) for document, tokens in zip(documents, found, strict=True)]

    def blocks(self, documents: Iterable[Document], size: int) -> Iterator[list[Passage]]:
        """The passages of documents in blocks of about so many, and at least one document's."""
        rest, block = iter(documents), list[Passage]()
        while some := list(islice(rest, BLOCK)):
            for pieces in self(some):
                if block and len(block) + len(pieces) > size:
                    yield block
                    block = []
                block += pieces
        if block:
            yield block

    def _cut(self, document: Document, tokens: Any) -> list[Passage]:
        content = document.content
        pieces = [Passage(document.doc_id, 1, 1, 0, len(document.text), content)]
        kept = len(content)
        if self.room is not None and (len(tokens) > self.room or len(content) > MOST_CHARACTERS):
            places = np.array(tokens.offsets, dtype=np.int64).reshape(-1, 2)
            cut_up = self._pieces(document, places, self.room) if self.passages else []
            pieces = cut_up or pieces  # a title without a text is one piece
            kept = min(kept, MOST_CHARACTERS) if cut_up else int(places[: self.room, 1].max(initial=0))
        if self._coverage is not None:
            long = self.room is not None and (len(tokens) > self.room or kept < len(content))
            self._coverage.documents += 1
            self._coverage.whole += not long
            self._coverage.passages += len(pieces) if long else 0
            self._coverage.characters += len(content)
            self._coverage.left_out += len(content) - kept
        return pieces

    def _pieces(self, document: Document, places: np.ndarray[Any, Any], room: int) -> list[Passage]:
        """The passages of a document whose content's tokens are at `places` (n, 2)."""
        title, text = document.title, document.text[:MOST_CHARACTERS]
        before = 0  # characters of the content that come before the text; blanks at the content's ends were stripped
        if title:
            both = f"{title} {text}"
            before = len(title) + 1 - (len(both) - len(both.lstrip()))
        own = places[:, 1] > before
        heading = places[~own][: room // TITLE]
        title = document.content[: int(heading[-1, 1])] if len(heading) else ""
        spans = cut(text, places[own] - before, room - len(heading)) if own.any() else []
        return [
            Passage(document.doc_id, number, len(spans), start, end, f"{title} {text[start:end]}".strip())
            for number, (start, end) in enumerate(spans, start=1)
        ]


_HALVES = re.compile("[\ud800-\udfff]")
"""Halves of surrogate pairs, which no tokenizer reads; whoever encodes them is told."""

_WORDS = re.compile(r"(?<=\s)\S")
_ITEMS = re.compile(r"^[ \t]*[-*+•]\s", re.MULTILINE)
_HEADINGS = re.compile(r"^(?:#{1,6}\s|[^\n]+\n(?:=+|-+|~+)[ \t]*$)", re.MULTILINE)
_TOKEN, _WORD, _SENTENCE, _HEADING = range(4)


def cut(text: str, places: np.ndarray[Any, Any], room: int) -> list[tuple[int, int]]:
    """Where the passages of a text begin and end, in characters.

    A passage ends before the last heading in its second half; where there is none before the last sentence there, else
    the last word, else after its last token (as in Chinese, or in one word without end). The next begins with the first
    sentence (word, token) of the overlap, and at a heading without one. Together they hold all of the text's tokens.

    Args:
        places: (n, 2), where the text's tokens begin and end.
        room: tokens of a passage.
    """
    n, overlap = len(places), room // OVERLAP
    starts = np.zeros(n + 1, dtype=np.uint8)  # what begins with a token
    words, items, headings = ([m.start() for m in found.finditer(text)] for found in (_WORDS, _ITEMS, _HEADINGS))
    sentences = [start for start, _ in sentence_spans(text)]
    for kind, where in ((_WORD, words), (_SENTENCE, sentences), (_SENTENCE, items), (_HEADING, headings)):
        starts[np.searchsorted(places[:, 1], where, side="right")] = kind
    starts[0] = _TOKEN
    spans, begin = [], 0
    while begin + room < n:
        half = begin + room // 2 + 1
        window = starts[half : begin + room + 1]
        end = half + int(np.flatnonzero(window == window.max())[-1])
        spans.append((begin, end))
        begin = end
        if overlap and starts[end] != _HEADING:
            begin -= overlap - int(starts[end - overlap : end].argmax())
    spans.append((begin, n))
    return [(int(places[first, 0]), int(places[last - 1, 1])) for first, last in spans]
