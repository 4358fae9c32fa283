"""`foreword index`, and the commands of docs/index-guide.md walked through."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from pages import blocks, commands
from sentence_transformers import SentenceTransformer
from shell import Shell
from tiny import random_prompt

from foreword.errors import ForewordError
from foreword.prompts.backbone import Backbone, resolve_backbone
from foreword.prompts.loading import load_encoder
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import save_prompt

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with notes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FOREWORD_MILVUS_TOKEN", raising=False)
    for name, text in {
        "notes/receipts.txt": "Receipts are kept for ten years.",
        "notes/tax/letters.txt": "Keep letters and receipts of the tax office together.",
        "notes/ferns.md": "# Ferns\nWater them on Mondays.",
        "more-notes/keys.txt": "The spare keys are with the neighbour.",
        "manuals/bike.md": "# Bicycle\nThe chain wants oil every 300 km.",
        "manuals/oven.txt": "Preheat for ten minutes.",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_commands(shell: Shell, here: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = ("--backbone", tiny_bert)
    done = shell.json("index", "build", "n.db", "folder:notes", *backbone)
    assert {key: done[key] for key in ("domain", "added", "unchanged", "documents")} == {
        "domain": "folder:notes",
        "added": 3,
        "unchanged": 0,
        "documents": 3,
    }
    (here / "notes/ferns.md").write_text("# Ferns\nWater them on Tuesdays.")
    (here / "notes/receipts.txt").unlink()
    said = shell("index", "update", "n.db", "folder:notes", *backbone)
    assert said.startswith("folder:notes: 1 changed, 1 unchanged, 1 removed; 2 documents in n.db, ")
    assert "3 documents" in shell("index", "add", "n.db", "folder:more-notes", "--domain", "folder:notes", *backbone)

    ((answer),) = shell.json("index", "search", "n.db", "ferns", "--system", "bm25")
    assert answer["query"] == "ferns"
    (hit,) = answer["hits"]
    assert hit == {
        "doc_id": "ferns.md",
        "domain": "folder:notes",
        "rank": 1,
        "score": hit["score"],
        "title": "Ferns",
        "text": "Water them on Tuesdays.",
        "metadata": {"file": "ferns.md"},
        "passage": None,
    }
    monkeypatch.setattr("sys.stdin", StringIO("ferns\n\nkeys\n"))
    assert [found["query"] for found in shell.json("index", "search", "n.db", *backbone)] == ["ferns", "keys"]
    table = shell("index", "search", "n.db", "keys", "--system", "hybrid", "--bm25-weight", "0.9", *backbone)
    assert table.index("keys.txt") < table.index("Ferns")
    assert "BM25 a weight of 0.2 (the default)" in shell("index", "build", "n.db", "folder:notes", *backbone)

    stats = shell.json("index", "stats", "n.db")
    assert stats["documents"] == 3
    assert stats["domains"]["folder:notes"]["complete"] is True
    assert "the base model" in shell("index", "stats", "n.db")
    assert "1 removed, 2 left" in shell("index", "delete", "n.db", "keys.txt", "nothing")
    assert "1 of the ids were not there" in shell.printed.err
    assert shell.json("index", "delete", "n.db", "--all") == {"domain": "folder:notes", "removed": 2, "documents": 0}


def test_where_nothing_has_changed_no_model_is_loaded(
    shell: Shell, here: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(name: str, revision: str | None = None) -> Backbone:
        return replace(resolve_backbone(str(tiny_bert)), name=name)

    def load(*_: object, **__: object) -> None:
        raise ForewordError("a model was loaded")

    update = ("index", "update", "n.db", "notes")
    monkeypatch.setattr("foreword.prompts.loading.resolve_backbone", resolve)
    shell("index", "build", "n.db", "notes")
    assert shell.json("index", "stats", "n.db")["domains"]["folder:notes"]["folder"] == str(here / "notes")
    monkeypatch.setattr("foreword.cli.grammar.load_encoder", load)
    assert shell(*update).startswith("folder:notes: 3 unchanged; 3 documents in n.db, ")
    assert "3 unchanged" in shell("index", "build", "n.db", "notes")
    for other in (
        ("--max-length", 5),
        ("--backbone", "other"),
        ("--pooling", "cls"),
        ("--revision", "v2"),
        ("--no-passages",),
    ):
        assert "a model was loaded" in shell.fails(*update, *other)
    assert "a model was loaded" in shell.fails("index", "build", "n.db", "notes", "--replace")
    (here / "notes/labels-test.tsv").write_text("what ferns want\tferns.md\n")
    assert "3 unchanged" in shell(*update)  # test's labels are not looked at
    (here / "notes/labels.tsv").write_text("what ferns want\tferns.md\n")
    assert "a model was loaded" in shell.fails(*update)  # the weight of words is chosen anew
    (here / "notes/labels.tsv").unlink()
    (here / "notes/ferns.md").rename(here / "ferns.md")  # gone, which concerns `update` alone
    assert "2 unchanged" in shell("index", "build", "n.db", "notes")
    assert "a model was loaded" in shell.fails(*update)
    (here / "ferns.md").rename(here / "notes/other.md")
    assert "a model was loaded" in shell.fails("index", "build", "n.db", "notes")


def test_errors(shell: Shell, here: Path, tiny_bert: Path, encoder: SentenceTransformer) -> None:
    backbone = ("--backbone", tiny_bert)
    assert "there is no index n.db" in shell.fails("index", "search", "n.db", "x", *backbone)
    assert not Path("n.db").exists()
    assert "there is no index n.db" in shell.fails("index", "add", "n.db", "folder:notes", *backbone)
    shell("index", "build", "n.db", "folder:notes", *backbone)
    assert "has no domain 'folder:manuals'" in shell.fails("index", "add", "n.db", "folder:manuals", *backbone)
    prompt = random_prompt(encoder, PromptSpec(length=2), scale=0.5)
    save_prompt("prompts/p", prompt, load_encoder(str(tiny_bert), device="cpu"), "mine")
    said = shell.fails("index", "build", "n.db", "folder:notes", "--prompt", "prompts/p", *backbone)
    assert "were embedded by the base model, and prompt 'mine'" in said
    shell("index", "build", "n.db", "folder:manuals", "--prompt", "prompts/p", *backbone)
    assert "say which domain (--domain); there are: folder:manuals, folder:notes" in shell.fails(
        "index", "search", "n.db", "x", *backbone
    )
    said = shell.fails("index", "search", "n.db", "x", "--domain", "folder:manuals", *backbone)
    assert "take the prompt that embedded them (--prompt)" in said
    bad = ("index", "search", "n.db", "x", "--domain", "folder:notes", "--system", "bm25", "--where", "meta ==")
    assert "expected literal" in shell.fails(*bad)
    assert "--all for the whole domain" in shell.fails("index", "delete", "n.db")
    for wrong in (("index",), ("index", "drop", "n.db"), ("index", "search"), ("index", "search", "n.db", "--k", "1 ")):
        assert "usage: foreword index" in shell.usage(*wrong)


def commands_of_the_guide() -> Iterator[list[str]]:
    yield from (command.arguments for command in commands("index-guide.md") if command.arguments is not None)


def test_the_guide_has_every_action() -> None:
    assert {found[1] for found in commands_of_the_guide()} == {"build", "add", "update", "delete", "search", "stats"}


def test_the_guide(shell: Shell, here: Path, minilm: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user reads it, from top to bottom, on the packaged MiniLM; the server's commands are left out."""
    monkeypatch.setattr("foreword.prompts.loading.load_encoder", cached(minilm))
    save_prompt("prompts/notes", random_prompt(minilm, PromptSpec(length=2), scale=0.1), minilm, "notes")
    one_sided = random_prompt(minilm, PromptSpec(length=2, sides="query"), scale=0.1)
    save_prompt("prompts/manuals-query", one_sided, minilm, "manuals")
    said = []
    for command in commands_of_the_guide():
        if "http://milvus.example:19530" in command:
            continue
        if "--system" in command:  # a section above removed the domain
            shell("index", "build", "notes.db", "folder:notes", "--domain", "notes")
        said.append(shell(*command))
    found = "\n".join(said)
    assert "notes: 3 added; 3 documents in notes.db" in found
    assert found.count("Receipts are kept for ten years.") >= 4
    assert "notes: 3 unchanged; 3 documents" in found
    assert "notes: 1 added; 4 documents" in found
    assert "notes: 1 removed, 3 left" in found
    assert "The chain wants oil" in found


