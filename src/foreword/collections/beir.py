"""`beir/<name>`: the 15 public sets of BEIR, and the four whose licence forbids to hand them on.

Thakur et al. 2021, "BEIR: A Heterogenous Benchmark for Zero-shot Evaluation of Information Retrieval Models".
Sources, sizes and hashes are facts in `data/beir.json`. Every set is a folder in BEIR's layout; `beir/cqadupstack`
is its 12 forums as one, and `beir/nq` takes its train split from a second folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from foreword.collections.beir_parts import BeirCollection, Forums, NqCollection, has_corpus
from foreword.collections.exclusion import ExcludingCollection, Texts
from foreword.collections.records import Collection, Entry
from foreword.common.errors import DataError, UnknownNameError
from foreword.downloads import Resource, Transport, data_folder, fetch_folder, locked
from foreword.downloads.resources import DEFAULT

GROUP = "beir"
CQADUPSTACK = "cqadupstack"
NQ = "nq"


@cache
def facts() -> dict[str, Any]:
    """What `data/beir.json` holds: `url`, `sets` and `forums` by name, and what all sets share."""
    loaded: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "beir.json").read_text("utf-8"))
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
