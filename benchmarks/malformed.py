"""Strangers' files: good ones of every kind that Foreword reads, altered by chance, and what comes of each.

An input is a number: with one seed, the same number is the same change, whatever runs before it. It is `refused` when a
`ForewordError` names the file, and `right` when what was read is what an independent reader finds in it, where there
is one for the kind. All else is a fault: another exception, a message without the file, other data, more than
`SECONDS` of computing, more than `BYTES` of memory.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import random
import re
import resource
import shutil
import signal
import tarfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytrec_eval
from defects.data import passage, write_topic
from pyarrow import parquet
from safetensors.numpy import load_file
from sentence_transformers import SentenceTransformer
from serve_bank import SPECS, config, save, save_bank
from tiny import docx, pdf, save_model, toy_collection, write_beir

from foreword.collections.collection import Collection
from foreword.collections.dpr import convert
from foreword.collections.registry import load
from foreword.collections.views import read_hard_negatives
from foreword.downloads.archives import extract
from foreword.errors import ForewordError
from foreword.evaluation.measures import evaluate_run
from foreword.exporting.peft import export_peft, import_peft
from foreword.lab.in_domain import load_in_domain
from foreword.lab.recipe import read_recipe
from foreword.lab.records import load_plan
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.loading import load_encoder
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import CARD, WEIGHTS, attach_mixture, load_prompt
from foreword.retrieval.runs import read_qrels, read_run
from foreword.serving.api import bank_view
from foreword.serving.config import read_config
from foreword.serving.prompts import read_prompts
from foreword.training.vectors import read_vectors

SECONDS, BYTES = 20, 10**9
"""What one file may take, in time and in memory."""


@dataclass(frozen=True)
class Kind:
    """Files that are read together.

    Attributes:
        make: writes good ones into an empty folder.
        read: all that is made of them, as commands do.
        same: whether an independent reader finds in them what was read; whatever it raises says that it reads none.
    """

    make: Callable[[Path], object]
    read: Callable[[Path], Any]
    same: Callable[[Path, Any], bool] | None = None


# -- files of texts and numbers ------------------------------------------------------------------------------------


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Files by their names."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def everything(collection: Collection) -> dict[str, Any]:
    """All that a collection holds."""
    return {
        "documents": [(each.doc_id, each.title, each.text) for each in collection.documents()],
        "queries": {split: [(q.query_id, q.text) for q in collection.queries(split)] for split in collection.splits},
        "qrels": {split: collection.qrels(split) for split in collection.splits},
        "pairs": [list(collection.pairs(split)) for split in collection.splits if split != "test"],
    }


def in_a_folder(folder: Path) -> dict[str, Any]:
    """The collection in `toy`."""
    return everything(load(f"folder:{folder / 'toy'}"))


def same_documents(folder: Path, found: Any) -> bool:
    """The lines of `corpus.jsonl` by `json` alone."""
    rows = [json.loads(line) for line in (folder / "toy" / "corpus.jsonl").read_text("utf-8-sig").split("\n") if line]
    return bool([(str(row["_id"]), row.get("title") or "", row["text"]) for row in rows] == found["documents"])


def beir(folder: Path) -> None:
    """A folder in BEIR's layout, with hard negatives."""
    write_beir(folder / "toy", toy_collection(documents=30))
    rows = [json.dumps({"query_id": f"train{n}", "doc_ids": [f"d{n + 9}", "d20"]}) + "\n" for n in range(3)]
    write_files(folder / "toy", {"hard-negatives/train.jsonl": "".join(rows)})


def notes(folder: Path) -> None:
    """Notes of every form, and labels."""
    files: dict[str, str | bytes] = {
        "a.pdf": pdf("Pumps are serviced in May."),
        "b.docx": docx(("Heading1", "Leave"), ("Normal", "Thirty days.")),
        "c.html": "<html><title>Wiki</title><body><h1>Receipts</h1><p>Keep <a href='x'>them</a>.</p></body></html>",
        "d.md": "---\ntitle: One\ntags: [a, b]\n---\n# Head\n\nWords.",
        "e.txt": "plain words\n",
        "f.rst": "T\n=\nwords",
        "labels.tsv": "query\tfile\tgrade\nwhich pumps\ta.pdf\t2\nwhat days\tb.docx\n",
    }
    write_files(folder / "toy", files)


