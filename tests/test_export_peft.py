"""PEFT's adapter files, out and in, against PEFT's own forward pass where it has one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from tiny import random_prompt, save_model, sentences
from torch import Tensor
from transformers import AutoModel, T5EncoderModel

from foreword.errors import PromptError
from foreword.exporting import export_peft, import_peft
from foreword.prompts.encoder import transformer_of
from foreword.prompts.loading import load_encoder
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import load_prompt, save_prompt
from foreword.settings import Side

peft = pytest.importorskip("peft")

TEXTS = sentences(4, seed=4)
BEFORE = PromptSpec("input", 3, placement="before")
PREFIX = PromptSpec("prefix", 3)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("peft-backbones")
    for family in ("bert", "roberta", "xlm-roberta", "distilbert", "modernbert", "mpnet", "qwen3", "t5"):
        save_model(root / family, family)
    return root


def carrying(folder: Path, *specs: PromptSpec) -> SentenceTransformer:
    encoder = load_encoder(str(folder), device="cpu")
    for seed, spec in enumerate(specs):
        transformer_of(encoder).add("ab"[seed], random_prompt(encoder, spec, seed))
    return encoder


def hidden(encoder: SentenceTransformer, features: dict[str, Any], domain: str, side: Side | None = None) -> Tensor:
    """Our own hidden states of the text, (B, T, d)."""
    with torch.no_grad():
        found: Tensor = encoder[0]({**features, "task": side}, domain=domain)["token_embeddings"]
    return found


def by_peft(adapter: Path, backbone: Path, features: dict[str, Any], positions: Tensor | None = None) -> Tensor:
    """PEFT's hidden states of the text."""
    loader = T5EncoderModel if backbone.name == "t5" else AutoModel
    model = peft.PeftModel.from_pretrained(loader.from_pretrained(backbone), adapter).eval()
    more = {} if positions is None else {"position_ids": positions - model.active_peft_config.num_virtual_tokens}
    ids, mask = features["input_ids"], features["attention_mask"]
    with torch.no_grad():
        output: Tensor = model(input_ids=ids, attention_mask=mask, **more).last_hidden_state
    return output[:, -ids.shape[1] :]


@pytest.mark.parametrize(
    "family", ["bert", "roberta", "xlm-roberta", "distilbert", "modernbert", "mpnet", "t5", "qwen3"]
)
def test_prompt_tuning_runs_alike_in_peft(models: Path, tmp_path: Path, family: str) -> None:
    encoder = carrying(models / family, BEFORE)
    if family == "qwen3":  # padded on the left, where PEFT puts its vectors: a text alone has no padding
        assert "one by one" in export_peft(encoder, tmp_path / "out")[0]
        features = encoder.preprocess(TEXTS[:1])
        got = by_peft(tmp_path / "out", models / family, features)
        torch.testing.assert_close(got, hidden(encoder, features, "a"), atol=1e-5, rtol=0)
        return
    assert export_peft(encoder, tmp_path / "out") == []
    features = encoder.preprocess(TEXTS)
    got = by_peft(tmp_path / "out", models / family, features)
    seen = features["attention_mask"].bool()
    torch.testing.assert_close(got[seen], hidden(encoder, features, "a")[seen], atol=1e-5, rtol=0)
    loader = "T5EncoderModel" if family == "t5" else "AutoModel"
    assert f"{loader}.from_pretrained(" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("family", "positions"),
    [("bert", lambda m: m.cumsum(1) - 1), ("roberta", lambda m: m.cumsum(1) + 1), ("qwen3", lambda m: m.cumsum(1) - 1)],
)
def test_prefix_tuning_runs_alike_in_peft(models: Path, tmp_path: Path, family: str, positions: Any) -> None:
    """With the positions that the README gives; PEFT's own move the text by the prompt's length."""
    encoder = carrying(models / family, PREFIX)
    (note,) = export_peft(encoder, tmp_path / "out")
    assert note in (tmp_path / "out" / "README.md").read_text()
    features = encoder.preprocess(TEXTS)
    mask = features["attention_mask"]
    stated = note.partition("positions = ")[2].partition(" - model")[0]
    assert torch.equal(eval(stated, {"mask": mask})[mask.bool()], positions(mask)[mask.bool()])
    ours = hidden(encoder, features, "a")
    got = by_peft(tmp_path / "out", models / family, features, positions(mask).clamp(min=0))
    seen = mask.bool()
    torch.testing.assert_close(got[seen], ours[seen], atol=1e-5, rtol=0)
    moved = by_peft(tmp_path / "out", models / family, features)
    assert (moved - ours)[seen].abs().max() > 0.1


