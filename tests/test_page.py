"""The service's page, in a real browser: search, domains, moves, keys, windows, themes, errors, hostile text."""

from __future__ import annotations

import re
import threading
from typing import Any

from page_server import EVIL, STATIC, Site, bank, domains, found, hits, open_page, refused

SEARCH = "?domain=pydoc%2Ftorch&q=stop+gradients"


def column(page: Any, system: str) -> Any:
    return page.locator(f"[data-system={system}] .hits > li")


def titles(page: Any, system: str) -> list[str]:
    return column(page, system).locator("h3").all_inner_texts()


def focused(page: Any) -> list[str | None]:
    """The system and the document of the hit in focus."""
    script = "[document.activeElement.closest('[data-system]')?.dataset.system, document.activeElement.dataset.doc]"
    found: list[str | None] = page.evaluate(script)
    return found


def test_search_shows_the_systems_side_by_side_and_what_moved(page: Any, site: Site) -> None:
    page.goto(site.url)
    page.get_by_label("Query").fill("stop gradients")
    page.get_by_role("button", name="Search").click()
    column(page, "bm25").nth(3).wait_for()
    assert site.searches() == [
        {
            "domain": "pydoc/torch",
            "query": "stop gradients",
            "systems": ["base", "prompt", "bm25"],
            "k": 10,
            "where": None,
        }
    ]
    assert titles(page, "base")[:2] == ["torch.Tensor.detach", "torch.no_grad"]
    # base: d1 d2 d3 d4; prompt: d2 d1 d5 d4; bm25: d4 d3 d6 d1
    assert column(page, "prompt").locator(".moved span").all_inner_texts() == ["up 1", "down 1", "new", "same"]
    assert column(page, "bm25").locator(".moved span").all_inner_texts() == ["up 3", "up 1", "new", "down 3"]
    assert [item.locator(".moved").count() for item in column(page, "base").all()] == [0, 0, 1, 0]  # d3 was dropped
    assert column(page, "prompt").nth(0).locator(".score").inner_text().endswith(".650")
    scores = [item.locator(".score").inner_text().split()[-1] for item in column(page, "bm25").all()]
    assert scores[0] == "13.0"
    assert {len(score.partition(".")[2]) for score in scores} == {1}  # one kind of number in a column
    status = page.get_by_role("status").first.inner_text()
    assert status == "4 hits in 12 ms. Compared with base, the prompt's hits: 1 new, 1 up, 1 down, 1 unchanged."
    lefts = [page.locator(f"[data-system={name}]").bounding_box()["x"] for name in ("base", "prompt", "bm25")]
    assert lefts == sorted(lefts)
    assert lefts[0] < lefts[1] < lefts[2]


def test_what_is_asked_before_the_domains_are_known_is_searched(page: Any, site: Site) -> None:
    pressed = threading.Event()

    def slow(_: Any) -> Any:
        pressed.wait(60)
        return 200, domains()

    site.answers["/domains"] = slow
    page.goto(site.url)
    page.keyboard.press("/")
    page.keyboard.type("stop gradients")
    page.keyboard.press("Enter")
    assert site.searches() == []
    pressed.set()
    column(page, "base").first.wait_for()
    assert page.get_by_label("Query").input_value() == "stop gradients"
    assert [asked["query"] for asked in site.searches()] == ["stop gradients"]


def test_a_hit_leads_to_its_file_where_the_service_gives_it(page: Any, site: Site) -> None:
    def with_files(request: Any) -> Any:
        status, answer = found(request)
        base = answer["results"][0]["systems"]["base"]
        base[0]["metadata"]["file"] = "plants/a & b.md"
        base[1] |= {"title": "", "metadata": {"file": EVIL}}
        return status, answer

    site.answers["/search"] = with_files
    page.goto(site.url + SEARCH)
    first, second = column(page, "base").nth(0), column(page, "base").nth(1)
    assert first.locator(".file").inner_text() == "plants/a & b.md"
    assert second.locator("h3").inner_text() == EVIL
    assert page.locator(".file a").count() == 0
    told = domains()
    told["domains"][0]["files"] = True
    site.answers["/domains"] = lambda _: (200, told)
    page.reload()
    link = first.locator(".file a")
    assert link.get_attribute("href") == "file?domain=pydoc%2Ftorch&file=plants%2Fa+%26+b.md"
    assert link.get_attribute("rel") == "noopener"
    assert page.evaluate("window.broken") is None


