"""A plain sentence-transformers folder: domains are named prompts, and no code of Foreword is needed to load it.

The vectors of an `input` prompt that stand after [CLS] become rows of the word embeddings, for words that no text
has. A named prompt is a string of these words; the tokenizer puts it where the vectors stood. Pooling must leave them
out: `Pooling(include_prompt=False)` would leave [CLS] out with them, which the prompt was trained with, so the means
are taken over words of weight 1 instead, and the new words weigh 0 (sentence-transformers' `WordWeights`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, WordWeights
from torch import Tensor
from transformers import AddedToken

from foreword.errors import BackboneError, PromptError
from foreword.exporting.folder import (
    carried_by,
    check_equal,
    new_folder,
    origin,
    proof_texts,
    tolerance,
    write_readme,
)
from foreword.prompts.encoder import (
    head_of,
    leaves_out_text_prompt,
    routed,
    set_head,
    shorten,
    text_prompt,
    transformer_of,
)
from foreword.settings import SIDES, Side
from foreword.terminal import quietly

# Which prompts and poolings a plain sentence-transformers model can have.


ELSEWHERE = "--to sentence-transformers writes any prompt (Foreword is installed where it is loaded)"

POOLINGS = ("mean", "mean_sqrt_len_tokens", "cls", "lasttoken")


def check_exportable(encoder: SentenceTransformer, default: str | None) -> int:
    """Refuse what a plain model cannot do.

    Args:
        encoder: with its prompts.
        default: see `export_plain`.

    Returns:
        n, the one length of all prompts.

    Raises:
        PromptError: with the reason.
        BackboneError: the encoder's backbone has no files to start from.
    """
    transformer = carried_by(encoder)
    if transformer.backbone is None:
        raise BackboneError("only an encoder from foreword.load_encoder can be exported: its backbone has a folder")
    if default is not None and default not in transformer.domains:
        raise PromptError(f"no prompt for {default!r} to be the default; there are: {', '.join(transformer.domains)}")
    check_head(encoder)
    for domain in transformer.domains:
        prompt = transformer.prompt(domain)
        if why := prompt.kind.why_not("plain", prompt.spec, transformer):
            raise PromptError(f"{domain}: {why}. {ELSEWHERE}")
    specs = {domain: transformer.prompt(domain).spec for domain in transformer.domains}
    lengths = {domain: spec.length for domain, spec in specs.items()}
    if len(set(lengths.values())) > 1:
        raise PromptError(
            f"the prompts have {_listed(lengths)} vectors: a model cuts text and prompt together to one length, so "
            "texts of some domains would be cut elsewhere; export each length to a folder of its own"
        )
    if len({spec.sides == "query" for spec in specs.values()}) > 1:
        sides = {domain: spec.sides for domain, spec in specs.items()}
        raise PromptError(
            f"the prompts' sides are {_listed(sides)}: where documents have no prompt, a model cuts them shorter than "
            "those that have one; export prompts of sides 'query' to a folder of their own"
        )
    return next(iter(lengths.values()))


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{value} ({domain})" for domain, value in values.items())


def check_head(encoder: SentenceTransformer) -> None:
    """Raise `PromptError` unless the pooling can leave the prompt's words out."""
    pooling = head_of(encoder).pooling
    modes = (pooling,) if isinstance(pooling, str) else pooling or ("none",)
    reasons = {
        "max": "a word of weight 0 still takes part in a maximum",
        "weightedmean": "its weights count positions, the prompt's too",
        "none": "there is no pooling to leave the prompt's words out",
    }
    for mode in modes:
        if mode not in POOLINGS:
            raise PromptError(
                f"pooling {mode!r} of a plain model would take the prompt's words in: "
                f"{reasons.get(mode, 'it is not known here')}; there is {', '.join(POOLINGS)}. {ELSEWHERE}"
            )
    if leaves_out_text_prompt(encoder):
        raise PromptError(
            "the backbone's pooling leaves out its own text prompt, and would leave out [CLS] and the new words with "
            f"it on one side only. {ELSEWHERE}"
        )


_WEIGHTED = {"mean", "mean_sqrt_len_tokens"}


@dataclass(frozen=True)
class NamedPrompt:
    """A named prompt of the exported model.

    Attributes:
        name: `DOMAIN`, or `DOMAIN-query` and `DOMAIN-document` where the two sides differ.
        text: words that stand for the vectors, and the backbone's own text prompt.
        domain: whose it is.
        sides: what it encodes.
    """

    name: str
    text: str
    domain: str
    sides: tuple[Side, ...]