def test_where_peft_has_no_pass_the_layout_is_its_own(models: Path, tmp_path: Path) -> None:
    """DistilBERT takes no past: the keys and values PEFT makes of the file are compared, and joined by hand."""
    encoder = carrying(models / "distilbert", PREFIX)
    (note,) = export_peft(encoder, tmp_path / "out")
    assert "DistilBertModel does not take" in note
    model = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(models / "distilbert"), tmp_path / "out")
    past = model.get_prompt(batch_size=1)
    tensors = transformer_of(encoder).prompt("a").tensors()
    for layer, (keys, values) in enumerate((one.keys, one.values) for one in past.layers):  # (1, H, n, h)
        assert torch.equal(keys[0].transpose(0, 1), tensors["both.keys"][layer])
        assert torch.equal(values[0].transpose(0, 1), tensors["both.values"][layer])
    features = encoder.preprocess(TEXTS[:1])  # the first layer's attention, by hand
    base = AutoModel.from_pretrained(models / "distilbert").eval()
    attention = base.transformer.layer[0].attention
    inside: list[Tensor] = []
    ours = transformer_of(encoder).model.transformer.layer[0].attention  # type: ignore[union-attr]
    hook = ours.register_forward_hook(lambda m, a, out: inside.append(out[0] if isinstance(out, tuple) else out))
    hidden(encoder, features, "a")
    hook.remove()
    with torch.no_grad():
        states = base.embeddings(features["input_ids"])
        query, key, value = (
            layer(states).unflatten(2, (4, 8)).transpose(1, 2)
            for layer in (attention.q_lin, attention.k_lin, attention.v_lin)
        )
        keys, values = torch.cat([past.layers[0].keys, key], 2), torch.cat([past.layers[0].values, value], 2)
        shares = (query @ keys.transpose(2, 3) / 8**0.5).softmax(-1)
        expected = attention.out_lin((shares @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(inside[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["input", "prefix"])
@pytest.mark.parametrize("sides", ["shared", "untied", "query"])
def test_out_and_in_again(models: Path, tmp_path: Path, kind: Any, sides: Any) -> None:
    spec = PromptSpec(kind, 4, sides=sides, placement="before" if kind == "input" else None)
    encoder = carrying(models / "bert", spec)
    export_peft(encoder, tmp_path / "out")
    stored = import_peft(tmp_path / "out", encoder, tmp_path / "prompt", "again")
    assert stored.prompt.digest() == transformer_of(encoder).prompt("a").digest()
    assert stored.prompt.spec == spec
    assert load_prompt(tmp_path / "prompt", encoder).domain == "again"
    places = {"shared": {""}, "untied": {"query", "document"}, "query": {"query"}}[sides]
    found = {path.parent for path in (tmp_path / "out").rglob("adapter_config.json")}
    assert found == {tmp_path / "out" / place for place in places}
    assert {one["peft_type"] for one in stored.card["imported"].values()} == {
        "PROMPT_TUNING" if kind == "input" else "PREFIX_TUNING"
    }


def test_several_domains_have_folders_of_their_own(models: Path, tmp_path: Path) -> None:
    encoder = carrying(models / "bert", BEFORE, PromptSpec("input", 7, placement="before"))
    export_peft(encoder, tmp_path / "out")
    model = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(models / "bert"), tmp_path / "out" / "a", "a")
    model.load_adapter(str(tmp_path / "out" / "b"), "b")
    assert set(model.peft_config) == {"a", "b"}


def test_names_that_share_a_folder_are_refused(models: Path, tmp_path: Path) -> None:
    encoder = carrying(models / "bert")
    for name in ("a/b", "a-b"):
        transformer_of(encoder).add(name, random_prompt(encoder, BEFORE))
    with pytest.raises(PromptError, match="folders of their own"):
        export_peft(encoder, tmp_path / "out")


@pytest.mark.parametrize("method", ["prompt", "p", "prefix", "projected"])
def test_what_peft_saves_is_read(models: Path, tmp_path: Path, method: str) -> None:
    usual = {"num_virtual_tokens": 3, "task_type": "FEATURE_EXTRACTION"}
    config = {
        "prompt": lambda: peft.PromptTuningConfig(**usual),
        "p": lambda: peft.PromptEncoderConfig(**usual, encoder_hidden_size=16),
        "prefix": lambda: peft.PrefixTuningConfig(**usual),
        "projected": lambda: peft.PrefixTuningConfig(**usual, prefix_projection=True, encoder_hidden_size=16),
    }[method]()
    torch.manual_seed(0)
    model = peft.get_peft_model(AutoModel.from_pretrained(models / "bert"), config).eval()
    model.save_pretrained(tmp_path / "adapter")
    encoder = carrying(models / "bert")
    stored = import_peft(tmp_path / "adapter", encoder, tmp_path / "prompt", "theirs", sides="query")
    assert (stored.prompt.spec.kind, stored.prompt.spec.sides) == (
        "input" if method in ("prompt", "p") else "prefix",
        "query",
    )
    transformer_of(encoder).add("theirs", stored.prompt)
    features = encoder.preprocess(TEXTS)
    mask = features["attention_mask"]
    positions = None if method in ("prompt", "p") else mask.cumsum(1) - 1
    got = by_peft(tmp_path / "adapter", models / "bert", features, positions)
    ours = hidden(encoder, features, "theirs", "query")
    torch.testing.assert_close(got[mask.bool()], ours[mask.bool()], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (PromptSpec("gated", 3), "PEFT has no gated prompts"),
        (PromptSpec("memory", 3), "PEFT has no memory prompts"),
        (PromptSpec("input", 3), "vectors stand after .CLS.; .* --placement before"),
        (PromptSpec("prefix", 3, top_layers=1), "stands in the top 1 of 2 layers"),
    ],
)
def test_what_peft_has_no_form_of_is_refused(models: Path, tmp_path: Path, spec: PromptSpec, said: str) -> None:
    with pytest.raises(PromptError, match=said):
        export_peft(carrying(models / "bert", spec), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / "adapter_config.json").unlink(), "holds no adapter_config.json, nor do query and document"),
        (lambda f: (f / "adapter_config.json").write_text("{"), "cannot be read as a PEFT configuration"),
        (lambda f: rewrite(f / "adapter_config.json", peft_type="LORA"), "type LORA; of its methods PROMPT_TUNING"),
        (lambda f: rewrite(f / "adapter_config.json", num_transformer_submodules=2), "encoder with a decoder"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), "pickles, .bin, are not read"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"x"), "cannot be read"),
        (lambda f: rewrite(f / "adapter_config.json", peft_type="PREFIX_TUNING"), r"shape \(3, 32\); .* 2 layers x 2 x 4"),
    ],
)  # fmt: skip
def test_what_is_no_adapter_is_refused(models: Path, tmp_path: Path, damage: Any, said: str) -> None:
    encoder = carrying(models / "bert", BEFORE)
    export_peft(encoder, tmp_path / "out")
    damage(tmp_path / "out")
    with pytest.raises(PromptError, match=said):
        import_peft(tmp_path / "out", encoder, tmp_path / "prompt", "x")
    assert not (tmp_path / "prompt").exists()


