"""`beir/<name>`: the 15 public sets of BEIR, and the four whose licence forbids to hand them on.

Thakur et al. 2021, "BEIR: A Heterogenous Benchmark for Zero-shot Evaluation of Information Retrieval Models".
Sources, sizes and hashes are facts in `data/beir.json`. Every set is a folder in BEIR's layout; `beir/cqadupstack`
is its 12 forums as one, and `beir/nq` takes its train split from a second folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from foreword.collections.collection import (
    Collection,
    Document,
    Entry,
    Qrels,
    Query,
    TrainingPair,
    pairs_from_qrels,
    require_split,
)
from foreword.collections.folder import FolderCollection
from foreword.collections.views import ExcludingCollection, Texts
from foreword.downloads import Resource, Transport, data_folder, fetch_folder, locked
from foreword.downloads.places import DEFAULT
from foreword.errors import DataError, UnknownNameError
from foreword.files import read_json

# What collections of BEIR are made of: one folder, Natural Questions' two, CQADupStack's twelve.


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


GROUP = "beir"
CQADUPSTACK = "cqadupstack"
NQ = "nq"


@cache
def facts() -> dict[str, Any]:
    """What `data/beir.json` holds: `url`, `sets` and `forums` by name, and what all sets share."""
    loaded: dict[str, Any] = read_json(Path(__file__).parent / "data" / "beir.json")
    return loaded


def load(name: str, *, data: Path | None = None, exclude: Iterable[Collection] = ()) -> Collection:
    """One of the sets.

    Args:
        name: e.g. `nfcorpus`.
        data: the data folder (see `foreword.downloads.data_folder`), or a folder that holds `<name>/`.
        exclude: collections whose texts must not occur in this one.

    Raises:
        UnknownNameError: no such set.
        DataError: files are missing or broken; the message says which, and how they may be had.
    """
    about, root = about_set(name), data_folder(data)
    folder = find(name, root)
    if folder is None:
        raise DataError(_missing(name, about, root))
    collection: Collection
    if name == CQADUPSTACK:
        parts = {forum: load_forum(forum, folder / forum, f"{name}/{forum}", name) for forum in facts()["forums"]}
        collection = Forums(f"{GROUP}/{name}", parts, about, group=GROUP)
    elif name == NQ:
        train = find(about["train"]["folder"], root)
        collection = NqCollection(f"{GROUP}/{name}", folder, about, train, group=GROUP)
    else:
        collection = BeirCollection(f"{GROUP}/{name}", folder, about, group=GROUP)
    excluded = Texts.of(exclude)
    return ExcludingCollection(collection, excluded) if excluded else collection


def load_forum(forum: str, folder: Path, collection_id: str, group: str) -> BeirCollection:
    """One forum of CQADupStack, from its folder."""
    whole = facts()["sets"][CQADUPSTACK]
    about = {**facts()["forums"][forum], "licence": whole["licence"], "home": whole["home"]}
    return BeirCollection(collection_id, folder, about, group=group)


def knows(name: str) -> bool:
    """Whether it is one of the 19."""
    return name in facts()["sets"]


def about_set(name: str) -> dict[str, Any]:
    """A set's facts. Raises `UnknownNameError` when there is no such set."""
    known: dict[str, dict[str, Any]] = facts()["sets"]
    if name not in known:
        raise UnknownNameError(f"no collection {GROUP}/{name}; known: {', '.join(known)}")
    return known[name]


def entries(data: Path | None = None) -> list[Entry]:
    """The 19, each with whether its files are in the data folder."""
    root = data_folder(data)
    return [
        Entry(
            f"{GROUP}/{name}",
            GROUP,
            about["description"],
            tuple(about["splits"]),
            find(name, root) is not None,
            about["licence"] or "",
            about["home"],
            about["documents"],
            about["queries"],
            about["size"] and about["size"] + about.get("train", {"size": 0})["size"],
            about["citation"],
        )
        for name, about in facts()["sets"].items()
    ]


def find(name: str, root: Path) -> Path | None:
    """A set's folder: `beir/<name>` below the data folder, or a user's own copy `<name>`; None: not there."""
    return next((folder for folder in (root / GROUP / name, root / name) if _is_whole(name, folder)), None)


def _is_whole(name: str, folder: Path) -> bool:
    parts = [folder / forum for forum in facts()["forums"]] if name == CQADUPSTACK else [folder]
    return all(has_corpus(part) for part in parts)


def download(name: str, data: Path, transport: Transport = DEFAULT, *, md5: str | None = None) -> Path:
    """Download and unpack a set, unless it is there; of `nq`, its train split's archive too.

    Args:
        name: e.g. `nfcorpus`.
        data: the data folder.
        transport: mirrors, offline mode.
        md5: of an archive of one's own, made in the same form; None: the published one's.

    Returns:
        The set's folder.

    Raises:
        UnknownNameError: no such set.
        DataError: its licence forbids it (the message says where it may be had), or the download failed.
    """
    about, data = about_set(name), Path(data)
    folder = find(name, data)
    if folder is None:
        if "obtain" in about:
            raise DataError(_missing(name, about, data))
        folder = _unpacked(name, about if md5 is None else {**about, "md5": md5}, data, transport)
    if "train" in about:
        part = about["train"]["folder"]
        _ = find(part, data) or _unpacked(part, about["train"], data, transport)
    return folder


def _unpacked(name: str, about: dict[str, Any], data: Path, transport: Transport) -> Path:
    """Get `<name>.zip` and put the folder `<name>` in it at its place."""
    known = facts()
    resource = Resource(f"{GROUP}/{name}.zip", (f"{known['url']}{name}.zip",), md5=about["md5"])
    folder, box = data / GROUP / name, data / GROUP / f".{name}.unpacked"
    with locked(data, f"{GROUP}/{name}"):
        if _is_whole(name, folder):  # another process was quicker
            return folder
        if folder.exists():
            raise DataError("is there, but not all of its files; move it away to download it again", path=folder)
        fetch_folder(
            resource, data, box, transport, limit=known["unpacked_limit"], members=lambda member: _wanted(member, name)
        )
        if not _is_whole(name, box / name):
            shutil.rmtree(box)
            needed = f"{name}/<forum>/corpus.jsonl" if name == CQADUPSTACK else f"{name}/corpus.jsonl"
            raise DataError(f"has no {needed} in it; delete it and download it again", path=data / resource.name)
        (box / name).rename(folder)
        box.rmdir()
    return folder


def _wanted(member: str, name: str) -> bool:
    """Whether a file in the archive is part of the collection (`nq/qrels/test.tsv`), not something beside it."""
    path = PurePosixPath(member)
    if path.parts[:1] != (name,):
        return False
    return path.name in ("corpus.jsonl", "queries.jsonl") or (path.parent.name == "qrels" and path.suffix == ".tsv")


def _missing(name: str, about: dict[str, Any], root: Path) -> str:
    place = root / GROUP / name
    looked = f"{GROUP}/{name} is not in {place} or {root / name}"
    if "obtain" in about:
        return (
            f"{looked}, and its licence forbids to hand it on. To be had: {about['obtain']} ({about['home']}; "
            f"{facts()['guide']} says how BEIR made it). Put corpus.jsonl, queries.jsonl and qrels/test.tsv in {place}"
        )
    return f"{looked}. `foreword download {GROUP}/{name}` gets it, or say where it is: data=FOLDER (--data FOLDER)"
