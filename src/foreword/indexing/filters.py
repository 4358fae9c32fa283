"""Filter expressions in Milvus's language: one domain's documents, and what a user asks of them besides."""

from __future__ import annotations

from foreword.indexing.errors import IndexingError

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def quoted(text: str) -> str:
    """A text as a string of Milvus's expressions."""
    return '"' + "".join(_ESCAPES.get(letter, letter) for letter in text) + '"'


def of_domain(domain: str, where: str | None = None) -> str:
    """The expression for one domain's documents that a further condition holds for.

    Args:
        domain: its name.
        where: a condition on `metadata["..."]`, `title`, `doc_id` or `TEXT_MATCH(text, "...")`; None or blank: all.

    Raises:
        IndexingError: `where` is not one whole condition, so that it could reach beyond the domain.
    """
    own = f"domain == {quoted(domain)}"
    if where is None or not where.strip():
        return own
    _check_whole(where)
    return f"{own} and ({where})"


def _check_whole(where: str) -> None:
    """Raise unless brackets close what they open and strings end: `1 == 1) or (1 == 1` would leave our brackets."""
    open_brackets: list[str] = []
    quote = ""
    escaped = False
    for letter in where:
        if quote:
            if escaped:
                escaped = False
            elif letter == "\\":
                escaped = True
            elif letter == quote:
                quote = ""
        elif letter in "\"'":
            quote = letter
        elif letter in "([":
            open_brackets.append({"(": ")", "[": "]"}[letter])
        elif letter in ")]" and (not open_brackets or open_brackets.pop() != letter):
            raise IndexingError(f"the condition {where!r} closes a bracket that it did not open")
    if quote or open_brackets:
        missing = quote or open_brackets[-1]
        raise IndexingError(f"the condition {where!r} is not whole: a {missing} is missing")
