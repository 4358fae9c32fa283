"""Forward passes in int8 by OpenVINO, against float32 ones of torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny import random_prompt, save_model, sentences

from foreword.cli.main import main
from foreword.errors import BackboneError, ForewordError, PromptError
from foreword.prompts import int8
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.graph import input_axes
from foreword.prompts.loading import load_encoder
from foreword.prompts.routes import Route, Routes
from foreword.prompts.spec import PromptSpec
from foreword.training.config import TrainingConfig

pytest.importorskip("openvino")
pytest.importorskip("nncf")

TEXTS = [*sentences(20, seed=2), "", "a"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cached(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREWORD_CACHE", str(cache))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "bert")


def carrying(folder: Path, spec: PromptSpec | None = None) -> SentenceTransformer:
    encoder = load_encoder(str(folder), device="cpu")
    for seed, name in enumerate(("a", "b")):
        transformer_of(encoder).add(name, random_prompt(encoder, spec or PromptSpec(), seed))
    return encoder


def cosines(encoder: SentenceTransformer, route: Route) -> Any:
    want, got = (
        encode(encoder, TEXTS, "query", route=route, precision=precision, batch_size=6, quiet=True)
        for precision in ("float32", "int8")
    )
    assert (got.shape, got.dtype) == (want.shape, np.float32)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), np.linalg.norm(want, axis=1), rtol=0.05)
    return (want * got).sum(axis=1) / np.linalg.norm(want, axis=1) / np.linalg.norm(got, axis=1)


@pytest.mark.parametrize("route", [None, "a", {"a": 0.5, "b": [0.2, 0.4]}, Routes("b", None)])
def test_embeddings_are_near_those_of_float32(folder: Path, route: Route) -> None:
    encoder = carrying(folder)
    assert cosines(encoder, route).min() > 0.97
    if route is not None:  # nearer than the base model's: it is the prompt that encodes
        base = encode(encoder, TEXTS, "query", route=None, quiet=True)
        own = encode(encoder, TEXTS, "query", route=route, precision="int8", quiet=True)
        far = (base * own).sum(axis=1) / np.linalg.norm(base, axis=1) / np.linalg.norm(own, axis=1)
        assert far.mean() < cosines(encoder, route).mean()


def test_a_row_has_its_own_domain(folder: Path) -> None:
    encoder = carrying(folder)
    how: dict[str, Any] = {"precision": "int8", "quiet": True, "batch_size": 8}
    domains = [("a", None, "b")[i % 3] for i in range(len(TEXTS))]
    got = encode(encoder, TEXTS, "document", domains=domains, **how)
    for domain in ("a", None, "b"):
        rows = [i for i, other in enumerate(domains) if other == domain]
        np.testing.assert_allclose(got[rows], encode(encoder, TEXTS, "document", route=domain, **how)[rows], atol=0.02)


def test_equal_vectors_from_another_encoder_and_the_graph_on_the_disk(folder: Path, cache: Path) -> None:
    first = encode(carrying(folder), TEXTS, "query", route="a", precision="int8", quiet=True)
    graphs = sorted((cache / "int8").iterdir())
    assert [path.name for path in graphs[0].iterdir()]
    np.testing.assert_array_equal(
        encode(carrying(folder), TEXTS, "query", route="a", precision="int8", quiet=True), first
    )
    assert sorted((cache / "int8").iterdir()) == graphs  # not made again


def test_prompts_are_not_quantised(folder: Path, cache: Path) -> None:
    """A range that was found at a prompt of 0 would make every prompt 0: its products take what no range has cut."""
    encode(carrying(folder), ["a"], "query", route="a", precision="int8", quiet=True)
    path = min((cache / "int8").glob("*/graph.xml"), key=lambda path: path.stat().st_mtime)  # the first one
    tree = ElementTree.parse(path)
    kinds = {layer.get("id"): layer.get("type") for layer in tree.iter("layer")}
    names = {layer.get("id"): layer.get("name") for layer in tree.iter("layer")}
    inputs = input_axes(PromptSpec())
    followers: dict[str, list[str]] = {}
    for edge in tree.iter("edge"):
        followers.setdefault(edge.attrib["from-layer"], []).append(edge.attrib["to-layer"])
    seen, at = set(), [layer for layer, name in names.items() if kinds[layer] == "Parameter" and name in inputs]
    assert at
    while at:  # from the prompt's inputs to the products that they enter
        layer = at.pop()
        if kinds[layer] != "MatMul" and layer not in seen:
            seen.add(layer)
            at += followers[str(layer)]
    assert "FakeQuantize" not in {kinds[layer] for layer in seen}
    assert "FakeQuantize" in kinds.values()


@pytest.mark.parametrize(("family", "spec"), [("modernbert", PromptSpec()), ("t5", PromptSpec("input", 2))])
def test_families_and_kinds(family: str, spec: PromptSpec, tmp_path: Path) -> None:
    encoder = carrying(save_model(tmp_path / family, family, layers=1), spec)
    assert cosines(encoder, "a").mean() > 0.97


def test_what_int8_spoils_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "LEAST", 1.01)
    with pytest.raises(PromptError, match=r"mean cosine of .*take another precision"):
        encode(carrying(folder), TEXTS, "query", precision="int8", quiet=True)


def test_it_is_for_encoding_on_processors(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ForewordError, match="precision"):
        TrainingConfig(precision="int8")  # type: ignore[arg-type]  # what is tried
    encoder = load_encoder(str(folder), device="cpu")
    monkeypatch.setattr(type(encoder), "device", property(lambda _: torch.device("cuda")))
    with pytest.raises(BackboneError, match="give device cpu"):
        encode(encoder, ["a"], "query", precision="int8", quiet=True)


def test_a_text_prompt_that_pooling_leaves_out_is_refused(folder: Path) -> None:
    """A graph cannot tell its tokens from the text's: the embeddings would be those of another model."""
    encoder = load_encoder(str(folder), device="cpu")
    encode(encoder, ["a"], "query", precision="int8", quiet=True)  # the graph is there
    encoder = load_encoder(str(folder), device="cpu")
    encoder.prompts = {"query": "find what answers: "}
    encode(encoder, ["a"], "query", precision="int8", quiet=True)
    encoder[1].include_prompt = False  # type: ignore[assignment]  # a Pooling
    with pytest.raises(PromptError, match="pooling leaves out its own text prompt"):
        encode(encoder, ["a"], "query", precision="int8", quiet=True)


