"""Download a file once: from the first place that has it, verified, under its final name only when it is right."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

from foreword.downloads.places import DEFAULT, MIRRORS, OFFLINE, Resource, Transport, check_space, locked, record_file
from foreword.errors import DataError
from foreword.files import kept_json, read_json, write_json
from foreword.terminal import moves_cursor

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger(__name__)

_CHUNK = 1 << 20  # bytes
_REDIRECTS = 10
_LONGEST_WAIT = 30.0  # seconds, whatever a server asks for
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses after which the same request may succeed


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
                before = read_record(data, resource.name)  # put by hand, or changed since it was downloaded
                got = measure(path, resource.name, before.url if before else "")
                if wrong := problem(got, resource, before, record_file(data, resource.name)):
                    raise DataError(f"{wrong}. To download it again, move this file away", path=path)
                write_record(data, got)
            else:
                _Download(resource, data, transport, check).run(skip)
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
    inside: str = "",
) -> Path:
    """The folder with an archive's files: the one that is there, else made by `fetch` and `extract`, locked.

    `limit`, `members` and `inside` are those of `extract`; raises `DataError` as both do.
    """
    from foreword.downloads.archives import extract  # with all that it unpacks by, seldom needed

    if folder.is_dir():
        return folder
    archive = fetch(resource, data, transport)
    with locked(data, f"{resource.name}.unpack"):
        try:
            return extract(archive, folder, limit=limit, members=members, inside=inside)
        except DataError as error:
            if resource.hashed:
                raise
            record = record_file(data, resource.name)
            raise DataError(f"{error}. To download it again, delete {archive} and {record}") from error


def begins_with(*magic: bytes, expected: str) -> Callable[[Path], str]:
    """A `check` for `fetch`: whether a file's first bytes are one of some; else a message that begins as told."""

    def check(path: Path) -> str:
        with path.open("rb") as file:
            first = file.read(16)
        return "" if first.startswith(magic) else f"{expected}, got what begins with {first!r}"

    return check


class RejectedError(Exception):
    """An address does not give the file; the message says why."""


