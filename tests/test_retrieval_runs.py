"""TREC files: the order that trec_eval scores, exact round trips, and errors that name the line."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval

from foreword.errors import DataError, ForewordError
from foreword.retrieval.runs import drop_self, ranked, read_qrels, read_run, top_k, trec_name, write_qrels, write_run


def test_ranked_is_trec_evals_order() -> None:
    # y and x differ only beyond float32's precision: a tie, so the greater doc_id comes first.
    hits = {"x": 1.0 + 1e-12, "y": 1.0, "w": 2.0}
    assert [doc_id for doc_id, _ in ranked(hits)] == ["w", "y", "x"]
    evaluator = pytrec_eval.RelevanceEvaluator({"q": {"x": 1, "y": 0}}, ["recip_rank"])
    assert evaluator.evaluate({"q": hits})["q"]["recip_rank"] == pytest.approx(1 / 3)


def test_a_written_run_reads_back_equal(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    scores = rng.standard_normal((5, 40)).astype(np.float32) * 10.0 ** rng.integers(-8, 8, (5, 40))
    run = {f"q{i}": {f"d{j}": float(np.float32(score)) for j, score in enumerate(row)} for i, row in enumerate(scores)}
    path = tmp_path / "deep" / "base.trec"
    write_run(path, run, "base")
    again = read_run(path)
    assert again == run
    assert all(list(again[query_id]) == [doc_id for doc_id, _ in ranked(run[query_id])] for query_id in run)


def test_the_lines_of_a_run(tmp_path: Path) -> None:
    write_run(tmp_path / "r", {"q": {"a": 0.5, "c": 0.5, "b": 2}, "none": {}}, "tag")
    assert (tmp_path / "r").read_text() == "q Q0 b 1 2.0 tag\nq Q0 c 2 0.5 tag\nq Q0 a 3 0.5 tag\n"


@pytest.mark.parametrize("word", ["a b", "", "a\tb", "a\n", "a\u00a0b"])
def test_ids_that_a_trec_file_cannot_hold_are_refused_and_nothing_is_written(tmp_path: Path, word: str) -> None:
    path = tmp_path / "r"
    with pytest.raises(ForewordError, match="white space"):
        write_run(path, {"q": {"ok": 1.0, word: 0.5}}, "tag")
    with pytest.raises(ForewordError, match="white space"):
        write_run(path, {word: {"d": 1.0}}, "tag")
    with pytest.raises(ForewordError, match="white space"):
        write_run(path, {}, word)
    with pytest.raises(ForewordError, match="white space"):
        write_qrels(path, {"q": {word: 1}})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("score", [float("nan"), float("inf"), 1e300])
def test_scores_must_be_finite_float32(tmp_path: Path, score: float) -> None:
    with pytest.raises(ForewordError, match="finite"):
        write_run(tmp_path / "r", {"q": {"d": score}}, "tag")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q Q0 d 1 0.5", "5 fields; expected 6"),
        ("q Q0 d 1 high tag", "'high'; expected a finite number"),
        ("q Q0 d 1 nan tag", "'nan'; expected a finite number"),
        ("q Q0 first 1 0.5 tag", "listed twice"),
    ],
)
def test_broken_runs_name_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "bad.trec"
    path.write_text(f"q Q0 first 1 0.9 tag\n\n{line}\n")
    with pytest.raises(DataError, match=message) as error:
        read_run(path)
    assert str(error.value).startswith(f"{path}:3: ")


def test_qrels_round_trip_plain_and_gzipped(tmp_path: Path) -> None:
    qrels = {"q1": {"a": 2, "b": 0}, "q2": {"c": 1, "d": -1}}
    write_qrels(tmp_path / "qrels", qrels)
    assert (tmp_path / "qrels").read_text().splitlines()[0] == "q1 0 a 2"
    assert read_qrels(tmp_path / "qrels") == qrels
    zipped = tmp_path / "qrels.gz"
    zipped.write_bytes(gzip.compress((tmp_path / "qrels").read_bytes()))
    assert read_qrels(zipped) == qrels


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q 0 b", "3 columns; expected"),
        ("q 0 b 1.5", "whole number, got '1.5'"),
        ("q 0 a 0", "judged 0 here and 1 before"),
    ],
)
def test_broken_qrels_name_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "bad.qrels"
    path.write_text(f"q 0 a 1\nq 0 a 1\n{line}\n")  # a line repeated word for word is no error
    with pytest.raises(DataError, match=message) as error:
        read_qrels(path)
    assert str(error.value).startswith(f"{path}:3: ")


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_run(tmp_path / "missing")
    (tmp_path / "latin").write_bytes("q 0 d 1\nqu\u00e9 0 d 1\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin:2: not UTF-8"):
        read_qrels(tmp_path / "latin")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"q 0 d 1\n" * 1000)[:-12])
    with pytest.raises(DataError, match="broken gzip file"):
        read_qrels(tmp_path / "cut.gz")


def test_small_helpers() -> None:
    run = {"a": {"a": 3.0, "b": 2.0, "c": 2.0}, "z": {}}
    assert drop_self(run) == {"a": {"b": 2.0, "c": 2.0}, "z": {}}
    assert top_k(run, 2) == {"a": {"a": 3.0, "c": 2.0}, "z": {}}
    assert trec_name("pydoc/torch") == "pydoc-torch"
    with pytest.raises(ForewordError, match="k is -1"):
        top_k(run, -1)
