"""`manpages/<family>`: the manual pages on this machine as retrieval domains, no download.

Query: the one-line description of a page, as its section NAME has it. Document: the first words of DESCRIPTION and
the sections after it, without NAME, the synopsis and what is about the page itself (authors, licence, history, ...).
The description's own words are not in it: a first sentence that says them again is taken out, as is any other
sentence that has them as they stand. The page's name may occur, as it may in the query; the title (`ls(1)`) is
metadata and not embedded. Every query has exactly one relevant document. What was left out, and why, is counted in
`facts`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from foreword.collections.collection import (
    SPLITS,
    Collection,
    Document,
    Entry,
    MemoryCollection,
    Qrels,
    Query,
    contains,
    normalise,
    split_of,
)
from foreword.collections.manpages_source import RawPage, extract, facts, manual_path, page_files
from foreword.collections.pseudo import split_first_sentence, split_sentences
from foreword.collections.views import Texts, distinct, without
from foreword.errors import DataError, UnknownNameError

GROUP = "manpages"

MIN_FILES = 500
"""A family with fewer page files is not listed as being here: its test split is too small to compare systems by."""
MIN_REST_WORDS = 20  # of the document; shorter ones say too little to be found by
MIN_QUERY_WORDS = 3
MAX_QUERY_WORDS = 24  # more is not one line
MIN_ENGLISH = 0.06  # share of words that are in _COMMON; lists of options have some .1, prose .3
REPEATED = 0.8  # share of a query's words from which on a first sentence is the query said again
_STEM = 5  # letters by which words are compared there: "change" and "changes"

_COMMON = frozenset({
    "a", "an", "and", "are", "as", "be", "by", "can", "for", "from", "if", "in", "is", "it", "not", "of", "on",
    "or", "that", "the", "this", "to", "when", "which", "with",
})  # fmt: skip
# Descriptions that say nothing of what is documented.
_GENERIC = re.compile(
    r"(the )?(man(ual)? page (of|for|about)|see |alias (of|for|to)|same as |synonym (of|for)|deprecated|obsolete|"
    r"internal(s|ly)? (use|function|command)|undocumented|unimplemented|placeholder|dummy |todo|fixme|\(?unknown)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class _Item:
    """One query with its one document."""

    page: RawPage
    query: str
    text: str
    query_key: str
    text_key: str

    def document(self, *, with_name: bool) -> Document:
        name = self.page.title
        metadata = {"name": name, "section": self.page.section}
        return Document(name, self.text, name if with_name else "", metadata)


def load(
    name: str,
    *,
    data: Path | None = None,
    exclude: Iterable[Collection] = (),
    with_names: bool = False,
    cache: bool = True,
) -> Collection:
    """The manual pages of a family, e.g. `commands`.

    Args:
        name: a family of `data/manpages.json`; a page belongs to the first one that it fits.
        data: a folder that holds `man1` ... `man9`, or whose `manpages` does; without one that does, the manual
            path: $MANPATH, else /usr/local/share/man and /usr/share/man.
        exclude: collections whose texts (queries and documents) must not occur in this one.
        with_names: put the page's name and section into the document's title, so that they are embedded too.
        cache: keep the pages' texts on disk (`FOREWORD_CACHE`, else the user's cache folder).

    Raises:
        UnknownNameError: no such family.
        DataError: there are no such pages on this machine; the message says what to install.
    """
    if not knows(name):
        raise UnknownNameError(f"no family {name!r} of manual pages; there are: {', '.join(facts()['families'])}")
    path = manual_path(data)
    files, aliases = page_files(path)
    if not files[name]:
        raise DataError(_missing(name, path))
    extraction = extract(files[name], name, cached=cache)
    counts: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    items = distinct(_items(extraction.pages, dropped, counts), lambda item: item.text_key, dropped)
    excluded = Texts.of(exclude)
    if excluded:
        items = list(without(items, excluded, dropped))
    if not items:
        raise DataError(f"{GROUP}/{name}: none of {len(files[name])} pages gives a query and a text ({dict(dropped)})")
    counts.update(extraction.counts)
    counts["aliases"] += aliases[name]
    return _collection(name, items, dropped, counts, path, with_names=with_names)


def knows(name: str) -> bool:
    """Whether there is such a family."""
    return name in facts()["families"]


def entries(data: Path | None = None) -> list[Entry]:
    """The families; those of which there are `MIN_FILES` pages on this machine count as being here."""
    files, _ = page_files(manual_path(data))
    return [
        Entry(f"{GROUP}/{name}", GROUP, about["description"], SPLITS, len(files[name]) >= MIN_FILES, "each page's own")
        for name, about in facts()["families"].items()
    ]


def _missing(name: str, path: list[Path]) -> str:
    packages = " ".join(facts()["families"][name]["packages"])
    where = ", ".join(map(str, path)) or "the manual path (MANPATH, else /usr/local/share/man and /usr/share/man)"
    return (
        f"{GROUP}/{name}: no such manual pages in {where}. Packages with some, by Debian's names: {packages}. "
        "Container images leave manual pages out: take the lines on /usr/share/man out of the files in "
        "/etc/dpkg/dpkg.cfg.d, then apt-get install --reinstall the packages; or give a folder that holds "
        "man1 ... man9 with --data"
    )


def _items(pages: Iterable[RawPage], dropped: Counter[str], counts: Counter[str]) -> Iterator[_Item]:
    """The pages that give a query and a document; the others are counted by reason."""
    for page in pages:
        query_key = normalise(page.summary)
        length = len(query_key.split())
        if not page.summary:
            dropped["no_description"] += 1
        elif length < MIN_QUERY_WORDS:
            dropped["query_too_short"] += 1
        elif length > MAX_QUERY_WORDS:
            dropped["query_too_long"] += 1
        elif _GENERIC.match(page.summary):
            dropped["query_generic"] += 1
        else:
            text, taken_out = without_query(page.text, query_key)
            text_key = normalise(text)
            if len(text_key.split()) < MIN_REST_WORDS:
                dropped["rest_too_short"] += 1
            elif contains(text_key, query_key):
                dropped["leak"] += 1
            elif not is_english(f"{query_key} {text_key}"):
                dropped["not_english"] += 1
            else:
                counts["sentences_taken_out"] += taken_out
                yield _Item(page, page.summary, text, query_key, text_key)


def without_query(text: str, query_key: str) -> tuple[str, int]:
    """A page's text, on one line, without the sentences that say its description again; and how many those were.

    The first sentence does when it has `REPEATED` of the query's words, by their beginnings; any other when the
    normalised query stands in it as it is.
    """
    taken_out = 0
    first, rest = split_first_sentence(text)
    while first and _repeats(normalise(first), query_key):
        taken_out += 1
        text = rest
        first, rest = split_first_sentence(text)
    if contains(normalise(text), query_key):
        sentences = split_sentences(text)
        kept = [sentence for sentence in sentences if not contains(normalise(sentence), query_key)]
        taken_out += len(sentences) - len(kept)
        text = " ".join(kept)
    return " ".join(text.split()), taken_out


def _repeats(sentence: str, query_key: str) -> bool:
    stems = {word[:_STEM] for word in sentence.split()}
    words = query_key.split()
    return sum(word[:_STEM] in stems for word in words) >= REPEATED * len(words)


def is_english(text_key: str) -> bool:
    """Whether enough of a normalised text's words are among the commonest of English."""
    words = text_key.split()
    return sum(word in _COMMON for word in words) >= MIN_ENGLISH * len(words)


def _collection(
    name: str,
    items: list[_Item],
    dropped: Counter[str],
    counts: Counter[str],
    path: list[Path],
    *,
    with_names: bool,
) -> MemoryCollection:
    queries: dict[str, list[Query]] = {split: [] for split in SPLITS}
    qrels: dict[str, Qrels] = {split: {} for split in SPLITS}
    for item in items:
        split = split_of(item.query)
        query = Query(f"q:{item.page.title}", item.query, {"section": item.page.section})
        queries[split].append(query)
        qrels[split][query.query_id] = {item.page.title: 1}
    present = [split for split in SPLITS if qrels[split]]
    return MemoryCollection(
        id=f"{GROUP}/{name}",
        group=GROUP,
        corpus=tuple(item.document(with_name=with_names) for item in items),
        query_texts={split: tuple(queries[split]) for split in present},
        judgements={split: qrels[split] for split in present},
        facts={
            "folders": [str(folder) for folder in path],
            "pages": dict(sorted(counts.items())),
            "dropped": dict(sorted((+dropped).items())),
            "with_names": with_names,
        },
    )