def test_without_openvino(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ForewordError, match=r"pip install 'foreword\[int8\]'"):
        encode(load_encoder(str(folder), device="cpu"), ["a"], "query", precision="int8", quiet=True)


def test_nothing_is_sent_or_printed(folder: Path, cache: Path) -> None:
    """NNCF reports its use to a server unless it is asked not to; under pytest it does not, so in its own process."""
    code = f"""
import foreword, sys
from foreword.prompts.encoder import encode
encode(foreword.load_encoder({str(folder)!r}, device="cpu"), ["a"], "query", precision="int8", quiet=True)
assert "pytest" not in sys.modules
from nncf.telemetry.wrapper import telemetry
assert type(telemetry).__name__ == "MagicMock", telemetry
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_command(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "queries.txt").write_text("\n".join(sentences(5)))
    vectors = {}
    for precision in ("float32", "int8"):
        output = str(tmp_path / f"{precision}.npy")
        given = ["--queries", str(tmp_path / "queries.txt"), "--backbone", str(folder), "--device", "cpu"]
        assert main(["encode", *given, "--precision", precision, "--output", output]) == 0
        vectors[precision] = np.load(output)
    assert not np.array_equal(vectors["int8"], vectors["float32"])
    np.testing.assert_allclose(vectors["int8"], vectors["float32"], atol=0.1)
