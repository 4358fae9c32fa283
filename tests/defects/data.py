"""Faults of the data: splits, files on disk, downloads, conversions."""

from __future__ import annotations

import csv
import json
import shutil
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny import toy_collection, words

from foreword.collections import beir, folder, oag_qa, supervision
from foreword.collections import dpr as dpr_convert
from foreword.collections import oag_qa as oag_qa_files
from foreword.collections.beir import BEIR
from foreword.collections.collection import SPLITS, MemoryCollection, normalise
from foreword.collections.dpr import convert
from foreword.collections.registry import load
from foreword.collections.supervision import supervise
from foreword.downloads import Transport, fetch
from foreword.errors import DataError, UnknownNameError
from foreword.evaluation.evaluate import evaluate
from foreword.training.dev import DevSet
from foreword.training.train import train

from . import QUICK, Bench, Case, digests, refused, write_beir, write_jsonl, write_qrels

TRAINING_ROWS, CORPUS_ROWS = 10_000, 100_000
"""Where the original system cuts a training file and a corpus."""


# -- splits --------------------------------------------------------------------------------------------------------


def the_evaluation_set_reads_training_data(bench: Bench) -> None:
    """The best step is chosen by the dev split: its score at step 0 is the base model's on dev."""
    encoder, toy = bench.encoder(), toy_collection()
    stored = train(encoder, toy, bench.tmp / "it", config=QUICK, quiet=True)
    base = {split: evaluate(toy, encoder, split=split, quiet=True).measures["nDCG@10"] for split in ("train", "dev")}
    assert abs(base["train"] - base["dev"]) > 1e-3
    first = stored.card["metrics"]["dev"][0]["dev"]
    assert abs(first - base["dev"]) < 1e-5, f"evaluated on other data than dev: {first}, and the splits give {base}"


def evaluate_on_the_training_pairs(patch: pytest.MonkeyPatch) -> None:
    """The evaluation set is made of the training split."""
    make = DevSet.of

    def of(collection: MemoryCollection, **how: Any) -> DevSet | None:
        texts = {**collection.query_texts, "dev": collection.query_texts["train"]}
        judged = {**collection.judgements, "dev": collection.judgements["train"]}
        return make(MemoryCollection(collection.id, "toy", collection.corpus, texts, judged), **how)

    patch.setattr(DevSet, "of", of)


def test_judgements_become_training_judgements(bench: Bench) -> None:
    """A folder with test judgements alone has no training split, and its test split is not trained on."""
    path = write_beir(bench.tmp / "toy", splits=("test",))
    collection = load(f"folder:{path}")
    with refused(DataError, "judgements of its test split are not for training", "test judgements are trained on"):
        train(bench.encoder(), collection, bench.tmp / "it", config=QUICK, quiet=True)
    asked = {normalise(query.text) for query in collection.queries("test")}
    made = supervise(collection)
    assert made.facts["supervision"]["method"] == "pseudo-queries"  # type: ignore[index]
    for split in ("train", "dev"):
        assert not {normalise(query.text) for query in made.queries(split)} & asked


def train_on_test_where_there_is_no_train(patch: pytest.MonkeyPatch) -> None:
    """`qrels/test.tsv` stands in for the training file that is not there."""
    find = folder.find_qrels

    def found(path: Path) -> dict[str, Path]:
        files = find(path)
        return {"train": files["test"], **files}

    patch.setattr(folder, "find_qrels", found)


def the_test_split_can_be_asked_for_in_training(bench: Bench) -> None:
    """No option trains on, or mines with, test judgements."""
    path = write_beir(bench.tmp / "toy")
    with refused(UnknownNameError, "test judgements are never trained on", "supervision by test is given"):
        supervise(load(f"folder:{path}"), method="test")
    for command in (["train", "--supervision", "test"], ["mine", "--split", "test"]):
        code, _, said = bench.shell(*command, f"folder:{path}", "--output", bench.tmp / "out")
        assert code == 2
        assert "invalid choice: 'test'" in said
    assert not (bench.tmp / "out").exists()


def offer_the_test_split(patch: pytest.MonkeyPatch) -> None:
    """`test` is a supervision like the others."""
    patch.setattr(supervision, "METHODS", (*supervision.METHODS, "test"))


