"""`oag-qa/<topic>` and `oag-qa-disciplines/<discipline>`: the tables' formats and faults, matching, splits, downloads."""

from __future__ import annotations

import csv
import json
import os
import sys
import types
import warnings
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from foreword.collections import DataWarning
from foreword.collections.collection import FRACTIONS, Document, normalise, split_of
from foreword.collections.oag_qa import DISCIPLINES, TOPICS, facts, literal_titles, read_papers, read_questions
from foreword.downloads import Transport
from foreword.errors import DataError, UnknownNameError

PAPERS = [
    ("p1", "On matrices.\nSecond line", "Matrix\tanalysis"),
    ("p2", 'He said "no"', 'The "quoted" title'),
    ("p3", "", "Bayes' theorem"),
    ("p4", "other abstract", "Bayes' theorem"),
    ("p5", "last", "Plain Title"),
]
QUESTIONS = [
    ("What is a\tmatrix?", ["Matrix\tanalysis"]),
    ("Who said so?\nAnd why?", ['The "quoted" title', "Bayes' theorem"]),
    ('Is "plain" plain?', ["plain title."]),
    ("What does nobody answer?", ["A title of no paper", ""]),
    ("Is the list empty?", []),
]


def write_tsv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows(rows)


def write_topic(folder, topic, papers=PAPERS, questions=QUESTIONS, header=False):
    head = [("id", "abstract", "title")] if header else []
    write_tsv(folder / f"{topic}-papers-10k.tsv", [*head, *papers])
    write_tsv(folder / f"{topic}-questions.tsv", [(text, str(titles)) for text, titles in questions])
    return folder


