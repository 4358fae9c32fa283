"""What embedding, training and search cost here, beside what others take for the same: `python benchmarks/speed.py`.

All ways take turns, so that a machine that slows down slows all of them, and what counts are their ratios. Made-up
texts of mixed lengths, random vectors. What the machine can do is measured too: by the products of a feed-forward layer
alone, and by copying memory.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

import foreword
from foreword.collections.collection import Document, MemoryCollection, Query
from foreword.exporting.onnx import export_onnx
from foreword.lab.in_domain import training_seconds
from foreword.prompts.backbone import resolve_backbone
from foreword.prompts.encoder import alike, encode, resolve_precision, transformer_of
from foreword.prompts.spec import PromptSpec
from foreword.prompts.start import new_prompt
from foreword.prompts.store import library_versions, load_prompt
from foreword.retrieval.search import exact_search
from foreword.settings import DEFAULT_BACKBONE
from foreword.training.config import StartConfig, TrainingConfig
from foreword.training.group import train_group
from foreword.training.train import train

PARTS = ("encode", "train", "group", "search")
BERT_BASE = "bert-base"
"""A backbone of BERT-base's size with random weights, made here, for machines on which MiniLM is too small to tell."""
KINDS = {"memory": PromptSpec(), "gated": PromptSpec("gated", 16)}
GROUP = 8
"""Domains that are trained in one pass, and one by one."""
FEW, MANY = 2, 8
"""Steps of two trainings; what a step takes is their difference, so that what is done once does not count."""
BATCH, QUERY_LENGTH, DOCUMENT_LENGTH = 32, 32, 128

Ways = Mapping[str, Callable[[], Any]]
"""Something to time, by name; one that returns a `float` has timed itself: those seconds."""


def made_texts(count: int, most: int, seed: int = 0, least: int = 8) -> list[str]:
    """Texts of `least` to `most` words."""
    draw = random.Random(seed)
    words = ["the", "index", "returns", "a", "vector", "for", "each", "query", "of", "its", "domain", "prompt"]
    return [" ".join(draw.choice(words) for _ in range(draw.randint(least, most))) for _ in range(count)]


