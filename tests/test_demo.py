"""The demo, end to end, on small packages and a tiny random backbone."""

from __future__ import annotations

import json
import re

import pytest
import pytrec_eval
from tiny import short_trainings

from foreword.collections.registry import load
from foreword.lab.demo import DemoConfig, part_of, run_demo
from foreword.retrieval.runs import read_qrels, read_run

DENSE = (
    "base", "multitask", "transfer-uniform", "transfer-similarity", "transfer-fitted", "best-single", "transfer",
    "supervised-query", "supervised-both",
)  # fmt: skip
SYSTEMS = {"bm25", *DENSE, *(f"{system}+bm25" for system in DENSE)}


@pytest.fixture(scope="module")
def demo(tiny_bert, tmp_path_factory):
    output = tmp_path_factory.mktemp("demo")
    config = DemoConfig(
        backbone=str(tiny_bert),
        sources=("pydoc/jinja2", "pydoc/rich"),
        target="pydoc/filelock",
        target_documents=25,
        others=("pydoc/tqdm",),
        multitask_steps=4,
        source_steps=4,
        query_steps=4,
        both_steps=4,
        dev_queries=5,
        searches=2,
    )
    with short_trainings():
        return run_demo(config, output, quiet=True), output, config


def test_every_system_has_its_rows(demo):
    results, _, _ = demo
    rows = [row for row in results["rows"] if row["collection"] == "pydoc/filelock"]
    assert {row["system"] for row in rows} == SYSTEMS
    assert {row["measure"] for row in rows} == {"nDCG@10", "R@100"}
    needed = {"system", "collection", "measure", "value", "seconds", "trained_parameters", "bytes"}
    assert all(needed <= set(row) for row in results["rows"])


def test_the_table_is_recomputed_from_the_runs_by_trec_eval(demo):
    results, output, _ = demo
    for row in results["rows"]:
        name = row["collection"].replace("/", "-")
        qrels = read_qrels(output / "runs" / f"{name}.qrels")
        run = read_run(output / "runs" / f"{row['system']}.{name}.trec")
        measure = {"nDCG@10": "ndcg_cut_10", "R@100": "recall_100"}[row["measure"]]
        scored = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.100"}).evaluate(run)
        value = sum(scored.get(query, {}).get(measure, 0.0) for query in qrels) / len(qrels)
        assert value == pytest.approx(row["value"], abs=1e-9)


def test_files_are_written_and_agree(demo):
    results, output, _ = demo
    written = json.loads((output / "results.json").read_text())
    assert written["rows"] == results["rows"]
    assert written["configuration"]["target"] == "pydoc/filelock"
    page = (output / "report.html").read_text()
    assert "transfer-fitted" in page
    assert "supervised-both and bm25, fused" in page
    assert not re.findall(r'(?:src|href)="https?:', page)
    assert not [path for path in output.rglob("*") if path.suffix in (".pt", ".bin", ".pkl")]


def test_a_part_has_every_test_query_and_no_query_without_its_documents():
    whole = load("pydoc/filelock")
    part, other = part_of(whole, 25, 0), part_of(whole, 25, 1)
    documents = {document.doc_id for document in part.documents()}
    assert len(documents) == 25 < len(list(whole.documents()))
    assert list(part.queries("test")) == list(whole.queries("test"))
    assert part.qrels("test") == whole.qrels("test")
    for split in part.splits:
        assert part.qrels(split) == {q: docs for q, docs in whole.qrels(split).items() if docs.keys() <= documents}
        assert {query.query_id for query in part.queries(split)} == set(part.qrels(split))
    assert {document.doc_id for document in other.documents()} != documents
    few = {document.doc_id for document in part_of(whole, 1, 0).documents()}
    assert few == {doc_id for docs in whole.qrels("test").values() for doc_id in docs}


def test_a_second_run_reuses_what_is_trained_and_gives_the_same_rows(demo, capsys):
    results, output, config = demo
    again = run_demo(config, output)
    told = capsys.readouterr().err
    first = [told.index(part) for part in ("tokens a second", "foreword demo --full, about", "base finds for", "base:")]
    assert first == sorted(first)
    assert "training bank" not in told  # found again

    def figures(rows):
        return [(row["system"], row["collection"], row["measure"], row["value"]) for row in rows]

    assert figures(again["rows"]) == figures(results["rows"])
