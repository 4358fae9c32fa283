"""What a stranger may try: long texts, many requests, other keys' names, broken messages, pages of other sites."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("prometheus_client", reason="the extra serve is not installed")

from sentence_transformers import SentenceTransformer
from serve_bank import SPECS, client, config, listening, load, save, save_bank
from starlette.testclient import TestClient

from foreword.errors import DataError
from foreword.prompts.encoder import encode
from foreword.prompts.loading import load_encoder
from foreword.serving.api import bank_view
from foreword.serving.app import server_settings
from foreword.serving.batcher import BLOCK, CHARACTERS, Batcher, Row, Tokens
from foreword.serving.config import key_of_value
from foreword.serving.prompts import Way
from foreword.serving.search import MemorySearcher
from foreword.transferring.reach import bank_features

ONE, ALL = "key-of-domain-one-0", "key-of-everything-0"
KEYS = (key_of_value("one", ONE, ["toy/one"]), key_of_value("all", ALL, admin=True))


def bearer(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def service(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    bank, encoder = tmp_path_factory.mktemp("bank"), load_encoder(str(tiny_bert), device="cpu")
    for seed, name in enumerate(("toy/one", "toy/two")):
        save(bank, encoder, name, SPECS["toy/input"], seed)
    settings = config(tiny_bert, bank, keys=KEYS, collections=("toy/one", "toy/two"), queue_searches=2)
    with client(settings) as asked:
        asked.headers.update(bearer(ALL))
        yield asked


# -- one long text, many requests ------------------------------------------------------------------------------------


def test_of_a_long_text_no_more_is_read_than_it_needs(
    service: TestClient, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    own = Tokens._tokenized

    def counting(self: Tokens, texts: Sequence[str]) -> Any:
        read.append(sum(map(len, texts)))
        return own(self, texts)

    monkeypatch.setattr(Tokens, "_tokenized", counting)
    bank = service.app.state.service.config.bank  # type: ignore[attr-defined]
    offline = load_encoder(str(tiny_bert), bank=bank, device="cpu")
    for unit in ("a ", "bana ", "中", "e\u0301 ", "ab.", "x" * 101 + " ", "b" * 90 + " "):
        text = unit * (2**17 // len(unit))
        answer = service.post("/v1/embeddings", json={"model": "base", "input": text}).json()
        expected = encode(offline, [text], "query", route=None)
        np.testing.assert_allclose([answer["data"][0]["embedding"]], expected, atol=1e-4)
        assert answer["usage"]["total_tokens"] == 46  # of 48 positions the prompts take two
    assert max(read) < 20_000
    read.clear()
    for sparse in (" " * 2**17, "a" * 2**17, "a" + "\u0301" * 2**17):
        refused = service.post("/v1/embeddings", json={"model": "base", "input": ["a", sparse]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "text_too_long")
    assert max(read) <= 100_000
    searched = service.post("/search", json={"domain": "toy/one", "query": "a " * 2**17})
    assert (searched.status_code, searched.json()["error"]["code"]) == (422, "text_too_long")


def test_long_requests_are_tokenised_in_turns(tiny_bert: Path) -> None:
    tokens = Tokens(load_encoder(str(tiny_bert), device="cpu"))
    texts = [f"{'ab ' * 10_000}{n}" for n in range(200)] + ["a"] * 3
    blocks = list(tokens.blocks(texts))
    assert [text for block in blocks for text in block] == texts
    assert len(blocks) > 1
    assert all(sum(len(row.text) for row in tokens.rows(block, Way("query"))) <= BLOCK for block in blocks)
    short = ["a"] * 5
    assert list(tokens.blocks(short)) == [short]


def test_a_pass_reads_so_many_characters_at_most() -> None:
    seen: list[int] = []

    def passing(rows: Sequence[Row]) -> Any:
        seen.append(len(rows))
        return np.zeros((len(rows), 1))

    async def run() -> None:
        made = Batcher(passing, tokens=8192, texts=64, wait_seconds=0.0, queue_texts=100)
        made.start()
        await made.submit([Row("a" * (CHARACTERS // 3), 3, Way("query"))] * 5)
        await made.close()

    asyncio.run(run())
    assert seen == [3, 2]


def test_searches_by_words_have_a_queue(service: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    going, entered = threading.Event(), threading.Semaphore(0)
    own = MemorySearcher.search

    def slow(self: MemorySearcher, *asked: Any) -> Any:
        entered.release()
        assert going.wait(20)
        return own(self, *asked)

    monkeypatch.setattr(MemorySearcher, "search", slow)
    body = {"domain": "toy/one", "query": "a", "systems": ["bm25"]}
    with ThreadPoolExecutor(2) as pool:
        begun = [pool.submit(service.post, "/search", json=body) for _ in range(2)]
        for _ in begun:
            assert entered.acquire(timeout=20)
        refused = service.post("/search", json=body)
        going.set()
        assert [one.result().status_code for one in begun] == [200, 200]
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["error"]["code"] == "queue_full"
    assert service.post("/search", json=body).status_code == 200


# -- slow senders, and too many of them ------------------------------------------------------------------------------


def raw(address: str, *parts: bytes, wait: bool = True) -> bytes:
    """What comes back on a connection, until the other side ends it."""
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), 20) as connection:
        for part in parts:
            connection.sendall(part)
        found = b""
        while wait and (part := connection.recv(65536)):
            found += part
        return found


POST = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def status(answer: bytes) -> tuple[int, str]:
    """The status, and the error's code."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


