"""Faults of running it: results, transfer, the command line."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import socket
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny import random_prompt, toy_collection

from foreword.cli.grammar import Parser
from foreword.collections.beir import BeirCollection
from foreword.collections.collection import Collection, Document, MemoryCollection, Query
from foreword.collections.registry import load
from foreword.errors import PromptError
from foreword.evaluation import group as group_module
from foreword.evaluation.evaluate import evaluate
from foreword.evaluation.group import System, evaluate_group
from foreword.prompts import store
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import StoredPrompt, load_prompt, save_prompt
from foreword.retrieval.runs import read_run
from foreword.transferring import transfer as transfer_module
from foreword.transferring.config import TransferConfig
from foreword.transferring.transfer import transfer

from . import Bench, Case, refused, write_beir

evaluate_module = sys.modules[evaluate.__module__]  # its name in its package is the function's

BM25 = [System("bm25", "bm25")]


# -- results -------------------------------------------------------------------------------------------------------


def queries_without_hits_vanish_from_the_mean(bench: Bench) -> None:
    """A judged query that a run does not answer counts 0, and is counted."""
    toy = toy_collection()
    judged = toy.qrels("test")
    perfect = {query: dict.fromkeys(docs, 1.0) for query, docs in judged.items()}
    del perfect[next(iter(judged))]
    result = evaluate(toy, perfect, measures=["nDCG@10"])
    assert result.queries == len(judged), f"the mean is over {result.queries} of {len(judged)} queries"
    assert abs(result.measures["nDCG@10"] - (len(judged) - 1) / len(judged)) < 1e-9


def drop_unanswered_queries(patch: pytest.MonkeyPatch) -> None:
    """The mean is over the queries that came through."""
    score = evaluate_module.evaluate_run

    def answered(run: Any, qrels: Any, measures: Any) -> Any:
        return score(run, {query: docs for query, docs in qrels.items() if run.get(query)}, measures)

    patch.setattr(evaluate_module, "evaluate_run", answered)


def the_result_log_keeps_its_last_line_only(bench: Bench) -> None:
    """A group's results are all there, each in a file of its own besides, also after a further evaluation."""
    toys = {name: toy_collection(name) for name in ("toy/a", "toy/b", "toy/c")}
    for names in (["toy/a", "toy/b"], ["toy/b", "toy/c"]):
        evaluate_group("toys", names, BM25, bench.tmp, load=toys.__getitem__, quiet=True)
        rows = [row["collection"] for row in json.loads((bench.tmp / "group.json").read_text())["rows"]]
        assert rows == names, f"of the results of {names} the log keeps {rows}"
    kept = sorted(str(path.relative_to(bench.tmp)) for path in bench.tmp.glob("*/*"))
    assert kept == [f"toy-{name}/bm25.{kind}" for name in "abc" for kind in ("json", "trec")]


def write_over_the_log(patch: pytest.MonkeyPatch) -> None:
    """Every result takes the place of the one before it."""
    keep = group_module._Evaluation._keep

    def alone(self: Any, leaf: Any, name: str, row: Any) -> None:
        self.rows.clear()
        keep(self, leaf, name, row)

    patch.setattr(group_module._Evaluation, "_keep", alone)


def a_document_that_is_the_query_stays_in_the_run(bench: Bench) -> None:
    """On ArguAna and Quora, whose queries are documents, no search and no run finds the query itself."""
    toy = toy_collection(splits=("test",))
    asked = tuple(Query(doc.doc_id, doc.text) for doc in toy.corpus[:8])
    judged = {query.query_id: {f"d{number + 20}": 1} for number, query in enumerate(asked)}
    encoder = bench.encoder()
    for name in ("arguana", "quora"):
        alike = MemoryCollection(f"beir/{name}", "beir", toy.corpus, {"test": asked}, {"test": judged})
        write_beir(bench.tmp / "beir" / name, alike)
        collection = load(f"beir/{name}", data=bench.tmp)
        given = {query.query_id: {query.query_id: 2.0, "d30": 1.0} for query in asked}
        runs = [evaluate(collection, system).run for system in ("bm25", given)]
        runs.append(evaluate(collection, encoder, quiet=True).run)
        loaded = {collection.id: collection}.__getitem__
        base, output = [System("base", "base")], bench.tmp / "out"
        evaluate_group("beir", [collection.id], base, output, load=loaded, encoder=encoder, quiet=True)
        runs.append(read_run(output / f"beir-{name}" / "base.trec"))
        for run in runs:
            assert all(run[query.query_id] for query in asked)
            found = [query.query_id for query in asked if query.query_id in run[query.query_id]]
            assert not found, f"{name}: queries {found} find themselves"


