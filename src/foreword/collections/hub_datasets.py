"""`hf:<namespace>/<name>`: a retrieval set of the Hugging Face hub in BEIR's or MTEB's layout, or a local copy.

`download` brings a repository's tables as one commit; `load` reads them from the data folder and asks no
network. The files are read by the datasets library and never run: sets that come as a script need a copy in tables.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from foreword.collections.collection import Collection, DataWarning, Document, Entry, Query, in_order
from foreword.collections.family import Family
from foreword.collections.folder import (
    SELF_RETRIEVING,
    SPLIT_NAMES,
    StreamedCollection,
    find_lines,
    metadata_of,
    read_qrels,
    text_of,
    whole,
)
from foreword.downloads.places import DEFAULT, Transport, data_folder, locked
from foreword.errors import DataError
from foreword.files import json_lines, read_json, write_json

# The layouts of BEIR's and MTEB's retrieval sets: configurations `corpus`, `queries` and `default` (or `qrels`),
# listed in `README.md` or told by the files' names; in parquet, JSON lines or, for judgements, tab separated.

_ENDINGS = (".parquet", ".jsonl", ".jsonl.gz", ".tsv")
_JUDGEMENT_CONFIGS = ("qrels", "default")


def table_files(folder: Path, role: str) -> list[Path]:
    """The files of `corpus` or `queries`, in order. `DataError`: there are none, or several splits of other names."""
    listed = _configured(folder).get(role, {})
    if len(listed) == 1 or role in listed:
        return listed.get(role) or next(iter(listed.values()))
    if listed and role != "queries":  # queries may be listed by split; a corpus must be one
        raise DataError(f"{role} has the splits {', '.join(listed)}; expected one", path=folder)
    paths = [path for paths in listed.values() for path in paths]
    for ending in () if paths else _ENDINGS:  # by their names: those of the first format that there are any of
        below = sorted((folder / role).glob(f"**/*{ending}"))
        beside = [path for path in sorted(folder.glob(f"{role}*{ending}")) if _stem(path) == role]
        if paths := below or beside:
            break
    if not paths and role == "corpus":
        paths = bare_shards(folder)
    if not paths:
        message = f"no {role} here: expected a configuration {role!r} in README.md, {role}.jsonl, {role}.jsonl.gz or "
        raise DataError(f"{message}{role}/*.parquet", path=folder)
    return paths


def bare_shards(folder: Path) -> list[Path]:
    """The parquet or JSON lines files of a folder that holds such files of documents alone; empty: it holds others."""
    paths = sorted(path for path in folder.glob("*") if path.is_file() and not path.name.startswith("."))
    paths = [path for path in paths if path.name != "README.md" and _stem(path) not in ("queries", *_JUDGEMENT_CONFIGS)]
    kinds = {next((ending for ending in _ENDINGS[:3] if path.name.endswith(ending)), "") for path in paths}
    return paths if len(kinds) == 1 and "" not in kinds else []


def holds_tables(folder: Path) -> bool:
    """Whether a folder's documents are in tables: `corpus/*.parquet`, `corpus-*.parquet` or shards and nothing else."""
    if find_lines(folder, "corpus") is not None:
        return False
    named = (path for place in ("corpus/*", "corpus*") for path in folder.glob(place) if path.is_file())
    return any(path.name.endswith(_ENDINGS[:3]) for path in named) or bool(bare_shards(folder))


def judgement_files(folder: Path) -> dict[str, list[Path]]:
    """`split -> files` of the judgements: in the folder, or in `<folder>-qrels` beside it; empty: there are none."""
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
    return in_order(named)


def qrels_folder(folder: Path) -> Path:
    """Where the judgements are that BEIR keeps in a second repository, `<name>-qrels`."""
    name, at, revision = folder.name.partition("@")
    return folder.with_name(f"{name}-qrels{at}{revision}")


def rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The records of a parquet or JSON lines file, streamed, numbered from 1."""
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


def judgements(path: Path) -> Iterator[tuple[str, str, int]]:
    """`(query_id, doc_id, relevance)` of one file. Raises `DataError` if it is broken."""
    if path.suffix == ".tsv":
        for query_id, judged in read_qrels(path).items():
            yield from ((query_id, doc_id, grade) for doc_id, grade in judged.items())
        return
    for number, row in rows(path):
        query_id, doc_id = identifier(row, "query-id", path, number), identifier(row, "corpus-id", path, number)
        yield query_id, doc_id, whole(row.get("score"), path, number)


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


GROUP = "hf"

_ORIGIN = "origin.json"
"""What `download` writes beside the tables: repository, revision and commit."""
_COMMIT = ".commit"
_TABLES = ("*.parquet", "*.jsonl", "*.jsonl.gz", "*.tsv", "README.md")
_REPOSITORY = re.compile(r"(?:[\w-][\w.-]*/)?[\w-][\w.-]*")


class HubDatasets(Family):
    """Any retrieval set of the hub."""

    name = GROUP

    def knows(self, name: str) -> bool:
        """Any repository or folder may be asked for; `open` says when it is not there."""
        return bool(name)

    def entries(self, data: Path | None = None) -> list[Entry]:
        """The form in which its sets are named; `data` is not used."""
        what = "a retrieval set of the Hugging Face hub in BEIR's or MTEB's layout, or a folder in that layout"
        home = "https://huggingface.co/datasets"
        return [Entry(f"{GROUP}:NAMESPACE/NAME", GROUP, what, ("train", "dev", "test"), True, home=home)]

    def open(
        self, name: str, data: Path | None, *, revision: str | None = None, exclude_self: bool | None = None
    ) -> Collection:
        """A retrieval set of the hub that `download` brought, or one in any folder in that layout.

        Without judgements it is a collection of documents only.

        Args:
            name: `<namespace>/<name>`, or with `@<revision>` behind it; or a folder's path (relative to `data`).
            revision: branch, tag or commit that was downloaded; None: the one in the name, or the main branch.
            exclude_self: a query's own document never counts as a hit; by default for `arguana` and `quora`.
        """
        folder, place = Path(data or "", name).expanduser(), _place(data_folder(data), *_parse(name, revision))
        if revision is not None or not folder.is_dir():
            folder = place
        if not folder.is_dir():
            raise DataError(f"{GROUP}:{name} is not there (looked for {place}); say `foreword download {GROUP}:{name}`")
        tail = folder.name.partition("@")[0].casefold()
        own = tail in SELF_RETRIEVING if exclude_self is None else exclude_self
        origin = folder / _ORIGIN  # so that results name the commit
        facts = {"path": str(folder)}
        if origin.is_file():
            facts |= read_json(origin, "delete the folder and download it again")
        return TableCollection(f"{GROUP}:{name}", folder, facts=facts, exclude_self=own)

    def download(self, name: str, data: Path, transport: Transport = DEFAULT, revision: str | None = None) -> Path:
        """Bring a repository's tables, and those of `<name>-qrels` where it has no judgements of its own.

        The folder with them is returned, below the `hf` of the data folder. For `name` and `revision` see `open`.
        """
        repository, revision = _parse(name, revision)
        if not _REPOSITORY.fullmatch(repository):
            raise DataError(f"expected a repository's name such as mteb/scifact, got {name!r}")
        folder = _place(Path(data), repository, revision)
        with locked(Path(data), folder.relative_to(data).as_posix()):
            if not folder.is_dir() and not _snapshot(repository, revision, folder, transport):
                raise DataError(f"the hub has no dataset {repository!r} (or it is private, and you are not logged in)")
            table_files(folder, "corpus")  # raises when it is in another layout
            has_judgements = bool(judgement_files(folder))
            if not has_judgements and not transport.is_offline:
                has_judgements = _snapshot(f"{repository}-qrels", None, qrels_folder(folder), transport)
        if not has_judgements:
            message = f"{GROUP}:{name} has no judgements; it is a collection of documents only"
            warnings.warn(message, DataWarning, stacklevel=2)
        return folder


HUB_DATASETS = HubDatasets()


class TableCollection(StreamedCollection):
    """A collection in tables; its documents may be in several files, the `shards`."""

    def __init__(self, collection_id: str, folder: Path, **about: Any) -> None:
        """`about`: `facts` and `exclude_self`."""
        tables = _Tables(folder)
        self.shards = tables.corpus
        super().__init__(collection_id, GROUP, tables, tuple(tables.qrels), **about)

    def shard(self, path: Path) -> Collection:
        """The documents of one file."""
        return StreamedCollection(self.id, self.group, _Tables(path.parent, [path]), (), facts=self.facts)


class _Tables:
    """The tables of a folder as a `Source`; with `only` these files of documents and no queries."""

    def __init__(self, folder: Path, only: list[Path] | None = None) -> None:
        self.corpus = table_files(folder, "corpus") if only is None else only
        self.qrels = judgement_files(folder) if only is None else {}
        self._queries = table_files(folder, "queries") if self.qrels else []

    def documents(self) -> Iterator[Document]:
        for path in self.corpus:
            for number, row in rows(path):
                title, text = text_of(row, "title", path, number, optional=True), text_of(row, "text", path, number)
                yield Document(identifier(row, "_id", path, number), text, title, metadata_of(row))

    def queries(self) -> Iterator[Query]:
        for path in self._queries:
            for number, row in rows(path):
                yield Query(identifier(row, "_id", path, number), text_of(row, "text", path, number))

    def judgements(self, split: str) -> Iterator[tuple[str, str, int]]:
        for path in self.qrels[split]:
            yield from judgements(path)


def _parse(name: str, revision: str | None) -> tuple[str, str | None]:
    """Repository and revision of a name like `mteb/scifact@main`."""
    repository, _, named = name.partition("@")
    return repository, revision or named or None


def _place(data: Path, repository: str, revision: str | None) -> Path:
    """Where a repository's tables are kept."""
    suffix = f"@{revision.replace('/', '_')}" if revision else ""
    return data / GROUP / f"{repository}{suffix}"