def test_slow_senders_do_not_stay(tiny_bert: Path) -> None:
    with listening(config(tiny_bert, read_seconds=0.3, max_body_bytes=1000)) as address:
        for begun in (b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: "):
            assert raw(address, begun) == b""
        for half in (b"Content-Length: 50\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"):
            answer = raw(address, POST + half)
            assert status(answer) == (408, "request_timeout")
        # the rest of a body that was refused does not come either
        assert status(raw(address, POST + b"Content-Length: 2000\r\n\r\n{")) == (413, "request_too_large")
        # nor does a second request on the same connection
        assert raw(address, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he").count(b"HTTP/1.1 200") == 1
        # one that takes its time, but not too much of it, is answered
        body = b'{"model": "base", "input": "a"}'
        head = POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        assert raw(address, head, body[:9], body[9:]).startswith(b"HTTP/1.1 200")


def test_there_are_so_many_connections_at_most(tiny_bert: Path) -> None:
    ask = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with listening(config(tiny_bert, max_connections=2)) as address:
        place = ("127.0.0.1", int(address.rpartition(":")[2]))
        with socket.create_connection(place) as one, socket.create_connection(place) as two:
            for each in (one, two):  # they are known of when they are answered
                each.sendall(ask.replace(b"Connection: close\r\n", b""))
                assert each.recv(65536).startswith(b"HTTP/1.1 200")
            answer = raw(address, ask)
            assert status(answer) == (503, "queue_full")
            assert b"\r\nRetry-After: 1\r\n" in answer
        while not raw(address, ask).startswith(b"HTTP/1.1 200"):
            pass


def test_who_sends_too_much_can_read_why(tiny_bert: Path) -> None:
    body = b"a" * 2**24
    with listening(config(tiny_bert, max_body_bytes=1000, read_seconds=5)) as address:
        announced = b"Content-Length: %d\r\n\r\n" % len(body)
        chunks = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body)
        for head, rest in ((announced, body), (chunks, body + b"\r\n0\r\n\r\n")):
            answer = raw(address, POST + b"Connection: close\r\n" + head, rest)
            assert status(answer) == (413, "request_too_large")


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"hello\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 2**20 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http_is_said_to_be_none(tiny_bert: Path, listener: str, sent: bytes) -> None:
    assert status(raw(listener, sent)) == (400, "invalid_http")


@pytest.fixture(scope="module")
def listener(tiny_bert: Path) -> Iterator[str]:
    with listening(config(tiny_bert, read_seconds=1.0)) as address:
        yield address


# -- what a key may know ---------------------------------------------------------------------------------------------

LIMITED = "key-of-an-admin-of-one"
SLOW = bool(os.environ.get("FOREWORD_SLOW"))
OTHERS = "secret"
"""In the name of all that is not of `toy/one`."""

NAMED = (
    f"toy/{OTHERS}",
    f"toy/{OTHERS}:query",
    f"toy-{OTHERS}",
    "toy/on",
    "toy/one:document:query",
    "",
    "*",
    "nothing",
)
ASKED: list[tuple[str, str, Any]] = [
    *[("GET", path, None) for path in ("/", "/health", "/docs", "/openapi.json", "/static/app.js", "/favicon.ico")],
    *[("GET", path, None) for path in ("/v1/models", "/domains", "/bank", "/metrics", "/nowhere", "/domains/")],
    *[("GET", f"/v1/models/{name}", None) for name in ("toy/one", "base", *NAMED)],
    *[("GET", f"/file?domain={name}&file=notes.md", None) for name in ("toy/one", f"toy/{OTHERS}", "nothing")],
    ("POST", "/admin/reload", None),
    *[("POST", "/v1/embeddings", {"model": name, "input": "a"}) for name in ("toy/one", "toy/one:query", *NAMED)],
    ("POST", "/v1/embeddings", {"model": "toy/none", "input": "a"}),  # its own, and not there
    ("POST", "/v1/embeddings", {"model": "toy/one:query", "input": "a", "input_type": "document"}),
    ("POST", "/v1/embeddings", {"model": "toy/one:query", "input": []}),
    ("POST", "/v1/embeddings", {}),
    *[("POST", "/search", {"domain": name, "query": "a"}) for name in ("toy/one", "toy/none", "base", *NAMED)],
    ("POST", "/search", {"domain": "toy/one", "query": "a", "systems": ["none"]}),
    ("POST", "/search", {"domain": "toy/one", "query": "a", "where": {"domain": f"toy/{OTHERS}"[:3]}}),
    ("POST", "/search", {}),
    *[("POST", "/labels", {"domain": name, "query": "a"}) for name in ("toy/one", "toy/none", *NAMED)],
    *[(method, path, None) for method in ("DELETE", "OPTIONS", "HEAD") for path in ("/domains", "/search", "/bank")],
]
"""Every route, by what a stranger may ask of it."""


@pytest.fixture(scope="module")
def shared(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Two domains that know of each other in every file there is."""
    bank, encoder = tmp_path_factory.mktemp("bank"), load_encoder(str(tiny_bert), device="cpu")
    names = ["toy/one", f"toy/{OTHERS}"]
    trained = {"data": {name: {} for name in names}, "supervision": {name: {"method": "train"} for name in names}}
    for seed, name in enumerate(names):
        save(bank, encoder, name, SPECS["toy/input"], seed, record=trained)
    bank_features(bank, encoder, names, load, quiet=True)
    rows = [
        {"collection": name, "system": system, "measures": {"nDCG@10": 0.5}}
        for name in names
        for system in ("base", "toy-one", f"toy-{OTHERS}", f"gone-{OTHERS}")
    ]
    (bank / "evaluation").mkdir()
    (bank / "evaluation" / "group.json").write_text(json.dumps({"format": "foreword-group/1", "rows": rows}))
    own = ("toy/one", "toy/none")
    keys = (*KEYS[1:], key_of_value("one", ONE, own), key_of_value("limited", LIMITED, own, admin=True))
    settings = config(tiny_bert, bank, keys=keys, collections=tuple(names), use={"toy/one": names[1]})
    with client(settings) as asked:
        for name in names:  # so that all is counted
            asked.post("/search", json={"domain": name, "query": "a"}, headers=bearer(ALL))
            asked.post("/v1/embeddings", json={"model": name, "input": "a"}, headers=bearer(ALL))
        yield asked


@pytest.mark.parametrize("key", [None, "a-key-that-is-not-known", ONE, LIMITED])
@pytest.mark.parametrize(("method", "path", "body"), ASKED)
def test_a_key_learns_of_no_domain_but_its_own(
    shared: TestClient, method: str, path: str, body: Any, key: str | None
) -> None:
    def ask(word: str) -> tuple[int, str]:
        """The answer to the same request with this word for the others', as if it had been asked for `OTHERS`."""
        asked, sent = path.replace(OTHERS, word), json.loads(json.dumps(body).replace(OTHERS, word))
        answer = shared.request(method, asked, json=sent, headers=bearer(key))
        changing = ("x-request-id", "etag", "content-length")
        headers = {name: value for name, value in answer.headers.items() if name not in changing}
        text = re.sub(r'(milliseconds|uptime_seconds)":[\d.]+', "", answer.text) if path != "/metrics" else answer.text
        assert answer.status_code < 500
        return answer.status_code, f"{headers} {text}".replace(word, OTHERS)

    status, said = ask(OTHERS)
    if OTHERS not in f"{path} {body}":
        assert OTHERS not in said
    else:  # what is there is as what is not
        assert (status, said) == ask("sesame")


def test_the_list_of_attempts_has_every_route(shared: TestClient) -> None:
    asked = {path.partition("?")[0].replace("toy/one", "{model}") for _, path, _ in ASKED}
    app: Any = shared.app
    assert set(app.openapi()["paths"]) <= asked
    hidden = {getattr(route, "path", "") for route in app.routes} - set(app.openapi()["paths"])
    assert {path for path in hidden if path and path != "/docs/oauth2-redirect"} - {"/static"} <= asked


def test_what_a_key_may_not_know_is_there(shared: TestClient) -> None:
    """The attempts look where there is something to be found; and the key's own is shown to it."""
    for path in ("/v1/models", "/domains", "/bank", "/metrics"):
        assert OTHERS in shared.get(path, headers=bearer(ALL)).text
        assert "toy/one" in shared.get(path, headers=bearer(LIMITED)).text
    domain = shared.get("/domains", headers=bearer(ALL)).json()["domains"][0]
    assert (domain["name"], domain["prompt"]["name"]) == ("toy/one", f"toy/{OTHERS}")
    assert domain["prompt"]["trained_on"] == ["toy/one", f"toy/{OTHERS}"]
    bank = shared.get("/bank", headers=bearer(ONE)).json()
    assert bank["similarity"] == {"names": ["toy/one"], "values": [[pytest.approx(1.0)]]}
    assert {figure["system"] for figure in bank["figures"]} == {"base", "toy-one"}
    assert bank["transfer"]["sources"] == bank["transfer"]["targets"] == ["toy/one"]
    missing = shared.post("/v1/embeddings", json={"model": "toy/none", "input": "a"}, headers=bearer(ONE))
    assert missing.json()["error"]["message"] == "no model 'toy/none'; there are: base, toy/one"


def test_what_is_broken_is_told_to_who_may_know_all(shared: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise DataError(f"toy/{OTHERS} is broken")

    monkeypatch.setattr("foreword.serving.api.bank_view", broken)
    monkeypatch.setattr("foreword.serving.service.read_prompts", broken)
    shared.app.state.service.state = replace(shared.app.state.service.state)  # type: ignore[attr-defined]  # not looked at
    for key, told in ((ALL, True), (ONE, False), (LIMITED, False)):
        answers = [shared.get("/bank", headers=bearer(key))]
        assert answers[0].status_code == 503
        if key != ONE:
            answers.append(shared.post("/admin/reload", headers=bearer(key)))
            assert answers[1].status_code == 400
        assert [OTHERS in answer.text for answer in answers] == [told] * len(answers)


# -- cards of odd types ----------------------------------------------------------------------------------------------

ODD: list[tuple[str, Any]] = [
    *[
        ("domain", name)
        for name in ("", " ", ".", "..", "*", "a\nb", "a\0", "\ud83c", " a", "a:query", "base", "a" * 5000)
    ],
    *[("domain", value) for value in (None, 1, [], {})],
    *[("start", value) for value in (1, [], {"trained_on": [["a", "train"]]}, {"trained_on": {"a": 1}})],
    *[("data", value) for value in (1, "a", ["a"], [[1, 2]])],
    *[("supervision", value) for value in (1, "train", ["train"])],
    *[("metrics", value) for value in (1, [], {"dev": 1}, {"dev": [1]}, {"dev": [{"step": []}]}, {"best_step": []})],
    *[("metrics", value) for value in ({"dev": [{"step": 0, "dev": "a"}], "best_step": 0}, {"dev": [{}]})],
    *[("distilled", value) for value in (1, "a", [1])],
    *[
        ("prompt", value)
        for value in (None, {"kind": 1}, {"kind": "memory", "length": 10**30}, {"length": []}, {"a": 1})
    ],
    *[("backbone", value) for value in (None, [], {}, {"text_prompts": []})],
    *[(name, value) for name in ("bytes", "sha256", "digest") for value in (True, -1, 1.5, [], {})],
    ("format", []),
]


def served_all(asked: TestClient) -> list[Any]:
    """What the pages that show all domains answer; nothing is broken by one of them."""
    answers = [asked.get(path) for path in ("/v1/models", "/domains", "/bank", "/metrics")]
    assert [answer.status_code for answer in answers] == [200] * 4
    return [answer.json() for answer in answers[:3]]


def test_a_card_is_looked_at_as_a_whole_before_it_is_served(
    tiny_bert: Path, tmp_path: Path, encoder: SentenceTransformer
) -> None:
    bank = tmp_path / "bank"
    save(bank, encoder, "toy/good", SPECS["toy/input"], 0)
    card = save(bank, encoder, "toy/odd", SPECS["toy/shared"], 1) / "prompt.json"
    good = json.loads(card.read_text())
    with client(config(tiny_bert, bank)) as asked:
        before = served_all(asked)
        for field, value in ODD:
            card.write_text(json.dumps({**good, "digest": None, field: value}))
            refused = asked.post("/admin/reload")
            assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error"), (
                field,
                value,
            )
            assert "toy-odd" in refused.json()["error"]["message"]
            assert served_all(asked) == before
        card.write_text(
            json.dumps({**good, "domain": "folder:../naïve notes", "metrics": {"dev": None}, "start": None})
        )
        assert asked.post("/admin/reload").json()["added"] == ["folder:../naïve notes"]
        shutil.rmtree(card.parent)  # what is shown is what was read
        assert "folder:../naïve notes" in served_all(asked)[2]["names"]


@pytest.mark.parametrize("row", [{"system": ["a"]}, {"collection": {}}, {"measures": {"nDCG@10": []}}, {"measures": 1}])
def test_figures_of_a_bank_that_are_no_figures_name_their_file(
    tiny_bert: Path, tmp_path: Path, encoder: SentenceTransformer, row: dict[str, Any]
) -> None:
    (tmp_path / "evaluation").mkdir()
    rows = [{"collection": "toy/one", "system": "toy-one", "measures": {"nDCG@10": 0.5}, **row}]
    (tmp_path / "evaluation" / "group.json").write_text(json.dumps({"format": "foreword-group/1", "rows": rows}))
    with pytest.raises(DataError, match=r"group\.json: is not what foreword evaluate writes"):
        bank_view(encoder, {}, tmp_path)


def test_a_mixture_is_looked_at_as_a_whole_before_it_is_served(
    tiny_bert: Path, tmp_path: Path, encoder: SentenceTransformer
) -> None:
    save_bank(tmp_path / "bank", encoder)
    card = tmp_path / "bank" / "mixed" / "mixture.json"
    good = json.loads(card.read_text())
    with client(config(tiny_bert, tmp_path / "bank")) as asked:
        before = served_all(asked)
        odd = [("domain", ".."), ("weights", []), ("weights", {"toy/shared": "a"}), ("weights", {"toy/shared": [[]]})]
        odd += [("document", []), ("document", "toy/none"), ("sources", {"toy/shared": []}), ("sources", "a")]
        for field, value in odd:
            card.write_text(json.dumps({**good, field: value}))
            refused = asked.post("/admin/reload")
            assert refused.status_code == 400, (field, value)
            assert "mixed" in refused.json()["error"]["message"]
            assert served_all(asked) == before


# -- requests in other forms -----------------------------------------------------------------------------------------

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("host", ["[", "]", "[::1", "\u2100", "a@b", "localhost:x", "//", "", "a" * 5000, "local host"])
def test_a_host_that_is_no_address_is_unknown(tiny_bert: Path, plain: TestClient, host: str) -> None:
    answer = plain.get("/domains", headers=[("Host", host.encode())])
    if host == "localhost:x":  # the name is what counts
        assert answer.status_code == 200
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (421, "unknown_host")


@pytest.fixture(scope="module")
def plain(tiny_bert: Path) -> Iterator[TestClient]:
    """A service of this machine, without keys."""
    with client(config(tiny_bert, collections=("toy/one",))) as asked:
        yield asked


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.a.proxy"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Origin": "http://localhost"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:1234"}, False),
        ({"Origin": "http://localhost:1234"}, False),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://["}, False),
    ],
)
def test_without_keys_pages_of_other_sites_are_not_obeyed(
    plain: TestClient, service: TestClient, headers: dict[str, str], allowed: bool
) -> None:
    for method, path in (("POST", "/admin/reload"), ("GET", "/domains"), ("GET", "/metrics")):
        answer = plain.request(method, path, headers=headers)
        assert answer.status_code == (200 if allowed else 403)
        assert allowed or answer.json()["error"]["code"] == "cross_site"
    assert plain.get("/", headers=headers).status_code == 200  # links lead here
    assert service.get("/domains", headers=headers).status_code == 200  # who knows a key is no page


