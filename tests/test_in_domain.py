"""The benchmark in a domain, on toy collections: what is trained, by which rates and steps, and what is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import ir_measures
import pytest
from shell import Shell
from tiny import toy_collection, write_beir

from foreword.errors import ForewordError, UnknownNameError
from foreword.files import read_json, write_json
from foreword.lab.in_domain import InDomain, InDomainPlan, load_in_domain, run_in_domain
from foreword.lab.records import BenchmarkCell, load_cells, run_path

PLAN = """
title = "Toys"
tuned_on = ["dev"]
final = ["prompt", "lora", "full"]
budgets = [2, 4]
seeds = [0, 1]
folds = 2
batch_size = 8
query_length = 12
document_length = 24
[training]
dev_queries = 4
[targets]
whole = ["a"]
folded = ["b"]
[methods.prompt]
prompt = { kind = "memory", length = 1, feed_forward = 1 }
rates = [1e-3, 1e-2]
[methods.lora]
baseline = { method = "lora", rank = 1 }
rates = [1e-3]
[methods.full]
baseline = { method = "full" }
rates = [1e-4]
[[hypothesis]]
name = "F"
statement = "no worse than full fine-tuning"
system = "prompt@2"
baseline = "full@2"
margin = 0.5
"""


@pytest.fixture(scope="module")
def place(few_trials: None, tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    folder = tmp_path_factory.mktemp("in-domain")
    for number, name in enumerate(("dev", "a", "b")):
        write_beir(folder / name, toy_collection(f"toy/{name}", seed=number))
    for split in ("train", "dev"):
        (folder / "b" / "qrels" / f"{split}.tsv").unlink()
    (folder / "plan.toml").write_text(PLAN)
    plan = plan_of(folder)
    paces = {name: [seconds] * 3 for name, seconds in (("prompt", 0.1), ("lora", 0.2), ("full", 0.2))}
    write_json(
        folder / "out" / "pace.json",
        {f"{name} {plan.digest(name)}": {"method": name, "seconds": each} for name, each in paces.items()},
    )
    run_in_domain(plan, folder / "out", data=folder, backbone=str(tiny_bert), quiet=True)
    return folder


def plan_of(place: Path) -> InDomainPlan:
    return load_in_domain(place / "plan.toml")


@pytest.fixture(scope="module")
def cells(place: Path) -> list[BenchmarkCell]:
    return load_cells(place / "out")


def test_every_method_has_every_target_budget_and_seed(cells: list[BenchmarkCell]) -> None:
    found = {(cell.target, cell.system, cell.seed) for cell in cells}
    for target in ("a", "b"):
        for method in ("prompt", "lora", "full"):
            assert {(target, f"{method}@2", 0), (target, f"{method}@2", 1), (target, f"{method}@4", 0)} <= found
            assert (target, f"{method}@4", 1) not in found
        assert {(target, system, 0) for system in ("base", "bm25", "base+bm25", "lora@steps")} <= found


def test_figures_are_those_of_the_trec_files(place: Path, cells: list[BenchmarkCell]) -> None:
    from foreword.collections.registry import load

    for cell in cells:
        qrels = load(f"folder:{place / cell.target}").qrels("test")
        run = ir_measures.read_trec_run(str(run_path(place / "out", cell.target, cell.system, cell.seed)))
        found = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run)[ir_measures.nDCG @ 10]
        assert cell.measures["nDCG@10"] == pytest.approx(found, abs=1e-6)


def test_budgets_are_the_time_of_full_fine_tuning(place: Path, cells: list[BenchmarkCell]) -> None:
    steps = {(cell.system, cell.seed): cell.details["steps"] for cell in cells if cell.details}
    assert (steps["full@2", 0], steps["full@4", 0]) == (2, 4)
    assert (steps["prompt@2", 0], steps["prompt@4", 0]) == (4, 8)
    assert (steps["lora@2", 0], steps["lora@steps", 0]) == (2, 4)
    assert ("full@steps", 0) not in steps


def test_what_a_step_takes_is_measured_once(place: Path, tmp_path: Path, tiny_bert: Path) -> None:
    bench = InDomain(plan_of(place), tmp_path, data=place, backbone=str(tiny_bert), quiet=True)
    first = bench.paces(["prompt", "full"], few=1, many=3, rounds=1)
    assert first.keys() == {"prompt", "full"}
    assert bench.paces(["prompt", "full"]) == first
    full = f"full {bench.plan.digest('full')}"
    kept = read_json(tmp_path / "pace.json")
    write_json(tmp_path / "pace.json", {full: {"method": "full", "seconds": [1000 * s for s in kept[full]["seconds"]]}})
    later = bench.paces(["prompt", "full"], few=1, many=3, rounds=1)
    assert later["full"] == pytest.approx(1000 * first["full"])
    assert later["prompt"] > 50 * first["prompt"]


def test_the_rate_is_the_one_with_the_least_loss_on_collections_that_are_no_targets(
    place: Path, cells: list[BenchmarkCell]
) -> None:
    tried = json.loads((place / "out" / "tuning" / "prompt.json").read_text())
    assert {end["target"] for ends in tried.values() for end in ends} == {"dev"}
    best = min(tried, key=lambda rate: tried[rate][0]["after"]["loss"])
    assert {c.details["learning_rate"] for c in cells if c.system.startswith("prompt")} == {float(best)}


def test_a_second_run_trains_nothing_and_writes_the_same_bytes(place: Path, tiny_bert: Path) -> None:
    files = {path: path.read_bytes() for path in (place / "out").rglob("*") if path.is_file()}
    run_in_domain(plan_of(place), place / "out", data=place, backbone=str(tiny_bert), quiet=True)
    assert {path: path.read_bytes() for path in files} == files


def test_the_margin_of_a_claim_counts(place: Path) -> None:
    claim = json.loads((place / "out" / "results.json").read_text())["hypotheses"][0]
    assert claim["outcome"] == "supported"


def test_collections_of_ones_own_take_the_rates_chosen_before(place: Path, tmp_path: Path, tiny_bert: Path) -> None:
    plan = plan_of(place)
    methods = {name: replace(one, rates=(1e-5, 1.0), chosen=2e-4) for name, one in plan.methods.items()}
    own = replace(plan, methods=methods, seeds=(0,), budgets=(2,)).on(["a"])
    assert (own.query_length, own.document_length) == (64, 128)
    paces = {f"{name} {own.digest(name)}": {"method": name, "seconds": [0.1] * 3} for name in own.methods}
    write_json(tmp_path / "pace.json", paces)
    run_in_domain(own, tmp_path, parts=["own"], data=place, backbone=str(tiny_bert), quiet=True)
    cells = load_cells(tmp_path)
    assert {(cell.target, cell.genre) for cell in cells} == {("a", "own")}
    assert {cell.details["learning_rate"] for cell in cells if "@" in cell.system} == {2e-4}
    assert not (tmp_path / "tuning").exists()
    latex = (tmp_path / "results.tex").read_text()
    assert latex.count("\\begin{tabular}") == latex.count("\\toprule") >= 2


def test_refusals(place: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="no part far"):
        run_in_domain(plan_of(place), tmp_path, parts=["far"])
    (tmp_path / "plan.toml").write_text(PLAN.replace("baseline = { method", "something = { method"))
    (place / "wrong.toml").write_text("methods = 1")
    with pytest.raises(ForewordError, match=r"wrong\.toml cannot be read .*: it was cut or altered"):
        load_in_domain(place / "wrong.toml")
    with pytest.raises(ForewordError, match="something"):
        load_in_domain(tmp_path / "plan.toml")


def test_targets_of_the_command_line(shell: Shell) -> None:
    named = ("benchmark", "in-domain", "--targets", "folder:mine", "beir/fiqa")
    told = shell.json(*named, "--dry-run")
    assert (told["parts"], told["plan"]["targets"]) == (["own"], {"own": ["folder:mine", "beir/fiqa"]})
    assert list(told["plan"]["methods"]) == ["prompt", "lora", "full", "prompt-top"]
    assert "--targets is for the benchmark in-domain" in shell.fails("benchmark", "transfer", *named[2:], "--dry-run")
