"""A kind of prompt is one file: the one of CONTRIBUTING.md, and one that acts beside the attention, registered here."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from pages import blocks
from sentence_transformers import SentenceTransformer
from tiny import random_prompt, save_model, sentences
from torch import Tensor

from foreword.errors import BackboneError, PromptError
from foreword.exporting import export_peft, export_plain
from foreword.prompts.attention import Attended, AttentionCall, BatchPrompts
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.kinds.kind import Carrier, LayerKind, kind_of
from foreword.prompts.loading import load_encoder
from foreword.prompts.spec import KINDS, BackboneShape, LayerShape, PromptSpec
from foreword.prompts.start import new_prompt
from foreword.prompts.store import load_bank, load_prompt, save_mixture, save_prompt
from foreword.settings import choices, hints

TEXTS = [*sentences(7, seed=5), ""]
ROWS = ["a", None, "b", "a", "b", None, "a", "b"]


class Beside(LayerKind):
    """Vectors that each text attends to in the attention, and others, behind a gate, after the feed-forward part."""

    name = "beside"
    axes = {  # noqa: RUF012
        "inner": ("layers", "length", "heads", "head width"),
        "outer": ("layers", "length", "width"),
        "wide": ("layers",),
        "gate": ("layers", "heads"),
    }
    linear = ("wide", "gate")

    def from_tokens(self, spec: PromptSpec, carrier: Carrier, ids: Tensor) -> dict[str, Tensor]:
        """Keys as both."""
        keys = super().from_tokens(spec, carrier, ids)["keys"]
        return {"inner": keys, "outer": keys.flatten(2)}

    def attend(self, prompts: BatchPrompts, layer: int, call: AttentionCall) -> Attended:
        """Add the mean of the inner ones."""
        output, weights = call()
        added = prompts.at("inner", layer).mean(2) * prompts.at("gate", layer).unsqueeze(-1)
        return output + added.sum(1, keepdim=True), weights

    def forward(
        self,
        spec: PromptSpec,
        carrier: Carrier,
        features: dict[str, Any],
        tensors: Mapping[str, Tensor],
        present: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Add the mean of the outer ones to what each layer gives."""
        slots = self.layers(spec, carrier.shape)
        batch = self.batch(slots, tensors, present)

        def add(place: int) -> Any:
            added = (batch.at("outer", place).mean(2) * batch.at("wide", place).unsqueeze(-1)).sum(1, keepdim=True)
            return lambda module, given, output: output + added

        layers = carrier.model.encoder.layer
        hooks = [layers[slot].output.register_forward_hook(add(place)) for place, slot in enumerate(slots)]
        try:
            return super().forward(spec, carrier, features, tensors, present, **kwargs)
        finally:
            for hook in hooks:
                hook.remove()


