"""The page of a prompt on the hub: what it is, what it was trained on, what it scores, how it is loaded."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreword.errors import DataError
from foreword.files import read_json
from foreword.hub.contents import REPOSITORY, SCHEME, Contents
from foreword.prompts.backbone import PACKAGED
from foreword.prompts.store import MIXTURE_FORMAT
from foreword.tables import markdown_rows


@dataclass(frozen=True)
class Figures:
    """What a prompt scores on one split of one collection; `measures` are named as ir_measures does."""

    collection: str
    split: str
    measures: Mapping[str, float]
    supervision: str
    """By which labels the prompt was trained; `unknown` where it is not said."""
    seen_by_backbone: bool | None
    """Whether the backbone was trained on the collection; None: not known."""


def read_results(paths: Iterable[str | Path], folder: Path) -> list[Figures]:
    """Read results of the prompt in `folder`, or of prompts in the bank there.

    `DataError`: a file is none that `foreword evaluate --json` wrote, or is about another prompt.
    """
    found = []
    for path in map(Path, paths):
        try:
            result: Any = read_json(path)
            figures = Figures(
                str(result["collection"]),
                str(result["split"]),
                {str(name): float(value) for name, value in result["measures"].items()},
                str(result.get("supervision") or "unknown"),
                result.get("seen_by_backbone"),
            )
            of, system = str(result["prompt"]), str(result.get("system", "dense"))
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or error}", path=path) from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            expected = "expected what `foreword evaluate COLLECTION --prompt PROMPT --json` prints"
            raise DataError(f"{expected}; this lacks or mistakes {error}", path=path) from error
        if of == "none" or not Path(of).resolve().is_relative_to(folder.resolve()):
            message = f"its figures are of {of!r}, not of {folder}; evaluate that prompt, from this folder"
            raise DataError(message, path=path)
        if system != "dense":
            raise DataError(
                f"its figures are of {system}, not of the prompt alone; evaluate it by dense search", path=path
            )
        found.append(figures)
    return found


def metric_id(measure: str) -> str:
    """A measure's name as the hub and mteb write it: `nDCG@10` is `ndcg_at_10`."""
    return re.sub(r"\W+", "_", measure.lower().replace("@", "_at_"))


LIBRARY = "foreword"
_LABELS = {
    "train": "its training labels",
    "dev": "its dev labels",
    "pseudo-queries": "pseudo-queries made of its documents",
    "k-fold": "test labels of the other folds",
}


def model_card(
    contents: Contents, repository: str, *, licence: str | None = None, figures: Sequence[Figures] = ()
) -> str:
    """The text of `README.md`: the hub's metadata, then the page; equal input gives equal text.

    `licence` is as the hub names it (None: the card says that none was stated); `figures` are results to list, also in
    the metadata's `model-index`.
    """
    backbones = [card.get("backbone") or {} for card in contents.cards.values()]
    size = f"{contents.bytes:,} bytes in {len(contents.files)} files"
    said = {domain: _structure(card) for domain, card in contents.cards.items()}
    if contents.kind == "bank":
        what = f"A bank of {len(said)} learned prompts for dense retrieval with one frozen encoder ({size}).\n\n"
        what += markdown_rows(("domain", "what"), [(f"`{domain}`", form) for domain, form in said.items()])
    else:
        ((domain, form),) = said.items()
        what = f"For dense retrieval in the domain `{domain}`: {form}, for a frozen encoder ({size})."
    rows = [
        (f"`{domain}`", f"`{collection}`", _LABELS.get(method, method))
        for domain in contents.cards
        for collection, method in contents.trained_on(domain).items()
    ]
    trained = markdown_rows(("prompt", "collection", "by"), rows)
    page = [
        f"# {repository.rpartition('/')[2]}",
        what,
        *dict.fromkeys(_backbone(described) for described in backbones if described.get("name")),
        "## Trained on",
        f"{trained}\n\nIncludes what a prompt started from or was mixed of." if rows else "Not stated.",
        *_scores(contents, figures),
        "## Use",
        _use(contents, repository),
        "## Licence",
        f"Of the prompt: {licence or 'not stated'}. The backbone and the collections have their own.",
    ]
    return f"---\n{_metadata(contents, repository, licence, figures)}\n---\n\n" + "\n\n".join(page) + "\n"


