"""DPR's training files: a JSON list of examples (or one object a line), gigabytes long, read one example at a time."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreword.common.errors import DataError

_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Passage:
    """One context of an example; `doc_id` is its `passage_id` or `psg_id`, or empty when it has neither."""

    doc_id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Example:
    """A question with passages that answer it and passages that only look so; `number` is its place, from 1."""

    number: int
    question: str
    positives: tuple[Passage, ...]
    hard_negatives: tuple[Passage, ...]


def examples(path: Path) -> Iterator[Example]:
    """The examples of a file, in order; only one is held at a time.

    Args:
        path: a JSON list of objects, or one object after the other; plain or gzip, told by the first bytes.

    Raises:
        DataError: the file cannot be read, is cut or not JSON, or an example has not the form of DPR's. The
            message names the example by its number from 1.
    """
    import ijson

    number = 0
    try:
        with _opened(path) as (file, first):
            if first not in (b"[", b"{"):
                got = f"it begins with {first!r}" if first else "it is empty"
                raise DataError(f"expected a JSON list of examples, or an example a line; {got}", path=path)
            prefix, several = ("item", False) if first == b"[" else ("", True)
            for number, record in enumerate(ijson.items(file, prefix, use_float=True, multiple_values=several), 1):
                yield _example(record, number, path)
    except (ijson.JSONError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error).removeprefix("b'").replace("\\n", "\n").partition("\n")[0]
        message = f"example {number + 1}: broken JSON ({reason}); is the file cut? Get it again"
        raise DataError(message, path=path) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"example {number + 1}: broken gzip file ({error}); get it again", path=path) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=path) from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, bytes]]:
    """The file, unzipped where it is gzip, after a byte order mark; and the first byte that is no blank."""
    with path.open("rb") as raw, gzip.open(raw) if raw.peek(2)[:2] == _GZIP else raw as file:
        if file.peek(3)[:3] == _BOM:
            file.read(3)
        while (first := file.peek(1)[:1]).isspace():
            file.read(1)
        yield file, first


def _example(record: Any, number: int, path: Path) -> Example:
    where = f"example {number}"
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected an object, got {_kind(record)}", path=path)
    question = _text(record, "question", where, path)
    if not question.strip():
        raise DataError(f"{where}: the question is empty", path=path)
    return Example(
        number,
        question,
        tuple(_passages(record, "positive_ctxs", where, path)),
        tuple(_passages(record, "hard_negative_ctxs", where, path)) if "hard_negative_ctxs" in record else (),
    )


def _passages(record: Mapping[str, Any], name: str, where: str, path: Path) -> Iterator[Passage]:
    listed = record.get(name)
    if not isinstance(listed, list):
        got = _kind(listed) if name in record else f"the fields {', '.join(sorted(record))}"
        raise DataError(f"{where}: expected {name!r}, a list of passages; got {got}", path=path)
    for place, context in enumerate(listed, 1):
        here = f"{where}, {name} {place}"
        if not isinstance(context, dict):
            raise DataError(f"{here}: expected an object, got {_kind(context)}", path=path)
        title = "" if context.get("title") is None else _text(context, "title", here, path)
        yield Passage(_doc_id(context, here, path), title, _text(context, "text", here, path))


def _doc_id(context: Mapping[str, Any], where: str, path: Path) -> str:
    """The passage's id, its blanks written `_`, which TREC's files cannot hold; empty when it has none."""
    for name in ("passage_id", "psg_id"):
        value = context.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int | None):
            raise DataError(f"{where}: {name} must be a text or a number, got {_kind(value)}", path=path)
        if value is not None and (words := str(value).split()):
            return "_".join(words)
    return ""


def _text(record: Mapping[str, Any], name: str, where: str, path: Path) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        got = _kind(value) if name in record else f"the fields {', '.join(sorted(record))}"
        raise DataError(f"{where}: expected {name!r}, a text; got {got}", path=path)
    return value


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__
