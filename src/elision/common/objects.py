"""Objects of a user's own modules, by the text ``package.module:NAME``."""

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from elision.common.names import lookup

__all__ = ["address", "imported", "maker", "split"]

_OBJECT = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")


def split(text: str) -> tuple[str, str] | None:
    """Module and name of ``package.module:NAME``; None if the text is not of that form.

    Example:
        >>> split("package.net:Net"), split("swat:sparsity=0.9")
        (('package.net', 'Net'), None)
    """
    found = _OBJECT.fullmatch(text)
    return None if found is None else (found[1], found[2])


def address(thing: Any) -> str | None:
    """The text that names a class or function of a module; None if none does.

    A lambda, or what is defined inside a function, has no address.

    Example:
        >>> address(Path), address(lambda: 0)
        ('pathlib:Path', None)
    """
    module, name = getattr(thing, "__module__", None), getattr(thing, "__name__", "")
    known = vars(sys.modules[module]) if module in sys.modules else {}
    return f"{module}:{name}" if known.get(name) is thing else None


def imported(kind: str, module: str) -> ModuleType:
    """A module by name; those of the current folder are found, too.

    Args:
        kind: what it is to hold ("recipe", "model"), for messages.
        module: its dotted name.

    Raises:
        ValueError: it cannot be imported; one line says why.
    """
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return importlib.import_module(module)
    except Exception as error:  # a module may fail in any way while it is imported
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{kind}: module {module!r} cannot be imported: "
            f"{type(error).__name__}: {reason}"
        ) from error
    finally:
        sys.path.remove(here)


def maker(kind: str, text: str) -> Callable[..., Any]:
    """The class or function that ``package.module:NAME`` names.

    Args:
        kind: what it makes ("model", "data set"), for messages.
        text: its module, which is imported, and its name.

    Raises:
        ValueError: not of that form, no such module, or no such function in it (lists
            those it has).

    Example:
        >>> maker("path", "pathlib:Path")
        <class 'pathlib.Path'>
    """
    parts = split(text)
    if parts is None:
        raise ValueError(f"{kind} {text!r}: write package.module:NAME")
    members = vars(imported(f"{kind} {text!r}", parts[0]))
    known = {n: v for n, v in members.items() if callable(v) and n[0] != "_"}
    return lookup(f"{kind} of {parts[0]}", parts[1], known)
