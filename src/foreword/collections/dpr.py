"""`dpr/<name>`: the question-answering sets that DPR was trained on, from its files on the web or the user's own.

Each has questions for training and for choosing the best step, none to test on: they are sources. The files are
converted once to a folder in BEIR's layout, which is read like any other. URLs and counts are facts in
`data/dpr.json`.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
import shutil
import sqlite3
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal, get_args

from foreword.collections.collection import Collection, DataWarning, Entry
from foreword.collections.family import Family
from foreword.collections.folder import FolderCollection
from foreword.collections.views import FOLDER as NEGATIVES_FOLDER
from foreword.collections.views import negatives_line
from foreword.downloads.fetch import begins_with, fetch, read_record
from foreword.downloads.places import DEFAULT, Resource, Transport, data_folder, locked, record_file
from foreword.errors import DataError, UnknownNameError
from foreword.files import opened, read_json, sha256_file, write_json
from foreword.terminal import track

# DPR's training files: a JSON list of examples (or one object a line), gigabytes long, read one example at a time.

_DEEP = re.compile(rb"(?:[\[{][^\[\]{}]{0,40}){100}")
_SIGNED = 1 << 63  # what is taken from a digest: SQLite's numbers have a sign


@dataclass(frozen=True, slots=True)
class Context:
    """One context of an example; `doc_id` is its `passage_id` or `psg_id`, or empty when it has neither."""

    doc_id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Example:
    """A question with passages that answer it and passages that only look so; `number` is its place, from 1."""

    number: int
    question: str
    positives: tuple[Context, ...]
    hard_negatives: tuple[Context, ...]


def examples(path: Path) -> Iterator[Example]:
    """The examples of a JSON list, or of one object after the other, plain or gzip; only one is held at a time.

    Raises `DataError` where the file is broken or an example, named by its number from 1, has not the form of DPR's.
    """
    import ijson

    number = 0
    try:
        with opened(path) as file:
            if file.peek(3)[:3] == codecs.BOM_UTF8:
                file.read(3)
            while (first := file.peek(1)[:1]).isspace():
                file.read(1)
            if first not in (b"[", b"{"):
                got = f"it begins with {first!r}" if first else "it is empty"
                raise DataError(f"expected a JSON list of examples, or an example a line; {got}", path=path)
            prefix, several = ("item", False) if first == b"[" else ("", True)
            found = ijson.items(_Shallow(file), prefix, use_float=True, multiple_values=several)
            for number, record in enumerate(found, 1):
                yield _example(record, number, path)
    except (ijson.JSONError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error).removeprefix("b'").replace("\\n", "\n").partition("\n")[0]
        message = f"example {number + 1}: broken JSON ({reason}); is the file cut? Get it again"
        raise DataError(message, path=path) from error


@dataclass(frozen=True)
class _Shallow:
    """A file that ends where JSON is nested without end: ijson writes out the path of every value, in gigabytes."""

    file: Any

    def read(self, size: int = -1) -> bytes:
        """Some bytes; `RecursionError` where a hundred brackets open and none closes."""
        data: bytes = self.file.read(size)
        if _DEEP.search(data):
            raise RecursionError("nested too deeply")
        return data


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


def _passages(record: Mapping[str, Any], name: str, where: str, path: Path) -> Iterator[Context]:
    listed = record.get(name)
    if not isinstance(listed, list):
        got = _kind(listed) if name in record else f"the fields {', '.join(sorted(record))}"
        raise DataError(f"{where}: expected {name!r}, a list of passages; got {got}", path=path)
    for place, context in enumerate(listed, 1):
        here = f"{where}, {name} {place}"
        if not isinstance(context, dict):
            raise DataError(f"{here}: expected an object, got {_kind(context)}", path=path)
        title = "" if context.get("title") is None else _text(context, "title", here, path)
        yield Context(_doc_id(context, here, path), title, _text(context, "text", here, path))


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


class DigestTable:
    """A dictionary from 64-bit digests to 64-bit numbers for millions of them, in a temporary file of SQLite's.

    A Python dictionary takes some 170 bytes for each.
    """

    def __init__(self) -> None:
        self._file = sqlite3.connect("", isolation_level=None)
        self._file.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA cache_size = -32000;"  # KiB
            "CREATE TABLE digests (key INTEGER PRIMARY KEY, value INTEGER); BEGIN"
        )

    def __del__(self) -> None:
        self._file.close()  # and is deleted

    def __len__(self) -> int:
        (count,) = self._file.execute("SELECT count(*) FROM digests").fetchone()
        return int(count)

    def setdefault(self, key: int, value: int) -> int | None:
        """The value stored for a key before; None, and `value` is stored, when there was none."""
        row = (key - _SIGNED, value - _SIGNED)
        if self._file.execute("INSERT OR IGNORE INTO digests VALUES (?, ?)", row).rowcount:
            return None
        (known,) = self._file.execute("SELECT value FROM digests WHERE key = ?", row[:1]).fetchone()
        return int(known) + _SIGNED


# The folder: `corpus.jsonl`, `queries.jsonl`, `qrels/` and `hard-negatives/` with `train` and `dev`, and
# `conversion.json`, which says what it was made from and how.

Positives = Literal["first", "all"]
"""Which positives of a training example are judged relevant; DPR trains on the first."""

MANIFEST = "conversion.json"
NEGATIVES = 8
"""Hard negatives kept for a question, unless told otherwise."""

_VERSION = 1  # of the layout and of the rules that fill it; another one does not take over what this one made
_COUNTED = (
    "examples",
    "examples_without_positive",
    "without_hard_negative",
    "positives",
    "positives_left_out",
    "hard_negatives",
    "hard_negatives_that_are_positive",
)


def convert(
    train: Path, dev: Path, output: Path, *, negatives: int = NEGATIVES, positives: Positives = "first"
) -> Path:
    """Convert a pair of DPR's biencoder files to the folder `output`, which is returned.

    Queries are named `train-<n>` and `dev-<n>` by their example's number from 1. The corpus is every passage that
    a judgement or a hard negative (at most `negatives` a question) names. All positives of a dev example are judged
    relevant, of a training example the `first`, or `all`. A conversion of the same files and options that is there is
    left as it is. One killed halfway leaves a hidden folder beside `output`, which the next one removes.

    Raises `DataError` where a file is broken (the message names the example), or `output` holds anything else.
    """
    if positives not in get_args(Positives):
        raise UnknownNameError(f"positives is {positives!r}; expected {' or '.join(get_args(Positives))}")
    if negatives < 0:
        raise DataError(f"negatives is {negatives}; expected 0 or more for a question")
    sources, output = {"train": Path(train), "dev": Path(dev)}, Path(output)
    for path in sources.values():
        if not path.is_file():
            raise DataError("no such file; expected one of DPR's biencoder files", path=path)
    manifest: dict[str, Any] = {
        "format": "dpr",
        "version": _VERSION,
        "options": {"negatives": negatives, "positives": positives},
        "sources": {
            split: {"name": path.name, "sha256": sha256_file(path), "size": path.stat().st_size}
            for split, path in sources.items()
        },
    }
    try:
        with locked(output.parent, output.name):
            if not _is_made(output, manifest):
                _make(output, sources, manifest)
    except OSError as error:
        raise DataError(f"cannot be made: {error.strerror or error}", path=output) from error
    return output


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a converted folder was made from. Raises `DataError` when its `conversion.json` is no such thing."""
    path = folder / MANIFEST
    manifest = read_json(path, "remove the folder and convert again")
    wanted = {"counts", "options", "sources", "version"}
    if not isinstance(manifest, dict) or manifest.get("format") != "dpr" or not wanted <= set(manifest):
        raise DataError("not the record of a DPR conversion; remove the folder and convert again", path=path)
    return manifest


