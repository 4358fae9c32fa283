"""`foreword serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foreword.cli.grammar import Add, Options, print_json
from foreword.errors import ForewordError, UnknownNameError

PACKAGES = ("fastapi", "uvicorn", "prometheus_client", "pydantic", "starlette")


def add(command: Add) -> None:
    """The grammar of the command."""
    parser = command(
        "serve",
        serve,
        "answer requests for embeddings (OpenAI's API) and searches, and show a page to search on",
        "foreword serve folder:my-notes pydoc/networkx --bank bank",
    )
    parser.add_argument(
        "collections", nargs="*", metavar="COLLECTION", help="embedded and searched in memory, e.g. folder:PATH"
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings in TOML; FOREWORD_SERVE_* and options are above them"
    )
    group = parser.add_argument_group("what is served")
    group.add_argument("--bank", type=Path, metavar="DIR", help="folder of prompts and mixtures")
    group.add_argument(
        "--prompt", type=Path, action="append", dest="prompts", metavar="PATH", help="a prompt more (again for others)"
    )
    group.add_argument(
        "--use",
        action="append",
        metavar="COLLECTION=PROMPT",
        help="search a collection with another's prompt (again for others)",
    )
    group.add_argument("--index", metavar="URI", help="a Milvus server, or the file of an embedded index")
    group.add_argument("--index-collection", metavar="NAME", help="of the index (default: foreword)")
    group.add_argument("--data", type=Path, metavar="DIR", help="folder of collections")
    group = parser.add_argument_group("backbone")
    group.add_argument("--backbone", metavar="NAME", help="folder or hub name (default: all-MiniLM-L6-v2)")
    group.add_argument("--revision", metavar="REV", help="of the backbone on the hub")
    group.add_argument("--device", metavar="DEVICE", help="as torch names it (default: an accelerator if there is one)")
    group.add_argument("--precision", choices=["float32", "bfloat16", "float16", "auto"], help="(default: float32)")
    group.add_argument("--max-length", type=int, metavar="TOKENS", help="texts are cut to (default: the backbone's)")
    group = parser.add_argument_group("where")
    group.add_argument("--host", metavar="ADDRESS", help="(default: 127.0.0.1)")
    group.add_argument("--port", type=int, help="0: a free one (default: 8000)")
    group.add_argument("--root-path", metavar="PATH", help="that a reverse proxy serves this below")
    group = parser.add_argument_group("batches and limits")
    group.add_argument("--wait-ms", type=float, metavar="MS", help="a text waits for others (default: 3)")
    group.add_argument("--batch-tokens", type=int, metavar="N", help="in one forward pass (default: 8192)")
    group.add_argument("--batch-texts", type=int, metavar="N", help="in one forward pass (default: 64)")
    group.add_argument("--queue-texts", type=int, metavar="N", help="that may wait; beyond: 503 (default: 8192)")
    group.add_argument("--max-texts", type=int, metavar="N", help="in a request (default: 2048)")
    group.add_argument("--max-tokens", type=int, metavar="N", help="in a request (default: 300000)")
    group.add_argument("--max-body-bytes", type=int, metavar="N", help="of a request (default: 8388608)")
    group.add_argument("--stop-seconds", type=int, metavar="S", help="for pending requests (default: 30)")
    parser.add_argument("--dry-run", action="store_true", help="print the effective configuration and stop")


_OWN = ("run", "command", "json", "config", "dry_run")


def serve(options: Options) -> None:
    """Serve until told to stop."""
    from foreword.serving.config import read_config

    given: dict[str, Any] = {name: value for name, value in vars(options).items() if name not in _OWN}
    for name in ("collections", "prompts"):
        given[name] = tuple(given[name]) if given[name] else None
    given["use"] = None if given["use"] is None else dict(_pair(text) for text in given["use"])
    config = read_config(options.config, given)
    if options.dry_run:
        print_json(config.as_dict())
        return
    try:
        from foreword.serving.app import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in PACKAGES:
            raise
        raise ForewordError(f"foreword serve needs {error.name}: pip install 'foreword[serve]'") from error
    run(config)


def _pair(text: str) -> tuple[str, str]:
    collection, equals, prompt = text.partition("=")
    if not equals or not collection or not prompt:
        raise UnknownNameError(f"--use is {text!r}; expected COLLECTION=PROMPT")
    return collection, prompt
