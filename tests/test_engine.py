"""`--engine ray`: two local workers, one of them killed; a killed command and its repetition; each document once."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_work import noted
from sentence_transformers import SentenceTransformer
from shell import Shell
from tiny import toy_collection, write_beir

from foreword.cli import engine
from foreword.cli.export import part_writer
from foreword.collections.collection import Document
from foreword.collections.registry import load, parts_of
from foreword.errors import DataError, ForewordError
from foreword.prompts.loading import load_encoder
from foreword.training.vectors import read_vectors

PARTS = 5


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 documents in JSON lines and in parquet."""
    import pyarrow
    import pyarrow.parquet

    folder = tmp_path_factory.mktemp("shards") / "corpus"
    folder.mkdir()
    rows = [as_row(document) for document in toy_collection().documents()]
    for part in range(PARTS):
        table = pyarrow.Table.from_pylist(rows[12 * part : 12 * part + 12])
        pyarrow.parquet.write_table(table, folder / f"{part}.parquet")
    return folder.parent


def as_row(document: Document) -> dict[str, Any]:
    return {"_id": document.doc_id, "title": document.title, "text": document.text, "metadata": {"kind": "toy"}}


def write_lines(path: Path, documents: list[Document]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(as_row(document)) + "\n" for document in documents))


# -- parts, without an engine ----------------------------------------------------------------------------------


def test_shards_are_a_collection(tmp_path: Path, shards: Path) -> None:
    toy = list(toy_collection().documents())
    for number in range(2):
        write_lines(tmp_path / "bare" / f"part-{number}.jsonl", toy[number * 30 : number * 30 + 30])
    for folder in (shards, tmp_path / "bare"):
        read = load(str(folder))
        assert read.id == f"hf:{folder}"
        assert [(d.doc_id, d.content) for d in read.documents()] == [(d.doc_id, d.content) for d in toy]
        assert next(iter(read.documents())).metadata == {"kind": "toy"}
    (tmp_path / "bare" / "notes.txt").write_text("a note")
    assert load(str(tmp_path / "bare")).id.startswith("folder:")  # notes, as before


