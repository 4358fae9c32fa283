"""What a prompt does on a collection: the explanation's numbers by other ways, its page, and its command."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from shell import Shell
from tiny import random_prompt, toy_collection, write_beir

from foreword.collections.collection import Document, MemoryCollection, Query
from foreword.errors import DataError, ForewordError, PromptError, UnknownNameError
from foreword.evaluation import influence as influences
from foreword.evaluation.calibration import calibrate, fit_temperature
from foreword.evaluation.evaluate import evaluate
from foreword.evaluation.explain import explain
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.inspect import prompt_strength
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import StoredPrompt, load_prompt, save_mixture, save_prompt
from foreword.report import render
from foreword.report.sections import influence
from foreword.retrieval import search as searching
from foreword.retrieval.search import dense_run, search


def stored(encoder: SentenceTransformer, folder: Path, domain: str = "toy/own", **changes: Any) -> Path:
    """A random prompt on disk; `record` goes to its card."""
    record = changes.pop("record", None)
    spec = PromptSpec(**{"kind": "gated", "length": 3, **changes})
    return save_prompt(folder, random_prompt(encoder, spec, 1, scale=2.0), encoder, domain, record=record)


@pytest.fixture
def toy() -> MemoryCollection:
    """The toy collection with queries of one word of theirs, so that they are lost and won."""
    whole = toy_collection()
    short = {
        split: tuple(Query(query.query_id, query.text.split()[0]) if split == "test" else query for query in queries)
        for split, queries in whole.query_texts.items()
    }
    return replace(whole, query_texts=short)


def runs_of(encoder: SentenceTransformer, toy: MemoryCollection, folder: Path, split: str = "test") -> dict[str, Any]:
    """Both systems' runs, by the usual way."""
    transformer_of(encoder).add("again", load_prompt(folder, encoder).prompt)
    asked = list(toy.queries(split))
    return {
        name: dense_run(encoder, toy, asked, route=route, quiet=True)
        for name, route in (("base", None), ("toy/own", "again"))
    }


# -- the numbers ---------------------------------------------------------------------------------------------------


def test_numbers_are_those_of_evaluation(encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path) -> None:
    folder = stored(encoder, tmp_path / "p")
    found = explain(encoder, toy, folder, quiet=True)
    runs = runs_of(encoder, toy, folder)
    for system, run in runs.items():
        scored = evaluate(toy, run)
        got = {row["measure"]: row["value"] for row in found["rows"] if row["system"] == system}
        assert got == pytest.approx(dict(scored.measures), abs=1e-9)
        per_query = found["per_query"]["toy/one"]["systems"][system]
        assert per_query == pytest.approx(dict(scored.per_query["nDCG@10"]), abs=1e-9)
    values = found["per_query"]["toy/one"]["systems"]
    gains = {query: values["toy/own"][query] - values["base"][query] for query in values["base"]}
    tuned = next(row for row in found["rows"] if row["system"] == "toy/own")
    assert tuned["difference"] == pytest.approx(np.mean(list(gains.values())))
    assert tuned["trained_parameters"] == 2 * (2 * 3 * 32 + 4)  # two layers: keys, values, and four gates
    assert tuned["bytes"] == (folder / "prompt.safetensors").stat().st_size
    shown = {item["query_id"]: item for item in found["searches"]}
    assert list(shown) == found["changes"]["wins"] + found["changes"]["losses"]
    assert all(item["gain"] == pytest.approx(gains[query]) for query, item in shown.items())
    assert found["changes"]["better"] == sum(gain > 0 for gain in gains.values())
    worst = min(gains.values())
    assert gains[found["changes"]["losses"][0]] == worst < 0
    assert (
        f"nDCG@10 −{-worst:.3f}, first relevant document at rank" in shown[found["changes"]["losses"][0]]["collection"]
    )
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert explain(encoder, toy, folder, quiet=True) == found


def test_words_are_of_the_searches_that_changed_most(encoder: SentenceTransformer, tmp_path: Path) -> None:
    whole = toy_collection()
    chance = {query: {"d7": 1, "d20": 1} for query in whole.judgements["test"]}  # ranks are anything, and change
    toy = replace(whole, judgements={**whole.judgements, "test": chance})
    folder = stored(encoder, tmp_path / "p")
    found = explain(encoder, toy, folder, measures=["RR"], queries=2, influence=3, quiet=True)
    wins, losses = found["changes"]["wins"], found["changes"]["losses"]
    assert (len(wins), len(losses)) == (2, 2)
    assert [item["query_id"] for item in found["influence"]] == [wins[0], losses[0], wins[1]]  # in turn
    runs = runs_of(encoder, toy, folder)
    for item in found["influence"]:
        judged = toy.qrels("test")[item["query_id"]]
        assert item["doc_id"] in judged
        assert [word["word"] for word in item["words"]] == item["query"].split()
        for system, key in (("base", "base"), ("toy/own", "prompted")):
            hits = list(runs[system][item["query_id"]])
            assert item[key]["rank"] == 1 + hits.index(item["doc_id"])  # 60 documents: all of them are hits
    assert not explain(encoder, toy, folder, queries=0, quiet=True)["influence"]


