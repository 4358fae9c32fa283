"""The report's plots: what they draw, that equal results give equal files, and that a plain install can draw."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from shell import Shell

from foreword.report import write_plots
from foreword.report.drawing import Plot

HOSTILE = "<script> $x^2$ \x1b[31m \ud800 " + "long " * 30


def results(name: str = "pydoc/torch") -> dict[str, Any]:
    """Two systems on two collections, three queries, two domains and a learning curve."""
    rows = [
        {"system": system, "collection": collection, "measure": "nDCG@10", "value": value}
        for collection, values in ((name, (0.4, 0.5)), ("other", (0.3, None)))
        for system, value in zip(("base", "prompt"), values, strict=True)
    ]
    systems = {"base": {"a": 0.5, "b": 0.2, "c": 0.1}, "prompt": {"a": 0.25, "b": 0.2, "c": 0.6}}
    return {
        "rows": rows,
        "per_query": {name: {"measure": "nDCG@10", "baseline": "base", "systems": systems}, "empty": {"systems": {}}},
        "similarity": {"domains": ["x", name], "targets": [name], "values": [[0.25], [1.0]], "method": "means"},
        "curves": [
            {"name": name, "points": [{"step": 10, "loss": 1.0, "dev": 0.5}, {"step": 0, "loss": None, "dev": 0.4}]},
            {"name": "nothing", "points": []},
        ],
    }


@pytest.fixture(scope="module")
def plots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Plot]:
    return {plot.name: plot for plot in write_plots(tmp_path_factory.mktemp("plots"), results())}


def test_what_is_drawn(plots: dict[str, Plot]) -> None:
    assert list(plots) == ["effectiveness", "gains-pydoc-torch", "similarity", "curves-dev", "curves-loss"]
    shown = {(one["collection"], one["system"]): one["value"] for one in plots["effectiveness"].data}
    assert shown == {("pydoc/torch", "base"): 0.4, ("pydoc/torch", "prompt"): 0.5, ("other", "base"): 0.3}
    (gains,) = plots["gains-pydoc-torch"].data
    assert gains["differences"] == pytest.approx([0.5, 0.0, -0.25])
    assert plots["gains-pydoc-torch"].caption == "1 queries better, 1 the same, 1 worse."
    assert [one["similarity"] for one in plots["similarity"].data] == [0.25, None]  # a domain's own is left out
    assert [(one["step"], one["dev"]) for one in plots["curves-dev"].data] == [(0, 0.4), (10, 0.5)]
    assert [(one["step"], one["loss"]) for one in plots["curves-loss"].data] == [(10, 1.0)]


def test_equal_results_give_equal_files(plots: dict[str, Plot], tmp_path: Path) -> None:
    for again in write_plots(tmp_path, results()):
        first = plots[again.name]
        assert again.png.read_bytes().startswith(b"\x89PNG")
        assert ElementTree.parse(again.svg).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        assert (again.png.read_bytes(), again.svg.read_bytes()) == (first.png.read_bytes(), first.svg.read_bytes())


def test_names_from_data_do_no_harm(tmp_path: Path) -> None:
    drawn = write_plots(tmp_path / "plots", results(HOSTILE))
    assert len(drawn) == 5
    assert {path.parent for path in tmp_path.rglob("*.png")} == {tmp_path / "plots"}
    for plot in drawn:
        ElementTree.parse(plot.svg)


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    assert write_plots(tmp_path / "plots", {"rows": []}) == []
    assert not (tmp_path / "plots").exists()


def test_the_command_puts_them_beside_the_page(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(results()))
    alone = shell.json("explain", tmp_path / "results.json", "--no-plots")
    assert alone == {"report": str(tmp_path / "report.html"), "plots": []}
    assert not (tmp_path / "plots").exists()
    made = shell.json("explain", tmp_path / "results.json", "--output", tmp_path / "page")
    assert made["report"] == str(tmp_path / "page" / "report.html")
    assert len(made["plots"]) == 10
    assert sorted(map(str, (tmp_path / "page" / "plots").iterdir())) == sorted(made["plots"])


def test_a_plain_install_can_draw() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    assert {"matplotlib", "jinja2"} <= {re.split(r"\W", name)[0] for name in project["dependencies"]}