def quietly(load, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return load(*args, **options)


def judged(collection):
    return {query_id: found for split in collection.splits for query_id, found in collection.qrels(split).items()}


def texts(collection):
    return {query.query_id: query.text for split in collection.splits for query in collection.queries(split)}


def test_the_topics():
    topics = [topic for listed in facts()["disciplines"].values() for topic in listed]
    assert len(topics) == len(set(topics)) == len(TOPICS.names()) == 87
    assert len(DISCIPLINES.entries()) == 22
    assert (min(topics), max(topics)) == ("algebra", "universe")
    assert facts()["disciplines"]["nlp"] == ["natural_language_processing", "recurrent_neural_network"]
    assert facts()["headline"] == "Success@20"
    assert TOPICS.knows("geometry")
    assert not TOPICS.knows("nlp")
    assert DISCIPLINES.knows("nlp")
    with pytest.raises(UnknownNameError, match="no topic 'geometri'"):
        TOPICS.load("geometri")
    with pytest.raises(UnknownNameError, match="known: algebra, algorithm"):
        DISCIPLINES.load("photon")


@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("below", ["", "oagqa-topic-v2", "oag-qa", "oag-qa/oagqa-topic-v2", "oag-qa/a/b"])
def test_a_topic(tmp_path, header, below):
    folder = write_topic(tmp_path / below, "geometry", header=header)
    with pytest.warns(DataWarning, match="oag-qa/geometry: 3 of 5 questions list no title of any paper here"):
        collection = TOPICS.load("geometry", data=tmp_path)
    documents = list(collection.documents())
    assert len(documents) == 5
    assert documents[0] == Document("p1", "On matrices.\nSecond line", "Matrix\tanalysis")
    assert documents[1] == Document("p2", 'He said "no"', 'The "quoted" title')
    assert documents[-1] == Document("p5", "last", "Plain Title")
    assert judged(collection) == {"q1": {"p1": 1}, "q2": {"p2": 1, "p3": 1, "p4": 1}}
    assert texts(collection) == {"q1": "What is a\tmatrix?", "q2": "Who said so?\nAnd why?"}
    assert (collection.id, collection.group) == ("oag-qa/geometry", "oag-qa")
    counts = collection.facts
    assert counts["path"] == str(folder)
    assert (counts["documents"], counts["questions"], counts["questions_without_paper"]) == (5, 5, 3)
    assert (counts["titles_listed"], counts["titles_without_paper"]) == (6, 3)
    assert counts["split"]["seed"] == 0
    assert {pair.document for split in collection.splits for pair in collection.pairs(split)} >= {
        "Matrix\tanalysis On matrices.\nSecond line",
        "Bayes' theorem",
    }


def test_normalised_titles_find_more(tmp_path):
    write_topic(tmp_path, "matrix")
    exact = quietly(TOPICS.load, "matrix", data=tmp_path)
    loose = quietly(TOPICS.load, "matrix", data=tmp_path, titles="normalised")
    assert judged(loose) == {**judged(exact), "q3": {"p5": 1}}
    assert (exact.facts["titles"], loose.facts["titles"]) == ("exact", "normalised")
    with pytest.raises(UnknownNameError, match="titles is one of exact, normalised; got 'loose'"):
        TOPICS.load("matrix", data=tmp_path, titles="loose")


def test_papers_whose_id_repeats_are_counted(tmp_path):
    write_topic(tmp_path, "optics", papers=[*PAPERS, ("p1", "again", "Again")])
    with pytest.warns(DataWarning) as caught:
        collection = TOPICS.load("optics", data=tmp_path)
    assert "1 rows repeat a paper's id; the first one is kept" in str(caught[-1].message)
    assert next(d.title for d in collection.documents()) == "Matrix\tanalysis"
    assert (collection.facts["repeated_documents"], len(list(collection.documents()))) == (1, 5)


def test_header_in_another_order_and_long_fields(tmp_path):
    path = tmp_path / "x.tsv"
    long = "word " * 40_000
    limit = csv.field_size_limit()
    write_tsv(path, [("id", "title", "abstract"), ("a", "T", long)])
    assert read_papers(path, Counter()) == [Document("a", long, "T")]
    assert csv.field_size_limit() == limit
    write_tsv(path, [("id", "title"), ("a", "T")])
    with pytest.raises(DataError, match=r"x.tsv:1: the header .* has no abstract"):
        read_papers(path, Counter())


@pytest.mark.parametrize(
    ("text", "titles"),
    [
        ("[]", ()),
        ("['a']", ("a",)),
        ("""[ 'it''s' ]""".replace("''", r"\'"), ("it's",)),
        ("""['a, b', "it's", '[x]', 'tab\\t', 'é \\u00e9',]""", ("a, b", "it's", "[x]", "tab\t", "é é")),
    ],
)
def test_lists_of_titles(tmp_path, text, titles):
    assert literal_titles(text, tmp_path, 1) == titles


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch evil')",
        "[__import__('os').system('touch evil')]",
        "['a', open('x').read()]",
        "['a' 'b']",
        "[['a']]",
        "[" * 5000 + "]" * 5000,
        "['" + "a', '" * 300_000 + "']",
        "-" * 50_000 + "1",
        "'a'",
        "('a',)",
        "[1]",
        "[None]",
        "['a",
        "['\\x']",
        "[f'{1}']",
        "['a'] + ['b']",
        "",
        "nan",
    ],
)
def test_other_literals_are_refused(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "q.tsv"
    write_tsv(path, [("fine\nin two lines", "['a']"), ("broken", text)])
    with pytest.raises(DataError, match=r"q\.tsv:3: ") as caught:
        read_questions(path)
    assert (caught.value.path, caught.value.line) == (path, 3)
    assert len(str(caught.value)) < 500
    assert os.listdir(tmp_path) == ["q.tsv"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"only a question\n", "x.tsv:1: 1 column; expected a question and a list of titles"),
        (b"fine\t[]\n \t[]\n", "x.tsv:2: the question is empty"),
        (b'fine\t[]\n"open\t[]\nnext\t[]\n', "x.tsv:2: a quote that opens in this row is never closed"),
        (b"caf\xe9\t[]\n", "x.tsv:1: not UTF-8"),
    ],
)
def test_broken_questions(tmp_path, content, message):
    path = tmp_path / "x.tsv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_questions(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [(("a", "b"), "2 columns; expected id, abstract, title"), (("a b", "", ""), "without blanks, got 'a b'")],
)
def test_broken_papers(tmp_path, row, message):
    write_tsv(tmp_path / "x.tsv", [PAPERS[0], row])
    with pytest.raises(DataError, match=rf"x\.tsv:3: .*{message}"):  # the first row takes two lines
        read_papers(tmp_path / "x.tsv", Counter())


