"""Where OAG-QA's files are, and how they get there: one archive on Google Drive, or the user's own copy."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from foreword.common.errors import DataError
from foreword.downloads import Resource, Transport, data_folder, extract, fetch, fetch_folder, locked

log = logging.getLogger(__name__)

FOLDER = "oag-qa"
"""Below the data folder."""


@cache
def facts() -> dict[str, Any]:
    """What `data/oag_qa.json` holds: `home`, `archive`, `files` and the topics of the `disciplines`."""
    loaded: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "oag_qa.json").read_text("utf-8"))
    return loaded


def topic_files(topic: str) -> tuple[str, str]:
    """The names of a topic's questions and papers."""
    names = facts()["files"]
    return names["questions"].format(topic=topic), names["papers"].format(topic=topic)


def find(topics: Iterable[str], data: Path | None) -> Path | None:
    """The folder with both files of all topics, or None."""
    wanted = [name for topic in topics for name in topic_files(topic)]
    return next((folder for folder in _places(data_folder(data)) if _has(folder, wanted)), None)


def require(collection_id: str, topics: Iterable[str], data: Path | None) -> Path:
    """As `find`; raises `DataError` that names the missing files and where they were looked for."""
    topics = tuple(topics)
    found = find(topics, data)
    if found is not None:
        return found
    root = data_folder(data)
    wanted = [name for topic in topics for name in topic_files(topic)]
    looked = list(dict.fromkeys(_places(root)))
    nearest = max(looked, key=lambda folder: sum((folder / name).is_file() for name in wanted))
    missing = [name for name in wanted if not (nearest / name).is_file()]
    shown = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
    raise DataError(
        f"{collection_id} needs the files {shown} (looked in {', '.join(map(str, looked))}). "
        f"Say `foreword download {collection_id}`, or with your own copy "
        f"`foreword download {collection_id} --from PATH` (the archive, or a folder with its files)"
    )


def obtain(collection_id: str, topics: Iterable[str], data: Path, transport: Transport, source: Path | None) -> Path:
    """The folder with the files of all topics, brought there unless they are there already.

    Args:
        collection_id: for messages.
        topics: whose files must be there in the end; the archive brings those of every topic.
        data: the data folder.
        transport: of the download.
        source: the user's own copy: a folder, which is linked to from the data folder (copied where links
            cannot be made), or a zip or tar archive, which is unpacked.

    Raises:
        DataError: gdown is missing or fails, the source does not exist, or the files are not among what was brought.
    """
    topics = tuple(topics)
    data = Path(data)
    source = None if source is None else Path(source).expanduser()
    if source is not None and not source.exists():
        message = "does not exist: no such file or folder; expected OAG-QA's archive or its unpacked folder"
        raise DataError(message, path=source)
    found = find(topics, data)
    if found is not None:
        return found
    with locked(data, FOLDER):
        if find(topics, data) is None:
            _bring(data, transport, source, [name for topic in topics for name in topic_files(topic)])
    return require(collection_id, topics, data)


def _bring(data: Path, transport: Transport, source: Path | None, wanted: Sequence[str]) -> None:
    folder = data / FOLDER
    if folder.exists() and not folder.is_symlink():
        message = "is there but lacks files of OAG-QA; move it away, then download again"
        raise DataError(message, path=folder)
    archive = facts()["archive"]
    limit: int = archive["unpacked_limit"]
    if source is None:
        resource = Resource(archive["name"], (archive["url"],), sha256=archive["sha256"], size=archive["size"])
        if not (data / resource.name).exists() and not _from_mirror(resource, data, transport):
            _from_drive(archive["drive_id"], data / resource.name, transport)
        _unlink(folder)
        fetch_folder(resource, data, folder, transport, limit=limit, members=_is_topic_file)
    elif source.is_dir():
        _check_holds(source, source, wanted)
        _unlink(folder)
        _link(source, folder)
    else:
        _unlink(folder)
        extract(source, folder, limit=limit, members=_is_topic_file)
        try:
            _check_holds(folder, source, wanted)
        except DataError:
            shutil.rmtree(folder)  # made a moment ago; left there, it would be in the way of the right one
            raise


