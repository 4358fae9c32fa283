"""Supervision, folds and samples: what is trained on is never what is reported."""

from __future__ import annotations

import json

import pytest

from foreword.collections import DataWarning, fingerprint
from foreword.collections.collection import Document, MemoryCollection, Query, normalise
from foreword.collections.folder import FolderCollection
from foreword.collections.registry import load
from foreword.collections.supervision import (
    Fold,
    FoldCollection,
    held_out,
    position,
    require_reported,
    split_fold,
    subsample,
    supervise,
)
from foreword.errors import DataError, ForewordError, UnknownNameError

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def words(number):
    return " ".join(NUMBERS[int(digit)] for digit in str(number))


def collection(splits, *, headline=None, copies=True, name="toy/labels"):
    """200 documents; 60 queries a split. With `copies`, each split has two texts twice, and five of the next split's."""
    corpus = tuple(
        Document(
            f"d{i}", f"Thing {words(i)} is a kind of tool. It was made by hand and sold in the town of {words(i)}."
        )
        for i in range(200)
    )
    queries, judgements = {}, {}
    for split in splits:
        texts = [f"{split} asks for {words(i)}" for i in range(60)]
        if copies:
            texts[10], texts[11] = texts[0].upper() + "!", f"  {texts[1]} "
            texts[20:25] = [f"shared by all, {words(i)}" for i in range(5)]
        queries[split] = tuple(Query(f"{split}{i}", text, {"n": str(i)}) for i, text in enumerate(texts))
        judgements[split] = {f"{split}{i}": {f"d{i}": 1, f"d{i + 100}": 2, f"d{i + 50}": 0} for i in range(60)}
    facts = {"headline_split": headline} if headline else {}
    return MemoryCollection(name, "toy", corpus, queries, judgements, facts)


def ids(view, split):
    return [query.query_id for query in view.queries(split)]


def texts(view, split):
    return {normalise(query.text) for query in view.queries(split)}


def check(view, reported):
    """What holds of every supervised view: nothing that is reported, and no copy, is trained on or chosen by."""
    train, dev = texts(view, "train"), texts(view, "dev")
    assert train
    assert dev
    assert not train & dev
    held = set().union(*(texts(original, split) for original, split in reported))
    assert not (train | dev) & held
    for split in ("train", "dev"):
        pairs = list(view.pairs(split))
        assert pairs
        assert {normalise(pair.query) for pair in pairs} <= texts(view, split)
        assert [*view.qrels(split)] == ids(view, split)
        assert {(p.query_id, p.doc_id) for p in pairs} == {
            (q, d) for q, judged in view.qrels(split).items() for d, grade in judged.items() if grade > 0
        }
        found = {doc.doc_id: doc.content for doc in view.documents_for(split)}
        assert all(found[pair.doc_id] == pair.document for pair in pairs)
    supervision = view.facts["supervision"]
    assert supervision["train_queries"] == len(ids(view, "train"))
    assert supervision["dev_queries"] == len(ids(view, "dev"))
    return supervision


def test_a_train_split_with_a_dev_split():
    source = collection(["train", "dev", "test"])
    view = supervise(source)
    facts = check(view, [(source, "test")])
    assert facts == {
        "method": "train",
        "train_queries": 55,
        "dev_queries": 55,
        "copies_left_out": 10,
        "seed": 0,
        "reported": ["test"],
    }
    assert view.id == source.id
    assert view.splits == ("train", "dev", "test")
    assert list(view.queries("test")) == list(source.queries("test"))
    assert view.qrels("test") == source.qrels("test")
    assert list(view.documents()) == list(source.documents())
    require_reported(facts, "test", view.id)
    with pytest.raises(DataError, match="split 'dev' of toy/labels helped to train or choose"):
        require_reported(facts, "dev", view.id)


