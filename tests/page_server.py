"""A stand-in for the service behind the page, with canned answers, and a real browser to look at the page with.

with serve_page() as site, open_browser() as browser:
    page = open_page(browser)
    page.goto(site.url)
"""

from __future__ import annotations

import http.server
import json
import mimetypes
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import pytest

EVIL = '<img src=x onerror="window.broken=1"><script>window.broken=1</script> & "quotes" \'single\' </style>'
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
STATIC = files("foreword") / "serving" / "static"
Answer = tuple[int, Any]

TITLES = {
    "d1": ("torch.Tensor.detach", "Returns a new Tensor, detached from the current graph. " + "It never requires gradient. " * 30),
    "d2": ("torch.no_grad", "Context-manager that disables gradient calculation."),
    "d3": ("torch.autograd.backward", "Computes the sum of gradients of given tensors with respect to graph leaves."),
    "d4": ("torch.nn.utils.clip_grad_norm_", "Clips the gradient norm of an iterable of parameters."),
    "d5": ("torch.Tensor.requires_grad_", "Changes if autograd should record operations on this tensor."),
    "d6": ("torch.autograd.gradcheck.GradcheckError", "Error raised by gradcheck when gradients differ."),
}  # fmt: skip
ORDERS = {
    "base": ["d1", "d2", "d3", "d4"],
    "prompt": ["d2", "d1", "d5", "d4"],
    "bm25": ["d4", "d3", "d6", "d1"],
    "hybrid": ["d4", "d1"],
}


def hits(order: list[str], scale: float = 1.0) -> list[dict[str, Any]]:
    """Hits of a ranking, as the service writes them."""
    return [
        {
            "rank": rank,
            "doc_id": doc_id,
            "title": TITLES[doc_id][0],
            "text": TITLES[doc_id][1],
            "score": round(scale * (0.7 - 0.05 * rank), 4),
            "metadata": {"package": "torch"},
        }
        for rank, doc_id in enumerate(order, start=1)
    ]


def found(request: dict[str, Any], systems: dict[str, Any] | None = None) -> Answer:
    """The answer to a search."""
    if systems is None:
        systems = {name: hits(ORDERS[name], 20 if name == "bm25" else 1)[: request["k"]] for name in request["systems"]}
    one = {"query": request["query"], "systems": systems}
    return 200, {"domain": request["domain"], "k": request["k"], "results": [one], "milliseconds": 12.4}


def refused(status: int, message: str) -> Answer:
    """An error, as the service writes it."""
    return status, {"error": {"message": message, "type": "invalid_request_error", "code": None, "param": None}}


def health() -> dict[str, Any]:
    return {"status": "ok", "version": "0.1.0", "backbone": "all-MiniLM-L6-v2", "uptime_seconds": 7300}


def domains() -> dict[str, Any]:
    prompt = {
        "kind": "gated",
        "length": 32,
        "sides": "untied",
        "parameters": 147600,
        "bytes": 295688,
        "fingerprint": "53aa",
        "trained_on": ["pydoc/torch"],
        "supervision": "train",
    }
    three = ["base", "prompt", "bm25"]
    notes = {"name": "folder:notes", "prompt": None, "searchable": True, "documents": 40}
    weight = {"bm25": 0.3, "chosen_by": "dev queries", "queries": 120, "dense": 0.541, "hybrid": 0.609, "words": 0.5}
    return {
        "backbone": {"name": "all-MiniLM-L6-v2", "fingerprint": "53aa"},
        "domains": [
            {"name": "pydoc/torch", "prompt": prompt, "searchable": True, "documents": 1234, "systems": three},
            {**notes, "systems": ["base", "bm25", "hybrid"], "hybrid": weight},
            {"name": "pydoc/numpy", "prompt": prompt, "searchable": False, "documents": None, "systems": []},
        ],
    }