def test_line_ends_a_byte_order_mark_and_blank_lines(tmp_path):
    (tmp_path / "x.tsv").write_bytes(b"\xef\xbb\xbfone\t[]\r\n\r\ntwo\t['a']")
    assert [(q.query_id, q.text, q.titles) for q in read_questions(tmp_path / "x.tsv")] == [
        ("q1", "one", ()),
        ("q2", "two", ("a",)),
    ]


def many(count, copies=2):
    return [
        (f"{'  ' * copy}Question number {i}{'?!' * copy}", [f"Title {i % 50}"])
        for i in range(count)
        for copy in range(copies)
    ]


def test_splits_are_disjoint_seeded_and_keep_copies_together(tmp_path):
    papers = [(f"p{i}", "", f"Title {i}") for i in range(50)]
    write_topic(tmp_path, "entropy", papers, many(600))
    first, again, other = (TOPICS.load("entropy", data=tmp_path, seed=seed) for seed in (0, 0, 1))
    assert first.splits == ("train", "dev", "test")
    ids = {split: {q.query_id for q in first.queries(split)} for split in first.splits}
    assert sum(map(len, ids.values())) == len(set().union(*ids.values())) == 1200
    for split, share in FRACTIONS:
        assert abs(len(ids[split]) / 1200 - share) < 0.05
        assert [q.query_id for q in first.queries(split)] == [q.query_id for q in again.queries(split)]
        assert {q.query_id for q in other.queries(split)} != ids[split]
        assert set(first.qrels(split)) == ids[split]
    for collection in (first, other):
        normal = [{normalise(q.text) for q in collection.queries(split)} for split in collection.splits]
        assert sum(map(len, normal)) == len(set().union(*normal)) == 600
    assert (other.facts["split"]["seed"], split_of("a text", 0)) == (1, split_of("a text"))


def test_a_discipline_is_the_union_of_its_topics(tmp_path):
    shared = ("p1", "in both", "Shared title")
    one = [shared, *((f"a{i}", "", f"Title {i}") for i in range(50))]
    two = [shared, ("b1", "", "Only in the second")]
    asked = [*many(40, copies=1), ("Where is it?", ["Only in the second"])]
    write_topic(tmp_path, "algebra", one, asked)
    with pytest.raises(DataError, match=r"polynomial-questions.tsv, polynomial-papers-10k.tsv \(looked in "):
        DISCIPLINES.load("algebra", data=tmp_path)
    write_topic(
        tmp_path, "polynomial", two, [("Shared?", ["Shared title"]), ("Question number 7", ["Only in the second"])]
    )
    union = DISCIPLINES.load("algebra", data=tmp_path)
    documents = list(union.documents())
    assert (documents[0].doc_id, documents[-1].doc_id, len(documents)) == ("algebra/p1", "polynomial/b1", 53)
    assert documents[0].metadata == {"topic": "algebra"}
    found = judged(union)
    assert found["polynomial/q1"] == {"algebra/p1": 1, "polynomial/p1": 1}
    assert found["algebra/q41"] == {"polynomial/b1": 1}
    assert len(found) == 43
    topic = quietly(TOPICS.load, "algebra", data=tmp_path)
    for split in topic.splits:
        ids = {f"algebra/{q.query_id}" for q in topic.queries(split)}
        assert ids <= {q.query_id for q in union.queries(split)}
    assert (union.id, union.group) == ("oag-qa-disciplines/algebra", "oag-qa-disciplines")


