"""How commands end: the exit codes, and what an operating system's error means for the person at the terminal."""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130

EXIT_CODES = {
    DONE: "done, or the reader of a pipe has had enough",
    FAILED: "an error, said in one line on standard error",
    MISUSED: "a command line that cannot be understood",
    INTERRUPTED: "interrupted (Ctrl-C); the same command goes on from where it was",
}
"""Every exit code there is, as help prints them."""

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}")
"""The name under which `foreword.common.files.atomic_write` writes a file before it is whole."""

_CURES = {
    errno.ENOENT: "no such file or folder; check the path",
    errno.EACCES: "not permitted; choose a place that you may write to, or ask for the right to",
    errno.EPERM: "not permitted; choose a place that you may write to, or ask for the right to",
    errno.EROFS: "the file system can only be read; choose another place",
    errno.ENOSPC: "the disk is full; free some space, or choose a place on another disk",
    errno.EDQUOT: "your share of the disk is used up; free some space, or choose a place on another disk",
    errno.ENOTDIR: "a part of this path is a file, so nothing can be below it; choose another path",
    errno.EISDIR: "is a folder; name a file",
    errno.EEXIST: "is there already and is no folder; choose another path",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ENOTEMPTY: "the folder is not empty; choose another, or empty it",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n)",
    errno.ECONNREFUSED: "nobody answers there; is the server running, and is its address right?",
}


def explained(error: OSError) -> str:
    """An operating system's error in one line: where it happened, what it is, and what can be done."""
    said = _CURES.get(error.errno or 0) or error.strerror or str(error) or type(error).__name__
    if error.filename is None or isinstance(error.filename, int):
        return said
    path = Path(os.fsdecode(error.filename))
    written = _TEMPORARY.fullmatch(path.name)
    return f"{path.with_name(written['name']) if written else path}: {said}"


def let_go_of_output() -> None:
    """Send what is left for standard output nowhere, where it cannot be written: the interpreter would try again."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
