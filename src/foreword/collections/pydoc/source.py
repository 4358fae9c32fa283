"""What one Python file says of itself: its names, imports and docstrings, read from its syntax tree.

Nothing is executed.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import re
import sys
import sysconfig
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foreword.collections.pydoc.docstrings import clean

# Packages whose functions are compiled attach their documentation by calls, with shared pieces of text put in
# by `format` (torch) or `%`. The few forms they use are worked out here; whatever else comes is `None`.

_SECTION = re.compile(r"\n {4}(?! )")


class _Blanks(dict[str, Any]):
    """For `format_map`: a name that could not be worked out leaves nothing behind."""

    def __missing__(self, key: str) -> str:
        return ""


class StaticText:
    """The string (and dictionary) constants of a module, gathered as its statements are read in order."""

    def __init__(self) -> None:
        self._names: dict[str, Any] = {}

    def read(self, statement: ast.stmt) -> None:
        """Remember a top-level assignment when its value is text, a number or a dictionary of text."""
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target, value = statement.targets[0], statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            target, value = statement.target, statement.value
        else:
            return
        if isinstance(target, ast.Name):
            worked_out = self.value(value)
            if worked_out is not None:
                self._names[target.id] = worked_out

    def text(self, node: ast.expr) -> str | None:
        """The string an expression stands for, or None."""
        value = self.value(node)
        return value if isinstance(value, str) else None

    def value(self, node: ast.expr) -> Any:
        """The value of an expression of the forms known here, or None."""
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self._names.get(node.id)
        if isinstance(node, ast.Dict):
            return self._dictionary(node)
        if isinstance(node, ast.JoinedStr):
            return "".join(self._piece(part) for part in node.values)
        if isinstance(node, ast.BinOp):
            return self._operation(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        return None

    def _dictionary(self, node: ast.Dict) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            worked_out = self.value(value)
            if key is None:
                found.update(worked_out if isinstance(worked_out, dict) else {})
            else:
                found[self.value(key)] = worked_out
        return found

    def _piece(self, part: ast.expr) -> str:
        value = self.value(part.value if isinstance(part, ast.FormattedValue) else part)
        return "" if value is None else str(value)

    def _operation(self, node: ast.BinOp) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(node.op, ast.Add) and (isinstance(left, str) or isinstance(right, str)):
            return f"{left or ''}{right or ''}"
        if isinstance(node.op, ast.Mod) and isinstance(left, str):
            try:
                return left % (_Blanks(right) if isinstance(right, dict) else right)
            except (TypeError, ValueError):
                return left
        return None

    def _call(self, node: ast.Call) -> Any:
        arguments = [self.value(a) for a in node.args if not isinstance(a, ast.Starred)]
        if isinstance(node.func, ast.Attribute):
            owner = self.value(node.func.value)
            if isinstance(owner, str):
                return self._method(owner, node.func.attr, arguments, node.keywords)
            name = node.func.attr
        else:
            name = node.func.id if isinstance(node.func, ast.Name) else ""
        first = arguments[0] if arguments else None
        if name in ("dedent", "cleandoc") and isinstance(first, str):
            return textwrap.dedent(first) if name == "dedent" else inspect.cleandoc(first)
        # torch's two helpers: sections of argument descriptions by their first word, and a union of those.
        if name == "parse_kwargs" and isinstance(first, str):
            sections = (section.strip() for section in _SECTION.split(first))
            return {section.split(" ")[0]: section for section in sections if section}
        if name == "merge_dicts":
            return {k: v for each in arguments if isinstance(each, dict) for k, v in each.items()}
        return None

    def _method(self, owner: str, method: str, arguments: list[Any], keywords: list[ast.keyword]) -> str | None:
        if method == "format":
            names = _Blanks()
            for keyword in keywords:
                value = self.value(keyword.value)
                if keyword.arg is not None:
                    names[keyword.arg] = "" if value is None else value
                elif isinstance(value, dict):
                    names.update(value)
            try:
                return owner.format_map(names) if not arguments else owner.format(*arguments, **names)
            except (AttributeError, IndexError, KeyError, ValueError):
                return owner
        if method in ("strip", "lstrip", "rstrip") and not arguments:
            return str(getattr(owner, method)())
        if method == "replace" and len(arguments) == 2 and all(isinstance(a, str) for a in arguments):
            return owner.replace(arguments[0], arguments[1])
        return None


STDLIB = "stdlib"

# Tests, bundled copies of other packages, and pages about a package rather than of it.
_SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "examples", "benchmarks", "__pycache__", "site-packages", "dist-packages"}
    | {"vendor", "vendored", "third_party", "extern", "externals", "node_modules"}
    | {"_vendor", "_vendored", "_third_party", "_extern", "_externals"}
)
_SKIPPED_FILES = frozenset({"conftest.py", "setup.py", "__main__.py"})
# Of the standard library: its own tests, applications, jokes and private or frozen parts.
_SKIPPED_STDLIB = frozenset(
    {"antigravity", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "this"}
    | {"tkinter", "turtle", "turtledemo"}
)
_COMPILED = (".so", ".pyd")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One Python module's file."""

    module: str
    """Dotted name, e.g. `torch.nn.functional`."""
    path: Path
    is_package: bool
    """It is an `__init__.py`, so relative imports start at the module itself."""


