"""Masks that an exchange can use: of an elided model, and of what steps an optimiser."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from elision.layers import elided_layers, plan_of, states_of
from elision.products import Product
from elision.topology import Fixed
from elision.topology.install import UPDATES
from elision.topology.part import Part

__all__ = ["kept_masks", "needed_gradients", "refuse_moving_masks"]


def needed_gradients(model: nn.Module) -> dict[int, Callable[[], Tensor | None]]:
    """By the ``id`` of a weight, what tells where its gradient is needed.

    The function gives a tensor of the weight's shape, not zero where the gradient is
    needed in the step under way, or None where all of it is.
    """
    return dict(_masked_weights(model))


def _masked_weights(
    model: nn.Module,
) -> Iterator[tuple[int, Callable[[], Tensor | None]]]:
    for _, layer in elided_layers(model):
        plan = plan_of(layer)
        use = plan.use(Product.FORWARD, "weight")
        transform = plan.uses[use]
        if transform.limits_gradient:
            yield (
                id(layer.weight),
                lambda layer=layer, use=use, transform=transform: (
                    transform.wanted_gradient(states_of(layer, use))
                ),
            )


def kept_masks(optimizer: torch.optim.Optimizer) -> dict[int, Tensor]:
    """By the ``id`` of a weight, the mask that is applied after the optimiser's steps."""
    return {
        id(weight.weight): weight.mask
        for part in _parts(optimizer)
        for weight in part.own
    }


def refuse_moving_masks(owner: str, optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError if the optimiser's steps move masks, which ranks would not share."""
    for part in _parts(optimizer):
        if not isinstance(part.rule, Fixed):
            name = type(part.rule).__name__
            raise ValueError(
                f"{owner}: {name} moves masks by the weights and gradients of one rank, so "
                "ranks that train alone would end with different masks; use a mask that "
                "stays, such as method static, or exchange at every step"
            )


def _parts(optimizer: torch.optim.Optimizer) -> Iterator[Part]:
    hooks: Any = optimizer._optimizer_step_post_hooks.values()
    for hook in hooks:
        part = getattr(hook, "__self__", None)
        if isinstance(part, Part) and part.slot != UPDATES and part.own:
            yield part
