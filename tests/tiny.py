"""Tiny random models, a toy collection and trainings of few steps, made by the tests themselves: nothing is downloaded."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from foreword.collections.collection import Collection, Document, MemoryCollection, Query
from foreword.prompts.encoder import transformer_of
from foreword.prompts.kinds.kind import kind_of
from foreword.prompts.prompt import Prompt
from foreword.prompts.spec import PromptSpec
from foreword.training.config import TrainingConfig
from foreword.training.folds import run_course

POSITIONS = 48
"""Positions that every tiny backbone has."""

FAMILIES = ("bert", "roberta", "distilbert", "xlm-roberta", "modernbert", "t5", "qwen3")

_ONSETS, _VOWELS, _CODAS = "bdfgklmnprstvz", "aeiou", "nrlst"


@cache
def words(count: int = 240) -> list[str]:
    """Made-up words, the same ones each time."""
    made = [f"{a}{b}{c}{d}" for a in _ONSETS for b in _VOWELS for c in _CODAS for d in _VOWELS]
    random.Random(0).shuffle(made)
    return made[:count]


def tokenizer(family: str) -> PreTrainedTokenizerFast:
    """A word-piece tokenizer of `words()` with the special tokens, and the padding side, of a family."""
    family = family.partition("-gated")[0]
    special = {
        "qwen3": {"pad_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
        "t5": {"pad_token": "<pad>", "eos_token": "</s>"},
    }.get(family)
    if special is None and ("roberta" in family or family == "mpnet"):
        special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "cls_token": "<s>"}
        special |= {"sep_token": "</s>", "mask_token": "<mask>"}
    if special is None:
        special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,"
    listed = [*dict.fromkeys(special.values()), "[UNK]", *letters, *(f"##{letter}" for letter in letters), *words()]
    vocabulary = {token: index for index, token in enumerate(listed)}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    first, last = special.get("cls_token"), special.get("sep_token", special.get("eos_token"))
    ends = [token for token in (first, last) if token is not None]
    made.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}" if first else f"$A {last}",
        special_tokens=[(token, vocabulary[token]) for token in ends],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        unk_token="[UNK]",
        model_max_length=POSITIONS,
        padding_side="left" if family == "qwen3" else "right",
        model_input_names=["input_ids", "attention_mask"],
        **special,
    )


def config(family: str, tokens: Any, *, layers: int = 2) -> Any:
    """The configuration of a tiny model: width 32, four heads; the word embeddings of electra and albert have 16."""
    family, gated, _ = family.partition("-gated")
    common = {"vocab_size": len(tokens), "pad_token_id": tokens.pad_token_id, "initializer_range": 0.25}
    usual = {"hidden_size": 32, "num_hidden_layers": layers, "num_attention_heads": 4, "intermediate_size": 48}
    unused = 2 if family in ("roberta", "xlm-roberta", "mpnet") else 0  # they count positions from 2
    positions = {"max_position_embeddings": POSITIONS + unused}
    own: dict[str, dict[str, Any]] = {
        "distilbert": {"dim": 32, "n_layers": layers, "n_heads": 4, "hidden_dim": 48, **positions},
        "t5": {
            **{"d_model": 32, "d_kv": 8, "num_layers": layers, "num_heads": 4, "d_ff": 48, "initializer_factor": 1.0},
            "feed_forward_proj": "gated-gelu" if gated else "relu",
        },
        "electra": {**usual, **positions, "embedding_size": 16},
        "albert": {**usual, **positions, "embedding_size": 16},
        "modernbert": {
            **usual,
            **positions,
            "local_attention": 8,
            "global_attn_every_n_layers": 2,
            "cls_token_id": tokens.cls_token_id,
            "sep_token_id": tokens.sep_token_id,
            "bos_token_id": None,
            "eos_token_id": None,
        },
        "qwen3": {**usual, **positions, "num_key_value_heads": 2, "head_dim": 8, "eos_token_id": tokens.eos_token_id},
    }
    if family == "t5":
        common.pop("initializer_range")
    return AutoConfig.for_model(family, **common, **own.get(family, {**usual, **positions}))


def save_model(
    folder: Path,
    family: str = "bert",
    *,
    layers: int = 2,
    pooling: str | tuple[str, ...] | None = None,
    normalize: bool = False,
    seed: int = 0,
) -> Path:
    """A tiny random sentence-transformers model in `folder`: transformer, pooling and, if asked, normalisation."""
    tokens = tokenizer(family)
    torch.manual_seed(seed)
    if family.startswith("t5"):
        from transformers import T5EncoderModel

        model: Any = T5EncoderModel(config(family, tokens, layers=layers))
    else:
        model = AutoModel.from_config(config(family, tokens, layers=layers))
    transformers_logging.disable_progress_bar()
    raw = folder.with_name(f"{folder.name}-raw")
    model.save_pretrained(raw)
    tokens.save_pretrained(raw)
    transformer = Transformer(str(raw))
    mode = pooling or ("lasttoken" if family == "qwen3" else "mean")
    modules: list[Any] = [transformer, Pooling(32, pooling_mode=mode)]
    SentenceTransformer(modules=[*modules, Normalize()] if normalize else modules, device="cpu").save(
        str(folder), create_model_card=False
    )
    return folder


def sentences(count: int, *, seed: int = 0, least: int = 2, most: int = 12) -> list[str]:
    """Texts of different lengths."""
    chance = random.Random(seed)
    return [" ".join(chance.choices(words(), k=chance.randint(least, most))) for _ in range(count)]


def random_prompt(encoder: SentenceTransformer, spec: PromptSpec, seed: int = 0, *, scale: float = 1.0) -> Prompt:
    """A prompt that changes a lot: random values everywhere, also in the gate."""
    generator = torch.Generator().manual_seed(seed)
    shapes = kind_of(spec).shapes(spec, transformer_of(encoder).shape)
    return Prompt(
        spec,
        {
            f"{part}.{name}": torch.randn(shape, generator=generator) * scale
            for part in spec.parts
            for name, shape in sorted(shapes.items())
        },
    )


def toy_collection(
    name: str = "toy/one",
    *,
    seed: int = 0,
    documents: int = 60,
    splits: Sequence[str] = ("train", "dev", "test"),
) -> MemoryCollection:
    """Short documents, and queries of some of their words; each document has a first sentence to ask with."""
    chance = random.Random(f"{name} {seed}")
    corpus: list[Document] = []
    for number in range(documents):
        topic = chance.sample(words(), 12)
        first = " ".join(chance.sample(topic, 4)).capitalize()
        rest = " ".join(chance.sample(topic, 12)).capitalize()
        corpus.append(Document(f"d{number}", f"{first}. {rest}."))
    counts = {"train": 32, "dev": 12, "test": 12}
    queries: dict[str, tuple[Query, ...]] = {}
    judgements: dict[str, dict[str, dict[str, int]]] = {}
    free = list(range(documents))
    for split in splits:
        chosen, free = free[: counts[split]], free[counts[split] :] if split != "train" else free[counts[split] - 8 :]
        made = []
        for number in chosen:
            rest = corpus[number].text.rstrip(".").lower().split(". ")[1].split()
            made.append(Query(f"{split}{number}", " ".join(chance.sample(rest, 4))))
        queries[split] = tuple(made)
        judgements[split] = {q.query_id: {f"d{n}": 1} for q, n in zip(made, chosen, strict=True)}
    return MemoryCollection(name, "toy", tuple(corpus), queries, judgements)


def write_beir(folder: Path, collection: Collection) -> Path:
    """A collection in BEIR's layout."""
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": d.doc_id, "title": d.title, "text": d.text, "metadata": {}} for d in collection.documents()]
    queries = [{"_id": q.query_id, "text": q.text} for split in collection.splits for q in collection.queries(split)]
    for name, records in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    for split in collection.splits:
        lines = [f"{q}\t{d}\t{r}\n" for q, docs in collection.qrels(split).items() for d, r in docs.items()]
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return folder


