"""HTML templates of the pages: one style, one script, figures inline, no network."""

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["render"]


def render(name: str, **values: Any) -> str:
    """Fill in a template of this package.

    Args:
        name: file of the template.
        **values: names that the template reads; a missing one is an error.

    Example:
        >>> from elision.study.page.sections.base import Section
        >>> print(render("sections.html.j2", sections=[Section("Work", "counted here")]))
        <h2 id="work">Work <span class="tag">counted here</span></h2>
        <BLANKLINE>
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("elision.study.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script, digest = _script()
    return environment.get_template(name).render(
        values, script=script, script_hash=digest
    )


@cache
def _script() -> tuple[str, str]:
    """The pages' script, and its digest, without which a browser runs no script."""
    text = files("elision.study.page").joinpath("script.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return text, f"sha256-{digest}"
