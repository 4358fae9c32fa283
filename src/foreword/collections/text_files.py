"""The files below a folder that are documents, and what each says: its title, text and metadata.

Text, Markdown and reStructuredText are read as they are; PDF, HTML and Word's .docx through pypdf, markdownify and
mammoth (the extra `files`), and what these give is kept in the user's cache until the file changes. HTML and Word
become Markdown, so that headings stay headings.
"""

from __future__ import annotations

import io
import logging
import mimetypes
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from foreword.errors import DataError
from foreword.files import cache_folder, json_digest, kept_json, read_text, write_json

MARKDOWN = (".markdown", ".md")
PLAIN = (*MARKDOWN, ".rst", ".text", ".txt")
"""Endings of files that are text, in lower case."""

CONVERTERS = {".docx": "mammoth", ".htm": "markdownify", ".html": "markdownify", ".pdf": "pypdf"}
"""Ending -> the package that makes text of such files."""

EXTRA = "pip install 'foreword[files]'"
"""What brings the converters."""

_FORM = 1  # of what is kept of converted files: another one makes it anew
_TOOLS = ("__MACOSX", "__pycache__", "bower_components", "node_modules")  # folders that programs fill
_UNSEEN = ("nav", "noscript", "script", "style", "svg", "template", "title")  # elements of HTML, no text of its page
_PLAIN = ["a", "b", "em", "i", "img", "strong"]  # elements of which the text is kept, without Markdown's signs
_ADORNMENT = re.compile(r"([^\w\s])\1{2,}\s*")


@dataclass(frozen=True)
class FolderFiles:
    """The files below a folder.

    Attributes:
        files: path from the folder, with `/`, -> path; in the order of the former.
        passed_over: ending, in lower case, -> how many files of it are there that nothing here reads.
    """

    files: Mapping[str, Path]
    passed_over: Mapping[str, int]

    def said(self) -> str:
        """What was passed over, for people; empty: nothing."""
        counts = [f"{count:,} {ending}" for ending, count in sorted(self.passed_over.items())]
        cure = f"; {EXTRA} reads {_and(lacking)}" if (lacking := CONVERTERS.keys() & self.passed_over.keys()) else ""
        return f"skipped: {', '.join(counts)}{cure}" if counts else ""


def find_files(folder: Path, own: Iterable[str] = ()) -> FolderFiles:
    """The documents below a folder, by their endings in any case.

    Hidden files and folders are left out, and folders that programs fill: virtual environments, `node_modules`.

    Args:
        folder: that is searched.
        own: files and folders at its top that are no documents, by name.
    """
    known = _known_endings()
    files: dict[str, Path] = {}
    passed: Counter[str] = Counter()
    for place, folders, names in os.walk(folder):
        here = Path(place)
        top = set(own) if here == folder else set()
        folders[:] = [name for name in folders if name not in top and not _left_out(here / name)]
        for path in (here / name for name in names if name not in top and not name.startswith(".")):
            ending = path.suffix.lower()
            if ending not in known:
                passed[ending or "without ending"] += 1
            elif path.is_file():
                files[path.relative_to(folder).as_posix()] = path
    return FolderFiles(dict(sorted(files.items())), passed)


def find_file(folder: Path, name: str) -> Path | None:
    """What `find_files(folder).files.get(name)` gives, without going through the folder."""
    *places, last = name.split("/")
    path = folder
    with suppress(OSError):  # a name that is too long, a folder that may not be read
        for place in places:
            path /= place
            if place in ("", ".", "..") or _left_out(path) or path.is_symlink():
                return None
        path /= last
        if last and not last.startswith(".") and path.suffix.lower() in _known_endings() and path.is_file():
            return path
    return None


def _known_endings() -> set[str]:
    return {*PLAIN, *(ending for ending, package in CONVERTERS.items() if find_spec(package) is not None)}


def _left_out(folder: Path) -> bool:
    """Whether no document is looked for in a folder: hidden ones, and what programs fill."""
    return folder.name.startswith(".") or folder.name in _TOOLS or (folder / "pyvenv.cfg").is_file()


def media_type(path: Path) -> str:
    """What a browser is told that a document of `find_files` is: text that is no page of its own, whatever it holds."""
    ending = path.suffix.lower()
    return "text/plain" if ending in PLAIN else mimetypes.types_map.get(ending, "application/octet-stream")


@dataclass(frozen=True)
class FileText:
    """What a file says; `broken`: its front matter is no YAML, and is a part of the text."""

    title: str = ""
    text: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    broken: bool = False


class UnreadableError(DataError):
    """A file of a known ending that its converter cannot read."""