def bank() -> dict[str, Any]:
    names = ["pydoc/numpy", "pydoc/scipy", "pydoc/torch"]
    figures = {
        "pydoc/numpy": {"base": 0.5, "prompt": 0.62},
        "pydoc/scipy": {"base": 0.61, "prompt": 0.6},
        "pydoc/torch": {"base": 0.546, "prompt": 0.638, "bm25": 0.554},
    }
    return {
        "names": names,
        "similarity": {"names": names, "values": [[1.0, 0.81, 0.44], [0.81, 1.0, 0.52], [0.44, 0.52, 1.0]]},
        "transfer": {
            "sources": names[:2],
            "targets": names,
            "values": [[0.62, 0.59, 0.571], [0.55, 0.6, None]],
            "measure": "nDCG@10",
        },
        "figures": [
            {"domain": domain, "system": system, "measure": measure, "value": round(value + more, 4)}
            for measure, more in (("R@100", 0.3), ("nDCG@10", 0.0))
            for domain, own in figures.items()
            for system, value in own.items()
        ],
        "words": {name: [[f"{name[6:]}{n}", 0.5 - n / 50] for n in range(16)] for name in names},
    }


@dataclass
class Site:
    """A running stand-in: `answers` may be changed while it runs; `asked` keeps what came."""

    url: str = ""
    key: str | None = None
    answers: dict[str, Callable[[Any], Answer]] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)

    def reset(self) -> None:
        """The answers of a service that is well."""
        self.key = None
        self.asked = []
        self.answers = {
            "/health": lambda _: (200, health()),
            "/domains": lambda _: (200, domains()),
            "/bank": lambda _: (200, bank()),
            "/search": found,
        }

    def searches(self) -> list[Any]:
        """The bodies of the searches so far."""
        return [body for path, body in self.asked if path == "/search"]


@contextmanager
def serve_page() -> Iterator[Site]:
    """Serve the page's files and canned answers until the block ends."""
    site = Site()
    site.reset()
    handler = type("PageHandler", (_Handler,), {"site": site})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    site.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in self.site.answers:
            self._answer(path, None)
            return
        name = {"/": "index.html"}.get(path) or (path.removeprefix("/static/") if path.startswith("/static/") else "")
        file = STATIC / name
        if not name or "/" in name or not file.is_file():
            self._send(404, b"no such file", "text/plain")
            return
        self._send(200, file.read_bytes(), mimetypes.guess_type(name)[0] or "application/octet-stream")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(self.path, body)

    def _answer(self, path: str, body: Any) -> None:
        self.site.asked.append((path, body))
        if self.site.key and path != "/health" and self.headers["Authorization"] != f"Bearer {self.site.key}":
            status, data = refused(401, "a key is wanted")
        else:
            status, data = self.site.answers[path](body)
        content = data if isinstance(data, bytes) else json.dumps(data).encode()
        self._send(status, content, "text/html" if isinstance(data, bytes) else "application/json")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        try:
            self.end_headers()
            self.wfile.write(content)
        except OSError:  # the page has given the call up
            return

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""


@contextmanager
def open_browser() -> Iterator[Any]:
    """A headless Chromium; skips the tests where playwright or the browser is absent."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser on this machine; looked for {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser: Any, **options: Any) -> Iterator[Any]:
    """A page of its own session; fails when the page's scripts raised or logged an error that no answer explains."""
    context = browser.new_context(
        **({"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"} | options)
    )
    context.set_default_timeout(10_000)
    page = context.new_page()
    raised: list[str] = []
    page.on("pageerror", lambda error: raised.append(str(error)))
    page.on("console", lambda said: raised.append(said.text) if said.type == "error" and not _told(said.text) else None)
    try:
        yield page
    finally:
        context.close()
    assert raised == []


def _told(text: str) -> bool:
    """Whether an error on the console is the browser's own line on an answer's status, or on no answer."""
    return text.startswith("Failed to load resource")
