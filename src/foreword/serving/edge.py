"""What every request passes first: the API key, the limit on its size, and the counters."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Container, Sequence
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foreword.errors import RequestError
from foreword.serving.batcher import Pass
from foreword.serving.config import Key, authenticate

# What is counted, for Prometheus.


_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_POWERS = tuple(float(2**power) for power in range(11))


class Metrics:
    """The counters of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry, "namespace": "foreword"}
        self.requests = Counter("requests", "Requests answered.", ["endpoint", "status"], **own)
        self.seconds = Histogram("request_seconds", "Time to answer a request.", ["endpoint"], buckets=_SECONDS, **own)
        self.texts = Counter("texts", "Texts embedded for /v1/embeddings, by domain.", ["domain"], **own)
        self.tokens = Counter("tokens", "Their tokens, by domain.", ["domain"], **own)
        self.searches = Counter("searches", "Queries searched, by domain and system.", ["domain", "system"], **own)
        self.pass_texts = Histogram("pass_texts", "Texts in a forward pass.", buckets=_POWERS, **own)
        self.pass_ways = Histogram(
            "pass_ways", "Prompts (and the base model) in a forward pass.", buckets=_POWERS, **own
        )
        self.pass_tokens = Counter("pass_tokens", "Tokens of forward passes, without padding.", **own)
        self.pass_seconds = Histogram("pass_seconds", "Time of a forward pass.", buckets=_SECONDS, **own)
        self.waited = Histogram(
            "queue_seconds", "How long the oldest text of a forward pass had waited.", buckets=_SECONDS, **own
        )
        self.reloads = Counter("reloads", "Times that the prompts were read again, by outcome.", ["outcome"], **own)
        self._gauges: list[Gauge] = []

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """Add a value that is asked for whenever the metrics are read."""
        gauge = Gauge(name, what, registry=self.registry, namespace="foreword")
        gauge.set_function(value)
        self._gauges.append(gauge)

    def on_pass(self, done: Pass) -> None:
        """Count a forward pass."""
        self.pass_texts.observe(done.texts)
        self.pass_ways.observe(done.ways)
        self.pass_tokens.inc(done.tokens)
        self.pass_seconds.observe(done.seconds)
        self.waited.observe(done.waited)

    def text(self) -> bytes:
        """All of them, in Prometheus's text format."""
        return generate_latest(self.registry)


OPEN = ("/", "/health", "/docs", "/openapi.json", "/favicon.ico")
"""What needs no key; so does all below `/static/`. Everything else does, where there are keys."""

ADMIN = ("/admin/", "/metrics")


class Edge:
    """ASGI middleware; the key of the request is in `request.state.key`, its id in `request.state.request_id`."""

    def __init__(
        self, app: ASGIApp, *, keys: Sequence[Key], hosts: Container[str] | None, max_bytes: int, metrics: Metrics
    ) -> None:
        """`hosts`: the names it may be asked for by, None: any; `max_bytes`: the limit on a request's body."""
        self.app, self.keys, self.hosts, self.max_bytes, self.metrics = app, keys, hosts, max_bytes, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 500
        scope.setdefault("state", {})["request_id"] = uuid.uuid4().hex

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(headers_of(scope))
            await send(message)

        try:
            try:
                self._check_host(scope)
                scope["state"]["key"] = self._key(scope)
                body = await self._body(scope, receive)
            except RequestError as error:
                extra = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {"Connection": "close"}
                await JSONResponse(error.body(), error.status, extra)(scope, receive, noting)
                return
            await self.app(scope, _again(body, receive), noting)
        finally:
            endpoint = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(endpoint, str(status)).inc()
            self.metrics.seconds.labels(endpoint).observe(time.monotonic() - began)

    def _check_host(self, scope: Scope) -> None:
        """Against a page of the web whose own name leads to this machine (DNS rebinding)."""
        if self.hosts is None:
            return
        name = urlsplit(f"//{Headers(scope=scope).get('host', '')}").hostname or ""
        if name not in self.hosts:
            raise RequestError(f"there is no service by the name {name!r} here (hosts)", 421, "unknown_host")

    def _key(self, scope: Scope) -> Key | None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path in OPEN or path.startswith("/static/"):
            return None
        key = authenticate(self.keys, Headers(scope=scope).get("authorization"))
        if path.startswith(ADMIN) and not key.admin:
            raise RequestError(f"the key {key.name!r} is not an admin's", 403, "not_admin")
        return key

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body. Raises `RequestError` (413) as soon as it is too long, whatever its header says."""
        said = Headers(scope=scope).get("content-length", "0")
        parts: list[bytes] = []
        size = int(said) if said.isdecimal() else 0
        received = 0
        while size <= self.max_bytes and received <= self.max_bytes:
            message = await receive()
            if message["type"] != "http.request":  # the client has gone
                return b"".join(parts)
            parts.append(message.get("body", b""))
            received += len(parts[-1])
            if not message.get("more_body", False):
                if received <= self.max_bytes:
                    return b"".join(parts)
                break
        raise RequestError(
            f"the request has more than {self.max_bytes} bytes; send fewer texts at a time", 413, "request_too_large"
        )


def headers_of(scope: Scope) -> dict[str, str]:
    """What every answer to the request bears: its id, and that no other site may frame it or guess its type."""
    return {
        "x-request-id": scope["state"]["request_id"],
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "content-security-policy": "frame-ancestors 'none'",
    }


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read, then what else comes: that the client goes."""
    given = False

    async def again() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
