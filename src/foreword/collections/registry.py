"""Collections by name: `load("pydoc/torch")`, and the catalogue of the names there are."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from foreword.collections.records import Collection, Entry
from foreword.common.errors import UnknownNameError

FAMILIES = ("pydoc", "glasgow", "folder")
"""Each is a module here with `load(name, ...)`, `entries(data)` and `knows(name)`, imported when needed."""

_FOLDER = "folder"


def load(
    collection_id: str,
    *,
    data: Path | None = None,
    exclude: Iterable[Collection] = (),
    **options: Any,
) -> Collection:
    """A collection by its id.

    Args:
        collection_id: `pydoc/<package>`, `glasgow/<name>` or `folder:<path>`.
        data: the folder with the collection's files, where it needs any.
        exclude: collections whose texts must not occur in this one: the target that it will be a source for.
        options: of the family; see `load` of `pydoc`, `glasgow` and `folder`.

    Raises:
        UnknownNameError: no such collection (the message lists near matches) or option.
        DataError: its files are missing or broken.
    """
    family, name = split_id(collection_id)
    if family not in FAMILIES or not name:
        raise UnknownNameError(_unknown(collection_id))
    module = importlib.import_module(f"foreword.collections.{family}")
    family_load: Callable[..., Collection] = module.load
    known = set(inspect.signature(family_load).parameters) - {"name", "data", "exclude"}
    for option in options:
        if option not in known:
            have = ", ".join(sorted(known))
            raise UnknownNameError(f"{family} has no option {option!r}; it has {have}")
    if not module.knows(name):
        raise UnknownNameError(_unknown(collection_id))
    return family_load(name, data=None if data is None else Path(data), exclude=tuple(exclude), **options)


def catalogue(data: Path | None = None) -> list[Entry]:
    """Every collection known by name, those whose files are on this machine marked as available.

    Args:
        data: the folder to look for files in; FOREWORD_DATA without it.
    """
    modules = [importlib.import_module(f"foreword.collections.{family}") for family in FAMILIES]
    return [entry for module in modules for entry in module.entries(data)]


def split_id(collection_id: str) -> tuple[str, str]:
    """`("pydoc", "torch")` of `pydoc/torch`; `("folder", path)` of `folder:path`; `("", id)` of neither."""
    prefix = f"{_FOLDER}:"
    if collection_id.startswith(prefix):
        return _FOLDER, collection_id.removeprefix(prefix)
    family, slash, name = collection_id.partition("/")
    return (family, name) if slash and family != _FOLDER else ("", collection_id)


def _unknown(collection_id: str) -> str:
    near = near_matches(collection_id, [entry.id for entry in catalogue()])
    hint = f"did you mean {' or '.join(near)}?" if near else "`foreword collections` lists what there is."
    if collection_id.startswith("pydoc/"):
        hint += " Any installed package can follow pydoc/."
    if Path(collection_id).is_dir():
        hint = f"a folder is named {_FOLDER}:{collection_id}"
    return f"unknown collection {collection_id!r}; {hint}"


def near_matches(name: str, known: Sequence[str]) -> list[str]:
    """Up to three of the known names that a misspelt or shortened one may stand for, best first."""
    tails = {entry.rpartition("/")[2].casefold(): entry for entry in known}
    wanted = name.casefold()
    found = difflib.get_close_matches(wanted, list(known), n=3, cutoff=0.85)
    found += [tails[tail] for tail in difflib.get_close_matches(wanted.rpartition("/")[2], list(tails), n=3)]
    return list(dict.fromkeys(found))[:3]