def export_plain(encoder: SentenceTransformer, output: str | Path, *, default: str | None = None) -> list[NamedPrompt]:
    """Write the encoder's `input` prompts as named prompts of a plain `SentenceTransformer` folder.

    It is loaded by `SentenceTransformer(folder)` and used by `encode(texts, prompt_name="DOMAIN")`; its embeddings
    are compared with the encoder's before the folder appears.

    Args:
        encoder: from `load_encoder`, with the prompts.
        output: a folder that is not there yet.
        default: the domain that `encode_query` and `encode_document` take without a name; None: the only one, or,
            of several, none.

    Returns:
        The named prompts.

    Raises:
        PromptError: a prompt, or the encoder's pooling, cannot be had in a plain model; the message says why.
        BackboneError: the backbone cannot take further words.
        DataError: `output` is there already.
    """
    transformer = transformer_of(encoder)
    length = check_exportable(encoder, default)
    words, vectors = _added_words(encoder)
    named = _named_prompts(encoder, words)
    default = default or (transformer.domains[0] if len(transformer.domains) == 1 else None)
    with new_folder(output) as folder, quietly():
        model = _with_words(encoder, [word for one in words.values() for word in one], vectors)
        limit = transformer.max_seq_length
        if limit is not None:  # the text is cut to the same tokens, its prompt beside it
            first: Any = model[0]
            first.max_seq_length = limit + length
            if _query_only(encoder):  # documents have no prompt, hence no room for one
                first.document_length = limit
        for one in named:
            model.prompts[one.name] = one.text
            if one.domain == default:  # also under the names that sides go by
                model.prompts.update(dict.fromkeys(one.sides, one.text))
                if one.sides == SIDES:
                    model.default_prompt_name = one.name
        model.save(str(folder), create_model_card=False)
        own = [one.name for one in named if one.domain == named[0].domain and "document" in one.sides]
        write_readme(
            folder,
            "plain",
            Path(output).name,
            "sentence-transformers",
            named=named,
            queries=next((one.name for one in named if "query" in one.sides), named[0].name),
            documents=own[0] if own else None,
            default=default,
            limit=limit,
            origin=origin(transformer.backbone),
        )
        model = SentenceTransformer(str(folder), device=str(encoder.device))  # what was written, compared
        unit = head_of(encoder).similarity == "cosine" and not any(isinstance(module, Normalize) for module in model)
        texts = proof_texts(encoder)
        for one in named:
            got = model.encode(texts, prompt_name=one.name, normalize_embeddings=unit)
            check_equal(got.astype(np.float32), encoder, one.sides[0], one.domain, one.name, tolerance(encoder))
        if _query_only(encoder):
            got = model.encode_document(texts, normalize_embeddings=unit)
            check_equal(got.astype(np.float32), encoder, "document", None, "documents", tolerance(encoder))
    return named


def _query_only(encoder: SentenceTransformer) -> bool:
    transformer = transformer_of(encoder)
    return transformer.prompt(transformer.domains[0]).spec.sides == "query"


# -- words -------------------------------------------------------------------------------------------------------------


def _added_words(encoder: SentenceTransformer) -> tuple[dict[tuple[str, str], list[str]], Tensor]:
    """Words by domain and part, and their vectors in the same order, (words, d); equal prompts give equal words."""
    transformer = transformer_of(encoder)
    words: dict[tuple[str, str], list[str]] = {}
    vectors: list[Tensor] = []
    for domain in transformer.domains:
        prompt = transformer.prompt(domain)
        for part in prompt.spec.parts:
            key = f"{domain}\n{part}\n{prompt.digest()}"
            # 96 random bits each, of one length: none is the beginning of another, no text has one by chance
            words[domain, part] = [
                "fw" + hashlib.sha256(f"{key}\n{place}".encode()).hexdigest()[:24]
                for place in range(prompt.spec.length)
            ]
            vectors.append(prompt.tensors()[f"{part}.vectors"])
    return words, torch.cat(vectors).float().cpu()