def test_documents_are_embedded_once(
    encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded: list[int] = []

    def count(*arguments: Any, **how: Any) -> Any:
        if arguments[2] == "document":
            embedded.append(len(arguments[1]))
        return encode(*arguments, **how)

    for module in (influences, searching):
        monkeypatch.setattr(module, "encode", count)
    explain(encoder, toy, stored(encoder, tmp_path / "p"), own=["some words"], quiet=True)
    assert embedded == [60, 60]  # by the base model and with the prompt
    embedded.clear()
    explain(encoder, toy, stored(encoder, tmp_path / "q", sides="query"), own=["some words"], quiet=True)
    assert embedded == [60]


def test_calibration(encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path) -> None:
    folder = stored(encoder, tmp_path / "p")
    found = explain(encoder, toy, folder, quiet=True)
    test, dev = (runs_of(encoder, toy, folder, split) for split in ("test", "dev"))
    qrels = toy.qrels("test")
    assert [(item["definition"], item["system"]) for item in found["calibration"]] == [
        ("fitted", "base"),
        ("fitted", "toy/own"),
        ("pt-retrieval", "base"),
        ("pt-retrieval", "toy/own"),
    ]
    for item in found["calibration"]:
        if item["definition"] == "fitted":
            temperature = fit_temperature(dev[item["system"]], toy.qrels("dev"))
            assert item["temperature"] == pytest.approx(temperature, rel=1e-3)
            own = calibrate(test[item["system"]], qrels, temperature=temperature)
            assert (item["ece"], item["brier"]) == pytest.approx((own.ece, own.brier.score), abs=1e-4)
        else:
            theirs = calibrate(test[item["system"]], qrels, k=5)
            assert item["ece"] == pytest.approx(theirs.equal_width.ece, abs=1e-6)
            assert (item["temperature"], item["k"], item["hits"]) == (1, 5, 60)
    assert "fitted on the 12 queries of dev" in found["configuration"]["notes"]["calibration"]


def test_calibration_without_a_dev_split(encoder: SentenceTransformer, tmp_path: Path) -> None:
    folder = stored(encoder, tmp_path / "p")
    plain = toy_collection(splits=("train", "test"))
    both = toy_collection()
    twice = replace(both, query_texts={**both.query_texts, "dev": both.query_texts["test"]})
    twice = replace(twice, judgements={**both.judgements, "dev": both.judgements["test"]})
    nobody = {query: {"gone": 1} for query in both.judgements["dev"]}
    lost = replace(both, judgements={**both.judgements, "dev": nobody})
    for collection, split, why in (
        (plain, "test", "toy/one has no dev split"),
        (both, "dev", "dev is the split explained"),
        (twice, "test", "12 dev queries are in test, too"),
        (lost, "test", "No query has a relevant hit among its first 10"),
    ):
        found = explain(encoder, collection, folder, split=split, queries=0, quiet=True)
        assert why in found["configuration"]["notes"]["calibration"]
        assert [item["temperature"] for item in found["calibration"]] == [1, 1, 1, 1]
        assert "not fitted" in found["calibration"][0]["domain"]


# -- kinds of prompts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "gated"])
def test_strength(encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path, kind: str) -> None:
    folder = stored(encoder, tmp_path / "p", sides="untied", kind=kind)
    found = explain(encoder, toy, folder, quiet=True)
    query, document = found["strength"]
    transformer_of(encoder).add("again", load_prompt(folder, encoder).prompt)
    texts = [[q.text for q in toy.queries("test")], [doc.content for doc in toy.documents()]]
    for item, own, side in zip((query, document), texts, ("query", "document"), strict=True):
        expected = prompt_strength(encoder, own, side, route="again").strength  # type: ignore[arg-type]
        assert np.array(item["strength"]) == pytest.approx(expected, abs=1e-5)
        most = item["most"]
        column = item["places"].index(most["place"])
        assert item["strength"][most["layer"] - 1][column] == most["strength"] == np.max(item["strength"])
    assert f"kind {kind}" in found["configuration"]["notes"]["words"]


@pytest.mark.parametrize("kind", ["prefix", "input"])
def test_kinds_that_do_not_add(encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path, kind: str) -> None:
    found = explain(encoder, toy, stored(encoder, tmp_path / "p", kind=kind), quiet=True)
    notes = found["configuration"]["notes"]
    assert found["strength"] == []
    assert f"kind {kind}, and only memory and gated prompts add to what" in notes["strength"]
    assert (len(found["words"]) == 1) is ("words" not in notes) is (kind == "input")
    assert ("length" in notes) is (kind == "input")  # its vectors take some of the 48 positions
    page = render(found)
    assert 'id="strength"' not in page
    assert "only memory and gated prompts add to what" in page


def test_a_mixture(encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path) -> None:
    sources = {
        name: StoredPrompt(load_prompt(stored(encoder, tmp_path / name, name)).prompt, {"domain": name})
        for name in ("a", "b")
    }
    cards = {name: load_prompt(tmp_path / name) for name in sources}
    folder = save_mixture(tmp_path / "m", "mixed", {"a": 0.5, "b": 0.5}, cards, encoder)
    found = explain(encoder, toy, folder, quiet=True)
    assert [item["side"] for item in found["strength"]] == ["query", "document"]
    assert found["rows"][-1]["trained_parameters"] == 2 * 2 * (2 * 3 * 32 + 4)
    empty = explain(encoder, toy, save_mixture(tmp_path / "e", "none", {}, {}, encoder), quiet=True)
    assert "this mixture is the base model alone" in empty["configuration"]["notes"]["strength"]
    assert (empty["changes"]["better"], empty["changes"]["worse"]) == (0, 0)


# -- queries of one's own, and refusals ----------------------------------------------------------------------------


def test_a_query_of_ones_own(encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path) -> None:
    folder = stored(encoder, tmp_path / "p")
    text = toy.corpus[5].text.split(".")[0]
    bare = MemoryCollection("toy/bare", "toy", toy.corpus, {}, {})
    found = explain(encoder, bare, folder, own=[text], quiet=True)
    (item,), (words,) = found["searches"], found["influence"]
    transformer_of(encoder).add("again", load_prompt(folder, encoder).prompt)
    for side, route in (("before", None), ("after", "again")):
        hits = search(encoder, bare, [text], k=5, route=route, quiet=True)[0]
        assert [hit["name"] for hit in item[side]] == [hit.doc_id for hit in hits]
        assert [hit["score"] for hit in item[side]] == pytest.approx([hit.score for hit in hits], abs=1e-3)
    assert words["doc_id"] == hits[0].doc_id
    assert words["prompted"]["rank"] == 1
    assert "rows" not in found
    assert "only your own queries" in found["configuration"]["notes"]["judgements"]
    assert explain(encoder, toy, folder, own=[text], quiet=True)["influence"][0] == {**words, "collection": "toy/one"}


def test_a_query_that_is_a_document_is_no_rival(encoder: SentenceTransformer, tmp_path: Path) -> None:
    """As in ArguAna: the query's own document scores highest by far, and is never a hit."""
    corpus = tuple(
        Document(f"d{number}", text) for number, text in enumerate(("dat bel", "fin gor", "kas lir", "mon nur"))
    )
    asked = {"test": tuple(Query(doc.doc_id, doc.text) for doc in corpus)}
    qrels = {"test": {f"d{number}": {f"d{(number + 1) % 4}": 1} for number in range(4)}}
    own = MemoryCollection("toy/self", "toy", corpus, asked, qrels, exclude_self=True)
    found = explain(encoder, own, stored(encoder, tmp_path / "p"), queries=4, influence=8, quiet=True)
    assert found["influence"]
    ranks = found["per_query"]["toy/self"]["ranks"]
    for item in found["influence"]:
        for system, key in (("base", "base"), ("toy/own", "prompted")):
            assert item[key]["rank"] == ranks[system][item["query_id"]]
            assert (item[key]["margin"] >= 0) is (item[key]["rank"] == 1)


def test_the_encoder_comes_back_as_it_was(encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path) -> None:
    transformer = transformer_of(encoder)
    transformer.add("mine", random_prompt(encoder, PromptSpec("gated", 3), 7))
    transformer.route = "mine"
    explain(encoder, toy, stored(encoder, tmp_path / "p"), quiet=True)
    assert (transformer.domains, transformer.route) == (["mine"], "mine")


def test_labels_that_trained_the_prompt(encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path) -> None:
    fold = stored(
        encoder, tmp_path / "f", record={"data": {"toy/one#fold1of2": {}}, "supervision": {"method": "k-fold"}}
    )
    with pytest.raises(DataError, match="was trained on test queries of toy/one"):
        explain(encoder, toy, fold, quiet=True)
    record = {"data": {"toy/one": {}}, "supervision": {"method": "train"}}
    found = explain(encoder, toy, stored(encoder, tmp_path / "t", record=record), split="train", quiet=True)
    assert "No result to report: the train labels" in found["headline"]
    assert found["configuration"]["supervision"] == "train"


def test_refusals(encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path) -> None:
    folder = stored(encoder, tmp_path / "p")
    bare = MemoryCollection("toy/bare", "toy", toy.corpus, {}, {})
    for error, match, collection, how in (
        (DataError, "no judgements", bare, {}),
        (DataError, "own queries is empty", toy, {"own": [" "]}),
        (ForewordError, "queries=-1", toy, {"queries": -1}),
        (UnknownNameError, "nDGC", toy, {"measures": ["nDGC@10"]}),
        (UnknownNameError, "dev", toy_collection(splits=("train", "test")), {"split": "dev"}),
    ):
        with pytest.raises(error, match=match):
            explain(encoder, collection, folder, quiet=True, **how)  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="is no prompt"):
        explain(encoder, toy, tmp_path, quiet=True)


