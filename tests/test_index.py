"""An index in a Milvus Lite file: what is stored, what is found, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from tiny import random_prompt, save_model, toy_collection

from foreword.collections.collection import DataWarning, Document, MemoryCollection
from foreword.errors import ForewordError, PromptError, UnknownNameError
from foreword.evaluation.hybrid import HybridWeight, weighed_by
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.loading import load_encoder
from foreword.prompts.prompt import Prompt
from foreword.prompts.routes import Routes
from foreword.prompts.spec import PromptSpec

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")

from foreword.indexing import Index, IndexingError, OtherEncoderError, Written
from foreword.indexing import write as writing
from foreword.indexing.index import IndexHit, fused
from foreword.indexing.store import Store, of_domain, primary_key
from foreword.indexing.write import BASE, Stamp, stamp_of

WIDTH = 16
STAMP = Stamp({"name": "none", "fingerprint": "none", "similarity": "dot"}, BASE, None, WIDTH, None)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index.open(str(tmp_path / "index.db"), create=True) as opened:
        yield opened


class Embedder:
    """Random vectors for texts, the same ones each time; counts what it was asked for."""

    def __init__(self, width: int = WIDTH) -> None:
        self.width, self.asked = width, 0

    def __call__(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        self.asked += len(texts)
        return np.stack([self.one(text) for text in texts])

    def one(self, text: str) -> np.ndarray[Any, Any]:
        seed = np.frombuffer(text.encode(errors="replace").ljust(8, b"_"), dtype=np.uint8)
        return np.random.default_rng(seed).standard_normal(self.width, dtype=np.float32)


def rows(index: Index) -> list[dict[str, Any]]:
    """Everything that is stored, through a client of its own."""
    from pymilvus import MilvusClient

    client = MilvusClient(uri=str(index._store.path))
    found = client.query("foreword", filter='pk != ""', output_fields=["*"])
    client.close()
    return sorted(({**row, "vector": list(row["vector"])} for row in found), key=lambda row: row["pk"])


def notes(count: int, start: int = 0) -> list[Document]:
    return [
        Document(f"n{n}", f"note number{n} about {'cats' if n % 2 else 'dogs'}", f"Title {n}", {"half": str(n % 2)})
        for n in range(start, start + count)
    ]


def ids(hits: Sequence[IndexHit]) -> list[str]:
    return [hit.doc_id for hit in hits]


# -- what is stored ------------------------------------------------------------------------------------------------


def test_the_same_documents_give_the_same_state(index: Index) -> None:
    embed = Embedder()
    assert index.write(STAMP, embed, "a", notes(10)) == Written(added=10)
    before = rows(index)
    assert index.write(STAMP, embed, "a", iter(notes(10))) == Written(unchanged=10)
    assert embed.asked == 10
    assert rows(index) == before
    assert len({row["pk"] for row in before}) == 10
    first = next(row for row in before if row["doc_id"] == "n3")
    assert first["domain"] == "a"
    assert (first["title"], first["text"]) == ("Title 3", "Title 3 note number3 about cats")
    assert first["metadata"] == {"half": "1"}
    np.testing.assert_allclose(first["vector"], embed.one("Title 3 note number3 about cats"), rtol=1e-6)


def test_a_hit_is_the_document(index: Index) -> None:
    index.write(STAMP, Embedder(), "a", notes(4))
    (hit,) = index.search_vectors(Embedder()(["Title 2 note number2 about dogs"]), "a", k=1)[0]
    assert (hit.doc_id, hit.domain, hit.rank, hit.name) == ("n2", "a", 1, "Title 2")
    assert (hit.title, hit.text, hit.metadata) == ("Title 2", "note number2 about dogs", {"half": "0"})


def test_update_embeds_what_changed_and_removes_what_is_gone(index: Index, encoder: SentenceTransformer) -> None:
    toy = list(toy_collection().documents())
    index.build(encoder, "toy", toy, quiet=True)
    other = [replace(toy[0], text=f"{toy[0].text} more"), replace(toy[1], metadata={"new": "1"}), *toy[2:50]]
    other.append(Document("extra", "kali sula"))
    assert index.add(encoder, "toy", other[:2], quiet=True) == Written(changed=2)
    done = index.update(encoder, "toy", other, quiet=True)
    assert done == Written(added=1, unchanged=50, removed=10)
    assert index.domains()["toy"].documents == 51 == len(rows(index))
    assert {row["doc_id"] for row in rows(index)} == {document.doc_id for document in other}
    with pytest.raises(UnknownNameError, match="no domain 'toi'; there are: 'toy'"):
        index.add(encoder, "toi", other)


def test_a_cut_build_goes_on(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "BLOCK", 8)
    embed = Embedder()

    def cut(texts: Sequence[str]) -> Any:
        if embed.asked >= 16:
            raise KeyboardInterrupt
        return embed(texts)

    with pytest.raises(KeyboardInterrupt):
        index.write(STAMP, cut, "a", notes(30))
    assert not index.domains()["a"].complete
    assert index.write(STAMP, embed, "a", notes(30)) == Written(added=14, unchanged=16)
    assert embed.asked == 30
    info = index.domains()["a"]
    assert (info.complete, info.documents) == (True, 30)


def test_delete(index: Index) -> None:
    index.write(STAMP, Embedder(), "a", notes(6))
    index.write(STAMP, Embedder(), "b", notes(6))
    assert index.delete("a", ["n1", "n2", "n2", "nothing"]) == 2
    assert index.domains()["a"].documents == 4
    found = index.search_vectors(Embedder()(["x"]), "a", k=10)[0]
    assert set(ids(found)) == {"n0", "n3", "n4", "n5"}
    assert index.delete("a") == 4
    assert list(index.domains()) == ["b"]
    assert {row["domain"] for row in rows(index)} == {"b"}
    assert index.delete("a") == 0
    assert index.delete("b") == 6
    assert index.domains() == {}
    wider = replace(STAMP, dimension=4, backbone={**STAMP.backbone, "fingerprint": "another"})
    assert index.write(wider, Embedder(4), "a", notes(2)) == Written(added=2)  # nothing binds an empty index


CALLS = [("delete", True), ("delete", False), ("settle", True), ("settle", False), ("put_fact", False)]
"""Where a removal is cut, and whether before or after the call."""


@pytest.mark.parametrize(("call", "before"), CALLS)
@pytest.mark.parametrize("whole", [True, False])
def test_a_cut_removal_heals_when_it_is_repeated(
    index: Index, monkeypatch: pytest.MonkeyPatch, call: str, before: bool, whole: bool
) -> None:
    embed, gone = Embedder(), [f"n{n}" for n in range(20)]

    def cut_build(texts: Sequence[str]) -> Any:
        raise KeyboardInterrupt

    index.write(STAMP, embed, "a", notes(48))
    if not whole:  # a build was cut before: the removal does not make the domain complete
        with pytest.raises(KeyboardInterrupt):
            index.write(STAMP, cut_build, "a", notes(60))
    real = getattr(Store, call)

    def cut(*args: Any, **named: Any) -> Any:
        if not before:
            real(*args, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Store, call, cut)
        with pytest.raises(KeyboardInterrupt):
            index.delete("a", gone)
    assert not index.domains()["a"].complete
    index.delete("a", gone)
    info = index.domains()["a"]
    assert (info.documents, info.complete) == (28, whole)
    assert len(rows(index)) == 28
    index.write(STAMP, embed, "a", notes(60))
    assert (index.domains()["a"].documents, index.domains()["a"].complete) == (60, True)


def test_facts_of_documents_that_are_gone_do_not_come_back(index: Index) -> None:
    index.write(STAMP, Embedder(), "a", notes(6))
    index._store._client.drop_collection("foreword")  # the first half of the removal of the last domain
    path = str(index._store.path)
    index.close()
    with Index.open(path, create=True) as again:
        again.write(STAMP, Embedder(), "b", notes(3))
        assert list(again.domains()) == ["b"]


def test_replace_embeds_anew(index: Index, encoder: SentenceTransformer, tmp_path: Path, toy: MemoryCollection) -> None:
    documents = list(toy.documents())
    index.build(encoder, "toy", documents, quiet=True)
    other = load_encoder(str(save_model(tmp_path / "other", seed=1)), device="cpu")
    with pytest.raises(OtherEncoderError, match="was built by backbone"):
        index.build(other, "toy", documents, quiet=True)
    index.build(encoder, "second", documents[:5], quiet=True)
    with pytest.raises(OtherEncoderError):  # the other domain is of the first backbone
        index.build(other, "toy", documents, quiet=True, replace_all=True)
    assert index.domains()["toy"].documents == 60
    with pytest.raises(IndexingError, match="no documents for 'toy'; nothing was changed"):
        index.build(encoder, "toy", [], replace_all=True)
    index.delete("second")
    assert index.build(other, "toy", documents, quiet=True, replace_all=True) == Written(added=60)
    assert index.search(other, ["kali"], "toy", k=1)[0][0].domain == "toy"


def test_long_and_strange_texts(index: Index) -> None:
    long = "é" * 40_000  # 80,000 bytes
    documents = [
        Document("long", long, "T"),
        Document("empty", ""),
        Document('quo"te\\', "line\nbreak", "", {"key with spaces": "é", "n": 3}),  # type: ignore[dict-item]
        Document("half", "a lone \ud800 surrogate"),
    ]
    domain = "a \"b\" \\ 'c' é"
    with pytest.warns(DataWarning, match=r"1 documents of .* more than 65,535 bytes"):
        assert index.write(STAMP, Embedder(), domain, documents).shortened == 1
    found = {hit.doc_id: hit for hit in index.search_vectors(np.ones((1, WIDTH)), domain, k=10)[0]}
    assert set(found) == {"long", "empty", 'quo"te\\', "half"}
    assert set(found["long"].text) == {"é"}
    assert len(f"T {found['long'].text}".encode()) == 65_534  # the next letter would be the 65,536th byte
    assert found['quo"te\\'].text == "line\nbreak"
    assert found['quo"te\\'].metadata == {"key with spaces": "é", "n": 3}
    assert index.write(STAMP, Embedder(), domain, documents) == Written(unchanged=4)
    assert index.delete(domain, ['quo"te\\']) == 1


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        ([Document("a", "x"), Document("a", "y")], "two documents of 'd' have the doc_id 'a'"),
        ([], "no documents for 'd'; nothing was changed"),
        ([Document("", "x")], "has 0 bytes; expected 1 to 1024"),
        ([Document("é" * 513, "x")], "has 1026 bytes; expected 1 to 1024"),
        ([Document("a", "x", "", {"big": "y" * 70_000})], "document 'a': its metadata has 70011 bytes"),
        ([Document("a\udcff.txt", "x")], "cannot be written as UTF-8"),
        ([Document("a", "x", "", {"of": object()})], "its metadata is not JSON"),  # type: ignore[dict-item]
    ],
)
def test_documents_that_cannot_be_stored(index: Index, documents: list[Document], said: str) -> None:
    with pytest.raises(IndexingError, match=said):
        index.write(STAMP, Embedder(), "d", documents)


def test_what_else_is_refused(index: Index) -> None:
    for name in ("", "  ", "x" * 257, "a\nb"):
        with pytest.raises(IndexingError, match="domain's name"):
            index.write(STAMP, Embedder(), name, notes(1))
    with pytest.raises(IndexingError, match="NaN or infinity"):
        index.write(STAMP, lambda texts: np.full((len(texts), WIDTH), np.nan), "a", notes(1))
    with pytest.raises(IndexingError, match=r"shape \(1, 3\); expected \(1, 16\)"):
        index.write(STAMP, lambda texts: np.ones((len(texts), 3)), "a", notes(1))
    index.write(STAMP, Embedder(), "a", notes(1))
    with pytest.raises(IndexingError, match=r"shape \(3,\); expected \(B, 16\)"):
        index.search_vectors(np.ones(3), "a")
    with pytest.raises(IndexingError, match="k is 0"):
        index.search_vectors(np.ones((1, WIDTH)), "a", k=0)
    with pytest.raises(UnknownNameError, match="no mode 'sparse'"):
        index.search(None, ["x"], "a", mode="sparse")  # type: ignore[arg-type]
    with pytest.raises(IndexingError, match="needs an encoder"):
        index.search(None, ["x"], "a")
    assert index.search_vectors(np.ones((0, WIDTH)), "a") == []


def test_keys_do_not_run_together() -> None:
    pairs = [("a", "bc"), ("ab", "c"), ("", "abc"), ("abc", ""), ("a", "b"), ("a\x1f", "b"), ("a", "\x1fb")]
    assert len({primary_key(*pair) for pair in pairs}) == len(pairs)


# -- what is found -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", [True, False])
def test_dense_search_is_exact(tmp_path: Path, tiny_bert: Path, toy: MemoryCollection, normalize: bool) -> None:
    encoder = load_encoder(str(tiny_bert), device="cpu", normalize=normalize)
    documents, texts = list(toy.documents()), [query.text for query in toy.queries()]
    with Index.open(str(tmp_path / "x.db"), create=True) as index:
        index.build(encoder, "toy", documents, quiet=True)
        found = index.search(encoder, texts, "toy", k=10)
        assert index.stats()["metric"] == ("COSINE" if normalize else "IP")
    scores = encoder.encode_query(texts) @ encoder.encode_document([document.content for document in documents]).T
    for row, hits in zip(scores, found, strict=True):
        best = np.argsort(-row)[:10]
        assert ids(hits) == [documents[place].doc_id for place in best]
        np.testing.assert_allclose([hit.score for hit in hits], row[best], atol=2e-5)
        assert [hit.rank for hit in hits] == list(range(1, 11))


def test_filtered_recall_is_that_of_exact_search(index: Index) -> None:
    """2,000 documents of 5 domains, in a random order of writing, against numpy; test_index_scale.py has 100,000."""
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((2000, WIDTH), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    numbers = generator.permutation(2000)
    year = [str(2000 + n % 7) for n in range(2000)]
    for domain in range(5):
        mine = [int(n) for n in numbers if n % 5 == domain]
        documents = [Document(f"d{n}", f"{n} text", "", {"year": year[n]}) for n in mine]
        index.write(STAMP, lambda texts: vectors[[int(t.split()[0]) for t in texts]], f"domain {domain}", documents)
    queries = generator.standard_normal((20, WIDTH), dtype=np.float32)
    for domain in range(5):
        for where, keep in (
            (None, lambda n: True),
            ('metadata["year"] == "2001" or metadata["year"] == "2005"', lambda n: n % 7 in (1, 5)),
        ):
            inside = np.array([n for n in range(2000) if n % 5 == domain and keep(n)])
            for query, hits in zip(queries, index.search_vectors(queries, f"domain {domain}", 10, where), strict=True):
                exact = inside[np.argsort(-(vectors[inside].astype(np.float64) @ query))[:10]]
                assert ids(hits) == [f"d{n}" for n in exact]


def test_words(index: Index) -> None:
    documents = [
        Document("one", "the cat sat on the mat", "Felines"),
        Document("two", "a dog and a cat and a cat"),
        Document("three", "quantum chromodynamics"),
    ]
    index.write(STAMP, Embedder(), "a", documents)
    index.write(STAMP, Embedder(), "b", [Document("four", "cat cat cat")])
    (cats, felines, nothing, stop) = index.search(None, ["cat", "FELINES!", "zebra", "the a"], "a", mode="bm25")
    assert set(ids(cats)) == {"one", "two"}  # those of the other domain and those without the word are no hits
    assert cats[0].score >= cats[1].score > 0
    assert ids(felines) == ["one"]  # by its title
    assert nothing == stop == []
    assert ids(index.search_words(["cat dog"], "a")[0]) == ["two", "one"]
    assert ids(index.search_words(["cat dog"], "a", where='doc_id != "two"')[0]) == ["one"]


def test_hybrid_joins_both_sides(index: Index, encoder: SentenceTransformer, toy: MemoryCollection) -> None:
    index.build(encoder, "toy", toy.documents(), quiet=True)
    query = next(iter(toy.queries()))
    dense = ids(index.search(encoder, [query.text], "toy", k=100)[0])
    words = ids(index.search(None, [query.text], "toy", k=100, mode="bm25")[0])
    assert 0 < len(words) < len(dense) == 60
    for weight, alone in ((0, dense), (1, words)):
        hits = index.search(encoder, [query.text], "toy", k=5, mode="hybrid", bm25_weight=weight)[0]
        assert ids(hits) == alone[:5]
    best = index.search(encoder, [query.text], "toy", k=1, mode="hybrid")[0][0]
    assert {best.doc_id: 1} == toy.qrels()[query.query_id]  # its words are the query's


def test_the_weight_is_chosen_on_labels_and_kept(
    index: Index, encoder: SentenceTransformer, toy: MemoryCollection
) -> None:
    """Random vectors find nothing that words do not find better; queries of test are never asked."""
    index.build(encoder, "toy", toy.documents(), quiet=True)
    assert index.info("toy").weight == HybridWeight()
    chosen = index.weigh(encoder, "toy", toy)
    assert (chosen.chosen_by, chosen.queries) == ("train queries", 32)
    assert chosen.hybrid > chosen.dense
    index.build(encoder, "toy", toy.documents(), quiet=True)
    assert index.info("toy").weight == chosen
    by = index.info("toy").weighed
    assert by == weighed_by(toy, None) != weighed_by(toy, "a prompt") != weighed_by(replace(toy, judgements={}), None)
    assert index.stats()["domains"]["toy"]["hybrid"] == chosen.as_dict()
    query = next(iter(toy.queries()))
    ours, same = (
        index.search(encoder, [query.text], "toy", mode="hybrid", **how) for how in ({}, {"bm25_weight": chosen.bm25})
    )
    assert ours == same


def test_fusion_worked_by_hand() -> None:
    def hit(doc_id: str, score: float) -> IndexHit:
        return IndexHit(doc_id, "a", score, "", "")

    dense = [[hit("x", 0.9), hit("y", 0.8), hit("z", 0.5)]]
    words = [[hit("y", 7.0), hit("w", 3.0)]]
    ((first, second, third),) = fused(dense, words, 0.5, 3)
    # x: (1 + 0) / 2; y: (0.75 + 1) / 2; z and w: 0, of which the greater id comes first
    assert [(h.doc_id, round(h.score, 4), h.rank) for h in (first, second, third)] == [
        ("y", 0.875, 1),
        ("x", 0.5, 2),
        ("z", 0.0, 3),
    ]


def test_conditions(index: Index) -> None:
    index.write(STAMP, Embedder(), "a", notes(10))
    index.write(STAMP, Embedder(), "b", notes(10, start=100))
    query = Embedder()(["anything"])

    def found(where: str) -> set[str]:
        return set(ids(index.search_vectors(query, "a", 100, where)[0]))

    assert found('metadata["half"] == "1"') == {"n1", "n3", "n5", "n7", "n9"}
    assert found('TEXT_MATCH(text, "number4 number5")') == {"n4", "n5"}
    assert found('doc_id in ["n1", "n100"] or title == "Title 2"') == {"n1", "n2"}
    assert found('domain == "b"') == set()
    assert found("  ") == {f"n{n}" for n in range(10)}
    for bad in ('domain == "b") or (domain == "b"', "(doc_id", 'doc_id == "', "metadata[(]) or (1 == 1)"):
        with pytest.raises(IndexingError, match="the condition"):
            found(bad)
    for bad, said in (("year == 3", "unknown field 'year'"), ('x") or ("', "expected")):
        with pytest.raises(IndexingError, match=said):
            found(bad)


def test_expressions() -> None:
    assert of_domain('a"\\\n', "doc_id == ')'") == 'domain == "a\\"\\\\\\n" and (doc_id == \')\')'


# -- prompts -------------------------------------------------------------------------------------------------------


def add_prompts(encoder: SentenceTransformer) -> None:
    transformer = transformer_of(encoder)
    transformer.add("both", random_prompt(encoder, PromptSpec(length=2), seed=1))
    transformer.add("untied", random_prompt(encoder, PromptSpec(length=2, sides="untied"), seed=2))
    transformer.add("query", random_prompt(encoder, PromptSpec(length=2, sides="query"), seed=3))


def test_one_index_serves_several_prompts(index: Index, encoder: SentenceTransformer, toy: MemoryCollection) -> None:
    add_prompts(encoder)
    documents, texts = list(toy.documents()), ["kali sula", "pela file"]
    for domain, route in (("a", "both"), ("b", None), ("c", "untied")):
        index.build(encoder, domain, documents, route=route, quiet=True)
    for domain, built, asked in (
        ("a", "both", "both"),
        ("b", None, "query"),
        ("b", None, None),
        ("c", *["untied"] * 2),
    ):
        found = index.search(encoder, texts, domain, route=asked, k=5)
        queries = encode(encoder, texts, "query", route=asked, quiet=True)
        stored = encode(encoder, [document.content for document in documents], "document", route=built, quiet=True)
        for row, hits in zip(queries @ stored.T, found, strict=True):
            assert ids(hits) == [documents[place].doc_id for place in np.argsort(-row)[:5]]
    for domain, route, said in (
        ("a", None, "embedded by prompt 'both' .* and the base model embeds documents otherwise"),
        ("b", "both", "embedded by the base model, and prompt 'both'"),
        ("c", "both", "embedded by prompt 'untied'"),
        ("a", "query", "embedded by prompt 'both'"),
    ):
        with pytest.raises(OtherEncoderError, match=said):
            index.search(encoder, texts, domain, route=route)
        with pytest.raises(OtherEncoderError, match=said):
            index.build(encoder, domain, documents, route=route, quiet=True)
    assert index.build(encoder, "b", documents, route="query", quiet=True) == Written(unchanged=60)
    with pytest.raises(PromptError, match="no prompt for domain 'nothing'"):
        index.search(encoder, texts, "a", route="nothing")
    infos = index.domains()
    assert [infos[domain].prompt for domain in "abc"] == ["both", "base", "untied"]
    assert infos["b"].document_side == "base"


def test_what_another_process_built_anew_is_noticed(index: Index, encoder: SentenceTransformer, tmp_path: Path) -> None:
    """A second index on the same place stands for the other process, as there may be on a server."""
    index.build(encoder, "a", notes(3), quiet=True)
    assert index.check(encoder, "a")
    other = load_encoder(str(save_model(tmp_path / "other", seed=1)), device="cpu")
    with Index.open(index.stats()["uri"]) as second:
        second.build(other, "a", notes(4), quiet=True, replace_all=True)
    assert index.check(other, "a").documents == 4
    with pytest.raises(OtherEncoderError, match="was built by backbone"):
        index.search(encoder, ["cats"], "a")
    assert index.search(other, ["cats"], "a", k=9)[0][3].rank == 4


def test_the_encoders_own_route_is_the_default(index: Index, encoder: SentenceTransformer) -> None:
    add_prompts(encoder)
    transformer_of(encoder).route = "both"
    index.build(encoder, "a", notes(5), quiet=True)
    assert index.check(encoder, "a").prompt == "both"
    transformer_of(encoder).route = None
    with pytest.raises(OtherEncoderError):
        index.check(encoder, "a")
    assert index.check(encoder, "a", "both").documents == 5


def test_documents_cut_elsewhere_are_refused(index: Index, encoder: SentenceTransformer) -> None:
    index.build(encoder, "a", notes(3), quiet=True, max_length=16)
    with pytest.raises(ForewordError, match="cut to 16 tokens, these would be to 48"):
        index.build(encoder, "a", notes(3), quiet=True)
    assert index.search(encoder, ["cats"], "a", k=1)


def test_the_fingerprint_is_of_what_embeds_documents(encoder: SentenceTransformer) -> None:
    add_prompts(encoder)
    transformer = transformer_of(encoder)
    shared = transformer.prompt("both")
    values = {name.partition(".")[2]: tensor for name, tensor in shared.tensors().items()}
    doubled = {f"{side}.{name}": tensor * (2.0 if side == "query" else 1.0) for name, tensor in values.items() for side in ("query", "document")}  # fmt: skip
    transformer.add("alike", Prompt(PromptSpec(length=2, sides="untied"), doubled))

    def side(route: Any) -> str:
        return stamp_of(encoder, route).document_side

    assert side(None) == side("query") == side({}) == side({"both": 0.0}) == side(Routes("both", None)) == "base"
    # alike: the document's vectors are equal, and so are the fingerprints
    assert (
        side("both") == side("alike") == side({"both": 1.0}) == side({"both": [1.0, 1.0]}) == side(Routes(None, "both"))
    )
    np.testing.assert_array_equal(
        *(encode(encoder, ["kali"], "document", route=r, quiet=True) for r in ("both", "alike"))
    )
    different = [
        side(route) for route in ("both", "untied", {"both": 0.5}, {"both": [0.5, 1.0]}, {"both": 0.5, "alike": 0.5})
    ]
    assert len(set(different)) == len(different)
