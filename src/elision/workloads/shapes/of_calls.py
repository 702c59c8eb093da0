"""Geometry of products of weights that functions compute, from torch's own calls.

Recurrent layers, ``nn.MultiheadAttention`` and modules that call ``F.linear`` or
``F.conv2d`` on parameters of their own have no module for a product; what they ask torch
for says its shape.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from elision.products import (
    Conv2dGeometry,
    Conv3dGeometry,
    ConvTranspose2dGeometry,
    ConvTranspose3dGeometry,
    Geometry,
    MatmulGeometry,
)

__all__ = ["WeightProducts", "on_two_axes"]

Shape = tuple[int, ...]
aten = torch.ops.aten


class WeightProducts(TorchDispatchMode):
    """Reads the products of parameters while a model runs.

    Args:
        parameters: by name, as they run.
        found: what is called with the name of the parameter and the shape.

    Attributes:
        paused: whether products are those of a layer that is read by itself.
        unread: numbers of products that have no geometry, by parameter.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        found: Callable[[str, Geometry], None],
    ) -> None:
        super().__init__()
        self.parameters = parameters  # kept, so that their identities stay
        self.names = {id(p): name for name, p in parameters.items() if p.dim() > 1}
        self.found = found
        self.paused = False
        self.unread: Counter[str] = Counter()

    def __torch_dispatch__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.paused or func.overloadpacket not in flop_registry:
            return result
        named = {
            place: self._name(value)
            for place, value in enumerate(args)
            if isinstance(value, Tensor) and self._name(value)
        }
        if not named:
            return result
        place, name = next(iter(named.items()))
        reader = _READERS.get(func.overloadpacket)
        geometry = None if reader is None else reader(place, args)
        if geometry is None:
            self.unread[name] += 1
        else:
            self.found(name, geometry)
        return result

    def _name(self, value: Tensor) -> str:
        """Name of the parameter that a tensor is or is a view of; empty: of none."""
        base = value if value._base is None else value._base
        return self.names.get(id(value), self.names.get(id(base), ""))


def on_two_axes(
    entry: Shape, weight: Shape, how: dict[str, Any]
) -> tuple[Shape, Shape, dict[str, Any]]:
    """Shapes and options of a convolution over a line as those of height 1."""
    if len(entry) != 3:
        return entry, weight, how
    neutral = {"stride": 1, "dilation": 1, "padding": 0, "output_padding": 0}
    how = {
        name: (neutral[name], *value) if name in neutral else value
        for name, value in how.items()
    }
    return (*entry[:2], 1, entry[2]), (*weight[:2], 1, weight[2]), how


def _matrices(place: int, args: tuple[Any, ...]) -> Geometry:
    """``A · B``, the last two arguments, of which the weight is number ``place``."""
    a, b = (value for value in args if isinstance(value, Tensor) and value.dim() > 1)
    rows, inner = a.shape[-2:]
    columns = b.shape[-1]
    if args[place] is a:
        rows, columns = columns, rows
    return MatmulGeometry(rows, inner, columns, a.shape[0] if a.dim() == 3 else 1)


def _convolution(place: int, args: tuple[Any, ...]) -> Geometry | None:
    del place
    entry, weight = tuple(args[0].shape), tuple(args[1].shape)
    rank = len(entry) - 2
    names = ("stride", "padding", "dilation", "output_padding")
    values = (args[3], args[4], args[5], args[7])
    how: dict[str, Any] = {
        name: tuple(v) * (rank if len(v) == 1 else 1)
        for name, v in zip(names, values, strict=True)
    }
    how["groups"] = args[8]
    transposed = args[6]
    if not transposed:
        del how["output_padding"]
    if rank == 3:
        deep = ConvTranspose3dGeometry if transposed else Conv3dGeometry
        return deep.of(entry, weight, **how)
    entry, weight, how = on_two_axes(entry, weight, how)
    kind = ConvTranspose2dGeometry if transposed else Conv2dGeometry
    return kind.of(entry, weight, **how)


_READERS: dict[Any, Callable[[int, tuple[Any, ...]], Geometry | None]] = {
    aten.mm: _matrices,
    aten.addmm: _matrices,
    aten.bmm: _matrices,
    aten.convolution: _convolution,
}
