"""The records that every collection speaks in, and the collection itself."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from foreword.errors import DataError, UnknownNameError

Qrels = dict[str, dict[str, int]]
"""Judgements: `query_id -> doc_id -> relevance`; relevance 0 is judged and not relevant."""

SPLITS = ("train", "dev", "test")

T = TypeVar("T")


class DataWarning(UserWarning):
    """Something in a collection's files was skipped or mended, as is the field's convention; said once."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document; `metadata` is shown with hits and never embedded."""

    doc_id: str
    text: str
    title: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def content(self) -> str:
        """What is embedded and indexed: `<title> <text>`, as BEIR does, without stray spaces."""
        return f"{self.title} {self.text}".strip() if self.title else self.text

    @property
    def name(self) -> str:
        """What it is called on screen, see `shown_name`."""
        return shown_name(self.doc_id, self.title, self.metadata)


def shown_name(doc_id: str, title: str, metadata: Mapping[str, Any]) -> str:
    """A document's name where it has one, else its title, of a file with its path, else its id."""
    if name := metadata.get("name"):
        return str(name)
    file = str(metadata.get("file", ""))
    return f"{title} ({file})" if title and file else title or file or doc_id


@dataclass(frozen=True, slots=True)
class Query:
    """One query."""

    query_id: str
    text: str
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class TrainingPair:
    """A query with one relevant document and, when the collection has them, hard negatives (texts)."""

    query_id: str
    query: str
    doc_id: str
    document: str
    negatives: tuple[str, ...] = ()


class Collection(Protocol):
    """Documents, queries and judgements of one domain.

    Every method can be called again and again and gives its items in the same order; nothing holds the
    corpus a second time.
    """

    @property
    def id(self) -> str:
        """As given to `foreword.load`, e.g. `pydoc/torch`."""
        ...

    @property
    def group(self) -> str:
        """The family it belongs to, e.g. `pydoc`."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """Which of `train`, `dev` and `test` have judgements."""
        ...

    @property
    def exclude_self(self) -> bool:
        """Queries are documents too (ArguAna, Quora): a hit whose doc_id is the query_id is left out."""
        ...

    @property
    def facts(self) -> Mapping[str, object]:
        """What a result should record besides: counts of dropped items, versions, licence."""
        ...

    @property
    def own_corpora(self) -> tuple[str, ...]:
        """The splits whose judgements are about another corpus than `documents()`."""
        ...

    def documents(self) -> Iterable[Document]:
        """The corpus."""
        ...

    def documents_for(self, split: str) -> Iterable[Document]:
        """The corpus that a split's judgements are about: `documents()`, but for splits in `own_corpora`.

        Natural Questions' train split has a corpus of its own; pseudo-queries are taken out of the documents.
        """
        ...

    def queries(self, split: str = "test") -> Iterable[Query]:
        """The judged queries of a split. Raises `UnknownNameError` for a split that is not there."""
        ...

    def qrels(self, split: str = "test") -> Qrels:
        """The judgements of a split."""
        ...

    def pairs(self, split: str = "train", *, hard_negatives: int | None = None) -> Iterable[TrainingPair]:
        """The (query, relevant document) pairs of a split, for training.

        Each brings at most `hard_negatives` negatives (None: all there are), or fewer when there are no more.
        """
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the catalogue: a collection that `foreword.load` knows by name."""

    id: str
    group: str
    description: str
    splits: tuple[str, ...]
    """The splits it has when its files are there."""
    available: bool
    """Its files (or its package) are on this machine."""
    licence: str = ""
    home: str = ""
    """Where it comes from: a URL, or empty."""
    documents: int | None = None
    """In the corpus; None: not known before it is read."""
    queries: Mapping[str, int] = field(default_factory=dict)
    """Judged queries by split, as far as known."""
    size: int | None = None
    """Bytes to download; None: not known, or nothing to download."""
    citation: str = ""


