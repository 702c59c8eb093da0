"""Traced forms of codecs: plain functions of tensors for ``torch.compile``.

A traced form cannot depend on values: a tensor with a NaN is packed, too (and restored
as NaN), and sizes follow from shapes alone. Tensors are packed in memory order and
restored with their strides. A size may be symbolic: ``len`` of a tensor would make a
number of it, and the graph one for that number alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from elision.memory.codecs.bits import pack_codes, unpack_codes
from elision.memory.codecs.group_torch import hash_words, round_down
from elision.memory.saved.codec import Codec, TracedCodec

__all__ = ["TracedGroups", "TracedIndices", "TracedMask", "TracedShape", "traced"]


class TracedMask:
    """One bit per element: 1 where it is above zero."""

    def pack(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The bits, eight to a byte."""
        return [pack_codes(_filled((_flat(x) > 0).to(torch.uint8), 8), 1)]

    def unpack(
        self, parts: list[torch.Tensor], like: torch.Tensor, sizes: Sequence[int]
    ) -> torch.Tensor:
        """One where the bit is set, else zero."""
        return _shaped(unpack_codes(parts[0], 1, math.prod(sizes)), like, sizes)


class TracedShape:
    """The shape alone; restored values are unspecified."""

    def pack(self, x: torch.Tensor) -> list[torch.Tensor]:
        """A tensor of one element."""
        return [x.new_zeros(1)]

    def unpack(
        self, parts: list[torch.Tensor], like: torch.Tensor, sizes: Sequence[int]
    ) -> torch.Tensor:
        """That element in the tensor's shape."""
        return parts[0].expand(sizes)


class TracedIndices:
    """Indices into an image plane, as int32."""

    def pack(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The indices as int32."""
        return [x.to(torch.int32)]

    def unpack(
        self, parts: list[torch.Tensor], like: torch.Tensor, sizes: Sequence[int]
    ) -> torch.Tensor:
        """The indices in the dtype of ``like``."""
        return parts[0].to(like.dtype)


@dataclass(frozen=True)
class TracedGroups:
    """Group quantisation, rounded stochastically with numbers drawn in the graph.

    As :class:`~elision.memory.codecs.GroupQuant`, but not dithered: one draw is not
    repeated in another graph, and what was positive has to come back positive where a
    ReLU's mask is read from it.
    """

    bits: int
    group: int
    relu: bool

    def pack(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Codes, and each group's minimum and step as bfloat16."""
        values = _filled(_flat(x).to(torch.float32), self.group)
        values = values.view(-1, self.group)
        high = values.amax(1, keepdim=True)
        positive = values.where(values > 0, high) if self.relu else values
        low = round_down(positive.amin(1, keepdim=True))
        first = int(self.relu)
        levels = 2**self.bits - 1 - first
        step = -round_down((low - high) / levels)
        inverse = torch.where(step > 0, 1 / step, 0)
        q = ((values - low) * inverse + _uniforms(values)).floor()
        q = q.clamp(0, levels).to(torch.uint8) + first
        if self.relu:
            q = torch.where(values > 0, q, 0)
        grid = torch.cat([low, step], 1).to(torch.bfloat16)
        return [pack_codes(q.view(-1), self.bits), grid]

    def unpack(
        self, parts: list[torch.Tensor], like: torch.Tensor, sizes: Sequence[int]
    ) -> torch.Tensor:
        """The grid values of the codes."""
        codes, grid = parts
        q = unpack_codes(codes, self.bits, grid.shape[0] * self.group)
        q = q.view(-1, self.group)
        low, step = grid.to(torch.float32).split(1, 1)
        values = (q.to(torch.float32) - int(self.relu)) * step + low
        if self.relu:
            values = torch.where(q > 0, values, 0)
        return _shaped(values.view(-1)[: math.prod(sizes)], like, sizes)


def traced(codecs: Sequence[Codec], relu: bool) -> TracedCodec | None:
    """The traced form of the first codec that has one; None if none has.

    Args:
        codecs: in the order in which they would be tried.
        relu: whether the tensor is the result of a ReLU whose mask is read from it.
    """
    forms = (codec.traced(relu) for codec in codecs)
    return next((form for form in forms if form is not None), None)


def _uniforms(like: torch.Tensor) -> torch.Tensor:
    """A random number of [0, 1) per element; ``torch.rand`` cannot be drawn this late."""
    start = torch.randint(0, 2**31 - 1, (1,), device=like.device)
    numbers = torch.arange(like.numel(), device=like.device) + start
    words = hash_words(numbers & 0xFFFFFFFF).view(like.shape)
    return (words >> 8).to(torch.float32) * 2.0**-24


def _memory_order(x: torch.Tensor) -> list[int]:
    """The axes from the one with the largest stride to that with the smallest."""
    return sorted(range(x.dim()), key=lambda axis: -x.stride(axis))


def _flat(x: torch.Tensor) -> torch.Tensor:
    return x.permute(_memory_order(x)).reshape(-1)


def _filled(values: torch.Tensor, group: int) -> torch.Tensor:
    """Flat values, and the last one repeated until the last group is full."""
    count = values.shape[0]
    if isinstance(count, int):
        return torch.cat([values, values[-1:].expand(-count % group)])
    # A graph for any size has to know that groups divide the result: it does of a
    # multiple, and not of a count with what it lacks.
    groups = (count + group - 1) // group
    places = torch.arange(groups * group, device=values.device)
    return values[places.clamp(max=count - 1)]


def _shaped(
    values: torch.Tensor, like: torch.Tensor, sizes: Sequence[int]
) -> torch.Tensor:
    """Undo :func:`_flat`, in the type of ``like``."""
    order = _memory_order(like)
    inverse = sorted(range(like.dim()), key=order.__getitem__)
    shape = [sizes[axis] for axis in order]
    return values.view(shape).permute(inverse).to(like.dtype)
