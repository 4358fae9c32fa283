"""Prompts on disk: exact round trips, and refusals that say why."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny import random_prompt, save_model, sentences

from foreword.errors import BackboneError, PromptError
from foreword.prompts.backbone import read_module
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.loading import load_encoder
from foreword.prompts.prompt import Prompt
from foreword.prompts.routes import Routes
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import (
    StoredPrompt,
    attach_mixture,
    folder_name,
    is_mixture,
    load_bank,
    load_prompt,
    read_card,
    read_mixture_card,
    save_mixture,
    save_prompt,
    trained_on,
)

TEXTS = sentences(7, seed=4)
FILES = ["prompt.json", "prompt.safetensors", "run.json"]


@pytest.fixture
def stored(encoder: SentenceTransformer, tmp_path: Path) -> Path:
    return save_prompt(tmp_path / "it", random_prompt(encoder, PromptSpec("gated", 3)), encoder, "toy/one")


@pytest.mark.parametrize("kind", ["memory", "gated", "prefix", "input"])
@pytest.mark.parametrize("sides", ["shared", "untied", "query"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_round_trip(encoder: SentenceTransformer, tiny_bert: Path, tmp_path: Path, kind: Any, sides: Any, dtype: str) -> None:  # fmt: skip
    prompt = random_prompt(encoder, PromptSpec(kind, 3, sides=sides)).rounded(getattr(torch, dtype))
    save_prompt(tmp_path / "it", prompt, encoder, "toy/one", dtype=dtype)
    transformer_of(encoder).add("toy/one", prompt)
    again = load_encoder(str(tiny_bert), prompt=tmp_path / "it", device="cpu")
    assert transformer_of(again).route == "toy/one"
    for side in ("query", "document"):
        expected = encode(encoder, TEXTS, side, route="toy/one")
        np.testing.assert_array_equal(encode(again, TEXTS, side, route="toy/one"), expected)


def test_what_is_loaded_is_rounded_as_stored(encoder: SentenceTransformer, tmp_path: Path) -> None:
    prompt = random_prompt(encoder, PromptSpec("gated", 3))
    save_prompt(tmp_path / "it", prompt, encoder, "toy/one", dtype="float16")
    loaded = load_prompt(tmp_path / "it", encoder)
    assert loaded.prompt.digest() == prompt.rounded(torch.float16).digest() != prompt.digest()
    assert loaded.prompt.digest() == loaded.card["digest"]
    for name, tensor in loaded.prompt.tensors().items():
        assert torch.equal(tensor, prompt.tensors()[name].half().float())


def test_rounding_that_overflows_is_refused(encoder: SentenceTransformer, tmp_path: Path) -> None:
    prompt = random_prompt(encoder, PromptSpec("gated", 3), scale=1e6)
    with pytest.raises(PromptError, match=r"beyond torch\.float16; store them as float32"):
        save_prompt(tmp_path / "it", prompt, encoder, "toy/one")
    assert not (tmp_path / "it" / "prompt.json").exists()
    save_prompt(tmp_path / "it", prompt, encoder, "toy/one", dtype="float32")
    assert load_prompt(tmp_path / "it").prompt.digest() == prompt.digest()
    with pytest.raises(PromptError, match="dtype is 'int8'"):
        save_prompt(tmp_path / "it", prompt, encoder, "toy/one", dtype="int8")


def test_equal_prompts_give_equal_bytes(encoder: SentenceTransformer, tmp_path: Path) -> None:
    for name, run in (("one", {"seconds": 1}), ("two", {"seconds": 2})):
        prompt = random_prompt(encoder, PromptSpec("gated", 3, sides="untied"))
        save_prompt(tmp_path / name, prompt, encoder, "toy/one", record={"training": {"steps": 3}}, run=run)
    one, two = ({f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert sorted(one) == FILES
    assert [name for name in FILES if one[name] != two[name]] == ["run.json"]


def test_the_folder_holds_no_backbone_and_no_pickle(stored: Path, encoder: SentenceTransformer) -> None:
    assert sorted(f.name for f in stored.iterdir()) == FILES
    card = json.loads((stored / "prompt.json").read_text())
    assert card["parameters"] == 2 * (2 * 3 * 32 + 4)
    assert card["bytes"] == (stored / "prompt.safetensors").stat().st_size < card["parameters"] * 2 + 1000
    assert card["backbone"]["pooling"] == "mean"
    assert card["layers"] == [0, 1]
    assert set(card["versions"]) >= {"foreword", "torch", "transformers", "sentence-transformers"}


def test_cards_of_earlier_versions_are_read(encoder: SentenceTransformer, tmp_path: Path) -> None:
    """They know nothing of vectors beside feed-forward parts."""
    for kind in ("gated", "prefix", "input"):
        prompt = random_prompt(encoder, PromptSpec(kind, 3, top_layers=None if kind == "input" else 1))
        folder = save_prompt(tmp_path / kind, prompt, encoder, "toy/one", dtype="float32")
        layers = "null" if kind == "input" else "1"
        written = f'{{"kind": "{kind}", "length": 3, "top_layers": {layers}, "sides": "shared", "placement": null}}'
        alter(folder / "prompt.json", prompt=json.loads(written))
        read = load_prompt(folder, encoder).prompt
        assert (read.spec, read.digest()) == (prompt.spec, prompt.digest())
        transformer_of(encoder).add("it", read)


def alter(path: Path, **changes: Any) -> None:
    card = json.loads(path.read_text())
    card.update(changes)
    path.write_text(json.dumps({key: value for key, value in card.items() if value is not None}))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / "prompt.json").unlink(), "is no prompt: it has no prompt.json"),
        (lambda f: (f / "prompt.safetensors").unlink(), "has no prompt.safetensors"),
        (lambda f: (f / "prompt.safetensors").write_bytes((f / "prompt.safetensors").read_bytes()[:-9]), "was cut or altered"),
        (lambda f: flip(f / "prompt.safetensors"), "it was altered"),
        (lambda f: (f / "prompt.json").write_text((f / "prompt.json").read_text()[:50]), "broken JSON .*copy the folder"),
        (lambda f: (f / "prompt.json").write_bytes(b"\xff\xfe"), "broken JSON"),
        (lambda f: (f / "prompt.json").write_text("[]"), "format is 'list'"),
        (lambda f: alter(f / "prompt.json", format="foreword-prompt/9"), "this version reads 'foreword-prompt/1'"),
        (lambda f: alter(f / "prompt.json", sha256=None), "lacks sha256"),
        (lambda f: alter(f / "prompt.json", prompt={"kind": "gated", "width": 3}), "cannot be read"),
        (lambda f: alter(f / "prompt.json", prompt={"kind": "prefix", "length": 3}), "a prefix prompt has tensors"),
        (lambda f: alter(f / "prompt.json", backbone={"name": "other"}), "made for backbone 'other'"),
    ],
)  # fmt: skip
def test_damage_is_refused_with_its_reason(
    stored: Path, encoder: SentenceTransformer, damage: Callable[[Path], Any], said: str
) -> None:
    damage(stored)
    with pytest.raises(PromptError, match=said):
        load_prompt(stored, encoder)


def test_a_length_that_does_not_match_is_refused(stored: Path, encoder: SentenceTransformer) -> None:
    card = json.loads((stored / "prompt.json").read_text())
    alter(stored / "prompt.json", prompt={**card["prompt"], "length": 4})
    with pytest.raises(PromptError, match="has shape"):
        transformer_of(encoder).add("it", load_prompt(stored, encoder).prompt)


def test_another_backbone_is_refused(stored: Path, minilm: SentenceTransformer, tmp_path: Path) -> None:
    with pytest.raises(
        PromptError, match=r"was made for backbone '.*bert' with weights '\w+'; this encoder is '.*MiniLM"
    ):
        load_prompt(stored, minilm)
    same_shape = save_model(tmp_path / "other-weights", seed=1)
    with pytest.raises(PromptError, match="Load the backbone it was made for"):
        load_encoder(str(same_shape), prompt=stored, device="cpu")


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"pooling": "cls"}, "pooling 'mean'"), ({"normalize": True}, "normalisation False")],
)
def test_another_pooling_is_refused(stored: Path, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    other = load_encoder(str(save_model(tmp_path / "other", **changes)), device="cpu")  # the same weights
    with pytest.raises(PromptError, match=said):
        load_prompt(stored, other)


def test_pooling_of_several_kinds_round_trips(tmp_path: Path) -> None:
    encoder = load_encoder(str(save_model(tmp_path / "m", pooling=("cls", "mean"))), device="cpu")
    save_prompt(tmp_path / "it", random_prompt(encoder, PromptSpec("gated", 3)), encoder, "toy/one")
    assert load_prompt(tmp_path / "it", encoder).domain == "toy/one"


def test_tensors_are_checked(encoder: SentenceTransformer) -> None:
    prompt = random_prompt(encoder, PromptSpec("gated", 3))
    with pytest.raises(PromptError, match="a gated prompt has tensors"):
        Prompt(prompt.spec, {"both.keys": torch.zeros(1)})
    with pytest.raises(PromptError, match="not finite"):
        Prompt(prompt.spec, {name: tensor / 0 for name, tensor in prompt.tensors().items()})


# -- banks and mixtures --------------------------------------------------------------------------------------------


@pytest.fixture
def bank(encoder: SentenceTransformer, tmp_path: Path) -> Path:
    for seed, name in enumerate(("toy/one", "toy/two", "multitask")):
        prompt = random_prompt(encoder, PromptSpec("gated", 3), seed)
        save_prompt(tmp_path / "bank" / folder_name(name), prompt, encoder, name)
    (tmp_path / "bank" / "notes").mkdir()
    return tmp_path / "bank"


def test_a_bank(bank: Path, tiny_bert: Path, tmp_path: Path) -> None:
    encoder = load_encoder(str(tiny_bert), bank=bank, device="cpu")
    assert transformer_of(encoder).domains == ["multitask", "toy/one", "toy/two"]
    assert transformer_of(encoder).route is None
    (bank / "again").mkdir()
    for file in FILES:
        (bank / "again" / file).write_bytes((bank / "toy-one" / file).read_bytes())
    with pytest.raises(PromptError, match="both hold a prompt for 'toy/one'"):
        load_bank(bank)
    with pytest.raises(PromptError, match="is no bank"):
        load_bank(tmp_path)


def test_a_mixture_round_trips(bank: Path, encoder: SentenceTransformer, tiny_bert: Path, tmp_path: Path) -> None:
    sources = load_bank(bank, encoder)
    for name, source in sources.items():
        transformer_of(encoder).add(name, source.prompt)
    weights = {"toy/one": 0.7, "multitask": -0.2, "toy/two": 0.0}
    save_mixture(tmp_path / "mix", "toy/three", weights, sources, encoder)
    assert is_mixture(tmp_path / "mix")
    assert not is_mixture(bank / "toy-one")
    assert sorted(f.name for f in (tmp_path / "mix" / "foreword-sources").iterdir()) == ["multitask", "toy-one"]
    again = load_encoder(str(tiny_bert), prompt=tmp_path / "mix", device="cpu")
    np.testing.assert_allclose(
        encode(again, TEXTS, "query", route=transformer_of(again).route),
        encode(encoder, TEXTS, "query", route=weights),
        atol=1e-6,
    )


def test_a_mixture_with_one_source_for_documents(bank: Path, encoder: SentenceTransformer, tmp_path: Path) -> None:
    sources = load_bank(bank, encoder)
    save_mixture(tmp_path / "mix", "t", {"toy/one": 1.0}, sources, encoder, document="toy/two")
    route = attach_mixture(encoder, tmp_path / "mix")
    assert isinstance(route, Routes)
    transformer_of(encoder).add("two", sources["toy/two"].prompt)
    np.testing.assert_array_equal(
        encode(encoder, TEXTS, "document", route=route), encode(encoder, TEXTS, "document", route="two")
    )


def test_a_mixture_of_nothing_is_the_base_model(encoder: SentenceTransformer, tmp_path: Path) -> None:
    save_mixture(tmp_path / "mix", "t", {}, {}, encoder)
    assert attach_mixture(encoder, tmp_path / "mix") is None


def test_a_mixture_is_replaced_whole(bank: Path, encoder: SentenceTransformer, tmp_path: Path) -> None:
    sources = load_bank(bank, encoder)
    save_mixture(tmp_path / "mix", "t", {"toy/one": 1.0, "toy/two": 1.0}, sources, encoder)
    save_mixture(tmp_path / "mix", "t", {"multitask": 1.0}, sources, encoder)
    assert attach_mixture(encoder, tmp_path / "mix") == {"t <- multitask": 1.0}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: alter(f / "mixture.json", format="x"), "this version reads"),
        (lambda f: (f / "mixture.json").write_text("{"), "broken JSON"),
        (lambda f: alter(f / "mixture.json", weights=None), "cut or altered"),
        (lambda f: alter(f / "mixture.json", weights={"toy/one": "a", "toy/two": 1}), "expected finite numbers"),
        (lambda f: alter(f / "mixture.json", weights={"toy/one": 1.0}), "copy it again, whole"),
        (lambda f: flip(f / "foreword-sources" / "toy-one" / "prompt.safetensors"), "it was altered"),
        (lambda f: alter(f / "mixture.json", sources={"toy/one": "0", "toy/two": "0"}), "is not the one"),
    ],
)  # fmt: skip
def test_a_damaged_mixture_is_refused(
    bank: Path, encoder: SentenceTransformer, tmp_path: Path, damage: Callable[[Path], Any], said: str
) -> None:
    save_mixture(tmp_path / "mix", "t", {"toy/one": 1.0, "toy/two": 1.0}, load_bank(bank, encoder), encoder)
    damage(tmp_path / "mix")
    with pytest.raises(PromptError, match=said):
        attach_mixture(encoder, tmp_path / "mix")


def test_save_pretrained_keeps_the_prompts_and_leaves_the_backbone(encoder, tmp_path):
    """Loaded by our loader and by plain sentence-transformers, the embeddings are the same."""
    from sentence_transformers import SentenceTransformer

    from foreword.prompts.loading import load_encoder
    from foreword.prompts.start import new_prompt

    transformer = transformer_of(encoder)
    for seed, domain in enumerate(("a/x", "b")):
        prompt = new_prompt(encoder, PromptSpec(length=3), seed=seed)
        prompt.assign({name: t + 0.5 if name in prompt.linear else t for name, t in prompt.tensors().items()})
        transformer.add(domain, prompt)
    transformer.route = {"a/x": 0.25, "b": 0.5}
    expected = encoder.encode(["some text", "and a longer text of it"])
    encoder.save_pretrained(str(tmp_path / "saved"))
    files = {path.name for path in (tmp_path / "saved").rglob("*") if path.is_file()}
    assert "foreword.json" in files
    assert not {"model.safetensors", "pytorch_model.bin", "tokenizer.json"} & files
    ours = load_encoder(str(tmp_path / "saved"), device="cpu")
    theirs = SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=True, device="cpu")
    for loaded in (ours, theirs):
        assert abs(loaded.encode(["some text", "and a longer text of it"]) - expected).max() == 0
    weights = next((tmp_path / "saved" / "prompts").iterdir())
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(PromptError, match="cut or altered"):
        load_encoder(str(tmp_path / "saved"))


# -- what comes from outside is checked before anything is done with it ------------------------------------------------

ODD: list[Any] = [None, True, -1, 1.5, "x", [], [1], {}, {"a": 1}, [[]], "\x00", "..", 10**30]


@pytest.mark.parametrize("field", ["domain", "prompt", "bytes", "sha256", "backbone", "metrics", "data", "start",
                                   "supervision", "dtype", "layers", "learnt", "parameters", "versions"])  # fmt: skip
def test_a_card_of_odd_types_is_refused_by_name_or_is_harmless(
    tmp_path: Path, encoder: SentenceTransformer, field: str
) -> None:
    folder = save_prompt(tmp_path / "it", random_prompt(encoder, PromptSpec("gated", 3)), encoder, "toy")
    whole, said = (folder / "prompt.json").read_text(), []
    for value in ODD:
        (folder / "prompt.json").write_text(json.dumps(json.loads(whole) | {field: value}))
        try:
            stored = load_prompt(folder, encoder)
        except PromptError as error:
            said.append(str(error))
            continue
        trained_on(stored.card)
        assert field not in ("prompt", "bytes", "sha256", "backbone")
    assert said
    assert all(str(folder) in one and "\n" not in one for one in said)
    (folder / "prompt.json").write_text(whole)
    load_prompt(folder, encoder)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": ' + "9" * 5000 + "}", "[]", "3", '"x"', "{", "\ud83c"])
@pytest.mark.parametrize("name", ["prompt.json", "mixture.json", "foreword.json"])
def test_a_card_that_is_no_object_is_refused_by_name(
    tmp_path: Path, encoder: SentenceTransformer, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text, errors="surrogatepass")
    read: dict[str, Callable[[Path], object]] = {
        "prompt.json": read_card,
        "mixture.json": read_mixture_card,
        "foreword.json": read_module,
    }
    with pytest.raises(PromptError, match=re.escape(str(tmp_path / name))):
        read[name](tmp_path)


@pytest.mark.parametrize("field", ["domain", "weights", "sources", "document", "backbone"])
def test_a_mixture_of_odd_types_is_refused_by_name(tmp_path: Path, encoder: SentenceTransformer, field: str) -> None:
    prompt = StoredPrompt(random_prompt(encoder, PromptSpec("gated", 3)), {"domain": "one"})
    save_mixture(tmp_path / "mix", "toy", {"one": 0.5}, {"one": prompt}, encoder)
    whole = json.loads((tmp_path / "mix" / "mixture.json").read_text())
    for value in [one for one in ODD if one not in (None, "x", "..", {}, {"a": 1})]:
        (tmp_path / "mix" / "mixture.json").write_text(json.dumps(whole | {field: value}))
        with pytest.raises(PromptError, match=r"mix"):
            attach_mixture(encoder, tmp_path / "mix")


def test_the_entries_of_a_saved_encoder_are_checked(tmp_path: Path, encoder: SentenceTransformer) -> None:
    transformer_of(encoder).add("one", random_prompt(encoder, PromptSpec("gated", 3)))
    encoder.save_pretrained(str(tmp_path / "saved"))
    path = tmp_path / "saved" / "foreword.json"
    whole = json.loads(path.read_text())
    for field in ("backbone", "prompts", "route", "max_length"):
        for value in ODD:
            path.write_text(json.dumps(whole | {field: value}))
            with suppress(PromptError, BackboneError):  # nothing else
                load_encoder(str(tmp_path / "saved"), device="cpu")


@pytest.mark.parametrize("domain", ["..", ".", "", "a\\b", "a\nb", "x" * 300])
def test_a_domain_that_cannot_be_a_folder_writes_nowhere(
    tmp_path: Path, encoder: SentenceTransformer, domain: str
) -> None:
    prompt = StoredPrompt(random_prompt(encoder, PromptSpec("gated", 3)), {"domain": domain})
    with pytest.raises(PromptError, match="cannot be a folder's name"):
        save_mixture(tmp_path / "in" / "mix", "toy", {domain: 0.5}, {domain: prompt}, encoder)
    assert not list(tmp_path.rglob("prompt.*"))
