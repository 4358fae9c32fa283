"""Collections by name: `load("pydoc/torch")`, and the catalogue of the names there are."""

from __future__ import annotations

import difflib
import pkgutil
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from foreword.collections.collection import Collection, Entry
from foreword.collections.family import Family
from foreword.collections.hub_datasets import TableCollection, holds_tables
from foreword.collections.supervision import FoldCollection, split_fold
from foreword.collections.views import Slice, Templated
from foreword.errors import UnknownNameError
from foreword.files import kept_json, read_json

FAMILIES = {
    "pydoc": "pydoc.collection:PYDOC",
    "glasgow": "glasgow:GLASGOW",
    "dpr": "dpr:DPR",
    "beir": "beir:BEIR",
    "cqadupstack": "beir:CQADUPSTACK",
    "oag-qa": "oag_qa:TOPICS",
    "oag-qa-disciplines": "oag_qa:DISCIPLINES",
    "folder": "folder:FOLDER",
    "ir_datasets": "ir_datasets_source:IR_DATASETS",
    "hf": "hub_datasets:HUB_DATASETS",
}
"""Each `Family` by its name: its module here and its name there, imported when needed."""

_WITH_COLON = ("folder", "ir_datasets", "hf")
"""Families of any name at all: `folder:PATH`. The others' ids have a slash: `pydoc/torch`."""

_IS_PATH = re.compile(r"/|~|\.\.?(/|$)")


def load(
    collection_id: str,
    *,
    data: Path | None = None,
    exclude: Iterable[Collection] = (),
    document_template: str | None = None,
    query_template: str | None = None,
    part: Part | None = None,
    **options: Any,
) -> Collection:
    """A collection by its id.

    Args:
        collection_id: `pydoc/<package>`, `glasgow/<name>`, `dpr/<name>`, `beir/<name>`,
            `cqadupstack/<forum>`, `oag-qa/<topic>`, `oag-qa-disciplines/<discipline>`, `folder:<path>`,
            `ir_datasets:<id>` or `hf:<repository>`; a folder's path alone stands for `folder:<path>`. With
            `#fold<i>of<k>` behind it: fold i (from 1) of its test queries, the others for training.
        data: the folder with the collection's files, where it needs any; None: FOREWORD_DATA, else the cache.
        exclude: collections whose texts must not occur in this one: the target that it will be a source for.
        document_template: what is embedded of a document, e.g. `{title} {text}`, which is also the default.
        query_template: what is embedded of a query, e.g. `{text}`, which is also the default.
        part: only these of its documents, and no queries; see `parts_of`.
        options: of the family; see `open` of its class.

    Raises:
        UnknownNameError: no such collection (the message lists near matches) or option.
        DataError: its files are missing or broken.
    """
    base, fold = split_fold(full_id(collection_id, data))
    family = family_of(base)
    known = family.options()
    for option in options:
        if option not in known:
            have = f"it has {', '.join(sorted(known))}" if known else "it has none"
            raise UnknownNameError(f"{family.name} has no option {option!r}; {have}")
    folder = None if data is None else Path(data)
    collection = family.load(split_id(base)[1], data=folder, exclude=tuple(exclude), **options)
    if isinstance(part, str):
        assert isinstance(collection, TableCollection)
        collection = collection.shard(Path(part))
    elif part is not None:
        collection = Slice(collection, *part)
    if fold is not None:
        collection = FoldCollection(collection, fold)
    if document_template or query_template:
        collection = Templated(collection, document_template, query_template)
    return collection


Part = str | tuple[int, int]
"""Some of a collection's documents: one file's, by its path, or those from a number (from 0) to before another."""

LEAST_PART, MOST_PARTS = 1000, 64


