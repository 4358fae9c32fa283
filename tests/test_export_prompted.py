"""Folders that sentence-transformers loads where Foreword is installed, in a process that has imported nothing yet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import outside
import pytest
from tiny import random_prompt, save_model, sentences

from foreword.errors import PromptError
from foreword.exporting import export_prompted
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.loading import load_encoder
from foreword.prompts.spec import Kind, PromptSpec
from foreword.prompts.store import load_bank, save_mixture, save_prompt
from foreword.settings import Side

TEXTS = [*sentences(5, seed=3), "", " ".join(sentences(12, seed=4))]

LOAD = """
from sentence_transformers import SentenceTransformer

assert not any(name.partition(".")[0] == "foreword" for name in sys.modules)
answer = {}
for kind, folder in given["folders"].items():
    theirs = SentenceTransformer(folder, trust_remote_code=True, device="cpu")
    from foreword.prompts.loading import load_encoder

    answer[kind] = {
        who: [getattr(model, method)(given["texts"], **how).tolist() for method, how in given["calls"]]
        for who, model in (("theirs", theirs), ("ours", load_encoder(folder, device="cpu")))
    }
"""


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("prompted") / "bert", normalize=True)


def test_equal_in_a_fresh_process(backbone: Path, tmp_path: Path) -> None:
    """Every kind, one or two domains, shared and untied sides."""
    calls: list[tuple[str, dict[str, str]]] = [
        ("encode_query", {"domain": "a/x"}),
        ("encode_document", {"domain": "a/x"}),
        ("encode_query", {}),
        ("encode", {"domain": "b"}),
    ]
    order: list[tuple[Side, str]] = [("query", "a/x"), ("document", "a/x"), ("query", "b"), ("document", "b")]
    expected = {}
    kinds: tuple[Kind, ...] = ("memory", "gated", "prefix", "input")
    for kind in kinds:
        encoder = load_encoder(str(backbone), device="cpu")
        transformer = transformer_of(encoder)
        transformer.add("a/x", random_prompt(encoder, PromptSpec(kind, 3, sides="untied"), 1))
        transformer.add("b", random_prompt(encoder, PromptSpec(kind, 4), 2))
        export_prompted(encoder, tmp_path / kind, default="b")
        assert transformer.route is None
        expected[kind] = [encode(encoder, TEXTS, side, route=route, quiet=True) for side, route in order]
        said = (tmp_path / kind / "README.md").read_text()
        assert "`a/x`, `b`. Texts that name none are encoded by `b`" in said
        assert not list((tmp_path / kind).rglob("model.safetensors"))
    given = {"folders": {kind: str(tmp_path / kind) for kind in kinds}, "texts": TEXTS, "calls": calls}
    got = outside.run(LOAD, given, blocked=False)
    for kind in kinds:
        for loaded in ("theirs", "ours"):
            for one, want in zip(got[kind][loaded], expected[kind], strict=True):
                np.testing.assert_allclose(np.array(one), want, atol=1e-5, err_msg=f"{kind} {loaded}")


def test_what_is_not_there_is_said(backbone: Path, tmp_path: Path) -> None:
    encoder = load_encoder(str(backbone), device="cpu")
    with pytest.raises(PromptError, match="carries no prompt"):
        export_prompted(encoder, tmp_path / "out")
    transformer_of(encoder).add("b", random_prompt(encoder, PromptSpec("gated", 3)))
    with pytest.raises(PromptError, match="no prompt for domain 'c'; there are: b"):
        export_prompted(encoder, tmp_path / "out", default="c")
    assert list(tmp_path.iterdir()) == []


def test_the_command(backbone: Path, tmp_path: Path, shell: Any) -> None:
    """One prompt, a bank and a mixture; what encodes texts that name no domain follows."""
    encoder = load_encoder(str(backbone), device="cpu")
    for seed, name in enumerate(("a", "b")):
        save_prompt(
            tmp_path / "bank" / name,
            random_prompt(encoder, PromptSpec("gated", 3), seed),
            encoder,
            name,
            dtype="float32",
        )
    bank = load_bank(tmp_path / "bank", encoder)
    save_mixture(tmp_path / "mixture", "t", {"a": 0.3, "b": 0.5}, bank, encoder)
    how = ("--to", "sentence-transformers", "--backbone", backbone, "--device", "cpu")
    loaded = {}
    for name, source in (("one", tmp_path / "bank" / "a"), ("all", tmp_path / "bank"), ("mix", tmp_path / "mixture")):
        said = shell.json("export", source, *how, "--output", tmp_path / name)
        assert said["output"] == str(tmp_path / name)
        loaded[name] = load_encoder(str(tmp_path / name), device="cpu")
    for name, stored in bank.items():
        transformer_of(encoder).add(name, stored.prompt)
    routes: list[tuple[str, Any]] = [("one", "a"), ("all", None), ("mix", {"a": 0.3, "b": 0.5})]
    for name, route in routes:
        want = encode(encoder, TEXTS, "query", route=route, quiet=True)
        np.testing.assert_allclose(loaded[name].encode_query(TEXTS), want, atol=1e-5)
    shell("export", tmp_path / "bank", *how, "--default", "b", "--max-length", 9, "--output", tmp_path / "b")
    assert 'domain="a"' in (tmp_path / "b" / "README.md").read_text()
    assert "domain=" not in (tmp_path / "mix" / "README.md").read_text()  # its sources are not what is meant
    card = json.loads((tmp_path / "b" / "foreword.json").read_text())
    assert (card["route"], card["max_length"]) == ("b", 9)
    assert "it alone" in shell.fails(
        "export", tmp_path / "mixture", tmp_path / "bank", *how, "--output", tmp_path / "no"
    )
    for form in ("plain", "peft"):
        error = shell.fails("export", tmp_path / "mixture", "--to", form, *how[2:], "--output", tmp_path / "no")
        assert "foreword transfer --distil" in error
    assert "--default is for" in shell.fails(
        "export", tmp_path / "bank", "--to", "peft", "--default", "a", "--output", tmp_path / "no"
    )
    save_mixture(tmp_path / "both" / "m", "t", {"a": 0.3}, bank, encoder)
    assert "holds mixtures (m): export each alone" in shell.fails(
        "export", tmp_path / "both", *how, "--output", tmp_path / "no"
    )
    for form, idle, refused in (
        ("peft", ["--max-length", 9], shell.fails),
        ("onnx", ["--precision", "float16"], shell.usage),
    ):
        error = refused("export", tmp_path / "bank", "--to", form, *idle, "--output", tmp_path / "no")
        assert idle[0] in error