def test_a_label_is_given_by_a_click_and_shown_in_every_column(page: Any, site: Site) -> None:
    def with_files(request: Any) -> Any:
        status, answer = found(request)
        for own in answer["results"][0]["systems"].values():
            for hit in own:
                hit["metadata"]["file"] = hit["doc_id"] + ".md"
        return status, answer

    kept: dict[str, int] = {"d2.md": 0}

    def labels(body: Any) -> Any:
        if "file" in body:
            kept.pop(body["file"], None)
            kept.update({body["file"]: body["grade"]} if body["grade"] is not None else {})
        return 200, {"labels": kept}

    site.answers |= {"/search": with_files, "/labels": labels}
    page.goto(site.url + SEARCH)
    column(page, "base").first.wait_for()
    assert page.get_by_role("button", name="Relevant").count() == 0
    told = domains()
    told["domains"][0]["labels"] = True
    site.answers["/domains"] = lambda _: (200, told)
    page.reload()
    pressed = page.locator("button.label[aria-pressed=true]")
    pressed.first.wait_for()  # what the file says already
    assert pressed.all_inner_texts() == ["Not relevant"] * 2  # d2, in base and prompt
    column(page, "prompt").nth(1).get_by_role("button", name="Relevant", exact=True).click()
    page.locator("[data-system=bm25] button.label[aria-pressed=true]").wait_for()
    assert kept == {"d2.md": 0, "d1.md": 1}
    column(page, "base").first.get_by_role("button", name="Relevant", exact=True).click()
    page.locator("[data-system=bm25] button.label[aria-pressed=true]").wait_for(state="detached")
    assert kept == {"d2.md": 0}


def test_the_lines_are_drawn_as_ranks_move(page: Any, site: Site) -> None:
    page.goto(site.url + SEARCH)
    lines = column(page, "prompt").locator("svg line")
    lines.first.wait_for()
    ends = [[float(line.get_attribute(name)) for name in ("y1", "y2")] for line in lines.all()]
    (up, down, new, same) = (left - right for left, right in ends)  # on a screen, up is less
    assert up > 0 > down
    assert new > 0
    assert same == 0


def test_hover_and_focus_mark_a_document_everywhere(page: Any, site: Site) -> None:
    page.goto(site.url + SEARCH)
    column(page, "prompt").nth(1).hover()
    assert page.locator(".marked").evaluate_all("all => all.map((item) => item.dataset.doc)") == ["d1"] * 3
    page.mouse.move(2, 2)
    assert page.locator(".marked").count() == 0
    column(page, "base").nth(1).focus()
    assert page.locator(".marked").evaluate_all("all => all.map((item) => item.dataset.doc)") == ["d2"] * 2


def test_the_words_of_a_query_are_marked_and_come_into_view(page: Any, site: Site) -> None:
    early = "Gradients vanish. " + "Nothing here helps anybody at all. " * 30
    late = "Nothing here helps anybody at all. " * 30 + "To stop a gradient, detach it; stopped gradients are zero. end"

    def with_texts(request: Any) -> Any:
        status, answer = found(request)
        for hit, text in zip(answer["results"][0]["systems"]["base"], (early, late), strict=False):
            hit["text"] = text
        return status, answer

    site.answers["/search"] = with_texts
    page.goto(site.url + "?domain=pydoc/torch&q=stop+the+gradients")
    column(page, "base").nth(1).wait_for()
    first, second = (column(page, "base").nth(place).locator(".text") for place in (0, 1))
    assert first.locator("mark").all_inner_texts() == ["Gradients"]
    assert first.inner_text().startswith("Gradients vanish.")
    assert second.inner_text().startswith("… ")
    assert second.locator("mark").all_inner_texts() == ["stop", "gradient", "stopped", "gradients"]
    column(page, "base").nth(1).get_by_role("button", name="more").click()
    assert second.inner_text() == late
    assert second.locator("mark").count() == 4


