"""Long documents in an index: their passages are written, replaced, counted and removed together, and the best is found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
from sentence_transformers import SentenceTransformer
from shell import Shell

from foreword.collections.collection import Document, MemoryCollection
from foreword.prompts.encoder import encode
from foreword.retrieval.passages import Coverage, Cutter
from foreword.retrieval.search import search

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")

from foreword.indexing import Index, IndexingError, Written
from foreword.indexing import store as indexing_store
from foreword.indexing import write as writing
from foreword.indexing.store import PLACE, Store
from foreword.indexing.write import stamp_of


def text(seed: int, sentences: int) -> str:
    """Sentences, of which eight or so fill a passage."""
    return " ".join(f"{sentence.capitalize()}." for sentence in tiny.sentences(sentences, seed=seed))


def notes(*sentences: int) -> list[Document]:
    return [Document(f"n{seed}", text(seed, count), "Bado") for seed, count in enumerate(sentences)]


def rows(index: Index, domain: str = "a") -> dict[str, list[int]]:
    """The numbers of the passages that are stored, by document, through Milvus's own client."""
    with index._store._asking("") as client:
        found = client.query("foreword", filter=f'domain == "{domain}"', output_fields=["doc_id", "passage"])
    made: dict[str, list[int]] = {}
    for row in found:
        made.setdefault(row["doc_id"], []).append(row["passage"])
    return {doc_id: sorted(numbers) for doc_id, numbers in sorted(made.items())}


def expected(encoder: SentenceTransformer, documents: Sequence[Document]) -> dict[str, list[int]]:
    return {own[0].doc_id: [piece.number for piece in own] for own in Cutter(encoder)(documents)}


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index.open(str(tmp_path / "index.db"), create=True) as opened:
        yield opened


def test_hits_are_those_of_a_search_in_memory(index: Index, encoder: SentenceTransformer) -> None:
    documents = notes(40, 1, 60, 2, 25, 90, 1)
    coverage = Coverage()
    assert index.build(encoder, "a", documents, coverage=coverage, quiet=True) == Written(added=7)
    assert rows(index) == expected(encoder, documents)
    assert (coverage.documents, coverage.whole, coverage.left_out) == (7, 3, 0)
    assert index.info("a").documents == 7 == index.stats()["documents"]
    assert index.info("a").stamp.passages
    queries = tiny.sentences(5, seed=9)
    collection = MemoryCollection("a", "a", tuple(documents), {}, {})
    for k in (1, 3, 7):
        wanted = search(encoder, collection, queries, k=k, quiet=True)
        found = index.search(encoder, queries, "a", k=k)
        for hits, own in zip(found, wanted, strict=True):
            assert [hit.doc_id for hit in hits] == [hit.doc_id for hit in own]
            assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in own], abs=1e-5)
            for hit, other in zip(hits, own, strict=True):
                assert hit.passage == (None if other.passage is None else other.passage.place)
                assert hit.title == "Bado"
                whole = other.document.text
                assert hit.text == (whole if hit.passage is None else whole[hit.passage["start"] : hit.passage["end"]])


def test_k_documents_are_found_though_one_has_all_the_best_passages(index: Index, encoder: SentenceTransformer) -> None:
    near = Document("near", " ".join(tiny.words()[:1] * 3000))
    documents = [near, *notes(*[1] * 30)]
    index.build(encoder, "a", documents, quiet=True)
    query = " ".join(tiny.words()[:1] * 40)
    assert len(rows(index)["near"]) > 60  # more than four times k
    hits = index.search(encoder, [query, "bado"], "a", k=12)
    assert [len({hit.doc_id for hit in own}) for own in hits] == [12, 12]
    assert hits[0][0].doc_id == "near"
    words = [hit.doc_id for hit in index.search(None, [query], "a", k=12, mode="bm25")[0]]
    assert words[0] == "near"
    assert words.count("near") == 1


def test_a_document_is_replaced_and_removed_with_all_its_passages(index: Index, encoder: SentenceTransformer) -> None:
    documents = notes(40, 1, 60)
    index.build(encoder, "a", documents, quiet=True)
    assert index.build(encoder, "a", documents, quiet=True) == Written(unchanged=3)
    for count in (20, 1, 50):  # shorter, whole, long again
        documents[2] = Document("n2", text(5, count), "Bado")
        assert index.update(encoder, "a", documents, quiet=True) == Written(unchanged=2, changed=1)
        assert rows(index) == expected(encoder, documents)
    assert index.delete("a", ["n2", "gone"]) == 1
    assert rows(index) == expected(encoder, documents[:2])
    assert index.update(encoder, "a", documents[1:], quiet=True) == Written(unchanged=1, added=1, removed=1)
    assert rows(index) == expected(encoder, documents[1:])
    assert index.info("a").documents == 2 == index._store.count("a")