def test_a_train_split_without_a_dev_split():
    source = collection(["train", "test"])
    view = supervise(source, dev_share=0.2)
    facts = check(view, [(source, "test")])
    assert facts["method"] == "train"
    assert facts["train_queries"] + facts["dev_queries"] == 55
    assert 4 <= facts["dev_queries"] <= 20
    assert {pair.query_id[:5] for pair in view.pairs("train")} == {"train"}
    for split in ("train", "dev"):  # copies of a query stay together
        assert ("train0" in ids(view, split)) == ("train10" in ids(view, split))
        assert ("train1" in ids(view, split)) == ("train11" in ids(view, split))
    again, other = supervise(source, dev_share=0.2), supervise(source, dev_share=0.2, seed=1)
    assert ids(view, "dev") == ids(again, "dev") != ids(other, "dev")
    assert fingerprint(view) == fingerprint(again) != fingerprint(other)


def test_leaving_out_queries_moves_none_of_the_others():
    source = collection(["train", "test"], copies=False)
    fewer = MemoryCollection(
        source.id,
        source.group,
        source.corpus,
        {"train": source.query_texts["train"][7:], "test": source.query_texts["test"]},
        {"train": dict(list(source.judgements["train"].items())[7:]), "test": source.judgements["test"]},
    )
    dev = set(ids(supervise(source, dev_share=0.3), "dev"))
    assert set(ids(supervise(fewer, dev_share=0.3), "dev")) == dev & set(ids(fewer, "train"))
    assert set(ids(FoldCollection(fewer, Fold(1, 3)), "test")) == set(ids(FoldCollection(source, Fold(1, 3)), "test"))


def test_the_reported_dev_split_of_ms_marco_is_not_chosen_by():
    source = collection(["train", "dev", "test"], headline="dev")
    view = supervise(source)
    facts = check(view, [(source, "test"), (source, "dev")])
    assert facts["method"] == "train"
    assert facts["reported"] == ["dev", "test"]
    assert all(query_id.startswith("train") for query_id in ids(view, "dev"))
    require_reported(facts, "dev", view.id)
    without_train = collection(["dev", "test"], headline="dev")
    assert supervise(without_train).facts["supervision"]["method"] == "pseudo-queries"


def test_a_dev_split_alone():
    source = collection(["dev", "test"])
    view = supervise(source)
    facts = check(view, [(source, "test")])
    assert facts["method"] == "dev"
    assert facts["reported"] == ["test"]
    assert facts["train_queries"] + facts["dev_queries"] == 55
    assert all(query_id.startswith("dev") for split in ("train", "dev") for query_id in ids(view, split))
    assert ids(view, "test") == ids(source, "test")
    with pytest.raises(DataError, match=r"may be reported: test"):
        require_reported(facts, "dev", view.id)


def test_pseudo_queries():
    source = collection(["test"])
    view = supervise(source)
    facts = check(view, [(source, "test")])
    assert (facts["method"], facts["made_by"], facts["reported"]) == ("pseudo-queries", "auto", ["test"])
    assert facts["train_queries"] + facts["dev_queries"] == 200
    judged = {doc_id for docs in source.qrels("test").values() for doc_id in docs}
    assert {pair.doc_id for pair in view.pairs("train")} - judged  # made of all documents, whether judged or not
    pair = next(iter(view.pairs("dev")))
    assert pair.query == f"Thing {words(int(pair.doc_id[1:]))} is a kind of tool."
    assert pair.query not in pair.document
    assert list(view.documents()) == list(source.documents()) == list(view.documents_for("test"))
    for split in ("train", "dev"):
        searched = list(view.documents_for(split))
        assert [d.doc_id for d in searched] == [d.doc_id for d in source.documents()]
        assert not any("is a kind of tool" in d.content for d in searched)
    assert view.qrels("test") == source.qrels("test")
    with pytest.raises(DataError, match="no training pairs"):
        view.pairs("test")
    with pytest.raises(UnknownNameError, match="no split 'all'"):
        view.queries("all")


