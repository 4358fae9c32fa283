"""`folder:PATH`: BEIR's layout and TREC's judgements, their faults, and that nothing on disk is changed."""

from __future__ import annotations

import gzip
import json
import math
import warnings

import pytest

from foreword.collections import DataWarning, fingerprint, load
from foreword.collections.collection import Document, Query
from foreword.errors import DataError, UnknownNameError
from foreword.evaluation.measures import evaluate_run

CORPUS = [
    {"_id": "d1", "title": "One", "text": "first text", "metadata": {"url": "u", "year": 1999}},
    {"_id": "d2", "title": "", "text": "second text", "metadata": {}},
    {"_id": "d3", "text": "drittes Stück"},
]
QUERIES = [{"_id": "q1", "text": "first?"}, {"_id": "q2", "text": "second?"}, {"_id": "q3", "text": "nobody"}]
HEADER = "query-id\tcorpus-id\tscore\n"


def lines(records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def write(folder, corpus=None, queries=None, gz=False, **qrels):
    files = {
        "corpus.jsonl": lines(CORPUS) if corpus is None else corpus,
        "queries.jsonl": lines(QUERIES) if queries is None else queries,
    }
    files |= {f"qrels/{split}.tsv": text for split, text in qrels.items()}
    for name, text in files.items():
        content = text if isinstance(text, bytes) else text.encode()
        path = folder / (name + ".gz" * gz)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if gz else content)
    return f"folder:{folder}"


@pytest.mark.parametrize("gz", [False, True])
def test_beir_layout(tmp_path, gz):
    name = write(tmp_path, gz=gz, test=HEADER + "q2\td2\t2\nq1\td1\t1\nq1\td3\t0\n", train="q3\td3\t1\n")
    collection = load(name)
    assert (collection.id, collection.group, collection.splits) == (name, "folder", ("train", "test"))
    for _ in range(2):  # every method can be called again
        assert list(collection.documents()) == [
            Document("d1", "first text", "One", {"url": "u", "year": "1999"}),
            Document("d2", "second text"),
            Document("d3", "drittes Stück"),
        ]
        assert list(collection.queries("test")) == [Query("q1", "first?"), Query("q2", "second?")]
        assert [q.query_id for q in collection.queries("all")] == ["q1", "q2", "q3"]
    assert collection.qrels("test") == {"q2": {"d2": 2}, "q1": {"d1": 1, "d3": 0}}
    assert [(p.query_id, p.doc_id, p.document) for p in collection.pairs("test")] == [
        ("q1", "d1", "One first text"),
        ("q2", "d2", "second text"),
    ]
    assert not collection.exclude_self
    with pytest.raises(UnknownNameError, match="no split 'dev'; it has train, test"):
        collection.qrels("dev")


def test_streams_and_holds_no_corpus(tmp_path):
    collection = load(write(tmp_path, test=HEADER + "q1\td1\t1\n"))
    stream = iter(collection.documents())
    assert next(stream).doc_id == "d1"
    assert not any(isinstance(value, list | tuple) for value in vars(collection).values())


@pytest.mark.parametrize(
    "text",
    [
        "query-id\tcorpus-id\tscore\t\nq1\td1\t1\t\nq2\td2\t0\t\n",  # BEIR's reader takes the first three columns
        "\ufeffQuery ID\tDocument ID\tRelevance\r\nq1\td1\t1.0\r\nq2\td2\t-0\t\t\r\n",
        "qid docid rel\nq1 d1 1\nq2 d2 0",
        "query_id\titer\tdoc_id\trelevance\nq1\t0\td1\t1\nq2\t0\td2\t0\n",
        "q1\td1\t1\nq2\td2\t0\n",
    ],
)
def test_judgements_as_others_write_them(tmp_path, text):
    assert load(write(tmp_path, test=text)).qrels("test") == {"q1": {"d1": 1}, "q2": {"d2": 0}}


@pytest.mark.parametrize("text", ["q1 0 d1 1\nq2 0 d2 0\n", "q1\t0\td1\t1\r\nq2\tQ0\td2\t0\r\n"])
def test_judgements_in_trecs_layout(tmp_path, text):
    assert load(write(tmp_path, validation=text)).qrels("dev") == {"q1": {"d1": 1}, "q2": {"d2": 0}}
    (tmp_path / "qrels" / "validation.tsv").rename(tmp_path / "qrels.txt")
    (tmp_path / "qrels").rmdir()
    assert load(f"folder:{tmp_path}").splits == ("test",)


