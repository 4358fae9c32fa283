"""The running service: one backbone, the prompts that it carries now, what can be searched, and the batcher."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from sentence_transformers import SentenceTransformer

from foreword.collections import registry
from foreword.collections.supervision import split_fold
from foreword.errors import RequestError
from foreword.indexing import Index
from foreword.prompts.encoder import encode, resolve_precision, transformer_of
from foreword.prompts.loading import load_encoder
from foreword.prompts.store import describe_backbone
from foreword.serving.batcher import Array, Batcher, Row, Tokens
from foreword.serving.config import Key, ServeConfig
from foreword.serving.prompts import BASE_MODEL, Served, Way, base_ways, candidates, read_prompts, release
from foreword.serving.search import Held, IndexSearcher, MemorySearcher, Searchable, Searcher, half

logger = logging.getLogger(__name__)

Load = Callable[[str], Any]
"""Gives a collection by its id."""


@dataclass(eq=False)
class State:
    """The prompts and what is searched with them, at one time; a request keeps to the one it began with."""

    served: Mapping[str, Served]
    searchers: tuple[Searcher, ...]
    needed: frozenset[str]
    """The carried prompts that it needs."""
    users: int = 0
    """Requests that keep to it."""

    def domains(self) -> dict[str, Searchable]:
        """What can be searched; as in `searcher`, by the first that has it."""
        found: dict[str, Searchable] = {}
        for searcher in self.searchers:
            found = {**searcher.domains(), **found}
        return found

    def searcher(self, domain: str) -> Searcher | None:
        """Who finds documents of a domain; None: nobody."""
        return next((searcher for searcher in self.searchers if domain in searcher.domains()), None)


_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_POWERS = tuple(float(2**power) for power in range(11))


class Metrics:
    """The counters of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry, "namespace": "foreword"}
        powers, seconds = {"buckets": _POWERS, **own}, {"buckets": _SECONDS, **own}
        self.requests = Counter("requests", "Requests answered.", ["endpoint", "status"], **own)
        self.seconds = Histogram("request_seconds", "Time to answer a request.", ["endpoint"], **seconds)
        self.texts = Counter("texts", "Texts embedded for /v1/embeddings, by domain.", ["domain"], **own)
        self.tokens = Counter("tokens", "Their tokens, by domain.", ["domain"], **own)
        self.searches = Counter("searches", "Queries searched, by domain and system.", ["domain", "system"], **own)
        self.pass_texts = Histogram("pass_texts", "Texts in a forward pass.", **powers)
        self.pass_ways = Histogram("pass_ways", "Prompts (and the base model) in a forward pass.", **powers)
        self.pass_tokens = Counter("pass_tokens", "Tokens of forward passes, without padding.", **own)
        self.pass_seconds = Histogram("pass_seconds", "Time of a forward pass.", **seconds)
        self.waited = Histogram("queue_seconds", "How long the oldest text of a forward pass had waited.", **seconds)
        self.reloads = Counter("reloads", "Times that the prompts were read again, by outcome.", ["outcome"], **own)

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """Add a value that is asked for whenever the metrics are read."""
        Gauge(name, what, registry=self.registry, namespace="foreword").set_function(value)

    def on_pass(self, rows: Sequence[Row], seconds: float, waited: float) -> None:
        """Count a forward pass: its rows, its time, and how long the oldest text had waited."""
        self.pass_texts.observe(len(rows))
        self.pass_ways.observe(len({row.way for row in rows}))
        self.pass_tokens.inc(sum(row.tokens for row in rows))
        self.pass_seconds.observe(seconds)
        self.waited.observe(waited)

    def text(self, key: Key) -> bytes:
        """What a key may know of them, in Prometheus's text format."""
        return generate_latest(_Seen(self.registry, key))  # type: ignore[arg-type]  # of a registry it takes `collect`


@dataclass(frozen=True)
class _Seen:
    """A registry without the samples of domains that are not the key's own, nor a count of all prompts."""

    registry: CollectorRegistry
    key: Key

    def collect(self) -> Iterator[Metric]:
        for family in self.registry.collect():
            domains = [sample.labels.get("domain", BASE_MODEL) for sample in family.samples]
            seen = [domain == BASE_MODEL or self.key.may_use(domain) for domain in domains]
            family.samples = [sample for sample, one in zip(family.samples, seen, strict=True) if one]
            if self.key.sees_all or family.name != "foreword_prompts":
                yield family


