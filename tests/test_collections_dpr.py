"""DPR's files: format-true ones made here, plain, gzipped and one object a line."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from webserver import serve

from foreword.collections import dpr, load
from foreword.collections import dpr as dpr_convert
from foreword.collections.collection import DataWarning
from foreword.collections.dpr import DPR, Context, DigestTable, convert, examples
from foreword.collections.views import WithNegatives, find_hard_negatives, read_hard_negatives, write_hard_negatives
from foreword.downloads import Transport
from foreword.errors import DataError, UnknownNameError

COUNTS = {"train": 40, "dev": 12}


def context(number: int, *, name: str = "passage_id", text: str | None = None) -> dict[str, Any]:
    return {
        "title": f"Title {number}",
        "text": text if text is not None else f"Passage {number} says “ö” and\nmore.",
        "score": 1000 - number / 7,
        "title_score": number % 2,
        name: str(number),
    }


def example(split: str, number: int) -> dict[str, Any]:
    """Example `number` (from 1): positives 10n and 10n + 1, three hard negatives, the last shared with the next."""
    base = 10 * number + (100_000 if split == "dev" else 0)
    return {
        "dataset": "toy",
        "question": f"what is {split} {number}?",
        "answers": [f"answer {number}"],
        "positive_ctxs": [context(base), context(base + 1, name="psg_id")],
        "negative_ctxs": [context(base + 5)],
        "hard_negative_ctxs": [context(base + 2), context(base + 3), context(base + 13)],
    }


def records(split: str) -> list[dict[str, Any]]:
    return [example(split, number) for number in range(1, COUNTS[split] + 1)]


def packed(value: Any) -> bytes:
    return gzip.compress(json.dumps(value).encode(), mtime=0)


def files(folder: Path, train: Any = None, dev: Any = None) -> tuple[Path, Path]:
    """Two plain JSON files under DPR's names; bytes are written as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for split, value in (("train", train), ("dev", dev)):
        path = folder / f"biencoder-nq-{split}.json"
        value = records(split) if value is None else value
        path.write_bytes(value if isinstance(value, bytes) else json.dumps(value, indent=2).encode())
        paths.append(path)
    return paths[0], paths[1]


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_counts_and_the_first_nth_and_last_record(tmp_path: Path) -> None:
    out = convert(*files(tmp_path), tmp_path / "out")
    corpus = lines(out / "corpus.jsonl")
    # train: 40 x (1 positive + 3 negatives), each third negative being the next example's second one but for the last.
    assert len(corpus) == 40 * 3 + 1 + 12 * 4 + 1
    assert corpus[0] == {"_id": "10", "title": "Title 10", "text": "Passage 10 says “ö” and\nmore."}
    assert [doc["_id"] for doc in corpus[:5]] == ["10", "12", "13", "23", "20"]
    assert corpus[-1]["_id"] == "100133"
    queries = lines(out / "queries.jsonl")
    assert len(queries) == 52
    assert queries[0] == {"_id": "train-1", "text": "what is train 1?"}
    assert queries[16] == {"_id": "train-17", "text": "what is train 17?"}
    assert queries[-1] == {"_id": "dev-12", "text": "what is dev 12?"}
    train = (out / "qrels/train.tsv").read_text().splitlines()
    assert (len(train), train[0], train[1], train[-1]) == (
        41,
        "query-id\tcorpus-id\tscore",
        "train-1\t10\t1",
        "train-40\t400\t1",
    )
    dev = (out / "qrels/dev.tsv").read_text().splitlines()
    assert (len(dev), dev[1:3], dev[-1]) == (25, ["dev-1\t100010\t1", "dev-1\t100011\t1"], "dev-12\t100121\t1")
    hard = lines(out / "hard-negatives/train.jsonl")
    assert hard[0] == {"query_id": "train-1", "doc_ids": ["12", "13", "23"], "from": "dpr"}
    assert (len(hard), hard[-1]["query_id"]) == (40, "train-40")
    manifest = json.loads((out / "conversion.json").read_text())
    assert manifest["options"] == {"negatives": 8, "positives": "first"}
    assert manifest["sources"]["train"]["name"] == "biencoder-nq-train.json"
    assert manifest["sources"]["train"]["size"] == (tmp_path / "biencoder-nq-train.json").stat().st_size
    assert manifest["counts"] == {
        "train": {
            "examples": 40,
            "examples_without_positive": 0,
            "without_hard_negative": 0,
            "positives": 40,
            "positives_left_out": 40,
            "hard_negatives": 120,
            "hard_negatives_that_are_positive": 0,
        },
        "dev": {
            "examples": 12,
            "examples_without_positive": 0,
            "without_hard_negative": 0,
            "positives": 24,
            "positives_left_out": 0,
            "hard_negatives": 36,
            "hard_negatives_that_are_positive": 0,
        },
        "passages": len(corpus),
        "id_clashes": 0,
    }


