"""Which labels a domain prompt is trained by: the collection's train split, its dev split, or none of its own.

Never the test split's. `supervise` gives a view with train and dev splits, and `facts["supervision"]` says how they
came about, so that every result can say it.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import re
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from foreword.collections.collection import (
    SPLITS,
    Collection,
    DataWarning,
    Document,
    Qrels,
    Query,
    TrainingPair,
    View,
    fingerprint,
    normalise,
    require_split,
)
from foreword.collections.pseudo import Frequencies, frequencies_for, pseudo_pairs
from foreword.errors import DataError, ForewordError, UnknownNameError
from foreword.files import scratch_folder, write_json

# Which part a query falls in is a function of its normalised text and a seed alone, so copies of one query stay
# together, and leaving out some queries moves none of the others.

_RANGE = 1 << 64


def position(text: str, salt: str, seed: int) -> float:
    """A text's place in [0, 1): the SHA-256 of purpose, seed and normalised text. Copies have the same place."""
    digest = hashlib.sha256(f"{salt}\0{seed}\0{normalise(text)}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / _RANGE


def held_out(positions: Mapping[str, float], share: float, what: str) -> frozenset[str]:
    """The ids whose place (from `position`) is below `share`: at least one text's, and never all of them.

    Raises:
        DataError: fewer than two different texts of `what`, as the message says.
        ForewordError: the share is not above 0 and below 1.
    """
    if not 0 < share < 1:
        raise ForewordError(f"the share of queries held out as dev lies between 0 and 1, got {share}")
    low, high = min(positions.values(), default=0.0), max(positions.values(), default=0.0)
    if low == high:
        got = "one query" if positions else "no queries"
        raise DataError(f"{what}: {got}, too few to divide into train and dev; at least two different ones are needed")
    return frozenset(name for name, place in positions.items() if place != high and (place < share or place == low))


@dataclass(frozen=True, slots=True)
class Part:
    """Where a split comes from: queries of one split of the source."""

    split: str
    query_ids: frozenset[str] | None = None
    """None: all of them."""


class Resplit(View, ABC):
    """A collection with the documents of `source`, and splits made of parts of its splits.

    Streams like `source`; query ids are all that is held, from the first use of a query, a judgement or `facts`.
    """

    def __init__(self, source: Collection, splits: Iterable[str]) -> None:
        self.source = source
        offered = set(splits)
        self._splits = tuple(split for split in SPLITS if split in offered)
        self._found: Mapping[str, Part] | None = None

    @abstractmethod
    def make_parts(self) -> Mapping[str, Part]:
        """The part of each split; called once."""

    @abstractmethod
    def supervision(self) -> Mapping[str, object]:
        """What `facts` says under `supervision`: the method, the counts, the seed."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that it offers, in the order train, dev, test."""
        return self._splits

    @property
    def facts(self) -> Mapping[str, object]:
        """The source's, and `supervision`."""
        own = self.supervision()
        return {**self.source.facts, "supervision": own}

    @property
    def own_corpora(self) -> tuple[str, ...]:
        """All, when parts of the source's have corpora of their own."""
        return self.splits if self.source.own_corpora else ()

    def documents_for(self, split: str) -> Iterable[Document]:
        """The corpus that a split's judgements are about."""
        return self.source.documents_for(self._part(split).split)

    def queries(self, split: str = "test") -> Iterator[Query]:
        """The queries of a split. Raises `UnknownNameError` for a split that is not there."""
        part = self._part(split)
        return (q for q in self.source.queries(part.split) if part.query_ids is None or q.query_id in part.query_ids)

    def qrels(self, split: str = "test") -> Qrels:
        """The judgements of a split's queries."""
        part = self._part(split)
        qrels = self.source.qrels(part.split)
        return qrels if part.query_ids is None else {q: judged for q, judged in qrels.items() if q in part.query_ids}

    def pairs(self, split: str = "train", *, hard_negatives: int | None = None) -> Iterator[TrainingPair]:
        """The source's pairs of a split's queries."""
        part = self._part(split)
        pairs = self.source.pairs(part.split, hard_negatives=hard_negatives)
        return (pair for pair in pairs if part.query_ids is None or pair.query_id in part.query_ids)

    def _part(self, split: str) -> Part:
        require_split(self.id, split, self.splits)
        return self.parts[split]

    @property
    def parts(self) -> Mapping[str, Part]:
        """The part of each split."""
        if self._found is None:
            self._found = self.make_parts()
        return self._found

    def count(self, split: str) -> int:
        """How many queries a split has that is given by its ids; else they are counted in the source."""
        part = self.parts[split]
        return len(part.query_ids) if part.query_ids is not None else sum(1 for _ in self.source.queries(part.split))


# Folds of a collection that has test judgements alone: `glasgow/cranfield#fold1of5`.
#
# The queries are divided into k folds; fold i is the test split of `#fold<i>of<k>`, the other folds' queries are its
# train and dev. Over all k, every query is tested once, by a prompt that never saw it.

FOLD_METHOD = "k-fold"
FOLD_DEV_SHARE = 0.1
"""Of the queries outside the fold."""

_SUFFIX = re.compile(r"(\d+)of(\d+)(?:@(-?\d+))?")
_MARK = "#fold"


@dataclass(frozen=True, slots=True)
class Fold:
    """One of `folds` folds, counted from 1.

    Raises:
        UnknownNameError: fewer than two folds, or no such fold.
    """

    fold: int
    folds: int
    seed: int = 0
    """Of the division; another seed gives other folds."""

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise UnknownNameError(f"at least 2 folds are needed, got {self.folds}: #fold1of5 is the first of five")
        if not 1 <= self.fold <= self.folds:
            raise UnknownNameError(f"no fold {self.fold} of {self.folds}; they are numbered from 1 to {self.folds}")

    @property
    def suffix(self) -> str:
        """What is put behind a collection's id: `#fold1of5`, with `@<seed>` for a seed other than 0."""
        return f"{_MARK}{self.fold}of{self.folds}" + (f"@{self.seed}" if self.seed else "")

    @classmethod
    def of(cls, text: str) -> Fold:
        """The fold that `1of5` or `1of5@7` names. Raises `UnknownNameError` for anything else."""
        found = _SUFFIX.fullmatch(text)
        if found is None:
            raise UnknownNameError(
                f"a fold is named <i>of<k> or <i>of<k>@<seed>, e.g. 1of5 (id: #fold1of5); got {text!r}"
            )
        return cls(int(found[1]), int(found[2]), int(found[3] or 0))


def split_fold(collection_id: str) -> tuple[str, Fold | None]:
    """An id without its fold, and the fold: `("beir/arguana", Fold(2, 5, 7))` of `beir/arguana#fold2of5@7`.

    Raises:
        UnknownNameError: `#fold` followed by something else, or by a fold that cannot be.
    """
    base, mark, fold = collection_id.rpartition(_MARK)
    if not mark or "/" in fold:  # a folder's path may have such a part
        return collection_id, None
    return base, Fold.of(fold)


class FoldCollection(Resplit):
    """`source` with fold i of its judged test queries as test, and the others as train and dev.

    The folds are a partition: by the SHA-256 of the seed and the normalised text, so that copies of a query are in
    one fold. Splits of the source other than test are not offered.

    Args:
        source: with a test split.
        fold: which fold, of how many, by which seed.
        dev_share: of the queries outside the fold, held out of train to choose by.

    Raises:
        DataError: no test split; or, at the first use of the queries, an empty fold or too few others.
    """

    def __init__(self, source: Collection, fold: Fold, *, dev_share: float = FOLD_DEV_SHARE) -> None:
        if "test" not in source.splits:
            have = ", ".join(source.splits) or "none"
            raise DataError(f"{source.id} has no test split (it has: {have}); folds are folds of test queries")
        super().__init__(source, ("train", "dev", "test"))
        self.fold, self.dev_share = fold, dev_share

    @property
    def id(self) -> str:
        """The source's, with the fold behind it."""
        return self.source.id + self.fold.suffix

    def make_parts(self) -> Mapping[str, Part]:
        """Every test query's part, by its text."""
        fold = self.fold
        inside: set[str] = set()
        others: dict[str, float] = {}
        for query in self.source.queries("test"):
            if int(position(query.text, "fold", fold.seed) * fold.folds) == fold.fold - 1:
                inside.add(query.query_id)
            else:
                others[query.query_id] = position(query.text, "fold-dev", fold.seed)
        if not inside:
            raise DataError(
                f"{self.id} has no test queries: the {len(others)} of {self.source.id} are too few for {fold.folds} "
                "folds; take fewer folds, or another seed (#fold1of5@7)"
            )
        dev = held_out(others, self.dev_share, f"{self.id}, outside the fold")
        return {
            "train": Part("test", frozenset(others.keys() - dev)),
            "dev": Part("test", dev),
            "test": Part("test", frozenset(inside)),
        }

    def supervision(self) -> Mapping[str, object]:
        """The fold and the counts; only its test split may be reported."""
        return {
            "method": FOLD_METHOD,
            "folds": self.fold.folds,
            "fold": self.fold.fold,
            "seed": self.fold.seed,
            **{f"{split}_queries": self.count(split) for split in self.splits},
            "reported": ["test"],
        }


PSEUDO_METHOD = "pseudo-queries"
MOST = 100_000
"""Pseudo-queries by default; memory grows with them, not with the corpus."""


class PseudoQueries(View):
    """`source` with pseudo-queries as train and dev, each with the rest of its document; its test split as it is.

    A pseudo-query that is, word for word, a query of the source's dev or test split is left out, so that no query
    to be reported is trained on by chance; nothing else of the source's queries and judgements is looked at.

    Args:
        source: only its documents make the pairs.
        method: of `foreword.collections.pseudo`.
        seed: of the spans, of the choice of documents and of the division into train and dev.
        dev_share: of the pseudo-queries, held out as dev, copies together.
        most: pseudo-queries at most; of a larger corpus, those of a sample of its documents.

    Raises:
        DataError: at the first use of the queries: the documents give too few.
    """

    def __init__(
        self, source: Collection, *, method: str = "auto", seed: int = 0, dev_share: float = 0.1, most: int = MOST
    ) -> None:
        if most < 2:
            raise ForewordError(f"at least 2 pseudo-queries are needed, got most={most}")
        self.source = source
        self._splits = ("train", "dev", *(["test"] if "test" in source.splits else []))
        self.method, self.seed, self.dev_share, self.most = method, seed, dev_share, most
        self._reported = tuple(split for split in source.splits if split != "train")
        self._found: dict[str, str] | None = None
        self._skipped: Counter[str] = Counter()

    @property
    def splits(self) -> tuple[str, ...]:
        """Train and dev, and the source's test split."""
        return self._splits

    @property
    def facts(self) -> Mapping[str, object]:
        """The source's, and `supervision`: the method, the counts, and that all its splits may be reported."""
        counts = Counter(self._split_of().values())
        supervision = {
            "method": PSEUDO_METHOD,
            "train_queries": counts["train"],
            "dev_queries": counts["dev"],
            "seed": self.seed,
            "made_by": self.method,
            "skipped": dict(sorted(self._skipped.items())),
            "reported": list(self._reported),
        }
        return {**self.source.facts, "supervision": supervision}

    @property
    def own_corpora(self) -> tuple[str, ...]:
        """Train and dev: `documents()` is the source's, whole, as test queries search them."""
        return ("train", "dev")

    def documents_for(self, split: str) -> Iterable[Document]:
        """For train and dev, the documents without the texts that became queries; for test, `documents()`."""
        require_split(self.id, split, self.splits)
        return self.documents() if split == "test" else self._rests()

    def queries(self, split: str = "test") -> Iterable[Query]:
        """The pseudo-queries of train and dev; the source's test queries."""
        require_split(self.id, split, self.splits)
        if split == "test":
            return self.source.queries(split)
        return (Query(pair.query_id, pair.query) for pair in self.pairs(split))

    def qrels(self, split: str = "test") -> Qrels:
        """Each pseudo-query's one document; the source's test judgements."""
        require_split(self.id, split, self.splits)
        if split == "test":
            return self.source.qrels(split)
        return {pair.query_id: {pair.doc_id: 1} for pair in self.pairs(split)}

    def pairs(self, split: str = "train", *, hard_negatives: int | None = None) -> Iterator[TrainingPair]:
        """The pairs of train or dev; there are no hard negatives. Raises `DataError` for test."""
        require_split(self.id, split, self.splits)
        if split == "test":
            raise DataError(f"{self.id} is supervised by {PSEUDO_METHOD}; its test split gives no training pairs")
        chosen = self._split_of()
        return (pair for pair in self._made() if chosen.get(pair.doc_id) == split)

    @cached_property
    def _frequencies(self) -> Frequencies | None:
        """Of the source's words, where the method needs them; one pass over the corpus."""
        return frequencies_for(self.method, self.source.documents())

    def _made(self, skipped: Counter[str] | None = None) -> Iterator[TrainingPair]:
        return self._pairs_of(self.source.documents(), skipped)

    def _pairs_of(self, documents: Iterable[Document], skipped: Counter[str] | None = None) -> Iterator[TrainingPair]:
        return pseudo_pairs(documents, self.method, self.seed, frequencies=self._frequencies, skipped=skipped)

    def _rests(self) -> Iterator[Document]:
        chosen = self._split_of()
        for document in self.source.documents():
            if document.doc_id in chosen:
                (pair,) = self._pairs_of([document])
                yield Document(document.doc_id, pair.document, "", document.metadata)
            else:
                yield document

    def _split_of(self) -> dict[str, str]:
        """`doc_id -> train or dev` of the documents that give a pseudo-query; one pass over the corpus."""
        if self._found is None:
            judged = {normalise(q.text) for split in self._reported for q in self.source.queries(split)}
            skipped: Counter[str] = Counter()
            kept = heapq.nsmallest(self.most, self._candidates(judged, skipped))
            positions = {doc_id: place for _, doc_id, place in kept}
            dev = held_out(positions, self.dev_share, f"{self.id}, pseudo-queries")
            self._skipped = skipped
            self._found = {doc_id: "dev" if doc_id in dev else "train" for doc_id in positions}
        return self._found

    def _candidates(self, judged: set[str], skipped: Counter[str]) -> Iterator[tuple[float, str, float]]:
        """Each pair's place in the sample, its doc_id, and its place in the division into train and dev."""
        for pair in self._made(skipped):
            if normalise(pair.query) in judged:
                skipped["is_a_judged_query"] += 1
            else:
                yield position(pair.doc_id, "sample", self.seed), pair.doc_id, position(pair.query, "dev", self.seed)


def sampled_pairs(
    collection: Collection, kinds: Iterable[str], *, documents: int, seed: int = 0, fewest: int = 10
) -> dict[str, list[TrainingPair]]:
    """Pseudo-queries by kind, where a kind gives `fewest` or more: of the documents first in a seeded order.

    Args:
        collection: only its documents are looked at.
        kinds: methods of `foreword.collections.pseudo`.
        documents: that queries are made of, at most.
        seed: of the order, and of the pseudo-queries.
        fewest: pairs that a kind needs.
    """
    places = {doc.doc_id: position(doc.doc_id, "proof", seed) for doc in collection.documents()}
    chosen = set(heapq.nsmallest(documents, places, key=lambda doc_id: (places[doc_id], doc_id)))
    sample = [doc for doc in collection.documents() if doc.doc_id in chosen]
    found: dict[str, list[TrainingPair]] = {}
    for kind in kinds:
        counted = frequencies_for(kind, collection.documents())
        pairs = list(pseudo_pairs(sample, kind, seed, frequencies=counted))
        if len(pairs) >= fewest:
            found[kind] = pairs
    return found


METHODS = ("auto", "train", "dev", PSEUDO_METHOD, FOLD_METHOD)
DEV_SHARE = 0.1


def supervise(
    collection: Collection,
    *,
    folds: str | None = None,
    method: str = "auto",
    seed: int = 0,
    dev_share: float = DEV_SHARE,
    pseudo: str = "auto",
    most: int = MOST,
) -> Collection:
    """A view of a collection with the train and dev splits that a prompt is to be trained by; its id stays.

    `auto` takes the first of these that there is:

    - `train`: the train split. Dev is the dev split; where there is none, or where it is the split that is
      reported (MS MARCO), a share of the train queries.
    - `dev`: the dev split's queries, divided into train and dev. Only test may be reported then.
    - `pseudo-queries`: sentences of the documents; no labels at all.

    `k-fold` comes only when asked for: see `foreword.collections.supervision`. Queries whose text is that of a query to
    be reported are left out of train and dev by every method, and counted.

    Args:
        collection: any; a fold (`load("...#fold1of5")`), or what this function gave before, is returned as it is.
        folds: `<i>of<k>`, e.g. `1of5`, for `k-fold`.
        method: one of `METHODS`.
        seed: of the division into train and dev, and of the pseudo-queries.
        dev_share: of the queries (above 0, below 1), held out as dev; by a hash of the text, copies together.
        pseudo: how pseudo-queries are made, see `foreword.collections.pseudo`.
        most: pseudo-queries at most, train and dev together.

    Raises:
        UnknownNameError: no such method.
        DataError: the collection lacks the split that the method needs, or has too few queries to divide.
    """
    if method not in METHODS:
        refused = "; test judgements are never trained on" if method == "test" else ""
        raise UnknownNameError(f"unknown supervision {method!r}; known: {', '.join(METHODS)}{refused}")
    done = collection.facts.get("supervision")
    if isinstance(done, Mapping):
        if folds is None and method in ("auto", done["method"]):
            return collection
        raise DataError(f"{collection.id} is supervised by {done['method']!r} already; give the collection itself")
    if folds is not None or method == FOLD_METHOD:
        if method not in ("auto", FOLD_METHOD):
            raise DataError(f"folds are of the supervision {FOLD_METHOD!r}, not of {method!r}")
        if folds is None:
            raise DataError(f"{FOLD_METHOD} needs to know which fold: folds='1of5', or the id {collection.id}#fold1of5")
        fold = Fold.of(folds)
        fold = fold if "@" in folds else Fold(fold.fold, fold.folds, seed)
        return FoldCollection(collection, fold, dev_share=dev_share)
    chosen = method
    if method == "auto":  # a dev split that is the reported one is not for training
        usable = "dev" in collection.splits and headline_split(collection) != "dev"
        chosen = "train" if "train" in collection.splits else "dev" if usable else PSEUDO_METHOD
    if chosen == PSEUDO_METHOD:
        return PseudoQueries(collection, method=pseudo, seed=seed, dev_share=dev_share, most=most)
    if chosen not in collection.splits:
        have = ", ".join(collection.splits) or "none"
        others = [name for name in ("train", "dev") if name in collection.splits] + [PSEUDO_METHOD]
        if "test" in collection.splits:
            others.append(f"{FOLD_METHOD} ({collection.id}#fold1of5)")
        raise DataError(
            f"{collection.id} has no {chosen} split (it has: {have}), and test judgements are never trained on; "
            f"it can be supervised by {' or '.join(others)}"
        )
    return Labelled(collection, chosen, seed=seed, dev_share=dev_share)


def require_reported(supervision: Mapping[str, object], split: str, collection_id: str) -> None:
    """Raise `DataError` when a split of the original collection helped to train or to choose a prompt.

    `supervision` is what `facts["supervision"]` said when the prompt was trained.
    """
    reported = supervision.get("reported", ())
    if isinstance(reported, list | tuple) and split not in reported:
        have = ", ".join(reported) or "none of its splits"
        raise DataError(
            f"split {split!r} of {collection_id} helped to train or choose this prompt (supervision: "
            f"{supervision.get('method')}); what may be reported: {have}"
        )


def headline_split(collection: Collection) -> str:
    """The split that the collection's results are usually reported on: test, but dev for MS MARCO."""
    return str(collection.facts.get("headline_split", "test"))


class Labelled(Resplit):
    """`source` with train and dev made of its own labels (see `supervise`), and its test split as it is."""

    def __init__(self, source: Collection, method: str, *, seed: int, dev_share: float) -> None:
        offered = {"train", "dev"} | ({"test"} & set(source.splits))
        super().__init__(source, offered)
        self.method, self.seed, self.dev_share = method, seed, dev_share
        self.copies = 0
        kept_for_reports = {"test"} if method == "dev" else {"test", headline_split(source)}
        self._own_dev = method == "train" and "dev" in source.splits and "dev" not in kept_for_reports
        used = {method} | ({"dev"} if self._own_dev else set())
        self.reported = tuple(split for split in source.splits if split not in {"train", *used})

    def make_parts(self) -> Mapping[str, Part]:
        """Train and dev, without copies of the queries that are reported; neither has a copy of the other's."""
        self.copies = 0
        held = frozenset().union(*(self._texts(split) for split in self.reported))
        parts = {"test": Part("test")} if "test" in self.splits else {}
        if self._own_dev:
            dev = frozenset(self._positions("dev", held))
            train = frozenset(self._positions("train", held | self._texts("dev")))
            parts |= {"train": Part("train", train), "dev": Part("dev", dev)}
        else:
            positions = self._positions(self.method, held)
            chosen = held_out(positions, self.dev_share, f"{self.id}, split {self.method}")
            rest = frozenset(positions.keys() - chosen)
            parts |= {"train": Part(self.method, rest), "dev": Part(self.method, chosen)}
        if not parts["train"].query_ids:
            raise DataError(f"{self.id} has no training queries but copies of those that are reported")
        return parts

    def _texts(self, split: str) -> frozenset[str]:
        return frozenset(normalise(query.text) for query in self.source.queries(split))

    def _positions(self, split: str, held: frozenset[str]) -> dict[str, float]:
        """The place of each query whose text is not held; the others are counted."""
        queries = [(q.query_id, normalise(q.text)) for q in self.source.queries(split)]
        places = {query_id: position(text, "dev", self.seed) for query_id, text in queries if text not in held}
        self.copies += len(queries) - len(places)
        return places

    def supervision(self) -> Mapping[str, object]:
        """The method, the counts, and which splits of the source may be reported."""
        return {
            "method": self.method,
            "train_queries": self.count("train"),
            "dev_queries": self.count("dev"),
            "copies_left_out": self.copies,
            "seed": self.seed,
            "reported": list(self.reported),
        }


RECORD = "subsample.json"


def subsample(collection: Collection, output: Path, *, documents: int, seed: int = 0) -> Path:
    """Write a folder in BEIR's layout with a sample of the documents, every judged one, and all judgements.

    `subsample.json` in it says what it is a sample of, and `folder:PATH` repeats that in its facts, so that no
    result on it passes for one on the whole. Hard negatives are not carried over.

    Args:
        documents: to be drawn: those whose ids have the smallest SHA-256 with the seed; the judged ones are added.
        seed: of the draw.

    Raises:
        DataError: the folder is not empty, or in the source's; two queries of one id; no documents.
        ForewordError: `documents` below 1.
    """
    if split_fold(collection.id)[1] is not None:
        raise DataError(f"{collection.id} is a fold; sample its collection, and take folds of the sample")
    if documents < 1:
        raise ForewordError(f"the number of documents to draw is 1 or more, got {documents}")
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DataError("is there and not empty; name a new folder for the sample", path=output)
    place = output.resolve()
    if any(place.is_relative_to(folder.resolve()) for folder in _folders(collection.facts)):
        raise DataError(f"is in the folder of {collection.id}, which is never written to", path=output)
    drawn, total = _draw(collection, documents, seed)
    with scratch_folder(output) as temporary:
        _write(collection, temporary, drawn, total, seed)
        if output.is_dir():
            output.rmdir()
        temporary.rename(output)
    return output


def _folders(facts: object) -> Iterator[Path]:
    """Every folder that a collection's facts name as read from."""
    if isinstance(facts, Mapping):
        for name, value in facts.items():
            if name == "path" and isinstance(value, str):
                yield Path(value)
            yield from _folders(value)


def _draw(collection: Collection, documents: int, seed: int) -> tuple[set[str], int]:
    """The ids drawn, and how many documents there are; holds as many ids as are drawn."""
    total = 0

    def ranked() -> Iterator[tuple[bytes, str]]:
        nonlocal total
        for document in collection.documents():
            total += 1
            key = f"subsample\0{seed}\0{document.doc_id}".encode("utf-8", "surrogatepass")
            yield hashlib.sha256(key).digest(), document.doc_id

    drawn = {doc_id for _, doc_id in heapq.nsmallest(documents, ranked())}
    if not total:
        raise DataError(f"{collection.id} has no documents")
    return drawn, total


def _write(collection: Collection, folder: Path, drawn: set[str], total: int, seed: int) -> None:
    judged = {split: {d for docs in collection.qrels(split).values() for d in docs} for split in collection.splits}
    wanted = drawn.union(*judged.values())
    written: set[str] = set()
    with (folder / "corpus.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for doc in collection.documents():
            if doc.doc_id in wanted:
                written.add(doc.doc_id)
                record = {"_id": doc.doc_id, "title": doc.title, "text": doc.text, "metadata": dict(doc.metadata)}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
    left_out = [split for split, ids in judged.items() if not ids <= written]
    if left_out:
        message = f"{collection.id}: the judgements of {', '.join(left_out)} are about another corpus"
        warnings.warn(f"{message} and are not in the sample", DataWarning, stacklevel=3)
    _write_labels(collection, folder, [split for split in judged if split not in left_out])
    manifest = {
        "source": collection.id,
        "documents": len(written),
        "of": total,
        "drawn": len(drawn),
        "seed": seed,
        "exclude_self": collection.exclude_self,
        "splits_left_out": left_out,
        "fingerprint": fingerprint(collection),
    }
    write_json(folder / RECORD, manifest)


def _write_labels(collection: Collection, folder: Path, splits: list[str]) -> None:
    """`queries.jsonl`, each query once, and `qrels/<split>.tsv`."""
    texts: dict[str, str] = {}
    (folder / "qrels").mkdir()
    with (folder / "queries.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for split in splits:
            for query in collection.queries(split):
                if query.query_id not in texts:
                    texts[query.query_id] = query.text
                    record = {"_id": query.query_id, "text": query.text, "metadata": dict(query.metadata)}
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
                elif texts[query.query_id] != query.text:
                    raise DataError(f"{collection.id}: two queries have the id {query.query_id!r}")
    for split in splits:
        with (folder / "qrels" / f"{split}.tsv").open("w", encoding="utf-8", newline="\n") as file:
            file.write("query-id\tcorpus-id\tscore\n")
            for query_id, docs in collection.qrels(split).items():
                file.writelines(f"{query_id}\t{doc_id}\t{grade}\n" for doc_id, grade in docs.items())
