"""Hard negatives: documents that look relevant to a query and are not, listed beside a collection.

`hard-negatives/<split>.jsonl` (or `.gz`), one line a query, the hardest first:
`{"query_id": "q1", "doc_ids": ["d7", "d2"], "from": "bm25"}`; `from` names what found them.
"""

from __future__ import annotations

import gzip
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from foreword.collections.jsonl import json_lines
from foreword.collections.memory import require_split
from foreword.collections.records import SPLITS, Collection, DataWarning, TrainingPair
from foreword.collections.view import View, documents_for
from foreword.common.errors import DataError
from foreword.common.files import atomic_write

FOLDER = "hard-negatives"
"""Their place in a collection's folder."""


def find_hard_negatives(folder: Path) -> dict[str, Path]:
    """`split -> file` of a collection's folder, in the order train, dev, others; empty where there are none.

    Raises:
        DataError: two files of one split.
    """
    below = Path(folder) / FOLDER
    found: dict[str, Path] = {}
    for path in sorted(below.iterdir()) if below.is_dir() else []:
        split, dot, ending = path.name.removesuffix(".gz").rpartition(".")
        if path.name.startswith(".") or f"{dot}{ending}" != ".jsonl" or not path.is_file():
            continue
        if split in found:
            message = f"hard negatives of split {split!r} are in {found[split].name} too; keep one of them"
            raise DataError(message, path=path)
        found[split] = path
    known = [split for split in SPLITS if split in found]
    return {split: found[split] for split in [*known, *(s for s in found if s not in SPLITS)]}


def read_hard_negatives(path: Path) -> dict[str, tuple[str, ...]]:
    """`query_id -> doc_ids` of one file, in its order; a number is taken as its digits.

    Raises:
        DataError: a line of another form, a query listed twice, or a document listed twice for one query.
    """
    negatives: dict[str, tuple[str, ...]] = {}
    for line, record in json_lines(Path(path)):
        query_id = _id(record.get("query_id"), "query_id", path, line)
        listed = record.get("doc_ids")
        if not isinstance(listed, list):
            message = f"expected 'doc_ids', a list of ids; this line has the fields {sorted(record)}"
            raise DataError(message, path=path, line=line)
        doc_ids = tuple(_id(value, "doc_ids", path, line) for value in listed)
        if query_id in negatives:
            raise DataError(f"query {query_id!r} is listed twice; keep one line", path=path, line=line)
        if len(set(doc_ids)) < len(doc_ids):
            raise DataError(f"query {query_id!r} lists a document twice; keep one", path=path, line=line)
        negatives[query_id] = doc_ids
    return negatives


def write_hard_negatives(path: Path, negatives: Mapping[str, Sequence[str]], found_by: str) -> Path:
    """Write a file of hard negatives, gzipped when its name ends in `.gz`; equal input gives equal bytes.

    Args:
        path: e.g. `<collection's folder>/hard-negatives/train.jsonl`.
        negatives: `query_id -> doc_ids`, the hardest first.
        found_by: what found them: `bm25`, `dpr`, or a prompt's name.
    """
    path = Path(path)
    lines = (negatives_line(query_id, doc_ids, found_by).encode() for query_id, doc_ids in negatives.items())
    with atomic_write(path, "wb") as file:
        if path.suffix == ".gz":
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
                packed.writelines(lines)
        else:
            file.writelines(lines)
    return path


def negatives_line(query_id: str, doc_ids: Sequence[str], found_by: str) -> str:
    """One line of the file, with its end."""
    return json.dumps({"query_id": query_id, "doc_ids": list(doc_ids), "from": found_by}) + "\n"


def _id(value: Any, name: str, path: Path, line: int) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise DataError(f"expected an id (a text) in {name!r}, got {value!r}", path=path, line=line)
    return str(value)


@dataclass(frozen=True)
class WithNegatives(View):
    """`source` seen with hard negatives for the pairs of one split, in place of any that it has of its own.

    Args:
        source: the collection.
        negatives: `query_id -> doc_ids`, the hardest first, e.g. from `read_hard_negatives` or mined.
        split: whose pairs they are for.
    """

    source: Collection
    negatives: Mapping[str, Sequence[str]]
    split: str = "train"
    _said: set[str] = field(init=False, repr=False, default_factory=set)

    def __post_init__(self) -> None:
        require_split(self.source.id, self.split, self.source.splits)

    @property
    def facts(self) -> Mapping[str, object]:
        """The source's, and the number of negatives."""
        count = sum(len(doc_ids) for doc_ids in self.negatives.values())
        return {**self.source.facts, "hard_negatives": {self.split: count}}

    def pairs(self, split: str = "train", *, hard_negatives: int | None = None) -> Iterable[TrainingPair]:
        """The source's pairs; those of the split with at most `hard_negatives` of the negatives' texts.

        A pass over the corpus gathers the texts, which are held. A negative that is judged relevant is left out;
        so is one that the corpus does not have, which is said once.
        """
        if split != self.split or hard_negatives == 0:
            return self.source.pairs(split, hard_negatives=hard_negatives)
        return self._pairs(hard_negatives)

    def _pairs(self, most: int | None) -> Iterator[TrainingPair]:
        qrels = self.source.qrels(self.split)
        chosen: dict[str, list[str]] = {}
        for query_id, doc_ids in self.negatives.items():
            judged = qrels.get(query_id, {})
            chosen[query_id] = [doc_id for doc_id in doc_ids if judged.get(doc_id, 0) <= 0][:most]
        wanted = {doc_id for doc_ids in chosen.values() for doc_id in doc_ids}
        texts = {doc.doc_id: doc.content for doc in documents_for(self.source, self.split) if doc.doc_id in wanted}
        self._say(len(wanted) - len(texts))
        for pair in self.source.pairs(self.split, hard_negatives=0):
            listed = (doc_id for doc_id in chosen.get(pair.query_id, ()) if doc_id != pair.doc_id)
            yield replace(pair, negatives=tuple(texts[doc_id] for doc_id in listed if doc_id in texts))

    def _say(self, missing: int) -> None:
        if missing and not self._said:
            self._said.add("missing")
            message = f"{self.id}: {missing} hard negatives are not in the corpus (another one's, or excluded)"
            warnings.warn(f"{message}; they are left out", DataWarning, stacklevel=3)
