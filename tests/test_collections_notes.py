"""A folder of notes: which files are documents, what each says, plain labels beside them, and what is said of the rest."""

from __future__ import annotations

import builtins
import os

import pytest
from tiny import docx, pdf

from foreword.collections import DataWarning, load, text_files
from foreword.collections.collection import Document
from foreword.collections.folder import query_labels, write_label
from foreword.collections.text_files import find_file, find_files, read_file
from foreword.errors import DataError, UnknownNameError


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FOREWORD_CACHE", str(tmp_path_factory.mktemp("cache")))


def put(folder, **files):
    for name, content in files.items():
        put_at(folder / name, content)


def put_at(path, content=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


PAGE = """<html><head><title>Receipts | Wiki</title><style>p {}</style></head><body><nav>Home</nav>
<h1>Keeping receipts</h1><p>Keep a <a href="/x">receipt_of_tax</a> for <b>ten</b> years.</p>
<script>track()</script></body></html>"""


def test_which_files_are_documents(tmp_path):
    for name in ("a.md", "b.MARKDOWN", "c.rst", "d.TXT", "e.Text", "sub/f.Md"):
        put_at(tmp_path / name, "words")
    for name in (".git/x.md", ".hidden.md", "node_modules/m/readme.md", "sub/__pycache__/y.txt", ".venv/z.txt"):
        put_at(tmp_path / name, "no document")
    put_at(tmp_path / "python" / "pyvenv.cfg")
    put_at(tmp_path / "python" / "lib" / "top_level.txt", "no document")
    for name in ("p.png", "q.PNG", "Makefile", "s.org"):
        put_at(tmp_path / name)
    found = find_files(tmp_path)
    assert list(found.files) == ["a.md", "b.MARKDOWN", "c.rst", "d.TXT", "e.Text", "sub/f.Md"]
    assert found.passed_over == {".png": 2, ".org": 1, "without ending": 1}
    (tmp_path / "linked").symlink_to(tmp_path / "sub", target_is_directory=True)
    (tmp_path / "gone.md").symlink_to(tmp_path / "nothing.md")
    for path in tmp_path.rglob("*"):
        name = path.relative_to(tmp_path).as_posix()
        assert find_file(tmp_path, name) == found.files.get(name)
    wrong = (
        "",
        "/",
        "..",
        "sub",
        "sub/",
        "sub//f.Md",
        "./a.md",
        "sub/../a.md",
        f"../{tmp_path.name}/a.md",
        "/etc/passwd",
    )
    for name in (
        *wrong,
        str(tmp_path / "a.md"),
        "linked/f.Md",
        "a.md/",
        "a.md/b.md",
        "a.md\0",
        f"{'x' * 300}.md",
        "a\ud800.md",
    ):
        assert find_file(tmp_path, name) is None
    collection = load(f"folder:{tmp_path}")
    with pytest.warns(DataWarning, match=r"skipped: 1 \.org, 2 \.png, 1 without ending$"):
        assert [document.doc_id for document in collection.documents()] == list(found.files)
    assert collection.facts["passed_over"] == 4


@pytest.mark.parametrize(
    ("name", "content", "title", "text", "metadata"),
    [
        ("a.md", "# Title #\n\nBody\n", "Title", "Body", {}),
        ("a.md", "\n\nTitle\n=====\nBody", "Title", "Body", {}),
        ("a.md", "First line\n----------\nBody", "", "First line\n----------\nBody", {}),
        ("a.md", "## Section\nBody", "", "## Section\nBody", {}),
        ("a.txt", "# no title\nBody", "", "# no title\nBody", {}),
        ("a.rst", "Title\n~~~~~\n\nBody\n----\nMore", "Title", "Body\n----\nMore", {}),
        ("a.rst", "=====\nTitle\n=====\n\nBody", "Title", "Body", {}),
        ("a.md", "---\ntitle: 'A: b'\ntags: [x, y]\nyear: 2021\nok: yes\nwhen: 2021-03-01\n---\nBody", "A: b", "Body",
         {"tags": "x, y", "year": "2021", "ok": "yes", "when": "2021-03-01"}),
        ("a.md", "---\nauthor: me\nnested: {a: 1}\n...\n\n# Title\nBody", "Title", "Body", {"author": "me"}),
        ("a.md", "---\ntitle: Same\n---\n# Same\nBody", "Same", "Body", {}),
        ("a.md", "---\ntitle: One\n---\n# Other\nBody", "One", "# Other\nBody", {}),
        ("a.md", "---\nBody\n---\nmore", "", "---\nBody\n---\nmore", {}),
        ("a.md", "---\nnever: closed\nBody", "", "---\nnever: closed\nBody", {}),
        ("a.markdown", "", "", "", {}),
    ],
)  # fmt: skip
def test_titles_and_front_matter(tmp_path, name, content, title, text, metadata):
    said = read_file(put_at(tmp_path / name, content))
    assert (said.title, said.text, said.metadata, said.broken) == (title, text, metadata, False)


def test_front_matter_that_is_no_yaml_is_text(tmp_path):
    put(tmp_path, **{"a.md": "---\ntitle: {{title}}: x\n---\nBody", "b.md": "Body"})
    collection = load(f"folder:{tmp_path}")
    with pytest.warns(DataWarning, match="1 files have front matter that is no YAML"):
        first, _ = collection.documents()
    assert first == Document("a.md", "---\ntitle: {{title}}: x\n---\nBody", "", {"file": "a.md"})


def test_converted_files(tmp_path):
    put(
        tmp_path,
        **{
            "a.PDF": pdf("Pumps are serviced in May."),
            "b.html": PAGE,
            "c.docx": docx(("Heading1", "Leave"), ("Normal", "Thirty days a year."), ("Heading2", "Unused")),
            "d.htm": "<head><title>Only a title</title><body>Just <i>text</i>".encode("utf-16"),
        },
    )
    a, b, c, d = load(f"folder:{tmp_path}").documents()
    assert a == Document("a.PDF", "Pumps are serviced in May.", "", {"file": "a.PDF"})
    assert b == Document("b.html", "Keep a receipt_of_tax for ten years.", "Keeping receipts", {"file": "b.html"})
    assert c == Document("c.docx", "Thirty days a year.\n\n## Unused", "Leave", {"file": "c.docx"})
    assert d == Document("d.htm", "Just text", "Only a title", {"file": "d.htm"})


def test_a_conversion_is_kept_until_the_file_changes(tmp_path, monkeypatch):
    path = put_at(tmp_path / "a.pdf", pdf("First words"))
    made = []
    convert = text_files._CONVERT["pypdf"]
    monkeypatch.setitem(text_files._CONVERT, "pypdf", lambda data: made.append(1) or convert(data))
    assert [read_file(path).text for _ in range(3)] == ["First words"] * 3
    assert len(made) == 1
    put_at(path, pdf("Other words here"))
    assert (read_file(path).text, len(made)) == ("Other words here", 2)
    os.utime(path, (1, 1))
    assert (read_file(path).text, len(made)) == ("Other words here", 3)
    monkeypatch.setenv("FOREWORD_CACHE", "")
    assert (read_file(path).text, len(made)) == ("Other words here", 4)


def test_without_the_extra_the_message_names_it(tmp_path, monkeypatch):
    put(tmp_path, **{"a.pdf": pdf("x"), "b.html": PAGE, "c.md": "words"})
    monkeypatch.setattr(text_files, "find_spec", lambda name: None)
    with pytest.warns(DataWarning, match=r"1 \.html, 1 \.pdf; pip install 'foreword\[files\]' reads \.html and \.pdf"):
        assert [document.doc_id for document in load(f"folder:{tmp_path}").documents()] == ["c.md"]
    (tmp_path / "c.md").unlink()
    with pytest.raises(DataError, match=r"pip install 'foreword\[files\]' reads"):
        load(f"folder:{tmp_path}")


def test_files_that_cannot_be_read_are_named(tmp_path):
    put(tmp_path, **{"a.pdf": pdf("x")[:150], "b.docx": "no zip", "c.pdf": pdf(""), "d.txt": "words", "e.txt": " \n"})
    collection = load(f"folder:{tmp_path}")
    with pytest.warns(DataWarning) as said:
        assert [document.doc_id for document in collection.documents()] == ["d.txt", "e.txt"]
    left_out, empty = sorted((str(warning.message) for warning in said), reverse=True, key=len)
    assert "3 files are left out: " in left_out
    assert "a.pdf: pypdf cannot read it" in left_out
    assert "b.docx: mammoth cannot read it" in left_out
    assert "c.pdf: no text in it; a scan needs OCR" in left_out
    assert empty.endswith("1 documents have no text; they are kept")
    put_at(tmp_path / "f.txt", "Käse".encode("latin-1"))
    with pytest.raises(DataError, match=r"f\.txt:1: not UTF-8 .*iconv"):
        list(collection.documents())


LABELS = "Query\tFile\n  how long?\ta.md\nhow long?\tsub/b c.txt\t2\n\nwhere\tsub/b_c.txt\t0\nhow long?\ta.md\t1\n"


def test_plain_labels(tmp_path):
    put(
        tmp_path,
        **{"a.md": "# A\none", "sub/b c.txt": "two", "labels.tsv": LABELS, "labels-test.tsv": "who?\t./a.md\n"},
    )
    collection = load(f"folder:{tmp_path}")
    assert collection.splits == ("train", "test")
    queries = {query.text: query.query_id for query in collection.queries("train")}
    assert list(queries) == ["how long?", "where"]
    assert collection.qrels("train") == {
        queries["how long?"]: {"a.md": 1, "sub/b_c.txt": 2},
        queries["where"]: {"sub/b_c.txt": 0},
    }
    assert [(pair.query, pair.doc_id, pair.document) for pair in collection.pairs("train")] == [
        ("how long?", "a.md", "A one"),
        ("how long?", "sub/b_c.txt", "two"),
    ]
    (test,) = collection.queries("test")
    assert (test.text, collection.qrels("test")) == ("who?", {test.query_id: {"a.md": 1}})
    assert len({test.query_id, *queries.values()}) == 3
    assert all(id_.split() == [id_] for id_ in queries.values())
    assert [document.doc_id for document in collection.documents()] == ["a.md", "sub/b_c.txt"]
    put_at(tmp_path / "labels.tsv", "other\ta.md\nwhere\ta.md\n")
    again = {query.text: query.query_id for query in load(f"folder:{tmp_path}").queries("train")}
    assert again["where"] == queries["where"]  # runs stay comparable


def test_a_label_is_written_in_place_of_another(tmp_path):
    put(
        tmp_path,
        **{"a.md": "one", "sub/b c.txt": "two", "labels.tsv": "query\tfile\nwhere\tsub/b c.txt\t2\nwho\ta.md\n"},
    )
    assert query_labels(tmp_path, "where") == {"sub/b c.txt": 2}
    write_label(tmp_path, "where", "sub/b c.txt", 0)
    write_label(tmp_path, "where", "a.md", 1)
    write_label(tmp_path, "who", "a.md", None)
    assert (tmp_path / "labels.tsv").read_text() == "query\tfile\nwhere\tsub/b c.txt\t0\nwhere\ta.md\n"
    assert query_labels(tmp_path, "where") == {"sub/b c.txt": 0, "a.md": 1}
    (grades,) = load(f"folder:{tmp_path}").qrels("train").values()
    assert grades == {"sub/b_c.txt": 0, "a.md": 1}
    with pytest.raises(DataError, match="tab or a line break"):
        write_label(tmp_path, "where", "a\tb.md", 1)
    (tmp_path / "labels.tsv").unlink()
    put(tmp_path, **{"qrels/train.tsv": "query-id\tcorpus-id\tscore\n"})
    with pytest.raises(DataError, match="training judgements"):
        write_label(tmp_path, "where", "a.md", 1)
    assert not (tmp_path / "labels.tsv").exists()


def test_labels_of_a_corpus_name_its_ids(tmp_path):
    put(tmp_path, **{"corpus.jsonl": '{"_id": "d1", "text": "x"}\n', "labels.tsv": "q\td1\n"})
    assert list(load(f"folder:{tmp_path}").qrels("train").values()) == [{"d1": 1}]
    put_at(tmp_path / "labels.tsv", "q\td2\n")
    with pytest.raises(DataError, match=r"labels\.tsv:1: 'd2' is no document"):
        load(f"folder:{tmp_path}").qrels("train")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("q\ta.md\nq2\tb.md\n", r"labels\.tsv:2: 'b\.md' is no document of this folder; did you mean 'a\.md'\?"),
        ("q a.md\n", r"labels\.tsv:1: expected QUERY<tab>FILE.*got 'q a\.md'"),
        ("\ta.md\n", r"labels\.tsv:1: expected"),
        ("q\ta.md\t1\t2\n", r"labels\.tsv:1: expected"),
        ("q\ta.md\tyes\n", r"labels\.tsv:1: the score must be a whole number, got 'yes'"),
        ("q\ta.md\nq\ta.md\t0\n", r"labels\.tsv:2: .*another grade above"),
        ("query\tfile\nquery\tfile\n", r"labels\.tsv:2: 'file' is no document"),
    ],
)
def test_broken_labels_name_the_line(tmp_path, labels, message):
    put(tmp_path, **{"a.md": "words", "labels.tsv": labels})
    with pytest.raises(DataError, match=message):
        load(f"folder:{tmp_path}").qrels("train")


