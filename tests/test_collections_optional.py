"""`ir_datasets:<id>` and `hf:<name>`: other libraries' data sets, from files made here; nothing is downloaded."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import types
import warnings
from typing import NamedTuple

import pytest

from foreword.collections import DataWarning
from foreword.collections.collection import Document, Query
from foreword.collections.hub_datasets import HUB_DATASETS
from foreword.collections.ir_datasets_source import IR_DATASETS, split_of_id
from foreword.downloads import Transport
from foreword.errors import DataError, UnknownNameError


class Titled(NamedTuple):
    doc_id: str
    text: str
    title: str

    def default_text(self):
        return f"{self.title} {self.text}"


class Fielded(NamedTuple):
    doc_id: str
    title: str
    abstract: str
    url: str
    year: int
    body: str


class Asked(NamedTuple):
    query_id: str
    text: str

    def default_text(self):
        return self.text


class Judged(NamedTuple):
    query_id: str
    doc_id: str
    relevance: int


class Pair(NamedTuple):
    query_id: str
    doc_id_a: str
    doc_id_b: str


DOCS = [Titled("d1", "first text", "One"), Titled("d2", "second text", ""), Titled("d3", "third text", "Three")]
QUERIES = [Asked("q1", "first?"), Asked("q2", "second?"), Asked("q3", "nobody")]
QRELS = [Judged("q2", "d2", 2), Judged("q1", "d1", 1), Judged("q1", "d3", 0)]
PAIRS = [Pair("q1", "d1", "d2"), Pair("q1", "d1", "d3"), Pair("q2", "d2", "d1"), Pair("q1", "d3", "d2")]


def stand_in(registered):
    """A module with as much of ir_datasets as is used: `load`, `registry`, and data sets that have parts or not."""

    class Dataset:
        def __init__(self, docs=None, queries=None, qrels=None, docpairs=None):
            for name, items in {"docs": docs, "queries": queries, "qrels": qrels, "docpairs": docpairs}.items():
                setattr(self, f"has_{name}", lambda items=items: items is not None)
                setattr(self, f"{name}_iter", lambda items=items: iter(items))

        def docs_store(self):
            docs = {doc.doc_id: doc for doc in self.docs_iter()}
            return types.SimpleNamespace(get_many_iter=lambda ids: [docs[doc_id] for doc_id in ids if doc_id in docs])

    def register(name, **parts):
        registered[name] = Dataset(**parts)
        return name

    module = types.ModuleType("ir_datasets")
    module.load, module.registry, module.__version__ = registered.__getitem__, registered, "stand-in"
    return module, register


def real(ir_datasets, folder):
    """The library itself, with data sets of its own classes."""
    from ir_datasets import formats
    from ir_datasets.datasets.base import Dataset
    from ir_datasets.indices import PickleLz4FullStore

    def handler(base, **methods):
        return type(base.__name__, (base,), {k: lambda self, v=v: v() for k, v in methods.items()})()

    def register(name, docs=None, queries=None, qrels=None, docpairs=None):
        parts = []
        if docs is not None:
            path = folder / name.replace("/", "_") / "docs.pklz4"
            kind = type(docs[0])
            store = lambda: PickleLz4FullStore(str(path), lambda: iter(docs), kind, "doc_id", ["doc_id"])  # noqa: E731
            methods = {"docs_iter": lambda: iter(docs), "docs_cls": lambda: kind, "docs_store": store}
            parts.append(handler(formats.BaseDocs, **methods))
        if queries is not None:
            methods = {"queries_iter": lambda: iter(queries), "queries_cls": lambda: Asked}
            parts.append(handler(formats.BaseQueries, **methods))
        if qrels is not None:
            parts.append(handler(formats.BaseQrels, qrels_iter=lambda: iter(qrels), qrels_cls=lambda: Judged))
        if docpairs is not None:
            parts.append(handler(formats.BaseDocPairs, docpairs_iter=lambda: iter(docpairs)))
        ir_datasets.registry._registered.pop(name, None)
        ir_datasets.registry.register(name, Dataset(*parts))
        return name

    return register


@pytest.fixture(params=["stand-in", "ir_datasets"])
def register(request, monkeypatch, tmp_path):
    """Registers a data set with the library, where it is installed, or with a stand-in for it."""
    if request.param == "stand-in":
        module, made = stand_in({})
        monkeypatch.setitem(sys.modules, "ir_datasets", module)
        return made
    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path))
    return real(pytest.importorskip("ir_datasets"), tmp_path)


def test_an_ir_datasets_set(register):
    name = register("toy/validation/small", docs=DOCS, queries=QUERIES, qrels=QRELS)
    collection = IR_DATASETS.load(name)
    assert (collection.id, collection.group) == ("ir_datasets:toy/validation/small", "ir_datasets")
    assert collection.splits == ("dev",)
    for _ in range(2):
        assert list(collection.documents()) == [
            Document("d1", "first text", "One"),
            Document("d2", "second text"),
            Document("d3", "third text", "Three"),
        ]
        assert list(collection.queries("dev")) == [Query("q1", "first?"), Query("q2", "second?")]
        assert [q.query_id for q in collection.queries("all")] == ["q1", "q2", "q3"]
    assert collection.qrels("dev") == {"q2": {"d2": 2}, "q1": {"d1": 1, "d3": 0}}
    assert [(p.query_id, p.document, p.negatives) for p in collection.pairs("dev")] == [
        ("q1", "One first text", ()),
        ("q2", "second text", ()),
    ]
    assert collection.facts["training_pairs"] == "judgements"
    assert not collection.exclude_self
    with pytest.raises(UnknownNameError, match="no split 'test'; it has dev"):
        collection.qrels("test")
    target = IR_DATASETS.load(register("toy/other", docs=DOCS[:1], queries=QUERIES[1:2], qrels=QRELS[:0]))
    rest = IR_DATASETS.load(name, exclude=[target])
    assert [d.doc_id for d in rest.documents()] == ["d2", "d3"]


@pytest.mark.parametrize(
    ("name", "split"),
    [("vaswani", "test"), ("beir/scifact/train", "train"), ("a/dev/2/small", "dev"), ("a/trec-dl-2019/judged", "test")],
)
def test_the_split_that_an_id_names(name, split):
    assert split_of_id(name) == split


def test_docpairs_become_hard_negatives(register):
    name = register("toy/train/triples", docs=DOCS, queries=QUERIES, docpairs=PAIRS)
    collection = IR_DATASETS.load(name)
    assert collection.splits == ("train",)
    assert collection.facts["training_pairs"] == "docpairs"
    assert [(p.query_id, p.query, p.doc_id, p.document, p.negatives) for p in collection.pairs()] == [
        ("q1", "first?", "d1", "One first text", ("second text", "Three third text")),
        ("q2", "second?", "d2", "second text", ("One first text",)),
        ("q1", "first?", "d3", "Three third text", ("second text",)),
    ]
    assert [p.negatives for p in collection.pairs(hard_negatives=1)] == [
        ("second text",),
        ("One first text",),
        ("second text",),
    ]
    assert [p.negatives for p in collection.pairs(hard_negatives=0)] == [(), (), ()]
    assert collection.qrels("train") == {"q1": {"d1": 1, "d3": 1}, "q2": {"d2": 1}}
    assert [q.query_id for q in collection.queries("train")] == ["q1", "q2"]


def test_docpairs_beside_judgements_are_taken_when_asked_for(register):
    name = register("toy/train", docs=DOCS, queries=QUERIES, qrels=QRELS, docpairs=PAIRS)
    usual, asked = (IR_DATASETS.load(name, docpairs=choice) for choice in (None, True))
    assert [p.negatives for p in usual.pairs()] == [(), ()]
    assert [len(p.negatives) for p in asked.pairs()] == [2, 1, 1]
    assert usual.qrels("train") == asked.qrels("train") == {"q2": {"d2": 2}, "q1": {"d1": 1, "d3": 0}}
    with pytest.raises(DataError, match="has no docpairs"):
        IR_DATASETS.load(register("toy/none", docs=DOCS, queries=QUERIES), docpairs=True)


def test_docpairs_of_unknown_texts_are_said(register):
    pairs = [Pair("q1", "d1", "nowhere"), Pair("q9", "d1", "d2"), Pair("q2", "nowhere", "d1"), Pair("q2", "d2", "d1")]
    collection = IR_DATASETS.load(register("toy/train/x", docs=DOCS, queries=QUERIES, docpairs=pairs))
    with pytest.warns(DataWarning, match="3 docpairs name a query or document that is not there"):
        found = list(collection.pairs())
    assert [(p.query_id, p.negatives) for p in found] == [("q1", ()), ("q2", ("One first text",))]


def test_documents_only_and_nothing_at_all(register):
    collection = IR_DATASETS.load(register("toy/corpus", docs=DOCS))
    assert (collection.splits, len(list(collection.documents()))) == ((), 3)
    assert list(collection.queries("all")) == []
    assert IR_DATASETS.load(register("toy/asked/train", docs=DOCS, queries=QUERIES)).splits == ()
    with pytest.raises(DataError, match="has no documents"):
        IR_DATASETS.load(register("toy/log", queries=QUERIES))
    with pytest.raises(UnknownNameError, match="ir_datasets knows no 'toy/corpsu'; did you mean toy/corpus"):
        IR_DATASETS.load("toy/corpsu")


def test_records_without_a_default_text(register):
    docs = [Fielded("d1", "A title", "an abstract", "http://x", 1999, "a body"), Fielded("d2", "", "", "u", 1, "b")]
    collection = IR_DATASETS.load(register("toy/fields", docs=docs))
    assert list(collection.documents()) == [Document("d1", "an abstract a body", "A title"), Document("d2", "b")]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"docs": [*DOCS, DOCS[0]]}, "toy/bad: document 'd1' comes twice"),
        ({"docs": [Titled("a b", "x", "")]}, "an id without blanks .*, got 'a b'"),
        ({"docs": [Titled("", "x", "")]}, "an id without blanks .*, got ''"),
        ({"docs": DOCS, "queries": [Asked("q1", " ")]}, "query 'q1' has no text"),
        ({"docs": DOCS, "queries": [*QUERIES, Asked("q1", "other")]}, "query 'q1' comes twice, with two texts"),
        ({"docs": DOCS, "queries": QUERIES, "qrels": [Judged("q1", "d1", 0.5)]}, "must be a whole number, got 0.5"),
    ],
)
def test_broken_sets(register, parts, message):
    collection = IR_DATASETS.load(register("toy/bad", **parts))
    with pytest.raises(DataError, match=message):
        [list(collection.documents()), list(collection.queries("all")), collection.splits and collection.qrels()]


def test_what_is_mended_is_counted(register):
    qrels = [*QRELS, Judged("q9", "d1", 1), Judged("q3", "d9", 1), Judged("q2", "d1", -2), Judged("q1", "d1", 3)]
    collection = IR_DATASETS.load(register("toy/odd", docs=DOCS, queries=[*QUERIES, QUERIES[0]], qrels=qrels))
    with pytest.warns(DataWarning) as caught:
        assert collection.qrels() == {"q2": {"d2": 2, "d1": -2}, "q1": {"d1": 3, "d3": 0}}
    counts = {
        "repeated_queries": 1,
        "judged_twice": 1,
        "judgements_of_unknown_queries": 1,
        "judgements_of_unknown_documents": 1,
    }
    assert collection.facts.items() >= counts.items()
    assert len(caught) == len(counts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collection.qrels()


def test_the_library_fails_or_is_missing(register, monkeypatch):
    name = register("quora/x", docs=DOCS, queries=QUERIES, qrels=QRELS)
    collection = IR_DATASETS.load(name)
    assert collection.exclude_self

    def fail():
        raise OSError("no network")

    monkeypatch.setattr(collection._source.dataset, "docs_iter", fail, raising=False)
    with pytest.raises(DataError, match=r"ir_datasets:quora/x: ir_datasets cannot provide its documents .*no network"):
        list(collection.documents())
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(DataError, match=r"needs ir_datasets: pip install foreword\[ir-datasets\]"):
        IR_DATASETS.load(name)


CORPUS_ROWS = [
    {"_id": "1", "title": "One", "text": "first text"},
    {"_id": "2", "title": "", "text": "second text"},
    {"_id": "2020-01-01", "title": None, "text": "2020-01-02"},
]
QUERY_ROWS = [{"_id": "01", "text": "first?"}, {"_id": "02", "text": "second?"}]
QRELS_ROWS = [
    {"query-id": "01", "corpus-id": "1", "score": 1.0},
    {"query-id": "02", "corpus-id": "2020-01-01", "score": 1.0},
]
JUDGED = {"queries.jsonl": QUERY_ROWS, "qrels/test.tsv": QRELS_ROWS}
README = """---
configs:
- config_name: default
  data_files:
  - {split: validation, path: QRELS}
