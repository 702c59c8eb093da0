"""HTML templates of the pages: one style, figures inline, no network and no script."""

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
        <h2>Work <span class="tag">counted here</span></h2>
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
    return environment.get_template(name).render(values)
