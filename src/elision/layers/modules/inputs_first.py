"""The elided form of transformers' ``Conv1D``, the linear layer of GPT and GPT-2.

Its weight is ``(inner, columns)``: the inputs are on the first axis, as in a transposed
convolution. The library is not imported here; the type is registered once a program has
imported it.
"""

import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from elision.layers.modules.base import ElidedLayer
from elision.products import INPUTS_FIRST

__all__ = ["loaded_pair"]

#: Module and name of the plain type.
_HOME, _NAME = "transformers.pytorch_utils", "Conv1D"

_MADE: dict[type[nn.Module], type[ElidedLayer]] = {}


def loaded_pair() -> tuple[type[nn.Module], type[ElidedLayer]] | None:
    """The plain type and its elided type; None: nobody has imported the library."""
    plain = getattr(sys.modules.get(_HOME), _NAME, None)
    if plain is None:
        return None
    if plain not in _MADE:
        body = {
            "__doc__": f"A ``{_NAME}`` whose products read what a recipe transforms.",
            "__module__": __name__,
            "forward": _forward,
        }
        _MADE[plain] = type(f"Elided{_NAME}", (ElidedLayer, plain), body)
    return plain, _MADE[plain]


def _forward(self: Any, x: Any) -> Tensor:
    """``x·W + b`` of ``(..., inner)``."""
    if isinstance(x, Proxy):
        return self._elision_traced(x)
    rows = x.reshape(-1, x.shape[-1])
    y = self.run_products(rows, self.weight, self.bias, INPUTS_FIRST)
    return torch.ops.aten._unsafe_view(y, [*x.shape[:-1], y.shape[-1]])


def __getattr__(name: str) -> Any:
    """The elided type by name, for pickles of models that hold it."""
    if name == f"Elided{_NAME}":
        __import__(_HOME)
        pair = loaded_pair()
        if pair is not None:
            return pair[1]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