def cranfield(folder: Path) -> None:
    """Glasgow's SMART format."""
    files = {
        "cran.all.1400": ".I 1\n.T\na wing\n.A\nsomeone\n.B\n1958\n.W\na wing\n  it\nflies .\n.I 2\n.T\nother\n.W\n",
        "cran.qry": ".I 001\n.W\nfirst\n.I 004\n.W\nfourth is\nsecond\n",
        "cranqrel": "1 1 2 \n1 2 -1\n2 2 1\n",
    }
    write_files(folder / "cran", {name: text.replace("\n", "\r\n") for name, text in files.items()})


def dpr(folder: Path) -> None:
    """DPR's pair of files."""
    for split in ("train", "dev"):
        names = [f"{split}{n}" for n in range(4)]
        examples = [
            {
                **{"dataset": "toy", "question": f"what is {name}?", "answers": ["it"], "negative_ctxs": []},
                **{"positive_ctxs": [passage(name, "is")], "hard_negative_ctxs": [passage(f"{name}n", "is not")]},
            }
            for name in names
        ]
        write_files(folder, {f"{split}.json": json.dumps(examples)})


def trec(folder: Path) -> None:
    """A run and judgements."""
    run = [f"q{q} Q0 d{d} {d + 1} {1 / (d + 1)} tag\n" for q in range(3) for d in range(4)]
    qrels = [f"q{q} 0 d{d} {d % 3}\n" for q in range(3) for d in range(4)]
    write_files(folder, {"run.trec": "".join(run), "qrels.trec": "".join(qrels)})


def read_trec(folder: Path) -> Any:
    """Both, and their measures."""
    run, qrels = read_run(folder / "run.trec"), read_qrels(folder / "qrels.trec")
    if any(qrels.values()):
        evaluate_run(run, qrels, ["nDCG@10", "AP", "Bpref"])
    return run, qrels


def same_trec(folder: Path, found: Any) -> bool:
    """By pytrec_eval's own readers; they keep empty queries out of judgements, and take no header."""
    with (
        open(folder / "run.trec", encoding="utf-8-sig") as run,
        open(folder / "qrels.trec", encoding="utf-8-sig") as qrels,
    ):
        theirs = pytrec_eval.parse_run(run), pytrec_eval.parse_qrel(qrels)
    return bool(theirs == found)


def vectors(folder: Path) -> None:
    """Vectors and their ids, as `.npy` and as `.parquet`."""
    made = np.linspace(0, 1, 60, dtype=np.float32).reshape(5, 12)
    ids = [f"d{n}" for n in range(5)]
    np.save(folder / "v.npy", made)
    write_files(folder, {"v.ids.txt": "".join(f"{one}\n" for one in ids)})
    parquet.write_table(pyarrow.table({"doc_id": ids, "vector": list(made)}), folder / "w.parquet")


def read_both(folder: Path) -> Any:
    """Ids and values of both."""
    found = [read_vectors(folder / name) for name in ("v.npy", "w.parquet")]
    return [(list(each.doc_ids), np.asarray(each.vectors)) for each in found]


def same_vectors(folder: Path, found: Any) -> bool:
    """By numpy and pyarrow."""
    table = parquet.read_table(folder / "w.parquet")
    rows = [np.load(folder / "v.npy", allow_pickle=False), np.array(table.column("vector").to_pylist(), np.float32)]
    lines = (folder / "v.ids.txt").read_text("utf-8-sig").split("\n")
    ids = [[line for line in lines if line], table.column("doc_id").to_pylist()]
    theirs = zip(ids, rows, strict=True)
    return all(
        names == i and np.array_equal(v, r, equal_nan=True) for (names, v), (i, r) in zip(found, theirs, strict=True)
    )


ARCHIVED = {"toy/a.txt": b"words " * 400, "toy/b.bin": random.Random(0).randbytes(900)}


