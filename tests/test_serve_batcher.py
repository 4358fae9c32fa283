"""Which texts share a forward pass, in which order, and what happens at the edges of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from foreword.errors import RequestError
from foreword.prompts.spec import PromptSpec
from foreword.serving.batcher import Batcher, Row
from foreword.serving.prompts import Way

BASE = Way("query")
GATED = [Way("query", name, PromptSpec(length=2)) for name in "ab"]
LONGER = Way("query", "c", PromptSpec(length=3))
INPUT = Way("query", "d", PromptSpec(kind="input", length=2))
MIXTURE = Way("query", weights=(("a", 0.5), ("b", 0.5)))


class Passes:
    """Stands for the encoder: a text's vector is its number; it waits until it is let go."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, rows: Sequence[Row]) -> Any:
        assert self.go.wait(10)
        self.seen.append([row.text for row in rows])
        if any(row.text == "bad" for row in rows):
            raise ValueError("this one cannot be encoded")
        return np.array([[float(row.text)] for row in rows], dtype=np.float32)


def rows(*texts: int | str, way: Way = BASE, tokens: int = 1) -> list[Row]:
    return [Row(str(text), tokens, way) for text in texts]


def batcher(passes: Passes, **settings: Any) -> Batcher:
    made = Batcher(passes, **{"tokens": 100, "texts": 8, "wait_seconds": 0.0, "queue_texts": 100, **settings})
    made.start()
    return made


async def busy(made: Batcher, passes: Passes) -> asyncio.Task[Any]:
    """A first pass runs, and what is submitted now waits for the next."""
    passes.go.clear()
    task = asyncio.create_task(made.submit(rows(0)))
    await asyncio.sleep(0)
    while made.waiting:
        await asyncio.sleep(0.001)
    return task


def test_what_can_share_a_pass() -> None:
    assert BASE.joins(GATED[0]) == GATED[0].joins(BASE) == GATED[0]
    assert GATED[0].joins(GATED[1]) is not None
    assert GATED[0].joins(LONGER) is None
    assert BASE.joins(INPUT) is None
    assert INPUT.joins(INPUT) == INPUT
    assert MIXTURE.joins(BASE) is None
    assert Way("document").joins(BASE) is None


def test_requests_that_wait_share_the_next_pass_and_take_turns() -> None:
    async def run() -> None:
        passes = Passes()
        made = batcher(passes)
        first = await busy(made, passes)
        many = asyncio.create_task(made.submit(rows(*range(10, 22), way=GATED[0])))
        await asyncio.sleep(0)
        single = asyncio.create_task(made.submit(rows(50, way=GATED[1])))
        base = asyncio.create_task(made.submit(rows(60)))
        await asyncio.sleep(0)
        passes.go.set()
        got = [float(vector[0]) for vector in await many]
        assert got == [float(number) for number in range(10, 22)]
        assert [float(v[0]) for v in await single + await base + await first] == [50.0, 60.0, 0.0]
        assert passes.seen[1] == ["10", "50", "60", "11", "12", "13", "14", "15"]
        assert passes.seen[2] == ["16", "17", "18", "19", "20", "21"]
        await made.close()

    asyncio.run(run())


def test_those_that_cannot_share_come_next_and_none_starves() -> None:
    async def run() -> None:
        passes = Passes()
        made = batcher(passes, texts=3)
        first = await busy(made, passes)
        waiting = [
            asyncio.create_task(made.submit(rows(*range(start, start + 6), way=way)))
            for start, way in ((10, GATED[0]), (20, LONGER), (30, INPUT), (40, MIXTURE))
        ]
        await asyncio.sleep(0)
        passes.go.set()
        await asyncio.gather(first, *waiting)
        assert [texts[0][0] for texts in passes.seen[1:]] == ["1", "2", "3", "4", "1", "2", "3", "4"]
        await made.close()

    asyncio.run(run())


def test_a_pass_holds_its_tokens_padding_included() -> None:
    async def run() -> None:
        passes = Passes()
        made = batcher(passes, tokens=20)
        first = await busy(made, passes)
        long = asyncio.create_task(made.submit([*rows(1, 2, 3, tokens=4), *rows(4, tokens=10), *rows(5, tokens=50)]))
        await asyncio.sleep(0)
        passes.go.set()
        await asyncio.gather(first, long)
        assert passes.seen[1:] == [["1", "2", "3"], ["4"], ["5"]]  # 4 x 10 are too many; one text alone is a pass
        await made.close()

    asyncio.run(run())


def test_a_text_waits_for_others_when_nothing_runs() -> None:
    async def run() -> None:
        passes = Passes()
        made = batcher(passes, wait_seconds=30.0, texts=3)
        three = [asyncio.create_task(made.submit(rows(number))) for number in range(3)]
        await asyncio.wait_for(asyncio.gather(*three), 10)  # full before the time is up
        assert passes.seen == [["0", "1", "2"]]
        made.together = False
        apart = [asyncio.create_task(made.submit(rows(number))) for number in range(3)]
        await asyncio.wait_for(asyncio.gather(*apart), 10)
        assert passes.seen[1:] == [["0"], ["1"], ["2"]]
        await made.close()

    asyncio.run(run())


def test_a_full_queue_refuses_and_closing_finishes_what_waits() -> None:
    async def run() -> None:
        passes = Passes()
        made = batcher(passes, queue_texts=4)
        first = await busy(made, passes)
        waits = asyncio.create_task(made.submit(rows(1, 2, 3)))
        await asyncio.sleep(0)
        with pytest.raises(RequestError, match="too many texts wait") as full:
            await made.submit(rows(4, 5))
        assert (full.value.status, full.value.code) == (503, "queue_full")
        inner = asyncio.create_task(made.submit(rows(6, 7), limited=False))
        await asyncio.sleep(0)
        closing = asyncio.create_task(made.close())
        await asyncio.sleep(0)
        with pytest.raises(RequestError, match="stopped"):
            await made.submit(rows(8))
        passes.go.set()
        assert len(await waits) == 3
        assert len(await inner) == 2
        await asyncio.gather(first, closing)
        assert made.waiting == 0

    asyncio.run(run())


def test_a_failure_is_told_to_those_it_concerns_and_the_next_goes_on() -> None:
    async def run() -> None:
        passes = Passes()
        made = batcher(passes, texts=2)
        with pytest.raises(ValueError, match="cannot be encoded"):
            await made.submit(rows("bad", 1, 2, 3, 4))
        assert len(await made.submit(rows(5))) == 1
        assert made.waiting == 0
        first = await busy(made, passes)
        gone = asyncio.create_task(made.submit(rows(6)))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        passes.go.set()
        await first
        assert passes.seen[-1] == ["0"]
        await made.close()

    asyncio.run(run())


def test_a_pass_has_as_many_tokens_as_there_is_time_for() -> None:
    made = Batcher(Passes(), tokens=8192, texts=64, wait_seconds=0.0, queue_texts=100)
    for tokens, seconds, budget in (
        (1024, 0.01, 2048),  # fast: twice as many
        (100, 0.01, 2048),  # it was not full
        (2048, 0.2, 2048),
        (2048, 0.5, 1024),  # twice too slow: half as many
        (1024, 9.0, 512),  # a text is never too long
        *[(budget, 0.0, 2 * budget) for budget in (512, 1024, 2048, 4096)],
        (8192, 0.0, 8192),
    ):
        made._learn(tokens, seconds)
        assert made._budget == budget
