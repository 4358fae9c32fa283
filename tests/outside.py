"""Another Python process, where Foreword can be kept from being imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

BLOCK = """
import importlib.abc, sys

class Nowhere(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "foreword":
            raise ModuleNotFoundError("No module named 'foreword'", name=name)

sys.meta_path.insert(0, Nowhere())
try:
    import foreword
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("foreword can be imported here")
"""
"""Python that makes Foreword impossible to import, however it is installed, and makes sure of it."""

SOURCES = Path(__file__).parents[1] / "src"


def run(code: str, given: Any, *, blocked: bool) -> Any:
    """Run `code` in a fresh, isolated interpreter; it has `given` and leaves JSON values in `answer`."""
    before = BLOCK if blocked else f"import sys; sys.path.insert(0, {str(SOURCES)!r})\n"
    after = "\nprint('ANSWER', json.dumps(answer))\n"
    read = "import json, sys; given = json.load(sys.stdin); answer = None\n"
    done = subprocess.run(
        [sys.executable, "-I", "-c", read + before + code + after],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("ANSWER"))[7:])
