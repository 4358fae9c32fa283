"""ONNX graphs of memory, prefix and input prompts, on backbones of several families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_export_onnx import check, onnxruntime
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


def test_memory_prompts_share_a_graph_whatever_places_they_have(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "bert")
    encoder = load_encoder(str(folder), device="cpu")
    specs = {"a": (4, 2), "b": (0, 3), "c": (2, 0), "d": (0, 3)}
    for seed, (name, (length, feed_forward)) in enumerate(specs.items()):
        spec = PromptSpec("memory", length, feed_forward, sides="query" if name == "a" else "shared")
        transformer_of(encoder).add(name, random_prompt(encoder, spec, seed))
    mixed = {"b": 0.4, "d": [0.7, -0.2]}
    export_onnx(encoder, tmp_path / "out", routes={name: name for name in "abc"} | {"mixed": mixed})
    for file, route in {"a-query": "a", "a-document": None, "b": "b", "c": "c", "mixed": mixed, "base": None}.items():
        check(tmp_path / "out", f"{file}.npz", encoder, "document" if file == "a-document" else "query", route)
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    shapes = {one.name: one.shape for one in session.get_inputs()[2:]}
    assert list(shapes) == ["keys", "values", "feed_forward_keys", "feed_forward_values"]
    assert shapes["values"][:2] == shapes["feed_forward_values"][:2] == [2, "sources"]
    assert shapes["values"][3:] == [4, 8]
    assert shapes["feed_forward_values"][3:] == [32]


def test_a_backbone_with_one_of_the_places(tmp_path: Path) -> None:
    encoder = load_encoder(str(save_model(tmp_path / "mpnet", "mpnet", layers=1)), device="cpu")
    transformer_of(encoder).add("a", random_prompt(encoder, PromptSpec("memory", 0, 3)))
    export_onnx(encoder, tmp_path / "out")
    check(tmp_path / "out", "a.npz", encoder, "query", "a")
    check(tmp_path / "out", "base.npz", encoder, "query", None)
