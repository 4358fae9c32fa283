"""What the service costs beside `encode`, and what its batching is worth: `python benchmarks/serve.py --bank bank`.

Clients that each send a text and wait for the answer, of all domains in turn, against a service on this machine; they
are in a process of their own, and ask for base64 as OpenAI's client does. Rounds with texts of all requests batched,
rounds of one request a forward pass, and the same texts by `foreword.encode` in the service's own process take turns in
one run, so that whatever else the machine does falls on all; what counts are their ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import socket
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import torch
import uvicorn

from foreword.prompts.encoder import encode
from foreword.serving.api import find_way, model_names
from foreword.serving.app import ANYONE, create_app, server_settings
from foreword.serving.config import ServeConfig
from foreword.serving.service import Service
from foreword.settings import Side

_TEXT = "how to keep a list of names in order when some of them are not there and others come twice"
_WORDS = _TEXT.split()


def measure(config: ServeConfig, *, clients: int, requests: int, rounds: int) -> dict[str, Any]:
    """Throughput and latency with and without batching, throughput without a service, and their ratios.

    Args:
        config: of the service; its port is not used.
        clients: that ask at the same time.
        requests: of each client in a round.
        rounds: of each kind.
    """
    app = create_app(config)
    with socket.create_server(("127.0.0.1", 0)) as listener, multiprocessing.get_context("spawn").Pool(1) as pool:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", **server_settings(config)))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.05)
            address, service = f"http://127.0.0.1:{listener.getsockname()[1]}", app.state.service
            names = model_names(service.state.served, service.base, ANYONE)
            asked = [asked_by(number, names, requests) for number in range(clients)]
            pool.apply(ask, (address, asked))  # to warm up
            found: dict[str, list[tuple[float, list[float]]]] = {"batched": [], "one by one": [], "encode": []}
            for _ in range(rounds):
                for way, each in found.items():
                    service.batcher.together = way == "batched"
                    each.append(offline(service, asked) if way == "encode" else pool.apply(ask, (address, asked)))
        finally:
            server.should_exit = True
            thread.join()
    figures = {way: _figures(each) for way, each in found.items()}
    ratios = {
        way: {name: round(figures["batched"][name] / figures[way][name], 3) for name in figures[way]}
        for way in ("one by one", "encode")
    }
    settings = {"clients": clients, "requests": requests, "rounds": rounds, "models": len(names)}
    settings |= {"threads": torch.get_num_threads(), "precision": service.precision}
    return {"settings": settings, **figures, "batched / ": ratios}


def asked_by(number: int, names: Sequence[str], requests: int) -> list[tuple[str, str]]:
    """Model and text of a client's requests, 4 to 15 words each."""
    asked = []
    for i in range(requests):
        place = (number * requests + i) % len(_WORDS)
        text = " ".join((*_WORDS[place:], *_WORDS[:place])[: 4 + place % 12])
        asked.append((names[(number + i) % len(names)], text))
    return asked


def ask(address: str, asked: Sequence[Sequence[tuple[str, str]]]) -> tuple[float, list[float]]:
    """Requests a second, and each one's seconds, of as many clients as `asked` has parts."""
    seconds: list[float] = []

    async def one(client: httpx2.AsyncClient, requests: Sequence[tuple[str, str]]) -> None:
        for model, text in requests:
            began = time.perf_counter()
            body = {"model": model, "input": text, "encoding_format": "base64"}
            (await client.post("/v1/embeddings", json=body)).raise_for_status()
            seconds.append(time.perf_counter() - began)

    async def all_of_them() -> float:
        limits = httpx2.Limits(max_connections=len(asked), max_keepalive_connections=len(asked))
        async with httpx2.AsyncClient(base_url=address, limits=limits, timeout=120, trust_env=False) as client:
            began = time.perf_counter()
            await asyncio.gather(*(one(client, requests) for requests in asked))
            return time.perf_counter() - began

    return sum(map(len, asked)) / asyncio.run(all_of_them()), seconds


def offline(service: Service, asked: Sequence[Sequence[tuple[str, str]]]) -> tuple[float, list[float]]:
    """Texts a second of `foreword.encode`, in batches as large as the service's; nobody waits for one of them."""
    shared: dict[tuple[Side, Any], list[tuple[str, str | None]]] = {}
    for model, text in (each for requests in asked for each in requests):
        way = find_way(model, None, service.state.served, service.base, ANYONE)
        shared.setdefault((way.side, way.weights), []).append((text, way.name))
    how: dict[str, Any] = {"batch_size": service.config.batch_texts, "precision": service.precision, "quiet": True}
    began = time.perf_counter()
    for (side, weights), each in shared.items():
        texts, domains = zip(*each, strict=True)
        route: dict[str, Any] = {"route": dict(weights)} if weights else {"domains": domains}
        encode(service.encoder, texts, side, **route, **how)
    return sum(map(len, asked)) / (time.perf_counter() - began), []


def _figures(rounds: Sequence[tuple[float, list[float]]]) -> dict[str, float]:
    latencies = sorted(1000 * second for _, seconds in rounds for second in seconds)
    found = {"texts_per_second": round(statistics.median(rate for rate, _ in rounds), 2)}
    for percent in (50, 95, 99) if latencies else ():
        found[f"p{percent}_ms"] = round(latencies[len(latencies) * percent // 100], 2)
    return found


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--bank", type=Path, metavar="DIR", help="whose prompts are asked for (default: base alone)")
    parser.add_argument("--backbone", metavar="NAME", help="(default: all-MiniLM-L6-v2)")
    parser.add_argument("--device", metavar="DEVICE")
    parser.add_argument("--precision", metavar="NAME", help="(default: float32)")
    parser.add_argument("--clients", type=int, default=64, help="(default: %(default)s)")
    parser.add_argument("--requests", type=int, default=20, help="of each client in a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each kind (default: %(default)s)")
    options = parser.parse_args()
    given = {name: getattr(options, name) for name in ("bank", "backbone", "device", "precision")}
    config = ServeConfig(**{name: value for name, value in given.items() if value is not None})
    how = {name: getattr(options, name) for name in ("clients", "requests", "rounds")}
    print(json.dumps(measure(config, **how), indent=2))


if __name__ == "__main__":
    main()
