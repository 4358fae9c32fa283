"""Whose a Milvus Lite file is; what is left when its owner is killed; and a server in place of the file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foreword.collections.collection import Document

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")

from foreword.indexing import Index, IndexBusyError, IndexingError, Written
from foreword.indexing.store import shown
from foreword.indexing.write import BASE, Stamp

WIDTH = 8
STAMP = Stamp({"name": "none", "fingerprint": "none", "similarity": "cosine"}, BASE, None, WIDTH, None)


def embed(texts: Any) -> Any:
    vectors = np.array([[len(text), *map(ord, text[: WIDTH - 1].ljust(WIDTH - 1))] for text in texts], dtype=np.float32)
    return vectors - vectors.mean(axis=1, keepdims=True)


def notes(count: int) -> list[Document]:
    return [Document(f"n{n}", f"{chr(97 + n % 26)}{n} note", "", {"n": str(n)}) for n in range(count)]


BUILDER = """
import sys, time
sys.path.insert(0, sys.argv[2])
import test_index_files as here
from foreword.indexing import write as writing
writing.BLOCK = 100
done = 0
def embed(texts):
    global done
    if done == 300:
        print("ready", flush=True)
        time.sleep(600)
    done += len(texts)
    return here.embed(texts)
with here.Index.open(sys.argv[1], create=True) as index:
    index.write(here.STAMP, embed, "a", here.notes(500))
"""


def test_a_second_process_is_told_and_a_killed_build_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    command = [sys.executable, "-c", BUILDER, str(path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as builder:
        try:
            assert builder.stdout is not None
            assert builder.stdout.readline() == "ready\n"
            with pytest.raises(IndexBusyError, match=rf"is open in process {builder.pid} \(-c, since 20.*wait for it"):
                Index.open(str(path))
        finally:
            os.kill(builder.pid, signal.SIGKILL)
    with Index.open(str(path)) as index:
        assert not index.domains()["a"].complete
        assert index.write(STAMP, embed, "a", notes(500)) == Written(added=200, unchanged=300)
        assert index.domains()["a"].documents == 500
        assert len(index.search_vectors(embed(["c2 note"]), "a", 500)[0]) == 500
    assert not (path / "owner.json").exists()


@pytest.mark.parametrize("name", ["foreword_facts", "foreword"])
def test_a_build_that_was_killed_while_its_collections_were_made(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.db" / "collections" / name).mkdir(parents=True)  # as Milvus Lite leaves it, before its schema
    with Index.open(str(tmp_path / "notes.db"), create=True) as index:
        assert index.write(STAMP, embed, "a", notes(5)) == Written(added=5)


def test_another_programs_file(tmp_path: Path) -> None:
    import fcntl

    path = tmp_path / "notes.db"
    with Index.open(str(path), create=True) as index:
        index.write(STAMP, embed, "a", notes(2))
    with open(path / "LOCK", "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(IndexBusyError, match="a program that is not Foreword"):
            Index.open(str(path))
    Index.open(str(path)).close()


def test_one_process_may_open_it_twice(tmp_path: Path) -> None:
    path = str(tmp_path / "notes.db")
    with Index.open(path, create=True) as one, Index.open(path, create=True) as two:
        one.write(STAMP, embed, "a", notes(40))
        two.close()
        two.close()
        assert one.domains()["a"].documents == 40
    with pytest.raises(IndexingError, match="was closed; open it again"):
        one.domains()
    with Index.open(path) as again:
        assert again.search_vectors(embed(["b1 note"]), "a", 1)[0][0].doc_id == "n1"


def test_searches_beside_a_writer(tmp_path: Path) -> None:
    """What a service does: threads search while one adds."""
    failed: list[BaseException] = []
    with Index.open(str(tmp_path / "notes.db"), create=True) as index:
        index.write(STAMP, embed, "a", notes(50))
        stop = threading.Event()

        def search() -> None:
            try:
                while not stop.is_set():
                    assert index.search_vectors(embed(["b1 note"]), "a", 1)[0][0].doc_id == "n1"
                    assert index.search_words(["n1 b1"], "a", 3)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=search) for _ in range(3)]
        for thread in threads:
            thread.start()
        for count in range(100, 500, 100):
            index.write(STAMP, embed, "a", notes(count))
            index.delete("a", [f"n{count - 1}"])
        stop.set()
        for thread in threads:
            thread.join()
    assert failed == []


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("notes", "neither a file nor a server"),
        ("missing.db", "there is no index .*missing.db; `foreword index build .*missing.db COLLECTION` makes one"),
        ("http://127.0.0.1:9", "cannot connect to http://127.0.0.1:9"),
        ("http://me:secret@127.0.0.1:9", "cannot connect to http://127.0.0.1:9"),
    ],
)
def test_what_cannot_be_opened(tmp_path: Path, uri: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("foreword.indexing.store.CONNECT_SECONDS", 0.5)
    with pytest.raises(IndexingError, match=said) as raised:
        Index.open(uri)
    assert "secret" not in str(raised.value)


def test_more_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old.db").write_bytes(b"SQLite format 3")
    with pytest.raises(IndexingError, match="a plain file, and Milvus Lite 3 keeps a folder"):
        Index.open(str(tmp_path / "old.db"))
    empty = str(tmp_path / "empty.db")
    Index.open(empty, create=True).close()
    with pytest.raises(IndexingError, match="is empty; build it"):
        Index.open(empty)
    with pytest.raises(IndexingError, match="takes no token"):
        Index.open(empty, token="me:secret")
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(IndexingError, match=r"pip install 'foreword\[index\]'"):
        Index.open(empty)
    assert shown("https://me:pw@host:19530/db") == "https://host:19530/db"


def test_a_server_by_its_uri(tmp_path: Path) -> None:
    """Milvus Lite behind its own gRPC port stands in for a cluster: another process's, so never opened as a file."""
    from milvus_lite.adapter.grpc.server import start_server_in_thread
    from pymilvus import MilvusClient

    server, database, port = start_server_in_thread(str(tmp_path / "served.db"))
    uri = f"http://127.0.0.1:{port}"
    try:
        with Index.open(uri, token="me:secret", create=True) as index, Index.open(uri, create=True) as second:
            assert index.write(STAMP, embed, "a", notes(300)) == Written(added=300)
            assert index.write(STAMP, embed, "a", notes(250), remove_missing=True) == Written(unchanged=250, removed=50)
            index.write(STAMP, embed, "b", notes(5))
            stats = index.stats()
            assert (stats["documents"], stats["bytes"], stats["index_type"]) == (255, None, "AUTOINDEX")
            hit = index.search_vectors(embed(["b1 note"]), "a", 3, 'metadata["n"] == "1"')[0][0]
            assert (hit.doc_id, round(hit.score, 4)) == ("n1", 1.0)
            assert index.search_words(["b1"], "a")[0][0].doc_id == "n1"
            assert index.delete("b") == 5
            assert second.domains() == {}  # it was opened before there was anything
        with Index.open(uri) as again:
            assert list(again.domains()) == ["a"]
            again.delete("a")
        client = MilvusClient(uri=uri)
        assert client.list_collections() == []
        client.create_collection("foreword", dimension=4)
        with Index.open(uri, create=True) as index, pytest.raises(IndexingError, match="that Foreword did not make"):
            index.write(STAMP, embed, "a", notes(1))
        assert client.list_collections() == ["foreword"]
        client.close()
    finally:
        server.stop(grace=0)
        database.close()