def pairs_from_qrels(
    collection: Collection, split: str, negatives: Mapping[str, Sequence[str]] | None = None
) -> Iterator[TrainingPair]:
    """The pairs of a collection that has none of its own: every query with each of its relevant documents.

    Holds the texts of the relevant documents, and of the negatives, only.

    Args:
        collection: with judgements in `split`.
        split: of the pairs.
        negatives: doc_ids of hard negatives by query_id; ids that are not in the corpus are passed over.
    """
    negatives = negatives or {}
    qrels = collection.qrels(split)
    wanted = {doc for judged in qrels.values() for doc, relevance in judged.items() if relevance > 0}
    wanted.update(doc for query_id in qrels for doc in negatives.get(query_id, ()))
    texts = {doc.doc_id: doc.content for doc in collection.documents() if doc.doc_id in wanted}
    for query in collection.queries(split):
        judged = qrels.get(query.query_id, {})
        others = tuple(
            texts[doc] for doc in negatives.get(query.query_id, ()) if doc in texts and judged.get(doc, 0) <= 0
        )
        for doc_id, relevance in judged.items():
            if relevance > 0:
                yield TrainingPair(query.query_id, query.text, doc_id, texts[doc_id], others)


def judged_queries(collection: Collection, split: str) -> list[Query]:
    """The queries of a split. Raises `DataError` for a collection without judgements."""
    if not collection.splits:
        raise DataError(f"{collection.id} has no judgements{_cure(collection.id, split)}")
    return list(collection.queries(split))


def fingerprint(collection: Collection, splits: Iterable[str] | None = None) -> str:
    """SHA-256 over the documents and the queries and judgements of splits (None: all): 64 hexadecimal digits.

    Two results can be compared only when their collections' fingerprints are equal.
    """
    digest = hashlib.sha256()

    def add(*fields: str) -> None:
        digest.update("\x1f".join(fields).encode("utf-8", "surrogatepass") + b"\x1e")

    for doc in collection.documents():
        add("d", doc.doc_id, doc.title, doc.text)
    for split in collection.splits if splits is None else splits:
        for query in collection.queries(split):
            add("q", split, query.query_id, query.text)
        for query_id, judged in sorted(collection.qrels(split).items()):
            for doc_id, relevance in sorted(judged.items()):
                add("j", split, query_id, doc_id, str(relevance))
    return digest.hexdigest()


def require_split(collection_id: str, split: str, splits: Sequence[str]) -> None:
    """Raise `UnknownNameError`, naming the splits there are, when `split` is not one of them."""
    if split not in splits:
        have = ", ".join(splits) or "no judgements at all"
        raise UnknownNameError(f"{collection_id} has no split {split!r}; it has {have}{_cure(collection_id, split)}")


def _cure(collection_id: str, split: str) -> str:
    """What gives a folder labels of a split, for messages."""
    name = "labels.tsv" if split == "train" else f"labels-{split}.tsv"
    return f"; put labels into its {name}, QUERY<tab>FILE a line" if collection_id.startswith("folder:") else ""


def split_files(
    paths: Iterable[Path], what: str, endings: Sequence[str], names: Mapping[str, str] | None = None
) -> dict[str, Path]:
    """`split -> file` of files named by their split, plain or `.gz`; hidden ones and other endings are passed over.

    Args:
        paths: in any order.
        what: is in them, for the error.
        endings: those that count, e.g. `.tsv`.
        names: what a file's name stands for, where it is not the split itself.

    Raises:
        DataError: two files of one split.
    """
    found: dict[str, Path] = {}
    for path in sorted(paths):
        stem, dot, ending = path.name.removesuffix(".gz").rpartition(".")
        if path.name.startswith(".") or f"{dot}{ending}" not in endings or not path.is_file():
            continue
        split = (names or {}).get(stem, stem)
        if split in found:
            message = f"{what} of split {split!r} are in {found[split].name} too; keep one of them"
            raise DataError(message, path=path)
        found[split] = path
    return in_order(found)


def in_order(by_split: Mapping[str, T]) -> dict[str, T]:
    """The same, in the order train, dev, test, and then the others as they come."""
    known = [split for split in SPLITS if split in by_split]
    return {split: by_split[split] for split in [*known, *(s for s in by_split if s not in SPLITS)]}


