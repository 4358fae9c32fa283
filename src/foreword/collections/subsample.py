"""A sample of a large collection, written as a folder of its own; the source is never touched."""

from __future__ import annotations

import hashlib
import heapq
import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from foreword.collections.folds import split_fold
from foreword.collections.records import Collection, DataWarning, fingerprint
from foreword.common.errors import DataError, ForewordError
from foreword.common.files import write_json

RECORD = "subsample.json"


def subsample(collection: Collection, output: Path, *, documents: int, seed: int = 0) -> Path:
    """Write a folder in BEIR's layout with a sample of the documents, every judged one, and all judgements.

    `subsample.json` in it says what it is a sample of, and `folder:PATH` repeats that in its facts, so that no
    result on it passes for one on the whole. Hard negatives are not carried over.

    Args:
        collection: the source.
        output: the folder to make; it may be there if it is empty.
        documents: to be drawn: those whose ids have the smallest SHA-256 with the seed; the judged ones are added.
        seed: of the draw.

    Returns:
        `output`.

    Raises:
        DataError: the folder is not empty, or in the source's; two queries of one id; no documents.
        ForewordError: `documents` below 1.
    """
    if split_fold(collection.id)[1] is not None:
        raise DataError(f"{collection.id} is a fold; sample its collection, and take folds of the sample")
    if documents < 1:
        raise ForewordError(f"the number of documents to draw is 1 or more, got {documents}")
    output = Path(output)
    _check_place(output, collection)
    output.parent.mkdir(parents=True, exist_ok=True)
    drawn, total = _draw(collection, documents, seed)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as temporary:
        made = Path(temporary) / "files"
        made.mkdir()
        _write(collection, made, drawn, total, seed)
        if output.is_dir():
            output.rmdir()
        made.rename(output)
    return output


def _check_place(output: Path, collection: Collection) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DataError("is there and not empty; name a new folder for the sample", path=output)
    place = output.resolve()
    for folder in _folders(collection.facts):
        if place.is_relative_to(folder.resolve()):
            raise DataError(f"is in the folder of {collection.id}, which is never written to", path=output)


def _folders(facts: object) -> Iterator[Path]:
    """Every folder that a collection's facts name as read from."""
    if isinstance(facts, Mapping):
        for name, value in facts.items():
            if name == "path" and isinstance(value, str):
                yield Path(value)
            yield from _folders(value)


def _draw(collection: Collection, documents: int, seed: int) -> tuple[set[str], int]:
    """The ids drawn, and how many documents there are; holds as many ids as are drawn."""
    total = 0

    def ranked() -> Iterator[tuple[bytes, str]]:
        nonlocal total
        for document in collection.documents():
            total += 1
            key = f"subsample\0{seed}\0{document.doc_id}".encode("utf-8", "surrogatepass")
            yield hashlib.sha256(key).digest(), document.doc_id

    drawn = {doc_id for _, doc_id in heapq.nsmallest(documents, ranked())}
    if not total:
        raise DataError(f"{collection.id} has no documents")
    return drawn, total


def _write(collection: Collection, folder: Path, drawn: set[str], total: int, seed: int) -> None:
    judged = {split: {d for docs in collection.qrels(split).values() for d in docs} for split in collection.splits}
    wanted = drawn.union(*judged.values())
    written: set[str] = set()
    with (folder / "corpus.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for doc in collection.documents():
            if doc.doc_id in wanted:
                written.add(doc.doc_id)
                record = {"_id": doc.doc_id, "title": doc.title, "text": doc.text, "metadata": dict(doc.metadata)}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
    left_out = [split for split, ids in judged.items() if not ids <= written]
    if left_out:
        message = f"{collection.id}: the judgements of {', '.join(left_out)} are about another corpus"
        warnings.warn(f"{message} and are not in the sample", DataWarning, stacklevel=3)
    _write_labels(collection, folder, [split for split in judged if split not in left_out])
    manifest = {
        "source": collection.id,
        "documents": len(written),
        "of": total,
        "drawn": len(drawn),
        "seed": seed,
        "exclude_self": collection.exclude_self,
        "splits_left_out": left_out,
        "fingerprint": fingerprint(collection),
    }
    write_json(folder / RECORD, manifest)


def _write_labels(collection: Collection, folder: Path, splits: list[str]) -> None:
    """`queries.jsonl`, each query once, and `qrels/<split>.tsv`."""
    texts: dict[str, str] = {}
    (folder / "qrels").mkdir()
    with (folder / "queries.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for split in splits:
            for query in collection.queries(split):
                if query.query_id not in texts:
                    texts[query.query_id] = query.text
                    record = {"_id": query.query_id, "text": query.text, "metadata": dict(query.metadata)}
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
                elif texts[query.query_id] != query.text:
                    raise DataError(f"{collection.id}: two queries have the id {query.query_id!r}")
    for split in splits:
        with (folder / "qrels" / f"{split}.tsv").open("w", encoding="utf-8", newline="\n") as file:
            file.write("query-id\tcorpus-id\tscore\n")
            for query_id, docs in collection.qrels(split).items():
                file.writelines(f"{query_id}\t{doc_id}\t{grade}\n" for doc_id, grade in docs.items())
