"""Batch normalisation folded into the convolution or linear layer before it."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from elision.layers import groups_if_turned
from elision.operands.outputs_first import turned
from elision.precision.noise import relative_error

__all__ = ["folded"]

_LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

#: Relative change of the output up to which folding counts as rounding of float32 (own
#: choice).
_TOLERANCE = 1e-3


@torch.no_grad()
def folded(model: nn.Module, inputs: Any) -> nn.Module:
    """A copy in evaluation mode whose batch norms are in the layers before them.

    With ``s = γ/√(σ² + ε)``, a layer's weight becomes ``s·W`` and its bias
    ``s·(b − μ) + β``; the norm becomes the identity. A norm is folded where it alone reads
    what one ``Linear``, convolution or transposed convolution returns, which one pass of
    ``inputs`` shows; others stay.

    Args:
        model: any module.
        inputs: of a forward pass, from which the order of the layers is taken, and on
            which the copy must answer as the model does.

    Raises:
        ValueError: the copy answers otherwise: something else reads the layers' outputs.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2))
        >>> folded(model, torch.randn(2, 1, 4, 4))[1]
        Identity()
    """
    made = copy.deepcopy(model).eval()
    pairs, exact = _pairs(made, inputs)
    modules = dict(made.named_modules())
    for before, norm in pairs.items():
        _fold(modules[before], modules[norm])
        _replace(made, norm, nn.Identity())
    error = relative_error(made(inputs), exact)
    if not error < _TOLERANCE:
        raise ValueError(
            f"folded: the output changes by {error:.2g}; something reads a layer's output "
            "before its batch norm"
        )
    return made


def _fold(layer: Any, norm: Any) -> None:
    """Put a norm into the layer before it."""
    scale = torch.rsqrt(norm.running_var + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight
    shift = 0 if norm.bias is None else norm.bias
    bias = 0 if layer.bias is None else layer.bias
    weight, groups = layer.weight, groups_if_turned(layer)
    own = weight if groups is None else turned(weight, groups)
    own = own * scale.view(-1, *[1] * (weight.dim() - 1))
    own = own if groups is None else turned(own, groups)
    layer.weight = nn.Parameter(own, weight.requires_grad)
    layer.bias = nn.Parameter((bias - norm.running_mean) * scale + shift)


def _pairs(model: nn.Module, inputs: Any) -> tuple[dict[str, str], Tensor]:
    """Layers and the norms that read their outputs, by name; and the model's output."""
    made: dict[int, tuple[str, Tensor]] = {}
    calls: dict[str, int] = {}
    pairs: dict[str, str] = {}

    def layer_called(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            made[id(output)] = name, output  # kept alive, so that no other has its id
            calls[name] = calls.get(name, 0) + 1

        return hook

    def norm_called(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...], __: Tensor) -> None:
            calls[name] = calls.get(name, 0) + 1
            if id(args[0]) in made:
                pairs[made[id(args[0])][0]] = name

        return hook

    handles = []
    for name, module in model.named_modules():
        if type(module) in _LAYERS:
            handles.append(module.register_forward_hook(layer_called(name)))
        elif type(module) in _NORMS and module.running_mean is not None:  # pyright: ignore[reportAttributeAccessIssue]
            handles.append(module.register_forward_hook(norm_called(name)))
    try:
        output = model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    once = {a: b for a, b in pairs.items() if calls[a] == calls[b] == 1}
    return once, output


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)
