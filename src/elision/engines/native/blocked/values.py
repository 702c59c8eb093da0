"""Contents of blocked tensors: memory, or what it is computed from when first read.

A :class:`Value` never changes, so any number of tensors may share it; an operation in
place gives its tensor another value. Normalisation, residual sum and ReLU that follow
one another stay one pending :class:`Normalised` until their result is read, and are then
one pass over memory.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from elision.engines.native import library
from elision.engines.native.blocked import passes

__all__ = [
    "Biased",
    "Masked",
    "Normalised",
    "Stored",
    "Summed",
    "Value",
    "blocked_copy",
]


class Value(ABC):
    """A float32 tensor of shape ``(ceil(N / 16), C, H, W, 16)``.

    Attributes:
        images: batch size, ``N``; values in the lanes after the last image mean nothing.
        sums_to_zero: whether the values of every channel are known to add up to zero,
            as those of a gradient do that a normalisation has centred.
    """

    def __init__(self, images: int, *, sums_to_zero: bool = False) -> None:
        self.images, self.sums_to_zero = images, sums_to_zero
        self._memory: Tensor | None = None

    def blocked(self) -> Tensor:
        """The memory, contiguous; computed at the first call and kept."""
        if self._memory is None:
            self._memory = self._compute()
        return self._memory

    @property
    @abstractmethod
    def size(self) -> tuple[int, int, int]:
        """Channels, height and width."""

    @abstractmethod
    def _compute(self) -> Tensor: ...

    def evict(self) -> None:  # noqa: B027 - most values have nothing to compute again
        """Drop memory that can be computed again from what is kept anyway."""


class Stored(Value):
    """Values in memory."""

    def __init__(
        self, memory: Tensor, images: int, *, sums_to_zero: bool = False
    ) -> None:
        super().__init__(images, sums_to_zero=sums_to_zero)
        self._memory = memory.contiguous()

    @property
    def size(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return tuple(self.blocked().shape[1:4])  # pyright: ignore[reportReturnType]

    def _compute(self) -> Tensor:
        raise AssertionError("the memory of a stored value is always there")


def blocked_copy(x: Tensor) -> Stored:
    """The values of a plain ``(N, C, H, W)`` tensor."""
    return Stored(library.to_blocked(x)[0], x.shape[0])


class Biased(Value):
    """A convolution's result whose bias is still to be added: ``source + bias``."""

    def __init__(self, source: Value, bias: Tensor) -> None:
        super().__init__(source.images)
        self.source, self.bias = source, bias

    @property
    def size(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.source.size

    def _compute(self) -> Tensor:
        return self.source.blocked() + self.bias.view(1, -1, 1, 1, 1)


class Normalised(Value):
    """``[ReLU](source · slope + offset [+ residual])``, slope and offset a channel.

    Attributes:
        source: input of the normalisation.
        affine: ``(2, C)``, slopes and offsets.
        residual: added before the ReLU; None: nothing.
        relu: whether a ReLU follows.
        has_residual: whether a residual was or will be added.
    """

    def __init__(
        self,
        source: Value,
        affine: Tensor,
        residual: Value | None = None,
        *,
        relu: bool = False,
    ) -> None:
        super().__init__(source.images)
        self.source, self.affine = source, affine
        self.residual, self.relu = residual, relu
        self.has_residual = residual is not None

    @property
    def size(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.source.size

    def _compute(self) -> Tensor:
        residual = None if self.residual is None else self.residual.blocked()
        y = passes.norm_apply(
            *(self.source.blocked(), self.affine, residual),
            images=self.images,
            relu=self.relu,
        )
        self.residual = None  # a sum is kept, not its terms
        return y

    def evict(self) -> None:
        """Keep the source alone, which the normalisation's gradient reads anyway."""
        if not self.has_residual:
            self._memory = None

    @property
    def is_open(self) -> bool:
        """Whether another step can join before the result is computed."""
        return self._memory is None and not self.relu


class Summed(Value):
    """The sum of two values."""

    def __init__(self, first: Value, second: Value) -> None:
        both = first.sums_to_zero and second.sums_to_zero
        super().__init__(first.images, sums_to_zero=both)
        self.terms: tuple[Value, Value] | None = (first, second)
        self._size = first.size

    @property
    def size(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self._size

    def _compute(self) -> Tensor:
        assert self.terms is not None
        first, second = (value.blocked() for value in self.terms)
        self.terms = None
        return first + second


class Masked(Value):
    """A gradient where a ReLU's output is positive, zero elsewhere."""

    def __init__(self, gradient: Value, output: Value) -> None:
        super().__init__(gradient.images)
        self.terms: tuple[Value, Value] | None = (gradient, output)
        self._size = gradient.size

    @property
    def size(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self._size

    def _compute(self) -> Tensor:
        assert self.terms is not None
        gradient, output = (value.blocked() for value in self.terms)
        self.terms = None
        return torch.ops.aten.threshold_backward(gradient, output, 0)

    def resolve(self, memory: Tensor) -> None:
        """Take the values that another pass has computed on its way."""
        self._memory, self.terms = memory, None
