"""A sentence-transformers folder of any prompts, for where Foreword is installed."""

from __future__ import annotations

from pathlib import Path

from sentence_transformers import SentenceTransformer

from foreword.common.errors import PromptError
from foreword.common.files import atomic_write
from foreword.exporting.folders import new_folder
from foreword.exporting.readmes import prompted_readme
from foreword.prompts.encoder import routed, transformer_of


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
    transformer = transformer_of(encoder)
    if not transformer.domains:
        raise PromptError("the encoder carries no prompt; load it with one, or with a bank")
    route = transformer.route
    if default is not None:
        transformer.prompt(default)
        route = default
    with new_folder(output) as folder, routed(encoder, route):
        encoder.save(str(folder), create_model_card=False)
        with atomic_write(folder / "README.md") as file:
            file.write(prompted_readme(Path(output).name, transformer.domains, route, transformer.backbone))
    return Path(output)