def archive(name: str) -> Kind:
    """An archive, of the kind that its name's ending says."""

    def make(folder: Path) -> None:
        if name.endswith("zip"):
            with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as zipped:
                for inner, data in ARCHIVED.items():
                    zipped.writestr(zipfile.ZipInfo(inner), data, zipfile.ZIP_DEFLATED)
            return
        with tarfile.open(folder / name, f"w:{name.rpartition('.')[2].replace('tar', '')}") as tar:  # type: ignore[call-overload]
            for inner, data in ARCHIVED.items():
                info = tarfile.TarInfo(inner)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))

    def read(folder: Path) -> dict[str, bytes]:
        out = extract(folder / name, folder / "out", limit=10**7)
        return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def same(folder: Path, found: dict[str, bytes]) -> bool:
        if zipfile.is_zipfile(folder / name):
            with zipfile.ZipFile(folder / name) as zipped:
                return found == {one.filename: zipped.read(one) for one in zipped.infolist()}
        with tarfile.open(folder / name) as tar:
            return found == {one.name: tar.extractfile(one).read() for one in tar if one.isfile()}  # type: ignore[union-attr]

    return Kind(make, read, same)


# -- what belongs to a model -----------------------------------------------------------------------------------------


class Models:
    """Files of prompts and models, with the tiny model that they belong to."""

    def __init__(self, work: Path) -> None:
        """Make the model in `work`."""
        self.work, self.model = work, save_model(work / "model")
        self.encoder = load_encoder(str(self.model), device="cpu")

    @contextlib.contextmanager
    def carrying(self) -> Iterator[Any]:
        """The encoder's transformer; afterwards it carries no prompts."""
        try:
            yield transformer_of(self.encoder)
        finally:
            transformer_of(self.encoder).remove_all()

    def prompt(self, folder: Path) -> None:
        """A prompt of two sides."""
        save(folder, self.encoder, "toy/untied", SPECS["toy/untied"])

    def read_prompt(self, folder: Path) -> Any:
        """Its values and its card, once it has embedded a text."""
        stored = load_prompt(folder / "toy-untied", self.encoder)
        with self.carrying() as transformer:
            transformer.add(stored.domain, stored.prompt)
            vector = encode(self.encoder, ["a text"], "query", route=stored.domain, quiet=True)
        return stored.prompt.tensors(), stored.card, vector

    @staticmethod
    def same_prompt(folder: Path, found: Any) -> bool:
        """By safetensors and `json`; an embedding has no NaN."""
        values, card, vector = found
        theirs = load_file(folder / "toy-untied" / WEIGHTS)
        told = json.loads((folder / "toy-untied" / CARD).read_text("utf-8"))
        equal = all(np.array_equal(values[name].numpy(), theirs[name]) for name in theirs)
        return equal and len(values) == len(theirs) and dict(card) == told and bool(np.isfinite(vector).all())

    def bank(self, folder: Path) -> None:
        """Prompts of three kinds, a mixture, and figures of them."""
        save_bank(folder / "bank", self.encoder)
        shutil.rmtree(folder / "sources")
        row = {"collection": "toy/shared", "system": "toy-shared", "measures": {"nDCG@10": 0.5}}
        write_files(
            folder / "bank", {"evaluation/group.json": json.dumps({"format": "foreword-group/1", "rows": [row]})}
        )

    def read_bank(self, folder: Path) -> Any:
        """What a service shows of it."""
        with self.carrying():
            served = read_prompts(self.encoder, config(self.model, folder / "bank"), {})
            return bank_view(self.encoder, served, folder / "bank")

    def mixture(self, folder: Path) -> None:
        """A mixture alone."""
        save_bank(folder / "bank", self.encoder)
        (folder / "bank" / "mixed").rename(folder / "mixed")
        for other in ("bank", "sources"):
            shutil.rmtree(folder / other)

    def read_mixture(self, folder: Path) -> Any:
        """What it makes of a text."""
        with self.carrying():
            return encode(
                self.encoder, ["a text"], "query", route=attach_mixture(self.encoder, folder / "mixed"), quiet=True
            )

    def adapter(self, folder: Path) -> None:
        """A prompt as PEFT has it."""
        made = save(self.work / "peft", self.encoder, "toy/input", PromptSpec("input", 3, placement="before"))
        with self.carrying() as transformer:
            transformer.add("toy/input", load_prompt(made, self.encoder).prompt)
            export_peft(self.encoder, folder / "adapter")

    def read_adapter(self, folder: Path) -> Any:
        """Its vectors, as a prompt's."""
        return (
            import_peft(folder / "adapter", self.encoder, folder / "out", "toy")
            .prompt.tensors()["both.vectors"]
            .numpy()
        )

    @staticmethod
    def same_adapter(folder: Path, found: Any) -> bool:
        """By safetensors."""
        return np.array_equal(load_file(folder / "adapter" / "adapter_model.safetensors")["prompt_embeddings"], found)

    def saved(self, folder: Path) -> None:
        """What `save_pretrained` writes of an encoder with a prompt."""
        made = save(self.work / "own", self.encoder, "toy/own", SPECS["toy/shared"])
        load_encoder(str(self.model), device="cpu", prompt=made).save_pretrained(str(folder / "encoder"))

    def backbone(self, folder: Path) -> None:
        """A sentence-transformers model."""
        shutil.copytree(self.model, folder / "encoder")

    @staticmethod
    def embed(folder: Path) -> Any:
        """What the encoder in the folder makes of texts."""
        return load_encoder(str(folder / "encoder"), device="cpu").encode(
            ["a text", "another one"], show_progress_bar=False
        )

    @staticmethod
    def same_vectors(folder: Path, found: Any) -> bool:
        """By sentence-transformers."""
        plain = SentenceTransformer(str(folder / "encoder"), device="cpu", local_files_only=True)
        theirs = plain.encode(["a text", "another one"], normalize_embeddings=True, show_progress_bar=False)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return bool(np.isfinite(found).all() and np.allclose(found / np.maximum(lengths, 1e-12), theirs, atol=1e-5))


