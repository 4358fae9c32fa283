"""The folder of an export: it appears when it is whole, has a README.md, and its embeddings equal the encoder's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from foreword.errors import DataError, PromptError
from foreword.files import atomic_write, scratch_folder, umask
from foreword.prompts.backbone import Backbone
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.routes import Route
from foreword.prompts.transformer import PromptedTransformer
from foreword.settings import Side

Array = np.ndarray[Any, np.dtype[np.float32]]

FLOAT32 = 1e-5
"""Largest difference allowed between two encoders of float32."""
HALF = 2e-2
"""The same where the backbone's weights are of 16 bits: a difference in the order of sums shows."""


@contextmanager
def new_folder(output: str | Path) -> Iterator[Path]:
    """A temporary folder beside `output`, which takes its name when the block ends without an error.

    Raises:
        DataError: there is something at `output` already, or it has no name (`.`).
    """
    output = Path(output)
    if output.name in ("", ".."):
        raise DataError("is a folder that is there and stays; give --output a name", path=output)
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise DataError("is there already; give another --output, or remove it first", path=output)
    with scratch_folder(output) as temporary:
        yield temporary
        for path in temporary.rglob("*"):  # safetensors makes its own files private; these are as the user's usual ones
            if path.is_file():
                path.chmod(0o666 & ~umask())
        if output.exists():
            output.rmdir()
        os.replace(temporary, output)


def write_readme(folder: Path, template: str, name: str, library: str, **values: Any) -> None:
    """Write README.md: what the folder is, and how it is used.

    Args:
        folder: of the export.
        template: of `templates/`, without its ending.
        name: the folder's, for the title.
        library: that loads it, as the hub names libraries.
        values: that the template takes.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("foreword.exporting", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )  # plain text: nothing is escaped
    with atomic_write(folder / "README.md") as file:
        file.write(templates.get_template(f"{template}.md").render(name=name, library=library, **values))


def origin(backbone: Backbone | None) -> str:
    """A sentence that says which backbone it is."""
    if backbone is None:
        return "The backbone's origin is not known."
    revision = f", revision {backbone.revision}" if backbone.revision else ""
    return f"Backbone: `{backbone.name}`{revision}, SHA-256 of its weights `{backbone.fingerprint}`."


def carried_by(encoder: SentenceTransformer) -> PromptedTransformer:
    """The module that carries an encoder's prompts. Raises `PromptError` where there are none."""
    transformer = transformer_of(encoder)
    if not transformer.domains:
        raise PromptError("the encoder carries no prompt; load it with one, or with a bank")
    return transformer


# -- the same embeddings -----------------------------------------------------------------------------------------------


def proof_texts(encoder: SentenceTransformer) -> list[str]:
    """Short and long texts, one beyond the encoder's limit, blanks around, capitals, accents, digits, nothing."""
    limit = transformer_of(encoder).max_seq_length or 512
    return [
        "stop gradients from flowing",
        " Two  blanks, and CAPITALS in the Café; 3.14 ",
        "",
        "naïve – “quoted” text, 日本語 and a [MASK]",
        "word " * (limit + 40),
        "the rain in Spain stays mainly in the plain " * 3,
    ]


def tolerance(encoder: SentenceTransformer) -> float:
    """The largest difference allowed for this backbone's precision."""
    first = next(transformer_of(encoder).model.parameters())
    return FLOAT32 if first.dtype == torch.float32 else HALF


def check_equal(got: Array, encoder: SentenceTransformer, side: Side, route: Route, what: str, allowed: float) -> None:
    """Compare embeddings of `proof_texts` with the encoder's own.

    Args:
        got: (texts, d), compared as the encoder's own are: unit length where its similarity is the cosine.
        encoder: what they have to equal.
        side: how its texts are encoded.
        route: by what.
        what: the name for the message.
        allowed: largest difference of a value, as a share of the largest length where that is above 1.

    Raises:
        PromptError: they differ.
    """
    expected = encode(encoder, proof_texts(encoder), side, route=route, quiet=True)
    length = max(1.0, float(np.linalg.norm(expected, axis=1).max()))
    difference = float(np.abs(got - expected).max()) / length
    if not difference <= allowed:  # NaN is a difference too
        raise PromptError(
            f"{what}: the export's embeddings differ from the encoder's by {difference:.2g} (allowed: {allowed:g}), so "
            "nothing was written: this backbone cannot be exported in this form"
        )
