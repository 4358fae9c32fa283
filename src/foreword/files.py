"""Files that exist only when they are complete, and whether what was kept is still what would be made now.

What is costly to make is kept with what it was made from: settings, sizes and digests, as JSON. It holds as long as
`kept_json` of the record equals `as_json` of what would go into it now, or lies under a name that `json_digest` gave.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from foreword.errors import DataError


@contextmanager
def atomic_write(path: Path | str, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` and rename it to `path` when the block ends without an error.

    Args:
        path: the final name; its folder is made when missing.
        mode: `"w"` for UTF-8 text with `\\n` line ends, `"wb"` for bytes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
        with os.fdopen(handle, mode, **text) as file:
            yield file
        umask = os.umask(0)  # mkstemp makes files private; give them the user's usual permissions
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, so that equal values give equal bytes."""
    with atomic_write(path) as file:
        json.dump(value, file, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def sha256_file(path: Path | str) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path | str, mend: str = "write it again") -> Any:
    """What a JSON file holds.

    Args:
        path: the file.
        mend: what the reader is to do when it is broken.

    Raises:
        DataError: it is no JSON, or not UTF-8.
    """
    try:
        return json.loads(Path(path).read_text("utf-8"))
    except (ValueError, RecursionError) as error:  # the latter: nested without end
        raise DataError(f"broken JSON ({error}); {mend}", path=path) from error


def kept_json(path: Path | str) -> Any:
    """What a JSON file holds; None when there is none or it is broken, so that what it records is made again."""
    try:
        return json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def as_json(value: Any) -> Any:
    """A value as JSON reads it back, lists for tuples and texts for keys, to be compared with what a file says.

    Whatever JSON does not know becomes its text.
    """
    return json.loads(json.dumps(value, default=str))


def json_digest(value: Any) -> str:
    """The SHA-256 of a value's JSON with sorted keys, as 64 hexadecimal digits: equal for equal values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def rounded(value: Any, digits: int = 6) -> Any:
    """A JSON value with its fractions rounded, however deep they lie."""
    if isinstance(value, float):
        return round(value, digits)
    if isinstance(value, Mapping):
        return {name: rounded(each, digits) for name, each in value.items()}
    return [rounded(each, digits) for each in value] if isinstance(value, list | tuple) else value