- config_name: corpus
  data_files:
  - {split: corpus, path: CORPUS}
- config_name: queries
  data_files:
  - {split: queries, path: QUERIES}
---
# A set
"""


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".tsv":
        lines = ["\t".join(rows[0]), *("\t".join(str(value) for value in row.values()) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    else:
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path_factory):
    """What the datasets library writes (locks) stays out of the user's cache."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


LAYOUTS = {
    "mteb, parquet by README": (
        "corpus/corpus-00000-of-00001.parquet",
        "queries/queries-00000-of-00001.parquet",
        "data/validation-00000-of-00001.parquet",
        ("data/validation-*", "corpus/corpus-*", "queries/queries-*"),
    ),
    "mteb, jsonl by README": (
        "corpus.jsonl",
        "queries.jsonl",
        "qrels/dev.jsonl",
        ("qrels/dev.jsonl", "corpus.jsonl", "queries.jsonl"),
    ),
    "by names": ("corpus.jsonl.gz", "queries.jsonl", "qrels/dev.tsv", None),
    "parquet by names": ("corpus/0.parquet", "queries.parquet", "qrels/dev-00000-of-00001.parquet", None),
    "beir, qrels beside": ("corpus.jsonl.gz", "queries.jsonl.gz", "../toy-qrels/dev.tsv", None),
    "parquet beside": ("corpus/a.parquet", "queries/a.parquet", "../toy-qrels/data/dev-00000-of-00001.parquet", None),
}