SERVICE = """\
host = "127.0.0.1"
port = 81
collections = ["toy/one"]
batch_texts = 8
[use]
"toy/one" = "toy/two"
[[keys]]
name = "team"
key = "a-key-of-sixteen-letters"
domains = ["toy/one"]
"""


def kinds(work: Path) -> dict[str, Kind]:
    """Every kind, by name; the models that they share are made in `work`."""
    models, lab = Models(work), resources.files("foreword.lab")

    def of_the_lab(name: str, read: Callable[[Path], Any]) -> Kind:
        text, own = lab.joinpath(name).read_text("utf-8"), Path(name).name
        return Kind(lambda folder: write_files(folder, {own: text}), lambda folder: read(folder / own))

    return {
        "run, qrels": Kind(trec, read_trec, same_trec),
        "collection": Kind(beir, in_a_folder, same_documents),
        "hard negatives": Kind(beir, lambda f: read_hard_negatives(f / "toy" / "hard-negatives" / "train.jsonl")),
        "notes": Kind(notes, in_a_folder),
        "OAG-QA": Kind(
            lambda f: write_topic(f, "geometry", [(f"What of {n}?", [f"Title {n % 10}"]) for n in range(20)]),
            lambda f: everything(load("oag-qa/geometry", data=f)),
        ),
        "Glasgow": Kind(cranfield, lambda f: everything(load("glasgow/cranfield", data=f))),
        "DPR": Kind(dpr, lambda f: everything(load(f"folder:{convert(f / 'train.json', f / 'dev.json', f / 'out')}"))),
        "vectors": Kind(vectors, read_both, same_vectors),
        "prompt": Kind(models.prompt, models.read_prompt, models.same_prompt),
        "bank": Kind(models.bank, models.read_bank),
        "mixture": Kind(models.mixture, models.read_mixture),
        "PEFT adapter": Kind(models.adapter, models.read_adapter, models.same_adapter),
        "saved encoder": Kind(models.saved, models.embed),
        "backbone": Kind(models.backbone, models.embed, models.same_vectors),
        "service": Kind(
            lambda f: write_files(f, {"serve.toml": SERVICE}), lambda f: read_config(f / "serve.toml", {}, {})
        ),
        "plan": of_the_lab("transfer.toml", load_plan),
        "plan in a domain": of_the_lab("in-domain.toml", load_in_domain),
        "recipe": of_the_lab("recipes/oag-qa-domains.toml", read_recipe),
        **{name: archive(name) for name in ("a.zip", "a.tar", "a.tar.gz", "a.tar.xz", "a.tar.bz2")},
    }


