"""Whether a file's bytes are the right ones: by the hashes known before, or those seen at the first download."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from foreword.common.errors import DataError
from foreword.common.files import write_json
from foreword.downloads.places import record_file
from foreword.downloads.resources import Resource

_CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class Record:
    """What a file was when it was last found right: kept as JSON below `.records` of the data folder."""

    name: str
    url: str
    """Where it came from; empty when it was there already."""
    size: int
    """Bytes."""
    md5: str
    sha256: str
    modified: int
    """The file's time of change in nanoseconds: a file with the same size and time is not read again."""


def measure(path: Path, name: str, url: str) -> Record:
    """Read a file once for its size and hashes."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            md5.update(chunk)
            sha256.update(chunk)
    return Record(name, url, size, md5.hexdigest(), sha256.hexdigest(), path.stat().st_mtime_ns)


def read_record(data: Path, name: str) -> Record | None:
    """The record of a file, None when it was never downloaded here; a broken one is a `DataError`."""
    path = record_file(data, name)
    try:
        return Record(**json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise DataError(f"the record of a download cannot be read ({error}); delete it", path=path) from error


def write_record(data: Path, record: Record) -> None:
    """Keep a record; one that says the same already is left alone."""
    if record != read_record(data, record.name):
        write_json(record_file(data, record.name), asdict(record))


def unchanged(path: Path, resource: Resource, record: Record | None) -> bool:
    """Whether a file is the one that was found right before, judged without reading it."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    seen = record is not None and (found.st_size, found.st_mtime_ns) == (record.size, record.modified)
    return seen and record is not None and not problem(record, resource, record, path)


def problem(got: Record, resource: Resource, before: Record | None, record_path: Path) -> str:
    """What is wrong with a file, or an empty string.

    Args:
        got: the file as measured.
        resource: the size and hashes known before; where it has a hash, the earlier record does not count.
        before: the file as it was at its first download, or None.
        record_path: where `before` is kept, for the message.
    """
    for kind in ("size", "md5", "sha256"):
        expected, have = getattr(resource, kind), getattr(got, kind)
        if expected is not None and have != expected:
            return f"wrong bytes: {kind} {have}, expected {expected}"
    if resource.hashed or before is None or got.sha256 == before.sha256:
        return ""
    return (
        f"other bytes than at the first download: sha256 {got.sha256} ({got.size} bytes), expected {before.sha256} "
        f"({before.size} bytes); to trust the new file, delete the record {record_path}"
    )