def _is_made(output: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether the conversion is there; raises `DataError` when something else is."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    if not (output / MANIFEST).is_file():
        raise DataError(f"is there and holds no {MANIFEST}, so it is not overwritten; name another", path=output)
    found = read_manifest(output)
    other = [name for name in ("version", "options", "sources") if found[name] != wanted[name]]
    if other:
        message = f"was converted with other {' and '.join(other)} ({found[other[0]]}, not {wanted[other[0]]})"
        raise DataError(f"{message}; remove the folder, or name another", path=output)
    return True


def _make(output: Path, sources: Mapping[str, Path], manifest: Mapping[str, Any]) -> None:
    """Write the folder under another name, the manifest last, and rename it."""
    partial = output.with_name(f".{output.name}.partial")  # one name, so that what a killed run left is found
    shutil.rmtree(partial, ignore_errors=True)
    try:
        counts = _write(partial, sources, **manifest["options"])
        write_json(partial / MANIFEST, {**manifest, "counts": counts})
        partial.replace(output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    for split, path in sources.items():
        if lost := counts[split]["examples_without_positive"]:
            message = f"{path}: {lost} of {counts[split]['examples']} examples have no positive passage"
            warnings.warn(f"{message}; they are queries without judgements", DataWarning, stacklevel=3)
    if clashes := counts["id_clashes"]:
        message = f"{sources['train'].parent}: {clashes} passages share an id with another of other text"
        warnings.warn(f"{message}; they are named <id>~<digest of the text>", DataWarning, stacklevel=3)


def _write(folder: Path, sources: Mapping[str, Path], negatives: int, positives: Positives) -> dict[str, Any]:
    (folder / "qrels").mkdir(parents=True)
    (folder / NEGATIVES_FOLDER).mkdir()
    counts: dict[str, Any] = {}
    with _new(folder / "corpus.jsonl") as corpus, _new(folder / "queries.jsonl") as queries:
        passages = _Passages(corpus)
        for split, path in sources.items():
            most = 1 if split == "train" and positives == "first" else None
            with (
                _new(folder / "qrels" / f"{split}.tsv") as qrels,
                _new(folder / NEGATIVES_FOLDER / f"{split}.jsonl") as hard,
            ):
                qrels.write("query-id\tcorpus-id\tscore\n")
                writer = _Split(split, passages, queries, qrels, hard, most, negatives)
                for example in track(examples(path), f"converting {path.name}"):
                    writer.add(example)
            counts[split] = dict(writer.counts)
    return {**counts, "passages": passages.count, "id_clashes": passages.clashes}


@dataclass
class _Split:
    """Writes the examples of one file."""

    split: str
    passages: _Passages
    queries: IO[str]
    qrels: IO[str]
    hard: IO[str]
    most_positives: int | None
    most_negatives: int
    counts: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(_COUNTED, 0)))

    def add(self, example: Example) -> None:
        """Write the question and, when it has a positive, its judgements and hard negatives."""
        counts, query_id = self.counts, f"{self.split}-{example.number}"
        counts["examples"] += 1
        self.queries.write(_line({"_id": query_id, "text": example.question}))
        if not example.positives:
            counts["examples_without_positive"] += 1
            return
        kept = example.positives[: self.most_positives]
        relevant = dict.fromkeys(self.passages.add(passage) for passage in kept)
        self.qrels.writelines(f"{query_id}\t{doc_id}\t1\n" for doc_id in relevant)
        negatives = self._negatives(example)
        if negatives:
            self.hard.write(negatives_line(query_id, negatives, "dpr"))
        counts["positives"] += len(relevant)
        counts["positives_left_out"] += len(example.positives) - len(kept)
        counts["hard_negatives"] += len(negatives)
        counts["without_hard_negative"] += not negatives

    def _negatives(self, example: Example) -> list[str]:
        """The first hard negatives whose text is none of the positives', those left out included."""
        positive = {(passage.title, passage.text) for passage in example.positives}
        chosen: dict[str, None] = {}
        for passage in example.hard_negatives:
            if len(chosen) == self.most_negatives:
                break
            if (passage.title, passage.text) in positive:
                self.counts["hard_negatives_that_are_positive"] += 1
            else:
                chosen.setdefault(self.passages.add(passage))
        return list(chosen)


