"""Why a run diverged: the step that is not finite, run again with everything looked at.

A run looks at its loss and, before the optimiser reads them, at its gradients. The weights
are then those that the step began with, so that the same batch shows the same values: the
second run of the step names the layer and the product, and no other step pays for it.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from elision.layers.nonfinite import find_nonfinite, value_in

__all__ = ["first_cause", "nonfinite_gradient"]


def nonfinite_gradient(named: Iterable[tuple[str, nn.Parameter]]) -> str | None:
    """The first gradient that is not finite, in words; None: all are finite.

    One sum of each gradient is looked at, and the values only where a sum is not finite.

    Args:
        named: parameters by name, with their gradients.

    Example:
        >>> weight = nn.Parameter(torch.ones(2))
        >>> weight.grad = torch.tensor([1.0, torch.nan])
        >>> nonfinite_gradient([("fc.weight", weight)])
        "the gradient of 'fc.weight' is nan"
    """
    grads = [(name, p.grad.detach()) for name, p in named if p.grad is not None]
    sums = [grad.sum() for _, grad in grads]
    if all(x.is_cpu for x in sums):
        finite = all(math.isfinite(x.item()) for x in sums)
    else:  # one wait for the device, not one for each gradient
        finite = bool(torch.isfinite(torch.stack([x.float() for x in sums])).all())
    if finite:
        return None
    for name, grad in grads:
        values = grad.coalesce().values() if grad.is_sparse else grad
        value = value_in(values)
        if value is not None:
            return f"the gradient of {name!r} is {value}"
    return None  # finite values, whose sum overflows


def first_cause(
    model: nn.Module, again: Callable[[], Tensor], *, updated: bool = False
) -> str:
    """Where a step's first value that is not finite arises, in words.

    Args:
        model: elided, with the weights that the step began with.
        again: runs the step's forward pass on its batch and returns the loss.
        updated: whether an optimiser wrote the weights, from gradients that were finite.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> said = first_cause(model, lambda: model(torch.full((1, 2), torch.inf)).sum())
        >>> said.partition(", first seen ")[::2]
        ("inf in the input of layer '0' (recipe dense)", 'as read by its forward product')
    """
    for name, parameter in model.named_parameters():
        value = value_in(parameter)
        if value is not None:
            layer = name.rpartition(".")[0] or "(the model itself)"
            wrote = ", written by the optimiser from finite gradients"
            return (
                f"{value} in the parameter {name!r} of layer {layer!r}, before the step"
                f"{wrote if updated else ''}"
            )
    with find_nonfinite(model) as first:
        loss = again()
        if first.where is None and torch.isfinite(loss):
            loss.backward()
    if first.where is not None:
        return first.where
    if not torch.isfinite(loss):
        return "every layer's output is finite, so the loss itself overflowed"
    return "the step, run again, is finite in every product"
