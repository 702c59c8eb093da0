"""A random projection, group-quantised: EXACT's way to keep the rows of a matrix."""

from dataclasses import dataclass

import torch

from elision.memory.codecs.group import GroupQuant
from elision.memory.codecs.rad import RadProject
from elision.memory.saved.codec import Codec, Guarantee, Packed
from elision.memory.saved.roles import Role, Slot

__all__ = ["ProjectedQuant"]


@dataclass(frozen=True)
class ProjectedQuant(Codec):
    """Unbiased: ``x·M`` in a few bits, restored as ``deq(·)·Mᵀ`` (EXACT, ICLR 2022).

    Both steps are unbiased and independent, so their composition is. Groups take the
    place of EXACT's rows.

    Attributes:
        keep: share of the row length that is left after the projection, in (0, 1].
        bits: bits per projected value, 1 to 8.

    Example:
        >>> import torch
        >>> from elision.memory import Role, Slot
        >>> slot = Slot("ConvolutionBackward0", "input", Role.LINEAR_INPUT)
        >>> x = torch.ones(8, 128)
        >>> packed = ProjectedQuant(0.125, bits=4).pack(x, slot)
        >>> packed.nbytes, x.nbytes
        (72, 4096)
    """

    keep: float = 0.125
    bits: int = 2
    name = "projected"
    guarantee = Guarantee.UNBIASED
    roles = frozenset({Role.LINEAR_INPUT})

    def __post_init__(self) -> None:
        self._parts()  # the parts check their parameters

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Project, then quantise; None if an element is not finite."""
        project, quantise = self._parts()
        inner = project.pack(tensor, slot)
        if inner is None:
            return None
        plain = Slot(slot.function, slot.name, slot.role, seed=slot.seed)
        codes = quantise.pack(inner.payload[0], plain)
        return codes and Packed(codes.payload, inner.layout, (codes, inner.meta))

    def unpack(self, packed: Packed) -> torch.Tensor:
        """Dequantise, then project back."""
        project, quantise = self._parts()
        codes, seed = packed.meta
        projected = quantise.unpack(codes.holding(packed.payload))
        return project.unpack(Packed((projected,), packed.layout, seed))

    def _parts(self) -> tuple[RadProject, GroupQuant]:
        return RadProject(self.keep), GroupQuant(self.bits)
