"""Walks a page as a reader does: its commands and Python blocks from top to bottom, in a folder of its own.

`foreword serve` is started inside this process, and asked by the `curl` lines that follow it; whatever else comes next
stops it, as Ctrl-C would.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT, Command, blocks, commands_of
from shell import Shell

PORTS = ("localhost:8000", "127.0.0.1:8000")


class Walk:
    """What a page printed, by its lines, and what its Python blocks made.

    Attributes:
        said: line -> standard output, or for `curl` the body of the answer.
        statuses: the `curl` lines' statuses, in their order.
        made: the names of the Python blocks, which share one scope.
    """

    def __init__(self, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shell, self.monkeypatch = shell, monkeypatch
        self.said: dict[str, str] = {}
        self.statuses: list[int] = []
        self.made: dict[str, Any] = {"__name__": "page"}
        self._running = ExitStack()
        self._service: Any = None
        monkeypatch.setattr("foreword.serving.app.run", self._serve)

    def page(self, name: str, skip: Callable[[str], str | None], *, python: bool = True) -> Walk:
        """Run the page's blocks, save the lines that `skip` has a reason for."""
        with self._running:
            for block in blocks(name):
                if block.language == "sh":
                    for command in commands_of(block.code):
                        if skip(command.line) is None:
                            self.run(command)
                elif block.language == "python" and python:
                    self._stop()
                    exec(compile(block.code, name, "exec"), self.made)
                elif block.title and block.language in ("toml", "json"):
                    Path(block.title).write_text(block.code, encoding="utf-8")
        return self

    def run(self, command: Command) -> None:
        """Run one line."""
        program, *words = command.words
        if program == "curl":
            self.said[command.line] = self._curl(words)
            return
        if program == "export":
            self._export(command.line)
            return
        self._stop()
        if program == "python":
            self.monkeypatch.setattr(sys, "argv", words)
            runpy.run_path(str(ROOT / words[0]), run_name="__main__")
            return
        assert command.arguments is not None, command.line
        with open(command.source or os.devnull, encoding="utf-8") as given:
            self.monkeypatch.setattr("sys.stdin", given)
            out = self.said[command.line] = self.shell(*command.arguments)
        if command.target:
            Path(command.target).write_text(out, encoding="utf-8")

    def _serve(self, config: Any) -> None:
        from starlette.testclient import TestClient

        from foreword.serving.app import create_app

        self._service = self._running.enter_context(TestClient(create_app(config), base_url="http://localhost"))
        assert self._service.get("/health").status_code == 200
        assert "<html" in self._service.get("/").text

    def _stop(self) -> None:
        self._service = None
        self._running.close()

    def _curl(self, words: list[str]) -> str:
        method, headers, content, url = None, {}, None, ""
        rest = iter(words)
        for word in rest:
            if word == "-X":
                method = next(rest)
            elif word == "-H":
                name, _, value = os.path.expandvars(next(rest)).partition(": ")
                headers[name] = value
            elif word == "-d":
                content = next(rest)
            elif word != "-s":
                url = word
        port = next(port for port in PORTS if url.startswith(port))
        assert self._service is not None, f"no service runs: {url}"
        answer = self._service.request(
            method or ("GET" if content is None else "POST"), url.removeprefix(port), headers=headers, content=content
        )
        self.statuses.append(answer.status_code)
        return str(answer.text)

    def _export(self, line: str) -> None:
        name = line.split()[1].partition("=")[0]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        run = ["bash", "-c", f"{line}; printenv {name}"]
        value = subprocess.run(run, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True)
        self.monkeypatch.setenv(name, value.stdout.strip())
