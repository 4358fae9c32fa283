"""From a docstring to what is searched: its signature, its summary sentence, and the rest, as plain text."""

from __future__ import annotations

import inspect
import re

from foreword.collections.pseudo import split_first_sentence

_SIGNATURE_START = re.compile(r"(?:\w+\.)*(?P<name>\w+)[ ]?(?=\()")
_ARROW = re.compile(r"\s*->\s*(?P<returns>[^\n]+)")
_COMMENT = re.compile(r"\s*#[^\n]*")
_CLOSERS = {"(": ")", "[": "]", "{": "}"}

# Directives that only say when something changed, or only set up a page.
_NOISE = re.compile(
    r"^(?P<indent>[ \t]*)\.\. (?:versionadded|versionchanged|deprecated|index|currentmodule|module|"
    r"moduleauthor|sectionauthor|testsetup|testcleanup|plot|image|figure|toctree|autosummary|autofunction|autoclass|"
    r"automodule|automethod|include|only|highlight|contents|py:\w+|function|method|class|role|rubric)::[^\n]*"
    r"(?:\n(?=[ \t]*:[\w-]+:)[^\n]*)*\n?",
    re.MULTILINE,
)
_DIRECTIVE = re.compile(r"^[ \t]*\.\. (?P<name>[\w:-]*\w) ?::?[ \t]*(?P<argument>[^\n]*)", re.MULTILINE)
_LANGUAGES = frozenset({"code-block", "code", "sourcecode", "math", "doctest", "testcode", "parsed-literal"})
_TARGET = re.compile(r"^[ \t]*\.\. _[^\n]*:[^\n]*\n?", re.MULTILINE)
_FOOTNOTE = re.compile(r"^([ \t]*)\.\. (\[\S+\])", re.MULTILINE)
_UNDERLINE = re.compile(r"^[ \t]*([-=~^\"*#+`])\1{2,}(?:[ \t]+\1+)*[ \t]*$", re.MULTILINE)
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[\w-]*[ \t]*$", re.MULTILINE)
_PROMPT = re.compile(r"^([ \t]*)(?:>>>|\.\.\.)(?: |$)", re.MULTILINE)
_ROLE = re.compile(r":[a-zA-Z][\w:+-]*:`~?!?([^`]*)`")
_LITERAL = re.compile(r"``([^`]*)``")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]*>`_{0,2}")
_TICKED = re.compile(r"`~?([^`\n]*)`_{0,2}")
_REFERENCE = re.compile(r"^(?P<text>[^<]+?)\s*<[^>]*>$")
_PLACEHOLDER_PERCENT = re.compile(r"%\(\w+\)s")


def take_signature(doc: str, name: str) -> tuple[str, str]:
    """The first signature of those that open a docstring, as compiled functions' do, and what is left of it.

    The signature is without its name, e.g. `(input, *, out=None) -> Tensor`, or empty. `name` is the documented
    thing's own last name; another one counts only before an arrow, or in a paragraph of its own.
    """
    first = ""
    rest = doc.lstrip("\n")
    while True:
        found = _one_signature(rest, name)
        if found is None:
            return first, rest
        signature, rest = found
        first = first or signature
        rest = rest.lstrip("\n")


def _one_signature(doc: str, name: str) -> tuple[str, str] | None:
    """The signature that `doc` starts with and what follows its line, or None when it starts otherwise."""
    start = _SIGNATURE_START.match(doc)
    if start is None:
        return None
    end = _closing(doc, start.end())
    if end is None:
        return None
    arguments = " ".join(doc[start.end() : end].split())
    arrow = _ARROW.match(doc, end)
    returns = ""
    if arrow is not None:
        end = arrow.end()
        returns = " ".join(_COMMENT.sub("", arrow["returns"]).split())
    comment = _COMMENT.match(doc, end)
    if comment is not None:
        end = comment.end()
    line, _, rest = doc[end:].partition("\n")
    alone = not start[0].endswith(" ") and not rest.partition("\n")[0].strip()
    own = start["name"] == name or returns or alone
    if line.strip(" \t:\\.") or not own:
        return None  # prose that begins like a call: "abs(x) is the distance from zero."
    return (f"{arguments} -> {returns}" if returns else arguments), rest


def _closing(text: str, start: int) -> int | None:
    """The index after the bracket that closes the one at `start`; None when there is none nearby."""
    expected: list[str] = []
    for index in range(start, min(len(text), start + 2000)):
        character = text[index]
        if character in _CLOSERS:
            expected.append(_CLOSERS[character])
        elif character in ")]}":
            if not expected or expected.pop() != character:
                return None
            if not expected:
                return index + 1
        elif character == "\n" and text[index + 1 : index + 2] == "\n":
            return None
    return None


def summary_and_rest(doc: str) -> tuple[str, str]:
    """The summary sentence and the rest of a docstring without its signature line, both as plain text."""
    doc = _UNDERLINE.sub("", drop_noise(doc)).strip()
    summary, rest = split_first_sentence(doc)
    return plain(summary), plain(rest)


def drop_noise(doc: str) -> str:
    """Without directives of versions and page set-up, their indented bodies, link targets and `%(..)s`."""
    kept: list[str] = []
    position = 0
    for match in _NOISE.finditer(doc):
        if match.start() < position:
            continue
        kept.append(doc[position : match.start()])
        position = _end_of_body(doc, match.end(), len(match["indent"].expandtabs()))
    kept.append(doc[position:])
    return _PLACEHOLDER_PERCENT.sub("", _TARGET.sub("", "".join(kept)))


def _end_of_body(doc: str, start: int, indent: int) -> int:
    """Where the lines indented deeper than a directive (and the blank ones among them) end."""
    position = end = start
    while position < len(doc):
        newline = doc.find("\n", position)
        stop = len(doc) if newline < 0 else newline + 1
        line = doc[position:stop].expandtabs()
        if line.strip():
            if len(line) - len(line.lstrip()) <= indent:
                break
            end = stop
        position = stop
    return end


def plain(text: str) -> str:
    """reStructuredText, Google or NumPy docstring text as one line of plain text.

    Roles, literals and links keep their words, directives their argument and body, examples their code
    (without `>>>`); section underlines go.

    >>> plain("See :func:`~torch.abs` of ``x``.")
    'See torch.abs of x.'
    """
    text = _FENCE.sub("", _UNDERLINE.sub("", text))
    text = _FOOTNOTE.sub(r"\1\2", text)
    text = _DIRECTIVE.sub(_directive_text, text)
    text = _PROMPT.sub(r"\1", text)
    if "`" in text:
        text = _LITERAL.sub(r"\1", _ROLE.sub(_role_text, text))
        text = _TICKED.sub(r"\1", _LINK.sub(r"\1", text))
    text = text.replace("::\n", ":\n")
    return " ".join(text.split())


def _directive_text(match: re.Match[str]) -> str:
    name, argument = match["name"], match["argument"].strip()
    if name in _LANGUAGES:
        return argument if name == "math" else ""
    return f"{name.capitalize()}: {argument}" if name.isalpha() else argument


def _role_text(match: re.Match[str]) -> str:
    found = _REFERENCE.match(match[1])
    return found["text"] if found else match[1]


def clean(doc: str) -> str:
    """A docstring as written in its source, without its indentation."""
    return inspect.cleandoc(doc.expandtabs())