def load_backbone(config: ServeConfig) -> SentenceTransformer:
    """The backbone, under the head that the prompts were made with; the prompts themselves are read later."""
    first = next(iter(candidates(config).values()), None)
    encoder = load_encoder(
        config.backbone,
        prompt=None if first is None else first.path,
        max_length=config.max_length,
        device=config.device,
        revision=config.revision,
        pooling=config.pooling,
        normalize=config.normalize,
    )
    transformer_of(encoder).remove_all()
    return encoder


class Service:
    """What the endpoints ask; made outside the event loop, started and stopped inside it."""

    def __init__(
        self, config: ServeConfig, *, load: Load | None = None, encoder: SentenceTransformer | None = None
    ) -> None:
        """Load the backbone.

        Args:
            load: gives a collection by its id; None: `foreword.load` with the configured folder.
            encoder: in place of the configured backbone.

        Raises:
            BackboneError, PromptError, UnknownNameError, DataError: something configured is not there, or broken.
        """
        self.config, self.began = config, time.monotonic()
        self.encoder = encoder if encoder is not None else load_backbone(config)
        self.precision = resolve_precision(config.precision, self.encoder.device)
        self.backbone = describe_backbone(self.encoder)
        self.base = base_ways(self.encoder)
        self.width = int(self.encoder.get_embedding_dimension() or 0)
        self.tokens = Tokens(self.encoder, config.token_arrays, characters=config.max_characters)
        self._load = load or partial(registry.load, data=config.data)
        self.held: dict[str, Held] = {}
        self.index: Any = None
        self.state = State({}, (), frozenset())
        self._kept: list[State] = []
        self._reloading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._searches = 0
        self._searching = ThreadPoolExecutor(64, thread_name_prefix="foreword-search")  # they wait for the batcher
        self._counting = ThreadPoolExecutor(1, thread_name_prefix="foreword-tokens")
        self.metrics = Metrics()
        self.metrics.watch("queue_texts", "Texts that wait.", lambda: self.batcher.waiting)
        self.metrics.watch("queue_searches", "Requests that search, or wait to.", lambda: self._searches)
        self.metrics.watch("prompts", "Prompts served.", lambda: len(self.state.served))
        self.batcher: Batcher
        self._loop: asyncio.AbstractEventLoop

    async def start(self) -> None:
        """Begin to encode, read the prompts, embed the collections."""
        config, self._loop = self.config, asyncio.get_running_loop()
        self.batcher = Batcher(
            self._encode,
            tokens=config.batch_tokens,
            texts=config.batch_texts,
            wait_seconds=config.wait_ms / 1000,
            queue_texts=config.queue_texts,
            on_pass=self.metrics.on_pass,
        )
        self.batcher.start()
        try:
            self.held = await self.in_thread(lambda: {name: Held(self._load(name)) for name in config.collections})
            if config.index is not None:
                uri, name, token = config.index, config.index_collection, config.index_token
                self.index = await self.in_thread(lambda: Index.open(uri, name, token))
            await self._read_again()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Finish what waits and end the threads; the index's file is free for others then."""
        self._stopping = True
        await self.batcher.close()
        # In a thread: those that embed a collection wait for this loop to refuse them.
        await asyncio.to_thread(self._searching.shutdown)
        self._counting.shutdown()
        await asyncio.gather(*self._tasks)
        if self.index is not None:
            self.index.close()

    async def in_thread(self, act: Callable[[], Any]) -> Any:
        """Run what would hold up the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._searching, act)

    @contextmanager
    def searching(self) -> Iterator[None]:
        """While a request searches, in the block. Raises `RequestError` (503) where too many do."""
        if self._searches >= self.config.queue_searches:
            message = f"too many searches wait ({self.config.queue_searches} may); ask again later"
            raise RequestError(message, 503, "queue_full")
        self._searches += 1
        try:
            yield
        finally:
            self._searches -= 1

    async def with_tokens(self, act: Callable[[Tokens], Any]) -> Any:
        """Run what counts or decodes tokens; apart from searches, which may all wait for a slow index."""
        return await asyncio.get_running_loop().run_in_executor(self._counting, act, self.tokens)

    async def reload(self) -> dict[str, list[str]]:
        """Serve the prompts that the configured folders hold now.

        Requests that have begun finish with the prompts they began with. Of a folder that cannot be read nothing is
        taken over: the service goes on as it was.

        Returns:
            The domains that were `added`, `changed` and `removed`, and that are `unchanged`.

        Raises:
            ForewordError: a prompt is broken or for another backbone, or a name is there twice.
        """
        try:
            changes = await self._read_again()
        except BaseException:
            self.metrics.reloads.labels("failed").inc()
            raise
        self.metrics.reloads.labels("done").inc()
        logger.info("prompts read again: %s", changes)
        return changes

    async def _read_again(self) -> dict[str, list[str]]:
        async with self._reloading:
            if self._stopping:
                raise RequestError("the service is being stopped", 503, "stopping")
            before = self.state
            try:
                served = await self.batcher.between(lambda: self._read_prompts(before))
                needed = frozenset(n for one in served.values() for way in one.ways.values() for n in way.names)
                searchers = await self.in_thread(lambda: self._searchers(served))
            except BaseException:
                await self._release()
                raise
            self.state = State(served, searchers, needed)
            if before.users:
                self._kept.append(before)
            for name, held in self.held.items():
                held.forget({way for _, way in self.systems(name, held.folder, served).values()})
            self._say_unused()
            await self._release()
        old, new = before.served, served
        both = sorted(set(new) & set(old))
        return {
            "added": sorted(set(new) - set(old)),
            "changed": [name for name in both if new[name] != old[name]],
            "removed": sorted(set(old) - set(new)),
            "unchanged": [name for name in both if new[name] == old[name]],
        }

    def _searchers(self, served: Mapping[str, Served]) -> tuple[Searcher, ...]:
        searchers: list[Searcher] = []
        if self.held:
            ways = {name: self.systems(name, held.folder, served) for name, held in self.held.items()}
            shares, weights = self.encoder.similarity_fn_name == "cosine", {}
            embed = partial(self.embed_in_thread, limited=False)
            for name, held in self.held.items():
                for _, way in ways[name].values():
                    held.embed(way, embed, self.encoder, passages=self.config.passages)
                both = ways[name][half(ways[name])]
                held.weigh(both, embed, shares=shares)
                weights[name] = held.weights[both]
            vectors = {name: dict(held.vectors) for name, held in self.held.items()}
            searchers.append(MemorySearcher(self.held, vectors, ways, weights, self.embed_in_thread, shares))
        if self.index is not None:
            systems = partial(self.systems, served=served)
            searchers.append(IndexSearcher.of(self.index, self.encoder, systems, self.embed_in_thread))
        return tuple(searchers)

    def systems(self, domain: str, folder: str, served: Mapping[str, Served]) -> dict[str, tuple[Way, Way]]:
        """The dense systems that search a domain: what encodes queries and documents by each."""
        systems = {"base": (self.base["query"], self.base["document"])}
        prompt = self.prompt_of(domain, folder, served)
        if prompt is not None:
            systems["prompt"] = (prompt.ways["query"], prompt.ways["document"])
        return systems

    def prompt_of(self, domain: str, folder: str, served: Mapping[str, Served]) -> Served | None:
        """The prompt that searches a domain: the one it is to use, else of its name, else of its documents' folder."""
        name = self.config.use.get(domain, domain)
        if name in served:
            return served[name]
        own = registry.canonical(f"folder:{folder}" if folder else name)
        return next((one for other, one in served.items() if registry.canonical(other) == own), None)

    def _say_unused(self) -> None:
        """Say which prompts search nothing where a domain has none: they may have been meant for it."""
        served, searchable = self.state.served, self.state.domains()
        prompts = {name: self.prompt_of(name, facts.folder, served) for name, facts in searchable.items()}
        used = [prompt.candidate.domain for prompt in prompts.values() if prompt is not None]
        without, unused = [name for name, one in prompts.items() if one is None], sorted({*served} - {*used})
        if without and unused:
            said = "no prompt searches %s, and that of %s searches nothing; --use '%s=%s' lets it"
            named = [", ".join(names[:3] + ["..."] * (len(names) > 3)) for names in (without, unused)]
            logger.warning(said, *named, without[0], unused[0])

    def _read_prompts(self, before: State) -> dict[str, Served]:
        """What is to be served; in int8 its graphs are made, and its prompts proven, now rather than at a request."""
        served = read_prompts(self.encoder, self.config, before.served)
        if self.precision == "int8":
            domains = [None, *transformer_of(self.encoder).domains]
            encode(self.encoder, ["a"] * len(domains), "query", domains=domains, precision="int8", quiet=True)
        return served

    async def _release(self) -> None:
        """Carry what the present state, and those that requests keep to, need alone; under the lock of reloading."""
        needed = frozenset().union(*(state.needed for state in (self.state, *self._kept)))
        if not self._stopping:
            await self.batcher.between(lambda: release(self.encoder, needed))

    async def _release_later(self) -> None:
        async with self._reloading:
            await self._release()

    @asynccontextmanager
    async def keep(self) -> AsyncIterator[State]:
        """The present state, whose prompts stay carried until the block ends."""
        state = self.state
        state.users += 1
        try:
            yield state
        finally:
            state.users -= 1
            if not state.users and state in self._kept:
                self._kept.remove(state)
                task = self._loop.create_task(self._release_later())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _encode(self, rows: Sequence[Row]) -> Array:
        """The vectors of rows that can share a forward pass; in the worker thread."""
        texts, first = [row.text for row in rows], rows[0].way
        how: dict[str, Any] = {"batch_size": len(rows), "precision": self.precision, "quiet": True}
        if first.weights:
            return encode(self.encoder, texts, first.side, route=first.route, **how)
        return encode(self.encoder, texts, first.side, domains=[row.way.name for row in rows], **how)

    async def rows(self, texts: Sequence[str], way: Way, *, limited: bool = True) -> list[Row]:
        """The texts with their tokens.

        Raises:
            RequestError: 422, more tokens than a request may have, or a text that cannot be encoded; 503, too many
                texts wait.
        """
        rows: list[Row] = []
        with self.batcher.expecting(len(texts)) if limited else nullcontext():
            for block in self.tokens.blocks(texts):
                rows += await self.with_tokens(partial(Tokens.rows, texts=block, way=way))
                if limited:
                    self.check_tokens(sum(row.tokens for row in rows))
        return rows

    def check_tokens(self, tokens: int) -> None:
        """Raise `RequestError` (422) for more tokens than a request may have."""
        if tokens > self.config.max_tokens:
            message = f"the request has more than the {self.config.max_tokens} tokens that are allowed"
            raise RequestError(f"{message}: send fewer texts at a time", code="too_many_tokens", param="input")

    async def embed(self, rows: Sequence[Row], *, limited: bool = True) -> Array:
        """Vectors (len(rows), d'), as `foreword.encode` gives them. `RequestError` (503) where too many texts wait."""
        return np.stack(await self.batcher.submit(rows, limited=limited))

    def embed_in_thread(self, texts: Sequence[str], way: Way, *, limited: bool = True) -> Array:
        """`rows` and `embed` for searchers, whose threads wait for it."""

        async def embed() -> Array:
            return await self.embed(await self.rows(texts, way, limited=limited), limited=limited)

        return asyncio.run_coroutine_threadsafe(embed(), self._loop).result()

    def domains(self, key: Key) -> dict[str, dict[str, Any]]:
        """Each domain of a key's that has a prompt or documents, as `/domains` shows it.

        A prompt of another name, and collections it was trained on, are named where they are the key's own.
        """
        state, searchable = self.state, self.state.domains()
        found: dict[str, dict[str, Any]] = {}
        for name in dict.fromkeys([*searchable, *state.served]):
            if not key.may_use(name):
                continue
            searched = searchable.get(name)
            prompt = self.prompt_of(name, searched.folder if searched is not None else "", state.served)
            shown = None
            if prompt is not None:
                own = prompt.candidate.domain
                trained = [one for one in prompt.about["trained_on"] if key.may_use(split_fold(one)[0])]
                shown = {"name": own if key.may_use(own) else None, **prompt.about, "trained_on": trained}
            found[name] = {
                "name": name,
                "prompt": shown,
                "searchable": searched is not None,
                "documents": None if searched is None else searched.documents,
                "files": searched is not None and bool(searched.folder) and not self.config.keys,
                "labels": searched is not None and bool(searched.folder) and self.config.labels,
                "systems": [] if searched is None else list(searched.systems),
                "hybrid": None if searched is None or searched.weight is None else searched.weight.as_dict(),
            }
        return found
