"""Group quantisation to 1 to 8 bits, with stochastic rounding (ActNN)."""

from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import torch

from elision.memory.base import Codec, Guarantee, Packed, floating
from elision.memory.layout import Layout, flat
from elision.memory.roles import SMOOTH_ROLES, Slot
from elision.memory.threads import in_threads

__all__ = ["GroupQuant", "group_ranges"]


class _Meta(NamedTuple):
    """What unpacking needs: whether zeros have a code of their own, and the error."""

    support: bool
    bound: float


@dataclass(frozen=True)
class GroupQuant(Codec):
    """Values in groups of 256, each on its own uniform grid of ``2**bits`` levels.

    Per group with minimum Z and range R, ``B = 2**bits - 1``::

        q = floor((x - Z)·B/R + u),   x̂ = q·R/B + Z,   u uniform in [0, 1)

    so that ``E[x̂] = x`` (ActNN, ICML 2021; there Z and R are stored as bfloat16, here
    as float32: 0.25 bits per element). Groups follow memory order.

    The result of a ReLU gets one grid less: code 0 means exactly zero, the other codes
    span the positive values only. Zeros and positives thus stay apart without a
    separate mask, and the ReLU's own mask is read from the codes.

    Attributes:
        bits: bits per element, 1 to 8.
        group: elements per group, a multiple of 8.
        rounding: ``"stochastic"`` (unbiased, off by less than a step) or ``"nearest"``
            (off by at most half a step, biased).

    Raises:
        ValueError: a parameter out of its range.
    """

    bits: int = 4
    group: int = 256
    rounding: str = "stochastic"
    roles = SMOOTH_ROLES

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or self.bits not in range(1, 9):
            raise ValueError(f"GroupQuant(bits={self.bits!r}): must be 1 to 8")
        if self.group < 8 or self.group % 8:
            raise ValueError(f"GroupQuant(group={self.group}): must be 8, 16, 24, ...")
        if self.rounding not in ("stochastic", "nearest"):
            raise ValueError(
                f"GroupQuant(rounding={self.rounding!r}): must be 'stochastic' or "
                "'nearest'"
            )

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """``"group 4-bit"``."""
        return f"group {self.bits}-bit"

    @property
    def guarantee(self) -> Guarantee:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Unbiased with stochastic rounding, bounded without."""
        return (
            Guarantee.UNBIASED if self.rounding == "stochastic" else Guarantee.BOUNDED
        )

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Quantise; None if an element is not finite."""
        if not floating(tensor):
            return None
        values = flat(tensor).to(torch.float32)
        support = slot.nonnegative and self.bits > 1
        groups = -(-values.numel() // self.group)
        full = values.numel() // self.group
        codes = values.new_empty(groups * self._group_bytes, dtype=torch.uint8)
        grid = values.new_empty(2, groups)
        self._quantise(values[: full * self.group], 0, slot.seed, support, codes, grid)
        if groups > full:  # the last group is filled up with its last value
            rest = values[full * self.group :]
            rest = torch.cat([rest, rest[-1:].expand(self.group - rest.numel())])
            self._quantise(rest, full, slot.seed, support, codes, grid)
        width = float(grid[1].max())
        # The last term: what float32 can lose in offset, scale and sum.
        slack = 4 * torch.finfo(torch.float32).eps * float(grid[0].abs().max() + width)
        bound = width * (1.0 if self.rounding == "stochastic" else 0.5) + slack
        if tensor.dtype is not torch.float32:
            bound += torch.finfo(tensor.dtype).eps * float(values.abs().max())
        return Packed((codes, grid), Layout.of(tensor), _Meta(support, bound))

    def unpack(self, packed: Packed) -> torch.Tensor:
        """The grid points."""
        support = packed.meta.support
        return self._restore(packed, "dequantise", (support, *packed.payload[1]))

    def keeps_sign(self, packed: Packed) -> bool:
        """Whether zeros have a code of their own."""
        return packed.meta.support

    def unpack_sign(self, packed: Packed) -> torch.Tensor:
        """Where the code is not zero's."""
        return self._restore(packed, "mask", ())

    def bound(self, packed: Packed) -> float | None:
        """The widest step of any group, or half of it when rounding to nearest."""
        return packed.meta.bound

    @property
    def _group_bytes(self) -> int:
        return self.group // 8 * self.bits

    def _quantise(
        self,
        values: torch.Tensor,
        first: int,
        seed: int,
        support: bool,
        codes: torch.Tensor,
        grid: torch.Tensor,
    ) -> None:
        """Quantise full groups, the first of which is group number ``first``."""
        size, packed = self.group, self._group_bytes
        stochastic = self.rounding == "stochastic"
        quantise = _backend(values).quantise

        def run(a: int, b: int) -> None:
            start = (seed + (first + a) * size // 2) & 0xFFFFFFFF
            quantise(
                _array(values[a * size : b * size]),
                *(size, self.bits, start, stochastic, support),
                _array(codes[(first + a) * packed : (first + b) * packed]),
                *(_array(row[first + a : first + b]) for row in grid),
            )

        in_threads(run, values.numel() // size, size)

    def _restore(self, packed: Packed, what: str, grid: tuple) -> torch.Tensor:
        """Call ``dequantise`` or ``mask`` on all groups."""
        codes = packed.payload[0]
        size, stored = self.group, self._group_bytes
        groups = codes.numel() // stored
        out = torch.empty(groups * size, device=codes.device)
        function = getattr(_backend(codes), what)

        def run(a: int, b: int) -> None:
            mine = (_array(g[a:b]) if isinstance(g, torch.Tensor) else g for g in grid)
            part = _array(codes[a * stored : b * stored])
            function(part, size, self.bits, *mine, _array(out[a * size : b * size]))

        in_threads(run, groups, size)
        return packed.layout.view(out)


def group_ranges(values: torch.Tensor, group: int = 256) -> torch.Tensor:
    """Range (maximum minus minimum) of each group of a flat tensor, float32."""
    full = values.numel() // group * group
    parts = [values[:full].view(-1, group)] if full else []
    if full < values.numel():
        parts.append(values[full:].view(1, -1))
    bounds = [torch.aminmax(part.to(torch.float32), dim=1) for part in parts]
    return torch.cat([high - low for low, high in bounds])


def _array(tensor: torch.Tensor) -> Any:
    """What the backend of the tensor's device takes: on the CPU a numpy array."""
    return tensor.numpy() if tensor.device.type == "cpu" else tensor


def _backend(tensor: torch.Tensor) -> ModuleType:
    """The native kernels on the CPU, their torch counterparts elsewhere."""
    if tensor.device.type == "cpu":
        from elision.memory.codecs import group_kernels

        return group_kernels
    from elision.memory.codecs import group_torch

    return group_torch