def test_a_long_text_is_cut_until_more(page: Any, site: Site) -> None:
    page.goto(site.url + SEARCH)
    item = column(page, "base").first
    text = item.locator(".text")
    whole, shown = text.evaluate("node => [node.scrollHeight, node.clientHeight]")
    assert whole > shown
    item.get_by_role("button", name="more").click()
    assert text.inner_text().count("It never requires gradient.") == 30
    whole, shown = text.evaluate("node => [node.scrollHeight, node.clientHeight]")
    assert whole == shown
    assert "Base 1, Prompt 2, BM25 4" in item.locator(".details").inner_text()
    assert "torch" in item.locator(".details").inner_text()
    less = item.get_by_role("button", name="less")
    assert less.get_attribute("aria-expanded") == "true"
    less.click()
    assert not item.locator(".details").is_visible()


def test_another_domain_and_back(page: Any, site: Site) -> None:
    page.goto(site.url + SEARCH)
    column(page, "prompt").first.wait_for()
    assert "trained on pydoc/torch" in page.get_by_role("list", name="About pydoc/torch").inner_text()
    page.get_by_role("combobox", name="Domain").select_option("folder:notes")
    page.locator("[data-system=prompt]").wait_for(state="detached")
    assert site.searches()[-1]["systems"] == ["base", "bm25", "hybrid"]
    assert column(page, "hybrid").count() == 2
    about = page.get_by_role("list", name="About folder:notes").inner_text()
    assert "no prompt" in about
    assert "BM25 has a weight of .30, chosen on 120 dev queries (nDCG@10 .609, the model alone .541)" in about
    assert "domain=folder%3Anotes" in page.url
    page.get_by_role("link", name="Bank").click()
    page.get_by_role("heading", name="Similarity of the domains").wait_for()
    assert "view=bank" in page.url
    page.go_back()
    column(page, "bm25").first.wait_for()
    page.go_back()
    column(page, "prompt").first.wait_for()
    assert page.get_by_role("combobox", name="Domain").input_value() == "pydoc/torch"
    assert page.get_by_label("Query").input_value() == "stop gradients"
    assert page.title() == "stop gradients – pydoc/torch – Foreword"


def test_a_shared_address_with_its_number_of_hits(page: Any, site: Site) -> None:
    page.goto(site.url + SEARCH + "&k=3")
    column(page, "base").nth(2).wait_for()
    assert site.searches()[0]["k"] == 3
    assert page.get_by_label("Hits").input_value() == "3"
    assert column(page, "base").count() == 3


def test_by_keyboard_alone(page: Any, site: Site) -> None:
    press = page.keyboard.press
    page.goto(site.url)
    page.locator("#query:focus").wait_for()  # typing can begin at once
    for _ in range(10):  # what comes before it is where Tab goes backwards
        press("Shift+Tab")
        if page.evaluate("document.activeElement.textContent") == "Skip to the content":
            break
    assert page.locator(".skip").bounding_box()["y"] >= 0
    press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    press("/")
    assert page.evaluate("document.activeElement.id") == "query"
    page.keyboard.type("a/b")  # in the box the key is a letter
    press("Enter")
    column(page, "base").first.wait_for()
    assert site.searches()[-1]["query"] == "a/b"
    press("ArrowDown")
    assert focused(page) == ["base", "d1"]
    width = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert width == "2px"  # what is in focus is seen
    press("ArrowRight")
    assert focused(page) == ["prompt", "d1"]  # the same document
    press("ArrowDown")
    assert focused(page) == ["prompt", "d5"]
    press("ArrowRight")
    assert focused(page) == ["bm25", "d6"]  # BM25 has no d5: the hit at the same height
    press("End")
    assert focused(page) == ["bm25", "d1"]
    press("Enter")
    assert column(page, "bm25").last.locator(".details").is_visible()
    press("Enter")
    press("Home")
    press("ArrowUp")
    assert page.evaluate("document.activeElement.id") == "query"
    assert column(page, "base").first.get_attribute("tabindex") == "-1"
    assert page.locator(".hits > li[tabindex='0']").count() == 1
    for _ in range(40):  # to the bank by Tab alone
        press("Shift+Tab")
        if page.evaluate("document.activeElement.textContent") == "Bank":
            break
    press("Enter")
    page.get_by_role("heading", name="Similarity of the domains").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "Bank"
    press("/")
    assert page.evaluate("document.activeElement.id") == "query"


