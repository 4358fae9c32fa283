"""Encoders with prompts under mteb: its own scores of a local task, beside ours of the same data."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from shell import Shell
from tiny import random_prompt, sentences, toy_collection, write_beir

mteb = pytest.importorskip("mteb")

from mteb.abstasks import AbsTaskRetrieval, AbsTaskSTS  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402
from mteb.models.models_protocols import EncoderProtocol  # noqa: E402

from foreword.errors import DataError, ForewordError, UnknownNameError  # noqa: E402
from foreword.evaluation.candidates import side_fingerprint  # noqa: E402
from foreword.evaluation.evaluate import evaluate  # noqa: E402
from foreword.evaluation.mteb import (  # noqa: E402
    as_mteb,
    find_tasks,
    run_tasks,
)
from foreword.prompts.encoder import transformer_of  # noqa: E402
from foreword.prompts.loading import load_encoder  # noqa: E402
from foreword.prompts.routes import Routes  # noqa: E402
from foreword.prompts.spec import PromptSpec, Sides  # noqa: E402
from foreword.prompts.store import save_prompt  # noqa: E402

TOY = toy_collection()


def about(kind: str, name: str, main_score: str) -> Any:
    return TaskMetadata(
        name=name,
        description="Made-up words.",
        reference=None,
        dataset={"path": "local/none", "revision": "1"},
        type=kind,
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=main_score,
        date=None,
        domains=None,
        task_subtypes=None,
        license=None,
        annotations_creators=None,
        dialect=None,
        sample_creation=None,
        bibtex_citation="",
    )


class ToyRetrieval(AbsTaskRetrieval):
    """The toy collection's test split, held in memory."""

    metadata = about("Retrieval", "ToyRetrieval", "ndcg_at_10")

    def load_data(self, *args: Any, **kwargs: Any) -> None:
        self.corpus = {"test": {d.doc_id: {"title": d.title, "text": d.text} for d in TOY.documents()}}
        self.queries = {"test": {q.query_id: q.text for q in TOY.queries("test")}}
        self.relevant_docs = {"test": TOY.qrels("test")}
        self.data_loaded = True


class ToySTS(AbsTaskSTS):
    """Pairs of sentences, whose texts have no side."""

    metadata = about("STS", "ToySTS", "cosine_spearman")

    def load_data(self, *args: Any, **kwargs: Any) -> None:
        from datasets import Dataset

        rows = {"sentence1": sentences(12), "sentence2": sentences(12, seed=1), "score": list(range(12))}
        self.dataset = {"test": Dataset.from_dict(rows)}
        self.data_loaded = True


def prompted(encoder: SentenceTransformer, sides: Sides, domain: str = "toy/one") -> SentenceTransformer:
    transformer = transformer_of(encoder)
    transformer.add(domain, random_prompt(encoder, PromptSpec(length=3, sides=sides)))
    transformer.route = domain
    return encoder


@pytest.mark.parametrize("sides", [None, "shared", "untied", "query"])
def test_mteb_scores_as_our_evaluation(encoder: SentenceTransformer, tmp_path: Path, sides: Sides | None) -> None:
    if sides is not None:
        prompted(encoder, sides)
    model = as_mteb(encoder)
    assert isinstance(model, EncoderProtocol)
    (result,) = run_tasks([ToyRetrieval()], model, tmp_path, quiet=True)
    ours = evaluate(TOY, encoder, measures=["nDCG@10", "R@20", "AP@100"], quiet=True).measures
    (theirs,) = result["scores"]["test"]
    assert result["main_score"] == pytest.approx(ours["nDCG@10"], abs=1e-5)  # mteb rounds to five digits
    assert theirs["recall_at_20"] == pytest.approx(ours["R@20"], abs=1e-5)
    assert theirs["map_at_100"] == pytest.approx(ours["AP@100"], abs=1e-5)
    assert 0 < result["main_score"] < 1


@pytest.mark.slow
def test_mtebs_own_checks_of_a_model(encoder: SentenceTransformer) -> None:
    """Its mock tasks of every kind of text task."""
    checked = mteb.mock_run(as_mteb(prompted(encoder, "untied")))
    errors = {name: status.exception for name, status in checked.items() if hasattr(status, "exception")}
    assert errors == {}
    assert sum(status is not None for _, status in checked.items()) >= 20