def test_pseudo_queries_are_never_test_queries_and_can_be_limited():
    source = collection(["test"], copies=False)
    asked = (Query("test0", "thing  ONE two is a kind of Tool"), *source.query_texts["test"][1:])
    source = MemoryCollection(source.id, "toy", source.corpus, {"test": asked}, source.judgements)
    view = supervise(source)
    check(view, [(source, "test")])
    assert view.facts["supervision"]["skipped"] == {"is_a_judged_query": 1}
    few = supervise(source, most=30)
    assert sum(check(few, [(source, "test")])[f"{split}_queries"] for split in ("train", "dev")) == 30
    assert set(ids(few, "train") + ids(few, "dev")) < set(ids(view, "train") + ids(view, "dev"))
    whole = sum("is a kind of tool" in d.text for d in few.documents_for("dev"))
    assert whole == 170
    unlabelled = MemoryCollection("toy/none", "toy", source.corpus, {}, {})
    assert supervise(unlabelled).splits == ("train", "dev")
    with pytest.raises(DataError, match="too few"):
        supervise(MemoryCollection("toy/short", "toy", (Document("d", "Short."),), {}, {})).queries("train")


def test_methods_on_request():
    source = collection(["train", "dev", "test"])
    assert supervise(source, method="dev").facts["supervision"]["method"] == "dev"
    assert all(q.startswith("dev") for q in ids(supervise(source, method="dev"), "train"))
    assert supervise(source, method="pseudo-queries").facts["supervision"]["method"] == "pseudo-queries"
    fold = supervise(source, method="k-fold", folds="2of5", seed=7)
    assert fold.id == "toy/labels#fold2of5@7"
    assert supervise(source, folds="2of5@3").id == "toy/labels#fold2of5@3"
    assert supervise(fold) is fold
    assert supervise(fold, method="k-fold") is fold
    for view in (fold, supervise(source)):
        with pytest.raises(DataError, match=r"supervised by '.*' already"):
            supervise(view, method="dev")


@pytest.mark.parametrize(
    ("splits", "how", "error", "message"),
    [
        (["test"], {"method": "train"}, DataError, "no train split .*test judgements are never trained on.*pseudo-queries or k-fold"),
        (["train", "test"], {"method": "dev"}, DataError, "no dev split .*supervised by train or pseudo-queries"),
        (["test"], {"method": "test"}, UnknownNameError, "test judgements are never trained on"),
        (["test"], {"method": "magic"}, UnknownNameError, "unknown supervision 'magic'; known: auto, train"),
        (["test"], {"method": "k-fold"}, DataError, "which fold"),
        (["test"], {"method": "dev", "folds": "1of5"}, DataError, "not of 'dev'"),
        (["train"], {"folds": "1of5"}, DataError, "no test split"),
    ],
)  # fmt: skip
def test_refusals(splits, how, error, message):
    with pytest.raises(error, match=message):
        supervise(collection(splits), **how)


def test_too_few_queries_to_divide():
    one = collection(["train", "test"])
    same = tuple(Query(f"train{i}", "the same") for i in range(60))
    source = MemoryCollection(one.id, "toy", one.corpus, {**one.query_texts, "train": same}, one.judgements)
    with pytest.raises(DataError, match="split train: one query, too few"):
        supervise(source).queries("train")
    shared = tuple(
        Query(f"train{i}", f"test asks for {words(i)}") for i in range(60) if i not in (10, 11, *range(20, 25))
    )
    source = MemoryCollection(one.id, "toy", one.corpus, {**one.query_texts, "train": shared}, one.judgements)
    with pytest.raises(DataError, match="no queries, too few"):
        supervise(source).queries("train")
    for share in (0, 1, 1.5):
        with pytest.raises(ForewordError, match="between 0 and 1"):
            supervise(one, dev_share=share).queries("train")


def test_held_out_is_never_none_and_never_all():
    places = {f"q{i}": position(f"text {i}", "dev", 0) for i in range(5)}
    assert len(held_out(places, 1e-9, "five")) == 1
    assert len(held_out(places, 1 - 1e-9, "five")) == 4


