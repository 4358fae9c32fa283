"""The manual pages on this machine: which files there are, and what each says, kept on disk between runs."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import importlib
import json
import lzma
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from foreword.collections.manpages_text import BREAK, joined, pieces
from foreword.collections.pydoc.collection import cache_folder
from foreword.downloads.places import data_folder
from foreword.files import atomic_write

MAX_WORDS = 400
"""Words of a page's text that are read."""

_HERE = Path(__file__).parent
_CODE = ("manpages_roff.py", "manpages_source.py", "manpages_text.py", "data/manpages.json")
_USUAL = ("/usr/local/share/man", "/usr/share/man")
_FILE = re.compile(r"(?P<name>.+)\.(?P<section>[0-9nl][A-Za-z0-9_+]*)(?:\.(?:gz|xz|lzma|bz2|zst))?")
_FOLDER = re.compile(r"man[0-9nl]\w*")
_LINK = re.compile(r"(?:(?:[.'][ \t]*(?:\\[\"#].*)?|[ \t]*)\n)*\.so[ \t]+\S")
_DASH = re.compile(r"\s(?:-+|[–—−])\s|—")


@dataclass(frozen=True, slots=True)
class PageFile:
    """A page's file, and under which name it is looked up."""

    name: str
    section: str
    path: str


@dataclass(frozen=True, slots=True)
class RawPage:
    """A page as read, before any is chosen."""

    name: str
    """As `man` takes it: `ls`, `printf`."""
    section: str
    """`1`, `3pm`."""
    summary: str
    """What follows the dash in the section NAME; empty when there is none."""
    text: str
    """DESCRIPTION and the other sections; a blank line between paragraphs."""

    @property
    def title(self) -> str:
        """`ls(1)`, without spaces."""
        return "_".join(f"{self.name}({self.section})".split())


@dataclass(frozen=True, slots=True)
class Extraction:
    """The pages of a family."""

    pages: tuple[RawPage, ...]
    counts: Mapping[str, int]
    """Files, aliases, what could not be read, macros that are not known."""


@cache
def facts() -> dict[str, Any]:
    """What `data/manpages.json` holds: `families`, `left_out_sections`, `characters`."""
    loaded: dict[str, Any] = json.loads((_HERE / "data" / "manpages.json").read_text("utf-8"))
    return loaded


def manual_path(data: Path | None = None) -> list[Path]:
    """The folders that hold `man1` ... `man9`: the data folder or its `manpages`, else $MANPATH, else the usual."""
    given = data_folder(data)
    for folder in (given, given / "manpages"):
        if any(_sections(folder)):
            return [folder]
    parts: list[str] = []
    for part in os.environ.get("MANPATH", "").split(os.pathsep):
        parts += [part] if part else _USUAL  # an empty part stands for the usual folders
    return [folder for part in dict.fromkeys(parts) if any(_sections(folder := Path(part)))]


