"""Groups of collections: `beir`, `oag-qa`, ... by name; what they hold is in `data/groups.json`."""

from __future__ import annotations

import difflib
import importlib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from foreword.collections.records import Entry
from foreword.collections.registry import FAMILIES, catalogue
from foreword.common.errors import UnknownNameError

INSTALLED = ("pydoc", "manpages")
"""Groups that hold what is installed on a machine, and nothing else."""


@cache
def _facts() -> dict[str, dict[str, Any]]:
    path = Path(__file__).parent / "data" / "groups.json"
    loaded: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8"))
    return loaded


def group_names() -> tuple[str, ...]:
    """The groups, as `--group` takes them."""
    return tuple(_facts())


def describe(group: str) -> str:
    """What a group is, in a few words."""
    return str(_facts()[group]["description"])


def members(group: str, data: Path | None = None) -> tuple[str, ...]:
    """The ids of a group's collections, in a fixed order.

    Args:
        group: its name; for `pydoc` and `manpages`, what is not installed is not in it.
        data: as for `catalogue`.

    Raises:
        UnknownNameError: no such group.
    """
    known = _facts()
    if group not in known:
        near = difflib.get_close_matches(group, list(known), n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}"
        raise UnknownNameError(f"no group {group!r}; {hint}")
    about = known[group]
    if "family" in about:
        family = importlib.import_module(f"foreword.collections.{FAMILIES[about['family']]}")
        return tuple(entry.id for entry in family.entries(data) if group not in INSTALLED or entry.available)
    ids = [name for other in about.get("includes", ()) for name in members(other, data)] + about.get("members", [])
    return tuple(dict.fromkeys(name for name in ids if name not in about.get("without", ())))


def grouped_catalogue(data: Path | None = None) -> Iterator[Entry]:
    """A row for each (group, collection): the catalogue's entry under the group's name.

    Forms like `folder:PATH`, which belong to no group, come last under their family's name.
    """
    entries = {entry.id: entry for entry in catalogue(data)}
    families = {about["family"] for about in _facts().values() if "family" in about} | {"beir"}
    for group, about in _facts().items():
        names = [e.id for e in entries.values() if e.group == about["family"]] if "family" in about else members(group)
        for name in names:
            yield replace(entries[name], group=group)
    yield from (entry for entry in entries.values() if entry.group not in families)
