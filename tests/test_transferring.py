"""Transfer: similarities and weights by hand, averages and fits, and the advice not to transfer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny import random_prompt, toy_collection

from foreword.collections.collection import MemoryCollection, Qrels
from foreword.collections.pseudo import pseudo_pairs
from foreword.errors import DataError, ForewordError, PromptError, UnknownNameError
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.loading import load_encoder
from foreword.prompts.prompt import Prompt
from foreword.prompts.routes import Routes
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import StoredPrompt
from foreword.training.config import StartConfig, TrainingConfig
from foreword.training.train import train
from foreword.transferring.config import FeatureSettings, FitConfig, TransferConfig
from foreword.transferring.fit import fit_weights, pseudo_scores, split_pairs
from foreword.transferring.reach import (
    FILE,
    bank_features,
    document_features,
    nearness,
    reach_of,
    similarity,
    softmax_weights,
    source_domains,
    unit_rows,
)
from foreword.transferring.transfer import (
    average_prompts,
    check_mixable,
    shared_document_source,
    transfer,
    uniform_weights,
)

FIT = FitConfig(precision="float32")
CONFIG = TransferConfig(fit=FIT)
TEXTS = ["babe bale", "bame bape bare", "dade"]


def stored(prompt: Prompt, start: str = "here", **card: Any) -> StoredPrompt:
    return StoredPrompt(prompt, {"domain": "x", "start_digest": start, **card})


@pytest.fixture
def sources(encoder: SentenceTransformer) -> dict[str, StoredPrompt]:
    return {n: stored(random_prompt(encoder, PromptSpec("gated", 3), s)) for s, n in enumerate(("a", "b", "c"))}


# -- similarity ----------------------------------------------------------------------------------------------------


def test_similarity_by_hand() -> None:
    target = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    source = np.array([[1.0, 0.0], [0.6, 0.8]], np.float32)
    # Means (.5, .5) and (.8, .4): product .6; cosine .6 / (sqrt(.5) * sqrt(.8)).
    assert similarity(target, source, "mean") == pytest.approx(0.6 / np.sqrt(0.4), abs=1e-6)
    assert similarity(target, source, "pairwise") == pytest.approx((1 + 0.6 + 0 + 0.8) / 4, abs=1e-6)
    assert similarity(target, target, "mean") == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(ForewordError, match="expected one of mean, pairwise"):
        similarity(target, source, "median")  # type: ignore[arg-type]


def test_unit_rows() -> None:
    rows = unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0.0, 0.0]], atol=1e-6)


def test_softmax_weights_by_hand() -> None:
    alike = {"a": 0.5, "b": 0.3, "c": 0.1}
    got = softmax_weights(alike, top_k=2, temperature=0.2)
    total = np.exp(2.5) + np.exp(1.5)
    assert got == pytest.approx({"a": np.exp(2.5) / total, "b": np.exp(1.5) / total})
    assert sum(softmax_weights(alike, temperature=1e-6).values()) == pytest.approx(1)
    assert list(softmax_weights({"z": 0.5, "y": 0.5}, top_k=1)) == ["y"]
    for wrong in ({"top_k": 0}, {"temperature": 0.0}):
        with pytest.raises(ForewordError, match="top_k at least 1 and a temperature above 0"):
            softmax_weights(alike, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ForewordError, match="0 sources"):
        softmax_weights({})


def test_document_features_are_base_embeddings_of_a_sample(encoder: SentenceTransformer, toy: MemoryCollection) -> None:
    every = document_features(encoder, toy, quiet=True)
    np.testing.assert_allclose(every, encode(encoder, [d.content for d in toy.corpus], "document"), atol=1e-5)
    few = document_features(encoder, toy, limit=10, quiet=True)
    backwards = document_features(encoder, replace(toy, corpus=toy.corpus[::-1]), limit=10, quiet=True)
    assert few.shape == (10, 32)
    np.testing.assert_allclose(few, backwards[::-1], atol=1e-5)
    assert document_features(encoder, toy, limit=10, seed=1, quiet=True).tolist() != few.tolist()


# -- reach ---------------------------------------------------------------------------------------------------------

PLANE = {"a": [[1.0, 0.0]], "b": [[0.8, 0.6]], "c": [[0.0, 1.0]]}
"""Three sources of one document: a and b have a cosine of .8, b and c of .6, a and c of 0."""


def plane(**points: Any) -> dict[str, Any]:
    return {name: np.array(rows, np.float32) for name, rows in {**PLANE, **points}.items()}


def test_nearness_by_hand() -> None:
    target = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)  # the mean points to (1, 1)
    others = {"b": np.array([[0.6, 0.8]], np.float32), "a": np.array([[0.8, 0.6], [0.0, -1.0]], np.float32)}
    assert nearness(target, others) == (pytest.approx(1.4 / np.sqrt(2)), "b")
    assert nearness(target, {"a": others["a"]}) == (pytest.approx(0.2 / np.sqrt(0.4**2 + 0.2**2) / np.sqrt(2)), "a")
    assert nearness(target, {"z": target, "y": target})[1] == "y"  # ties by name
    with pytest.raises(ForewordError, match="needs documents"):
        nearness(target, {})
    with pytest.raises(ForewordError, match=r"\[2, 3\] numbers"):
        nearness(target, {"x": np.ones((1, 3), np.float32)})


def test_a_bank_reaches_what_is_like_one_of_its_domains() -> None:
    near = reach_of(np.array([[0.6, 0.8]], np.float32), plane())
    assert (near.nearness, near.limit, near.nearest) == (pytest.approx(0.96), 0.5, "b")
    assert near.within
    far = reach_of(np.array([[-1.0, 0.0]], np.float32), plane())
    assert (far.nearness, far.nearest) == (pytest.approx(0.0), "c")
    assert not far.within
    assert far.said("x") == (
        "of the bank's domains, c is most similar to x: the cosine of their documents' means is 0.000, out of its reach "
        "(at least 0.5)"
    )
    assert far.as_dict() == {"nearness": 0.0, "limit": 0.5, "nearest": "c", "within": False}


def test_how_sources_lie_to_one_another_has_no_part_in_it() -> None:
    """A far target stays far of sources that are far from one another, and a near one near of sources that are near."""
    axes = {name: row[None] for name, row in zip("abcd", np.eye(5, dtype=np.float32), strict=False)}
    target = np.eye(5, dtype=np.float32)[4:] + 0.3
    alone = {name: reach_of(target, {name: rows}) for name, rows in axes.items()}
    assert not any(reach.within for reach in alone.values())
    assert not reach_of(target, axes).within
    close = np.random.default_rng(0).normal(size=(6, 1, 5)).astype(np.float32) * 0.01 + axes["a"]
    many = {str(number): rows for number, rows in enumerate(close)}
    assert reach_of(axes["a"] + 0.3, many).within  # further from them than they are from one another
    assert not reach_of(axes["b"], many).within
    assert reach_of(axes["b"], {**many, "b": axes["b"]}).within  # a source more can only come nearer


def test_domains_behind_a_bank(encoder: SentenceTransformer) -> None:
    prompt = random_prompt(encoder, PromptSpec("gated", 3))
    multitask = stored(prompt, data={"toy/a": {}, "toy/b#fold1of5": {}, "toy/b#fold2of5": {}})
    follows = StoredPrompt(prompt, {"data": {"toy/c": {}}, "start": {"trained_on": {"toy/a": "train"}}})
    assert source_domains({"m": multitask}) == ["toy/a", "toy/b"]
    assert source_domains({"toy/c": follows, "d": stored(prompt)}) == ["d", "toy/a", "toy/c"]


def test_features_are_kept_in_the_banks_folder(encoder: SentenceTransformer, tmp_path: Path) -> None:
    collections = {name: toy_collection(name) for name in ("toy/a", "toy/b")}
    loaded: list[str] = []

    def load(name: str) -> MemoryCollection:
        loaded.append(name)
        if name not in collections:
            raise UnknownNameError(f"unknown collection {name!r}")
        return collections[name]

    settings = FeatureSettings(sample=20)
    made = bank_features(tmp_path, encoder, ["toy/a", "toy/x"], load, settings, quiet=True)
    np.testing.assert_allclose(
        made.features["toy/a"], document_features(encoder, collections["toy/a"], limit=20, quiet=True), atol=2e-3
    )
    assert made.left_out == {"toy/x": "unknown collection 'toy/x'"}
    assert "judged without toy/x" in made.said()
    again = bank_features(tmp_path, encoder, ["toy/a", "toy/b"], load, settings, quiet=True)
    assert loaded == ["toy/a", "toy/x", "toy/b"]  # what is kept is not loaded again
    np.testing.assert_array_equal(again.features["toy/a"], made.features["toy/a"])
    assert again.said() == ""
    collections.clear()  # the bank has been taken elsewhere
    assert set(bank_features(tmp_path, encoder, ["toy/a", "toy/b"], load, settings, quiet=True).features) == {
        "toy/a",
        "toy/b",
    }
    for other in (FeatureSettings(sample=10), FeatureSettings(sample=20, document_template="{text}")):
        assert set(bank_features(tmp_path, encoder, ["toy/a"], load, other, quiet=True).left_out) == {"toy/a"}
    encoder.prompts["document"] = "passage: "
    assert not bank_features(tmp_path, encoder, ["toy/a"], load, settings, quiet=True).features


def test_features_without_a_place_to_keep_them(
    encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.warns(UserWarning, match="could not be stored"):
        found = bank_features(tmp_path / "file", encoder, [toy.id], lambda _: toy, quiet=True)
    assert len(found.features[toy.id]) == 60
    (tmp_path / FILE).write_bytes(b"cut")
    with pytest.warns(UserWarning, match="is made again"):
        again = bank_features(tmp_path, encoder, [toy.id], lambda _: toy, quiet=True)
    np.testing.assert_array_equal(again.features[toy.id], found.features[toy.id])
    with pytest.raises(ForewordError, match="sample is 0; it is at least 1"):
        FeatureSettings(sample=0)


def test_no_transfer_out_of_reach(
    encoder: SentenceTransformer, toy: MemoryCollection, sources: dict[str, StoredPrompt]
) -> None:
    far = plane(**{toy.id: [[-1.0, 0.0]]})
    result = transfer(encoder, toy, sources, CONFIG, features=far, quiet=True)
    assert (result.advice, dict(result.weights), result.route) == ("don't transfer", {}, None)
    assert "0.000" in result.reason
    assert "out of its reach (at least 0.5)" in result.reason
    assert not result.pseudo  # nothing was fitted
    assert result.as_dict()["reach"]["within"] is False
    unchecked = transfer(encoder, toy, sources, replace(CONFIG, reach=False), features=far, quiet=True)
    assert unchecked.pseudo
    assert unchecked.reach is None
    uniform = replace(CONFIG, method="uniform")
    assert transfer(encoder, toy, sources, uniform, features=far, quiet=True).advice == "transfer"
    asked = transfer(encoder, toy, sources, replace(uniform, reach=True), features=far, quiet=True)
    assert asked.advice == "don't transfer"


def test_within_reach_or_not_known_goes_on(
    encoder: SentenceTransformer, toy: MemoryCollection, sources: dict[str, StoredPrompt]
) -> None:
    near = transfer(encoder, toy, sources, CONFIG, features=plane(**{toy.id: [[1.0, 0.0]]}), quiet=True)
    assert near.reach is not None
    assert near.reach.within
    assert near.pseudo
    assert transfer(encoder, toy, sources, CONFIG, quiet=True).reach is None


def test_one_prompt_of_several_domains_has_a_reach(encoder: SentenceTransformer, toy: MemoryCollection) -> None:
    prompt = random_prompt(encoder, PromptSpec("gated", 3))
    bank = {"multitask": stored(prompt, data={name: {} for name in PLANE})}
    far = plane(**{toy.id: [[-1.0, 0.0]]})
    assert transfer(encoder, toy, bank, CONFIG, features=far, quiet=True).advice == "don't transfer"
    collections = {name: toy_collection(f"toy/{name}") for name in PLANE}
    found = transfer(encoder, toy, bank, CONFIG, sources=collections, quiet=True).reach
    assert found is not None
    own = document_features(encoder, toy, quiet=True)
    others = [document_features(encoder, c, quiet=True) for c in collections.values()]
    assert found.nearness == pytest.approx(max(similarity(own, other) for other in others), abs=1e-4)


# -- combinations --------------------------------------------------------------------------------------------------


def test_the_average_is_the_weighted_mean(sources: dict[str, StoredPrompt]) -> None:
    mean = average_prompts(sources, {"a": 3.0, "b": 1.0, "c": 0.0})
    for name, tensor in mean.tensors().items():
        a, b = (sources[n].prompt.tensors()[name] for n in ("a", "b"))
        torch.testing.assert_close(tensor, 0.75 * a + 0.25 * b)
    alone = average_prompts(sources, {"b": 2.0})
    torch.testing.assert_close(alone.tensors(), sources["b"].prompt.tensors())


def test_prompts_of_different_starts_are_not_averaged(
    encoder: SentenceTransformer, sources: dict[str, StoredPrompt]
) -> None:
    sources["b"] = stored(sources["b"].prompt, start="elsewhere")
    with pytest.raises(PromptError, match="different starts cannot be averaged"):
        average_prompts(sources, {"a": 1.0, "b": 1.0})
    average_prompts(sources, {"a": 1.0, "c": 1.0})
    longer = stored(random_prompt(encoder, PromptSpec("gated", 4)))
    with pytest.raises(PromptError, match="different kind, length, layers or sides"):
        average_prompts({**sources, "d": longer}, {"a": 1.0, "d": 1.0})
    with pytest.raises(PromptError, match="nothing to average"):
        average_prompts(sources, {"a": 0.0})


def test_trained_prompts_know_their_start(tiny_bert: Path, toy: MemoryCollection, tmp_path: Path) -> None:
    encoder = load_encoder(str(tiny_bert), device="cpu")
    other = toy_collection("toy/two")
    config = TrainingConfig(steps=2, batch_size=8, precision="float32", dev_folds=0)
    for start, same in (("words", True), ("text", False)):  # text is each domain's own
        made = {
            c.id: train(
                encoder,
                c,
                tmp_path / start / c.id,
                config=config,
                start=StartConfig(PromptSpec("gated", 3), start=start),  # type: ignore[arg-type]
                quiet=True,
            )
            for c in (toy, other)
        }
        if same:
            average_prompts(made, uniform_weights(made))
        else:
            with pytest.raises(PromptError, match="different starts"):
                average_prompts(made, uniform_weights(made))


def test_what_can_be_mixed(encoder: SentenceTransformer, sources: dict[str, StoredPrompt]) -> None:
    check_mixable(sources)
    with pytest.raises(PromptError, match="p: only memory and gated prompts can be mixed"):
        check_mixable({**sources, "p": stored(random_prompt(encoder, PromptSpec("prefix", 3)))})
    with pytest.raises(PromptError, match="differ in length, layers or sides"):
        check_mixable({**sources, "d": stored(random_prompt(encoder, PromptSpec("gated", 4)))})


def test_one_source_encodes_documents_where_all_agree(encoder: SentenceTransformer) -> None:
    first, second = (random_prompt(encoder, PromptSpec("gated", 3, sides="untied"), s) for s in (0, 1))
    assert shared_document_source({"a": stored(first), "b": stored(second)}) is None
    tensors = {name: (first if name.startswith("document") else second).tensors()[name] for name in first.tensors()}
    alike = {"a": stored(first), "b": stored(Prompt(first.spec, tensors))}
    assert shared_document_source(alike) == "a"
    assert shared_document_source({"a": stored(random_prompt(encoder, PromptSpec("gated", 3)))}) is None


# -- fitting -------------------------------------------------------------------------------------------------------


def test_split_pairs_is_seeded_and_disjoint(toy: MemoryCollection) -> None:
    pairs = list(pseudo_pairs(toy.documents()))
    assert len(pairs) == 60
    fitted, held = split_pairs(pairs, FIT)
    assert (len(fitted), len(held)) == (42, 18)
    assert not {p.query_id for p in fitted} & {p.query_id for p in held}
    assert split_pairs(pairs, FIT) == (fitted, held)
    assert split_pairs(pairs, replace(FIT, seed=1)) != (fitted, held)
    with pytest.raises(DataError, match="2 pseudo-queries; fitting needs more text"):
        split_pairs(pairs[:2], FIT)


@pytest.fixture(scope="module")
def useful(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> StoredPrompt:
    """A prompt trained on the toy domain's own pseudo-queries."""
    toy = toy_collection()
    encoder = load_encoder(str(tiny_bert), device="cpu")
    settings = {"steps": 60, "batch_size": 16, "evaluate_every": 60, "learning_rate": 0.1, "dev_queries": 1}
    config = TrainingConfig(side="both", precision="float32", **settings)
    pairs = {toy.id: list(pseudo_pairs(toy.documents()))}
    only_train = toy_collection(splits=("train",))
    folder = tmp_path_factory.mktemp("useful") / "it"
    start = StartConfig(PromptSpec("gated", 16))
    return train(encoder, only_train, folder, config=config, pairs=pairs, start=start, quiet=True)