def parts_of(name: str, data: Path | None = None) -> list[Part]:
    """How the documents of a collection are shared out, the same way each time, in their order.

    A part is a file where they are in several. Else they are counted, and cut into at most `MOST_PARTS` ranges of
    `LEAST_PART` documents or more; to read a range is to read what stands before it, too.
    """
    collection = load(name, data=data)
    if isinstance(collection, TableCollection) and len(collection.shards) > 1:
        return [str(path) for path in collection.shards]
    count = sum(1 for _ in collection.documents())
    size = max(LEAST_PART, -(-count // MOST_PARTS))
    return [(first, min(first + size, count)) for first in range(0, count, size)]


def full_id(name: str, data: Path | None = None) -> str:
    """The id that a name stands for: of a folder's path alone `folder:<path>`, of every other name itself.

    Where a folder's documents are in tables, its path alone stands for `hf:<path>`.

    Args:
        name: a path begins with `/`, `./`, `../` or `~`, or leads to what is there; a family's name before a slash is
            that of its collections, so a folder of such a name is written `./pydoc/torch`.
        data: where `folder:` paths start from; a path alone starts from the current folder all the same.
    """
    path, fold = split_fold(name)
    if split_id(path)[0] in FAMILIES or not (_IS_PATH.match(path) or (path and Path(path).exists())):
        return name
    found = Path(path).expanduser().resolve() if data is not None else path
    family = "hf" if holds_tables(Path(path).expanduser()) else "folder"
    return f"{family}:{found}{'' if fold is None else fold.suffix}"


def family_of(collection_id: str) -> Family:
    """A collection's family. Raises `UnknownNameError` when there is no such collection."""
    family, name = split_id(collection_id)
    if family not in FAMILIES or not name or not (found := family_named(family)).knows(name):
        folders = [path.name for path in Path().iterdir() if path.is_dir()]
        near = near_matches(collection_id, [*(entry.id for entry in catalogue()), *folders])
        hint = f"did you mean {' or '.join(near)}?" if near else "`foreword collections` lists what there is."
        if collection_id.startswith("pydoc/"):
            hint += " Any installed package can follow pydoc/."
        raise UnknownNameError(f"unknown collection {collection_id!r}, and no folder of that name here; {hint}")
    return found


def family_named(name: str) -> Family:
    """The family of a name in `FAMILIES`."""
    found: Family = pkgutil.resolve_name(f"foreword.collections.{FAMILIES[name]}")
    return found


def catalogue(data: Path | None = None) -> list[Entry]:
    """Every collection known by name, those whose files are on this machine marked as available.

    Args:
        data: the folder to look for files in; None: FOREWORD_DATA, else the cache.
    """
    return [entry for name in FAMILIES for entry in family_named(name).entries(data)]


def split_id(collection_id: str) -> tuple[str, str]:
    """`("pydoc", "torch")` of `pydoc/torch`; `("folder", path)` of `folder:path`; `("", id)` of neither."""
    for family in _WITH_COLON:
        if collection_id.startswith(f"{family}:"):
            return family, collection_id.removeprefix(f"{family}:")
    family, slash, name = collection_id.partition("/")
    return (family, name) if slash and family not in _WITH_COLON else ("", collection_id)


def near_matches(name: str, known: Sequence[str]) -> list[str]:
    """Up to three of the known names that a misspelt or shortened one may stand for, best first."""
    tails = {entry.rpartition("/")[2].casefold(): entry for entry in known}
    wanted = name.casefold()
    found = difflib.get_close_matches(wanted, list(known), n=3, cutoff=0.85)
    found += [tails[tail] for tail in difflib.get_close_matches(wanted.rpartition("/")[2], list(tails), n=3)]
    return list(dict.fromkeys(found))[:3]


# Groups of collections: `beir`, `oag-qa`, ... by name; what they hold is in `data/groups.json`.


INSTALLED = ("pydoc",)
"""Groups that hold what is installed on a machine, and nothing else."""


@cache
def _facts() -> dict[str, dict[str, Any]]:
    path = Path(__file__).parent / "data" / "groups.json"
    loaded: dict[str, dict[str, Any]] = read_json(path)
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
        group: its name; for `pydoc`, what is not installed is not in it.
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
        entries = family_named(about["family"]).entries(data)
        return tuple(entry.id for entry in entries if group not in INSTALLED or entry.available)
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


# Which collections hold the same data: CQADupStack and its forums, OAG-QA's disciplines and topics, folds, samples.


_FOLDER = "folder:"


def canonical(collection_id: str) -> str:
    """One spelling for an id: a folder by its absolute path."""
    base, fold = split_fold(collection_id)
    if base.startswith(_FOLDER):
        base = f"{_FOLDER}{Path(base.removeprefix(_FOLDER)).expanduser().resolve()}"
    return base if fold is None else f"{base}{fold.suffix}"


def parts(collection_id: str) -> frozenset[str]:
    """The collections that one is made of; of most, itself alone. A fold, and a sample, counts as its collection."""
    base = split_fold(canonical(collection_id))[0]
    if base == "beir/cqadupstack":
        return frozenset(f"cqadupstack/{forum}" for forum in family_named("cqadupstack").names())
    family, _, name = base.partition("/")
    if family == "oag-qa-disciplines":
        return frozenset(f"oag-qa/{topic}" for topic in family_named(family).names().get(name, ()))
    # A broken record means nothing here: the collection itself says what is wrong when it is loaded.
    folder = base.removeprefix(_FOLDER) if base.startswith(_FOLDER) else None
    record = None if folder is None else kept_json(Path(folder) / "subsample.json")
    source = record.get("source") if isinstance(record, dict) else None
    own = parts(source) if isinstance(source, str) and canonical(source) != base else ()
    return frozenset({base, *own})


def overlap(one: str, other: str) -> bool:
    """Whether two collections share data, so that what was trained on one has seen the other."""
    return bool(parts(one) & parts(other))
