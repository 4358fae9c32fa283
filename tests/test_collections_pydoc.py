"""`pydoc/<package>`: a package made here, whose import would leave a trace, and small real ones."""

from __future__ import annotations

import sys

import pytest

from foreword.collections import load
from foreword.collections.collection import Document, MemoryCollection, Query, contains, normalise, split_of
from foreword.collections.pydoc.collection import known_packages
from foreword.collections.pydoc.docstrings import take_signature
from foreword.collections.pydoc.source import locate
from foreword.errors import DataError, UnknownNameError

REST = "It takes its time over this, goes through every row of the table, and gives back what is left of {}."

TRACE = (
    "from pathlib import Path\nPath(__file__).with_name('imported').write_text('x')\nraise RuntimeError('imported')\n"
)


def function(name: str, summary: str, rest: str | None = None, head: str = "(table, *, deep=False)") -> str:
    return f'def {name}{head}:\n    """{summary}\n\n    {rest or REST.format(name)}\n    """\n\n'


SHELF = '''
class Shelf:
    """A shelf that keeps tables in the order they came in.

    {}
    """

    def __init__(self, width, depth=3, *, name: str = "x") -> None:
        pass

    def put(self, table: "Table") -> "Shelf":
        """Put one more table onto this shelf.

        {}
        """

    @property
    def room(self) -> int:
        """How many more tables there is room for.

        {}
        """

    def _private(self):
        """Nobody should ever get to see this one.

        {}
        """
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """`shelfy`: a package with a private module behind its public names, and traps."""
    root = tmp_path / "site" / "shelfy"
    (root / "tests").mkdir(parents=True)
    (root / "_vendor").mkdir()
    files = {
        "__init__.py": TRACE + "from ._core import sort_rows, Shelf\nfrom . import tools\n",
        "_core.py": function("sort_rows", "Sort the rows of a table by one column.")
        + function("hidden_helper", "Help the others to do what they do.")
        + SHELF.format(*(REST.format(word) for word in ("shelf", "put", "room", "private"))),
        "tools.py": '"""Tools that cut, join and mend whole tables.\n\n'
        + REST.format("tools")
        + '"""\n'
        + function("leaky", "Cut the table into two halves.", "This will cut the table into two halves: " + "x " * 40)
        + function("twice_a", "Do the very same thing again.", REST.format("a"))
        + function("twice_b", "Do the very same thing again.", REST.format("b"))
        + function("copy_a", "Make a copy of the whole table.", REST.format("copies"))
        + function("copy_b", "Make another copy of the whole table.", REST.format("copies"))
        + function("short", "Say hello to the whole world.", "Hello.")
        + function("few", "Few words.")
        + function("alias", "Alias of :func:`shelfy.tools.leaky` for the lazy.")
        + function("typed", "Count the rows of a table.", head="(table: 'Table', limit: int = 10) -> int"),
        "compiled.py": "from ._docs import add_docstr\nfrom shelfy import _c\n"
        "shared = {'table': 'table (Table): the table to work on, with all of its rows and columns'}\n"
        'weigh = add_docstr(_c.weigh, r"""\nweigh(table, *, out=None) -> float\n\nWeigh a table with all its '
        'rows.\n""" + r"""\nArgs:\n    {table}\n    {unknown}\n""".format(**shared))\n'
        'add_docstr(_c.internal, """Weigh the inner parts of it all.\n\n' + REST.format("c") + '""")\n',
        "later.py": "class Scale:\n    def __init__(self, unit):\n        pass\n\n"
        "Scale.__doc__ = 'Tell the weight of a table.\\n\\n' + f'" + REST.format("scale") + "'\n",
        "broken.py": "def f(:\n",
        "tests/test_a.py": function("tested", "Test that the table is whole."),
        "_vendor/other.py": function("vendored", "Bundle another package with this one."),
        "conftest.py": TRACE,
    }
    for name, content in files.items():
        (root / name).write_text(content)
    monkeypatch.syspath_prepend(str(root.parent))
    monkeypatch.setenv("FOREWORD_CACHE", str(tmp_path / "cache"))
    return root


def texts(collection):
    queries = {q.query_id: q.text for split in collection.splits for q in collection.queries(split)}
    return {d.doc_id: (queries[f"q:{d.doc_id}"], d.text) for d in collection.documents()}


def test_what_a_package_gives(package):
    collection = load("pydoc/shelfy")
    found = texts(collection)
    assert set(found) == {
        "shelfy.sort_rows",
        "shelfy.Shelf",
        "shelfy.Shelf.put",
        "shelfy.Shelf.room",
        "shelfy.tools",
        "shelfy.tools.copy_a",
        "shelfy.tools.typed",
        "shelfy.compiled.weigh",
        "shelfy.later.Scale",
    }
    assert found["shelfy.later.Scale"] == ("Tell the weight of a table.", f"(unit) {REST.format('scale')}")
    assert found["shelfy.sort_rows"] == (
        "Sort the rows of a table by one column.",
        "(table, *, deep=False) " + REST.format("sort_rows"),
    )
    assert found["shelfy.Shelf"][1].startswith("(width, depth=3, *, name='x') It takes")
    assert found["shelfy.Shelf.put"][1].startswith("(table) -> Shelf It takes")
    assert found["shelfy.tools.typed"][1].startswith("(table, limit=10) -> int ")
    assert found["shelfy.compiled.weigh"] == (
        "Weigh a table with all its rows.",
        "(table, *, out=None) -> float Args: table (Table): the table to work on, with all of its rows and columns",
    )
    dropped = collection.facts["dropped"]
    assert dropped == {
        "ambiguous_query": 2,
        "leak": 1,
        "query_generic": 1,
        "query_too_short": 1,
        "repeated_text": 1,
        "rest_too_short": 1,
    }
    assert collection.facts["extraction"]["unreadable"] == 1
    assert collection.facts["method"] == "source"


def test_reading_runs_nothing(package):
    load("pydoc/shelfy")
    load("pydoc/shelfy", method="source", cache=False)
    assert not (package / "imported").exists()
    assert "shelfy" not in sys.modules


def test_metadata_names_and_titles(package):
    collection = load("pydoc/shelfy")
    document = next(d for d in collection.documents() if d.doc_id == "shelfy.Shelf.put")
    assert document.title == ""
    assert document.metadata["name"] == "shelfy.Shelf.put"
    assert document.metadata["kind"] == "method"
    assert document.metadata["file"] == "shelfy/_core.py"
    named = load("pydoc/shelfy", with_names=True)
    assert all(d.content.startswith(d.doc_id) for d in named.documents())
    assert [d.text for d in named.documents()] == [d.text for d in collection.documents()]


def check_sound(collection):
    """What must hold of every package: no leak, one document a query, copies on one side only."""
    documents = {d.doc_id: d for d in collection.documents()}
    keys: dict[str, set[str]] = {}
    judged = set()
    for split in collection.splits:
        keys[split] = set()
        qrels = collection.qrels(split)
        for query in collection.queries(split):
            [(doc_id, relevance)] = qrels[query.query_id].items()
            key = normalise(query.text)
            assert relevance == 1
            assert not contains(normalise(documents[doc_id].content), key), doc_id
            assert split_of(query.text) == split
            assert query.query_id.split() == [query.query_id]
            keys[split].add(key)
            judged.add(doc_id)
        assert len(qrels) == len(keys[split])
        assert [p.query_id for p in collection.pairs(split)] == list(qrels)
    assert len(set().union(*keys.values())) == sum(map(len, keys.values())) == len(documents)
    assert judged == set(documents)
    rests = [normalise(d.text.removeprefix(d.metadata.get("signature", ""))) for d in documents.values()]
    assert len(set(rests)) == len(rests)


@pytest.mark.parametrize("name", ["filelock", "numpy", "rich"])
def test_real_packages_are_sound(name, tmp_path, monkeypatch):
    monkeypatch.setenv("FOREWORD_CACHE", "")
    if locate(name) is None:
        pytest.skip(f"{name} is not installed")
    check_sound(load(f"pydoc/{name}"))


def test_order_is_the_same_each_time_and_through_the_cache(package, tmp_path):
    first = load("pydoc/shelfy")
    [kept] = (tmp_path / "cache" / "pydoc").iterdir()
    again = load("pydoc/shelfy")
    fresh = load("pydoc/shelfy", cache=False)
    assert first == again == fresh
    head, rest = kept.read_text().split("\n", 1)
    kept.write_text(head + "\n" + rest[: len(rest) // 2])
    assert load("pydoc/shelfy") == first  # a broken cache is made again
    (package / "tools.py").write_text("")
    assert len(list(load("pydoc/shelfy").documents())) < len(first.corpus)  # and a stale one


def test_exclude_drops_the_targets_texts(package):
    target = MemoryCollection(
        "t",
        "t",
        (Document("1", f"(other, signature) {REST.format('put')}", metadata={"signature": "(other, signature)"}),),
        {"test": (Query("1", "how many more TABLES there is room for"),)},
        {"test": {"1": {"1": 1}}},
    )
    collection = load("pydoc/shelfy", exclude=[target])
    assert {"shelfy.Shelf.put", "shelfy.Shelf.room"}.isdisjoint(texts(collection))
    assert collection.facts["dropped"]["excluded"] == 2
    with pytest.raises(DataError, match="no docstring"):
        load("pydoc/shelfy", exclude=[load("pydoc/shelfy")])


def test_import_in_a_child_process(tmp_path, monkeypatch):
    root = tmp_path / "site" / "noisy"
    root.mkdir(parents=True)
    summary = "Sort the rows of a table by one column."
    (root / "__init__.py").write_text(
        "from pathlib import Path\nimport os\nprint('noise')\nPath('here').write_text('x')\n"
        + function("made", summary).replace('"""', "'''")
        + "made.__doc__ = made.__doc__ + ' Built at import.'\n"
    )
    monkeypatch.syspath_prepend(str(root.parent))
    monkeypatch.chdir(tmp_path)
    collection = load("pydoc/noisy", method="import", cache=False)
    assert texts(collection)["noisy.made"] == (
        summary,
        f"(table, *, deep=False) {REST.format('made')} Built at import.",
    )
    assert not (tmp_path / "here").exists()
    assert "noisy" not in sys.modules
    (root / "__init__.py").write_text("import time\ntime.sleep(60)\n")
    with pytest.raises(DataError, match=r"noisy took more than 0\.5 s"):
        load("pydoc/noisy", method="import", cache=False, timeout=0.5)


