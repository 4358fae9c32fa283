"""Progress for anything over two seconds: a bar on a terminal, nothing where output is read by a program."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from foreword.common.terminal import moves_cursor

Item = TypeVar("Item")


def track(items: Iterable[Item], what: str, total: int | None = None, *, quiet: bool = False) -> Iterator[Item]:
    """Yield `items`, with a bar on standard error once two seconds have gone by.

    Args:
        items: what to go through.
        what: the bar's label.
        total: the number of items, when `items` has no length.
        quiet: no bar at all; also so when standard error is no terminal, or a dumb one.
    """
    from tqdm import tqdm

    disable = quiet or not moves_cursor()
    yield from tqdm(items, desc=what, total=total, delay=2.0, leave=False, disable=disable, file=sys.stderr)