def test_options(tmp_path: Path) -> None:
    sources = files(tmp_path)
    out = convert(*sources, tmp_path / "out", negatives=1, positives="all")
    assert (out / "qrels/train.tsv").read_text().count("\n") == 81
    assert [line["doc_ids"] for line in lines(out / "hard-negatives/train.jsonl")][:2] == [["12"], ["22"]]
    none = convert(*sources, tmp_path / "none", negatives=0)
    assert read_hard_negatives(none / "hard-negatives/train.jsonl") == {}
    with pytest.raises(UnknownNameError, match="first or all"):
        convert(*sources, tmp_path / "x", positives="some")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="0 or more"):
        convert(*sources, tmp_path / "x", negatives=-1)


def test_every_form_gives_the_same_folder(tmp_path: Path) -> None:
    wanted = contents(convert(*files(tmp_path / "a"), tmp_path / "a/out"))
    assert contents(convert(*files(tmp_path / "a"), tmp_path / "a/again")) == wanted
    one_a_line = {
        s: b"\xef\xbb\xbf" + "\n".join(json.dumps(r, ensure_ascii=False) for r in records(s)).encode() for s in COUNTS
    }
    zipped = {s: packed(records(s)) for s in COUNTS}  # told by content: the name says plain
    for number, form in enumerate((one_a_line, zipped)):
        sources = files(tmp_path / f"{number}", form["train"], form["dev"])
        made = contents(convert(*sources, tmp_path / f"{number}/out"))
        del made["conversion.json"]
        assert made == {name: content for name, content in wanted.items() if name != "conversion.json"}


def test_the_same_again_is_left_and_other_things_are_never_overwritten(tmp_path: Path) -> None:
    train, dev = files(tmp_path)
    out = convert(train, dev, tmp_path / "out")
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in out.rglob("*")}
    assert convert(train, dev, out) == out
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in out.rglob("*")} == before
    with pytest.raises(DataError, match="other options"):
        convert(train, dev, out, negatives=2)
    train.write_text(json.dumps(records("train")[:5]))
    with pytest.raises(DataError, match="other sources"):
        convert(train, dev, out)
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in out.rglob("*")} == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("kept")
    with pytest.raises(DataError, match=r"holds no conversion\.json"):
        convert(train, dev, other)
    assert contents(other) == {"mine.txt": b"kept"}


KILLED = """
import os, signal, sys
from pathlib import Path
from foreword.collections import dpr as dpr_convert
read = dpr_convert.examples
def examples(path):
    for example in read(path):
        if example.number == 7 and "dev" in path.name:
            os.kill(os.getpid(), signal.SIGKILL)
        yield example
dpr_convert.examples = examples
folder = Path(sys.argv[1])
dpr_convert.convert(folder / "biencoder-nq-train.json", folder / "biencoder-nq-dev.json", folder / "out")
"""


