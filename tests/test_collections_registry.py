"""Names: the catalogue, unknown ids and options."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import toy_collection, write_beir

from foreword.collections import catalogue, fingerprint, load
from foreword.collections.collection import Collection, Document, Entry, MemoryCollection, Query, TrainingPair
from foreword.collections.registry import FAMILIES, full_id, near_matches, split_id
from foreword.errors import DataError, UnknownNameError


def test_catalogue(tmp_path, monkeypatch):
    monkeypatch.delenv("FOREWORD_DATA", raising=False)
    entries = catalogue()
    assert all(isinstance(entry, Entry) and entry.description for entry in entries)
    by_id = {entry.id: entry for entry in entries}
    assert len(by_id) == len(entries)
    assert {"pydoc/stdlib", "pydoc/numpy", "glasgow/cranfield", "glasgow/lisa", "folder:PATH"} <= set(by_id)
    assert {entry.group for entry in entries} == set(FAMILIES)
    assert sum(entry.group == "glasgow" for entry in entries) == 8
    assert not by_id["glasgow/medline"].available
    for name in ("MED.ALL", "MED.QRY", "MED.REL"):
        (tmp_path / name).touch()
    assert next(e for e in catalogue(tmp_path) if e.id == "glasgow/medline").available


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pydoc/numpi", "did you mean pydoc/numpy"),
        ("glasgow/cranfeld", "did you mean glasgow/cranfield"),
        ("cisi", "did you mean glasgow/cisi"),
        ("pydocs/numpy", "did you mean pydoc/numpy"),
        ("zzz", "lists what there is"),
        ("pydoc/", "unknown collection"),
        ("pydoc/os.path", "unknown collection"),
        ("folder:", "folder:PATH"),
        ("", "unknown collection"),
    ],
)
def test_unknown_ids_list_near_matches(name, message):
    with pytest.raises(UnknownNameError, match=message):
        load(name)


def test_a_path_alone_is_a_folder(tmp_path, monkeypatch):
    write_beir(tmp_path / "my-notes", toy_collection("toy"))
    monkeypatch.chdir(tmp_path)
    for name in ("my-notes", "./my-notes", str(tmp_path / "my-notes")):
        assert full_id(name) == f"folder:{name}"
        assert load(name).id == load(f"folder:{name}").id == f"folder:{name}"
    assert load("my-notes", data=Path("elsewhere")).id == f"folder:{tmp_path / 'my-notes'}"
    assert full_id("my-notes#fold1of2") == "folder:my-notes#fold1of2"
    (tmp_path / "pydoc" / "torch").mkdir(parents=True)
    assert full_id("pydoc/torch") == "pydoc/torch"
    assert full_id("./pydoc/torch") == "folder:./pydoc/torch"
    assert [full_id(name) for name in ("", "zzz", "hf:a/b", "beir/x")] == ["", "zzz", "hf:a/b", "beir/x"]
    with pytest.raises(DataError, match="no such folder"):
        load("./missing")


def test_unknown_options():
    with pytest.raises(UnknownNameError, match="glasgow has no option 'colour'; it has none"):
        load("glasgow/cisi", colour="red")


def test_ids():
    assert split_id("pydoc/torch") == ("pydoc", "torch")
    assert split_id("folder:/a/b:c") == ("folder", "/a/b:c")
    assert split_id("folder/x") == ("", "folder/x")
    assert near_matches("TORCH", ["pydoc/torch", "pydoc/numpy"]) == ["pydoc/torch"]


def test_memory_collection_is_a_collection_and_guards_its_judgements():
    documents = (Document("1", "one", "title"), Document("2", "two"))
    made: Collection = MemoryCollection(
        "x", "g", documents, {"train": (Query("q", "?"),)}, {"train": {"q": {"1": 2, "2": 0}}}
    )
    assert list(made.pairs("train")) == [TrainingPair("q", "?", "1", "title one")]
    made.qrels("train")["q"].clear()
    assert made.qrels("train") == {"q": {"1": 2, "2": 0}}
    with pytest.raises(UnknownNameError, match="x has no split 'test'; it has train"):
        made.queries("test")
    changed = MemoryCollection("x", "g", documents, {"train": (Query("q", "?"),)}, {"train": {"q": {"1": 1, "2": 0}}})
    assert fingerprint(made) != fingerprint(changed)
    assert fingerprint(made) == fingerprint(made)
