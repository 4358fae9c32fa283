"""The command line: `foreword COMMAND ...`."""

from foreword.cli.main import main

__all__ = ["main"]
