"""The application: all endpoints of one service."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from sentence_transformers import SentenceTransformer
from starlette.exceptions import HTTPException

from foreword.common.errors import ForewordError
from foreword.prompts.store import library_versions
from foreword.serving.config import ServeConfig
from foreword.serving.docs_page import docs_page
from foreword.serving.edge import Edge, headers_of
from foreword.serving.errors import RequestError, error_body
from foreword.serving.metrics import Metrics
from foreword.serving.openai_api import openai_router
from foreword.serving.search_api import search_router
from foreword.serving.service import Service
from foreword.serving.state import Load

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
