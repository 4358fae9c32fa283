"""A web server on this machine for tests of downloads: it can fail in the ways that servers and networks do.

    with serve({"/a.zip": content}, {"/a.zip": [cut(100), status(503)]}) as site:
        fetch(Resource("a.zip", (site.url + "/a.zip",)), data)
    assert site.requests[1].headers["range"] == "bytes=100-"

A path's faults are used up one by one, a request each, after which it is answered rightly; a single fault in
place of a list holds for ever. `site.files` and `site.faults` may be changed while it runs.
"""

from __future__ import annotations

import hashlib
import http.server
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote


@dataclass(frozen=True)
class Fault:
    """What is done other than a right answer; made by the functions below, joined by `+`."""

    cut: int | None = None
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    content: bytes | None = None
    length: int | None = None  # added to the Content-Length
    ranges: bool = True
    conditions: bool = True
    etag: bool = True
    sized: bool = True
    stall: bool = False

    def __add__(self, other: Fault) -> Fault:
        plain = Fault()
        changed = {name: value for name, value in vars(other).items() if value != getattr(plain, name)}
        return replace(self, **changed)


def cut(after: int) -> Fault:
    """The connection ends after so many bytes of this answer's body."""
    return Fault(cut=after)


def status(code: int, **headers: str) -> Fault:
    """An error status; headers with `_` for `-`: `status(503, retry_after="0")`."""
    return Fault(status=code, headers=tuple((name.replace("_", "-"), value) for name, value in headers.items()))


def redirect(to: str, code: int = 302) -> Fault:
    """To another path or URL; to the same path without end, when it is not in a list."""
    return Fault(status=code, headers=(("Location", to),))


def wrong_bytes(content: bytes | None = None) -> Fault:
    """Other bytes under the right ETag: those given, else as many as there should be, each changed."""
    return Fault(content=content if content is not None else b"")


def wrong_length(more: int) -> Fault:
    """A Content-Length that is wrong by so many bytes: more than is sent, or (below 0) less."""
    return Fault(length=more)


def no_ranges() -> Fault:
    """Range is ignored: always the whole file."""
    return Fault(ranges=False)


def no_if_range() -> Fault:
    """If-Range is ignored: a range is given although the file has changed."""
    return Fault(conditions=False)


def no_etag() -> Fault:
    """No ETag, so that a change can only be seen by the size."""
    return Fault(etag=False)


def no_length() -> Fault:
    """No Content-Length: the end of the connection is the end of the file."""
    return Fault(sized=False)


def stall(after: int = 0) -> Fault:
    """After so many bytes nothing more comes, until the client goes or the server is stopped."""
    return Fault(cut=after, stall=True)


@dataclass
class Request:
    """One request that came: `headers` by lower-case name, and what was answered."""

    method: str
    path: str
    headers: dict[str, str]
    status: int = 0
    sent: int = 0
    """Bytes of the body."""


@dataclass
class Site:
    """A running server."""

    files: Mapping[str, bytes] | Path
    faults: dict[str, Fault | list[Fault]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    url: str = ""
    stopped: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def to(self, path: str) -> list[Request]:
        """The requests for a path."""
        return [request for request in self.requests if request.path == path]

    def content(self, path: str) -> bytes | None:
        if not isinstance(self.files, Path):
            return self.files.get(path)
        file = self.files / path.lstrip("/")
        return file.read_bytes() if file.is_file() else None

    def note(self, request: Request) -> Fault:
        """Record a request and take the fault for it."""
        with self.lock:
            self.requests.append(request)
            faults = self.faults.get(request.path, Fault())
            if isinstance(faults, list):
                return faults.pop(0) if faults else Fault()
            return faults


@contextmanager
def serve(files: Mapping[str, bytes] | Path, faults: dict[str, Fault | list[Fault]] | None = None) -> Iterator[Site]:
    """Serve a folder, or a mapping from path (`/a.zip`) to content, at `site.url` until the block ends."""
    site = Site(files, {} if faults is None else faults)
    with listening(type("SiteHandler", (_Handler,), {"site": site})) as site.url:
        try:
            yield site
        finally:
            site.stopped.set()


@contextmanager
def listening(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server on a free port, which no proxy of the environment stands before."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    unproxied = os.environ.get("NO_PROXY")
    os.environ["NO_PROXY"] = ",".join(filter(None, [unproxied, "127.0.0.1"]))
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        if unproxied is None:
            del os.environ["NO_PROXY"]
        else:
            os.environ["NO_PROXY"] = unproxied
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        self.close_connection = True  # so that the length of an answer can be left out or be wrong
        path = unquote(self.path.partition("?")[0])
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, path, headers)
        fault = self.site.note(request)
        content = self.site.content(path)
        if fault.status is not None or content is None:
            self._answer(request, fault, fault.status or 404, b"an error page", dict(fault.headers))
            return
        extra = {"ETag": f'"{hashlib.md5(content).hexdigest()}"'} if fault.etag else {}
        if fault.content is not None:
            content = fault.content or bytes(byte ^ 0xFF for byte in content)
        start = self._start(request, extra.get("ETag"), fault) if fault.ranges else None
        if start is None:
            self._answer(request, fault, 200, content, extra)
        elif start >= len(content):
            self._answer(request, fault, 416, b"", extra | {"Content-Range": f"bytes */{len(content)}"})
        else:
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._answer(request, fault, 206, content[start:], extra | {"Content-Range": span})

    do_HEAD = do_GET  # noqa: N815

    def _start(self, request: Request, etag: str | None, fault: Fault) -> int | None:
        """Where the range asked for begins; None: the whole file, also when `If-Range` names another ETag."""
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        same = not fault.conditions or request.headers.get("if-range") in (None, etag)
        return int(asked[1]) if asked and same else None

    def _answer(self, request: Request, fault: Fault, code: int, body: bytes, headers: dict[str, str]) -> None:
        length = len(body) + (fault.length or 0)
        sent = b"" if self.command == "HEAD" else body[: fault.cut]
        request.status, request.sent = code, len(sent)
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        if fault.sized:
            self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        try:
            self.end_headers()
            self.wfile.write(sent)
            self.wfile.flush()
        except OSError:  # the client has gone, as one does that wants no more of a wrong answer
            return
        if fault.stall:
            self.site.stopped.wait(30)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""
