"""The pages of `test_docs.WALKED` are walked through as a reader does, from top to bottom.

A tiny backbone stands in for MiniLM and trainings are cut short; with FOREWORD_SLOW=1 both are as the pages have them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny
from sentence_transformers import SentenceTransformer
from shell import Shell
from test_docs import WALKED, reason_not_to_run
from tiny import random_prompt, toy_collection, write_beir
from walk import Walk

from foreword.collections import registry
from foreword.prompts.backbone import PACKAGED, resolve_backbone
from foreword.prompts.loading import load_encoder
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import save_prompt

for package in ("fastapi", "prometheus_client", "pymilvus", "milvus_lite"):
    pytest.importorskip(package, reason="the extras index and serve are not installed")

SLOW = os.environ.get("FOREWORD_SLOW") == "1"
SLOW_LINES = (
    "benchmarks/serve.py",
    "benchmarks/index.py",
    "benchmarks/speed.py",
    "--miniature",
    "benchmark in-domain --targets",
)
"""Lines that take a minute whatever the backbone: run with FOREWORD_SLOW=1."""

NOTES = {
    "receipts.txt": "Receipts are kept for ten years, letters of the tax office too.",
    "plants/ferns.md": "# Ferns\nWater them on Mondays.",
    "keys.txt": "The spare keys are with the neighbour on the second floor.",
    "bicycle.md": "# Bicycle\nThe chain wants oil every 300 km.",
}


# -- what the pages presume ------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with as many positions as MiniLM has, under unit length as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "POSITIONS", 512)
        return tiny.save_model(tmp_path_factory.mktemp("small") / "bert", layers=3, normalize=True)


@pytest.fixture
def walk(
    tmp_path: Path, small: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Walk]:
    """In an empty folder, with the tiny BERT under MiniLM's name, and toy documents under names of packages."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "*")
    for name in ("FOREWORD_API_KEY", "FOREWORD_DATA", "FOREWORD_SERVE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    load = registry.load

    def toy(name: str, **how: Any) -> Any:
        return toy_collection(name) if name.startswith("pydoc/") else load(name, **how)

    monkeypatch.setattr(registry, "load", toy)
    if SLOW:
        request.getfixturevalue("minilm")  # or skip
        yield Walk(shell, monkeypatch)
        return

    def resolve(name: str = "all-MiniLM-L6-v2", revision: str | None = None) -> Any:
        return (
            replace(resolve_backbone(str(small)), name=name) if name in PACKAGED else resolve_backbone(name, revision)
        )

    for module in ("loading", "backbone"):
        monkeypatch.setattr(f"foreword.prompts.{module}.resolve_backbone", resolve)
    with tiny.short_trainings(4):
        yield Walk(shell, monkeypatch)


def notes(folder: str = "my-notes") -> None:
    for name, text in NOTES.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def labelled(*folders: str, documents: int = 60) -> None:
    for folder in folders:
        write_beir(Path(folder), toy_collection(folder, documents=documents))


def texts(folder: str) -> None:
    Path(folder).mkdir()
    for document in toy_collection(folder).documents():
        Path(folder, f"{document.doc_id}.txt").write_text(document.text)


def prompts(*domains: str, sides: Any = "shared") -> None:
    """Random prompts in `bank`."""
    encoder: SentenceTransformer = load_encoder(device="cpu")
    for domain in domains:
        prompt = random_prompt(encoder, PromptSpec(length=2, sides=sides), scale=0.1)
        save_prompt(Path("bank", domain.replace("/", "-").replace(":", "-")), prompt, encoder, domain)


def multitask(walk: Walk) -> None:
    """The bank of no-labels.md."""
    labelled("support", "manuals", "wiki")
    walk.shell("train", "folder:support", "folder:manuals", "folder:wiki", "--multitask", "--untied",
               "--output", "bank/multitask", "--steps", "4", "--evaluate-every", "2")  # fmt: skip


def for_readme(walk: Walk) -> None:
    notes()
    texts("my-texts")
    labelled("my-collection")


def for_few_labels(walk: Walk) -> None:
    multitask(walk)
    labelled("my-notes", documents=200)
    write_beir(Path("judged"), toy_collection("judged", splits=("test",)))


def for_recipes(walk: Walk) -> None:
    labelled("support", "manuals", "wiki", "my-collection")


def for_no_labels(walk: Walk) -> None:
    labelled("support", "manuals", "wiki")
    texts("my-texts")


def for_serve(walk: Walk) -> None:
    notes()
    prompts("folder:my-notes", "pydoc/networkx")


def for_commands(walk: Walk) -> None:
    labelled("my-collection")
    asked = list(toy_collection("my-collection").queries("test"))
    Path("queries.tsv").write_text("".join(f"{query.query_id}\t{query.text}\n" for query in asked))


PRESUMED: dict[str, Callable[[Walk], None]] = {
    "README.md": for_readme,
    "docs/start.md": lambda walk: notes(),
    "docs/how-it-works.md": lambda walk: prompts("multitask"),
    "docs/researchers.md": lambda walk: labelled("my-collection", "another"),
    "docs/tenants.md": lambda walk: labelled("acme", "birch", "cedar"),
    "docs/no-labels.md": for_no_labels,
    "docs/few-labels.md": for_few_labels,
    "docs/recipes.md": for_recipes,
    "docs/serve.md": for_serve,
    "docs/openai-langchain.md": lambda walk: prompts("one"),
    "docs/performance.md": lambda walk: notes(),
    "docs/reference/commands.md": for_commands,
}


def reason(name: str, line: str) -> str | None:
    """Why a line of a page is left out of this walk."""
    if not SLOW and any(words in line for words in SLOW_LINES):
        return "a minute; set FOREWORD_SLOW=1"
    return reason_not_to_run(name, line)


# -- what they come to -----------------------------------------------------------------------------------------------


def check_start(walk: Walk, tmp_path: Path) -> None:
    said = list(walk.said.values())
    assert said[0].startswith("folder:my-notes: 4 added; 4 documents in notes.db")
    assert "4 unchanged" in said[2]
    domains, found = json.loads(said[-2]), json.loads(said[-1])
    assert [(one["name"], one["documents"]) for one in domains["domains"] if one["searchable"]] == [
        ("folder:my-notes", 4)
    ]
    (answer,) = found["results"]
    assert answer["systems"]["bm25"][0]["doc_id"] == "receipts.txt"
    assert len(answer["systems"]["base"]) == 3
    assert walk.statuses == [200, 200]
    assert walk.made["hit"].document.name


def check_tenants(walk: Walk, tmp_path: Path) -> None:
    """Its own domain by all systems; another's as one that is not there; the admin's reload."""
    own, other, reload = walk.statuses
    assert (own, reload) == (200, 200)
    assert 400 <= other < 500
    found, refused, changes = (json.loads(text) for text in list(walk.said.values())[-3:])
    assert set(found["results"][0]["systems"]) == {"base", "prompt", "bm25", "hybrid"}
    assert "birch" in refused["error"]["message"]
    assert changes["unchanged"] == ["acme", "birch"]
    shown = next(text for line, text in walk.said.items() if line.endswith("--dry-run"))
    assert os.environ["ACME_KEY"] not in shown
    assert json.loads(shown)["index"] == "tenants.db"


def check_researchers(walk: Walk, tmp_path: Path) -> None:
    ours, theirs = walk.made["ours"].measures["nDCG@10"], walk.made["theirs"]
    assert list(theirs.values()) == [pytest.approx(ours)]
    assert (tmp_path / "runs/explain/report.html").is_file()
    assert not SLOW or "prompt@40" in (tmp_path / "runs/mine/results.tex").read_text()


def check_no_labels(walk: Walk, tmp_path: Path) -> None:
    assert walk.made["result"].advice in ("transfer", "don't transfer")
    assert walk.made["result"].reach is not None


def check_few_labels(walk: Walk, tmp_path: Path) -> None:
    assert walk.made["few"].card["metrics"]["choice"]["queries"] == 32  # each label was held out once
    assert len(list((tmp_path / "bank/judged").glob("*/prompt.json"))) == 5


def check_recipes(walk: Walk, tmp_path: Path) -> None:
    assert (tmp_path / "encoder/README.md").is_file()
    assert (tmp_path / "negatives.jsonl").read_text().count("\n") > 0
    card = json.loads((tmp_path / "bank/wiki/prompt.json").read_text())
    assert card["training"]["document_side"] == "start"


def check_readme(walk: Walk, tmp_path: Path) -> None:
    assert walk.made["hit"].score <= 1.0001
    assert (tmp_path / "prompts/mine/prompt.json").is_file()


def check_commands(walk: Walk, tmp_path: Path) -> None:
    assert (tmp_path / "hits.trec").read_text().count("\n") == 12 * 60  # all documents of 100 that were asked for


CHECKS: dict[str, Callable[[Walk, Path], None]] = {
    "README.md": check_readme,
    "docs/start.md": check_start,
    "docs/researchers.md": check_researchers,
    "docs/tenants.md": check_tenants,
    "docs/no-labels.md": check_no_labels,
    "docs/few-labels.md": check_few_labels,
    "docs/recipes.md": check_recipes,
    "docs/reference/commands.md": check_commands,
    "docs/serve.md": lambda walk, tmp_path: None if walk.statuses == [200, 200] else pytest.fail(str(walk.said)),
}


@pytest.mark.parametrize("name", WALKED)
def test_page(name: str, walk: Walk, tmp_path: Path) -> None:
    PRESUMED.get(name, lambda walk: None)(walk)
    walk.page(name, partial(reason, name), python=name != "docs/openai-langchain.md")
    CHECKS.get(name, lambda walk, tmp_path: None)(walk, tmp_path)
