"""The layers of a model that a recipe reaches, and why it leaves others dense."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from elision.layers.modules import (
    ELIDED,
    WHOLES,
    elided_whole,
    is_derived,
    register_loaded,
)
from elision.layers.modules.base import ElidedLayer
from elision.layers.modules.part import ElidedWhole
from elision.layers.parts import home_of, parts_of

__all__ = ["elidable_layers", "elided_layers", "tied_to", "unreached"]


def elidable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that a recipe can reach, by name, in the order of registration.

    These are the modules whose type is a key of :data:`elision.layers.ELIDED` (exactly
    ``Linear``, ``Conv1d`` to ``Conv3d`` or ``ConvTranspose1d`` to ``ConvTranspose3d``,
    unless others are registered), and the weights of recurrent layers, their cells and
    attention, as parts (``lstm.hh_l0``, ``attn.in_proj``), with a weight of real
    floating-point numbers, at least one, and the elided ones. A subclass that is not
    registered is left alone, as is what a module computes from bare parameters;
    :func:`elision.explain` lists them.
    """
    return {
        name: layer
        for name, layer in _known_layers(model)
        if isinstance(layer, ElidedLayer)
        or (_has_real_weight(layer) and _has_values(layer))
    }


def _known_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The layers of types that recipes reach; of plain wholes, new parts."""
    register_loaded()
    for name, module in model.named_modules():
        if isinstance(module, ElidedLayer) or type(module) in ELIDED:
            yield name, module
        elif elided_whole(module) is not None:
            for part, layer in parts_of(module).items():
                yield f"{name}.{part}" if name else part, layer


def elided_layers(model: nn.Module) -> Iterator[tuple[str, ElidedLayer]]:
    """Names and layers of a model that ``elide`` has changed."""
    for name, module in model.named_modules():
        if isinstance(module, ElidedLayer):
            yield name, module


def unreached(model: nn.Module) -> dict[str, list[str]]:
    """Layers of a type that recipes reach, which stay dense for what they hold.

    Returns:
        Names of layers by the reason, which says what to do about it.
    """
    found: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        reason = _reason(module)
        if reason:
            found.setdefault(reason, []).append(name or "(the model itself)")
    return found


def _reason(module: nn.Module) -> str | None:
    if any(p is not None and is_lazy(p) for p in module._parameters.values()):
        return (
            "layers without weights stay dense: {}; run a batch through the model, then "
            "elide it"
        )
    own: list[nn.Module] = [module] if type(module) in ELIDED else []
    if elided_whole(module) is not None:
        own += parts_of(module).values()
    if not all(map(_has_real_weight, own)):
        return "layers of complex numbers, integers or another kind of tensor stay dense: {}"
    if isinstance(module, ElidedLayer | ElidedWhole):
        return None
    if is_derived(module):
        kinds = (*ELIDED, *WHOLES)
        return _DERIVED if any(k in type(module).__bases__ for k in kinds) else None
    if isinstance(module, tuple(WHOLES)) and elided_whole(module) is None:
        return _OWN_FORWARD
    return None


_DERIVED = (
    "layers whose class somebody else has changed (a parametrisation, FSDP) stay dense: "
    "{}; elide the model first"
)

_OWN_FORWARD = (
    "recurrent and attention layers with a forward of their own stay dense: {}"
)


def _has_values(layer: nn.Module) -> bool:
    weight: Any = layer.weight
    return weight.numel() > 0


def _has_real_weight(layer: nn.Module) -> bool:
    weight: Any = layer.weight
    plain = type(weight) in (Tensor, nn.Parameter) or hasattr(weight, "full_tensor")
    return plain and weight.is_floating_point() and weight.layout == torch.strided


def tied_to(
    model: nn.Module, layers: Mapping[str, nn.Module], including: tuple[str, ...] = ()
) -> dict[str, str]:
    """Layers whose weight another module reads, by name, and the name of that module.

    Two tensors are one if they begin at the same address.

    Args:
        model: the model.
        layers: those of its layers whose weight a recipe changes, by name; what they
            share among themselves they all read changed.
        including: shell-style patterns of layers to leave out of the answer.
    """
    homes = [home_of(layer) for layer in layers.values()]
    own = {(id(module), key) for module, key in homes}
    readers: dict[object, str] = {}
    first: dict[object, tuple[str, int]] = {}
    for name, layer in layers.items():  # one memory under two parameters
        place = _place(layer.weight)
        reader, parameter = first.setdefault(place, (name, id(layer.weight)))
        if parameter != id(layer.weight):
            readers.setdefault(place, reader)
    for name, module in model.named_modules():
        for parameter, value in module._parameters.items():
            if value is not None and (id(module), parameter) not in own:
                readers.setdefault(_place(value), name or "(the model itself)")
    return {
        name: readers[_place(layer.weight)]
        for name, layer in layers.items()
        if _place(layer.weight) in readers
        and not any(fnmatchcase(name, pattern) for pattern in including)
    }


def _place(x: Any) -> object:
    """What tells a tensor's memory from another's."""
    if type(x) not in (Tensor, nn.Parameter) or is_lazy(x):
        return id(x)
    if x.layout != torch.strided or x.device.type == "meta":
        return id(x)
    return (x.device, x.data_ptr()) if x.data_ptr() else id(x)
