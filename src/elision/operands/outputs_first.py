"""Weights that have their inputs on the first axis, seen with their outputs there.

A transposed convolution's weight is ``(C, K/groups, *kernel)``: what shares a scale, a
threshold or a slice in a layer's output channel is no row of it. Turned, it is
``(K, C/groups, *kernel)``, as every other weight.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from elision.operands.base import State, Transform

__all__ = ["OutputsFirst", "turned", "turned_shape"]


def turned(x: Tensor, groups: int) -> Tensor:
    """``(C, K/groups, *kernel)`` as ``(K, C/groups, *kernel)``, or the other way round.

    Example:
        >>> turned(torch.arange(4).view(2, 2), groups=1).tolist()
        [[0, 2], [1, 3]]
        >>> turned(torch.arange(4).view(4, 1), groups=2).shape
        torch.Size([2, 2])
    """
    first, second, *kernel = x.shape
    apart = x.reshape(groups, first // groups, second, *kernel).transpose(1, 2)
    return apart.reshape(second * groups, first // groups, *kernel).contiguous()


def turned_shape(shape: tuple[int, ...], groups: int) -> tuple[int, ...]:
    """Shape of :func:`turned`.

    Example:
        >>> turned_shape((8, 3, 2, 2), groups=4)
        (12, 2, 2, 2)
    """
    first, second, *kernel = shape
    return (second * groups, first // groups, *kernel)


@dataclass(frozen=True)
class OutputsFirst(Transform):
    """A transform of a transposed convolution's weight with its outputs on axis 0.

    A layer's plan holds it; recipes name the transform inside. State is that one's.

    Attributes:
        inner: what is done to the turned weight.
        groups: of the convolution.

    Example:
        >>> from elision.operands import TopKSlices
        >>> weight = torch.tensor([[1.0, 3.0], [1.0, 0.5]])  # (inputs, outputs)
        >>> OutputsFirst(TopKSlices(0.5, "filter"))(weight, [], True).tolist()
        [[0.0, 3.0], [0.0, 0.5]]
    """

    inner: Transform
    groups: int = 1

    @property
    def sparsifies(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the transform inside."""
        return self.inner.sparsifies

    @property
    def limits_gradient(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the transform inside."""
        return self.inner.limits_gradient

    @property
    def writes_state(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the transform inside."""
        return self.inner.writes_state

    @property
    def pointwise(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the transform inside."""
        return self.inner.pointwise

    @property
    def own_gradient(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the transform inside."""
        return self.inner.own_gradient

    @property
    def number_format(self) -> str:
        """That of the transform inside."""
        return self.inner.number_format

    def initial_state(self) -> State:
        return self.inner.initial_state()

    def state_at(self, place: str) -> State:
        return self.inner.state_at(place)

    def state_shapes(self, operand_shape: torch.Size) -> dict[str, torch.Size]:
        shape = turned_shape(operand_shape, self.groups)
        return self.inner.state_shapes(torch.Size(shape))

    def apply(self, x: Tensor, state: State, training: bool) -> Tensor:
        own = self._turned(x)
        result = self.inner.apply(own, state, training)
        return x if result is own else self._turned(result)

    def differentiable(self, x: Tensor, state: State, training: bool) -> Tensor:
        own = self.inner.differentiable(self._turned(x), state, training)
        return self._turned(own)

    def work(self, result: Tensor, state: State) -> float:
        """That of the transform inside."""
        return self.inner.work(self._turned(result), state)

    def gradient_work(self, state: State) -> float:
        """That of the transform inside."""
        return self.inner.gradient_work(state)

    def wanted_gradient(self, state: State) -> Tensor | None:
        """That of the transform inside, in the weight's shape."""
        wanted = self.inner.wanted_gradient(state)
        return None if wanted is None else self._turned(wanted)

    def _turned(self, x: Tensor) -> Tensor:
        return turned(x, self.groups) if x.numel() else x

    def __str__(self) -> str:
        return str(self.inner)
