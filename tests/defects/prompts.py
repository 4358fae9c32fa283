"""Faults of the model: prompts, pooling, positions, tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from tiny import POSITIONS, random_prompt, sentences, toy_collection, words
from torch import Tensor
from transformers import PreTrainedTokenizer

from foreword.cli import training as training_command
from foreword.errors import PromptError
from foreword.prompts import loading as loading_module
from foreword.prompts import start as start_module
from foreword.prompts import transformer as transformer_module
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.kinds.input import Input
from foreword.prompts.prompt import Prompt
from foreword.prompts.spec import PromptSpec
from foreword.prompts.start import new_prompt
from foreword.prompts.store import load_prompt, save_prompt
from foreword.prompts.transformer import PromptedTransformer
from foreword.training import train as train_module
from foreword.training.config import StartConfig
from foreword.training.train import train
from foreword.training.trainer import PromptTrainer

from . import QUICK, Bench, Case, refused, write_beir

TEXTS = ["babe", *sentences(5, seed=3)]


# -- the two sides -------------------------------------------------------------------------------------------------


def untied_training_saves_the_untrained_document_prompt(bench: Bench) -> None:
    """Both sides trained apart: the document part in the file is the one that training ended with."""
    ended: dict[str, Tensor] = {}
    run = PromptTrainer.train

    def watched(self: PromptTrainer, **how: Any) -> Any:
        done = run(self, **how)
        ended.update({name: tensor.clone() for name, tensor in self.trainee.tensors().items()})
        return done

    bench.patch.setattr(PromptTrainer, "train", watched)
    encoder, spec = bench.encoder(), PromptSpec("input", 4, sides="untied")
    only = toy_collection(splits=("train",))  # without a dev split, the last step is the one to keep
    train(encoder, only, bench.tmp / "it", config=QUICK, start=StartConfig(spec), quiet=True)
    begun, read = new_prompt(encoder, spec).tensors(), load_prompt(bench.tmp / "it").prompt.tensors()
    for name in ("query.vectors", "document.vectors"):
        assert not torch.equal(ended[name], begun[name]), f"training did not move {name}"
        assert torch.equal(read[name], ended[name]), f"the saved {name} is not the trained one"
    assert not torch.equal(read["query.vectors"], read["document.vectors"])


def copy_the_document_side_aside(patch: pytest.MonkeyPatch) -> None:
    """What is saved for documents is a copy made before training."""
    first: dict[str, Tensor] = {}
    begin, save = train_module._starting_prompt, train_module.save_prompt

    def starting(*given: Any) -> Prompt:
        prompt = begin(*given)
        first.update({name: t.clone() for name, t in prompt.tensors().items() if name.startswith("document.")})
        return prompt

    def saving(folder: Any, prompt: Prompt, *given: Any, **how: Any) -> Any:
        return save(folder, Prompt(prompt.spec, prompt.tensors() | first), *given, **how)

    patch.setattr(train_module, "_starting_prompt", starting)
    patch.setattr(train_module, "save_prompt", saving)


# -- pooling -------------------------------------------------------------------------------------------------------


def by_hand(encoder: SentenceTransformer, text: str, vectors: Tensor, pooling: str) -> Tensor:
    """The embedding of one text behind prompt vectors, from the backbone alone: no padding and no mask."""
    transformer = transformer_of(encoder)
    room = POSITIONS - len(vectors)
    ids = transformer.tokenizer(text, truncation=True, max_length=room)["input_ids"]
    joined = torch.cat([vectors, transformer.model.get_input_embeddings()(torch.tensor(ids))])
    hidden = transformer.model(inputs_embeds=joined[None]).last_hidden_state[0, len(vectors) :]
    return hidden[0] if pooling == "cls" else hidden.mean(0)


def check_pooling(bench: Bench, pooling: str, length: int, texts: list[str], otherwise: str) -> None:
    """Save an input prompt, load it by its folder alone and compare the embeddings with those by hand."""
    encoder = bench.encoder(pooling=pooling)
    prompt = random_prompt(encoder, PromptSpec("input", length, placement="before"), length)
    folder = save_prompt(bench.tmp / f"{pooling}{length}", prompt, encoder, "it", dtype="float32")
    got = encode(bench.encoder(prompt=folder), texts, "document", quiet=True)
    with torch.no_grad():
        expected = [by_hand(encoder, text, prompt.tensors()["both.vectors"], pooling).numpy() for text in texts]
    assert np.allclose(got, np.stack(expected) / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5), otherwise


def mean_pooling_masks_by_the_prompt_length_of_the_command_line(bench: Bench) -> None:
    """Whatever its length, a stored prompt has no part in the mean over the text's tokens."""
    for length in (4, 6):
        check_pooling(bench, "mean", length, TEXTS, f"prompt vectors are in the mean (a prompt of {length})")


def first_pooling_returns_a_prompt_vector(bench: Bench) -> None:
    """With `cls` pooling, the embedding is the text's own first token, wherever the prompt stands."""
    check_pooling(bench, "cls", 3, TEXTS, "the first position is pooled, and the prompt stands there")


