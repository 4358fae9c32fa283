"""The page on the service itself, in a real browser: what one answers, the other shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from on_a_port import on_a_port
from page_server import open_browser, open_page
from tiny import random_prompt, sentences, toy_collection

from foreword.prompts.loading import load_encoder
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import save_prompt
from foreword.retrieval.search import search

for package in ("fastapi", "prometheus_client", "uvicorn"):
    pytest.importorskip(package)

KEY = "a-key-of-the-tests-alone"
QUERY = sentences(1, seed=3)[0]


@pytest.fixture(scope="module")
def service(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """A service of two domains, one with a prompt, behind a key; and what the prompt finds, by the library."""
    from foreword.serving.app import create_app
    from foreword.serving.config import ServeConfig, key_of_value

    folder = tmp_path_factory.mktemp("bank")
    encoder = load_encoder(str(tiny_bert), device="cpu")
    collections = {name: toy_collection(name) for name in ("toy/one", "toy/two")}
    prompt = random_prompt(encoder, PromptSpec(kind="input", length=3))
    save_prompt(folder / "toy-one", prompt, encoder, "toy/one", record={"data": {"toy/one": {}}})
    other = load_encoder(str(tiny_bert), prompt=folder / "toy-one", device="cpu")
    expected = [hit.document.doc_id for hit in search(other, collections["toy/one"], [QUERY], k=5)[0]]
    config = ServeConfig(bank=folder, collections=tuple(collections), keys=(key_of_value("tests", KEY),))
    with on_a_port(create_app(config, load=collections.__getitem__, encoder=encoder)) as url:
        yield f"{url}/", expected


def test_the_page_on_the_service(service: tuple[str, list[str]]) -> None:
    url, expected = service
    with open_browser() as browser, open_page(browser) as page:
        page.goto(url)
        page.get_by_label("API key").fill(KEY)
        page.keyboard.press("Enter")
        page.get_by_text("Type a query and press Enter.").wait_for()
        page.get_by_label("Hits").select_option("5")
        page.get_by_label("Query").fill(QUERY)
        page.keyboard.press("Enter")
        hits = page.locator("[data-system=prompt] .hits > li")
        hits.nth(4).wait_for()
        assert hits.evaluate_all("all => all.map((item) => item.dataset.doc)") == expected
        assert page.locator("[data-system=bm25]").is_visible()
        assert page.get_by_text("Compared with base, the prompt's hits:").is_visible()
        page.get_by_role("combobox", name="Domain").select_option("toy/two")
        page.locator("[data-system=prompt]").wait_for(state="detached")
        page.locator("[data-system=base] .hits > li").first.wait_for()
        page.get_by_role("link", name="Bank").click()
        page.get_by_role("heading", name="Words nearest to each prompt").wait_for()
        assert page.locator("#bank-status").inner_text() == "1 prompt."
        assert "tiny" in page.locator("#service").inner_text() or "bert" in page.locator("#service").inner_text()
        page.goto(url + "?domain=toy/one&q=words&k=999999")  # more than the service gives
        page.get_by_role("alert").wait_for()
        assert "1000 hits a query are allowed" in page.get_by_role("alert").inner_text()
        page.get_by_role("link", name="API reference").click()
        page.get_by_role("heading", name="POST /search").wait_for()