def keep_the_query_itself(patch: pytest.MonkeyPatch) -> None:
    """Nothing is left out of a run."""
    patch.setattr(BeirCollection, "exclude_self", property(lambda self: False, lambda self, value: None), raising=False)


# -- transfer ------------------------------------------------------------------------------------------------------


def write_bank(bench: Bench, name: str, seed: int) -> Path:
    """Two prompts, for two collections in BEIR's layout."""
    encoder = bench.encoder()
    for number, domain in enumerate(("one", "two")):
        path = bench.tmp / domain
        if not path.exists():
            write_beir(path, toy_collection(f"toy/{domain}", seed=number + 1))
        prompt = random_prompt(encoder, PromptSpec("gated", 3), seed + number)
        save_prompt(bench.tmp / name / domain, prompt, encoder, f"folder:{path}", dtype="float32")
    return bench.tmp / name


def run_transfer(bench: Bench, bank: Path, output: Path, method: str = "similarity") -> tuple[int, str, str]:
    """`foreword transfer` for a third collection."""
    target = bench.tmp / "target"
    if not target.exists():
        write_beir(target)
    where = ("--bank", bank, "--output", output, "--method", method)
    return bench.shell("transfer", f"folder:{target}", *where, *bench.on_the_tiny_model())


def transfer_needs_a_tracker_account(bench: Bench) -> None:
    """Transfer and the evaluation of what came of it ask no network, and no tracker is installed."""
    asked: list[str] = []

    def closed(*address: Any, **_: Any) -> Any:
        asked.append(str(address))
        raise OSError("no network here")

    bank = write_bank(bench, "bank", seed=0)
    for owner, name in ((socket.socket, "connect"), (socket, "create_connection"), (socket, "getaddrinfo")):
        bench.patch.setattr(owner, name, closed)
    for tracker in ("wandb", "mlflow", "comet_ml", "tensorboard"):
        bench.patch.setitem(sys.modules, tracker, None)
    code, _, said = run_transfer(bench, bank, bench.tmp / "out")
    assert not asked, f"the network is asked: {asked}"
    assert code == 0, said
    use = ("--prompt", bench.tmp / "out", "--backbone", bench.model, "--device", "cpu", "--json")
    code, printed, said = bench.shell("evaluate", f"folder:{bench.tmp / 'target'}", *use)
    assert code == 0, said
    assert json.loads(printed)["queries"] == 12
    assert not asked


def fetch_prompts_from_a_tracker(patch: pytest.MonkeyPatch) -> None:
    """Prompts are artifacts of one account."""
    read = store.load_bank

    def fetched(folder: Path, encoder: SentenceTransformer | None = None) -> Any:
        socket.create_connection(("api.tracker.example", 443), timeout=1)
        return read(folder, encoder)

    patch.setattr(store, "load_bank", fetched)


def transfer_takes_a_hard_coded_checkpoint(bench: Bench) -> None:
    """The prompts that are mixed are those of the bank that is named, wherever it lies."""
    for number, name in enumerate(("first", "second", "moved")):
        bank = write_bank(bench, name, seed=10 * number)
        if name == "moved":
            bank = Path(shutil.move(bank, bench.tmp / "elsewhere"))
        code, _, said = run_transfer(bench, bank, bench.tmp / f"out-{name}", "uniform")
        assert code == 0, said
        used = json.loads((bench.tmp / f"out-{name}" / "mixture.json").read_text())["sources"]
        there = {f"folder:{bench.tmp / path.name}": load_prompt(path).prompt.digest() for path in bank.iterdir()}
        assert used == there, f"the prompts of bank {name!r} are not those that are mixed"


def read_one_checkpoint(patch: pytest.MonkeyPatch) -> None:
    """The same folder, whichever is named."""
    read, first = store.load_bank, []

    def same(folder: Path, encoder: SentenceTransformer | None = None) -> Any:
        first.append(folder)
        return read(first[0], encoder)

    patch.setattr(store, "load_bank", same)


def a_prompt_that_cannot_be_had_is_the_previous_one(bench: Bench) -> None:
    """A bank with a broken prompt is refused by the prompt's name, and nothing is stored."""
    bank = write_bank(bench, "bank", seed=0)
    weights = bank / "two" / store.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-8])
    with refused(PromptError, "two.*it was cut or altered", "a prompt that cannot be read is replaced by another"):
        store.load_bank(bank, bench.encoder())
    code, _, said = run_transfer(bench, bank, bench.tmp / "out", "uniform")
    assert code == 1
    assert "it was cut or altered" in said
    assert not (bench.tmp / "out").exists()


