"""Several prompts trained in one pass over the backbone are those that are trained one by one."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import toy_collection

from foreword.collections.collection import Collection, MemoryCollection
from foreword.collections.supervision import supervise
from foreword.errors import DataError
from foreword.prompts.loading import load_encoder
from foreword.prompts.spec import PromptSpec
from foreword.training.config import StartConfig, TrainingConfig
from foreword.training.dev import DevEvaluator
from foreword.training.group import Outcome, train_group
from foreword.training.losses import JoinedLoss
from foreword.training.train import Prepared
from foreword.training.trainer import WORK, PromptTrainer

NAMES = ["toy/a", "toy/b", "toy/c"]
QUICK = TrainingConfig.default(
    "query", steps=7, evaluate_every=2, batch_size=12, learning_rate=0.05, dtype="float32", precision="float32",
    dev_folds=0,
)  # fmt: skip


def load(name: str) -> Collection:
    """Of different sizes, so that their epochs end at different steps."""
    if name == "toy/broken":
        raise DataError("its files are broken")
    toy = toy_collection(name, seed=ord(name[-1]))
    kept = tuple(toy.queries("train"))[: 32 - 7 * (ord(name[-1]) - ord("a"))]
    queries = {split: kept if split == "train" else tuple(toy.queries(split)) for split in toy.splits}
    judged = {"train": {q.query_id: toy.qrels("train")[q.query_id] for q in kept}}
    judged |= {split: toy.qrels(split) for split in ("dev", "test")}
    return supervise(MemoryCollection(name, "toy", tuple(toy.documents()), queries, judged))


def trained(backbone: Path, output: Path, config: TrainingConfig, names: Any = NAMES, **how: Any) -> list[Outcome]:
    encoder = load_encoder(str(backbone), device="cpu")
    return train_group(encoder, names, output, load=load, config=config, quiet=True, **how)


def parts(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The card and the values of a prompt."""
    place = folder / name.replace("/", "-")
    return json.loads((place / "prompt.json").read_text()), load_file(place / "prompt.safetensors")


def assert_same(one: Path, other: Path, *, names: Any = NAMES) -> None:
    """Cards and values agree, up to rounding."""
    for name in names:
        (card, values), (wanted, expected) = parts(one, name), parts(other, name)
        for key, tensor in expected.items():
            torch.testing.assert_close(values[key], tensor, atol=2e-4, rtol=0)
        assert (card.pop("digest") == card["start_digest"]) == (card["metrics"]["best_step"] == 0)
        wanted.pop("digest")
        for curve in ("loss", "dev"):
            own, others = card["metrics"].pop(curve), wanted["metrics"].pop(curve)
            assert len(own) == len(others) > 0
            assert all(a == pytest.approx(b, abs=1e-3) for a, b in zip(own, others, strict=True))
        assert card == wanted


@pytest.mark.parametrize(("side", "kind"), [("query", "memory"), ("both", "gated"), ("both", "input")])
def test_one_pass_gives_what_one_by_one_gives(tiny_bert: Path, tmp_path: Path, side: Any, kind: Any) -> None:
    config, start = replace(QUICK, side=side, dev_queries=0), StartConfig(PromptSpec(kind, 4))
    steps, call = [], PromptTrainer.training_step
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PromptTrainer, "training_step", lambda *a: steps.append(1) or call(*a))  # type: ignore[func-returns-value]
        together = trained(tiny_bert, tmp_path / "pass", config, start=start)
    assert len(steps) == config.steps
    assert [(one.collection, one.status) for one in together] == [(name, "trained") for name in NAMES]
    trained(tiny_bert, tmp_path / "alone", config, start=start, together=1)
    assert_same(tmp_path / "pass", tmp_path / "alone")
    assert all(parts(tmp_path / "pass", name)[0]["metrics"]["best_step"] == config.steps for name in NAMES)
    assert [one.status for one in trained(tiny_bert, tmp_path / "pass", config, start=start)] == ["done"] * 3
    assert not (tmp_path / "pass" / WORK).exists()