def noise(encoder: SentenceTransformer, like: StoredPrompt, seed: int = 0) -> StoredPrompt:
    return stored(random_prompt(encoder, like.prompt.spec, seed, scale=2.0))


def carry(encoder: SentenceTransformer, bank: Mapping[str, StoredPrompt]) -> None:
    for name, source in bank.items():
        transformer_of(encoder).add(name, source.prompt)


def test_fitting_prefers_the_useful_source(
    encoder: SentenceTransformer, toy: MemoryCollection, useful: StoredPrompt
) -> None:
    bank = {"useful": useful, "noise": noise(encoder, useful)}
    carry(encoder, bank)
    pairs = list(pseudo_pairs(toy.documents()))
    before = useful.prompt.digest()
    for document in ("mixed", None, "useful"):
        fit = fit_weights(encoder, uniform_weights(bank), pairs, FIT, document=document, quiet=True)
        assert fit.weights["noise"] < fit.weights["useful"]
        assert fit.weights["noise"] < 0.5
        assert np.mean(fit.losses[-5:]) < np.mean(fit.losses[:5])
        assert len(fit.losses) == FIT.steps
        again = fit_weights(encoder, uniform_weights(bank), pairs, FIT, document=document, quiet=True)
        assert again.weights == fit.weights
    assert useful.prompt.digest() == before
    assert all(p.grad is None for p in encoder.parameters())
    held = fit_weights(encoder, uniform_weights(bank), pairs, replace(FIT, shrinkage=100.0), quiet=True)
    assert max(map(abs, held.weights.values())) < 0.2
    with pytest.raises(ForewordError, match="no source prompts"):
        fit_weights(encoder, {}, pairs, FIT)


