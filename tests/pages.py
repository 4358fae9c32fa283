"""The documentation's pages: their blocks of code, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

_FENCE = re.compile(r'^```(\w+)(?: title="([^"]*)")?\n(.*?)^```', re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its title (or nothing), and what stands in it."""

    language: str
    title: str
    code: str


@dataclass(frozen=True)
class Command:
    """A line of a shell: the words of its last program, the file that it reads, the file that it writes to."""

    line: str
    words: tuple[str, ...]
    source: str = ""
    target: str = ""

    @property
    def arguments(self) -> list[str] | None:
        """What `foreword` is given, also behind a launcher; None: another program's line."""
        if self.words[0] in ("torchrun", "accelerate"):
            at = self.words.index("-m")
            assert self.words[at + 1] == "foreword", self.line
            return list(self.words[at + 2 :])
        return list(self.words[1:]) if self.words[0] == "foreword" else None


def page(name: str) -> str:
    """A page's text, by its path in the repository, or in `docs`."""
    path = ROOT / name if (ROOT / name).is_file() else DOCS / name
    return path.read_text(encoding="utf-8")


def written() -> list[str]:
    """Every page, by its path in the repository; those that only show another file are left out."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
    return [
        path.relative_to(ROOT).as_posix() for path in pages if not path.read_text(encoding="utf-8").startswith("--8<--")
    ]


def blocks(name: str, *languages: str) -> list[Block]:
    """The fenced blocks of a page, of these languages (none: of all), in their order."""
    found = [Block(*match) for match in _FENCE.findall(page(name))]
    return [block for block in found if not languages or block.language in languages]


def commands(name: str) -> list[Command]:
    """The commands of a page's shell blocks."""
    return [command for block in blocks(name, "sh", "bash") for command in commands_of(block.code)]


def commands_of(code: str) -> Iterator[Command]:
    """The commands in a block; lines that a backslash joins are one."""
    for line in code.replace("\\\n", " ").splitlines():
        if words := _words(line):
            yield _command(" ".join(line.split()), words)


def _words(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|<>")
    lexer.whitespace_split = True
    return list(lexer)


def _command(line: str, words: list[str]) -> Command:
    """The last program of a pipe; of one that `cat` begins, the file."""
    programs: list[list[str]] = [[]]
    source = target = ""
    rest = iter(words)
    for word in rest:
        if word == "|":
            programs.append([])
        elif word == "<":
            source = next(rest)
        elif word in (">", ">>"):
            target = next(rest)
        else:
            programs[-1].append(word)
    if programs[0][0] == "cat":
        source = programs[0][1]
    return Command(line, tuple(programs[-1]), source, target)
