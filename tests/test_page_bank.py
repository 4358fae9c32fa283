"""The page's view of a bank of prompts, in a real browser; and the contrast of every text on the page."""

from __future__ import annotations

from typing import Any

import pytest
from page_server import Site, bank, open_page, refused

CONTRASTS = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const over = (colours) => {  // the last one on top
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const seen = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    const box = node.getBoundingClientRect();
    const shown = walk.currentNode.textContent.trim() && node.checkVisibility() && box.width > 1 && box.height > 1;
    if (!shown || node.closest('select, noscript, .unseen')) continue;
    const grounds = [];
    for (let up = node; up; up = up.parentElement) grounds.unshift(getComputedStyle(up).backgroundColor);
    seen.push([walk.currentNode.textContent.trim(), over([...grounds, getComputedStyle(node).color]), over(grounds)]);
  }
  return seen;
}"""


def show(page: Any, site: Site) -> None:
    page.goto(site.url + "?view=bank")
    page.get_by_role("heading", name="Words nearest to each prompt").wait_for()


def cells(table: Any) -> list[list[str]]:
    """The rows of a table's body, as texts."""
    found: list[list[str]] = table.locator("tbody tr").evaluate_all(
        "rows => rows.map((row) => [...row.cells].map((one) => one.innerText))"
    )
    return found


def strengths(table: Any) -> list[float | None]:
    found: list[float | None] = table.locator("tbody td").evaluate_all(
        "all => all.map((one) => parseFloat(one.style.getPropertyValue('--strength'))).map((n) => Number.isNaN(n) ? null : n)"
    )
    return found


def test_similarity_is_coloured_by_value_and_has_a_legend(page: Any, site: Site) -> None:
    show(page, site)
    table = page.get_by_role("table", name="Similarity of domains")
    assert cells(table)[0] == ["pydoc/numpy", "1.00", ".81", ".44"]
    # a domain against itself has no colour; from the least, .44, to the greatest, .81
    middle = round(100 * (0.52 - 0.44) / (0.81 - 0.44), 1)
    assert strengths(table) == [None, 100, 0, 100, None, middle, 0, middle, None]
    assert page.get_by_role("img", name="Colours run from .44 to .81").is_visible()
    outlined = table.locator(".outlined").evaluate_all("all => all.map((one) => one.title)")
    assert outlined == [
        "pydoc/numpy → pydoc/scipy: .81",
        "pydoc/scipy → pydoc/numpy: .81",
        "pydoc/scipy → pydoc/torch: .52",
    ]


def test_transfer_is_shown_as_gain_and_as_the_measure(page: Any, site: Site) -> None:
    show(page, site)
    gain = page.get_by_role("table", name="Gain in nDCG@10 over base")
    # base: .500, .610, .546
    assert cells(gain) == [["pydoc/numpy", "+.120", "−.020", "+.025"], ["pydoc/scipy", "+.050", "−.010", "–"]]
    assert gain.locator(".loss").all_inner_texts() == ["−.020", "−.010"]
    assert gain.locator(".outlined").all_inner_texts() == ["−.020", "+.025", "+.050"]  # other domains' prompts alone
    page.get_by_label("nDCG@10", exact=True).first.check()
    plain = page.get_by_role("table", name="nDCG@10 of sources on targets")
    assert cells(plain) == [["pydoc/numpy", ".620", ".590", ".571"], ["pydoc/scipy", ".550", ".600", "–"]]
    site.answers["/bank"] = lambda _: (200, {**bank(), "figures": []})
    show(page, site)
    assert page.get_by_role("radio").count() == 0
    assert plain.is_visible()


