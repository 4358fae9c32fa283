"""Pages from templates, with nothing beside them: no script, no other file, no network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from foreword.tables import byte_size, count, difference, duration, p_value, value

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def fill(template: str, **values: Any) -> Markup:
    """A template of `templates/` with its values, all escaped but what is markup already."""
    from markupsafe import Markup

    return Markup(_templates().get_template(template).render(values))


def document(title: str, header: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """A page with nothing beside it: markup above, then the sections in order, by key, name and contents."""
    from markupsafe import Markup

    style = Markup(resources.files("foreword.report").joinpath("style.css").read_text(encoding="utf-8"))
    page = fill("page.html", title=title, header=header, sections=sections, style=style)
    return f"{page}\n".encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair cannot be written


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader

    loader = PackageLoader("foreword.report")
    made = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    numbers = (value, difference, p_value, count, byte_size, duration)
    made.filters.update({function.__name__: function for function in numbers})
    made.globals["zip"] = zip
    return made
