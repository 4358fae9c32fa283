"""A whole benchmark in small: folders as domains, a tiny backbone, every part."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from tiny import random_prompt, short_trainings, toy_collection, write_beir

from foreword.cli import main
from foreword.collections.registry import load
from foreword.errors import ForewordError, UnknownNameError
from foreword.lab import PARTS
from foreword.lab import benchmark as running
from foreword.lab.benchmark import run_benchmark, write_results
from foreword.lab.records import BenchmarkCell, Plan, load_cells, load_plan, run_path
from foreword.lab.stage import Stage
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import load_prompt, trained_on
from foreword.retrieval.runs import hybrid, read_run
from foreword.transferring.config import DistilConfig, FitConfig
from foreword.transferring.trial import read_evidence

PLAN = """
title = "Toys"
domains = [{domains}]
genre = "toys"
folds = 2
seeds = [0]
query_length = 12
document_length = 24
few = [4]
[far]
other = ["folder:{far}", "folder:{far}-unlabelled", "glasgow/nowhere"]
[prompt]
length = 2
sides = "untied"
[multitask]
steps = 2
evaluate_every = 2
batch_size = 8
[source]
steps = 2
evaluate_every = 2
batch_size = 8
[supervised]
steps = 2
evaluate_every = 2
batch_size = 8
[[hypothesis]]
name = "H1"
statement = "transfer beats base"
system = "transfer"
baseline = "base"
[[comparison]]
name = "E1"
statement = "labels beside pseudo-queries"
system = "transfer@4"
baseline = "transfer"
[[comparison]]
name = "E2"
statement = "what was not run"
system = "supervised"
baseline = "nothing"
"""


@pytest.fixture(scope="module")
def place(few_trials: None, tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A benchmark that has been run; `plan.toml` and `out` lie in it."""
    folder = tmp_path_factory.mktemp("benchmark")
    names = [folder / f"domain{number}" for number in range(4)]
    for number, path in enumerate([*names, folder / "far", folder / "far-unlabelled"]):
        write_beir(path, toy_collection(f"toy/{number}", seed=number, documents=90))
    for split in ("train", "dev"):
        (folder / "far-unlabelled" / "qrels" / f"{split}.tsv").unlink()
    shared = (names[1] / "corpus.jsonl").read_text().splitlines()[0]  # a text that two domains have
    record = {**json.loads(shared), "_id": "copied"}
    with (names[2] / "corpus.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    domains = ", ".join(f'"folder:{path}"' for path in names)
    (folder / "plan.toml").write_text(PLAN.format(domains=domains, far=folder / "far"))
    quick = [("FitConfig", partial(FitConfig, steps=3)), ("DistilConfig", partial(DistilConfig, steps=5))]
    with short_trainings(4), pytest.MonkeyPatch.context() as patch:
        for name, made in quick:
            patch.setattr(f"foreword.lab.rivals.{name}", made)
        run_benchmark(plan_of(folder), folder / "out", backbone=str(tiny_bert), quiet=True)
    return folder


def plan_of(place: Path) -> Plan:
    return load_plan(place / "plan.toml")


@pytest.fixture(scope="module")
def cells(place: Path) -> list[BenchmarkCell]:
    return load_cells(place / "out")


def test_every_system_has_every_target(place: Path, cells: list[BenchmarkCell]) -> None:
    found: dict[str, set[str]] = {}
    for cell in cells:
        found.setdefault(cell.system, set()).add(cell.target)
    domains = set(plan_of(place).domains)
    for system in ("base", "bm25", "base+bm25", "multitask", "transfer", "transfer+bm25", "supervised", "transfer@4"):
        assert found[system] >= domains
    for system in ("fitted", "uniform", "random", "router", "spot", "average", "greedy-soup", "best-single", "pseudo"):
        assert found[f"query:{system}"] == domains
    assert sum(system.startswith("single:") for system in found) == 4


def test_figures_are_those_of_the_trec_files(place: Path, cells: list[BenchmarkCell]) -> None:
    for cell in cells:
        run = ir_measures.read_trec_run(str(run_path(place / "out", cell.target, cell.system, cell.seed)))
        qrels = [
            ir_measures.Qrel(query, document, relevance)
            for query, judged in load(cell.target).qrels("test").items()
            for document, relevance in judged.items()
        ]
        expected = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run)[ir_measures.nDCG @ 10]
        assert cell.measures["nDCG@10"] == pytest.approx(expected, abs=1e-5)