def test_pseudo_scores_are_of_the_route(encoder: SentenceTransformer, toy: MemoryCollection) -> None:
    transformer_of(encoder).add("n", random_prompt(encoder, PromptSpec("gated", 3), scale=3.0))
    pairs = list(pseudo_pairs(toy.documents()))
    base, zero, one = (pseudo_scores(encoder, route, pairs, FIT) for route in (None, {"n": 0.0}, "n"))
    assert base == zero != one
    assert set(base) == {pair.query_id for pair in pairs}


# -- the decision --------------------------------------------------------------------------------------------------


def test_a_useful_source_is_transferred(
    encoder: SentenceTransformer, toy: MemoryCollection, useful: StoredPrompt
) -> None:
    bank = {"useful": useful, "noise": noise(encoder, useful)}
    with pytest.raises(PromptError, match="trained on toy/one itself"):
        transfer(encoder, toy, bank, CONFIG, quiet=True)
    toy = replace(toy, id="toy/like")  # a domain with the same words, of which no source saw a label
    result = transfer(encoder, toy, bank, replace(CONFIG, method="best-single"), quiet=True)
    assert (result.advice, dict(result.weights)) == ("transfer", {"useful": 1.0})
    assert result.pseudo["useful"] > result.pseudo["base"] > result.pseudo["noise"]
    assert encode(encoder, TEXTS, "query", route=result.route).shape == (3, 32)
    fitted = transfer(encoder, toy, bank, CONFIG, quiet=True)
    assert fitted.advice == "transfer"
    assert max(fitted.pseudo.values()) > fitted.pseudo["base"]
    said = fitted.as_dict()
    assert said["method"] == "fitted"
    assert said["target"] == toy.id
    assert "held-out pseudo-queries" in said["reason"]