class _Passages:
    """Writes each passage to the corpus when it is first seen; digests of ids and texts are all that is held."""

    def __init__(self, corpus: IO[str]) -> None:
        self._corpus = corpus
        self._seen = DigestTable()
        self.count = 0
        self.clashes = 0

    def add(self, passage: Context) -> str:
        """The passage's doc_id: its own id, or `<id>~<digest>` when that is taken by another text."""
        text = _digest(passage.title, passage.text)
        doc_id = passage.doc_id or f"text-{text:016x}"
        clash = False
        while (stored := self._seen.setdefault(_digest(doc_id), text)) is not None:
            if stored == text:
                return doc_id
            doc_id, clash = f"{doc_id}~{text:016x}", True
        self.count += 1
        self.clashes += clash
        self._corpus.write(_line({"_id": doc_id, "title": passage.title, "text": passage.text}))
        return doc_id


def _digest(*fields: str) -> int:
    """64 bits of the SHA-256 of some texts."""
    joined = "\x1f".join(fields).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(joined).digest()[:8], "big")


def _new(path: Path) -> IO[str]:
    return path.open("x", encoding="utf-8", newline="\n")


def _line(record: Mapping[str, str]) -> str:
    return json.dumps(record) + "\n"


GROUP = "dpr"
SPLITS = ("train", "dev")