def test_fusion_is_of_the_two_runs(place: Path, cells: list[BenchmarkCell]) -> None:
    target = plan_of(place).domains[0]
    dense, words = (read_run(run_path(place / "out", target, system, 0)) for system in ("base", "bm25"))
    assert all(0 < score < 1 for hits in words.values() for score in hits.values())
    fused = read_run(run_path(place / "out", target, "base+bm25", 0))
    expected = hybrid(dense, words, k=100)
    assert {query: list(hits) for query, hits in fused.items()} == {
        query: list(hits) for query, hits in expected.items()
    }


def test_no_prompt_has_seen_the_target_that_it_is_given_to(place: Path) -> None:
    plan = plan_of(place)
    for fold in range(plan.folds):
        stored = load_prompt(place / "out" / "prompts" / f"fold{fold}-seed0" / "multitask")
        assert set(trained_on(stored.card)) == set(plan.sources(fold))
        assert not set(trained_on(stored.card)) & set(plan.held_out(fold))


def test_a_ceiling_without_training_labels_is_of_folds(place: Path, cells: list[BenchmarkCell]) -> None:
    name = f"folder:{place / 'far-unlabelled'}"
    (cell,) = (cell for cell in cells if (cell.target, cell.system) == (name, "supervised"))
    judged = {query for query, documents in load(name).qrels("test").items() if any(documents.values())}
    assert set(cell.per_query["nDCG@10"]) == judged
    run = read_run(run_path(place / "out", name, "supervised", 0))
    prompts = [load_prompt(path.parent) for path in (place / "out/prompts/supervised-seed0").glob("*2/prompt.json")]
    parts = [load(f"{name}#fold{number}of2") for number in (1, 2)]
    assert {own for stored in prompts for own in trained_on(stored.card)} >= {part.id for part in parts}
    asked = [{query.query_id for query in part.queries("test")} for part in parts]
    assert not asked[0] & asked[1]
    assert set(run) == asked[0] | asked[1]


def test_sources_hold_no_text_of_another_domain(place: Path, tiny_bert: Path) -> None:
    plan = plan_of(place)
    stage = Stage(plan, place / "out", backbone=str(tiny_bert), quiet=True)
    whole = {name: {d.text for d in load(name).documents()} for name in plan.domains}
    left = {name: {d.text for d in stage.source(name).documents()} for name in plan.domains}
    assert whole[plan.domains[1]] & whole[plan.domains[2]]
    for name in plan.domains:
        assert not any(left[name] & whole[other] for other in plan.domains if other != name)