def test_killed_halfway_and_run_again(tmp_path: Path) -> None:
    sources = files(tmp_path)
    wanted = contents(convert(*sources, tmp_path / "reference"))
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert (tmp_path / ".out.partial").is_dir()
    assert contents(convert(*sources, tmp_path / "out")) == wanted
    assert not (tmp_path / ".out.partial").exists()


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    sources = files(tmp_path, dev=b'[{"question": "q", "positive_ctxs": []}, 3]')
    with pytest.raises(DataError, match="example 2: expected an object, got int"):
        convert(*sources, tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_examples_without_positive_are_counted_and_said(tmp_path: Path) -> None:
    train = records("train")[:5]
    train[1]["positive_ctxs"] = train[3]["positive_ctxs"] = []
    train[4]["hard_negative_ctxs"] = []
    sources = files(tmp_path, train)
    with pytest.warns(DataWarning, match="2 of 5 examples have no positive passage"):
        out = convert(*sources, tmp_path / "out")
    counts = json.loads((out / "conversion.json").read_text())["counts"]["train"]
    assert (counts["examples"], counts["examples_without_positive"], counts["without_hard_negative"]) == (5, 2, 1)
    assert [query["_id"] for query in lines(out / "queries.jsonl")][:6] == [
        *(f"train-{n}" for n in range(1, 6)),
        "dev-1",
    ]
    assert [line.split("\t")[0] for line in (out / "qrels/train.tsv").read_text().splitlines()[1:]] == [
        "train-1",
        "train-3",
        "train-5",
    ]
    assert list(read_hard_negatives(out / "hard-negatives/train.jsonl")) == ["train-1", "train-3"]


def test_two_passages_with_one_id_are_kept_apart(tmp_path: Path) -> None:
    train = records("train")[:3]
    train[1]["hard_negative_ctxs"] = [context(10, text="another text"), context(10), context(10, text="another text")]
    train[2]["hard_negative_ctxs"] = [context(10, text="another text"), context(10, text="a third text")]
    sources = files(tmp_path, train)
    with pytest.warns(DataWarning, match="2 passages share an id"):
        out = convert(*sources, tmp_path / "out")
    corpus = {doc["_id"]: doc["text"] for doc in lines(out / "corpus.jsonl")}
    hard = read_hard_negatives(out / "hard-negatives/train.jsonl")
    assert [corpus[doc_id] for doc_id in hard["train-2"]] == ["another text", context(10)["text"]]
    assert [corpus[doc_id] for doc_id in hard["train-3"]] == ["another text", "a third text"]
    assert hard["train-2"][0] == hard["train-3"][0] != "10"
    assert hard["train-2"][1] == "10"
    assert json.loads((out / "conversion.json").read_text())["counts"]["id_clashes"] == 2


def test_passages_without_id_and_negatives_that_are_positive(tmp_path: Path) -> None:
    nameless = {"title": None, "text": "nameless"}
    train = records("train")[:2]
    train[0]["positive_ctxs"] = [nameless, context(11)]
    train[0]["hard_negative_ctxs"] = [context(11), context(99, text=""), {"text": "nameless", "psg_id": ""}, context(4)]
    train[1]["positive_ctxs"] = [nameless, {"text": "b", "psg_id": 7}]
    train[1]["hard_negative_ctxs"] = [{"text": "c", "passage_id": "wiki 8"}]
    out = convert(*files(tmp_path, train), tmp_path / "out")
    assert read_hard_negatives(out / "hard-negatives/train.jsonl") == {"train-1": ("99", "4"), "train-2": ("wiki_8",)}
    qrels = [line.split("\t") for line in (out / "qrels/train.tsv").read_text().splitlines()[1:]]
    assert qrels[0][1] == qrels[1][1]
    assert qrels[0][1].startswith("text-")
    counts = json.loads((out / "conversion.json").read_text())["counts"]["train"]
    assert counts["hard_negatives_that_are_positive"] == 2


GOOD = json.dumps(records("train")[:3]).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD[: len(GOOD) - 40], "example 3: broken JSON .*cut"),
        (GOOD[:-1], "example 4: broken JSON"),
        (GOOD + b"]", "example 4: broken JSON"),
        (gzip.compress(GOOD, mtime=0)[:-20], "broken gzip file"),
        (gzip.compress(GOOD, mtime=0) + b"rest", "broken gzip file"),
        (b"", "it is empty"),
        (b'"text"', "expected a JSON list"),
        (b"[1]", "example 1: expected an object, got int"),
        (b'[{"question": "\xff", "positive_ctxs": []}]', "example 1: broken JSON .*UTF8"),
        (b"[" * 100_000, "example 1: broken JSON .*nested too deeply"),
        (b'{"a": ' * 100_000 + b"1" + b"}" * 100_000, "example 1: broken JSON .*nested too deeply"),
        (b'[{"question": ' + b"9" * 5000 + b"}]", "example 1: broken JSON"),
        (b'[{"positive_ctxs": []}]', "example 1: expected 'question', a text; got the fields positive_ctxs"),
        (b'[{"question": " ", "positive_ctxs": []}]', "example 1: the question is empty"),
        (b'[{"question": ["q"], "positive_ctxs": []}]', "expected 'question', a text; got list"),
        (b'[{"question": "q"}]', "expected 'positive_ctxs', a list of passages; got the fields question"),
        (b'[{"question": "q", "positive_ctxs": null}]', "expected 'positive_ctxs', a list of passages; got null"),
        (b'[{"question": "q", "positive_ctxs": [3]}]', "example 1, positive_ctxs 1: expected an object"),
        (b'[{"question": "q", "positive_ctxs": [{"title": "t"}]}]', "positive_ctxs 1: expected 'text'"),
        (b'[{"question": "q", "positive_ctxs": [{"text": "t", "psg_id": [1]}]}]', "psg_id must be"),
        (b'{"question": "q", "positive_ctxs": []}\n{"question": "q"}', "example 2: expected 'positive_ctxs'"),
        (b'{"question": "q", "positive_ctxs": []}\nx', "example 2: broken JSON"),
        (b'{"data": []}', "example 1: expected 'question', a text; got the fields data"),
    ],
)
def test_broken_files_are_named_with_the_example(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "train.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        list(examples(path))
    assert str(caught.value).startswith(f"{path}: ")


def test_an_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        list(examples(tmp_path))
    with pytest.raises(DataError, match="no such file"):
        convert(tmp_path / "none.json", tmp_path / "none.json", tmp_path / "out")


def test_the_collection(tmp_path: Path) -> None:
    files(tmp_path / "dpr" / "nq")
    raw = contents(tmp_path)
    nq = load("dpr/nq", data=tmp_path)
    assert contents(tmp_path).items() >= raw.items()
    assert (nq.id, nq.group, nq.splits, nq.exclude_self) == ("dpr/nq", "dpr", ("train", "dev"), False)
    assert sum(1 for _ in nq.documents()) == 170
    assert nq.qrels("train")["train-3"] == {"30": 1}
    assert nq.qrels("dev")["dev-3"] == {"100030": 1, "100031": 1}
    pairs = list(nq.pairs("train", hard_negatives=2))
    assert len(pairs) == 40
    assert pairs[2].query == "what is train 3?"
    assert pairs[2].document.startswith("Title 30 Passage 30")
    assert [text.partition(" says")[0] for text in pairs[2].negatives] == ["Title 32 Passage 32", "Title 33 Passage 33"]
    assert [len(pair.negatives) for pair in nq.pairs("dev")] == [3] * 24
    assert nq.facts["conversion"]["counts"]["passages"] == 170  # type: ignore[index]
    assert nq.facts["licence"] == "CC-BY-NC-4.0"
    other = load("dpr/nq", data=tmp_path, negatives=1, positives="all")
    assert len(list(other.pairs())) == 80
    assert (tmp_path / "dpr/nq/converted-1-all").is_dir()
    without = load("dpr/nq", data=tmp_path, exclude=[load("dpr/nq", data=tmp_path, negatives=1, positives="all")])
    assert list(without.pairs()) == []


def test_the_users_own_folder_and_what_is_available(tmp_path: Path) -> None:
    assert not any(entry.available for entry in DPR.entries(tmp_path))
    with pytest.raises(DataError, match=r"biencoder-webquestions-train\.json\.gz .* `foreword download dpr/webq`"):
        load("dpr/webq", data=tmp_path)
    (tmp_path / "webq").mkdir()
    for split in COUNTS:
        (tmp_path / f"webq/webquestions-{split}.json.gz").write_bytes(packed(records(split)))
    assert [entry.id for entry in DPR.entries(tmp_path) if entry.available] == ["dpr/webq"]
    assert len(list(load("dpr/webq", data=tmp_path).queries("dev"))) == 12
    (tmp_path / "webq/webquestions-dev.json.gz").write_bytes(packed(records("dev")[:3]))
    with pytest.raises(DataError, match="there is one of"):
        load("dpr/webq", data=tmp_path)
    for split in COUNTS:
        (tmp_path / f"webq/webquestions-{split}.json.gz").unlink()
    assert len(list(load("dpr/webq", data=tmp_path).queries("dev"))) == 12  # the conversion is enough
    with pytest.raises(UnknownNameError):
        DPR.load("nothing", data=tmp_path)
    assert DPR.knows("squad1")
    assert not DPR.knows("squad")


def test_download(tmp_path: Path) -> None:
    served = {f"/biencoder-squad1-{split}.json.gz": packed(records(split)) for split in COUNTS}
    with serve(served) as site:
        transport = Transport(mirrors=(site.url,), quiet=True)
        out = DPR.download("squad1", tmp_path, transport)
        assert out == tmp_path / "dpr/squad1/converted"
        before, asked = contents(tmp_path), len(site.requests)
        assert DPR.download("squad1", tmp_path, transport) == out
        assert (contents(tmp_path), len(site.requests)) == (before, asked)
    assert load("dpr/squad1", data=tmp_path).qrels("train")["train-40"] == {"400": 1}
    assert DPR.download("squad1", tmp_path, Transport(offline=True)) == out


def served_from(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Let DPR's own site be this one."""
    about = {**dpr.facts(), "base": f"{url}/own/"}
    monkeypatch.setattr(dpr, "facts", lambda: about)


@pytest.mark.parametrize("wrong", [b"<html>Please log in</html>", packed(records("dev"))[:-30]])
def test_a_mirror_with_a_wrong_file_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: bytes
) -> None:
    own = {f"/own/biencoder-nq-{split}.json.gz": packed(records(split)) for split in COUNTS}
    with serve({**own, "/mirror/biencoder-nq-dev.json.gz": wrong}) as site:
        served_from(monkeypatch, site.url)
        out = DPR.download("nq", tmp_path, Transport(mirrors=(f"{site.url}/mirror",), quiet=True, tries=1))
    assert out == tmp_path / "dpr/nq/converted"
    record = json.loads((tmp_path / ".records/dpr/nq/biencoder-nq-dev.json.gz.json").read_text())
    assert record["url"] == f"{site.url}/own/biencoder-nq-dev.json.gz"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(b"<html></html>", "not one of DPR's files"), (packed(records("dev"))[:-30], "broken gzip.*It was deleted")],
)
def test_a_wrong_file_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: bytes, message: str
) -> None:
    right = {f"/own/biencoder-nq-{split}.json.gz": packed(records(split)) for split in COUNTS}
    transport = Transport(quiet=True, tries=1)
    with serve({**right, "/own/biencoder-nq-dev.json.gz": wrong}) as site:
        served_from(monkeypatch, site.url)
        with pytest.raises(DataError, match=message):
            DPR.download("nq", tmp_path, transport)
        assert not [p for p in tmp_path.rglob("*nq-dev*") if p.suffix != ".lock"]
        site.files = right
        assert DPR.download("nq", tmp_path, transport).is_dir()


