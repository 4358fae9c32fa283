"""Download an archive and unpack it safely: nothing appears under its final name before it is whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from foreword.common.errors import DataError

_CHUNK = 1 << 20  # bytes


def fetch_archive(url: str, folder: Path, *, timeout: float = 60) -> Path:
    """Download a tar archive (`.tar.gz` and the like) and unpack it as `folder`.

    Args:
        url: `http`, `https` or `file`.
        folder: made by this call, unless it is there already, which then is left as it is.
        timeout: seconds without an answer before the server is given up.

    Returns:
        The folder; the only folder inside it when the archive has a single one.

    Raises:
        DataError: the download failed, was cut, or is no archive that can be unpacked safely.
    """
    import tarfile  # slow to import, seldom needed

    folder = Path(folder)
    if folder.exists():
        return _single(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        archive = Path(temporary) / "archive"
        _download(url, archive, timeout)
        unpacked = Path(temporary) / "files"
        unpacked.mkdir()
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(unpacked, filter="data")  # refuses links and paths that lead outside
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DataError(f"{url} cannot be unpacked ({error}); get it by hand and say data=FOLDER") from error
        os.replace(unpacked, folder)
    return _single(folder)


def _download(url: str, path: Path, timeout: float) -> None:
    """Write what `url` answers to `path`; its length is checked when the server says it."""
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=timeout) as answer, path.open("wb") as file:
            shutil.copyfileobj(answer, file, _CHUNK)
            expected = answer.headers.get("Content-Length")
    except (URLError, OSError, ValueError) as error:
        raise DataError(f"{url} cannot be downloaded ({error}); get it by hand and say data=FOLDER") from error
    got = path.stat().st_size
    if expected is not None and got != int(expected):
        raise DataError(f"{url} was cut off: {got} of {expected} bytes came; try again")


def _single(folder: Path) -> Path:
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder
