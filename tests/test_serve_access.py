"""Keys, limits and the configuration."""

from __future__ import annotations

import hashlib
import json
import logging
import socket
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from shell import Shell

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("prometheus_client", reason="the extra serve is not installed")

from serve_bank import SPECS, client, config, save
from starlette.testclient import TestClient

from foreword.errors import ForewordError
from foreword.prompts.loading import load_encoder
from foreword.serving import app as run_module
from foreword.serving.config import Key, ServeConfig, key_of_value, read_config

ONE, ALL = "key-of-domain-one-0", "key-of-everything-0"
KEYS = (key_of_value("one", ONE, ["toy/one"]), key_of_value("all", ALL, admin=True))


@pytest.fixture(scope="module")
def service(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    bank, encoder = tmp_path_factory.mktemp("bank"), load_encoder(str(tiny_bert), device="cpu")
    for seed, name in enumerate(("toy/one", "toy/two")):
        save(bank, encoder, name, SPECS["toy/input"], seed)
    settings = config(
        tiny_bert, bank, keys=KEYS, collections=("toy/one", "toy/two"), max_body_bytes=4000, max_texts=5, max_tokens=60
    )
    with client(settings) as asked:
        yield asked


def bearer(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


# -- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/health", None, 200),
        ("/", None, 200),
        ("/docs", None, 200),
        ("/openapi.json", None, 200),
        ("/static/nothing.css", None, 404),
        ("/v1/models", None, 401),
        ("/v1/models", "another-key-altogether", 401),
        ("/v1/models", ONE, 200),
        ("/domains", None, 401),
        ("/bank", None, 401),
        ("/nowhere", None, 401),
        ("/nowhere", ONE, 404),
        ("/metrics", None, 401),
        ("/metrics", ONE, 403),
        ("/metrics", ALL, 200),
        ("/v1/models/toy/two", ONE, 403),
    ],
)
def test_who_may_read_what(service: TestClient, path: str, key: str | None, status: int) -> None:
    answer = service.get(path, headers=bearer(key))
    assert answer.status_code == status
    if status == 401:
        assert answer.json()["error"]["type"] == "authentication_error"
        assert answer.headers["www-authenticate"] == "Bearer"


def test_a_key_reaches_its_domains_alone(service: TestClient) -> None:
    def embed(model: str, key: str) -> int:
        return service.post("/v1/embeddings", json={"model": model, "input": "a"}, headers=bearer(key)).status_code

    assert [embed(model, ONE) for model in ("toy/one", "base", "toy/two", "toy/two:query", "toy/none")] == [
        200,
        200,
        403,
        403,
        403,  # whether it is there is not said
    ]
    assert [embed(model, ALL) for model in ("toy/one", "toy/two", "toy/none")] == [200, 200, 404]
    for domain, status in (("toy/one", 200), ("toy/two", 403), ("toy/none", 403)):
        answer = service.post("/search", json={"domain": domain, "query": "a"}, headers=bearer(ONE))
        assert answer.status_code == status
    assert "toy/two" not in service.post("/search", json={"domain": "x", "query": "a"}, headers=bearer(ONE)).text
    for path in ("/domains", "/bank", "/v1/models"):
        assert "toy/two" not in service.get(path, headers=bearer(ONE)).text
        assert "toy/two" in service.get(path, headers=bearer(ALL)).text
    assert service.post("/admin/reload", headers=bearer(ONE)).status_code == 403
    assert service.post("/admin/reload", headers=bearer(ALL)).status_code == 200


def test_below_a_proxys_path_the_same_paths_are_open(service: TestClient) -> None:
    asked = TestClient(service.app, root_path="/foreword", raise_server_exceptions=False)
    for path, key, status in (
        ("/health", None, 200),
        ("/", None, 200),
        ("/static/style.css", None, 200),
        ("/v1/models", None, 401),
        ("/v1/models", ONE, 200),
        ("/metrics", ONE, 403),
        ("/metrics", ALL, 200),
    ):
        assert asked.get(f"/foreword{path}", headers=bearer(key)).status_code == status


def test_a_service_of_this_machine_is_asked_for_by_this_machines_names(tiny_bert: Path, tmp_path: Path) -> None:
    bank, encoder = tmp_path / "bank", load_encoder(str(tiny_bert), device="cpu")
    save(bank, encoder, "toy/one", SPECS["toy/input"], 0)
    settings = config(tiny_bert, bank, collections=("toy/one",))
    with client(settings) as asked:
        for host, status in (
            ("localhost", 200),
            ("LOCALHOST:8000", 200),
            ("127.0.0.1:8000", 200),
            ("[::1]:8000", 200),
            ("evil.example", 421),
            ("localhost.evil.example:8000", 421),
            ("", 421),
        ):
            answer = asked.get("/domains", headers={"Host": host})
            assert answer.status_code == status, host
            assert answer.headers["x-request-id"]
    assert ServeConfig(hosts=("Search.example.org",)).accepted_hosts == {"search.example.org"}
    assert ServeConfig(host="0.0.0.0").accepted_hosts is None  # what a container listens on
    assert ServeConfig(keys=KEYS).accepted_hosts is None