def go_on_with_the_previous_prompt(patch: pytest.MonkeyPatch) -> None:
    """An error in a fetch leaves the variable as the loop's last turn left it."""
    read, previous = store.load_prompt, []

    def fetched(folder: Path, encoder: SentenceTransformer | None = None) -> StoredPrompt:
        try:
            previous[:] = [read(folder, encoder)]
        except PromptError:
            print(f"could not fetch {folder}")
        return StoredPrompt(previous[0].prompt, {**previous[0].card, "domain": Path(folder).name}, Path(folder))

    patch.setattr(store, "load_prompt", fetched)


def sources(bench: Bench) -> tuple[SentenceTransformer, dict[str, StoredPrompt], dict[str, Collection]]:
    """Three prompts and their collections, in memory."""
    encoder, spec = bench.encoder(), PromptSpec("gated", 3)
    names = ["toy/b", "toy/c", "toy/d"]
    bank = {n: StoredPrompt(random_prompt(encoder, spec, i), {"domain": n}) for i, n in enumerate(names)}
    return encoder, bank, {name: toy_collection(name, splits=("train",)) for name in names}


def the_softmax_is_over_another_dimension(bench: Bench) -> None:
    """Weights by similarity are a softmax over the sources: they add up to 1."""
    encoder, bank, collections = sources(bench)
    config = TransferConfig("similarity", top_k=3, temperature=0.5)
    result = transfer(encoder, toy_collection("toy/a"), bank, config, sources=collections, quiet=True)
    total = sum(result.weights.values())
    assert abs(total - 1) < 1e-6, f"the weights of {len(bank)} sources add up to {total}"
    scores = np.exp(np.array([result.similarities[name] for name in bank]) / 0.5)
    assert np.allclose([result.weights[name] for name in bank], scores / scores.sum())


def softmax_without_a_dimension(patch: pytest.MonkeyPatch) -> None:
    """`softmax(column)`, which torch takes along the rows of one number each."""

    def weights(similarities: Mapping[str, float], *, top_k: int, temperature: float) -> dict[str, float]:
        column = torch.tensor([[value] for value in similarities.values()]) / temperature
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shares = torch.nn.functional.softmax(column)
        return dict(zip(similarities, shares[:, 0].tolist(), strict=True))

    patch.setattr(transfer_module, "softmax_weights", weights)


def similarity_looks_at_the_test_queries_of_the_target(bench: Bench) -> None:
    """Other test queries over the same documents change nothing."""
    encoder, bank, collections = sources(bench)
    target = toy_collection("toy/a")
    other = tuple(Query(query.query_id, "zanu tala nere") for query in target.query_texts["test"])
    found = [
        transfer(encoder, one, bank, TransferConfig("similarity"), sources=collections, quiet=True).similarities
        for one in (target, replace(target, query_texts={**target.query_texts, "test": other}))
    ]
    assert found[0] == found[1], "the similarities follow the target's test queries"


def embed_test_queries_too(patch: pytest.MonkeyPatch) -> None:
    """Features are made of documents and of the test queries."""
    embed = transfer_module.document_features

    def features(encoder: SentenceTransformer, collection: MemoryCollection, **how: Any) -> Any:
        asked = collection.queries("test") if "test" in collection.splits else ()
        texts = tuple(Document(f"query {query.query_id}", query.text) for query in asked)
        return embed(encoder, replace(collection, corpus=(*collection.corpus, *texts)), **how)

    patch.setattr(transfer_module, "Unlabelled", lambda collection: collection)
    patch.setattr(transfer_module, "document_features", features)


def a_source_has_seen_the_test_queries_of_the_target(bench: Bench) -> None:
    """Prompts of other folds of a collection, trained on this fold's test queries, are no sources for it."""
    encoder, bank, _ = sources(bench)
    card = {"domain": "toy/b", "data": {"toy/a#fold2of5": {}}}
    trained = {**bank, "toy/b": StoredPrompt(bank["toy/b"].prompt, card)}
    for name in ("toy/a#fold1of5", "toy/a", "toy/a#fold2of5"):
        with refused(PromptError, "trained on", f"a prompt of toy/a#fold2of5 is a source for {name}"):
            transfer(encoder, toy_collection(name), trained, TransferConfig("uniform"), quiet=True)


def compare_ids_alone(patch: pytest.MonkeyPatch) -> None:
    """Only the very same id counts as seen."""
    patch.setattr(transfer_module, "has_seen", lambda stored, target: target in (stored.card.get("data") or {}))


