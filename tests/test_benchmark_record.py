"""A run in one file, and the tables that pages show of it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from invented_cells import benchmark, cell
from pages import ROOT

from foreword.cli.main import main
from foreword.errors import DataError, ForewordError
from foreword.files import write_json
from foreword.lab.published import rendered
from foreword.lab.records import load_record, save_cell, write_record

CLAIM = {"name": "H1", "statement": "labels help", "system": "supervised", "baseline": "base"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Four targets of three genres in a run's folder."""
    folder = tmp_path / "run"
    for one in benchmark(["a/x", "b/y", "c/z", "d/w"], 30, matrix=False):
        save_cell(folder, one)
    write_json(folder / "plan.json", {"plan": {"hypotheses": [CLAIM]}, "versions": {"torch": "9"}})
    ends = {
        rate: [{"target": "a/x", "before": {"loss": 2.0, "dev": 0.4}, "after": {"loss": loss, "dev": 0.5}}]
        for rate, loss in (("0.005", 1.3), ("0.01", 1.2))
    }
    write_json(folder / "tuning" / "prompt.json", ends)
    paces = {"prompt": [0.5, 0.1, 0.2], "full": [0.4]}
    write_json(folder / "pace.json", {f"{name} 1": {"method": name, "seconds": each} for name, each in paces.items()})
    write_json(folder / "results.json", {"made": "from cells"})
    return folder


# One file


def test_a_run_comes_back_from_one_file(run: Path, tmp_path: Path) -> None:
    odd = cell(
        "e/v", "s+t@40", [1 / 3, 1, 0, 0.25], 2, labels=None, seconds=1.5, decision="base", similarity=0.125,
        weights={"a/x": 0.75}, details={"rate": 5e-05, "steps": [40]},
    )  # fmt: skip
    save_cell(run, odd)
    file = tmp_path / "kept" / "run.jsonl"
    write_record(file, run)
    record = load_record(file)
    assert record.run.keys() == {"pace", "plan", "tuning"}
    assert record.run["tuning"].keys() == {"prompt"}
    back = record.cells[-1]
    assert back.per_query["nDCG@10"] == {"q0": 0.3333, "q1": 1, "q2": 0, "q3": 0.25}
    assert {**back.as_dict(), "per_query": 0, "measures": 0} == {**odd.as_dict(), "per_query": 0, "measures": 0}
    before = file.read_bytes()
    write_record(file, run)
    assert file.read_bytes() == before
    assert b'".3333 1 0 .25"' in before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: (run / "plan.json").unlink(), "no plan.json"),
        (lambda run: save_cell(run, cell("a/x", "base", [1, 1])), r"base\+bm25 on a/x has 30 queries, base has 2"),
        (lambda run: [file.unlink() for file in run.rglob("seed*")], "no cells"),
    ],
)
def test_a_folder_that_makes_no_record(run: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    change(run)
    with pytest.raises(DataError, match=message):
        write_record(run / "run.jsonl", run)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("foreword-benchmark-record/1", "other/1", "format"),
        ('"seed":0', '"seed":"0"', "seed is '0'"),
        ('"nDCG@10":"', '"nDCG@10":"1 ', "no record of a benchmark"),
        ("{", "(", "broken JSON"),
    ],
)
def test_a_broken_file_is_refused(run: Path, tmp_path: Path, old: str, new: str, message: str) -> None:
    file = tmp_path / "run.jsonl"
    write_record(file, run)
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ForewordError, match=message):
        load_record(file)


# Pages

SUMMARY = """before
<!-- table
record = "run.jsonl"
show = "summary"
targets = ["forum", "a/x"]
systems = ["base", "supervised"]
columns = ["system", "Δ nDCG@10", "nDCG@10"]
title = ""
notes = false
-->
old
<!-- end -->
between
<!-- table
record = "run.jsonl"
show = "hypotheses"
-->
<!-- end -->
<!-- table
record = "run.jsonl"
show = "tuning"
baseline = "full"
-->
<!-- end -->
after
"""


