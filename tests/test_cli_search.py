"""Searches in pipes: queries as they come, answers as tables, runs and JSON lines."""

from __future__ import annotations

import io
import json
import os
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import blocks, commands_of
from shell import Shell
from tiny import toy_collection

from foreword.cli.search import asked, named_queries
from foreword.errors import DataError, ForewordError


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The writing end of a pipe that is standard input."""
    reading, writing = os.pipe()
    with open(reading, encoding="utf-8") as stream:
        monkeypatch.setattr("sys.stdin", stream)
        yield writing


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def nothing_given() -> Namespace:
    return Namespace(queries=[])


# -- queries ---------------------------------------------------------------------------------------------------


def test_lines_with_and_without_names() -> None:
    lines = ["51\tairbus subsidies\n", "plain words", "", "   \n", " 7 \t two\twords \r\n", "\tno name", "no text\t"]
    found = [(query.query_id, query.text) for query in named_queries(lines)]
    assert found == [
        ("51", "airbus subsidies"),
        ("q1", "plain words"),
        ("7", "two\twords"),
        ("q3", "no name"),
        ("q4", "no text"),
    ]
    assert [query.query_id for query in named_queries(["a", "b"], first=5)] == ["q5", "q6"]


def test_a_pipe_is_answered_while_it_is_open(pipe: int) -> None:
    os.write(pipe, "first\nsecond\nü".encode()[:-1])  # cut within a letter
    questions = asked(nothing_given())
    assert questions.more
    assert [query.text for query in next(questions.batches)] == ["first", "second"]
    os.write(pipe, "ü".encode()[-1:] + b"nished\n\n")
    assert [(query.query_id, query.text) for query in next(questions.batches)] == [("q2", "ünished")]
    os.write(pipe, b"last")
    os.close(pipe)
    assert [[query.query_id for query in batch] for batch in questions.batches] == [["q3"]]


def test_a_pipe_that_has_ended_is_one_batch(pipe: int) -> None:
    os.write(pipe, b"\xef\xbb\xbffirst\nsecond\n")
    os.close(pipe)
    questions = asked(nothing_given())
    assert not questions.more
    assert [[query.text for query in batch] for batch in questions.batches] == [["first", "second"]]


def test_a_file_is_one_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"{number}\tquery number {number}\n" for number in range(9000)]
    (tmp_path / "queries.tsv").write_text("".join(lines))
    with open(tmp_path / "queries.tsv") as stream:
        monkeypatch.setattr("sys.stdin", stream)
        questions = asked(nothing_given())
        (batch,) = questions.batches
    assert not questions.more
    assert [query.query_id for query in batch] == [str(number) for number in range(9000)]


def test_queries_that_cannot_be(pipe: int, monkeypatch: pytest.MonkeyPatch) -> None:
    os.write(pipe, b"caf\xe9\n")
    os.close(pipe)
    with pytest.raises(DataError, match=r"standard input:1: not UTF-8 .*; convert it"):
        asked(nothing_given())
    typed(monkeypatch, "7\tone\n7\ttwo\n")
    with pytest.raises(DataError, match="two queries are named '7'"):
        asked(nothing_given())
    typed(monkeypatch, " \n\n")
    with pytest.raises(ForewordError, match="nothing to search for"):
        asked(nothing_given())


# -- answers ---------------------------------------------------------------------------------------------------


def judged_queries() -> str:
    return "".join(f"{query.query_id}\t{query.text}\n" for query in toy_collection().queries("test"))


def test_a_run_measures_as_the_evaluation_does(
    shell: Shell, beir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, measures = f"folder:{beir}", ("--measures", "nDCG@10", "R@20")
    typed(monkeypatch, judged_queries())
    run = shell("search", folder, "--system", "bm25", "--format", "trec")
    (tmp_path / "bm25.trec").write_text(run)
    fields = [line.split() for line in run.splitlines()]
    assert {(one[1], one[5]) for one in fields} == {("Q0", "bm25")}
    assert [int(one[3]) for one in fields if one[0] == fields[0][0]] == list(
        range(1, 1 + sum(one[0] == fields[0][0] for one in fields))
    )
    from_run = shell.json("evaluate", folder, "--run", tmp_path / "bm25.trec", *measures)
    itself = shell.json("evaluate", folder, "--system", "bm25", *measures)
    assert from_run["measures"] == pytest.approx(itself["measures"])
    typed(monkeypatch, judged_queries())
    told = shell("search", folder, "--system", "bm25", "--output", tmp_path / "again.trec")
    assert "12 queries, 100 hits each at most" in told
    assert (tmp_path / "again.trec").read_text() == run


def test_a_stream_is_answered_as_a_file_is(
    shell: Shell, beir: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What embeds documents once for many batches finds what a single search finds."""
    for system in (("--system", "bm25"), ("--backbone", tiny_bert)):
        answers = []
        for pieces in (1, 3):
            reading, writing = os.pipe()
            os.write(writing, judged_queries().encode())
            os.close(writing)
            with open(reading) as stream:
                monkeypatch.setattr("sys.stdin", stream)
                if pieces > 1:  # as if it came slowly
                    monkeypatch.setattr("foreword.files._CHUNK", 200)
                    monkeypatch.setattr("foreword.cli.search._has_ended", lambda _: False)
                answers.append(shell("search", f"folder:{beir}", "--format", "jsonl", "--k", 3, *system))
            monkeypatch.undo()
        first, second = ([json.loads(line) for line in text.splitlines()] for text in answers)
        assert [one["query_id"] for one in first] == [one["query_id"] for one in second]
        assert len(first) == 12
        for one, other in zip(first, second, strict=True):
            assert [hit["doc_id"] for hit in one["hits"]] == [hit["doc_id"] for hit in other["hits"]]
            scores = [hit["score"] for hit in one["hits"]]
            assert scores == pytest.approx([hit["score"] for hit in other["hits"]], abs=1e-5)


