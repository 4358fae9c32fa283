"""docs/export.md: its commands and its Python, with a tiny backbone and a toy collection in place of its own."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import SentenceTransformer
from shell import Shell
from tiny import random_prompt, toy_collection

from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import load_prompt, save_prompt

pytest.importorskip("onnxscript")

PAGE = Path(__file__).parents[1] / "docs" / "export.md"


def test_the_page(
    tmp_path: Path, tiny_bert: Path, encoder: SentenceTransformer, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("foreword.collections.registry.load", lambda name, **_: toy_collection(name))
    gated, prefix = PromptSpec("gated", 3), PromptSpec("prefix", 3)
    given = {"prompts/torch": gated, "prompts/torch-prefix": prefix, "bank/a": gated, "bank/b": gated}
    for seed, (place, spec) in enumerate(given.items()):
        domain = "pydoc/torch" if place.startswith("prompts/") else Path(place).name
        save_prompt(place, random_prompt(encoder, spec, seed), encoder, domain, dtype="float32")
    how = ["--backbone", tiny_bert, "--device", "cpu"]
    quick = ["--steps", "2", "--evaluate-every", "1"]
    made: dict[str, Any] = {}
    for language, block in re.findall(r"```(sh|python)\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL):
        if language == "python":
            exec(compile(block, "export.md", "exec"), made)
            continue
        for line in block.splitlines():
            program, *arguments = shlex.split(line)
            if program == "foreword":
                shell(*arguments, *how, *(quick if arguments[0] == "train" else []))
    assert made["model"].prompts["pydoc/torch"]
    for folder in ("torch-encoder", "torch-model", "torch-adapter", "onnx-model"):
        assert (tmp_path / folder / "README.md").is_file()
    again, first = load_prompt("prompts/torch-again"), load_prompt("prompts/torch-prefix")
    assert again.prompt.digest() == first.prompt.digest()
