"""Settings: frozen dataclasses that check themselves, are read from files, and give a command its options.

A field says once what it is: its type what it may be (`Count`, a `Literal`), its default what it is, its line in the
class's docstring what it means. Importing this loads neither torch nor pydantic.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le

from foreword.errors import ForewordError, UnknownNameError

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

DEFAULT_BACKBONE = "sentence-transformers/all-MiniLM-L6-v2"

Precision = Literal["float32", "bfloat16", "float16", "auto"]
"""Of forward passes; `auto`: bfloat16 where the device multiplies it fast, else float32."""

EncodingPrecision = Literal[Precision, "int8"]
"""Of forward passes that nothing is learnt from."""

Side = Literal["query", "document"]
"""What a text is: the two sides of a retrieval encoder."""

SIDES: tuple[Side, Side] = ("query", "document")

PseudoQueries = Literal["auto", "title", "first-sentence", "span", "key-phrases", "mixed"]
"""How pseudo-queries are made of documents, see `foreword.collections.pseudo`."""

DOCUMENT, QUERY = "{title} {text}", "{text}"
"""What of a text is embedded, where no template says otherwise."""


Count = Annotated[int, Ge(1)]
Natural = Annotated[int, Ge(0)]
Tokens = Annotated[int, Ge(3), Le(2**31 - 1)]  # a text has one besides the first and the last; tokenizers count so far
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]


@dataclass(frozen=True, eq=False)
class OneOf:
    """What a text field may be: a name of a registry, whatever it holds by then."""

    names: Mapping[str, object]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import PydanticCustomError, core_schema

        def known(value: str) -> str:
            if value not in self.names:
                raise PydanticCustomError("literal_error", "{expected}", {"expected": ", ".join(self.names)})
            return value

        return core_schema.no_info_after_validator_function(known, handler(source))


@dataclass(frozen=True)
class Settings:
    """The base of settings. A field of a wrong type, value or range raises `refusal` when the object is made.

    Attributes:
        refusal: the error that is raised.
    """

    refusal: ClassVar[type[ForewordError]] = ForewordError

    def __post_init__(self) -> None:
        from pydantic import ValidationError

        for name, adapter in _adapters(type(self)).items():  # type: ignore[arg-type]  # mypy: a class that cannot be hashed
            try:
                adapter.validate_python(getattr(self, name), strict=True)
            except ValidationError as error:
                raise self.refusal(f"{name} is {getattr(self, name)!r}; {_said(error)}") from None

    def as_dict(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        return asdict(self)

    @classmethod
    def read(cls, values: Mapping[str, Any], where: str) -> Self:
        """Settings from a table of a file.

        Args:
            values: field -> value.
            where: the file and table, which messages begin with.

        Raises:
            UnknownNameError: a field that is not one.
            ForewordError: one is missing, or wrong.
        """
        known = {field.name: field for field in fields(cls)}
        if unknown := sorted(set(values) - set(known)):
            raise UnknownNameError(f"{where}: unknown key {', '.join(unknown)}; known: {', '.join(known)}")
        needed = [name for name, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
        if missing := [name for name in needed if name not in values]:
            raise cls.refusal(f"{where}: the key {', '.join(missing)} is missing")
        types_of = hints(cls)  # type: ignore[arg-type]  # mypy: a class that cannot be hashed
        plain = {name: _as_written(value, types_of[name]) for name, value in values.items()}
        try:
            return cls(**plain)
        except ForewordError as error:
            raise type(error)(f"{where}: {error}") from None


@cache
def hints(settings: type) -> dict[str, Any]:
    """The fields' types, with their bounds."""
    found = get_type_hints(settings, include_extras=True)
    return {field.name: found[field.name] for field in fields(settings)}


@cache
def meanings(settings: type) -> dict[str, str]:
    """What the fields mean, from `Attributes:` of the class's docstring and its bases', in one line each."""
    found: dict[str, str] = {}
    for one in reversed(settings.__mro__):
        text = inspect.cleandoc(one.__doc__ or "").partition("Attributes:\n")[2]
        for entry in re.split(r"\n(?= {4}\w+:)", "\n" + text.partition("\n\n")[0]):
            name, colon, meaning = entry.strip().partition(":")
            if colon:
                found[name] = " ".join(meaning.split())
    return found


def choices(hint: Any) -> tuple[Any, ...] | None:
    """The values of a `Literal`, None left out, or the names of a `OneOf`; None for other types."""
    kinds = _kinds(hint)
    if registered := [one for one in getattr(kinds[0], "__metadata__", ()) if isinstance(one, OneOf)]:
        return tuple(registered[0].names)
    if len(kinds) != 1 or get_origin(kinds[0]) is not Literal:
        return None
    return tuple(value for value in get_args(kinds[0]) if value is not None)


def number_or_text(hint: Any) -> type:
    """The one plain type of a field, as `int` of `Count | None`."""
    kind = _kinds(hint)[0]
    plain: type = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    return plain


def _as_written(value: Any, hint: Any) -> Any:
    """A file's value as its field has it: a list as a tuple, a whole number for a float."""
    if type(value) is int and number_or_text(hint) is float:
        return float(value)
    return tuple(value) if isinstance(value, list) else value


def _kinds(hint: Any) -> list[Any]:
    """The types that a field may have, without None."""
    united = get_origin(hint) in (Union, types.UnionType)
    return [kind for kind in (get_args(hint) if united else (hint,)) if kind is not type(None)]


@cache
def _adapters(settings: type) -> dict[str, TypeAdapter[Any]]:
    """What checks each field; one that is settings itself is checked when it is made."""
    from pydantic import TypeAdapter

    plain = {n: hint for n, hint in hints(settings).items() if not any(is_dataclass(kind) for kind in _kinds(hint))}
    return {name: TypeAdapter(hint) for name, hint in plain.items()}


_MISSED = {
    "greater_than_equal": "it is at least {ge:g}",
    "greater_than": "it is above {gt:g}",
    "less_than_equal": "it is at most {le:g}",
    "less_than": "it is below {lt:g}",
    "literal_error": "expected one of {expected}",
    "bool_type": "expected true or false",
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "string_type": "expected a text",
    "tuple_type": "expected a list of texts",
    "mapping_type": "expected a table",
}


def _said(error: ValidationError) -> str:
    """The first of pydantic's complaints, in our words."""
    first = error.errors()[0]
    context = dict(first.get("ctx", {}))
    if "expected" in context:
        context["expected"] = context["expected"].replace("'", "").replace(" or ", ", ")
    return _MISSED[first["type"]].format(**context) if first["type"] in _MISSED else first["msg"]
