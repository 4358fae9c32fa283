"""The command line, run in this process on tiny models and a folder in BEIR's layout."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from shell import Shell
from tiny import random_prompt

from foreword.cli import main
from foreword.collections import load
from foreword.prompts.loading import load_encoder
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import folder_name, save_prompt

COMMANDS = (
    "collections",
    "download",
    "mine",
    "train",
    "transfer",
    "advise",
    "evaluate",
    "search",
    "explain",
    "index",
    "encode",
    "export",
    "import",
    "push",
    "serve",
    "benchmark",
    "demo",
)


# -- help and usage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert said.partition("example:\n  foreword ")[2].split()[0] == command
    assert "--json" in said


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert all(f"\n  {command} " in said for command in COMMANDS)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.startswith("foreword ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["train", "pydoc/torch"],
        ["train", "pydoc/torch", "--output", "x", "--steps", "many"],
        ["train", "pydoc/torch", "--output", "x", "--dtype", "int8"],
        ["train", "pydoc/torch", "--output", "x", "--train_dastaset", "y"],
        ["evaluate", "pydoc/torch", "--split", "all"],
        ["transfer", "pydoc/torch"],
    ],
)
def test_usage_errors_are_2(shell: Shell, arguments: list[str]) -> None:
    assert "usage: foreword" in shell.usage(*arguments)


# -- dry runs ------------------------------------------------------------------------------------------------------


def test_dry_runs_print_the_resolved_configuration(shell: Shell, tmp_path: Path) -> None:
    def dry(*arguments: object) -> Any:
        return json.loads(shell(*arguments, "--dry-run"))

    trained = dry("train", "pydoc/torch", "--output", tmp_path / "x", "--steps", 7, "--kind", "prefix", "--seed", 3)
    assert trained["training"]["steps"] == 7
    assert trained["training"]["side"] == "query"
    assert trained["training"]["seed"] == 3
    assert trained["prompt"]["kind"] == "prefix"
    multitask = dry("train", "a", "b", "--multitask", "--target", "c", "--output", tmp_path / "x", "--start", "p")
    assert multitask["collections"] == ["a", "b"]
    assert multitask["excluded"] == ["c"]
    assert multitask["training"]["side"] == "both"
    assert (multitask["prompt"], multitask["start_from"]) == (None, "p")
    evaluated = dry("evaluate", "pydoc/torch", "--measures", "nDCG@10,AP", "R@50", "--k", 50)
    assert evaluated["measures"] == ["nDCG@10", "AP", "R@50"]
    assert (evaluated["k"], evaluated["prompt"], evaluated["split"]) == (50, "none", "test")
    moved = dry("transfer", "pydoc/torch", "--bank", "b", "--method", "similarity", "--top-k", 2)
    assert moved["transfer"]["top_k"] == 2
    assert moved["transfer"]["fit"]["steps"] == 30
    assert dry("demo", "--full") != dry("demo")
    assert dry("demo", "--seed", 4)["seed"] == 4
    assert not (tmp_path / "x").exists()


# -- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluate", "pydoc/no-such-package-here"], "no-such-package-here"),
        (["evaluate", "glasgow/cranfeld"], "glasgow/cranfield"),
        (["evaluate", "folder:/no/such/folder"], "no such folder"),
        (["evaluate", "pydoc/tqdm", "--measures", "nCDG@10"], "nDCG"),
        (["train", "pydoc/tqdm", "--output", "x", "--steps", "0"], "steps is 0; it is at least 1"),
        (
            ["train", "folder:/no/such/folder", "--output", "x", "--length", "0", "--dry-run"],
            "length and feed_forward are 0",
        ),
        (["collections", "--group", "none"], "no group 'none'; there are: beir, beir-full"),
        (["explain", "/no/such/results.json"], "no such file"),
        (["transfer", "folder:/no/such/folder", "--bank", "x", "--temperature", "0"], ""),
    ],
)
def test_errors_are_1_with_one_line(shell: Shell, arguments: list[str], said: str) -> None:
    assert said in shell.fails(*arguments)


def test_errors_of_backbones_and_prompts(shell: Shell, beir: Path, tmp_path: Path, tiny_bert: Path) -> None:
    folder = f"folder:{beir}"
    assert "no folder /none" in shell.fails("evaluate", folder, "--backbone", "/none")
    assert "is no prompt" in shell.fails("evaluate", folder, "--backbone", tiny_bert, "--prompt", tmp_path)
    assert "is no bank" in shell.fails("transfer", folder, "--bank", tmp_path, "--backbone", tiny_bert)
    assert "nobody/nothing" in shell.fails("search", folder, "words", "--backbone", "nobody/nothing")
    said = shell.fails("train", folder, "--output", tmp_path / "x", "--backbone", tiny_bert, "--side", "both", "--documents", "v.npy")  # fmt: skip
    assert "--documents" in said or "no such file" in said
    said = shell.fails("evaluate", folder, "--backbone", tiny_bert, "--device", "nonsense")
    assert "device 'nonsense' cannot be used here" in said
    (tmp_path / "file").write_text("x")
    for arguments in (
        ("train", folder, "--backbone", tiny_bert, "--output", tmp_path / "file" / "x", "--steps", 2),
        ("evaluate", folder, "--system", "bm25", "--write-run", tmp_path / "file" / "x"),
    ):
        assert str(tmp_path / "file") in shell.fails(*arguments)
    (tmp_path / "results.json").write_text("[]")
    assert "is not a results file" in shell.fails("explain", tmp_path / "results.json")


# -- collections and evaluation ------------------------------------------------------------------------------------


def test_collections(shell: Shell) -> None:
    entries = shell.json("collections")
    assert all(entry["id"] and entry["group"] for entry in entries)
    groups = {entry["group"] for entry in entries}
    assert groups >= {"beir", "beir-full", "beir-expanded", "cqadupstack", "oag-qa", "oag-qa-disciplines", "dpr"}
    assert groups >= {"pydoc", "glasgow", "folder", "ir_datasets", "hf"}
    pairs = [(entry["group"], entry["id"]) for entry in entries]
    assert len(set(pairs)) == len(pairs)
    counts = Counter(group for group, _ in pairs)
    assert [counts[name] for name in ("beir", "beir-full", "beir-expanded", "cqadupstack")] == [15, 19, 26, 12]
    assert [counts[name] for name in ("oag-qa", "oag-qa-disciplines", "dpr", "glasgow")] == [87, 22, 5, 8]
    assert {"glasgow/cranfield", "pydoc/stdlib"} <= {entry["id"] for entry in entries}
    assert {entry["group"] for entry in shell.json("collections", "--group", "glasgow")} == {"glasgow"}
    assert "glasgow/cisi" in shell("collections", "--group", "glasgow")


def test_evaluate_bm25(shell: Shell, beir: Path, tmp_path: Path) -> None:
    run = tmp_path / "bm25.trec"
    got = shell.json(
        "evaluate", f"folder:{beir}", "--system", "bm25", "--measures", "nDCG@10", "R@100", "--write-run", run
    )
    assert got["collection"] == f"folder:{beir}"
    assert (got["queries"], got["documents"]) == (12, 60)
    assert list(got["measures"]) == ["nDCG@10", "R@100"]
    assert got["measures"]["R@100"] == 1.0
    assert got["measures"]["nDCG@10"] > 0.5  # queries are words of their documents
    again = shell.json("evaluate", f"folder:{beir}", "--run", run, "--baseline", run, "--measures", "nDCG@10")
    assert again["measures"]["nDCG@10"] == pytest.approx(got["measures"]["nDCG@10"])
    assert again["against"]["nDCG@10"] == pytest.approx(
        {"baseline": got["measures"]["nDCG@10"], "difference": 0, "p_value": 1, "wins": 0, "ties": 12, "losses": 0}
    )
    told = shell("evaluate", f"folder:{beir}", "--system", "bm25")
    assert "12 queries, 60 documents" in told
    assert "Success@20" in told


def test_a_split_that_is_not_there(shell: Shell, beir: Path, tmp_path: Path) -> None:
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "corpus.jsonl").write_bytes((beir / "corpus.jsonl").read_bytes())
    assert "no judgements" in shell.fails("evaluate", f"folder:{tmp_path / 'only'}", "--system", "bm25")


def test_queries_that_a_run_or_its_baseline_lacks_are_counted(shell: Shell, beir: Path, tmp_path: Path) -> None:
    """And compared over all the same: what a run does not answer is 0, as in trec_eval -c."""
    judged = load(f"folder:{beir}").qrels("test")
    lines = [
        f"{query} Q0 {next(d for d, grade in docs.items() if grade > 0)} 1 1.0 x" for query, docs in judged.items()
    ]
    for name, chosen in (("whole", lines), ("three", lines[:3]), ("none", [])):
        (tmp_path / name).write_text("\ufeff" + "".join(f"{line}\r\n" for line in [*chosen, "elsewhere Q0 d 1 1.0 x"]))
    how = ("evaluate", f"folder:{beir}", "--measures", "Success@20", "--run")
    for run, base in (("whole", "three"), ("three", "whole"), ("whole", "none"), ("none", "none"), ("whole", "whole")):
        got = shell.json(*how, tmp_path / run, "--baseline", tmp_path / base)
        of = {"whole": 12, "three": 3, "none": 0}
        assert (got["queries"], got["unanswered"], got["unjudged"]) == (12, 12 - of[run], 1)
        assert got["baseline"] == {"unanswered": 12 - of[base], "unjudged": 1}
        assert got["measures"]["Success@20"] == of[run] / 12
        assert got["against"]["Success@20"]["difference"] == pytest.approx((of[run] - of[base]) / 12)
    told = shell(*how, tmp_path / "whole", "--baseline", tmp_path / "three").splitlines()
    assert told[1] == "0 of 12 judged queries have no hit and count 0; 1 queries of the run are not judged and left out"
    assert told[2].startswith(f"{tmp_path / 'three'}: 9 of 12 judged queries have no hit and count 0; ")


@pytest.mark.parametrize("system", ["dense", "hybrid", "min-max", "reciprocal-rank"])
def test_evaluate_other_systems(shell: Shell, beir: Path, tiny_bert: Path, system: str) -> None:
    got = shell.json(
        "evaluate", f"folder:{beir}", "--backbone", tiny_bert, "--system", system, "--k", 10, "--measures", "nDCG@10"
    )
    assert 0 < got["measures"]["nDCG@10"] <= 1
    assert got["system"] == system


def test_data_is_where_folders_are(shell: Shell, beir: Path) -> None:
    got = shell.json("evaluate", "folder:toy", "--data", beir.parent, "--system", "bm25", "--measures", "AP")
    assert got["queries"] == 12


def test_a_folder_goes_by_its_path(shell: Shell, beir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(beir.parent)
    how = ("--measures", "AP", "--system", "bm25")
    for name in ("toy", "./toy", str(beir)):
        assert shell.json("evaluate", *how, name)["collection"] == f"folder:{name}"
    dry = json.loads(shell("train", "toy", "--target", "./toy", "--output", "x", "--dry-run"))
    assert (dry["collections"], dry["excluded"]) == (["folder:toy"], ["folder:./toy"])
    (answer,) = shell.json("search", "toy", "--k", 2, "words", "--system", "bm25")
    assert len(answer["hits"]) <= 2


# -- the whole job -------------------------------------------------------------------------------------------------


def test_train_evaluate_search(shell: Shell, beir: Path, tiny_bert: Path, tmp_path: Path) -> None:
    folder, prompt = f"folder:{beir}", tmp_path / "prompt"
    train = ("train", folder, "--backbone", tiny_bert, "--output", prompt)
    train += ("--steps", 20, "--batch-size", 8, "--evaluate-every", 10, "--precision", "float32")
    summary = shell.json(*train)
    assert summary["domain"] == folder
    assert summary["steps"] == 20
    assert summary["parameters"] == 2 * 4 * 8 * 32
    assert summary["bytes"] == (prompt / "prompt.safetensors").stat().st_size
    assert summary["dev_nDCG@10"]["best"] >= summary["dev_nDCG@10"]["start"]
    told = shell(*train)  # finished: told again, not trained again
    assert "parameters" in told
    choice = summary["choice"]
    assert (choice["by"], choice["queries"], choice["folds"]) == ("folds", 44, 5)
    assert "the 44 labels, held out in 5 folds" in told
    assert ("the prompt is the base model" in told) == (summary["best_step"] == 0) == ("what may help" in told)
    assert summary["learnt"] == (summary["best_step"] > 0) == ("nothing was learnt" not in told)
    assert "trained with other settings" in shell.fails(*train, "--seed", 1)
    with_prompt = shell.json("evaluate", folder, "--backbone", tiny_bert, "--prompt", prompt, "--split", "dev")
    assert with_prompt["prompt"] == str(prompt)
    assert set(with_prompt["measures"]) == {"nDCG@10", "R@100", "AP", "RR@10", "Success@20"}
    text = json.loads((beir / "corpus.jsonl").read_text().splitlines()[4])["text"]
    found = shell.json("search", folder, text, "short query", "--backbone", tiny_bert, "--prompt", prompt, "--k", 3)
    assert [len(answer["hits"]) for answer in found] == [3, 3]
    base = shell.json("search", folder, text, "--backbone", tiny_bert, "--k", 1)
    assert base[0]["hits"][0]["doc_id"] == "d4"
    assert base[0]["hits"][0]["score"] == pytest.approx(1.0, abs=1e-5)
    assert "d4" in shell("search", folder, text, "--system", "bm25")
    assert "nothing to search for" in shell_without_input(shell, folder)


def shell_without_input(shell: Shell, folder: str) -> str:
    import io
    import sys

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "stdin", io.StringIO("\n"))
        return shell.fails("search", folder, "--system", "bm25")


def test_own_document_vectors(shell: Shell, beir: Path, tiny_bert: Path, tmp_path: Path) -> None:
    import numpy as np

    from foreword.collections.registry import load
    from foreword.training.vectors import embed_documents

    made = embed_documents(load_encoder(str(tiny_bert), device="cpu"), load(f"folder:{beir}"), quiet=True)
    np.save(tmp_path / "v.npy", made.vectors)
    (tmp_path / "ids.txt").write_text("\n".join(made.doc_ids))
    summary = shell.json(
        *("train", f"folder:{beir}", "--backbone", tiny_bert, "--output", tmp_path / "p", "--steps", 4),
        *("--documents", tmp_path / "v.npy", "--ids", tmp_path / "ids.txt", "--precision", "float32"),
    )
    assert summary["steps"] == 4
    assert not [line for line in shell.printed.err.splitlines() if "warning" in line]


def test_one_prompt_for_several_and_pseudo_queries(shell: Shell, beir: Path, tiny_bert: Path, tmp_path: Path) -> None:
    summary = shell.json(
        *(
            "train",
            f"folder:{beir}",
            f"folder:{beir}/../toy",
            "--multitask",
            "--backbone",
            tiny_bert,
            "--output",
            tmp_path / "m",
        ),
        *("--steps", 4, "--batch-size", 8, "--pseudo-queries", "first-sentence", "--precision", "float32"),
    )
    assert summary["domain"] == "multitask"


def test_transfer(shell: Shell, beir: Path, tiny_bert: Path, tmp_path: Path) -> None:
    encoder = load_encoder(str(tiny_bert), device="cpu")
    bank = tmp_path / "bank"
    for seed, name in enumerate(("one", "two", f"folder:{beir}")):
        prompt = random_prompt(encoder, PromptSpec("gated", 3), seed, scale=0.5)
        save_prompt(bank / folder_name(name).replace(":", "-"), prompt, encoder, name)
    transfer = ("transfer", f"folder:{beir}", "--bank", bank, "--backbone", tiny_bert, "--precision", "float32")
    output = tmp_path / "transferred"
    result = shell.json(*transfer, "--method", "uniform", "--output", output)
    assert result["weights"] == {"one": 0.5, "two": 0.5}  # never the target's own
    evaluated = shell.json("evaluate", f"folder:{beir}", "--backbone", tiny_bert, "--prompt", output)
    assert evaluated["queries"] == 12
    fitted = shell.json(*transfer, "--output", output)
    assert fitted["advice"] in ("transfer", "don't transfer")
    assert set(fitted["pseudo_nDCG@10"]) == {"base", "fitted"}
    assert shell.json(*transfer, "--method", "uniform", "--only", "two")["weights"] == {"two": 1.0}
    assert shell.json(*transfer, "--method", "uniform", "--exclude", "two")["weights"] == {"one": 1.0}
    assert "holds no prompt for three" in shell.fails(*transfer, "--only", "three")
    assert f"folder:{beir}" in shell(*transfer, "--method", "best-single")
    assert "similarity needs the documents" in shell.fails(*transfer, "--method", "similarity")


def test_no_memory_is_one_line_and_code_1(shell: Shell, beir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from foreword.collections import registry

    def full(*_: Any, **__: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(registry, "load", full)
    assert "out of memory; a smaller --batch-size" in shell.fails("evaluate", f"folder:{beir}", "--system", "bm25")


def test_interruption_is_130(shell: Shell, beir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from foreword.collections import registry

    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(registry, "load", interrupted)
    shell("evaluate", f"folder:{beir}", "--system", "bm25", code=130)
    assert "run the same command again to continue" in shell.printed.err
