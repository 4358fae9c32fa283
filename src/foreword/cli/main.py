"""Parse the command line and run a command.

Exit codes: 0 done, 1 an error in the input (said on standard error), 2 a command line that cannot be understood,
130 interrupted.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

from foreword.cli.parser import build_parser
from foreword.common.errors import ForewordError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `foreword` with the arguments given (None: the process's own); returns the exit code."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    warnings.showwarning = _one_line_warning
    if os.environ.get("RANK", "0") != "0":  # of several processes that train together, the first one speaks
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # for the life of the process
    try:
        options.run(options)
        sys.stdout.flush()
    except ForewordError as error:
        print(f"foreword: error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("foreword: interrupted; the same command goes on from where it was", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a folder that cannot be written to, a full disk
        print(f"foreword: error: {error}", file=sys.stderr)
        return 1
    return 0


def _one_line_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if issubclass(category, UserWarning):  # a library's deprecations are not the user's business
        print(f"foreword: warning: {message}", file=sys.stderr)