def test_patience_ends_each_by_itself(tiny_bert: Path, tmp_path: Path) -> None:
    config = replace(QUICK, steps=10, patience=3, learning_rate=0.005)
    rows: list[int] = []
    call = PromptTrainer.compute_loss

    def watched(self: Any, model: Any, inputs: Any, *rest: Any, **how: Any) -> Any:
        rows.append(len(inputs["label"]))
        return call(self, model, inputs, *rest, **how)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PromptTrainer, "compute_loss", watched)
        trained(tiny_bert, tmp_path / "pass", config)
    trained(tiny_bert, tmp_path / "alone", config, together=1)
    assert_same(tmp_path / "pass", tmp_path / "alone")
    ends = [parts(tmp_path / "pass", name)[0]["metrics"]["dev"][-1]["step"] for name in NAMES]
    assert min(ends) < max(ends) < config.steps
    assert rows[-1] < rows[0] == 12 * len(NAMES)  # whoever is through has no rows
    for name, end in zip(NAMES, ends, strict=True):
        runs = [tmp_path / way / name.replace("/", "-") / "run.json" for way in ("pass", "alone")]
        assert [json.loads(path.read_text())["steps"] for path in runs] == [end, end]


def test_more_than_fit_are_trained_in_several_passes(tiny_bert: Path, tmp_path: Path) -> None:
    names, seen = ["toy/a", "toy/broken", "toy/b", "toy/c"], []
    config = replace(QUICK, dev_queries=0)
    found = trained(tiny_bert, tmp_path, config, names, together=2, on_trained=lambda one: seen.append(one.collection))
    assert [one.status for one in found] == ["trained", "failed", "trained", "trained"]
    assert [one.collection for one in found] == names
    assert seen == ["toy/broken", "toy/a", "toy/b", "toy/c"]
    listed = json.loads((tmp_path / "group.json").read_text())["collections"]
    assert [(one["collection"], one["status"]) for one in listed] == [(one.collection, one.status) for one in found]


def cut(backbone: Path, output: Path, config: TrainingConfig, monkeypatch: pytest.MonkeyPatch, *, place: str) -> None:
    """A training in one pass that is interrupted: in an evaluation, or when the second result is to be stored."""
    left = [8 if place == "training" else 2]

    def call(self: Any, *arguments: Any, own: Any, **how: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return own(self, *arguments, **how)

    with monkeypatch.context() as patched:
        where, name = (DevEvaluator, "__call__") if place == "training" else (Prepared, "store")
        patched.setattr(where, name, partialmethod(call, own=getattr(where, name)))
        with pytest.raises(KeyboardInterrupt):
            trained(backbone, output, config)


@pytest.mark.parametrize("place", ["training", "storing"])
def test_a_cut_pass_goes_on_to_the_same_bytes(
    tiny_bert: Path, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(QUICK, learning_rate=0.005)
    trained(tiny_bert, tmp_path / "uncut", config)
    cut(tiny_bert, tmp_path / "cut", config, monkeypatch, place=place)
    steps, call = [], PromptTrainer.training_step
    monkeypatch.setattr(PromptTrainer, "training_step", lambda *a: steps.append(1) or call(*a))  # type: ignore[func-returns-value]
    goes_on = trained(tiny_bert, tmp_path / "cut", config)
    assert [one.status for one in goes_on] == (
        ["trained"] * 3 if place == "training" else ["done", "trained", "trained"]
    )
    assert len(steps) == (config.steps - 2 if place == "training" else 0)
    for name in NAMES:
        (card, values), (wanted, expected) = parts(tmp_path / "cut", name), parts(tmp_path / "uncut", name)
        assert card == wanted
        assert all(torch.equal(values[key], expected[key]) for key in expected)
    assert not (tmp_path / "cut" / WORK).exists()
    assert not [*(tmp_path / "cut").rglob(WORK)]


def test_what_a_cut_pass_left_hinders_nobody(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut(tiny_bert, tmp_path, QUICK, monkeypatch, place="training")
    other = trained(tiny_bert, tmp_path, replace(QUICK, steps=6))
    assert [one.status for one in other] == ["failed"] * 3
    assert all("an interrupted training with other settings" in one.error for one in other)
    assert [one.status for one in trained(tiny_bert, tmp_path, QUICK, NAMES[:2])] == ["trained"] * 2
    assert (tmp_path / WORK).exists()  # it is still that of three
    assert [one.status for one in trained(tiny_bert, tmp_path, QUICK, resume=False)] == ["trained"] * 3
    assert not (tmp_path / WORK).exists()


def test_trainings_whose_pass_fails_are_done_one_by_one(
    tiny_bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(JoinedLoss, "forward", full)
    found = trained(tiny_bert, tmp_path, replace(QUICK, dev_queries=0))
    assert [one.status for one in found] == ["trained"] * 3
    assert "3 trainings in one pass failed, so they are done one by one: out of memory" in caplog.text
    assert not (tmp_path / WORK).exists()