def test_results_are_kept_by_what_encodes(encoder: SentenceTransformer, tmp_path: Path) -> None:
    base = as_mteb(encoder).mteb_model_meta
    model = as_mteb(prompted(encoder, "query"))
    meta = model.mteb_model_meta
    transformer_of(encoder).route = None  # what the encoder does later is not this model's business
    assert base.name == "foreword/bert--base"
    assert meta.name == "foreword/bert--toy-one"
    assert base.revision.endswith("-base-base")
    assert meta.revision.endswith("-base")
    assert meta.revision != base.revision
    (result,) = run_tasks([ToyRetrieval()], model, tmp_path, quiet=True)
    file = tmp_path / "results" / "foreword__bert--toy-one" / meta.revision / "ToyRetrieval.json"
    assert file == Path(result["file"])
    written = json.loads(file.read_text())
    assert written["scores"]["test"][0]["main_score"] == result["main_score"]

    class Unavailable(ToyRetrieval):
        def load_data(self, *args: Any, **kwargs: Any) -> None:
            raise OSError("no network here")

    (again,) = run_tasks([Unavailable()], model, tmp_path, quiet=True)  # read from the file
    assert again["main_score"] == result["main_score"]
    with pytest.raises(DataError, match=r"ToyRetrieval did not come .*no network here"):
        run_tasks([Unavailable()], as_mteb(encoder), tmp_path, quiet=True)


def test_how_the_backbone_is_used_is_part_of_the_revision(tiny_bert: Path) -> None:
    """mteb takes the results that it has for a revision, so whatever changes vectors changes it."""
    options: list[dict[str, Any]] = [{}, {"pooling": "cls"}, {"normalize": False}, {"max_length": 9}]
    models = [as_mteb(load_encoder(str(tiny_bert), device="cpu", **how)).mteb_model_meta for how in [*options, {}]]
    assert models[0].revision == models[-1].revision
    assert len({meta.revision for meta in models}) == len(options)
    assert {meta.name for meta in models} == {"foreword/bert--base"}


def test_vectors_are_those_of_the_encoder(encoder: SentenceTransformer) -> None:
    prompted(encoder, "untied")
    model = as_mteb(encoder)
    texts = sentences(5)
    batches = [{"text": texts[:3]}, {"text": texts[3:]}]
    how: dict[str, Any] = {"task_metadata": ToyRetrieval.metadata, "hf_split": "test", "hf_subset": "default"}
    queries = model.encode(batches, prompt_type=mteb.types.PromptType.query, **how)
    documents = model.encode(batches, prompt_type=mteb.types.PromptType.document, **how)

    def unit(rows: Any) -> Any:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    np.testing.assert_allclose(queries, unit(encoder.encode_query(texts)), atol=1e-6)
    np.testing.assert_allclose(documents, unit(encoder.encode_document(texts)), atol=1e-6)
    scores = model.similarity(queries, documents)
    np.testing.assert_allclose(scores, encoder.similarity(queries, documents), atol=1e-6)
    np.testing.assert_allclose(model.similarity_pairwise(queries, documents), np.diagonal(scores), atol=1e-6)
    with pytest.raises(ForewordError, match="normalize_embeddings are not known"):
        model.encode(batches, normalize_embeddings=True, **how)


def test_texts_without_a_side_are_queries(encoder: SentenceTransformer, tmp_path: Path) -> None:
    (result,) = run_tasks([ToySTS()], as_mteb(prompted(encoder, "query")), tmp_path, quiet=True)
    assert -1 <= result["main_score"] <= 1
    first, second = (encoder.encode_query(sentences(12, seed=seed)) for seed in (0, 1))
    cosine = np.asarray(encoder.similarity_pairwise(first, second))
    ranks = np.argsort(np.argsort(cosine))
    expected = np.corrcoef(ranks, np.arange(12))[0, 1]  # Spearman's: there are no ties
    assert result["main_score"] == pytest.approx(expected, abs=1e-4)