def test_a_broken_file_of_an_earlier_download_is_named_with_its_record(tmp_path: Path) -> None:
    for split in COUNTS:
        path = tmp_path / f"dpr/nq/biencoder-nq-{split}.json.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(packed(records(split))[:-30])
    with pytest.raises(DataError, match=r"broken gzip file \([^)]*\); get it again$"):  # the user's own
        load("dpr/nq", data=tmp_path)
    record = tmp_path / ".records/dpr/nq/biencoder-nq-train.json.gz.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    for attempt in (
        lambda: DPR.download("nq", tmp_path, Transport(offline=True)),
        lambda: load("dpr/nq", data=tmp_path),
    ):
        with pytest.raises(DataError, match=r"broken gzip.*delete .*biencoder-nq-train\.json\.gz and .*\.records"):
            attempt()


def test_every_url_is_that_of_the_dpr_site() -> None:
    known = dpr.facts()
    files = {name: about["file"] for name, about in known["collections"].items()}
    assert known["base"] == "https://dl.fbaipublicfiles.com/dpr/data/retriever/"
    assert files == {
        "nq": "nq",
        "trivia": "trivia",
        "webq": "webquestions",
        "curatedtrec": "curatedtrec",
        "squad1": "squad1",
    }


def test_the_digest_table_is_a_dictionary() -> None:
    import random

    chance, table, plain = random.Random(0), DigestTable(), dict[int, int]()
    digests = [chance.getrandbits(64) for _ in range(90_000)]
    for _ in range(150_000):
        key, value = chance.choice(digests), chance.getrandbits(64)
        known = plain.get(key)
        assert table.setdefault(key, value) == known
        plain.setdefault(key, value)
    assert len(table) == len(plain)


