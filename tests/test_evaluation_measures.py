"""Measures agree with trec_eval, with hand-worked values, and with themselves read back from files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval

from foreword.errors import ForewordError, UnknownNameError
from foreword.evaluation.measures import (
    DEFAULT_MEASURES,
    TREC_EVAL,
    evaluate_run,
    first_relevant_ranks,
    parse_measures,
)
from foreword.retrieval.runs import read_qrels, read_run, write_qrels, write_run


def random_task(seed: int):  # type: ignore[no-untyped-def]
    """A run with ties, unanswered and unjudged queries, and graded judgements."""
    rng = np.random.default_rng(seed)
    run = {
        f"q{query}": {
            f"d{doc}": float(np.float32(rng.integers(0, 20) / 7))
            for doc in rng.choice(200, rng.integers(1, 150), replace=False)
        }
        for query in range(30)
    }
    qrels = {
        f"q{query}": {f"d{doc}": int(rng.integers(0, 3)) for doc in rng.choice(200, 20, replace=False)}
        for query in range(5, 40)
    }
    return run, qrels


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_pytrec_eval(seed: int) -> None:
    run, qrels = random_task(seed)
    names = {
        "nDCG@10": "ndcg_cut_10",
        "R@100": "recall_100",
        "AP": "map",
        "RR": "recip_rank",
        "Success@20": "success_20",
    }
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.100", "map", "recip_rank", "success.20"})
    reference = evaluator.evaluate({query_id: run[query_id] for query_id in run if query_id in qrels})
    result = evaluate_run(run, qrels, list(names))
    assert (result.queries, result.unanswered, result.unjudged) == (35, 10, 5)
    for ours, theirs in names.items():
        values = {query_id: reference.get(query_id, {theirs: 0.0})[theirs] for query_id in qrels}
        assert result.per_query[ours] == pytest.approx(values, abs=1e-12)
        assert result.values[ours] == pytest.approx(sum(values.values()) / 35, abs=1e-12)


def test_reciprocal_rank_with_a_cutoff_ranks_ties_as_trec_eval() -> None:
    # MS MARCO's own script would rank `a` first: it breaks ties the other way round.
    run, qrels = {"q": {"a": 1.0, "b": 1.0}}, {"q": {"a": 1}}
    assert evaluate_run(run, qrels, ["RR@10", "RR"]).values == {"RR@10": 0.5, "RR": 0.5}


def test_ndcg_by_hand() -> None:
    # Gains are the relevances themselves, as in trec_eval: 2, 0, 1 found; 3, 2, 1 is ideal.
    run = {"q": {"two": 0.9, "unjudged": 0.8, "one": 0.7}}
    qrels = {"q": {"two": 2, "one": 1, "three": 3}}
    found = 2 / math.log2(2) + 1 / math.log2(4)
    ideal = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    assert evaluate_run(run, qrels, ["nDCG@10"]).values["nDCG@10"] == pytest.approx(found / ideal)


def test_queries_that_cannot_vanish() -> None:
    qrels = {
        "hit": {"a": 1},
        "no answer": {"a": 1},
        "empty": {"a": 1},
        "nothing relevant": {"a": 0},
        "unjudged": {},
    }
    run = {
        "hit": {"a": 1.0},
        "empty": {},
        "nothing relevant": {"a": 1.0},
        "unjudged": {"a": 1.0},
        "x": {"a": 1.0},
    }
    result = evaluate_run(run, qrels)
    assert result.values == dict.fromkeys(DEFAULT_MEASURES, 0.25)
    assert result.per_query["AP"] == {"hit": 1.0, "no answer": 0.0, "empty": 0.0, "nothing relevant": 0.0}
    assert (result.queries, result.unanswered, result.unjudged) == (4, 2, 2)
    assert evaluate_run({}, qrels).values == dict.fromkeys(DEFAULT_MEASURES, 0.0)
    with pytest.raises(ForewordError, match="no judgements"):
        evaluate_run(run, {"q": {}})


def test_a_query_whose_grades_are_all_negative() -> None:
    """Nothing is relevant to it; trec_eval itself crashes, or never ends."""
    qrels = {"bad": {"x": -1, "y": -2}, "good": {"x": 1}}
    found = evaluate_run({"bad": {"x": 1.0}, "good": {"x": 1.0}}, qrels, ["trec_eval", "infAP"])
    assert found.per_query["nDCG"] == {"bad": 0.0, "good": 1.0}
    assert {name for name, values in found.per_query.items() if values["bad"]} == {"NumRet"}


def test_counts_of_the_judgements_need_no_answer() -> None:
    """As trec_eval has them, which counts what is relevant to a query that no run answers."""
    qrels, run = {"a": {"x": 1, "y": 2}, "b": {"x": 1, "z": 1, "w": 0}}, {"a": {"x": 1.0}}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"num_rel"}).evaluate({"a": {"x": 1.0}, "b": {}})
    found = evaluate_run(run, qrels, ["NumRel", "NumQ", "NumRet"])
    assert found.per_query["NumRel"] == {query_id: values["num_rel"] for query_id, values in theirs.items()}
    assert found.values == {"NumRel": 4.0, "NumQ": 2.0, "NumRet": 1.0}


def test_values_recomputed_from_files_are_equal(tmp_path: Path) -> None:
    run, qrels = random_task(9)
    write_run(tmp_path / "run", run, "x")
    write_qrels(tmp_path / "qrels", qrels)
    assert evaluate_run(read_run(tmp_path / "run"), read_qrels(tmp_path / "qrels")) == evaluate_run(run, qrels)


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("ndcg@10", "nDCG@10"),
        ("MAP", "AP"),
        ("mrr@10", "RR@10"),
        ("recall@100", "R@100"),
        ("success@20", "Success@20"),
        ("precision @ 5", "P@5"),
        ("ap(rel=2)@10", "AP(rel=2)@10"),
        ("bpref", "Bpref"),
    ],
)
def test_common_names(given: str, canonical: str) -> None:
    assert [str(measure) for measure in parse_measures([given])] == [canonical]


def test_first_relevant_ranks() -> None:
    run = {"a": {"x": 1.0, "y": 1.0, "z": 0.5}, "b": {"x": 1.0}}
    qrels = {"a": {"x": 1, "z": 1, "y": 0}, "b": {"z": 1}, "c": {"z": 1}}
    assert first_relevant_ranks(run, qrels) == {"a": 2, "b": None, "c": None}  # y before x: a tie


def test_repeats_are_dropped() -> None:
    assert list(map(str, parse_measures(["map", "ndcg@10", "AP"]))) == ["AP", "nDCG@10"]


def test_mistakes_are_told() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean nDCG.* Known: AP, "):
        parse_measures(["ndgc@10"])
    for name in ("", "os.system('x')", "@10"):
        with pytest.raises(UnknownNameError, match="No measure"):
            parse_measures([name])
    for name, message in {
        "P": "needs a cutoff",
        "nDCG@x": "nDCG@x",
        "nDCG@0": "1 or more",
        "nDCG(rel=2)@10": "rel",
        "alpha_nDCG@10": r"not installed: pip install",
    }.items():
        with pytest.raises(ForewordError, match=message):
            parse_measures([name])


def test_one_word_for_all_of_trec_evals() -> None:
    names = [str(measure) for measure in parse_measures(["trec_eval", "Success@20", "nDCG@10"])]
    assert len(names) == len(set(names)) == len(TREC_EVAL) + 1
    assert {"AP", "P@5", "R@1000", "nDCG@10", "IPrec@0.0", "Bpref", "NumRet(rel=1)", "Success@20"} <= set(names)
    found = evaluate_run({"q": {"a": 2.0, "b": 1.0}}, {"q": {"b": 1}}, ["trec_eval"]).values
    assert (found["RR"], found["P@5"], found["R@5"], found["NumRet(rel=1)"]) == (0.5, 0.2, 1.0, 1.0)


def test_grades_that_a_measure_has_no_place_for_are_told() -> None:
    with pytest.raises(ForewordError, match="grades up to 4; these go up to 5"):
        evaluate_run({"q": {"d": 1.0}}, {"q": {"d": 5}}, ["ERR@10"])
    assert evaluate_run({"q": {"d": 1.0}}, {"q": {"d": 4}}, ["ERR@10"]).values["ERR@10"] == pytest.approx(15 / 16)