def test_parts_are_all_documents_once(tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foreword.collections.registry.LEAST_PART", 7)
    beir = write_beir(tmp_path / "toy", toy_collection())
    for name, count in ((str(shards), PARTS), (str(beir), 9)):
        whole, parts = load(name, document_template="{text}!"), parts_of(name)
        assert len(parts) == count
        pieces = [load(name, document_template="{text}!", part=part) for part in parts]
        assert [d for piece in pieces for d in piece.documents()] == list(whole.documents())


def test_without_ray(tmp_path: Path, shards: Path, tiny_bert: Path, shell: Shell, monkeypatch: Any) -> None:
    out = ("--output", tmp_path / "v.npy", "--backbone", tiny_bert)
    assert "--workers is of an --engine" in shell.fails("encode", shards, "--workers", 2, *out)
    assert "queries are few" in shell.fails("encode", shards, "--side", "query", "--engine", "ray", *out)
    monkeypatch.setitem(sys.modules, "ray", None)
    said = shell.fails("encode", shards, "--engine", "ray", *out)
    assert "pip install 'foreword[scale]'" in said


# -- the work itself, in this process --------------------------------------------------------------------------


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """All parts done one by one, without Ray."""

    def one_by_one(make: Any, settings: Any, pieces: Any, workers: int, gpus: float) -> Iterator[Any]:
        do = make(**settings)
        yield from ((number, do(piece)) for number, piece in enumerate(pieces))

    monkeypatch.setattr(engine, "_on_ray", one_by_one)
    monkeypatch.setattr(engine, "_begin", lambda workers, one_machine: (1, 0))


def files_of(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.suffix != ".json"}


def test_what_is_there_is_not_made_again(
    tmp_path: Path, shards: Path, here: None, tiny_bert: Path, shell: Shell
) -> None:
    many, how = tmp_path / "many" / "v.npy", ("--backbone", tiny_bert, "--output")
    record = shell.json("encode", shards, *how, many, "--engine", "ray")
    assert record == json.loads((tmp_path / "many" / "v.json").read_text())
    assert record["rows"] == 60
    assert record["files"] == [f"v-0000{n}-of-0000{PARTS}.npy" for n in range(PARTS)]
    before = files_of(many.parent)
    shell("encode", shards, *how, many, "--engine", "ray")
    assert f"{PARTS} of {PARTS} parts were there already" in shell.printed.err
    assert files_of(many.parent) == before
    shell("encode", shards, *how, many, "--engine", "ray", "--max-length", 5)  # other vectors
    assert "already" not in shell.printed.err
    (many.parent / record["files"][0]).unlink()
    shell("encode", shards, *how, many, "--engine", "ray", "--max-length", 5)
    assert f"{PARTS - 1} of {PARTS} parts" in shell.printed.err

    # Another text makes its part anew; parts of another number, or one file, leave nothing behind.
    copy = tmp_path / "copy" / "corpus"
    copy.mkdir(parents=True)
    for number, path in enumerate(sorted((shards / "corpus").iterdir())):
        if number < 4:
            (copy / path.name).write_bytes(path.read_bytes())
    shell("encode", copy.parent, *how, many, "--engine", "ray")
    assert len(read_vectors(many).doc_ids) == 48
    assert len(list(many.parent.glob("v-*.npy"))) == 4
    shell("encode", shards, *how, many)
    assert len(read_vectors(many).doc_ids) == 60
    assert {path.name for path in many.parent.iterdir()} == {"v.npy", "v.ids.txt", "v.json"}

    # A document that stands in two parts is refused, and what is there then is known not to be whole.
    (copy / "4.parquet").write_bytes((copy / "0.parquet").read_bytes())
    said = shell.fails("encode", copy.parent, *how, many, "--engine", "ray")
    assert re.search(r"two documents have the id 'd\d+', in .*0\.parquet and .*4\.parquet", said)
    with pytest.raises(DataError, match="did not end"):
        read_vectors(many)


def test_equal_digests_are_no_fault(
    tmp_path: Path, shards: Path, here: None, tiny_bert: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_digests", lambda ids: np.array([hash(one) % 7 for one in ids], np.uint64))
    out = tmp_path / "v.npy"
    assert shell.json("encode", shards, "--output", out, "--backbone", tiny_bert, "--engine", "ray")["rows"] == 60


def test_a_broken_part_is_named(tmp_path: Path, here: None, tiny_bert: Path, shell: Shell) -> None:
    toy = list(toy_collection().documents())
    write_lines(tmp_path / "bare" / "part-0.jsonl", toy[:10])
    (tmp_path / "bare" / "part-1.jsonl").write_text("{")
    how = ("encode", tmp_path / "bare", "--backbone", tiny_bert, "--engine", "ray", "--output", tmp_path / "v.npy")
    assert "part-1.jsonl:1: broken JSON" in shell.fails(*how)
    worker = engine.Worker()  # as a process of Ray's says it
    piece = (str(tmp_path / "bare" / "part-1.jsonl"), tmp_path / "x.npy")
    options = {"collection": f"hf:{tmp_path / 'bare'}", "data": None}
    settings = {"options": options, "made": {"side": "document"}}
    said = worker({"work": [pickle.dumps((3, part_writer, settings, piece))]})["said"]
    number, found, error = pickle.loads(said[0])
    assert (number, found) == (3, None)
    assert "part-1.jsonl:1: broken JSON" in error


# -- two workers -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Ray on this machine, whose processes know the tests; and a folder for them."""
    ray = pytest.importorskip("ray")
    path = tmp_path_factory.mktemp("orders")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "local")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("FOREWORD_TEST_ORDERS", str(path))
        try:
            engine._begin(2, one_machine=True)
        except ForewordError as error:
            if "timed out during startup" not in str(error):
                raise
            pytest.skip("Ray gives its own parts 30 s to start, and this machine was too busy")
        yield path
        ray.shutdown()


def test_the_part_of_a_process_that_is_killed_is_done_by_another(tmp_path: Path, workers: Path) -> None:
    settings = {"folder": str(tmp_path), "deadly": 1, "deaths": 1}
    done = list(engine._on_ray(noted, settings, range(4), 2, 0))
    assert sorted(number for number, _ in done) == [said["piece"] for _, said in sorted(done)] == [0, 1, 2, 3]
    tries = {piece: (tmp_path / str(piece)).read_text().split() for piece in range(4)}
    assert len(tries[1]) == 2
    assert tries[1][0] != tries[1][1]
    assert len({pid for pids in tries.values() for pid in pids}) <= 3  # two, and the one in place of the killed


@pytest.mark.slow
def test_a_part_that_kills_every_process_is_given_up(tmp_path: Path, workers: Path) -> None:
    settings = {"folder": str(tmp_path), "deadly": 1, "deaths": 99}
    with pytest.raises(ForewordError, match=r"lost 4 times on one part.*fewer --workers"):
        list(engine._on_ray(noted, settings, range(4), 2, 0))
    assert len((tmp_path / "1").read_text().split()) == engine.RETRIES + 1


class Dying(engine.Worker):
    """Ends processes in turn as ordered (0: its own), each when a part is written and before anybody is told."""

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[bytes]]:
        said = super().__call__(batch)
        orders = Path(os.environ["FOREWORD_TEST_ORDERS"])
        for order in sorted(orders.iterdir()):
            victim = int(order.read_text())
            order.unlink(missing_ok=True)
            os.kill(victim or os.getpid(), signal.SIGKILL)
        return said


