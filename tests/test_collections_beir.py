"""`beir/<name>` and `cqadupstack/<forum>`: archives made here in BEIR's format, served by this machine."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import warnings
import zipfile
from pathlib import Path

import pytest
from webserver import serve

from foreword.collections import DataWarning, beir, fingerprint
from foreword.collections.beir import BEIR, CQADUPSTACK
from foreword.collections.collection import Document, Query
from foreword.collections.registry import load
from foreword.downloads import Transport
from foreword.errors import DataError, UnknownNameError

DOCUMENTS = 7
QUICK = Transport(quiet=True, tries=1, pause=0.0)
FACTS = copy.deepcopy(beir.facts())
PUBLIC = [name for name, about in FACTS["sets"].items() if "obtain" not in about]
BOUND = [name for name, about in FACTS["sets"].items() if "obtain" in about]
FORUMS = list(FACTS["forums"])


def jsonl(records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def files(name, splits=("test",), prefix="", documents=DOCUMENTS):
    """A set's files: its texts name the set, so that none can pass for another; two queries a split."""
    corpus = [
        {
            "_id": f"{prefix}{i}",
            "title": f"Title {i} of {name}",
            "text": f"Café {i} – {name}.",
            "metadata": {"url": f"u{i}"},
        }
        for i in range(documents)
    ]
    queries = [
        {"_id": f"{split}{i}", "text": f"{name} {split} question {i}", "metadata": {"tags": ["a", "ü"], "n": i}}
        for split in splits
        for i in range(2)
    ]
    made = {"corpus.jsonl": jsonl(corpus), "queries.jsonl": jsonl(queries)}
    for split in splits:
        lines = [
            "query-id\tcorpus-id\tscore",
            f"{split}0\t{prefix}0\t2",
            f"{split}0\t{prefix}3\t1",
            f"{split}1\t{prefix}6\t1",
        ]
        made[f"qrels/{split}.tsv"] = "\n".join(lines) + "\n"
    return made


def own_splits(name):
    return ["test"] if name == "nq" else FACTS["sets"][name]["splits"]


def archive(name):
    """The files of a set's zip, with what some of the real ones have besides."""
    if name == "cqadupstack":
        parts = {f"{f}/{path}": text for f in FORUMS for path, text in files(f).items()}
    elif name == "nq-train":
        parts = files("nq-train", ["train"], prefix="doc")
    else:
        parts = files(name, own_splits(name), prefix="doc" if name == "nq" else "")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(f"{name}/", "")
        for path, text in parts.items():
            file.writestr(f"{name}/{path}", text)
        file.writestr(f"__MACOSX/{name}/._corpus.jsonl", "rubbish")
        file.writestr(f"{name}/notes.bin", "not a part")
    return packed.getvalue()


@pytest.fixture(scope="module")
def zips():
    return {f"/{name}.zip": archive(name) for name in [*PUBLIC, "nq-train"]}


@pytest.fixture
def known(monkeypatch):
    """The facts with the counts of what is made here."""
    made = copy.deepcopy(FACTS)
    for name, about in made["sets"].items():
        about["documents"] = DOCUMENTS * 12 if name == "cqadupstack" else DOCUMENTS
        about["queries"] = dict.fromkeys(about["splits"], 2)
    for about in made["forums"].values():
        about.update(documents=DOCUMENTS, queries={"test": 2})
    monkeypatch.setattr(beir, "facts", lambda: made)
    return made


@pytest.fixture
def site(zips, known):
    with serve(dict(zips)) as running:
        known["url"] = running.url + "/"
        for path, content in zips.items():
            about = known["sets"]["nq"]["train"] if path == "/nq-train.zip" else known["sets"][path[1:-4]]
            about["md5"] = hashlib.md5(content).hexdigest()
        yield running


def put(folder, made):
    for path, text in made.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, "utf-8")
    return folder


