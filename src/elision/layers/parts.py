"""Layers with several weights: wholes, and their parts.

A recurrent layer holds a weight for each of its products, attention one for queries, keys
and values. Each such weight is one *part*: a layer of the table by itself, named after its
parameter (``lstm.hh_l0`` for ``lstm.weight_hh_l0``, ``attn.in_proj`` for
``attn.in_proj_weight``). The parameters stay where they are, so the keys of the state dict
are the old ones; a part reads them from its whole.

A plain whole has no parts as modules. :func:`parts_of` makes them for whoever asks what
layers a model has; ``elide`` hangs them into the whole, and ``restore`` takes them out.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Part", "home_of", "parameter_of", "parts_of"]

#: What a parameter's name has before or after the part's.
_PREFIX, _SUFFIX = "weight_", "_weight"


class Part(nn.Module):
    """One weight of a layer that has several, as a layer of its own.

    Args:
        whole: the layer whose parameter it is.
        key: name of the parameter there.

    Example:
        >>> lstm = nn.LSTM(3, 4)
        >>> Part(lstm, "weight_hh_l0").weight is lstm.weight_hh_l0
        True
    """

    def __init__(self, whole: nn.Module, key: str) -> None:
        super().__init__()
        self.training = whole.training
        # In a tuple, for a module that is an attribute would be a child.
        self._whole = (whole,)
        self.key = key

    @property
    def whole(self) -> nn.Module:
        """The layer that holds the parameter."""
        return self._whole[0]

    @property
    def name(self) -> str:
        """Name of the part in its whole."""
        return self.key.removeprefix(_PREFIX).removesuffix(_SUFFIX)

    @property
    def weight(self) -> Tensor:
        """The parameter, ``(columns, inner)``."""
        return getattr(self.whole, self.key)

    @property
    def bias(self) -> Tensor | None:
        """The bias of the same name, ``(columns,)``."""
        return getattr(self.whole, self.key.replace("weight", "bias"), None)

    @property
    def in_features(self) -> int:
        """Values that a row of the product's input has."""
        return self.weight.shape[1]

    @property
    def out_features(self) -> int:
        """Values that a row of its output has."""
        return self.weight.shape[0]

    def forward(self, input: Tensor) -> Tensor:
        """``input·Wᵀ + b`` of ``(rows, inner)``."""
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The sizes, for ``print``."""
        return f"{self.key}, {self.in_features} -> {self.out_features}"


def parts_of(whole: nn.Module) -> dict[str, Part]:
    """New parts of a layer with several weights, by name, in the parameters' order."""
    parts = [
        Part(whole, key)
        for key, value in whole._parameters.items()
        if value is not None and (key.startswith(_PREFIX) or key.endswith(_SUFFIX))
    ]
    return {part.name: part for part in parts}


def home_of(layer: nn.Module) -> tuple[nn.Module, str]:
    """The module that holds a layer's weight, and the weight's name there."""
    return (layer.whole, layer.key) if isinstance(layer, Part) else (layer, "weight")


def parameter_of(layer: nn.Module) -> Any:
    """The parameter that a layer's weight is; None: it is computed."""
    module, key = home_of(layer)
    return module._parameters.get(key)
