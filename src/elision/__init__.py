"""Elision: train with less work, and measure what the work left out is worth.

The one idea: a training step is three products per layer, ``Y = X·W``, ``dX = G·Wᵀ``
and ``dW = G·X``, and every method, engine and machine says something about these.

The names below load on first use, so that ``elision --help`` does not import torch.
"""

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:  # what a type checker sees; __getattr__ below is what runs
    from elision import accelerators as accelerators
    from elision import engines as engines
    from elision import formats as formats
    from elision import layers as layers
    from elision import memory as memory
    from elision import methods as methods
    from elision import operands as operands
    from elision import products as products
    from elision import report as report
    from elision import study as study
    from elision import topology as topology
    from elision import training as training
    from elision import workloads as workloads
    from elision.accelerators import Cost as Cost
    from elision.accelerators import simulate as simulation  # noqa: F401
    from elision.layers import Recipe as Recipe
    from elision.layers import Table as Table
    from elision.layers import elide as elide
    from elision.layers import finalize as export  # noqa: F401
    from elision.layers import metered as metered
    from elision.layers import recipe as recipe
    from elision.layers import record as record
    from elision.layers import restore as restore
    from elision.products import Conv2dGeometry as Conv2dGeometry
    from elision.products import LayerProduct as LayerProduct
    from elision.products import MatmulGeometry as MatmulGeometry
    from elision.products import Product as Product
    from elision.products import Trace as Trace
    from elision.products import trace as trace
    from elision.study import papers as reproduce  # noqa: F401
    from elision.training import stationarity as stationarity
    from elision.workloads import libraries as integrations  # noqa: F401
    from elision.workloads import shapes as shapes

#: Where each public name is defined.
_HOME = {
    "Conv2dGeometry": "elision.products",
    "Cost": "elision.accelerators",
    "LayerProduct": "elision.products",
    "MatmulGeometry": "elision.products",
    "Product": "elision.products",
    "Recipe": "elision.layers",
    "Table": "elision.layers",
    "Trace": "elision.products",
    "elide": "elision.layers",
    "metered": "elision.layers",
    "record": "elision.layers",
    "restore": "elision.layers",
}

_ROOMS = (
    "accelerators",
    "engines",
    "formats",
    "layers",
    "memory",
    "methods",
    "operands",
    "products",
    "report",
    "study",
    "topology",
    "training",
    "workloads",
)

#: Short public names of modules that stand inside a room.
_SHORT = {
    "export": "elision.layers.finalize",
    "integrations": "elision.workloads.libraries",
    "recipe": "elision.layers.recipe",
    "reproduce": "elision.study.papers",
    "shapes": "elision.workloads.shapes",
    "simulation": "elision.accelerators.simulate",
    "stationarity": "elision.training.stationarity",
    "trace": "elision.products.trace",
}

__all__ = [*_HOME, *_ROOMS, *_SHORT]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"elision.{name}")
    if name in _SHORT:
        return importlib.import_module(_SHORT[name])
    raise AttributeError(f"module 'elision' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


class _ShortNames(MetaPathFinder, Loader):
    """Lets ``from elision.simulation import simulate`` work for the short names, too."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        package, _, name = fullname.rpartition(".")
        known = package == __name__ and name in _SHORT
        return ModuleSpec(fullname, self) if known else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(_SHORT[spec.name.rpartition(".")[2]])
        spec.loader_state = module.__spec__  # the import system is about to replace it
        return module

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None
        module.__spec__ = spec.loader_state


sys.meta_path.append(_ShortNames())