def _sections(folder: Path) -> Iterator[str]:
    """The names of a folder's `man1` ... that can be read; other languages have folders of their own above these."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        if _FOLDER.fullmatch(name) and (folder / name).is_dir() and os.access(folder / name, os.R_OK | os.X_OK):
            yield name


def page_files(path: Sequence[Path]) -> tuple[dict[str, list[PageFile]], Counter[str]]:
    """The page files of each family, sorted by section and name, and how many further files there are.

    Those are links to pages, and files of a name and section that another has: of these, that of the first folder
    of the path is the page, as for `man`.
    """
    family_of = _Rules()
    regular: dict[tuple[str, str], PageFile] = {}
    links: list[PageFile] = []
    aliases: Counter[str] = Counter()
    for root in path:
        for folder in _sections(root):
            with os.scandir(root.resolve() / folder) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
            for entry in entries:
                if match := _FILE.fullmatch(entry.name):
                    page = PageFile(match["name"], match["section"], entry.path)
                    if entry.is_symlink():
                        links.append(page)
                    elif regular.setdefault((page.section, page.name), page) is not page:
                        aliases[family_of(page)] += 1
    known = {page.path for page in regular.values()}
    for page in links:  # where pages are links to another place, the first name of each is a page
        near = os.path.normpath(os.path.join(os.path.dirname(page.path), os.readlink(page.path)))
        real = near if near in known else os.path.realpath(page.path)
        if real in known or (page.section, page.name) in regular or not os.path.isfile(real):
            aliases[family_of(page)] += 1
        else:
            known.add(real)
            regular[page.section, page.name] = page
    families: dict[str, list[PageFile]] = {family: [] for family in facts()["families"]}
    for page in sorted(regular.values(), key=lambda page: (page.section, page.name)):
        if family := family_of(page):
            families[family].append(page)
    return families, aliases


class _Rules:
    """Which family a page belongs to: the first whose section and name fit; "" for none."""

    def __init__(self) -> None:
        self._rules = [
            (family, re.compile(about["sections"]), re.compile(about.get("names", ".*"), re.DOTALL))
            for family, about in facts()["families"].items()
        ]
        self._by_section: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def __call__(self, page: PageFile) -> str:
        if page.section not in self._by_section:
            fit = [(family, names) for family, sections, names in self._rules if sections.fullmatch(page.section)]
            self._by_section[page.section] = fit
        return next((family for family, names in self._by_section[page.section] if names.fullmatch(page.name)), "")


def extract(files: Sequence[PageFile], family: str, *, cached: bool = True) -> Extraction:
    """Read the pages of a family, or take them from the cache when no file has changed since."""
    folder = cache_folder() if cached else None
    path = None if folder is None else folder.parent / "manpages" / f"{family}-{_key(files)}.jsonl"
    if path is not None and (kept := _read_cache(path)) is not None:
        return kept
    counts: Counter[str] = Counter(files=len(files))
    pages = []
    for file in files:
        try:
            source = read_source(Path(file.path))
        except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, ImportError):
            counts["unreadable"] += 1
            continue
        if _LINK.match(source):
            counts["aliases"] += 1
            continue
        unknown: Counter[str] = Counter()
        pages.append(RawPage(file.name, file.section, *read_page(source, unknown)))
        counts["pages_with_parts_passed_over"] += bool(unknown)
    extraction = Extraction(tuple(pages), dict(counts))
    if path is not None:
        _write_cache(path, extraction)
    return extraction


def read_source(path: Path) -> str:
    """A page's file as text: plain or compressed; UTF-8 or else Latin-1.

    Raises an OSError, EOFError, ValueError, zlib.error or LZMAError for a broken file, ImportError where this
    Python cannot read its compression.
    """
    raw = path.read_bytes()
    match path.suffix:
        case ".gz":
            raw = gzip.decompress(raw)
        case ".bz2":
            raw = bz2.decompress(raw)
        case ".xz" | ".lzma":
            raw = lzma.decompress(raw)
        case ".zst":
            raw = importlib.import_module("compression.zstd").decompress(raw)  # from Python 3.14 on
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def read_page(source: str, unknown: Counter[str]) -> tuple[str, str]:
    """The one-line description of a page, and its text: at most the first `MAX_WORDS` words.

    DESCRIPTION comes first, then the other sections as they stand, each under its heading. NAME and the sections
    that `left_out_sections` lists are not in it. `unknown` counts macros that are passed over.
    """
    left_out = frozenset(facts()["left_out_sections"])
    sections: dict[str, list[str]] = {}
    named: list[str] = []
    words, described = 0, False
    for heading, text in pieces(source, unknown):
        key = heading.casefold()
        if key == "name":
            named.append(text)
        elif key and key not in left_out and "synopsis" not in key:
            described = described or key.startswith("description")
            sections.setdefault(heading, []).append(text)
            words += len(text.split()) if described else 0
            if words >= MAX_WORDS:
                break
    lines = [_DASH.split(line, maxsplit=1) for line in map(joined, " ".join(named).split(BREAK))]
    summary = next((parts[1] for parts in lines if len(parts) == 2), "")
    bodies = sorted(sections.items(), key=lambda section: not section[0].casefold().startswith("description"))
    parts = []
    for heading, texts in bodies:
        text = "\n\n".join(filter(None, map(joined, " ".join(texts).split(BREAK))))
        if text:
            parts.append(text if heading.casefold() == "description" else f"{heading.capitalize()}:\n\n{text}")
    return summary, _cut("\n\n".join(parts))


def _cut(text: str) -> str:
    """The first `MAX_WORDS` words, spaces between them as they are."""
    words = re.finditer(r"\S+", text)
    end = 0
    for _, word in zip(range(MAX_WORDS), words, strict=False):
        end = word.end()
    return text[:end]


def _key(files: Sequence[PageFile]) -> str:
    """20 hexadecimal digits that change with the files or the code that reads them."""
    digest = hashlib.sha256()
    for name in _CODE:
        digest.update((_HERE / name).read_bytes())
    for file in files:
        try:
            status = os.stat(file.path)
        except OSError:
            continue
        line = f"{file.name}\0{file.section}\0{file.path}\0{status.st_size}\0{status.st_mtime_ns}\n"
        digest.update(line.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:20]


def _write_cache(path: Path, extraction: Extraction) -> None:
    """Write the extraction; a cache that cannot be written is no reason to fail."""
    try:
        with atomic_write(path) as file:
            file.write(json.dumps({"counts": dict(extraction.counts), "pages": len(extraction.pages)}) + "\n")
            file.writelines(json.dumps(asdict(page)) + "\n" for page in extraction.pages)
    except OSError:
        return


def _read_cache(path: Path) -> Extraction | None:
    """What is kept; None when there is nothing, or it is broken and has to be made again."""
    try:
        with path.open(encoding="utf-8") as file:
            head = json.loads(next(file))
            pages = tuple(RawPage(**json.loads(line)) for line in file)
        whole = len(pages) == head["pages"]
    except (OSError, ValueError, TypeError, KeyError, StopIteration):
        return None
    return Extraction(pages, head["counts"]) if whole else None