def test_a_passage_says_which_it_is_and_where_it_stands(page: Any, site: Site) -> None:
    place = {"number": 3, "of": 12, "start": 1200, "end": 2300}
    site.answers["/search"] = lambda body: found(
        body,
        {
            "base": [{**hits(["d1"])[0], "passage": place}, {**hits(["d2"])[0], "passage": None}],
            "prompt": [],
            "bm25": [],
        },
    )
    page.goto(site.url + SEARCH)
    items = page.locator("#column-base .hits > li")
    items.first.wait_for()
    assert items.locator(".passage").all_inner_texts() == ["Passage 3 of 12"]
    items.first.locator(".more").click()
    assert "3 of 12, characters 1200 to 2300" in items.first.locator(".details").inner_text()


def test_a_narrow_window_has_tabs_and_no_sideways_scroll(browser: Any, site: Site) -> None:
    long = {
        **hits(["d1"])[0],
        "doc_id": "long",
        "title": "w" * 300,
        "text": "t" * 3000,
        "metadata": {"m" * 90: "v" * 300},
    }
    site.answers["/search"] = lambda body: found(
        body, {"base": [*hits(["d1", "d2"]), long], "prompt": hits(["d2", "d1"]), "bm25": []}
    )
    with open_page(browser, viewport={"width": 360, "height": 740}) as page:
        page.goto(site.url + SEARCH)
        tabs = page.get_by_role("tab")
        tabs.first.wait_for()
        assert tabs.all_inner_texts() == ["Base", "Prompt", "BM25"]
        assert page.get_by_role("tab", selected=True).inner_text() == "Prompt"
        assert page.get_by_role("tabpanel").count() == 1
        tabs.nth(0).click()
        assert column(page, "base").count() == 3
        assert not column(page, "prompt").first.is_visible()
        column(page, "base").last.get_by_role("button", name="more").click()
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowRight")  # base d2 -> prompt d2, whose tab opens
        assert focused(page) == ["prompt", "d2"]
        tabs.nth(1).focus()
        page.keyboard.press("ArrowRight")
        assert page.get_by_role("tabpanel", name="BM25").inner_text().endswith("No hits.")
        page.get_by_role("link", name="Bank").click()
        page.get_by_role("heading", name="Words nearest to each prompt").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        page.set_viewport_size({"width": 1200, "height": 800})
        page.go_back()
        column(page, "base").first.wait_for()
        assert page.get_by_role("tab").count() == 0
        assert page.get_by_role("region", name="Base").is_visible()


def test_the_theme_follows_the_system_or_the_button(browser: Any, site: Site) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    with open_page(browser, color_scheme="dark") as page:
        page.goto(site.url)
        dark = page.evaluate(ground)
        button = page.get_by_role("button", name="Theme")
        assert button.inner_text() == "Theme: auto"
        button.click()
        light = page.evaluate(ground)
        assert button.inner_text() == "Theme: light"
        page.reload()
        assert page.evaluate(ground) == light
        page.emulate_media(color_scheme="light")
        button.click()
        assert button.inner_text() == "Theme: dark"
        assert page.evaluate(ground) == dark
        button.click()
        assert page.evaluate(ground) == light
    assert [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (dark, light)] == [
        16 + 19 + 24,
        246 + 247 + 249,
    ]


