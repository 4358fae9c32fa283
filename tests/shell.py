"""The command line, run in this process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from foreword.cli import main


class Shell:
    """Runs commands and keeps what they print."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: object, code: int = 0) -> str:
        self.capsys.readouterr()
        got = main([str(argument) for argument in arguments])
        self.printed = self.capsys.readouterr()
        assert got == code, self.printed.err
        return self.printed.out

    def json(self, *arguments: object) -> Any:
        return json.loads(self(*arguments, "--json"))

    def fails(self, *arguments: object) -> str:
        """An error: code 1, one line on standard error, nothing on standard output."""
        assert self(*arguments, code=1) == ""
        lines = [line for line in self.printed.err.splitlines() if not line.startswith("foreword: warning:")]
        assert len(lines) == 1
        assert lines[0].startswith("foreword: error: ")
        return lines[0]

    def usage(self, *arguments: object) -> str:
        """A command line that is not understood: code 2."""
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        assert stopped.value.code == 2
        return self.capsys.readouterr().err
