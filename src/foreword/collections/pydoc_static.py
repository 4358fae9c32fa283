"""Docstrings that are expressions: the value of a string expression in a module, without running the module.

Packages whose functions are compiled attach their documentation by calls, with shared pieces of text put in
by `format` (torch) or `%`. The few forms they use are worked out here; whatever else comes is `None`.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from typing import Any

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