def test_the_base_model_wins_when_every_source_hurts(
    encoder: SentenceTransformer, toy: MemoryCollection, useful: StoredPrompt
) -> None:
    bank = {str(seed): noise(encoder, useful, seed) for seed in range(3)}
    result = transfer(encoder, toy, bank, replace(CONFIG, method="best-single"), quiet=True)
    assert result.advice == "don't transfer"
    assert dict(result.weights) == {}
    assert result.route is None
    assert result.pseudo["base"] > max(result.pseudo[name] for name in bank)


class Unlabelled(MemoryCollection):
    """A target whose queries and judgements may not be looked at."""

    def queries(self, split: str = "test") -> Any:
        raise AssertionError("queries of the target were read")

    def qrels(self, split: str = "test") -> Qrels:
        raise AssertionError("judgements of the target were read")

    def pairs(self, split: str = "train", *, hard_negatives: int | None = None) -> Any:
        raise AssertionError("pairs of the target were read")


@pytest.mark.parametrize("method", ["fitted", "uniform", "similarity", "best-single", "average"])
def test_only_documents_of_the_target_are_read(
    encoder: SentenceTransformer, toy: MemoryCollection, sources: dict[str, StoredPrompt], method: Any
) -> None:
    target = Unlabelled(toy.id, toy.group, toy.corpus, toy.query_texts, toy.judgements)
    collections = {name: toy_collection(f"toy/{name}") for name in sources}
    result = transfer(encoder, target, sources, replace(CONFIG, method=method), sources=collections, quiet=True)
    assert result.method == method
    assert set(result.weights) <= set(sources)
    if method == "uniform":
        assert dict(result.weights) == pytest.approx(dict.fromkeys("abc", 1 / 3))