def _named_prompts(encoder: SentenceTransformer, words: dict[tuple[str, str], list[str]]) -> list[NamedPrompt]:
    transformer = transformer_of(encoder)
    own = {side: text_prompt(encoder, side) or "" for side in SIDES}
    named: list[NamedPrompt] = []
    for domain in transformer.domains:
        spec = transformer.prompt(domain).spec
        if spec.sides == "shared" and own["query"] == own["document"]:
            named.append(NamedPrompt(domain, "".join(words[domain, "both"]) + own["query"], domain, SIDES))
            continue
        for side in SIDES:
            part = spec.part_for(side)
            if part is not None:
                text = "".join(words[domain, part]) + own[side]
                named.append(NamedPrompt(f"{domain}-{side}", text, domain, (side,)))
    names = [one.name for one in named]
    taken = {*encoder.prompts, *SIDES, "passage", "corpus"}  # the last two are names of the document side, too
    twice = sorted({name for name in names if names.count(name) > 1 or name in taken})
    if twice:
        raise PromptError(
            f"several prompts would have the name {', '.join(twice)}; export them to folders of their own"
        )
    return named


# -- the model ---------------------------------------------------------------------------------------------------------


def _with_words(encoder: SentenceTransformer, words: list[str], vectors: Tensor) -> SentenceTransformer:
    """The backbone, loaded anew, whose vocabulary has the words, with the encoder's head and weights of words."""
    transformer = transformer_of(encoder)
    assert transformer.backbone is not None
    dtype = next(transformer.model.parameters()).dtype
    try:
        base = SentenceTransformer(str(transformer.backbone.path), device="cpu", model_kwargs={"dtype": dtype})
    except ValueError as error:  # a backbone with code of its own
        raise BackboneError(
            f"{transformer.backbone.name} cannot be loaded by sentence-transformers: {error}"
        ) from error
    shorten(base)
    set_head(base, head_of(encoder))
    first: Any = base[0]
    tokenizer = first.tokenizer
    added = tokenizer.add_tokens([AddedToken(word, normalized=False, special=False) for word in words])
    ids = tokenizer.convert_tokens_to_ids(words)
    if added != len(words) or len(set(ids)) != len(words):
        raise BackboneError(f"{type(tokenizer).__name__} took {added} of {len(words)} new words")
    if max(ids) >= len(first.model.get_input_embeddings().weight):
        first.model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    table = first.model.get_input_embeddings().weight
    with torch.no_grad():
        table[torch.tensor(ids)] = vectors.to(table)
    modules = [first, *list(base)[1:]]
    for module in modules:
        if isinstance(module, Pooling):
            module.include_prompt = True  # prompts of words are left out by their weights, [CLS] is not
    pooling = head_of(base).pooling
    if _WEIGHTED & ({pooling} if isinstance(pooling, str) else set(pooling or ())):
        by_id = {index: token for token, index in tokenizer.get_vocab().items()}
        vocabulary = [by_id.get(index, "") for index in range(len(table))]
        modules.insert(1, WordWeights(vocabulary, dict.fromkeys(words, 0.0)))
    return SentenceTransformer(
        modules=modules,
        device="cpu",
        prompts={name: text or "" for name, text in base.prompts.items()},
        default_prompt_name=base.default_prompt_name,
        similarity_fn_name=base.similarity_fn_name,
    )


# A sentence-transformers folder of any prompts, for where Foreword is installed.


def export_prompted(encoder: SentenceTransformer, output: str | Path, *, default: str | None = None) -> Path:
    """Write the encoder and all its prompts; the backbone stays where it is, under its name and fingerprint.

    Loaded by `foreword.load_encoder(folder)`, or by `SentenceTransformer(folder, trust_remote_code=True)`, which
    imports Foreword. A domain is chosen by `encode(texts, domain="DOMAIN")`.

    Args:
        encoder: from `load_encoder`, with prompts or a mixture.
        output: a folder that is not there yet.
        default: the domain that encodes texts that name none; None: what the encoder is routed to.

    Raises:
        PromptError: there is no such domain, or no prompt at all.
        DataError: `output` is there already.
    """
    transformer = carried_by(encoder)
    route = transformer.route
    if default is not None:
        transformer.prompt(default)
        route = default
    with new_folder(output) as folder, routed(encoder, route):
        encoder.save(str(folder), create_model_card=False)
        one_prompt = route is None or isinstance(route, str)
        usual = ("the base model" if route is None else f"`{route}`") if one_prompt else "the stored mixture"
        about = {"domains": transformer.domains, "usual": usual, "origin": origin(transformer.backbone)}
        write_readme(folder, "prompted", Path(output).name, "sentence-transformers", one_prompt=one_prompt, **about)
    return Path(output)
