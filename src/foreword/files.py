"""Texts from outside, opened in one way; files that exist only when they are whole, and folders that one process owns.

What is costly to make is kept with what it was made from: settings, sizes and digests, as JSON. It holds as long as
`kept_json` of the record equals `as_json` of what would go into it now, or lies under a name that `json_digest` gave.
"""

from __future__ import annotations

import codecs
import difflib
import errno
import glob
import gzip
import hashlib
import inspect
import io
import json
import logging
import os
import platform
import shutil
import sys
import tempfile
import tomllib
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from functools import wraps
from itertools import chain
from pathlib import Path
from typing import IO, Any, ParamSpec, TypeVar

from foreword.errors import DataError, ForewordError

logger = logging.getLogger(__name__)


PART = ".part"
"""The ending of what is not whole yet, `.NAME.XXXXXXXX.part`; a killed run leaves it, and the next one removes it."""


@contextmanager
def atomic_write(path: Path | str, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` and rename it to `path` when the block ends without an error.

    Its bytes are on the disk before its name is, so that a power cut leaves the old file or the new one. A device or a
    pipe (`/dev/stdout`) keeps its name, and is written to.

    Args:
        path: the final name; its folder is made when missing.
        mode: `"w"` for UTF-8 text with `\\n` line ends, `"wb"` for bytes.
    """
    path = Path(path)
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    if path.exists() and not path.is_dir() and (not path.is_file() or path.parent == Path("/dev")):
        with open(path, mode, **text) as file:
            yield file
        return
    handle, temporary = _begin(path, tempfile.mkstemp)
    try:
        with os.fdopen(handle, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~umask())  # tempfile makes it private
            if os.name == "nt":  # where an open file cannot be renamed; elsewhere it is held until it has its name
                file.close()
            os.replace(temporary, path)
        settle(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, to be filled and then renamed to it; gone when the block ends."""
    handle, temporary = _begin(path, lambda **names: _opened_folder(tempfile.mkdtemp(**names)))
    try:
        os.chmod(temporary, 0o777 & ~umask())  # tempfile makes it private
        yield Path(temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def umask() -> int:
    """What the user's usual permissions leave out."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


def settle(folder: Path) -> None:
    """Have the system write a folder's names to the disk, where it lets one ask for that."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


Handle = TypeVar("Handle", int, "int | None")


def _begin(path: Path, make: Callable[..., tuple[Handle, str]]) -> tuple[Handle, str]:
    """A temporary file or folder beside `path`, held as long as it is open; what killed runs left is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob(f".{glob.escape(path.name)}.????????{PART}"):
        with suppress(OSError):
            handle = os.open(old, os.O_RDONLY)
            try:
                if _held(handle):
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
            finally:
                os.close(handle)
    while True:
        made, name = make(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
        if made is not None:
            _held(made)
        if os.path.exists(name):  # else another took it for a killed run's, before it was held
            return made, name


def _opened_folder(name: str) -> tuple[int | None, str]:
    try:
        return os.open(name, os.O_RDONLY), name
    except OSError:  # Windows opens no folders
        return None, name


def _held(handle: int) -> bool:
    """Whether this process now holds an open file or folder: no other does, and others will see it."""
    try:
        import fcntl
    except ImportError:  # Windows, which removes nothing that is open
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody's, or on a file system without locks
        return False
    return True


VECTORS = "foreword-vectors/1"
"""The format of the record beside vectors that Foreword wrote, `NAME.json`; it says `complete` last."""


def ids_file(vectors: Path) -> Path:
    """Where the ids of a `.npy` are: one a line, in the order of its rows."""
    return vectors.with_suffix(".ids.txt")


# Who writes. Two processes that write to one folder would leave one's card over the other's weights.

LOCK = ".foreword.lock"

Given = ParamSpec("Given")
Result = TypeVar("Result")


def this_process() -> dict[str, Any]:
    """Who this is, as JSON: `pid`, `host`, the `program` and its command without further arguments, `since` when."""
    program = Path(sys.argv[0] or "python")
    name = program.parent.name if program.name == "__main__.py" else program.name
    words = [word for word in sys.argv[1:3] if word.isalpha()]
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": platform.node(), "program": " ".join([name, *words]), "since": since}


def said_process(path: Path) -> str:
    """The process that wrote itself into a file, for people."""
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        where = "" if there["host"] == platform.node() else f" on {there['host']}"
        return f"process {there['pid']}{where} ({there['program']}, since {there['since']})"
    except (OSError, ValueError, KeyError, TypeError):  # it has just begun, or is just ending
        return "another process"


@contextmanager
def owned(path: Path | str, *, file: bool = False) -> Iterator[None]:
    """Write alone to a folder (or a `file`) until the block ends. Another process waits for it, and says for whom.

    The same thread may take it again inside the block. Of several processes that train together, the first one does.
    The lock is the operating system's, so that it goes with a killed process.
    """
    from filelock import FileLock, Timeout

    path = Path(path).absolute()
    place = path.with_name(f".{path.name}.lock") if file else path / LOCK
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    new = not place.parent.exists()
    lock = FileLock(place, is_singleton=True)  # one object for a path, so that a thread cannot wait for itself
    wait = 0.0
    while True:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=wait)
            break
        except Timeout:
            logger.warning("%s is being written by %s; waiting until it has ended", path, said_process(place))
            wait = -1.0
        except FileNotFoundError:  # whoever had it removed the folder, which was empty
            continue
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            yield  # who cannot write there has nothing to keep others from
            return
    try:
        if lock.lock_counter == 1:
            place.write_text(json.dumps(this_process()), encoding="utf-8")
        yield
    finally:
        if lock.lock_counter == 1:
            with suppress(OSError):
                place.unlink()  # those who wait see that it has no name any more, and take a new one
                if new and not any(place.parent.iterdir()):
                    place.parent.rmdir()
        lock.release()


def owns(argument: str) -> Callable[[Callable[Given, Result]], Callable[Given, Result]]:
    """For a function that writes to the folder in `argument`: it owns that while it runs, see `owned`."""

    def holding(work: Callable[Given, Result]) -> Callable[Given, Result]:
        signature = inspect.signature(work)

        @wraps(work)
        def alone(*args: Given.args, **named: Given.kwargs) -> Result:
            with owned(signature.bind(*args, **named).arguments[argument]):
                return work(*args, **named)

        return alone

    return holding


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, so that equal values give equal bytes."""
    with atomic_write(path) as file:
        json.dump(value, file, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def sha256_file(path: Path | str) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits. Raises `DataError` where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=path) from error


def read_json(path: Path | str, mend: str = "write it again") -> Any:
    """What a JSON file holds.

    Args:
        path: the file.
        mend: what the reader is to do when it is broken.

    Raises:
        FileNotFoundError: there is none.
        DataError: as `read_text` and `json_value`.
    """
    if not Path(path).exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return json_value(read_text(path), mend, path=path)


def kept_json(path: Path | str) -> Any:
    """What a JSON file holds; None when there is none or it is broken, so that what it records is made again."""
    try:
        return read_json(path)
    except (DataError, OSError):
        return None


def megabytes(variable: str, default: float, what: str) -> float:
    """What an environment variable allows to keep of something; 0: nothing.

    Raises:
        ForewordError: it is no number.
    """
    given = os.environ.get(variable, "")
    try:
        return float(given) if given else default
    except ValueError:
        raise ForewordError(f"{variable} is {given!r}; expected megabytes, or 0 to keep no {what}") from None


def cache_folder(part: str) -> Path | None:
    """A folder of what can be made again, in `$FOREWORD_CACHE`, else the user's cache folder.

    None when the variable is set and empty: nothing is to be kept.
    """
    folder = os.environ.get("FOREWORD_CACHE")
    if folder is None:
        from platformdirs import user_cache_dir

        folder = user_cache_dir("foreword")
    return Path(folder) / part if folder else None


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


# Texts from outside: files, plain or gzip, and standard input. Whatever reads one reads it through these.


STANDARD_INPUT = "standard input"
_GZIP = b"\x1f\x8b"
_MARKS = {  # the longer first: UTF-32's begins as UTF-16's does
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_CHUNK = 2**16  # bytes


def no_folder(path: Path | str) -> str:
    """Why a path leads to no folder, and what may be meant, for messages; empty: it does."""
    path = Path(path)
    if path.is_dir():
        return ""
    if path.exists():
        return f"this is a file; name the folder it lies in, {path.parent}"
    beside = [other.name for other in path.parent.iterdir() if other.is_dir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1)
    return f"no such folder; did you mean {path.with_name(near[0])}?" if near else "no such folder"


@contextmanager
def opened(source: Path | str | None) -> Iterator[Any]:
    """The bytes of a file, or of standard input (None), unpacked where they are gzip's; they can be peeked at.

    Raises:
        DataError: it cannot be read, or is a cut gzip file; here, or in the block.
    """
    name = STANDARD_INPUT if source is None else source
    try:
        with (
            nullcontext(_standard_input()) if source is None else open(source, "rb") as raw,
            gzip.open(raw) if raw.peek(2)[:2] == _GZIP else nullcontext(raw) as file,
        ):
            yield file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"broken gzip file ({error}); get it again", path=name) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=name) from error


def _standard_input() -> Any:
    buffer = getattr(sys.stdin, "buffer", None)  # a stream of Python's alone has none
    return buffer or io.BufferedReader(io.BytesIO(sys.stdin.read().encode("utf-8", "surrogatepass")))


def text_batches(source: Path | str | None, encoding: str = "utf-8") -> Iterator[list[str]]:
    """The lines of a text as they come: all that are there, waiting only where there is none.

    Lines end with `\\n`, `\\r\\n` or `\\r`, as for Python's own reader, and come without. A byte order mark is no
    part of the text, and that of UTF-16 or UTF-32 says the encoding.

    Args:
        source: the file; None: standard input.
        encoding: where no byte order mark says another.

    Raises:
        DataError: as `opened`, or the bytes are not of the encoding; the message names file and line.
    """
    name = STANDARD_INPUT if source is None else source
    number, pieces = 0, [""]
    with opened(source) as file:
        start = file.peek(4)[:4]
        encoding = next((known for mark, known in _MARKS.items() if start.startswith(mark)), encoding)
        codec = "utf-8-sig" if encoding == "utf-8" else encoding
        bytes_ = codecs.getincrementaldecoder(codec)("surrogateescape")  # so that a wrong byte's line is known below
        decoder, more = io.IncrementalNewlineDecoder(bytes_, translate=True), True
        while more:
            chunk = file.read1(_CHUNK)
            more = bool(chunk)
            try:
                pieces.append(decoder.decode(chunk, final=not more))
            except UnicodeDecodeError as error:  # UTF-16 that cannot be escaped
                raise DataError(f"not {encoding.upper()} ({error.reason})", path=name, line=number + 1) from error
            if more and "\n" not in pieces[-1]:
                continue
            *lines, rest = "".join(pieces).split("\n")
            lines, pieces = (lines, [rest]) if more or not rest else ([*lines, rest], [])
            for at, line in enumerate(lines, number + 1):
                if not line.isascii():
                    _check_decoded(line, encoding, name, at)
            number += len(lines)
            if lines:
                yield lines


def _check_decoded(line: str, encoding: str, name: Path | str, number: int) -> None:
    try:
        line.encode("utf-8")
    except UnicodeEncodeError as error:
        at = len(line[: error.start].encode(encoding)) + 1
        message = f"not {encoding.upper()} (byte {at} of the line); convert it, e.g. iconv -f latin1 -t utf-8"
        raise DataError(message, path=name, line=number) from None


def text_lines(source: Path | str | None, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """The lines of a text, numbered from 1, as `text_batches` reads them. Raises `DataError` as it does."""
    yield from enumerate(chain.from_iterable(text_batches(source, encoding)), 1)


def read_text(path: Path | str) -> str:
    """A text as a whole, as `text_batches` reads it. Raises `DataError` as it does."""
    return "\n".join(line for _, line in text_lines(path))


def json_value(text: str, mend: str, *, path: Path | str | None = None, line: int | None = None) -> Any:
    """What a JSON text holds.

    Args:
        text: the JSON.
        mend: what the reader is to do when it is broken.
        path: where it stands, for messages, and
        line: in which line.

    Raises:
        DataError: it is no JSON, is nested without end, has a number of thousands of digits, or half a surrogate pair
            (`\\ud83c`, of an emoji that was cut), which no UTF-8 file and no tokenizer can hold.
    """
    try:
        value = json.loads(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError as error:
        raise DataError(f"JSON nested too deeply; {mend}", path=path, line=line) from error
    except UnicodeEncodeError as error:
        raise DataError(half_a_pair(error), path=path, line=line) from None
    except ValueError as error:
        raise DataError(f"broken JSON ({error}); {mend}", path=path, line=line) from error
    return value


def half_a_pair(error: UnicodeEncodeError) -> str:
    """What a text cannot be written or tokenized for, in words."""
    half = ascii(error.object[error.start])[1:-1]
    return f"{half} is half a surrogate pair, as of an emoji that was cut; write \\ufffd for it, or leave it out"


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a file, one a line; blank lines are passed over.

    Raises:
        DataError: as `text_lines` and `json_value`, and for a line that is not a JSON object.
    """
    for number, line in text_lines(path):
        if not line.strip():
            continue
        record = json_value(line, "every line must be one whole JSON object", path=path, line=number)
        if not isinstance(record, dict):
            raise DataError(f"expected a JSON object, got {type(record).__name__}", path=path, line=number)
        yield number, record


def read_toml(path: Path | str) -> dict[str, Any]:
    """The table in a TOML file. Raises `DataError`: as `read_text`, or it is not TOML."""
    try:
        return tomllib.loads(read_text(path))
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; nested without end
        raise DataError(f"cannot be read as TOML: {error}", path=path) from error
