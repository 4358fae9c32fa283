"""Where downloaded files are kept: the folder, whether it has room, and its locks."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from foreword.errors import DataError

DATA = "FOREWORD_DATA"

_MARGIN = 0.05  # of what is needed, kept free besides: file systems need some room of their own


def data_folder(given: Path | str | None = None) -> Path:
    """The folder with all collections' files, made or not: that given, else $FOREWORD_DATA, else the user's cache."""
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

    `folder` need not exist yet; `what` is for the message.
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
    The data folder is made when missing; for `beir/nfcorpus` the lock is `<data>/.locks/beir/nfcorpus.lock`.
    """
    from filelock import FileLock

    path = Path(data) / ".locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.resolve(), is_singleton=True):  # one object for a path, so that a thread cannot wait for itself
        yield


OFFLINE = "FOREWORD_OFFLINE"
MIRRORS = "FOREWORD_MIRRORS"

_DIGITS = {"md5": 32, "sha256": 64}  # hexadecimal digits of a hash


@dataclass(frozen=True)
class Resource:
    """One file that can be had from the network."""

    name: str
    """Its path below the data folder, with `/`: `beir/nfcorpus.zip`."""
    urls: tuple[str, ...]
    """Where it may be had, tried in order: `http`, `https` or `file`."""
    md5: str | None = None
    """32 hexadecimal digits, or None: not known."""
    sha256: str | None = None
    """64 hexadecimal digits, or None: not known."""
    size: int | None = None
    """Bytes, or None: not known."""

    def __post_init__(self) -> None:
        path = PurePosixPath(self.name)
        if not path.name or path.is_absolute() or ".." in path.parts or "\\" in self.name:
            raise DataError(f"a resource's name is a path below the data folder, got {self.name!r}")
        for kind, digits in _DIGITS.items():
            value = getattr(self, kind)
            if value is not None and not re.fullmatch(f"[0-9a-f]{{{digits}}}", value):
                raise DataError(f"{self.name}: {kind} is {digits} lower-case hexadecimal digits, got {value!r}")

    @property
    def hashed(self) -> bool:
        """Whether the right bytes are known before the first download."""
        return self.md5 is not None or self.sha256 is not None


@dataclass(frozen=True)
class Transport:
    """How files are downloaded."""

    offline: bool = False
    """Ask no network: a file that is not there is an error. FOREWORD_OFFLINE=1 says the same."""
    mirrors: tuple[str, ...] = ()
    """Base URLs tried before a resource's own, the file's base name put after each; FOREWORD_MIRRORS adds more."""
    timeout: float = 60.0
    """Seconds without an answer before a server is given up."""
    quiet: bool = False
    """No progress bar."""
    tries: int = 4
    """Requests in a row that may bring nothing new before a URL is given up, at least 1."""
    pause: float = 1.0
    """Seconds before the second of these, doubled before each further one."""

    def __post_init__(self) -> None:
        if self.tries < 1 or self.timeout <= 0 or self.pause < 0:
            raise DataError(f"a transport has tries >= 1, timeout > 0 and pause >= 0, got {self}")

    @property
    def is_offline(self) -> bool:
        """Whether it, or the environment, forbids the network; other packages' variables (HF_HUB_OFFLINE) do not."""
        return self.offline or os.environ.get(OFFLINE, "").strip().casefold() not in ("", "0", "false", "no")

    def addresses(self, resource: Resource) -> list[str]:
        """Every URL to try for a resource, in order: these mirrors, those of FOREWORD_MIRRORS, its own."""
        bases = [*self.mirrors, *os.environ.get(MIRRORS, "").split()]
        mirrored = [f"{base.rstrip('/')}/{quote(PurePosixPath(resource.name).name)}" for base in bases]
        return list(dict.fromkeys([*mirrored, *resource.urls]))


DEFAULT = Transport()
