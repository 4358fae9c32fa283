"""Training on tiny models: what is learnt, what is stored, what is refused, and that equal runs are equal."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny import random_prompt, save_model, toy_collection
from torch import Tensor, nn

from foreword.collections.collection import Document, MemoryCollection, Qrels, Query, TrainingPair
from foreword.errors import DataError, ForewordError, OtherTrainingError, PromptError
from foreword.prompts.attention import SLOT
from foreword.prompts.encoder import encode, state_digest, transformer_of
from foreword.prompts.loading import load_encoder
from foreword.prompts.prompt import Prompt
from foreword.prompts.spec import PromptSpec
from foreword.prompts.start import new_prompt
from foreword.prompts.store import StoredPrompt, save_prompt
from foreword.training import train as train_module
from foreword.training.batches import DomainBatchSampler, domain_sampler, hard_negatives
from foreword.training.config import StartConfig, TrainingConfig
from foreword.training.dev import DevEvaluator, DevSet
from foreword.training.losses import CorpusContrastiveLoss, CorpusPairs, corpus_pairs
from foreword.training.train import train
from foreword.training.trainer import Lesson, PromptTrainer, build_trainer
from foreword.training.vectors import DocumentVectors, embed_documents, read_vectors

QUICK = TrainingConfig(steps=6, batch_size=8, evaluate_every=2, precision="float32", learning_rate=0.05, dev_folds=0)
FILES = ["prompt.json", "prompt.safetensors", "run.json"]


def load(folder: Path) -> SentenceTransformer:
    return load_encoder(str(folder), device="cpu")


def contents(folder: Path) -> dict[str, bytes]:
    """What equal runs have in common."""
    return {name: (folder / name).read_bytes() for name in ("prompt.safetensors", "prompt.json")}


@pytest.fixture(scope="module")
def uncut(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[TrainingConfig], dict[str, bytes]]:
    """What a training on the toy collection leaves that nothing cuts, once for each config."""

    @cache
    def made(config: TrainingConfig) -> dict[str, bytes]:
        folder = tmp_path_factory.mktemp("uncut") / "it"
        train(load(tiny_bert), toy_collection(), folder, config=config, quiet=True)
        return contents(folder)

    return made


# -- learning ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_prompt_in_the_top_layer_learns_the_same_from_kept_states(
    tiny_bert: Path,
    toy: MemoryCollection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    precision: Any,
) -> None:
    encoder = load(tiny_bert)
    [lowest] = [part for part in transformer_of(encoder).model.modules() if getattr(part, SLOT, None) == 0]
    passed: list[int] = []
    lowest.register_forward_hook(lambda *_: passed.append(1))
    config = replace(QUICK, side="both", steps=16, evaluate_every=4, precision=precision)
    found = []
    for limit in ("0", "1", "0.01"):  # none, all, some
        monkeypatch.setenv("FOREWORD_STATES_MB", limit)
        passed.clear()
        start = StartConfig(PromptSpec(top_layers=1))
        stored = train(encoder, toy, tmp_path / limit, config=config, start=start, quiet=True)
        found.append((stored.prompt.tensors(), len(passed)))
    assert found[1][1] < min(found[0][1], found[2][1]) / 2
    for tensors, _ in found[1:]:
        for name, expected in found[0][0].items():
            torch.testing.assert_close(tensors[name], expected, atol=1e-3 if precision == "float32" else 0.02, rtol=0)

    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setenv("FOREWORD_STATES_MB", "1")
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", lambda **_: Full())
        full = train(encoder, toy, tmp_path / "full", config=config, start=start, quiet=True)
    assert "no longer kept: [Errno 28]" in caplog.text
    for name, expected in found[0][0].items():
        torch.testing.assert_close(full.prompt.tensors()[name], expected, atol=0, rtol=0)
    monkeypatch.setenv("FOREWORD_STATES_MB", "much")
    with pytest.raises(ForewordError, match="FOREWORD_STATES_MB is 'much'"):
        train(encoder, toy, tmp_path / "it", config=config, start=start, quiet=True)


@pytest.mark.parametrize("side", ["query", "both"])
def test_training_learns_and_leaves_the_backbone_alone(
    tiny_bert: Path, toy: MemoryCollection, tmp_path: Path, side: Any
) -> None:
    encoder = load(tiny_bert)
    before = state_digest(encoder)
    base = encode(encoder, ["babe bale"], "query")
    config = replace(QUICK, side=side, steps=40, evaluate_every=20)
    stored = train(encoder, toy, tmp_path / "it", config=config, quiet=True)
    losses = [entry["loss"] for entry in stored.card["metrics"]["loss"]]
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.05
    assert [entry["step"] for entry in stored.card["metrics"]["dev"]] == [0, 20, 40]
    assert sorted(path.name for path in (tmp_path / "it").iterdir()) == FILES
    assert state_digest(encoder) == before
    assert transformer_of(encoder).domains == []
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    np.testing.assert_array_equal(encode(encoder, ["babe bale"], "query"), base)
    assert stored.prompt.spec.sides == ("query" if side == "query" else "shared")
    assert stored.domain == toy.id
    best = max(stored.card["metrics"]["dev"], key=lambda entry: entry["dev"])
    assert stored.card["metrics"]["best_step"] in (0, best["step"])


@pytest.mark.parametrize("kind", ["gated", "prefix", "input"])
def test_the_other_kinds_train_too(tiny_bert: Path, toy: MemoryCollection, tmp_path: Path, kind: Any) -> None:
    start = StartConfig(PromptSpec(kind, 3, sides="untied"))
    config = replace(QUICK, side="both", steps=20, evaluate_every=10, learning_rate=0.1)
    stored = train(load(tiny_bert), toy, tmp_path / "it", config=config, start=start, quiet=True)
    losses = [entry["loss"] for entry in stored.card["metrics"]["loss"]]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_mixed_precision_does_not_stay_on_the_encoder(tiny_bert: Path, toy: MemoryCollection, tmp_path: Path) -> None:
    encoder = load(tiny_bert)
    base = encode(encoder, ["babe bale", "bame"], "query")
    runs = {}
    for number, precision in enumerate(("float32", "bfloat16", "float32", "bfloat16")):
        config = replace(QUICK, side="both", precision=precision)
        runs[number] = train(encoder, toy, tmp_path / str(number), config=config, quiet=True).card["metrics"]["loss"]
        np.testing.assert_array_equal(encode(encoder, ["babe bale", "bame"], "query"), base)
    assert runs[0] == runs[2] != runs[1] == runs[3]  # and each ran in the precision that it asked for


def test_a_prompt_that_training_does_not_help_stays_as_it_was(
    tiny_bert: Path, toy: MemoryCollection, tmp_path: Path
) -> None:
    encoder = load(tiny_bert)
    relevant = {q: {max(d): 1 for d in [docs]} for q, docs in toy.judgements["dev"].items()}
    vectors = encode(encoder, [d.content for d in toy.corpus], "document")
    # Each dev query is a document's own text: the base model is perfect, and nothing can be better.
    queries = tuple(Query(q, next(d.content for d in toy.corpus if d.doc_id in docs)) for q, docs in relevant.items())
    perfect = replace(toy, query_texts={**toy.query_texts, "dev": queries})
    assert len(vectors) == 60
    config = replace(QUICK, learning_rate=1.0)
    stored = train(encoder, perfect, tmp_path / "it", config=config, quiet=True)
    first = stored.card["metrics"]["dev"][0]
    assert (first["step"], first["dev"]) == (0, 1.0)
    assert stored.card["metrics"]["best_step"] == 0
    assert stored.card["learnt"] is False
    assert not any(stored.prompt.tensors()[name].any() for name in stored.prompt.linear)


def test_an_evaluation_that_is_not_wanted_is_not_made(tiny_bert: Path, tmp_path: Path) -> None:
    config = replace(QUICK, dev_queries=0)
    card = train(load(tiny_bert), toy_collection(), tmp_path / "last", config=config, quiet=True).card
    assert card["metrics"]["best_step"] == QUICK.steps
    assert {entry["dev"] for entry in card["metrics"]["dev"]} == {None}


def test_without_dev_queries_the_last_prompt_is_kept(tiny_bert: Path, tmp_path: Path) -> None:
    only = toy_collection(splits=("train",))
    stored = train(load(tiny_bert), only, tmp_path / "it", config=QUICK, quiet=True)
    assert stored.card["metrics"]["best_step"] == QUICK.steps
    assert stored.card["learnt"] is True
    assert all(stored.prompt.tensors()[name].any() for name in stored.prompt.linear)


def test_a_log_says_how_far_a_training_is(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("foreword.terminal.EVERY", 0.0)
    config = replace(QUICK, steps=4, dev_queries=0)
    train(load(tiny_bert), toy_collection(), tmp_path / "it", config=config)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("steps of training")]
    assert said == [f"steps of training: {share} %" for share in (25, 50, 75, 100)]


def test_the_last_step_is_a_candidate_between_evaluations_too(
    tiny_bert: Path, toy: MemoryCollection, tmp_path: Path
) -> None:
    config = replace(QUICK, steps=5)
    stored = train(load(tiny_bert), toy, tmp_path / "it", config=config, quiet=True)
    assert [entry["step"] for entry in stored.card["metrics"]["dev"]] == [0, 2, 4, 5]
    only = toy_collection(splits=("train",))
    assert train(load(tiny_bert), only, tmp_path / "last", config=config, quiet=True).card["metrics"]["best_step"] == 5


def test_patience_ends_early(tiny_bert: Path, toy: MemoryCollection, tmp_path: Path) -> None:
    config = replace(QUICK, steps=40, learning_rate=1.0, patience=2)
    stored = train(load(tiny_bert), toy, tmp_path / "it", config=config, quiet=True)
    steps = [entry["step"] for entry in stored.card["metrics"]["dev"]]
    assert steps[-1] < 40
    assert steps[-1] == stored.card["metrics"]["best_step"] + 2 * QUICK.evaluate_every


def test_several_domains(tiny_bert: Path, toy: MemoryCollection, tmp_path: Path) -> None:
    other = toy_collection("toy/two")
    for side in ("both", "query"):
        config = replace(QUICK, side=side)
        stored = train(load(tiny_bert), [toy, other], tmp_path / side, config=config, quiet=True)
        assert stored.domain == "multitask"
        assert set(stored.card["data"]) == {"toy/one", "toy/two"}
        assert stored.card["data"]["toy/two"]["pairs"] == 32


def test_hard_negatives_are_used(tiny_bert: Path, toy: MemoryCollection, tmp_path: Path) -> None:
    plain = [*toy.pairs("train")]
    hard = [replace(pair, negatives=(f"babe bale {number}", "unused")) for number, pair in enumerate(plain)]
    config = replace(QUICK, side="both")
    losses = [
        train(load(tiny_bert), toy, tmp_path / name, config=config, pairs={toy.id: pairs}, quiet=True).card["metrics"]
        for name, pairs in (("plain", plain), ("hard", hard))
    ]
    assert losses[1]["loss"][0]["loss"] > losses[0]["loss"][0]["loss"]  # a candidate more


def test_repeated_queries_give_smaller_batches_not_a_crash(tiny_bert: Path, toy: MemoryCollection, tmp_path: Path) -> None:  # fmt: skip
    pairs = [
        TrainingPair(f"q{i % 5}", f"babe bale {i % 5}", f"d{i}", toy.corpus[i].text) for i in range(30)
    ]  # 5 queries, so no batch of 8 without a repeat
    for side in ("both", "query"):
        config = replace(QUICK, side=side)
        stored = train(load(tiny_bert), toy, tmp_path / side, config=config, pairs={toy.id: pairs}, quiet=True)
        assert len(stored.card["metrics"]["loss"]) > 0


# -- equal runs, interruption, refusals ----------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["query", "both"])
def test_equal_runs_give_equal_bytes(tiny_bert: Path, toy: MemoryCollection, tmp_path: Path, side: Any) -> None:
    config = replace(QUICK, side=side)
    for name in ("one", "two"):
        torch.manual_seed(hash(name) % 1000)  # whatever happened before
        train(load(tiny_bert), toy, tmp_path / name, config=config, quiet=True)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    other = train(load(tiny_bert), toy, tmp_path / "three", config=replace(config, seed=1), quiet=True)
    assert (
        other.card["metrics"]["loss"] != json.loads((tmp_path / "one" / "prompt.json").read_text())["metrics"]["loss"]
    )


class CutError(Exception):
    """A cut that no handler in between knows."""


def cut_at(monkeypatch: pytest.MonkeyPatch, step: int, error: type[BaseException], *, when: str) -> None:
    """Interrupt the evaluation at a step (before its checkpoint), or the training step after a checkpoint."""
    if when == "evaluation":
        call = DevEvaluator.__call__

        def evaluate(self: DevEvaluator, model: Any, output_path: Any = None, epoch: float = -1, steps: int = -1) -> Any:  # fmt: skip
            result = call(self, model, output_path, epoch, steps)
            if steps == step:
                raise error
            return result

        monkeypatch.setattr(DevEvaluator, "__call__", evaluate)
    else:
        training_step = PromptTrainer.training_step

        def stepped(self: PromptTrainer, *args: Any, **kwargs: Any) -> Any:
            if self.state.global_step == step:
                raise error
            return training_step(self, *args, **kwargs)

        monkeypatch.setattr(PromptTrainer, "training_step", stepped)


@pytest.mark.parametrize(
    ("side", "step", "when", "every"),
    [
        ("query", 5, "training", 2),  # a step after the checkpoint of step 4
        ("query", 4, "evaluation", 2),  # evaluated, but not yet saved
        ("query", 0, "evaluation", 2),  # before anything was saved
        ("both", 5, "training", 2),
        ("both", 21, "training", 20),  # steps between shown losses do not divide those between checkpoints
    ],
)
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    tiny_bert: Path, toy: MemoryCollection, tmp_path: Path, uncut: Any, side: Any, step: int, when: str, every: int
) -> None:
    config = replace(QUICK, side=side, evaluate_every=every, steps=6 if every == 2 else 30)
    encoder = load(tiny_bert)
    with pytest.MonkeyPatch.context() as patched:
        cut_at(patched, step, KeyboardInterrupt, when=when)
        with pytest.raises(KeyboardInterrupt):
            train(encoder, toy, tmp_path / "cut", config=config, quiet=True)
    assert transformer_of(encoder).domains == []
    assert not (tmp_path / "cut" / "prompt.json").exists()
    torch.manual_seed(123)
    train(encoder, toy, tmp_path / "cut", config=config, quiet=True)
    assert contents(tmp_path / "cut") == uncut(config)
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == FILES


@pytest.mark.parametrize(
    "changes",
    [
        {"side": "query"},
        {"side": "both"},
        {"side": "query", "patience": 1, "learning_rate": 1e-9, "steps": 20},  # it ended because nothing got better
        {"side": "query", "dev_folds": 3},
        {"side": "query", "steps": 5},  # between two evaluations
    ],
)
@pytest.mark.parametrize("where", ["save_prompt", "rmtree"])
def test_a_run_cut_after_its_last_step_takes_no_other(
    tiny_bert: Path, toy: MemoryCollection, tmp_path: Path, uncut: Any, changes: dict[str, Any], where: str
) -> None:
    config = replace(QUICK, **changes)
    rmtree = shutil.rmtree

    def cut(path: Any, *args: Any, **named: Any) -> Any:
        if where == "rmtree" and Path(path).name != ".foreword-training":
            return rmtree(path, *args, **named)
        raise CutError

    with pytest.MonkeyPatch.context() as patched:
        module: Any = train_module if where == "save_prompt" else train_module.shutil
        patched.setattr(module, where, cut)
        with pytest.raises(CutError):
            train(load(tiny_bert), toy, tmp_path / "cut", config=config, quiet=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PromptTrainer, "training_step", None)  # not to be called
        train(load(tiny_bert), toy, tmp_path / "cut", config=config, quiet=True)
    assert contents(tmp_path / "cut") == uncut(config)
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == FILES


@pytest.fixture(scope="module")
def cut_once(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training of 6 steps that was cut in its last one."""
    folder = tmp_path_factory.mktemp("cut") / "it"
    with pytest.MonkeyPatch.context() as patched:
        cut_at(patched, 5, CutError, when="training")
        with pytest.raises(CutError):
            train(load(tiny_bert), toy_collection(), folder, config=QUICK, quiet=True)
    return folder