@pytest.mark.parametrize(("folds", "seed"), [(2, 0), (5, 0), (5, 7), (10, -1)])
def test_folds_are_a_partition(folds, seed):
    source = collection(["train", "dev", "test"])
    views = [FoldCollection(source, Fold(i + 1, folds, seed)) for i in range(folds)]
    tested = [query_id for view in views for query_id in ids(view, "test")]
    assert sorted(tested) == sorted(ids(source, "test"))
    for number, view in enumerate(views, 1):
        assert view.splits == ("train", "dev", "test")
        parts = [ids(view, split) for split in view.splits]
        assert sorted(query_id for part in parts for query_id in part) == sorted(ids(source, "test"))
        facts = check(view, [(view, "test")])
        assert {**facts, "train_queries": 0, "dev_queries": 0, "test_queries": 0} == {
            "method": "k-fold",
            "folds": folds,
            "fold": number,
            "seed": seed,
            "train_queries": 0,
            "dev_queries": 0,
            "test_queries": 0,
            "reported": ["test"],
        }
        for one, copy in (("test0", "test10"), ("test1", "test11")):
            assert sum(one in part and copy in part for part in parts) == 1
        assert set(view.qrels("test")) == set(ids(view, "test"))
        assert list(view.documents()) == list(source.documents())
        with pytest.raises(UnknownNameError, match="no split 'all'"):
            view.queries("all")


def test_folds_by_name():
    assert split_fold("beir/arguana#fold2of5@7") == ("beir/arguana", Fold(2, 5, 7))
    assert split_fold("glasgow/cranfield#fold1of5") == ("glasgow/cranfield", Fold(1, 5))
    assert split_fold("glasgow/cranfield") == ("glasgow/cranfield", None)
    assert split_fold("folder:/data/a#b/c") == ("folder:/data/a#b/c", None)
    assert split_fold("folder:/data/a#folds/c") == ("folder:/data/a#folds/c", None)
    assert Fold.of("3of4@-2").suffix == "#fold3of4@-2"
    for broken in ("#fold1", "#fold1of", "#foldof5", "#fold1of5@", "#fold1of5@x", "#fold-1of5", "#fold1.5of5"):
        with pytest.raises(UnknownNameError, match=r"e\.g\. 1of5"):
            split_fold(f"beir/arguana{broken}")
    for nonsense in ("#fold6of5", "#fold0of5"):
        with pytest.raises(UnknownNameError, match="numbered from 1 to 5"):
            split_fold(f"beir/arguana{nonsense}")
    with pytest.raises(UnknownNameError, match="at least 2"):
        split_fold("beir/arguana#fold1of1")


def test_too_few_queries_for_the_folds():
    source = collection(["test"])
    many = [FoldCollection(source, Fold(i + 1, 1000)) for i in range(1000)]
    empty = [view for view in many if int(1000 * position("test asks for one", "fold", 0)) + 1 != view.fold.fold]
    with pytest.raises(DataError, match="too few for 1000 folds; take fewer"):
        [view.qrels("test") for view in empty]


def folder(tmp_path, source, name="source"):
    """A collection as a folder in BEIR's layout."""
    path = tmp_path / name
    (path / "qrels").mkdir(parents=True)
    records = [{"_id": d.doc_id, "title": "", "text": d.text, "metadata": {"k": "v"}} for d in source.documents()]
    (path / "corpus.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), "utf-8")
    queries = [{"_id": q.query_id, "text": q.text, "metadata": {}} for s in source.splits for q in source.queries(s)]
    (path / "queries.jsonl").write_text("".join(json.dumps(q) + "\n" for q in queries), "utf-8")
    for split in source.splits:
        rows = [f"{q}\t{d}\t{g}\n" for q, docs in source.qrels(split).items() for d, g in docs.items()]
        (path / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows), "utf-8")
    return path


