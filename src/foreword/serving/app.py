"""The application: what every request passes, all endpoints of one service, and its run until it is told to stop."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import os
import signal
import socket
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from http import HTTPStatus
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h11
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment
from markupsafe import Markup
from prometheus_client import CONTENT_TYPE_LATEST
from sentence_transformers import SentenceTransformer
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from foreword.errors import ForewordError, RequestError, error_body
from foreword.prompts.store import library_versions
from foreword.serving.api import REFUSALS, Reply, openai_router, search_router
from foreword.serving.config import LOOPBACK, Key, ServeConfig
from foreword.serving.service import Load, Metrics, Service
from foreword.terminal import wants_colour

logger = logging.getLogger(__name__)

HERE = Path(__file__).parent


def create_app(
    config: ServeConfig,
    *,
    load: Load | None = None,
    encoder: SentenceTransformer | None = None,
    signals: bool = False,
) -> FastAPI:
    """The application, its backbone loaded; prompts and collections are read when it starts.

    Args:
        load: gives a collection by its id; None: `foreword.load` with the configured folder.
        encoder: in place of the configured backbone.
        signals: SIGHUP reads the prompts again.

    Raises:
        ForewordError: something configured is not there, or broken.
    """
    service = Service(config, load=load, encoder=encoder)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        if signals:
            _on_hangup(service)
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(
        title="Foreword",
        version=library_versions()["foreword"],
        description="Embeddings and search: one frozen encoder, a small learned prompt for each domain.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own pages load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # it would redirect to whatever the header Host says
        default_response_class=Reply,
        responses=REFUSALS,
    )
    app.state.service = service
    app.add_middleware(Edge, config=config, metrics=service.metrics)
    _add_errors(app)
    app.include_router(openai_router(service))
    app.include_router(search_router(service))
    _add_the_rest(app, service)
    return app


def _on_hangup(service: Service) -> None:
    """Reload on SIGHUP; a folder that cannot be read is said in the log."""
    loop = asyncio.get_running_loop()
    running: set[asyncio.Task[None]] = set()

    async def again() -> None:
        try:
            await service.reload()
        except ForewordError as error:
            logger.error("the prompts are as they were: %s", error)
        except Exception:  # nobody waits for this task
            logger.exception("the prompts are as they were")

    def start() -> None:
        task = loop.create_task(again())
        running.add(task)
        task.add_done_callback(running.discard)

    if hasattr(signal, "SIGHUP"):  # not on Windows
        loop.add_signal_handler(signal.SIGHUP, start)


class _Fresh(StaticFiles):
    """Files that a browser asks for anew each time (304 where they are as they were): modules of one version."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _add_the_rest(app: FastAPI, service: Service) -> None:
    """Upkeep, and the pages."""

    @app.get("/health", tags=["upkeep"])
    async def health() -> dict[str, Any]:
        """That the service answers."""
        return {
            "status": "ok",
            "version": app.version,
            "backbone": service.backbone["name"],
            "uptime_seconds": round(time.monotonic() - service.began, 3),
        }

    @app.get("/metrics", tags=["upkeep"], response_class=PlainTextResponse)
    async def counters(request: Request) -> Response:
        """The counters, in Prometheus's text format; with keys, for an admin's."""
        return Response(service.metrics.text(request.state.key), media_type=CONTENT_TYPE_LATEST)

    @app.post("/admin/reload", tags=["upkeep"])
    async def read_again(request: Request) -> dict[str, list[str]]:
        """Read the bank's folder again; with keys, for an admin's. Requests in flight finish with the old prompts."""
        key: Key = request.state.key
        try:
            changes = await service.reload()
        except RequestError:
            raise
        except ForewordError as error:
            logger.error("the prompts are as they were: %s", error)
            said = " ".join(str(error).split()) if key.sees_all else "the prompts are as they were; the log says why"
            raise RequestError(said, 400, type(error).__name__) from error
        return {what: list(filter(key.may_use, names)) for what, names in changes.items()}

    templates = Environment(autoescape=True)
    templates.filters["json"] = partial(json.dumps, indent=2)
    style = Markup(resources.files("foreword.report").joinpath("style.css").read_text(encoding="utf-8"))
    docs_page = templates.from_string((HERE / "docs.html").read_text(encoding="utf-8"))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page.render(openapi=app.openapi(), style=style))

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(HERE / "static" / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/static", _Fresh(directory=HERE / "static"), name="static")


def _add_errors(app: FastAPI) -> None:
    """Every error in OpenAI's form."""

    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> Reply:
        return Reply(error.body(), error.status, error.headers)

    @app.exception_handler(ForewordError)
    async def failed(request: Request, error: ForewordError) -> Reply:
        """What is no request's fault: a file of the bank, an index that does not answer."""
        logger.error("request %s: %s", request.state.request_id, error)
        key: Key | None = getattr(request.state, "key", None)
        told = key is not None and key.admin and key.sees_all  # it may name other domains
        message = " ".join(str(error).split()) if told else "this is not to be had now; the service's log says why"
        refusal = RequestError(message, 503, type(error).__name__)
        return Reply(refusal.body(), refusal.status, refusal.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Reply:
        errors = error.errors()
        first = next((one for one in errors if one["type"] == "unicode"), errors[0])  # `input` may be many things
        where = [str(part) for part in first["loc"] if part != "body"]
        param = where[0] if where and not where[0].isdecimal() else None
        said, code = first["msg"], first["type"]
        if code == "json_invalid":
            said = "the body is no JSON"
        elif isinstance(error.body, bytes):  # FastAPI has not tried to read it
            given = request.headers.get("content-type")
            said = f"Content-Type is {given!r}" if given else "there is no Content-Type"
            param, code, said = None, "content_type", f"{said}; send the header 'Content-Type: application/json'"
        elif param == "input" and code != "unicode":
            said = "expected a text, a list of texts, or arrays of token ids"
        return Reply(error_body(422, f"{param or 'the request'}: {said}", code, param), 422)

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> Reply:
        body = error_body(error.status_code, str(error.detail), f"http_{error.status_code}")
        return Reply(body, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Reply:
        logger.error("request %s failed (%s)", request.state.request_id, type(error).__name__)
        message = f"the service failed ({type(error).__name__}); its log has the details"
        # Starlette sends this one past the middleware.
        return Reply(error_body(500, message, "internal_error"), 500, headers_of(request.scope))


OPEN = ("/", "/health", "/docs", "/openapi.json", "/favicon.ico")
"""What needs no key; so does all below `/static/`. Everything else does, where there are keys."""

ADMIN = ("/admin/", "/metrics")

ANYONE = Key("anyone", "", admin=True)
"""Who asks where no keys are configured."""


class Edge:
    """ASGI middleware; the key of the request is in `request.state.key`, its id in `request.state.request_id`."""

    def __init__(self, app: ASGIApp, *, config: ServeConfig, metrics: Metrics) -> None:
        """`config`: whose keys are asked for, under which names, and the limit on a request's body."""
        self.app, self.keys, self.hosts, self.metrics = app, config.keys, config.accepted_hosts, metrics
        self.max_bytes, self.read_seconds = config.max_body_bytes, config.read_seconds
        self.held = 0
        """Bytes of all requests that are under way."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reply a request, or refuse it."""
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

        body, whole = bytearray(), False

        async def reading() -> Message:
            nonlocal whole
            message = await receive()
            whole = not message.get("more_body", False)
            return message

        try:
            try:
                self._check_host(scope)
                scope["state"]["key"] = self._key(scope)
                await self._read(scope, reading, body)
            except RequestError as error:
                answer = Reply(error.body(), error.status, error.headers)
                await noting({"type": "http.response.start", "status": error.status, "headers": answer.raw_headers})
                await noting({"type": "http.response.body", "body": answer.body, "more_body": True})
                # The connection may be closed next, and one that is while the client sends breaks before it can read.
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.read_seconds):
                        while not whole:
                            await reading()
                await noting({"type": "http.response.body"})
                return
            except ClientDisconnect:
                return
            await self.app(scope, _given(bytes(body), receive), noting)
        finally:
            self.held -= len(body)
            endpoint = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(endpoint, str(status)).inc()
            self.metrics.seconds.labels(endpoint).observe(time.monotonic() - began)

    def _check_host(self, scope: Scope) -> None:
        """Against a page of the web whose own name leads to this machine (DNS rebinding)."""
        if self.hosts is None:
            return
        name = _host_of(f"//{Headers(scope=scope).get('host', '')}")
        if name not in self.hosts:
            raise RequestError(f"there is no service by the name {name!r} here (hosts)", 421, "unknown_host")

    def _key(self, scope: Scope) -> Key | None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path in OPEN or path.startswith("/static/"):
            return None
        if self.keys:
            key = self._known(Headers(scope=scope).get("authorization", ""))
        else:
            key = ANYONE
            _check_site(Headers(scope=scope))
        if path.startswith(ADMIN) and not key.admin:
            raise RequestError(f"the key {key.name!r} is not an admin's", 403, "not_admin")
        return key

    def _known(self, header: str) -> Key:
        """The key of an `Authorization` header. Raises `RequestError` (401) for none, or one that is not known."""
        scheme, _, value = header.partition(" ")
        if scheme.lower() != "bearer" or not value.strip():
            message = "no API key; send the header 'Authorization: Bearer KEY'"
            raise RequestError(message, 401, "missing_api_key")
        digest = hashlib.sha256(value.strip().encode()).hexdigest()
        found = [key for key in self.keys if hmac.compare_digest(key.digest, digest)]
        if not found:
            raise RequestError("this API key is not known here", 401, "invalid_api_key")
        return found[0]

    async def _read(self, scope: Scope, receive: Receive, body: bytearray) -> None:
        """Read the whole body.

        Raises:
            RequestError: 413, it is too long, and as soon as it is; 408, it takes too long to come; 503, too many
                bytes wait.
            ClientDisconnect: the client has gone.
        """
        said, more = Headers(scope=scope).get("content-length", "0"), True
        size = 0 if not said.isdecimal() else int(said) if len(said) < 20 else 10**20
        try:
            async with asyncio.timeout(self.read_seconds):
                while more and max(size, len(body)) <= self.max_bytes:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    part = message.get("body", b"")
                    self.held += len(part)
                    body += part
                    more = message.get("more_body", False)
                    if len(body) <= self.max_bytes and self.held > 16 * self.max_bytes:
                        raise RequestError("too many bytes wait; ask again later", 503, "queue_full")
        except TimeoutError:
            late = f"the request's body has not come within {self.read_seconds:g} seconds"
            raise RequestError(late, 408, "request_timeout") from None
        if max(size, len(body)) > self.max_bytes:
            said = f"the request has more than {self.max_bytes} bytes; send fewer texts at a time"
            raise RequestError(said, 413, "request_too_large")


def _given(body: bytes, receive: Receive) -> Receive:
    """The whole body at once, then what the client does."""
    given = False

    async def again() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _host_of(address: str) -> str:
    """The name in an address, without the port; empty where it has none, or is no address."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _check_site(headers: Headers) -> None:
    """Against a page of another site, whose requests any browser sends (CSRF): what has no key obeys its own pages."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        own = site in ("same-origin", "none")
    else:
        own = origin is None or origin.partition("://")[2].casefold() == headers.get("host", "").casefold()
    if not own:
        message = "without API keys, pages of other sites may ask for nothing here; configure keys, or ask from no page"
        raise RequestError(message, 403, "cross_site")


def headers_of(scope: Scope) -> dict[str, str]:
    """What every answer to the request bears: its id, and that no other site may frame it or guess its type."""
    return {
        "x-request-id": scope["state"]["request_id"],
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "content-security-policy": f"frame-ancestors 'none'{scope['state'].get('policy', '')}",
    }


def run(config: ServeConfig) -> None:
    """Serve until SIGTERM or SIGINT: then no new connections, pending requests finish, and this returns."""
    shown = logging.StreamHandler()
    shown.setLevel(logging.INFO)  # bm25s asks for every detail of its own
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", handlers=[shown])
    logging.getLogger("foreword").setLevel(logging.INFO)
    logging.getLogger("uvicorn.access").addFilter(_without_query)
    if config.host not in LOOPBACK and not config.keys:
        logger.warning("no API keys: whoever reaches %s may ask for everything, and reload", config.host)
    with _bound(config.host, config.port) as address:  # before the backbone is loaded and documents are embedded
        asyncio.run(_serve(config, address))


def _without_query(record: logging.LogRecord) -> bool:
    """Keeps a search that stands in the page's address (`/?q=...`) out of the access log."""
    if isinstance(record.args, tuple) and len(record.args) == 5:  # address, method, path, version, status
        record.args = (*record.args[:2], str(record.args[2]).partition("?")[0], *record.args[3:])
    return True


def _bound(host: str, port: int) -> socket.socket:
    """A socket with that address, on which nothing listens yet; raises `ForewordError`."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        if os.name == "posix":  # the address of a service that has just ended is free
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise ForewordError(
            f"{host}:{port} cannot be listened on: {error.strerror or error}; --port names another (0: a free one), "
            "--host another address"
        ) from error
    return bound


def server_settings(config: ServeConfig) -> dict[str, Any]:
    """What uvicorn is to be told: limits on connections, whom it believes, how long it waits at the end."""
    return {
        "http": _protocol(config),
        "ws": "none",
        "root_path": config.root_path,
        "proxy_headers": bool(config.proxies),
        "forwarded_allow_ips": list(config.proxies),
        "timeout_graceful_shutdown": config.stop_seconds,
        "server_header": False,
    }


async def _serve(config: ServeConfig, address: socket.socket) -> None:
    app = create_app(config, signals=True)
    server = _Server(
        uvicorn.Config(
            app,
            **server_settings(config),
            use_colors=wants_colour(),
            lifespan="off",  # it is run here, so that what is wrong in it is said as other errors are
        )
    )
    async with app.router.lifespan_context(app):
        # uvicorn raises the signal that stopped it again when all is done; for a service that is no failure
        before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            await server.serve(sockets=[address])
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


LINGER = 2.0
"""Seconds in which who is one too many can read that."""


def _protocol(config: ServeConfig) -> type[H11Protocol]:
    """What holds a connection: uvicorn's own waits for a request's headers for ever, and for as many as there are."""

    class Connection(H11Protocol):
        """Closed where a request's headers do not come in time, nor what is left of the body of a refused one."""

        closing: asyncio.TimerHandle | None = None
        crowded = refused = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.crowded = len(self.connections) > config.max_connections
            self._watch()

        def data_received(self, data: bytes) -> None:
            if self.crowded:
                self._refuse(RequestError("too many connections; ask again later", 503, "queue_full"))
            elif not self.refused:
                super().data_received(data)
                self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._close_in(None)

        def send_400_response(self, msg: str) -> None:
            self._refuse(RequestError(f"{msg} It cannot be read as HTTP/1.1", 400, "invalid_http"))

        def _watch(self) -> None:
            answering = self.cycle is not None and not self.cycle.response_complete
            if answering or self.refused or self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
                self._close_in(None)
            elif self.closing is None:
                self._close_in(LINGER if self.crowded else config.read_seconds)

        def _close_in(self, seconds: float | None) -> None:
            if self.closing is not None:
                self.closing.cancel()
            self.closing = None if seconds is None else self.loop.call_later(seconds, self.transport.close)

        def _refuse(self, error: RequestError) -> None:
            """Reply, and pass over what else comes: closed at once, the connection breaks before that is read."""
            if self.refused:
                return
            self.refused = True
            if self.cycle is None or not self.cycle.response_started:
                body = json.dumps(error.body()).encode()
                said = {"Content-Type": "application/json", "Content-Length": len(body), "Connection": "close"}
                lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}"]
                lines += [f"{name}: {value}" for name, value in {**said, **error.headers}.items()]
                self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self._close_in(LINGER)

    return Connection


class _Server(uvicorn.Server):
    """Says on one line where it listens, for people and for programs that asked for a free port."""

    async def startup(self, *args: Any, **kwargs: Any) -> None:
        await super().startup(*args, **kwargs)
        for each in getattr(self, "servers", []):
            for listening in each.sockets:
                host, port = listening.getsockname()[:2]
                shown = f"[{host}]" if ":" in host else host
                print(f"foreword serve: http://{shown}:{port}{self.config.root_path}/", flush=True)

    async def shutdown(self, *args: Any, **kwargs: Any) -> None:
        self.config.app.state.service.batcher.hurry()  # type: ignore[union-attr]
        await super().shutdown(*args, **kwargs)
