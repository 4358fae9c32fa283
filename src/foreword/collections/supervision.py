"""Which labels a domain prompt is trained by: the collection's train split, its dev split, or none of its own.

Never the test split's. `supervise` gives a view with train and dev splits, and `facts["supervision"]` says how they
came about, so that every result can say it.
"""

from __future__ import annotations

from collections.abc import Mapping

from foreword.collections.folds import METHOD as K_FOLD
from foreword.collections.folds import Fold, FoldCollection
from foreword.collections.pseudo_view import METHOD as PSEUDO_QUERIES
from foreword.collections.pseudo_view import MOST, PseudoQueries
from foreword.collections.records import Collection
from foreword.collections.resplit import Part, Resplit, held_out, position
from foreword.collections.splits import normalise
from foreword.common.errors import DataError, UnknownNameError

METHODS = ("auto", "train", "dev", PSEUDO_QUERIES, K_FOLD)
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

    `k-fold` comes only when asked for: see `foreword.collections.folds`. Queries whose text is that of a query to
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
    if folds is not None or method == K_FOLD:
        return _fold(collection, folds, method, seed, dev_share)
    chosen = _first_there(collection) if method == "auto" else method
    if chosen == PSEUDO_QUERIES:
        return PseudoQueries(collection, method=pseudo, seed=seed, dev_share=dev_share, most=most)
    if chosen not in collection.splits:
        raise DataError(_refusal(collection, chosen))
    return Labelled(collection, chosen, seed=seed, dev_share=dev_share)


def require_reported(supervision: Mapping[str, object], split: str, collection_id: str) -> None:
    """Raise `DataError` when a split of the original collection helped to train or to choose a prompt.

    Args:
        supervision: what `facts["supervision"]` said when the prompt was trained.
        split: of the original collection, to be reported.
        collection_id: for the message.
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
        counts = {"train_queries": self.count("train"), "dev_queries": self.count("dev")}
        return {
            "method": self.method,
            **counts,
            "copies_left_out": self.copies,
            "seed": self.seed,
            "reported": list(self.reported),
        }


def _first_there(collection: Collection) -> str:
    """The best labels a collection has; a dev split that is the reported one is not for training."""
    if "train" in collection.splits:
        return "train"
    usable = "dev" in collection.splits and headline_split(collection) != "dev"
    return "dev" if usable else PSEUDO_QUERIES


def _fold(collection: Collection, folds: str | None, method: str, seed: int, dev_share: float) -> FoldCollection:
    if method not in ("auto", K_FOLD):
        raise DataError(f"folds are of the supervision {K_FOLD!r}, not of {method!r}")
    if folds is None:
        raise DataError(f"{K_FOLD} needs to know which fold: folds='1of5', or the id {collection.id}#fold1of5")
    fold = Fold.of(folds)
    return FoldCollection(collection, fold if "@" in folds else Fold(fold.fold, fold.folds, seed), dev_share=dev_share)


def _refusal(collection: Collection, method: str) -> str:
    have = ", ".join(collection.splits) or "none"
    others = [name for name in ("train", "dev") if name in collection.splits] + [PSEUDO_QUERIES]
    if "test" in collection.splits:
        others.append(f"{K_FOLD} ({collection.id}#fold1of5)")
    return (
        f"{collection.id} has no {method} split (it has: {have}), and test judgements are never trained on; "
        f"it can be supervised by {' or '.join(others)}"
    )
