"""Which backbones have met which collections in their own training; the facts are in `data/seen.json`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any


@cache
def facts() -> dict[str, Any]:
    """The contents of `data/seen.json`: `meaning`, and `backbones` with `names`, `source`, `seen` and `unseen`."""
    loaded: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "seen.json").read_text("utf-8"))
    return loaded


def seen(backbone: str, collection_id: str) -> bool | None:
    """Whether the backbone was trained on pairs of the collection, or of the source that it was taken from.

    What counts is said in `facts()["meaning"]`. The first backbone of the list that the name fits is used.

    Args:
        backbone: a hub name, or the last part of one (`all-MiniLM-L6-v2`); a folder is not known.
        collection_id: as given to `foreword.load`; a fold (`...#fold1of5`) counts as its collection.

    Returns:
        None when it is not known.
    """
    about = _about(backbone)
    if about is None:
        return None
    base = collection_id.partition("#")[0]
    if _fits(base, about["seen"]):
        return True
    return False if _fits(base, about["unseen"]) else None


def table() -> list[dict[str, str]]:
    """A row for each backbone and collection that it has seen: `backbone, collection, through, source`."""
    return [
        {"backbone": name, "collection": collection, "through": through, "source": about["source"]}
        for about in facts()["backbones"]
        for name in about["names"]
        for collection, through in about["seen"].items()
    ]


def _about(backbone: str) -> dict[str, Any] | None:
    bare = "/" not in backbone
    for about in facts()["backbones"]:
        names = [name.rpartition("/")[2] if bare else name for name in about["names"]]
        if _fits(backbone, names):
            found: dict[str, Any] = about
            return found
    return None


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
