"""Unpack zip and tar archives that nobody vouches for: inside the folder, files only, within a limit, or not at all.

(`tarfile`'s data filter lets links within the folder, Windows' drives and members that come twice pass.)
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from foreword.downloads.places import check_space
from foreword.errors import DataError
from foreword.files import scratch_folder

_CHUNK = 1 << 20  # bytes
_ENCRYPTED = 0x1  # the bit of a zip member's flags
_NO_FILE = "is a link or device, not a file"


def extract(
    archive: Path,
    folder: Path,
    *,
    limit: int,
    members: Callable[[str], bool] | None = None,
    inside: str = "",
) -> Path:
    """Unpack a zip or tar archive (plain, gz, bz2 or xz; told by its content) as a folder.

    The folder appears only when all of it is there: it is made under a temporary name beside and renamed. If it
    is there already it is left as it is. Permissions, owners and times of the archive are not taken over.

    Args:
        limit: bytes that may be unpacked in all; more, whatever the archive's headers say, is an error.
        members: takes a member's name as it is in the archive; false leaves it out. None: all.
        inside: the archive's folder whose files alone are unpacked, and lie in `folder` itself.

    Raises:
        DataError: no such archive, broken, cut or encrypted; a member that is a link or device, that leads
            outside the folder or comes twice; more than `limit`; no room on the disk.
    """
    if folder.is_dir():
        return folder
    try:
        with scratch_folder(folder) as temporary:
            with _opened(archive, limit) as found:
                _unpack(found, temporary, archive, limit, members, inside)
            try:
                temporary.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was quicker
                    raise
    except DataError:
        raise
    except Exception as error:  # of a broken archive, these libraries raise whatever they come upon
        raise DataError(f"cannot be unpacked ({str(error) or type(error).__name__})", path=archive) from error
    return folder


@dataclass(frozen=True)
class _Member:
    """A member of an archive that is no folder."""

    name: str
    size: int
    """Bytes, as the archive's header has it, which may be wrong."""
    refusal: str
    """Why it is not unpacked, or empty."""
    open: Callable[[], IO[bytes]]


@contextmanager
def _opened(archive: Path, limit: int) -> Iterator[Iterable[_Member]]:
    """The members of an archive, whose kind its first bytes tell."""
    with archive.open("rb") as file:
        start = file.read(6)
        file.seek(0)
        if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            with zipfile.ZipFile(file) as zipped:
                yield _zip_members(zipped)
            return
        openers = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
        content: Any = next((opener(file) for magic, opener in openers if start.startswith(magic)), file)
        yield _tar_members(_Portions(content), archive, limit)


def _zip_members(zipped: zipfile.ZipFile) -> Iterator[_Member]:
    for info in zipped.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)  # Unix mode; 0 where another system made the archive
        refusal = "" if kind in (0, stat.S_IFREG) else _NO_FILE
        if info.flag_bits & _ENCRYPTED:
            refusal = "is encrypted"
        if not info.is_dir():
            yield _Member(info.orig_filename, info.file_size, refusal, partial(zipped.open, info))


def _tar_members(content: _Portions, archive: Path, limit: int) -> Iterator[_Member]:
    """The members of a tar, which is read to its very end, where its compression has a checksum."""
    try:
        # It holds nothing that must be closed: the file is the caller's.
        tar = tarfile.open(fileobj=cast(IO[bytes], content), mode="r:")  # noqa: SIM115
    except tarfile.ReadError as error:
        raise DataError(f"neither a zip nor a tar archive (plain, gz, bz2, xz): {error}", path=archive) from error
    for info in tar:
        if not info.isdir():
            opened = cast(Callable[[], IO[bytes]], partial(tar.extractfile, info))  # None of what is refused only
            yield _Member(info.name, info.size, "" if info.isreg() else _NO_FILE, opened)
    if content.last != bytes(tarfile.BLOCKSIZE):
        raise EOFError("it has no end mark: cut or broken")
    after = 0
    while chunk := content.read(_CHUNK):
        after += len(chunk)
        if after > limit + _CHUNK:
            raise DataError(_too_large(limit), path=archive)


class _Portions:
    """A tar's bytes, given in small portions only: a header that claims to be huge must not fill the memory."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell
        self.last = b""
        """What was read last."""

    def read(self, size: int) -> bytes:
        if size > _CHUNK:
            raise ValueError(f"a header of {size} bytes")
        self.last = self._file.read(size)
        return self.last


def _unpack(
    found: Iterable[_Member],
    folder: Path,
    archive: Path,
    limit: int,
    members: Callable[[str], bool] | None,
    inside: str,
) -> None:
    """Look through all members first, then write the wanted ones."""
    wanted: dict[PurePosixPath, _Member] = {}
    announced = 0
    for member in found:
        name, path = member.name, PurePosixPath(member.name)
        if (inside and not path.is_relative_to(inside)) or (members is not None and not members(name)):
            continue
        outside = path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name)
        if outside or not path.name or "\\" in name or "\0" in name:
            raise DataError(f"refused: the member {name!r} leads outside the folder", path=archive)
        if member.refusal:
            raise DataError(f"refused: the member {name!r} {member.refusal}", path=archive)
        if path in wanted:
            raise DataError(f"refused: the member {member.name!r} comes twice", path=archive)
        wanted[path] = member
        announced += member.size
        if announced > limit:
            raise DataError(_too_large(limit), path=archive)
    if not wanted:
        raise DataError("it has none of the files expected", path=archive)
    check_space(folder.parent, announced, f"the files of {archive}")
    left = limit
    for below, member in wanted.items():
        target = folder / below.relative_to(inside)
        target.parent.mkdir(parents=True, exist_ok=True)
        with member.open() as source, target.open("xb") as file:
            while chunk := source.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise DataError(_too_large(limit), path=archive)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())


def _too_large(limit: int) -> str:
    return f"refused: it unpacks to more than {limit:,} bytes, all that is allowed; if you trust it, unpack it by hand"