def pool_with_the_prompt(hidden: int) -> Callable[[pytest.MonkeyPatch], None]:
    """The pooling sees prompt and text as one sequence, of which a mask hides the first `hidden` positions."""

    def forward(
        self: Any, spec: Any, carrier: Any, features: Any, tensors: Any, present: Any = None, **how: Any
    ) -> Any:
        vectors = tensors["vectors"]
        embedded = carrier.model.get_input_embeddings()(features["input_ids"])
        joined = torch.cat([vectors.expand(len(embedded), -1, -1), embedded], dim=1)
        mask = torch.nn.functional.pad(features["attention_mask"], (vectors.shape[1], 0), value=1)
        inputs = {"inputs_embeds": joined, "attention_mask": mask.clone(), "modality": "text"}
        mask[:, :hidden] = 0
        done = Transformer.forward(carrier, inputs, **how)
        return {**features, "token_embeddings": done["token_embeddings"], "attention_mask": mask}

    return lambda patch: patch.setattr(Input, "forward", forward)


# -- what a stored prompt says against what is asked for -----------------------------------------------------------


def a_reloaded_prompt_overrides_pooling_and_normalize(bench: Bench) -> None:
    """Unasked, an encoder is as the prompt was made; what is asked for is done, or refused."""
    encoder = bench.encoder(pooling="cls", normalize=False)
    prompt = random_prompt(encoder, PromptSpec("input", 3))
    folder = save_prompt(bench.tmp / "it", prompt, encoder, "it")
    found = bench.encoder(prompt=folder)
    assert loading_module.head_of(found) == loading_module.head_of(encoder)
    for name, asked in (("pooling", "mean"), ("normalize", True)):
        with refused(PromptError, "was made under cls pooling", f"{name} is asked for, and the stored one is used"):
            bench.encoder(prompt=folder, **{name: asked})


def ignore_what_is_asked_of_the_head(patch: pytest.MonkeyPatch) -> None:
    """Pooling and length of the embeddings are those of the reloaded files."""
    load = loading_module.load_head
    patch.setattr(loading_module, "load_head", lambda encoder, made, *_: load(encoder, made, None, None))


def a_reloaded_prompt_overrides_tied(bench: Bench) -> None:
    """`--untied` and a prompt with one part for both: refused, not ignored."""
    encoder = bench.encoder()
    save_prompt(bench.tmp / "tied", random_prompt(encoder, PromptSpec("gated", 3)), encoder, "it")
    collection = f"folder:{write_beir(bench.tmp / 'toy')}"
    command = (
        "train",
        collection,
        "--multitask",
        "--output",
        bench.tmp / "out",
        "--steps",
        2,
        "--start",
        bench.tmp / "tied",
    )
    code, _, said = bench.shell(*command, *bench.on_the_tiny_model(), "--untied")
    assert code == 1, f"--untied is ignored: {said}"
    assert "--untied is asked for" in said
    assert not (bench.tmp / "out" / "prompt.json").exists()


def take_the_stored_structure(patch: pytest.MonkeyPatch) -> None:
    """The reloaded prompt decides, whatever the options say."""
    patch.setattr(training_command, "_start", lambda options, encoder: load_prompt(options.start, encoder))


def the_side_that_is_trained_overrides_tied(bench: Bench) -> None:
    """`--untied` where the query side alone is trained: refused, not made a prompt without a document part."""
    command = ("train", "pydoc/torch", "--output", bench.tmp, "--untied", "--dry-run")
    code, _, said = bench.shell(*command)
    assert code == 1, "--untied is ignored"
    assert "--untied has a part for documents" in said
    code, printed, _ = bench.shell(*command, "--side", "both")
    assert code == 0
    assert json.loads(printed)["prompt"]["sides"] == "untied"


def take_whatever_sides(patch: pytest.MonkeyPatch) -> None:
    """The options are not held against each other."""
    patch.setattr(
        training_command,
        "_start_config",
        lambda options: StartConfig(PromptSpec(**training_command._structure(options))),
    )


def a_new_prompt_begins_with_placeholders_of_the_vocabulary(bench: Bench) -> None:
    """A new prompt starts from real words, not from the first ids."""
    encoder = bench.encoder()
    transformer = transformer_of(encoder)
    vectors = new_prompt(encoder, PromptSpec("input", 8)).tensors()["both.vectors"]
    ids = (vectors[:, None] == transformer.model.get_input_embeddings().weight).all(-1).int().argmax(1)
    tokens = transformer.tokenizer.convert_ids_to_tokens(ids.tolist())
    assert set(tokens) <= set(words()), f"the prompt starts from {tokens}"


def start_from_the_first_ids(patch: pytest.MonkeyPatch) -> None:
    """The ids 0 to n - 1."""
    patch.setattr(start_module, "_word_ids", lambda carrier, count, seed: torch.arange(count))


# -- limits and tokens ---------------------------------------------------------------------------------------------


