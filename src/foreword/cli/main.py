"""Parse the command line and run a command.

Exit codes (`foreword --help` lists them; `foreword.cli.failures.EXIT_CODES`): 0 done, 1 an error (said in one line on
standard error), 2 a command line that cannot be understood, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

from foreword.cli.failures import DONE, FAILED, INTERRUPTED, explained, let_go_of_output
from foreword.cli.hubbing import bring
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
        bring(options)
        options.run(options)
        sys.stdout.flush()
    except ForewordError as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        print("foreword: interrupted; the same command goes on from where it was", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe has gone
        let_go_of_output()
    except OSError as error:  # a folder that cannot be written to, a full disk
        let_go_of_output()
        return _failed(explained(error))
    return DONE


def _failed(message: str) -> int:
    print(f"foreword: error: {' '.join(message.splitlines())}", file=sys.stderr)
    return FAILED


def _one_line_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if issubclass(category, UserWarning):  # a library's deprecations are not the user's business
        print(f"foreword: warning: {message}", file=sys.stderr)
