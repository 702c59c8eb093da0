"""A step made again where a saved tensor of it was found damaged."""

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from elision.common.checks import integer
from elision.faults.defence.replay import Before
from elision.memory import DamagedError

__all__ = ["repeated"]

Result = TypeVar("Result")


def repeated(
    step: Callable[[], Result], model: nn.Module, *, attempts: int = 2
) -> Result:
    """Make a step, and make it again from the same state where packed bytes changed.

    The recovery that belongs to a memory policy ``checked(...)``: the forward pass is
    computed anew, so what was saved is saved anew. It costs a copy of the gradients and the
    buffers a step, and a step where something was found.

    Args:
        step: forward and backward pass under a saver, without the optimiser's step. It must
            read the same data both times.
        model: whose gradients, buffers and random state are put back in between.
        attempts: at most so many.

    Returns:
        What the step returned.

    Raises:
        DamagedError: the last attempt found a damaged tensor, too.
        RuntimeError: the step replaced parameters of the model.
        ValueError: a number below 1.

    Example:
        >>> import torch
        >>> from elision.memory import saver
        >>> model, x = nn.Linear(64, 64), torch.randn(128, 64)
        >>> def step():
        ...     with saver(model, "checked(int8)"):
        ...         loss = model(x).square().mean()
        ...     loss.backward()
        ...     return loss
        >>> repeated(step, model).isfinite().item()
        True
    """
    integer("repeated", "attempts", attempts)
    before = Before(model)
    for left in reversed(range(attempts)):
        try:
            return step()
        except DamagedError:
            if not left:
                raise
        before.put_back("repeated")
    raise AssertionError  # the last attempt returns or raises