def sources_without_files_vanish_in_silence(bench: Bench) -> None:
    """A source whose documents are not there is named when it is left out of the similarity."""
    bank = write_bank(bench, "bank", seed=0)
    shutil.rmtree(bench.tmp / "two")
    code, _, said = run_transfer(bench, bank, bench.tmp / "out")
    assert code == 0, said
    mixed = json.loads((bench.tmp / "out" / "mixture.json").read_text())["weights"]
    assert mixed == {f"folder:{bench.tmp / 'one'}": 1.0}
    assert re.search(r"two: left out, since its documents", said), "a source is left out in silence"


def say_nothing(patch: pytest.MonkeyPatch) -> None:
    """Errors in loading a source are swallowed."""
    patch.setattr(warnings, "warn", lambda *_, **__: None)


# -- the command line ----------------------------------------------------------------------------------------------


def misspelt_options_are_swallowed(bench: Bench) -> None:
    """An option that no command has, or that is cut short, is an error: nothing runs."""
    command = ("train", f"folder:{write_beir(bench.tmp / 'toy')}", "--output", bench.tmp / "out", "--dry-run")
    assert bench.shell(*command)[0] == 0
    for typo in (("--train_dastaset", "beir/nq"), ("--learning_rate", "0.1"), ("--learning-rat", "0.1")):
        code, printed, said = bench.shell(*command, *typo)
        assert (code, printed) == (2, ""), f"{typo[0]} is swallowed"
        assert "unrecognized arguments" in said


def ignore_unknown_options(patch: pytest.MonkeyPatch) -> None:
    """What is not known is passed over."""

    def known(self: argparse.ArgumentParser, arguments: Any = None, namespace: Any = None) -> Any:
        return self.parse_known_args(arguments, namespace)[0]

    patch.setattr(Parser, "parse_known_args", argparse.ArgumentParser.parse_known_args)
    patch.setattr(argparse.ArgumentParser, "parse_args", known)


def a_backslash_glued_to_a_number_is_swallowed(bench: Bench) -> None:
    r"""`16\`, `16--seed` and `16 ` (a backslash before a blank, which loses the lines that follow) are no numbers."""
    command = ("train", f"folder:{write_beir(bench.tmp / 'toy')}", "--output", bench.tmp / "out", "--dry-run")
    for text in ("16\\", "16--seed", "16 "):
        code, printed, said = bench.shell(*command, "--batch-size", text)
        assert (code, printed) == (2, ""), f"{text!r} passes for a number"
        assert "argument --batch-size" in said
    code, printed, _ = bench.shell(*command, "--batch-size", "16")
    assert code == 0
    assert json.loads(printed)["training"]["batch_size"] == 16


def read_the_digits_alone(patch: pytest.MonkeyPatch) -> None:
    """A number is read up to the first character that is no digit."""
    add = argparse._ActionsContainer.add_argument

    def added(self: Any, *names: Any, **how: Any) -> Any:
        if how.get("type") is int:
            how["type"] = lambda text: int(re.match(r"\d+", text)[0])  # type: ignore[index]
        return add(self, *names, **how)

    patch.setattr(argparse._ActionsContainer, "add_argument", added)


CASES = [
    Case(queries_without_hits_vanish_from_the_mean, drop_unanswered_queries, "the mean is over 11 of 12 queries"),
    Case(the_result_log_keeps_its_last_line_only, write_over_the_log, r"the log keeps \['toy/b'\]"),
    Case(a_document_that_is_the_query_stays_in_the_run, keep_the_query_itself, "arguana: queries .* find themselves"),
    Case(transfer_needs_a_tracker_account, fetch_prompts_from_a_tracker, "the network is asked"),
    Case(
        transfer_takes_a_hard_coded_checkpoint,
        read_one_checkpoint,
        "the prompts of bank 'second' are not those that are mixed",
    ),
    Case(
        a_prompt_that_cannot_be_had_is_the_previous_one,
        go_on_with_the_previous_prompt,
        "a prompt that cannot be read is replaced by another",
    ),
    Case(the_softmax_is_over_another_dimension, softmax_without_a_dimension, "the weights of 3 sources add up to 3"),
    Case(
        similarity_looks_at_the_test_queries_of_the_target,
        embed_test_queries_too,
        "the similarities follow the target's test queries",
    ),
    Case(
        a_source_has_seen_the_test_queries_of_the_target,
        compare_ids_alone,
        "a prompt of toy/a#fold2of5 is a source for toy/a#fold1of5",
    ),
    Case(sources_without_files_vanish_in_silence, say_nothing, "a source is left out in silence"),
    Case(misspelt_options_are_swallowed, ignore_unknown_options, "--train_dastaset is swallowed"),
    Case(a_backslash_glued_to_a_number_is_swallowed, read_the_digits_alone, "passes for a number"),
]