@dataclass(frozen=True, slots=True)
class Installed:
    """A package as it lies on disk."""

    name: str
    files: tuple[SourceFile, ...]
    """Ordered by path."""
    compiled: tuple[str, ...]
    """Dotted names of the modules without Python source."""


def is_installed(package: str) -> bool:
    """Whether a top-level package can be imported, without importing it."""
    if package == STDLIB:
        return True
    try:
        return package.isidentifier() and importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def locate(package: str) -> Installed | None:
    """The files of a top-level package (or of `stdlib`), tests and bundled copies left out; None: no such package."""
    if package == STDLIB:
        return _locate_stdlib()
    if not is_installed(package):
        return None
    spec = importlib.util.find_spec(package)
    assert spec is not None
    if spec.submodule_search_locations is not None:
        roots = [Path(root) for root in spec.submodule_search_locations]
        found = [item for root in roots for item in _walk(root, package)]
    else:
        path = Path(spec.origin) if spec.has_location and spec.origin else None
        found = [package if path is None or path.suffix != ".py" else SourceFile(package, path, False)]
    return _installed(package, found)


def _locate_stdlib() -> Installed:
    """The public modules of `sys.stdlib_module_names`; those without a file are compiled."""
    root = Path(sysconfig.get_path("stdlib"))
    found: list[SourceFile | str] = []
    for name in sorted(sys.stdlib_module_names):
        if name.startswith("_") or name in _SKIPPED_STDLIB:
            continue
        if (root / name / "__init__.py").is_file():
            found.extend(_walk(root / name, name))
        elif (root / f"{name}.py").is_file():
            found.append(SourceFile(name, root / f"{name}.py", False))
        elif is_installed(name):
            found.append(name)
    return _installed(STDLIB, found)


def _installed(package: str, found: list[SourceFile | str]) -> Installed:
    files = sorted((f for f in found if isinstance(f, SourceFile)), key=lambda f: f.path.as_posix())
    return Installed(package, tuple(files), tuple(sorted(f for f in found if isinstance(f, str))))


def _walk(folder: Path, module: str) -> Iterator[SourceFile | str]:
    """The modules below a package's folder."""
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        name = entry.name
        if entry.is_dir():
            if name.isidentifier() and name not in _SKIPPED_FOLDERS:
                yield from _walk(Path(entry.path), f"{module}.{name}")
        elif name.endswith(".py"):
            if name not in _SKIPPED_FILES and not name.startswith("test_"):
                path, is_package = Path(entry.path), name == "__init__.py"
                yield SourceFile(module if is_package else f"{module}.{path.stem}", path, is_package)
        elif name.endswith(_COMPILED):
            yield f"{module}.{name.split('.')[0]}"


