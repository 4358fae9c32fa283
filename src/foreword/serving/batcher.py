"""Texts of all requests together, in the forward passes of one worker thread.

A pass takes what is waiting when the last one ends, so under load nothing waits for a timer; when none is running, a
text waits `wait_seconds` at most for others to come. Requests take turns, a text each: one with two thousand texts
does not keep a single query behind it.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from sentence_transformers import SentenceTransformer

from foreword.errors import ForewordError, RequestError
from foreword.prompts.encoder import text_prompt, transformer_of
from foreword.prompts.transformer import filled, first_characters
from foreword.serving.prompts import Way

Array = np.ndarray[Any, np.dtype[np.float32]]
Result = TypeVar("Result")


CHARACTERS = 2**18
"""In a forward pass, at most: texts of many characters and few tokens are read before it, while all others wait."""


PASS_SECONDS = 0.25
"""That a forward pass is to take, at most: who comes meanwhile waits for it, and then for their own."""

LEAST, FIRST = 512, 1024
"""Tokens of a forward pass, padding included: of the slowest, and before it is known how fast they are."""


@dataclass(frozen=True)
class Row:
    """A text, or as much of it as its tokens need; the tokens it is cut to; and what encodes it."""

    text: str
    tokens: int
    way: Way


@dataclass(eq=False)
class _Job:
    """A request's texts: those that wait, the vectors so far, and who waits for them."""

    waiting: deque[tuple[int, Row]]
    vectors: dict[int, Array]
    texts: int
    done: asyncio.Future[list[Array]]
    arrived: float = field(default_factory=time.monotonic)