def test_the_commands(models: Path, tmp_path: Path, shell: Any) -> None:
    encoder = carrying(models / "bert")
    prompt = random_prompt(encoder, PREFIX)
    save_prompt(tmp_path / "p", prompt, encoder, "mine", dtype="float32")
    how = ("--backbone", models / "bert", "--device", "cpu")
    shell("export", tmp_path / "p", "--to", "peft", *how, "--output", tmp_path / "adapter")
    assert "note: PEFT runs this prompt otherwise" in shell.printed.err
    assert load_file(tmp_path / "adapter" / "adapter_model.safetensors")["prompt_embeddings"].shape == (3, 2 * 2 * 32)
    said = shell.json("import", tmp_path / "adapter", *how, "--domain", "d", "--output", tmp_path / "back")
    assert (said["domain"], said["kind"], said["length"], said["parameters"]) == ("d", "prefix", 3, 384)
    assert "positions moved by its length" in shell.printed.err
    assert load_prompt(tmp_path / "back", encoder).prompt.digest() == prompt.digest()
    with pytest.raises(PromptError, match="holds one adapter"):
        import_peft(tmp_path / "adapter", encoder, tmp_path / "no", "d", sides="untied")
    assert "holds a prompt already" in shell.fails("import", tmp_path / "adapter", *how, "--output", tmp_path / "back")
