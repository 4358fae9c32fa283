"""What embedding costs here, without prompts, with one and with many in a batch: `python benchmarks/encode.py`.

Made-up texts of mixed lengths. All ways take turns, so that a machine that slows down slows all of them; plain
sentence-transformers, in float32, is one of them. What the processor can do is measured beside it, by the products of a
feed-forward layer alone.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

import foreword
from foreword.prompts.backbone import resolve_backbone
from foreword.prompts.encoder import encode, resolve_precision, transformer_of
from foreword.prompts.spec import PromptSpec
from foreword.prompts.start import new_prompt
from foreword.settings import DEFAULT_BACKBONE

KINDS = {"memory": PromptSpec(), "gated": PromptSpec("gated", 16)}


def made_texts(count: int, most: int, seed: int = 0) -> list[str]:
    """Texts of 8 to `most` words."""
    draw = random.Random(seed)
    words = ["the", "index", "returns", "a", "vector", "for", "each", "query", "of", "its", "domain", "prompt"]
    return [" ".join(draw.choice(words) for _ in range(draw.randint(8, most))) for _ in range(count)]


def multiplied(rows: int, width: int, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """GFLOP a second in products (rows, width) x (width, 4 width), as in a feed-forward layer."""
    a, b = torch.randn(rows, width, dtype=dtype), torch.randn(width, 4 * width, dtype=dtype)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        torch.mm(a, b)
        count += 1
    return count * 8 * rows * width**2 / (time.perf_counter() - began) / 1e9


def measure(
    backbone: str = DEFAULT_BACKBONE,
    *,
    texts: int = 256,
    words: int = 180,
    domains: int = 64,
    rounds: int = 5,
    int8: bool = False,
) -> dict[str, Any]:
    """Seconds for the texts, by way and precision.

    Args:
        backbone: a name or a folder.
        texts: so many, shared out to the domains in turn.
        words: of the longest.
        domains: in each batch of 64.
        rounds: of all ways in turn.
        int8: measure it too.
    """
    encoder, given = foreword.load_encoder(backbone), made_texts(texts, words)
    plain = SentenceTransformer(str(resolve_backbone(backbone).path), device=str(encoder.device))
    transformer = transformer_of(encoder)
    for kind, spec in KINDS.items():
        for number in range(domains):
            prompt = new_prompt(encoder, spec, seed=number)
            prompt.assign({name: torch.randn_like(value) * 0.02 for name, value in prompt.tensors().items()})
            transformer.add(f"{kind}{number}", prompt)
    fast = resolve_precision("auto", encoder.device)
    precisions = ["float32"] if fast == "float32" else ["float32", fast]
    ways: dict[str, Callable[[], Any]] = {"sentence-transformers, float32": partial(plain.encode, given, batch_size=64)}
    for precision in [*precisions, *(["int8"] if int8 else [])]:
        how: dict[str, Any] = {"precision": precision, "quiet": True, "batch_size": 64}
        embed = partial(encode, encoder, given, "document", **how)
        ways[f"no prompt, {precision}"] = partial(embed, route=None)
        for kind in KINDS:
            many = [f"{kind}{number % domains}" for number in range(texts)]
            ways[f"{kind}, one domain, {precision}"] = partial(embed, route=f"{kind}0")
            ways[f"{kind}, {domains} domains, {precision}"] = partial(embed, domains=many)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):  # the first one warms up
        for name, run in ways.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    width = transformer.shape.hidden
    return {
        "texts": texts,
        "threads": torch.get_num_threads(),
        "gflops": {name: round(multiplied(2048, width, getattr(torch, name)), 1) for name in precisions},
        "seconds": {name: [round(value, 4) for value in each[1:]] for name, each in seconds.items()},
    }


def shown(found: dict[str, Any]) -> str:
    """The figures as a Markdown table: medians, their spread, and the ratio to sentence-transformers."""
    first = median(found["seconds"]["sentence-transformers, float32"])
    lines = ["| way | s | from, to | times as fast |", "| :-- | --: | --: | --: |"]
    for name, each in found["seconds"].items():
        middle = median(each)
        lines.append(f"| {name} | {middle:.3f} | {min(each):.3f}, {max(each):.3f} | {first / middle:.2f} |")
    rates = ", ".join(f"{name} {rate:,.0f}" for name, rate in found["gflops"].items())
    return "\n".join([*lines, "", f"{found['texts']} texts, {found['threads']} threads; GFLOP/s in products: {rates}"])


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE)
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--domains", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="a JSON file")
    options = parser.parse_args()
    int8 = all(map(find_spec, ("nncf", "openvino"))) and not torch.accelerator.is_available()
    found = measure(options.backbone, texts=options.texts, domains=options.domains, rounds=options.rounds, int8=int8)
    print(shown(found))
    if options.output is not None:
        options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
