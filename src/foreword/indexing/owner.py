"""Who owns a Milvus Lite file: it belongs to one process, and a second one is told which.

A Milvus Lite "file" is a folder. Beside Milvus Lite's own lock, which names nobody, `foreword.lock` is held (by the
operating system, so that it goes when the process does) and `owner.json` says whose it is.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from foreword.common.files import write_json
from foreword.indexing.errors import IndexBusyError, IndexingError

LOCK, OWNER, LITE_LOCK = "foreword.lock", "owner.json", "LOCK"


@dataclass
class Owned:
    """A file that this process owns, however many indexes it has open on it."""

    path: Path
    lock: FileLock
    users: int = 0
    guard: threading.RLock = field(default_factory=threading.RLock)
    """Milvus Lite takes one write at a time, and no reads beside it."""


_owned: dict[Path, Owned] = {}
_registry = threading.Lock()


def own(path: Path) -> Owned:
    """Take the file for this process, or share it with those in the process that have it; `disown` gives it back.

    Args:
        path: a folder that exists, absolute.

    Raises:
        IndexBusyError: another process has it.
        IndexingError: it is not a folder.
    """
    with _registry:
        mine = _owned.get(path)
        if mine is None:
            if not path.is_dir():
                raise IndexingError(
                    f"{path} is a plain file, and Milvus Lite 3 keeps a folder; give another name (a file of Milvus "
                    "Lite 2 has to be built again)"
                )
            mine = Owned(path, _locked(path))
            _owned[path] = mine
        mine.users += 1
        return mine


def disown(owned: Owned) -> None:
    """Give back what `own` took; the last one stops the server inside this process and frees the file."""
    with _registry:
        owned.users -= 1
        if owned.users:
            return
        del _owned[owned.path]
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_server(str(owned.path))
        (owned.path / OWNER).unlink(missing_ok=True)
        owned.lock.release()


def _locked(path: Path) -> FileLock:
    lock = FileLock(path / LOCK, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise IndexBusyError(f"{path} is open in {_who(path)}. {_REMEDY}") from None
    if _lite_is_locked(path):
        lock.release()
        raise IndexBusyError(f"{path} is open in a program that is not Foreword (it holds {LITE_LOCK}). {_REMEDY}")
    write_json(path / OWNER, _self())
    return lock


_REMEDY = (
    "Milvus Lite's files belong to one process: wait for it, stop it, or ask it (a service answers searches); "
    "a Milvus server, by its http:// URI, takes any number of them"
)


def _self() -> dict[str, Any]:
    """What the owner says about itself: the program and its command, never its further arguments."""
    program = Path(sys.argv[0] or "python")
    name = program.parent.name if program.name == "__main__.py" else program.name
    words = [word for word in sys.argv[1:3] if word.isalpha()]
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": platform.node(), "program": " ".join([name, *words]), "since": since}


def _who(path: Path) -> str:
    try:
        said = json.loads((path / OWNER).read_text(encoding="utf-8"))
        where = "" if said["host"] == platform.node() else f" on {said['host']}"
        return f"process {said['pid']}{where} ({said['program']}, since {said['since']})"
    except (OSError, ValueError, KeyError, TypeError):  # it has just begun, or is just ending
        return "another process"


def _lite_is_locked(path: Path) -> bool:
    """Whether someone holds Milvus Lite's own lock; asked first, since Milvus Lite itself only logs a traceback."""
    try:
        import fcntl
    except ImportError:  # not on Windows, where pymilvus then says that it failed
        return False
    if not (path / LITE_LOCK).exists():
        return False
    with open(path / LITE_LOCK, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