@pytest.mark.parametrize("path", ["/domains/", "/search/", "/v1/models/", "/static"])
def test_nothing_is_redirected(plain: TestClient, path: str) -> None:
    answer = plain.get(path, headers={"Host": "localhost"}, follow_redirects=False)
    assert answer.status_code in (404, 405)
    assert "location" not in answer.headers


def test_who_asks_is_said_by_proxies_that_are_known_alone(tiny_bert: Path) -> None:
    assert server_settings(config(tiny_bert))["proxy_headers"] is False
    known = server_settings(config(tiny_bert, proxies=("10.0.0.0/8",)))
    assert (known["proxy_headers"], known["forwarded_allow_ips"]) == (True, ["10.0.0.0/8"])


def test_null_is_what_clients_send_for_nothing(service: TestClient) -> None:
    nothing = dict.fromkeys(("encoding_format", "dimensions", "user", "input_type", "extra"))
    answers = [
        service.post("/v1/embeddings", json={"model": "base", "input": "a", **more}).json() for more in ({}, nothing)
    ]
    assert answers[0] == answers[1]
    assert isinstance(answers[1]["data"][0]["embedding"], list)


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "a"])
def test_what_the_content_type_should_be_is_said(service: TestClient, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    answer = service.post("/v1/embeddings", content=b'{"model": "base", "input": "a"}', headers=headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, "content_type")
    assert "Content-Type: application/json" in error["message"]
    assert kind is None or repr(kind) in error["message"]


def test_the_documentation_names_every_refusal(service: TestClient) -> None:
    paths = service.get("/openapi.json").json()["paths"]
    for path, methods in paths.items():
        for operation in methods.values():
            assert set(operation["responses"]) >= {"400", "401", "403", "404", "413", "421", "422", "503"}, path


MANY = 300_000


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", b'{"model": "base", "input": [' + b"null," * MANY + b"1]}"),
        ("/v1/embeddings", b'{"model": "base", "input": [' + b"1," * MANY + b'"a"]}'),
        ("/v1/embeddings", b'{"model": "base", "input": [[' + b"1," * MANY + b"null]]}"),
        ("/v1/embeddings", b'{"model": "base", "input": ' + b"[" * MANY + b"]" * MANY + b"}"),
        ("/v1/embeddings", b'{"model": "base", "input": ' + b"9" * 5000 + b"}"),
        ("/v1/embeddings", b'{"model": "base", "input": "a", "dimensions": 1e999}'),
        ("/v1/embeddings", b'{"model": "base", "input": "a", "dimensions": NaN}'),
        ("/v1/embeddings", b'{"model": "\\ud83c", "input": "a"}'),
        ("/v1/embeddings", b'{"model": "base", "input": "\\ud83c"}'),
        ("/v1/embeddings", b'{"model": "base", "input": "a\xff"}'),
        ("/v1/embeddings", b"\xff\xfe"),
        ("/v1/embeddings", b"null"),
        ("/search", b'{"domain": "toy/one", "query": "\\ud83c", "systems": ["bm25"]}'),
        ("/search", b'{"domain": "\\ud83c", "query": "a"}'),
        ("/search", b'{"domain": "toy/one", "query": "a", "\\ud83c": 1}'),
        ("/search", b'{"domain": "toy/one", "query": "a", "systems": ["\\ud83c"]}'),
        ("/search", b'{"domain": "toy/one", "query": "a", "where": {"\\ud83c": 1}}'),
        ("/search", b'{"domain": "toy/one", "query": "a", "where": {"a": "\\ud83c"}}'),
        ("/search", b'{"domain": "toy/one", "query": "a", "where": {"a": NaN}}'),
        ("/search", b'{"domain": "toy/one", "query": "a", "where": {"a": ' + b"9" * 4000 + b"}}"),
        ("/search", b'{"domain": "toy/one", "query": "a", "where": {"a": [' + b"1," * MANY + b"1]}}"),
        ("/search", b"{" + b",".join(b'"a%d": 1' % n for n in range(MANY)) + b"}"),
        ("/search", b'{"domain": "toy/one", "queries": [' + b"1," * MANY + b"1]}"),
        ("/search", b'{"domain": "toy/one", "query": "a", "k": 1' + b"0" * 400 + b"}"),
    ],
)
def test_odd_bodies_are_refused_whatever_is_in_them(service: TestClient, path: str, body: bytes) -> None:
    answer = service.post(path, content=body, headers=JSON)
    assert 400 <= answer.status_code < 500
    assert set(answer.json()["error"]) == {"message", "type", "code", "param"}
    assert len(answer.content) < 2000