def test_the_guides_python(here: Path, minilm: SentenceTransformer, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks("index-guide.md", "python")
    exec(compile(block.code, "index-guide.md", "exec"), {})
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "Written(added=3, changed=0, unchanged=0, removed=0, shortened=0)"
    assert said[1].endswith("receipts.txt Receipts are kept for ten years.")


def cached(encoder: SentenceTransformer) -> object:
    """In place of `load_encoder`, for one that was loaded already."""
    from foreword.prompts.encoder import transformer_of
    from foreword.prompts.store import attach_prompt

    def load(*_: object, prompt: Path | None = None, **__: object) -> SentenceTransformer:
        transformer_of(encoder).remove_all()
        transformer_of(encoder).route = None if prompt is None else attach_prompt(encoder, prompt)
        return encoder

    return load


@pytest.mark.parametrize(
    ("version", "taken"),
    [
        ("v2.3.5-lite", False),  # PyPI's `milvus`
        ("v2.4.13", False),
        ("v2.5.0", True),
        ("2.6.2", True),
        ("v2.10.1", True),
        ("Zilliz Cloud Vector Database(Compatible with Milvus 2.5)", True),
        ("a build of somebody's", True),
    ],
)
def test_a_server_without_bm25_is_refused(
    version: str, taken: bool, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Server:
        def __init__(self, **how: object) -> None:
            pass

        def get_server_version(self) -> str:
            return version

        def has_collection(self, name: str) -> bool:
            assert taken, "nothing is asked of it"
            return False

        def close(self) -> None:
            pass

    monkeypatch.setattr("pymilvus.MilvusClient", Server)
    said = shell.fails("index", "stats", "http://user:secret@host:19530")
    assert "secret" not in said
    assert ("is empty; build it" if taken else f"host:19530 is Milvus {version}, which has no BM25") in said
