"""Baselines on tiny models: what each trains, that it starts as the base model, and that it is trained as prompts are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny import FAMILIES, random_prompt, save_model

from foreword.collections.collection import MemoryCollection
from foreword.errors import BackboneError, ForewordError, OtherTrainingError, PromptError, UnknownNameError
from foreword.evaluation.evaluate import evaluate
from foreword.lab.baselines import (
    LEARNING_RATES,
    Baseline,
    BaselineSpec,
    Method,
    baseline_config,
    changed_copy,
    load_baseline,
    train_baseline,
)
from foreword.prompts.encoder import encode, state_digest, transformer_of
from foreword.prompts.loading import load_encoder
from foreword.prompts.spec import PromptSpec
from foreword.training import trainer as trainer_module
from foreword.training.config import StartConfig, TrainingConfig
from foreword.training.train import train
from foreword.training.trainer import PromptTrainer, TimeBudget

METHODS: tuple[Method, ...] = get_args(Method)
QUICK = TrainingConfig(
    side="both", steps=4, batch_size=8, evaluate_every=2, precision="float32", learning_rate=1e-3, dev_folds=0
)
TEXTS = ["babe bale", "bame", "some longer text of babe, bale and bame"]
WIDTH, INNER, LAYERS = 32, 48, 2
FILES = ["baseline.json", "run.json", "weights.safetensors"]


def settings(method: Method, **changes: Any) -> TrainingConfig:
    return replace(QUICK, side="query" if method == "linear-query" else "both", **changes)


def both_sides(encoder: SentenceTransformer) -> list[Any]:
    return [encode(encoder, TEXTS, "query"), encode(encoder, TEXTS, "document")]


def weights(encoder: SentenceTransformer) -> dict[str, torch.Tensor]:
    """Without prompts, by the names that the base model has for them."""
    return {
        name.replace(".base_layer", ""): tensor.clone()
        for name, tensor in encoder.state_dict().items()
        if ".prompts." not in name
    }


@pytest.fixture
def easy(toy: MemoryCollection) -> MemoryCollection:
    """Its dev queries are its training queries."""
    return replace(
        toy,
        query_texts={**toy.query_texts, "dev": toy.query_texts["train"]},
        judgements={**toy.judgements, "dev": toy.judgements["train"]},
    )


# -- what is trained -----------------------------------------------------------------------------------------------


def test_parameters_are_counted_exactly(encoder: SentenceTransformer) -> None:
    unused = WIDTH * WIDTH + WIDTH  # BERT's pooler, which no embedding depends on
    everything = sum(p.numel() for p in encoder.parameters())
    biases = WIDTH + LAYERS * (4 * WIDTH + WIDTH + INNER + WIDTH + WIDTH)
    expected = {
        "full": everything - unused,
        "lora": LAYERS * 2 * 5 * (WIDTH + WIDTH),
        "bitfit": biases,
        "adapter": LAYERS * (2 * WIDTH * 7 + 7 + WIDTH),
        "linear-query": WIDTH * WIDTH,
    }
    for method in METHODS:
        made, change = changed_copy(encoder, BaselineSpec(method, rank=5, bottleneck=7), "query")
        assert change.count() == sum(t.numel() for t in change.tensors().values()) == expected[method]
        assert change.tensors().keys() <= {name for name, _ in made.named_parameters()}


def test_lora_can_go_anywhere(encoder: SentenceTransformer) -> None:
    spec = BaselineSpec("lora", rank=2, targets="all-linear")
    _, change = changed_copy(encoder, spec, "both")
    assert change.count() == LAYERS * 2 * (4 * 2 * WIDTH + 2 * (WIDTH + INNER))  # the unused pooler's are left out
    _, change = changed_copy(encoder, replace(spec, targets=("key",)), "both")
    assert change.count() == LAYERS * 2 * 2 * WIDTH
    with pytest.raises(BackboneError, match=r"no LoRA at \('nowhere',\).*all-linear"):
        changed_copy(encoder, replace(spec, targets=("nowhere",)), "both")


@pytest.mark.parametrize("family", FAMILIES)
def test_all_start_as_the_base_model(tmp_path: Path, family: str) -> None:
    encoder = load_encoder(str(save_model(tmp_path / "it", family)), device="cpu")
    base = both_sides(encoder)
    for method in METHODS:
        spec = BaselineSpec(method)
        if method == "bitfit" and family in ("t5", "qwen3", "modernbert"):
            with pytest.raises(BackboneError, match="nothing that bitfit could train"):
                changed_copy(encoder, spec, "both")
            continue
        for side in ("both", "query"):
            made, change = changed_copy(encoder, spec, side)  # type: ignore[arg-type]
            np.testing.assert_array_equal(both_sides(made), base)
            change.assign(change.rounded(torch.float16).tensors())  # as it would be stored
            np.testing.assert_array_equal(both_sides(made), base)


def test_lora_adds_the_product_of_its_matrices(encoder: SentenceTransformer) -> None:
    made, change = changed_copy(encoder, BaselineSpec("lora", rank=3, alpha=5.0), "both", seed=1)
    generator = torch.Generator().manual_seed(0)
    values = {name: torch.randn(t.shape, generator=generator) / 4 for name, t in change.tensors().items()}
    change.assign(values)
    plain = dict(transformer_of(encoder).model.named_parameters())
    for name, value in values.items():
        if ".lora_B." in name:
            update = 5 / 3 * value @ values[name.replace(".lora_B.", ".lora_A.")]
            plain[name.removeprefix("0.model.").replace("lora_B.default.", "")].data += update
    np.testing.assert_allclose(both_sides(made), both_sides(encoder), atol=1e-5)


def test_the_adapter_and_the_linear_map_follow_their_formulas(encoder: SentenceTransformer) -> None:
    made, change = changed_copy(encoder, BaselineSpec("adapter", bottleneck=3), "both")
    values = {name: torch.randn(t.shape, generator=torch.Generator().manual_seed(1)) for name, t in change.tensors().items()}  # fmt: skip
    change.assign(values)
    last = [values[f"0.model.encoder.layer.1.adapter.{name}"] for name in ("down.weight", "down.bias", "up.weight", "up.bias")]  # fmt: skip
    seen: dict[str, torch.Tensor] = {}
    layer = transformer_of(made).model.encoder.layer[1]  # type: ignore[union-attr, index]
    layer.adapter.register_forward_hook(lambda module, args, out: seen.update(given=args[0], got=out))  # type: ignore[union-attr, operator]
    made.encode("babe bale")
    expected = seen["given"] + torch.relu(seen["given"] @ last[0].T + last[1]) @ last[2].T + last[3]
    torch.testing.assert_close(seen["got"], expected)

    made, change = changed_copy(encoder, BaselineSpec("linear-query"), "query")
    matrix = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(2))
    change.assign({"query_adapter.weight": matrix})
    base, now = both_sides(encoder), both_sides(made)
    moved = base[0] @ matrix.numpy().T
    np.testing.assert_allclose(now[0], moved / np.linalg.norm(moved, axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_array_equal(now[1], base[1])
    with pytest.raises(PromptError, match="encode_query"):
        made.encode("babe")


def test_the_linear_map_stands_before_the_normalisation(tmp_path: Path) -> None:
    encoder = load_encoder(str(save_model(tmp_path / "it", normalize=True)), device="cpu")
    made, change = changed_copy(encoder, BaselineSpec("linear-query"), "query")
    change.assign({"query_adapter.weight": 3 * torch.eye(WIDTH)})
    assert [type(module).__name__ for module in made][-2:] == ["QueryAdapter", "Normalize"]
    np.testing.assert_allclose(both_sides(made), both_sides(encoder), atol=1e-6)


# -- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "side"), [(m, s) for m in METHODS for s in ("both", "query") if (m, s) != ("linear-query", "both")])  # fmt: skip
def test_training_learns_and_changes_what_it_should(
    encoder: SentenceTransformer, easy: MemoryCollection, tmp_path: Path, method: Method, side: Any
) -> None:
    transformer_of(encoder).add("other", random_prompt(encoder, PromptSpec("gated", 3)))
    transformer_of(encoder).route = "other"  # prompts that it carries play no part, and stay
    kept, digest = both_sides(encoder), state_digest(encoder)
    transformer_of(encoder).route = None
    base, before = both_sides(encoder), weights(encoder)
    transformer_of(encoder).route = "other"
    config = settings(method, steps=16, evaluate_every=8, learning_rate=1e-3 if method == "full" else 1e-2)
    config = replace(config, side=side)
    made = train_baseline(encoder, easy, tmp_path / "it", method=method, config=config, quiet=True)

    losses = [entry["loss"] for entry in made.history]
    assert [entry["step"] for entry in made.history] == [0, 8, 16]
    assert losses[-1] < losses[0] - 0.05
    assert made.steps == 16
    assert made.best_step == max(made.history, key=lambda entry: entry["dev"])["step"] > 0

    after = weights(made.encoder)
    trained = set(made.card["tensors"])
    for name, value in before.items():
        assert torch.equal(after[name], value) == (name not in trained), name
    now = both_sides(made.encoder)
    assert not np.array_equal(now[0], base[0])
    assert np.array_equal(now[1], base[1]) == (side == "query")

    np.testing.assert_array_equal(both_sides(encoder), kept)
    assert state_digest(encoder) == digest
    assert transformer_of(encoder).domains == ["other"]
    assert not any(parameter.requires_grad for parameter in transformer_of(encoder).model.parameters())


def test_the_best_step_is_what_is_stored_loaded_and_evaluated(
    encoder: SentenceTransformer, easy: MemoryCollection, tmp_path: Path
) -> None:
    for method in METHODS:
        config = settings(method, steps=2, evaluate_every=1, learning_rate=1e-2)
        made = train_baseline(encoder, easy, tmp_path / method, method=method, config=config, quiet=True)
        again = load_baseline(tmp_path / method, encoder)
        np.testing.assert_array_equal(both_sides(again.encoder), both_sides(made.encoder))
        assert again.card == made.card
        lengths = {"query_length": config.query_length, "document_length": config.document_length}
        result = evaluate(easy, made.encoder, split="dev", measures=["nDCG@10"], quiet=True, **lengths)
        best = next(entry["dev"] for entry in made.history if entry["step"] == made.best_step)
        assert result.measures["nDCG@10"] == pytest.approx(best, abs=1e-6)
        assert made.training_seconds <= made.seconds
        assert sorted(path.name for path in (tmp_path / method).iterdir()) == FILES
        assert made.bytes == (tmp_path / method / "weights.safetensors").stat().st_size
        assert 0 < made.bytes - 2 * made.parameters < 8_000  # float16, and names and shapes


def test_a_baseline_that_training_does_not_help_stays_the_base_model(
    encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path
) -> None:
    config = settings("full", learning_rate=10.0)
    made = train_baseline(encoder, toy, tmp_path / "it", method="full", config=config, quiet=True)
    assert made.best_step == 0
    np.testing.assert_array_equal(both_sides(made.encoder), both_sides(encoder))


def test_equal_runs_give_equal_bytes(encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path) -> None:
    for name in ("one", "two"):
        torch.manual_seed(len(name))
        train_baseline(encoder, toy, tmp_path / name, method="lora", config=QUICK, quiet=True)
    for file in FILES[::2]:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@contextmanager
def recorded() -> Iterator[list[Any]]:
    """Every step's texts (as token ids), labels and learning rate."""
    seen: list[Any] = []
    step = PromptTrainer.training_step

    def record(self: PromptTrainer, model: Any, inputs: Any, *rest: Any) -> Any:
        texts = {key: value.tolist() for key, value in inputs.items() if key.endswith(("input_ids", "label"))}
        seen.append((texts, self.optimizer.param_groups[0]["lr"]))  # type: ignore[union-attr]
        return step(self, model, inputs, *rest)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PromptTrainer, "training_step", record)
        yield seen


