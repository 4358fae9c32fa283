"""HTML and SVG elements as strings, escaped unless they are elements already."""

from __future__ import annotations

import html
from collections.abc import Iterable

_VOID = frozenset({"br", "link", "meta"})


class Markup(str):
    """Text that is HTML already; every other string is escaped when it becomes part of an element."""

    __slots__ = ()


Child = str | int | float | None | Iterable["Child"]


def escape(value: object) -> str:
    """`value` as text that is safe between tags and inside quoted attributes."""
    text = str(value).encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair cannot be written
    return html.escape(text, quote=True)


def element(name: str, /, *children: Child, **attributes: object) -> Markup:
    """One element with its children.

    Args:
        name: the tag.
        children: text (escaped), elements, or nested lists of both; None is left out.
        attributes: `class_` is written `class`, `aria_label` `aria-label`; None and False are left out, True
            is a bare attribute.
    """
    written = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        written.append(f" {key}" if value is True else f' {key}="{escape(value)}"')
    opened = f"<{name}{''.join(written)}>"
    return Markup(opened if name in _VOID else f"{opened}{_inner(children)}</{name}>")


def _inner(child: Child) -> str:
    """A child, or a nested list of them, as one string."""
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str | int | float):
        return escape(child)
    return "".join(map(_inner, child))
