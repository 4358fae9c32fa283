"""The errors that users meet: each says what was got, what was expected and how to mend it."""

from __future__ import annotations

from pathlib import Path


class ForewordError(Exception):
    """Base of every error that is the input's fault, not the program's; the command line exits with 1."""


class DataError(ForewordError):
    """A collection's file is broken. The message names the file, the line (from 1) and the remedy."""

    def __init__(self, message: str, *, path: Path | str | None = None, line: int | None = None) -> None:
        where = "" if path is None else f"{path}:{line}: " if line is not None else f"{path}: "
        super().__init__(f"{where}{message}")
        self.path = path
        self.line = line


class TooLittleTextError(DataError):
    """A collection has too little text for what was asked; what it started from can be used as it is."""


class UnknownNameError(ForewordError):
    """A name (collection, measure, system, option) that is not known; the message lists near matches."""


class BackboneError(ForewordError):
    """A backbone that cannot be found, or cannot carry the prompt asked for."""


class OtherTrainingError(ForewordError):
    """A folder holds a training of other settings or data than the one asked for."""


class PromptError(ForewordError):
    """A prompt that cannot be loaded, combined or used here."""
