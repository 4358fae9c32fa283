"""`/search` and `/domains` over a Milvus index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("prometheus_client", reason="the extra serve is not installed")
pytest.importorskip("milvus_lite", reason="the extra index is not installed")

from serve_bank import ask, client, config, load, save, save_bank, with_metadata
from starlette.testclient import TestClient
from tiny import save_model, words

from foreword.collections import load as folder_collection
from foreword.evaluation.hybrid import HybridWeight
from foreword.indexing import Index, OtherEncoderError
from foreword.prompts.encoder import routed
from foreword.prompts.loading import load_encoder
from foreword.prompts.spec import PromptSpec
from foreword.retrieval.runs import min_max
from foreword.retrieval.search import search
from foreword.serving.app import create_app
from foreword.serving.config import key_of_value


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
        assert domains["toy/untied"]["systems"] == ["prompt", "bm25", "hybrid"]  # its documents are the prompt's
        assert domains["toy/query"]["systems"] == [
            "base",
            "prompt",
            "bm25",
            "hybrid",
        ]  # a query-side prompt works on base's
        assert domains["toy/shared"]["systems"] == ["base", "bm25", "hybrid"]
        assert domains["toy/alone"]["systems"] == ["base", "bm25", "hybrid"]
        assert domains["toy/shared"]["hybrid"] == HybridWeight().as_dict()  # `weigh` was not asked
        assert domains["toy/untied"]["documents"] == 60
        query = words()[2]
        for domain, system, route in (("toy/untied", "prompt", "toy/untied"), ("toy/query", "base", None)):
            found = ask(asked, domain, query=query, systems=[system])["results"][0]["systems"][system]
            with routed(offline, route):
                own = search(offline, with_metadata(domain), [query], k=10)[0]
            assert [hit["doc_id"] for hit in found] == [hit.doc_id for hit in own]
            np.testing.assert_allclose([hit["score"] for hit in found], [hit.score for hit in own], atol=1e-4)
            assert [hit["rank"] for hit in found] == list(range(1, 11))
        (found,) = ask(asked, "toy/query", query=query, systems=["hybrid"], k=60)["results"]
        dense, lexical = (
            ask(asked, "toy/query", query=query, systems=[name], k=60)["results"][0]["systems"][name]
            for name in ("prompt", "bm25")
        )
        runs = [{"q": {hit["doc_id"]: hit["score"] for hit in hits}} for hits in (dense, lexical)]
        expected = min_max(runs, [0.8, 0.2])["q"]
        assert {hit["doc_id"]: hit["score"] for hit in found["systems"]["hybrid"]} == pytest.approx(expected, abs=1e-5)
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


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of notes, by the name `my-notes` from here; beside what is no document, a link out of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOREWORD_CACHE", "")
    folder = tmp_path / "my-notes"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.md").write_text(f"# First\n{words()[0]}")
    (folder / "sub/b c.html").write_text(f"<script>steal()</script><p>{words()[1]}</p>")
    for name in (".secret.md", "labels.tsv", "picture.png"):
        (folder / name).write_text("")
    (tmp_path / "outside.md").write_text("not shown")
    (folder / "link.md").symlink_to(tmp_path / "outside.md")
    return folder


def test_a_prompt_searches_the_documents_of_its_folder(
    tiny_bert: Path, notes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the index calls the domain; a prompt of another folder's searches it where it is told to."""
    encoder = load_encoder(str(tiny_bert), device="cpu")
    spec = PromptSpec(length=3, sides="query")
    own = save(notes.parent / "own", encoder, "folder:my-notes", spec)
    other = save(notes.parent / "other", encoder, "folder:my-collection", spec, seed=1)
    with Index.open("notes.db", create=True) as index:
        index.build(encoder, "n", folder_collection("my-notes").documents(), quiet=True, folder=str(notes))
    with client(config(tiny_bert, index="notes.db", prompts=(own,))) as asked:
        (domain,) = [one for one in asked.get("/domains").json()["domains"] if one["searchable"]]
        assert (domain["name"], domain["systems"][:2]) == ("n", ["base", "prompt"])
        assert domain["prompt"]["name"] == "folder:my-notes"
    assert "no prompt searches" not in caplog.text
    with client(config(tiny_bert, index="notes.db", prompts=(other,))):
        pass
    assert "no prompt searches n, and that of folder:my-collection searches nothing" in caplog.text
    assert "--use 'n=folder:my-collection' lets it" in caplog.text
    with client(config(tiny_bert, index="notes.db", prompts=(other,), use={"n": "folder:my-collection"})) as asked:
        assert "prompt" in ask(asked, "n", query="x")["results"][0]["systems"]
    with Index.open("notes.db") as index:  # other files come in, so that a path is no longer one file's
        index.add(encoder, "n", load("more").documents(), quiet=True)
        assert index.info("n").folder == ""
        index.update(encoder, "n", folder_collection("my-notes").documents(), quiet=True, folder=str(notes))
        assert index.info("n").folder == str(notes)


