"""A product of two thin matrices, each of which the network adds up."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from elision.common.checks import integer
from elision.topology.selection import generator
from elision.training.parallel.compressors.base import (
    Compressor,
    Exchange,
    Guarantee,
    Message,
    State,
    averaged,
)

__all__ = ["PowerSGD"]


@dataclass(frozen=True)
class PowerSGD(Compressor):
    """``M ≈ P·Qᵀ`` of rank ``r`` by one step of power iteration, begun at the last ``Q``.

    ``P = M·Q`` is averaged and made orthonormal, ``Q = Mᵀ·P`` averaged: two all-reduces.
    Both are kept transposed, ``Pᵀ`` and ``Qᵀ``: a product of few long rows takes a fraction
    of the time of one of few long columns.
    A tensor of two axes or more is the matrix of its first axis by all others. One whose
    factors would be no smaller than itself, and every vector, is sent whole.

    Attributes:
        rank: columns of the factors.
        warm: begins at the last step's ``Q``; otherwise at a random one in every step.

    Source: Vogels, Karimireddy and Jaggi, PowerSGD, NeurIPS 2019, algorithm 1.

    Example:
        >>> matrix = torch.outer(torch.arange(1.0, 9.0), torch.arange(1.0, 7.0))
        >>> message = PowerSGD(rank=1).compress(matrix, State())
        >>> torch.allclose(PowerSGD(rank=1).decompress(message), matrix), message.bits
        (True, 448)
    """

    rank: int = 4
    warm: bool = True

    def __post_init__(self) -> None:
        integer("PowerSGD", "rank", self.rank)

    @property
    def guarantee(self) -> Guarantee:
        """What the factors do not span needs a memory."""
        return "biased"

    def compress(self, tensor: Tensor, state: State) -> Message:
        """Both factors of one rank alone, or the whole tensor."""
        matrix = self._matrix(tensor)
        if matrix is None:
            state.step += 1
            return _whole(tensor)
        left = _orthonormal(self._start(matrix, state) @ matrix.mT)
        right = left @ matrix
        self._keep(right, state)
        return Message((left, right), tensor.shape, summed=True)

    def decompress(self, message: Message) -> Tensor:
        """The product of the factors, or the whole tensor."""
        if len(message.parts) == 1:
            return message.parts[0].view(message.shape)
        left, right = message.parts
        return (left.mT @ right).view(message.shape)

    @property
    def looks(self) -> bool:
        """At the first factor: a row of it is not finite where one of the matrix is not."""
        return True

    def bits(self, shape: Sequence[int], state: State | None = None) -> int:
        """``32·r·(a + b)`` of a matrix ``a x b``, or ``32n``."""
        del state
        sides = self._sides(shape)
        return 32 * (self.rank * sum(sides) if sides else math.prod(shape))

    def exchange(self, tensor: Tensor, state: State) -> Exchange:
        """Two rounds; the share of a rank in the result is the result."""
        matrix = self._matrix(tensor)
        if matrix is None:
            state.step += 1
            sent = _whole(tensor)
            reply = yield sent
            assert isinstance(reply, Message)
            found = self.mean_of_total(reply, state)
            return found, lambda tensor: self.settle(tensor, sent)
        first = self._start(matrix, state) @ matrix.mT
        reply = yield Message(
            (first,), tensor.shape, summed=True, finite=_finite(first)
        )
        assert isinstance(reply, Message)
        left = _orthonormal(averaged(reply, state.ranks).parts[0])
        reply = yield Message((left @ matrix,), tensor.shape, summed=True)
        assert isinstance(reply, Message)
        right = averaged(reply, state.ranks).parts[0]
        self._keep(right, state)
        out = None if state.out is None else state.out.view(matrix.shape)
        found = torch.mm(left.mT, right, out=out).view(tensor.shape)
        return found, lambda tensor: tensor.sub_(found)

    def _keep(self, right: Tensor, state: State) -> None:
        state.step += 1
        if self.warm:
            state.tensors["right"] = right

    def _start(self, matrix: Tensor, state: State) -> Tensor:
        """The last ``Qᵀ``, or one that every rank draws alike."""
        if "right" in state.tensors:
            return state.tensors["right"]
        random = generator(state.seed, state.name, state.step)
        drawn = torch.randn(matrix.shape[1], self.rank, generator=random)
        return drawn.mT.contiguous().to(matrix.device)

    def _sides(self, shape: Sequence[int]) -> tuple[int, int] | None:
        """Rows and columns of the matrix; None: sent whole."""
        if len(shape) < 2:
            return None
        rows, columns = shape[0], math.prod(shape[1:])
        small = self.rank * (rows + columns) < rows * columns
        return (rows, columns) if small else None

    def _matrix(self, tensor: Tensor) -> Tensor | None:
        sides = self._sides(tensor.shape)
        return None if sides is None else tensor.detach().float().reshape(sides)


def _whole(tensor: Tensor) -> Message:
    # A copy, since feedback writes into the tensor what was not sent.
    values = tensor.detach().flatten().to(torch.float32, copy=True)
    return Message((values,), tensor.shape, summed=True, finite=_finite(values))


def _orthonormal(rows: Tensor) -> Tensor:
    return torch.linalg.qr(rows.mT).Q.mT.contiguous()


def _finite(values: Tensor) -> bool:
    """Whether all are; a sum that overflows is looked at again; on a GPU nobody looks."""
    if not values.is_cpu or values.sum().isfinite():
        return True
    return bool(values.isfinite().all())
