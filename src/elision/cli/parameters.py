"""Parameters of recipes, machines, probes and policies, for ``--help``.

Help loads no tensor library, so it reads them from ``parameters.json`` beside this file.
``python -m elision.cli.parameters`` writes that file anew from the classes themselves, and
a test holds the two together.
"""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["KINDS", "declared", "epilogue"]

#: Flags that take specs, and what each names.
KINDS = {
    "recipe": "recipes",
    "accelerator": "accelerators",
    "probe": "probes",
    "memory": "policies",
}

_FILE = Path(__file__).with_name("parameters.json")


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
    kinds = [kind for flag, kind in KINDS.items() if flag in _flags(command)]
    if not kinds:
        return None
    known = json.loads(_FILE.read_text(encoding="utf-8"))
    return "\n\n".join(
        "\n".join([f"{kind.capitalize()} and their parameters:", "", *lines])
        for kind in kinds
        for lines in [map(_line, known[kind].items())]
    )


def _flags(command: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(command).parameters)


def _line(item: tuple[str, str]) -> str:
    name, parameters = item
    return f"- {name}: {parameters}" if parameters else f"- {name}"


def declared() -> dict[str, dict[str, str]]:
    """Parameters by kind and name, from the classes; with their defaults."""
    from elision.accelerators import ACCELERATORS
    from elision.memory.policies.presets import PRESETS
    from elision.methods import METHODS
    from elision.study.probes import PROBES

    tables: dict[str, Any] = {
        "recipes": METHODS,
        "accelerators": ACCELERATORS,
        "probes": PROBES,
        "policies": PRESETS,
    }
    return {
        kind: {name: _parameters(make) for name, make in table.items()}
        for kind, table in tables.items()
    }


def _parameters(make: Callable[..., Any]) -> str:
    """Parameters that a spec can give, with their defaults as a spec writes them."""
    given = inspect.signature(make).parameters.values()
    return ", ".join(_parameter(p) for p in given if _is_written(p))


#: Parameters that are objects, which a spec cannot write.
_OBJECTS = ("overrides", "energy", "model")


def _is_written(parameter: inspect.Parameter) -> bool:
    """Whether a spec can write the parameter: no object, and no tuple but of sides."""
    value = parameter.default
    if isinstance(value, tuple) and not (value and all(type(v) is int for v in value)):
        return False
    return parameter.name not in _OBJECTS


def _parameter(parameter: inspect.Parameter) -> str:
    value = parameter.default
    if value is parameter.empty:
        return parameter.name
    if isinstance(value, bool) or value is None:
        value = str(value).lower()
    elif isinstance(value, tuple):
        value = "x".join(map(str, value))
    return f"{parameter.name}={value}"


if __name__ == "__main__":
    _FILE.write_text(json.dumps(declared(), indent=2) + "\n", encoding="utf-8")
