"""Groups of collections: rows, means, folds, resuming, failures, formats, and the facts beside them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import SentenceTransformer
from tiny import random_prompt, toy_collection

from foreword.collections.collection import MemoryCollection
from foreword.collections.supervision import Fold, FoldCollection
from foreword.errors import DataError, ForewordError, PromptError, UnknownNameError
from foreword.evaluation import group as members
from foreword.evaluation import group as score
from foreword.evaluation import published as seen
from foreword.evaluation.evaluate import evaluate
from foreword.evaluation.group import GroupConfig, GroupResult, System, evaluate_group, headline_measure, plan
from foreword.evaluation.hybrid import HybridSearch
from foreword.evaluation.measures import evaluate_run
from foreword.evaluation.published import means_of, published, sources, to_compare
from foreword.evaluation.table import FORMATS, format_group
from foreword.prompts.encoder import transformer_of
from foreword.prompts.loading import load_encoder
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import folder_name, load_bank, save_mixture, save_prompt
from foreword.retrieval.runs import Run, read_run
from foreword.tables import escape_latex

NAMES = ("toy/one", "toy/two", "toy/three")
BASE, BM25 = System("base", "base"), System("bm25", "bm25")


@pytest.fixture(scope="module")
def toys() -> dict[str, MemoryCollection]:
    return {name: toy_collection(name, seed=number) for number, name in enumerate(NAMES)}


@pytest.fixture
def bank(encoder: SentenceTransformer, tmp_path: Path) -> Path:
    sides = {"toy/one": "query", "toy/two": "shared", "toy/three": "untied"}
    for number, (name, side) in enumerate(sides.items()):
        prompt = random_prompt(encoder, PromptSpec("gated", 3, sides=side), number, scale=0.5)  # type: ignore[arg-type]
        record = {"supervision": {"method": "train"}} if number else {"supervision": {"method": "dev"}}
        save_prompt(tmp_path / "bank" / folder_name(name), prompt, encoder, name, record=record)
    return tmp_path / "bank"


def group(
    collections: Mapping[str, MemoryCollection],
    output: Path,
    encoder: SentenceTransformer | None = None,
    systems: Sequence[System] = (BM25,),
    *,
    name: str = "toys",
    ids: Sequence[str] = NAMES,
    **how: Any,
) -> GroupResult:
    def load(collection_id: str) -> MemoryCollection:
        if collection_id not in collections:
            raise DataError(f"{collection_id} is not on this machine")
        return collections[collection_id]

    return evaluate_group(name, ids, systems, output, **{"load": load, "encoder": encoder, "quiet": True, **how})


def row_of(result: GroupResult, collection: str, system: str) -> Mapping[str, Any]:
    (row,) = [r for r in result.rows if (r["collection"], r["system"]) == (collection, system)]
    return row


# -- scores ------------------------------------------------------------------------------------------------------


def test_each_row_is_what_the_system_scores_alone(
    toys: dict[str, MemoryCollection], encoder: SentenceTransformer, tiny_bert: Path, bank: Path, tmp_path: Path
) -> None:
    one = System("one", "prompt", bank / "toy-two")
    result = group(toys, tmp_path / "out", encoder, [BASE, BM25, System("bank", "bank", bank), one])
    assert len(result.rows) == 12
    assert result.failures == ()
    for name, collection in toys.items():
        alone = {
            "base": evaluate(collection, encoder, route=None, quiet=True),
            "bm25": evaluate(collection, "bm25"),
            "bank": evaluate(collection, load_encoder(str(tiny_bert), prompt=bank / folder_name(name)), quiet=True),
            "one": evaluate(collection, load_encoder(str(tiny_bert), prompt=bank / "toy-two"), quiet=True),
        }
        for system, expected in alone.items():
            row = row_of(result, name, system)
            assert row["measures"]["nDCG@10"] == pytest.approx(expected.measures["nDCG@10"], abs=1e-6)
            assert (row["queries"], row["documents"], row["split"]) == (12, 60, "test")
            stored = read_run(tmp_path / "out" / folder_name(name) / f"{system}.trec")
            again = evaluate_run(stored, collection.qrels("test"), ["nDCG@10", "R@100"]).values
            assert again == {m: row["measures"][m] for m in again}
    assert row_of(result, "toy/one", "base")["supervision"] == "none"
    assert row_of(result, "toy/one", "bank")["supervision"] == "dev"
    assert row_of(result, "toy/two", "bank")["supervision"] == "train"
    assert row_of(result, "toy/two", "bank")["prompts"] == row_of(result, "toy/one", "one")["prompts"]
    assert {row["corpus_sha256"] for row in result.rows if row["collection"] == "toy/one"} == {
        row_of(result, "toy/one", "bm25")["corpus_sha256"]
    }
    assert json.loads((tmp_path / "out" / "group.json").read_text()) == result.as_dict()


def test_the_encoder_comes_back_as_it_was(
    toys: dict[str, MemoryCollection], encoder: SentenceTransformer, bank: Path, tmp_path: Path
) -> None:
    transformer = transformer_of(encoder)
    prompt = random_prompt(encoder, PromptSpec("input", 20), 9)
    plain = group(toys, tmp_path / "a", encoder, [BASE])
    transformer.add("mine", prompt)  # it would leave less room for every text
    transformer.route = "mine"
    carrying = group(toys, tmp_path / "b", encoder, [BASE, System("bank", "bank", bank)])
    assert (transformer.domains, transformer.route) == (["mine"], "mine")
    for name in NAMES:
        assert row_of(plain, name, "base")["measures"] == row_of(carrying, name, "base")["measures"]


def test_prompts_of_the_query_side_share_the_pass_over_the_documents(
    toys: dict[str, MemoryCollection], encoder: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, side in enumerate(("query", "query", "shared")):
        prompt = random_prompt(encoder, PromptSpec("gated", 3, sides=side), number)  # type: ignore[arg-type]
        save_prompt(tmp_path / f"p{number}", prompt, encoder, f"p{number}")
    passes = []
    whole = score.document_blocks
    monkeypatch.setattr(score, "document_blocks", lambda *a, **k: passes.append(1) or whole(*a, **k))
    systems = [BASE, *(System(f"p{n}", "prompt", tmp_path / f"p{n}") for n in range(3))]
    result = group(toys, tmp_path / "out", encoder, systems, ids=["toy/one"])
    assert len(passes) == 2
    assert len({tuple(row["measures"].values()) for row in result.rows}) > 1


def test_a_hit_that_is_the_query_is_left_out(encoder: SentenceTransformer, tmp_path: Path) -> None:
    plain = toy_collection("toy/one")
    asked = tuple(replace(q, query_id=f"d{n}") for n, q in enumerate(plain.query_texts["test"]))
    qrels = {q.query_id: {"d50": 1} for q in asked}
    own = replace(plain, query_texts={"test": asked}, judgements={"test": qrels}, exclude_self=True)
    group({"toy/one": own}, tmp_path, encoder, [BASE, BM25], ids=["toy/one"])
    for system in ("base", "bm25"):
        run = read_run(tmp_path / "toy-one" / f"{system}.trec")
        assert run
        assert all(query_id not in hits for query_id, hits in run.items())


def test_a_mixture_can_be_in_a_bank(
    toys: dict[str, MemoryCollection], encoder: SentenceTransformer, tiny_bert: Path, tmp_path: Path
) -> None:
    for number in range(2):
        prompt = random_prompt(encoder, PromptSpec("gated", 3), number, scale=0.3)
        save_prompt(tmp_path / "sources" / f"s{number}", prompt, encoder, f"s{number}")
    sources_of = load_bank(tmp_path / "sources", encoder)
    record = {"transfer": {}}
    save_mixture(tmp_path / "bank" / "m", "toy/one", {"s0": 0.5, "s1": 0.5}, sources_of, encoder, record=record)
    result = group(toys, tmp_path / "out", encoder, [System("bank", "bank", tmp_path / "bank")], ids=["toy/one"])
    alone = evaluate(toys["toy/one"], load_encoder(str(tiny_bert), prompt=tmp_path / "bank" / "m"), quiet=True)
    row = row_of(result, "toy/one", "bank")
    assert row["measures"]["nDCG@10"] == pytest.approx(alone.measures["nDCG@10"], abs=1e-6)
    assert row["supervision"] == "transfer"


# -- means -------------------------------------------------------------------------------------------------------


def test_means_by_hand() -> None:
    rows = {("a", "x"): 0.2, ("b", "x"): 0.4, ("c", "x"): 0.9, ("a", "y"): 0.1, ("c", "y"): 0.5}
    given = {key: {"measures": {"P@1": value}} for key, value in rows.items()}
    means, common = means_of(given, ["a", "b", "c"], ["x", "y"], ["P@1"])
    assert means[0] == {"system": "x", "values": {"P@1": pytest.approx(0.5)}, "over": ["a", "b", "c"], "of": 3, "missing": []}  # fmt: skip
    assert means[1] == {"system": "y", "values": {"P@1": pytest.approx(0.3)}, "over": ["a", "c"], "of": 3, "missing": ["b"]}  # fmt: skip
    assert [one["values"]["P@1"] for one in common] == [pytest.approx(0.55), pytest.approx(0.3)]
    assert means_of(given, ["a", "c"], ["x", "y"], ["P@1"])[1] == []
    assert means_of({}, ["a"], ["x"], ["P@1"])[0][0]["values"] == {}


def test_cqadupstack_is_the_mean_of_its_forums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forums = tuple(f"cqadupstack/f{n}" for n in range(3))
    monkeypatch.setattr(members, "members", lambda name: forums)
    collections = {name: toy_collection(name, seed=n, documents=50 + n) for n, name in enumerate(forums)}
    collections["beir/scifact"] = toy_collection("beir/scifact")
    ids = ["beir/cqadupstack", "beir/scifact"]
    result = group(collections, tmp_path / "a", name="beir", ids=ids)
    values = [evaluate(collections[name], "bm25").measures["nDCG@10"] for name in forums]
    row = row_of(result, "beir/cqadupstack", "bm25")
    assert row["measures"]["nDCG@10"] == pytest.approx(sum(values) / 3)
    assert (row["queries"], row["documents"], row["mean_over"]) == (36, 153, list(forums))
    assert [part["collection"] for part in result.parts] == list(forums)
    scifact = evaluate(collections["beir/scifact"], "bm25").measures["nDCG@10"]
    assert result.means[0]["values"]["nDCG@10"] == pytest.approx((sum(values) / 3 + scifact) / 2)

    del collections[forums[1]]  # a mean over two of three would look like the whole
    result = group(collections, tmp_path / "b", name="beir", ids=ids)
    assert [r["collection"] for r in result.rows] == ["beir/scifact"]
    assert result.means[0]["missing"] == ["beir/cqadupstack"]
    assert [(f["collection"], f["system"]) for f in result.failures] == [(forums[1], "bm25")]

    expanded = group(collections, tmp_path / "b", name="beir-expanded", ids=[forums[0], forums[2], "beir/scifact"])
    assert expanded.means[0]["of"] == 3
    assert not expanded.failures


def test_the_prompt_of_cqadupstack_serves_a_forum_that_has_none(
    encoder: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forums = tuple(f"cqadupstack/f{n}" for n in range(2))
    monkeypatch.setattr(members, "members", lambda name: forums)
    collections = {name: toy_collection(name, seed=n) for n, name in enumerate(forums)}
    for number, name in enumerate(("beir/cqadupstack", forums[0])):
        prompt = random_prompt(encoder, PromptSpec("gated", 3), number)
        save_prompt(tmp_path / "bank" / folder_name(name), prompt, encoder, name)
    systems = [
        System("bank", "bank", tmp_path / "bank"),
        System("whole", "prompt", tmp_path / "bank" / folder_name("beir/cqadupstack")),
        System("own", "prompt", tmp_path / "bank" / folder_name(forums[0])),
    ]
    result = group(collections, tmp_path / "out", encoder, systems, name="beir", ids=["beir/cqadupstack"])
    assert not result.failures
    used = {(part["collection"], part["system"]): part["prompts"] for part in result.parts}
    assert used[forums[0], "bank"] == used[forums[0], "own"] != used[forums[1], "bank"]
    assert used[forums[1], "bank"] == used[forums[1], "whole"]


def test_splits_and_headlines(toys: dict[str, MemoryCollection], tmp_path: Path) -> None:
    assert plan(["beir/msmarco", "beir/scifact"])[0].leaves[0].split == "dev"
    assert plan(["beir/msmarco"], {"beir/msmarco": "test"})[0].leaves[0].split == "test"
    assert (headline_measure("beir"), headline_measure("oag-qa")) == ("nDCG@10", "Success@20")
    config = GroupConfig(measures=("p@1",), splits={"toy/two": "dev"})
    result = group(toys, tmp_path, name="oag-qa", config=config)
    assert result.headline == "Success@20"
    assert list(result.rows[0]["measures"]) == ["Success@20", "P@1"]
    assert row_of(result, "toy/two", "bm25")["split"] == "dev"
    assert row_of(result, "toy/two", "bm25")["measures"]["P@1"] == pytest.approx(
        evaluate(toys["toy/two"], "bm25", split="dev", measures=["P@1"]).measures["P@1"]
    )


def test_a_prompt_chosen_by_the_split_it_is_scored_on_is_said(
    toys: dict[str, MemoryCollection], encoder: SentenceTransformer, tmp_path: Path
) -> None:
    record = {"data": {"toy/one": {}}, "metrics": {"dev": [{"step": 0, "dev": 0.5}]}}
    save_prompt(tmp_path / "p", random_prompt(encoder, PromptSpec("gated", 3)), encoder, "toy/one", record=record)
    config = GroupConfig(splits={"toy/one": "dev", "toy/two": "dev"})
    result = group(toys, tmp_path / "out", encoder, [System("p", "prompt", tmp_path / "p")], config=config)
    assert ["dev split" in " ".join(row["notes"]) for row in result.rows] == [True, False, False]
    assert "toy/one, p: its prompt was trained on, or chosen by, the dev split." in format_group(result.as_dict())


# -- folds -------------------------------------------------------------------------------------------------------


def folds_of(collection: MemoryCollection, k: int, seed: str = "") -> dict[str, MemoryCollection]:
    texts, qrels = collection.query_texts["test"], collection.judgements["test"]
    made = {}
    for i in range(1, k + 1):
        own = tuple(q for n, q in enumerate(texts) if n % k == i - 1)
        name = f"{collection.id}#fold{i}of{k}{seed}"
        judged = {q.query_id: qrels[q.query_id] for q in own}
        made[name] = replace(collection, id=name, query_texts={"test": own}, judgements={"test": judged})
    return made


@pytest.mark.parametrize("side", ["query", "untied"])
def test_folds_are_scored_as_one_collection(
    toys: dict[str, MemoryCollection], encoder: SentenceTransformer, tiny_bert: Path, tmp_path: Path, side: Any
) -> None:
    whole = toys["toy/one"]
    folds = folds_of(whole, 3, "@7")
    for number, name in enumerate(folds):
        prompt = random_prompt(encoder, PromptSpec("gated", 3, sides=side), number, scale=0.5)
        save_prompt(tmp_path / "bank" / folder_name(name), prompt, encoder, name)
    systems = [BM25, BASE, System("bank", "bank", tmp_path / "bank")]
    result = group(folds, tmp_path / "out", encoder, systems, ids=list(reversed(folds)))
    merged: Run = {}
    for name, fold in folds.items():
        alone = load_encoder(str(tiny_bert), prompt=tmp_path / "bank" / folder_name(name))
        merged |= evaluate(fold, alone, k=100, quiet=True).run
    expected = evaluate_run(merged, whole.qrels("test"), ["nDCG@10", "Success@20"]).values
    row = row_of(result, "toy/one", "bank")
    assert {m: row["measures"][m] for m in expected} == pytest.approx(expected, abs=1e-6)
    assert (row["supervision"], row["folds"], row["queries"], len(row["prompts"])) == ("k-fold", 3, 12, 3)
    for system, told in (("bm25", evaluate(whole)), ("base", evaluate(whole, encoder, quiet=True))):
        assert row_of(result, "toy/one", system)["measures"]["nDCG@10"] == pytest.approx(told.measures["nDCG@10"])
    assert (tmp_path / "out" / "toy-one#3folds@7" / "bank.trec").is_file()


def test_folds_that_are_not_all_there_or_overlap(toys: dict[str, MemoryCollection], tmp_path: Path) -> None:
    folds = folds_of(toys["toy/one"], 3)
    result = group(folds, tmp_path, ids=[*list(folds)[:2]])
    assert "toy/one#fold3of3 not given" in result.failures[0]["error"]
    assert result.rows == ()
    same = {name: replace(next(iter(folds.values())), id=name) for name in folds}
    assert "is in another fold, too" in group(same, tmp_path, ids=list(folds)).failures[0]["error"]
    for two_ways in ([*folds, "toy/one"], ["toy/one", *folds], ["toy/one#fold1of3", "toy/one#fold1of2"]):
        with pytest.raises(ForewordError, match="in two ways"):
            plan(two_ways)
    with pytest.raises(UnknownNameError, match="no fold 4 of 3"):
        plan(["toy/one#fold4of3"])
    assert plan(["x#fold2of2@0", "x#fold1of2"])[0].leaves[0].ids == ("x#fold1of2", "x#fold2of2")


def test_folds_are_scored_on_their_test_queries_alone() -> None:
    names = [f"beir/msmarco#fold{i}of2" for i in (1, 2)]
    for key in (names[1], "beir/msmarco"):
        with pytest.raises(ForewordError, match="is to be scored on 'train'; a fold offers its test queries"):
            plan(names, {key: "train"})
    assert plan(names)[0].leaves[0].split == plan(names, dict.fromkeys(names, "test"))[0].leaves[0].split == "test"


def test_the_librarys_own_folds(toys: dict[str, MemoryCollection], tmp_path: Path) -> None:
    ids = [f"toy/one#fold{i}of2@3" for i in (1, 2)]
    collections: dict[str, Any] = {n: FoldCollection(toys["toy/one"], Fold(i, 2, 3)) for i, n in enumerate(ids, 1)}
    row = row_of(group(collections, tmp_path, ids=ids), "toy/one", "bm25")
    assert row["measures"]["nDCG@10"] == pytest.approx(evaluate(toys["toy/one"]).measures["nDCG@10"])
    assert (row["queries"], row["folds"]) == (12, 2)


def test_words_beside_vectors_are_what_hybrid_search_finds_alone(
    toys: dict[str, MemoryCollection], encoder: SentenceTransformer, tiny_bert: Path, bank: Path, tmp_path: Path
) -> None:
    toys = {"toy/one": toys["toy/one"], "toy/two": toy_collection("toy/two", seed=1, splits=("test",))}
    systems = [BASE, System("base+bm25", "base", words=True), System("bank+bm25", "bank", bank, words=True), BM25]
    result = group(toys, tmp_path / "out", encoder, systems, ids=list(toys))
    assert result.failures == ()
    for name, collection in toys.items():
        alone = {"base+bm25": encoder, "bank+bm25": load_encoder(str(tiny_bert), prompt=bank / folder_name(name))}
        for system, own in alone.items():
            search = HybridSearch(own, collection, precision="float32", quiet=True)
            expected = evaluate(collection, search.run(list(collection.queries("test")), 100))
            row = row_of(result, name, system)
            assert row["measures"]["nDCG@10"] == pytest.approx(expected.measures["nDCG@10"], abs=1e-6)
            assert row["hybrid"] == [search.weight.as_dict()]
            by = "32 train queries" if name == "toy/one" else "pseudo-queries"
            assert by in str(search.weight)
            assert f"{name}, {system}: {search.weight}" in format_group(result.as_dict())
        dense = evaluate(collection, encoder, route=None, quiet=True)
        assert row_of(result, name, "base")["measures"]["nDCG@10"] == pytest.approx(dense.measures["nDCG@10"])
    again = group(toys, tmp_path / "out", encoder, systems, ids=list(toys))
    assert again.rows == result.rows  # taken, not computed
    folds = folds_of(toys["toy/one"], 2)
    row = row_of(group(folds, tmp_path / "folds", encoder, systems[:2], ids=list(folds)), "toy/one", "base+bm25")
    assert (row["queries"], len(row["hybrid"])) == (12, 2)
    with pytest.raises(ForewordError, match="is BM25 already"):
        System("bm25+bm25", "bm25", words=True)


# -- resuming and failures ---------------------------------------------------------------------------------------


def test_a_cut_evaluation_goes_on(
    toys: dict[str, MemoryCollection],
    encoder: SentenceTransformer,
    bank: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    systems = [BASE, BM25, System("bank", "bank", bank)]
    whole = group(toys, tmp_path / "whole", encoder, systems)

    def cut(row: Mapping[str, Any]) -> None:
        if (row["collection"], row["system"]) == ("toy/two", "base"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        group(toys, tmp_path / "cut", encoder, systems, on_row=cut)
    assert not (tmp_path / "cut" / "group.json").exists()
    files = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "cut").rglob("*.json")}
    assert len(files) == 5  # three of the first collection; BM25 and base of the second
    monkeypatch.setattr("foreword.evaluation.group.seen", lambda *_: True)  # facts of today, not of the first run
    again = group(toys, tmp_path / "cut", encoder, systems)
    assert {row["seen_by_backbone"] for row in again.rows if row["system"] != "bm25"} == {True}
    monkeypatch.undo()
    again = group(toys, tmp_path / "cut", encoder, systems)
    for path, (content, time) in files.items():
        assert (path.read_bytes(), path.stat().st_mtime_ns) == (content, time)
    without_time = [{k: v for k, v in row.items() if k != "seconds"} for row in whole.rows]
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in again.rows] == without_time
    assert again.means == whole.means


@pytest.mark.parametrize("change", ["measures", "length", "prompt", "judgements", "documents", "run", "broken"])
def test_what_follows_from_something_else_is_computed_again(
    encoder: SentenceTransformer, bank: Path, tmp_path: Path, change: str
) -> None:
    collection, config = toy_collection("toy/two"), GroupConfig()
    systems = [System("bank", "bank", bank)]
    path = tmp_path / "out" / "toy-two" / "bank.json"
    group({"toy/two": collection}, tmp_path / "out", encoder, systems, ids=["toy/two"])
    before = path.stat().st_mtime_ns
    group({"toy/two": collection}, tmp_path / "out", encoder, systems, ids=["toy/two"])
    assert path.stat().st_mtime_ns == before
    if change == "measures":
        config = GroupConfig(measures=("P@1",))
    elif change == "length":
        config = GroupConfig(query_length=8)
    elif change == "prompt":
        other = random_prompt(encoder, PromptSpec("gated", 3), 99)
        save_prompt(bank / "toy-two", other, encoder, "toy/two")
    elif change == "judgements":
        qrels = {**collection.judgements["test"]}
        qrels.pop(next(iter(qrels)))
        collection = replace(collection, judgements={**collection.judgements, "test": qrels})
    elif change == "documents":
        collection = replace(collection, corpus=collection.corpus[1:])
    elif change == "run":
        path.with_suffix(".trec").unlink()
    else:
        path.write_text("{")
    group({"toy/two": collection}, tmp_path / "out", encoder, systems, ids=["toy/two"], config=config)
    assert path.stat().st_mtime_ns != before
    assert path.with_suffix(".trec").is_file()


def test_a_row_is_taken_back_only_for_the_whole_corpus(
    encoder: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "_FIRST_DOCUMENTS", 5)
    passes: list[int] = []
    whole = score.Subject.documents
    monkeypatch.setattr(score.Subject, "documents", lambda subject: passes.append(1) or whole(subject))
    config, collection = GroupConfig(measures=("nDCG@10", "P@1", "MRR@10")), toy_collection("toy/one")

    def rows(now: MemoryCollection) -> list[list[str]]:
        passes.clear()
        result = group({"toy/one": now}, tmp_path, encoder, [BM25, BASE], ids=["toy/one"], config=config)
        return [list(row["measures"]) for row in result.rows]

    first = rows(collection)
    assert first[0] == ["nDCG@10", "P@1", "RR@10"]
    assert len(passes) == 2
    assert rows(collection) == first  # in the configuration's order, not the file's
    assert len(passes) == 1
    last = replace(collection.corpus[-1], text="another text")
    rows(replace(collection, corpus=(*collection.corpus[:-1], last)))
    assert len(passes) == 3  # one to find it out for both, and one for each


def test_what_fails_is_said_and_the_others_go_on(
    toys: dict[str, MemoryCollection], encoder: SentenceTransformer, bank: Path, tmp_path: Path
) -> None:
    extra = toy_collection("toy/four")
    broken = replace(toys["toy/one"], corpus=(*toys["toy/one"].corpus, toys["toy/one"].corpus[0]))
    collections = {**toys, "toy/one": broken, "toy/four": extra}
    (bank / "toy-three" / "prompt.safetensors").write_bytes(b"")
    systems = [BM25, BASE, System("bank", "bank", bank)]
    ids = [*NAMES, "toy/four", "toy/gone"]
    result = group(collections, tmp_path / "out", encoder, systems, ids=ids)
    failed = {(f["collection"], f["system"]): f["error"] for f in result.failures}
    assert "two documents have one doc_id" in failed["toy/one", "bm25"].casefold()
    assert "cut or altered" in failed["toy/three", "bank"]
    assert f"{bank} holds no prompt for toy/four" in failed["toy/four", "bank"]
    assert {s for c, s in failed if c == "toy/gone"} == {"bm25", "base", "bank"}
    means = {one["system"]: one for one in result.means}
    assert (means["bm25"]["over"], means["bm25"]["of"]) == (["toy/two", "toy/three", "toy/four"], 5)
    assert means["bank"]["missing"] == ["toy/one", "toy/three", "toy/four", "toy/gone"]
    assert {tuple(one["over"]) for one in result.common} == {("toy/two",)}
    text = format_group(result.as_dict())
    assert "bank: the mean is over 1 of 5; missing: toy/one, toy/three, toy/four, toy/gone." in text
    assert "failed: toy/gone, bm25, base, bank: toy/gone is not on this machine" in text
    assert "(3 of 5)" in text
    assert "mean of the 1 that all systems have" in text


def test_errors_before_anything_is_computed(
    toys: dict[str, MemoryCollection], encoder: SentenceTransformer, tmp_path: Path
) -> None:
    for wrong, message in (
        (lambda: group(toys, tmp_path, systems=[]), "one or more"),
        (lambda: group(toys, tmp_path, systems=[BM25, BM25]), "distinct names"),
        (lambda: group(toys, tmp_path, systems=[BASE]), "need an encoder"),
        (lambda: group(toys, tmp_path, ids=[]), "no collection"),
        (lambda: System("a b", "base"), "is named 'a b'"),
        (lambda: System("a", "bank"), "has the path None"),
        (lambda: System("a", "other"), "expected base, bm25"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ForewordError, match=message):
            wrong()
    with pytest.raises(PromptError, match="is no bank"):
        group(toys, tmp_path, encoder, [System("bank", "bank", tmp_path)])
    assert not list(tmp_path.iterdir())


# -- formats -----------------------------------------------------------------------------------------------------


def made_result(values: Mapping[tuple[str, str], float], *, name: str = "beir") -> dict[str, Any]:
    """A result as `as_dict` gives it, with these nDCG@10."""
    ids, systems = (list(dict.fromkeys(key[place] for key in values)) for place in (0, 1))
    about = {
        "split": "test",
        "queries": 5,
        "documents": 9,
        "supervision": "train",
        "seen_by_backbone": True,
        "folds": None,
    }
    rows = {
        key: {**about, "collection": key[0], "system": key[1], "measures": {"nDCG@10": value}, "prompts": ["ab"],
              "backbone": "b", "subsample": None, "notes": [], "seconds": 1.5}
        for key, value in values.items()
    }  # fmt: skip
    means, common = means_of(rows, ids, systems, ["nDCG@10"])
    splits = dict.fromkeys(ids, "test")
    result = GroupResult(name, tuple(ids), splits, tuple(systems), "nDCG@10", tuple(rows.values()), (), (), tuple(means), tuple(common))  # fmt: skip
    return result.as_dict()


TWO = made_result(
    {
        ("beir/scifact", "base"): 0.6444,
        ("beir/scifact", "my_bank"): 0.7,
        ("own/50%_&#", "base"): 0.5,
        ("own/50%_&#", "my_bank"): 0.4,
    }
)


def test_latex() -> None:
    lines = format_group(TWO, "latex").splitlines()
    assert lines[:4] == ["\\begin{table}", "\\centering", "\\caption{beir: nDCG@10}", "\\begin{tabular}{lllrrrr}"]
    assert lines[4:13] == [
        "\\toprule",
        "collection & labels & seen & base & my\\_bank & BM25\\textsuperscript{a} & DPR\\textsuperscript{a} \\\\",
        "\\midrule",
        "beir/scifact & train & yes & 0.644 & \\textbf{0.700} & 0.665 & 0.318 \\\\",
        "own/50\\%\\_\\&\\# & train & yes & \\textbf{0.500} & 0.400 & -- & -- \\\\",
        "\\midrule",
        "mean of 2 &  &  & \\textbf{0.572} & 0.550 & -- & -- \\\\",
        "mean of the 1 also in [a] &  &  & 0.644 & \\textbf{0.700} & 0.665 & 0.318 \\\\",
        "\\bottomrule",
    ]
    assert lines[13] == "\\end{tabular}"
    assert lines[-1] == "\\end{table}"
    assert any(line.startswith("\\par\\footnotesize [a] published, not run here: Thakur et al.") for line in lines)
    assert escape_latex("a_b {50%} $&# ~^\\") == (
        r"a\_b \{50\%\} \$\&\# \textasciitilde{}\textasciicircum{}\textbackslash{}"
    )


def test_markdown_and_text() -> None:
    lines = format_group(TWO, "markdown").splitlines()
    assert lines[2:6] == [
        "| collection | labels | seen | base | my_bank | BM25 <sup>a</sup> | DPR <sup>a</sup> |",
        "| :-- | :-- | :-- | --: | --: | --: | --: |",
        "| beir/scifact | train | yes | 0.644 | **0.700** | 0.665 | 0.318 |",
        "| own/50%_&# | train | yes | **0.500** | 0.400 | – | – |",
    ]
    text = format_group(TWO).splitlines()
    assert text[2].split() == ["collection", "labels", "seen", "base", "my_bank", "BM25[a]", "DPR[a]"]
    assert text[4].split() == ["beir/scifact", "train", "yes", "0.644", "0.700*", "0.665", "0.318"]
    assert "BM25" not in format_group(TWO, published=False)
    assert "arxiv.org/abs/2104.08663" in format_group(TWO)


def test_csv_can_be_read_back() -> None:
    failing = {**TWO, "failures": [{"collection": "x", "system": "base", "error": 'a "quoted", error\nof two lines'}]}
    rows = list(csv.DictReader(io.StringIO(format_group(failing, "csv"))))
    results = {(r["collection"], r["system"]): float(r["value"]) for r in rows if r["kind"] == "result"}
    assert results == {(r["collection"], r["system"]): r["measures"]["nDCG@10"] for r in TWO["rows"]}
    assert [(r["system"], float(r["value"]), r["over"], r["of"]) for r in rows if r["kind"] == "mean"] == [
        ("base", pytest.approx(0.5722), "2", "2"),
        ("my_bank", pytest.approx(0.55), "2", "2"),
    ]
    theirs = [(r["system"], r["collection"], r["value"], r["source"]) for r in rows if r["kind"] == "published"]
    assert theirs[0] == ("BM25", "beir/scifact", "0.665", "https://arxiv.org/abs/2104.08663")
    failures = [(r["collection"], r["error"]) for r in rows if r["kind"] == "failure"]
    assert failures == [("x", 'a "quoted", error\nof two lines')]
    assert all(r["group"] == "beir" for r in rows)


def test_json_and_unknown_names() -> None:
    read = json.loads(format_group(TWO, "json"))
    assert read["rows"] == TWO["rows"]
    assert {"system": "BM25", "collection": "beir/scifact", "value": 0.665, "over": 1, "source": "beir"} in read["published"]["values"]  # fmt: skip
    assert "published" not in json.loads(format_group(TWO, "json", published=False))
    with pytest.raises(UnknownNameError, match="no format 'html'; there are: text"):
        format_group(TWO, "html")
    for style in FORMATS:
        with pytest.raises(UnknownNameError, match="no measure 'AP'; it has nDCG@10"):
            format_group(TWO, style, "AP", published=False)


# -- what is published, what was seen ----------------------------------------------------------------------------


def test_published_means_agree_with_each_other() -> None:
    bm25, dpr, tuned, prompts = published("nDCG@10")
    fourteen = dict.fromkeys(tuned.members, "test")
    assert len(fourteen) == 14
    assert bm25.mean_over(fourteen) == pytest.approx(0.430, abs=5e-4)  # what PT-Retrieval prints for BM25
    assert dpr.mean_over(fourteen) == pytest.approx(tuned.mean_over(fourteen), abs=5e-4)  # one checkpoint
    assert prompts.mean_over(fourteen) == 0.307
    assert prompts.mean_over({**fourteen, "beir/msmarco": "dev"}) is None
    assert len(bm25.values) == len(dpr.values) == 19
    for system in (*published("nDCG@10"), *published("Success@20")):
        assert system.source in sources()
        assert all(0 < value < 1 for value in [*system.values.values(), system.mean or 0.5])


def test_published_values_need_collection_measure_and_split() -> None:
    bm25 = published("nDCG@10")[0]
    assert bm25.value("beir/msmarco", "dev") == 0.228
    assert bm25.value("beir/msmarco", "test") is None
    assert bm25.value("beir/scifact", "dev") is None
    assert bm25.mean_over({"beir/scifact": "test", "toy/one": "test"}) is None
    assert to_compare("R@100", {"beir/scifact": "test"}) == []
    assert to_compare("nDCG@10", {"toy/one": "test"}) == []
    topics = {f"oag-qa/{n}": "test" for n in range(87)}
    assert [s.mean_over(topics, "oag-qa") for s in published("Success@20")] == [0.194, 0.22]
    assert [s.mean_over(dict(list(topics.items())[:86]), "oag-qa") for s in published("Success@20")] == [None, None]


def test_the_mean_of_fourteen_gets_a_line_of_its_own() -> None:
    names = [*published("nDCG@10")[2].members, "beir/msmarco"]
    result = made_result({(name, "base"): 0.1 * (n % 7) for n, name in enumerate(names)})
    lines = format_group(result, "markdown").splitlines()
    (line,) = [line for line in lines if "mean of the 14" in line]
    expected = sum(0.1 * (n % 7) for n in range(14)) / 14
    assert [cell.strip() for cell in line.split("|")[4:-1]] == [f"{expected:.3f}", "0.430", "0.255", "0.255", "0.307"]


def test_what_backbones_have_seen() -> None:
    from foreword.evaluation.published import facts, table

    mini, bert = "sentence-transformers/all-MiniLM-L6-v2", "bert-base-uncased"
    yes = ("beir/nq", "beir/quora", "beir/msmarco", "cqadupstack/unix", "beir/cqadupstack", "pydoc/torch", "oag-qa/x")
    assert all(seen.seen(mini, name) is True for name in yes)
    assert seen.seen("all-MiniLM-L6-v2", "beir/quora#fold1of5") is True
    assert all(seen.seen(mini, name) is False for name in ("beir/arguana", "beir/fever", "beir/hotpotqa"))
    assert seen.seen(mini, "glasgow/cacm") is None  # S2ORC may hold its abstracts
    assert seen.seen(mini, "folder:/data/mine") is None
    assert seen.seen("/models/all-MiniLM-L6-v2", "beir/nq") is None
    assert all(seen.seen(bert, name) is False for name in (*yes, "glasgow/cacm"))
    dprs = [f"facebook/dpr-ctx_encoder-{kind}-base" for kind in ("single-nq", "multiset")]
    assert [seen.seen(name, "dpr/trivia") for name in dprs] == [False, True]
    assert seen.seen("sentence-transformers/msmarco-distilbert-base-tas-b", "beir/msmarco") is True
    assert [seen.seen(n, "beir/msmarco") for n in ("facebook/contriever", "facebook/contriever-msmarco")] == [False, True]  # fmt: skip
    assert seen.seen("someone/else", "beir/nq") is None
    families = ("beir/", "cqadupstack/", "dpr/", "oag-qa/", "oag-qa-disciplines/", "glasgow/", "pydoc/")
    for about in facts()["backbones"]:
        assert set(about) == {"names", "source", "seen", "unseen"}
        assert about["names"]
        assert "https://" in about["source"]
        assert all(name.startswith(families) for name in [*about["seen"], *about["unseen"]])
        assert all(about["seen"].values())
    about = [row for row in table() if (row["backbone"], row["collection"]) == (mini, "beir/quora")]
    assert [row["through"] for row in about] == ["Quora question triplets"]


def test_rows_say_what_the_backbone_has_seen(encoder: SentenceTransformer, tmp_path: Path) -> None:
    transformer = transformer_of(encoder)
    assert transformer.backbone is not None
    transformer.backbone = replace(transformer.backbone, name="sentence-transformers/all-MiniLM-L6-v2")
    collections = {name: toy_collection(name) for name in ("beir/nq", "beir/arguana", "glasgow/cisi")}
    load: Callable[..., Any] = collections.__getitem__
    result = evaluate_group("x", list(collections), [BASE, BM25], tmp_path, load=load, encoder=encoder, quiet=True)
    assert [r["seen_by_backbone"] for r in result.rows if r["system"] == "base"] == [True, False, None]
    assert {r["seen_by_backbone"] for r in result.rows if r["system"] == "bm25"} == {False}