def write_layout(folder, layout):
    corpus, queries, qrels, patterns = LAYOUTS[layout]
    for name, rows in ((corpus, CORPUS_ROWS), (queries, QUERY_ROWS), (qrels, QRELS_ROWS)):
        write_rows(folder / name, rows)
    if patterns:
        text = README
        for word, pattern in zip(("QRELS", "CORPUS", "QUERIES"), patterns, strict=True):
            text = text.replace(word, pattern)
        (folder / "README.md").write_text(text)
    if layout == "parquet beside":
        (folder.parent / "toy-qrels" / "README.md").write_text(
            "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: dev, path: data/dev-*}\n---\n"
        )
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_hub_set_in_a_local_folder(tmp_path, layout):
    folder = write_layout(tmp_path / "toy", layout)
    before = sorted(tmp_path.rglob("*"))
    collection = HUB_DATASETS.load(str(folder))
    assert (collection.id, collection.group, collection.splits) == (f"hf:{folder}", "hf", ("dev",))
    for _ in range(2):
        assert list(collection.documents()) == [
            Document("1", "first text", "One"),
            Document("2", "second text"),
            Document("2020-01-01", "2020-01-02"),
        ]
        assert list(collection.queries("dev")) == [Query("01", "first?"), Query("02", "second?")]
    assert collection.qrels("dev") == {"01": {"1": 1}, "02": {"2020-01-01": 1}}
    assert [p.document for p in collection.pairs("dev")] == ["One first text", "2020-01-02"]
    assert collection.facts["path"] == str(folder)
    assert sorted(tmp_path.rglob("*")) == before