def test_still_without_motion(browser: Any, site: Site) -> None:
    moving = """[...document.querySelectorAll('*')].filter((node) => {
        const style = getComputedStyle(node);
        return style.animationName !== 'none' || parseFloat(style.transitionDuration) > 0;
    }).length"""
    for reduced, some in (("reduce", False), ("no-preference", True)):
        with open_page(browser, reduced_motion=reduced) as page:
            page.goto(site.url + SEARCH)
            column(page, "base").first.wait_for()
            assert (page.evaluate(moving) > 0) == some


def test_errors_are_said(page: Any, site: Site) -> None:
    answers = {
        "Something went wrong in the service (status 500).": (500, b"<h1>no JSON</h1>"),
        "The service did not take the request (status 422).": refused(422, "query: 900 tokens, at most 512"),
        "This key does not give access to this.": refused(403, "the key is for pydoc/numpy"),
        "The service's answer could not be read.": (200, b"<h1>a proxy</h1>"),
    }
    page.goto(site.url)
    for said, answer in answers.items():
        site.answers["/search"] = lambda _, answer=answer: answer
        page.goto(site.url + SEARCH)
        page.get_by_role("alert").wait_for()
        assert said in page.get_by_role("alert").inner_text()
        assert page.locator(".hits").count() == 0
        if isinstance(answer[1], dict):
            assert answer[1]["error"]["message"] in page.get_by_role("alert").inner_text()
    page.route("**/search", lambda route: route.abort())
    page.get_by_role("button", name="Try again").click()
    page.get_by_text("The service does not answer.").wait_for()
    page.unroute("**/search")
    site.answers["/search"] = found
    page.get_by_role("button", name="Try again").click()
    column(page, "base").first.wait_for()
    assert page.get_by_role("alert").count() == 0


def test_nothing_found_and_nothing_to_search(page: Any, site: Site) -> None:
    site.answers["/search"] = lambda body: found(body, {"base": [], "prompt": [], "bm25": []})
    page.goto(site.url + SEARCH)
    page.get_by_text("Nothing found.").wait_for()
    site.answers["/search"] = lambda body: found(body, {"base": hits(["d1"]), "bm25": hits(["d1"])})
    page.get_by_role("button", name="Search").click()
    page.get_by_text("No answer from Prompt.").wait_for()
    page.goto(site.url + "?domain=nowhere&q=x")
    page.get_by_text("This service has no domain “nowhere”. Choose one of its 3.").wait_for()
    page.goto(site.url + "?domain=pydoc/numpy&q=x")
    page.get_by_text("has a prompt but no documents here").wait_for()
    site.answers["/domains"] = lambda _: (200, {**domains(), "domains": []})
    page.goto(site.url + SEARCH)
    page.get_by_text("This service has no domains:").wait_for()
    site.answers["/domains"] = lambda _: refused(503, "starting")
    page.reload()
    page.get_by_text("The service is not ready").wait_for()
    site.reset()
    page.get_by_role("button", name="Try again").click()
    column(page, "base").first.wait_for()


def test_waiting_is_said_and_a_late_answer_does_not_win(page: Any, site: Site) -> None:
    let_go = threading.Event()

    def slow_at_first(body: Any) -> Any:
        if body["query"] == "first":
            let_go.wait(10)
            return found(body, {"base": hits(["d6"]), "prompt": [], "bm25": []})
        return found(body)

    site.answers["/search"] = slow_at_first
    page.goto(site.url)
    page.locator("#domain option").nth(2).wait_for(state="attached")
    page.get_by_label("Query").fill("first")
    page.keyboard.press("Enter")
    page.get_by_text("Searching…").wait_for()
    assert page.locator("#results").get_attribute("aria-busy") == "true"
    page.get_by_label("Query").fill("second")
    page.keyboard.press("Enter")
    column(page, "base").first.wait_for()
    let_go.set()
    page.evaluate("fetch('health')")  # time enough for the first answer, were it still awaited
    assert page.locator("#results").get_attribute("aria-busy") is None
    assert [body["query"] for body in site.searches()] == ["first", "second"]
    assert titles(page, "base")[0] == "torch.Tensor.detach"
    assert page.get_by_label("Query").input_value() == "second"


