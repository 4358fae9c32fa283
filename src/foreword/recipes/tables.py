"""Frozen records from the tables of a TOML file: every key known and of its type, every error naming the key."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from foreword.common.errors import ForewordError

Record = TypeVar("Record")

_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def build(kind: type[Record], table: Mapping[str, Any], where: str) -> Record:
    """A record of a dataclass from a table; lists become tuples.

    Args:
        kind: the dataclass.
        table: its fields by name; those with a default may be left out.
        where: the file and the table, for messages.

    Raises:
        ForewordError: a key that is not known, missing or of another type, or a value that the record refuses.
    """
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # a dataclass
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise ForewordError(f"{where}: unknown key {', '.join(unknown)}; known: {', '.join(known)}")
    required = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]  # type: ignore[arg-type]
    missing = [name for name in required if name not in table]
    if missing:
        raise ForewordError(f"{where}: the key {', '.join(missing)} is missing")
    values = {name: _checked(value, hints[name], f"{where}: {name}") for name, value in table.items()}
    try:
        return kind(**values)
    except ForewordError as error:
        raise ForewordError(f"{where}: {error}") from error


def subtable(table: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """The table under a key, empty where there is none. Raises `ForewordError` when it is something else."""
    found = table.get(name, {})
    if not isinstance(found, dict):
        raise ForewordError(f"{where}: {name} is {found!r}; expected a table, [{name}]")
    return found


def _checked(value: Any, hint: Any, where: str) -> Any:
    """The value as its type wants it: a list as a tuple, a whole number for a float."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise ForewordError(f"{where} is {value!r}; expected a list of texts")
        return tuple(value)
    if get_origin(hint) is not None:  # a mapping, checked by the record itself
        return value
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ForewordError(f"{where} is {value!r}; expected {_NAMES.get(hint, hint)}")
    return value