def bytes_below(folder):
    return {p.relative_to(folder): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def test_the_facts_are_those_of_the_field():
    assert len(PUBLIC) == 15
    assert len(BOUND) == 4
    assert len(FORUMS) == 12
    md5s = [FACTS["sets"][name]["md5"] for name in PUBLIC]
    assert len(set(md5s)) == 15
    assert all(len(md5) == 32 for md5 in md5s)
    assert FACTS["sets"]["scifact"]["md5"] == "5f7d1de60b170fc8027bb7898e2efca1"
    assert FACTS["sets"]["msmarco"]["headline_split"] == "dev"
    assert sum(about["documents"] for about in FACTS["forums"].values()) == 457_199
    assert sum(about["queries"]["test"] for about in FACTS["forums"].values()) == 13_145
    entries = {entry.id: entry for entry in [*BEIR.entries(Path("/nowhere")), *CQADUPSTACK.entries(Path("/nowhere"))]}
    assert len(entries) == 31
    assert not any(entry.available for entry in entries.values())
    assert entries["beir/nfcorpus"].splits == ("train", "dev", "test")
    assert entries["beir/nfcorpus"].queries == {"train": 2590, "dev": 324, "test": 323}
    assert entries["beir/robust04"].size is None
    assert all(entry.citation and entry.home for entry in entries.values())


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in ("nq", "cqadupstack")])
def test_download_and_load(name, site, tmp_path):
    folder = BEIR.download(name, tmp_path, QUICK)
    assert folder == tmp_path / "beir" / name
    assert sorted(p.name for p in folder.iterdir()) == ["corpus.jsonl", "qrels", "queries.jsonl"]
    assert sorted(p.name for p in (tmp_path / "beir").iterdir()) == sorted([name, f"{name}.zip"])
    before = bytes_below(folder)

    collection = load(f"beir/{name}", data=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        documents = list(collection.documents())
    assert len(documents) == DOCUMENTS
    assert documents[0] == Document("0", f"Café 0 – {name}.", f"Title 0 of {name}", {"url": "u0"})
    assert documents[3].content == f"Title 3 of {name} Café 3 – {name}."
    assert documents[-1] == Document("6", f"Café 6 – {name}.", f"Title 6 of {name}", {"url": "u6"})
    assert (collection.id, collection.group) == (f"beir/{name}", "beir")
    assert collection.splits == tuple(own_splits(name))
    for split in collection.splits:
        queries = list(collection.queries(split))
        assert queries[0] == Query(f"{split}0", f"{name} {split} question 0", {"tags": "['a', 'ü']", "n": "0"})
        assert [q.query_id for q in queries] == [f"{split}0", f"{split}1"]
        assert collection.qrels(split) == {f"{split}0": {"0": 2, "3": 1}, f"{split}1": {"6": 1}}
        pairs = list(collection.pairs(split))
        assert [(p.query_id, p.doc_id) for p in pairs] == [(f"{split}0", "0"), (f"{split}0", "3"), (f"{split}1", "6")]
        assert pairs[-1].document == documents[-1].content
    assert collection.exclude_self is (name in ("arguana", "quora"))
    assert collection.facts.get("headline_split") == ("dev" if name == "msmarco" else None)
    assert bytes_below(folder) == before


def test_downloading_again_asks_nothing(site, tmp_path):
    first = BEIR.download("scifact", tmp_path, QUICK)
    before, requests = bytes_below(first), len(site.requests)
    assert BEIR.download("scifact", tmp_path, QUICK) == first
    assert BEIR.download("scifact", tmp_path, Transport(offline=True)) == first
    assert len(site.requests) == requests
    assert bytes_below(first) == before
    assert [e.id for e in BEIR.entries(tmp_path) if e.available] == ["beir/scifact"]


def test_an_archive_with_other_bytes_is_refused(site, zips, tmp_path):
    site.files = {**site.files, "/scifact.zip": zips["/quora.zip"]}
    with pytest.raises(DataError, match="md5"):
        BEIR.download("scifact", tmp_path, QUICK)
    assert not (tmp_path / "beir" / "scifact").exists()
    assert not list((tmp_path / "beir").glob("*.zip"))


def test_an_archive_without_a_corpus_is_refused(site, known, tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("scifact/queries.jsonl", files("scifact")["queries.jsonl"])
    site.files = {**site.files, "/scifact.zip": packed.getvalue()}
    known["sets"]["scifact"]["md5"] = hashlib.md5(packed.getvalue()).hexdigest()
    with pytest.raises(DataError, match=r"has no scifact/corpus\.jsonl"):
        BEIR.download("scifact", tmp_path, QUICK)
    assert [p.name for p in (tmp_path / "beir").iterdir()] == ["scifact.zip"]


def test_a_folder_that_is_not_whole_is_left_alone(site, tmp_path):
    put(tmp_path / "beir" / "fiqa", {"queries.jsonl": "{}\n"})
    with pytest.raises(DataError, match="not all of its files; move it away"):
        BEIR.download("fiqa", tmp_path, QUICK)
    assert bytes_below(tmp_path / "beir" / "fiqa") == {Path("queries.jsonl"): b"{}\n"}


def test_missing_files_are_said(tmp_path):
    with pytest.raises(DataError, match=r"foreword download beir/nfcorpus"):
        load("beir/nfcorpus", data=tmp_path)
    with pytest.raises(DataError, match=r"foreword download cqadupstack/tex"):
        load("cqadupstack/tex", data=tmp_path)
    with pytest.raises(UnknownNameError, match="beir/nfcorpus"):
        load("beir/nfcorpu", data=tmp_path)
    with pytest.raises(UnknownNameError, match="known: android"):
        CQADUPSTACK.download("androids", tmp_path, QUICK)
    with pytest.raises(UnknownNameError, match="known: msmarco"):
        BEIR.download("masmarco", tmp_path, QUICK)


def test_a_users_own_copy(known, tmp_path):
    put(tmp_path / "nfcorpus", files("nfcorpus", ["train", "dev", "test"]))
    put(tmp_path / "gaming", files("gaming"))
    assert load("beir/nfcorpus", data=tmp_path).splits == ("train", "dev", "test")
    assert next(iter(load("cqadupstack/gaming", data=tmp_path).documents())).text == "Café 0 – gaming."
    assert BEIR.download("nfcorpus", tmp_path, Transport(offline=True)) == tmp_path / "nfcorpus"
    assert CQADUPSTACK.download("gaming", tmp_path, Transport(offline=True)) == tmp_path / "gaming"


@pytest.mark.parametrize("name", BOUND)
def test_sets_bound_by_a_licence_come_from_a_folder_alone(name, site, tmp_path):
    place = tmp_path / "beir" / name
    with pytest.raises(DataError, match="licence forbids") as caught:
        BEIR.download(name, tmp_path, QUICK)
    assert str(place) in str(caught.value)
    assert FACTS["sets"][name]["home"] in str(caught.value)
    assert not site.requests
    put(place, files(name, own_splits(name)))
    collection = load(f"beir/{name}", data=tmp_path)
    documents = list(collection.documents())
    assert [len(documents), documents[0].doc_id, documents[4].text, documents[-1].doc_id] == [
        7,
        "0",
        f"Café 4 – {name}.",
        "6",
    ]
    assert collection.splits == tuple(own_splits(name))
    assert BEIR.download(name, tmp_path, QUICK) == place


def test_a_cut_corpus_is_said(known, tmp_path):
    put(tmp_path / "beir" / "scidocs", files("scidocs"))
    known["sets"]["scidocs"]["documents"] = 9
    collection = load("beir/scidocs", data=tmp_path)
    with pytest.warns(DataWarning, match="7 documents; the whole collection has 9"):
        list(collection.documents())
    assert collection.facts["missing_documents"] == 2
    (tmp_path / "beir" / "scidocs" / "subsample.json").write_text('{"source": "beir/scidocs", "documents": 7}')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(load("beir/scidocs", data=tmp_path).documents())


def test_arguana_leaves_the_query_itself_out(known, tmp_path):
    from foreword.retrieval.search import bm25_run

    made = files("arguana")
    made["queries.jsonl"] = jsonl([{"_id": "3", "text": "Café 3 – arguana.", "metadata": {}}])
    made["qrels/test.tsv"] = "query-id\tcorpus-id\tscore\n3\t4\t1\n"
    put(tmp_path / "beir" / "arguana", made)
    collection = load("beir/arguana", data=tmp_path)
    run = bm25_run(collection, list(collection.queries("test")), k=7)
    assert len(run["3"]) > 1
    assert "3" not in run["3"]


def test_nq_has_a_train_split_with_its_own_corpus(site, tmp_path):
    BEIR.download("nq", tmp_path, QUICK)
    assert {r.path for r in site.requests} == {"/nq.zip", "/nq-train.zip"}
    collection = load("beir/nq", data=tmp_path)
    assert collection.splits == ("train", "test")
    assert [d.doc_id for d in collection.documents()] == [f"doc{i}" for i in range(7)]
    assert all("nq-train" not in d.text for d in collection.documents())
    pairs = list(collection.pairs("train"))
    assert [(p.query_id, p.doc_id) for p in pairs][::2] == [("train0", "nq-train/doc0"), ("train1", "nq-train/doc6")]
    assert pairs[1].document == "Title 3 of nq-train Café 3 – nq-train."
    assert [q.text for q in collection.queries("train")] == ["nq-train train question 0", "nq-train train question 1"]
    assert collection.qrels("train")["train0"] == {"nq-train/doc0": 2, "nq-train/doc3": 1}
    own = {d.doc_id: d for d in collection.documents_for("train")}
    assert len(own) == 7
    assert own["nq-train/doc6"].text == "Café 6 – nq-train."
    assert collection.qrels("test") == {"test0": {"doc0": 2, "doc3": 1}, "test1": {"doc6": 1}}
    assert [p.document for p in collection.pairs("test")][-1] == "Title 6 of nq Café 6 – nq."
    assert [d.text for d in collection.documents_for("test")] == [d.text for d in collection.documents()]
    assert collection.facts["train"]["path"] == str(tmp_path / "beir" / "nq-train")
    assert len(fingerprint(collection)) == 64


def test_nq_without_its_train_split(site, tmp_path):
    site.files = {path: content for path, content in site.files.items() if path != "/nq-train.zip"}
    with pytest.raises(DataError, match="nq-train"):
        BEIR.download("nq", tmp_path, QUICK)
    collection = load("beir/nq", data=tmp_path)
    assert collection.splits == ("test",)
    assert "foreword download beir/nq" in collection.facts["train"]
    for method in (collection.queries, collection.qrels, collection.pairs):
        with pytest.raises(UnknownNameError, match="no split 'train'"):
            method("train")


def test_the_forums_are_fetched_once_and_are_collections_of_their_own(site, tmp_path):
    for forum in FORUMS:
        assert CQADUPSTACK.download(forum, tmp_path, QUICK) == tmp_path / "beir" / "cqadupstack" / forum
    assert BEIR.download("cqadupstack", tmp_path, QUICK) == tmp_path / "beir" / "cqadupstack"
    assert len(site.requests) == 1
    before = bytes_below(tmp_path / "beir")
    for forum in FORUMS:
        collection = load(f"cqadupstack/{forum}", data=tmp_path)
        documents = list(collection.documents())
        assert [d.doc_id for d in documents] == [str(i) for i in range(7)]
        assert [documents[0].text, documents[5].title, documents[-1].text] == [
            f"Café 0 – {forum}.",
            f"Title 5 of {forum}",
            f"Café 6 – {forum}.",
        ]
        assert [q.text for q in collection.queries("test")] == [f"{forum} test question 0", f"{forum} test question 1"]
        assert collection.qrels("test") == {"test0": {"0": 2, "3": 1}, "test1": {"6": 1}}
        assert (collection.id, collection.group) == (f"cqadupstack/{forum}", "cqadupstack")
    assert all(entry.available for entry in CQADUPSTACK.entries(tmp_path))
    assert bytes_below(tmp_path / "beir") == before


def test_the_forums_as_one_collection(site, tmp_path):
    BEIR.download("cqadupstack", tmp_path, QUICK)
    collection = load("beir/cqadupstack", data=tmp_path)
    assert (collection.id, collection.group, collection.splits) == ("beir/cqadupstack", "beir", ("test",))
    documents = list(collection.documents())
    assert len(documents) == len({d.doc_id for d in documents}) == 12 * 7
    assert documents[0] == Document("android/0", "Café 0 – android.", "Title 0 of android", {"url": "u0"})
    assert documents[7].doc_id == "english/0"
    assert documents[-1].doc_id == "wordpress/6"
    queries = list(collection.queries("test"))
    assert len(queries) == len({q.query_id for q in queries}) == 24
    assert [queries[0].query_id, queries[3].text, queries[-1].query_id] == [
        "android/test0",
        "english test question 1",
        "wordpress/test1",
    ]
    assert not any(c.isspace() for item in [*documents] for c in item.doc_id)
    qrels = collection.qrels("test")
    assert list(qrels) == [q.query_id for q in queries]
    assert qrels["tex/test0"] == {"tex/0": 2, "tex/3": 1}
    pairs = list(collection.pairs("test"))
    assert len(pairs) == 36
    assert pairs[-1].document == "Title 6 of wordpress Café 6 – wordpress."
    with pytest.raises(UnknownNameError, match="no split 'train'"):
        collection.queries("train")
    assert collection.facts["forums"]["gis"]["path"].endswith("gis")


def test_the_forums_as_one_need_all_of_them(site, tmp_path):
    folder = BEIR.download("cqadupstack", tmp_path, QUICK)
    (folder / "tex" / "corpus.jsonl").unlink()
    with pytest.raises(DataError, match="foreword download beir/cqadupstack"):
        load("beir/cqadupstack", data=tmp_path)
    assert load("cqadupstack/gis", data=tmp_path).splits == ("test",)


def test_texts_of_a_target_are_left_out(known, tmp_path):
    put(tmp_path / "beir" / "fiqa", files("fiqa", ["train", "dev", "test"]))
    put(
        tmp_path / "scifact",
        files("fiqa", ["train", "test"], documents=2) | {"qrels/test.tsv": "query-id\tcorpus-id\tscore\ntest0\t0\t1\n"},
    )
    put(tmp_path / "scifact", {"qrels/train.tsv": "query-id\tcorpus-id\tscore\ntrain0\t0\t1\n"})
    known["sets"]["scifact"]["documents"] = 2
    target = load("beir/scifact", data=tmp_path)
    source = load("beir/fiqa", data=tmp_path, exclude=[target])
    assert [d.doc_id for d in source.documents()] == ["2", "3", "4", "5", "6"]
    assert source.facts["excluded_documents"] == 2
    assert source.id == "beir/fiqa"
