"""Baselines: other ways to train an encoder for a domain, on the trainer, the data and the measure of prompts.

Full fine-tuning, LoRA, BitFit, adapters and a linear map of queries. A copy of the encoder is changed; what was
trained is stored in a folder: `weights.safetensors`, `baseline.json`, and `run.json` for what varies from run to run.
Shapes: B batch, T tokens, d width of the backbone, d' of the embeddings.
"""

from __future__ import annotations

import copy
import platform
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize
from torch import Tensor, nn

from foreword.collections.collection import Collection, TrainingPair
from foreword.errors import BackboneError, ForewordError, OtherTrainingError, PromptError, UnknownNameError
from foreword.files import as_json, atomic_write, owns, sha256_file, write_json
from foreword.prompts.backbone import read_json_card
from foreword.prompts.encoder import state_digest, transformer_of
from foreword.prompts.store import DTYPES, check_backbone, describe_backbone, library_versions
from foreword.prompts.transformer import PromptedTransformer
from foreword.settings import Count, Positive, Settings, Side
from foreword.training.config import Trained, TrainingConfig
from foreword.training.folds import run_course
from foreword.training.train import identity_of, text_settings
from foreword.training.trainee import join, on_main, world_size
from foreword.training.trainer import WORK
from foreword.training.vectors import DocumentVectors, TrainingData

FORMAT = "foreword-baseline/1"
WEIGHTS, CARD, RUN = "weights.safetensors", "baseline.json", "run.json"

Method = Literal["full", "lora", "bitfit", "adapter", "linear-query"]

LEARNING_RATES: Mapping[str, float] = {
    "full": 5e-5,
    "lora": 1e-3,
    "bitfit": 1e-3,
    "adapter": 1e-3,
    "linear-query": 1e-3,
}
"""Where to begin for each method (usual: full 1e-5 to 5e-5, LoRA and adapters 1e-4 to 1e-3). Tune it on the dev split
before any comparison: the method tuned least looks worst."""


@dataclass(frozen=True)
class BaselineSpec(Settings):
    """What is trained, independent of any encoder.

    The defaults of `rank` and `bottleneck` train about as many numbers as the default prompt does.

    Attributes:
        method: `full`, every weight that embeddings depend on; `lora`, low-rank updates of weight matrices (Hu et
            al. 2022), by PEFT; `bitfit`, the biases, those of layer normalisation too (Ben Zaken et al. 2022);
            `adapter`, on each layer's output h, h + U relu(D h + b) + c with U and c 0 at the start (Houlsby et al.
            2019, one a layer as Pfeiffer et al. 2021); `linear-query`, a d' x d' matrix, at the start the identity, on
            the embeddings of queries alone.
        rank: of LoRA's updates.
        alpha: LoRA's updates are scaled by alpha / rank; None: twice the rank.
        targets: LoRA's matrices: ends of module names, or `all-linear`; None: attention's queries and values.
        bottleneck: width of an adapter.
    """

    method: Method
    rank: Count = 8
    alpha: Positive | None = None
    targets: tuple[str, ...] | str | None = None
    bottleneck: Count = 16

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise UnknownNameError(f"no baseline {self.method!r}; there are: {', '.join(get_args(Method))}")
        super().__post_init__()

    @property
    def scale(self) -> float:
        """LoRA's alpha."""
        return 2.0 * self.rank if self.alpha is None else self.alpha

    @property
    def differences(self) -> bool:
        """Whether existing weights are trained, which are stored as differences from the base model's."""
        return self.method in ("full", "bitfit", "linear-query")

    def as_dict(self) -> dict[str, Any]:
        """The fields that the method looks at, as JSON values."""
        chosen: dict[str, Any] = {"method": self.method}
        if self.method == "lora":
            targets = list(self.targets) if isinstance(self.targets, tuple) else self.targets
            chosen |= {"rank": self.rank, "alpha": self.scale, "targets": targets}
        if self.method == "adapter":
            chosen["bottleneck"] = self.bottleneck
        return chosen

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> BaselineSpec:
        """The spec that `as_dict` gave."""
        targets = fields.get("targets")
        return cls(**{**fields, "targets": tuple(targets) if isinstance(targets, list) else targets})


def baseline_config(method: Method, *, side: Trained | None = None, **changes: Any) -> TrainingConfig:
    """The settings that prompts have by default on this side, with the method's usual learning rate.

    Args:
        method: of `BaselineSpec`.
        side: None: `query` for `linear-query`, `both` for the others.
        changes: other settings, by name.
    """
    spec = BaselineSpec(method)
    side = side or ("query" if spec.method == "linear-query" else "both")
    return TrainingConfig.default(side, **{"learning_rate": LEARNING_RATES[method], **changes})