@pytest.fixture
def orders(workers: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of orders to end a process."""
    monkeypatch.setattr(engine, "Worker", Dying)
    return workers


COMMAND = """
import os, sys
from pathlib import Path
import test_engine
from foreword.cli import engine
from foreword.cli.main import main
engine.Worker = test_engine.Dying
orders = Path(os.environ["FOREWORD_TEST_ORDERS"])
(orders / "1").write_text("0")
(orders / "2").write_text(str(os.getpid()))
main(sys.argv[1:])
"""


@pytest.mark.slow  # each worker imports torch
def test_vectors_when_a_worker_and_then_the_command_are_killed(
    tmp_path: Path, shards: Path, orders: Path, tiny_bert: Path, shell: Shell
) -> None:
    how = (
        "encode",
        shards,
        "--backbone",
        tiny_bert,
        "--workers",
        2,
        "--engine",
        "ray",
        "--output",
        tmp_path / "v.parquet",
    )
    done = subprocess.run([sys.executable, "-c", COMMAND, *map(str, how)], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert not list(orders.iterdir())
    with pytest.raises(DataError, match="did not end"):
        read_vectors(tmp_path / "v.parquet")
    whole = {path: path.stat().st_mtime_ns for path in tmp_path.glob("v-*.parquet")}
    assert 1 <= len(whole) <= PARTS
    shell(*how)
    assert re.search(rf"[1-{PARTS}] of {PARTS} parts were there already", shell.printed.err)
    assert {path: path.stat().st_mtime_ns for path in whole} == whole
    toy = toy_collection()
    plain = SentenceTransformer(str(tiny_bert), device="cpu")
    read = read_vectors(tmp_path / "v.parquet")
    assert list(read.doc_ids) == [d.doc_id for d in toy.documents()]  # each once, in the collection's order
    expected = plain.encode([d.content for d in toy.documents()], normalize_embeddings=True)
    np.testing.assert_allclose(read.vectors, expected, atol=1e-5)


@pytest.mark.slow  # each worker imports torch
def test_rows_when_a_worker_is_killed(
    tmp_path: Path, shards: Path, orders: Path, tiny_bert: Path, shell: Shell
) -> None:
    pytest.importorskip("milvus_lite")
    from foreword.indexing import Index

    how = ("--backbone", tiny_bert, "--domain", "toy")
    shell("index", "build", tmp_path / "one.db", shards, *how)
    (orders / "1").write_text("0")
    said = shell("index", "build", tmp_path / "many.db", shards, *how, "--engine", "ray", "--workers", 2)
    assert not list(orders.iterdir())
    assert "12 unchanged; 60 documents" in said  # the part of the killed worker was written, and is found
    encoder = load_encoder(str(tiny_bert), device="cpu")
    answers = []
    for name in ("one.db", "many.db"):
        with Index.open(str(tmp_path / name)) as index:
            assert index.info("toy").complete
            hits = index.search(encoder, [q.text for q in toy_collection().queries("test")], "toy", k=60)
            assert all(len({hit.doc_id for hit in own}) == len(own) == 60 for own in hits)
            answers.append([{hit.doc_id: hit.score for hit in own} for own in hits])
    for one, many in zip(*answers, strict=True):
        assert many == pytest.approx(one, abs=1e-5)