# -- altering them ---------------------------------------------------------------------------------------------------

ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, 1e-320, 10**30, -(10**30), 2**63, float("nan"), float("inf"), "1e999", "a" * 5000),
    *("", " ", "..", "a/../../b", "a\0b", "\ud83c", "\u202e", "base", "*"),
    *([], {}, [[]], {"": None}, [None], {"a": {"b": []}}, ["a", 1]),
)
# fmt: off
WORDS: tuple[bytes, ...] = (
    b"nan", b"-1", b"1e999", b"9" * 5000, b"0x1p3", b"1_000", b"\xd9\xa1", b"", b"\0", b"..", b"'", b'"""', b"[" * 3000,
    b"\\ud83c", b"true", b"null", b"{}", b"[]", b"= =", b"\xef\xbb\xbf", b"\xc0\xaf", b"\xe2\x80\xa8", b"1.0", b"1e0",
)
OTHERS: tuple[bytes, ...] = (
    b"", b"\x80\x04K\x01.", b"PK\x05\x06" + bytes(18), b"\x89PNG\r\n\x1a\n", b"<html></html>", b"version https://git-lfs",
    b"\xff\xfe", b"\n" * 5, b"[]", b"{}", b"null", b"0", b"\x93NUMPY\x01\0", b"\x1f\x8b\x08", bytes(4096), b"\0" * 8,
    b"[" * 100_000, b'{"a":' * 50_000, b"\xff" * 8 + b"{}", b"a = " + b"[" * 90_000,
)
"""Contents of other kinds."""
# fmt: on


def odd_json(value: Any, chance: random.Random) -> Any:
    """A JSON value with one part of it another: of another type, gone, twice, or under another name."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.25:
        return chance.choice(ODD)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key, what = chance.choice(keys), chance.random()
    changed: Any = dict(value) if isinstance(value, dict) else list(value)
    if what < 0.15:
        del changed[key]
    elif what < 0.25 and isinstance(changed, dict):
        changed[str(chance.choice(ODD))] = changed.pop(key)
    elif what < 0.3 and isinstance(changed, list):
        changed.insert(key, changed[key])
    else:
        changed[key] = odd_json(value[key], chance)
    return changed


def altered(data: bytes, chance: random.Random) -> bytes:
    """The bytes of a file, changed in one way; what it is of decides which ways there are."""
    spans = [match.span() for match in re.finditer(rb"[\w.+-]+", data[:20_000])] or [(0, 0)]
    lines, at = data.splitlines(keepends=True) or [b""], chance.randrange(len(data) + 1)
    to = min(len(data), at + chance.choice((1, 2, 8, 100)))
    start, end = chance.choice(spans)
    number = chance.randrange(len(lines))
    few = bytes(chance.randrange(256) for _ in range(chance.choice((1, 2, 8))))
    ways: list[Callable[[], bytes]] = [
        lambda: data[:at],
        lambda: data[:at] + data[to:],
        lambda: data[:at] + few + data[at:],
        lambda: data[:at] + few + data[at + len(few) :],
        lambda: data[:at] + bytes(to - at) + data[to:],
        lambda: data[:to] + data[at:],
        lambda: data + chance.choice((few, data, b"\n", b"\0", b"}")),
        lambda: chance.choice(OTHERS),
        lambda: data[:start] + chance.choice(WORDS) + data[end:],
        lambda: data[:start] + chance.choice(WORDS) + data[end:],
        lambda: b"".join((*lines[:number], *lines[number + 1 :])),
        lambda: b"".join((*lines[: number + 1], *lines[number:])),
        lambda: b"".join((*lines[:number], *lines[number:][::-1])),
        lambda: gzip.compress(data, mtime=0)[: chance.choice((None, -9, 20))],
    ]
    try:
        text = data.decode("utf-8")
        recoded = ("utf-8-sig", "utf-16", "utf-32", "utf-16-be", "latin-1", "utf-7")
        ways.append(lambda: text.encode(chance.choice(recoded), "replace"))
        ways.append(lambda: text.replace("\n", chance.choice(("\r\n", "\r", "\n\n", " \n", "\t\n", "\u2028"))).encode())
    except ValueError:
        pass
    with contextlib.suppress(ValueError, RecursionError):
        whole = json.loads(data)
        ways += [lambda: json.dumps(odd_json(whole, chance)).encode()] * 12
    with contextlib.suppress(ValueError, RecursionError):
        row = json.loads(lines[number])
        ways += [
            lambda: b"".join(
                (*lines[:number], json.dumps(odd_json(row, chance)).encode() + b"\n", *lines[number + 1 :])
            )
        ] * 12
    if data[8:9] == b"{":  # safetensors: the length of its header, then that
        size = int.from_bytes(data[:8], "little")
        with contextlib.suppress(ValueError, RecursionError):
            header = json.loads(data[8 : 8 + size])

            def reheaded() -> bytes:
                new = json.dumps(odd_json(header, chance)).encode()
                return len(new).to_bytes(8, "little") + new + data[8 + size :]

            ways += [reheaded] * 6
    return chance.choice(ways)()


def alter(folder: Path, chance: random.Random) -> Path:
    """Change a file below the folder; seldom it is gone, a folder, or a link to itself."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path, what = chance.choice(files), chance.random()
    if what > 0.03:
        for _ in range(chance.choice((1, 1, 1, 2))):
            path.write_bytes(altered(path.read_bytes(), chance))
        return path
    path.unlink()
    if what < 0.01:
        path.mkdir()
    elif what < 0.02:
        path.symlink_to(path)
    return path