def test_a_page_is_filled_from_the_record(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(SUMMARY)
    assert (
        main(["benchmark", "--record", str(tmp_path / "run.jsonl"), "--output", str(run), "--tables", str(page)]) == 0
    )
    assert "page.md: written" in capsys.readouterr().err
    text = page.read_text()
    cells = load_record(tmp_path / "run.jsonl").cells
    means = {
        system: sum(one.measures["nDCG@10"] for one in cells if one.system == system and one.target in ("a/x", "b/y"))
        for system in ("base", "supervised")
    }
    columns, _, base, ours = text.split("notes = false\n-->\n\n")[1].split("\n")[:4]
    assert columns == "| system | Δ nDCG@10 | nDCG@10 |"
    assert base == f"| base | – | {means['base'] / 2:.3f} |".replace("0.", ".")
    assert re.fullmatch(r"\| supervised \| \+\.\d{3} \[.*\] \| \*\*\.\d{3}\*\* \|", ours)
    assert "| H1 | labels help | supervised − base |" in text
    assert "| prompt | 0.005 | 0.4000 | 0.5000 | 2.0000 | 1.3000 | .50 |\n" in text
    assert "| prompt | 0.01 | 0.4000 | 0.5000 | 2.0000 | **1.2000** | .50 |\n" in text
    assert "old" not in text
    assert [text.count(word) for word in ("before\n", "between", "after\n", "<!-- end -->")] == [1, 1, 1, 3]
    assert main(["benchmark", "--tables", str(page)]) == 0
    assert "page.md: as it was" in capsys.readouterr().err


def test_another_record_adds_its_systems_on_the_same_targets(run: Path, tmp_path: Path) -> None:
    write_record(tmp_path / "run.jsonl", run)
    base = next(one for one in load_record(tmp_path / "run.jsonl").cells if (one.target, one.system) == ("a/x", "base"))
    better = [min(1, value + 0.5) for value in base.per_query["nDCG@10"].values()]
    for place in ("a/x", "elsewhere"):
        save_cell(tmp_path / "other", cell(place, "full@40", better))
    save_cell(tmp_path / "other", cell("a/x", "base", [0] * 30))  # the first record's counts
    write_json(tmp_path / "other" / "plan.json", {"plan": {}})
    write_record(tmp_path / "other.jsonl", tmp_path / "other")
    mark = 'record = "run.jsonl"\nalso = ["other.jsonl"]\nshow = "targets"\nsystems = ["base", "full@40"]\n'
    (tmp_path / "page.md").write_text(f'<!-- table\n{mark}targets = ["a/x"]\n-->\n<!-- end -->\n')
    text = rendered(tmp_path / "page.md")
    means = (base.measures["nDCG@10"], sum(better) / 30)
    assert f"| {means[0]:.3f} | **{means[1]:.3f}** |".replace("0.", ".") in text
    assert "elsewhere" not in text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"forum"', '"forums"', "no target forums; there are: .*forum"),
        ('"base", ', '"bass", ', "no system bass"),
        ('"system", ', '"systems", ', "no column systems"),
        ("notes = false", "note = false", "unknown key note"),
        ("notes = false", "notes =", "no TOML"),
        ("old\n<!-- end -->", "old", "not closed"),
        ('"run.jsonl"', '"gone.jsonl"', "cannot be read"),
        ('"tuning"', '"comparisons"', "run.jsonl has no 'comparisons', which comparisons is made of"),
    ],
)
def test_a_broken_mark_is_refused(run: Path, tmp_path: Path, old: str, new: str, message: str) -> None:
    write_record(tmp_path / "run.jsonl", run)
    (tmp_path / "page.md").write_text(SUMMARY.replace(old, new))
    with pytest.raises(ForewordError, match=message):
        rendered(tmp_path / "page.md", trials=2)


def masked(page: str) -> str:
    """Without what resampling says: intervals, p-values, counts of significance, verdicts."""
    lines, places = [], []
    for line in page.split("\n"):
        cells = line.split(" | ")
        if re.match(r"\| (system|target|hypothesis) ", line):
            places = [place for place, name in enumerate(cells) if name.strip(" |") in ("p", "p (Holm)", "verdict")]
        lines.append(" | ".join("" if line.startswith("|") and n in places else each for n, each in enumerate(cells)))
    return re.sub(r"\[[^]]*\]|\(\d+/\d+\)", "", "\n".join(lines))


@pytest.mark.parametrize("name", ["README.md", "docs/findings.md", "docs/performance.md"])
def test_the_documentations_tables_are_the_records(name: str) -> None:
    """`make tables` mends it. What is resampled, minutes for all tables, is compared with FOREWORD_SLOW=1."""
    page = ROOT / name
    if os.environ.get("FOREWORD_SLOW"):
        assert rendered(page) == page.read_text("utf-8")
    else:
        assert masked(rendered(page, trials=2)) == masked(page.read_text("utf-8"))