def _check_holds(folder: Path, source: Path, wanted: Sequence[str]) -> None:
    """Raise `DataError` about the user's `source` unless one folder in `folder` has all the files."""
    if not any(_has(place, wanted) for place in _inside(folder)):
        shown = ", ".join(wanted[:4]) + (f" and {len(wanted) - 4} more" if len(wanted) > 4 else "")
        raise DataError(f"does not hold the files {shown}; expected OAG-QA's archive or its folder", path=source)


def _unlink(folder: Path) -> None:
    """Remove an earlier link to a folder without the files; what it points to is left alone."""
    if folder.is_symlink():
        log.warning("%s was a link to %s, which lacks files of OAG-QA; it is replaced", folder, os.readlink(folder))
        folder.unlink()


def _from_mirror(resource: Resource, data: Path, transport: Transport) -> bool:
    """Whether a mirror had the archive; its own address is a page of Google Drive, no file."""
    mirrored = replace(resource, urls=())
    if not transport.addresses(mirrored):
        return False
    try:
        fetch(mirrored, data, transport, check=_not_zip)
    except DataError as error:
        log.warning("no mirror gave OAG-QA, so Google Drive is asked: %s", error)
        return False
    return True


def _not_zip(path: Path) -> str:
    """What is wrong with an archive's first bytes, or an empty string."""
    with path.open("rb") as file:
        first = file.read(16)
    return "" if first.startswith(b"PK") else f"expected a zip archive, got what begins with {first!r}"


def _from_drive(drive_id: str, path: Path, transport: Transport) -> None:
    """Download a file of Google Drive, which asks questions that a plain request cannot answer, as `path`."""
    own = f"Get {facts()['archive']['url']} in a browser, then say --from PATH"
    if transport.is_offline:
        raise DataError(f"OAG-QA is not there and downloads are switched off. {own}", path=path)
    try:
        import gdown
    except ImportError as error:
        message = f"OAG-QA is on Google Drive, which needs gdown: pip install foreword[download]. {own}"
        raise DataError(message, path=path) from error
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        output = Path(temporary) / path.name
        try:
            gdown.download(id=drive_id, output=str(output), quiet=transport.quiet)
        except Exception as error:  # its own, requests' and urllib3's: whichever, the remedy is the same
            raise DataError(f"gdown could not download OAG-QA ({str(error).strip()}). {own}", path=path) from error
        if not output.is_file():
            raise DataError(f"gdown brought no file for OAG-QA. {own}", path=path)
        os.replace(output, path)


def _link(source: Path, folder: Path) -> None:
    """Make `folder` a link to the user's folder, or a whole copy of its tables where links cannot be made."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.symlink_to(source.resolve(), target_is_directory=True)
        return
    except OSError:  # e.g. Windows without the right to make links; the copy serves as well
        pass
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        whole = Path(temporary) / "files"
        whole.mkdir()
        for path in sorted(source.rglob("*.tsv")):
            if _is_topic_file(path.name):
                shutil.copyfile(path, whole / path.name)
        os.replace(whole, folder)


def _is_topic_file(name: str) -> bool:
    """Whether an archive's member is wanted: it holds DPR's training files besides, and macOS adds hidden ones."""
    last = name.rpartition("/")[2]
    endings = tuple(name.replace("{topic}", "") for name in facts()["files"].values())
    return last.endswith(endings) and not last.startswith(".")


def _places(root: Path) -> Iterator[Path]:
    """The folders to look in: the data folder's `oag-qa`, itself, and the archive's folder in either."""
    inner = facts()["archive"]["folder"]
    below = root / FOLDER
    yield from (below, below / inner, root, root / inner)
    yield from _inside(below)


def _inside(folder: Path) -> Iterator[Path]:
    """A folder and those in it, two levels down."""
    yield folder
    yield from (path for pattern in ("*", "*/*") for path in sorted(folder.glob(pattern)) if path.is_dir())


def _has(folder: Path, names: Sequence[str]) -> bool:
    return all((folder / name).is_file() for name in names)
