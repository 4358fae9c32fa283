"""What is written for a person: with bold type on a terminal that has it, plain into a file or a pipe.

Rich decides this by the usual variables: `NO_COLOR`, `FORCE_COLOR` and `TERM=dumb`.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console


PIPE_WIDTH = 160
"""Columns of a table in a file or a pipe, which has no width of its own; `COLUMNS` is asked first."""

_DUMB = ("dumb", "unknown")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def console(*, width: int | None = None) -> Console:
    """Standard output, for tables.

    Args:
        width: columns; None: the terminal's, and where there is none, COLUMNS or 80.
    """
    from rich.console import Console

    class Output(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would end the program with code 1

    return Output(width=width)


def table_width() -> int | None:
    """The width of a table, as `console` takes it."""
    return None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH


def moves_cursor() -> bool:
    """Whether standard error is a terminal on which a line can be drawn again, as a progress bar does."""
    return sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in _DUMB


def wants_colour() -> bool | None:
    """What the environment says of colour, for programs that ask it differently; None: nothing."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return False if os.environ.get("TERM", "").lower() in _DUMB else None


def harmless(text: str) -> str:
    """A text from elsewhere, whose control characters cannot move the cursor or colour what follows."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


# Progress for anything over two seconds: a bar on a terminal; in a file or a pipe, a line now and then.


EVERY = 10.0
"""Seconds between two lines of progress."""

Item = TypeVar("Item")


class ProgressLines:
    """Progress where a line cannot be drawn again: `documents: 40 %`, at most every `EVERY` seconds."""

    def __init__(self, what: str) -> None:
        self.what, self.said = what, time.monotonic()

    def __call__(self, done: int, total: int | None) -> None:
        """Say on standard error that so many are done, of so many where that is known, unless it is too soon."""
        now = time.monotonic()
        if now - self.said >= EVERY:
            self.said = now
            far = f"{100 * done // total} %" if total else f"{done:,}"
            print(f"{self.what}: {far}", file=sys.stderr, flush=True)


def track(items: Iterable[Item], what: str, total: int | None = None, *, quiet: bool = False) -> Iterator[Item]:
    """Yield `items`, with progress on standard error.

    A bar once two seconds have gone by; where that is no terminal, or a dumb one, a line every ten.

    Args:
        items: what to go through.
        what: the label.
        total: the number of items, when `items` has no length.
        quiet: no progress at all.
    """
    from tqdm import tqdm

    if moves_cursor() or quiet:
        yield from tqdm(items, desc=what, total=total, delay=2.0, leave=False, disable=quiet, file=sys.stderr)
        return
    said = ProgressLines(what)
    total = len(items) if total is None and isinstance(items, Sized) else total
    for done, item in enumerate(items):
        said(done, total)
        yield item


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Without transformers' bar for reading weights, which takes a fraction of a second here."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


@contextmanager
def quietly() -> Iterator[None]:
    """Without the bars, warnings and remarks of writing a model and of loading it again."""
    logs = [logging.getLogger(name) for name in ("sentence_transformers", "torch.onnx")]
    before = [(log, log.level, log.disabled) for log in logs]
    try:
        for log in logs:
            log.setLevel(logging.ERROR)
        with quiet_loading(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level, disabled in before:
            log.setLevel(level)
            log.disabled = disabled