def test_a_package_that_cannot_be_imported_says_why(package):
    with pytest.raises(DataError, match="RuntimeError: imported"):
        load("pydoc/shelfy", method="import", cache=False)


def test_compiled_modules_of_the_standard_library():
    installed = locate("stdlib")
    assert installed is not None
    assert "math" in installed.compiled or any(f.module == "math" for f in installed.files)
    assert not [f.module for f in installed.files if ".test" in f.module or f.module.startswith("idlelib")]


def test_numpy_docs_that_are_attached_by_calls(monkeypatch):
    monkeypatch.setenv("FOREWORD_CACHE", "")
    numpy = pytest.importorskip("numpy")
    found = texts(load("pydoc/numpy"))
    assert "numpy.ndarray.astype" in found
    summary = take_signature(numpy.ndarray.astype.__doc__.strip(), "astype")[1].strip().split("\n")[0]
    assert found["numpy.ndarray.astype"][0] == summary


def test_unknown_packages_and_methods():
    with pytest.raises(UnknownNameError, match="unknown collection"):
        load("pydoc/no_such_package_here")
    with pytest.raises(UnknownNameError, match="unknown method 'magic'"):
        load("pydoc/rich", method="magic")
    with pytest.raises(UnknownNameError, match="has no split 'validation'; it has train"):
        load("pydoc/rich", cache=False).queries("validation")


def test_the_data_file_is_whole():
    packages = known_packages()
    assert all(facts["description"] for facts in packages.values())
