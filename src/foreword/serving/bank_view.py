"""What `/bank` shows, from the files of the bank: names, similarity, figures, transfer, nearest words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from foreword.common.errors import DataError
from foreword.evaluation.group import FORMAT as GROUP_FORMAT
from foreword.prompts.mixture import is_mixture
from foreword.prompts.store import StoredPrompt, load_prompt
from foreword.prompts.words import bank_words
from foreword.serving.ways import Served
from foreword.training.dev import MEASURE
from foreword.transferring.features import FILE as FEATURES
from foreword.transferring.features import bank_features
from foreword.transferring.reach import source_domains
from foreword.transferring.similarity import similarity

EVALUATION = "evaluation/group.json"
TRANSFER_MEASURE = "nDCG@10"


def bank_view(encoder: SentenceTransformer, served: Mapping[str, Served], bank: Path | None) -> dict[str, Any]:
    """The names, the similarity of the domains, the matrix of transfer, the figures, and the words near the prompts.

    Args:
        encoder: the backbone.
        served: the prompts.
        bank: their folder, which may hold `features.safetensors` (of `foreword advise`) and what `foreword evaluate
            --group ... --systems each` wrote to its folder `evaluation`; None: there is none.

    Raises:
        ForewordError: a file is broken.
    """
    stored = {
        name: load_prompt(one.candidate.path) for name, one in served.items() if not is_mixture(one.candidate.path)
    }
    figures = _of_cards(stored)
    rows = [] if bank is None else _of_group(bank / EVALUATION)
    return {
        "names": list(served),
        "similarity": None if bank is None else _similarity(encoder, stored, bank),
        "transfer": _transfer(rows, served),
        "figures": figures + rows,
        "words": _words(encoder, stored),
    }


def of_allowed(view: Mapping[str, Any], allowed: Callable[[str], bool]) -> dict[str, Any]:
    """The view without what a key may not see."""
    names = [name for name in view["names"] if allowed(name)]
    similarity, transfer = view["similarity"], view["transfer"]
    if similarity is not None:
        similarity = _cut(similarity, {"names": [allowed(name) for name in similarity["names"]]}, ("names", "names"))
    if transfer is not None:
        kept = {axis: [allowed(name) for name in transfer[axis]] for axis in ("sources", "targets")}
        transfer = _cut(transfer, kept, ("sources", "targets"))
    return {
        "names": names,
        "similarity": similarity,
        "transfer": transfer,
        "figures": [figure for figure in view["figures"] if allowed(figure["domain"])],
        "words": {name: words for name, words in view["words"].items() if allowed(name)},
    }


def _cut(table: Mapping[str, Any], kept: Mapping[str, list[bool]], axes: tuple[str, str]) -> dict[str, Any] | None:
    """A matrix without the rows and columns that are not kept; None: nothing is left."""
    rows, columns = (kept[axis] for axis in axes)
    cut: dict[str, Any] = {**table}
    for axis, flags in kept.items():
        cut[axis] = [name for name, keep in zip(table[axis], flags, strict=True) if keep]
    cut["values"] = [
        [value for value, keep in zip(row, columns, strict=True) if keep]
        for row, keep in zip(table["values"], rows, strict=True)
        if keep
    ]
    return cut if cut["values"] and cut["values"][0] else None


# -- the parts -----------------------------------------------------------------------------------------------------


def _similarity(encoder: SentenceTransformer, stored: Mapping[str, StoredPrompt], bank: Path) -> dict[str, Any] | None:
    """The cosine of the domains' mean document embeddings; None: no features of two domains are kept in the bank."""
    if not (bank / FEATURES).is_file():
        return None

    def absent(name: str) -> Any:
        raise DataError(f"{name} has no features in {bank / FEATURES}")

    features = bank_features(bank, encoder, source_domains(stored), absent, quiet=True).features
    names = list(features)
    if len(names) < 2:
        return None
    values = [[round(similarity(features[a], features[b]), 6) for b in names] for a in names]
    return {"names": names, "values": values}


def _of_cards(stored: Mapping[str, StoredPrompt]) -> list[dict[str, Any]]:
    """The start's and the kept step's value on the dev split, where training looked at one."""
    figures = []
    for name, one in stored.items():
        metrics = one.card.get("metrics")
        history = metrics.get("dev") if isinstance(metrics, Mapping) else None
        found = {entry.get("step"): entry.get("dev") for entry in history or [] if isinstance(entry, Mapping)}
        best = metrics.get("best_step") if isinstance(metrics, Mapping) else None
        for system, step in (("start", 0), ("prompt", best)):
            if isinstance(found.get(step), int | float):
                figures.append({"domain": name, "system": system, "measure": f"{MEASURE} (dev)", "value": found[step]})
    return figures


def _of_group(path: Path) -> list[dict[str, Any]]:
    """The figures in an evaluation's `group.json`."""
    if not path.is_file():
        return []
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(table, dict) or table.get("format") != GROUP_FORMAT:
            return []
        return [
            {"domain": row["collection"], "system": row["system"], "measure": measure, "value": float(value)}
            for row in table["rows"]
            for measure, value in row["measures"].items()
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"is not what foreword evaluate writes ({error!r})", path=path) from error


def _transfer(figures: Sequence[Mapping[str, Any]], served: Mapping[str, Served]) -> dict[str, Any] | None:
    """Which prompt gives what on which collection, where the evaluation's systems go by names of prompts."""
    known = {**{name.replace("/", "-"): name for name in served}, **{name: name for name in served}}
    found = {
        (known[figure["system"]], figure["domain"]): figure["value"]
        for figure in figures
        if figure["measure"] == TRANSFER_MEASURE and figure["system"] in known
    }
    sources = [name for name in served if any(source == name for source, _ in found)]
    targets = list(dict.fromkeys(target for _, target in found))
    if not found:
        return None
    values = [[found.get((source, target)) for target in targets] for source in sources]
    return {"sources": sources, "targets": targets, "values": values, "measure": TRANSFER_MEASURE}


def _words(encoder: SentenceTransformer, stored: Mapping[str, StoredPrompt]) -> dict[str, list[list[Any]]]:
    """The most telling words near each input prompt; prompts inside the layers have none."""
    of_input = {name: one for name, one in stored.items() if one.prompt.spec.kind == "input"}
    if not of_input:
        return {}
    found: dict[str, dict[str, float]] = {name: {} for name in of_input}
    for record in bank_words(encoder, of_input).records:
        own = found[record["domain"]]
        for entry in record["summary"]:
            own[entry["word"]] = max(entry["weight"], own.get(entry["word"], 0.0))
    return {
        name: [[word, weight] for word, weight in sorted(own.items(), key=lambda pair: (-pair[1], pair[0]))]
        for name, own in found.items()
    }