def test_numbers_as_ids_and_a_corpus_without_judgements(tmp_path):
    write_rows(tmp_path / "arguana" / "corpus.parquet", [{"_id": 7, "text": "x", "title": "T"}])
    collection = HUB_DATASETS.load("arguana", data=tmp_path)
    assert (list(collection.documents()), collection.splits) == ([Document("7", "x", "T")], ())
    assert collection.exclude_self
    assert list(collection.queries("all")) == []


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"queries.jsonl": QUERY_ROWS}, "no corpus here: expected a configuration 'corpus' in README.md"),
        ({"corpus.jsonl": CORPUS_ROWS, "qrels/test.tsv": QRELS_ROWS}, "no queries here"),
        (
            {"corpus.jsonl": [{"id": "1", "text": "x"}], **JUDGED},
            r"corpus.jsonl:1: expected '_id'.*the row has \['id', 'text'\]",
        ),
        ({"corpus.parquet": [{"_id": "1", "text": 3}], **JUDGED}, "corpus.parquet:1: expected 'text', a text; got int"),
        ({"corpus.parquet": [{"_id": "1", "text": None}], **JUDGED}, "expected 'text', a text; got nothing"),
        (
            {
                "corpus.jsonl": CORPUS_ROWS,
                "queries.jsonl": QUERY_ROWS,
                "qrels/test.jsonl": [{**QRELS_ROWS[0], "score": 0.5}],
            },
            "test.jsonl:1: the score must be a whole number, got 0.5",
        ),
        (
            {"corpus.jsonl": CORPUS_ROWS, "qrels/test.jsonl": QRELS_ROWS, "qrels/test.tsv": QRELS_ROWS},
            "split 'test' is in test.jsonl, test.tsv; keep one",
        ),
    ],
)
def test_hub_sets_in_other_layouts(tmp_path, files, message):
    for name, rows in files.items():
        write_rows(tmp_path / name, rows)
    with pytest.raises(DataError, match=message):
        HUB_DATASETS.load(str(tmp_path)).qrels()