def nothing_guards_the_position_limit(bench: Bench) -> None:
    """A long text is cut so that prompt and text fit the backbone; a prompt that leaves no room is refused."""
    text = " ".join(words()[:60])  # more tokens than the backbone has positions
    try:
        check_pooling(bench, "mean", 10, [text, "babe"], "the text is cut to something else than the room there is")
    except (IndexError, RuntimeError) as error:
        raise AssertionError(f"prompt and text run past the last position: {error}") from error
    encoder = bench.encoder()
    with refused(PromptError, f"fills the backbone's {POSITIONS} positions", "a prompt fills all positions"):
        transformer_of(encoder).add("it", random_prompt(encoder, PromptSpec("input", POSITIONS)))


def forget_the_positions(patch: pytest.MonkeyPatch) -> None:
    """The backbone's limit is not asked for."""
    patch.setattr(transformer_module, "position_limit", lambda model: None)


def the_tokenizer_is_slow(bench: Bench) -> None:
    """The tokenizer is one of the `tokenizers` library."""
    encoder = bench.encoder()
    kind = transformer_of(encoder).tokenizer
    assert len(encode(encoder, ["babe bale"], "query", quiet=True)) == 1
    assert kind.is_fast, f"texts are tokenized by Python code: {type(kind).__name__}"


class SlowTokenizer(PreTrainedTokenizer):
    """Words at blanks, in Python."""

    def __init__(self, other: Any) -> None:
        self.ids = other.get_vocab()
        self.names = {number: token for token, number in self.ids.items()}
        super().__init__(**other.special_tokens_map, model_max_length=other.model_max_length)

    @property
    def vocab_size(self) -> int:
        return len(self.ids)

    def get_vocab(self) -> dict[str, int]:
        return dict(self.ids)

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return text.split()

    def _convert_token_to_id(self, token: str) -> int:
        return self.ids.get(token, self.ids["[UNK]"])

    def _convert_id_to_token(self, index: int) -> str:
        return self.names[index]


def tokenize_in_python(patch: pytest.MonkeyPatch) -> None:
    """The tokenizer is loaded as a slow one."""
    load = loading_module._load_base

    def loaded(*given: Any) -> SentenceTransformer:
        encoder = load(*given)
        encoder[0].processor = SlowTokenizer(encoder[0].tokenizer)
        return encoder

    patch.setattr(loading_module, "_load_base", loaded)


def every_batch_is_padded_to_the_maximum_length(bench: Bench) -> None:
    """In encoding and in training, a batch is as wide as its longest text."""
    widths: list[tuple[int, int]] = []
    forward = PromptedTransformer.forward

    def watched(self: PromptedTransformer, features: dict[str, Any], **kwargs: Any) -> Any:
        widths.append((features["input_ids"].shape[1], int(features["attention_mask"].sum(1).max())))
        return forward(self, features, **kwargs)

    bench.patch.setattr(PromptedTransformer, "forward", watched)
    encoder = bench.encoder()
    encode(encoder, TEXTS, "document", batch_size=2, quiet=True)
    encoded = len(widths)
    train(encoder, toy_collection(splits=("train",)), bench.tmp / "it", config=replace(QUICK, steps=2), quiet=True)
    assert encoded >= 3
    assert len(widths) >= encoded + 4
    assert all(wide == longest for wide, longest in widths), f"wider than their longest text: {widths}"


def pad_to_the_maximum(patch: pytest.MonkeyPatch) -> None:
    """Every batch has as many columns as a text may have tokens."""
    prepare = PromptedTransformer.preprocess

    def padded(self: PromptedTransformer, *given: Any, **how: Any) -> dict[str, Any]:
        features = prepare(self, *given, **how)
        missing = (self.max_seq_length or 0) - features["input_ids"].shape[1]
        for name in ("input_ids", "attention_mask"):
            features[name] = torch.nn.functional.pad(features[name], (0, missing))
        return features

    patch.setattr(PromptedTransformer, "preprocess", padded)


CASES = [
    Case(
        untied_training_saves_the_untrained_document_prompt,
        copy_the_document_side_aside,
        "the saved document.vectors is not the trained one",
    ),
    Case(
        mean_pooling_masks_by_the_prompt_length_of_the_command_line,
        pool_with_the_prompt(hidden=4),
        r"prompt vectors are in the mean \(a prompt of 6\)",
    ),
    Case(first_pooling_returns_a_prompt_vector, pool_with_the_prompt(hidden=0), "the first position is pooled"),
    Case(
        a_reloaded_prompt_overrides_pooling_and_normalize,
        ignore_what_is_asked_of_the_head,
        "pooling is asked for, and the stored one is used",
    ),
    Case(a_reloaded_prompt_overrides_tied, take_the_stored_structure, "--untied is ignored"),
    Case(the_side_that_is_trained_overrides_tied, take_whatever_sides, "--untied is ignored"),
    Case(
        a_new_prompt_begins_with_placeholders_of_the_vocabulary,
        start_from_the_first_ids,
        r"the prompt starts from \['\[PAD\]'",
    ),
    Case(nothing_guards_the_position_limit, forget_the_positions, "prompt and text run past the last position"),
    Case(the_tokenizer_is_slow, tokenize_in_python, "tokenized by Python code: SlowTokenizer"),
    Case(every_batch_is_padded_to_the_maximum_length, pad_to_the_maximum, "wider than their longest text"),
]
