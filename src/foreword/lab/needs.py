"""A recipe in words: its settings side by side, what it needs, and the command that runs it."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foreword.lab.recipe import TABLES, Recipe, TransferValues, Values, chain

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


# What a recipe's full run needs: estimates from its settings, by formulas that are said, at a rate that is given.
#
# Nothing here was measured on the device that the recipes are for. Floating-point operations are 2 N a token forward
# and 2 N a token backward through frozen weights (N parameters beside the embeddings; Kaplan et al. 2020, without the
# gradient of the weights), once more forward under GradCache; attention's own products are left out (some 5 %).
# Memory is that of activations in training, `s b h (34 + 5 a s / h)` bytes a layer at 16 bits for b texts of s tokens,
# width h and a heads (Korthikanti et al. 2022, arXiv 2205.05198, equation 2), and the weights.


LAYERS, WIDTH, HEADS = 12, 768, 12  # of bert-base-uncased
PARAMETERS = 12 * LAYERS * WIDTH**2  # beside the embeddings
WEIGHTS = 109_482_240  # parameters with the embeddings and the pooler

PEAK = {"float16": 312e12, "bfloat16": 312e12, "float32": 19.5e12, "auto": 312e12}
"""Operations a second that NVIDIA's data sheet gives the A100 (dense products)."""
SHARE = 0.4
"""Of the peak that is assumed to be reached."""
UNPACKED = 4
"""Bytes on the disk for each downloaded one: the archive itself, and text three times as large."""


@dataclass(frozen=True)
class Estimate:
    """What a run of one recipe, without those before it, is estimated to need.

    Attributes:
        training_hours: of all its prompts.
        indexing_hours: of the evaluation.
        gpu_memory_gb: gigabytes, in training.
        rates: operations a second that are assumed in training and in the evaluation.
    """

    training_hours: float
    indexing_hours: float
    gpu_memory_gb: float
    rates: tuple[float, float]

    @property
    def hours(self) -> float:
        """Of all of it."""
        return self.training_hours + self.indexing_hours


def estimate(recipe: Recipe, table: str = "as-took-effect", *, rate: float | None = None) -> Estimate:
    """What a full run of a recipe needs.

    Args:
        recipe: its `needs` give the amounts.
        table: of its settings.
        rate: operations a second, as `measure` finds them on a device; None: `SHARE` of an A100's `PEAK`, at the
            precisions of the settings and of the evaluation.
    """
    settings = recipe.settings(table)
    values = settings if isinstance(settings, Values) else trained(recipe, table)
    rates = (rate or SHARE * PEAK[values.precision], rate or SHARE * PEAK[recipe.evaluation.precision])
    operations = 0.0 if isinstance(settings, TransferValues) else _training(recipe, values)
    return Estimate(
        operations / rates[0] / 3600,
        _indexing(recipe, values) / rates[1] / 3600,
        _memory(values, recipe) / 1e9,
        rates,
    )


def trained(recipe: Recipe, table: str) -> Values:
    """The settings that the prompts of a recipe, or of those before it, are trained by."""
    found = [settings for r in chain(recipe, table) if isinstance(settings := r.settings(table), Values)]
    return found[-1]


def measure(encoder: SentenceTransformer, values: Values, *, seconds: float = 5.0) -> float:
    """Operations a second that this machine reaches in training under these settings, for `estimate`.

    Texts of the settings' document length go forward and backward, to an untrained prompt, for some seconds.
    """
    from foreword.prompts.encoder import autocast, transformer_of
    from foreword.prompts.start import new_prompt

    transformer = transformer_of(encoder)
    precision: Any = values.precision
    prompt = new_prompt(encoder, values.spec, start="noise", seed=values.seed).to(encoder.device)
    texts = ["word " * values.document_length] * min(values.batch_size, values.mini_batch_size)
    route, known = transformer.route, "(measured)"
    transformer.add(known, prompt)
    transformer.route = known
    embeddings: Any = transformer.model.get_input_embeddings()
    count = sum(p.numel() for p in transformer.model.parameters()) - embeddings.weight.numel()
    done, taken = 0.0, 0.0
    try:
        while taken < seconds or not done:
            began = time.perf_counter()
            features = encoder.preprocess(texts, task="document", max_length=values.document_length)
            features = {k: v.to(encoder.device) if hasattr(v, "to") else v for k, v in features.items()}
            with autocast(precision, encoder.device):
                encoder(features)["sentence_embedding"].float().sum().backward()
            taken += time.perf_counter() - began
            done += 4.0 * count * len(texts) * (values.document_length + _own_tokens(values))
    finally:
        transformer.remove(known)
        transformer.route = route
    return done / taken


def _own_tokens(values: Values) -> int:
    """Positions that the prompt itself takes."""
    return values.length if values.kind == "input" else 0


def _training(recipe: Recipe, values: Values) -> float:
    needs, own = recipe.needs, _own_tokens(values)
    query = min(needs.query_tokens, values.query_length) + own
    document = min(needs.document_tokens, values.document_length) + own
    tokens = values.epochs * needs.pairs * (query + (1 + values.hard_negatives) * document)
    return tokens * PARAMETERS * (6 if _cached(values) else 4)


def _indexing(recipe: Recipe, values: Values) -> float:
    evaluation = recipe.evaluation
    length = min(recipe.needs.document_tokens, evaluation.document_length)
    dense = [name for name in evaluation.systems if name != "bm25"]
    tokens = sum(length + (0 if name == "base" else _own_tokens(values)) for name in dense)
    return 2.0 * PARAMETERS * recipe.needs.documents * tokens


