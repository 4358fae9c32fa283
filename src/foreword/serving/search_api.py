"""`/search`, `/domains` and `/bank`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from foreword.indexing.hits import Hit
from foreword.serving.answers import REFUSALS, SearchAnswer
from foreword.serving.bank_view import bank_view, of_allowed
from foreword.serving.errors import RequestError
from foreword.serving.keys import Key
from foreword.serving.metrics import Metrics
from foreword.serving.schemas import SearchBody
from foreword.serving.searchers import Searcher, check_where
from foreword.serving.service import Service
from foreword.serving.state import State

MOST_HITS = 100_000
"""Hits in one answer, each with its document's text: queries times systems times k."""


def search_router(service: Service, metrics: Metrics) -> APIRouter:
    """The endpoints."""
    router = APIRouter(tags=["search"], responses=REFUSALS)
    views: WeakKeyDictionary[State, dict[str, Any]] = WeakKeyDictionary()
    viewing = asyncio.Lock()

    @router.post("/search", responses={200: {"model": SearchAnswer}}, response_model=None)
    async def search(body: SearchBody, request: Request) -> JSONResponse:
        """Search a domain's documents by the base model, by the domain's prompt and by BM25."""
        began = time.monotonic()
        queries = _queries(body, service.config.max_texts)
        _check_k(body.k, service.config.max_k)
        where = check_where(body.where)
        async with service.keep() as state:
            searcher, systems = _chosen(state, request.state.key, body)
            _check_hits(len(queries), len(systems), body.k)
            searches = [partial(searcher.search, queries, body.domain, name, body.k, where) for name in systems]
            found = await _all(service, searches)
        for system in systems:
            metrics.searches.labels(body.domain, system).inc(len(queries))
        results = [
            {
                "query": query,
                "systems": {
                    system: [_hit(hit) for hit in hits[i]] for system, hits in zip(systems, found, strict=True)
                },
            }
            for i, query in enumerate(queries)
        ]
        milliseconds = round((time.monotonic() - began) * 1000, 3)
        return JSONResponse({"domain": body.domain, "k": body.k, "results": results, "milliseconds": milliseconds})

    @router.get("/domains")
    async def domains(request: Request) -> JSONResponse:
        """The domains that the key may use: their prompts, and what searches them."""
        backbone = {name: service.backbone[name] for name in ("name", "fingerprint")}
        found = service.domains(request.state.key.may_use)
        return JSONResponse({"backbone": backbone, "domains": list(found.values())})

    @router.get("/bank")
    async def bank(request: Request) -> JSONResponse:
        """The prompts beside each other: similarity, transfer, figures and words, as far as the bank's files say."""
        async with service.keep() as state, viewing:
            if state not in views:
                made = await service.in_thread(lambda: bank_view(service.encoder, state.served, service.config.bank))
                views[state] = made
            view = views[state]
        return JSONResponse(of_allowed(view, request.state.key.may_use))

    return router


def _queries(body: SearchBody, most: int) -> list[str]:
    if (body.query is None) == (body.queries is None):
        raise RequestError("send either query, a text, or queries, a list of texts", param="query")
    name = "query" if body.query is not None else "queries"
    queries = [body.query] if body.query is not None else list(body.queries or [])
    if not queries or any(not query.strip() for query in queries):
        raise RequestError(f"{name} is empty or blank; send what to search for", code="empty_input", param=name)
    if len(queries) > most:
        message = f"queries has {len(queries)} texts; {most} are allowed in a request"
        raise RequestError(message, code="too_many_texts", param=name)
    return queries


def _check_k(k: int, most: int) -> None:
    if k > most:
        raise RequestError(f"k is {k}; {most} hits a query are allowed", param="k")


def _check_hits(queries: int, systems: int, k: int) -> None:
    if queries * systems * k > MOST_HITS:
        message = (
            f"{queries} queries by {systems} systems with {k} hits each; {MOST_HITS} hits are allowed in an answer: "
            "send fewer queries at a time, or a smaller k"
        )
        raise RequestError(message, code="too_many_hits", param="k")


async def _all(service: Service, searches: Sequence[Callable[[], list[list[Hit]]]]) -> list[list[list[Hit]]]:
    """What all the searches found; where one has failed the others are waited for, since they need the prompts."""
    found = await asyncio.gather(*map(service.in_thread, searches), return_exceptions=True)
    hits = []
    for one in found:
        if isinstance(one, BaseException):
            raise one
        hits.append(one)
    return hits


def _chosen(state: State, key: Key, body: SearchBody) -> tuple[Searcher, list[str]]:
    """Who searches the domain, and by which systems."""
    if not key.may_use(body.domain):
        message = f"the key {key.name!r} may not use {body.domain!r}; it may use: {', '.join(key.domains)}"
        raise RequestError(message, 403, "domain_not_allowed", "domain")
    searcher = state.searcher(body.domain)
    if searcher is None:
        known = [name for each in state.searchers for name in each.domains() if key.may_use(name)]
        message = f"{body.domain!r} has no documents here; there are: {', '.join(known[:20]) or 'none'}"
        raise RequestError(message, 404, "domain_not_found", "domain")
    have = searcher.domains()[body.domain].systems
    systems = list(dict.fromkeys(body.systems)) if body.systems is not None else list(have)
    unknown = [system for system in systems if system not in have]
    if unknown or not systems:
        message = f"{body.domain!r} is searched by {', '.join(have)}; got {', '.join(unknown) or 'none'}"
        raise RequestError(message, code="unknown_system", param="systems")
    return searcher, systems


def _hit(hit: Hit) -> dict[str, Any]:
    title = hit.title or str(hit.metadata.get("name", ""))
    names = ("rank", "doc_id", "text", "score")
    return {**{name: getattr(hit, name) for name in names}, "title": title, "metadata": dict(hit.metadata)}