def test_broken_tables(tmp_path):
    write_rows(tmp_path / "corpus.parquet", CORPUS_ROWS)
    collection = HUB_DATASETS.load(str(tmp_path))
    (tmp_path / "corpus.parquet").write_bytes((tmp_path / "corpus.parquet").read_bytes()[:-9])
    with pytest.raises(DataError, match=r"corpus\.parquet: broken parquet file"):
        list(collection.documents())
    (tmp_path / "README.md").write_text("---\nconfigs: [\n---\n")
    with pytest.raises(DataError, match=r"README\.md: its configurations cannot be read"):
        HUB_DATASETS.load(str(tmp_path))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stand-in for the hub: repositories are folders; `calls` are the snapshots made."""
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    root, calls = tmp_path / "hub", []

    class Api:
        def dataset_info(self, repository, *, revision, timeout):
            if not (root / repository).is_dir():
                raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)
            return types.SimpleNamespace(sha=commit_of(revision))

    def snapshot(repository, *, repo_type, revision, local_dir, allow_patterns):
        calls.append((repository, revision))
        assert repo_type == "dataset"
        for path in (root / repository).rglob("*"):
            if path.is_file() and any(path.match(pattern) for pattern in allow_patterns):
                target = local_dir / path.relative_to(root / repository)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
        (local_dir / ".cache" / "huggingface").mkdir(parents=True)
        if repository.endswith("cut"):
            raise OSError("connection lost")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return types.SimpleNamespace(root=root, calls=calls, data=tmp_path / "data")


def commit_of(revision):
    return hashlib.sha1((revision or "main").encode()).hexdigest()


def test_download_from_the_hub(hub):
    folder = write_layout(hub.root / "own" / "toy", "beir, qrels beside")
    (folder / "toy.py").write_text("raise SystemExit")
    with pytest.raises(DataError, match=r"hf:own/toy is not there .*foreword download hf:own/toy"):
        HUB_DATASETS.load("own/toy", data=hub.data)
    with pytest.raises(DataError, match="downloads are switched off"):
        HUB_DATASETS.download("own/toy", hub.data, Transport(offline=True))
    made = HUB_DATASETS.download("own/toy", hub.data, Transport())
    assert made == hub.data / "hf" / "own" / "toy"
    assert sorted(path.name for path in made.iterdir()) == ["corpus.jsonl.gz", "origin.json", "queries.jsonl.gz"]
    assert [name for name, _ in hub.calls] == ["own/toy", "own/toy-qrels"]
    assert HUB_DATASETS.download("own/toy", hub.data, Transport(offline=True)) == made
    assert len(hub.calls) == 2
    collection = HUB_DATASETS.load("own/toy", data=hub.data)
    assert collection.qrels("dev") == {"01": {"1": 1}, "02": {"2020-01-01": 1}}
    assert collection.facts.items() >= {"repository": "own/toy", "commit": commit_of("main")}.items()


def test_revisions_are_kept_apart(hub):
    write_layout(hub.root / "own" / "toy", "mteb, jsonl by README")
    for name, revision in (("own/toy", None), ("own/toy@refs/pr/1", None), ("own/toy", "v2")):
        HUB_DATASETS.download(name, hub.data, Transport(), revision)
    assert [revision for _, revision in hub.calls] == [commit_of(r) for r in ("main", "refs/pr/1", "v2")]
    assert HUB_DATASETS.load("own/toy@refs/pr/1", data=hub.data).facts["revision"] == "refs/pr/1"
    assert HUB_DATASETS.load("own/toy", data=hub.data, revision="v2").facts["revision"] == "v2"
    assert HUB_DATASETS.load("own/toy", data=hub.data).facts["revision"] is None


def test_what_the_hub_has_not(hub):
    with pytest.raises(DataError, match="the hub has no dataset 'own/none'"):
        HUB_DATASETS.download("own/none", hub.data, Transport())
    with pytest.raises(DataError, match=r"expected a repository's name such as mteb/scifact, got '\.\./evil'"):
        HUB_DATASETS.download("../evil", hub.data, Transport())
    write_rows(hub.root / "own" / "cut" / "corpus.jsonl", CORPUS_ROWS)
    with pytest.raises(DataError, match=r"could not be downloaded from the hub \(OSError: connection lost\)"):
        HUB_DATASETS.download("own/cut", hub.data, Transport())
    assert [path.name for path in (hub.data / "hf" / "own").iterdir()] == [".cut.part"]
    (hub.root / "own" / "cut").rename(hub.root / "own" / "whole")  # as if it had another commit by now
    (hub.data / "hf" / "own" / ".cut.part").rename(hub.data / "hf" / "own" / ".whole.part")
    (hub.data / "hf" / "own" / ".whole.part" / ".commit").write_text("another")
    (hub.data / "hf" / "own" / ".whole.part" / "old.jsonl").write_text("")
    with pytest.warns(DataWarning, match="no judgements"):
        made = HUB_DATASETS.download("own/whole", hub.data, Transport())
    assert sorted(path.name for path in made.iterdir()) == ["corpus.jsonl", "origin.json"]
    write_rows(hub.root / "own" / "plain" / "corpus.jsonl", CORPUS_ROWS)
    with pytest.warns(DataWarning, match="hf:own/plain has no judgements"):
        HUB_DATASETS.download("own/plain", hub.data, Transport())


def test_the_catalogue_names_the_forms():
    ids = [entry.id for family in (HUB_DATASETS, IR_DATASETS) for entry in family.entries(None)]
    assert ids == ["hf:NAMESPACE/NAME", "ir_datasets:ID"]
    assert HUB_DATASETS.knows("any/thing")
    assert not IR_DATASETS.knows("")