def in_turn(ways: Ways, rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each round, after one that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, run in ways.items():
            began = time.perf_counter()
            own = run()
            if number:
                seconds[name].append(round(own if isinstance(own, float) else time.perf_counter() - began, 4))
    return seconds


# -- the machine -----------------------------------------------------------------------------------------------------


def multiplied(rows: int, width: int, dtype: torch.dtype, device: torch.device, seconds: float = 1.0) -> float:
    """GFLOP a second in products (rows, width) x (width, 4 width), as in a feed-forward layer."""
    a = torch.randn(rows, width, dtype=dtype, device=device)
    b = torch.randn(width, 4 * width, dtype=dtype, device=device)
    return 8 * rows * width**2 / _each(lambda: torch.mm(a, b), device, seconds) / 1e9


def copied(device: torch.device, seconds: float = 1.0) -> float:
    """GB a second, read and written, in copies of 256 MB."""
    a = torch.zeros(2**26, device=device)
    b = torch.empty_like(a)
    return 2 * a.nbytes / _each(lambda: b.copy_(a), device, seconds) / 1e9


def _each(run: Callable[[], Any], device: torch.device, seconds: float) -> float:
    """Seconds a call, of as many as take so long."""
    run()
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        run()
        count += 1
        if device.type != "cpu":
            torch.accelerator.synchronize()
    return (time.perf_counter() - began) / count


def machine(device: torch.device, width: int, precisions: Sequence[str]) -> dict[str, Any]:
    """Its kind, its rates and the versions of the libraries."""
    capability = torch.cuda.get_device_name() if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {
        "device": f"{device.type}, {capability}",
        "threads": torch.get_num_threads(),
        "gflops": {name: round(multiplied(2048, width, getattr(torch, name), device), 1) for name in precisions},
        "gigabytes_per_second": round(copied(device), 1),
        "versions": library_versions(),
    }


# -- embedding -------------------------------------------------------------------------------------------------------


def encoding(
    encoder: SentenceTransformer,
    plain: SentenceTransformer,
    texts: Sequence[str],
    domains: int,
    ways: Sequence[str],
    work: Path,
) -> tuple[Ways, float]:
    """The ways to embed `texts`, and the GFLOP that the model alone takes for them, padding left out.

    `ways` are precisions; `domains` are in each batch of 64, the texts shared out to them in turn.
    """
    transformer, given = transformer_of(encoder), list(texts)
    for kind, spec in KINDS.items():
        for number in range(domains):
            prompt = new_prompt(encoder, spec, seed=number)
            prompt.assign({name: torch.randn_like(value) * 0.02 for name, value in prompt.tensors().items()})
            transformer.add(f"{kind}{number}", prompt)

    def apart() -> None:
        for number in range(domains):
            plain.encode(given[number::domains], batch_size=64)

    found: dict[str, Callable[[], Any]] = {
        "sentence-transformers, float32": partial(plain.encode, given, batch_size=64)
    }
    found[f"sentence-transformers, float32, the texts of {domains} domains apart"] = apart
    if find_spec("onnxscript") and find_spec("onnxruntime") and encoder.device.type == "cpu":
        export_onnx(encoder, work / "onnx", routes={"memory0": "memory0"})
        found["onnxruntime, memory, one domain, float32"] = _by_onnxruntime(encoder, work / "onnx", given)
    for precision in ways:
        how: dict[str, Any] = {"precision": precision, "quiet": True, "batch_size": 64}
        embed = partial(encode, encoder, given, "document", **how)
        found[f"no prompt, {precision}"] = partial(embed, route=None)
        for kind in KINDS:
            many = [f"{kind}{number % domains}" for number in range(len(given))]
            found[f"{kind}, one domain, {precision}"] = partial(embed, route=f"{kind}0")
            found[f"{kind}, {domains} domains, {precision}"] = partial(embed, domains=many)
    model: Any = transformer.model
    weights = sum(p.numel() for name, p in model.named_parameters() if "embeddings" not in name)
    lengths = [
        len(encoder.tokenizer(text, truncation=True, max_length=encoder.max_seq_length).input_ids) for text in given
    ]
    attention = 4 * model.config.num_hidden_layers * transformer.shape.width
    flop = sum(length * (2 * weights + attention * length) for length in lengths)
    return found, flop / 1e9


def _by_onnxruntime(encoder: SentenceTransformer, folder: Path, texts: Sequence[str]) -> Callable[[], None]:
    """Runs the exported graph, with its prompt, on texts in the batches that `encode` takes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    prompt, names = dict(np.load(folder / "prompts" / "memory0.npz")), {one.name for one in session.get_inputs()}
    how: dict[str, Any] = {"padding": True, "truncation": True, "max_length": encoder.max_seq_length}

    def run() -> None:
        left = sorted(texts, key=len, reverse=True)
        while left:
            count = alike(np.array([len(text) for text in left[:64]]))
            tokens = encoder.tokenizer(left[:count], return_tensors="np", **how)
            session.run(None, prompt | {name: value for name, value in tokens.items() if name in names})
            left = left[count:]

    return run


# -- training --------------------------------------------------------------------------------------------------------


def labelled(pairs: int) -> MemoryCollection:
    """Made-up queries, a document for each: of the lengths of Natural Questions and of DPR's passages, 100 words."""
    asked, written = made_texts(pairs, 14, seed=1, least=6), made_texts(pairs, 100, seed=2, least=100)
    numbers = [str(number) for number in range(pairs)]
    documents = tuple(Document(n, "", f"{n} {text}") for n, text in zip(numbers, written, strict=True))
    queries = {"train": tuple(Query(n, f"{n} {text}") for n, text in zip(numbers, asked, strict=True))}
    return MemoryCollection("made", "made", documents, queries, {"train": {n: {n: 1} for n in numbers}})


def training(encoder: SentenceTransformer, path: Path, work: Path, precisions: Sequence[str]) -> Ways:
    """The ways to train on 32 pairs; each gives the seconds of a step."""
    collection, number = labelled(BATCH * MANY), iter(range(10**9))
    again = labelled(BATCH * FEW)  # from the third step on, all texts are known

    def prompt(side: Any, precision: Any, top: int | None = None, data: MemoryCollection = collection) -> float:
        def seconds(steps: int) -> float:
            how: dict[str, Any] = {"batch_size": BATCH, "evaluate_every": 0, "dev_queries": 0, "precision": precision}
            how |= {"query_length": QUERY_LENGTH, "document_length": DOCUMENT_LENGTH}
            config = TrainingConfig.default(side, steps=steps, **how)
            many = 16 if top is None else 16 * layers // top  # as many numbers
            spec = PromptSpec(sides="query" if side == "query" else "shared", feed_forward=many, top_layers=top)
            made = train(encoder, data, work / str(next(number)), config=config, start=StartConfig(spec), quiet=True)
            return training_seconds(made)

        return (seconds(MANY) - seconds(FEW)) / (MANY - FEW)

    def by_sentence_transformers(lora: bool, precision: str) -> float:
        seconds = [_trained(path, collection, work, steps, lora=lora, precision=precision) for steps in (FEW, MANY)]
        return (seconds[1] - seconds[0]) / (MANY - FEW)

    found: dict[str, Callable[[], float]] = {}
    layers = len(transformer_of(encoder).shape.layers)
    for precision in precisions:
        found[f"sentence-transformers, full, {precision}"] = partial(by_sentence_transformers, False, precision)
        if find_spec("peft"):
            found[f"sentence-transformers, LoRA, {precision}"] = partial(by_sentence_transformers, True, precision)
        found[f"prompt, both sides, {precision}"] = partial(prompt, "both", precision)
        found[f"prompt, query side, {precision}"] = partial(prompt, "query", precision)
        for top in (layers // 2, layers // 3):
            found[f"prompt, both sides, top {top} layers, {precision}"] = partial(prompt, "both", precision, top)
            kept = partial(prompt, "both", precision, top, again)
            found[f"prompt, both sides, top {top} layers, texts seen before, {precision}"] = kept
    return found


def group(encoder: SentenceTransformer, work: Path, domains: int, precisions: Sequence[str]) -> Ways:
    """The ways to train a prompt for each of some domains of 64 pairs; each gives the seconds of a step of all."""
    number = iter(range(10**9))

    def step(precision: Any, together: int) -> float:
        def seconds(steps: int) -> float:
            how: dict[str, Any] = {"batch_size": BATCH, "evaluate_every": 0, "dev_queries": 0, "precision": precision}
            config = TrainingConfig.default("query", steps=steps, **how)
            names, bank = [f"made/{domain}" for domain in range(domains)], work / f"bank{next(number)}"
            how = {"config": config, "together": together, "quiet": True}
            made = train_group(encoder, names, bank, load=lambda name: replace(labelled(2 * BATCH), id=name), **how)
            return sum(training_seconds(load_prompt(one.prompt)) for one in made)

        return (seconds(MANY) - seconds(FEW)) / (MANY - FEW)

    return {
        f"query side, {way}, {precision}": partial(step, precision, together)
        for precision in precisions
        for way, together in (("one by one", 1), ("in one pass", domains))
    }


def _trained(path: Path, collection: MemoryCollection, work: Path, steps: int, *, lora: bool, precision: str) -> float:
    """Seconds that sentence-transformers' own trainer takes."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    model = SentenceTransformer(str(path))
    model.max_seq_length = DOCUMENT_LENGTH
    if lora:
        from peft import LoraConfig, TaskType

        model.add_adapter(LoraConfig(task_type=TaskType.FEATURE_EXTRACTION, r=8, lora_alpha=16))
    pairs = list(collection.pairs("train"))
    data = Dataset.from_dict({"query": [p.query for p in pairs], "document": [p.document for p in pairs]})
    how: dict[str, Any] = {"save_strategy": "no", "logging_strategy": "no", "report_to": "none", "disable_tqdm": True}
    how |= {"bf16": precision == "bfloat16", "use_cpu": model.device.type == "cpu", "dataloader_pin_memory": False}
    arguments = SentenceTransformerTrainingArguments(
        str(work / "plain"), max_steps=steps, per_device_train_batch_size=BATCH, **how
    )
    trainer = SentenceTransformerTrainer(model, arguments, data, loss=MultipleNegativesRankingLoss(model))
    began = time.perf_counter()
    trainer.train()
    return time.perf_counter() - began


# -- search ----------------------------------------------------------------------------------------------------------


def searching(queries: int, documents: int, width: int, k: int, folder: Path) -> Ways:
    """Exact search of random unit vectors: ours from memory and from a mapped file, and FAISS where it is installed."""
    draw = np.random.default_rng(0)
    vectors, asked = (_unit(draw.standard_normal((n, width), dtype=np.float32)) for n in (documents, queries))
    np.save(folder / "vectors.npy", vectors)
    found: dict[str, Callable[[], Any]] = {}
    if find_spec("faiss"):
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        index = faiss.IndexFlatIP(width)
        index.add(vectors)
        found["FAISS, IndexFlatIP"] = partial(index.search, asked, k)
    found["exact_search, in memory"] = partial(exact_search, asked, *_named(asked, vectors), k)
    mapped = np.load(folder / "vectors.npy", mmap_mode="r")
    found["exact_search, from a mapped file"] = partial(exact_search, asked, *_named(asked, mapped), k)
    return found


def _unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _named(asked: Any, vectors: Any) -> tuple[list[str], list[tuple[list[str], Any]]]:
    return [f"q{n}" for n in range(len(asked))], [([f"d{n}" for n in range(len(vectors))], vectors)]


def resident(path: Path, queries: int, k: int, threads: int) -> dict[str, float]:
    """MiB that a process of its own holds at most, when it has loaded torch, and after a search of the mapped file."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_resident, (path, queries, k, threads))


def _resident(path: Path, queries: int, k: int, threads: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    before = _held()
    mapped = np.load(path, mmap_mode="r")
    asked = _unit(np.random.default_rng(1).standard_normal((queries, mapped.shape[1]), dtype=np.float32))
    exact_search(asked, *_named(asked, mapped), k)
    return {"before": before, "most": _held()}


def _held() -> float:
    """MiB that this process has held at most, on Linux."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM")), float("nan"))


# -- all of it -------------------------------------------------------------------------------------------------------


def random_bert(folder: Path) -> Path:
    """A sentence-transformers model of BERT-base's size with random weights, and MiniLM's tokenizer."""
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    BertModel(BertConfig()).save_pretrained(folder / "backbone")
    AutoTokenizer.from_pretrained(resolve_backbone(DEFAULT_BACKBONE).path).save_pretrained(folder / "backbone")
    transformer = Transformer(str(folder / "backbone"), max_seq_length=256)
    SentenceTransformer(modules=[transformer, Pooling(768, "mean")]).save_pretrained(str(folder / BERT_BASE))
    return folder / BERT_BASE


def measure(
    backbone: str = DEFAULT_BACKBONE,
    *,
    parts: Sequence[str] = PARTS,
    texts: int = 256,
    words: int = 180,
    domains: int = 64,
    documents: int = 100_000,
    queries: int = 1000,
    rounds: int = 5,
    int8: bool = False,
) -> dict[str, Any]:
    """Seconds of every way in every round, by part, and what the machine can do.

    Args:
        backbone: a name or a folder, or `bert-base`.
        parts: of `PARTS`.
        texts: that are embedded, shared out to the domains in turn.
        words: of the longest.
        domains: in each batch of 64.
        documents: that are searched.
        queries: that are searched for.
        rounds: of all ways in turn.
        int8: measure embedding in int8 too.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        path = random_bert(work) if backbone == BERT_BASE else resolve_backbone(backbone).path
        encoder = foreword.load_encoder(str(path) if backbone == BERT_BASE else backbone)
        device, width = encoder.device, transformer_of(encoder).shape.width
        fast = resolve_precision("auto", device)
        precisions = list(dict.fromkeys(("float32", fast)))
        found: dict[str, Any] = {"backbone": backbone, "machine": machine(device, width, precisions)}
        if "encode" in parts:
            plain = SentenceTransformer(str(path), device=str(device))
            ways, gflop = encoding(
                encoder, plain, made_texts(texts, words), domains, [*precisions, *(["int8"] if int8 else [])], work
            )
            found["encode"] = {"texts": texts, "gflop": round(gflop, 1), "seconds": in_turn(ways, rounds)}
            transformer_of(encoder).remove_all()
        if "train" in parts:
            found["train"] = {
                "batch": BATCH,
                "seconds": in_turn(training(encoder, path, work, precisions), rounds),
            }
        if "group" in parts:
            found["group"] = {"domains": GROUP, "batch": BATCH}
            found["group"]["seconds"] = in_turn(group(encoder, work, GROUP, precisions), rounds)
        if "search" in parts:
            width, k, threads = 384, 100, torch.get_num_threads()
            ways = searching(queries, documents, width, k, work)
            found["search"] = {"documents": documents, "queries": queries, "width": width, "k": k}
            found["search"] |= {"seconds": in_turn(ways, rounds)}
            found["search"]["resident_mib"] = resident(work / "vectors.npy", queries, k, threads)
        if device.type == "cuda":
            found["machine"]["gpu_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        return found


def shown(found: Mapping[str, Any]) -> str:
    """The figures as Markdown tables: medians, their spread, and the ratio to the first way."""
    able = found["machine"]
    rates = ", ".join(f"{rate:,.0f} GFLOP/s in {name}" for name, rate in able["gflops"].items())
    lines = [
        f"{found['backbone']} on {able['device']}, {able['threads']} threads; products alone {rates}; memory "
        f"{able['gigabytes_per_second']:,.0f} GB/s."
    ]
    for part in (name for name in PARTS if name in found):
        figures = found[part]
        facts = ", ".join(f"{name} {value:,}" for name, value in figures.items() if isinstance(value, int | float))
        lines += ["", f"| {part}: {facts} | s | from, to | times as fast |", "| :-- | --: | --: | --: |"]
        first = median(next(iter(figures["seconds"].values())))
        for name, each in figures["seconds"].items():
            middle = median(each)
            lines.append(f"| {name} | {middle:.3f} | {min(each):.3f}, {max(each):.3f} | {first / middle:.2f} |")
    if "encode" in found:
        own = found["encode"]["gflop"] / median(found["encode"]["seconds"]["no prompt, float32"])
        lines += [
            "",
            f"Embedding in float32: {own:,.0f} GFLOP/s, {own / able['gflops']['float32']:.0%} of the products'.",
        ]
    if "search" in found:
        held = found["search"]["resident_mib"]
        lines += [
            "",
            f"Search of the mapped file: {held['most']:,.0f} MiB resident at most ({held['before']:,.0f} before).",
        ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE, help=f"{BERT_BASE}: random weights of its size")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    for name, default in (("texts", 256), ("domains", 64), ("documents", 100_000), ("queries", 1000), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default, help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, help="a JSON file")
    options = vars(parser.parse_args())
    output: Path | None = options.pop("output")
    int8 = all(map(find_spec, ("nncf", "openvino"))) and not torch.accelerator.is_available()
    found = measure(**options, int8=int8)
    print(shown(found))
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
