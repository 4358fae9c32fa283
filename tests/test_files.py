"""Texts from outside, in whatever form they come; records of what was made from what, and their digests."""

import codecs
import gzip
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from foreword.collections import load
from foreword.collections.supervision import subsample
from foreword.downloads.archives import extract
from foreword.errors import DataError
from foreword.exporting.folder import new_folder
from foreword.files import (
    LOCK,
    as_json,
    atomic_write,
    json_digest,
    json_lines,
    kept_json,
    owned,
    read_json,
    read_toml,
    scratch_folder,
    text_lines,
    write_json,
)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_is_written_to_and_keeps_its_name(tmp_path: Path) -> None:
    """As /dev/stdout and /dev/null are, which root would otherwise replace by a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(pipe.read_text)
        write_json(pipe, {"a": 1})
        assert read.result(timeout=60) == '{\n  "a": 1\n}\n'
    assert pipe.is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_record_read_back_equals_what_it_was_written_from(tmp_path: Path) -> None:
    value = {"lengths": (32, 256), "by": {1: "one"}, "path": tmp_path}
    write_json(tmp_path / "record.json", as_json(value))
    assert kept_json(tmp_path / "record.json") == read_json(tmp_path / "record.json") == as_json(value)
    assert as_json(value) == {"lengths": [32, 256], "by": {"1": "one"}, "path": str(tmp_path)}


def test_a_missing_or_broken_record_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{"a": ')
    (tmp_path / "odd.json").write_bytes(b'{"a": "\xff"}')
    assert [kept_json(tmp_path / name) for name in ("none.json", "cut.json", "odd.json")] == [None, None, None]
    with pytest.raises(DataError, match=r"cut\.json: broken JSON .*; make it again"):
        read_json(tmp_path / "cut.json", "make it again")


def test_equal_values_have_one_digest() -> None:
    assert json_digest({"b": 1, "a": (2, 3)}) == json_digest({"a": [2, 3], "b": 1})
    assert json_digest([1]) == "080a9ed428559ef602668b4c00f114f1a11c3f6b02a435f0bdc154578e4d7f22"


# Texts from outside.

LINES = [
    "q1 Q0 d\u00fc 1 2.5 tag",
    "",
    "q1 Q0 d\u20282\U0001f31f 2 1.5 tag",
]  # what str.splitlines would part stays whole
FORMS = {
    "plain": "\n".join(LINES).encode(),
    "ended": "".join(f"{line}\n" for line in LINES).encode(),
    "mark": "\n".join(LINES).encode("utf-8-sig"),
    "windows": "\r\n".join(LINES).encode(),
    "old mac": "\r".join(LINES).encode(),
    "utf-16": "\r\n".join(LINES).encode("utf-16"),
    "utf-16 big": codecs.BOM_UTF16_BE + "\n".join(LINES).encode("utf-16-be"),
    "utf-32": "\n".join(LINES).encode("utf-32"),
    "gzip": gzip.compress("\n".join(LINES).encode("utf-8-sig")),
}


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes, str], Path | None]:
    """Bytes as a file, or as standard input: a pipe, filled in pieces that part letters and line ends."""

    def give(data: bytes, where: str) -> Path | None:
        if where == "file":
            (tmp_path / "text").write_bytes(data)
            return tmp_path / "text"
        reading, writing = os.pipe()
        stream = stack.enter_context(open(reading, encoding="utf-8"))  # noqa: SIM115
        monkeypatch.setattr("sys.stdin", stream)

        def fill() -> None:
            with open(writing, "wb", buffering=0) as file:
                for at in range(0, len(data), 7):
                    file.write(data[at : at + 7])

        thread = threading.Thread(target=fill)
        thread.start()
        stack.callback(thread.join)
        return None

    with ExitStack() as stack:
        yield give


@pytest.mark.parametrize("where", ["file", "standard input"])
@pytest.mark.parametrize("form", FORMS)
def test_a_text_is_the_same_in_every_form(form: str, where: str, given: Callable[[bytes, str], Path | None]) -> None:
    assert list(text_lines(given(FORMS[form], where))) == list(enumerate(LINES, 1))


@pytest.mark.parametrize("where", ["file", "standard input"])
@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("one\ntwo caf\u00e9\n".encode("latin-1"), r":2: not UTF-8 \(byte 8 of the line\)"),
        (b"one\r\rt\xc3", r":3: not UTF-8 \(byte 2 of the line\)"),
        (b"\xff\xfea\x00\n\x00\x00\xd8", r":[12]: not UTF-16"),
        (gzip.compress(b"one\n" * 99, mtime=0)[:-9], r": broken gzip file"),
    ],
)
def test_bytes_that_are_no_text_are_told_with_their_line(
    data: bytes, said: str, where: str, given: Callable[[bytes, str], Path | None]
) -> None:
    with pytest.raises(DataError, match=("text" if where == "file" else "standard input") + said):
        list(text_lines(given(data, where)))


def test_a_line_of_many_chunks_is_one_line(tmp_path: Path) -> None:
    long = "\u00e4" * 300_000
    (tmp_path / "text").write_text(f"{long}\nb\n{long}", "utf-8")
    assert list(text_lines(tmp_path / "text")) == [(1, long), (2, "b"), (3, long)]


DEEP, DIGITS = 100_000, "9" * 5000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * DEEP + "]" * DEEP, "nested too deeply"),
        ('{"a":' * DEEP + "1" + "}" * DEEP, "nested too deeply"),
        (DIGITS, "broken JSON .*digits"),
        ('{"text": "cut \\ud83c"}', r"\\ud83c is half a surrogate pair"),
        ('[{"\\udf1f": 1}]', r"\\udf1f is half a surrogate pair"),
    ],
)
def test_json_that_nothing_can_hold(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"value\.json: .*{said}"):
        read_json(path)
    assert kept_json(path) is None
    path.write_text('{"text": "whole \\ud83c\\udf1f"}\n' + text)
    with pytest.raises(DataError, match=rf"value\.json:2: .*({said}|expected a JSON object)"):
        list(json_lines(path))


@pytest.mark.parametrize(
    ("text", "said"),
    [(f"a = {DIGITS}", "digits"), ("a = " + "[" * DEEP + "]" * DEEP, "as TOML"), ("a", "as TOML")],
)
def test_toml_that_nothing_can_hold(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(DataError, match=rf"plan\.toml: .*{said}"):
        read_toml(tmp_path / "plan.toml")


def test_marks_and_line_ends_of_json_and_toml(tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "a").write_bytes('{"a":\r\n "\u00fc"}'.encode(encoding))
        assert read_json(tmp_path / "a") == {"a": "\u00fc"}
        (tmp_path / "b").write_bytes("a = '\u00fc'\r\nb = 1".encode(encoding))
        assert read_toml(tmp_path / "b") == {"a": "\u00fc", "b": 1}


# -- what kills leave behind, and who may write ------------------------------------------------------------------------

WRITE = """
import os, signal, sys
from foreword.files import atomic_write, scratch_folder
from pathlib import Path
path = Path(sys.argv[1])
if sys.argv[2] == "file":
    with atomic_write(path) as file:
        file.write("half")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