# -- the page ------------------------------------------------------------------------------------------------------


def word(text: str, base: float, prompted: float) -> dict[str, Any]:
    standing = {"score": 0.5, "margin": 0.1, "rank": 2}
    effects = {"base": base, "prompted": prompted, "gain": prompted - base}
    return {
        "word": text,
        "start": 0,
        **effects,
        "without_base": standing,
        "without_prompted": {**standing, "rank": 1234},
    }


RECORD = {
    "query": "the <b>fox",
    "systems": ["base", "<mine>"],
    "document": "den & earth",
    "relevant": True,
    "change": -0.25,
    "measure": "nDCG@10",
    "base": {"score": 0.6, "margin": -0.02, "rank": 3},
    "prompted": {"score": 0.7, "margin": 0.05, "rank": 1},
    "words": [word("the", -0.1, 0.0), word("<b>fox", 0.05, 0.2)],
}


def test_words_are_shaded_by_their_effect() -> None:
    section = influence({"influence": [RECORD]})
    assert section is not None
    shades = re.findall(r"<li style=\"[^\"]*background:([^\"]*)\"><bdi>(.*?)</bdi><span[^>]*>(.*?)</span>", section)
    assert shades == [
        ("color-mix(in srgb,var(--loss) 25%,var(--faint))", "the", "−.100"),  # half of the strongest, 50 %
        ("color-mix(in srgb,var(--win) 12%,var(--faint))", "&lt;b&gt;fox", "+.050"),
        ("var(--faint)", "the", ".000"),
        ("color-mix(in srgb,var(--win) 50%,var(--faint))", "&lt;b&gt;fox", "+.200"),
    ]
    assert "rank 3, margin −.020" in section
    assert "; the search loses .250 in nDCG@10" in section
    assert "den &amp; earth" in section
    assert "<b>fox" not in section
    assert "<mine>" not in section
    assert section.count('role="list" aria-label="Words of the query with ') == 2
    assert "1,234" in section  # where the document stands without the word
    assert 'id="influence"' in render({"influence": [RECORD]})