class Batcher:
    """Gathers rows into forward passes; used from one event loop."""

    def __init__(
        self,
        encode: Callable[[Sequence[Row]], Array],
        *,
        tokens: int,
        texts: int,
        wait_seconds: float,
        queue_texts: int,
        on_pass: Callable[[Sequence[Row], float, float], None] | None = None,
    ) -> None:
        """`encode` gives the vectors of rows that can share a pass; the rest is as in `ServeConfig`.

        A pass has as many of its `tokens` as take `PASS_SECONDS` here.
        """
        self._encode, self._on_pass = encode, on_pass
        self.tokens, self.texts, self.wait_seconds, self.queue_texts = tokens, texts, wait_seconds, queue_texts
        self.together = True
        """False: a forward pass takes the texts of one request only; to compare with."""
        self.waiting = 0
        """Texts that wait."""
        self.expected = 0
        """Texts that will, once their tokens are counted."""
        self._jobs: deque[_Job] = deque()
        self._came = asyncio.Event()
        self._closing = False
        self._budget = min(tokens, FIRST)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="foreword-encode")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to encode."""
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def hurry(self) -> None:
        """Wait for nobody from now on: no more requests will come."""
        self.wait_seconds = 0.0
        self._came.set()

    async def close(self) -> None:
        """Take no more requests, finish those that wait, and end the thread."""
        self._closing = True
        self._came.set()
        if self._task is not None:
            await self._task
        self._worker.shutdown()

    async def between(self, act: Callable[[], Result]) -> Result:
        """Run `act` in the worker thread, between two forward passes."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, act)

    def check_room(self, texts: int) -> None:
        """Raise `RequestError` (503) where so many more texts may not wait."""
        if self.waiting + texts > self.queue_texts:
            raise RequestError(f"too many texts wait ({self.queue_texts} may); ask again later", 503, "queue_full")

    @contextmanager
    def expecting(self, texts: int) -> Iterator[None]:
        """While the tokens of texts are counted, in the block. Raises as `check_room`."""
        self.check_room(self.expected + texts)
        self.expected += texts
        try:
            yield
        finally:
            self.expected -= texts

    async def submit(self, rows: Sequence[Row], *, limited: bool = True) -> list[Array]:
        """The vectors of the rows (at least one), in their order.

        Raises `RequestError` (503) when the service is being stopped or, where `limited`, too many texts wait.
        """
        if self._closing:
            raise RequestError("the service is being stopped; ask again", 503, "stopping")
        if limited:
            self.check_room(len(rows))
        job = _Job(deque(enumerate(rows)), {}, len(rows), asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self.waiting += len(rows)
        self._came.set()
        try:
            return await job.done
        finally:
            if job.waiting:  # who asked has gone, or a pass failed
                self.waiting -= len(job.waiting)
                job.waiting.clear()
                self._jobs.remove(job)

    async def _serve(self) -> None:
        while True:
            self._came.clear()
            if not self._jobs:
                if self._closing:
                    return
                await self._came.wait()
                continue
            await self._gather()
            taken = self._take()
            if taken:
                await self._pass(taken)

    async def _gather(self) -> None:
        """Wait until a pass is full, the time is up, or no more can come."""
        while self._jobs and not self._full() and not self._closing:
            left = min(job.arrived for job in self._jobs) + self.wait_seconds - time.monotonic()
            if left <= 0:
                return
            self._came.clear()
            try:
                await asyncio.wait_for(self._came.wait(), left)
            except TimeoutError:
                return

    def _full(self) -> bool:
        if not self.together or self.waiting >= self.texts:
            return True
        return sum(row.tokens for job in self._jobs for _, row in job.waiting) >= self._budget

    def _take(self) -> list[tuple[_Job, int, Row]]:
        """Rows for a pass, from each request in turn, beginning with the one that was served longest ago."""
        taken: list[tuple[_Job, int, Row]] = []
        passed: list[_Job] = []  # cannot share this pass; they come first in the next
        way: Way | None = None
        longest = characters = 0
        while self._jobs and len(taken) < self.texts:
            job = self._jobs[0]
            place, row = job.waiting[0]
            joint = row.way if way is None else row.way.joins(way)
            if joint is None or (taken and not self.together and job is not taken[0][0]):
                passed.append(self._jobs.popleft())
                continue
            padded, read = max(longest, row.tokens) * (len(taken) + 1), characters + len(row.text)
            if taken and (padded > self._budget or read > CHARACTERS):
                break
            way, longest, characters = joint, max(longest, row.tokens), read
            taken.append((job, place, row))
            job.waiting.popleft()
            self._jobs.popleft()
            if job.waiting:
                self._jobs.append(job)
        self._jobs.extendleft(reversed(passed))
        self.waiting -= len(taken)
        return taken

    def _learn(self, tokens: int, seconds: float) -> None:
        """How many tokens the next passes may have, from one that had so many."""
        if seconds > PASS_SECONDS:
            self._budget = min(self.tokens, max(LEAST, int(tokens * PASS_SECONDS / seconds)))
        elif seconds < PASS_SECONDS / 2 and 2 * tokens > self._budget:
            self._budget = min(self.tokens, 2 * self._budget)

    async def _pass(self, taken: Sequence[tuple[_Job, int, Row]]) -> None:
        rows = [row for _, _, row in taken]
        began = time.monotonic()
        try:
            vectors = await self.between(lambda: self._encode(rows))
            for (job, place, _), vector in zip(taken, vectors, strict=True):
                job.vectors[place] = vector
        except Exception as error:  # each of these requests is told
            for job, _, _ in taken:
                if not job.done.done():
                    job.done.set_exception(error)
            return
        seconds = time.monotonic() - began
        self._learn(max(row.tokens for row in rows) * len(rows), seconds)
        for job, _, _ in taken:
            if len(job.vectors) == job.texts and not job.done.done():
                job.done.set_result([job.vectors[place] for place in range(job.texts)])
        if self._on_pass is not None:
            self._on_pass(rows, seconds, began - min(job.arrived for job, _, _ in taken))


REFUSE, BACKBONE = "refuse", "backbone"


BLOCK = 2**15
"""Characters that are tokenised at once, so that requests take turns: some tenths of a second."""


class Tokens:
    """Counts and decodes with a copy of the backbone's tokenizer: a fast one refuses two threads at once.

    So does this, which is to be used from one thread.
    """

    def __init__(self, encoder: SentenceTransformer, arrays: str = REFUSE, *, characters: int = 100_000) -> None:
        """Take the encoder's tokenizer; `arrays`, `characters`: `token_arrays`, `max_characters` of `ServeConfig`."""
        self._encoder, self._characters, self._arrays = encoder, characters, arrays
        self._tokenizer: Any = copy.deepcopy(transformer_of(encoder).tokenizer)
        self._tiktoken = _tiktoken(arrays) if arrays not in (REFUSE, BACKBONE) else None

    def blocks(self, texts: Sequence[str]) -> Iterator[Sequence[str]]:
        """The texts in their order, in parts of `BLOCK` characters or one text, as far as `rows` looks at them."""
        begin = size = 0
        for place, text in enumerate(texts):
            looked = min(len(text), self._first())
            if place > begin and size + looked > BLOCK:
                yield texts[begin:place]
                begin, size = place, 0
            size += looked
        yield texts[begin:]

    def rows(self, texts: Sequence[str], way: Way) -> list[Row]:
        """The texts with their tokens, special ones and the backbone's own words included, after they are cut.

        What is too long is cut before it is tokenised, too: of a text whose first characters have as many tokens as it
        is cut to, the rest is not looked at.

        Raises `RequestError` where a text is no Unicode text (it holds half a surrogate pair), or has too many
        characters for too few tokens.
        """
        for number, text in enumerate(texts):
            try:
                text[: self._characters].encode()
            except UnicodeEncodeError as error:
                message = f"text {number} is not Unicode: {error.reason} at character {error.start}"
                raise RequestError(message, param="input") from None
        words, first = text_prompt(self._encoder, way.side) or "", self._first()
        found = self._tokenized([words + text[:first] for text in texts])
        return [self._row(text, words, first, found, place, way) for place, text in enumerate(texts)]

    def _row(self, text: str, words: str, first: int, found: Any, place: int, way: Way) -> Row:
        limit = transformer_of(self._encoder).max_seq_length
        while len(text) > first and not filled(found, place, limit):
            if first >= self._characters:
                message = (
                    f"a text has {len(text)} characters, the first {first} of them too few tokens to cut it there; "
                    f"{self._characters} are allowed: send less of it"
                )
                raise RequestError(message, code="text_too_long", param="input")
            first = min(4 * first, self._characters)
            found, place = self._tokenized([words + text[:first]]), 0
        tokens = len(found["input_ids"][place])
        return Row(text[:first], tokens if limit is None else min(tokens, limit), way)

    def _first(self) -> int:
        """Characters of a text that are tokenised first: most texts have fewer, or fill what they are cut to."""
        first = first_characters(self._tokenizer, transformer_of(self._encoder).max_seq_length)
        return self._characters if first is None else min(first, self._characters)

    def _tokenized(self, texts: Sequence[str]) -> Any:
        return self._tokenizer(texts, return_attention_mask=False, verbose=False)

    def decode(self, arrays: Sequence[Sequence[int]]) -> list[str]:
        """The texts of arrays of token ids. `RequestError` where these are refused, or one is not in the vocabulary."""
        if self._arrays == REFUSE:
            message = (
                "input holds token ids, and which tokenizer's cannot be known; send texts (LangChain: "
                "OpenAIEmbeddings(check_embedding_ctx_length=False)), or set the service's token_arrays"
            )
            raise RequestError(message, 400, "token_arrays_refused", "input")
        size = self._tiktoken.n_vocab if self._tiktoken is not None else len(self._tokenizer)
        if any(not 0 <= token < size for array in arrays for token in array):
            message = f"input holds token ids outside 0 to {size - 1}, the ids of {self._arrays}"
            raise RequestError(message, param="input")
        if self._tiktoken is not None:
            return [str(self._tiktoken.decode(list(array))) for array in arrays]
        return [str(self._tokenizer.decode(list(array), skip_special_tokens=True)) for array in arrays]


def _tiktoken(name: str) -> Any:
    try:
        import tiktoken
    except ImportError:
        raise ForewordError(
            f"token_arrays is {name!r}; for the name of a tiktoken encoding, pip install tiktoken; without it, "
            "refuse or backbone"
        ) from None
    try:
        return tiktoken.get_encoding(name)
    except (ValueError, OSError) as error:  # requests' errors are OSErrors
        raise ForewordError(
            f"token_arrays is {name!r}: {' '.join(str(error).split())[:300]}. Expected refuse, backbone or a tiktoken "
            "encoding; its file is downloaded once, or lies in TIKTOKEN_CACHE_DIR"
        ) from error