def pdf(text: str) -> bytes:
    """A PDF of one page with a line of text, by hand: https://opensource.adobe.com/dc-acrobat-sdk-docs/pdfstandards/."""
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, places = b"%PDF-1.4\n", list[int]()
    for number, each in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return out + b"xref\n0 6\n0000000000 65535 f \n%strailer << /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (
        table,
        len(out),
    )


def docx(*paragraphs: tuple[str, str]) -> bytes:
    """A Word file of paragraphs `(style, text)`: the least that ECMA-376 wants."""
    body = "".join(f'<w:p><w:pPr><w:pStyle w:val="{s}"/></w:pPr><w:r><w:t>{t}</w:t></w:r></w:p>' for s, t in paragraphs)
    namespace = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    package = "http://schemas.openxmlformats.org/package/2006"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    main = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("word/document.xml", f"<w:document {namespace}><w:body>{body}</w:body></w:document>")
        file.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{package}/relationships">'
            f'<Relationship Id="r1" Type="{office}" Target="word/document.xml"/></Relationships>',
        )
        file.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{package}/content-types">'
            f'<Override PartName="/word/document.xml" ContentType="{main}"/></Types>',
        )
    return out.getvalue()


@contextmanager
def short_trainings(steps: int | None = None, *, folds: int = 2) -> Iterator[None]:
    """Whoever trains meanwhile, does with so many folds where there are more, and with at most so many steps."""

    def short(encoder: Any, data: Any, trainee: Any, work: Path, config: TrainingConfig, **how: Any) -> Any:
        if steps is not None and config.steps > steps:
            config = replace(config, steps=steps, evaluate_every=-(-steps // 2))
        return run_course(encoder, data, trainee, work, replace(config, dev_folds=min(config.dev_folds, folds)), **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("foreword.training.train.run_course", short)
        yield