_MAX_DEFAULT = 40  # characters of a parameter's default value; a longer one is shown as `...`
_MAX_RETURNS = 60  # characters of a return annotation; a longer one is left out
_ADD_DOC = frozenset({"add_docstr", "_add_docstr", "add_newdoc"})
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class RawDoc:
    """A docstring as found, with all that the collection needs of the thing it documents."""

    name: str
    """Qualified name."""
    kind: str
    """`module`, `class`, `function`, `method` or `property`."""
    doc: str
    """Without its indentation, otherwise as written."""
    signature: str = ""
    """Parameters and result without the name, e.g. `(input, *, out=None) -> Tensor`; empty when unknown."""
    file: str = ""
    line: int = 0


@dataclass
class Module:
    """One parsed file. The names of `docs` are relative to the module, those of `added` are absolute."""

    name: str
    is_package: bool
    defined: set[str] = field(default_factory=set)
    imports: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    """Name here -> (module, name there); None for a module imported as a whole."""
    stars: list[str] = field(default_factory=list)
    exported: list[str] | None = None
    """`__all__` when it is written out."""
    exported_from: str | None = None
    """The module whose `__all__` is imported as this one's."""
    docs: list[RawDoc] = field(default_factory=list)
    added: list[RawDoc] = field(default_factory=list)


