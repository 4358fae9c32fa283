"""`glasgow/<name>`: the real files where they are, small ones made here for the formats and their quirks."""

from __future__ import annotations

import io
import os
import tarfile
import warnings
from pathlib import Path

import pytest
from webserver import serve

from foreword.collections import DataWarning, load
from foreword.collections.collection import Document, Query
from foreword.collections.glasgow import GLASGOW
from foreword.downloads import Transport
from foreword.errors import DataError, UnknownNameError

SHARED = Path(__file__).parents[2] / "shared" / "data" / "glasgow"
REAL = Path(os.environ.get("FOREWORD_DATA", SHARED))


def put(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_bytes(text.replace("\n", "\r\n").encode("latin-1"))
    return folder


def quietly(*arguments, **options):
    """The collections made here are smaller than the real ones, which `load` says."""
    with pytest.warns(DataWarning, match="are files cut"):
        return load(*arguments, **options)


@pytest.mark.parametrize(
    ("name", "documents", "queries", "judgements"),
    [
        ("cranfield", 1400, 225, 1837),
        ("cisi", 1460, 76, 3114),
        ("medline", 1033, 30, 696),
        ("cacm", 3204, 52, 796),
    ],
)
def test_real_files(name, documents, queries, judgements):
    if not REAL.is_dir():
        pytest.skip(f"no files in {REAL}; set FOREWORD_DATA")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collection = load(f"glasgow/{name}", data=REAL)
    assert len(list(collection.documents())) == documents
    assert len({d.doc_id for d in collection.documents()}) == documents
    qrels = collection.qrels("test")
    assert [q.query_id for q in collection.queries("test")] == list(qrels)
    assert len(qrels) == queries
    assert sum(map(len, qrels.values())) == judgements
    assert all(query.text for query in collection.queries("test"))
    assert collection.splits == ("test",)


def test_real_cranfield_in_detail():
    if not REAL.is_dir():
        pytest.skip(f"no files in {REAL}; set FOREWORD_DATA")
    collection = load("glasgow/cranfield", data=REAL)
    first = next(iter(collection.documents()))
    title = "experimental investigation of the aerodynamics of a wing in a slipstream ."
    assert first.title == title
    assert first.content.startswith(f"{title} an experimental study")  # its text repeats the title; once is enough
    assert collection.qrels("test")["1"]["184"] == 3  # grade 2
    assert collection.qrels("test")["225"]["1188"] == 0  # grade -1
    queries = {q.query_id: q.text for q in collection.queries("test")}
    assert queries["3"].startswith("what problems of heat conduction")  # the third, numbered .I 004
    assert collection.facts["empty_documents"] == 2


def test_real_cacm_has_the_document_whose_number_is_broken_over_two_lines():
    if not REAL.is_dir():
        pytest.skip(f"no files in {REAL}; set FOREWORD_DATA")
    ids = [d.doc_id for d in load("glasgow/cacm", data=REAL).documents()]
    assert ids == [str(i) for i in range(1, 3205)]


def test_smart_format(tmp_path):
    put(
        tmp_path / "cran",
        {
            "cran.all.1400": ".I 1\n.T\na wing\n.A\nsomeone\n.B\n1958\n.W\na wing\n  it\nflies .\n"
            ".I 2\n.T\nb\xe9zier\n.W\n",
            "cran.qry": ".I 001\n.W\nfirst\n.I 004\n.W\nfourth is\nsecond\n.I 008\n.W\nunjudged\n",
            "cranqrel": "1 1 2 \n1 2 -1\n2 2 1\n",
        },
    )
    collection = quietly("glasgow/cranfield", data=tmp_path)
    assert list(collection.documents()) == [
        Document("1", "it flies .", "a wing", {"file": "cran.all.1400"}),  # the title is not there twice
        Document("2", "", "bézier", {"file": "cran.all.1400"}),
    ]
    assert list(collection.queries()) == [Query("1", "first"), Query("2", "fourth is second")]
    assert collection.qrels() == {"1": {"1": 3, "2": 0}, "2": {"2": 4}}
    assert quietly("glasgow/cranfield", data=tmp_path / "cran") == collection


def test_npl_format(tmp_path):
    put(
        tmp_path / "npl",
        {
            "doc-text": "1\ncompact memories\nhave flexible\n   /\n2\nan electronic\n   /\n",
            "query-text": "1\nMEASUREMENT OF\nPLASMA\n/\n02\nother\n/\n",
            "rlv-ass": "1\n  1\n   2\n/\n2\n 2 \n   /\n",
        },
    )
    collection = quietly("glasgow/npl", data=tmp_path)
    assert [(d.doc_id, d.content) for d in collection.documents()] == [
        ("1", "compact memories have flexible"),
        ("2", "an electronic"),
    ]
    assert list(collection.queries()) == [Query("1", "MEASUREMENT OF PLASMA"), Query("2", "other")]
    assert collection.qrels() == {"1": {"1": 1, "2": 1}, "2": {"2": 1}}
    put(tmp_path / "npl", {"rlv-ass": "1\n 1\n"})
    with pytest.raises(DataError, match=r"rlv-ass:1: the last record is not ended"):
        load("glasgow/npl", data=tmp_path)


def test_lisa_format(tmp_path):
    star = "*" * 44
    one = f"Document    1\nTHE TITLE\nGOES ON.\n \nTHE TEXT\nTOO.\n{star}\n"
    put(
        tmp_path,
        {
            "LISA0.001": one + f"Document    2\nSECOND.\n\nMORE.\n{star}\n",
            "LISA0.501": one + f"Document 501\nTHIRD.\n\nEND.\n{star}\n",
            "LISA.QUE": "1\nI AM INTERESTED\nIN THIS. #\n2\nAND THAT #\n",
            "LISA.REL": "Query 1\n2 Relevant Refs:\n1 501 -1\n\nQuery 2\n1 Relevant Ref:\n2\n-1\n",
        },
    )
    collection = quietly("glasgow/lisa", data=tmp_path)
    assert [(d.doc_id, d.title, d.text) for d in collection.documents()] == [
        ("1", "THE TITLE GOES ON.", "THE TEXT TOO."),
        ("2", "SECOND.", "MORE."),
        ("501", "THIRD.", "END."),
    ]
    assert collection.facts["repeated_documents"] == 1
    assert list(collection.queries()) == [Query("1", "I AM INTERESTED IN THIS."), Query("2", "AND THAT")]
    assert collection.qrels() == {"1": {"1": 1, "501": 1}, "2": {"2": 1}}


def test_what_is_damaged_in_lisa_is_skipped_and_counted(tmp_path):
    """As in the public LISA1.501: numbers are missing, a tail follows no head, and a document breaks off at the end."""
    star = "*" * 44
    whole = "Document {}\nTITLE {}.\n     \nTEXT.\n" + star + "\n"
    put(
        tmp_path,
        {
            "LISA1.501": whole.format(1992, "A")
            + whole.format(1993, "OF ANOTHER")
            + f"THE TAIL OF\nSOMETHING.\n{star}\n"
            + "Document 1994\nBREAKS OFF.\n"
            + whole.format(1998, "B")
            + "Document 2001\nBREAKS OFF.\n\nAND ENDS.\n",
            "LISA2.001": whole.format(2001, "C") + whole.format(2002, "D"),
            "LISA.QUE": "1\nTHIS. #\n",
            "LISA.REL": "Query 1\n2 Relevant Refs:\n1993 2001 -1\n",
        },
    )
    said = r"6 documents are damaged in these files and were skipped \(1993, .*, 1997, LISA1.501:11\)"
    with pytest.warns(DataWarning, match=said), pytest.warns(DataWarning, match="whole collection has 5999"):
        collection = load("glasgow/lisa", data=tmp_path)
    assert [(d.doc_id, d.content) for d in collection.documents()] == [
        ("1992", "TITLE A. TEXT."),
        ("1998", "TITLE B. TEXT."),
        ("2001", "TITLE C. TEXT."),
        ("2002", "TITLE D. TEXT."),
    ]
    assert collection.qrels() == {"1": {"2001": 1}}
    assert collection.facts["damaged_documents"] == 6
    put(tmp_path, {"LISA1.501": "<html>", "LISA2.001": "not found"})
    with pytest.raises(DataError, match="no document in these files"):
        load("glasgow/lisa", data=tmp_path)


def test_time_format(tmp_path):
    articles = "".join(f"*TEXT {17 + 2 * n:03} 01/04/63 PAGE 020\n\nARTICLE {n}\n\nEND .\n\n" for n in range(1, 424))
    put(
        tmp_path / "time",
        {
            "TIME.ALL": articles + "*STOP\n",
            "TIME.QUE": "*FIND      1\n\n KENNEDY\n\nPRESSURE .\n\n*FIND     2\n\n LODGE .\n*FIND 3\nX\n*STOP\n",
            "TIME.REL": "1  268 371 377 425\n\n2  \n\n3 374 1\n\n",
        },
    )
    with (
        pytest.warns(DataWarning, match="1 judgements name a document"),
        pytest.warns(DataWarning, match="are files cut"),
    ):
        collection = load("glasgow/time", data=tmp_path)
    documents = {d.doc_id: d.content for d in collection.documents()}
    assert len(documents) == 423
    assert (documents["1"], documents["423"]) == ("ARTICLE 1 END .", "ARTICLE 423 END .")
    assert list(collection.queries()) == [Query("1", "KENNEDY PRESSURE ."), Query("3", "X")]
    assert collection.qrels() == {"1": {"268": 1, "371": 1, "375": 1, "423": 1}, "3": {"1": 1}}
    assert collection.facts["queries_without_judgements"] == 1


def test_adi_format(tmp_path):
    put(
        tmp_path / "adi",
        {
            "ADI.ALL": ".I 1\n.T\na title .\n.A\nL. F. BUCKLAND\n.W\nthe text\n of it .\n.I 2\n.T\nb\n.W\nc\n",
            "ADI.QRY": ".I 1\n.W\nWhat is it?  \nAnd why?\n\n\n",
            "ADI.REL": "1   2   0   0.000000   \n1   1   0   0.000000   \n",
        },
    )
    collection = quietly("glasgow/adi", data=tmp_path)
    assert [(d.doc_id, d.content) for d in collection.documents()] == [
        ("1", "a title . the text of it ."),
        ("2", "b c"),
    ]
    assert list(collection.queries()) == [Query("1", "What is it? And why?")]
    assert collection.qrels() == {"1": {"2": 1, "1": 1}}


MED = {"MED.ALL": ".I 1\n.W\ntext\n", "MED.QRY": ".I 1\n.W\nquery\n", "MED.REL": "1 0 1 1\n"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"MED.ALL": "text\n.I 1\n"}, r"MED\.ALL:1: expected a record's first line"),
        ({"MED.ALL": ""}, r"MED\.ALL: no record"),
        ({"MED.ALL": ".I 1\n.W\na\n.I 1\n.W\nb\n"}, r"MED\.ALL:4: document 1 comes twice"),
        ({"MED.QRY": ".I 1\n.W\na\n.I 1\n.W\nb\n"}, r"MED\.QRY:4: query 1 comes twice"),
        ({"MED.REL": "1 1 1\none two\n"}, r"MED\.REL:2: expected 'query document \.\.\.', got 'one two'"),
        ({"MED.REL": f"1 {'9' * 5000} 1\n"}, r"MED\.REL:1: expected an id \(a number\), got '9{40}'"),
        (
            {"MED.REL": "1 1\n\u00b2 1\n"},
            r"MED\.REL:2: expected an id \(a number\), got '\u00b2'",
        ),  # a digit, says Python
        ({"MED.ALL": f".I {'9' * 5000}\n.W\na\n"}, r"MED\.ALL:1: expected an id"),
    ],
)
def test_broken_files_name_file_and_line(tmp_path, change, message):
    put(tmp_path, {**MED, **change})
    with pytest.raises(DataError, match=message):
        load("glasgow/medline", data=tmp_path)