def test_fingerprints_follow_the_values_of_a_side(encoder: SentenceTransformer) -> None:
    transformer = transformer_of(encoder)
    for name, seed in (("a", 0), ("copy", 0), ("b", 1)):
        transformer.add(name, random_prompt(encoder, PromptSpec(length=3, sides="query"), seed))
    a = side_fingerprint(encoder, "query", "a")
    assert a == side_fingerprint(encoder, "query", "copy") == side_fingerprint(encoder, "query", {"a": 1.0})
    assert a != side_fingerprint(encoder, "query", "b")
    assert a != side_fingerprint(encoder, "query", {"a": 0.5})
    assert side_fingerprint(encoder, "query", {"a": 0.5, "b": 0.5}) == side_fingerprint(
        encoder, "query", {"b": 0.5, "a": 0.5}
    )
    each = {"a": [0.5, 0.5], "b": 0.0}  # a weight for each layer, and a source without any
    assert side_fingerprint(encoder, "query", each) == side_fingerprint(encoder, "query", {"a": 0.5})
    for name, placement in (("said", "after-cls"), ("usual", None), ("before", "before")):
        transformer.add(name, random_prompt(encoder, PromptSpec("input", 3, placement=placement)))  # type: ignore[arg-type]
    placed = [side_fingerprint(encoder, "query", name) for name in ("said", "usual", "before")]
    assert placed[0] == placed[1] != placed[2]
    assert side_fingerprint(encoder, "document", "a") is None
    assert side_fingerprint(encoder, "query", Routes(None, "a")) is None


def test_names(encoder: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert as_mteb(encoder, name="me/mine").mteb_model_meta.name == "me/mine"
    with pytest.raises(ForewordError, match="organisation/name"):
        as_mteb(encoder, name="mine")
    short = as_mteb(encoder, query_length=8).mteb_model_meta
    assert short.experiment_kwargs == {"query_length": 8}  # mteb keeps its results apart
    with pytest.raises(UnknownNameError, match="SciFact"):
        find_tasks(["SciFacts"])
    with pytest.raises(DataError, match="evaluated on test"):
        find_tasks(["SciFact"], split="dev")
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(ForewordError, match=r"pip install 'foreword\[mteb\]'"):
        as_mteb(encoder)


def test_the_command(tmp_path: Path, tiny_bert: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mteb, "get_task", lambda name: {"ToyRetrieval": ToyRetrieval}[name]())
    encoder = load_encoder(str(tiny_bert), device="cpu")
    prompt = random_prompt(encoder, PromptSpec(length=3))
    save_prompt(tmp_path / "prompt", prompt, encoder, "toy", dtype="float32")
    folder = write_beir(tmp_path / "toy", TOY)
    how = ("--prompt", tmp_path / "prompt", "--backbone", tiny_bert)
    output = ("--output", tmp_path / "out")
    theirs = shell.json("evaluate", "--mteb", "ToyRetrieval", *output, *how)
    ours = shell.json("evaluate", f"folder:{folder}", "--measures", "nDCG@10", *how)
    assert theirs["tasks"][0]["main_score"] == pytest.approx(ours["measures"]["nDCG@10"], abs=1e-5)
    assert Path(theirs["tasks"][0]["file"]).is_file()
    assert "ToyRetrieval" in shell("evaluate", "--mteb", "ToyRetrieval", *output, *how)
    assert shell.json("evaluate", "--mteb", "ToyRetrieval", "--dry-run")["output"] == "runs/mteb"
    assert "no such task" in shell.fails("evaluate", "--mteb", "Nothing", *how)
    (folder / "bank" / "mine").mkdir(parents=True)
    (folder / "bank" / "mine" / "prompt.json").touch()
    for idle in (["--measures", "AP"], ["--system", "bm25"], ["--bank", str(folder / "bank")]):
        assert idle[0] in shell.fails("evaluate", "--mteb", "ToyRetrieval", *idle)
    assert "name one collection" in shell.fails("evaluate", "pydoc/torch", "--mteb", "ToyRetrieval")


def test_the_page(tmp_path: Path, minilm: SentenceTransformer, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/mteb.md: its commands and its Python, with the toy task in place of mteb's."""
    monkeypatch.setattr(mteb, "get_task", lambda name: ToyRetrieval())
    monkeypatch.chdir(tmp_path)
    save_prompt(tmp_path / "prompts/mine", random_prompt(minilm, PromptSpec(length=3)), minilm, "mine")
    page = (Path(__file__).parents[1] / "docs" / "mteb.md").read_text(encoding="utf-8")
    for language, block in re.findall(r"```(sh|python)\n(.*?)```", page, flags=re.DOTALL):
        if language == "python":
            made: dict[str, Any] = {}
            exec(compile(block, "mteb.md", "exec"), made)
            assert made["model"].mteb_model_meta.name == "foreword/all-MiniLM-L6-v2--mine"
            continue
        for line in block.splitlines():
            program, *arguments = shlex.split(line)
            if program == "foreword":
                shell(*arguments)
    assert len(list(tmp_path.glob("runs/mteb/results/*/*/ToyRetrieval.json"))) == 2  # with the prompt, and base