@dataclass(frozen=True)
class Baseline:
    """A trained baseline.

    Attributes:
        encoder: a copy of the base model with the best step's values; give it to `foreword.evaluate` and to every
            function that takes an encoder. `save_pretrained` refuses it: load it from `path` with `load_baseline`.
        card: what `baseline.json` says; of equal runs equal.
        run: what `run.json` says: times.
    """

    encoder: SentenceTransformer
    card: Mapping[str, Any]
    run: Mapping[str, Any]
    path: Path

    @property
    def parameters(self) -> int:
        """Trained parameters, each of which embeddings depend on."""
        return int(self.card["parameters"])

    @property
    def bytes(self) -> int:
        """What is stored for the domain, beside the base model: the size of the weights' file."""
        return int(self.card["bytes"])

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """Evaluations on the dev split: `step`, `dev` (nDCG@10), `loss`; step 0 is the base model."""
        history: Sequence[Mapping[str, Any]] = self.card["metrics"]["dev"]
        return history

    @property
    def best_step(self) -> int:
        """The step whose values were kept."""
        return int(self.card["metrics"]["best_step"])

    @property
    def steps(self) -> int:
        """Optimizer steps taken."""
        return int(self.run["steps"])

    @property
    def seconds(self) -> float:
        """Of the whole training, with evaluations."""
        return float(self.run["seconds"])

    @property
    def training_seconds(self) -> float:
        """Of the training, without evaluations: what a time budget counts."""
        return float(self.run["training_seconds"])


@owns("output")
def train_baseline(
    encoder: SentenceTransformer,
    collections: Collection | Sequence[Collection],
    output: str | Path,
    *,
    method: Method,
    rank: int = 8,
    alpha: float | None = None,
    targets: tuple[str, ...] | str | None = None,
    bottleneck: int = 16,
    domain: str | None = None,
    config: TrainingConfig | None = None,
    documents: Mapping[str, DocumentVectors] | None = None,
    pairs: Mapping[str, Sequence[TrainingPair]] | None = None,
    seconds: float | None = None,
    resume: bool = True,
    quiet: bool = False,
) -> Baseline:
    """Train one on the training split of one collection, or of several, and store it.

    Batches, loss, lengths, precision, schedule, dev sets and the choice of the best step are those of
    `foreword.training.train.train` with the same settings; the backbone's dropout is off, as there. A copy of the
    encoder is trained. Differences that prompts do not have: nothing is kept to go on from after a cut.

    Args:
        encoder: from `foreword.load_encoder`; left as it is, its prompts play no part.
        collections: what to train on.
        output: the baseline's folder. A finished training of the same settings found there is returned.
        method: see `BaselineSpec`, as for `rank`, `alpha`, `targets` and `bottleneck`.
        rank: of LoRA's updates.
        alpha: of LoRA.
        targets: of LoRA.
        bottleneck: width of an adapter.
        domain: its name; None: the collection's id, or `multitask` for several.
        config: the settings; None: `baseline_config(method)`. Its `side` says whether documents are changed too;
            `query` alone for `linear-query`. Mind the learning rate: `TrainingConfig`'s own default is for prompts.
        documents: as for `train`, like `pairs` and `seconds`.
        pairs: training pairs by collection id.
        seconds: the time budget.
        resume: False: train anew, whatever is there.

    Raises:
        DataError: a collection has no training pairs, or `documents` lack one of its documents.
        BackboneError: the backbone has nothing of the kind.
        OtherTrainingError: `output` holds a training of other settings.
        ForewordError: settings that do not go together, LoRA without PEFT, or values that grew beyond all bounds.
    """
    spec = BaselineSpec(method, rank, alpha, targets, bottleneck)
    config = config or baseline_config(method)
    if method == "linear-query" and config.side != "query":
        raise ForewordError(f"linear-query changes queries alone; its side is 'query', not {config.side!r}")
    if config.document_side != "base":
        raise ForewordError(
            f"a baseline starts from the base model; document_side is 'base', not {config.document_side!r}"
        )
    if seconds is not None and not seconds > 0:
        raise ForewordError(f"seconds is {seconds}; it is above 0")
    sources = [collections] if not isinstance(collections, Sequence) else list(collections)
    data = TrainingData.of(sources, config, pairs, documents)
    domain = domain or data.domain
    config = data.steps_of(config, world_size())
    output = Path(output)
    join(encoder.device)
    identity = identity_of(encoder, data, domain, config, start={"from": "base"}, seconds=seconds)

    def there() -> bool:
        """Whether the finished training is; what a cut one left is removed: there is nothing in it to go on from."""
        if not resume or not (output / CARD).exists():
            shutil.rmtree(output / WORK, ignore_errors=True)
            return False
        card = read_baseline_card(output)
        if all(card.get(key) == value for key, value in as_json({"baseline": spec.as_dict(), **identity}).items()):
            shutil.rmtree(output / WORK, ignore_errors=True)  # what a kill just before the end left
            return True
        raise OtherTrainingError(
            f"{output} holds a baseline trained with other settings or data; choose another folder, or resume=False"
        )

    if on_main(there):
        return load_baseline(output, encoder)
    began = time.time()
    digest = state_digest(encoder)
    made, change = changed_copy(encoder, spec, config.side, seed=config.seed)
    course = run_course(
        made, data, change, output / WORK, config, route=None, seconds=seconds, checkpoints=False, quiet=quiet
    )
    if state_digest(encoder) != digest:
        raise ForewordError("the encoder changed while its copy was trained; this is a bug, please report it")
    text = text_settings(encoder, config.query_length, config.document_length)
    record = {**identity, "metrics": course.metrics(), "text": text}
    finished = course.run(began)

    def store() -> None:
        change.assign(course.best())
        _save(output, change, spec, encoder, config.dtype, record, finished)
        shutil.rmtree(output / WORK)

    on_main(store)
    return load_baseline(output, encoder)


