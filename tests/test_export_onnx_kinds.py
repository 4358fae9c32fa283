"""ONNX graphs of prefix and input prompts, on backbones of several families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_export_onnx import check
from tiny import random_prompt, save_model

from foreword.exporting import export_onnx
from foreword.prompts.encoder import transformer_of
from foreword.prompts.loading import load_encoder
from foreword.prompts.spec import PromptSpec

pytest.importorskip("onnxscript")


@pytest.mark.parametrize(("family", "kind"), [("bert", "input"), ("modernbert", "prefix"), ("mpnet", "input")])
def test_equal_to_the_encoder(tmp_path: Path, family: str, kind: Any) -> None:
    """A prompt of no vectors is the base model; two domains of different lengths share the graph."""
    folder = save_model(tmp_path / family, family, layers=1)
    encoder = load_encoder(str(folder), device="cpu")
    if family == "bert":  # whose tokenizers make token types, of which the tiny one makes none by itself
        transformer_of(encoder).tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
        assert "token_type_ids" in encoder.preprocess(["a"])
    for seed, name in enumerate(("a", "b")):
        prompt = random_prompt(encoder, PromptSpec(kind, 3 + seed, sides="query" if seed else "shared"), seed)
        transformer_of(encoder).add(name, prompt)
    export_onnx(encoder, tmp_path / "out")
    check(tmp_path / "out", "a.npz", encoder, "document", "a")
    check(tmp_path / "out", "b-query.npz", encoder, "query", "b")
    check(tmp_path / "out", "b-document.npz", encoder, "document", None)
    check(tmp_path / "out", "base.npz", encoder, "document", None)
