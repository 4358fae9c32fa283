"""`/v1/embeddings`: what it gives is what offline encoding gives, whoever asks at the same time."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("prometheus_client", reason="the extra serve is not installed")

from sentence_transformers import SentenceTransformer
from serve_bank import SPECS, client, config, save, save_bank
from starlette.testclient import TestClient
from tiny import random_prompt, sentences

from foreword.prompts.encoder import encode
from foreword.prompts.loading import load_encoder
from foreword.prompts.prompt import Prompt
from foreword.prompts.store import attach_mixture, folder_name, load_prompt, save_mixture, save_prompt
from foreword.settings import Side

TEXTS = sentences(12, seed=3, least=1, most=30)


@pytest.fixture(scope="module")
def bank(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bank(tmp_path_factory.mktemp("bank") / "bank", load_encoder(str(tiny_bert), device="cpu"))


@pytest.fixture(scope="module")
def offline(tiny_bert: Path, bank: Path) -> SentenceTransformer:
    return load_encoder(str(tiny_bert), bank=bank, device="cpu")


@pytest.fixture(scope="module")
def service(tiny_bert: Path, bank: Path) -> Iterator[TestClient]:
    with client(config(tiny_bert, bank)) as asked:
        yield asked


def embed(service: TestClient, texts: Any, model: str, **more: Any) -> np.ndarray[Any, Any]:
    answer = service.post("/v1/embeddings", json={"model": model, "input": texts, **more})
    assert answer.status_code == 200, answer.text
    return np.array([row["embedding"] for row in answer.json()["data"]], dtype=np.float32)


def refused(service: TestClient, status: int, **body: Any) -> dict[str, Any]:
    answer = service.post("/v1/embeddings", json=body)
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "code", "param"}
    assert error["message"]
    return error


# -- equal to offline encoding ---------------------------------------------------------------------------------------


def asked_for(offline: SentenceTransformer, bank: Path) -> list[tuple[str, Side, Any]]:
    """Every model and side, with the route that offline encoding takes."""
    sides: tuple[Side, Side] = ("query", "document")
    mixture = attach_mixture(offline, bank / "mixed")
    found: list[tuple[str, Side, Any]] = [(name, side, name) for name in SPECS for side in sides]
    return [*found, *[("base", side, None) for side in sides], *[("toy/mixed", side, mixture) for side in sides]]


def test_embeddings_equal_offline_encoding_with_all_domains_at_once(
    service: TestClient, offline: SentenceTransformer, bank: Path
) -> None:
    asked = asked_for(offline, bank)
    expected = [encode(offline, TEXTS, side, route=route, batch_size=5) for _, side, route in asked]
    jobs = [(number, [i]) for i in range(len(TEXTS)) for number in range(len(asked))]
    jobs += [(number, list(range(len(TEXTS)))) for number in range(len(asked))]

    def ask(job: tuple[int, list[int]]) -> float:
        number, chosen = job
        model, side, _ = asked[number]
        got = embed(service, [TEXTS[i] for i in chosen], model, input_type=side)
        return float(np.abs(got - expected[number][chosen]).max())

    with ThreadPoolExecutor(24) as pool:
        worst = list(pool.map(ask, jobs))
    assert max(worst) < 1e-4
    metrics = service.get("/metrics").text
    together = float(
        next(line.split()[-1] for line in metrics.splitlines() if line.startswith("foreword_pass_ways_sum"))
    )
    passes = float(
        next(line.split()[-1] for line in metrics.splitlines() if line.startswith("foreword_pass_ways_count"))
    )
    assert together > 1.5 * passes  # prompts did share forward passes
    prompts = {
        name: vectors.tobytes() for (name, side, _), vectors in zip(asked, expected, strict=True) if side == "query"
    }
    assert len(set(prompts.values())) == len(prompts)  # and they do differ


def test_a_mixture_of_prompts_that_embed_documents_alike(
    tiny_bert: Path, tmp_path: Path, encoder: SentenceTransformer
) -> None:
    """As of several prompts whose query sides were trained from one start."""
    one, two = (random_prompt(encoder, SPECS["toy/untied"], seed, scale=0.5) for seed in (1, 2))
    shared = {name: tensor for name, tensor in one.tensors().items() if name.startswith("document.")}
    alike = Prompt(two.spec, {**two.tensors(), **shared})
    sources = {}
    for name, prompt in (("toy/a", one), ("toy/b", alike)):
        folder = save_prompt(tmp_path / folder_name(name), prompt, encoder, name, dtype="float32")
        sources[name] = load_prompt(folder, encoder)
    save_mixture(tmp_path / "bank" / "mixed", "toy/mixed", {"toy/a": 0.5, "toy/b": [0.25, 0.75]}, sources, encoder)
    route = attach_mixture(encoder, tmp_path / "bank" / "mixed")
    sides: tuple[Side, Side] = ("query", "document")
    with client(config(tiny_bert, tmp_path / "bank")) as asked:
        for side in sides:
            got = embed(asked, TEXTS, "toy/mixed", input_type=side)
            np.testing.assert_allclose(got, encode(encoder, TEXTS, side, route=route), atol=1e-4)


def test_sides_in_the_models_name(service: TestClient, offline: SentenceTransformer) -> None:
    for side in ("query", "document"):
        got = embed(service, TEXTS, f"toy/untied:{side}")
        np.testing.assert_allclose(got, encode(offline, TEXTS, side, route="toy/untied"), atol=1e-4)
    shared = embed(service, TEXTS[0], "toy/shared")
    np.testing.assert_allclose(shared, embed(service, TEXTS[0], "toy/shared:document"), atol=1e-6)
    np.testing.assert_allclose(
        embed(service, TEXTS, "toy/query:document"), encode(offline, TEXTS, "document", route=None), atol=1e-4
    )


def test_long_texts_are_cut_and_empty_ones_embedded(service: TestClient, offline: SentenceTransformer) -> None:
    texts = [" ".join(sentences(10, seed=1)), "", " "]
    np.testing.assert_allclose(embed(service, texts, "base"), encode(offline, texts, "query", route=None), atol=1e-4)


def test_one_request_larger_than_a_forward_pass(tiny_bert: Path, bank: Path, offline: SentenceTransformer) -> None:
    texts = sentences(40, seed=5)
    with client(config(tiny_bert, bank, batch_tokens=64, batch_texts=7, wait_ms=0)) as small:
        got = embed(small, texts, "toy/prefix:document")
    np.testing.assert_allclose(got, encode(offline, texts, "document", route="toy/prefix"), atol=1e-4)


# -- OpenAI's form ---------------------------------------------------------------------------------------------------


def test_the_answer_has_openais_form(service: TestClient) -> None:
    body = {"model": "toy/shared", "input": ["one two", "three"], "user": "someone", "encoding_format": "base64"}
    answer = service.post("/v1/embeddings", json=body).json()
    assert answer["object"] == "list"
    assert answer["model"] == "toy/shared"
    assert [row["index"] for row in answer["data"]] == [0, 1]
    assert all(row["object"] == "embedding" for row in answer["data"])
    packed = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in answer["data"]]
    np.testing.assert_array_equal(np.stack(packed), embed(service, ["one two", "three"], "toy/shared"))


def test_tokens_are_counted_as_the_tokenizer_has_them(service: TestClient, offline: SentenceTransformer) -> None:
    texts = ["bana", "the bana", " ".join(sentences(10, seed=1))]
    usage = service.post("/v1/embeddings", json={"model": "base", "input": texts}).json()["usage"]
    limit = offline.max_seq_length
    expected = sum(len(offline.tokenizer(text, truncation=True, max_length=limit)["input_ids"]) for text in texts)
    assert usage == {"prompt_tokens": expected, "total_tokens": expected}


def test_models_are_listed_as_they_can_be_asked_for(service: TestClient) -> None:
    listed = service.get("/v1/models").json()
    names = [entry["id"] for entry in listed["data"]]
    assert {"base", "toy/shared", "toy/untied:query", "toy/untied:document", "toy/query:query"} <= set(names)
    assert "toy/untied" not in names
    for name in names:
        assert embed(service, "a text", name).shape == (1, 32)
        assert service.get(f"/v1/models/{name}").json()["id"] == name
    assert service.get("/v1/models/nothing").status_code == 404


def test_dimensions_are_honoured_or_refused(service: TestClient) -> None:
    assert embed(service, "a", "base", dimensions=32).shape == (1, 32)
    assert refused(service, 400, model="base", input="a", dimensions=16)["param"] == "dimensions"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"model": "base"}, 422, "input"),
        ({"model": "base", "input": []}, 422, "input"),
        ({"model": "base", "input": [1.5]}, 422, "input"),
        ({"model": "base", "input": ["a", 3]}, 422, "input"),
        ({"model": "base", "input": {"text": "a"}}, 422, "input"),
        ({"model": "base", "input": [101, 102]}, 400, "input"),
        ({"model": "base", "input": [[101, 102]]}, 400, "input"),
        ({"model": "base", "input": "a", "encoding_format": "int8"}, 422, "encoding_format"),
        ({"model": "nothing", "input": "a"}, 404, "model"),
        ({"model": "toy/untied", "input": "a"}, 400, "model"),
        ({"model": "toy/query", "input": "a"}, 400, "model"),
        ({"model": "toy/untied:query", "input": "a", "input_type": "document"}, 400, "input_type"),
    ],
)
def test_refusals_name_the_field(service: TestClient, body: dict[str, Any], status: int, param: str) -> None:
    assert refused(service, status, **body)["param"] == param


def test_broken_bodies_and_paths_are_refused_in_the_same_form(service: TestClient) -> None:
    answers = [
        service.post("/v1/embeddings", content=b"{", headers={"content-type": "application/json"}),
        service.post("/v1/embeddings", content=b'{"model": "base", "input": "\\ud800"}'),
        service.get("/nowhere"),
        service.get("/v1/embeddings"),
    ]
    assert [answer.status_code for answer in answers] == [422, 422, 404, 405]
    assert all(set(answer.json()["error"]) == {"message", "type", "code", "param"} for answer in answers)


# -- token arrays ----------------------------------------------------------------------------------------------------


def test_arrays_of_the_backbones_own_tokens_where_configured(tiny_bert: Path, offline: SentenceTransformer) -> None:
    ids = offline.tokenizer(TEXTS[:3], add_special_tokens=False)["input_ids"]
    with client(config(tiny_bert, token_arrays="backbone")) as asked:
        np.testing.assert_allclose(
            embed(asked, ids, "base"), encode(offline, TEXTS[:3], "query", route=None), atol=1e-4
        )
        assert embed(asked, ids[0], "base").shape == (1, 32)
        assert refused(asked, 422, model="base", input=[10**9])["param"] == "input"


# -- prompts swapped while it runs -----------------------------------------------------------------------------------


def test_prompts_are_swapped_without_a_restart(tiny_bert: Path, tmp_path: Path, encoder: SentenceTransformer) -> None:
    bank = save(tmp_path / "bank", encoder, "toy/a", SPECS["toy/shared"], 1).parent
    with client(config(tiny_bert, bank)) as asked:
        first = embed(asked, "a text", "toy/a")
        save(bank, encoder, "toy/a", SPECS["toy/shared"], 2)
        save(bank, encoder, "toy/b", SPECS["toy/untied"], 3)
        np.testing.assert_array_equal(embed(asked, "a text", "toy/a"), first)  # until it is told
        changes = asked.post("/admin/reload").json()
        assert changes == {"added": ["toy/b"], "changed": ["toy/a"], "removed": [], "unchanged": []}
        fresh = load_encoder(str(tiny_bert), bank=bank, device="cpu")
        assert np.abs(embed(asked, "a text", "toy/a") - first).max() > 1e-3
        np.testing.assert_allclose(
            embed(asked, "a text", "toy/a"), encode(fresh, ["a text"], "query", route="toy/a"), atol=1e-4
        )
        (bank / "toy-b" / "prompt.safetensors").write_bytes(b"cut")
        (bank / "toy-b" / "prompt.json").touch()
        save(bank, encoder, "toy/c", SPECS["toy/shared"], 4)
        assert asked.post("/admin/reload").json()["added"] == ["toy/c"]  # what has not changed is not read again
        for file in (bank / "toy-a").iterdir():
            file.unlink()
        assert asked.post("/admin/reload").json()["removed"] == ["toy/a"]
        assert refused(asked, 404, model="toy/a", input="a")["code"] == "model_not_found"
        save(bank, encoder, "toy/d", SPECS["toy/shared"], 5)
        (bank / "toy-d" / "prompt.safetensors").write_bytes(b"cut")
        failed = asked.post("/admin/reload")
        assert failed.status_code == 400
        assert "toy-d" in failed.json()["error"]["message"]
        assert embed(asked, "a text", "toy/c").shape == (1, 32)  # as it was
        carried = asked.app.state.service.encoder[0].domains  # type: ignore[attr-defined]
        assert len(carried) == 3  # two sides of b and c: nothing that was replaced is left
