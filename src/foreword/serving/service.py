"""The running service: one backbone, the prompts that it carries now, what can be searched, and the batcher."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from foreword.collections.registry import canonical
from foreword.errors import PromptError, RequestError
from foreword.evaluation.candidates import Candidate, read_bank, read_candidate
from foreword.prompts.encoder import encode, resolve_precision, transformer_of
from foreword.prompts.loading import load_encoder
from foreword.prompts.store import describe_backbone
from foreword.serving.batcher import Array, Batcher, Pass, Row, Tokens
from foreword.serving.config import ServeConfig
from foreword.serving.search import Held, MemorySearcher, Searchable, Searcher
from foreword.serving.ways import Served, Way, base_ways, carry, check_names, release
from foreword.settings import Precision

# The prompts that are served at one time, and where they, the backbone and the collections come from.


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

    def searcher(self, domain: str) -> Searcher | None:
        """Who finds documents of a domain; None: nobody."""
        return next((searcher for searcher in self.searchers if domain in searcher.domains()), None)


def read_prompts(encoder: SentenceTransformer, config: ServeConfig, before: Mapping[str, Served]) -> dict[str, Served]:
    """The prompts in the configured folders, carried by the backbone; not while it encodes.

    Those of `before` that have not changed are taken over.

    Raises:
        PromptError: one is broken or for another backbone, or a name is taken, or is wanted and not there.
    """
    found = candidates(config)
    check_names(found)
    for collection, name in config.use.items():
        if name not in found:
            have = ", ".join(found) or "none"
            raise PromptError(f"{collection} is to be searched with prompt {name!r}; there are: {have}")
    served: dict[str, Served] = {}
    for name, candidate in found.items():
        known = before.get(name)
        same = known is not None and known.candidate == candidate
        served[name] = known if same and known is not None else carry(encoder, candidate)
    return served


def candidates(config: ServeConfig) -> dict[str, Candidate]:
    """The prompts and mixtures in the configured folders, by domain. Raises `PromptError` for two of one domain."""
    found = read_bank(config.bank) if config.bank is not None else {}
    for folder in config.prompts:
        candidate = read_candidate(folder)
        if candidate.domain in found:
            other = found[candidate.domain].path
            raise PromptError(f"{folder} and {other} both hold a prompt for {candidate.domain!r}")
        found[candidate.domain] = candidate
    return found


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


def loader(config: ServeConfig) -> Load:
    """Loads collections from the configured folder."""
    from foreword.collections.registry import load

    return lambda name: load(name, data=config.data)


class Service:
    """What the endpoints ask; made outside the event loop, started and stopped inside it."""

    def __init__(
        self,
        config: ServeConfig,
        *,
        load: Load | None = None,
        encoder: SentenceTransformer | None = None,
        on_pass: Callable[[Pass], None] | None = None,
    ) -> None:
        """Load the backbone.

        Args:
            config: the settings.
            load: gives a collection by its id; None: `foreword.load` with the configured folder.
            encoder: in place of the configured backbone.
            on_pass: told of each forward pass.

        Raises:
            BackboneError, PromptError, UnknownNameError, DataError: something configured is not there, or broken.
        """
        self.config, self.began = config, time.monotonic()
        self.encoder = encoder if encoder is not None else load_backbone(config)
        self.precision: Precision = resolve_precision(config.precision, self.encoder.device)  # type: ignore[arg-type]
        self.backbone = describe_backbone(self.encoder)
        self.base = base_ways(self.encoder)
        self.width = int(self.encoder.get_embedding_dimension() or 0)
        self.tokens = Tokens(self.encoder, config.token_arrays)
        self._load, self._on_pass = load or loader(config), on_pass
        self.held: dict[str, Held] = {}
        self.index: Any = None
        self.state = State({}, (), frozenset())
        self._kept: list[State] = []
        self._reloading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._searching = ThreadPoolExecutor(64, thread_name_prefix="foreword-search")  # they wait for the batcher
        self._counting = ThreadPoolExecutor(1, thread_name_prefix="foreword-tokens")
        self.batcher: Batcher
        self._loop: asyncio.AbstractEventLoop

    # -- its life ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to encode, read the prompts, embed the collections."""
        config, self._loop = self.config, asyncio.get_running_loop()
        self.batcher = Batcher(
            self._encode,
            tokens=config.batch_tokens,
            texts=config.batch_texts,
            wait_seconds=config.wait_ms / 1000,
            queue_texts=config.queue_texts,
            on_pass=self._on_pass,
        )
        self.batcher.start()
        try:
            self.held = await self.in_thread(self._hold)
            if config.index is not None:
                from foreword.indexing import Index

                uri, name, token = config.index, config.index_collection, config.index_token
                self.index = await self.in_thread(lambda: Index.open(uri, name, token))
            await self.reload()
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

    async def with_tokens(self, act: Callable[[Tokens], Any]) -> Any:
        """Run what counts or decodes tokens; apart from searches, which may all wait for a slow index."""
        return await asyncio.get_running_loop().run_in_executor(self._counting, act, self.tokens)

    def _hold(self) -> dict[str, Held]:
        held = [Held(self._load(name)) for name in self.config.collections]
        return dict(zip(self.config.collections, held, strict=True))

    # -- prompts -----------------------------------------------------------------------------------------------

    async def reload(self) -> dict[str, list[str]]:
        """Serve the prompts that the configured folders hold now.

        Requests that have begun finish with the prompts they began with. Of a folder that cannot be read nothing is
        taken over: the service goes on as it was.

        Returns:
            The domains that were `added`, `changed` and `removed`, and that are `unchanged`.

        Raises:
            ForewordError: a prompt is broken or for another backbone, or a name is there twice.
        """
        async with self._reloading:
            if self._stopping:
                raise RequestError("the service is being stopped", 503, "stopping")
            before = self.state
            try:
                served = await self.batcher.between(lambda: read_prompts(self.encoder, self.config, before.served))
                needed = frozenset(n for one in served.values() for way in one.ways.values() for n in way.names)
                searchers = await self.in_thread(lambda: self._searchers(served))
            except BaseException:
                await self._release()
                raise
            self.state = State(served, searchers, needed)
            if before.users:
                self._kept.append(before)
            self._forget()
            await self._release()
        old, new = before.served, served
        return {
            "added": sorted(set(new) - set(old)),
            "changed": sorted(name for name in set(new) & set(old) if new[name] != old[name]),
            "removed": sorted(set(old) - set(new)),
            "unchanged": sorted(name for name in set(new) & set(old) if new[name] == old[name]),
        }

    def _searchers(self, served: Mapping[str, Served]) -> tuple[Searcher, ...]:
        searchers: list[Searcher] = []
        if self.held:
            ways = {name: self.systems(name, served) for name in self.held}
            for name, held in self.held.items():
                for _, way in ways[name].values():
                    held.embed(way, lambda texts, way: self.embed_in_thread(texts, way, limited=False))
            vectors = {name: dict(held.vectors) for name, held in self.held.items()}
            searchers.append(MemorySearcher(self.held, vectors, ways, self.embed_in_thread))
        if self.index is not None:
            from foreword.serving.search import IndexSearcher

            def systems(domain: str) -> dict[str, tuple[Way, Way]]:
                return self.systems(domain, served)

            searchers.append(IndexSearcher.of(self.index, self.encoder, systems, self.embed_in_thread))
        return tuple(searchers)

    def systems(self, domain: str, served: Mapping[str, Served]) -> dict[str, tuple[Way, Way]]:
        """The dense systems that search a domain: what encodes queries and documents by each."""
        systems = {"base": (self.base["query"], self.base["document"])}
        prompt = self.prompt_of(domain, served)
        if prompt is not None:
            systems["prompt"] = (prompt.ways["query"], prompt.ways["document"])
        return systems

    def prompt_of(self, domain: str, served: Mapping[str, Served]) -> Served | None:
        """The prompt that searches a domain: the one it is to use, else of its name, of a folder also by its path."""
        name = self.config.use.get(domain, domain)
        if name in served or not name.startswith("folder:"):
            return served.get(name)
        return next((one for other, one in served.items() if canonical(other) == canonical(name)), None)

    async def _release(self) -> None:
        """Carry what the present state, and those that requests keep to, need alone; under the lock of reloading."""
        needed = frozenset().union(*(state.needed for state in (self.state, *self._kept)))
        if not self._stopping:
            await self.batcher.between(lambda: release(self.encoder, needed))

    async def _release_later(self) -> None:
        async with self._reloading:
            await self._release()

    def _forget(self) -> None:
        """Let go of documents' vectors that the present state does not search."""
        for name, held in self.held.items():
            held.forget({way for _, way in self.systems(name, self.state.served).values()})

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

    # -- encoding ----------------------------------------------------------------------------------------------

    def _encode(self, rows: Sequence[Row]) -> Array:
        """The vectors of rows that can share a forward pass; in the worker thread."""
        texts, first = [row.text for row in rows], rows[0].way
        how: dict[str, Any] = {"batch_size": len(rows), "precision": self.precision, "quiet": True}
        if first.weights:
            return encode(self.encoder, texts, first.side, route=first.route, **how)
        return encode(self.encoder, texts, first.side, domains=[row.way.name for row in rows], **how)

    async def rows(self, texts: Sequence[str], way: Way) -> list[Row]:
        """The texts with their tokens."""
        counts = await self.with_tokens(lambda tokens: tokens.count(texts, way.side))
        return [Row(text, count, way) for text, count in zip(texts, counts, strict=True)]

    async def embed(self, rows: Sequence[Row], *, limited: bool = True) -> Array:
        """Vectors (len(rows), d'), as `foreword.encode` gives them.

        Raises:
            RequestError: 422, more tokens than a request may have; 503, too many texts wait.
        """
        tokens = sum(row.tokens for row in rows)
        if limited and tokens > self.config.max_tokens:
            raise RequestError(
                f"the request has {tokens} tokens; {self.config.max_tokens} are allowed: send fewer texts at a time",
                code="too_many_tokens",
                param="input",
            )
        return np.stack(await self.batcher.submit(rows, limited=limited))

    def embed_in_thread(self, texts: Sequence[str], way: Way, *, limited: bool = True) -> Array:
        """`embed` for searchers, whose threads wait for it."""
        counts = self.tokens.count(texts, way.side)
        rows = [Row(text, count, way) for text, count in zip(texts, counts, strict=True)]
        return asyncio.run_coroutine_threadsafe(self.embed(rows, limited=limited), self._loop).result()

    # -- what is there -----------------------------------------------------------------------------------------

    def domains(self, allowed: Callable[[str], bool]) -> dict[str, dict[str, Any]]:
        """Each domain that has a prompt or documents, as `/domains` shows it."""
        state = self.state
        searchable: dict[str, Searchable] = {}
        for searcher in state.searchers:  # as in `State.searcher`, the first that has a domain searches it
            for name, facts in searcher.domains().items():
                searchable.setdefault(name, facts)
        found: dict[str, dict[str, Any]] = {}
        for name in dict.fromkeys([*searchable, *state.served]):
            if not allowed(name):
                continue
            searched, prompt = searchable.get(name), self.prompt_of(name, state.served)
            found[name] = {
                "name": name,
                "prompt": None if prompt is None else {"name": prompt.domain, **prompt.about},
                "searchable": searched is not None,
                "documents": None if searched is None else searched.documents,
                "systems": [] if searched is None else list(searched.systems),
            }
        return found
