"""`cqadupstack/<forum>`: each of CQADupStack's 12 forums as a collection of its own, as BEIR has them.

Hoogeveen et al. 2015, "CQADupStack: A Benchmark Data Set for Community Question-Answering Research". All of them are
in BEIR's one archive; `beir/cqadupstack` is their union.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from foreword.collections import beir
from foreword.collections.beir import has_corpus
from foreword.collections.collection import Collection, Entry
from foreword.collections.views import ExcludingCollection, Texts
from foreword.downloads import Transport, data_folder
from foreword.downloads.places import DEFAULT
from foreword.errors import DataError, UnknownNameError

GROUP = beir.CQADUPSTACK


def load(name: str, *, data: Path | None = None, exclude: Iterable[Collection] = ()) -> Collection:
    """One forum.

    Args:
        name: e.g. `gaming`.
        data: the data folder, or a folder that holds `<forum>/`.
        exclude: collections whose texts must not occur in this one.

    Raises:
        UnknownNameError: no such forum.
        DataError: files are missing or broken.
    """
    _check(name)
    root = data_folder(data)
    folder = find(name, root)
    if folder is None:
        raise DataError(
            f"{GROUP}/{name} is not in {_places(name, root)[0]}. `foreword download {GROUP}/{name}` gets all 12 "
            "forums, or say where they are: data=FOLDER (--data FOLDER)"
        )
    collection = beir.load_forum(name, folder, f"{GROUP}/{name}", GROUP)
    excluded = Texts.of(exclude)
    return ExcludingCollection(collection, excluded) if excluded else collection


def knows(name: str) -> bool:
    """Whether it is one of the 12."""
    return name in beir.facts()["forums"]


def entries(data: Path | None = None) -> list[Entry]:
    """The 12, each with whether its files are in the data folder; the size is that of the one archive with all."""
    root, whole = data_folder(data), beir.about_set(GROUP)
    return [
        Entry(
            f"{GROUP}/{name}",
            GROUP,
            f"Stack Exchange's forum {name}; to a question, its duplicates",
            tuple(whole["splits"]),
            find(name, root) is not None,
            whole["licence"],
            whole["home"],
            about["documents"],
            about["queries"],
            whole["size"],
            whole["citation"],
        )
        for name, about in beir.facts()["forums"].items()
    ]


def find(name: str, root: Path) -> Path | None:
    """A forum's folder, or None."""
    return next((folder for folder in _places(name, root) if has_corpus(folder)), None)


def download(name: str, data: Path, transport: Transport = DEFAULT, *, md5: str | None = None) -> Path:
    """Download and unpack all 12 forums, unless this one is there; the arguments are those of `beir.download`.

    Returns:
        The forum's folder.

    Raises:
        UnknownNameError: no such forum.
        DataError: the download failed.
    """
    _check(name)
    return find(name, Path(data)) or beir.download(GROUP, data, transport, md5=md5) / name


def _check(name: str) -> None:
    if not knows(name):
        raise UnknownNameError(f"no collection {GROUP}/{name}; known: {', '.join(beir.facts()['forums'])}")


def _places(name: str, root: Path) -> list[Path]:
    return [root / beir.GROUP / GROUP / name, root / GROUP / name, root / name]
