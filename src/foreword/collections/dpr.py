"""`dpr/<name>`: the question-answering sets that DPR was trained on, from its files on the web or the user's own.

Each has questions for training and for choosing the best step, none to test on: they are sources. The files are
converted once to a folder in BEIR's layout (`dpr_convert`), which is read like any other. URLs and counts are
facts in `data/dpr.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from foreword.collections.dpr_convert import MANIFEST, NEGATIVES, Positives, convert, read_manifest
from foreword.collections.exclusion import ExcludingCollection, Texts
from foreword.collections.folder import FolderCollection
from foreword.collections.records import Collection, Entry
from foreword.common.errors import DataError, UnknownNameError
from foreword.downloads import Resource, Transport, data_folder, fetch
from foreword.downloads.places import record_file
from foreword.downloads.resources import DEFAULT
from foreword.downloads.verify import read_record

GROUP = "dpr"
SPLITS = ("train", "dev")

_DATA = Path(__file__).parent / "data" / "dpr.json"
_ENDINGS = (".json.gz", ".json", ".jsonl.gz", ".jsonl")


def facts() -> dict[str, Any]:
    """What `data/dpr.json` holds: `home`, `licence`, `citation`, `base` and `collections` by name."""
    loaded: dict[str, Any] = json.loads(_DATA.read_text("utf-8"))
    return loaded


def load(
    name: str,
    *,
    data: Path | None = None,
    exclude: Iterable[Collection] = (),
    negatives: int = NEGATIVES,
    positives: Positives = "first",
) -> Collection:
    """One of the five sets, from its converted folder; DPR's files that are there are converted on first use.

    Args:
        name: `nq`, `trivia`, `webq`, `curatedtrec` or `squad1`.
        data: the folder that holds `dpr/<name>/` or `<name>/`; None: FOREWORD_DATA, else the cache.
        exclude: collections whose texts must not occur in this one.
        negatives: the most hard negatives kept for a question by the conversion.
        positives: which positives of a training example count, `first` (as DPR trains) or `all`.

    Raises:
        UnknownNameError: no such set.
        DataError: files are missing or broken; the message says which, and how to get them.
    """
    about = _about(name)
    root = data_folder(data)
    folder = _converted(name, root, negatives, positives)
    if folder is None:
        files = " and ".join(_file_name(about, split) for split in SPLITS)
        looked = " or ".join(str(place) for place in _places(name, root))
        raise DataError(
            f"dpr/{name} needs {files}, which are not in {looked}; `foreword download dpr/{name}` gets them"
        )
    collection: Collection = DprCollection(name, folder)
    excluded = Texts.of(exclude)
    return ExcludingCollection(collection, excluded) if excluded else collection


def knows(name: str) -> bool:
    """Whether it is one of the five."""
    return name in facts()["collections"]


def entries(data: Path | None = None) -> list[Entry]:
    """The five, each with whether its files are there; queries are those with a positive passage."""
    known, root = facts(), data_folder(data)
    return [
        Entry(
            f"{GROUP}/{name}",
            GROUP,
            about["description"],
            SPLITS,
            any(_made(place) or _sources(place, name) for place in _places(name, root)),
            known["licence"],
            known["home"],
            queries={split: count for split, count in about["queries"].items() if count is not None},
            citation=known["citation"],
        )
        for name, about in known["collections"].items()
    ]


def download(name: str, data: Path, transport: Transport = DEFAULT) -> Path:
    """The converted folder of a set, its files fetched and converted unless that was done before.

    The files have no published hashes, so the first download of one is only trusted once it was converted: a
    broken one is deleted with its record, and the next address is asked.

    Args:
        name: as in `load`.
        data: the data folder; the files come to `<data>/dpr/<name>/`, the conversion beside them.
        transport: mirrors, offline mode, timeout.

    Raises:
        UnknownNameError: no such set.
        DataError: a file cannot be had, or is broken.
    """
    about, base, root = _about(name), facts()["base"], Path(data)
    folder = _converted(name, root, NEGATIVES, "first")
    if folder is not None:
        return folder
    files = [_file_name(about, split) for split in SPLITS]
    resources = {root / GROUP / name / f: Resource(f"{GROUP}/{name}/{f}", (base + f,)) for f in files}
    new = {path for path, r in resources.items() if not path.exists() and read_record(root, r.name) is None}
    refused: dict[str, DataError] = {}  # by address
    while True:
        try:
            train, dev = (fetch(r, root, transport, check=_beginning, skip=refused) for r in resources.values())
        except DataError as error:
            before = "".join(f"\nBefore that, from {url}: {reason}" for url, reason in refused.items())
            raise DataError(f"{error}{before}") from error
        try:
            return convert(train, dev, train.parent / _folder_name(NEGATIVES, "first"))
        except DataError as error:
            broken = next((path for path in new if error.path == path), None)
            if broken is None:
                raise _with_remedy(error, name, root) from error
            record = read_record(root, resources[broken].name)
            _forget(broken, record_file(root, resources[broken].name))
            if record is not None:
                refused[record.url] = error
            if record is None or set(transport.addresses(resources[broken])) <= set(refused):
                raise DataError(f"{error}. It was deleted; the next try downloads it again") from error


class DprCollection(FolderCollection):
    """A converted folder, with the conversion's options and counts among its facts."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(f"{GROUP}/{name}", folder, group=GROUP)
        known, manifest = facts(), read_manifest(folder)
        self._about = {
            "conversion": {part: manifest[part] for part in ("options", "counts", "sources")},
            "expected": {"queries": known["collections"][name]["queries"]},
            "licence": known["licence"],
            "citation": known["citation"],
            "home": known["home"],
        }

    @property
    def facts(self) -> Mapping[str, object]:
        """A folder's facts, what the conversion was told and counted, and where the files come from."""
        return {**super().facts, **self._about}