_ENDINGS = (".json", ".json.gz", ".jsonl", ".jsonl.gz")


@cache
def facts() -> dict[str, Any]:
    """What `data/dpr.json` holds: `home`, `licence`, `citation`, `base` and `collections` by name."""
    loaded: dict[str, Any] = read_json(Path(__file__).parent / "data" / "dpr.json")
    return loaded


class Dpr(Family):
    """The five sets."""

    name = GROUP

    def names(self) -> Mapping[str, Any]:
        """The facts of each set."""
        known: Mapping[str, Any] = facts()["collections"]
        return known

    def entry(self, name: str, root: Path) -> Entry:
        """The catalogue's line of a set; queries are those with a positive passage."""
        known, about = facts(), self.about(name)
        return Entry(
            self.id(name),
            GROUP,
            about["description"],
            SPLITS,
            any(any(p.glob(f"converted*/{MANIFEST}")) or _sources(p, name) for p in _places(name, root)),
            known["licence"],
            known["home"],
            queries={split: count for split, count in about["queries"].items() if count is not None},
            citation=known["citation"],
        )

    def open(
        self, name: str, data: Path | None, *, negatives: int = NEGATIVES, positives: Positives = "first"
    ) -> Collection:
        """One of the five sets, from its converted folder; DPR's files that are there are converted on first use.

        Args:
            data: the folder that holds `dpr/<name>/` or `<name>/`; None: FOREWORD_DATA, else the cache.
            negatives: the most hard negatives kept for a question by the conversion.
            positives: which positives of a training example count, `first` (as DPR trains) or `all`.
        """
        about, root = self.about(name), data_folder(data)
        folder = _converted(name, root, negatives, positives)
        if folder is None:
            files = " and ".join(_file_name(about, split) for split in SPLITS)
            looked = " or ".join(str(place) for place in _places(name, root))
            raise DataError(
                f"{self.id(name)} needs {files}, which are not in {looked}; `foreword download {self.id(name)}` gets "
                "them"
            )
        known, manifest = facts(), read_manifest(folder)
        own = {
            "conversion": {part: manifest[part] for part in ("options", "counts", "sources")},
            "expected": {"queries": about["queries"]},
            **{part: known[part] for part in ("licence", "citation", "home")},
        }
        return FolderCollection(self.id(name), folder, group=GROUP, facts=own)

    def download(self, name: str, data: Path, transport: Transport = DEFAULT) -> Path:
        """The converted folder of a set, its files fetched and converted unless that was done before.

        The files come to `<data>/dpr/<name>/`, the conversion beside them. They have no published hashes, so the first
        download of one is only trusted once it was converted: a broken one is deleted with its record, and the next
        address is asked.
        """
        about, base, root = self.about(name), facts()["base"], Path(data)
        folder = _converted(name, root, NEGATIVES, "first")
        if folder is not None:
            return folder
        files = [_file_name(about, split) for split in SPLITS]
        resources = {root / GROUP / name / f: Resource(f"{GROUP}/{name}/{f}", (base + f,)) for f in files}
        new = {path for path, r in resources.items() if not path.exists() and read_record(root, r.name) is None}
        # Gzip from DPR; a mirror's may be plain.
        check = begins_with(b"\x1f\x8b", b"[", b"{", expected="not one of DPR's files: expected gzip or JSON")
        refused: dict[str, DataError] = {}  # by address
        while True:
            try:
                train, dev = (fetch(r, root, transport, check=check, skip=refused) for r in resources.values())
            except DataError as error:
                before = "".join(f"\nBefore that, from {url}: {reason}" for url, reason in refused.items())
                raise DataError(f"{error}{before}") from error
            try:
                return convert(train, dev, train.parent / _folder_name(NEGATIVES, "first"))
            except DataError as error:
                broken = next((path for path in new if error.path == path), None)
                if broken is None:
                    raise _with_remedy(error, name, root) from error
                record = read_record(root, resources[broken].name)
                for path in (broken, record_file(root, resources[broken].name)):
                    path.unlink(missing_ok=True)
                if record is not None:
                    refused[record.url] = error
                if record is None or set(transport.addresses(resources[broken])) <= set(refused):
                    raise DataError(f"{error}. It was deleted; the next try downloads it again") from error


