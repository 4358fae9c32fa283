"""The application: all endpoints of one service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from sentence_transformers import SentenceTransformer
from starlette.exceptions import HTTPException

from foreword.errors import ForewordError, RequestError, error_body
from foreword.prompts.store import library_versions
from foreword.report.html import Markup, element
from foreword.report.page import document
from foreword.serving.api import openai_router, search_router
from foreword.serving.config import LOOPBACK, ServeConfig
from foreword.serving.edge import Edge, Metrics, headers_of
from foreword.serving.service import Load, Service
from foreword.terminal import wants_colour

# `/docs`: the endpoints on a plain page, made from `openapi.json`, with no script and nothing from elsewhere.


_PAGES = (("Page", "./"), ("OpenAPI description", "openapi.json"))


def docs_page(openapi: Mapping[str, Any]) -> str:
    """The page of an OpenAPI description."""
    info, schemas = openapi["info"], openapi.get("components", {}).get("schemas", {})
    links = [element("li", element("a", name, href=href)) for name, href in _PAGES]
    header = element(
        "header",
        element("h1", f"{info['title']} {info['version']}"),
        element("p", info.get("description", ""), class_="headline"),
        element("ul", links, class_="facts"),
    )
    sections = []
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            key = f"{method}{path}".replace("/", "-").replace("{", "").replace("}", "")
            sections.append((key, f"{method.upper()} {path}", _operation(operation, schemas)))
    sections += [(f"schema-{name}", name, _schema(schema)) for name, schema in sorted(schemas.items())]
    return document(f"{info['title']}: endpoints", header, sections)


def _operation(operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> Markup:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    example = _example(body, schemas)
    answers = [
        element("li", element("b", status), " ", answer.get("description", ""), " ", _kind(_content(answer)))
        for status, answer in sorted(operation.get("responses", {}).items())
    ]
    return element(
        "div",
        element("p", operation.get("description") or operation.get("summary", "")),
        element("p", "Body: ", _kind(body)) if body else None,
        element("pre", json.dumps(example, indent=2)) if example is not None else None,
        element("ul", answers),
    )


def _content(answer: Mapping[str, Any]) -> Any:
    return answer.get("content", {}).get("application/json", {}).get("schema")


def _example(body: Any, schemas: Mapping[str, Any]) -> Any:
    named = schemas.get(str((body or {}).get("$ref", "")).rpartition("/")[2], {})
    return next(iter(named.get("examples", [])), None)


def _schema(schema: Mapping[str, Any]) -> Markup:
    required = schema.get("required", [])
    fields = [
        element(
            "li",
            element("code", name),
            " ",
            _kind(value),
            " (required)" if name in required else None,
            f": {value['description']}" if value.get("description") else None,
        )
        for name, value in schema.get("properties", {}).items()
    ]
    return element("div", element("p", schema.get("description", "")), element("ul", fields))


def _kind(schema: Any) -> Markup:
    """A schema's type in words, with links to the named ones."""
    if not isinstance(schema, Mapping):
        return Markup("")
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return element("a", name, href=f"#schema-{name}")
    if "anyOf" in schema:
        parts = [_kind(part) for part in schema["anyOf"]]
        return Markup(" or ".join(parts))
    if "enum" in schema:
        return element("span", " or ".join(map(repr, schema["enum"])))
    if schema.get("type") == "array":
        return Markup(f"list of {_kind(schema.get('items'))}")
    return element("span", schema.get("type", "any"))


logger = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"

Changes = dict[str, list[str]]
Reload = Callable[[], Awaitable[Changes]]


def create_app(
    config: ServeConfig,
    *,
    load: Load | None = None,
    encoder: SentenceTransformer | None = None,
    signals: bool = False,
) -> FastAPI:
    """The application, its backbone loaded; prompts and collections are read when it starts.

    Args:
        config: the settings.
        load: gives a collection by its id; None: `foreword.load` with the configured folder.
        encoder: in place of the configured backbone.
        signals: SIGHUP reads the prompts again.

    Raises:
        ForewordError: something configured is not there, or broken.
    """
    metrics = Metrics()
    service = Service(config, load=load, encoder=encoder, on_pass=metrics.on_pass)
    metrics.watch("queue_texts", "Texts that wait.", lambda: service.batcher.waiting)
    metrics.watch("prompts", "Prompts served.", lambda: len(service.state.served))

    async def reload() -> Changes:
        try:
            changes = await service.reload()
        except BaseException:
            metrics.reloads.labels("failed").inc()
            raise
        metrics.reloads.labels("done").inc()
        logger.info("prompts read again: %s", changes)
        return changes

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        if signals:
            _on_hangup(reload)
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
    )
    app.state.service, app.state.metrics = service, metrics
    app.add_middleware(
        Edge, keys=config.keys, hosts=config.accepted_hosts, max_bytes=config.max_body_bytes, metrics=metrics
    )
    _add_errors(app)
    app.include_router(openai_router(service, metrics))
    app.include_router(search_router(service, metrics))
    _add_upkeep(app, service, metrics, reload)
    _add_pages(app)
    return app


