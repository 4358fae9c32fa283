"""`manpages/<family>`: reading roff, choosing pages, queries and documents; and the pages of this machine."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from foreword.collections import load
from foreword.collections.collection import Document, MemoryCollection, Query, contains, normalise, split_of
from foreword.collections.manpages import entries, is_english, without_query
from foreword.collections.manpages_roff import arguments, unescape
from foreword.collections.manpages_source import MAX_WORDS, facts, manual_path, page_files, read_page, read_source
from foreword.collections.manpages_text import joined, pieces
from foreword.collections.registry import members
from foreword.errors import DataError, UnknownNameError

REST = "It takes each of its {} in turn, and writes what is left of them to the file that the user has named for it."


def man(name, summary, text, section="1", head=""):
    return (
        f'.\\" made\n.TH {name} {section} 2024\n{head}.SH NAME\n{name} \\- {summary}\n.SH SYNOPSIS\n.B {name}\n{text}\n'
    )


def page(name, summary, about):
    return man(name, summary, f".SH DESCRIPTION\n{REST.format(about)}")


SORT = r"""'\" t
.de Bx1
\fB\\$1\fR, \\$2
..
.ds nm sorter
.TH SORT 1
.SH NAME
sort, \*(nm \- put the \fIlines\fR of text files in order
.SH SYNOPSIS
.B sort
.SH DESCRIPTION
Sort puts the lines of text files in order.
Take all lines of the given \f[I]files\f[], e.g.\& of \(oqlogs\(cq,
and write them out \(em \s-1ONE\s0 by one.
.PP
.ie t .B never
.el \{\
.if n or \fIelse\fP in reverse\c
\&.
.\}
.if !n \{\
.B hidden
.\}
.TS
l l.
a	table
.TE
.SH OPTIONS
.TP
.BR \-r , " \-\-reverse"
reverse the order; see
.BR tac (1).
.IP \(bu 2
.Bx1 first second
.Unheard of
.SS "Exit status"
A zero.
.SH AUTHOR
Somebody.
"""
TABS = """.Dd $Mdocdate$
.Dt TABS 1
.Os
.Sh NAME
.Nm tabs ,
.Nm untabs
.Nd set the stops of a terminal
.Sh SYNOPSIS
.Nm
.Op Fl n
.Sh DESCRIPTION
.Nm
writes to the
.Ar device ,
which is
.Pq see Xr tty 4
a terminal of
.Fx .
.Bl -tag -width Ds
.It Fl n Ar count
at most
.Ar count Ns th
.Dq stops here ,
and
.Fn tcset fd "int x" .
.Sm off
.It Ar host : Op Ar port
.Sm on
or
.Oo a | b Oc
of the
.Ev TERM
.Em variable
.El
.Sh SEE ALSO
.Xr stty 1
"""
LEAKS = """.SH DESCRIPTION
It shows how this command can be used: to count the words of a book, once you have one.
Count the words of a book. All of the words are counted, and those of its title are among them, as you may expect.
Every page of it has to be there, or else there is nothing to be shown to you.
"""


@pytest.fixture
def tree(tmp_path, monkeypatch):
    root = tmp_path / "pages"
    plain = {
        "man1/sort.1": SORT,
        "man1/tabs.1": TABS,
        "man1/cut.1": page("cut", "take columns out of a table", "columns"),
        "man1/copy-a.1": page("copy-a", "make one more copy of files", "copies"),
        "man1/copy-b.1": page("copy-b", "make another copy of files", "copies"),
        "man1/twice-a.1": page("twice-a", "say the very same thing", "words"),
        "man1/twice-b.1": page("twice-b", "Say the very same thing.", "things"),
        "man1/leaks.1": man("leaks", "count the words of a book", LEAKS),
        "man1/few.1": page("few", "two words", "ends"),
        "man1/tiny.1": man("tiny", "print the name of nobody", ".SH DESCRIPTION\nIt prints no name."),
        "man1/generic.1": page("generic", "manual page for generic 1.2", "versions"),
        "man1/long.1": page("long", "words " * 30, "lines"),
        "man1/nameless.1": f".TH NAMELESS 1\n.SH DESCRIPTION\n{REST.format('names')}\n",
        "man1/deutsch.1": man(
            "deutsch", "zeige alle Dateien des Ordners", ".SH DESCRIPTION\n" + "Alle Worte hier. " * 9
        ),
        "man1/linked.1": ".so man1/sort.1\n",
        "man1/gcloud_alpha_run.1": page("gcloud_alpha_run", "run a thing before others", "alphas"),
        "man1/README": "no page",
        "man3/close.3": page("close", "close what has been opened", "handles"),
        "man3/Mod::Name.3pm": page("Mod::Name", "give each module its name", "modules"),
        "de/man1/cut.1": page("cut", "take columns out of tables", "Spalten"),
        "notes.txt": "no folder of pages",
    }
    for name, text in plain.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "man1/zip.1.gz").write_bytes(gzip.compress(page("zip", "make a file much smaller", "bytes").encode()))
    (root / "man1/xz.1.xz").write_bytes(lzma.compress(page("xz", "make files smaller still", "blocks").encode()))
    (root / "man1/bz.1.bz2").write_bytes(bz2.compress(page("bz", "make blocks of files small", "crumbs").encode()))
    (root / "man1/latin.1").write_bytes(page("latin", "drink coffee at the caf\xe9", "cups").encode("latin-1"))
    (root / "man1/broken.1.gz").write_bytes(gzip.compress(SORT.encode())[:40])
    (root / "man1/alias.1").symlink_to("sort.1")
    (root / "man1/away.1").symlink_to("/nowhere/at/all.1")
    (tmp_path / "outside.1").write_text(page("outer", "look in from the outside", "windows"))
    (root / "man1/outer.1").symlink_to(tmp_path / "outside.1")
    monkeypatch.setenv("FOREWORD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FOREWORD_DATA", str(tmp_path / "data"))
    return root


def texts(collection):
    queries = {q.query_id: q.text for split in collection.splits for q in collection.queries(split)}
    return {d.doc_id: (queries[f"q:{d.doc_id}"], d.text) for d in collection.documents()}


def test_what_a_tree_gives(tree):
    collection = load("manpages/commands", data=tree)
    found = texts(collection)
    names = ("bz", "copy-a", "cut", "latin", "leaks", "outer", "sort", "tabs", "xz", "zip")
    assert list(found) == [f"{name}(1)" for name in names]
    assert found["bz(1)"] == ("make blocks of files small", REST.format("crumbs"))
    assert found["sort(1)"] == (
        "put the lines of text files in order",
        "Take all lines of the given files, e.g. of 'logs', and write them out — ONE by one. or else in reverse. "
        "Options: -r, --reverse reverse the order; see tac(1). first, second Exit status: A zero.",
    )
    assert found["tabs(1)"] == (
        "set the stops of a terminal",
        "tabs writes to the device, which is (see tty(4)) a terminal of FreeBSD. -n count at most countth "
        '"stops here", and tcset(fd, int x). host:[port] or [a | b] of the TERM variable',
    )
    assert found["zip(1)"] == ("make a file much smaller", REST.format("bytes"))
    assert found["latin(1)"][0] == "drink coffee at the café"
    assert found["leaks(1)"][1].startswith("All of the words are counted")
    assert collection.facts["dropped"] == {
        "ambiguous_query": 2,
        "no_description": 1,
        "not_english": 1,
        "query_generic": 1,
        "query_too_long": 1,
        "query_too_short": 1,
        "repeated_text": 1,
        "rest_too_short": 1,
    }
    assert collection.facts["pages"] == {
        "aliases": 3,  # a link to a page, a dead one, and a page that is an `.so` line
        "files": 21,
        "pages_with_parts_passed_over": 1,
        "sentences_taken_out": 3,
        "unreadable": 1,
    }
    assert collection.facts["folders"] == [str(tree)]


def test_families(tree):
    files, _ = page_files([tree])
    assert {family: [f.name for f in found] for family, found in files.items() if len(found) < 5 and found} == {
        "perl": ["Mod::Name"],
        "programming": ["close"],
    }
    assert [p.doc_id for p in load("manpages/perl", data=tree).documents()] == ["Mod::Name(3pm)"]
    assert not any("gcloud" in f.name for found in files.values() for f in found)
    assert set(facts()["families"]) == set(files)


def test_where_pages_are_looked_for(tree, tmp_path, monkeypatch):
    other = tmp_path / "other"
    (other / "man1").mkdir(parents=True)
    (other / "man1" / "cut.1").write_text(page("cut", "take another way to columns", "ways"))
    monkeypatch.setenv("MANPATH", f"{other}{os.pathsep}{tree}")
    assert manual_path() == [other, tree]
    first = load("manpages/commands")
    assert texts(first)["cut(1)"][0] == "take another way to columns"
    assert first.facts["pages"]["aliases"] == 4
    data = tmp_path / "data"
    data.mkdir()
    (data / "manpages").symlink_to(tree)
    assert manual_path() == manual_path(data) == [data / "manpages"]
    assert texts(load("manpages/commands")) == texts(load("manpages/commands", data=tree))


def test_names_and_titles(tree):
    document = next(d for d in load("manpages/commands", data=tree).documents() if d.doc_id == "cut(1)")
    assert document.content == document.text
    assert document.name == "cut(1)"
    assert document.metadata == {"name": "cut(1)", "section": "1"}
    named = load("manpages/commands", data=tree, with_names=True)
    assert all(d.content == f"{d.doc_id} {d.text}" for d in named.documents())


def test_cache(tree, tmp_path):
    first = load("manpages/commands", data=tree)
    [kept] = (tmp_path / "cache" / "manpages").iterdir()
    assert load("manpages/commands", data=tree) == first == load("manpages/commands", data=tree, cache=False)
    head, rest = kept.read_text().split("\n", 1)
    kept.write_text(head + "\n" + rest[: len(rest) // 2])
    assert load("manpages/commands", data=tree) == first  # a broken cache is made again
    (tree / "man1" / "cut.1").unlink()
    assert len(list(load("manpages/commands", data=tree).documents())) == len(first.corpus) - 1  # and a stale one


def test_exclude_drops_the_targets_texts(tree):
    target = MemoryCollection(
        "t",
        "t",
        (Document("1", REST.format("bytes")),),
        {"test": (Query("1", "Take columns out of a TABLE"),)},
        {"test": {"1": {"1": 1}}},
    )
    collection = load("manpages/commands", data=tree, exclude=[target])
    assert {"cut(1)", "zip(1)"}.isdisjoint(texts(collection))
    assert collection.facts["dropped"]["excluded"] == 2


def test_no_pages(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("MANPATH", str(tmp_path / "empty"))
    with pytest.raises(DataError, match=r"no such manual pages in the manual path .*: perl-doc\. .*--data"):
        load("manpages/perl")
    assert not any(entry.available for entry in entries())
    assert members("manpages") == ()
    with pytest.raises(DataError, match=r"no such manual pages in .*pages\. .*: libssl-doc\."):
        load("manpages/openssl", data=tree)
    with pytest.raises(UnknownNameError, match="unknown collection 'manpages/comands'; did you mean manpages/commands"):
        load("manpages/comands")
    (tree / "man3" / "close.3").write_text("")
    with pytest.raises(DataError, match="none of 1 pages gives a query"):
        load("manpages/programming", data=tree)


def test_catalogue(tree, monkeypatch):
    assert {entry.group for entry in entries(tree)} == {"manpages"}
    assert len(entries(tree)) == len(facts()["families"])
    assert not any(entry.available for entry in entries(tree))  # a score of pages is no domain
    monkeypatch.setattr("foreword.collections.manpages.MIN_FILES", 3)
    assert [entry.id for entry in entries(tree) if entry.available] == ["manpages/commands"]
    assert members("manpages", tree) == ("manpages/commands",)


# -- reading roff --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (r"\fBa\fP \f(CWb\fR \f[I]c\f[] \s-2d\s0 \s'+1'e", "a b c d e"),
        (r"\- \(em \[u00E9] \('e \[:u] \(aq \e \[char65] \N'66'", "- — é é ü ' \\ A B"),
        (r"a\|b\^c\&d\%e\:f\,g\/h a\ b\~c\0d", "abcdefgh a b c d"),
        (r"x\h'-1p'y\h'+2n'z\v'.1v'w\w'abc'", "xy zw"),
        (r"\(Zz\[no such]", ""),
        ("\\", ""),
    ],
)
def test_escapes(source, text):
    assert unescape(source) == text


def test_arguments():
    assert arguments(r'one "two words" "say ""so""" th\ ree "open') == [
        "one",
        "two words",
        'say "so"',
        r"th\ ree",
        "open",
    ]
    assert arguments("") == []


def read(source):
    unknown: Counter[str] = Counter()
    return {h: joined(t) for h, t in _sections(pieces(source, unknown)).items()}, unknown


def _sections(found):
    sections: dict[str, str] = {}
    for heading, text in found:
        sections[heading] = f"{sections.get(heading, '')} {text}"
    return sections


def test_conditions_strings_and_macros():
    found, unknown = read(
        ".ds x one\n.as x \" two\n.de M\n.ie '\\\\$1'a' is-a\n.el is-\\\\$1 of \\\\n(.$\n..\n.SH\nHEAD\n\\*x\n.M a\n.M b c\n"
        ".if \\n(.g=1 yes\n.if \\n(.g>1 no\n.if d x known\n.if !d y unknown\n.ig\nnot this\n..\n.el odd\n.while 1 never\n"
        ".nop text\n.do B bold\nend of\\\nline\n.als N M\n.N a\n.Q x\n.Q y\n"
    )
    assert found == {"HEAD": "one two is-a is-b of 2 yes known unknown text bold end ofline is-a"}
    assert unknown == {"Q": 2}


def test_a_macro_that_calls_itself_ends():
    found, _ = read(".de M\nagain\n.M\n.M\n..\n.SH A\n.M\n")
    assert found["A"].startswith("again again")


def test_descriptions():
    def summary(name):
        return read_page(f".SH NAME\n{name}\n.SH DESCRIPTION\ntext\n", Counter())

    assert summary("a, b \\- list it \\- all") == ("list it - all", "text")
    assert summary("a -- list it\n.br\nb -- list them") == ("list it", "text")
    assert summary("a\\(emlist it")[0] == "list it"
    assert summary("pre-made")[0] == ""


def test_text_is_cut_and_begins_with_the_description():
    body = ".SH ARGUMENTS\none\n.SH DESCRIPTION\n{}\n.SH HISTORY\nlong ago\n.SH NOTES\ntwo\n"
    assert read_page(body.format("text"), Counter())[1] == "text\n\nArguments:\n\none\n\nNotes:\n\ntwo"
    assert read_page(body.format("word " * 1000), Counter())[1].split() == ["word"] * MAX_WORDS


def test_sentences_that_say_the_query_again():
    key = "change the owner of a file"
    assert without_query("x changes the owner of files and of a folder. More.", key) == ("More.", 1)
    assert without_query("It changes owners. More.", key) == ("It changes owners. More.", 0)
    assert without_query("Some. You can change the owner of a file. More.", key) == ("Some. More.", 1)
    assert is_english("the owner of a file is changed")
    assert not is_english("der Besitzer der Datei wird ohne Frage und ohne Ausnahme immer wieder neu bestimmt werden")


def test_no_page_breaks_the_reader():
    draw = random.Random(0)
    for _ in range(300):
        lines = (SORT + TABS + LEAKS).split("\n")
        for _ in range(12):
            at = draw.randrange(len(lines))
            line = lines[at]
            cut = draw.randrange(len(line) + 1)
            lines[at] = line[:cut] + draw.choice(
                ["\\", "\\{", "\\}", '"', ".de X\n", "\\*(", ".ie ", ".X\n", "", "\\f"]
            )
        if draw.random() < 0.2:
            draw.shuffle(lines)
        read_page("\n".join(lines), Counter())


# -- the pages of this machine -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["programming", "commands"])
def test_real_pages_are_sound(family, monkeypatch):
    monkeypatch.setenv("FOREWORD_CACHE", "")
    monkeypatch.setenv("FOREWORD_DATA", "/nowhere")
    if f"manpages/{family}" not in members("manpages"):
        pytest.skip(f"few manual pages of the family {family} here")
    collection = load(f"manpages/{family}")
    documents = {d.doc_id: d for d in collection.documents()}
    judged: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for split in collection.splits:
        qrels = collection.qrels(split)
        for query in collection.queries(split):
            [(doc_id, relevance)] = qrels[query.query_id].items()
            key, text = normalise(query.text), normalise(documents[doc_id].content)
            assert relevance == 1
            assert not contains(text, key), doc_id
            assert split_of(query.text) == split
            assert is_english(f"{key} {text}")
            assert len(text.split()) < 10 * MAX_WORDS
            assert query.query_id.split() == [query.query_id]
            judged[doc_id] += 1
            seen[key] += 1
    assert set(judged) == set(documents)
    assert set(judged.values()) == set(seen.values()) == {1}
    assert len({normalise(d.text) for d in documents.values()}) == len(documents)
    markup = [d.doc_id for d in documents.values() if "\\f" in d.text or "\x01" in d.text or "\x02" in d.text]
    assert len(markup) < 0.02 * len(documents)  # pages on roff, and on printf, have such text
    if family == "commands" and Path("/usr/share/man/man1/ls.1.gz").exists():
        assert "directory" in read_page(read_source(Path("/usr/share/man/man1/ls.1.gz")), Counter())[0]