def read_file(path: Path) -> FileText:
    """What a file says.

    The title is that of Markdown's YAML front matter, else the heading that it begins with, else HTML's `<title>`.

    Raises:
        UnreadableError: its converter cannot read it, or finds no text.
        DataError: a file of text is not UTF-8.
    """
    ending = path.suffix.lower()
    if ending in CONVERTERS:
        return _kept(path, CONVERTERS[ending])
    text = read_text(path)
    text, metadata, broken = _front_matter(text) if ending in MARKDOWN else (text, {}, False)
    title = metadata.pop("title", "").strip()
    heading, rest = _heading(text, ending)
    if heading and title in ("", heading):
        title, text = heading, rest
    return FileText(title, text.strip(), metadata, broken)


def _front_matter(text: str) -> tuple[str, dict[str, str], bool]:
    """Text without its front matter, that matter's values as they are written, and whether it is broken."""
    lines = text.split("\n")
    if lines[0].rstrip() != "---":
        return text, {}, False
    end = next((number for number, line in enumerate(lines) if number and line.rstrip() in ("---", "...")), None)
    if end is None:  # a line across the page
        return text, {}, False
    import yaml

    try:
        given = yaml.load("\n".join(lines[1:end]), Loader=yaml.BaseLoader)  # makes texts and containers, nothing else
    except (yaml.YAMLError, RecursionError):
        return text, {}, True
    if not isinstance(given, dict):
        return text, {}, False
    metadata = {}
    for name, value in given.items():
        values = value if isinstance(value, list) else [value]
        if isinstance(name, str) and all(isinstance(one, str) for one in values):
            metadata[name] = ", ".join(values)
    return "\n".join(lines[end + 1 :]), metadata, False


def _heading(text: str, ending: str) -> tuple[str, str]:
    """The heading that Markdown or reStructuredText begins with, and the rest; empty: it begins with none."""
    lines = text.lstrip().split("\n", 3)
    first = lines[0].strip()
    if ending in MARKDOWN and first.startswith("# "):
        return first.strip("# "), "\n".join(lines[1:])
    under = [bool(_ADORNMENT.fullmatch(line)) for line in lines[:3]] + [False] * 3
    if ending == ".rst" and under[0] and under[2]:
        return lines[1].strip(), "\n".join(lines[3:])
    if first and under[1] and not under[0] and (ending == ".rst" or (ending in MARKDOWN and lines[1][0] == "=")):
        return first, "\n".join(lines[2:])
    return "", text


def _kept(path: Path, package: str) -> FileText:
    """What a converter makes of a file, from the cache where the file has not changed."""
    status, folder = path.stat(), cache_folder("files")
    of = [_FORM, version(package), status.st_size, status.st_mtime_ns]
    place = None if folder is None else folder / f"{json_digest(str(path.absolute()))[:32]}.json"
    kept = None if place is None else kept_json(place)
    if isinstance(kept, dict) and kept.get("of") == of:
        return FileText(**kept["contents"])
    try:
        contents = _CONVERT[package](path.read_bytes())
    except Exception as error:  # of a broken file, these libraries raise whatever they come upon
        why = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableError(f"{package} cannot read it: {why}", path=path) from error
    if not contents.text:
        raise UnreadableError("no text in it; a scan needs OCR first", path=path)
    if place is not None:
        with suppress(OSError):  # a cache that cannot be written is no reason to fail
            write_json(place, {"of": of, "contents": asdict(contents)})
    return contents


def _from_pdf(data: bytes) -> FileText:
    """The text of its pages; what PDF files give as their title is seldom one."""
    from pypdf import PdfReader

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it tells of every oddity of a file that it can read
    pages = PdfReader(io.BytesIO(data)).pages
    return FileText(text=_clean("\n\n".join(page.extract_text() for page in pages)))


def _from_html(data: bytes | str) -> FileText:
    from bs4 import BeautifulSoup
    from markdownify import ATX, MarkdownConverter

    page = BeautifulSoup(data, "html.parser")
    title = page.title.get_text() if page.title else ""
    for element in page.find_all(_UNSEEN):
        element.decompose()
    as_it_is: dict[str, Any] = {f"escape_{what}": False for what in ("asterisks", "underscores", "misc")}
    text = MarkdownConverter(heading_style=ATX, strip=_PLAIN, **as_it_is).convert_soup(page)
    heading, rest = _heading(_clean(text), ".md")
    return FileText(heading or _clean(title).replace("\n", " "), rest.strip())


def _from_word(data: bytes) -> FileText:
    import mammoth

    without_pictures = mammoth.images.img_element(lambda _: {})
    return _from_html(mammoth.convert_to_html(io.BytesIO(data), convert_image=without_pictures).value)


_CONVERT: Mapping[str, Callable[[bytes], FileText]] = {
    "mammoth": _from_word,
    "markdownify": _from_html,
    "pypdf": _from_pdf,
}


def _clean(text: str) -> str:
    """A converter's text without what UTF-8 cannot hold, and without blank lines in a row."""
    unicode = text.encode("utf-8", "replace").decode().replace("\0", "")
    return re.sub(r"\s*\n\s*\n\s*", "\n\n", unicode).strip()


def _and(names: Iterable[str]) -> str:
    *others, last = sorted(names)
    return f"{', '.join(others)} and {last}" if others else last