DPR = Dpr()


def _with_remedy(error: DataError, name: str, root: Path) -> DataError:
    """The error, with what to delete where it is about a downloaded file: with its record, else it stays refused."""
    path = None if error.path is None else Path(error.path)
    if path is None or path.parent != root / GROUP / name:
        return error
    record = record_file(root, f"{GROUP}/{name}/{path.name}")
    if not record.is_file():
        return error
    return DataError(f"{error}. To download it again, delete {path} and {record}")


def _places(name: str, root: Path) -> tuple[Path, Path]:
    """Where a set may be: in the data folder's own layout, or in a folder of the user's."""
    return root / GROUP / name, root / name


def _folder_name(negatives: int, positives: Positives) -> str:
    """Conversions of different options have different names, so that none is in another's way."""
    if (negatives, positives) == (NEGATIVES, "first"):
        return "converted"
    return f"converted-{negatives}-{positives}"


def _file_name(about: Mapping[str, Any], split: str) -> str:
    return f"biencoder-{about['file']}-{split}.json.gz"


def _converted(name: str, root: Path, negatives: int, positives: Positives) -> Path | None:
    """The converted folder, made now when only DPR's files are there; None when neither is."""
    for place in _places(name, root):
        folder = place / _folder_name(negatives, positives)
        sources = _sources(place, name)
        if (folder / MANIFEST).is_file():
            recorded = read_manifest(folder)["sources"]
            for split, path in zip(SPLITS, sources or (), strict=False):
                known, size = recorded[split], path.stat().st_size
                if path.name == known["name"] and size != known["size"]:  # as far as its size tells
                    message = f"was made from a {path.name} of {known['size']} bytes; there is one of {size} now"
                    raise DataError(f"{message}. Remove the folder to convert it anew", path=folder)
            return folder
        if sources:
            try:
                return convert(*sources, folder, negatives=negatives, positives=positives)
            except DataError as error:
                raise _with_remedy(error, name, root) from error
    return None


def _sources(place: Path, name: str) -> tuple[Path, Path] | None:
    """The training and the dev file in a folder, under DPR's names or shorter ones; None without both."""
    file = facts()["collections"][name]["file"]
    stems = dict.fromkeys((f"biencoder-{file}", file, name))
    found = [
        next((p for stem in stems for end in _ENDINGS if (p := place / f"{stem}-{split}{end}").is_file()), None)
        for split in SPLITS
    ]
    train, dev = found
    return None if train is None or dev is None else (train, dev)