def test_a_key_is_asked_for_sent_and_forgotten(page: Any, site: Site) -> None:
    site.key = "right"
    page.goto(site.url + SEARCH)
    dialog = page.get_by_role("dialog", name="This service needs a key")
    dialog.wait_for()
    page.get_by_label("API key").fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_text("The key that was sent was refused.").wait_for()
    page.get_by_label("API key").fill("right")
    page.keyboard.press("Enter")
    column(page, "base").first.wait_for()
    assert not dialog.is_visible()
    assert page.evaluate("[sessionStorage.length, Object.values(localStorage).includes('right')]") == [1, False]
    page.reload()
    column(page, "base").first.wait_for()  # without asking again
    page.get_by_role("button", name="Forget the key").click()
    dialog.wait_for()
    page.keyboard.press("Escape")
    page.get_by_text("This service needs an API key, and none was given.").wait_for()


def test_text_stays_text(page: Any, site: Site) -> None:
    hit = {
        "rank": 1,
        "doc_id": EVIL,
        "title": EVIL,
        "text": EVIL,
        "score": 1.0,
        "metadata": {EVIL: EVIL, "list": [EVIL]},
    }
    site.answers["/search"] = lambda body: found(body, {"base": [hit], "prompt": [hit], EVIL: [hit]})
    prompt = {
        **domains()["domains"][0]["prompt"],
        "kind": EVIL,
        "trained_on": [EVIL],
        "supervision": {EVIL: {"method": EVIL}},
    }
    domain = {"name": EVIL, "prompt": prompt, "searchable": True, "documents": 1, "systems": ["base", "prompt", EVIL]}
    site.answers["/domains"] = lambda _: (200, {"backbone": {}, "domains": [domain]})
    site.answers["/health"] = lambda _: (200, {"status": "ok", "version": EVIL, "backbone": EVIL})
    one = {"names": [EVIL], "values": [[1.0]]}
    transfer = {"sources": [EVIL], "targets": [EVIL], "values": [[0.5]], "measure": EVIL}
    figures = [{"domain": EVIL, "system": name, "measure": EVIL, "value": 0.5} for name in ("base", EVIL)]
    words = {EVIL: [[EVIL, 0.5]]}
    hostile = {**bank(), "names": [EVIL], "similarity": one, "transfer": transfer, "figures": figures, "words": words}
    site.answers["/bank"] = lambda _: (200, hostile)
    page.goto(site.url)
    page.get_by_label("Query").fill(EVIL)
    page.keyboard.press("Enter")
    column(page, "base").first.wait_for()
    column(page, "base").get_by_role("button").click()
    assert titles(page, "base") == [EVIL]
    assert EVIL in page.locator(".details").first.inner_text()
    page.get_by_role("link", name="Bank").click()
    page.get_by_role("heading", name="Words nearest to each prompt").wait_for()
    site.answers["/bank"] = lambda _: refused(400, EVIL)
    assert EVIL in page.locator(".words").inner_text()
    page.reload()
    page.get_by_role("alert").wait_for()
    assert EVIL in page.get_by_role("alert").inner_text()
    assert page.evaluate("[window.broken ?? null, document.querySelectorAll('body script, body img').length]") == [
        None,
        0,
    ]


def test_the_files_ask_for_nothing_outside_and_read_no_markup() -> None:
    sources = {file.name: file.read_text(encoding="utf-8") for file in STATIC.iterdir()}
    assert {"index.html", "app.js", "style.css"} <= set(sources)
    for name, source in sources.items():
        addresses = set(re.findall(r"https?://[^\s'\"]+", source))
        assert addresses <= {"http://www.w3.org/2000/svg"}, name  # a name space, never fetched
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|@import|url\(", source
        ), name
        assert len(source.splitlines()) < 300, name
