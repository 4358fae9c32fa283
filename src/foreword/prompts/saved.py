"""What `encoder.save_pretrained(folder)` writes for the module that carries prompts: the prompts and the backbone's
name in `foreword.json`, never the backbone.

Such a folder loads by `foreword.load_encoder(folder)`, and by `SentenceTransformer(folder, trust_remote_code=True)`
where Foreword is installed (sentence-transformers asks for that with any module class that is not its own).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from foreword.common.errors import PromptError
from foreword.common.files import atomic_write, sha256_file, write_json
from foreword.prompts.backbone import Backbone, resolve_backbone
from foreword.prompts.cards import read_json_card
from foreword.prompts.prompt import Prompt
from foreword.prompts.spec import PromptSpec

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
    entries = []
    for number, (domain, prompt) in enumerate(prompts.items()):
        file = f"prompts/{number}.safetensors"
        tensors = {name: tensor.float().cpu().contiguous() for name, tensor in sorted(prompt.tensors().items())}
        with atomic_write(folder / file, "wb") as handle:
            handle.write(to_bytes(tensors))
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
    folder = Path(folder)
    try:
        card = read_json_card(folder / CARD, FORMAT, {"backbone": dict, "prompts": list})
    except FileNotFoundError:
        raise PromptError(f"{folder} holds no {CARD}") from None
    wanted = card["backbone"]
    try:
        found = resolve_backbone(wanted["name"], wanted["revision"])
        prompts = {entry["domain"]: _read_prompt(folder, entry) for entry in card["prompts"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise PromptError(f"{folder / CARD} is not what it should be ({error!r}): it was altered") from error
    if found.fingerprint != wanted["fingerprint"]:
        raise PromptError(
            f"{folder}: was saved with backbone {wanted['name']!r} of weights {wanted['fingerprint'][:12]}..., but "
            f"{found.path} holds {found.fingerprint[:12]}..."
        )
    return card, found, prompts


def _read_prompt(folder: Path, entry: Mapping[str, Any]) -> Prompt:
    path = folder / entry["file"]
    if not path.is_file() or sha256_file(path) != entry["sha256"]:
        raise PromptError(f"{path} is missing, cut or altered; copy the folder again, whole")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise PromptError(f"{path} cannot be read: {error}") from error
    return Prompt(PromptSpec(**entry["prompt"]), tensors)
