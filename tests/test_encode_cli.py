"""`foreword encode`, and docs/existing-index.md walked through with an array of numpy as the old index."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from shell import Shell
from tiny import random_prompt, toy_collection, write_beir

from foreword.cli.export import write_vectors
from foreword.cli.main import main
from foreword.errors import DataError
from foreword.evaluation.evaluate import evaluate
from foreword.files import sha256_file
from foreword.prompts.encoder import transformer_of
from foreword.prompts.loading import load_encoder
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import save_prompt
from foreword.training.vectors import DocumentVectors, read_vectors

DOCS = Path(__file__).parents[1] / "docs"


def jsonl_vectors(path: Path, key: str) -> tuple[list[str], np.ndarray[Any, Any]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row[key] for row in rows], np.array([row["vector"] for row in rows], np.float32)


# -- files -----------------------------------------------------------------------------------------------------


def blocks(*counts: int) -> list[tuple[list[str], np.ndarray[Any, Any]]]:
    rows = np.random.default_rng(0).standard_normal((sum(counts), 3)).astype(np.float32)
    ends = np.cumsum(counts)
    return [
        ([f"d{n}" for n in range(end - count, end)], rows[end - count : end])
        for count, end in zip(counts, ends, strict=True)
    ]


@pytest.mark.parametrize("counts", [(), (1,), (4, 1, 2), (1200,)])
@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_training_reads_what_is_written(tmp_path: Path, suffix: str, counts: tuple[int, ...]) -> None:
    given = blocks(*counts)
    path = tmp_path / f"v{suffix}"
    assert write_vectors(path, iter(given), 3, dtype="float32", side="document") == sum(counts)
    if suffix == ".parquet" and not counts:
        return  # nothing says how wide the vectors of an empty table are
    read = read_vectors(path)
    assert list(read.doc_ids) == [one for ids, _ in given for one in ids]
    assert read.vectors.shape == (sum(counts), 3)
    if counts:
        np.testing.assert_array_equal(read.vectors, np.concatenate([rows for _, rows in given]))


def test_ids_with_blanks(tmp_path: Path) -> None:
    ids = ["a file.txt", " edges ", "tab\tinside", "form\x0cfeed", "line\u2028separator", "plain"]
    rows = np.eye(6, dtype=np.float32)
    for name in ("v.npy", "v.parquet"):
        write_vectors(tmp_path / name, [(ids, rows)], 6, dtype="float32", side="document")
        assert list(read_vectors(tmp_path / name).doc_ids) == ids
    (tmp_path / "v.ids.txt").write_bytes("\r\n".join(ids).encode())  # from another system, without a last line end
    assert list(read_vectors(tmp_path / "v.npy").doc_ids) == ids


def test_json_lines_give_back_the_same_numbers(tmp_path: Path) -> None:
    given = blocks(2, 3)
    write_vectors(tmp_path / "v.jsonl", given, 3, dtype="float32", side="query")
    ids, rows = jsonl_vectors(tmp_path / "v.jsonl", "query_id")
    assert ids == [f"d{n}" for n in range(5)]
    np.testing.assert_array_equal(rows, np.concatenate([rows for _, rows in given]))


def test_half_precision(tmp_path: Path) -> None:
    (given,) = blocks(4)
    for name in ("v.npy", "v.parquet"):
        write_vectors(tmp_path / name, [given], 3, dtype="float16", side="document")
        np.testing.assert_array_equal(read_vectors(tmp_path / name).vectors, given[1].astype(np.float16))
    assert np.load(tmp_path / "v.npy").dtype == np.float16


def test_eight_bits(tmp_path: Path, tiny_bert: Path, beir: Path, shell: Shell) -> None:
    given = ["a", "b", "c"], np.array([[0.5, -1, 0.25], [2, 1, 0], [0, 0, 0]], np.float32)
    expected = [[64, -127, 32], [127, 64, 0], [0, 0, 0]]  # 63.5 and 31.75 rounded, to even
    for name in ("v.npy", "v.parquet"):
        write_vectors(tmp_path / name, [given], 3, dtype="int8", side="document")
        read = read_vectors(tmp_path / name).vectors
        assert read.dtype == np.int8
        np.testing.assert_array_equal(read, expected)
    write_vectors(tmp_path / "v.jsonl", [given], 3, dtype="int8", side="document")
    np.testing.assert_array_equal(jsonl_vectors(tmp_path / "v.jsonl", "doc_id")[1], expected)
    encoder = load_encoder(str(tiny_bert))
    own = DocumentVectors(given[0], np.tile(np.array(expected, np.int8), (1, 11))[:, :32]).checked(encoder).vectors
    np.testing.assert_allclose(np.linalg.norm(own, axis=1), [1, 1, 0], rtol=1e-6)
    out = ("--backbone", tiny_bert, "--dtype", "int8", "--output", tmp_path / "d.npy")
    assert "(int8, of any length)" in shell("encode", f"folder:{beir}", *out)
    assert "lengths; use --dtype float16" in shell.fails("encode", f"folder:{beir}", "--no-normalize", *out)


def test_what_is_not_written(tmp_path: Path) -> None:
    rows = np.zeros((2, 3), np.float32)
    for name, ids, said in (
        ("v.npy", ["a", "b\nc"], "holds a line end.*parquet"),
        ("v.npy", ["a", ""], "is empty or holds a line end"),
        ("v.parquet", ["a", "a"], "'a' occurs twice"),
        ("v.csv", ["a", "b"], r"\.npy, \.parquet, \.jsonl, not as \.csv"),
    ):
        with pytest.raises(DataError, match=said):
            write_vectors(tmp_path / name, [(ids, rows)], 3, dtype="float32", side="document")
        assert list(tmp_path.iterdir()) == []  # nothing half written
    for number, dtype in ((np.nan, "float32"), (1e5, "float16")):
        with pytest.raises(DataError, match=f"NaN, or numbers beyond {dtype}"):
            write_vectors(tmp_path / "v.jsonl", [(["a", "b"], rows + np.float32(number))], 3, dtype=dtype, side="query")
        assert list(tmp_path.iterdir()) == []


def test_vectors_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    np.save(path, np.zeros((2, 3), np.float32))
    (tmp_path / "v.ids.txt").write_text("a\n")
    with pytest.raises(DataError, match=r"v\.npy: 1 ids for vectors of shape \(2, 3\)"):
        read_vectors(path)
    (tmp_path / "v.ids.txt").write_text("a\na\n")
    with pytest.raises(DataError, match=r"v\.npy: document ids of the vectors are not unique"):
        read_vectors(path)
    path.write_bytes(path.read_bytes().replace(b"}", b"{"))  # the header is Python, and its reader raises TokenError
    with pytest.raises(DataError, match=r"v\.npy: not an array of numbers"):
        read_vectors(path)


# -- the command -----------------------------------------------------------------------------------------------


@pytest.fixture
def prompt(tmp_path: Path, encoder: SentenceTransformer) -> Path:
    made = random_prompt(encoder, PromptSpec(length=3, sides="query"))
    return save_prompt(tmp_path / "prompt", made, encoder, "toy", dtype="float32")


def test_the_vectors_are_the_models_own(tmp_path: Path, tiny_bert: Path, beir: Path, shell: Shell) -> None:
    out = tmp_path / "v.npy"
    record = shell.json("encode", f"folder:{beir}", "--output", out, "--backbone", tiny_bert)
    toy = toy_collection()
    plain = SentenceTransformer(str(tiny_bert), device="cpu")  # without any of this package's code
    expected = plain.encode([d.content for d in toy.documents()], normalize_embeddings=True)
    read = read_vectors(out)
    assert list(read.doc_ids) == [d.doc_id for d in toy.documents()]
    np.testing.assert_allclose(read.vectors, expected, atol=1e-5)
    assert record == json.loads((tmp_path / "v.json").read_text())
    assert record["rows"] == 60
    assert record["width"] == 32
    assert record["unit_length"] is True
    assert record["precision"] == "float32"
    assert record["prompt"] == {"path": None, "fingerprint": None}
    assert record["sha256"] == sha256_file(out)
    assert record["backbone"]["fingerprint"] == sha256_file(tiny_bert / "model.safetensors")


def test_a_query_side_prompt_leaves_documents_alone(
    tmp_path: Path, tiny_bert: Path, beir: Path, prompt: Path, shell: Shell
) -> None:
    how = ("--backbone", tiny_bert)
    base = shell.json("encode", f"folder:{beir}", "--output", tmp_path / "base.npy", *how)
    same = shell.json("encode", f"folder:{beir}", "--output", tmp_path / "same.npy", "--prompt", prompt, *how)
    assert base["sha256"] == same["sha256"]
    assert same["prompt"]["fingerprint"] is None
    query = ("--side", "query", "--split", "dev")
    plain = shell.json("encode", f"folder:{beir}", *query, "--output", tmp_path / "q.parquet", *how)
    other = shell.json("encode", f"folder:{beir}", *query, "--output", tmp_path / "p.parquet", "--prompt", prompt, *how)
    assert plain["rows"] == other["rows"] == 12
    assert plain["sha256"] != other["sha256"]
    assert other["prompt"]["fingerprint"] is not None


def test_queries_of_the_users_own(
    tmp_path: Path, tiny_bert: Path, prompt: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "q.txt").write_text("first one\n\n  second one \n")
    (tmp_path / "q.jsonl").write_text('{"_id": "a", "text": "first one"}\n{"id": 7, "text": "second one"}\n')
    how = ("--output", tmp_path / "v.jsonl", "--prompt", prompt, "--backbone", tiny_bert)
    encoder = load_encoder(str(tiny_bert), prompt=prompt, device="cpu")
    expected = encoder.encode_query(["first one", "second one"], normalize_embeddings=True)
    monkeypatch.setattr("sys.stdin", io.StringIO("first one\nsecond one\n"))
    for source, names in ((tmp_path / "q.txt", ["q0", "q1"]), (tmp_path / "q.jsonl", ["a", "7"]), ("-", ["q0", "q1"])):
        record = shell.json("encode", "--queries", source, *how)
        assert record["side"] == "query"
        ids, rows = jsonl_vectors(tmp_path / "v.jsonl", "query_id")
        assert ids == names
        np.testing.assert_allclose(rows, expected, atol=1e-6)
    assert transformer_of(encoder).route == "toy"


def test_what_cannot_be_encoded(tmp_path: Path, tiny_bert: Path, beir: Path, shell: Shell) -> None:
    out = ("--output", tmp_path / "v.npy", "--backbone", tiny_bert)
    assert "name a collection" in shell.fails("encode", *out)
    assert "name a collection" in shell.fails("encode", f"folder:{beir}", "--queries", "x", *out)
    assert "no such file" in shell.fails("encode", "--queries", tmp_path / "none", *out)
    assert "queries are queries" in shell.fails("encode", "--queries", "x", "--side", "document", *out)
    assert "--split is for" in shell.fails("encode", f"folder:{beir}", "--split", "dev", *out)
    assert ".npy, .parquet, .jsonl" in shell.fails("encode", f"folder:{beir}", "--output", tmp_path / "v.txt")
    (tmp_path / "q.jsonl").write_text('{"text": "no name"}\n')
    assert "q.jsonl:1: expected an object with _id" in shell.fails("encode", "--queries", tmp_path / "q.jsonl", *out)
    (tmp_path / "q.txt").write_bytes(b"first\ncaf\xe9\n")
    assert "q.txt:2: not UTF-8" in shell.fails("encode", "--queries", tmp_path / "q.txt", *out)
    (tmp_path / "v.json").write_text('{"mine": 1}')  # the record's name
    assert "v.json: is there already" in shell.fails("encode", f"folder:{beir}", *out)
    assert (tmp_path / "v.json").read_text() == '{"mine": 1}'
    (tmp_path / "v.json").unlink()
    own = tmp_path / "q.jsonl"
    assert "holds the queries themselves" in shell.fails("encode", "--queries", own, "--output", own)
    plan = json.loads(shell("encode", f"folder:{beir}", "--dry-run", *out))
    assert plan["side"] == "document"
    assert not (tmp_path / "v.npy").exists()


# -- the recipe ------------------------------------------------------------------------------------------------


def test_the_page_on_existing_indexes(
    tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch, minilm: SentenceTransformer
) -> None:
    """Its commands and Python blocks in their order, with MiniLM; then what it promises."""
    monkeypatch.chdir(tmp_path)
    toy = toy_collection()
    write_beir(tmp_path / "my-collection", toy)
    asked = list(toy.queries("test"))
    (tmp_path / "queries.txt").write_text("".join(f"{query.text}\n" for query in asked))
    page = (DOCS / "existing-index.md").read_text(encoding="utf-8")
    # A gated prompt begins as the base model, and made-up words may leave it there; a prefix does something at once.
    quick = ["--steps", "6", "--evaluate-every", "3", "--dev-folds", "0", "--kind", "prefix"]
    figures, before = [], b""
    made: dict[str, Any] = {"__name__": "page"}
    for language, block in re.findall(r"```(sh|python)\n(.*?)```", page, flags=re.DOTALL):
        if language == "python":
            exec(compile(block, "existing-index.md", "exec"), made)
            continue
        for line in block.splitlines():
            program, *arguments = shlex.split(line)
            assert program == "foreword"
            printed = shell(*arguments, *(quick if arguments[0] == "train" else []))
            figures += [json.loads(printed)["measures"]["nDCG@10"]] if arguments[0] == "evaluate" else []
            before = before or (tmp_path / "old.npy").read_bytes()

    assert (made["mine"] * made["theirs"]).sum(1).min() > 0.9999  # the page's check of the exported vectors
    assert (tmp_path / "old.npy").read_bytes() == before  # the old vectors are as they were
    old = read_vectors(tmp_path / "old.npy")
    base = minilm.encode([d.content for d in toy.documents()])
    np.testing.assert_allclose(old.vectors, base, atol=1e-5)
    said = json.loads((tmp_path / "prompts/mine/prompt.json").read_text())
    assert said["prompt"]["sides"] == "query"
    assert said["data"]["folder:my-collection"]["vectors"] == old.digest()

    # The old vectors, asked with the new queries, score as the evaluation of the prompt says.
    names, queries = jsonl_vectors(tmp_path / "queries.jsonl", "query_id")
    assert names == [f"q{number}" for number in range(len(asked))]
    scores = queries @ np.asarray(old.vectors).T
    run = {
        query.query_id: dict(zip(old.doc_ids, map(float, row), strict=True))
        for query, row in zip(asked, scores, strict=True)
    }
    measured = evaluate(toy, run, measures=["nDCG@10"]).measures["nDCG@10"]
    assert measured == pytest.approx(figures[1], abs=1e-6)
    assert not np.allclose(queries, minilm.encode([q.text for q in asked]), atol=1e-3)  # the prompt does something


def killed(before: str, *arguments: object) -> bool:
    """Whether a command that is killed before a file of this name appears, in a copy of this process, came so far."""
    if child := os.fork():
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    replace = os.replace

    def counted(source: Any, target: Any) -> None:
        if str(target).endswith(before):
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = counted
    with contextlib.suppress(BaseException):
        main([str(argument) for argument in arguments])
    os._exit(1)


@pytest.mark.parametrize("before", ["v.npy", ".ids.txt"])
def test_vectors_and_ids_of_two_writes_are_not_taken(
    shell: Shell, tiny_bert: Path, tmp_path: Path, before: str
) -> None:
    for name, count in (("one", 60), ("two", 60)):
        write_beir(tmp_path / name, toy_collection(f"toy/{name}", documents=count, seed=len(name) + (name == "two")))
    path = tmp_path / "v.npy"
    words = ("--backbone", tiny_bert, "--output", path)
    shell("encode", f"folder:{tmp_path / 'one'}", *words)
    assert len(read_vectors(path).doc_ids) == 60
    assert killed(before, "encode", f"folder:{tmp_path / 'two'}", *words)
    with pytest.raises(DataError, match=r"v\.npy: the command that wrote these vectors did not end; .*encode again"):
        read_vectors(path)
    shell("encode", f"folder:{tmp_path / 'two'}", *words)
    assert len(read_vectors(path).doc_ids) == 60
    assert not [one.name for one in tmp_path.iterdir() if one.name.endswith((".part", ".lock"))]
    names = path.with_suffix(".ids.txt")
    names.write_text("\n".join(reversed(names.read_text().split())))
    with pytest.raises(DataError, match=r"v\.ids\.txt: is not the file that v\.json tells of"):
        read_vectors(path)
    with pytest.raises(DataError, match=r"not of one write"):
        read_vectors(path)
    assert len(read_vectors(path, names).doc_ids) == 60  # named by the user
    path.write_bytes(path.read_bytes()[:-4] + b"abcd")
    with pytest.raises(DataError, match=r"v\.npy: is not the file"):
        read_vectors(path, names)
