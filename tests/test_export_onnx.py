"""One ONNX graph for all domains, run by onnxruntime."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from tiny import random_prompt, save_model, sentences
from transformers import AutoTokenizer

from foreword.errors import ForewordError, PromptError
from foreword.exporting import export_onnx
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.loading import load_encoder
from foreword.prompts.routes import Routes
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import load_bank, save_mixture, save_prompt
from foreword.settings import Side

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def run(folder: Path, file: str, texts: list[str]) -> Any:
    """Embeddings of texts, as the README says: onnxruntime, the tokenizer and a prompt's file alone."""
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    limit = json.loads((folder / "foreword_onnx.json").read_text())["max_length"]
    batch = tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="np")
    names = {one.name for one in session.get_inputs()}
    inputs = {name: value.astype(np.int64) for name, value in batch.items() if name in names}
    (got,) = session.run(None, inputs | dict(np.load(folder / "prompts" / file)))
    return got


BATCHES = [
    sentences(1, seed=1, most=2),
    sentences(2, seed=2),
    sentences(7, seed=3, least=1),
    [*sentences(3), "", "x " * 90],
]
"""Batches of 1, 2, 7 and 5 texts; the last one is beyond the tiny backbone's positions."""


def check(folder: Path, file: str, encoder: SentenceTransformer, side: Side, route: Any) -> None:
    for texts in BATCHES:
        want = encode(encoder, texts, side, route=route, quiet=True)
        np.testing.assert_allclose(run(folder, file, texts), want, atol=1e-4)


def test_gated_prompts_share_a_graph(tmp_path: Path) -> None:
    """Lengths, sides and mixtures differ; a gate of 0 is the base model, here without any prompt in play."""
    folder = save_model(tmp_path / "bert", normalize=False)
    encoder = load_encoder(str(folder), device="cpu")
    transformer = transformer_of(encoder)
    transformer.add("a/x", random_prompt(encoder, PromptSpec("gated", 4, sides="untied"), 1))
    transformer.add("b", random_prompt(encoder, PromptSpec("gated", 1), 2))
    transformer.add("c", random_prompt(encoder, PromptSpec("gated", 1, sides="shared"), 3))
    mixed = {"b": 0.4, "c": [0.7, -0.2]}
    routes = {"a/x": "a/x", "b": "b", "mixed": mixed, "apart": Routes({"b": 1.0}, None)}
    export_onnx(encoder, tmp_path / "out", routes=routes)
    files = sorted(path.name for path in (tmp_path / "out" / "prompts").iterdir())
    assert files == [
        "a-x-document.npz", "a-x-query.npz", "apart-document.npz", "apart-query.npz", "b.npz", "base.npz", "mixed.npz",
    ]  # fmt: skip
    check(tmp_path / "out", "a-x-query.npz", encoder, "query", "a/x")
    check(tmp_path / "out", "a-x-document.npz", encoder, "document", "a/x")
    check(tmp_path / "out", "mixed.npz", encoder, "query", mixed)
    plain = load_encoder(str(folder), device="cpu")
    check(tmp_path / "out", "base.npz", plain, "query", None)
    check(tmp_path / "out", "apart-document.npz", plain, "document", None)
    assert not np.load(tmp_path / "out" / "prompts" / "base.npz")["gate"].any()
    assert np.load(tmp_path / "out" / "prompts" / "mixed.npz")["gate"].shape == (2, 2, 4)
    model = (tmp_path / "out" / "model.onnx").read_bytes()
    for place in (sys.prefix, str(Path(__file__).parents[1]), str(tmp_path)):
        assert place.encode() not in model  # it tells nothing of this machine
    said = (tmp_path / "out" / "README.md").read_text()
    assert "| `keys` | float32 | 2 x sources x length x 4 x 8 |" in said
    assert "| a/x | document | `prompts/a-x-document.npz` |" in said
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    assert [one.name for one in session.get_inputs()] == ["input_ids", "attention_mask", "keys", "values", "gate"]


def test_the_command_exports_a_mixture(tmp_path: Path, shell: Any) -> None:
    """A left-padded, rotary backbone, whose keys and values are shared between heads."""
    folder = save_model(tmp_path / "qwen", "qwen3", normalize=True)
    encoder = load_encoder(str(folder), device="cpu")
    for seed, name in enumerate(("a", "b")):
        prompt = random_prompt(encoder, PromptSpec("gated", 3, top_layers=1), seed)
        save_prompt(tmp_path / "bank" / name, prompt, encoder, name, dtype="float32")
    save_mixture(tmp_path / "mix", "t", {"a": 0.3, "b": 0.5}, load_bank(tmp_path / "bank", encoder), encoder)
    how = ("--to", "onnx", "--backbone", folder, "--device", "cpu", "--max-length", 20)
    shell("export", tmp_path / "mix", *how, "--output", tmp_path / "out")
    ours = load_encoder(str(folder), prompt=tmp_path / "mix", max_length=20, device="cpu")
    check(tmp_path / "out", "t.npz", ours, "query", transformer_of(ours).route)


def test_what_cannot_share_a_graph_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder(str(save_model(tmp_path / "bert")), device="cpu")
    transformer = transformer_of(encoder)
    with pytest.raises(PromptError, match="carries no prompt"):
        export_onnx(encoder, tmp_path / "out")
    transformer.add("base", random_prompt(encoder, PromptSpec("gated", 3)))
    with pytest.raises(PromptError, match=r"beside base\.npz"):
        export_onnx(encoder, tmp_path / "out")
    transformer.remove("base")
    transformer.add("b", random_prompt(encoder, PromptSpec("gated", 3, sides="untied")))
    transformer.add("b-query", random_prompt(encoder, PromptSpec("gated", 3)))
    with pytest.raises(PromptError, match="files of their own"):
        export_onnx(encoder, tmp_path / "out")
    transformer.add("b", random_prompt(encoder, PromptSpec("gated", 3, top_layers=1)))
    with pytest.raises(PromptError, match="need a graph each"):
        export_onnx(encoder, tmp_path / "out")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ForewordError, match=r"pip install 'foreword\[onnx\]'"):
        export_onnx(encoder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
