"""`/docs`: the endpoints on a plain page, made from `openapi.json`, with no script and nothing from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from foreword.report.markup import Markup, element
from foreword.report.page import document

_PAGES = (("Page", "./"), ("OpenAPI description", "openapi.json"))


def docs_page(openapi: Mapping[str, Any]) -> str:
    """The page of an OpenAPI description."""
    info, schemas = openapi["info"], openapi.get("components", {}).get("schemas", {})
    links = [element("li", element("a", name, href=href)) for name, href in _PAGES]
    header = element(
        "header",
        element("h1", f"{info['title']} {info['version']}"),
        element("p", info.get("description", ""), class_="headline"),
        element("ul", links, class_="facts"),
    )
    sections = []
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            key = f"{method}{path}".replace("/", "-").replace("{", "").replace("}", "")
            sections.append((key, f"{method.upper()} {path}", _operation(operation, schemas)))
    sections += [(f"schema-{name}", name, _schema(schema)) for name, schema in sorted(schemas.items())]
    return document(f"{info['title']}: endpoints", header, sections)


def _operation(operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> Markup:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    example = _example(body, schemas)
    answers = [
        element("li", element("b", status), " ", answer.get("description", ""), " ", _kind(_content(answer)))
        for status, answer in sorted(operation.get("responses", {}).items())
    ]
    return element(
        "div",
        element("p", operation.get("description") or operation.get("summary", "")),
        element("p", "Body: ", _kind(body)) if body else None,
        element("pre", json.dumps(example, indent=2)) if example is not None else None,
        element("ul", answers),
    )


def _content(answer: Mapping[str, Any]) -> Any:
    return answer.get("content", {}).get("application/json", {}).get("schema")


def _example(body: Any, schemas: Mapping[str, Any]) -> Any:
    named = schemas.get(str((body or {}).get("$ref", "")).rpartition("/")[2], {})
    return next(iter(named.get("examples", [])), None)


def _schema(schema: Mapping[str, Any]) -> Markup:
    required = schema.get("required", [])
    fields = [
        element(
            "li",
            element("code", name),
            " ",
            _kind(value),
            " (required)" if name in required else None,
            f": {value['description']}" if value.get("description") else None,
        )
        for name, value in schema.get("properties", {}).items()
    ]
    return element("div", element("p", schema.get("description", "")), element("ul", fields))


def _kind(schema: Any) -> Markup:
    """A schema's type in words, with links to the named ones."""
    if not isinstance(schema, Mapping):
        return Markup("")
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return element("a", name, href=f"#schema-{name}")
    if "anyOf" in schema:
        parts = [_kind(part) for part in schema["anyOf"]]
        return Markup(" or ".join(parts))
    if "enum" in schema:
        return element("span", " or ".join(map(repr, schema["enum"])))
    if schema.get("type") == "array":
        return Markup(f"list of {_kind(schema.get('items'))}")
    return element("span", schema.get("type", "any"))
