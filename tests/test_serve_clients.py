"""OpenAI's client and LangChain's vector store, unchanged, against a service on a real port; and its end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("prometheus_client", reason="the extra serve is not installed")

from sentence_transformers import SentenceTransformer
from serve_bank import SPECS, config, listening, save, save_bank
from tiny import sentences, toy_collection

import foreword
from foreword.errors import PromptError, RequestError
from foreword.prompts.encoder import encode
from foreword.prompts.int8 import Int8
from foreword.prompts.loading import load_encoder
from foreword.serving.config import key_of_value
from foreword.serving.service import Service

DOCS = Path(foreword.__file__).parents[2] / "docs" / "openai-langchain.md"
KEY = "key-of-the-tests-0"


@pytest.fixture(scope="module")
def bank(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bank(tmp_path_factory.mktemp("bank") / "bank", load_encoder(str(tiny_bert), device="cpu"))


@pytest.fixture(scope="module")
def offline(tiny_bert: Path, bank: Path) -> SentenceTransformer:
    return load_encoder(str(tiny_bert), bank=bank, device="cpu")


@pytest.fixture(scope="module")
def address(tiny_bert: Path, bank: Path) -> Iterator[str]:
    with listening(config(tiny_bert, bank, keys=(key_of_value("tests", KEY),))) as found:
        yield found


def code_blocks(name: str) -> dict[str, str]:
    """The page's Python, by each block's title."""
    text = DOCS.read_text(encoding="utf-8")
    blocks = re.findall(r'```python title="([^"]+)"\n(.*?)```', text, flags=re.DOTALL)
    assert name in dict(blocks), sorted(dict(blocks))
    return dict(blocks)


def run_block(name: str, address: str, monkeypatch: pytest.MonkeyPatch, **given: Any) -> dict[str, Any]:
    """Run a block of the page as it stands, but for the address and the domain's name."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{address}/v1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    scope: dict[str, Any] = dict(given)
    code = code_blocks(name)[name].replace("http://127.0.0.1:8000", address)
    exec(compile(code, f"{DOCS.name}: {name}", "exec"), scope)
    return scope


# -- OpenAI's client -------------------------------------------------------------------------------------------------


def test_the_openai_client(address: str, offline: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    openai = pytest.importorskip("openai")
    texts = sentences(5, seed=2)
    scope = run_block("OpenAI's client", address, monkeypatch, texts=texts, question=texts[0], domain="toy/untied")
    np.testing.assert_allclose(scope["documents"], encode(offline, texts, "document", route="toy/untied"), atol=1e-4)
    np.testing.assert_allclose(scope["query"], encode(offline, texts[:1], "query", route="toy/untied")[0], atol=1e-4)
    client = scope["client"]
    assert {"base", "toy/shared"} <= {model.id for model in client.models.list()}
    floats = client.embeddings.create(model="toy/shared", input=texts, encoding_format="float")
    packed = client.embeddings.create(model="toy/shared", input=texts)  # base64, the client's own choice
    np.testing.assert_allclose([d.embedding for d in floats.data], [d.embedding for d in packed.data], atol=1e-7)
    assert packed.usage.total_tokens == packed.usage.prompt_tokens > 5
    with pytest.raises(openai.NotFoundError, match="no model") as missing:
        client.embeddings.create(model="nothing", input="a")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError, match="toy/untied:query"):
        client.embeddings.create(model="toy/untied", input="a")
    with pytest.raises(openai.UnprocessableEntityError, match="empty list"):
        client.embeddings.create(model="base", input=[])
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="another-key-altogether").embeddings.create(model="base", input="a")
    side = client.embeddings.create(model="toy/untied", input=texts, extra_body={"input_type": "document"})
    np.testing.assert_allclose([d.embedding for d in side.data], scope["documents"], atol=1e-6)


# -- LangChain -------------------------------------------------------------------------------------------------------


def nearest(offline: SentenceTransformer, texts: list[str], question: str, route: str) -> list[str]:
    documents = encode(offline, texts, "document", route=route)
    scores = documents @ encode(offline, [question], "query", route=route)[0]
    return [texts[i] for i in np.argsort(-scores, kind="stable")]


