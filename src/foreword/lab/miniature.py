"""Small data for a recipe, from documentation of packages that every installation has, in the formats of the originals.

What is made are archives: DPR's biencoder files, BEIR's zips, OAG-QA's tables. They take the way of the real ones:
mirrored, verified (against their own hashes, since the published ones are of other files), unpacked, converted, read.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreword.collections import dpr, oag_qa
from foreword.collections.beir import BEIR, CQADUPSTACK
from foreword.collections.collection import Document, Query
from foreword.collections.registry import family_of, load, split_id
from foreword.collections.supervision import RECORD
from foreword.downloads import Transport
from foreword.downloads.fetch import measure
from foreword.errors import DataError, UnknownNameError
from foreword.files import atomic_write, read_json, write_json

ARCHIVES, DATA, MANIFEST = "archives", "data", "manifest.json"

PACKAGES = {
    "dpr/nq": "numpy",
    "dpr/trivia": "pandas",
    "dpr/webq": "scipy",
    "dpr/curatedtrec": "sklearn",
    "beir/nfcorpus": "torch",
    "beir/scifact": "huggingface_hub",
    "beir/quora": "datasets",
    "beir/arguana": "networkx",
    "cqadupstack": "sympy",
    "oag-qa/algorithm": "stdlib",
    "oag-qa/graph_theory": "networkx",
}
"""The package whose documentation stands for a collection; the forums share one, cut in 12."""

_DATE = (2000, 1, 1, 0, 0, 0)  # of every file in a zip, so that equal data give equal bytes
_NEGATIVES = 4


@dataclass(frozen=True)
class _Item:
    """A question with the one document that answers it."""

    query: str
    doc_id: str
    text: str


def prepare(ids: Sequence[str], folder: Path, documents: int) -> Path:
    """The data folder of a miniature, made and brought there by the families' own `download`, unless it is there.

    Args:
        ids: of the collections.
        folder: to hold `archives/` and `data/`.
        documents: in each collection; a forum of CQADupStack has fewer.

    Raises:
        UnknownNameError: there is no miniature of a collection.
        DataError: the folder holds another miniature.
    """
    manifest = folder / MANIFEST
    if folder.exists():
        known = read_json(manifest) if manifest.is_file() else {}
        if known.get("documents") != documents or not set(ids) <= set(known["ids"]):
            raise DataError("is there and holds something else; choose another output folder", path=folder)
        return folder / DATA
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a killed run left
    hashes = _write_archives(ids, partial / ARCHIVES, documents)
    mirror = (partial / ARCHIVES).resolve().as_uri()
    transport = Transport(offline=True, mirrors=(mirror,), quiet=True)
    for name in ids:
        family, rest = split_id(name)
        own: dict[str, Any] = {}
        if family in (BEIR.name, CQADUPSTACK.name):
            own = {"md5": hashes[f"{CQADUPSTACK.name if family == CQADUPSTACK.name else rest}.zip"]}
        elif family.startswith("oag-qa"):  # the public archive is behind a web page; this is the way of one's own copy
            own = {"source": partial / ARCHIVES / oag_qa.facts()["archive"]["name"]}
        download: Callable[..., Path] = family_of(name).download
        download(rest, partial / DATA, transport, **own)
    for corpus in sorted((partial / DATA).glob("*/**/corpus.jsonl")):  # no result passes for one on the real collection
        record = {"source": "documentation of Python packages: a miniature, not the collection"}
        write_json(corpus.with_name(RECORD), record)
    write_json(partial / MANIFEST, {"ids": sorted(ids), "documents": documents})
    partial.rename(folder)
    return folder / DATA


# -- archives ------------------------------------------------------------------------------------------------------


def _write_archives(ids: Sequence[str], folder: Path, documents: int) -> dict[str, str]:
    """Write every archive that the collections need; returns their MD5 by name."""
    topics = [name for name in ids if name.startswith("oag-qa/")]
    for name in (n for n in ids if n.startswith("oag-qa-disciplines/")):
        listed = oag_qa.facts()["disciplines"][split_id(name)[1]]
        topics += [f"oag-qa/{topic}" for topic in listed]
    for name in ids:
        family, rest = split_id(name)
        if family == "dpr":
            _write_dpr(rest, _items(name, documents), folder)
        elif family == BEIR.name:
            splits = BEIR.about(rest)["splits"]
            _write_zip(folder / f"{rest}.zip", _beir_files(rest, _items(name, documents), splits))
    if any(
        name.startswith(f"{CQADUPSTACK.name}/") for name in ids
    ):  # one zip, the documentation dealt out to 12 forums
        forums, splits = list(CQADUPSTACK.names()), BEIR.about(CQADUPSTACK.name)["splits"]
        items = _items(CQADUPSTACK.name, documents * len(forums))
        files: dict[str, str] = {}
        for number, forum in enumerate(forums):
            files |= _beir_files(f"{CQADUPSTACK.name}/{forum}", items[number :: len(forums)], splits)
        _write_zip(folder / f"{CQADUPSTACK.name}.zip", files)
    if topics:  # OAG-QA: a zip with two tables a topic, the titles as Python's list literals
        archive = oag_qa.facts()["archive"]
        tables: dict[str, str] = {}
        for name in dict.fromkeys(topics):
            items = _items(name, documents)
            questions, papers = oag_qa.topic_files(split_id(name)[1])
            tables[f"{archive['folder']}/{questions}"] = _table([item.query, repr([item.doc_id])] for item in items)
            rows = [[f"p{number}", item.text, item.doc_id] for number, item in enumerate(items)]
            tables[f"{archive['folder']}/{papers}"] = _table([["id", "abstract", "title"], *rows])
        _write_zip(folder / archive["name"], tables)
    return {path.name: measure(path, path.name, "").md5 for path in sorted(folder.iterdir())}


def _items(name: str, documents: int) -> list[_Item]:
    """A seeded draw from the documentation that stands for a collection, in the order of the draw."""
    if name not in PACKAGES:
        raise UnknownNameError(f"there is no miniature of {name}; there are: {', '.join(PACKAGES)}")
    collection = load(f"pydoc/{PACKAGES[name]}")
    asked: dict[str, str] = {}
    for split in collection.splits:
        qrels = collection.qrels(split)
        asked |= {next(iter(qrels[query.query_id])): query.text for query in collection.queries(split)}
    found = [_Item(asked[doc.doc_id], doc.doc_id, doc.text) for doc in collection.documents() if doc.doc_id in asked]
    return sorted(found, key=lambda item: hashlib.sha256(item.doc_id.encode()).digest())[:documents]


def _cut(items: Sequence[_Item], splits: Iterable[str]) -> dict[str, list[_Item]]:
    """The items of each split: a quarter for test, a fifth for dev, what is left for train."""
    wanted = set(splits)
    test, dev = len(items) // 4 if "test" in wanted else 0, len(items) // 5
    parts = {"test": list(items[:test]), "dev": list(items[test : test + dev]), "train": list(items[test + dev :])}
    if "train" not in wanted and "dev" in wanted:  # the dev split is all there is to train by
        parts["dev"] = list(items[test:])
    return {split: part for split, part in parts.items() if split in wanted}


def _beir_files(prefix: str, items: Sequence[_Item], splits: Iterable[str]) -> dict[str, str]:
    """`corpus.jsonl`, `queries.jsonl` and `qrels/<split>.tsv` below a folder of a BEIR zip."""
    parts = _cut(items, splits)
    corpus = [{"_id": item.doc_id, "title": "", "text": item.text, "metadata": {}} for item in items]
    asked = [item for part in parts.values() for item in part]
    queries = [{"_id": f"q:{item.doc_id}", "text": item.query, "metadata": {}} for item in asked]
    files = {f"{prefix}/corpus.jsonl": _lines(corpus), f"{prefix}/queries.jsonl": _lines(queries)}
    for split, part in parts.items():
        judged = "".join(f"q:{item.doc_id}\t{item.doc_id}\t1\n" for item in part)
        files[f"{prefix}/qrels/{split}.tsv"] = f"query-id\tcorpus-id\tscore\n{judged}"
    return files


def _write_dpr(name: str, items: Sequence[_Item], folder: Path) -> None:
    """DPR's two files of a set: hard negatives are what BM25 ranks high and is no answer."""
    from foreword.retrieval.bm25 import BM25

    by_id = {item.doc_id: item for item in items}
    index = BM25([Document(item.doc_id, item.text) for item in items])
    hits = index.search([Query(item.doc_id, item.query) for item in items], _NEGATIVES + 1)
    file = dpr.facts()["collections"][name]["file"]
    for split, part in _cut(items, ("train", "dev")).items():
        examples = [
            {
                "dataset": f"miniature_{name}_{split}",
                "question": item.query,
                "answers": [item.doc_id.rpartition(".")[2]],
                "positive_ctxs": [_context(item, 1000.0)],
                "negative_ctxs": [],
                "hard_negative_ctxs": [
                    _context(by_id[doc_id], score)
                    for doc_id, score in hits[item.doc_id].items()
                    if doc_id != item.doc_id
                ][:_NEGATIVES],
            }
            for item in part
        ]
        with atomic_write(folder / f"biencoder-{file}-{split}.json.gz", "wb") as raw:
            raw.write(gzip.compress(json.dumps(examples).encode(), mtime=0))


def _context(item: _Item, score: float) -> dict[str, Any]:
    module = item.doc_id.rpartition(".")[0]  # as several passages share an article's title
    return {"title": module, "text": item.text, "score": score, "title_score": 0, "passage_id": item.doc_id}


def _table(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows(rows)
    return text.getvalue()


def _lines(records: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _write_zip(path: Path, files: Mapping[str, str]) -> None:
    with atomic_write(path, "wb") as raw, zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, text in files.items():
            zipped.writestr(zipfile.ZipInfo(name, _DATE), text, zipfile.ZIP_DEFLATED)
