"""Judgements: BEIR's (`query-id corpus-id score` and a header) and TREC's (`query 0 document score`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from pathlib import Path

from foreword.collections.jsonl import text_lines
from foreword.collections.records import SPLITS, Qrels
from foreword.common.errors import DataError

_ENDINGS = (".tsv", ".txt", ".qrels", ".qrel", ".trec")
_SYNONYMS = {"validation": "dev", "valid": "dev", "val": "dev", "development": "dev"}


def find_qrels(folder: Path) -> dict[str, Path]:
    """`split -> file` of a collection's folder: `qrels/<split>.tsv`, or for test `qrels.tsv` by the corpus.

    Raises:
        DataError: two files of one split.
    """
    found: dict[str, Path] = {}
    below = folder / "qrels"
    paths = sorted(below.iterdir()) if below.is_dir() else sorted(folder.glob("qrels.*"))
    for path in paths:
        name = path.name.removesuffix(".gz")
        stem, dot, ending = name.rpartition(".")
        if name.startswith(".") or not path.is_file() or f"{dot}{ending}" not in _ENDINGS:
            continue
        split = "test" if path.parent == folder else _SYNONYMS.get(stem, stem)
        if split in found:
            message = f"judgements of split {split!r} are in {found[split].name} too; keep one of them"
            raise DataError(message, path=path)
        found[split] = path
    known = [split for split in SPLITS if split in found]
    return {split: found[split] for split in [*known, *(s for s in found if s not in SPLITS)]}


def read_qrels(path: Path, notes: Counter[str]) -> Qrels:
    """The judgements of one file, in its order.

    Args:
        path: tab or blank separated; three columns (a header is passed over) or TREC's four.
        notes: `negative_scores` counts grades below 0, which TREC uses for "surely not relevant" (0 here).

    Raises:
        DataError: another number of columns, a score that is no whole number, or a pair judged twice
            with different scores.
    """
    qrels: Qrels = {}
    width = 0
    for number, line in text_lines(path):
        columns = line.split("\t") if line.count("\t") >= 2 else line.split()
        columns = [column.strip() for column in columns]
        if not any(columns):
            continue
        if not width:
            width = len(columns)
            if width == 3 and not _is_number(columns[2]):
                continue  # the header
        if len(columns) != width or width not in (3, 4):
            expected = "'query-id corpus-id score' or TREC's 'query 0 document score'"
            message = f"{len(columns)} columns; expected {expected}"
            raise DataError(message, path=path, line=number)
        query_id, doc_id = columns[0], columns[-2]
        score = _score(columns[-1], path, number)
        if score < 0:
            notes["negative_scores"] += 1
            score = 0
        judged = qrels.setdefault(query_id, {})
        if judged.setdefault(doc_id, score) != score:
            message = f"{query_id} {doc_id} is judged {score} here and {judged[doc_id]} before; keep one line"
            raise DataError(message, path=path, line=number)
    return qrels


def known_judgements(qrels: Qrels, queries: Set[str], documents: Set[str], notes: Counter[str]) -> Qrels:
    """The judgements whose query and document are there; a query that keeps none is left out.

    Args:
        qrels: of one split.
        queries: ids of the queries there are.
        documents: ids of the judged documents there are.
        notes: `judgements_of_unknown_queries` and `judgements_of_unknown_documents` count what is skipped.
    """
    kept: Qrels = {}
    for query_id, judged in qrels.items():
        if query_id not in queries:
            notes["judgements_of_unknown_queries"] += len(judged)
            continue
        there = {doc_id: grade for doc_id, grade in judged.items() if doc_id in documents}
        notes["judgements_of_unknown_documents"] += len(judged) - len(there)
        if there:
            kept[query_id] = there
    return kept


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _score(text: str, path: Path, line: int) -> int:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not value.is_integer():
        raise DataError(f"the score must be a whole number, got {text!r}", path=path, line=line)
    return int(value)
