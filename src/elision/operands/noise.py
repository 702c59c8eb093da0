"""Noise of the size that rounding makes, and of another shape."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from elision.common.checks import integer, one_of
from elision.common.seeds import seed_at, stream_of
from elision.operands.base import State, Transform
from elision.operands.cast import Cast

__all__ = ["Noise"]

Shape = Literal["gaussian", "uniform", "shuffled"]


@dataclass(frozen=True)
class Noise(Transform):
    """Independent noise in the place of a rounding's error, of the same size.

    With ``q`` the root mean square of ``Q(x) − x`` over the operand at hand, ``x`` becomes
    ``x + e``: ``e`` Gaussian of deviation ``q``, uniform in ``[−√3·q, √3·q]``, or the very
    errors ``Q(x) − x`` in random order ("shuffled"). So a rounding's size, histogram and
    dependence on the values can be told apart. It is drawn anew in every step of training;
    outside of training the operand stays as it is.

    Attributes:
        cast: the rounding ``Q``.
        shape: of the noise.
        seed: of its random numbers, with the layer's name and the step.

    Example:
        >>> x = torch.linspace(-1, 1, 1000)
        >>> noise = Noise(Cast("int4"), "gaussian")
        >>> found = noise(x, list(noise.initial_state().values()), True) - x
        >>> error = Cast("int4")(x, [], True) - x
        >>> bool((found.norm() / error.norm() - 1).abs() < 0.2)
        True
    """

    cast: Cast
    shape: Shape = "gaussian"
    seed: int = 0

    @property
    def reads_axes(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the cast."""
        return self.cast.reads_axes

    def check(self) -> None:
        if not isinstance(self.cast, Cast):
            raise ValueError(f"Noise: cast must be a Cast, got {self.cast!r}")
        one_of("Noise", "shape", self.shape, get_args(Shape))
        integer("Noise", "seed", self.seed, ">= 0")
        if self.cast.scale == "delayed":
            raise ValueError("Noise: a cast with delayed scales has a state of its own")

    def initial_state(self) -> State:
        zero = torch.zeros((), dtype=torch.int64)
        return {"step": zero, "stream": zero.clone()}

    def state_at(self, place: str) -> State:
        state = self.initial_state()
        state["stream"].fill_(stream_of(place, self.seed))
        return state

    def apply(self, x: Tensor, state: State, training: bool) -> Tensor:
        if not training or not x.numel():
            return x
        step, stream = int(state["step"]), int(state["stream"])
        state["step"].add_(1)
        # 32 bits of a seed are all that torch's generator of the CPU reads.
        generator = torch.Generator().manual_seed(seed_at(stream, step))
        error = self._error(x, stream + step)
        if self.shape == "shuffled":
            order = torch.randperm(x.numel(), generator=generator).to(x.device)
            return x + error.flatten()[order].view(x.shape)
        # Squares of an error would vanish in fp16.
        wide = error if error.dtype.itemsize >= 4 else error.float()
        size = wide.square().mean().sqrt()
        drawn = torch.empty(x.shape, dtype=wide.dtype)
        if self.shape == "gaussian":
            drawn.normal_(generator=generator)
        else:
            drawn.uniform_(-(3**0.5), 3**0.5, generator=generator)
        return x + (size * drawn.to(x.device)).to(x.dtype)

    def _error(self, x: Tensor, seed: int) -> Tensor:
        """The rounding's error on ``x``; of stochastic rounding, one draw of it."""
        state = self.cast.initial_state()
        if "stream" in state:
            state["stream"].fill_(seed % 2**32)
        return self.cast.apply(x, state, training=True) - x

    def __str__(self) -> str:
        return f"{self.shape} noise of the size of {self.cast}"
