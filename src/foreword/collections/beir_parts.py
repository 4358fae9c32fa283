"""What collections of BEIR are made of: one folder, Natural Questions' two, CQADupStack's twelve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from foreword.collections.folder import FolderCollection
from foreword.collections.memory import require_split
from foreword.collections.records import Collection, Document, Qrels, Query, TrainingPair, pairs_from_qrels


def has_corpus(folder: Path) -> bool:
    """Whether a collection's corpus is in a folder."""
    return any((folder / name).is_file() for name in ("corpus.jsonl", "corpus.jsonl.gz"))


class BeirCollection(FolderCollection):
    """A folder of which it is known what must be in it.

    Args:
        collection_id: as given to `foreword.load`.
        path: the folder.
        about: its facts in `data/beir.json`.
        group: the family.
    """

    def __init__(self, collection_id: str, path: Path, about: Mapping[str, Any], *, group: str) -> None:
        super().__init__(collection_id, path, group=group, exclude_self=about.get("exclude_self", False))
        self._about = about

    @property
    def facts(self) -> Mapping[str, object]:
        """The folder's, what the whole collection has, its licence, and the split that is reported if not test."""
        return {**super().facts, **known_facts(self._about)}

    def documents(self) -> Iterator[Document]:
        """The corpus, streamed; at its end, a warning if documents are missing, unless it is a sample."""
        count = 0
        for document in super().documents():
            count += 1
            yield document
        missing = (self._about["documents"] or 0) - count
        if missing > 0 and "subsample" not in self.facts:
            message = f"{self.id} has {count} documents; the whole collection has {self._about['documents']}"
            self._note("missing_documents", missing, f"{message}: is {self.facts['path']} cut?")


class NqCollection(BeirCollection):
    """Natural Questions, whose train split has another corpus than its test split.

    `documents()` is the test split's; what `pairs("train")` and `qrels("train")` name is in `documents_for("train")`,
    with `nq-train/` in front of the ids, since both corpora count from `doc0`.

    Args:
        collection_id: as given to `foreword.load`.
        path: the folder with the test split.
        about: its facts.
        train: the folder with the train split; None: not there, and then there is no such split.
        group: the family.
    """

    def __init__(
        self, collection_id: str, path: Path, about: Mapping[str, Any], train: Path | None, *, group: str
    ) -> None:
        super().__init__(collection_id, path, about, group=group)
        self._prefix = about["train"]["folder"]
        self._train = None if train is None else FolderCollection(f"{collection_id}-train", train, group=group)

    @property
    def splits(self) -> tuple[str, ...]:
        """Train only where its folder is there."""
        return super().splits if self._train is None else ("train", *(s for s in super().splits if s != "train"))

    @property
    def facts(self) -> Mapping[str, object]:
        """As for every collection, and where the train split is."""
        missing = f"not there: `foreword download {self.id}` gets {self._prefix}, the folder with the train split"
        return {**super().facts, "train": missing if self._train is None else dict(self._train.facts)}

    def documents_for(self, split: str) -> Iterator[Document]:
        """The corpus that a split's judgements are about."""
        require_split(self.id, split, self.splits)
        if split != "train" or self._train is None:
            return self.documents()
        return (replace(doc, doc_id=self._renamed(doc.doc_id)) for doc in self._train.documents())

    def queries(self, split: str = "test") -> Iterator[Query]:
        """The judged queries of a split."""
        return super().queries(split) if split != "train" or self._train is None else self._train.queries(split)

    def qrels(self, split: str = "test") -> Qrels:
        """The judgements of a split; those of train are about `documents_for("train")`."""
        if split != "train" or self._train is None:
            return super().qrels(split)
        judged = self._train.qrels(split)
        return {q: {self._renamed(doc): grade for doc, grade in docs.items()} for q, docs in judged.items()}

    def pairs(self, split: str = "train", *, hard_negatives: int | None = None) -> Iterator[TrainingPair]:
        """The pairs of a split; those of train have documents of their own corpus."""
        if split != "train" or self._train is None:
            return super().pairs(split, hard_negatives=hard_negatives)
        pairs = self._train.pairs(split, hard_negatives=hard_negatives)
        return (replace(pair, doc_id=self._renamed(pair.doc_id)) for pair in pairs)

    def _renamed(self, doc_id: str) -> str:
        return f"{self._prefix}/{doc_id}"


class Forums:
    """Several collections as one, the name of each in front of its ids: `gaming/1043`. Test only.

    Args:
        collection_id: as given to `foreword.load`.
        parts: the collections by name, in order; they are read as streams, one after the other.
        about: the facts of the whole.
        group: the family.
    """

    splits: tuple[str, ...] = ("test",)
    exclude_self = False

    def __init__(
        self, collection_id: str, parts: Mapping[str, Collection], about: Mapping[str, Any], *, group: str
    ) -> None:
        self.id, self.group = collection_id, group
        self._parts, self._about = dict(parts), about

    @property
    def facts(self) -> Mapping[str, object]:
        """What the whole has, and each part's folder and counts."""
        own = {"forums": {name: dict(part.facts) for name, part in self._parts.items()}}
        return {**own, **known_facts(self._about)}

    def documents(self) -> Iterator[Document]:
        """Every part's documents."""
        for name, part in self._parts.items():
            for document in part.documents():
                yield replace(document, doc_id=f"{name}/{document.doc_id}")

    def queries(self, split: str = "test") -> Iterator[Query]:
        """Every part's test queries. Raises `UnknownNameError` for another split."""
        require_split(self.id, split, self.splits)
        return (
            replace(query, query_id=f"{name}/{query.query_id}")
            for name, part in self._parts.items()
            for query in part.queries(split)
        )

    def qrels(self, split: str = "test") -> Qrels:
        """Every part's test judgements."""
        require_split(self.id, split, self.splits)
        return {
            f"{name}/{query_id}": {f"{name}/{doc_id}": grade for doc_id, grade in judged.items()}
            for name, part in self._parts.items()
            for query_id, judged in part.qrels(split).items()
        }

    def pairs(self, split: str = "train", *, hard_negatives: int | None = None) -> Iterator[TrainingPair]:
        """Every test query with each of its relevant documents; there are no hard negatives."""
        require_split(self.id, split, self.splits)
        return pairs_from_qrels(self, split)


def known_facts(about: Mapping[str, Any]) -> dict[str, object]:
    """What a result should record of a collection's facts."""
    known: dict[str, object] = {"expected": {"documents": about["documents"], "queries": dict(about["queries"])}}
    for name in ("licence", "home", "headline_split"):
        if about.get(name):
            known[name] = about[name]
    return known