def test_vectors_of_another_prompt_or_length_are_never_taken_for_its_own(
    place: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    plan = plan_of(place)
    name = plan.domains[0]
    found = []
    for seed, length in ((0, 24), (1, 24), (1, 8)):  # each a run of its own, on one folder
        stage = Stage(replace(plan, document_length=length), tmp_path, backbone=str(tiny_bert), quiet=True)
        prompt = random_prompt(stage.encoder, PromptSpec(**plan.prompt), seed, scale=0.5)
        transformer_of(stage.encoder).add("mine", prompt)
        found.append(stage.documents(name, "mine", "mine-seed0").vectors)
        texts = [document.content for document in load(name).documents()]
        expected = encode(
            stage.encoder, texts, "document", route="mine", max_length=length, precision=stage.precision, quiet=True
        )
        np.testing.assert_allclose(found[-1], expected, atol=2e-3)
    assert not np.allclose(found[0], found[1], atol=1e-2)
    assert not np.allclose(found[1], found[2], atol=1e-2)


def test_what_is_done_is_left_and_what_is_missing_is_made(
    place: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nothing is to be trained")

    monkeypatch.setattr("foreword.lab.experiment.train", refuse)
    plan = plan_of(place)
    lost = run_path(place / "out", plan.domains[0], "bm25", 0)
    before = lost.read_bytes()
    cell = place / "out" / "cells" / lost.parts[-3] / "bm25" / "seed0.json"
    made = cell.read_bytes()
    cell.unlink()
    run_benchmark(plan, place / "out", parts=["primary"], backbone=str(tiny_bert), quiet=True)
    assert (lost.read_bytes(), cell.read_bytes()) == (before, made)


def test_the_results_say_what_is_missing(place: Path) -> None:
    page = write_results(plan_of(place), place / "out", missing={"glasgow/nowhere": "no such file"})
    text = (place / "out" / "results.md").read_text()
    assert "Not on this machine: glasgow/nowhere: no such file" in text
    assert "| H1 |" in text
    assert "Exploratory comparisons" in text
    assert "| E1 |" in text
    assert "| E2 |" not in text  # nothing of that name was run
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_calibration_covers_base_and_prompts(place: Path) -> None:
    records = json.loads((place / "out" / "calibration.json").read_text())
    assert {(r["target"], r["system"]) for r in records} == {
        (name, system) for name in plan_of(place).domains for system in ("base", "multitask", "supervised")
    }
    assert all(0 <= r["ece"] <= 1 and 0 <= r["brier"] <= 1 and r["temperature"] > 0 for r in records)
    assert "Calibration, means over 4 targets" in (place / "out" / "results.md").read_text()


def test_the_evidence_is_what_advise_reads(place: Path, cells: list[BenchmarkCell]) -> None:
    entries = {entry.target: entry for entry in read_evidence(place / "out" / "evidence.json")}
    for name in plan_of(place).domains:
        mean = {c.system: c.measures["nDCG@10"] for c in cells if c.target == name}
        chosen = next(c for c in cells if (c.target, c.system) == (name, "transfer"))
        assert entries[name].within == chosen.details["reach"]["within"]
        used = "transfer" if entries[name].within else "multitask"
        assert entries[name].gain == pytest.approx(mean[used] - mean["base"], abs=1e-5)
        assert entries[name].supervised_gain == pytest.approx(mean["supervised"] - mean["base"], abs=1e-5)
        assert entries[name].pairs == len(list(load(name).pairs("train")))


def test_the_command_shows_the_plan_and_reports(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["benchmark", str(place / "plan.toml"), "--output", str(place / "out")]
    main([*options, "--dry-run", "--seeds", "3"])
    assert json.loads(capsys.readouterr().out)["plan"]["seeds"] == [3]
    main([*options, "--report-only"])
    assert "# Toys" in capsys.readouterr().out


def test_the_committed_plan_names_the_primary_claims() -> None:
    plan = load_plan()
    assert len(plan.domains) >= 12
    assert [(claim.system, claim.baseline) for claim in plan.hypotheses] == [
        ("transfer", "base"),
        ("transfer+bm25", "base+bm25"),
        ("transfer@16", "transfer"),
        ("transfer@64", "transfer"),
    ]
    assert load_plan(group="real").domains == load_plan(group="both").domains[:4]
    assert load_plan(group="both").domains[4:] == plan.domains
    for bank in ("real", "both"):
        assert set(load_plan(group=bank).targets) >= set(plan.far["real"])
    for fold in range(plan.folds):
        assert not set(plan.sources(fold)) & set(plan.held_out(fold))
    assert sorted(name for fold in range(plan.folds) for name in plan.held_out(fold)) == list(plan.domains)


def test_what_is_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="no part secondary; there are: primary"):
        run_benchmark(plan_of(place), tmp_path, parts=["secondary"])
    (tmp_path / "cells").mkdir()
    with pytest.raises(ForewordError, match="holds no cells yet"):
        write_results(plan_of(place), tmp_path)
    text = (place / "plan.toml").read_text()
    for change, said in (
        ("folds = 9", "9 folds of 4 domains"),
        ("seeds = []", "seeds are"),
        ("fold = 1", "unknown: fold"),
    ):
        name = change.split(" = ")[0]
        lines = [change if line.startswith(f"{name} = ") else line for line in text.splitlines()]
        lines = [change, *lines] if change not in lines else lines
        (tmp_path / "wrong.toml").write_text("\n".join(lines))
        with pytest.raises(ForewordError, match=said):
            load_plan(tmp_path / "wrong.toml")
    assert running.PARTS == PARTS