def test_what_was_cut_while_passages_were_written_is_done_again(
    index: Index, encoder: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = notes(40, 60, 1)
    upsert = Store.upsert

    def killed(store: Store, made: Sequence[Any]) -> None:
        upsert(store, made[:4])
        raise KeyboardInterrupt

    for start in ([], [Document("n0", text(7, 99), "Bado"), Document("n1", text(8, 3), "Bado")]):
        if start:
            index.build(encoder, "a", start, quiet=True, replace_all=True)
        monkeypatch.setattr(Store, "upsert", killed)
        with pytest.raises(KeyboardInterrupt):
            index.build(encoder, "a", documents, quiet=True)
        monkeypatch.setattr(Store, "upsert", upsert)
        assert not index.info("a").complete
        index.build(encoder, "a", documents, quiet=True)
        assert rows(index) == expected(encoder, documents)
        assert index.info("a").documents == 3
    monkeypatch.setattr(Store, "upsert", killed)
    with pytest.raises(KeyboardInterrupt):
        index.build(encoder, "a", [*documents, Document("late", text(3, 50))], quiet=True)
    monkeypatch.setattr(Store, "upsert", upsert)
    index.update(encoder, "a", documents, quiet=True)  # what was half written is not among the documents any more
    assert rows(index) == expected(encoder, documents)


def test_a_domain_stays_as_it_was_made(index: Index, encoder: SentenceTransformer) -> None:
    documents = notes(40, 1)
    index.build(encoder, "first", documents, quiet=True, passages=False)
    assert rows(index, "first") == {"n0": [1], "n1": [1]}
    coverage = Coverage()
    index.build(encoder, "first", notes(40, 1, 30), coverage=coverage, quiet=True)
    assert rows(index, "first") == {"n0": [1], "n1": [1], "n2": [1]}
    assert "of the text is left out" in str(coverage)
    with pytest.raises(IndexingError, match=r"not in passages, .*--replace"):
        index.build(encoder, "first", documents, quiet=True, passages=True)
    index.build(encoder, "first", documents, quiet=True, replace_all=True)
    assert rows(index, "first") == expected(encoder, documents)
    with pytest.raises(IndexingError, match="are in passages, and these would not be"):
        index.build(encoder, "first", documents, quiet=True, passages=False)
    index.build(encoder, "cut", documents, quiet=True, max_length=16)  # a length means a cut
    assert rows(index, "cut") == {"n0": [1], "n1": [1]}


def test_an_index_of_the_first_format_is_read_and_written(
    encoder: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents, place = notes(40, 1, 30), str(tmp_path / "old.db")
    schema_of = indexing_store._documents_schema

    def old(*how: Any) -> Any:
        schema = schema_of(*how)
        schema._fields = [field for field in schema.fields if field.name not in PLACE]
        return schema

    with monkeypatch.context() as before, Index.open(place, create=True) as index:
        before.setattr(indexing_store, "_documents_schema", old)
        before.setattr(writing, "FORMAT", "foreword-index/1")
        index.write(stamp_of(encoder), lambda texts: encode(encoder, texts, "document", quiet=True), "a", documents)
    with Index.open(place) as index:
        assert not index._store.in_passages
        assert [hit.doc_id for hit in index.search(encoder, ["bado"], "a", k=9)[0]] != []
        assert index.update(encoder, "a", documents[:2], quiet=True) == Written(unchanged=2, removed=1)
        assert index.build(encoder, "b", documents, quiet=True) == Written(added=3)
        assert not index.info("b").stamp.passages
        with pytest.raises(IndexingError, match="before there were passages"):
            index.build(encoder, "c", documents, quiet=True, passages=True)
        index.delete("b")
        index.build(encoder, "a", documents, quiet=True, replace_all=True)  # its only domain: made anew
        assert rows(index) == expected(encoder, documents)


def test_the_commands(
    shell: Shell, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: SentenceTransformer
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "notes"
    folder.mkdir()
    for document in notes(40, 1):
        (folder / f"{document.doc_id}.txt").write_text(document.text)
    built = shell("index", "build", "n.db", "folder:notes", "--backbone", tiny_bert)
    assert "2 added; 2 documents in n.db" in built
    assert "text: 1 of 2 documents whole, the others split into " in built
    assert "the base model, in passages" in shell("index", "stats", "n.db")
    assert "nothing to do" not in (again := shell("index", "build", "n.db", "folder:notes", "--backbone", tiny_bert))
    assert "text:" not in again
    hits = shell.json("index", "search", "n.db", "bado", "--backbone", tiny_bert)[0]["hits"]
    [passage] = [hit["passage"] for hit in hits if hit["doc_id"] == "n0.txt"]
    [own] = [hit["text"] for hit in hits if hit["doc_id"] == "n0.txt"]
    assert (folder / "n0.txt").read_text()[passage["start"] : passage["end"]] == own
    assert f"({passage['number']}/{passage['of']})" in shell("index", "search", "n.db", "bado", "--backbone", tiny_bert)
    cut = shell("index", "build", "c.db", "folder:notes", "--no-passages", "--backbone", tiny_bert)
    assert "1 of 2 documents whole; " in cut
    assert "% of the text is left out" in cut
    (folder / "more.txt").write_text(text(4, 30))
    assert "left out (as before; --replace makes passages)" in shell(
        "index", "update", "c.db", "folder:notes", "--backbone", tiny_bert
    )
