"""Download a file once: from the first place that has it, verified, under its final name only when it is right."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from pathlib import Path

from foreword.common.errors import DataError
from foreword.downloads.archives import extract
from foreword.downloads.part import Part
from foreword.downloads.places import check_space, locked, record_file
from foreword.downloads.resources import DEFAULT, MIRRORS, OFFLINE, Resource, Transport
from foreword.downloads.transfer import RejectedError, complete, is_local
from foreword.downloads.verify import measure, problem, read_record, unchanged, write_record

log = logging.getLogger(__name__)


def fetch(
    resource: Resource,
    data: Path,
    transport: Transport = DEFAULT,
    *,
    check: Callable[[Path], str] | None = None,
    skip: Collection[str] = (),
) -> Path:
    """The file of a resource, downloaded unless it is there.

    It is compared with the resource's size and hashes; where it has no hash, with those seen at the first
    download, which `.records/<name>.json` keeps, also when the file is deleted. What has come before a cut is
    kept as `<name>.part` and continued by the next request, in this process or a later one. Two processes do
    not download the same file: one waits for the other.

    Args:
        resource: what to get, and where.
        data: the data folder, see `data_folder`.
        transport: mirrors, offline mode, timeout, retries.
        check: says what is wrong with a file that has come, or an empty string; what it refuses (a server's page
            in the file's place, say) is not recorded, and the next address is asked. For files without hashes.
        skip: addresses not to ask.

    Returns:
        `data / resource.name`.

    Raises:
        DataError: no URL gave the right file (each is listed with the reason), a file that is there is not the
            right one, it is not there in offline mode, or there is no room for it.
    """
    data = Path(data)
    path = data / resource.name
    try:
        if unchanged(path, resource, read_record(data, resource.name)):
            return path
        with locked(data, resource.name):
            if path.exists():
                _accept(path, resource, data)
            else:
                _download(path, resource, data, transport, check, skip)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written or read ({error}); choose another data folder (--data FOLDER or FOREWORD_DATA)"
        ) from error
    return path


def fetch_folder(
    resource: Resource,
    data: Path,
    folder: Path,
    transport: Transport = DEFAULT,
    *,
    limit: int,
    members: Callable[[str], bool] | None = None,
) -> Path:
    """The folder with an archive's files: the one that is there, else made by `fetch` and `extract`, locked.

    Args:
        resource: the archive.
        data: the data folder.
        folder: the unpacked folder, wherever it is to be.
        transport: see `fetch`.
        limit: see `extract`.
        members: see `extract`.

    Raises:
        DataError: as `fetch` and `extract`.
    """
    if folder.is_dir():
        return folder
    archive = fetch(resource, data, transport)
    with locked(data, f"{resource.name}.unpack"):
        try:
            return extract(archive, folder, limit=limit, members=members)
        except DataError as error:
            if resource.hashed:
                raise
            record = record_file(data, resource.name)
            raise DataError(f"{error}. To download it again, delete {archive} and {record}") from error


def _accept(path: Path, resource: Resource, data: Path) -> None:
    """Verify a file that is there, put by hand or changed since it was downloaded, and record it."""
    before = read_record(data, resource.name)
    got = measure(path, resource.name, before.url if before else "")
    if wrong := problem(got, resource, before, record_file(data, resource.name)):
        raise DataError(f"{wrong}. To download it again, move this file away", path=path)
    write_record(data, got)


def _download(
    path: Path,
    resource: Resource,
    data: Path,
    transport: Transport,
    check: Callable[[Path], str] | None,
    skip: Collection[str],
) -> None:
    """Try every address in turn."""
    addresses = [url for url in transport.addresses(resource) if url not in skip]
    if transport.is_offline:
        addresses = [url for url in addresses if is_local(url)]  # a local mirror needs no network
    part = Part(data, resource.name)
    if resource.size is not None and addresses:
        check_space(path.parent, resource.size - min(part.length, resource.size), resource.name)
    failures: list[str] = []
    for url in addresses:
        try:
            _from_one(url, path, part, resource, data, transport, check)
        except RejectedError as rejected:
            failures.append(f"{url}: {rejected}")
        else:
            for failure in failures:
                log.warning("%s was not to be had from %s", resource.name, failure)
            return
    raise DataError(_failed(path, part, resource, transport, failures))


def _from_one(
    url: str,
    path: Path,
    part: Part,
    resource: Resource,
    data: Path,
    transport: Transport,
    check: Callable[[Path], str] | None,
) -> None:
    """Bring the file from one address, or raise `RejectedError`; parts put together wrongly have one more try."""
    before = read_record(data, resource.name)
    verified = resource.hashed or before is not None
    for _ in range(2):
        joined = complete(url, part, resource, transport, verified=verified)
        got = measure(part.path, resource.name, url)
        wrong = problem(got, resource, before, record_file(data, resource.name))
        if not wrong and check is not None:
            wrong = check(part.path)
        if not wrong:
            write_record(data, got)
            part.finish(path)
            return
        part.discard()
        if not joined:
            break
    raise RejectedError(wrong)


def _failed(path: Path, part: Part, resource: Resource, transport: Transport, failures: list[str]) -> str:
    listed = "".join(f"\n  {failure}" for failure in failures)
    if transport.is_offline:
        why = f"is not there, and offline mode (--offline or {OFFLINE}=1) forbids to download it; looked for {path}"
    elif failures:
        why = "could not be downloaded:"
    else:
        why = "has no known address"
    kept = f" What came so far is kept in {part.path} and continued the next time." if part.length else ""
    known = "" if not resource.urls or failures else f" It is at {' or '.join(resource.urls)}."
    return (
        f"{resource.name} {why}{listed}\n"
        f"Get it by hand and put it at {path}, or name a mirror in {MIRRORS} (base URLs).{known}{kept}"
    )
