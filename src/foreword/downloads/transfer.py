"""Bring one file from one URL into its part, over as many requests as that takes.

The transport is httpx (as `httpx2`, which huggingface_hub brings): connections, redirects, proxies, certificates,
timeouts. What it has not, and the download libraries at hand do not check, is here: to go on with a part only
when the server's answer shows that it belongs to the same file.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from foreword.common.terminal import moves_cursor
from foreword.downloads.part import Origin, Part
from foreword.downloads.places import check_space
from foreword.downloads.resources import Resource, Transport

if TYPE_CHECKING:
    import httpx2

_CHUNK = 1 << 20  # bytes
_REDIRECTS = 10
_LONGEST_WAIT = 30.0  # seconds, whatever a server asks for
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses after which the same request may succeed


class RejectedError(Exception):
    """This URL does not give the file; the message says why."""


class _InterruptionError(Exception):
    """This request failed, another may not; `wait` is the pause (seconds) that the server asked for, if any."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def complete(url: str, part: Part, resource: Resource, transport: Transport, *, verified: bool) -> bool:
    """Bring all that is missing of a part, trying again as long as that brings something new.

    Args:
        url: `http`, `https` or `file`.
        part: what came before, also in an earlier process or from another URL.
        resource: for its name, and its size where that is known.
        transport: see `Transport`.
        verified: the whole will be compared with a hash; a part from another URL may be continued then.

    Returns:
        Whether bytes of more than one request were put together.

    Raises:
        RejectedError: the URL is given up.
        DataError: no room on the disk.
    """
    if is_local(url):
        _copy(url, part, resource, transport)
        return False
    furthest, fruitless, joined = part.resumes(url, verified), 0, False
    with _client(url, transport) as client:
        while True:
            joined |= part.resumes(url, verified) > 0
            try:
                _request(client, url, part, resource, transport, verified)
                return joined
            except _InterruptionError as interrupted:
                # A server that always sends the same beginning brings nothing new either.
                fruitless = 0 if part.length > furthest else fruitless + 1
                furthest = max(furthest, part.length)
                if fruitless >= transport.tries:
                    raise RejectedError(str(interrupted)) from interrupted
                pause = transport.pause * 2 ** max(0, fruitless - 1)
                time.sleep(min(_LONGEST_WAIT, pause if interrupted.wait is None else interrupted.wait))


def is_local(url: str) -> bool:
    """Whether an address needs no network."""
    return url.casefold().startswith("file:")


@contextmanager
def _client(url: str, transport: Transport) -> Iterator[httpx2.Client]:
    """A client whose errors are RejectedError where another request would not help."""
    import httpx2

    try:
        with httpx2.Client(follow_redirects=True, max_redirects=_REDIRECTS, timeout=transport.timeout) as client:
            yield client
    except httpx2.TooManyRedirects as error:
        raise RejectedError(f"it redirects more than {_REDIRECTS} times") from error
    except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as error:
        raise RejectedError(_described(error)) from error


def _request(
    client: httpx2.Client, url: str, part: Part, resource: Resource, transport: Transport, verified: bool
) -> None:
    """One request: for the rest of the part, or for the whole file."""
    import httpx2

    have = part.resumes(url, verified)
    if have and part.whole:
        return
    headers = {"User-Agent": "foreword", "Accept-Encoding": "identity"}  # a range is one of the file's own bytes
    if have:
        headers |= _range(part, url, have)
    try:
        with client.stream("GET", url, headers=headers) as answer:
            origin = _origin(answer, url, part, have)
            if origin is None:  # all there
                return
            _check_size(origin.size, resource)
            kept = have if answer.status_code == httpx2.codes.PARTIAL_CONTENT else 0
            check_space(part.path.parent, max(0, (origin.size or 0) - kept), resource.name)
            with part.go_on() if kept else part.begin(origin) as file:
                _receive(answer.iter_raw(), file, kept, origin.size, resource, transport)
    except (httpx2.NetworkError, httpx2.TimeoutException, httpx2.RemoteProtocolError) as error:
        raise _InterruptionError(f"{_described(error)}; {_came(part)}") from error
    if part.origin is not None and part.origin.size is not None and not part.whole:
        raise _InterruptionError(f"cut off; {_came(part)}")


def _range(part: Part, url: str, have: int) -> dict[str, str]:
    """Ask for what comes after the bytes that are there, if the file is still the same."""
    headers = {"Range": f"bytes={have}-"}
    origin = part.origin
    if origin is not None and origin.url == url and origin.validator is not None:
        headers["If-Range"] = origin.validator
    return headers


def _origin(answer: httpx2.Response, url: str, part: Part, have: int) -> Origin | None:
    """What the answer says of the file; None when it says that the part is the whole of it."""
    code = answer.status_code
    before = part.origin
    if code == 200:
        return Origin(url, _validator(answer), _number(answer.headers.get("Content-Length", "")))
    if code == 206 and have and before is not None:
        if not _continues(answer, url, before, have):
            part.discard()
            raise _InterruptionError("the file has changed at the server since its first part came")
        return before
    if code == 416 and have and before is not None:
        match = re.fullmatch(r"bytes \*/(\d+)", answer.headers.get("Content-Range", ""))
        if before.size is None and match and int(match[1]) == have:
            return None
        part.discard()
        raise _InterruptionError(f"the server has no bytes after the first {have}; it promised {before.size}")
    reason = f"{code} {answer.reason_phrase}".strip()
    if code in _PASSING:
        raise _InterruptionError(reason, _number(answer.headers.get("Retry-After", "")))
    raise RejectedError(reason)


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


def _receive(
    chunks: Iterator[bytes], file: IO[bytes], kept: int, size: int | None, resource: Resource, transport: Transport
) -> None:
    """Write what comes as it comes, so that a cut loses none of it, with a bar; more than a known size is not taken."""
    most = resource.size if resource.size is not None else size
    got = kept
    with _bar(resource.name, kept, size, transport) as bar:
        for chunk in chunks:
            got += len(chunk)
            if most is not None and got > most:
                raise RejectedError(f"it sends more than the {most} bytes expected")
            file.write(chunk)
            file.flush()
            bar.update(len(chunk))


def _bar(name: str, kept: int, size: int | None, transport: Transport) -> Any:
    """A progress bar in bytes, shown as `foreword.common.progress` shows its own."""
    from tqdm import tqdm

    disable = transport.quiet or not moves_cursor()
    units = {"unit": "B", "unit_scale": True, "unit_divisor": 1000}
    return tqdm(desc=name, initial=kept, total=size, delay=2.0, leave=False, disable=disable, file=sys.stderr, **units)


def _copy(url: str, part: Part, resource: Resource, transport: Transport) -> None:
    """Copy a file of this machine (or of a mounted disk)."""
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
        size = source.stat().st_size
        _check_size(size, resource)
        check_space(part.path.parent, size, resource.name)
        with part.begin(Origin(url, None, size)) as copy:
            _receive(iter(lambda: file.read(_CHUNK), b""), copy, 0, size, resource, transport)
    if not part.whole:
        raise RejectedError(f"it became shorter while it was copied; {_came(part)}")


def _check_size(size: int | None, resource: Resource) -> None:
    if None not in (size, resource.size) and size != resource.size:
        raise RejectedError(f"it has {size} bytes there, expected {resource.size}")


def _came(part: Part) -> str:
    origin = part.origin
    whole = "" if origin is None or origin.size is None else f" of {origin.size}"
    return f"{part.length}{whole} bytes came"


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text.strip()) else None


def _described(error: Exception) -> str:
    return str(error) or type(error).__name__
