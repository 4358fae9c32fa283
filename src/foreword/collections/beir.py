"""`beir/<name>`: the 15 public sets of BEIR, and the four whose licence forbids to hand them on.

Thakur et al. 2021, "BEIR: A Heterogenous Benchmark for Zero-shot Evaluation of Information Retrieval Models".
Sources, sizes and hashes are facts in `data/beir.json`. Every set is a folder in BEIR's layout; `beir/nq` takes its
train split from a second folder, and `beir/cqadupstack` is 12 forums as one, each of which is `cqadupstack/<forum>`,
too (Hoogeveen et al. 2015, "CQADupStack: A Benchmark Data Set for Community Question-Answering Research").
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from foreword.collections.collection import (
    Collection,
    Document,
    Entry,
    OneCorpus,
    Qrels,
    Query,
    TrainingPair,
    require_split,
)
from foreword.collections.family import Family
from foreword.collections.folder import FolderCollection, find_lines
from foreword.downloads.fetch import fetch_folder
from foreword.downloads.places import DEFAULT, Resource, Transport, data_folder, locked
from foreword.errors import DataError
from foreword.files import read_json


@cache
def facts() -> dict[str, Any]:
    """What `data/beir.json` holds: `url`, `sets` and `forums` by name, and what all sets share."""
    loaded: dict[str, Any] = read_json(Path(__file__).parent / "data" / "beir.json")
    return loaded


class BeirCollection(FolderCollection):
    """A folder of which it is known what must be in it: `about`, its facts in `data/beir.json`."""

    def __init__(self, collection_id: str, path: Path, about: Mapping[str, Any], *, group: str) -> None:
        own = about.get("exclude_self", False)
        super().__init__(collection_id, path, group=group, exclude_self=own, facts=known_facts(about))
        self._about = about

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
    with `nq-train/` in front of the ids, since both corpora count from `doc0`. Without the folder `train` there is no
    such split.
    """

    def __init__(
        self, collection_id: str, path: Path, about: Mapping[str, Any], train: Path | None, *, group: str
    ) -> None:
        super().__init__(collection_id, path, about, group=group)
        self._prefix = about["train"]["folder"]
        self._train = None if train is None else FolderCollection(f"{collection_id}-train", train, group=group)
        self.own_corpora = () if train is None else ("train",)

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


class Forums(OneCorpus):
    """Several collections as one, the name of each in front of its ids: `gaming/1043`. Test only."""

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


def known_facts(about: Mapping[str, Any]) -> dict[str, object]:
    """What a result should record of a collection's facts."""
    known: dict[str, object] = {"expected": {"documents": about["documents"], "queries": dict(about["queries"])}}
    for name in ("licence", "home", "headline_split"):
        if about.get(name):
            known[name] = about[name]
    return known


class Beir(Family):
    """The 19 sets."""

    name = "beir"

    def names(self) -> Mapping[str, Any]:
        """The facts of each set."""
        known: Mapping[str, Any] = facts()["sets"]
        return known

    def entry(self, name: str, root: Path) -> Entry:
        """The catalogue's line of a set; the size is that of all its archives."""
        about = self.about(name)
        return Entry(
            self.id(name),
            self.name,
            about["description"],
            tuple(about["splits"]),
            self.find(name, root) is not None,
            about["licence"] or "",
            about["home"],
            about["documents"],
            about["queries"],
            about["size"] and about["size"] + about.get("train", {"size": 0})["size"],
            about["citation"],
        )

    def open(self, name: str, data: Path | None) -> Collection:
        """One of the sets; `data` may also be a folder that holds `<name>/`."""
        about, root = self.about(name), data_folder(data)
        folder = self.find(name, root)
        if folder is None:
            raise DataError(self._missing(name, about, root))
        if name == CQADUPSTACK.name:
            parts = {f: _forum(f, folder / f, f"{name}/{f}", name) for f in facts()["forums"]}
            return Forums(self.id(name), parts, about, group=self.name)
        if "train" in about:
            train = self.find(about["train"]["folder"], root)
            return NqCollection(self.id(name), folder, about, train, group=self.name)
        return BeirCollection(self.id(name), folder, about, group=self.name)

    def find(self, name: str, root: Path) -> Path | None:
        """A set's folder: `beir/<name>` below the data folder, or a user's own copy `<name>`; None: not there."""
        return next((folder for folder in (root / self.name / name, root / name) if _is_whole(name, folder)), None)

    def download(self, name: str, data: Path, transport: Transport = DEFAULT, *, md5: str | None = None) -> Path:
        """Download and unpack a set, unless it is there; of `nq`, its train split's archive too.

        `md5` is of an archive of one's own, made in the same form; None: the published one's. Raises `DataError` where
        the licence forbids it (the message says where it may be had), or the download failed.
        """
        about, data = self.about(name), Path(data)
        folder = self.find(name, data)
        if folder is None:
            if "obtain" in about:
                raise DataError(self._missing(name, about, data))
            folder = self._unpacked(name, md5 or about["md5"], data, transport)
        if "train" in about:
            part = about["train"]["folder"]
            _ = self.find(part, data) or self._unpacked(part, about["train"]["md5"], data, transport)
        return folder

    def _unpacked(self, name: str, md5: str, data: Path, transport: Transport) -> Path:
        """Get `<name>.zip` and put the folder `<name>` in it at its place."""
        known = facts()
        resource = Resource(f"{self.name}/{name}.zip", (f"{known['url']}{name}.zip",), md5=md5)
        folder = data / self.name / name
        with locked(data, self.id(name)):
            if _is_whole(name, folder):  # another process was quicker
                return folder
            if folder.exists():
                raise DataError("is there, but not all of its files; move it away to download it again", path=folder)
            fetch_folder(resource, data, folder, transport, limit=known["unpacked_limit"], members=_wanted, inside=name)
            if not _is_whole(name, folder):
                shutil.rmtree(folder)
                needed = f"{name}/<forum>/corpus.jsonl" if name == CQADUPSTACK.name else f"{name}/corpus.jsonl"
                raise DataError(f"has no {needed} in it; delete it and download it again", path=data / resource.name)
        return folder

    def _missing(self, name: str, about: Mapping[str, Any], root: Path) -> str:
        place = root / self.name / name
        looked = f"{self.id(name)} is not in {place} or {root / name}"
        if "obtain" in about:
            return (
                f"{looked}, and its licence forbids to hand it on. To be had: {about['obtain']} ({about['home']}; "
                f"{facts()['guide']} says how BEIR made it). Put corpus.jsonl, queries.jsonl and qrels/test.tsv in "
                f"{place}"
            )
        return f"{looked}. `foreword download {self.id(name)}` gets it, or say where it is: data=FOLDER (--data FOLDER)"