def test_beirs_labels_beside_markdown(tmp_path):
    put(
        tmp_path,
        **{
            "a.md": "one",
            "b c.md": "two",
            "queries.jsonl": '{"_id": "q1", "text": "one?"}\n{"_id": "q2", "text": "two?"}\n',
            "qrels/train.tsv": "query-id\tcorpus-id\tscore\nq1\ta.md\t1\n",
            "qrels/test.txt": "q2 0 b_c.md 1\n",
            "labels-dev.tsv": "one more?\ta.md\n",
        },
    )
    collection = load(f"folder:{tmp_path}")
    assert collection.splits == ("train", "dev", "test")
    assert collection.qrels("train") == {"q1": {"a.md": 1}}
    assert collection.qrels("test") == {"q2": {"b_c.md": 1}}
    assert [query.text for query in collection.queries("all")] == ["one?", "two?", "one more?"]
    assert [document.doc_id for document in collection.documents()] == ["a.md", "b_c.md"]
    put_at(tmp_path / "labels.tsv", "q\ta.md\n")
    with pytest.raises(DataError, match=r"labels\.tsv: qrels.train\.tsv has labels of train too"):
        load(f"folder:{tmp_path}")


def test_errors_of_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put_at(tmp_path / "my-notes" / "x.pdf", b"%PDF")
    put_at(tmp_path / "my-notes" / "a.md", "words")
    for name in ("my-notes/x.pdf", "folder:my-notes/x.pdf", "./my-notes/x.pdf"):
        with pytest.raises(DataError, match="this is a file; name the folder it lies in, my-notes"):
            load(name)
    with pytest.raises(DataError, match=r"my-notse: no such folder; did you mean my-notes\?"):
        load("./my-notse")
    with pytest.raises(UnknownNameError, match=r"'my-notse'.*did you mean my-notes\?"):
        load("my-notse")
    with pytest.raises(UnknownNameError, match=r"no split 'test'; .*labels-test\.tsv, QUERY<tab>FILE a line"):
        load("my-notes").queries("test")
    put_at(tmp_path / "images" / "x.png")
    with pytest.raises(DataError, match=r"no file of text .*skipped: 1 \.png"):
        load("images")


def test_text_is_read_without_a_converter(tmp_path, monkeypatch):
    """Reading plain text imports neither YAML nor a converter."""
    path = put_at(tmp_path / "a.md", "# A\nwords")
    real = builtins.__import__

    def refuse(name, *rest):
        assert name.partition(".")[0] not in ("yaml", "bs4", "markdownify", "mammoth", "pypdf")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert read_file(path).title == "A"