def _save(
    folder: Path, change: Change, spec: BaselineSpec, encoder: SentenceTransformer, dtype: str,
    record: Mapping[str, Any], run: Mapping[str, Any],
) -> None:  # fmt: skip
    """Store what was trained, rounded to `dtype`; the card, without which it is no baseline, is written last."""
    (folder / CARD).unlink(missing_ok=True)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in sorted(change.stored(DTYPES[dtype]).items())}
    with atomic_write(folder / WEIGHTS, "wb") as file:
        file.write(save(tensors))
    card = {
        "format": FORMAT,
        "baseline": spec.as_dict(),
        "parameters": change.count(),
        "tensors": sorted(tensors),
        "dtype": dtype,
        "bytes": (folder / WEIGHTS).stat().st_size,
        "sha256": sha256_file(folder / WEIGHTS),
        "backbone": describe_backbone(encoder),
        "versions": library_versions(),
        **record,
    }
    write_json(folder / RUN, {"format": FORMAT, "host": platform.node(), **run})
    write_json(folder / CARD, card)


def load_baseline(folder: str | Path, encoder: SentenceTransformer) -> Baseline:
    """Apply a stored baseline to a copy of its base model.

    Raises:
        PromptError: a file is missing, cut or altered, or it was made for another base model.
    """
    folder = Path(folder)
    card, run = read_baseline_card(folder), {}
    weights = folder / WEIGHTS
    if not weights.is_file() or sha256_file(weights) != card["sha256"]:
        raise PromptError(f"{weights} is missing, cut or altered; copy the folder again, whole")
    check_backbone(card, encoder, folder)
    if (folder / RUN).is_file():
        run = read_json_card(folder / RUN, FORMAT, {})
    try:
        made, change = changed_copy(encoder, BaselineSpec.of(card["baseline"]), card["training"]["side"])
        change.assign(change.restored(load_file(weights)))
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise PromptError(f"{folder} cannot be read: {error}") from error
    return Baseline(made, card, run, folder)


def read_baseline_card(folder: str | Path) -> dict[str, Any]:
    """The contents of a baseline's `baseline.json`.

    Raises:
        PromptError: there is none, or it is not one.
    """
    fields = {"baseline": dict, "parameters": int, "bytes": int, "sha256": str, "backbone": dict, "training": dict}
    try:
        return read_json_card(Path(folder) / CARD, FORMAT, {**fields, "metrics": dict})
    except FileNotFoundError:
        raise PromptError(f"{folder} is no baseline: it has no {CARD} (a training that was cut leaves none)") from None


ATTENTION = {"distilbert": ("q_lin", "v_lin"), "mpnet": ("q", "v"), "modernbert": ("Wqkv",)}
"""The matrices of attention's queries and values where PEFT has no names for them."""


@dataclass(frozen=True)
class RoundedValues:
    """The values that a reader of a stored file gets."""

    values: dict[str, Tensor]

    def tensors(self) -> dict[str, Tensor]:
        """By name."""
        return dict(self.values)