def _metadata(contents: Contents, repository: str, licence: str | None, figures: Sequence[Figures]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    models = sorted({name for card in contents.cards.values() if (name := hub_model(card)) is not None})
    used = {name for domain in contents.cards for name in contents.trained_on(domain)}
    results = [
        EvalResult(
            task_type="text-retrieval",
            dataset_type=hub_dataset(result.collection) or result.collection,
            dataset_name=result.collection,
            dataset_split=result.split,
            metric_type=metric_id(measure),
            metric_name=measure,
            metric_value=round(value, 6),
        )
        for result in figures
        for measure, value in result.measures.items()
    ]
    data = ModelCardData(
        license=licence,
        base_model=models[0] if len(models) == 1 else models or None,
        base_model_relation="adapter" if models else None,
        library_name=LIBRARY,
        pipeline_tag="sentence-similarity",
        tags=[LIBRARY, "dense-retrieval", "soft-prompt", f"foreword-{contents.kind}"],
        datasets=sorted({found for name in used if (found := hub_dataset(name)) is not None}) or None,
        model_name=repository.rpartition("/")[2] if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml()).rstrip("\n")


def hub_model(card: Mapping[str, Any]) -> str | None:
    """The backbone's name on the hub; None for one that was loaded from a folder."""
    name = str((card.get("backbone") or {}).get("name") or "")
    if name in PACKAGED:
        return next(full for full in PACKAGED if "/" in full and PACKAGED[full] == PACKAGED[name])
    return name if REPOSITORY.fullmatch(name) and not Path(name).is_dir() else None


def hub_dataset(collection: str) -> str | None:
    """A collection's name among the hub's datasets, where that is known: of `hf:` and of BEIR's own sets."""
    bare = re.split("[#@]", collection)[0]
    if bare.startswith(SCHEME):
        name = bare.removeprefix(SCHEME)
        return name if REPOSITORY.fullmatch(name) and not Path(name).is_dir() else None
    group, _, name = bare.partition("/")
    return f"BeIR/{name}" if group == "beir" and name else None


def _structure(card: Mapping[str, Any]) -> str:
    """A prompt's, or a mixture's, form in words."""
    if card["format"] == MIXTURE_FORMAT:
        if not card["weights"]:
            return "a mixture of nothing, which is the base model"
        said = ", ".join(
            f"`{name}` by {'a weight for each layer' if isinstance(weight, list) else format(weight, '.3g')}"
            for name, weight in card["weights"].items()
        )
        document = f"; documents by `{card['document']}` alone" if card.get("document") else ""
        return f"a mixture of the prompts {said}{document}"
    spec = card["prompt"]
    sides = {
        "shared": "the same for queries and documents",
        "untied": "one for queries and one for documents",
        "query": "for queries alone (documents keep the base model's vectors)",
    }[spec["sides"]]
    where = "" if spec["kind"] == "input" else " a layer"
    counts = {"": spec["length"], " beside its feed-forward part": spec.get("feed_forward", 0)}
    vectors = " and ".join(f"{count} vectors{where}{place}" for place, count in counts.items() if count)
    parameters = f", {card['parameters']:,} parameters" if "parameters" in card else ""
    started = "; **training learnt nothing**: no step was better than the start, which this is"
    return f"a {spec['kind']} prompt of {vectors}, {sides}{parameters}{'' if card.get('learnt', True) else started}"


def _backbone(described: Mapping[str, Any]) -> str:
    pooling = described.get("pooling")
    pooled = f"{'+'.join(pooling) if isinstance(pooling, list) else pooling} pooling"
    length = "embeddings of unit length" if described.get("normalized") else "embeddings of any length"
    revision = f", revision `{described['revision']}`" if described.get("revision") else ""
    return (
        f"The backbone is `{described['name']}`{revision}: {pooled}, {length}, weights of SHA-256 "
        f"`{described.get('fingerprint')}`. It is not in this repository and never changes; another one is refused."
    )


def _scores(contents: Contents, figures: Sequence[Figures]) -> list[str]:
    """The section on figures; none where there are none."""
    parts = []
    if figures:
        rows = [
            (f"`{r.collection}`", r.split, measure, f"{value:.4f}", r.supervision, _SEEN[r.seen_by_backbone])
            for r in figures
            for measure, value in r.measures.items()
        ]
        columns = ("collection", "split", "measure", "value", "prompt trained by", "backbone trained on it")
        parts.append(markdown_rows(columns, rows))
    steps = []
    for domain, card in contents.cards.items():
        history = [entry["dev"] for entry in (card.get("metrics") or {}).get("dev", ()) if entry.get("dev") is not None]
        steps += [(f"`{domain}`", f"{history[0]:.4f}", f"{max(history):.4f}")] if history else []
    if steps:
        parts += [
            "On the dev split, nDCG@10 at the first and the best step of training. The best step was chosen by it, and "
            "it may be over a sample of the documents: it is no estimate of the figure on test.",
            markdown_rows(("prompt", "first", "best"), steps),
        ]
    return ["## Figures", *parts] if parts else []


_SEEN = {True: "yes", False: "no", None: "not known"}


def _use(contents: Contents, repository: str) -> str:
    place = f'"{repository}"'
    card = next(iter(contents.cards.values()))
    name = hub_model(card) or (card.get("backbone") or {}).get("name")
    usual = name is None or name in PACKAGED
    backbone, given = ("", "") if usual else (f'"{name}", ', f" --backbone {shlex.quote(str(name))}")
    if contents.kind == "bank":
        domain = next(iter(contents.cards))
        python = (
            f"encoder = foreword.load_encoder({backbone}bank=foreword.from_hub({place}))\n"
            f'foreword.encode(encoder, ["a text"], "query", route="{domain}")'
        )
        command = f"foreword advise folder:my-collection --bank {SCHEME}{repository}{given}"
    else:
        python = (
            f"encoder = foreword.load_encoder({backbone}prompt=foreword.from_hub({place}))\n"
            'queries = encoder.encode_query(["what is asked"])\n'
            'documents = encoder.encode_document(["what may answer it"])'
        )
        command = f'foreword search folder:my-collection "what is asked" --prompt {SCHEME}{repository}{given}'
    return f"```python\nimport foreword\n\n{python}\n```\n\n```sh\n{command}\n```"