def parse_module(source: SourceFile, shown: str) -> Module | None:
    """Parse a file, shown as `shown` in the records. None when it is no Python, or of a later version."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            tree = ast.parse(source.path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None
    return _ModuleReader(source, shown).read(tree)


class _ModuleReader:
    """Goes through a module's top level (into `if`, `try` and `with`) and its classes, not into functions."""

    def __init__(self, source: SourceFile, shown: str) -> None:
        self.module = Module(source.module, source.is_package)
        self.shown = shown
        self.static = StaticText()
        self.helpers: dict[str, str] = {}
        self.signatures: dict[str, str] = {}

    def read(self, tree: ast.Module) -> Module:
        doc = ast.get_docstring(tree, clean=False)
        if doc is not None:
            self.module.docs.append(RawDoc("", "module", clean(doc), "", self.shown, 1))
        for statement in _flatten(tree.body):
            if isinstance(statement, _Function):
                self.module.defined.add(statement.name)
                self._remember_helper(statement)
                self._function(statement, "", in_class=False)
            elif isinstance(statement, ast.ClassDef):
                self.module.defined.add(statement.name)
                self._class(statement, "")
            elif isinstance(statement, ast.ImportFrom):
                self._import_from(statement)
            elif isinstance(statement, ast.Import):
                for alias in statement.names:
                    self.module.imports[alias.asname or alias.name.split(".")[0]] = (alias.name, None)
            else:
                self._other(statement)
        return self.module

    def _import_from(self, statement: ast.ImportFrom) -> None:
        base = statement.module or ""
        if statement.level:
            parts = self.module.name.split(".")
            keep = len(parts) - statement.level + (1 if self.module.is_package else 0)
            base = ".".join([*parts[: max(keep, 0)], *([base] if base else [])])
        for alias in statement.names:
            if alias.name == "*":
                self.module.stars.append(base)
            elif alias.name == "__all__":
                self.module.exported_from = base
            else:
                self.module.imports[alias.asname or alias.name] = (base, alias.name)

    def _other(self, statement: ast.stmt) -> None:
        self.static.read(statement)
        call: ast.expr | None = statement.value if isinstance(statement, ast.Assign | ast.Expr) else None
        target = ""
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            target = statement.targets[0].id
            if target == "__all__":
                self.module.exported = _names(statement.value)
        elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Attribute):
            self._assigned_doc(statement.targets[0], statement.value)
        elif isinstance(statement, ast.AugAssign) and _is_name(statement.target, "__all__"):
            self._extend_exported(statement.value)
        if isinstance(call, ast.Call):
            if isinstance(call.func, ast.Attribute) and _is_name(call.func.value, "__all__") and call.args:
                self._extend_exported(call.args[0])
            self._added(call, f"{self.module.name}.{target}" if target else "")

    def _extend_exported(self, value: ast.expr) -> None:
        more = _names(value)
        if self.module.exported is not None:
            self.module.exported = None if more is None else [*self.module.exported, *more]

    def _function(self, node: _Function, scope: str, *, in_class: bool) -> None:
        decorators = [_last_name(decorator) for decorator in node.decorator_list]
        if node.name.startswith("_") or {"overload", "setter", "deleter"} & set(decorators):
            return
        doc = ast.get_docstring(node, clean=False)
        if doc is None:
            return
        is_property = any(name.endswith("property") for name in decorators)
        kind = "property" if is_property else "method" if in_class else "function"
        bound = in_class and "staticmethod" not in decorators
        rendered = "" if is_property else signature(node, bound=bound)
        self.module.docs.append(RawDoc(f"{scope}{node.name}", kind, clean(doc), rendered, self.shown, node.lineno))

    def _class(self, node: ast.ClassDef, scope: str) -> None:
        if node.name.startswith("_"):
            return
        doc = ast.get_docstring(node, clean=False)
        body = list(_flatten(node.body))
        name = f"{scope}{node.name}"
        self.signatures[name] = shown = _class_signature(node, body)
        if doc is not None:
            self.module.docs.append(RawDoc(name, "class", clean(doc), shown, self.shown, node.lineno))
        inner = f"{scope}{node.name}."
        for statement in body:
            if isinstance(statement, _Function):
                self._function(statement, inner, in_class=True)
            elif isinstance(statement, ast.ClassDef):
                self._class(statement, inner)
            elif isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call):
                target = statement.targets[0]
                if isinstance(target, ast.Name):
                    self._added(statement.value, f"{self.module.name}.{inner}{target.id}")

    def _assigned_doc(self, target: ast.Attribute, value: ast.expr) -> None:
        """Record `Thing.__doc__ = "..."` of a class defined above, as torch's optimisers have it."""
        name = _dotted(target.value)
        doc = self.static.text(value)
        if target.attr == "__doc__" and doc and name in self.signatures:
            self.module.docs.append(RawDoc(name, "class", clean(doc), self.signatures[name], self.shown, target.lineno))

    def _remember_helper(self, node: _Function) -> None:
        """Remember a function that documents one class's methods: `f(method, ..., doc)`.

        It calls `add_docstr(getattr(Owner, method), doc)` or `add_newdoc("place", "Owner", (method, doc))`.
        """
        for call in ast.walk(node):
            if not (isinstance(call, ast.Call) and _last_name(call.func) in _ADD_DOC and call.args):
                continue
            what = call.args[0]
            owner: str | None = None
            if isinstance(what, ast.Call) and _is_name(what.func, "getattr") and what.args:
                owner = _dotted(what.args[0])
            elif len(call.args) == 3 and isinstance(call.args[2], ast.Tuple):
                place, name = (self.static.text(each) for each in call.args[:2])
                owner = f"{place}.{name}" if place and name else None
            if owner and "." in owner:
                self.helpers.setdefault(node.name, owner)

    def _added(self, call: ast.Call, target: str) -> None:
        """Record the docstrings that `add_docstr(thing, doc)` or `add_newdoc(place, name, doc)` attaches."""
        name = _last_name(call.func)
        arguments = call.args
        if name in self.helpers and len(arguments) >= 2:
            method = self.static.text(arguments[0])
            self._add(f"{self.helpers[name]}.{method}", "method", self.static.text(arguments[-1]), call)
        elif name not in _ADD_DOC or len(arguments) < 2:
            return
        elif name == "add_newdoc":
            self._add_newdoc(arguments, call)
        else:
            known = target or _dotted(arguments[0]) or ""
            parent = known.rpartition(".")[0].rpartition(".")[2]
            kind = "method" if parent[:1].isupper() else "function"
            self._add(known, kind, self.static.text(arguments[1]), call)
            if target:
                self.module.defined.add(target.rpartition(".")[2])

    def _add_newdoc(self, arguments: Sequence[ast.expr], call: ast.Call) -> None:
        first = self.static.text(arguments[0])
        if len(arguments) == 2:  # (name, doc): said of the module's own package
            package = self.module.name.rpartition(".")[0]
            self._add(f"{package}.{first}", "function", self.static.text(arguments[1]), call)
            return
        owner, what = f"{first}.{self.static.text(arguments[1])}", arguments[2]
        pairs = what.elts if isinstance(what, ast.List) else [what]
        for pair in pairs:
            if isinstance(pair, ast.Tuple) and len(pair.elts) == 2:
                method = self.static.text(pair.elts[0])
                self._add(f"{owner}.{method}", "method", self.static.text(pair.elts[1]), call)
            else:
                self._add(owner, "function", self.static.text(pair), call)

    def _add(self, name: str, kind: str, doc: str | None, call: ast.Call) -> None:
        if doc and name and "None" not in name.split("."):
            self.module.added.append(RawDoc(name, kind, clean(doc), "", self.shown, call.lineno))


