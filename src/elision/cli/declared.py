"""Write the table of parameters that ``--help`` reads: ``python -m elision.cli.declared``.

A test holds the table to the classes.
"""

import dataclasses
import inspect
import json
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

from elision.accelerators import ACCELERATORS
from elision.cli.parameters import FILE
from elision.distill import DISTILLATIONS
from elision.memory.policies.presets import PRESETS
from elision.methods import METHODS
from elision.study.papers import PAPERS
from elision.study.probes import PROBES
from elision.training.parallel import COMPRESSORS
from elision.training.parallel.federated import PARTITIONS, STRAGGLERS
from elision.training.parallel.federated.privacy import PRIVACY
from elision.training.parallel.federated.secure import SECURE
from elision.training.parallel.outer import OUTER_RULES

__all__ = ["declared"]


def declared() -> dict[str, Any]:
    """Parameters by kind and name, from the classes; with their defaults."""
    tables: dict[str, Any] = {
        "recipes": METHODS,
        "accelerators": ACCELERATORS,
        "probes": PROBES,
        "policies": PRESETS,
        "compressors": COMPRESSORS,
        "outer rules": OUTER_RULES,
        "partitions": PARTITIONS,
        "stragglers": STRAGGLERS,
        "secure sums": SECURE,
        "mechanisms": PRIVACY,
        "distillations": DISTILLATIONS,
    }
    found: dict[str, Any] = {
        kind: {name: _parameters(make) for name, make in table.items()}
        for kind, table in tables.items()
    }
    found["papers"] = {name: _paper(paper) for name, paper in PAPERS.items()}
    return json.loads(json.dumps(found))  # lists for tuples, as the file has them


def _paper(paper: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(paper)
    flags = [
        (f.name, _type_text(hints[f.name]), f.default, bool(f.metadata))
        for f in dataclasses.fields(paper)
    ]
    return {"doc": inspect.cleandoc(paper.__doc__ or ""), "flags": flags}


def _type_text(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def _parameters(make: Callable[..., Any]) -> str:
    """Parameters that a spec can give, with their defaults as a spec writes them."""
    given = inspect.signature(make).parameters.values()
    return ", ".join(_parameter(p) for p in given if _is_written(p))


#: Parameters that are objects, which a spec cannot write.
_OBJECTS = ("overrides", "energy", "model")


def _is_written(parameter: inspect.Parameter) -> bool:
    """Whether a spec can write the parameter: no object, no tuple but of sides or words."""
    value = parameter.default
    if isinstance(value, tuple) and {type(v) for v in value} not in ({int}, {str}):
        return False
    return parameter.name not in _OBJECTS


def _parameter(parameter: inspect.Parameter) -> str:
    value = parameter.default
    if value is parameter.empty:
        return parameter.name
    if isinstance(value, bool) or value is None:
        value = str(value).lower()
    elif isinstance(value, tuple) and isinstance(value[0], str):
        value = f"({', '.join(value)})"
    elif isinstance(value, tuple):
        value = "x".join(map(str, value))
    return f"{parameter.name}={value}"


if __name__ == "__main__":
    FILE.write_text(json.dumps(declared(), indent=2) + "\n", encoding="utf-8")