@pytest.mark.parametrize("indexed", [False, True])
def test_a_hits_file_is_given_and_no_other(tiny_bert: Path, notes: Path, indexed: bool) -> None:
    chosen = config(tiny_bert, collections=("folder:my-notes",))
    if indexed:
        chosen = config(tiny_bert, index="notes.db")
        with Index.open("notes.db", create=True) as index:
            encoder = load_encoder(str(tiny_bert), device="cpu")
            found = folder_collection("my-notes")
            index.build(encoder, "folder:my-notes", found.documents(), quiet=True, folder=str(notes))
    with TestClient(create_app(chosen), base_url="http://localhost") as asked:
        (domain,) = asked.get("/domains").json()["domains"]
        assert domain["files"]
        hits = ask(asked, "folder:my-notes", query=words()[0])["results"][0]["systems"]["base"]
        files = {hit["metadata"]["file"]: hit["doc_id"] for hit in hits}
        assert files == {"a.md": "a.md", "sub/b c.html": "sub/b_c.html", "link.md": "link.md"}

        def get(file: str, domain: str = "folder:my-notes", **headers: str) -> Any:
            return asked.get("/file", params={"domain": domain, "file": file}, headers=headers)

        text, page = get("a.md"), get("sub/b c.html")
        assert (text.text, text.headers["content-type"]) == ((notes / "a.md").read_text(), "text/plain; charset=utf-8")
        assert page.content == (notes / "sub/b c.html").read_bytes()
        for answer in (text, page):
            assert "sandbox; default-src 'none'" in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
        outside = ("../outside.md", "sub/../../outside.md", str(notes.parent / "outside.md"), "link.md")
        for name in (*outside, ".secret.md", "labels.tsv", "picture.png", "sub", "", "a.md\0", "sub/../a.md"):
            assert get(name).status_code == 404, name
        assert get("a.md", "other").status_code == 404
        assert get("a.md", **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
        assert "sandbox" not in asked.get("/domains").headers["content-security-policy"]


def test_with_keys_a_file_is_for_those_of_its_domain(tiny_bert: Path, notes: Path) -> None:
    keys = tuple(key_of_value(name, name * 40, domains=(name,)) for name in ("a", "folder:my-notes"))
    with TestClient(create_app(config(tiny_bert, collections=("folder:my-notes",), keys=keys))) as asked:
        where = {"domain": "folder:my-notes", "file": "a.md"}
        for key, status in (("a", 403), ("folder:my-notes", 200)):
            told = asked.get("/file", params=where, headers={"Authorization": f"Bearer {key * 40}"})
            assert told.status_code == status
        assert asked.get("/file", params=where).status_code == 401
        (domain,) = asked.get("/domains", headers={"Authorization": f"Bearer {'folder:my-notes' * 40}"}).json()[
            "domains"
        ]
        assert not domain["files"]  # a link of the page's would bear no key