def test_figures_are_sorted_by_any_column(page: Any, site: Site) -> None:
    show(page, site)
    table = page.get_by_role("table", name="nDCG@10 of each domain")
    names = lambda: [row[0] for row in cells(table)]  # noqa: E731
    assert names() == ["pydoc/numpy", "pydoc/scipy", "pydoc/torch"]
    assert cells(table)[2][1:] == [".546", ".638+.092", ".554+.008"]
    assert table.locator("tbody strong").all_inner_texts() == [".620", ".610", ".638"]
    assert table.locator("tfoot tr > *").all_inner_texts() == ["Mean of 3", ".552", ".619+.067", "–"]
    head = table.get_by_role("columnheader", name="Base")
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert names() == ["pydoc/scipy", "pydoc/torch", "pydoc/numpy"]
    assert head.get_attribute("aria-sort") == "descending"
    page.keyboard.press("Enter")
    assert names() == ["pydoc/numpy", "pydoc/torch", "pydoc/scipy"]
    table.get_by_role("button", name="BM25").click()
    assert names()[0] == "pydoc/torch"  # those without a value come last
    assert head.get_attribute("aria-sort") is None
    page.get_by_label("Measure").select_option("R@100")
    assert cells(page.get_by_role("table", name="R@100 of each domain"))[0][1] == ".800"


def test_nearest_words_and_the_rest_of_them(page: Any, site: Site) -> None:
    show(page, site)
    words = page.locator(".words").first.locator("li:visible")
    assert words.count() == 12
    assert words.first.inner_text() == "numpy0 .50"
    page.get_by_role("button", name="more words of pydoc/numpy").click()
    assert words.count() == 16


def test_an_empty_bank_a_bare_one_and_an_error(page: Any, site: Site) -> None:
    nothing = {"similarity": None, "transfer": None, "figures": [], "words": {}}
    site.answers["/bank"] = lambda _: (200, {"names": [], **nothing})
    page.goto(site.url + "?view=bank")
    page.get_by_text("The bank is empty").wait_for()
    site.answers["/bank"] = lambda _: (200, {"names": ["a"], **nothing})
    page.reload()
    page.get_by_text("It needs the embedded documents of two domains").wait_for()
    assert page.locator("#bank .empty").count() == 4
    site.answers["/bank"] = lambda _: refused(500, "broken bank")
    page.reload()
    page.get_by_role("alert").wait_for()
    assert "broken bank" in page.get_by_role("alert").inner_text()
    site.reset()
    page.get_by_role("button", name="Try again").click()
    page.get_by_role("heading", name="Words nearest to each prompt").wait_for()


def test_many_domains_scroll_inside_their_frame(browser: Any, site: Site) -> None:
    names = [f"oag-qa/some_long_discipline_name_{n}" for n in range(40)]
    values = [[(row + column) / 80 for column in range(40)] for row in range(40)]
    site.answers["/bank"] = lambda _: (
        200,
        {**bank(), "names": names, "similarity": {"names": names, "values": values}},
    )
    with open_page(browser, viewport={"width": 360, "height": 740}) as page:
        show(page, site)
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        frame = page.get_by_role("region", name="Similarity of domains")
        frame.focus()
        page.keyboard.press("ArrowRight")
        scrolled = "new Promise((done) => document.activeElement.addEventListener('scrollend', () => done(true)))"
        assert page.evaluate(f"document.activeElement.scrollLeft > 0 || {scrolled}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_that_reading_needs(browser: Any, site: Site, scheme: str) -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1, by its own formula."""

    def luminance(colour: list[int]) -> float:
        parts = [part / 255 for part in colour]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    with open_page(browser, color_scheme=scheme) as page:
        for address in ("?q=stop", "?view=bank"):
            page.goto(site.url + address)
            page.locator(".hits li, .words li").first.wait_for()
            if address == "?q=stop":
                page.keyboard.press("/")
                page.keyboard.press("ArrowDown")
                page.keyboard.press("Enter")
            site.answers["/search"] = site.answers["/bank"] = lambda _: refused(422, "no")
            seen = page.evaluate(CONTRASTS)
            assert len(seen) > 40
            for text, ink, ground in seen:
                low, high = sorted((luminance(ink), luminance(ground)))
                assert (high + 0.05) / (low + 0.05) >= 4.5, f"{text!r} in {ink} on {ground}"
            site.reset()
