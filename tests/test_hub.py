"""Prompts on the hub and back, against a stand-in for the hub's HTTP on this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hub_standin import Hub, serve_hub
from sentence_transformers import SentenceTransformer
from shell import Shell
from tiny import random_prompt, sentences

from foreword.errors import DataError, HubError, PromptError
from foreword.hub.card import hub_dataset, hub_model, model_card
from foreword.hub.contents import Place, from_hub, place_of, read_contents
from foreword.hub.push import plan_push, push
from foreword.prompts.loading import load_encoder
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import load_bank, save_mixture, save_prompt


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The stand-in, and huggingface_hub let online to reach it, with a token and an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # Xet is another server's protocol, behind the hub's
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with serve_hub() as served:
        monkeypatch.setenv("HF_TOKEN", served.token)
        yield served


pytestmark = pytest.mark.filterwarnings("ignore:names of folders on this machine")

RECORD = {
    "data": {"hf:mteb/scifact": {"pairs": 9}, "beir/nfcorpus": {"pairs": 4}},
    "supervision": {"hf:mteb/scifact": {"method": "train"}, "beir/nfcorpus": {"method": "pseudo-queries"}},
    "metrics": {"dev": [{"step": 0, "dev": 0.25}, {"step": 9, "dev": 0.5}], "best_step": 9, "loss": []},
}


def stored(folder: Path, encoder: SentenceTransformer, domain: str, seed: int = 0, **spec: Any) -> Path:
    prompt = random_prompt(encoder, PromptSpec(length=3, **spec), seed)
    return save_prompt(folder, prompt, encoder, domain, dtype="float32", record=RECORD)


def metadata(card: str) -> Any:
    return yaml.safe_load(card.split("---\n")[1])


# -- there and back --------------------------------------------------------------------------------------------


def test_a_prompt_goes_to_the_hub_and_comes_back_the_same(
    hub: Hub, tmp_path: Path, encoder: SentenceTransformer, tiny_bert: Path
) -> None:
    folder = stored(tmp_path / "prompt", encoder, "toy")
    (folder / "private.txt").write_text("not a prompt's file")
    done = push(folder, "me/toy", licence="apache-2.0", endpoint=hub.url)
    files = hub.repositories["me/toy"].files()
    assert set(files) == {".gitattributes", "README.md", "prompt.json", "prompt.safetensors"}
    assert files["prompt.safetensors"] == (folder / "prompt.safetensors").read_bytes()
    assert done.commit == hub.repositories["me/toy"].branches["main"]
    assert done.url == f"{hub.url}/me/toy"
    assert not hub.repositories["me/toy"].private

    brought = from_hub("me/toy", endpoint=hub.url)
    texts = sentences(5)
    vectors = [
        load_encoder(str(tiny_bert), prompt=path, device="cpu").encode_query(texts) for path in (folder, brought)
    ]
    np.testing.assert_array_equal(*vectors)
    asked = len(hub.requests)
    assert from_hub("hf:me/toy", endpoint=hub.url) == brought
    assert not any("resolve" in request for request in hub.requests[asked:])  # nothing comes twice


def test_pushing_the_same_again_makes_no_commit(hub: Hub, tmp_path: Path, encoder: SentenceTransformer) -> None:
    folder = stored(tmp_path / "prompt", encoder, "toy")
    first = push(folder, "me/toy", endpoint=hub.url)
    second = push(folder, "me/toy", endpoint=hub.url)
    assert second.commit == first.commit
    assert (first.changed, second.changed) == (True, False)
    assert len(hub.repositories["me/toy"].messages) == 2  # the hub's own first one, and ours


def test_a_mixture_takes_the_place_of_a_prompt_and_other_files_stay(
    hub: Hub, tmp_path: Path, encoder: SentenceTransformer, tiny_bert: Path
) -> None:
    for number, name in enumerate(("a", "b")):
        stored(tmp_path / "bank" / name, encoder, name, number)
    push(tmp_path / "bank" / "a", "me/mixed", endpoint=hub.url)
    repository = hub.repositories["me/mixed"]
    others = {"notes.txt": b"by hand", "settings/prompt.json": b"{}"}
    repository.commit("main", {**repository.files(), **others}, "notes")
    folder = save_mixture(tmp_path / "mix", "ab", {"a": 0.25, "b": 0.75}, load_bank(tmp_path / "bank"), encoder)
    done = push(folder, "me/mixed", endpoint=hub.url)
    assert done.removed == ("prompt.json", "prompt.safetensors")
    sources = {f"foreword-sources/{name}/prompt.{end}" for name in "ab" for end in ("json", "safetensors")}
    assert set(repository.files()) == {".gitattributes", "README.md", *others, "mixture.json"} | sources
    brought = from_hub("me/mixed", endpoint=hub.url)
    assert not (brought / "notes.txt").exists()  # what is no prompt's is not fetched
    vectors = [
        load_encoder(str(tiny_bert), prompt=path, device="cpu").encode_query(sentences(3)) for path in (folder, brought)
    ]
    np.testing.assert_array_equal(*vectors)


def test_a_bank_as_a_whole_or_one_of_it(hub: Hub, tmp_path: Path, encoder: SentenceTransformer) -> None:
    for number, name in enumerate(("x/one", "x/two")):
        stored(tmp_path / "bank" / name.replace("/", "-"), encoder, name, number)
    push(tmp_path / "bank", "me/bank", endpoint=hub.url)
    one = from_hub("me/bank/x-two", endpoint=hub.url)
    assert read_contents(one).cards["x/two"]["domain"] == "x/two"
    assert not (one.parent / "x-one").exists()
    assert list(load_bank(from_hub("me/bank", endpoint=hub.url))) == ["x/one", "x/two"]


def test_revisions(hub: Hub, tmp_path: Path, encoder: SentenceTransformer) -> None:
    old = stored(tmp_path / "old", encoder, "toy", 0)
    new = stored(tmp_path / "new", encoder, "toy", 1)
    first = push(old, "me/toy", endpoint=hub.url)
    push(new, "me/toy", revision="v2", endpoint=hub.url)

    def weights(name: str) -> bytes:
        return (from_hub(name, endpoint=hub.url) / "prompt.safetensors").read_bytes()

    assert weights("me/toy") == (old / "prompt.safetensors").read_bytes()
    assert weights("me/toy@v2") == (new / "prompt.safetensors").read_bytes()
    assert weights(f"me/toy@{first.commit}") == (old / "prompt.safetensors").read_bytes()
    with pytest.raises(HubError, match="no revision 'v9'"):
        from_hub("me/toy@v9", endpoint=hub.url)


# -- what is refused -------------------------------------------------------------------------------------------


def test_private_repositories_need_the_token(
    hub: Hub, tmp_path: Path, encoder: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stored(tmp_path / "prompt", encoder, "toy")
    push(folder, "me/secret", private=True, endpoint=hub.url)
    assert hub.repositories["me/secret"].private
    assert from_hub("me/secret", endpoint=hub.url)
    with pytest.raises(HubError, match=r"shows no repository me/secret.*HF_TOKEN"):
        from_hub("me/secret", endpoint=hub.url, token=False, cache=tmp_path / "empty")
    push(folder, "me/open", endpoint=hub.url)
    with pytest.raises(HubError, match="public already"):
        push(folder, "me/open", private=True, endpoint=hub.url)
    assert len(hub.repositories["me/open"].messages) == 2  # and nothing was uploaded
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match=r"who you are for me/other \(401\).*HF_TOKEN"):
        push(folder, "me/other", endpoint=hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(HubError, match=r"\(401\)"):
        push(folder, "me/other", endpoint=hub.url)


def test_what_the_hub_refuses_is_said_with_its_remedy(hub: Hub, tmp_path: Path, encoder: SentenceTransformer) -> None:
    folder = stored(tmp_path / "prompt", encoder, "toy")
    with pytest.raises(HubError, match=r"does not let you write to somebody/toy \(403\)"):
        push(folder, "somebody/toy", endpoint=hub.url)
    with pytest.raises(HubError, match="shows no repository me/nothing"):
        from_hub("me/nothing", endpoint=hub.url)
    with pytest.raises(HubError, match="license"):
        push(folder, "me/toy", licence="none-of-them", endpoint=hub.url)
    hub.repositories["me/toy"].commit("main", {"config.json": b"{}"}, "a model")
    with pytest.raises(HubError, match="hf:me/toy holds no Foreword prompt"):
        from_hub("me/toy", endpoint=hub.url)
    push(folder, "me/toy", endpoint=hub.url)
    broken = {**hub.repositories["me/toy"].files()}
    broken["prompt.safetensors"] = broken["prompt.safetensors"][:-1] + b"x"
    hub.repositories["me/toy"].commit("main", broken, "altered")
    with pytest.raises(HubError, match=r"cannot be used: .* was altered"):
        from_hub("me/toy", endpoint=hub.url)


def test_without_the_network_the_cache_serves(
    hub: Hub, tmp_path: Path, encoder: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    push(stored(tmp_path / "prompt", encoder, "toy"), "me/toy", endpoint=hub.url)
    brought = from_hub("me/toy", endpoint=hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert from_hub("me/toy", endpoint=hub.url) == brought
    with pytest.raises(HubError, match="not in the hub's cache, and the hub was not reached"):
        from_hub("me/other", endpoint=hub.url)


def test_a_broken_prompt_is_not_pushed(hub: Hub, tmp_path: Path, encoder: SentenceTransformer) -> None:
    folder = stored(tmp_path / "prompt", encoder, "toy")
    (folder / "prompt.safetensors").write_bytes(b"cut")
    with pytest.raises(PromptError, match="cut or altered"):
        push(folder, "me/toy", endpoint=hub.url)
    with pytest.raises(PromptError, match="cut or altered"):  # nor the bank that it is in
        push(tmp_path, "me/toy", endpoint=hub.url)
    (folder / "prompt.json").unlink()
    with pytest.raises(PromptError, match="holds no prompt"):
        push(tmp_path, "me/toy", endpoint=hub.url)
    with pytest.raises(PromptError, match="no folder"):
        push(tmp_path / "nowhere", "me/toy", endpoint=hub.url)
    for seed, name in enumerate(("a", "b")):
        stored(tmp_path / "bank" / name, encoder, name, seed)
    mixture = save_mixture(tmp_path / "mix", "ab", {"a": 0.2, "b": 0.8}, load_bank(tmp_path / "bank"), encoder)
    shutil.rmtree(mixture / "foreword-sources" / "b")
    with pytest.raises(PromptError, match="not those that it was made of"):
        push(mixture, "me/toy", endpoint=hub.url)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("me/toy", Place("me/toy")),
        ("hf:me/toy.v2", Place("me/toy.v2")),
        ("me/bank/pydoc-torch", Place("me/bank", "pydoc-torch")),
        ("hf:me/bank/a/b@refs/pr/1", Place("me/bank", "a/b", "refs/pr/1")),
        ("me/toy/@v1", Place("me/toy", "", "v1")),
    ],
)
def test_places(name: str, place: Place) -> None:
    assert place_of(name) == place


@pytest.mark.parametrize("name", ["toy", "hf:", "me/", "/me/toy", "me/toy/../x", "me/toy//etc", "me/to y", "me/toy@"])
def test_what_is_no_place(name: str) -> None:
    with pytest.raises(PromptError, match="expected user/name"):
        place_of(name)


# -- the card --------------------------------------------------------------------------------------------------


def results_file(path: Path, prompt: Path, **changes: Any) -> Path:
    said = {
        "collection": "hf:mteb/scifact",
        "split": "test",
        "measures": {"nDCG@10": 0.71239999},
        "prompt": str(prompt),
        "supervision": "train",
        "seen_by_backbone": False,
        **changes,
    }
    path.write_text(json.dumps(said))
    return path


def test_the_card_says_what_is_known(tmp_path: Path, encoder: SentenceTransformer, tiny_bert: Path) -> None:
    folder = stored(tmp_path / "prompt", encoder, "toy", sides="query")
    results = results_file(tmp_path / "results.json", folder)
    card = plan_push(folder, "me/toy", licence="mit", results=[results]).card
    assert card is not None
    about = metadata(card)
    assert about["license"] == "mit"
    assert about["library_name"] == "foreword"
    assert about["datasets"] == ["BeIR/nfcorpus", "mteb/scifact"]
    assert "base_model" not in about  # the tiny model is a folder, not the hub's
    (model,) = about["model-index"]
    assert model["name"] == "toy"
    (result,) = model["results"]
    assert result["dataset"] == {"name": "hf:mteb/scifact", "type": "mteb/scifact", "split": "test"}
    assert result["metrics"] == [{"type": "ndcg_at_10", "name": "nDCG@10", "value": 0.7124}]
    assert "documents keep the base model's vectors" in card
    assert "| `toy` | `beir/nfcorpus` | pseudo-queries made of its documents |" in card
    assert "| `toy` | 0.2500 | 0.5000 |" in card
    assert "| `hf:mteb/scifact` | test | nDCG@10 | 0.7124 | train | no |" in card
    assert 'foreword.from_hub("me/toy")' in card
    assert f"--prompt hf:me/toy --backbone {tiny_bert}" in card  # another one than the usual
    assert card == plan_push(folder, "me/toy", licence="mit", results=[results]).card
    assert "learnt nothing" not in card
    nothing = {**RECORD, "learnt": False}
    prompt = random_prompt(encoder, PromptSpec(length=3))
    folder = save_prompt(tmp_path / "nothing", prompt, encoder, "toy", record=nothing)
    assert "**training learnt nothing**: no step was better" in str(plan_push(folder, "me/toy").card)


def test_figures_of_another_prompt_are_refused(
    tmp_path: Path, encoder: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stored(tmp_path / "prompt", encoder, "toy")
    monkeypatch.chdir(folder)  # where `none`, the base model, is no path in this folder either
    with pytest.raises(DataError, match="figures are of 'none'"):
        plan_push(".", "me/toy", results=[results_file(tmp_path / "r.json", Path("none"))])
    with pytest.raises(DataError, match="figures are of min-max, not of the prompt alone"):
        plan_push(folder, "me/toy", results=[results_file(tmp_path / "r.json", folder, system="min-max")])
    (tmp_path / "r.json").write_text("[]")
    with pytest.raises(DataError, match="foreword evaluate"):
        plan_push(folder, "me/toy", results=[tmp_path / "r.json"])


def test_names_of_this_machine_are_said(tmp_path: Path, encoder: SentenceTransformer) -> None:
    """Wherever in a card they stand: collections in folders, however they are written, and absolute paths."""
    record = {
        "data": {"folder:clients/acme": {"pairs": 1}, "beir/scifact": {"pairs": 1}},
        "imported": {"both": {"base_model_name_or_path": "/home/me/models/base"}},
    }
    folder = save_prompt(tmp_path / "p", random_prompt(encoder, PromptSpec(length=3)), encoder, "toy", record=record)
    results = results_file(tmp_path / "r.json", folder, collection="folder:mine")
    with pytest.warns(UserWarning, match="this machine") as said:
        plan_push(folder, "me/toy", results=[results])
    (warning,) = said
    named = str(warning.message).partition(": ")[2].split(", ")
    assert {"folder:clients/acme", "/home/me/models/base", "folder:mine"} <= set(named)
    assert "beir/scifact" not in named


def test_a_card_of_a_bank_lists_its_prompts(tmp_path: Path, encoder: SentenceTransformer) -> None:
    for number, name in enumerate(("one", "two")):
        stored(tmp_path / name, encoder, name, number)
    card = model_card(read_contents(tmp_path), "me/bank")
    assert metadata(card)["tags"][-1] == "foreword-bank"
    assert "license" not in metadata(card)
    assert "not stated" in card
    assert (
        card.count(
            "| `one` | a memory prompt of 3 vectors a layer and 3 vectors a layer beside its feed-forward part, the same for"
        )
        == 1
    )


def test_names_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def model(name: str) -> str | None:
        return hub_model({"backbone": {"name": name}})

    assert model("all-MiniLM-L6-v2") == "sentence-transformers/all-MiniLM-L6-v2"
    assert model("BAAI/bge-base-en") == "BAAI/bge-base-en"
    assert model("/models/mine") is None
    (tmp_path / "models" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert model("models/mine") is None
    assert hub_dataset("hf:mteb/scifact@main") == "mteb/scifact"
    assert hub_dataset("beir/scifact#fold1of5") == "BeIR/scifact"
    assert hub_dataset("pydoc/torch") is None


# -- the command line ------------------------------------------------------------------------------------------


def test_a_dry_run_lists_the_files_and_asks_nothing(
    hub: Hub, tmp_path: Path, encoder: SentenceTransformer, shell: Shell
) -> None:
    folder = stored(tmp_path / "prompt", encoder, "toy")
    plan = shell.json("push", folder, "me/toy", "--dry-run")
    assert set(plan["files"]) == {"README.md", "prompt.json", "prompt.safetensors"}
    assert plan["files"]["prompt.safetensors"] == (folder / "prompt.safetensors").stat().st_size
    assert "README.md" not in shell.json("push", folder, "me/toy", "--dry-run", "--no-card")["files"]
    assert "prompt.safetensors" in shell("push", folder, "me/toy", "--dry-run")
    with pytest.warns(UserWarning, match="names of folders on this machine"):  # the tiny backbone's
        plan_push(folder, "me/toy")
    assert hub.requests == []
    assert "expected user/name" in shell.fails("push", folder, "toy", "--dry-run")


RUN_PAGE = """
import contextlib, io, json, shlex, sys
from foreword.cli.main import build_parser, resolve

