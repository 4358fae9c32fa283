"""What a group is evaluated with, and how."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from foreword.common.errors import ForewordError
from foreword.prompts.encoder import Precision

_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")


@dataclass(frozen=True)
class System:
    """One column of the table.

    Attributes:
        name: a word; files are named by it.
        kind: `base`, the backbone without prompts; `bm25`; `prompt`, one prompt or mixture for every collection;
            `bank`, a folder with a prompt or mixture for each.
        path: of the prompt or the bank.
    """

    name: str
    kind: Literal["base", "bm25", "prompt", "bank"]
    path: Path | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ForewordError(f"a system is named {self.name!r}; expected letters, digits and any of . _ + -")
        if self.kind not in ("base", "bm25", "prompt", "bank"):
            raise ForewordError(f"system {self.name} is of kind {self.kind!r}; expected base, bm25, prompt or bank")
        if (self.path is None) != (self.kind in ("base", "bm25")):
            raise ForewordError(f"system {self.name} of kind {self.kind} has the path {self.path}")


@dataclass(frozen=True)
class GroupConfig:
    """How a group is evaluated.

    Attributes:
        measures: as ir_measures names them; the group's headline measure is added where it is missing.
        k: hits a query; None: as many as the measures look at.
        query_length: tokens a query is cut to; None: the encoder's limit.
        document_length: tokens a document is cut to; None: the encoder's limit.
        precision: of the forward passes.
        batch_size: texts in one forward pass.
        splits: collection -> split, over `members.HEADLINE_SPLITS`; elsewhere `test`.
    """

    measures: tuple[str, ...] = ("nDCG@10", "R@100", "Success@20")
    k: int | None = None
    query_length: int | None = None
    document_length: int | None = None
    precision: Precision = "float32"
    batch_size: int = 64
    splits: Mapping[str, str] = field(default_factory=dict)