def test_the_access_log_has_no_searches() -> None:
    record = logging.makeLogRecord({"args": ("127.0.0.1:1", "GET", "/?domain=a&q=my+secret", "1.1", 200)})
    assert run_module._without_query(record)
    assert record.args == ("127.0.0.1:1", "GET", "/", "1.1", 200)


def test_every_answer_bears_the_same_headers(service: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(service.app.state.service, "domains", broken)  # type: ignore[attr-defined]
    paths = {"/": 200, "/static/app.js": 200, "/nowhere": 404, "/domains": 500}
    answers = [service.get(path, headers=bearer(ALL)) for path in paths] + [service.get("/bank")]
    assert [answer.status_code for answer in answers] == [*paths.values(), 401]
    for answer in answers:
        assert answer.headers["content-security-policy"] == "frame-ancestors 'none'"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)
    assert answers[3].json()["error"]["code"] == "internal_error"
    page, script = answers[:2]
    assert page.headers["cache-control"] == script.headers["cache-control"] == "no-cache"
    again = service.get("/static/app.js", headers={"If-None-Match": script.headers["etag"]})
    assert (again.status_code, again.headers["cache-control"]) == (304, "no-cache")


# -- limits ----------------------------------------------------------------------------------------------------------


def test_too_much_is_refused(service: TestClient) -> None:
    def embed(texts: Any, **more: Any) -> tuple[int, str]:
        answer = service.post("/v1/embeddings", json={"model": "base", "input": texts}, headers=bearer(ALL), **more)
        return answer.status_code, answer.json().get("error", {}).get("code")

    assert embed(["a"] * 5) == (200, None)
    assert embed(["a"] * 6) == (422, "too_many_texts")
    assert embed(["a b c d e f g h i j k l m"] * 5) == (422, "too_many_tokens")
    assert embed("a" * 4000) == (413, "request_too_large")

    def unannounced() -> Iterator[bytes]:
        yield from [b" " * 1500] * 4

    answer = service.post("/v1/embeddings", content=unannounced(), headers=bearer(ALL))
    assert answer.status_code == 413
    queries = {"domain": "toy/one", "queries": ["a"] * 6}
    assert service.post("/search", json=queries, headers=bearer(ALL)).json()["error"]["code"] == "too_many_texts"


def test_a_full_queue_says_when_to_come_again(service: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.app.state.service.batcher, "queue_texts", 1)  # type: ignore[attr-defined]
    body = {"model": "base", "input": ["a", "b"]}
    answer = service.post("/v1/embeddings", json=body, headers=bearer(ALL))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"] == {
        "message": "too many texts wait (1 may); ask again later",
        "type": "overloaded_error",
        "code": "queue_full",
        "param": None,
    }
    searched = service.post("/search", json={"domain": "toy/one", "queries": ["a", "b"]}, headers=bearer(ALL))
    assert searched.status_code == 503
    # texts whose tokens are being counted wait, too
    monkeypatch.setattr(service.app.state.service.batcher, "expected", 1)  # type: ignore[attr-defined]
    assert service.post("/v1/embeddings", json={**body, "input": "a"}, headers=bearer(ALL)).status_code == 503


# -- configuration ---------------------------------------------------------------------------------------------------

FILE = """
port = 9000
host = "0.0.0.0"
collections = ["pydoc/json"]
wait_ms = 5
normalize = true

[use]
"pydoc/json" = "multitask"

[[keys]]
name = "search"
env = "SEARCH_KEY"
domains = ["pydoc/json"]

[[keys]]
name = "ops"
sha256 = "{digest}"
admin = true
"""