def test_documents_only(tmp_path):
    write(tmp_path)
    (tmp_path / "queries.jsonl").unlink()
    collection = load(f"folder:{tmp_path}")
    assert (collection.splits, list(collection.queries("all"))) == ((), [])
    with pytest.raises(UnknownNameError, match="no judgements at all"):
        collection.queries("test")
    assert len(fingerprint(collection)) == 64


def test_text_files_are_documents(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "sub" / "b c.txt").write_text("plain\ntext\n")
    (tmp_path / "a.md").write_text("# Title\n\nBody\n")
    (tmp_path / ".git" / "x.txt").write_text("hidden")
    assert list(load(f"folder:{tmp_path}").documents()) == [
        Document("a.md", "Body", "Title", {"file": "a.md"}),
        Document("sub/b_c.txt", "plain\ntext", "", {"file": "sub/b c.txt"}),
    ]


BROKEN_CORPORA = {
    "json": (lines(CORPUS[:2]) + '{"_id": "d9", "te\n', 3, "broken JSON"),
    "list": ("[1]\n", 1, "expected a JSON object, got list"),
    "no id": (lines([{"text": "x"}]), 1, r"expected '_id'.*\['text'\]"),
    "no text": (lines([CORPUS[0], {"_id": "x", "title": "t"}]), 2, "expected 'text', a text; got nothing"),
    "text is a number": (lines([{"_id": "x", "text": 5}]), 1, "got int"),
    "twice": (lines([*CORPUS, CORPUS[0]]), 4, "'d1' comes twice"),
    "latin-1": (lines(CORPUS).encode("latin-1"), 3, "not UTF-8 .*convert"),
    "blanks in id": (lines([{"_id": "a b", "text": "x"}]), 1, "blanks"),
}


@pytest.mark.parametrize("case", BROKEN_CORPORA)
def test_broken_corpora_name_file_and_line(tmp_path, case):
    corpus, line, message = BROKEN_CORPORA[case]
    collection = load(write(tmp_path, corpus=corpus))
    with pytest.raises(DataError, match=message) as caught:
        list(collection.documents())
    assert (caught.value.path, caught.value.line) == (tmp_path / "corpus.jsonl", line)
    assert str(caught.value).startswith(f"{tmp_path / 'corpus.jsonl'}:{line}: ")


BROKEN_QRELS = {
    "columns": (HEADER + "q1\td1\n", 2, "2 columns; expected 'query-id corpus-id score'"),
    "five": ("q1 0 d1 1 x\n", 1, "5 columns"),
    "fraction": (HEADER + "q1\td1\t0.5\n", 2, "whole number, got '0.5'"),
    "word": ("q1 0 d1 yes\n", 1, "whole number, got 'yes'"),
    "no header": ("q1\td1\tyes\nq1\td2\t1\n", 1, "whole number, got 'yes'"),
    "header of other names": ("Frage\tDokument\tPunkte\nq1\td2\t1\n", 1, "got 'Punkte'"),
    "header of documents": ("query-id\td1\thigh\n", 1, "got 'high'"),
    "two headers": (HEADER + HEADER, 2, "got 'score'"),
    "empty score": (HEADER + "q1\td1\t\n", 2, "2 columns"),
    "billion": (HEADER + "q1\td1\t1000000000\n", 2, "at most 1,000,000"),
    "digits": (HEADER + "q1\td1\t" + "9" * 5000 + "\n", 2, r"at most 1,000,000, got '9+$"),
    "infinite": (HEADER + "q1\td1\tinf\n", 2, "got 'inf'"),
    "contradiction": (HEADER + "q1\td1\t1\nq1\td1\t2\n", 3, "judged 2 here and 1 before"),
}


@pytest.mark.parametrize("case", BROKEN_QRELS)
def test_broken_judgements_name_file_and_line(tmp_path, case):
    text, line, message = BROKEN_QRELS[case]
    with pytest.raises(DataError, match=message) as caught:
        load(write(tmp_path, test=text)).qrels("test")
    assert (caught.value.path, caught.value.line) == (tmp_path / "qrels" / "test.tsv", line)


