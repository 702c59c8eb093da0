"""Group quantisation to 1 to 8 bits (ActNN), with dithered or stochastic rounding."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import torch

from elision.common.checks import integer, one_of
from elision.memory.codecs.on_gpu import LARGEST_GROUP, usable
from elision.memory.codecs.pieces import spans
from elision.memory.codecs.threads import in_threads
from elision.memory.codecs.traced import TracedGroups
from elision.memory.codecs.units import Units, units_of
from elision.memory.saved.codec import Codec, Guarantee, Packed, TracedCodec, floating
from elision.memory.saved.layout import Layout, flat
from elision.memory.saved.roles import SMOOTH_ROLES, Slot

__all__ = ["GROUP", "ROUNDINGS", "GroupQuant", "group_ranges"]

#: Elements per group (own choice; ActNN: 256). Their offset and step take half a bit
#: per element, for which the range of a group is a sixth smaller on normal values.
GROUP = 64

ROUNDINGS = ("dithered", "stochastic", "nearest")


class _Meta(NamedTuple):
    """Data for unpacking, and the error.

    Attributes:
        support: whether zeros have a code of their own.
        bound: largest absolute error of an element.
        start: number of the first random number.
        units: of the values; None: as they are.
    """

    support: bool
    bound: float
    start: int
    units: Units | None


@dataclass(frozen=True)
class GroupQuant(Codec):
    """Values in groups, each on its own uniform grid of ``2**bits`` levels.

    Per group with minimum Z and range R, step ``h = R/(2**bits - 1)``::

        q = floor((x - Z)/h + u),   u uniform in [0, 1)
        x̂ = q·h + Z                 stochastic rounding (ActNN, ICML 2021)
        x̂ = (q + 1/2 - u)·h + Z     dithered rounding

    Both are unbiased. The error of stochastic rounding depends on where between two
    levels x lies; its variance is ``h²/6`` on average. Dithered rounding draws the same
    u again and takes it off, which leaves an error that is uniform in ``±h/2`` whatever
    x is (subtractive dither: Roberts, 1962; Schuchman, 1964): half the variance at the
    same bits, for the price of a hash per element in the backward pass.

    Z is stored as bfloat16, rounded down, and h as bfloat16, rounded up, so the grid
    spans the group: 32 bits per group. Groups follow memory order.

    The result of a ReLU gets one grid less: code 0 means exactly zero, the other codes
    span the positive values only. Zeros and positives thus stay apart without a
    separate mask, and the ReLU's own mask is read from the codes.

    The input of a norm whose groups would span several channels or rows is rounded in
    units of their own deviations (see :mod:`elision.memory.codecs.units`), in which the
    norm reads it.

    Attributes:
        bits: bits per element, 1 to 8.
        group: elements per group, a multiple of 8.
        rounding: ``"dithered"`` (unbiased, off by at most half a step),
            ``"stochastic"`` (unbiased, off by less than a step) or ``"nearest"`` (off
            by at most half a step, biased). Below a group's smallest positive value
            dithered rounding may restore a negative one; the mask does not.

    Raises:
        ValueError: a parameter out of its range.

    Example:
        >>> import torch
        >>> from elision.memory import Role, Slot
        >>> slot = Slot("ConvolutionBackward0", "input", Role.LINEAR_INPUT)
        >>> x = torch.linspace(-1, 1, 1024)
        >>> packed = GroupQuant(4).pack(x, slot)
        >>> packed.nbytes, x.nbytes
        (576, 4096)
    """

    bits: int = 4
    group: int = GROUP
    rounding: str = "dithered"
    roles = SMOOTH_ROLES

    def __post_init__(self) -> None:
        integer("GroupQuant", "bits", self.bits, "[1, 8]")
        if integer("GroupQuant", "group", self.group, ">= 8") % 8:
            raise ValueError(f"GroupQuant(group={self.group}): must be 8, 16, 24, ...")
        one_of("GroupQuant", "rounding", self.rounding, ROUNDINGS)

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """``"group 4-bit"``."""
        return f"group {self.bits}-bit"

    @property
    def guarantee(self) -> Guarantee:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Unbiased, unless rounded to nearest: bounded."""
        return Guarantee.BOUNDED if self.rounding == "nearest" else Guarantee.UNBIASED

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Quantise; None if an element is not finite."""
        if not floating(tensor):
            return None
        units = units_of(slot, tensor, self.group)
        values = flat(tensor if units is None else units.measure(tensor))
        support = slot.nonnegative and self.bits > 1 and units is None
        groups = -(-values.numel() // self.group)
        full = values.numel() // self.group
        codes = values.new_empty(groups * self._group_bytes, dtype=torch.uint8)
        grid = values.new_empty(2, groups, dtype=torch.float32)
        start = _spread(slot.seed)
        for span in _spans(values, full, self.group):
            piece = values[span.start * self.group : span.stop * self.group]
            if not _on_gpu(piece, self.group):
                piece = piece.to(torch.float32)
            self._quantise(piece, span.start, start, support, codes, grid)
        if groups > full:  # the last group is filled up with its last value
            rest = values[full * self.group :].to(torch.float32)
            rest = torch.cat([rest, rest[-1:].expand(self.group - rest.numel())])
            self._quantise(rest, full, start, support, codes, grid)
        width = float(grid[1].max())
        # The last term: what float32 can lose in offset, scale and sum.
        slack = 4 * torch.finfo(torch.float32).eps * float(grid[0].abs().max() + width)
        bound = width * (1.0 if self.rounding == "stochastic" else 0.5) + slack
        if not math.isfinite(bound):  # the range is wider than the type
            return None
        if units is not None:
            bound = units.error(bound)
        if tensor.dtype is not torch.float32:
            largest = max(abs(float(v)) for v in torch.aminmax(tensor))
            bound += torch.finfo(tensor.dtype).eps * largest
        payload = codes, grid.to(torch.bfloat16)  # exact: they were rounded to it
        return Packed(payload, Layout.of(tensor), _Meta(support, bound, start, units))

    def unpack(self, packed: Packed) -> torch.Tensor:
        """The grid points."""
        low, step = packed.payload[1].to(torch.float32)
        dithered = self.rounding == "dithered"
        support, _, start, units = packed.meta

        def dequantise(a: int, b: int, codes: Any, out: Any, backend: Any) -> None:
            first = self._random_number(start, a)
            grid = _array(low[a:b]), _array(step[a:b])
            backend.dequantise(
                *(codes, self.group, self.bits, first, dithered, support, *grid, out)
            )

        values = self._restore(packed, dequantise)
        return values if units is None else units.restore_(values)

    def keeps_sign(self, packed: Packed) -> bool:
        """True if zeros have a code of their own."""
        return packed.meta.support

    def unpack_sign(self, packed: Packed) -> torch.Tensor:
        """Mask of the elements whose code is not that of zero."""

        def mask(a: int, b: int, codes: Any, out: Any, backend: Any) -> None:
            backend.mask(codes, self.group, self.bits, out)

        return self._restore(packed, mask)

    def bound(self, packed: Packed) -> float | None:
        """The widest step of any group, or half of it when rounding to nearest."""
        return packed.meta.bound

    @property
    def _group_bytes(self) -> int:
        return self.group // 8 * self.bits

    def _random_number(self, start: int, group: int) -> int:
        """Number of the first hash of a group; every hash gives two uniforms."""
        return (start + group * self.group // 2) & 0xFFFFFFFF

    def _quantise(
        self,
        values: torch.Tensor,
        first: int,
        start: int,
        support: bool,
        codes: torch.Tensor,
        grid: torch.Tensor,
    ) -> None:
        """Quantise full groups, the first of which is group number ``first``."""
        size, packed = self.group, self._group_bytes
        random = self.rounding != "nearest"
        quantise = _backend(values, size).quantise

        def run(a: int, b: int) -> None:
            quantise(
                _array(values[a * size : b * size]),
                *(size, self.bits, self._random_number(start, first + a)),
                *(random, support),
                _array(codes[(first + a) * packed : (first + b) * packed]),
                *(_array(row[first + a : first + b]) for row in grid),
            )

        _share(run, values, values.numel() // size, size)

    def _restore(self, packed: Packed, decode: Callable[..., None]) -> torch.Tensor:
        """Call ``decode`` on shares of the groups: first, last + 1, codes, result."""
        codes = packed.payload[0]
        size, stored = self.group, self._group_bytes
        groups = codes.numel() // stored
        out = codes.new_empty(groups * size, dtype=packed.layout.dtype)
        backend = _backend(codes, size)
        for span in _spans(out, groups, size):
            target = out[span.start * size : span.stop * size]
            piece = target
            if target.dtype is not torch.float32 and not _on_gpu(out, size):
                piece = torch.empty_like(target, dtype=torch.float32)

            def run(
                a: int, b: int, first: int = span.start, piece: Any = piece
            ) -> None:
                part = _array(codes[(first + a) * stored : (first + b) * stored])
                result = _array(piece[a * size : b * size])
                decode(first + a, first + b, part, result, backend)

            _share(run, codes, span.stop - span.start, size)
            if piece is not target:
                target.copy_(piece)
        return packed.layout.view(out)

    def traced(self, relu: bool) -> TracedCodec | None:
        """Stochastic rounding; None for a ReLU at one bit, which has no code for zero."""
        if relu and self.bits == 1:
            return None
        return TracedGroups(self.bits, self.group, relu)


def _spread(seed: int) -> int:
    """A start far from that of the next seed (by the golden ratio of 32 bits)."""
    return seed * 0x9E3779B1 & 0xFFFFFFFF


def group_ranges(values: torch.Tensor, group: int = GROUP) -> torch.Tensor:
    """Range (maximum minus minimum) of each group of a flat tensor, float32."""
    full = values.numel() // group * group
    parts = [values[:full].view(-1, group)] if full else []
    if full < values.numel():
        parts.append(values[full:].view(1, -1))
    bounds = [torch.aminmax(part, dim=1) for part in parts]
    return torch.cat([high.to(torch.float32) - low for low, high in bounds])


def _array(tensor: torch.Tensor) -> Any:
    """The tensor as its backend takes it: on the CPU a numpy array."""
    return tensor.numpy() if tensor.device.type == "cpu" else tensor


def _spans(values: torch.Tensor, groups: int, size: int) -> Iterator[slice]:
    """Spans of groups: all at once where they need no conversion before."""
    if values.dtype is torch.float32 or _on_gpu(values, size):
        return iter([slice(0, groups)])
    return spans(groups, size, torch.get_num_threads())


def _share(
    run: Callable[[int, int], None], on: torch.Tensor, items: int, size: int
) -> None:
    """Work on all items: on the CPU in threads; elsewhere on the caller's stream."""
    if on.device.type == "cpu":
        in_threads(run, items, size)
    elif items:
        run(0, items)


def _on_gpu(tensor: torch.Tensor, group: int) -> bool:
    """Whether Triton's kernels work on it, which convert other dtypes on the way."""
    return group <= LARGEST_GROUP and usable(tensor)


def _backend(tensor: torch.Tensor, group: int) -> ModuleType:
    """The native kernels on the CPU; elsewhere Triton's, or their torch counterparts."""
    if tensor.device.type == "cpu":
        from elision.memory.codecs import group_kernels

        return group_kernels
    if _on_gpu(tensor, group):
        from elision.memory.codecs.on_gpu import group as on_gpu

        return on_gpu
    from elision.memory.codecs import group_torch

    return group_torch
