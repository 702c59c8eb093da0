"""Parameters of all that flags name by specs, and of papers, for ``--help``.

Help loads no tensor library, so it reads them from ``parameters.json`` beside this file,
which :mod:`elision.cli.declared` writes from the classes themselves.
"""

import functools
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["FILE", "KINDS", "epilogue", "papers"]

#: Flags that take specs, and what each names.
KINDS = {
    "recipe": "recipes",
    "accelerator": "accelerators",
    "probe": "probes",
    "memory": "policies",
    "compress": "compressors",
    "up": "compressors",
    "down": "compressors",
    "outer": "outer rules",
    "rule": "outer rules",
    "clients": "partitions",
    "stragglers": "stragglers",
    "secure": "secure sums",
    "privacy": "mechanisms",
    "distill": "distillations",
}

#: The table.
FILE = Path(__file__).with_name("parameters.json")


def epilogue(command: Callable[..., Any]) -> str | None:
    """The end of a command's help: what its flags can name, each with its parameters.

    Args:
        command: its function, whose parameters are the flags.

    Returns:
        Markdown, or None for a command without such flags.

    Example:
        >>> print(epilogue(lambda *, probe=(): None).splitlines()[2])
        - speed: rounds=9, batch=0, threads=0
    """
    flags = _flags(command)
    kinds = dict.fromkeys(kind for flag, kind in KINDS.items() if flag in flags)
    if not kinds:
        return None
    known = _table()
    return "\n\n".join(
        "\n".join([f"{kind.capitalize()} and their parameters:", "", *lines])
        for kind in kinds
        for lines in [map(_line, known[kind].items())]
    )


def papers() -> dict[str, Any]:
    """Docstring and flags (name, type, default, whether it may be empty) of each paper.

    Example:
        >>> papers()["scnn"]["flags"][2]
        ['seed', 'int', 0, False]
    """
    return _table()["papers"]


@functools.cache
def _table() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def _flags(command: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(command).parameters)


def _line(item: tuple[str, str]) -> str:
    name, parameters = item
    return f"- {name}: {parameters}" if parameters else f"- {name}"
