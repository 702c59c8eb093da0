"""Gradients rounded to a few levels behind uniform noise (DoReFa-Net)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from elision.common.checks import integer
from elision.common.seeds import seed_at, stream_of
from elision.formats.base import uniform
from elision.operands.base import State, Transform

__all__ = ["NoisyLevels"]


@dataclass(frozen=True)
class NoisyLevels(Transform):
    """``2^b`` levels between the extremes of each example, behind noise of one level.

    With ``m`` the largest magnitude of an example, ``L = 2^b − 1`` and ``u`` uniform in
    [−1/2, 1/2)::

        r = x/(2m) + 1/2 + u/L        result = 2m·(round(L·r)/L − 1/2)

    ``r`` is cut off to [0, 1]. The noise is a function of the layer's name, the step and
    the place of a value alone, the same for any number of threads; the buffer ``step``
    counts the results so far and ``stream`` holds a number that the name gives.

    Attributes:
        bits: width of a code, in [1, 8].

    Source: Zhou et al., DoReFa-Net, arXiv 1606.06160, equation 12.

    Example:
        >>> g = torch.tensor([[1.0, -1.0, 0.3]])
        >>> sorted({abs(v) for v in NoisyLevels(1).apply(g, {}, False)[0].tolist()})
        [1.0]
    """

    bits: int = 6

    def check(self) -> None:
        integer("NoisyLevels", "bits", self.bits, "[1, 8]")

    def initial_state(self) -> State:
        zero = torch.zeros((), dtype=torch.int64)
        return {"step": zero, "stream": zero.clone()}

    def state_at(self, place: str) -> State:
        state = self.initial_state()
        state["stream"].fill_(stream_of(place))
        return state

    def apply(self, x: Tensor, state: State, training: bool) -> Tensor:
        seed = 0
        if state:
            seed = seed_at(int(state["stream"]), int(state["step"]))
            if training:
                state["step"].add_(1)
        index = torch.arange(x.numel(), device=x.device).view(x.shape)
        noise = (uniform(index, seed) - 0.5).to(x.dtype)
        levels = 2**self.bits - 1
        largest = x.abs().amax(tuple(range(1, x.dim())), keepdim=True)
        scale = torch.where(largest > 0, 2 * largest, 1)
        codes = torch.round((x / scale + 0.5) * levels + noise).clamp(0, levels)
        result = scale * (codes / levels - 0.5)
        return torch.where(largest > 0, result, x)

    @property
    def number_format(self) -> str:
        """The numbers of the levels, from 0; of 1 bit, the signs."""
        return "binary" if self.bits == 1 else f"uint{self.bits}"

    def __str__(self) -> str:
        return f"{2**self.bits} levels behind noise"
