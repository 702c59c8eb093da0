"""Values at random places that all ranks draw alike, so that none is sent."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from elision.common.checks import number
from elision.formats.base import uniform
from elision.operands.base import share_of
from elision.training.parallel.compressors.base import (
    Compressor,
    Guarantee,
    Message,
    State,
    scattered,
    take_out,
)

__all__ = ["RandomK"]


@dataclass(frozen=True)
class RandomK(Compressor):
    """One random value of each of ``ceil(share·n)`` neighbourhoods of equal size.

    The places follow from the seed, the tensor's name and the step. Neighbourhoods make
    them distinct without sorting; each value is as likely as in a free draw, to rounding
    of their sizes, which the unbiased form divides by exactly.

    Attributes:
        share: of the values, in (0, 1].
        unbiased: multiplies each value by the size of its neighbourhood, so that the
            expected value is the tensor; that multiplies the noise, too. Without, error
            feedback sends what was left out.

    Source: Stich et al., Sparsified SGD with Memory, NeurIPS 2018, section 2.2; the
    neighbourhoods are this library's.

    Example:
        >>> random = RandomK(share=0.5)
        >>> one, other = (random.compress(torch.ones(8), State(rank=r)) for r in (0, 1))
        >>> torch.equal(one.places, other.places), one.bits
        (True, 128)
    """

    share: float = 0.01
    unbiased: bool = False

    def __post_init__(self) -> None:
        number("RandomK", "share", self.share, "(0, 1]")

    @property
    def guarantee(self) -> Guarantee:
        """Unbiased if so asked."""
        return "unbiased" if self.unbiased else "biased"

    def compress(self, tensor: Tensor, state: State) -> Message:
        """The values alone."""
        flat = tensor.detach().float().flatten()
        size = flat.numel()
        count = share_of(self.share, size)
        edges = torch.arange(count + 1, device=flat.device) * size // count
        first, width = edges[:-1], edges.diff()
        drawn = uniform(torch.arange(count, device=flat.device), state.shared_seed)
        places = first + (drawn * width).long()
        values = flat[places]
        if self.unbiased:
            values = values * width
        state.step += 1
        return Message((values,), tensor.shape, summed=True, places=places)

    def decompress(self, message: Message) -> Tensor:
        """The values at the places drawn, zero elsewhere."""
        assert message.places is not None
        return scattered(message.parts[0], message.places, message.shape)

    def settle(self, tensor: Tensor, message: Message) -> Tensor:
        """Subtract the values at the places drawn."""
        assert message.places is not None
        return take_out(tensor, message.parts[0], message.places)

    def bits(self, shape: Sequence[int], state: State | None = None) -> int:
        """``32k``: no places."""
        del state
        return 32 * share_of(self.share, math.prod(shape))
