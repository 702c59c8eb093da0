"""What a network takes photographs for in several arithmetics: its likeliest classes."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from elision.common.checks import integer
from elision.layers import Recipe, elide, restore
from elision.precision.arithmetic import arithmetic

__all__ = ["TopClasses", "top_classes"]


@dataclass(frozen=True)
class TopClasses:
    """The likeliest classes of each example in one arithmetic.

    Attributes:
        arithmetic: its name; ``"float"`` for the network as it is.
        classes: ``(N, k)`` int64, the likeliest first.
        shares: ``(N, k)`` their probabilities.

    Example:
        >>> import torch
        >>> found = TopClasses("float", torch.tensor([[3, 1]]), torch.tensor([[0.7, 0.2]]))
        >>> found.holds(torch.tensor([1])).tolist()
        [True]
    """

    arithmetic: str
    classes: Tensor
    shares: Tensor

    def holds(self, labels: Tensor) -> Tensor:
        """Examples whose labelled class is among these: ``(N,)`` booleans."""
        return (self.classes == labels[:, None]).any(1)


@torch.no_grad()
def top_classes(
    model: nn.Module, inputs: Tensor, formats: Sequence[str], count: int = 5
) -> list[TopClasses]:
    """The likeliest classes, of the network as it is and in each arithmetic.

    Args:
        model: answers with scores ``(N, classes)``; runs in evaluation mode.
        inputs: of the model.
        formats: see :func:`elision.precision.arithmetic`.
        count: classes of each example.

    Raises:
        ValueError: an unknown arithmetic, or more classes than the model has.

    Example:
        >>> found = top_classes(nn.Linear(3, 8), torch.randn(2, 3), ["8a-8w"], count=3)
        >>> [(top.arithmetic, tuple(top.classes.shape)) for top in found]
        [('float', (2, 3)), ('8a-8w', (2, 3))]
    """
    made = restore(copy.deepcopy(model)).eval()
    found = []
    for each in (None, *map(arithmetic, formats)):
        if each is not None:
            elide(made, Recipe(each.name, each.table()), engine="torch")
        scores = made(inputs)
        integer("top_classes", "count", count, f"[1, {scores.shape[1]}]")
        shares, classes = scores.softmax(1).topk(count, dim=1)
        found.append(
            TopClasses("float" if each is None else each.name, classes, shares)
        )
    return found
