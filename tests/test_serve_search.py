"""`/search`, `/domains`, `/bank` and the pages, over collections in memory and over an index."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("prometheus_client", reason="the extra serve is not installed")

import serve_bank
from sentence_transformers import SentenceTransformer
from serve_bank import SPECS, ask, client, config, load, save, save_bank, with_metadata
from starlette.testclient import TestClient
from tiny import words

import foreword
from foreword.collections.collection import MemoryCollection, Query
from foreword.evaluation.hybrid import HybridSearch
from foreword.prompts.encoder import routed
from foreword.prompts.loading import load_encoder
from foreword.prompts.store import load_bank
from foreword.retrieval.search import search
from foreword.serving.service import Service
from foreword.transferring.reach import bank_features

COLLECTIONS = ("toy/untied", "toy/query", "toy/alone")


@pytest.fixture(scope="module")
def bank(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bank(tmp_path_factory.mktemp("bank") / "bank", load_encoder(str(tiny_bert), device="cpu"))


@pytest.fixture(scope="module")
def service(tiny_bert: Path, bank: Path) -> Iterator[TestClient]:
    with client(config(tiny_bert, bank, collections=COLLECTIONS, max_k=70)) as asked:
        yield asked


# -- hits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("domain", ["toy/untied", "toy/query"])
def test_hits_are_those_of_offline_search(service: TestClient, tiny_bert: Path, bank: Path, domain: str) -> None:
    offline = load_encoder(str(tiny_bert), bank=bank, device="cpu")
    collection = load(domain)
    queries = [query.text for query in collection.queries("test")][:5]
    answer = ask(service, domain, queries=queries, k=7)
    assert (answer["domain"], answer["k"]) == (domain, 7)
    assert [result["query"] for result in answer["results"]] == queries
    with routed(offline, None):
        base = search(offline, collection, queries, k=7)
    with routed(offline, domain):
        prompt = search(offline, collection, queries, k=7)
        both = HybridSearch(offline, collection)
        asked = [Query(str(number), text) for number, text in enumerate(queries)]
        joined = [both.run(asked, 7)[query.query_id] for query in asked]
    expected = {"base": base, "prompt": prompt, "bm25": search(None, collection, queries, k=7)}
    of_domain = next(one for one in service.get("/domains").json()["domains"] if one["name"] == domain)
    assert of_domain["hybrid"] == both.weight.as_dict()
    for number, result in enumerate(answer["results"]):
        assert list(result["systems"]) == ["base", "prompt", "bm25", "hybrid"]
        hybrid = result["systems"].pop("hybrid")  # of the prompt and BM25
        assert {hit["doc_id"]: hit["score"] for hit in hybrid} == pytest.approx(joined[number], abs=1e-4)
        for system, hits in result["systems"].items():
            own = expected[system][number]
            assert [hit["doc_id"] for hit in hits] == [hit.doc_id for hit in own]
            assert [hit["rank"] for hit in hits] == list(range(1, len(own) + 1))
            np.testing.assert_allclose([hit["score"] for hit in hits], [hit.score for hit in own], atol=1e-4, rtol=1e-4)
            assert [hit["text"] for hit in hits] == [hit.document.text for hit in own]


def test_only_the_systems_asked_for(service: TestClient) -> None:
    answer = ask(service, "toy/alone", query=words()[0], systems=["bm25"], k=1)
    assert list(answer["results"][0]["systems"]) == ["bm25"]
    assert answer["milliseconds"] > 0


def test_a_filter_by_metadata(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_bank, "load", with_metadata)
    with client(config(tiny_bert, collections=("toy/kinds",))) as asked:
        for where, expected in (
            ({"kind": "odd"}, 20),
            ({"kind": ["odd", "even"]}, 40),
            ({"kind": "odd", "n": "5"}, 1),
            ({"kind": "none"}, 0),
            (None, 60),
        ):
            found = ask(asked, "toy/kinds", query="anything", systems=["base"], k=60, where=where)
            hits = found["results"][0]["systems"]["base"]
            assert len(hits) == expected
            assert not where or all(hit["metadata"]["kind"] in where["kind"] for hit in hits)
            assert all(hit["title"].startswith("T") for hit in hits)
        text = next(iter(with_metadata("toy/kinds").documents())).text
        everything = ask(asked, "toy/kinds", query=text, systems=["bm25"], k=60)
        only = ask(asked, "toy/kinds", query=text, systems=["bm25"], k=60, where={"kind": "odd"})
        kept = [h["doc_id"] for h in everything["results"][0]["systems"]["bm25"] if h["metadata"].get("kind") == "odd"]
        assert [hit["doc_id"] for hit in only["results"][0]["systems"]["bm25"]] == kept
        both = ask(asked, "toy/kinds", query=text, systems=["hybrid"], k=60, where={"kind": "odd"})
        assert len(both["results"][0]["systems"]["hybrid"]) == 20
        for bad in ({"kind": {"$gt": 1}}, {"kind": []}):
            assert ask(asked, "toy/kinds", 422, query="a", where=bad)["error"]["param"] == "where"


def test_labels_are_written_where_that_is_asked_for(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    for name in ("a.md", "b.md"):
        (notes / name).write_text(f"# {name}\nwords of {name}\n")
    monkeypatch.setattr(serve_bank, "load", foreword.load)
    domain = f"folder:{notes}"
    for allowed in (False, True):
        with client(config(tiny_bert, collections=(domain,), labels=allowed)) as asked:
            (told,) = asked.get("/domains").json()["domains"]
            body = {"domain": domain, "query": "  what\tis\n it ", "file": "b.md", "grade": 1}
            answer = asked.post("/labels", json=body)
            assert (told["labels"], answer.status_code) == (allowed, 200 if allowed else 404), answer.text
            if not allowed:
                assert not (notes / "labels.tsv").exists()
                continue
            assert answer.json() == {"labels": {"b.md": 1}}
            for file, status in (("../x.md", 404), ("labels.tsv", 404), ("c.md", 404), ("a.md", 200)):
                assert asked.post("/labels", json={**body, "file": file, "grade": 0}).status_code == status
            assert asked.post("/labels", json={**body, "grade": 2}).status_code == 422
            assert asked.post("/labels", json={**body, "query": " "}).status_code == 422
            assert asked.post("/labels", json={"domain": domain, "query": "what is it"}).json()["labels"] == {
                "b.md": 1,
                "a.md": 0,
            }
            refused = asked.post(
                "/labels", json=body, headers={"Sec-Fetch-Site": "cross-site", "Origin": "http://evil"}
            )
            assert refused.status_code == 403
            kept = (notes / "labels.tsv").read_text()
            assert kept == "what is it\tb.md\nwhat is it\ta.md\t0\n"
            (notes / "labels.tsv").write_text(f"what is it\n\n{kept}")  # by hand: no label
            answer = asked.post("/labels", json={**body, "grade": 0})
            assert answer.status_code == 200
            assert (notes / "labels.tsv").read_text().startswith("what is it\n\nwhat is it\ta.md\t0\n")


def test_long_documents_are_answered_by_the_passage_that_was_found(
    tiny_bert: Path, bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def long(name: str) -> MemoryCollection:
        plain = with_metadata(name)
        return replace(
            plain, corpus=tuple(replace(d, text=" ".join([d.text] * (1 + n % 5))) for n, d in enumerate(plain.corpus))
        )

    monkeypatch.setattr(serve_bank, "load", long)
    collection, domain = long("toy/untied"), "toy/untied"
    texts = {document.doc_id: document.text for document in collection.documents()}
    queries = [query.text for query in collection.queries("test")][:3]
    offline = load_encoder(str(tiny_bert), bank=bank, device="cpu")
    with client(config(tiny_bert, bank, collections=(domain,))) as asked:
        answer = ask(asked, domain, queries=queries, k=60)
        odd = ask(asked, domain, queries=queries, k=60, systems=["base"], where={"kind": "odd"})
    for system, route in (("base", None), ("prompt", domain)):
        with routed(offline, route):
            wanted = search(offline, collection, queries, k=60)
        for result, own in zip(answer["results"], wanted, strict=True):
            hits = result["systems"][system]
            assert [hit["doc_id"] for hit in hits] == [hit.doc_id for hit in own]
            assert [hit["passage"] for hit in hits] == [hit.passage and hit.passage.place for hit in own]
            assert len({hit["passage"] is None for hit in hits}) == 2
            for hit in hits:
                start, end = (
                    (hit["passage"] or {"start": 0, "end": None}).get("start"),
                    (hit["passage"] or {}).get("end"),
                )
                assert hit["text"] == texts[hit["doc_id"]][start:end]
    for result, filtered in zip(answer["results"], odd["results"], strict=True):
        kept = [hit for hit in result["systems"]["base"] if hit["metadata"].get("kind") == "odd"]
        assert [(h["doc_id"], h["passage"]) for h in filtered["systems"]["base"]] == [
            (h["doc_id"], h["passage"]) for h in kept
        ]
        passages = {hit["doc_id"]: hit["passage"] for hit in result["systems"]["prompt"]}
        assert all(hit["passage"] in (None, passages[hit["doc_id"]]) for hit in result["systems"]["hybrid"])
        assert all(hit["passage"] is None and hit["text"] == texts[hit["doc_id"]] for hit in result["systems"]["bm25"])
    with client(config(tiny_bert, collections=(domain,), passages=False)) as asked:
        whole = ask(asked, domain, queries=queries, k=60, systems=["base"])
    assert all(hit["passage"] is None for result in whole["results"] for hit in result["systems"]["base"])


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"domain": "toy/alone"}, 422, "query"),
        ({"domain": "toy/alone", "query": "a", "queries": ["b"]}, 422, "query"),
        ({"domain": "toy/alone", "query": "  "}, 422, "query"),
        ({"domain": "toy/alone", "queries": []}, 422, "queries"),
        ({"domain": "toy/alone", "query": "a", "k": 0}, 422, "k"),
        ({"domain": "toy/alone", "query": "a", "k": 71}, 422, "k"),
        ({"domain": "toy/alone", "query": "a", "systems": ["prompt"]}, 422, "systems"),
        ({"domain": "toy/alone", "query": "a", "systems": []}, 422, "systems"),
        ({"domain": "toy/alone", "query": "a", "wheres": {}}, 422, "wheres"),
        ({"domain": "toy/shared", "query": "a"}, 404, "domain"),
        ({"domain": "nothing", "query": "a"}, 404, "domain"),
    ],
)
def test_refusals_name_the_field(service: TestClient, body: dict[str, Any], status: int, param: str) -> None:
    answer = service.post("/search", json=body)
    assert answer.status_code == status
    assert answer.json()["error"]["param"] == param


def test_an_answer_has_so_many_hits_at_most(service: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foreword.serving.api.MOST_HITS", 4 * 2 * 10)
    ask(service, "toy/untied", queries=["a", "b"], k=10)
    assert ask(service, "toy/untied", 422, queries=["a", "b"], k=11)["error"]["code"] == "too_many_hits"


# -- what is there ---------------------------------------------------------------------------------------------------


def test_domains_say_what_they_have(service: TestClient, bank: Path) -> None:
    answer = service.get("/domains").json()
    assert set(answer["backbone"]) == {"name", "fingerprint"}
    domains = {entry["name"]: entry for entry in answer["domains"]}
    assert list(domains)[:3] == list(COLLECTIONS)
    assert domains["toy/alone"]["prompt"] is None
    assert domains["toy/alone"]["systems"] == ["base", "bm25", "hybrid"]
    assert (domains["toy/alone"]["documents"], domains["toy/alone"]["searchable"]) == (60, True)
    untied = domains["toy/untied"]
    assert untied["systems"] == ["base", "prompt", "bm25", "hybrid"]
    card = json.loads((bank / "toy-untied" / "prompt.json").read_text())
    shown = {key: untied["prompt"][key] for key in ("kind", "length", "sides", "parameters", "bytes", "fingerprint")}
    assert shown == {
        "kind": "memory",
        "length": 3,
        "sides": "untied",
        "parameters": card["parameters"],
        "bytes": card["bytes"],
        "fingerprint": card["digest"],
    }
    assert untied["prompt"]["trained_on"] == []
    assert domains["toy/mixed"]["prompt"]["mixture"] is True
    assert (domains["toy/mixed"]["searchable"], domains["toy/mixed"]["documents"]) == (False, None)


def test_another_domains_prompt_can_search_a_collection(tiny_bert: Path, bank: Path) -> None:
    settings = config(tiny_bert, bank, collections=("toy/alone",), use={"toy/alone": "toy/mixed"})
    with client(settings) as asked:
        found = {entry["name"]: entry for entry in asked.get("/domains").json()["domains"]}["toy/alone"]
        assert found["prompt"]["name"] == "toy/mixed"
        by = ask(asked, "toy/alone", query=words()[0])["results"][0]["systems"]
        assert by["base"] != by["prompt"]


def test_the_documents_are_embedded_again_when_their_prompt_is_swapped(
    tiny_bert: Path, tmp_path: Path, encoder: SentenceTransformer
) -> None:
    bank = save(tmp_path / "bank", encoder, "toy/a", SPECS["toy/untied"], 1).parent
    with client(config(tiny_bert, bank, collections=("toy/a",))) as asked:
        query = words()[1]
        before = ask(asked, "toy/a", query=query)["results"][0]["systems"]
        save(bank, encoder, "toy/a", SPECS["toy/untied"], 2)
        assert asked.post("/admin/reload").json()["changed"] == ["toy/a"]
        after = ask(asked, "toy/a", query=query)["results"][0]["systems"]
        same = [(hit["doc_id"], pytest.approx(hit["score"], abs=1e-6)) for hit in before["base"]]
        assert [(hit["doc_id"], hit["score"]) for hit in after["base"]] == same  # sums depend on what shares a pass
        fresh = load_encoder(str(tiny_bert), prompt=bank / "toy-a", device="cpu")
        assert [hit["doc_id"] for hit in after["prompt"]] == [
            hit.doc_id for hit in search(fresh, load("toy/a"), [query], k=10)[0]
        ]
        held = asked.app.state.service.held["toy/a"]  # type: ignore[attr-defined]
        assert len(held.vectors) == 2


def test_a_search_that_has_begun_finds_by_the_documents_it_began_with(
    tiny_bert: Path, tmp_path: Path, encoder: SentenceTransformer
) -> None:
    bank = save(tmp_path / "bank", encoder, "toy/a", SPECS["toy/untied"], 1).parent
    old, query = load_encoder(str(tiny_bert), prompt=bank / "toy-a", device="cpu"), words()[1]

    async def run() -> list[str]:
        service = Service(config(tiny_bert, bank, collections=("toy/a",)), load=load)
        await service.start()
        try:
            async with service.keep() as state:
                save(bank, encoder, "toy/a", SPECS["toy/untied"], 2)
                assert (await service.reload())["changed"] == ["toy/a"]
                searcher = state.searcher("toy/a")
                assert searcher is not None
                hits = await service.in_thread(lambda: searcher.search([query], "toy/a", "prompt", 10, None))
        finally:
            await service.stop()
        return [hit.doc_id for hit in hits[0]]

    assert asyncio.run(run()) == [hit.doc_id for hit in search(old, load("toy/a"), [query], k=10)[0]]


def test_the_banks_figures_come_from_its_files(tiny_bert: Path, tmp_path: Path, encoder: SentenceTransformer) -> None:
    bank = tmp_path / "bank"
    for seed, name in enumerate(("toy/input", "toy/b", "toy/c")):
        save(bank, encoder, name, SPECS.get(name, SPECS["toy/shared"]), seed)
    with client(config(tiny_bert, bank)) as asked:
        plain = asked.get("/bank").json()
    assert set(plain) == {"names", "similarity", "transfer", "figures", "words"}
    assert (plain["similarity"], plain["transfer"], plain["figures"]) == (None, None, [])
    assert sorted(plain["names"]) == ["toy/b", "toy/c", "toy/input"]
    assert list(plain["words"]) == ["toy/input"]
    scores = [score for _, score in plain["words"]["toy/input"]]
    assert scores == sorted(scores, reverse=True)
    assert all(isinstance(word, str) for word, _ in plain["words"]["toy/input"])

    names = ["toy/b", "toy/c", "toy/input"]
    features = bank_features(bank, encoder, names, load, quiet=True).features
    assert sorted(load_bank(bank)) == names
    rows = [
        {"collection": target, "system": system, "measures": {"nDCG@10": value, "R@100": 1.0}}
        for (system, target), value in {
            ("base", "toy/c"): 0.5,
            ("toy-b", "toy/c"): 0.6,
            ("toy-c", "toy/b"): 0.4,
        }.items()
    ]
    (bank / "evaluation").mkdir()
    (bank / "evaluation" / "group.json").write_text(json.dumps({"format": "foreword-group/1", "rows": rows}))
    with client(config(tiny_bert, bank)) as asked:
        full = asked.get("/bank").json()
    assert full["similarity"]["names"] == names
    means = [features[name].mean(axis=0) for name in names]
    cosine = [[float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for b in means] for a in means]
    np.testing.assert_allclose(full["similarity"]["values"], cosine, atol=1e-5)
    assert full["transfer"] == {
        "sources": ["toy/b", "toy/c"],
        "targets": ["toy/c", "toy/b"],
        "values": [[0.6, None], [None, 0.4]],
        "measure": "nDCG@10",
    }
    assert {"domain": "toy/c", "system": "base", "measure": "R@100", "value": 1.0} in full["figures"]


# -- pages -----------------------------------------------------------------------------------------------------------


def test_pages_ask_for_nothing_from_elsewhere(service: TestClient) -> None:
    health = service.get("/health").json()
    assert set(health) == {"status", "version", "backbone", "uptime_seconds"}
    assert health["status"] == "ok"
    docs = service.get("/docs")
    assert docs.headers["content-type"].startswith("text/html")
    assert "<script" not in docs.text
    assert "http://" not in docs.text.replace("http://www.w3.org", "")
    assert "https://" not in docs.text
    paths = service.get("/openapi.json").json()["paths"]
    assert set(paths) >= {"/v1/embeddings", "/v1/models", "/search", "/domains", "/bank", "/health", "/metrics"}
    assert all(path in docs.text for path in paths)
    page = service.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert service.get("/static/style.css").status_code == 200
    assert service.get("/static/../app.py").status_code == 404


def test_metrics_count_what_was_asked(service: TestClient) -> None:
    ask(service, "toy/query", query="a", systems=["bm25"])
    text = service.get("/metrics").text
    assert 'foreword_searches_total{domain="toy/query",system="bm25"}' in text
    assert 'foreword_requests_total{endpoint="/search",status="200"}' in text
    assert "foreword_queue_texts 0.0" in text
