"""Work for processes of an engine that need nothing heavy; see `test_engine.py`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path


def noted(folder: str, deadly: int, deaths: int) -> Callable[[int], dict[str, int]]:
    """Notes each piece of work in a file; on the `deadly` one the process is killed then, so many times."""
    place = Path(folder)

    def work(piece: int) -> dict[str, int]:
        with (place / f"{piece}").open("a") as file:
            file.write(f"{os.getpid()}\n")
        if piece == deadly and len((place / f"{piece}").read_text().split()) <= deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"piece": piece, "pid": os.getpid()}

    return work