@pytest.mark.parametrize(
    "path",
    [
        "/static/%00",
        "/static/" + "a" * 5000,
        "/static/..%2fapp.py",
        "/static/%ff",
        "/static/a%0Ab",
        "/static//etc/passwd",
    ]
    + [f"/v1/models/{name}" for name in ("%00", "%ff", "%ed%a0%bd", "a" * 5000, "..", "%0d%0aX: y")],
)
def test_odd_paths_are_not_found(service: TestClient, path: str) -> None:
    answer = service.get(path)
    assert answer.status_code == 404
    assert set(answer.json()["error"]) == {"message", "type", "code", "param"}


# -- requests made up from the documentation -------------------------------------------------------------------------


def test_made_up_requests_are_answered_as_the_documentation_says(tiny_bert: Path, encoder: SentenceTransformer) -> None:
    """By schemathesis, from the OpenAPI file: statuses, types, forms, and nothing that breaks."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.errors import Unsatisfiable
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    asked = []
    with listening(config(tiny_bert, collections=("toy/one",))) as address:
        for found in schemathesis.openapi.from_url(f"{address}/openapi.json").get_all_operations():
            operation = found.ok()
            for mode in modes:

                @settings(
                    max_examples=200 if SLOW else 8, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )  # fmt: skip
                @given(case=operation.as_strategy(generation_mode=mode))
                def made_up(case: Any) -> None:
                    answer = case.call()
                    # which texts and models there are is not in the file
                    case.validate_response(answer, excluded_checks=[positive_data_acceptance])
                    asked.append(answer.status_code)

                with suppress(Unsatisfiable):  # a request without parameters cannot be wrong
                    made_up()
    assert len(asked) > 30
    assert max(asked) < 500