def test_excluded_texts(tmp_path):
    write_topic(tmp_path, "matrix")
    target = quietly(TOPICS.load, "matrix", data=tmp_path)
    rest = quietly(TOPICS.load, "matrix", data=tmp_path, titles="normalised", exclude=[target])
    assert list(rest.documents()) == []


def test_missing_files_are_named(tmp_path):
    (tmp_path / "oag-qa").mkdir()
    write_tsv(tmp_path / "oag-qa" / "photon-questions.tsv", [])
    with pytest.raises(DataError) as caught:
        TOPICS.load("photon", data=tmp_path)
    message = str(caught.value)
    assert "needs the files photon-papers-10k.tsv (looked in" in message
    assert str(tmp_path / "oag-qa") in message
    assert "foreword download oag-qa/photon --from PATH" in message
    entries = {entry.id: entry for entry in TOPICS.entries(tmp_path)}
    assert (len(entries), entries["oag-qa/photon"].available) == (87, False)
    write_topic(tmp_path / "oag-qa", "photon")
    entry = next(e for e in TOPICS.entries(tmp_path) if e.id == "oag-qa/photon")
    assert (entry.available, entry.splits, entry.group) == (True, ("train", "dev", "test"), "oag-qa")


def archive(tmp_path, topics=("photon", "optics")):
    path = tmp_path / "made.zip"
    with zipfile.ZipFile(path, "w") as file:
        for topic in topics:
            folder = write_topic(tmp_path / "making", topic)
            for made in sorted(folder.glob(f"{topic}-*")):
                file.write(made, f"oagqa-topic-v2/{made.name}")
        file.writestr("oagqa-topic-v2/photon-train.json", "[]")
        file.writestr("__MACOSX/oagqa-topic-v2/._photon-questions.tsv", "x")
    return path


def fake_gdown(monkeypatch, download):
    monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=download))


def test_download_from_drive_serves_every_topic(tmp_path, monkeypatch):
    made, data, calls = archive(tmp_path), tmp_path / "data", []

    def download(*, id, output, quiet):
        calls.append((id, quiet))
        with open(output, "wb") as file:
            file.write(made.read_bytes())
        return output

    fake_gdown(monkeypatch, download)
    data.mkdir()
    folder = TOPICS.download("photon", data, Transport(quiet=True))
    assert calls == [("1jEAzWq_J0cXz1pvT9nQ2s2ooGdcR8r6-", True)]
    assert folder == data / "oag-qa" / "oagqa-topic-v2"
    assert len(list((data / "oag-qa").rglob("*.*"))) == 4  # neither training files nor hidden ones
    assert TOPICS.download("optics", data, Transport(offline=True)) == folder
    assert len(calls) == 1
    quietly(TOPICS.load, "optics", data=data)
    record = json.loads((data / ".records" / "oagqa-topic-v2.zip.json").read_text())
    assert record["size"] == made.stat().st_size
    with pytest.raises(DataError, match=r"quantum_gravity-papers-10k.tsv \(looked in|is there but lacks files"):
        DISCIPLINES.download("quantum_mechanics", data, Transport())


def test_failed_downloads_leave_nothing(tmp_path, monkeypatch):
    def refuse(*, id, output, quiet):
        with open(output, "w") as file:
            file.write("half")
        raise RuntimeError("Too many users have viewed this file")

    fake_gdown(monkeypatch, refuse)
    for transport, message in ((Transport(), "Too many users"), (Transport(offline=True), "switched off")):
        with pytest.raises(DataError, match=message) as caught:
            TOPICS.download("photon", tmp_path, transport)
        assert "--from PATH" in str(caught.value)
    fake_gdown(monkeypatch, lambda **_: None)
    with pytest.raises(DataError, match="brought no file"):
        TOPICS.download("photon", tmp_path, Transport())
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(DataError, match=r"pip install foreword\[download\]"):
        TOPICS.download("photon", tmp_path, Transport())
    assert [path.name for path in tmp_path.iterdir()] == [".locks"]