for language, block in json.load(sys.stdin):
    if language == "python":
        made = {}
        exec(block, made)
        assert made["encoder"].encode_query("a text").shape == (384,)
        continue
    for line in block.splitlines():
        arguments, _, target = line.partition(" > ")
        options = build_parser().parse_args(shlex.split(arguments)[1:])
        resolve(options)
        if target:
            with open(target, "w") as file, contextlib.redirect_stdout(file):
                options.run(options)
        else:
            options.run(options)
"""


def test_the_page_by_the_hubs_own_settings(hub: Hub, tmp_path: Path, minilm: SentenceTransformer, beir: Path) -> None:
    """docs/hub.md with HF_ENDPOINT and HF_TOKEN alone, in a process of its own, as a user has them."""
    shutil.copytree(beir, tmp_path / "my-collection")
    stored(tmp_path / "prompts" / "torch", minilm, "pydoc/torch", sides="query")
    page = (Path(__file__).parents[1] / "docs" / "hub.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(sh|python)\n(.*?)```", page, flags=re.DOTALL)
    settings = {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path / "home")}
    settings |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", RUN_PAGE],
        cwd=tmp_path,
        env={**{k: v for k, v in os.environ.items() if k != "HF_HUB_CACHE"}, **settings},
        input=json.dumps(blocks),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert hub.repositories["me/torch-docs-draft"].private
    repository = hub.repositories["me/torch-docs"]
    assert set(repository.branches) == {"main", "v2"}
    card = metadata(repository.files()["README.md"].decode())
    assert card["license"] == "apache-2.0"
    assert card["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert card["model-index"][0]["results"][0]["metrics"][0]["name"] == "nDCG@10"
    assert (tmp_path / "home" / "hub" / "models--me--torch-docs").is_dir()