def test_judgements_of_unknown_documents_are_counted(tmp_path):
    put(tmp_path, {**MED, "MED.REL": "1 0 1 1\n1 0 77 1\n9 0 1 1\n"})
    with (
        pytest.warns(DataWarning, match="2 judgements name a document or query that is not there"),
        pytest.warns(DataWarning, match="are files cut"),
    ):
        assert load("glasgow/medline", data=tmp_path).qrels() == {"1": {"1": 1}}


def test_missing_files_say_what_and_where(tmp_path, monkeypatch):
    monkeypatch.setenv("FOREWORD_DATA", str(tmp_path / "default"))
    with pytest.raises(DataError, match=r"MED\.ALL, MED\.QRY, MED\.REL; not found in .*default.*http://ir\.dcs"):
        load("glasgow/medline")
    with pytest.raises(DataError, match=f"not found in {tmp_path} .*`foreword download glasgow/medline`"):
        load("glasgow/medline", data=tmp_path)
    monkeypatch.setenv("FOREWORD_DATA", str(tmp_path))
    put(tmp_path / "glasgow" / "med", MED)
    assert len(list(quietly("glasgow/medline").documents())) == 1
    with pytest.raises(UnknownNameError, match="glasgow/medline"):
        load("glasgow/medlin")


def archive(files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return packed.getvalue()


@pytest.mark.parametrize("inside", ["", "med/"])
def test_download(tmp_path, inside):
    assert GLASGOW.resource("medline").urls == ("http://ir.dcs.gla.ac.uk/resources/test_collections/medl/med.tar.gz",)
    with serve({"/med.tar.gz": archive({inside + name: text for name, text in MED.items()})}) as site:
        transport = Transport(mirrors=(site.url,))
        folder = GLASGOW.download("medline", tmp_path, transport)
        assert folder == tmp_path / "glasgow" / "medline" / inside
        collection = quietly("glasgow/medline", data=tmp_path)
        assert [d.text for d in collection.documents()] == ["text"]
        assert GLASGOW.download("medline", tmp_path, transport) == folder
        assert len(site.requests) == 1
    assert [entry.id for entry in GLASGOW.entries(tmp_path) if entry.available] == ["glasgow/medline"]


def test_a_users_own_copy_is_not_downloaded(tmp_path):
    put(tmp_path / "med", MED)
    assert GLASGOW.download("medline", tmp_path, Transport(offline=True)) == tmp_path / "med"
    with pytest.raises(DataError, match=r"offline.*looked for .*cisi\.tar\.gz"):
        GLASGOW.download("cisi", tmp_path, Transport(offline=True))
    with pytest.raises(UnknownNameError, match="glasgow/none"):
        GLASGOW.download("none", tmp_path, Transport(offline=True))


def test_an_archive_of_something_else(tmp_path):
    with serve({"/med.tar.gz": archive({"MED.ALL": "x"})}) as site:
        with pytest.raises(DataError, match=r"glasgow/medline: lacks one of the files MED\.ALL, MED\.QRY, MED\.REL"):
            GLASGOW.download("medline", tmp_path, Transport(mirrors=(site.url,)))
        site.files = {"/cisi.tar.gz": b"no archive"}
        with pytest.raises(DataError, match=r"neither a zip nor a tar.*delete .*cisi\.tar\.gz and .*\.records"):
            GLASGOW.download("cisi", tmp_path, Transport(mirrors=(site.url,)))