# -- and reading them --------------------------------------------------------------------------------------------------


def attempt(kind: Kind, good: Path, folder: Path, chance: random.Random) -> tuple[str, str]:
    """What comes of one input, `refused`, `right` or `fault`, and what was said."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(good, folder)
    path = alter(folder, chance)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            found = kind.read(folder)
    except ForewordError as error:
        named = str(folder) in str(error) or path.name in str(error)
        return ("refused" if named else "fault"), f"{type(error).__name__}: {error}"
    except Exception as error:
        last = error.__traceback__
        while last and last.tb_next:
            last = last.tb_next
        where = f"{last.tb_frame.f_code.co_filename}:{last.tb_lineno}" if last else ""
        return "fault", f"{type(error).__name__}: {error} ({where})"
    try:
        equal = kind.same is None or kind.same(folder, found)
    except Exception as error:  # the independent reader has none
        return "right", f"read; the independent reader: {type(error).__name__}: {error}"
    return ("right", "") if equal else ("fault", "other data than an independent reader finds")


def resident(name: str) -> int:
    """Bytes of memory that this process has (`VmRSS`), or had at most since its peak was forgotten (`VmHWM`)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition(f"{name}:")[2].split()[0])


def attempts(numbers: Sequence[int], seed: int, work: Path, only: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """What comes of each input; the process has `SECONDS` for one, then a signal ends it."""
    there = {name: kind for name, kind in kinds(work / "models").items() if not only or name in only}
    for name, kind in there.items():
        (work / "good" / name).mkdir(parents=True)
        kind.make(work / "good" / name)
    names = list(there)
    pages = int(Path("/proc/self/statm").read_text().split()[0])  # what asks for 4 GB is ended before it takes them
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 4 * BYTES, resource.RLIM_INFINITY))
    for number in numbers:
        name = names[number % len(names)]
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of computing; and for one that waits without an end
        signal.alarm(30 * SECONDS)
        Path("/proc/self/clear_refs").write_text("5")  # the peak of memory begins anew
        began, had = time.process_time(), resident("VmRSS")
        outcome, said = attempt(there[name], work / "good" / name, work / "input", random.Random(f"{seed} {number}"))
        seconds, taken = time.process_time() - began, resident("VmHWM") - had
        if taken > BYTES:
            outcome, said = "fault", f"took {taken:,} bytes; {said}"
        yield {
            "number": number,
            "kind": name,
            "outcome": outcome,
            "said": said[:600],
            "seconds": seconds,
            "bytes": taken,
        }
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.alarm(0)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