@pytest.fixture
def interrupted(cut_once: Path, tmp_path: Path) -> list[Path]:
    """The two checkpoints of a copy of it, in `cut`."""
    shutil.copytree(cut_once, tmp_path / "cut")
    found = sorted((tmp_path / "cut" / ".foreword-training").glob("checkpoint-*"))
    assert [path.name for path in found] == ["checkpoint-2", "checkpoint-4"]
    return found


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "gone": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("name", ["prompt-in-training.safetensors", "optimizer.pt", "trainer_state.json", "best.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tiny_bert: Path, toy: MemoryCollection, tmp_path: Path, uncut: Any, interrupted: list[Path], caplog: Any,
    name: str, damage: str,
) -> None:  # fmt: skip
    first, second = interrupted
    DAMAGES[damage](second / name)
    (tmp_path / "cut" / ".foreword-training" / "best.json").write_text("{")
    train(load(tiny_bert), toy, tmp_path / "cut", config=QUICK, quiet=True)
    assert contents(tmp_path / "cut") == uncut(QUICK)
    assert f"{second / name} was cut or altered; training goes on from {first}" in caplog.text


def test_what_cannot_go_on_says_how_to_begin_anew(
    tiny_bert: Path, toy: MemoryCollection, tmp_path: Path, interrupted: list[Path]
) -> None:
    for path in interrupted:
        DAMAGES["cut"](path / "optimizer.pt")
    with pytest.raises(ForewordError, match=r"checkpoint-4/optimizer\.pt was cut or altered.*--no-resume"):
        train(load(tiny_bert), toy, tmp_path / "cut", config=QUICK, quiet=True)
    (tmp_path / "cut" / ".foreword-training" / "identity.json").write_text('{"a"')
    with pytest.raises(ForewordError, match=r"identity\.json is damaged.*--no-resume"):
        train(load(tiny_bert), toy, tmp_path / "cut", config=QUICK, quiet=True)
    train(load(tiny_bert), toy, tmp_path / "cut", config=QUICK, resume=False, quiet=True)
    for name in ("prompt.safetensors", "prompt.json"):
        whole = (tmp_path / "cut" / name).read_bytes()
        DAMAGES["cut"](tmp_path / "cut" / name)
        with pytest.raises(PromptError, match=rf"{name}.*--no-resume"):
            train(load(tiny_bert), toy, tmp_path / "cut", config=QUICK, quiet=True)
        (tmp_path / "cut" / name).write_bytes(whole)


@pytest.mark.parametrize("when", ["pickles", "files"])
def test_a_full_disk_is_an_error_that_says_so(
    tiny_bert: Path, toy: MemoryCollection, tmp_path: Path, uncut: Any, when: str
) -> None:
    count = 0

    def full(*_: Any, **__: Any) -> None:
        nonlocal count
        count += 1
        if count >= 4:
            raise RuntimeError("[enforce fail] . unexpected pos") if when == "pickles" else OSError(28, "No space left")

    with pytest.MonkeyPatch.context() as patched:
        place: tuple[Any, str] = (torch, "save") if when == "pickles" else (os, "fsync")
        real = getattr(*place)
        patched.setattr(*place, lambda *args, **named: (full(), real(*args, **named)))
        with pytest.raises((ForewordError, OSError), match=r"free some space|No space left"):
            train(load(tiny_bert), toy, tmp_path / "cut", config=QUICK, quiet=True)
    train(load(tiny_bert), toy, tmp_path / "cut", config=QUICK, quiet=True)
    assert contents(tmp_path / "cut") == uncut(QUICK)
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == FILES


def test_a_training_owns_its_folder(
    tiny_bert: Path, toy: MemoryCollection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    run = train_module.run_course

    def watched(*args: Any, **named: Any) -> Any:
        seen.append(json.loads((tmp_path / "it" / ".foreword.lock").read_text()))
        return run(*args, **named)

    monkeypatch.setattr(train_module, "run_course", watched)
    train(load(tiny_bert), toy, tmp_path / "it", config=QUICK, quiet=True)
    assert [one["pid"] for one in seen] == [os.getpid()]


def test_a_finished_run_is_returned_without_training(
    tiny_bert: Path, toy: MemoryCollection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load(tiny_bert)
    first = train(encoder, toy, tmp_path / "it", config=QUICK, quiet=True)

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("trained again")

    monkeypatch.setattr(train_module, "run_course", never)
    again = train(encoder, toy, tmp_path / "it", config=QUICK, quiet=True)
    assert again.prompt.digest() == first.prompt.digest()
    for change in (
        {"config": replace(QUICK, steps=7)},
        {"collections": toy_collection(seed=1)},
        {"domain": "another"},
        {"start": StartConfig(seed=1)},
    ):
        arguments: dict[str, Any] = {"collections": toy, "config": QUICK, **change}
        with pytest.raises(ForewordError, match=r"trained with other settings or data.*--no-resume"):
            train(encoder, output=tmp_path / "it", quiet=True, **arguments)
    with pytest.raises(AssertionError, match="trained again"):
        train(encoder, toy, tmp_path / "it", config=QUICK, resume=False, quiet=True)


def test_another_configuration_does_not_go_on_from_an_interrupted_run(
    tiny_bert: Path, toy: MemoryCollection, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        cut_at(patched, 3, CutError, when="training")
        with pytest.raises(CutError):
            train(load(tiny_bert), toy, tmp_path / "it", config=QUICK, quiet=True)
    with pytest.raises(ForewordError, match="interrupted training with other settings"):
        train(load(tiny_bert), toy, tmp_path / "it", config=replace(QUICK, steps=7), quiet=True)
    same_shape = load(save_model(tmp_path / "weights", seed=1))
    with pytest.raises(ForewordError, match="interrupted training with other settings"):
        train(same_shape, toy, tmp_path / "it", config=QUICK, quiet=True)
    train(load(tiny_bert), toy, tmp_path / "it", config=replace(QUICK, steps=4), resume=False, quiet=True)


def test_a_run_that_failed_at_once_does_not_hold_its_folder(
    tiny_bert: Path, toy: MemoryCollection, tmp_path: Path
) -> None:
    wrong = StartConfig(PromptSpec("gated", 3, sides="query"))
    config = replace(QUICK, side="both")
    with pytest.raises(PromptError, match="cannot be trained on both"):
        train(load(tiny_bert), toy, tmp_path / "it", config=config, start=wrong, quiet=True)
    train(load(tiny_bert), toy, tmp_path / "it", config=config, quiet=True)


class Sealed(MemoryCollection):
    """Its test split may not be looked at."""

    def queries(self, split: str = "test") -> Any:
        assert split != "test"
        return super().queries(split)

    def qrels(self, split: str = "test") -> Qrels:
        assert split != "test"
        return super().qrels(split)

    def pairs(self, split: str = "train", *, hard_negatives: int | None = None) -> Any:
        assert split == "train"
        return super().pairs(split)


@pytest.mark.parametrize("side", ["query", "both"])
def test_the_test_split_is_never_read(tiny_bert: Path, toy: MemoryCollection, tmp_path: Path, side: Any) -> None:
    sealed = Sealed(toy.id, toy.group, toy.corpus, toy.query_texts, toy.judgements)
    train(load(tiny_bert), sealed, tmp_path / "it", config=replace(QUICK, side=side), quiet=True)


def test_a_collection_without_a_training_split_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no training split \(it has: test\).*--pseudo-queries"):
        train(load(tiny_bert), toy_collection(splits=("test",)), tmp_path / "it", config=QUICK, quiet=True)
    with pytest.raises(DataError, match="no collection"):
        train(load(tiny_bert), [], tmp_path / "it", config=QUICK, quiet=True)
    with pytest.raises(DataError, match="given twice: toy/one, toy/one"):
        train(load(tiny_bert), [toy_collection()] * 2, tmp_path / "it", config=QUICK, quiet=True)
    with pytest.raises(DataError, match="has no training pairs"):
        train(load(tiny_bert), toy_collection(), tmp_path / "it", config=QUICK, pairs={"toy/one": []}, quiet=True)
    assert not (tmp_path / "it").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("side", "left"),
        ("steps", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("temperature", -1.0),
        ("query_length", 2),
        ("evaluate_every", -1),
        ("warmup", 1.0),
        ("dtype", "int8"),
        ("precision", "double"),
        ("document_side", "left"),
        ("schedule", "sideways"),
    ],
)
def test_settings_are_checked_when_made(name: str, value: Any) -> None:
    with pytest.raises(ForewordError, match=name):
        TrainingConfig(**{name: value})


# -- starts --------------------------------------------------------------------------------------------------------


def stored_start(encoder: SentenceTransformer, folder: Path, **spec: Any) -> StoredPrompt:
    from foreword.prompts.store import load_prompt

    save_prompt(folder, random_prompt(encoder, PromptSpec(length=3, **spec)), encoder, "start", dtype="float32")
    return load_prompt(folder, encoder)


def first_prompt(monkeypatch: pytest.MonkeyPatch, run: Callable[[], Any]) -> Prompt:
    """The prompt as the evaluation of step 0 sees it."""
    seen: list[Prompt] = []
    call = DevEvaluator.__call__

    def evaluate(self: DevEvaluator, *args: Any, **kwargs: Any) -> Any:
        if not seen:
            seen.append(Prompt(self.trainee.spec, self.trainee.tensors()))  # type: ignore[attr-defined]
        return call(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(DevEvaluator, "__call__", evaluate)
        run()
    return seen[0]


@pytest.mark.parametrize("sides", ["shared", "untied"])
def test_starting_from_another_prompt_keeps_its_values(
    tiny_bert: Path, toy: MemoryCollection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sides: Any
) -> None:
    encoder = load(tiny_bert)
    start = stored_start(encoder, tmp_path / "start", sides=sides)
    before = start.prompt.digest()
    config = replace(QUICK, side="both", dtype="float32")
    found = first_prompt(
        monkeypatch, lambda: train(encoder, toy, tmp_path / "it", config=config, start=start, quiet=True)
    )
    assert found.spec == start.prompt.spec
    assert found.digest() == before == start.prompt.digest()  # and the start itself is not trained


@pytest.mark.parametrize(("sides", "part"), [("shared", "both"), ("untied", "query"), ("query", "query")])
def test_the_query_side_starts_from_the_query_part(
    tiny_bert: Path, toy: MemoryCollection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sides: Any, part: str
) -> None:
    encoder = load(tiny_bert)
    start = stored_start(encoder, tmp_path / "start", sides=sides)
    found = first_prompt(
        monkeypatch, lambda: train(encoder, toy, tmp_path / "it", config=QUICK, start=start, quiet=True)
    )
    assert found.spec == replace(start.prompt.spec, sides="query")
    for name in ("keys", "values", "feed_forward_keys", "feed_forward_values"):
        assert torch.equal(found.tensors()[f"query.{name}"], start.prompt.tensors()[f"{part}.{name}"])


@pytest.mark.parametrize("sides", ["shared", "untied"])
def test_the_documents_of_the_start_can_be_kept(
    tiny_bert: Path, toy: MemoryCollection, tmp_path: Path, sides: Any
) -> None:
    encoder = load(tiny_bert)
    start = stored_start(encoder, tmp_path / "start", sides=sides)
    config = replace(QUICK, document_side="start", dtype="float32")
    stored = train(encoder, toy, tmp_path / "it", config=config, start=start, quiet=True)
    part = "both" if sides == "shared" else "document"
    for name in ("keys", "values", "feed_forward_keys", "feed_forward_values"):
        assert torch.equal(stored.prompt.tensors()[f"document.{name}"], start.prompt.tensors()[f"{part}.{name}"])
    without = StartConfig(PromptSpec(length=3, sides="query"))
    with pytest.raises(PromptError, match="needs a prompt that encodes documents too"):
        train(encoder, toy, tmp_path / "no", config=config, start=without, quiet=True)


# -- the user's own vectors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["npy", "npy-named-ids", "float16", "parquet", "parquet-fixed"])
def test_own_vectors_equal_embedding(tiny_bert: Path, toy: MemoryCollection, tmp_path: Path, form: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    encoder = load(tiny_bert)
    made = embed_documents(encoder, toy, max_length=QUICK.document_length, quiet=True)
    own = made.vectors.astype(np.float16) if form == "float16" else made.vectors * 3  # the cosine sees no lengths
    path = tmp_path / ("own.parquet" if form.startswith("parquet") else "own.npy")
    ids = None
    if path.suffix == ".npy":
        np.save(path, own)
        ids = tmp_path / "names.txt" if form == "npy-named-ids" else None
        (ids or tmp_path / "own.ids.txt").write_text("\n".join(made.doc_ids) + "\n")
    else:
        lists: Any = pa.array(list(own))
        if form == "parquet-fixed":
            lists = pa.FixedSizeListArray.from_arrays(pa.array(own.ravel()), 32)
        parquet.write_table(pa.table({"_id": made.doc_ids, "embedding": lists}), path, row_group_size=7)
    vectors = read_vectors(path, ids)
    assert list(vectors.doc_ids) == list(made.doc_ids)
    np.testing.assert_array_equal(vectors.vectors, own)
    # Of keys that start large, six steps at a rate of .05 make more of half precision's rounding than a tie bears.
    how: dict[str, Any] = {"config": QUICK, "start": StartConfig(PromptSpec(length=8)), "quiet": True}
    stored = train(encoder, toy, tmp_path / "own", documents={toy.id: vectors}, **how)
    plain = train(encoder, toy, tmp_path / "plain", **how)
    scores = [[entry["dev"] for entry in each.card["metrics"]["dev"]] for each in (stored, plain)]
    assert scores[0] == scores[1]
    for name, tensor in stored.prompt.tensors().items():
        torch.testing.assert_close(tensor, plain.prompt.tensors()[name], atol=5e-3, rtol=0)
    assert len(stored.card["data"][toy.id]["vectors"]) == 64


def test_vectors_that_do_not_fit_are_refused(tiny_bert: Path, toy: MemoryCollection, tmp_path: Path) -> None:
    encoder = load(tiny_bert)
    ids = [doc.doc_id for doc in toy.corpus]
    for vectors, said in (
        (DocumentVectors(ids, np.ones((60, 8), np.float32)), "have 8 numbers, the encoder's 32"),
        (DocumentVectors(ids[3:], np.ones((57, 32), np.float32)), "names document 'd0', which has no vector"),
        (DocumentVectors(ids, np.full((60, 32), np.nan, np.float32)), "NaN"),
    ):
        with pytest.raises(DataError, match=said):
            train(encoder, toy, tmp_path / "it", config=QUICK, documents={toy.id: vectors}, quiet=True)
    with pytest.raises(DataError, match="59 ids for vectors of shape"):
        DocumentVectors(ids[1:], np.ones((60, 32)))
    with pytest.raises(DataError, match="not unique"):
        DocumentVectors(["a", "a"], np.ones((2, 32)))


def header(shape: str) -> bytes:
    """A `.npy` file of float32 without any numbers."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def test_vector_files_that_cannot_be_read(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    def said(name: str, match: str) -> None:
        with pytest.raises(DataError, match=match):
            read_vectors(tmp_path / name)

    said("none.npy", "no such file")
    (tmp_path / "a.csv").write_text("1")
    said("a.csv", r"are \.npy or \.parquet, not \.csv")
    np.save(tmp_path / "a.npy", np.ones((2, 3)))
    said("a.npy", "no ids for a.npy")
    (tmp_path / "a.ids.txt").write_text("x\n")
    said("a.npy", "1 ids for vectors of shape")
    np.save(tmp_path / "words.npy", np.array([["a"]]))
    (tmp_path / "words.ids.txt").write_text("x\n")
    said("words.npy", "not floating point numbers")
    (tmp_path / "broken.npy").write_bytes(b"")
    (tmp_path / "broken.ids.txt").write_text("x\n")
    said("broken.npy", "not an array of numbers")
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object))
    np.savez(tmp_path / "several.npz", a=np.ones((1, 3)))  # zip, which numpy opens under any name
    others = {"zip": (tmp_path / "several.npz").read_bytes(), "pickled": (tmp_path / "pickled.npy").read_bytes()}
    others |= {
        "text": b"1 2 3",
        "pickle": pickle.dumps([1.0]),
        "hdf5": b"\x89HDF\r\n\x1a\n",
        "tensors": b"\x08" + bytes(7) + b"{}",
    }
    others["huge"] = header("(99999999999, 99999999999)")
    others["deep"] = header("(" * 9000 + ")" * 9000)
    others["digits"] = header("(" + "9" * 5000 + ",)")
    for data in others.values():
        (tmp_path / "broken.npy").write_bytes(data)
        said("broken.npy", r"broken\.npy: not an array of numbers")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    said("broken.parquet", "cannot be read as parquet")
    parquet.write_table(pa.table({"x": [1]}), tmp_path / "columns.parquet")
    said("columns.parquet", "columns are x; expected doc_id")
    parquet.write_table(pa.table({"id": ["a"], "vector": [1.0]}), tmp_path / "flat.parquet")
    said("flat.parquet", "expected lists of numbers")
    parquet.write_table(pa.table({"id": ["a", "b"], "vector": [[1.0], [1.0, 2.0]]}), tmp_path / "uneven.parquet")
    said("uneven.parquet", "expected all of one length")


# -- the loss of query-side training -------------------------------------------------------------------------------


class Given(nn.Module):
    """An encoder that gives the vectors it is given."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["vectors"]}


def corpus_loss(pairs: dict[str, CorpusPairs], *, temperature: float = 1.0, cosine: bool = False, limit: int = 100) -> CorpusContrastiveLoss:  # fmt: skip
    return CorpusContrastiveLoss(Given(), pairs, temperature=temperature, cosine=cosine, limit=limit, seed=0)  # type: ignore[arg-type]


def test_corpus_loss_by_hand() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0]])
    loss = corpus_loss({"a": CorpusPairs(vectors, [[0], [2, 1]])}, temperature=0.5)
    queries = torch.tensor([[1.0, 0.0], [0.5, 1.0]])
    got = loss([{"vectors": queries}], torch.tensor([0, 1]))
    # Query 0: scores 1, 0, 1, -1 over 0.5. Query 1: .5, 1, 1.5, -.5 over 0.5; document 1 is relevant too, so unseen.
    first = -2.0 + np.log(np.exp(2.0) + np.exp(0.0) + np.exp(2.0) + np.exp(-2.0))
    second = -3.0 + np.log(np.exp(1.0) + np.exp(3.0) + np.exp(-1.0))
    assert float(got) == pytest.approx((first + second) / 2, abs=1e-6)


def test_corpus_loss_uses_the_domain_of_the_labels_and_the_cosine() -> None:
    one = CorpusPairs(torch.eye(2), [[0], [1]])
    two = CorpusPairs(torch.tensor([[3.0, 0.0], [0.0, 5.0], [0.0, -2.0]]), [[1], [2]])
    loss = corpus_loss({"one": one, "two": two}, cosine=True)
    got = loss([{"vectors": torch.tensor([[0.0, 7.0]])}], torch.tensor([2]))  # the first pair of `two`
    assert float(got) == pytest.approx(-1 + np.log(np.exp(0) + np.exp(1) + np.exp(-1)), abs=1e-6)


def test_sampled_negatives_are_bounded_seeded_and_keep_what_is_relevant() -> None:
    pairs = CorpusPairs(torch.randn(500, 4), [[7, 8], [400]])
    loss = corpus_loss({"a": pairs}, limit=20)
    candidates, targets, hidden = loss._candidates(0, pairs.positives, step=1)
    assert candidates is not None
    assert len(candidates) <= 20 + 3
    assert len(set(candidates.tolist())) == len(candidates)
    assert candidates[targets].tolist() == [7, 400]
    assert candidates[hidden[0]].tolist() == [8]
    assert not hidden[1].any()
    again, other = (loss._candidates(0, pairs.positives, step=step)[0] for step in (1, 2))
    assert torch.equal(candidates, again)  # type: ignore[arg-type]
    assert not torch.equal(candidates, other)  # type: ignore[arg-type]


def test_several_relevant_documents_of_a_query(tiny_bert: Path, toy: MemoryCollection) -> None:
    pairs = [
        TrainingPair("q", "babe", "d3", ""),
        TrainingPair("q", "babe", "d5", ""),
        TrainingPair("p", "bale", "d0", ""),
    ]
    vectors = DocumentVectors([f"d{i}" for i in range(6)], np.eye(6, dtype=np.float32))
    made = corpus_pairs("toy", pairs, vectors)
    assert made.positives == [[3, 5], [5, 3], [0]]


# -- batches -------------------------------------------------------------------------------------------------------


@dataclass
class Batches:
    """A batch sampler over n items, shuffled by its epoch."""

    count: int
    batch_size: int
    drop_last: bool = False
    epoch: int = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Any:
        order = np.random.default_rng(self.epoch).permutation(self.count).tolist()
        return iter([order[i : i + self.batch_size] for i in range(0, self.count, self.batch_size)])

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)


def sampler(sizes: list[int], *, temperature: float = 1.0, seed: int = 0) -> DomainBatchSampler:
    made = domain_sampler(temperature)(
        dataset=SimpleNamespace(datasets=[range(size) for size in sizes]),
        batch_samplers=[Batches(size, 4) for size in sizes],
        generator=torch.Generator(),
        seed=seed,
    )
    return made


def domain_of(batch: list[int], sizes: list[int]) -> int:
    bounds = np.cumsum(sizes)
    found = {int(np.searchsorted(bounds, index, side="right")) for index in batch}
    assert len(found) == 1
    return found.pop()


def test_a_global_step_is_of_one_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    sizes = [40, 24, 16]
    batches = list(sampler(sizes))
    domains = [domain_of(batch, sizes) for batch in batches]
    assert domains[0::2] == domains[1::2]
    assert len(set(domains)) == 3
    assert len(batches) == len(sampler(sizes)) == 20


def test_domains_are_drawn_by_temperature() -> None:
    sizes = [3200, 200]
    for temperature, share in ((1.0, 16 / 17), (2.0, 4 / 5), (1e9, 1 / 2)):
        counts = Counter(domain_of(batch, sizes) for batch in sampler(sizes, temperature=temperature))
        assert counts[0] / sum(counts.values()) == pytest.approx(share, abs=0.05)


def test_a_domain_is_gone_through_before_it_begins_anew() -> None:
    sizes = [8, 800]
    mine = [tuple(b) for b in sampler(sizes, temperature=1e9) if domain_of(b, sizes) == 0]
    for first, second in zip(mine[0::2], mine[1::2], strict=False):
        assert sorted(first + second) == list(range(8))
    assert len(set(mine)) > 2  # in another order


def test_batches_are_deterministic_and_differ_by_epoch_and_seed() -> None:
    sizes = [40, 24]
    first = list(sampler(sizes))
    assert list(sampler(sizes)) == first
    assert list(sampler(sizes, seed=1)) != first
    later = sampler(sizes)
    later.set_epoch(1)
    assert list(later) != first


# -- gradients -----------------------------------------------------------------------------------------------------


def evaluator(prompt: Prompt, folder: Path, config: TrainingConfig) -> DevEvaluator:
    lengths = {"query_length": 32, "document_length": 32}
    return DevEvaluator({}, prompt, "t", folder, replace(config, dtype="float32", precision="float32", **lengths))


def gradients(folder: Path, toy: MemoryCollection, work: Path, mini: int) -> dict[str, Tensor]:
    encoder = load(folder)
    prompt = random_prompt(encoder, PromptSpec("gated", 3), scale=0.3)
    transformer_of(encoder).add("t", prompt)
    transformer_of(encoder).route = "t"
    config = replace(QUICK, side="both", batch_size=16, mini_batch_size=mini, temperature=0.5)
    lesson = Lesson({toy.id: [*toy.pairs()]}, None, evaluator(prompt, work, config))
    trainer = build_trainer(encoder, [lesson], work, quiet=True)
    batch = next(iter(trainer.get_train_dataloader()))
    encoder.train()
    loss = trainer.compute_loss(encoder, batch)
    loss.backward()
    return {name: p.grad for name, p in prompt.named_parameters() if p.grad is not None}


def test_gradcache_gives_the_same_gradient(tiny_bert: Path, toy: MemoryCollection, tmp_path: Path) -> None:
    plain, cached = (gradients(tiny_bert, toy, tmp_path / str(mini), mini) for mini in (64, 3))
    assert set(plain) == {"vectors_both_keys", "vectors_both_values", "vectors_both_gate"}
    for name, gradient in plain.items():
        assert gradient.abs().max() > 1e-4
        torch.testing.assert_close(cached[name], gradient, atol=1e-5, rtol=1e-4)


def test_only_the_prompt_gets_gradients(tiny_bert: Path, toy: MemoryCollection, tmp_path: Path) -> None:
    encoder = load(tiny_bert)
    prompt = new_prompt(encoder, PromptSpec("gated", 3))
    transformer_of(encoder).add("other", new_prompt(encoder, PromptSpec("gated", 3)))
    transformer_of(encoder).add("t", prompt)
    config = replace(QUICK, side="both")
    lesson = Lesson({toy.id: [*toy.pairs()]}, None, evaluator(prompt, tmp_path, config))
    build_trainer(encoder, [lesson], tmp_path, quiet=True)
    trained = {id(p) for p in encoder.parameters() if p.requires_grad}
    assert trained == {id(p) for p in prompt.parameters()}


# -- dev sets ------------------------------------------------------------------------------------------------------


def test_a_dev_set_is_sampled_by_id_and_keeps_what_is_relevant(toy: MemoryCollection) -> None:
    one = DevSet.of(toy, queries=5, documents=10, seed=0)
    backwards = replace(toy, corpus=toy.corpus[::-1])
    two = DevSet.of(backwards, queries=5, documents=10, seed=0)
    other = DevSet.of(toy, queries=5, documents=10, seed=1)
    assert one is not None
    assert two is not None
    assert other is not None
    assert len(one.queries) == len(one.qrels) == 5
    assert {doc for judged in one.qrels.values() for doc in judged} <= {doc.doc_id for doc in one.documents}
    assert 10 <= len(one.documents) <= 15
    assert {d.doc_id for d in one.documents} == {d.doc_id for d in two.documents}
    assert one.qrels == two.qrels != other.qrels
    assert DevSet.of(toy_collection(splits=("train",)), queries=5, documents=10, seed=0) is None


def test_a_dev_set_without_relevant_documents_is_none(toy: MemoryCollection) -> None:
    nothing = replace(toy, judgements={**toy.judgements, "dev": {"q": {"d0": 0}}})
    assert DevSet.of(nothing, queries=5, documents=10, seed=0) is None
    assert Document("a", "b").content == "b"


def test_folders_of_the_user_are_left_alone(encoder, toy, tmp_path):
    """The output folder may hold anything; only what training itself put there is removed."""
    kept = tmp_path / "training" / "my-data.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    train(encoder, toy, tmp_path, config=TrainingConfig(steps=2, batch_size=4, evaluate_every=1), quiet=True)
    assert kept.read_text() == "mine"


# -- hard negatives, epochs, the dev loss ---------------------------------------------------------------------------


def pair(number: int, *negatives: str) -> TrainingPair:
    return TrainingPair(f"q{number}", f"query {number}", f"d{number}", f"document {number}", negatives)


def test_pairs_with_fewer_hard_negatives_get_other_documents() -> None:
    pairs = [pair(0, "a", "b"), pair(1, "c", "d"), pair(2, "e"), pair(3)]
    one, two = (hard_negatives(pairs, replace(QUICK, hard_negatives=count)) for count in (1, 2))
    assert [column[:3] for column in one] == [["a", "c", "e"]]
    assert one[0][3] in {"document 0", "document 1", "document 2"}
    assert [column[:2] for column in two] == [["a", "c"], ["b", "d"]]
    assert two[0][2] == "e"
    assert two[1][2] in {"document 0", "document 1", "document 3"}
    assert hard_negatives(pairs, replace(QUICK, hard_negatives=0)) == []
    assert two == hard_negatives(pairs, replace(QUICK, hard_negatives=2))


def test_no_hard_negatives_where_most_pairs_have_none() -> None:
    assert hard_negatives([pair(0, "a"), pair(1), pair(2)], replace(QUICK, hard_negatives=1)) == []
    assert hard_negatives([pair(0), pair(1)], replace(QUICK, hard_negatives=1)) == []


def test_epochs_decide_the_steps(tiny_bert: Path, toy: MemoryCollection, tmp_path: Path) -> None:
    config = replace(QUICK, epochs=1.5, batch_size=8, evaluate_every=3)
    stored = train(load(tiny_bert), toy, tmp_path / "it", config=config, quiet=True)
    assert stored.card["training"]["steps"] == 6  # 1.5 times 32 pairs, 8 a step
    assert replace(QUICK, epochs=1.0, batch_size=8).with_steps(33, processes=2).steps == 3


def test_the_dev_loss_is_the_training_loss_against_all_documents(
    tiny_bert: Path, toy: MemoryCollection, tmp_path: Path
) -> None:
    encoder = load(tiny_bert)
    config = replace(QUICK, steps=1, evaluate_every=1, dtype="float32", temperature=0.2, dev_documents=1000)
    stored = train(encoder, toy, tmp_path / "it", config=config, quiet=True)
    queries = torch.from_numpy(
        encode(encoder, [q.text for q in toy.queries("dev")], "query", max_length=config.query_length)
    )
    documents = torch.from_numpy(
        encode(encoder, [d.content for d in toy.documents()], "document", max_length=config.document_length)
    )
    rows = {doc.doc_id: row for row, doc in enumerate(toy.documents())}
    targets = torch.tensor([rows[next(iter(toy.qrels("dev")[q.query_id]))] for q in toy.queries("dev")])
    expected = torch.nn.functional.cross_entropy(queries @ documents.T / 0.2, targets)
    assert stored.card["metrics"]["dev"][0]["loss"] == pytest.approx(float(expected), rel=1e-4)


def test_trackers_and_records_of_the_loss(tiny_bert: Path, toy: MemoryCollection, tmp_path: Path) -> None:
    stored = train(load(tiny_bert), toy, tmp_path / "it", config=replace(QUICK, steps=6, log_every=3), quiet=True)
    assert [entry["step"] for entry in stored.card["metrics"]["loss"]] == [3, 6]
    with pytest.raises(ForewordError, match="report_to names no-such-tracker, which is not installed"):
        replace(QUICK, report_to="no-such-tracker")


def test_another_pooling_is_another_training(tiny_bert: Path, toy: MemoryCollection, tmp_path: Path) -> None:
    train(load(tiny_bert), toy, tmp_path / "it", config=QUICK, quiet=True)
    other = load_encoder(str(tiny_bert), device="cpu", pooling="cls")
    with pytest.raises((OtherTrainingError, PromptError)):
        train(other, toy, tmp_path / "it", config=QUICK, quiet=True)