def test_what_the_field_skips_is_counted_in_one_warning(tmp_path):
    corpus = lines([*CORPUS, {"_id": "d4", "text": " "}])
    qrels = HEADER + "q1\td1\t1\nq1\tgone\t1\nq1\tlost\t1\nnobody\td1\t1\nq2\td2\t-1\n"
    collection = load(write(tmp_path, corpus=corpus, test=qrels))
    with pytest.warns(DataWarning) as said:
        assert collection.qrels("test") == {"q1": {"d1": 1}, "q2": {"d2": -1}}
    assert sorted(str(w.message).split(": ", 1)[1].split(";")[0] for w in said) == [
        "1 documents have no text",
        "1 judgements name a query that is not there and were skipped",
        "2 judgements name a document that is not there and were skipped",
    ]
    assert collection.facts["judgements_of_unknown_documents"] == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(collection.documents())) == 4
        collection.qrels("test")


def test_other_faults(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        load(f"folder:{tmp_path}/none")
    with pytest.raises(DataError, match=r"no corpus\.jsonl"):
        load(f"folder:{tmp_path}")
    name = write(tmp_path, test=HEADER + "q1\td1\t1\n", queries=lines([{"_id": "q1", "text": " "}]))
    with pytest.raises(DataError, match=r"queries\.jsonl:1: query 'q1' has no text"):
        list(load(name).queries())
    (tmp_path / "queries.jsonl").unlink()
    with pytest.raises(DataError, match=r"no queries\.jsonl"):
        load(name)
    packed = gzip.compress(lines(CORPUS * 50).encode())
    (tmp_path / "corpus.jsonl").unlink()
    (tmp_path / "qrels" / "test.tsv").unlink()
    (tmp_path / "corpus.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match=r"corpus\.jsonl\.gz:(\d+:)? (broken gzip|.*comes twice)"):
        list(load(name).documents())


def test_two_files_of_one_split(tmp_path):
    with pytest.raises(DataError, match=r"split .dev. are in dev\.tsv too"):
        load(write(tmp_path, dev="q1 0 d1 1\n", val="q1 0 d1 1\n"))


def test_self_retrieving_collections(tmp_path):
    assert load(write(tmp_path / "ArguAna")).exclude_self
    assert not load(f"folder:{tmp_path}/ArguAna", exclude_self=False).exclude_self
    assert load(write(tmp_path / "other"), exclude_self=True).exclude_self


def test_nothing_on_disk_is_changed(tmp_path):
    name = write(tmp_path, test=HEADER + "q1\td1\t1\nq9\td9\t1\n")

    def state():
        found = sorted(tmp_path.rglob("*"))
        return [(p, p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else b"") for p in found]

    before = state()
    collection = load(name)
    with pytest.warns(DataWarning):
        assert len(list(collection.pairs("test"))) == 1
    assert len(list(collection.documents())) == len(CORPUS)
    assert fingerprint(collection)
    with pytest.raises(UnknownNameError):
        collection.pairs("train")
    assert state() == before


def test_exclude_streams_what_is_left(tmp_path):
    name = write(tmp_path / "a", train=HEADER + "q1\td1\t1\nq2\td2\t1\nq3\td3\t1\n")
    other = write(
        tmp_path / "b",
        corpus=lines([{"_id": "x", "text": "ONE: first text!"}, {"_id": "y", "text": "else"}]),
        queries=lines([{"_id": "1", "text": "Second"}]),
        test=HEADER + "1\ty\t1\n",
    )
    left = load(name, exclude=[load(other)])
    assert [d.doc_id for d in left.documents()] == ["d2", "d3"]
    assert [q.query_id for q in left.queries("train")] == ["q3"]
    assert left.qrels("train") == {"q3": {"d3": 1}}
    assert [p.query_id for p in left.pairs("train")] == ["q3"]
    assert left.facts["excluded_documents"] == 1
    assert left.facts["excluded_queries"] == 2


def test_grades_below_zero_reach_the_measures_that_read_them(tmp_path):
    name = write(tmp_path, test=HEADER + "q1\td1\t1\nq1\td2\t-1\nq1\td3\t0\n")
    run = {"q1": {"d2": 2.0, "d1": 1.0}}
    found = evaluate_run(run, load(name).qrels("test"), ["Bpref", "infAP", "nDCG@10", "AP"]).values
    assert found == pytest.approx(
        {"Bpref": 1.0, "infAP": 0.75, "nDCG@10": math.log(2) / math.log(3), "AP": 0.5}, abs=1e-4
    )
    assert [pair.doc_id for pair in load(name).pairs("test")] == ["d1"]