def _snapshot(repository: str, revision: str | None, folder: Path, transport: Transport) -> bool:
    """Bring a repository's tables as `folder`, whole; False when there is no such repository."""
    if transport.is_offline:
        raise DataError(f"{repository} is not there and downloads are switched off", path=folder)
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    part = folder.with_name(f".{folder.name}.part")  # what a cut download left, the next one continues
    try:
        about = huggingface_hub.HfApi().dataset_info(repository, revision=revision, timeout=transport.timeout)
        commit = str(about.sha)
        note = part / _COMMIT  # whose files come: what a cut download left of another commit is dropped
        if part.exists() and not (note.is_file() and note.read_text("utf-8") == commit):
            shutil.rmtree(part)
        part.mkdir(parents=True, exist_ok=True)
        note.write_text(commit, "utf-8")
        huggingface_hub.snapshot_download(
            repository, repo_type="dataset", revision=commit, local_dir=part, allow_patterns=list(_TABLES)
        )
    except RepositoryNotFoundError:
        return False
    except Exception as error:  # the hub's, its HTTP library's and the system's: whichever, it did not come
        message = f"{repository} could not be downloaded from the hub ({type(error).__name__}: {error})"
        raise DataError(f"{message}; or get its files by hand and put them there", path=folder) from error
    shutil.rmtree(part / ".cache", ignore_errors=True)  # the hub's notes on a download that is now over
    write_json(part / _ORIGIN, {"repository": repository, "revision": revision, "commit": commit})
    note.unlink()
    os.replace(part, folder)
    return True