def test_words_of_nothing() -> None:
    for wrong in (None, [], [{**RECORD, "words": []}]):
        assert influence({"influence": wrong}) is None
    still = influence({"influence": [{**RECORD, "relevant": None, "change": None, "words": [word("a", 0.0, 0.0)]}]})
    assert still is not None
    assert "the first hit with the prompt</p>" in still


# -- the command ---------------------------------------------------------------------------------------------------


def test_the_command(
    shell: Shell, encoder: SentenceTransformer, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = f"folder:{write_beir(tmp_path / 'toy', toy_collection())}"
    prompt = stored(encoder, tmp_path / "prompts" / "[own]", "[own]")  # rich must not take it for a colour
    arguments = ("explain", folder, "--prompt", prompt, "--backbone", tiny_bert, "--query", "some words")
    found = shell.json(*arguments, "--output", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "explain.json").read_text()) == found
    page = (tmp_path / "out" / "report.html").read_text()
    for section in ("results", "gains", "searches", "influence", "calibration", "strength", "provenance"):
        assert f'id="{section}"' in page
    scored = shell.json("evaluate", folder, "--backbone", tiny_bert, "--prompt", prompt)
    got = {row["measure"]: row["value"] for row in found["rows"] if row["system"] == "[own]"}
    assert got == pytest.approx(scored["measures"])
    told = shell(*arguments, "--output", tmp_path / "out", "--max-queries", 1, "--influence", 1)
    assert found["headline"] in told
    for said in ("some words", "[own]", "acts most on a query in layer", "PT-Retrieval", "fitted on the 12 queries"):
        assert said in told
    monkeypatch.chdir(tmp_path)
    dry = json.loads(shell("explain", "pydoc/torch", "--prompt", "prompts/x", "--max-queries", 3, "--dry-run"))
    assert (dry["output"], dry["split"], dry["queries"]) == ("runs/explain/pydoc-torch-x", "test", 3)
    assert not Path("runs").exists()
    assert "name a prompt" in shell.fails("explain", folder)
    assert "is no prompt" in shell.fails("explain", folder, "--prompt", tmp_path, "--backbone", tiny_bert)