with scratch_folder(path) as folder:
    (folder / "big").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_next_run_removes_what_a_killed_one_left(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a[1].json"
    assert subprocess.run([sys.executable, "-c", WRITE, path, kind]).returncode == -signal.SIGKILL
    [left] = tmp_path.iterdir()
    assert left.name.startswith(".a[1].json.")
    (tmp_path / ".a[1].json.original").write_text("the user's")
    (tmp_path / ".b.json.abcdefgh.part").write_text("another's")
    if kind == "file":
        with atomic_write(path) as outer, atomic_write(path) as inner:  # one that is being written is left alone
            outer.write("outer")
            inner.write("inner")
        assert path.read_text() == "outer"
    else:
        with scratch_folder(path) as outer_folder, scratch_folder(path) as inner_folder:
            assert outer_folder.is_dir()
            assert inner_folder.is_dir()
    kept = {".a[1].json.original", ".b.json.abcdefgh.part"} | ({path.name} if kind == "file" else set())
    assert {one.name for one in tmp_path.iterdir()} == kept


def extracted(folder: Path, beir: Path) -> None:
    with zipfile.ZipFile(folder.parent.parent / "a.zip", "w") as archive:
        archive.writestr("a.txt", "words")
    extract(folder.parent.parent / "a.zip", folder, limit=1000)


def exported(folder: Path, beir: Path) -> None:
    with new_folder(folder) as made:
        (made / "a.txt").write_text("words")


@pytest.mark.parametrize(
    "make", [extracted, exported, lambda folder, beir: subsample(load(f"folder:{beir}"), folder, documents=9)]
)
def test_nothing_is_left_once_a_folder_has_its_name(
    tmp_path: Path, beir: Path, make: Callable[[Path, Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is killed then is told the next time that the folder is there, and nobody tidies up."""
    monkeypatch.setattr("foreword.files.shutil.rmtree", lambda *_, **__: None)
    (tmp_path / "in").mkdir()
    make(tmp_path / "in" / "out", beir)
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["out"]
    assert stat.S_IMODE((tmp_path / "in" / "out").stat().st_mode) == stat.S_IMODE((tmp_path / "in").stat().st_mode)


HOLD = """
import sys, time
from foreword.files import owned
with owned(sys.argv[1]):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def test_a_folder_is_owned_by_one_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", HOLD, folder, "2"], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with owned(folder):
            assert other.poll() is not None or other.wait(5) == 0  # it has ended
            with owned(folder):  # again, by the same thread
                assert (folder / LOCK).exists()
            assert (folder / LOCK).exists()
    assert f"{folder} is being written by process {other.pid}" in caplog.text
    assert not (folder / LOCK).exists()


def test_a_killed_owner_is_no_owner(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path, "60"], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        other.kill()
        other.wait()
    with owned(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_those_who_wait_take_turns(tmp_path: Path) -> None:
    """Many at once: nobody's read and write has another's in between, whoever removes the lock's name."""
    counter = tmp_path / "counter"
    counter.write_text("0")

    def add(_: int) -> None:
        with owned(tmp_path / "out"):
            value = int(counter.read_text())
            time.sleep(0.002)
            counter.write_text(str(value + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert counter.read_text() == "40"
