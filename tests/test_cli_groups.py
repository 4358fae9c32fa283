"""The commands on groups and on collections' files: download, train, evaluate, mine, sample."""

from __future__ import annotations

import csv
import io
import tarfile
from pathlib import Path

import pytest
from shell import Shell
from tiny import random_prompt, toy_collection, write_beir
from webserver import serve

from foreword.collections.registry import describe, group_names, grouped_catalogue, load, members
from foreword.collections.views import read_hard_negatives
from foreword.errors import UnknownNameError
from foreword.prompts.loading import load_encoder
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import read_card, save_prompt

FORUMS = [name.partition("/")[2] for name in members("cqadupstack")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the twelve forums of CQADupStack, tiny, and one collection with train and dev."""
    folder = tmp_path_factory.mktemp("data")
    for number, forum in enumerate(FORUMS):
        toy = toy_collection(f"cqadupstack/{forum}", seed=number, documents=24, splits=("test",))
        write_beir(folder / "beir" / "cqadupstack" / forum, toy)
    write_beir(folder / "beir" / "nfcorpus", toy_collection("beir/nfcorpus"))
    return folder


def test_groups() -> None:
    assert "beir" in group_names()
    assert all(describe(group) for group in group_names())
    expanded = members("beir-expanded")
    assert len(expanded) == 26
    assert "beir/cqadupstack" not in expanded
    assert set(members("cqadupstack")) < set(expanded)
    assert set(members("beir-full")) - set(members("beir")) == {
        "beir/signal1m",
        "beir/trec-news",
        "beir/robust04",
        "beir/bioasq",
    }
    assert len(FORUMS) == len(set(FORUMS)) == 12
    with pytest.raises(UnknownNameError, match="did you mean beir"):
        members("bier")
    rows = [(entry.group, entry.id) for entry in grouped_catalogue()]
    assert len(rows) == len(set(rows))
    assert [group for group, name in rows if name == "beir/nfcorpus"] == ["beir", "beir-full", "beir-expanded"]


def test_a_group_is_trained_and_evaluated(shell: Shell, data: Path, tiny_bert: Path, tmp_path: Path) -> None:
    common = ("--data", data, "--backbone", tiny_bert, "--device", "cpu", "--precision", "float32")
    quick = ("--steps", 2, "--evaluate-every", 2, "--batch-size", 8, "--dev-folds", 0, "--dtype", "float32")
    train = ("train", "--group", "cqadupstack", "--output", tmp_path / "bank", *common, *quick)
    trained = shell.json(*train)
    assert [entry["status"] for entry in trained["collections"]] == ["trained"] * 12
    card = read_card(tmp_path / "bank" / "cqadupstack-android")
    assert card["supervision"]["method"] == "pseudo-queries"
    again = shell.json(*train)
    assert [entry["status"] for entry in again["collections"]] == ["done"] * 12

    evaluate = (
        "evaluate",
        "--group",
        "cqadupstack",
        "--bank",
        tmp_path / "bank",
        "--output",
        tmp_path / "out",
        *common,
    )
    result = shell.json(*evaluate, "--systems", "base", "bm25", "bank", "--measures", "nDCG@10")
    assert len(result["rows"]) == 36
    bank = [row for row in result["rows"] if row["system"] == "bank"]
    assert {row["supervision"] for row in bank} == {"pseudo-queries"}
    mean = next(mean for mean in result["means"] if mean["system"] == "bank")
    values = [row["measures"]["nDCG@10"] for row in bank]
    assert mean["values"]["nDCG@10"] == pytest.approx(sum(values) / 12)
    table = shell(*evaluate, "--systems", "base", "bm25", "bank", "--measures", "nDCG@10", "--format", "csv")
    records = list(csv.DictReader(io.StringIO(table)))
    assert {record["collection"] for record in records} >= {f"cqadupstack/{forum}" for forum in FORUMS}
    latex = shell(*evaluate, "--systems", "base", "bm25", "bank", "--measures", "nDCG@10", "--format", "latex")
    assert r"\toprule" in latex


def test_every_prompt_of_a_bank_on_every_collection(shell: Shell, data: Path, tiny_bert: Path, tmp_path: Path) -> None:
    encoder = load_encoder(str(tiny_bert), device="cpu")
    for seed, name in enumerate(("android", "english")):
        prompt = random_prompt(encoder, PromptSpec(length=2), seed, scale=0.5)
        save_prompt(tmp_path / "bank" / f"cqadupstack-{name}", prompt, encoder, f"cqadupstack/{name}", dtype="float32")
    common = ("--data", data, "--backbone", tiny_bert, "--device", "cpu", "--measures", "nDCG@10")
    evaluate = ("evaluate", "--group", "cqadupstack", *common, "--output", tmp_path / "bank" / "evaluation")
    assert "--systems each needs --bank" in shell.fails(*evaluate, "--systems", "each")
    assert "--systems bank+bm25 needs --bank" in shell.fails(*evaluate, "--systems", "bank+bm25")
    both = shell.json(*evaluate, "--systems", "base+bm25", "--measures", "nDCG@10")
    assert {row["system"] for row in both["rows"]} == {"base+bm25"}
    result = shell.json(*evaluate, "--systems", "base", "each", "--bank", tmp_path / "bank")
    systems = ["base", "cqadupstack-android", "cqadupstack-english"]
    assert [row["system"] for row in result["rows"]] == systems * 12
    own = next(
        row for row in result["rows"] if row["collection"] == "cqadupstack/english" and row["system"] == systems[2]
    )
    alone = shell.json(
        *("evaluate", "cqadupstack/english", *common, "--prompt", tmp_path / "bank" / "cqadupstack-english")
    )
    assert own["measures"]["nDCG@10"] == pytest.approx(alone["measures"]["nDCG@10"])


def test_a_missing_collection_is_said_at_the_end(shell: Shell, data: Path, tiny_bert: Path, tmp_path: Path) -> None:
    said = shell(
        *("evaluate", "--group", "beir", "--data", data, "--systems", "bm25", "--output", tmp_path, "--measures", "AP"),
        code=1,
    )
    assert "beir/nfcorpus" in said
    assert "foreword download beir/scifact" in said
    assert "not scored by every system: beir/msmarco" in shell.printed.err
    quick = ("--steps", 2, "--dev-folds", 0, "--backbone", tiny_bert, "--device", "cpu", "--output", tmp_path / "bank")
    shell("train", "beir/nfcorpus", "beir/scifact", "--data", data, *quick, code=1)
    assert "failed: beir/scifact" in shell.printed.err
    assert read_card(tmp_path / "bank" / "beir-nfcorpus")["supervision"]["method"] == "train"


def test_folds_of_a_group_are_one_row(shell: Shell, data: Path, tiny_bert: Path, tmp_path: Path) -> None:
    name = "cqadupstack/android"
    common = ("--data", data, "--backbone", tiny_bert, "--device", "cpu", "--precision", "float32")
    quick = ("--steps", 2, "--evaluate-every", 2, "--batch-size", 4, "--dev-folds", 0)
    trained = shell.json("train", name, "--folds", 2, "--output", tmp_path / "bank", *common, *quick)
    ids = [entry["collection"] for entry in trained["collections"]]
    assert ids == [f"{name}#fold1of2", f"{name}#fold2of2"]
    fold = tmp_path / "bank" / "cqadupstack-android#fold1of2"
    own = shell.json("evaluate", f"{name}#fold1of2", "--prompt", fold, *common, "--measures", "AP")
    assert (own["supervision"], own["split"]) == ("k-fold", "test")
    assert "trained on test queries" in shell.fails("evaluate", name, "--prompt", fold, *common, "--measures", "AP")
    other = shell.fails("evaluate", f"{name}#fold2of2", "--prompt", fold, *common, "--measures", "AP")
    assert "trained on test queries" in other


def test_mined_negatives_train_and_a_sample_says_so(shell: Shell, beir: Path, tiny_bert: Path, tmp_path: Path) -> None:
    mined = shell.json("mine", f"folder:{beir}", "--output", tmp_path / "mined.jsonl", "--count", 2)
    assert mined["queries"] == 32
    listed = read_hard_negatives(tmp_path / "mined.jsonl")
    assert sum(map(len, listed.values())) == mined["negatives"] > 0
    trained = shell.json(
        *("train", f"folder:{beir}", "--negatives", tmp_path / "mined.jsonl", "--side", "both", "--steps", 2),
        *("--backbone", tiny_bert, "--device", "cpu", "--output", tmp_path / "it", "--batch-size", 8),
    )
    assert trained["supervision"]["method"] == "train"
    sample = shell.json("download", f"folder:{beir}", "--sample", 5, "--output", tmp_path / "sample")
    assert sample["of"] == 60
    scored = shell.json("evaluate", f"folder:{tmp_path / 'sample'}", "--system", "bm25", "--measures", "AP")
    assert scored["subsample"] == sample
    assert scored["documents"] < 60


def test_words_of_an_input_prompt(shell: Shell, tiny_bert: Path, tmp_path: Path) -> None:
    encoder = load_encoder(str(tiny_bert), device="cpu")
    for name, spec in (("a", PromptSpec("input", 3, sides="untied")), ("b", PromptSpec("gated", 2))):
        save_prompt(tmp_path / name, random_prompt(encoder, spec), encoder, name)
    record = shell.json("explain", "--bank", tmp_path, "--backbone", tiny_bert, "--device", "cpu", "--words", 2)
    assert [(entry["domain"], entry["part"], len(entry["rows"])) for entry in record["words"]] == [
        ("a", "query", 3),
        ("a", "document", 3),
    ]
    assert record["left_out"] == {"b": "gated"}
    assert "nearest words" in shell("explain", "--prompt", tmp_path / "a", "--backbone", tiny_bert, "--device", "cpu")
    assert "input" in shell.fails("explain", "--prompt", tmp_path / "b", "--backbone", tiny_bert, "--device", "cpu")


def test_download(shell: Shell, tmp_path: Path) -> None:
    made = tmp_path / "cisi.tar.gz"
    files = {
        "CISI.ALL": ".I 1\n.T\nTitle\n.A\nA\n.W\nWords of it.\n.X\n1\t5\t1\n",
        "CISI.QRY": ".I 1\n.W\nWhich words?\n",
        "CISI.REL": "     1      1\t0\t0.000000\n",
    }
    with tarfile.open(made, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    data = tmp_path / "data"
    with serve({"/cisi.tar.gz": made.read_bytes()}) as site:
        said = shell("download", "glasgow/cisi", "--data", data, "--mirror", site.url)
        assert "licence: " in said
        assert len(list(load("glasgow/cisi", data=data).documents())) == 1
        requests = len(site.requests)
        done = shell.json("download", "glasgow/cisi", "--data", data, "--mirror", site.url)
        assert done["failed"] == []
        assert len(site.requests) == requests
    assert shell("download", "pydoc/numpy", "beir/nfcorpus", "--data", data, "--offline", code=1) == ""
    assert "pydoc/numpy: there is nothing to download" in shell.printed.err
    assert "2 of 2 collections are not there: pydoc/numpy, beir/nfcorpus" in shell.printed.err


def test_json_rows_of_a_group(shell: Shell, data: Path) -> None:
    rows = shell.json("collections", "--group", "cqadupstack", "--data", data)
    assert [row["id"] for row in rows] == [f"cqadupstack/{forum}" for forum in FORUMS]
    assert all(row["available"] and row["group"] == "cqadupstack" for row in rows)
    (found,) = [
        row
        for row in shell.json("collections", "--data", data)
        if (row["group"], row["id"]) == ("beir", "beir/nfcorpus")
    ]
    assert found["queries"]["test"] == 323
    assert found["documents"] == 3633
    assert found["size"] > 2_000_000
    assert any(row["collection"] == "beir/nq" for row in shell.json("collections", "--seen"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("evaluate", "pydoc/tqdm", "--bank", "y"), "--bank is for a --group"),
        (("evaluate", "pydoc/tqdm", "--format", "latex"), "--format is for a --group"),
        (("evaluate", "--group", "glasgow", "--system", "bm25"), "--system is for one collection"),
        (("evaluate", "pydoc/tqdm", "--run", "y", "--prompt", "z"), "--prompt is not used with --run"),
        (("evaluate", "pydoc/tqdm", "--k", "5", "--measures", "R@100"), "fewer hits than the measures look at (100)"),
        (("train", "pydoc/tqdm", "--output", "y", "--negatives", "z"), "--negatives would do nothing here"),
        (("train", "pydoc/tqdm", "--output", "y", "--hard-negatives", "2"), "it needs --side both"),
        (
            ("train", "pydoc/tqdm", "--output", "y", "--side", "both", "--corpus-negatives", "5"),
            "it needs --side query",
        ),
        (
            ("train", "pydoc/tqdm", "--output", "y", "--supervision", "train", "--pseudo-queries", "span"),
            "it needs no --supervision train",
        ),
        (("train", "pydoc/tqdm", "--output", "y", "--report-to", "foo"), "report_to names foo"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("y/mine", "z"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "prompt.json").touch()
    assert said in shell.fails(*arguments)


def test_labels_are_followed_through_what_a_prompt_started_from(
    shell: Shell, beir: Path, data: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    name = "cqadupstack/gis"
    common = ("--data", data, "--backbone", tiny_bert, "--device", "cpu", "--precision", "float32")
    quick = ("--steps", 2, "--evaluate-every", 2, "--batch-size", 4, "--dev-folds", 0)
    first = tmp_path / "first"
    shell("train", f"{name}#fold1of2", "--output", first, *common, *quick)
    refused = ("train", f"{name}#fold2of2", "--start", first, "--output", tmp_path / "no", *common, *quick)
    assert shell(*refused, code=1) == ""
    assert "trained on test queries of cqadupstack/gis#fold2of2" in shell.printed.err
    shell("train", f"folder:{beir}", "--start", first, "--output", tmp_path / "second", *common, *quick)
    assert read_card(tmp_path / "second")["start"]["trained_on"] == {f"{name}#fold1of2": "k-fold"}
    said = shell.fails("evaluate", name, "--prompt", tmp_path / "second", *common, "--measures", "AP")
    assert "was trained on test queries" in said
    shell("evaluate", f"{name}#fold1of2", "--prompt", tmp_path / "second", *common, "--measures", "AP")


def test_a_folder_by_another_path_is_the_same(
    shell: Shell, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_beir(tmp_path / "mine", toy_collection(splits=("test",))).parent)
    common = ("--backbone", tiny_bert, "--device", "cpu", "--precision", "float32")
    quick = ("--steps", 2, "--evaluate-every", 2, "--batch-size", 4, "--dev-folds", 0)
    shell("train", "folder:mine#fold1of2", "--output", "p", *common, *quick)
    shell("download", "folder:mine", "--sample", 5, "--output", "sample")
    for other in ("folder:mine", "folder:./mine/", f"folder:{tmp_path}/mine", "folder:sample"):
        said = shell.fails("evaluate", other, "--prompt", "p", *common, "--measures", "AP")
        assert "was trained on test queries" in said
    said = shell.fails("download", "folder:mine#fold1of2", "--sample", 5, "--output", "other")
    assert "is a fold" in said


def test_a_card_says_the_templates(shell: Shell, beir: Path, tiny_bert: Path, tmp_path: Path) -> None:
    shell(
        *("train", f"folder:{beir}", "--query-template", "Q: {text}", "--steps", 2, "--output", tmp_path / "p"),
        *("--backbone", tiny_bert, "--device", "cpu"),
    )
    text = read_card(tmp_path / "p")["text"]
    assert (text["query_template"], text["document_template"]) == ("Q: {text}", "{title} {text}")


def test_several_collections_are_one_table(shell: Shell, beir: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_beir(other, toy_collection("other"))
    names = [f"folder:{beir}", f"folder:{other}"]
    table = shell("evaluate", "--group", *names, "--systems", "bm25", "--format", "csv", "--output", tmp_path / "out")
    rows = [row for row in csv.DictReader(io.StringIO(table)) if row["measure"] == "nDCG@10"]
    found = {row["collection"]: float(row["value"]) for row in rows if row["kind"] == "result"}
    for name in names:
        alone = shell.json("evaluate", name, "--system", "bm25", "--measures", "nDCG@10")["measures"]["nDCG@10"]
        assert found[name] == pytest.approx(alone)
