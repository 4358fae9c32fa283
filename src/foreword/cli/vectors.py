"""Vectors with their ids, written as they come: `.npy`, `.parquet` or JSON lines.

The first two are what `foreword train --documents` reads (`foreword.training.vectors.read_vectors`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np

from foreword.errors import DataError
from foreword.files import atomic_write
from foreword.settings import Side

Block = tuple[Sequence[str], np.ndarray[Any, Any]]
"""n ids and their vectors (n, d)."""

SUFFIXES = (".npy", ".parquet", ".jsonl")


def check_target(path: Path) -> None:
    """Raise `DataError` unless `write_vectors` knows the form that the name's ending asks for."""
    if path.suffix not in SUFFIXES:
        message = f"vectors are written as {', '.join(SUFFIXES)}, not as {path.suffix or 'a file without an ending'}"
        raise DataError(message, path=path)


def ids_file(path: Path) -> Path:
    """Where the ids of a `.npy` are: one a line, in the order of its rows."""
    return path.with_suffix(".ids.txt")


def write_vectors(path: Path, blocks: Iterable[Block], width: int, *, dtype: str, side: Side) -> int:
    """Write blocks of vectors, holding one at a time; the file appears when it is whole.

    `.npy`: an array (N, d) with the ids in `ids_file`; `.parquet`: columns `doc_id` (or `query_id`) and `vector`;
    `.jsonl`: an object with these two a line.

    Args:
        path: its ending chooses the form.
        blocks: in order.
        width: d, which an empty file has too.
        dtype: `float32` or `float16`; JSON lines hold decimal numbers that give back the same ones.
        side: whose vectors they are; it names the column of ids.

    Returns:
        N.

    Raises:
        DataError: an unknown ending, an id twice, numbers beyond `dtype`, or, for a `.npy`, an id that is empty or
            holds a line end.
    """
    check_target(path)
    key = "doc_id" if side == "document" else "query_id"
    checked = _checked(blocks, dtype)
    if path.suffix == ".npy":
        return _write_npy(path, checked, width, np.dtype(dtype))
    if path.suffix == ".parquet":
        return _write_parquet(path, checked, width, dtype, key)
    return _write_jsonl(path, checked, key)


def _checked(blocks: Iterable[Block], dtype: str) -> Iterator[Block]:
    """The blocks in `dtype`, with ids that occur once and finite numbers."""
    seen: set[str] = set()
    for ids, given in blocks:
        with np.errstate(over="ignore"):  # said below
            vectors = given.astype(dtype, copy=False)
        if not np.isfinite(vectors).all():
            raise DataError(f"the vectors hold NaN, or numbers beyond {dtype}; write them as float32")
        for one in ids:
            if one in seen:
                raise DataError(f"id {one!r} occurs twice; vectors are told apart by their ids")
            seen.add(one)
        yield ids, vectors


def _write_npy(path: Path, blocks: Iterable[Block], width: int, dtype: np.dtype[Any]) -> int:
    count = 0
    with ExitStack() as files:
        rows = files.enter_context(atomic_write(path, "wb"))
        names = files.enter_context(atomic_write(ids_file(path)))
        _npy_header(rows, 0, width, dtype)
        start = rows.tell()
        for ids, vectors in blocks:
            odd = [one for one in ids if not one or "\n" in one or "\r" in one]
            if odd:
                message = f"id {odd[0]!r} is empty or holds a line end, which a list of ids cannot; write a .parquet"
                raise DataError(message, path=path)
            names.writelines(f"{one}\n" for one in ids)
            rows.write(np.ascontiguousarray(vectors).tobytes())
            count += len(ids)
        rows.seek(0)
        _npy_header(rows, count, width, dtype)
        if rows.tell() != start:  # numpy leaves room in the header for a longer first axis
            raise DataError(f"{count} rows do not fit numpy's header; write a .parquet", path=path)
    return count


def _npy_header(file: IO[bytes], count: int, width: int, dtype: np.dtype[Any]) -> None:
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count, width)}
    np.lib.format.write_array_header_1_0(file, described)


def _write_parquet(path: Path, blocks: Iterable[Block], width: int, dtype: str, key: str) -> int:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    kind = arrow.list_(arrow.float32() if dtype == "float32" else arrow.float16())
    schema = arrow.schema([(key, arrow.string()), ("vector", kind)])
    count = 0
    with atomic_write(path, "wb") as file, parquet.ParquetWriter(file, schema) as writer:
        for ids, vectors in blocks:
            offsets = arrow.array(np.arange(len(ids) + 1, dtype=np.int32) * width)
            lists = arrow.ListArray.from_arrays(offsets, arrow.array(vectors.ravel(), type=kind.value_type))
            writer.write_table(arrow.Table.from_arrays([arrow.array(ids, arrow.string()), lists], schema=schema))
            count += len(ids)
    return count


def _write_jsonl(path: Path, blocks: Iterable[Block], key: str) -> int:
    count = 0
    with atomic_write(path) as file:
        for ids, vectors in blocks:
            for one, vector in zip(ids, vectors, strict=True):
                # str of a numpy number is the shortest decimal that reads back as that number.
                file.write(f'{{"{key}": {json.dumps(one)}, "vector": [{", ".join(map(str, vector))}]}}\n')
            count += len(ids)
    return count
