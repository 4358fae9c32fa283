"""Completion, asked of a real bash; the other shells' scripts are checked where the shells are installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from shell import Shell

from foreword.collections.registry import group_names, members
from foreword.lab.recipe import recipe_names

pytest.importorskip("shtab")
BASH = shutil.which("bash")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from foreword.cli.main import build_parser, script

    path = tmp_path_factory.mktemp("completion") / "foreword.bash"
    path.write_text(script(build_parser(), "bash"))
    return path


def in_bash(script: Path, commands: str) -> list[str]:
    assert BASH is not None
    done = subprocess.run(
        [BASH, "--norc", "-c", f"source '{script}'\n{commands}"], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def completed(script: Path, *words: str) -> set[str]:
    """What bash offers for the last word."""
    line = " ".join(f"'{word}'" for word in ("foreword", *words))
    offered = f'COMP_WORDS=({line}); COMP_CWORD={len(words)}; _shtab_foreword; printf "%s\\n" "${{COMPREPLY[@]}}"'
    return set(in_bash(script, offered)) - {""}


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
class TestBash:
    def test_the_script_registers_itself(self, script: Path) -> None:
        assert in_bash(script, "complete -p foreword") == ["complete -o bashdefault -F _shtab_foreword foreword"]

    @pytest.mark.parametrize(
        ("words", "offered"),
        [
            (("tra",), {"train", "transfer"}),
            (("index", ""), {"build", "add", "update", "delete", "search", "stats"}),
            (("index", "st"), {"stats"}),
            (
                ("search", "glasgow/"),
                {f"glasgow/{name}" for name in ("adi", "cacm", "cisi", "cranfield", "lisa", "medline", "npl", "time")},
            ),
            (("search", "fold"), set()),  # a form to be filled in is no id
            (("search", "x", "--system", ""), {"dense", "bm25", "hybrid"}),
            (("evaluate", "--gro"), {"--group"}),
            (("evaluate", "--group", "beir"), {"beir", "beir-full", "beir-expanded"}),
            (("download", "dpr/n"), {"dpr/nq"}),
            (("download", "cqa"), {"cqadupstack", *members("cqadupstack")}),
            (("benchmark", ""), {"transfer", "in-domain", *recipe_names()}),
            (("ex",), {"explain", "export"}),
            (("completion", ""), {"bash", "zsh", "fish"}),
        ],
    )  # fmt: skip
    def test_words(self, script: Path, words: tuple[str, ...], offered: set[str]) -> None:
        assert completed(script, *words) == offered

    def test_groups_are_all_there(self, script: Path) -> None:
        assert completed(script, "collections", "--group", "") == set(group_names())

    def test_folders_and_files(self, script: Path, tmp_path: Path) -> None:
        (tmp_path / "bank").mkdir()
        (tmp_path / "bank.toml").write_text("")
        start = str(tmp_path / "b")
        assert completed(script, "transfer", "x", "--bank", start) == {str(tmp_path / "bank")}
        assert completed(script, "encode", "--queries", start) == {str(tmp_path / "bank"), str(tmp_path / "bank.toml")}


def test_the_command_prints_it(shell: Shell, script: Path) -> None:
    assert shell("completion", "bash").strip() == script.read_text().strip()
    assert "invalid choice: 'tcsh'" in shell.usage("completion", "tcsh")


@pytest.mark.parametrize("name", ["zsh", "fish"])
def test_other_shells(shell: Shell, tmp_path: Path, name: str) -> None:
    made = shell("completion", name)
    assert "_foreword_collections" in made
    assert "glasgow/cranfield" in made
    if name == "zsh":
        assert made.startswith("#compdef foreword\n")
    path = tmp_path / "script"
    path.write_text(made)
    if program := shutil.which(name):
        done = subprocess.run([program, "-n", str(path)], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


def test_without_shtab_it_is_named(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert "pip install 'foreword[completion]'" in shell.fails("completion", "bash")
