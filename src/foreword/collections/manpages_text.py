"""Manual pages as plain text, section by section: the macros of man(7) and mdoc(7), and pod2man's own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from foreword.collections.manpages_roff import GLUE, GLUE_NEXT, Roff, arguments, unescape

BREAK = "\n\n"
"""In a text: a paragraph or a line ends here."""

_REQUESTS = frozenset({
    "ad", "af", "bd", "bp", "br", "brp", "break", "c2", "cc", "ce", "ch", "char", "chop", "color", "cp", "cs",
    "cu", "da", "di", "do", "ds", "dt", "ec", "ecs", "ecr", "em", "eo", "ev", "evc", "ex", "fam", "fc", "fi",
    "fcolor", "fl", "fp", "fschar", "ft", "ftr", "gcolor", "hc", "hla", "hlm", "hpf", "hw", "hy", "hym", "hys",
    "in", "it", "itc", "kern", "lc", "lf", "lg", "linetabs", "ll", "ls", "lsm", "lt", "mc", "mk", "mso", "na",
    "ne", "nf", "nh", "nm", "nn", "nr", "nroff", "ns", "nx", "open", "opena", "os", "output", "pc", "pi", "pl",
    "pm", "pn", "po", "ps", "psbb", "pso", "ptr", "pvs", "rchar", "rd", "return", "rfschar", "rj", "rm", "rn",
    "rnn", "rr", "rs", "rt", "schar", "shc", "shift", "sizes", "so", "sp", "special", "spreadwarn", "ss", "sty",
    "substring", "sv", "sy", "ta", "tc", "ti", "tkf", "tl", "tm", "tm1", "tmc", "tr", "trf", "trin", "trnt",
    "troff", "uf", "ul", "unformat", "vpt", "vs", "warn", "wh", "write", "writec", "writem", "IX",
})  # fmt: skip
_BREAKS = frozenset({
    "br", "sp", "PP", "P", "LP", "Pp", "Lp", "TP", "TQ", "IP", "HP", "RS", "RE", "It", "Bl", "El", "Bd", "Ed",
    "Sp", "Vb", "Ve", "EX", "EE", "SY", "YS", "nf", "fi",
})  # fmt: skip
_SILENT = frozenset({
    "TH", "DT", "PD", "AT", "UC", "EX", "EE", "UE", "ME", "YS", "RS", "RE", "HP", "PP", "P", "LP", "TP", "TQ",
    "UR", "MT", "Dd", "Dt", "Os", "Bl", "El", "Bd", "Ed", "Bf", "Ef", "Bk", "Ek", "Pp", "Lp", "Rs", "Re", "Tg",
    "Hf", "Ud", "Bt", "Rv", "Ex", "Sp", "Vb", "Ve",
})  # fmt: skip
_FONTS = frozenset({"B", "I", "SM", "SB", "R", "CW"})
_ALTERNATING = frozenset({"BR", "RB", "BI", "IB", "IR", "RI"})
_ENCLOSING = {
    "Op": "[]", "Dq": '""', "Qq": '""', "Ql": "''", "Sq": "''", "Pq": "()", "Bq": "[]", "Brq": "{}", "Aq": "<>",
    "In": "<>",
}  # fmt: skip
_OPENING = {"Oo": "[", "Do": '"', "Qo": '"', "So": "'", "Po": "(", "Bo": "[", "Bro": "{", "Ao": "<"}
_CLOSING = {"Oc": "]", "Dc": '"', "Qc": '"', "Sc": "'", "Pc": ")", "Bc": "]", "Brc": "}", "Ac": ">"}
_PLAIN = frozenset({
    "Ad", "An", "Ar", "At", "Cd", "Cm", "Dl", "D1", "Dv", "Em", "Er", "Es", "En", "Eo", "Ec", "Ev", "Fa", "Fc",
    "Fd", "Fo", "Fr", "Ft", "Ic", "It", "Lb", "Li", "Lk", "Lp", "Ms", "Mt", "Nd", "No", "Pa", "St", "Sx", "Sy",
    "Ta", "Tn", "Va", "Vt", "Xc", "Xo",
})  # fmt: skip
_SYSTEMS = {
    "Bx": "BSD",
    "Bsx": "BSD/OS",
    "Dx": "DragonFly",
    "Fx": "FreeBSD",
    "Nx": "NetBSD",
    "Ox": "OpenBSD",
    "Ux": "UNIX",
}
_INLINE = {*_ENCLOSING, *_OPENING, *_CLOSING, *_PLAIN, *_SYSTEMS, "Ap", "Fl", "Fn", "Nm", "Ns", "Pf", "Xr"}
_MACROS = {*_SILENT, *_FONTS, *_ALTERNATING, *_INLINE, "SH", "SS", "Sh", "Ss", "IP", "OP", "SY", "Sm"}
_AFTER = frozenset(".,:;?!)]")
_BEFORE = frozenset("([")
_GLUED = re.compile(rf"\s*{GLUE}[\s{GLUE}{GLUE_NEXT}]*|{GLUE_NEXT}[\s{GLUE_NEXT}]*")


def pieces(source: str, unknown: Counter[str]) -> Iterator[tuple[str, str]]:
    """`(heading of the section, text)` from a page's beginning to its end; to be put together by `joined`.

    What stands before the first heading has the heading "". Nothing that a page says raises an error: macros that
    are not known, and tables and the like, are passed over and counted in `unknown`.
    """
    roff = Roff(source, _MACROS)
    page = _Mdoc()
    heading, awaited = "", False
    for macro, rest in roff.read():
        if macro in ("SH", "Sh"):
            heading = joined(unescape(" ".join(arguments(rest))))
            awaited = not heading
        elif awaited and (text := joined(_piece(macro, rest, page))):
            heading, awaited = text, False  # `.SH` alone: the heading is the next line
        else:
            if macro and macro[0] != "%" and macro not in _MACROS and macro not in _REQUESTS:
                unknown[macro] += 1
            text = _piece(macro, rest, page)
            if macro in _BREAKS or not (macro or rest.strip()):
                text = BREAK + text
            if text:
                yield heading, text
    if roff.dropped:
        unknown["tables, equations, pictures"] += roff.dropped


def joined(text: str) -> str:
    """Text put together of pieces, on one line."""
    return " ".join(_GLUED.sub("", text).split())


def _piece(macro: str, rest: str, page: _Mdoc) -> str:
    """The words that one line gives."""
    if not macro:
        return unescape(rest)
    if macro in _FONTS:
        return unescape(" ".join(arguments(rest)))
    if macro in _ALTERNATING:
        return unescape("".join(arguments(rest)))
    if macro in _INLINE:
        return page.line([macro, *arguments(rest)])
    if macro == "Sm":
        page.tight, page.begun = rest.strip() == "off", False
    elif macro in ("SS", "Ss"):
        return f"{BREAK}{unescape(' '.join(arguments(rest)))}:{BREAK}"
    elif macro in ("IP", "SY"):
        tag = unescape((arguments(rest) or [""])[0])
        return tag if any(map(str.isalnum, tag)) else ""
    elif macro == "OP":
        return f"[{unescape(' '.join(arguments(rest)))}]"
    elif macro in ("UE", "ME"):
        return GLUE + unescape(rest) if rest else ""
    return ""


class _Mdoc:
    """A page's macros that may stand within a line of one another."""

    def __init__(self) -> None:
        self.name = ""
        self.tight = False
        """No spaces, between `.Sm off` and `.Sm on`."""
        self.begun = False
        """Something stands there already."""

    def line(self, words: list[str]) -> str:
        """The text of a line of macros and their arguments."""
        end = len(words)
        while end > 1 and words[end - 1] in _AFTER:
            end -= 1
        parts: list[str] = []
        closing: list[str] = []
        position = 0
        while position < end:
            macro = words[position]
            if macro not in _INLINE:
                parts.append(self._word(unescape(macro)))
                position += 1
                continue
            stop = position + 1
            while stop < end and words[stop] not in _INLINE:
                stop += 1
            own = [unescape(word) for word in words[position + 1 : stop]]
            parts += self._macro(macro, own, closing)
            position = stop
        parts += closing[::-1] + [GLUE + word for word in words[end:]]
        if not self.tight:
            return " ".join(parts)
        before, self.begun = GLUE if self.begun else "", True
        return before + GLUE.join(parts)

    def _macro(self, macro: str, own: list[str], closing: list[str]) -> list[str]:
        """What one macro gives for its own arguments; what is to be closed at the line's end goes into `closing`."""
        if macro in _ENCLOSING:
            opened, closed = _ENCLOSING[macro][0], _ENCLOSING[macro][1]
            closing.append(GLUE + closed)
            return [opened + GLUE, *map(self._word, own)]
        if macro in _OPENING:
            return [_OPENING[macro] + GLUE, *map(self._word, own)]
        if macro in _CLOSING:
            return [GLUE + _CLOSING[macro], *map(self._word, own)]
        if macro in _SYSTEMS:
            return [f"{own[0]}{_SYSTEMS[macro]}" if macro == "Bx" and own else " ".join([_SYSTEMS[macro], *own])]
        if macro == "Nm":
            self.name = self.name or next((word for word in own if word not in _AFTER), "")
            return [self._word(word) for word in own or [self.name]]
        if macro == "Fl":
            return [
                self._word(f"-{word}" if word[:1].isalnum() or word[:1] in "-?#@" else word) for word in own or ["-"]
            ]
        if macro == "Ns":
            return [GLUE, *map(self._word, own)]
        if macro == "Ap":
            return [f"{GLUE}'{GLUE}", *map(self._word, own)]
        if macro == "Pf":
            return [*map(self._word, own[:1]), GLUE, *map(self._word, own[1:])]
        if macro in ("Xr", "Fn") and own:
            called = f"{own[0]}({', '.join(own[1:2] if macro == 'Xr' else own[1:])})"
            return [self._word(called), *(map(self._word, own[2:]) if macro == "Xr" else ())]
        if macro == "Nd":
            return ["-", *own]
        return [self._word(word) for word in own if not (macro in ("An", "At", "St") and word.startswith("-"))]

    def _word(self, word: str) -> str:
        if word in _AFTER:
            word = GLUE + word
        return word + GLUE_NEXT if word in _BEFORE else word