def test_folds_and_supervision_of_files(tmp_path):
    source = collection(["train", "dev", "test"])
    path = folder(tmp_path, source)
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    loaded = load(f"folder:{path}#fold2of5@7")
    assert loaded.id == f"folder:{path}#fold2of5@7"
    assert ids(loaded, "test") == ids(FoldCollection(source, Fold(2, 5, 7)), "test")
    check(loaded, [(loaded, "test")])
    check(supervise(load(f"folder:{path}")), [(source, "test")])
    check(supervise(load(f"folder:{path}"), method="pseudo-queries"), [(source, "test")])
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before


def test_subsample(tmp_path):
    source = collection(["dev", "test"])
    judged = {f"d{i + more}" for i in range(60) for more in (0, 50, 100)}
    path = folder(tmp_path, source)
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    loaded = load(f"folder:{path}")
    output = subsample(loaded, tmp_path / "made" / "sample", documents=20, seed=3)
    record = json.loads((output / "subsample.json").read_text("utf-8"))
    sample = FolderCollection("folder:sample", output)
    documents = list(sample.documents())
    assert record == {
        "source": loaded.id,
        "documents": len(documents),
        "of": 200,
        "drawn": 20,
        "seed": 3,
        "exclude_self": False,
        "splits_left_out": [],
        "fingerprint": fingerprint(loaded),
    }
    assert judged < {d.doc_id for d in documents}
    assert len(documents) < 180
    whole = {d.doc_id: d for d in loaded.documents()}
    assert all(whole[d.doc_id] == d and d.metadata == {"k": "v"} for d in documents)
    assert [d.doc_id for d in documents] == [i for i in whole if i in {d.doc_id for d in documents}]
    for split in ("dev", "test"):
        assert list(sample.queries(split)) == list(loaded.queries(split))
        assert sample.qrels(split) == loaded.qrels(split)
    assert sample.facts["subsample"] == record
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before
    assert sorted(p.name for p in output.parent.iterdir()) == ["sample"]

    (tmp_path / "again").mkdir()  # empty: allowed
    again = subsample(loaded, tmp_path / "again", documents=20, seed=3)
    other = subsample(loaded, tmp_path / "other", documents=20, seed=4)
    assert (again / "corpus.jsonl").read_bytes() == (output / "corpus.jsonl").read_bytes()
    assert (other / "corpus.jsonl").read_bytes() != (output / "corpus.jsonl").read_bytes()


def test_a_subsample_goes_to_a_new_folder(tmp_path):
    path = folder(tmp_path, collection(["test"]))
    loaded = load(f"folder:{path}")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(DataError, match="not empty"):
        subsample(loaded, path, documents=5)
    with pytest.raises(DataError, match="never written to"):
        subsample(loaded, path / "sample", documents=5)
    with pytest.raises(ForewordError, match="1 or more"):
        subsample(loaded, tmp_path / "new", documents=0)
    with pytest.raises(DataError, match="no documents"):
        subsample(MemoryCollection("toy/empty", "toy", (), {}, {}), tmp_path / "new", documents=5)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]


def test_a_subsample_of_a_fold_and_without_what_is_about_another_corpus(tmp_path):
    source = collection(["train", "test"])
    with pytest.raises(DataError, match="is a fold; sample its collection"):  # its train split is test labels
        subsample(FoldCollection(source, Fold(1, 2)), tmp_path / "fold", documents=1)
    elsewhere = {q: {f"other/{d}": g for d, g in docs.items()} for q, docs in source.judgements["train"].items()}
    mixed = MemoryCollection(
        "toy/two", "toy", source.corpus, source.query_texts, {"train": elsewhere, "test": source.judgements["test"]}
    )
    with pytest.warns(DataWarning, match="judgements of train are about another corpus"):
        output = subsample(mixed, tmp_path / "mixed", documents=1)
    assert FolderCollection("folder:y", output).splits == ("test",)
    assert json.loads((output / "subsample.json").read_text())["splits_left_out"] == ["train"]
