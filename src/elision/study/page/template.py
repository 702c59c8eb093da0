"""HTML templates of the pages: one style, one script, figures inline, no network."""

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from elision.common.printable import printable

__all__ = ["policy", "render"]

#: Of every page: sorting, filtering, values under the pointer.
_SCRIPT = "script.js"


def render(name: str, *, live: str | None = None, **values: Any) -> str:
    """Fill in a template of this package.

    Args:
        name: file of the template.
        live: file of a further script, which may ask where the page comes from.
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
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = [_script(_SCRIPT), *([] if live is None else [_script(live)])]
    return environment.get_template(name).render(
        values, scripts=scripts, policy=policy(live)
    )


def policy(live: str | None = None) -> str:
    """Content-Security-Policy of a page: its own scripts run, by their digest, and no other.

    Args:
        live: as for :func:`render`.

    Example:
        >>> policy().partition("script-src")[0]
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    """
    names = [_SCRIPT] if live is None else [_SCRIPT, live]
    allowed = " ".join(f"'{_digest(_script(name))}'" for name in names)
    asks = "" if live is None else "; connect-src 'self'"
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src {allowed}{asks}"
    )


def _shown(value: Any) -> Any:
    """A value of a template; text, unless it is markup, as a page can show it."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return printable(value, keep="\n\t")
    return value


@cache
def _script(name: str) -> str:
    return files("elision.study.page").joinpath(name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    """A script's digest, without which a browser does not run it."""
    found = hashlib.sha256(script.encode()).digest()
    return f"sha256-{base64.b64encode(found).decode()}"