def _beginning(path: Path) -> str:
    """What is wrong with a file's first bytes, or an empty string: DPR's are gzip, a mirror's may be plain JSON."""
    with path.open("rb") as file:
        first = file.read(16)
    if first.startswith((b"\x1f\x8b", b"[")):
        return ""
    return f"not one of DPR's files: expected gzip or a JSON list, got what begins with {first!r}"


def _forget(path: Path, record: Path) -> None:
    path.unlink(missing_ok=True)
    record.unlink(missing_ok=True)


def _with_remedy(error: DataError, name: str, root: Path) -> DataError:
    """The error, with what to delete where it is about a downloaded file: with its record, else it stays refused."""
    path = None if error.path is None else Path(error.path)
    if path is None or path.parent != root / GROUP / name:
        return error
    record = record_file(root, f"{GROUP}/{name}/{path.name}")
    if not record.is_file():
        return error
    return DataError(f"{error}. To download it again, delete {path} and {record}")


def _about(name: str) -> dict[str, Any]:
    collections: dict[str, dict[str, Any]] = facts()["collections"]
    if name not in collections:
        raise UnknownNameError(f"no collection dpr/{name}; known: {', '.join(collections)}")
    return collections[name]


def _places(name: str, root: Path) -> tuple[Path, Path]:
    """Where a set may be: in the data folder's own layout, or in a folder of the user's."""
    return root / GROUP / name, root / name


def _folder_name(negatives: int, positives: Positives) -> str:
    """Conversions of different options have different names, so that none is in another's way."""
    if (negatives, positives) == (NEGATIVES, "first"):
        return "converted"
    return f"converted-{negatives}-{positives}"


def _file_name(about: Mapping[str, Any], split: str) -> str:
    return f"biencoder-{about['file']}-{split}.json.gz"


def _converted(name: str, root: Path, negatives: int, positives: Positives) -> Path | None:
    """The converted folder, made now when only DPR's files are there; None when neither is."""
    for place in _places(name, root):
        folder = place / _folder_name(negatives, positives)
        sources = _sources(place, name)
        if (folder / MANIFEST).is_file():
            _check_unchanged(folder, sources)
            return folder
        if sources:
            try:
                return convert(*sources, folder, negatives=negatives, positives=positives)
            except DataError as error:
                raise _with_remedy(error, name, root) from error
    return None


def _made(place: Path) -> bool:
    return any(place.glob(f"converted*/{MANIFEST}"))


def _sources(place: Path, name: str) -> tuple[Path, Path] | None:
    """The training and the dev file in a folder, under DPR's names or shorter ones; None without both."""
    file = facts()["collections"][name]["file"]
    stems = dict.fromkeys((f"biencoder-{file}", file, name))
    found = [
        next((p for stem in stems for end in _ENDINGS if (p := place / f"{stem}-{split}{end}").is_file()), None)
        for split in SPLITS
    ]
    train, dev = found
    return None if train is None or dev is None else (train, dev)


def _check_unchanged(folder: Path, sources: tuple[Path, Path] | None) -> None:
    """Raise `DataError` when a file is no longer the one that was converted, as far as its size tells."""
    recorded = read_manifest(folder)["sources"]
    for split, path in zip(SPLITS, sources or (), strict=False):
        known = recorded[split]
        if path.name == known["name"] and path.stat().st_size != known["size"]:
            message = f"was made from a {path.name} of {known['size']} bytes; there is one of {path.stat().st_size} now"
            raise DataError(f"{message}. Remove the folder to convert it anew", path=folder)