def oag_qa_has_one_set_of_questions_for_all_splits(bench: Bench) -> None:
    """Every question of a topic is in one split, and no text in two."""
    questions = [(f"What of {' '.join(words()[i : i + 4])}?", [f"Title {i % 10}"]) for i in range(100)]
    collection = load("oag-qa/geometry", data=write_topic(bench.tmp, "geometry", questions))
    texts = [{normalise(query.text) for query in collection.queries(split)} for split in SPLITS]
    assert collection.splits == SPLITS
    assert all(texts)
    assert len(set.union(*texts)) == 100
    assert sum(map(len, texts)) == 100, "questions are in several splits"


def write_topic(data: Path, topic: str, questions: list[tuple[str, Any]]) -> Path:
    """A topic's two tables, as OAG-QA has them."""
    (data / "oag-qa").mkdir(parents=True)
    papers = [("id", "abstract", "title"), *((f"p{i}", f"On {words()[i]}.\nMore.", f"Title {i}") for i in range(10))]
    for name, rows in (("questions", questions), ("papers-10k", papers)):
        with (data / "oag-qa" / f"{topic}-{name}.tsv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter="\t", lineterminator="\n").writerows(rows)
    return data


def give_every_split_all_questions(patch: pytest.MonkeyPatch) -> None:
    """Train, dev and test are the same file."""

    def alike(name: str, group: str, corpus: Any, texts: Mapping[str, Any], qrels: Any, facts: Any) -> MemoryCollection:
        every = tuple(query for queries in texts.values() for query in queries)
        judged = {query: docs for split in qrels.values() for query, docs in split.items()}
        return MemoryCollection(name, group, corpus, dict.fromkeys(SPLITS, every), dict.fromkeys(SPLITS, judged), facts)

    patch.setattr(oag_qa, "MemoryCollection", alike)


# -- files on disk -------------------------------------------------------------------------------------------------


def training_files_are_cut_to_ten_thousand_rows(bench: Bench) -> None:
    """A longer training file gives all its pairs, and is left as it is."""
    count, path = TRAINING_ROWS + 5, bench.tmp / "toy"
    write_jsonl(path / "corpus.jsonl", [{"_id": f"d{i}", "title": "", "text": words()[i]} for i in range(20)])
    write_jsonl(path / "queries.jsonl", [{"_id": f"q{i}", "text": f"query {i}"} for i in range(count)])
    write_qrels(path / "qrels" / "train.tsv", {f"q{i}": {f"d{i % 20}": 1} for i in range(count)})
    before = digests(path)
    pairs = sum(1 for _ in load(f"folder:{path}").pairs("train"))
    assert pairs == count, f"{pairs} of {count} training pairs are left"
    assert digests(path) == before


def cut_training_files(patch: pytest.MonkeyPatch) -> None:
    """The training file is written over with its first 10,000 rows."""
    read = folder.read_qrels

    def cut(path: Path) -> Any:
        if path.stem == "train":
            path.write_text("".join(path.read_text().splitlines(keepends=True)[: TRAINING_ROWS + 1]))
        return read(path)

    patch.setattr(folder, "read_qrels", cut)


def corpora_over_a_hundred_thousand_documents_are_cut(bench: Bench) -> None:
    """A longer corpus is read to its end, where the judged document is, and is left as it is."""
    count, path = CORPUS_ROWS + 5, bench.tmp / "toy"
    path.mkdir()
    lines = (f'{{"_id": "d{i}", "title": "", "text": "text {i}"}}\n' for i in range(count))
    (path / "corpus.jsonl").write_text("".join(lines))
    write_jsonl(path / "queries.jsonl", [{"_id": "q", "text": "the last one"}])
    write_qrels(path / "qrels" / "test.tsv", {"q": {f"d{count - 1}": 1}})
    before, collection = digests(path), load(f"folder:{path}")
    read = sum(1 for _ in collection.documents())
    assert read == count, f"{read} of {count} documents are left"
    assert collection.qrels("test") == {"q": {f"d{count - 1}": 1}}
    assert digests(path) == before


def cut_corpora(patch: pytest.MonkeyPatch) -> None:
    """The corpus is written over with its first 100,000 documents."""
    rewrite_before_reading(patch, "corpus.jsonl", lambda lines: lines[:CORPUS_ROWS])


def queries_are_rewritten_without_their_metadata(bench: Bench) -> None:
    """Evaluating, training and mining leave every file as it is, and a query keeps what is said of it."""
    path = write_beir(bench.tmp / "toy")
    before, name = digests(path), f"folder:{path}"
    collection = load(name)
    evaluate(collection, "bm25")
    train(bench.encoder(), collection, bench.tmp / "it", config=QUICK, quiet=True)
    assert bench.shell("mine", name, "--output", bench.tmp / "mined.jsonl")[0] == 0
    changed = [file for file, digest in digests(path).items() if before.get(file) != digest]
    assert digests(path) == before, f"changed on disk: {changed}"
    assert all(query.metadata == {"asked": f"by {query.query_id}"} for query in collection.queries("test"))


def rewrite_queries(patch: pytest.MonkeyPatch) -> None:
    """`queries.jsonl` is written again with ids and texts alone."""

    def bare(lines: list[str]) -> list[str]:
        records = map(json.loads, lines)
        return [json.dumps({"_id": record["_id"], "text": record["text"]}) + "\n" for record in records]

    rewrite_before_reading(patch, "queries.jsonl", bare)


def rewrite_before_reading(patch: pytest.MonkeyPatch, name: str, change: Any) -> None:
    """A file of a folder in BEIR's layout is changed on disk when it is read."""
    read = folder.json_lines

    def rewriting(path: Path) -> Any:
        if path.name == name:
            path.write_text("".join(change(path.read_text().splitlines(keepends=True))))
        return read(path)

    patch.setattr(folder, "json_lines", rewriting)


def queries_without_text_are_dropped_in_silence(bench: Bench) -> None:
    """A query that cannot be asked is an error that names the file and the line."""
    path = write_beir(bench.tmp / "toy")
    lines = (path / "queries.jsonl").read_text().splitlines(keepends=True)
    last = {**json.loads(lines[-1]), "text": " "}
    (path / "queries.jsonl").write_text("".join([*lines[:-1], json.dumps(last) + "\n"]))
    with refused(DataError, f"queries.jsonl:{len(lines)}: query .* has no text", "a query is dropped in silence"):
        evaluate(load(f"folder:{path}"), "bm25")


def skip_queries_that_fail(patch: pytest.MonkeyPatch) -> None:
    """An error in a query passes over it."""
    read = folder.json_lines
    patch.setattr(folder, "json_lines", lambda path: (one for one in read(path) if one[1].get("text", "").strip()))


def a_data_file_is_evaluated_as_python(bench: Bench) -> None:
    """A list of titles is a literal: a call in it is refused, and not called."""
    called = bench.tmp / "called"
    call = f"[__import__('pathlib').Path({str(called)!r}).mkdir() or 'Title 1']"
    data = write_topic(bench.tmp, "geometry", [("What of it?", ["Title 2"]), ("And then?", call)])
    with refused(DataError, r"geometry-questions.tsv:2: expected a Python list of texts", "a data file was run"):
        load("oag-qa/geometry", data=data)
    assert not called.exists()


def call_eval(patch: pytest.MonkeyPatch) -> None:
    """`eval` on the column."""
    patch.setattr(oag_qa_files, "literal_titles", lambda text, *_: tuple(eval(text)))


# -- downloads and conversions -------------------------------------------------------------------------------------


def downloads_are_not_checked(bench: Bench) -> None:
    """An archive of other bytes than the set's known ones is refused, and nothing of it is kept."""
    mirror, data = bench.tmp / "mirror", bench.tmp / "data"
    made = write_beir(mirror / "nfcorpus")
    with zipfile.ZipFile(mirror / "nfcorpus.zip", "w") as archive:
        for path in sorted(made.rglob("*.*")):
            archive.write(path, f"nfcorpus/{path.relative_to(made)}")
    transport = Transport(offline=True, mirrors=(mirror.as_uri(),), tries=1, pause=0, quiet=True)
    with refused(DataError, "wrong bytes: md5", "an archive is taken unchecked"):
        BEIR.download("nfcorpus", data, transport)
    assert [name for name in digests(data) if not name.endswith(".lock")] == []


def accept_any_bytes(patch: pytest.MonkeyPatch) -> None:
    """What came is what was wanted."""
    patch.setattr(sys.modules[fetch.__module__], "problem", lambda *_: "")  # its name in its package is the function's


def an_unknown_dataset_is_the_data_folder(bench: Bench) -> None:
    """A misspelt name is an error that offers the right one; no folder is given for it."""
    data = bench.tmp / "data"
    write_beir(data / "beir" / "nfcorpus")
    with refused(UnknownNameError, "no collection beir/nfcorpsu", "a folder is given for a name that nothing has"):
        BEIR.download("nfcorpsu", data, Transport(offline=True, quiet=True))
    with refused(UnknownNameError, "beir/nfcorpus", "a misspelt name is loaded"):
        load("beir/nfcorpsu", data=data)
    assert bench.shell("download", "beir/nfcorpsu", "--data", data, "--offline")[0] == 1


def fall_back_to_the_data_folder(patch: pytest.MonkeyPatch) -> None:
    """What is not known is looked for, and found, in the data folder itself."""
    about, find = beir.Beir.about, beir.Beir.find
    patch.setattr(beir.Beir, "about", lambda self, name: about(self, name if self.knows(name) else "scifact"))
    patch.setattr(beir.Beir, "find", lambda self, name, root: find(self, name, root) or root)


def a_second_conversion_appends(bench: Bench) -> None:
    """Converting DPR's files twice gives the files of one conversion."""
    sources = []
    for split in ("train", "dev"):
        listed = [
            {
                "dataset": "toy",
                "question": f"what is {split} {i}?",
                "answers": ["it"],
                "positive_ctxs": [passage(f"{split}{i}", "is it")],
                "negative_ctxs": [],
                "hard_negative_ctxs": [passage(f"{split}{i}n", "is not it")],
            }
            for i in range(5)
        ]
        sources.append(bench.tmp / f"biencoder-nq-{split}.json")
        sources[-1].write_text(json.dumps(listed))
    output = convert(*sources, bench.tmp / "converted")
    once = digests(output)
    convert(*sources, output)
    lines = len((output / "queries.jsonl").read_text().splitlines())
    assert digests(output) == once, f"the files have changed: queries.jsonl has {lines} lines for 10 questions"


def passage(name: str, text: str) -> dict[str, Any]:
    """A passage as DPR writes it."""
    return {"title": f"Title of {name}", "text": f"{name} {text}", "score": 1.5, "title_score": 0, "passage_id": name}


def append_to_what_is_there(patch: pytest.MonkeyPatch) -> None:
    """Output files are opened to append, whatever they hold."""

    def make(output: Path, sources: Mapping[str, Path], manifest: Mapping[str, Any]) -> None:
        made = output.with_name("made")
        dpr_convert._write(made, sources, **manifest["options"])
        for path in sorted(made.rglob("*.*")):
            there = output / path.relative_to(made)
            there.parent.mkdir(parents=True, exist_ok=True)
            with there.open("ab") as file:
                file.write(path.read_bytes())
        shutil.rmtree(made)

    patch.setattr(dpr_convert, "_is_made", lambda *_: False)
    patch.setattr(dpr_convert, "_make", make)


CASES = [
    Case(the_evaluation_set_reads_training_data, evaluate_on_the_training_pairs, "evaluated on other data than dev"),
    Case(
        test_judgements_become_training_judgements,
        train_on_test_where_there_is_no_train,
        "test judgements are trained on",
    ),
    Case(the_test_split_can_be_asked_for_in_training, offer_the_test_split, "supervision by test is given"),
    Case(
        oag_qa_has_one_set_of_questions_for_all_splits,
        give_every_split_all_questions,
        "questions are in several splits",
    ),
    Case(training_files_are_cut_to_ten_thousand_rows, cut_training_files, "10000 of 10005 training pairs are left"),
    Case(corpora_over_a_hundred_thousand_documents_are_cut, cut_corpora, "100000 of 100005 documents are left"),
    Case(queries_are_rewritten_without_their_metadata, rewrite_queries, r"changed on disk: \['queries.jsonl'\]"),
    Case(queries_without_text_are_dropped_in_silence, skip_queries_that_fail, "a query is dropped in silence"),
    Case(a_data_file_is_evaluated_as_python, call_eval, "a data file was run"),
    Case(downloads_are_not_checked, accept_any_bytes, "an archive is taken unchecked"),
    Case(an_unknown_dataset_is_the_data_folder, fall_back_to_the_data_folder, "a folder is given for a name"),
    Case(a_second_conversion_appends, append_to_what_is_there, "queries.jsonl has 20 lines for 10 questions"),
]