class OneCorpus:
    """What is the same in collections whose judgements are all about one corpus, and that list no hard negatives."""

    own_corpora: tuple[str, ...] = ()

    def documents_for(self: Collection, split: str) -> Iterable[Document]:
        """The corpus."""
        return self.documents()

    def pairs(self: Collection, split: str = "train", *, hard_negatives: int | None = None) -> Iterable[TrainingPair]:
        """Every query of a split with each of its relevant documents; there are no hard negatives."""
        require_split(self.id, split, self.splits)
        return pairs_from_qrels(self, split)


@dataclass(frozen=True)
class MemoryCollection(OneCorpus):
    """A `Collection` held in memory once; `judgements` maps a split to its qrels, queries to their texts.

    Args:
        id: as given to `foreword.load`.
        group: the family.
        corpus: the documents, in order.
        query_texts: the judged queries of every split, in order.
        judgements: `split -> query_id -> doc_id -> relevance`.
        facts: what a result should record besides.
        exclude_self: leave out hits whose doc_id is the query_id.
    """

    id: str
    group: str
    corpus: tuple[Document, ...]
    query_texts: Mapping[str, tuple[Query, ...]]
    judgements: Mapping[str, Qrels]
    facts: Mapping[str, object] = field(default_factory=dict)
    exclude_self: bool = False

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have judgements, in the order train, dev, test."""
        return tuple(self.judgements)

    def documents(self) -> Iterable[Document]:
        """The corpus."""
        return self.corpus

    def queries(self, split: str = "test") -> Iterable[Query]:
        """The judged queries of a split. Raises `UnknownNameError` for a split that is not there."""
        require_split(self.id, split, self.splits)
        return self.query_texts[split]

    def qrels(self, split: str = "test") -> Qrels:
        """The judgements of a split, as the caller's own copy."""
        require_split(self.id, split, self.splits)
        return {query_id: dict(judged) for query_id, judged in self.judgements[split].items()}


class View:
    """A `Collection` seen differently: what a view does not override is the source's own."""

    source: Collection

    @property
    def id(self) -> str:
        """The source's."""
        return self.source.id

    @property
    def group(self) -> str:
        """The source's."""
        return self.source.group

    @property
    def splits(self) -> tuple[str, ...]:
        """The source's."""
        return self.source.splits

    @property
    def exclude_self(self) -> bool:
        """As in the source."""
        return self.source.exclude_self

    @property
    def facts(self) -> Mapping[str, object]:
        """The source's."""
        return self.source.facts

    @property
    def own_corpora(self) -> tuple[str, ...]:
        """The source's."""
        return self.source.own_corpora

    def documents(self) -> Iterable[Document]:
        """The source's."""
        return self.source.documents()

    def documents_for(self, split: str) -> Iterable[Document]:
        """The corpus that a split's judgements are about."""
        return self.source.documents_for(split)

    def queries(self, split: str = "test") -> Iterable[Query]:
        """The source's queries of a split."""
        return self.source.queries(split)

    def qrels(self, split: str = "test") -> Qrels:
        """The source's judgements of a split."""
        return self.source.qrels(split)

    def pairs(self, split: str = "train", *, hard_negatives: int | None = None) -> Iterable[TrainingPair]:
        """The source's pairs of a split."""
        return self.source.pairs(split, hard_negatives=hard_negatives)


# Text normalisation, and train/dev/test by a hash of the normalised text.
#
# Two texts are copies when they are equal after `normalise`; because the split is a function of the
# normalised text alone, no copy straddles splits, and a new version of a source moves only what it reworded.


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


def divided(
    judged: Iterable[tuple[Query, dict[str, int]]], seed: int = 0
) -> tuple[dict[str, tuple[Query, ...]], dict[str, Qrels]]:
    """Queries and their judgements by split, from the hash of the query's text; splits without any are left out."""
    queries: dict[str, list[Query]] = {}
    qrels: dict[str, Qrels] = {}
    for query, relevant in judged:
        split = split_of(query.text, seed)
        queries.setdefault(split, []).append(query)
        qrels.setdefault(split, {})[query.query_id] = relevant
    return {split: tuple(listed) for split, listed in in_order(queries).items()}, in_order(qrels)