def test_hard_negative_files(tmp_path: Path) -> None:
    negatives = {"q1": ("d2", "d1"), "q2": ("d3",)}
    plain = write_hard_negatives(tmp_path / "hard-negatives/train.jsonl", negatives, "bm25")
    zipped = write_hard_negatives(tmp_path / "hard-negatives/dev.jsonl.gz", negatives, "bm25")
    assert plain.read_text().startswith('{"query_id": "q1", "doc_ids": ["d2", "d1"], "from": "bm25"}\n')
    assert read_hard_negatives(plain) == read_hard_negatives(zipped) == negatives
    first = zipped.read_bytes()
    assert write_hard_negatives(tmp_path / "other.jsonl.gz", negatives, "bm25").read_bytes() == first
    assert find_hard_negatives(tmp_path) == {"train": plain, "dev": zipped}
    assert find_hard_negatives(tmp_path / "none") == {}
    write_hard_negatives(tmp_path / "hard-negatives/train.jsonl.gz", negatives, "bm25")
    with pytest.raises(DataError, match="keep one of them"):
        find_hard_negatives(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"doc_ids": []}', "'query_id'"),
        ('{"query_id": "q2", "doc_ids": "d1"}', "'doc_ids', a list"),
        ('{"query_id": "q2", "doc_ids": [null]}', "an id"),
        ('{"query_id": "q1", "doc_ids": []}', "listed twice"),
        ('{"query_id": "q2", "doc_ids": ["a", "a"]}', "a document twice"),
        ("{", "broken JSON"),
    ],
)
def test_broken_hard_negative_files_name_the_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"query_id": "q1", "doc_ids": ["a"]}\n' + line)
    with pytest.raises(DataError, match=message) as caught:
        read_hard_negatives(path)
    assert caught.value.line == 2


