"""`/search` and `/domains` over a Milvus index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("prometheus_client", reason="the extra serve is not installed")
pytest.importorskip("milvus_lite", reason="the extra index is not installed")

from serve_bank import ask, client, config, load, save_bank, with_metadata
from tiny import save_model, words

from foreword.indexing import Index, OtherEncoderError
from foreword.prompts.encoder import routed
from foreword.prompts.loading import load_encoder
from foreword.retrieval.search import search


@pytest.fixture(scope="module")
def bank(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bank(tmp_path_factory.mktemp("bank") / "bank", load_encoder(str(tiny_bert), device="cpu"))


def test_an_index_that_fits_nothing_is_not_passed_over(
    tiny_bert: Path, bank: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = str(tmp_path / "notes.db")
    with Index.open(uri, create=True) as index:
        offline = load_encoder(str(tiny_bert), bank=bank, device="cpu")
        index.build(offline, "notes", load("notes").documents(), "toy/shared", quiet=True)
    with client(config(tiny_bert, index=uri)) as asked:
        assert list(ask(asked, "notes", query=words()[0])["results"][0]["systems"]) == ["bm25"]
    assert "notes is searched by words alone: prompt 'toy/shared'" in caplog.text
    other = save_model(tmp_path / "other", seed=1)
    with pytest.raises(OtherEncoderError, match="--backbone"), client(config(other, index=uri)):
        pass
    Index.open(uri).close()  # nobody holds it


def test_an_index_is_searched_with_the_prompts_that_fit(tiny_bert: Path, bank: Path, tmp_path: Path) -> None:
    offline = load_encoder(str(tiny_bert), bank=bank, device="cpu")
    uri = str(tmp_path / "notes.db")
    with Index.open(uri, "toy", create=True) as index:
        for domain, route in (("toy/untied", "toy/untied"), ("toy/query", None), ("toy/shared", None)):
            index.build(offline, domain, with_metadata(domain).documents(), route=route, quiet=True)
    with client(config(tiny_bert, bank, index=uri, index_collection="toy", collections=("toy/alone",))) as asked:
        domains = {entry["name"]: entry for entry in asked.get("/domains").json()["domains"]}
        assert domains["toy/untied"]["systems"] == ["prompt", "bm25"]  # its documents are the prompt's
        assert domains["toy/query"]["systems"] == ["base", "prompt", "bm25"]  # a query-side prompt works on base's
        assert domains["toy/shared"]["systems"] == ["base", "bm25"]
        assert domains["toy/alone"]["systems"] == ["base", "bm25"]
        assert domains["toy/untied"]["documents"] == 60
        query = words()[2]
        for domain, system, route in (("toy/untied", "prompt", "toy/untied"), ("toy/query", "base", None)):
            found = ask(asked, domain, query=query, systems=[system])["results"][0]["systems"][system]
            with routed(offline, route):
                own = search(offline, with_metadata(domain), [query], k=10)[0]
            assert [hit["doc_id"] for hit in found] == [hit.doc_id for hit in own]
            np.testing.assert_allclose([hit["score"] for hit in found], [hit.score for hit in own], atol=1e-4)
            assert [hit["rank"] for hit in found] == list(range(1, 11))
        odd = ask(asked, "toy/query", query=query, systems=["base"], k=60, where={"kind": "odd"})
        assert len(odd["results"][0]["systems"]["base"]) == 20
        both = ask(asked, "toy/query", query=query, systems=["base"], k=60, where={"kind": ['"', "odd", "even"]})
        assert len(both["results"][0]["systems"]["base"]) == 40

        with Index.open(uri, "toy") as index:  # as another process may on a server
            index.build(offline, "toy/query", load("toy/query").documents(), "toy/shared", replace_all=True, quiet=True)
        assert ask(asked, "toy/query", 409, query=query)["error"]["code"] == "index_changed"
        assert ask(asked, "toy/query", query=query, systems=["bm25"])
        assert asked.post("/admin/reload").status_code == 200
        assert list(ask(asked, "toy/query", query=query)["results"][0]["systems"]) == ["bm25"]
