"""What goes wrong outside the program: one line that says where and what to do, and the right exit code."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from shell import Shell

from foreword.cli.grammar import explained
from foreword.errors import DataError
from foreword.files import atomic_write
from foreword.prompts.loading import load_encoder

RUN = [sys.executable, "-m", "foreword"]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOENT, "no such file or folder"),
        (errno.EACCES, "choose a place that you may write to"),
        (errno.EROFS, "can only be read"),
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EISDIR, "is a folder; name a file"),
        (errno.EPIPE, os.strerror(errno.EPIPE)),  # of what has no cure, the system's own words
    ],
)
def test_errors_say_what_can_be_done(number: int, said: str) -> None:
    with_path = explained(OSError(number, os.strerror(number), "/some/where"))
    assert with_path.startswith("/some/where: ")
    assert said in with_path
    assert "Errno" not in with_path
    assert said in explained(OSError(number, os.strerror(number)))


def test_an_error_without_a_number_keeps_its_words() -> None:
    assert explained(OSError("4096 requested and 0 written")) == "4096 requested and 0 written"
    assert explained(OSError()) == "OSError"


def test_a_file_is_named_as_the_user_named_it(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "report.html"):
        (temporary,) = tmp_path.iterdir()
    full = OSError(errno.ENOSPC, "No space left on device", str(temporary))
    assert explained(full).startswith(f"{tmp_path / 'report.html'}: the disk is full")


def test_outputs_that_cannot_be(shell: Shell, beir: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    search = ("search", f"folder:{beir}", "words", "--system", "bm25", "--format", "trec", "--output")
    said = shell.fails(*search, tmp_path / "file" / "below" / "run.trec")
    assert f"{tmp_path / 'file'}" in said
    assert "Errno" not in said
    said = shell.fails(*search, tmp_path / "folder")
    assert "is a folder; name a file" in said
    assert [path.name for path in (tmp_path / "folder").iterdir()] == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_one_line_and_code_1() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*RUN, "collections", "--json"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "foreword: error: the disk is full; free some space, or choose a place on another disk\n"


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_reader_that_has_had_enough_is_no_error(form: list[str]) -> None:
    with subprocess.Popen([*RUN, "collections", *form], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 0


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("search nowhere x", "unknown collection 'nowhere'"),
        ("evaluate /nowhere", "/nowhere: no such folder"),
        ("search pydoc/tqdm x --prompt nowhere", "nowhere is no prompt: no such folder"),
        ("search pydoc/tqdm x --prompt bank", "bank is no prompt: .* give one of its prompts, e.g. bank/mine"),
        ("transfer pydoc/tqdm --bank nowhere", "nowhere is no bank"),
        ("export nowhere --to onnx --output x", "nowhere: no such folder"),
        ("push nowhere user/name", "nowhere: no such folder"),
        ("index stats nowhere.db", "there is no index nowhere.db"),
        ("serve --index nowhere.db", "there is no index nowhere.db"),
    ],
)
def test_what_is_not_there_is_said_before_torch_is_imported(tmp_path: Path, command: str, message: str) -> None:
    (tmp_path / "bank" / "mine").mkdir(parents=True)
    (tmp_path / "bank" / "mine" / "prompt.json").write_text("{}")
    code = (
        "import sys; from foreword.cli.main import main; code = main(sys.argv[1:]);"
        "assert 'torch' not in sys.modules, 'torch was imported'; sys.exit(code)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, *command.split()], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert found.returncode == 1
    assert re.fullmatch(f"foreword: error: {message}.*\n", found.stderr), found.stderr


HALF = "\\ud83c is half a surrogate pair"


@pytest.mark.parametrize("system", ["bm25", "dense"])
def test_halves_of_surrogate_pairs_name_their_line(
    shell: Shell, beir: Path, tiny_bert: Path, tmp_path: Path, system: str
) -> None:
    how = ("--system", system, *(("--backbone", tiny_bert) if system == "dense" else ()))
    for name in ("corpus", "queries"):
        folder = shutil.copytree(beir, tmp_path / name)
        lines = (folder / f"{name}.jsonl").read_text().splitlines()
        lines[1] = json.dumps({**json.loads(lines[1]), "text": "cut \ud83c"})
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
        said = shell.fails("evaluate", folder, "--measures", "AP", *how)
        assert f"{folder / name}.jsonl:2: {HALF}" in said
    (tmp_path / "asked.jsonl").write_text('{"_id": "q", "text": "cut \\ud83c"}')
    out = ("--backbone", tiny_bert, "--output", tmp_path / "v.npy")
    assert f"asked.jsonl:1: {HALF}" in shell.fails("encode", "--queries", tmp_path / "asked.jsonl", *out)


def test_a_text_that_no_tokenizer_takes(tiny_bert: Path) -> None:
    encoder = load_encoder(backbone=str(tiny_bert))
    for encode in (encoder.encode, encoder.encode_query, encoder.encode_document):
        with pytest.raises(DataError, match=re.escape(HALF)):
            encode(["whole", "cut \ud83c"])


def test_names_that_are_not_utf_8(shell: Shell, beir: Path, tmp_path: Path) -> None:
    odd = "caf\udce9"  # how Python gives b"caf\xe9"
    said = "'.*caf\\\\udce9.*' is not UTF-8"
    for words in (
        ("search", beir, odd, "--system", "bm25"),
        ("collections", odd),
        ("evaluate", beir, "--run", tmp_path / odd),
        ("train", beir, "--output", tmp_path / odd),
    ):
        assert re.search(said, shell.fails(*words))
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / f"{odd}.txt").write_text("a text")
    assert re.search(f"texts: the name {said}", shell.fails("search", tmp_path / "texts", "a", "--system", "bm25"))