@pytest.mark.parametrize("side", ["both", "query"])
def test_steps_are_those_of_a_prompt(
    encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path, side: Any
) -> None:
    config = replace(QUICK, side=side, steps=4, evaluate_every=4, seed=3)
    start = StartConfig(PromptSpec("gated", 3))
    with recorded() as expected:
        stored = train(encoder, toy, tmp_path / "prompt", config=config, start=start, quiet=True)
    assert len(expected) == 4
    assert stored.card["trained_parameters"] == LAYERS * (3 * 2 * WIDTH + 4)
    assert len({str(texts) for texts, _ in expected}) == 4
    for method in METHODS:
        if (method, side) == ("linear-query", "both"):
            continue
        with recorded() as seen:
            made = train_baseline(encoder, toy, tmp_path / method, method=method, config=config, quiet=True)
        assert seen == expected
        assert made.history[0] == stored.card["metrics"]["dev"][0]  # the gated prompt too starts as the base model
        assert made.card["data"] == stored.card["data"]
        assert made.card["training"] == stored.card["training"]


# -- time ----------------------------------------------------------------------------------------------------------


def test_a_time_budget_ends_training_and_the_schedule(
    encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock: list[float] = []

    def spent(self: TimeBudget) -> float:
        clock.append(0)
        return float(len(clock))  # each step takes a second

    monkeypatch.setattr(TimeBudget, "spent", spent)
    config = replace(QUICK, steps=1000, evaluate_every=400)
    with recorded() as seen:
        made = train_baseline(encoder, toy, tmp_path / "it", method="lora", config=config, seconds=5, quiet=True)
    assert made.steps == len(seen) == 5
    assert [entry["step"] for entry in made.history] == [0, 5]
    assert made.card["training"]["seconds"] == 5
    rates = [rate for _, rate in seen]
    # After one step a fifth of the schedule is over, of whose 1000 steps 50 are warm-up; the rate follows a step later.
    for rate, at in zip(rates[2:], (201, 401, 601), strict=True):
        assert rate == pytest.approx(1e-3 * (1000 - at) / 950)
    clock.clear()
    stored = train(encoder, toy, tmp_path / "prompt", config=config, seconds=3, quiet=True)
    assert [entry["step"] for entry in stored.card["metrics"]["dev"]] == [0, 3]
    clock.clear()
    config = replace(config, steps=2)
    assert train_baseline(encoder, toy, tmp_path / "b", method="lora", config=config, seconds=5, quiet=True).steps == 2


def test_evaluations_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = TimeBudget(60, 100.0, SimpleNamespace(seconds=7.0))  # type: ignore[arg-type]
    monkeypatch.setattr(trainer_module, "time", SimpleNamespace(monotonic=lambda: 150.0))
    assert budget.spent() == 43


# -- what is refused -----------------------------------------------------------------------------------------------


def test_settings_that_do_not_go_together(encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path) -> None:
    def attempt(method: Any, **how: Any) -> Baseline:
        return train_baseline(encoder, toy, tmp_path / "it", method=method, quiet=True, **how)

    with pytest.raises(UnknownNameError, match=r"no baseline 'ful'; there are: full, lora, bitfit"):
        attempt("ful")
    with pytest.raises(ForewordError, match="its side is 'query', not 'both'"):
        attempt("linear-query", config=QUICK)
    with pytest.raises(ForewordError, match="starts from the base model"):
        attempt("full", config=replace(QUICK, document_side="start"))
    for wrong in ({"rank": 0}, {"bottleneck": 0}, {"alpha": 0.0}, {"seconds": 0.0}):
        with pytest.raises(ForewordError, match=f"{next(iter(wrong))} is 0"):
            attempt("lora", **wrong)
    with pytest.raises(ForewordError, match="lower the learning rate"):
        attempt("linear-query", config=settings("linear-query", learning_rate=1e30))
    assert not (tmp_path / "it" / "baseline.json").exists()
    made = attempt("lora", config=QUICK)  # and what was begun there is in nobody's way
    with pytest.raises(BackboneError, match="changed already"):
        train_baseline(made.encoder, toy, tmp_path / "more", method="full", config=QUICK, quiet=True)
    with pytest.raises(PromptError, match="its backbone has a name"):
        made.encoder.save_pretrained(str(tmp_path / "saved"))


def test_without_peft_the_error_names_the_extra(encoder: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ForewordError, match=r"pip install foreword\[baselines\]"):
        changed_copy(encoder, BaselineSpec("lora"), "both")


def test_a_finished_one_is_returned_and_others_are_refused(
    encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path
) -> None:
    def run(**how: Any) -> Baseline:
        given: dict[str, Any] = {"method": "adapter", "config": QUICK, **how}
        return train_baseline(encoder, toy, tmp_path / "it", quiet=True, **given)

    first = run()
    work = tmp_path / "it" / ".foreword-training"
    work.mkdir()  # as a kill just before the end leaves it
    with recorded() as seen:
        assert run().run == first.run
        assert not work.exists()
        assert run(rank=3).run == first.run  # which adapters do not have
        for other in ({"method": "bitfit"}, {"bottleneck": 3}, {"config": replace(QUICK, seed=1)}, {"seconds": 9}):
            with pytest.raises(OtherTrainingError, match="other settings"):
                run(**other)
    assert seen == []
    assert run(resume=False).card == first.card


def test_broken_files_and_other_models_are_refused(
    encoder: SentenceTransformer, toy: MemoryCollection, tmp_path: Path
) -> None:
    folder = tmp_path / "it"
    train_baseline(encoder, toy, folder, method="adapter", config=replace(QUICK, steps=1), quiet=True)
    other = load_encoder(str(save_model(tmp_path / "other", seed=1)), device="cpu")
    with pytest.raises(PromptError, match="Load the backbone it was made for"):
        load_baseline(folder, other)
    whole = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(whole[:-2])
    with pytest.raises(PromptError, match="missing, cut or altered"):
        load_baseline(folder, encoder)
    (folder / "baseline.json").unlink()
    with pytest.raises(PromptError, match=r"has no baseline\.json"):
        load_baseline(folder, encoder)


# -- presets -------------------------------------------------------------------------------------------------------


def test_presets() -> None:
    for method in METHODS:
        config = baseline_config(method, steps=7)
        assert config.learning_rate == LEARNING_RATES[method]
        assert config.steps == 7
        assert config.side == ("query" if method == "linear-query" else "both")
        assert baseline_config(method, side="query", learning_rate=2.0).learning_rate == 2.0
        assert BaselineSpec.of(BaselineSpec(method, targets=("a",)).as_dict()).as_dict() == BaselineSpec(method, targets=("a",)).as_dict()  # fmt: skip
