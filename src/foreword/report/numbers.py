"""Numbers as a reader of retrieval tables expects them."""

from __future__ import annotations

import math

NOTHING = "–"


def value(number: float | None, digits: int = 3) -> str:
    """A measure: `.374`, `1.000`, `12.5`; a dash for what is missing or not finite."""
    if number is None or not math.isfinite(number):
        return NOTHING
    text = f"{number:.{digits}f}" if abs(number) < 10 else f"{number:,.1f}"
    text = text.replace("-", "−")
    return text.replace("0.", ".", 1) if text.removeprefix("−").startswith("0.") else text


def difference(number: float | None) -> str:
    """A difference with its sign: `+.069`, `−.012`, `.000`."""
    text = value(number)
    if number is None or text == NOTHING or text.removeprefix("−") == ".000":
        return text.removeprefix("−")
    return text if number < 0 else f"+{text}"


def p_value(number: float | None) -> str:
    """A p-value: `.031`, `<.001`."""
    return "<.001" if number is not None and number < 0.001 else value(number)


def count(number: float | None) -> str:
    """A count with thousands parted: `12,288`."""
    return NOTHING if number is None else f"{int(number):,}"


def size(number: float | None) -> str:
    """Bytes for people: `0 B`, `49.2 kB`, `1.2 MB` (thousands, not 1024s)."""
    if number is None:
        return NOTHING
    amount = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.95 or unit == "GB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def duration(seconds: float | None) -> str:
    """Seconds for people: `0.4 s`, `12 s`, `2 min 5 s`, `1 h 3 min`."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"
