"""Which files of a Hugging Face dataset's folder hold the corpus, the queries and the judgements, and their rows.

The layouts of BEIR's and MTEB's retrieval sets: configurations `corpus`, `queries` and `default` (or `qrels`),
listed in `README.md` or told by the files' names; in parquet, JSON lines or, for judgements, tab separated.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from foreword.collections.jsonl import json_lines
from foreword.collections.qrels_files import read_qrels
from foreword.collections.records import SPLITS
from foreword.collections.streamed import SPLIT_NAMES, whole
from foreword.common.errors import DataError

_ENDINGS = (".parquet", ".jsonl", ".jsonl.gz", ".tsv")
_JUDGEMENT_CONFIGS = ("qrels", "default")


def table_files(folder: Path, role: str) -> list[Path]:
    """The files of `corpus` or `queries`, in order.

    Raises:
        DataError: there are none; or several splits hold them, none of which has the role's name.
    """
    listed = _configured(folder).get(role, {})
    if len(listed) == 1 or role in listed:
        return listed.get(role) or next(iter(listed.values()))
    if listed and role != "queries":  # queries may be listed by split; a corpus must be one
        raise DataError(f"{role} has the splits {', '.join(listed)}; expected one", path=folder)
    paths = [path for paths in listed.values() for path in paths] or _named(folder, role)
    if not paths:
        message = f"no {role} here: expected a configuration {role!r} in README.md, {role}.jsonl, {role}.jsonl.gz or "
        raise DataError(f"{message}{role}/*.parquet", path=folder)
    return paths


def judgement_files(folder: Path) -> dict[str, list[Path]]:
    """`split -> files` of the judgements: in the folder, or in `<folder>-qrels` beside it; empty where there are none.

    Raises:
        DataError: two files of one split in different formats.
    """
    configured = _configured(folder)
    if "corpus" in configured:
        found = next((configured[name] for name in _JUDGEMENT_CONFIGS if name in configured), {})
    else:
        found = _by_split(folder / "qrels")
    beside = qrels_folder(folder)
    if not found and beside.is_dir():
        listed = _configured(beside)
        found = next((listed[name] for name in (*_JUDGEMENT_CONFIGS, *listed) if name in listed), {})
        found = found or _by_split(beside) or _by_split(beside / "qrels")
    named = {SPLIT_NAMES.get(split, split): paths for split, paths in found.items()}
    if len(named) < len(found):
        raise DataError(f"two of the splits {', '.join(found)} are the same one; keep one", path=folder)
    known = [split for split in SPLITS if split in named]
    return {split: named[split] for split in [*known, *(s for s in named if s not in SPLITS)]}


def qrels_folder(folder: Path) -> Path:
    """Where the judgements are that BEIR keeps in a second repository, `<name>-qrels`."""
    name, at, revision = folder.name.partition("@")
    return folder.with_name(f"{name}-qrels{at}{revision}")


def rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The records of a parquet or JSON lines file, streamed, numbered from 1.

    Raises:
        DataError: the file is broken or of another format.
    """
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        yield from json_lines(path)
        return
    if path.suffix != ".parquet":
        raise DataError("expected a parquet, jsonl or jsonl.gz file", path=path)
    import datasets

    try:
        table = datasets.load_dataset("parquet", data_files=[str(path)], split="train", streaming=True)
        yield from enumerate(table, 1)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"broken parquet file ({error}); download it again", path=path) from error


def judgements(path: Path, notes: Counter[str]) -> Iterator[tuple[str, str, int]]:
    """`(query_id, doc_id, relevance)` of one file; `notes` as for `read_qrels`. Raises `DataError` if it is broken."""
    if path.suffix == ".tsv":
        for query_id, judged in read_qrels(path, notes).items():
            yield from ((query_id, doc_id, grade) for doc_id, grade in judged.items())
        return
    for number, row in rows(path):
        query_id, doc_id = identifier(row, "query-id", path, number), identifier(row, "corpus-id", path, number)
        yield query_id, doc_id, whole(row.get("score"), f"{path}:{number}")


def identifier(row: Mapping[str, Any], name: str, path: Path, number: int) -> str:
    """A row's id; a number is taken as its digits."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        message = f"expected {name!r}, a text or a whole number; the row has {sorted(row)} and {value!r} there"
        raise DataError(message, path=path, line=number)
    return str(value)


def _configured(folder: Path) -> dict[str, dict[str, list[Path]]]:
    """`configuration -> split -> files` as README.md lists them; empty where it lists none."""
    readme = folder / "README.md"
    if not readme.is_file() or "configs:" not in readme.read_text("utf-8", "replace"):
        return {}
    import datasets

    try:
        names = datasets.get_dataset_config_names(str(folder))
        builders = {name: datasets.load_dataset_builder(str(folder), name) for name in names}
    except Exception as error:  # the library's, or its YAML parser's: whichever, the file is at fault
        raise DataError(f"its configurations cannot be read ({error})", path=readme) from error
    return {
        name: {str(split): [Path(str(path)) for path in paths] for split, paths in builder.config.data_files.items()}
        for name, builder in builders.items()
    }


def _named(folder: Path, role: str) -> list[Path]:
    """The files of a role by their names: those of the first format that there are any of."""
    for ending in _ENDINGS:
        below = sorted((folder / role).glob(f"**/*{ending}"))
        beside = [path for path in sorted(folder.glob(f"{role}*{ending}")) if _stem(path) == role]
        if below or beside:
            return below or beside
    return []


def _by_split(folder: Path) -> dict[str, list[Path]]:
    """`split -> files` of a folder with files such as `test.tsv` or `test-00000-of-00001.parquet`."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        if path.is_file() and path.name.endswith(_ENDINGS) and not path.name.startswith("."):
            found.setdefault(_stem(path), []).append(path)
    for split, paths in found.items():
        if len({path.suffix for path in paths}) > 1 or (len(paths) > 1 and paths[0].suffix != ".parquet"):
            message = f"split {split!r} is in {', '.join(path.name for path in paths)}; keep one"
            raise DataError(message, path=folder)
    return found


def _stem(path: Path) -> str:
    """`test` of `test.tsv`, `test.jsonl.gz` and `test-00000-of-00001.parquet`."""
    return re.sub(r"-\d+-of-\d+$", "", path.name.split(".")[0])
