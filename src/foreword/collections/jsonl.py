"""Text files read line by line, plain or gzip, with errors that name the file and the line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foreword.common.errors import DataError

_BOM = b"\xef\xbb\xbf"


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file (gzip when its name ends in `.gz`), numbered from 1, without line ends.

    Raises:
        DataError: the file cannot be opened, is a cut gzip file, or is not UTF-8.
    """
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if number == 1:
                    line = line.removeprefix(_BOM)
                yield number, line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        message = f"not UTF-8 (byte {error.start + 1} of the line); convert the file, e.g. iconv -f latin1 -t utf-8"
        raise DataError(message, path=path, line=number) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        message = f"broken gzip file ({error}); get or make it again"
        raise DataError(message, path=path, line=number + 1) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=path) from error


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a file, one a line; blank lines are passed over.

    Raises:
        DataError: as `text_lines`, and for a line that is not a JSON object.
    """
    for number, line in text_lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            message = f"broken JSON ({error}); every line must be one whole JSON object"
            raise DataError(message, path=path, line=number) from error
        except RecursionError as error:
            raise DataError("JSON nested too deeply", path=path, line=number) from error
        if not isinstance(record, dict):
            message = f"expected a JSON object, got {type(record).__name__}"
            raise DataError(message, path=path, line=number)
        yield number, record