def test_answers_leave_before_the_next_batch_is_read(
    shell: Shell, beir: Path, pipe: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foreword.cli import search as queries

    written: list[list[str]] = []
    real = queries._record

    def noted(query: Any, hits: Any) -> dict[str, Any]:
        written[-1].append(query.query_id)
        return real(query, hits)

    def slow(lines: Any) -> Iterator[Any]:
        for batch in lines:
            written.append([])
            yield batch

    os.write(pipe, b"one\ntwo\nthree\n")
    os.close(pipe)
    monkeypatch.setattr(queries, "_record", noted)
    monkeypatch.setattr(queries, "_named", lambda lines, real=queries._named: slow(real(lines)))
    monkeypatch.setattr("foreword.files._CHUNK", 4)
    shell("search", f"folder:{beir}", "--system", "bm25", "--format", "jsonl")
    assert [batch for batch in written if batch] == [["q0"], ["q1"], ["q2"]]


def test_json_names_queries_too(shell: Shell, beir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "51\twords\n")
    (answer,) = shell.json("search", f"folder:{beir}", "--system", "bm25")
    assert (answer["query_id"], answer["query"]) == ("51", "words")


def test_forms_that_contradict_each_other(shell: Shell, beir: Path, tmp_path: Path) -> None:
    search = ("search", f"folder:{beir}", "words", "--system", "bm25")
    assert "give one of them" in shell.fails(*search, "--json", "--format", "trec")
    for output in (("run.txt",), ("run.trec", "--json"), ("run.trec", "--format", "text")):
        assert "takes a run or JSON lines" in shell.fails(*search, "--output", tmp_path / output[0], *output[1:])
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_a_run_cannot_hold(
    shell: Shell, beir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = toy_collection().corpus[0].text
    typed(monkeypatch, f"two words\t{text}\n")
    search = ("search", f"folder:{beir}", "--system", "bm25", "--output", tmp_path / "run.trec")
    assert "'two words' is empty or holds white space" in shell.fails(*search)
    assert list(tmp_path.iterdir()) == []


def test_an_index_answers_in_the_same_forms(
    shell: Shell, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("milvus_lite")
    monkeypatch.chdir(tmp_path)
    Path("notes").mkdir()
    for name, text in (("ferns", "Water ferns on Tuesdays."), ("keys", "Keys hang by the door.")):
        Path("notes", f"{name}.txt").write_text(text)
    shell("index", "build", "n.db", "folder:notes", "--backbone", tiny_bert)
    typed(monkeypatch, "51\tferns\n52\tkeys by the door\n")
    run = [
        line.split() for line in shell("index", "search", "n.db", "--system", "bm25", "--format", "trec").splitlines()
    ]
    assert [(one[0], one[2], one[3], one[5]) for one in run] == [
        ("51", "ferns.txt", "1", "bm25"),
        ("52", "keys.txt", "1", "bm25"),
    ]


# -- the page --------------------------------------------------------------------------------------------------


def test_the_pages_pipes(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The searches of docs/command-line.md, line by line; what the shell does with files is done here."""
    monkeypatch.chdir(tmp_path)
    Path("my-notes").mkdir()
    for name, text in (("ferns", "Watering the ferns on Tuesdays."), ("keys", "The keys hang by the door.")):
        Path("my-notes", f"{name}.txt").write_text(text)
    (queries,) = (block for block in blocks("docs/command-line.md", "text") if block.title)
    Path(queries.title).write_text(queries.code)
    block, _ = blocks("docs/command-line.md", "sh")  # the other follows a file without end
    for command in commands_of(block.code):
        with open(command.source) as stream:
            monkeypatch.setattr("sys.stdin", stream)
            said = shell(*(command.arguments or ()))
        if command.target:
            Path(command.target).write_text(said)
        else:
            assert "watering ferns" in said or "notes.trec: 2 queries" in said
    answers = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    assert [(one["query_id"], one["hits"][0]["doc_id"]) for one in answers] == [("51", "ferns.txt"), ("52", "keys.txt")]
    run = [line.split()[:4] for line in Path("notes.trec").read_text().splitlines()]
    assert [one for one in run if one[3] == "1"] == [["51", "Q0", "ferns.txt", "1"], ["52", "Q0", "keys.txt", "1"]]