def test_a_view_with_negatives(tmp_path: Path) -> None:
    files(tmp_path / "nq")
    nq = load("dpr/nq", data=tmp_path)
    view = WithNegatives(nq, {"train-1": ("40", "10", "43", "42"), "train-2": ("nowhere",)})
    with pytest.warns(DataWarning, match="1 hard negatives are not in the corpus"):
        pairs = list(view.pairs(hard_negatives=2))
    assert [text.partition(" says")[0] for text in pairs[0].negatives] == ["Title 40 Passage 40", "Title 43 Passage 43"]
    assert [len(pair.negatives) for pair in pairs[1:]] == [0] * 39
    assert [len(pair.negatives) for pair in view.pairs()][:2] == [3, 0]
    assert [pair.negatives for pair in view.pairs(hard_negatives=0)] == [()] * 40
    assert list(view.pairs("dev")) == list(nq.pairs("dev"))
    assert (view.id, view.splits, view.facts["hard_negatives"]) == ("dpr/nq", ("train", "dev"), {"train": 5})
    with pytest.raises(UnknownNameError):
        WithNegatives(nq, {}, "test")


def test_passages_are_records() -> None:
    assert Context("1", "t", "x") == Context("1", "t", "x")
    assert dpr_convert.NEGATIVES == 8


MEASURED = """
import sys
from pathlib import Path
from foreword.collections.dpr import convert
convert(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), negatives=30, positives="all")
status = Path("/proc/self/status").read_text()  # getrusage's figure would include the parent's before the exec
print(int(status.partition("VmHWM:")[2].split()[0]) // 1024)
"""


@pytest.mark.slow  # writes and converts 200 MB
def test_memory_is_bounded(tmp_path: Path) -> None:
    """A file of 200 MB with 150,000 different passages: the process stays under 100 MB in all."""
    words = " ".join(f"word{number}" for number in range(100))
    train = tmp_path / "train.json"
    with train.open("w") as file:
        for number in range(4_000):
            ctxs = [context(10_000_000 + 100 * number + place, text=f"{words} {number} {place}") for place in range(62)]
            record = {"question": f"question {number}?", "positive_ctxs": ctxs[:8], "hard_negative_ctxs": ctxs[8:38]}
            file.write(("[" if number == 0 else ",") + json.dumps({**record, "negative_ctxs": ctxs[38:]}))
        file.write("]")
    _, dev = files(tmp_path / "small")
    assert train.stat().st_size > 180e6
    command = [sys.executable, "-c", MEASURED, str(train), str(dev), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    print(f"{train.stat().st_size / 1e6:.0f} MB converted in {done.stdout.strip()} MiB of memory")
    assert int(done.stdout) < 100
