"""What batching is worth on this machine: `python benchmarks/serve.py --bank bank`.

Clients that each send a text and wait for the answer, of all domains in turn, against a service on this machine.
Rounds with texts of all requests batched and rounds of one request a forward pass take turns in one run, so that
whatever else the machine does falls on both; what counts is their ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import socket
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import uvicorn

from foreword.serving.api import model_names
from foreword.serving.app import ANYONE, create_app, server_settings
from foreword.serving.config import ServeConfig

_TEXT = "how to keep a list of names in order when some of them are not there and others come twice"
_WORDS = re.findall(r"\w+", _TEXT)


def measure(config: ServeConfig, *, clients: int, requests: int, rounds: int) -> dict[str, Any]:
    """Throughput and latency with and without batching, and their ratios.

    Args:
        config: of the service; its port is not used.
        clients: that ask at the same time.
        requests: of each client in a round.
        rounds: of each kind.
    """
    app = create_app(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", **server_settings(config)))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.05)
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            return asyncio.run(_rounds(app.state.service, address, clients, requests, rounds))
        finally:
            server.should_exit = True
            thread.join()


async def _rounds(service: Any, address: str, clients: int, requests: int, rounds: int) -> dict[str, Any]:
    names = model_names(service.state.served, service.base, ANYONE)
    found: dict[bool, list[tuple[float, list[float]]]] = {True: [], False: []}
    limits = httpx2.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx2.AsyncClient(base_url=address, limits=limits, timeout=120, trust_env=False) as client:
        await _round(client, names, clients, 2)  # to warm up
        for number in range(2 * rounds):
            together = number % 2 == 0
            service.batcher.together = together
            found[together].append(await _round(client, names, clients, requests))
    on, off = (_figures(found[together]) for together in (True, False))
    ratios = {name: round(on[name] / off[name], 3) for name in on}
    settings = {"clients": clients, "requests": requests, "rounds": rounds, "models": len(names)}
    return {"settings": settings, "batched": on, "one by one": off, "ratio": ratios}


async def _round(
    client: httpx2.AsyncClient, names: Sequence[str], clients: int, requests: int
) -> tuple[float, list[float]]:
    """Requests a second, and each one's seconds."""
    seconds: list[float] = []

    async def ask(number: int) -> None:
        for i in range(requests):
            place = (number * requests + i) % len(_WORDS)
            text = " ".join((*_WORDS[place:], *_WORDS[:place])[: 4 + place % 12])
            began = time.perf_counter()
            answer = await client.post(
                "/v1/embeddings", json={"model": names[(number + i) % len(names)], "input": text}
            )
            answer.raise_for_status()
            seconds.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(ask(number) for number in range(clients)))
    return clients * requests / (time.perf_counter() - began), seconds


def _figures(rounds: Sequence[tuple[float, list[float]]]) -> dict[str, float]:
    latencies = sorted(second for _, seconds in rounds for second in seconds)
    return {
        "requests_per_second": round(statistics.median(rate for rate, _ in rounds), 2),
        "p50_ms": round(1000 * latencies[len(latencies) // 2], 2),
        "p95_ms": round(1000 * latencies[int(len(latencies) * 0.95)], 2),
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--bank", type=Path, metavar="DIR", help="whose prompts are asked for (default: base alone)")
    parser.add_argument("--backbone", metavar="NAME", help="(default: all-MiniLM-L6-v2)")
    parser.add_argument("--device", metavar="DEVICE")
    parser.add_argument("--clients", type=int, default=16, help="(default: %(default)s)")
    parser.add_argument("--requests", type=int, default=20, help="of each client in a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each kind (default: %(default)s)")
    options = parser.parse_args()
    given = {name: getattr(options, name) for name in ("bank", "backbone", "device")}
    config = ServeConfig(**{name: value for name, value in given.items() if value is not None})
    how = {name: getattr(options, name) for name in ("clients", "requests", "rounds")}
    print(json.dumps(measure(config, **how), indent=2))


if __name__ == "__main__":
    main()
