"""What the checks of `test_defects.py` share: a case, and a bench with a tiny model, files and a command line.

Every check works on files and models that it makes itself, so that it runs alone and in any order.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import SentenceTransformer
from tiny import toy_collection

from foreword.cli import main
from foreword.collections.collection import MemoryCollection
from foreword.prompts.loading import load_encoder
from foreword.training.config import TrainingConfig

QUICK = TrainingConfig(
    side="both",
    steps=4,
    batch_size=8,
    evaluate_every=4,
    learning_rate=0.05,
    precision="float32",
    dtype="float32",
    dev_folds=0,
)


@dataclass(frozen=True)
class Case:
    """One fault of the original system: a check that it is not here, and the fault itself, to prove the check."""

    check: Callable[[Bench], None]
    put_back: Callable[[pytest.MonkeyPatch], None]
    """Puts the original's fault into our code."""
    sees: str
    """What the check's AssertionError then says, so that it does not fail for some other reason."""

    @property
    def name(self) -> str:
        """The check's own, which says the fault in words."""
        return self.check.__name__


@dataclass(frozen=True)
class Bench:
    """What a check works with."""

    tmp: Path
    """An empty folder."""
    model: Path
    """A tiny BERT of 48 positions."""
    patch: pytest.MonkeyPatch

    def encoder(self, **how: Any) -> SentenceTransformer:
        """The tiny model, loaded anew."""
        return load_encoder(str(self.model), device="cpu", **how)

    def shell(self, *arguments: object) -> tuple[int, str, str]:
        """Run `foreword`: the exit code, what it prints, and what it says on standard error."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main([str(argument) for argument in arguments])
            except SystemExit as stopped:  # a command line that cannot be understood
                code = int(stopped.code or 0)
        return code, out.getvalue(), err.getvalue()

    def on_the_tiny_model(self) -> tuple[object, ...]:
        """The options that give a command this model."""
        return "--backbone", self.model, "--device", "cpu", "--precision", "float32"


@contextlib.contextmanager
def refused(kind: type[Exception], words: str, otherwise: str) -> Iterator[None]:
    """Fail with `otherwise` unless the block raises such an error that says `words` (a pattern)."""
    said = None
    try:
        yield
    except kind as error:
        said = str(error)
    assert said is not None, otherwise
    assert re.search(words, said), f"refused for another reason: {said}"


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def write_jsonl(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """One object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def write_qrels(path: Path, judged: Mapping[str, Mapping[str, int]]) -> None:
    """BEIR's judgements, with their header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{query}\t{doc}\t{grade}\n" for query, docs in judged.items() for doc, grade in docs.items()]
    path.write_text("query-id\tcorpus-id\tscore\n" + "".join(lines), encoding="utf-8")


def write_beir(folder: Path, collection: MemoryCollection | None = None, **toy: Any) -> Path:
    """A collection in BEIR's layout, titles and metadata included; by default a toy one, made with `toy`."""
    collection = collection or toy_collection(**toy)
    corpus = [{"_id": d.doc_id, "title": "", "text": d.text, "metadata": {"url": "u"}} for d in collection.corpus]
    texts = {query.query_id: query.text for split in collection.splits for query in collection.queries(split)}
    write_jsonl(folder / "corpus.jsonl", corpus)
    write_jsonl(
        folder / "queries.jsonl",
        [{"_id": name, "text": text, "metadata": {"asked": f"by {name}"}} for name, text in texts.items()],
    )
    for split in collection.splits:
        write_qrels(folder / "qrels" / f"{split}.tsv", collection.qrels(split))
    return folder
