"""Run the service with uvicorn until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from foreword.common.errors import ForewordError
from foreword.common.terminal import wants_colour
from foreword.serving.app import create_app
from foreword.serving.config import LOOPBACK, ServeConfig

logger = logging.getLogger(__name__)


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