class Change:
    """The parameters of a copy that are trained; the trainer's trainee.

    What existed in the base model is stored as the difference from it: rounding then cannot change what training
    left alone, and the values where training starts are exactly the base model's.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], *, differences: bool) -> None:
        """`parameters` by name; `differences`: they are stored as what is added to their present values."""
        self._parameters = dict(parameters)
        self._base = {name: p.detach().clone() for name, p in parameters.items()} if differences else None

    def parameters(self) -> Iterable[nn.Parameter]:
        """All of them."""
        return self._parameters.values()

    def part(self, side: Side | None) -> dict[str, nn.Parameter] | None:
        """All of them, whichever side: the copy itself knows where they apply."""
        return dict(self._parameters)

    def tensors(self) -> dict[str, Tensor]:
        """The values by name, detached; they share memory with the copy."""
        return {name: p.detach() for name, p in self._parameters.items()}

    def count(self) -> int:
        """The number of trained parameters."""
        return sum(p.numel() for p in self._parameters.values())

    def assign(self, tensors: Mapping[str, Tensor]) -> None:
        """Overwrite the values in place."""
        if set(tensors) != set(self._parameters):
            odd = sorted(set(tensors) ^ set(self._parameters))
            raise ForewordError(f"the values are of another structure; they differ in {', '.join(odd[:3])}")
        with torch.no_grad():
            for name, tensor in tensors.items():
                self._parameters[name].copy_(tensor)

    def stored(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """What a file holds: values, or differences from the base model's.

        Raises:
            ForewordError: they are not finite in `dtype`.
        """
        values = self.tensors()
        if self._base is not None:
            values = {name: value - self._base[name] for name, value in values.items()}
        values = {name: value.to(dtype) for name, value in values.items()}
        lost = [name for name, value in values.items() if not torch.isfinite(value).all()]
        if lost:
            raise ForewordError(f"{lost[0]} holds values beyond {dtype}, or none; lower the learning rate")
        return values

    def restored(self, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The values that `stored` stands for."""
        values = {name: value.float() for name, value in stored.items()}
        if self._base is None or set(values) != set(self._base):  # `assign` refuses the latter
            return values
        return {name: self._base[name] + value.to(self._base[name].device) for name, value in values.items()}

    def rounded(self, dtype: torch.dtype) -> RoundedValues:
        """The values that a reader of the stored file gets."""
        return RoundedValues(self.restored(self.stored(dtype)))


def changed_copy(
    encoder: SentenceTransformer, spec: BaselineSpec, side: Trained, *, seed: int = 0
) -> tuple[SentenceTransformer, Change]:
    """A copy of the base model that can be changed as `spec` says, and what is trained in it; it starts as equal.

    The copy carries no prompts, and has no backbone's name: no prompt passes for one of the changed model's.

    Args:
        encoder: from `foreword.load_encoder`; left as it is.
        spec: what is trained.
        side: `query`: documents are encoded by the base model, which the copy borrows from `encoder`.
        seed: of new weights.

    Raises:
        BackboneError: the backbone has nothing of the kind.
        ForewordError: LoRA without PEFT.
    """
    base = transformer_of(encoder)
    if base.backbone is None:
        raise BackboneError("this encoder is changed already; start from the base model, foreword.load_encoder(...)")
    made: SentenceTransformer = copy.deepcopy(encoder)
    transformer = transformer_of(made)
    transformer.remove_all()
    transformer.backbone = None
    made.requires_grad_(False)
    made.eval()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if spec.method == "linear-query":
            chosen = {id(add_query_adapter(made).weight)}
        elif spec.method == "adapter":
            chosen = {id(p) for p in add_bottlenecks(transformer, spec.bottleneck)}
        elif spec.method == "lora":
            _add_lora(transformer.model, spec)
            chosen = {id(p) for name, p in made.named_parameters() if ".lora_" in name}
        else:
            everything = spec.method == "full"
            chosen = {id(p) for name, p in made.named_parameters() if everything or name.endswith(".bias")}
    parameters = _reached(made, chosen)
    if not parameters:
        raise BackboneError(f"{type(transformer.model).__name__} has nothing that {spec.method} could train")
    if side == "query" and spec.method != "linear-query":
        keep_documents(transformer, base.model)
    made.requires_grad_(False)
    made.eval()
    return made, Change(parameters, differences=spec.differences)