@pytest.fixture(params=["shift", "beside"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A kind that is registered as the guide says, and its name."""
    module = ModuleType(f"foreword.prompts.kinds.{request.param}")
    if request.param == "shift":
        exec(compile(blocks("CONTRIBUTING.md", "python")[1].code, "CONTRIBUTING.md", "exec"), vars(module))
    else:
        module.KIND = Beside()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(KINDS, request.param, module.__name__)
    return str(request.param)


def test_it_is_a_kind_like_another(kind: str, encoder: SentenceTransformer, tmp_path: Path) -> None:
    """Stored, hashed, started as the base model, and the same by route and by rows, mixed and on one side alone."""
    assert choices(hints(PromptSpec)["kind"]) == ("memory", "gated", "prefix", "input", kind)
    transformer, spec = transformer_of(encoder), PromptSpec(kind, 3, top_layers=1, sides="untied")
    base = encode(encoder, TEXTS, "query", route=None, batch_size=9)
    for start in ("words", "noise"):
        transformer.add("new", new_prompt(encoder, spec, start=start))  # type: ignore[arg-type]
        np.testing.assert_array_equal(encode(encoder, TEXTS, "query", route="new", batch_size=9), base)
    transformer.remove_all()
    for seed, name in enumerate("ab"):
        prompt = random_prompt(encoder, spec, seed)
        save_prompt(tmp_path / "bank" / name, prompt, encoder, name, dtype="float32")
        read = load_prompt(tmp_path / "bank" / name, encoder).prompt
        assert (read.digest(), read.spec, read.count()) == (prompt.digest(), spec, prompt.count())
        transformer.add(name, read)
    assert transformer.prompt("a").digest() != transformer.prompt("b").digest()
    for side in ("query", "document"):
        mixed = encode(encoder, TEXTS, side, domains=ROWS, batch_size=9)  # type: ignore[arg-type]
        alone = [encode(encoder, [t], side, route=row)[0] for t, row in zip(TEXTS, ROWS, strict=True)]  # type: ignore[arg-type]
        np.testing.assert_allclose(mixed, np.stack(alone), atol=1e-5)
        assert np.abs(mixed[0] - base[0]).max() > 1e-3
    one = encode(encoder, TEXTS, "query", route="a")
    np.testing.assert_allclose(encode(encoder, TEXTS, "query", route={"a": 1.0, "b": 0.0}), one, atol=1e-6)
    save_mixture(tmp_path / "mix", "t", {"a": 0.5, "b": [0.5]}, load_bank(tmp_path / "bank", encoder), encoder)


def test_what_it_does_not_go_with_is_refused(kind: str, encoder: SentenceTransformer, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=f"placement is for prompts of kind input, not {kind}"):
        PromptSpec(kind, 3, placement="before")
    transformer_of(encoder).add("a", random_prompt(encoder, PromptSpec(kind, 3)))
    with pytest.raises(PromptError, match=f"a: a {kind} prompt stands inside the layers"):
        export_plain(encoder, tmp_path / "out")
    with pytest.raises(PromptError, match=f"a: PEFT has no {kind} prompts"):
        export_peft(encoder, tmp_path / "out")
    mpnet = load_encoder(str(save_model(tmp_path / "mpnet", "mpnet")), device="cpu")
    with pytest.raises(BackboneError, match=f"kind 'input', or 'memory' with length 0, not '{kind}'"):
        new_prompt(mpnet, PromptSpec(kind, 3))
    with pytest.raises(PromptError, match="has shape"):
        transformer_of(encoder).add(
            "b",
            random_prompt(load_encoder(str(save_model(tmp_path / "one", layers=1)), device="cpu"), PromptSpec(kind, 3)),
        )


def test_it_runs_as_an_onnx_graph(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    from foreword.exporting import export_onnx

    encoder = load_encoder(str(save_model(tmp_path / "bert", layers=1)), device="cpu")
    for seed, name in enumerate("ab"):
        transformer_of(encoder).add(name, random_prompt(encoder, PromptSpec(kind, 3), seed))
    export_onnx(
        encoder, tmp_path / "out", routes={"a": "a", "mixed": {"a": 0.4, "b": -0.2}}
    )  # compared before it appears


def test_an_unknown_kind_is_refused() -> None:
    """Whatever the shapes it would have: nothing takes it for another kind."""
    with pytest.raises(PromptError, match="kind is 'shifted'; expected one of memory, gated, prefix, input"):
        PromptSpec("shifted", 3)
    spec = PromptSpec("prefix", 3)
    object.__setattr__(spec, "kind", "shifted")
    with pytest.raises(PromptError, match="kind is 'shifted'; expected one of memory, gated, prefix, input"):
        kind_of(spec).shapes(spec, BackboneShape(32, (LayerShape(4, 4, 8),) * 2))


def test_a_weight_of_each_layer_multiplies_every_gate(encoder: SentenceTransformer) -> None:
    weights = torch.tensor([[0.5], [2.0]])  # (L, S)
    parts = [
        {
            "wide": torch.ones(2),
            "gate": torch.ones(2, 4),
            "inner": torch.ones(2, 3, 4, 8),
            "outer": torch.ones(2, 3, 32),
        }
    ]
    made = Beside().together(parts, weights)
    assert made["wide"].tolist() == [[[0.5], [2.0]]]
    assert made["gate"][0, :, 0].tolist() == [[0.5] * 4, [2.0] * 4]
    assert bool((made["outer"] == 1).all())
