"""Elision: train with less work, and measure what the work left out is worth.

The one idea: a training step is three products per layer, ``Y = X·W``, ``dX = G·Wᵀ``
and ``dW = G·X``, and every method, engine and machine says something about these.

The names below load on first use, so that ``elision --help`` does not import torch.
"""

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Conv2dGeometry",
    "Cost",
    "LayerProduct",
    "MatmulGeometry",
    "Product",
    "Recipe",
    "Table",
    "Trace",
    "accelerators",
    "distill",
    "elide",
    "energy",
    "engines",
    "explain",
    "export",
    "formats",
    "functional",
    "integrations",
    "layers",
    "memory",
    "metered",
    "methods",
    "nn",
    "operands",
    "precision",
    "products",
    "recipe",
    "record",
    "report",
    "reproduce",
    "restore",
    "shapes",
    "simulation",
    "stationarity",
    "study",
    "topology",
    "trace",
    "training",
    "verify",
    "winograd",
    "workloads",
]

#: Public classes and functions, and the room that defines each.
_HOME = {
    "Conv2dGeometry": "elision.products",
    "Cost": "elision.accelerators",
    "LayerProduct": "elision.products",
    "MatmulGeometry": "elision.products",
    "Product": "elision.products",
    "Recipe": "elision.layers",
    "Table": "elision.layers",
    "Trace": "elision.products",
    "elide": "elision.methods",  # whose names it reads
    "explain": "elision.layers",
    "metered": "elision.layers",
    "record": "elision.layers",
    "restore": "elision.layers",
}

#: Short public names of modules that stand inside a room.
_SHORT = {
    "integrations": "elision.workloads.libraries",
    "recipe": "elision.layers.recipe",
    "reproduce": "elision.study.papers",
    "shapes": "elision.workloads.shapes",
    "simulation": "elision.accelerators.simulate",
    "stationarity": "elision.training.stationarity",
    "trace": "elision.products.trace",
    "winograd": "elision.engines.winograd",
}

if TYPE_CHECKING:  # the names as a type checker reads them
    from elision import (
        accelerators,
        distill,
        energy,
        engines,
        export,
        formats,
        functional,
        layers,
        memory,
        methods,
        nn,
        operands,
        precision,
        products,
        report,
        study,
        topology,
        training,
        verify,
        workloads,
    )
    from elision.accelerators import Cost
    from elision.accelerators import simulate as simulation
    from elision.engines import winograd
    from elision.layers import (
        Recipe,
        Table,
        elide,
        explain,
        metered,
        recipe,
        record,
        restore,
    )
    from elision.products import (
        Conv2dGeometry,
        LayerProduct,
        MatmulGeometry,
        Product,
        Trace,
        trace,
    )
    from elision.study import papers as reproduce
    from elision.training import stationarity
    from elision.workloads import libraries as integrations
    from elision.workloads import shapes
else:  # the same names, loaded on first use

    def __getattr__(name: str) -> Any:
        if name in _HOME:
            return getattr(importlib.import_module(_HOME[name]), name)
        if name in __all__:
            return importlib.import_module(_SHORT.get(name, f"elision.{name}"))
        raise AttributeError(f"module 'elision' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _ShortNames:
    """Finder that makes ``from elision.simulation import simulate`` work, too.

    It is a finder and a loader by its methods: the base classes, in importlib.abc, would
    take half the time of importing this package.
    """

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        package, _, name = fullname.rpartition(".")
        if package != __name__ or name not in _SHORT:
            return None
        loader: Any = self  # a loader by its methods
        return ModuleSpec(fullname, loader)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(_SHORT[spec.name.rpartition(".")[2]])
        spec.loader_state = module.__spec__  # the import system is about to replace it
        return module

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None
        module.__spec__ = spec.loader_state


sys.meta_path.append(_ShortNames())