def signature(node: _Function, *, bound: bool) -> str:
    """`(a, b=1, *, c) -> R` of a function: no name, no annotations of parameters, no first one where it is `bound`."""
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    defaults += arguments.defaults
    shown = [_parameter(a.arg, d) for a, d in zip(positional, defaults, strict=True)]
    if bound:
        shown = shown[1:]
    if arguments.vararg is not None:
        shown.append(f"*{arguments.vararg.arg}")
    elif arguments.kwonlyargs:
        shown.append("*")
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        shown.append(_parameter(argument.arg, default))
    if arguments.kwarg is not None:
        shown.append(f"**{arguments.kwarg.arg}")
    returns = "" if node.returns is None else ast.unparse(node.returns).strip("'\"")
    arrow = f" -> {returns}" if returns and returns != "None" and len(returns) <= _MAX_RETURNS else ""
    return f"({', '.join(shown)}){arrow}"


def _class_signature(node: ast.ClassDef, body: Sequence[ast.stmt]) -> str:
    """The parameters of `__init__` (or `__new__`), or the fields of a dataclass; empty when inherited."""
    functions = {statement.name: statement for statement in body if isinstance(statement, _Function)}
    for name in ("__init__", "__new__"):
        if name in functions:
            return signature(functions[name], bound=True).partition(" -> ")[0]
    if any(_last_name(decorator) == "dataclass" for decorator in node.decorator_list):
        fields = [s for s in body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)]
        return f"({', '.join(_parameter(ast.unparse(f.target), f.value) for f in fields)})"
    return ""


def _parameter(name: str, default: ast.expr | None) -> str:
    if default is None:
        return name
    shown = " ".join(ast.unparse(default).split())
    return f"{name}={shown if len(shown) <= _MAX_DEFAULT else '...'}"


def _flatten(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements in order, those inside `if`, `try` and `with` as if they stood at the level of these."""
    for statement in body:
        if isinstance(statement, ast.If):
            yield from _flatten([*statement.body, *statement.orelse])
        elif isinstance(statement, ast.Try):
            handlers = [s for handler in statement.handlers for s in handler.body]
            yield from _flatten([*statement.body, *handlers, *statement.orelse, *statement.finalbody])
        elif isinstance(statement, ast.With):
            yield from _flatten(statement.body)
        else:
            yield statement


def _names(node: ast.expr) -> list[str] | None:
    """The strings of a list or tuple written out, or None."""
    if isinstance(node, ast.List | ast.Tuple):
        values = [e.value for e in node.elts if isinstance(e, ast.Constant) and isinstance(e.value, str)]
        return values if len(values) == len(node.elts) else None
    if isinstance(node, ast.BinOp):
        left, right = _names(node.left), _names(node.right)
        return None if left is None or right is None else [*left, *right]
    return None


def _last_name(node: ast.expr) -> str:
    """`c` of `a.b.c`, `a.b.c(...)` or `c`; empty for anything else."""
    if isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _dotted(node: ast.expr) -> str | None:
    """`a.b.c` of such an expression, or None."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name