class _InterruptionError(Exception):
    """This request failed, another may not; `wait` is the pause (seconds) that the server asked for, if any."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class _Download:
    """One file on its way, from any of its addresses.

    The transport is httpx (as `httpx2`, which huggingface_hub brings): connections, redirects, proxies, certificates,
    timeouts. What it has not, and the download libraries at hand do not check, is here: to go on with a part only
    when the server's answer shows that it belongs to the same file.
    """

    def __init__(
        self, resource: Resource, data: Path, transport: Transport, check: Callable[[Path], str] | None
    ) -> None:
        self.resource, self.data, self.transport, self.check = resource, data, transport, check
        self.path, self.part = data / resource.name, PartialFile(data, resource.name)
        self.before = read_record(data, resource.name)
        # The whole will be compared with a hash, so that a part from another address may be continued.
        self.verified = resource.hashed or self.before is not None

    def run(self, skip: Collection[str]) -> None:
        """Try every address in turn."""
        resource, transport, part = self.resource, self.transport, self.part
        addresses = [url for url in transport.addresses(resource) if url not in skip]
        if transport.is_offline:
            addresses = [url for url in addresses if _is_local(url)]  # a local mirror needs no network
        if resource.size is not None and addresses:
            check_space(self.path.parent, resource.size - min(part.length, resource.size), resource.name)
        failures: list[str] = []
        for url in addresses:
            try:
                self._from_one(url)
            except RejectedError as rejected:
                failures.append(f"{url}: {rejected}")
            else:
                for failure in failures:
                    log.warning("%s was not to be had from %s", resource.name, failure)
                return
        raise DataError(self._failed(failures))

    def _from_one(self, url: str) -> None:
        """Bring the file from one address, or raise `RejectedError`; parts put together wrongly have one more try."""
        record_path = record_file(self.data, self.resource.name)
        for _ in range(2):
            joined = self._copy(url) if _is_local(url) else self._complete(url)
            got = measure(self.part.path, self.resource.name, url)
            wrong = problem(got, self.resource, self.before, record_path)
            if not wrong and self.check is not None:
                wrong = self.check(self.part.path)
            if not wrong:
                write_record(self.data, got)
                self.part.finish(self.path)
                return
            self.part.discard()
            if not joined:
                break
        raise RejectedError(wrong)

    def _failed(self, failures: Sequence[str]) -> str:
        listed = "".join(f"\n  {failure}" for failure in failures)
        if self.transport.is_offline:
            forbidden = f"offline mode (--offline or {OFFLINE}=1) forbids to download it"
            why = f"is not there, and {forbidden}; looked for {self.path}"
        else:
            why = "could not be downloaded:" if failures else "has no known address"
        urls, part = self.resource.urls, self.part
        kept = f" What came so far is kept in {part.path} and continued the next time." if part.length else ""
        known = "" if not urls or failures else f" It is at {' or '.join(urls)}."
        return (
            f"{self.resource.name} {why}{listed}\n"
            f"Get it by hand and put it at {self.path}, or name a mirror in {MIRRORS} (base URLs).{known}{kept}"
        )

    def _complete(self, url: str) -> bool:
        """Bring all that is missing of the part, trying again as long as that brings something new.

        Says whether bytes of more than one request were put together.
        """
        import httpx2

        part, transport = self.part, self.transport
        furthest, fruitless, joined = part.resumes(url, self.verified), 0, False
        try:
            with httpx2.Client(follow_redirects=True, max_redirects=_REDIRECTS, timeout=transport.timeout) as client:
                while True:
                    joined |= part.resumes(url, self.verified) > 0
                    try:
                        self._request(client, url)
                        return joined
                    except _InterruptionError as interrupted:
                        # A server that always sends the same beginning brings nothing new either.
                        fruitless = 0 if part.length > furthest else fruitless + 1
                        furthest = max(furthest, part.length)
                        if fruitless >= transport.tries:
                            raise RejectedError(str(interrupted)) from interrupted
                        pause = transport.pause * 2 ** max(0, fruitless - 1)
                        time.sleep(min(_LONGEST_WAIT, pause if interrupted.wait is None else interrupted.wait))
        except httpx2.TooManyRedirects as error:
            raise RejectedError(f"it redirects more than {_REDIRECTS} times") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as error:
            raise RejectedError(str(error) or type(error).__name__) from error

    def _request(self, client: httpx2.Client, url: str) -> None:
        """One request: for the rest of the part, or for the whole file."""
        import httpx2

        part, before = self.part, self.part.origin
        have = part.resumes(url, self.verified)
        if have and part.whole:
            return
        headers = {"User-Agent": "foreword", "Accept-Encoding": "identity"}  # a range is one of the file's own bytes
        if have:
            headers["Range"] = f"bytes={have}-"
            if before is not None and before.url == url and before.validator is not None:
                headers["If-Range"] = before.validator  # the rest only if the file is still the same
        try:
            with client.stream("GET", url, headers=headers) as answer:
                origin = self._origin(answer, url, have)
                if origin is None:  # all there
                    return
                kept = have if answer.status_code == httpx2.codes.PARTIAL_CONTENT else 0
                self._receive(answer.iter_raw(), origin, kept)
        except (httpx2.NetworkError, httpx2.TimeoutException, httpx2.RemoteProtocolError) as error:
            raise _InterruptionError(f"{str(error) or type(error).__name__}; {part.came}") from error
        if part.origin is not None and part.origin.size is not None and not part.whole:
            raise _InterruptionError(f"cut off; {part.came}")

    def _origin(self, answer: httpx2.Response, url: str, have: int) -> Origin | None:
        """What the answer says of the file; None when it says that the part is the whole of it."""
        code, before = answer.status_code, self.part.origin
        if code == 200:
            return Origin(url, _validator(answer), _number(answer.headers.get("Content-Length", "")))
        if code == 206 and have and before is not None:
            if not _continues(answer, url, before, have):
                self.part.discard()
                raise _InterruptionError("the file has changed at the server since its first part came")
            return before
        if code == 416 and have and before is not None:
            match = re.fullmatch(r"bytes \*/(\d+)", answer.headers.get("Content-Range", ""))
            if before.size is None and match and int(match[1]) == have:
                return None
            self.part.discard()
            raise _InterruptionError(f"the server has no bytes after the first {have}; it promised {before.size}")
        reason = f"{code} {answer.reason_phrase}".strip()
        if code in _PASSING:
            raise _InterruptionError(reason, _number(answer.headers.get("Retry-After", "")))
        raise RejectedError(reason)

    def _copy(self, url: str) -> bool:
        """Copy a file of this machine (or of a mounted disk) into the part; nothing is put together."""
        from urllib.request import url2pathname

        try:
            split = urlsplit(url)
        except ValueError as error:
            raise RejectedError(str(error)) from error
        if split.netloc not in ("", "localhost"):
            raise RejectedError(f"a file on another machine ({split.netloc}) cannot be read; write file:///path")
        source = Path(url2pathname(split.path))
        try:
            file = source.open("rb")
        except OSError as error:
            raise RejectedError(str(error.strerror)) from error
        with file:
            self._receive(iter(lambda: file.read(_CHUNK), b""), Origin(url, None, source.stat().st_size), 0)
        if not self.part.whole:
            raise RejectedError(f"it became shorter while it was copied; {self.part.came}")
        return False

    def _receive(self, chunks: Iterator[bytes], origin: Origin, kept: int) -> None:
        """Write what comes as it comes, so that a cut loses none of it; more than a known size is not taken.

        `origin` is what is said of the whole file; `kept` are the bytes that are there and stay, 0 to begin anew.
        """
        from tqdm import tqdm

        size, resource = origin.size, self.resource
        if None not in (size, resource.size) and size != resource.size:
            raise RejectedError(f"it has {size} bytes there, expected {resource.size}")
        check_space(self.path.parent, max(0, (size or 0) - kept), resource.name)
        most = resource.size if resource.size is not None else size
        bar = tqdm(  # as `foreword.terminal` shows its own
            desc=resource.name, initial=kept, total=size, delay=2.0, leave=False, file=sys.stderr,
            unit="B", unit_scale=True, unit_divisor=1000, disable=self.transport.quiet or not moves_cursor(),
        )  # fmt: skip
        with self.part.go_on() if kept else self.part.begin(origin) as file, bar:
            for chunk in chunks:
                kept += len(chunk)
                if most is not None and kept > most:
                    raise RejectedError(f"it sends more than the {most} bytes expected")
                file.write(chunk)
                file.flush()
                bar.update(len(chunk))


def _is_local(url: str) -> bool:
    """Whether an address needs no network."""
    return url.casefold().startswith("file:")


def _continues(answer: httpx2.Response, url: str, before: Origin, have: int) -> bool:
    """Whether an answer's bytes are those after the first `have` of the same file, as far as it says."""
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != have:
        return False
    if before.size is not None and _number(match[3]) not in (None, before.size):
        return False
    validator = _validator(answer)
    return before.url != url or None in (validator, before.validator) or validator == before.validator


