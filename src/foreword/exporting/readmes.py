"""The README.md of an exported folder: what it is, and how it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from foreword.prompts.backbone import Backbone
from foreword.prompts.routes import Route

if TYPE_CHECKING:
    from foreword.exporting.plain import NamedPrompt

_HEAD = """---
library_name: {library}
tags:
- foreword
- {library}
---

# {name}

"""


def head(name: str, library: str) -> str:
    """The beginning of a README: front matter as the hub reads it, and the title."""
    return _HEAD.format(name=name, library=library)


def origin(backbone: Backbone | None) -> str:
    """A sentence that says which backbone it is."""
    if backbone is None:
        return "The backbone's origin is not known."
    revision = f", revision {backbone.revision}" if backbone.revision else ""
    return f"Backbone: `{backbone.name}`{revision}, SHA-256 of its weights `{backbone.fingerprint}`."


def plain_readme(
    name: str, named: Sequence[NamedPrompt], default: str | None, backbone: Backbone | None, limit: int | None
) -> str:
    """Of a plain sentence-transformers folder."""
    rows = "\n".join(f"| `{one.name}` | {one.domain} | {' and '.join(one.sides)} |" for one in named)
    first = named[0]
    queries = next((one.name for one in named if "query" in one.sides), first.name)
    documents = next((one.name for one in named if one.domain == first.domain and "document" in one.sides), None)
    how = f', prompt_name="{documents}"' if documents else ""
    by_default = (
        f'Without a name, `encode_query` and `encode_document` take those of `{default}`; `encode(texts, prompt="")` '
        "is the base model."
        if default is not None
        else "Without a name the base model encodes."
    )
    cut = (
        f"Behind a named prompt texts are cut to {limit} tokens; without one, to as many more as the prompt is long."
        if limit is not None
        else ""
    )
    return f"""{head(name, "sentence-transformers")}\
A plain sentence-transformers model with a named prompt for each domain.

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{name}")
queries = model.encode_query(["a query"], prompt_name="{queries}")
documents = model.encode_document(["a document"]{how})
```

| prompt_name | domain | of |
| --- | --- | --- |
{rows}

{by_default} A named prompt is a string of made-up words, each of which is one learned vector; pooling leaves them out.
{cut}

{origin(backbone)} Made by Foreword.
"""


def prompted_readme(name: str, domains: Sequence[str], route: Route, backbone: Backbone | None) -> str:
    """Of a folder that Foreword's own module reads."""
    listed = ", ".join(f"`{domain}`" for domain in domains)
    usual = "the base model" if route is None else f"`{route}`" if isinstance(route, str) else "the stored mixture"
    which = f', domain="{domains[0]}"' if route is None or isinstance(route, str) else ""
    return f"""{head(name, "sentence-transformers")}\
Prompts for a frozen sentence-transformers model; the backbone is not in this folder. Needs `pip install foreword`.

```python
import foreword

encoder = foreword.load_encoder("{name}")

# or, which imports the same code:
from sentence_transformers import SentenceTransformer

encoder = SentenceTransformer("{name}", trust_remote_code=True)
encoder.encode_query(["a query"]{which})
```

Domains: {listed}. Texts that name none are encoded by {usual}.

{origin(backbone)}
"""


PREFIX_SNIPPET = """\
PEFT moves a text's positions by the prompt's length; Foreword leaves them where they are. For equal results give PEFT
positions that are so much less:

```python
mask = batch["attention_mask"]
positions = {positions} - model.active_peft_config.num_virtual_tokens
model(**batch, position_ids=positions)
```
"""


def peft_readme(
    name: str, parts: Mapping[str, str], notes: Sequence[str], backbone: Backbone | None, loader: str = "AutoModel"
) -> str:
    """Of PEFT adapter files.

    Args:
        name: the folder's.
        parts: `query` or `document`, or `both`, and the place of its adapter below the folder.
        notes: what to know, paragraphs.
        backbone: whose prompts they are.
        loader: the class of transformers that loads the backbone alone.
    """
    rows = "\n".join(f"| {part} | `{place or '.'}` |" for part, place in parts.items())
    subfolder = next(iter(parts.values()))
    where = f', subfolder="{subfolder}"' if subfolder else ""
    said = "".join(f"\n{note.rstrip()}\n" for note in notes)
    base = backbone.name if backbone else "BACKBONE"
    return f"""{head(name, "peft")}\
A prompt as PEFT stores it.

```python
from peft import PeftModel
from transformers import {loader}

model = PeftModel.from_pretrained({loader}.from_pretrained("{base}"), "{name}"{where}).eval()
```

| encodes | adapter |
| --- | --- |
{rows}
{said}
Pool over the text's positions alone. {origin(backbone)} Made by Foreword; `foreword import` reads it again.
"""


def onnx_readme(name: str, card: Mapping[str, Any]) -> str:
    """Of an ONNX graph; `card` is the contents of its `foreword_onnx.json`."""
    rows = "\n".join(
        f"| `{one['name']}` | {one['type']} | {' x '.join(map(str, one['shape']))} | {one['meaning']} |"
        for one in card["inputs"]
    )
    files = "\n".join(
        f"| {entry['domain']} | {side} | `{file}` |"
        for entry in card["prompts"]
        for side, file in entry["files"].items()
    )
    first = next(iter(card["prompts"][0]["files"].values()))
    texts = card["text_prompts"]
    before = f" Put the backbone's own words before a text: {texts}." if texts else ""
    cut = f" Texts are cut to {card['max_length']} tokens." if card["max_length"] is not None else ""
    return f"""{head(name, "onnx")}\
`model.onnx` is the backbone, its pooling and what follows it; the prompt is an input, so one file serves every domain.

```python
import numpy as np
import onnxruntime
from transformers import AutoTokenizer

session = onnxruntime.InferenceSession("{name}/model.onnx")
tokenizer = AutoTokenizer.from_pretrained("{name}")
prompt = dict(np.load("{name}/{first}"))
batch = tokenizer(["a query"], padding=True, truncation=True, max_length={card["max_length"]}, return_tensors="np")
needed = {{i.name for i in session.get_inputs()}}
inputs = {{k: v.astype(np.int64) for k, v in batch.items() if k in needed}}
(embeddings,) = session.run(None, inputs | prompt)  # (texts, {card["width"]})
```

| input | type | shape | what |
| --- | --- | --- | --- |
{rows}

| domain | encodes | prompt |
| --- | --- | --- |
{files}

`base` is the base model. Embeddings are compared by their inner products{card["scores"]}.{before}{cut}

{card["origin"]} Made by Foreword.
"""