def _add_lora(model: Any, spec: BaselineSpec) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ForewordError("LoRA needs PEFT: pip install foreword[baselines]") from error
    targets = spec.targets or ATTENTION.get(model.config.model_type)
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.scale,  # type: ignore[arg-type]  # it multiplies
        lora_dropout=0.0,  # prompts are trained without dropout too
        target_modules=list(targets) if isinstance(targets, tuple) else targets,
    )
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:
        raise BackboneError(
            f"{type(model).__name__} takes no LoRA at {targets or 'the usual modules'} ({error}); name its matrices "
            "with targets, or give 'all-linear'"
        ) from error


def _reached(made: SentenceTransformer, candidates: set[int]) -> dict[str, nn.Parameter]:
    """Those that a query's embedding depends on: a backbone's unused head is neither trained, counted nor stored."""
    chosen = {name: p for name, p in made.named_parameters() if id(p) in candidates}
    if not chosen:
        return {}
    features = made.preprocess(["a text to find what takes part"], task="query")
    features = {k: v.to(made.device) if isinstance(v, Tensor) else v for k, v in features.items()}
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    with torch.enable_grad():
        output = made(features)["sentence_embedding"].float().square().sum()
    gradients = torch.autograd.grad(output, list(chosen.values()), allow_unused=True)
    return {name: p for (name, p), gradient in zip(chosen.items(), gradients, strict=True) if gradient is not None}


class Bottleneck(nn.Module):
    """h -> h + U relu(D h + b) + c, with U and c 0 at the start, so that it changes nothing then."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, d) -> (B, T, d), in the type that comes in."""
        change: Tensor = self.up(torch.relu(self.down(hidden.to(self.down.weight.dtype))))
        return hidden + change.to(hidden.dtype)


def add_bottlenecks(transformer: PromptedTransformer, bottleneck: int) -> list[nn.Parameter]:
    """Put one on the output of each layer of the backbone; returns their parameters.

    Raises:
        BackboneError: its layers cannot be told.
    """
    model: Any = transformer.model
    count = model.config.num_hidden_layers
    layers = next((m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count), None)
    if layers is None:
        raise BackboneError(f"{type(model).__name__} has no list of its {count} layers; it takes no adapters")

    def adapted(layer: Any, arguments: Any, output: Any) -> Any:
        return (layer.adapter(output[0]), *output[1:]) if isinstance(output, tuple) else layer.adapter(output)

    device = next(model.parameters()).device
    parameters: list[nn.Parameter] = []
    for layer in layers:
        adapter = Bottleneck(transformer.shape.width, bottleneck).to(device)
        parameters += adapter.parameters()
        layer.add_module("adapter", adapter)
        layer.register_forward_hook(adapted)
    return parameters


class QueryAdapter(nn.Module):
    """q -> W q for the embeddings of queries, W the identity at the start; documents pass as they are."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(width))

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Replace `sentence_embedding` (B, d'); never in low precision, in which the identity would round."""
        if _task(features) == "query":
            embeddings = features["sentence_embedding"]
            with torch.autocast(embeddings.device.type, enabled=False):
                features["sentence_embedding"] = embeddings.float() @ self.weight.T
        return features


def add_query_adapter(encoder: SentenceTransformer) -> QueryAdapter:
    """Put one last, but before the normalisation."""
    width = encoder.get_embedding_dimension()
    if width is None:
        raise BackboneError("the encoder does not say the width of its embeddings; it takes no linear adapter")
    adapter = QueryAdapter(width).to(encoder.device)
    name, last = list(encoder.named_children())[-1]
    if isinstance(last, Normalize):
        delattr(encoder, name)  # Sequential's own `del` renames what is left
    encoder.add_module("query_adapter", adapter)
    if isinstance(last, Normalize):
        encoder.add_module(name, last)
    return adapter


def keep_documents(transformer: PromptedTransformer, base: nn.Module) -> None:
    """Let the base model encode documents, so that an index that it built goes on working.

    Args:
        transformer: of the changed copy.
        base: the backbone that was copied. It is borrowed for the time of a forward pass, not owned.
    """
    changed = transformer.model

    def borrow(module: nn.Module, arguments: Any) -> None:
        if _task(arguments[0]) == "document":
            transformer._modules["model"] = base

    def give_back(module: nn.Module, arguments: Any, output: Any) -> None:
        transformer._modules["model"] = changed

    transformer.register_forward_pre_hook(borrow)
    transformer.register_forward_hook(give_back, always_call=True)


def _task(features: Mapping[str, Any]) -> str:
    task: str | None = features.get("task")
    if task is None:
        raise PromptError("queries and documents are encoded differently here; call encode_query, encode_document")
    return task