def _validator(answer: httpx2.Response) -> str | None:
    """What stands for the file's exact bytes: a strong ETag, else the date of its last change."""
    etag: str | None = answer.headers.get("ETag")
    if etag is not None and etag.startswith('"'):
        return etag
    changed: str | None = answer.headers.get("Last-Modified")
    return changed


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text.strip()) else None


@dataclass(frozen=True)
class Origin:
    """What a server said of the file that a part is the beginning of."""

    url: str
    validator: str | None
    """A strong ETag, else the date of the last change: equal only for equal bytes. None: neither was given."""
    size: int | None
    """Bytes of the whole, None where the server did not say."""


class PartialFile:
    """`<file>.part` beside the final file, and its origin as JSON below `.records`: both outlive the process."""

    def __init__(self, data: Path, name: str) -> None:
        self.path = Path(data) / f"{name}.part"
        self._origin = record_file(data, f"{name}.part")

    @property
    def length(self) -> int:
        """Bytes that have come."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def origin(self) -> Origin | None:
        """Where they came from; None when that is not known, and then they are of no use."""
        try:
            return Origin(**kept_json(self._origin))
        except TypeError:  # there is none, or of other fields
            return None

    def resumes(self, url: str, verified: bool) -> int:
        """How many bytes can be kept when the rest comes from `url`; 0: start again.

        `verified` says that the whole file will be compared with a hash, so that a wrong guess is found out.
        """
        origin = self.origin
        if origin is None:
            return 0
        surely_same = origin.url == url and (origin.validator is not None or origin.size is not None)
        return self.length if surely_same or verified else 0

    @property
    def whole(self) -> bool:
        """Whether all has come that the server promised."""
        origin = self.origin
        return origin is not None and self.length == origin.size

    @property
    def came(self) -> str:
        """How much has come, in words."""
        origin = self.origin
        whole = "" if origin is None or origin.size is None else f" of {origin.size}"
        return f"{self.length}{whole} bytes came"

    def begin(self, origin: Origin) -> IO[bytes]:
        """Open it empty, for a file whose first byte comes next."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("wb")  # emptied before its origin is named: what is there never has a wrong one
        write_json(self._origin, asdict(origin))
        return file

    def go_on(self) -> IO[bytes]:
        """Open it to write what comes after what is there."""
        return self.path.open("ab")

    def discard(self) -> None:
        """Forget what came."""
        self.path.unlink(missing_ok=True)
        self._origin.unlink(missing_ok=True)

    def finish(self, path: Path) -> None:
        """Give the whole file its final name, once its bytes are on the disk."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        self._origin.unlink(missing_ok=True)  # first, since nobody looks for it once the file has its name
        self.path.replace(path)


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
        return Record(**read_json(path, "delete it"))
    except FileNotFoundError:
        return None
    except TypeError as error:
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

    Where the resource has a hash, what the file was `before`, at its first download, does not count.
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