def _on_hangup(reload: Reload) -> None:
    """Reload on SIGHUP; a folder that cannot be read is said in the log."""
    loop = asyncio.get_running_loop()
    running: set[asyncio.Task[None]] = set()

    async def again() -> None:
        try:
            await reload()
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


def _add_upkeep(app: FastAPI, service: Service, metrics: Metrics, reload: Reload) -> None:
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
    async def counters() -> Response:
        """The counters, in Prometheus's text format; with keys, for an admin's."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.post("/admin/reload", tags=["upkeep"])
    async def read_again() -> Changes:
        """Read the bank's folder again; with keys, for an admin's. Requests in flight finish with the old prompts."""
        return await reload()


class _Fresh(StaticFiles):
    """Files that a browser asks for anew each time (304 where they are as they were): modules of one version."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _add_pages(app: FastAPI) -> None:
    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()))

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/static", _Fresh(directory=STATIC), name="static")


def _add_errors(app: FastAPI) -> None:
    """Every error in OpenAI's form."""

    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> JSONResponse:
        headers = {"Retry-After": "1"} if error.status == 503 else None
        return JSONResponse(error.body(), error.status, headers)

    @app.exception_handler(ForewordError)
    async def failed(_: Request, error: ForewordError) -> JSONResponse:
        return JSONResponse(error_body(400, " ".join(str(error).split()), type(error).__name__), 400)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = [str(part) for part in first["loc"] if part != "body"]
        param = where[0] if where and not where[0].isdecimal() else None
        said = "the body is no JSON" if first["type"] == "json_invalid" else first["msg"]
        if param == "input":
            said = "expected a text, a list of texts, or arrays of token ids"
        message = f"{param or 'the request'}: {said}"
        return JSONResponse(error_body(422, message, first["type"], param), 422)

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> JSONResponse:
        body = error_body(error.status_code, str(error.detail), f"http_{error.status_code}")
        return JSONResponse(body, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> JSONResponse:
        logger.error("request %s failed (%s)", request.state.request_id, type(error).__name__)
        message = f"the service failed ({type(error).__name__}); its log has the details"
        # Starlette sends this one past the middleware.
        return JSONResponse(error_body(500, message, "internal_error"), 500, headers_of(request.scope))


# Run the service with uvicorn until it is told to stop.


run_logger = logging.getLogger(__name__)


def run(config: ServeConfig) -> None:
    """Serve until SIGTERM or SIGINT: then no new connections, pending requests finish, and this returns.

    Raises:
        ForewordError: something configured is not there or broken, or the address cannot be listened on.
    """
    shown = logging.StreamHandler()
    shown.setLevel(logging.INFO)  # bm25s asks for every detail of its own
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", handlers=[shown])
    logging.getLogger("foreword").setLevel(logging.INFO)
    logging.getLogger("uvicorn.access").addFilter(_without_query)
    if config.host not in LOOPBACK and not config.keys:
        run_logger.warning("no API keys: whoever reaches %s may ask for everything, and reload", config.host)
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
        with contextlib.ExitStack() as failing:
            bound = failing.enter_context(socket.socket(family, socket.SOCK_STREAM))
            if os.name == "posix":  # the address of a service that has just ended is free
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            failing.pop_all()
    except OSError as error:
        raise ForewordError(
            f"{host}:{port} cannot be listened on: {error.strerror or error}; --port names another (0: a free one), "
            "--host another address"
        ) from error
    return bound


async def _serve(config: ServeConfig, address: socket.socket) -> None:
    app = create_app(config, signals=True)
    server = _Server(
        uvicorn.Config(
            app,
            root_path=config.root_path,
            timeout_graceful_shutdown=config.stop_seconds,
            server_header=False,
            use_colors=wants_colour(),
            lifespan="off",  # it is run here, so that what is wrong in it is said as other errors are
        )
    )
    async with app.router.lifespan_context(app):
        with _told_to_stop():
            await server.serve(sockets=[address])


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


@contextlib.contextmanager
def _told_to_stop() -> Iterator[None]:
    """uvicorn raises the signal that stopped it again when all is done; for a service that is no failure."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