class CQADupStack(Family):
    """CQADupStack's 12 forums, each a collection of its own; one archive of BEIR's has them all."""

    name = "cqadupstack"

    def names(self) -> Mapping[str, Any]:
        """The facts of each forum."""
        known: Mapping[str, Any] = facts()["forums"]
        return known

    def entry(self, name: str, root: Path) -> Entry:
        """The catalogue's line of a forum; the size is that of the one archive with all of them."""
        about, whole = self.about(name), BEIR.about(self.name)
        return Entry(
            self.id(name),
            self.name,
            f"Stack Exchange's forum {name}; to a question, its duplicates",
            tuple(whole["splits"]),
            self.find(name, root) is not None,
            whole["licence"],
            whole["home"],
            about["documents"],
            about["queries"],
            whole["size"],
            whole["citation"],
        )

    def open(self, name: str, data: Path | None) -> Collection:
        """One forum; `data` may also be a folder that holds `<forum>/`."""
        _ = self.about(name)
        root = data_folder(data)
        folder = self.find(name, root)
        if folder is None:
            raise DataError(
                f"{self.id(name)} is not in {root / BEIR.name / self.name / name}. `foreword download {self.id(name)}` "
                "gets all 12 forums, or say where they are: data=FOLDER (--data FOLDER)"
            )
        return _forum(name, folder, self.id(name), self.name)

    def find(self, name: str, root: Path) -> Path | None:
        """A forum's folder, or None."""
        places = (root / BEIR.name / self.name / name, root / self.name / name, root / name)
        return next((folder for folder in places if find_lines(folder, "corpus")), None)

    def download(self, name: str, data: Path, transport: Transport = DEFAULT, *, md5: str | None = None) -> Path:
        """The forum's folder; all 12 are downloaded and unpacked unless it is there. See `Beir.download`."""
        _ = self.about(name)
        return self.find(name, Path(data)) or BEIR.download(self.name, data, transport, md5=md5) / name


BEIR, CQADUPSTACK = Beir(), CQADupStack()


def _forum(forum: str, folder: Path, collection_id: str, group: str) -> BeirCollection:
    """One forum of CQADupStack, from its folder."""
    whole = BEIR.about(CQADUPSTACK.name)
    about = {**CQADUPSTACK.about(forum), "licence": whole["licence"], "home": whole["home"]}
    return BeirCollection(collection_id, folder, about, group=group)


def _is_whole(name: str, folder: Path) -> bool:
    parts = [folder / forum for forum in facts()["forums"]] if name == CQADUPSTACK.name else [folder]
    return all(find_lines(part, "corpus") for part in parts)


def _wanted(member: str) -> bool:
    """Whether a file in the archive is part of the collection (`nq/qrels/test.tsv`), not something beside it."""
    path = PurePosixPath(member)
    return path.name in ("corpus.jsonl", "queries.jsonl") or (path.parent.name == "qrels" and path.suffix == ".tsv")