def test_a_langchain_vector_store(address: str, offline: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("langchain_openai")
    texts = [document.text for document in toy_collection("toy/shared", documents=25).corpus]
    question = " ".join(texts[3].split()[4:8])
    scope = run_block("LangChain, one side", address, monkeypatch, texts=texts, question=question, domain="toy/shared")
    expected = nearest(offline, texts, question, "toy/shared")
    assert [found.page_content for found in scope["found"]] == expected[:4]


def test_a_langchain_vector_store_with_two_sides(
    address: str, offline: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("langchain_openai")
    texts = [document.text for document in toy_collection("toy/untied", documents=25).corpus]
    question = " ".join(texts[3].split()[4:8])
    scope = run_block("LangChain, two sides", address, monkeypatch, texts=texts, question=question, domain="toy/untied")
    expected = nearest(offline, texts, question, "toy/untied")
    assert [found.page_content for found in scope["found"]] == expected[:4]


try:
    from langchain_tests.integration_tests import EmbeddingsIntegrationTests, VectorStoreIntegrationTests
except ImportError:  # then they have no tests
    EmbeddingsIntegrationTests = VectorStoreIntegrationTests = object


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def page_store(address: str, monkeypatch: pytest.MonkeyPatch, kind: str, domain: str) -> Any:
    """The vector store that the page makes."""
    given = {"texts": ["foo"], "question": "foo", "domain": domain}
    return run_block(f"LangChain, {kind}", address, monkeypatch, **given)["store"]


@pytest.mark.anyio
class TestEmbeddingsByLangChainsOwnTests(EmbeddingsIntegrationTests):  # type: ignore[misc]
    """`langchain-tests`, on what the page builds."""

    embeddings_class = None

    @pytest.fixture(params=[("one side", "toy/shared"), ("two sides", "toy/untied")], ids=["one", "two"])
    def model(self, request: pytest.FixtureRequest, address: str, monkeypatch: pytest.MonkeyPatch) -> Any:
        return page_store(address, monkeypatch, *request.param).embeddings


@pytest.mark.anyio
class TestAVectorStoreByLangChainsOwnTests(VectorStoreIntegrationTests):  # type: ignore[misc]
    """The same, of LangChain's store filled by the service; they take it that a text is nearest to itself: one side."""

    @pytest.fixture
    def vectorstore(self, address: str, monkeypatch: pytest.MonkeyPatch) -> Any:
        made = page_store(address, monkeypatch, "one side", "toy/shared")
        return type(made)(made.embeddings)


def test_langchain_as_it_comes_where_token_arrays_are_read(
    tiny_bert: Path, bank: Path, offline: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LangChain's default sends cl100k_base's ids; a vocabulary of bytes stands for that, whose file is not here."""
    tiktoken, langchain_openai = pytest.importorskip("tiktoken"), pytest.importorskip("langchain_openai")
    from tiktoken import registry

    letters = tiktoken.Encoding(
        "cl100k_base", pat_str=r"(?s).", special_tokens={}, mergeable_ranks={bytes([i]): i for i in range(256)}
    )
    monkeypatch.setitem(registry.ENCODINGS, "cl100k_base", letters)
    texts = sentences(4, seed=8)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with listening(config(tiny_bert, bank, token_arrays="cl100k_base")) as address:
        embeddings = langchain_openai.OpenAIEmbeddings(model="toy/shared", base_url=f"{address}/v1", api_key="none")
        got = embeddings.embed_documents(texts)
    np.testing.assert_allclose(got, encode(offline, texts, "document", route="toy/shared"), atol=1e-4)


def test_in_int8_every_prompt_is_proven_before_it_is_served(
    tiny_bert: Path, tmp_path: Path, encoder: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kinds of prompts have graphs of their own, which take a minute each: not the first request's."""
    asked: list[str | None] = []

    def embed(_: Any, encoder: Any, features: Any, side: Any, route: Any, domains: list[str | None]) -> torch.Tensor:
        asked.extend(domains)
        if "spoilt" in broken:
            raise PromptError("int8 spoils it")
        return torch.ones(len(domains), 32)

    broken: list[str] = []
    monkeypatch.setattr(Int8, "embed", embed)
    bank = save(tmp_path / "bank", encoder, "toy/a", SPECS["toy/shared"], 1).parent
    save(bank, encoder, "toy/b", SPECS["toy/input"], 2)

    async def run() -> None:
        service = Service(config(tiny_bert, bank, precision="int8"))
        await service.start()
        assert set(asked) == {None, *service.encoder[0].domains}
        broken.append("spoilt")
        save(bank, encoder, "toy/c", SPECS["toy/shared"], 3)
        with pytest.raises(PromptError, match="spoils"):
            await service.reload()
        assert sorted(service.state.served) == ["toy/a", "toy/b"]
        await service.stop()

    asyncio.run(run())


# -- prompts swapped while requests run ------------------------------------------------------------------------------


def test_a_request_finishes_with_the_prompts_it_began_with(
    tiny_bert: Path, tmp_path: Path, encoder: SentenceTransformer
) -> None:
    bank = save(tmp_path / "bank", encoder, "toy/a", SPECS["toy/untied"], 1).parent
    old = load_encoder(str(tiny_bert), bank=bank, device="cpu")
    texts = sentences(6, seed=4)

    async def run() -> None:
        service = Service(config(tiny_bert, bank))
        await service.start()
        carried = service.encoder[0].domains
        assert len(carried) == 2
        async with service.keep() as state:
            rows = await service.rows(texts, state.served["toy/a"].ways["query"])
            save(bank, encoder, "toy/a", SPECS["toy/untied"], 2)
            assert (await service.reload())["changed"] == ["toy/a"]
            assert len(service.encoder[0].domains) == 4
            async with service.keep() as later:
                newer = await service.rows(texts, later.served["toy/a"].ways["query"])
                before, after = await asyncio.gather(service.embed(rows), service.embed(newer))
        np.testing.assert_allclose(before, encode(old, texts, "query", route="toy/a"), atol=1e-4)
        fresh = load_encoder(str(tiny_bert), bank=bank, device="cpu")
        np.testing.assert_allclose(after, encode(fresh, texts, "query", route="toy/a"), atol=1e-4)
        assert np.abs(before - after).max() > 1e-3
        await asyncio.gather(*service._tasks)
        assert len(service.encoder[0].domains) == 2
        await service.stop()

    asyncio.run(run())


def test_told_to_stop_while_documents_are_embedded_again_it_stops(
    tiny_bert: Path, tmp_path: Path, encoder: SentenceTransformer
) -> None:
    bank = save(tmp_path / "bank", encoder, "toy/a", SPECS["toy/untied"], 1).parent
    said: list[BaseException | None] = []

    async def run() -> None:
        settings = config(tiny_bert, bank, collections=("toy/a",), batch_texts=64)
        service = Service(settings, load=lambda name: toy_collection(name, documents=2000))
        await service.start()
        save(bank, encoder, "toy/a", SPECS["toy/untied"], 2)
        reloading = asyncio.create_task(service.reload())
        while service.batcher.waiting < 64:
            await asyncio.sleep(0.001)
        await service.stop()
        (error,) = await asyncio.gather(reloading, return_exceptions=True)
        said.append(error if isinstance(error, BaseException) else None)

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    (error,) = said
    assert isinstance(error, RequestError)
    assert error.code == "stopping"


# -- the process -----------------------------------------------------------------------------------------------------


def test_told_to_stop_it_finishes_what_it_has_begun(
    tiny_bert: Path, tmp_path: Path, encoder: SentenceTransformer
) -> None:
    bank = save(tmp_path / "bank", encoder, "toy/a", SPECS["toy/shared"], 1).parent
    source = str(Path(foreword.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "NO_PROXY": "127.0.0.1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "foreword", "serve", "--port", "0", "--bank", bank, "--backbone", tiny_bert]
    # What waits for half a minute for others is encoded at once when the service is told to stop.
    process = subprocess.Popen(
        [*map(str, command), "--device", "cpu", "--wait-ms", "30000"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        said = iter(process.stdout.readline, "")
        address = next(line.split()[-1] for line in said if line.startswith("foreword serve: http"))
        save(bank, encoder, "toy/b", SPECS["toy/shared"], 2)
        os.kill(process.pid, signal.SIGHUP)
        while "toy/b" not in urllib.request.urlopen(f"{address}v1/models").read().decode():
            time.sleep(0.02)
        answers: list[Any] = []

        def ask() -> None:
            body = json.dumps({"model": "toy/b", "input": ["one", "two"]}).encode()
            request = urllib.request.Request(f"{address}v1/embeddings", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request) as answer:
                answers.append((answer.status, json.load(answer)))

        asking = threading.Thread(target=ask)
        asking.start()
        while "foreword_queue_texts 2.0" not in urllib.request.urlopen(f"{address}metrics").read().decode():
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        asking.join(20)
        assert process.wait(20) == 0
        assert answers[0][0] == 200
        assert len(answers[0][1]["data"]) == 2
    finally:
        process.kill()
        process.wait()
