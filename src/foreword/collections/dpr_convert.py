"""DPR's training files as a folder in BEIR's layout, made in one pass and bounded memory, and whole or not at all.

The folder: `corpus.jsonl`, `queries.jsonl`, `qrels/` and `hard-negatives/` with `train` and `dev`, and
`conversion.json`, which says what it was made from and how.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Literal, get_args

from foreword.collections.digest_table import DigestTable
from foreword.collections.dpr_read import Example, Passage, examples
from foreword.collections.hard_negatives import FOLDER as NEGATIVES_FOLDER
from foreword.collections.hard_negatives import negatives_line
from foreword.collections.records import DataWarning
from foreword.common.errors import DataError, UnknownNameError
from foreword.common.files import sha256_file, write_json
from foreword.common.progress import track
from foreword.downloads import locked

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
    """Convert a pair of DPR's biencoder files.

    Queries are named `train-<n>` and `dev-<n>` by their example's number from 1. The corpus is every passage that
    a judgement or a hard negative names. A conversion of the same files and options that is there is left as it
    is. One killed halfway leaves a hidden folder beside `output`, which the next one removes.

    Args:
        train: the training file; see `dpr_read.examples` for its forms.
        dev: the file for choosing the best step; all its positives are judged relevant.
        output: the folder to make.
        negatives: the most hard negatives kept for a question, 0 or more.
        positives: of a training example: `first`, or `all`. The others are no part of the corpus, unless another
            question names them.

    Returns:
        `output`.

    Raises:
        DataError: a file is broken (the message names the example), or `output` holds anything else.
        UnknownNameError: `positives` is neither.
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
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read ({error}); remove the folder and convert again", path=path) from error
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
    _say(sources, counts)


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
                writer = _Split(split, passages, queries, qrels, hard, most, negatives)
                for example in track(examples(path), f"converting {path.name}"):
                    writer.add(example)
            counts[split] = dict(writer.counts)
    return {**counts, "passages": passages.count, "id_clashes": passages.clashes}


def _say(sources: Mapping[str, Path], counts: Mapping[str, Any]) -> None:
    """Warn of what will be missed or looks odd."""
    for split, path in sources.items():
        if lost := counts[split]["examples_without_positive"]:
            message = f"{path}: {lost} of {counts[split]['examples']} examples have no positive passage"
            warnings.warn(f"{message}; they are queries without judgements", DataWarning, stacklevel=4)
    if clashes := counts["id_clashes"]:
        message = f"{sources['train'].parent}: {clashes} passages share an id with another of other text"
        warnings.warn(f"{message}; they are named <id>~<digest of the text>", DataWarning, stacklevel=4)


class _Split:
    """Writes the examples of one file."""

    def __init__(
        self,
        split: str,
        passages: _Passages,
        queries: IO[str],
        qrels: IO[str],
        hard: IO[str],
        most_positives: int | None,
        most_negatives: int,
    ) -> None:
        self.counts = Counter(dict.fromkeys(_COUNTED, 0))
        self._split, self._passages = split, passages
        self._queries, self._qrels, self._hard = queries, qrels, hard
        self._most_positives, self._most_negatives = most_positives, most_negatives
        qrels.write("query-id\tcorpus-id\tscore\n")

    def add(self, example: Example) -> None:
        """Write the question and, when it has a positive, its judgements and hard negatives."""
        counts, query_id = self.counts, f"{self._split}-{example.number}"
        counts["examples"] += 1
        self._queries.write(_line({"_id": query_id, "text": example.question}))
        if not example.positives:
            counts["examples_without_positive"] += 1
            return
        kept = example.positives[: self._most_positives]
        relevant = dict.fromkeys(self._passages.add(passage) for passage in kept)
        self._qrels.writelines(f"{query_id}\t{doc_id}\t1\n" for doc_id in relevant)
        negatives = self._negatives(example)
        if negatives:
            self._hard.write(negatives_line(query_id, negatives, "dpr"))
        counts["positives"] += len(relevant)
        counts["positives_left_out"] += len(example.positives) - len(kept)
        counts["hard_negatives"] += len(negatives)
        counts["without_hard_negative"] += not negatives

    def _negatives(self, example: Example) -> list[str]:
        """The first hard negatives whose text is none of the positives', those left out included."""
        positive = {(passage.title, passage.text) for passage in example.positives}
        chosen: dict[str, None] = {}
        for passage in example.hard_negatives:
            if len(chosen) == self._most_negatives:
                break
            if (passage.title, passage.text) in positive:
                self.counts["hard_negatives_that_are_positive"] += 1
            else:
                chosen.setdefault(self._passages.add(passage))
        return list(chosen)


class _Passages:
    """Writes each passage to the corpus when it is first seen; digests of ids and texts are all that is held."""

    def __init__(self, corpus: IO[str]) -> None:
        self._corpus = corpus
        self._seen = DigestTable()
        self.count = 0
        self.clashes = 0

    def add(self, passage: Passage) -> str:
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
