"""Elision: train with less work, and measure what the work left out is worth.

The one idea: a training step is three products per layer, ``Y = X·W``, ``dX = G·Wᵀ``
and ``dW = G·X``, and every method, engine and machine says something about these.

The names below load on first use, so that ``elision --help`` does not import torch.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Conv2dGeometry": "elision.products",
    "LayerProduct": "elision.products",
    "MatmulGeometry": "elision.products",
    "Product": "elision.products",
    "Cost": "elision.accelerators",
    "Recipe": "elision.recipe",
    "Table": "elision.recipe",
    "Trace": "elision.trace",
    "elide": "elision.layers",
    "metered": "elision.accounting",
    "record": "elision.recording",
    "restore": "elision.layers",
    "accelerators": "",
    "engines": "",
    "memory": "",
    "methods": "",
    "operands": "",
    "report": "",
    "stationarity": "",
    "shapes": "",
    "simulation": "",
    "study": "",
    "reproduce": "",
    "integrations": "",
    "export": "",
    "topology": "",
    "trace": "",
    "workloads": "",
}

__all__ = [*_HOME]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'elision' has no attribute {name!r}")
    home = _HOME[name]
    if not home:
        return importlib.import_module(f"elision.{name}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
