"""Codec: a form of a saved tensor in fewer bytes, with a declared error.

A codec packs a dense tensor and unpacks it again. It declares the error of
the restored tensor (:class:`Guarantee`), and the tests check every declaration.
"""

import enum
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import torch

from elision.memory.saved.checksum import Checksum
from elision.memory.saved.layout import Layout
from elision.memory.saved.roles import Role, Slot

__all__ = ["Codec", "Guarantee", "Packed", "TracedCodec", "all_finite", "floating"]


class Guarantee(enum.Enum):
    """Error that a codec declares for the tensors it restores.

    ``EXACT``: the consumer computes bit-identical gradients. ``UNBIASED``: the expected
    restored tensor is the saved one. ``BOUNDED``: no element is off by more than
    :meth:`Codec.bound`. ``LOSSY``: none of these; the error is only measured.

    Example:
        >>> from elision.memory.codecs import GroupQuant
        >>> GroupQuant(4).guarantee
        <Guarantee.UNBIASED: 'unbiased'>
    """

    EXACT = "exact"
    UNBIASED = "unbiased"
    BOUNDED = "bounded"
    LOSSY = "lossy"


@dataclass(frozen=True, eq=False)
class Packed:
    """A saved tensor in a codec's form.

    Attributes:
        payload: the tensors that hold it; their storages are its cost.
        layout: layout of the tensor to restore.
        meta: further data of the codec, of negligible size.
        checksum: of the payload; None: it is not checked.

    Example:
        >>> x = torch.ones(4, 8)
        >>> packed = Packed((x.half(),), Layout.of(x))
        >>> packed.nbytes, x.nbytes
        (64, 128)
    """

    payload: tuple[torch.Tensor, ...]
    layout: Layout
    meta: Any = None
    checksum: Checksum | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that the payload keeps alive."""
        return sum(p.untyped_storage().nbytes() for p in self.payload)

    def holding(self, payload: Iterable[torch.Tensor]) -> "Packed":
        """This form with other tensors in it.

        What a codec keeps in another codec's form is read from its own payload by this, so
        that the bytes that are counted, checked and struck are the ones that are unpacked.

        Args:
            payload: as many tensors as this form has.
        """
        return replace(self, payload=tuple(payload))

    def verify(self) -> None:
        """Compare the payload with its checksum, if it has one.

        Raises:
            DamagedError: its bytes changed.
        """
        if self.checksum is not None:
            self.checksum.verify(self.payload)


class TracedCodec(Protocol):
    """A codec as functions of tensors that ``torch.compile`` can trace.

    The sizes of the results follow from the sizes of the arguments, never from values.
    """

    def pack(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The packed form of a tensor, as tensors."""
        ...

    def unpack(
        self, parts: list[torch.Tensor], like: torch.Tensor, sizes: Sequence[int]
    ) -> torch.Tensor:
        """The restored tensor.

        Args:
            parts: the packed form.
            like: has its dtype and the order of its axes in memory.
            sizes: its shape. Those of ``like`` are another graph's, which cannot be
                computed with where they change from run to run.
        """
        ...


class Codec(ABC):
    """One way to keep a saved tensor. Members are frozen dataclasses, hence hashable.

    Attributes:
        name: short name, as in reports and policies.
        guarantee: declared error of the restored tensor.
        roles: the roles of the tensors it may pack.
        shared: whether another use of the same memory may read the packed form, in
            another shape.
        reads_values: whether the backward pass reads the restored values, not their shape
            alone; such memory is verified.
        offloads: whether the payload leaves the device, which may fail for lack of space.
        optional_in_graphs: whether a traced graph may leave the codec out; its tensor is
            left to the next codec of its rule, or kept.

    Example:
        >>> @dataclass(frozen=True)
        ... class Half(Codec):
        ...     name = "half"
        ...     guarantee = Guarantee.LOSSY
        ...     roles = frozenset({Role.LINEAR_INPUT})
        ...     def pack(self, tensor, slot):
        ...         return Packed((tensor.half(),), Layout.of(tensor))
        ...     def unpack(self, packed):
        ...         return packed.layout.empty().copy_(packed.payload[0])
        >>> slot = Slot("ConvolutionBackward0", "input", Role.LINEAR_INPUT)
        >>> Half().unpack(Half().pack(torch.tensor([0.5, 2.0]), slot))
        tensor([0.5000, 2.0000])
    """

    name: ClassVar[str]
    guarantee: ClassVar[Guarantee]
    roles: ClassVar[frozenset[Role]]
    shared: ClassVar[bool] = True
    reads_values: ClassVar[bool] = True
    offloads: ClassVar[bool] = False
    optional_in_graphs: ClassVar[bool] = False

    @abstractmethod
    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Pack a dense tensor, which must not be modified nor kept.

        Returns:
            None if this tensor cannot be packed (a NaN, an unexpected value), in which
            case it is kept as it is, with a note in the report.
        """

    @abstractmethod
    def unpack(self, packed: Packed) -> torch.Tensor:
        """Restore the tensor; called any number of times, always with one result."""

    def form(self, slot: Slot) -> Hashable:
        """What a packed form depends on beside the memory; uses that agree share one.

        The codec alone, where the form restores the values themselves.
        """
        del slot
        return self

    def keeps_sign(self, packed: Packed) -> bool:
        """True if a ReLU's mask can be read from the packed form of its result."""
        return False

    def unpack_sign(self, packed: Packed) -> torch.Tensor:
        """A tensor that is 1 where a ReLU passes the gradient (NaNs too), else 0."""
        return (self.unpack(packed) <= 0).logical_not_().to(packed.layout.dtype)

    def bound(self, packed: Packed) -> float | None:
        """Largest absolute error of an element of this tensor, if declared."""
        return 0.0 if self.guarantee is Guarantee.EXACT else None

    def traced(self, relu: bool) -> TracedCodec | None:
        """The form that ``torch.compile`` can trace; None if there is none.

        Args:
            relu: whether the tensor is the result of a ReLU whose mask is read from it.
        """
        del relu
        return None

    def __str__(self) -> str:
        return self.name


def all_finite(tensor: torch.Tensor) -> bool:
    """True if every element is a finite float32, the type that codecs compute in.

    One pass in the common case, without a copy.
    """
    if tensor.dtype is torch.float32 and bool(torch.isfinite(tensor.sum())):
        return True
    ends = torch.stack(torch.aminmax(tensor))  # a NaN is both
    return bool(torch.isfinite(ends.to(torch.float32)).all())


def floating(tensor: torch.Tensor) -> bool:
    """True if a value codec can take the tensor: floating, not empty, all finite."""
    return tensor.is_floating_point() and tensor.numel() > 0 and all_finite(tensor)