def test_options_are_above_the_environment_above_the_file_above_defaults(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(FILE.replace("{digest}", hashlib.sha256(ALL.encode()).hexdigest()))
    environment = {
        "FOREWORD_SERVE_PORT": "9100",
        "FOREWORD_SERVE_BATCH_TEXTS": "7",
        "FOREWORD_SERVE_NORMALIZE": "false",
        "FOREWORD_SERVE_CONFIG": str(file),
        "FOREWORD_DATA": "elsewhere",
        "SEARCH_KEY": ONE,
        "FOREWORD_API_KEY": "the-environments-own",
    }
    found = read_config(None, {"port": 9200, "host": None}, environment)
    assert (found.port, found.host, found.batch_texts, found.wait_ms, found.queue_texts) == (
        9200,
        "0.0.0.0",
        7,
        5,
        8192,
    )
    assert found.normalize is False
    assert read_config(file, {}, {"SEARCH_KEY": ONE}).port == 9000
    names = [(key.name, key.domains, key.admin) for key in found.keys]
    assert names == [
        ("search", ("pydoc/json",), False),
        ("ops", ("*",), True),
        ("FOREWORD_API_KEY", ("*",), True),
    ]
    assert found.keys[0].digest == hashlib.sha256(ONE.encode()).hexdigest()


@pytest.mark.parametrize(
    ("text", "environment", "said"),
    [
        ("ports = 1", {}, "no setting 'ports'"),
        ("port = '1'", {}, "expected int"),
        ("port = true", {}, "expected int"),
        ("port = 70000", {}, "0 (a free one) to 65535"),
        ("bank = 3", {}, "expected str"),
        ("collections = 'a'", {}, "a list of texts"),
        ("precision = 'int4'", {}, "expected one of float32"),
        ("queue_texts = 10", {}, "would never fit"),
        ("root_path = 'below/'", {}, "such as /foreword"),
        ("port = ", {}, "cannot be read as TOML"),
        ("[use]\n'a' = 'b'", {}, "not among the collections"),
        ("[[keys]]\nname = 'a'\nkey = 'short'", {}, "16 or more"),
        ("[[keys]]\nname = 'a'\nenv = 'NOT_SET'", {}, "NOT_SET, which is not set"),
        ("[[keys]]\nname = 'a'\nsha256 = 'abc'", {}, "64 hexadecimal digits"),
        ("[[keys]]\nname = 'a'", {}, "one of env, sha256 and key"),
        ("", {"FOREWORD_SERVE_PROT": "1"}, "FOREWORD_SERVE_PROT: no setting"),
        ("", {"FOREWORD_SERVE_PORT": "tcp://10.0.0.1:80"}, "expected a number"),
        ("", {"FOREWORD_SERVE_KEYS": "a"}, "FOREWORD_API_KEY for one key"),
        ("", {"FOREWORD_API_KEY": ""}, "16 or more"),
    ],
)
def test_what_is_wrong_in_the_configuration_is_named(
    tmp_path: Path, text: str, environment: dict[str, str], said: str
) -> None:
    (tmp_path / "serve.toml").write_text(text)
    with pytest.raises(ForewordError) as error:
        read_config(tmp_path / "serve.toml", {}, environment)
    assert said in str(error.value)
    assert environment or str(tmp_path / "serve.toml") in str(error.value)


def test_a_dry_run_shows_no_secret(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREWORD_API_KEY", ALL)
    monkeypatch.setenv("FOREWORD_SERVE_INDEX_TOKEN", "user:password")
    monkeypatch.setenv("FOREWORD_SERVE_INDEX", "http://user:password@milvus:19530")
    (tmp_path / "serve.toml").write_text(f"port = 81\n[[keys]]\nname = 'team'\nkey = '{ONE}'\ndomains = ['a']\n")
    printed = shell(
        "serve", "pydoc/json", "--bank", "bank", "--use", "pydoc/json=multitask", "--port", "82",
        "--config", tmp_path / "serve.toml", "--dry-run",
    )  # fmt: skip
    shown = json.loads(printed)
    assert (shown["port"], shown["bank"], shown["collections"]) == (82, "bank", ["pydoc/json"])
    assert shown["use"] == {"pydoc/json": "multitask"}
    assert shown["keys"] == [
        {"name": "team", "domains": ["a"], "admin": False},
        {"name": "FOREWORD_API_KEY", "domains": ["*"], "admin": True},
    ]
    assert set(shown) == {field.name for field in fields(ServeConfig)}
    secrets = [ONE, ALL, "password", *(hashlib.sha256(key.encode()).hexdigest() for key in (ONE, ALL))]
    assert not any(secret in printed for secret in secrets)
    assert shown["index"] == "http://milvus:19530"
    assert "password" not in repr(ServeConfig(index="http://user:password@milvus", index_token="user:password"))


def test_what_cannot_be_served_is_said_before_it_starts(shell: Shell, tmp_path: Path, tiny_bert: Path) -> None:
    assert "is no bank" in shell.fails("serve", "--bank", tmp_path, "--backbone", tiny_bert)
    assert "--use" in shell.fails("serve", "--use", "nothing")
    assert "unknown collection" in shell.fails("serve", "nothing/here", "--backbone", tiny_bert, "--port", 0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = shell.fails("serve", "--backbone", tiny_bert, "--port", port)
        assert "cannot be listened on" in said
        assert "--port names another" in said
    with pytest.raises(ForewordError, match="one name or one value"):
        ServeConfig(keys=(Key("a", "1"), Key("a", "2")))


def test_without_the_extra_it_says_what_to_install(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "foreword.serving.app", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "pip install 'foreword[serve]'" in shell.fails("serve", "pydoc/json")