def _memory(values: Values, recipe: Recipe) -> float:
    size = 4 if values.precision == "float32" else 2  # bytes of an activation
    own = _own_tokens(values)
    document, query = values.document_length + own, values.query_length + own

    def held(texts: int, tokens: int) -> float:
        return texts * tokens * WIDTH * LAYERS * (34 + 5 * HEADS * tokens / WIDTH) * size / 2

    if recipe.step == "transfer":  # nothing is trained: one layer's activations of a batch, and the weights
        return held(64, recipe.evaluation.document_length) / LAYERS * 2 + 4 * WEIGHTS
    if _cached(values):
        return held(values.mini_batch_size, document) + 4 * WEIGHTS
    columns = 1 + values.hard_negatives
    return held(values.batch_size, query) + columns * held(values.batch_size, document) + 4 * WEIGHTS


def _cached(values: Values) -> bool:
    return values.mini_batch_size < values.batch_size


def before(recipe: Recipe, table: str) -> list[tuple[Recipe, Estimate]]:
    """The recipes whose prompts come first, with their estimates."""
    return [(r, estimate(r, table)) for r in chain(recipe, table)[:-1]]


_WIDTH = 100  # characters
_EFFECTIVE = "as-took-effect"


def describe(recipe: Recipe) -> str:
    """What a recipe is, for a terminal."""
    blocks = [
        f"{recipe.name}: {recipe.title}",
        _wrapped(recipe.description),
        _listed("from", recipe.source),
        _values(recipe),
        _listed("why the two differ", [f"{name}: {reason}" for name, reason in recipe.differences.items()]),
        _listed("not followed", recipe.notes),
        _runs(recipe),
        _needs(recipe),
        _commands(recipe),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _wrapped(text: str, indent: str = "", first: str = "") -> str:
    return textwrap.fill(
        " ".join(text.split()), _WIDTH, initial_indent=first or indent, subsequent_indent=indent, break_on_hyphens=False
    )


def _listed(title: str, lines: Sequence[str]) -> str:
    return "\n".join([f"{title}:", *(_wrapped(line, "    ", "  - ") for line in lines)]) if lines else ""


def _values(recipe: Recipe) -> str:
    """The settings: one column where the tables agree in all of them."""
    tables = [_stated(recipe.full[name]) for name in TABLES]
    small = _stated(recipe.small[_EFFECTIVE])
    columns = ["miniature", _EFFECTIVE] if not recipe.differences else ["miniature", _EFFECTIVE, "as-written"]
    rows = []
    for name in tables[0]:
        cells = [_shown(small[name]) if small[name] != tables[1][name] else "", _shown(tables[1][name])]
        if recipe.differences:
            cells.append(_shown(tables[0][name]) + (" *" if name in recipe.differences else ""))
        rows.append([name, *reversed(cells)])
    return _table(["setting", *reversed(columns)], rows)


def _stated(settings: Values | TransferValues) -> dict[str, Any]:
    """The settings; of epochs and steps, the one that decides."""
    found = settings.as_dict()
    if isinstance(settings, Values):
        found |= {"steps": "by epochs"} if settings.epochs else {"epochs": ""}
    return found


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    return "\n".join("  ".join(text.ljust(w) for text, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value) or "-"


def _runs(recipe: Recipe) -> str:
    what = {"pretrain": "one prompt on", "train": "a prompt for each of", "transfer": "transfer to each of"}[
        recipe.step
    ]
    lines = [f"{what} {len(recipe.ids())} collections: {', '.join(recipe.collections)}"]
    settings = recipe.full[_EFFECTIVE]
    if recipe.after:
        new = isinstance(settings, Values) and not settings.start_from
        lines.append(f"{'as written, ' if new else ''}starts from the prompts of {recipe.after}, which are made first")
    groups = [f"{group} ({len(ids)})" for group, ids in recipe.report().items()]
    lines.append(
        f"scored on {' and '.join(groups)}: {', '.join(recipe.evaluation.systems)}; "
        f"{', '.join(recipe.evaluation.measures)}"
    )
    return _listed("what is done", lines)


def _needs(recipe: Recipe) -> str:
    found, needs = estimate(recipe, _EFFECTIVE), recipe.needs
    rates = " and ".join(f"{rate / 1e12:.3g}" for rate in dict.fromkeys(found.rates))
    lines = [
        f"about {needs.gpu_memory_gb:g} GB on the device, {needs.disk_gb:g} GB on the disk ({needs.download_gb:g} GB "
        "to download)",
        f"about {needs.hours:.3g} hours: {found.training_hours:.3g} of training and {found.indexing_hours:.3g} of the "
        f"evaluation, at {rates} TFLOP/s ({SHARE:.0%} of what NVIDIA's data sheet gives an A100)",
    ]
    for other, its in before(recipe, _EFFECTIVE):
        lines.append(f"and those of {other.name} before it: about {its.hours:.3g} hours")
    lines.append("foreword.lab.needs.measure gives the rate of a machine, and estimate the hours at that rate")
    lines.append(f"assumed: {needs.basis}")
    return _listed("needs (estimates by formula; nothing was measured on such a device)", lines)


def _commands(recipe: Recipe) -> str:
    miniature = f"foreword recipe {recipe.name} --miniature --output runs/{recipe.name}-miniature"
    return (
        f"run it:\n  {recipe.command}\n"
        f"or on small data made here, in about {recipe.miniature.seconds} s on two processor cores:\n  {miniature}"
    )