@pytest.mark.parametrize("kind", ["zip", "folder", "outer folder"])
def test_own_copy(tmp_path, kind):
    made, data = archive(tmp_path), tmp_path / "data"
    source = {"zip": made, "folder": tmp_path / "making", "outer folder": tmp_path}[kind]
    if kind == "outer folder":
        (tmp_path / "making").rename(tmp_path / "oagqa-topic-v2")
    before = sorted(p.name for p in tmp_path.rglob("*.tsv"))
    folder = TOPICS.download("photon", data, Transport(offline=True), source)
    assert (folder / "photon-papers-10k.tsv").is_file()
    assert quietly(TOPICS.load, "photon", data=data).splits
    if kind != "zip":  # the user's files are used where they are
        assert (data / "oag-qa").is_symlink()
        assert sorted(p.name for p in tmp_path.rglob("*.tsv")) == before
    with pytest.raises(DataError, match="no such file or folder"):
        TOPICS.download("photon", tmp_path / "other", Transport(), tmp_path / "nowhere")


def test_copied_where_links_cannot_be_made(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no links here")

    monkeypatch.setattr("pathlib.Path.symlink_to", refuse)
    source = write_topic(tmp_path / "own" / "deep", "photon")
    (source / "notes.txt").write_text("mine")
    folder = TOPICS.download("photon", tmp_path / "data", Transport(), tmp_path / "own")
    assert sorted(path.name for path in folder.iterdir()) == ["photon-papers-10k.tsv", "photon-questions.tsv"]
    assert len(list(source.iterdir())) == 3


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "oag-qa").mkdir()
    (tmp_path / "oag-qa" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="is there but lacks files of OAG-QA; move it away"):
        TOPICS.download("photon", tmp_path, Transport(offline=True))
    assert os.listdir(tmp_path / "oag-qa") == ["mine.txt"]


def test_a_wrong_source_is_not_linked_to(tmp_path):
    data, empty, right = tmp_path / "data", tmp_path / "empty", write_topic(tmp_path / "right", "photon")
    empty.mkdir()
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("optics-questions.tsv", "")
    for wrong in (empty, tmp_path / "other.zip"):
        with pytest.raises(DataError, match="does not hold the files photon-questions"):
            TOPICS.download("photon", data, Transport(offline=True), wrong)
        assert not (data / "oag-qa").exists()
    (data / "oag-qa").symlink_to(empty)
    TOPICS.download("photon", data, Transport(offline=True), right)
    assert (data / "oag-qa").resolve() == right.resolve()
    assert empty.is_dir()
    with pytest.raises(DataError, match="does not exist"):
        TOPICS.download("photon", data, Transport(), tmp_path / "nowhere")


def test_mirrors_come_before_drive(tmp_path, monkeypatch):
    made, calls = archive(tmp_path), []

    def download(*, id, output, quiet):
        calls.append(id)
        Path(output).write_bytes(made.read_bytes())

    fake_gdown(monkeypatch, download)
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "oagqa-topic-v2.zip").write_bytes(made.read_bytes())
    transport = Transport(offline=True, quiet=True, mirrors=(mirror.as_uri(),))
    assert (TOPICS.download("photon", tmp_path / "a", transport) / "photon-questions.tsv").is_file()
    assert calls == []
    (mirror / "oagqa-topic-v2.zip").write_text("<html></html>")
    assert TOPICS.download("photon", tmp_path / "b", replace(transport, offline=False)).is_dir()
    assert len(calls) == 1
