"""Folders that exist only when they are whole."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foreword.common.errors import DataError


@contextmanager
def new_folder(output: str | Path) -> Iterator[Path]:
    """A temporary folder beside `output`, which takes its name when the block ends without an error.

    Raises:
        DataError: there is something at `output` already, or it has no name (`.`).
    """
    output = Path(output)
    if output.name in ("", ".."):
        raise DataError("is a folder that is there and stays; give --output a name", path=output)
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise DataError("is there already; give another --output, or remove it first", path=output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as temporary:
        inner = Path(temporary) / output.name  # tempfile makes its own folder private; this one is as usual
        inner.mkdir()
        yield inner
        _as_usual(inner)
        if output.exists():
            output.rmdir()
        os.replace(inner, output)


def _as_usual(folder: Path) -> None:
    """Give every file the user's usual permissions; safetensors makes its own private."""
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~umask)
