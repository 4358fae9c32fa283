"""Where downloaded files are kept: the folder, whether it has room, and its locks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foreword.common.errors import DataError

DATA = "FOREWORD_DATA"

_MARGIN = 0.05  # of what is needed, kept free besides: file systems need some room of their own


def data_folder(given: Path | str | None = None) -> Path:
    """The folder with all collections' files: the given one, else $FOREWORD_DATA, else one in the user's cache.

    It need not exist yet.
    """
    if given is not None:
        return Path(given).expanduser()
    if folder := os.environ.get(DATA):
        return Path(folder).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("foreword")) / "data"


def record_file(data: Path, name: str) -> Path:
    """The JSON file with a downloaded file's size and hashes; it outlives the file."""
    return Path(data) / ".records" / f"{name}.json"


def check_space(folder: Path, needed: int, what: str) -> None:
    """Raise `DataError` unless `needed` bytes, and a twentieth more, are free where `folder` is or will be.

    Args:
        folder: need not exist yet.
        needed: bytes still to be written.
        what: what they are, for the message.
    """
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    wanted = int(needed * (1 + _MARGIN))
    if wanted > free:
        raise DataError(
            f"no room for {what}: it needs {wanted:,} bytes, {free:,} are free in {there}; "
            f"make room, or choose another data folder (--data FOLDER or {DATA})"
        )


@contextmanager
def locked(data: Path, name: str) -> Iterator[None]:
    """Hold a lock on a name below the data folder; other processes and threads wait until the block ends.

    The same thread may take the same name again inside the block.

    Args:
        data: the data folder, made when missing.
        name: of what is worked on, e.g. `beir/nfcorpus`; the lock is `<data>/.locks/<name>.lock`.
    """
    from filelock import FileLock

    path = Path(data) / ".locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.resolve(), is_singleton=True):  # one object for a path, so that a thread cannot wait for itself
        yield