def test_similarity_weighs_and_the_average_is_its_mean(
    encoder: SentenceTransformer, toy: MemoryCollection, sources: dict[str, StoredPrompt]
) -> None:
    collections = {"a": toy, "b": toy_collection("toy/b")}  # c has no documents of its own: a multitask prompt
    config = replace(CONFIG, method="similarity")
    result = transfer(encoder, toy, sources, config, sources=collections, quiet=True)
    features = {n: document_features(encoder, c, quiet=True) for n, c in (("a", toy), ("b", collections["b"]))}
    alike = {name: similarity(features["a"], features[name]) for name in ("a", "b")}
    assert result.similarities == pytest.approx(alike, abs=1e-4)
    assert dict(result.weights) == pytest.approx(softmax_weights(alike), abs=1e-3)
    assert "left out: c, whose documents are not known" in result.reason
    given = transfer(encoder, toy, sources, config, features={toy.id: features["a"], **features}, quiet=True)
    assert dict(given.weights) == pytest.approx(dict(result.weights), abs=1e-3)
    averaged = transfer(encoder, toy, sources, replace(CONFIG, method="average"), sources=collections, quiet=True)
    assert averaged.prompt is not None
    expected = average_prompts(sources, averaged.weights)
    assert averaged.prompt.digest() == expected.digest()
    transformer_of(encoder).add("mean", expected)
    np.testing.assert_allclose(
        encode(encoder, TEXTS, "query", route=averaged.route), encode(encoder, TEXTS, "query", route="mean"), atol=1e-6
    )
    with pytest.raises(ForewordError, match="similarity needs the documents of the sources"):
        transfer(encoder, toy, sources, config, quiet=True)


def test_documents_by_one_source_where_all_agree(encoder: SentenceTransformer, toy: MemoryCollection) -> None:
    first, second = (random_prompt(encoder, PromptSpec("gated", 3, sides="untied"), s) for s in (0, 1))
    tensors = {name: (first if name.startswith("document") else second).tensors()[name] for name in first.tensors()}
    bank = {"a": stored(first), "b": stored(Prompt(first.spec, tensors))}
    result = transfer(encoder, toy, bank, replace(CONFIG, method="uniform"), quiet=True)
    assert result.document == "a"
    assert result.route == Routes({"a": 0.5, "b": 0.5}, "a")


def test_what_transfer_refuses(encoder: SentenceTransformer, toy: MemoryCollection) -> None:
    with pytest.raises(PromptError, match="no source prompts to transfer from"):
        transfer(encoder, toy, {}, CONFIG)
    prefix = {"p": stored(random_prompt(encoder, PromptSpec("prefix", 3)))}
    with pytest.raises(PromptError, match="only memory and gated prompts can be mixed"):
        transfer(encoder, toy, prefix, CONFIG)
    with pytest.raises(ForewordError, match="expected one of auto, multitask, fitted"):
        TransferConfig(method="best")  # type: ignore[arg-type]
