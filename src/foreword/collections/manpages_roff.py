"""Reads roff, the language of manual pages, as far as text goes: lines, escapes, strings, own macros, conditions.

Nothing is laid out and no number is computed. What follows is for a terminal (`n` holds, `t` does not). Tables,
equations and pictures are passed over.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

GLUE = "\x01"
"""In a text: no space here, before or after."""
GLUE_NEXT = "\x02"
"""In a text: no space after this."""

_COMMENT = re.compile(r'(?<!\\)((?:\\\\)*)\\["#].*')
_JOINED = re.compile(r"(?<!\\)((?:\\\\)*)\\\n")
_CONTROL = re.compile(r"[.'][ \t]*((?:if|ie|el)(?=[!(\\'\"])|[^\s\\]*)[ \t]*(.*)", re.DOTALL)
_ARGUMENT = re.compile(r'"((?:[^"]|"")*)"?|((?:\\.|[^\s\\])+)|\\')
_STRING = re.compile(r"\\\*(?:\((..)|\[([^]\s]*)[^]]*\]|([^(\[]))")
_REGISTER = re.compile(r"\\n[+-]?(?:\((..)|\[([^]]*)\]|([^(\[]))")
_PARAMETER = re.compile(r"\\+\$(?:([0-9*@])|\((..)|\[([^]]*)\])")
_LETTER = re.compile(r"([ntoev])(?![A-Za-z])[ \t]*(.*)", re.DOTALL)
_KNOWN = re.compile(r"([dr])[ \t]+(\S+)[ \t]*(.*)", re.DOTALL)
_EQUAL = re.compile(r"(['\"])(.*?)\1(.*?)\1[ \t]*(.*)", re.DOTALL)
_NUMBER = re.compile(r"(\S*?)(?=\s|\\\{|$)[ \t]*(.*)", re.DOTALL)
_COMPARED = re.compile(r"\(*(\d+)(?:(==?|>=?|<=?)(\d+))?\)*")

_ESCAPE = re.compile(
    r"""\\(?:\((?P<two>..)|\[(?P<name>[^]\n]*)\]
    |(?:[fFgkmMnVY*]|s[+-]?(?=[(\['"]))(?:\(..|\[[^]\n]*\]|'[^'\n]*'|[^(\[])
    |s[+-]?(?:[123]\d|\d)
    |N(?P<quoteN>['"])(?P<code>\d+)(?P=quoteN)
    |o(?P<quoteo>['"])(?P<over>[^\n]*?)(?P=quoteo)
    |h(?P<quoteh>['"])(?P<move>[+|\d][^\n]*?)(?P=quoteh)
    |[hvwlLDXZHSRBACbx](?P<quote>[^\w\s\\(\[])[^\n]*?(?P=quote)
    |(?P<one>.)|$)""",
    re.VERBOSE | re.DOTALL,
)
_ONE = dict.fromkeys("|^&%:/,)purda{}!?zE$", "") | dict.fromkeys(" ~0t\n", " ")
_ONE |= {"c": GLUE_NEXT, "e": "\\", "'": "'", "`": "`", "-": "-", "@": ""}
_ACCENTS = {"'": "\u0301", "`": "\u0300", ":": "\u0308", "^": "\u0302", "~": "\u0303", ",": "\u0327", "v": "\u030c"}
_ENDS = {"TS": "TE", "EQ": "EN", "PS": "PE"}
_GIVEN = {"lq": '"', "rq": '"', "R": "®", "Tm": "™", "Aq": "'", "C+": "C++", "--": "-", 'L"': '"', 'R"': '"'}


def unescape(text: str) -> str:
    """Text as it is read: fonts, sizes and movements out, special characters as themselves, unknown ones out.

    >>> unescape(r"\\fBls\\fP \\-a, caf\\('e \\(em \\[u00BD] \\e0")
    'ls -a, café — ½ \\\\0'
    """
    return _ESCAPE.sub(_escaped, text) if "\\" in text else text


def _escaped(match: re.Match[str]) -> str:
    if (one := match["one"]) is not None:
        return _ONE.get(one, one)
    if (code := match["code"]) is not None:
        return _of_code(int(code))
    if match["move"] is not None:
        return " "  # to the right
    if (over := match["over"]) is not None:
        return unescape(over)[:1]
    return _special(match["two"] or match["name"] or "")


@cache
def _characters() -> dict[str, str]:
    """Special characters by their names, as they are read in running text."""
    text = (Path(__file__).parent / "data" / "manpages.json").read_text("utf-8")
    characters: dict[str, str] = json.loads(text)["characters"]
    return characters


@cache
def _special(name: str) -> str:
    """The character of a name as in `\\(em` or `\\[u2014]`; empty for one that is not known."""
    if name in (known := _characters()):
        return known[name]
    if re.fullmatch(r"u[0-9A-F]{4,6}(_[0-9A-F]{4,6})*", name):
        return unicodedata.normalize("NFC", "".join(_of_code(int(code, 16)) for code in name[1:].split("_")))
    if name.startswith("char") and name[4:].isdecimal():
        return _of_code(int(name[4:]))
    if len(name) == 2 and name[0] in _ACCENTS:
        return unicodedata.normalize("NFC", name[1] + _ACCENTS[name[0]])
    return ""


def _of_code(code: int) -> str:
    return chr(code) if 32 <= code < 0x110000 and not 0xD800 <= code < 0xE000 else ""


def arguments(rest: str) -> list[str]:
    """A macro's arguments, still escaped: words, or anything in double quotes.

    >>> arguments(r'a "b c" d\\ e')
    ['a', 'b c', 'd\\\\ e']
    """
    if '"' not in rest and "\\" not in rest:
        return rest.split()
    return [
        match[1].replace('""', '"') if match[1] is not None else match[2] or "" for match in _ARGUMENT.finditer(rest)
    ]


class Roff:
    """Goes through a page once. `dropped` counts tables, equations and pictures."""

    def __init__(self, source: str, builtin: Collection[str]) -> None:
        """`builtin`: the macros that a page's own definitions do not replace."""
        lines = _JOINED.sub(r"\1", _COMMENT.sub(r"\1", source)).split("\n")
        self._lines = lines[::-1]
        self._budget = 10_000 + 4 * len(lines)  # lines to be read at most: a macro that calls itself has an end
        self._builtin = builtin
        self._strings = dict(_GIVEN)
        self._macros: dict[str, list[str]] = {}
        self._else: list[bool] = []
        self.dropped = 0

    def read(self) -> Iterator[tuple[str, str]]:
        """`(macro, the rest of its line)`, or `("", text)`; both with strings filled in, and still escaped."""
        while self._lines and self._budget > 0:
            self._budget -= 1
            line = self._lines.pop()
            if line[:1] not in (".", "'"):
                yield "", self._fill(line.replace("\\}", ""))
                continue
            match = _CONTROL.match(line)
            assert match is not None  # both of its parts may be empty
            name, rest = match[1], match[2]
            if name in ("if", "ie", "while"):
                self._condition(name, rest)
            elif name == "el":
                self._branch(bool(self._else) and self._else.pop(), rest)
            elif not self._request(name, rest := rest.replace("\\}", "")):
                if name in self._macros and name not in self._builtin:
                    self._expand(name, arguments(self._fill(rest)))
                elif name:
                    yield name, self._fill(rest)

    def _request(self, name: str, rest: str) -> bool:
        """Do what a request of the language says; whether it is one that matters here."""
        if name in ("ds", "ds1", "as", "as1"):
            key, _, value = rest.partition(" ")
            value = value.lstrip(" ").removeprefix('"').replace("\\\\", "\\")
            self._strings[key] = self._strings.get(key, "") + value if name.startswith("a") else value
        elif name in ("de", "de1", "am", "am1"):
            key, _, end = rest.strip().partition(" ")
            body = self._until(end.strip() or ".")
            before = self._macros.get(key, []) if name.startswith("am") else []
            self._macros[key] = before + [line.replace("\\\\", "\\") for line in body]
        elif name == "ig":
            self._until(rest.strip() or ".")
        elif name == "als":
            new, _, old = rest.strip().partition(" ")
            if old in self._macros:
                self._macros[new] = self._macros[old]
        elif name in _ENDS and name not in self._macros:
            self._until(_ENDS[name])
            self.dropped += 1
        elif name in ("do", "nop"):
            self._lines.append(f".{rest}" if name == "do" else rest)
        else:
            return False
        return True

    def _until(self, end: str) -> list[str]:
        """The lines up to `.<end>`, which is taken too."""
        taken = []
        while self._lines:
            line = self._lines.pop()
            if line[:1] == "." and line[1:].strip(" \t\\}").split(" ")[0] == end:
                break
            taken.append(line)
        return taken

    def _condition(self, name: str, rest: str) -> None:
        value, body = self._holds(rest)
        if name == "ie":
            self._else.append(not value)
        self._branch(value and name != "while", body)

    def _branch(self, taken: bool, body: str) -> None:
        """Go on with what depends on a condition, or pass over it: a line, or all up to the closing brace."""
        if taken:
            body = body.replace("\\{", "", 1).lstrip(" \t")
            if body.strip():
                self._lines.append(body)
            return
        open_braces = body.count("\\{") - body.count("\\}")
        while open_braces > 0 and self._lines:
            line = self._lines.pop()
            open_braces += line.count("\\{") - line.count("\\}")

    def _holds(self, rest: str) -> tuple[bool, str]:
        """Whether a condition holds, and what follows it. One that cannot be told does not."""
        rest = _REGISTER.sub(lambda m: "1" if ".g" in m.groups() else "0", rest.lstrip())
        unlike = rest.startswith("!")
        rest = rest.lstrip("!")
        if match := _LETTER.match(rest):
            value, body = match[1] in "no", match[2]
        elif match := _KNOWN.match(rest):
            value, body = match[2] in self._strings or match[2] in self._macros, match[3]
        elif match := _EQUAL.match(rest):
            value, body = self._fill(match[2]) == self._fill(match[3]), match[4]
        else:
            match = _NUMBER.match(rest)
            assert match is not None  # both of its parts may be empty
            value, body = _compared(match[1]), match[2]
        return value != unlike, body

    def _expand(self, name: str, given: list[str]) -> None:
        """Put a macro's body, with its arguments, before the lines still to be read."""

        def argument(match: re.Match[str]) -> str:
            key = match[1] or match[2] or match[3] or ""
            if key in ("*", "@"):
                return " ".join(f'"{each}"' if key == "@" else each for each in given)
            if key == "0":
                return name
            return given[int(key) - 1] if key.isdecimal() and 0 < int(key) <= len(given) else ""

        count = str(len(given))
        self._budget -= len(self._macros[name])
        for line in reversed(self._macros[name]):
            line = line.replace("\\n(.$", count).replace("\\n[.$]", count)
            self._lines.append(_PARAMETER.sub(argument, line) if "$" in line else line)

    def _fill(self, text: str, depth: int = 0) -> str:
        """Put strings in the places that name them."""
        if "\\*" not in text or depth > 5 or len(text) > 10_000:
            return text
        filled = _STRING.sub(lambda m: self._strings.get(m[1] or m[2] or m[3] or "", ""), text)
        return self._fill(filled, depth + 1)


def _compared(condition: str) -> bool:
    """A number above 0, or a comparison of two; all else is false."""
    match = _COMPARED.fullmatch(condition)
    if match is None:
        return False
    left, right = int(match[1]), int(match[3] or 0)
    return {">": left > right, "<": left < right, ">=": left >= right, "<=": left <= right}.get(
        match[2] or ">", left == right
    )
