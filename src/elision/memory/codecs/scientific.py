"""Error-bounded compressors for scientific data, through their maintained libraries."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from elision.common.checks import number
from elision.common.extras import imported
from elision.memory.codecs.bits import keep_positive, pack_bits, unpack_bits
from elision.memory.saved.checksum import Checksum
from elision.memory.saved.codec import Codec, Guarantee, Packed, floating
from elision.memory.saved.layout import Layout, flat
from elision.memory.saved.roles import SMOOTH_ROLES, Slot

__all__ = ["Sz3", "Zfp"]


class _Scientific(Codec):
    """Base of both: an error bound in standard deviations of the tensor.

    The libraries work on arrays in the processor's memory; a tensor of another device
    is left to the next codec. The result of a ReLU keeps a 1-bit mask, by which zeros
    are restored as zeros and positives as positives.

    The bytes always have a checksum: the libraries' decoders trust them, and a flipped bit
    has them write beyond their arrays, which ends the process.
    """

    guarantee = Guarantee.BOUNDED
    roles = SMOOTH_ROLES
    library: ClassVar[str]
    tolerance: float

    def __post_init__(self) -> None:
        number(type(self).__name__, "tolerance", self.tolerance, "> 0")
        self._load()

    def _load(self) -> Any:
        """The library, imported on first use."""
        return imported(self.library, self.name, f"codec {self.name}")

    @abstractmethod
    def _compress(self, values: np.ndarray, limit: float) -> np.ndarray: ...

    @abstractmethod
    def _decompress(self, stored: np.ndarray, shape: tuple[int, ...]) -> np.ndarray: ...

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Compress within the bound; None if not finite, constant or not smaller."""
        if tensor.device.type != "cpu" or not floating(tensor):
            return None
        values = tensor.to(torch.float32).contiguous()
        limit = self.tolerance * float(values.std(correction=0))
        if limit < torch.finfo(torch.float32).tiny:
            return None
        stored = torch.from_numpy(self._compress(values.numpy(), limit).copy())
        payload = [stored]
        if slot.nonnegative:
            payload.append(pack_bits(flat(tensor) > 0))
        if sum(p.nbytes for p in payload) >= tensor.nbytes:
            return None
        # The last term: what the type of the result rounds off.
        bound = limit + torch.finfo(tensor.dtype).eps * float(values.abs().max())
        meta = slot.nonnegative, bound
        layout = Layout.of(tensor)
        checksum = Checksum.of(payload, slot, layout.shape)
        return Packed(tuple(payload), layout, meta, checksum)

    def unpack(self, packed: Packed) -> torch.Tensor:
        """Decompress.

        Raises:
            DamagedError: the bytes changed since they were packed.
        """
        packed.verify()
        values = self._decompress(packed.payload[0].numpy(), packed.layout.shape)
        restored = packed.layout.empty().copy_(torch.from_numpy(values))
        if self.keeps_sign(packed):
            keep_positive(flat(restored), packed.payload[1])
        return restored

    def keeps_sign(self, packed: Packed) -> bool:
        """True if a mask is kept."""
        return packed.meta[0]

    def unpack_sign(self, packed: Packed) -> torch.Tensor:
        """The mask alone."""
        mask = unpack_bits(packed.payload[1], packed.layout.numel)
        return packed.layout.view(mask.to(packed.layout.dtype))

    def bound(self, packed: Packed) -> float | None:
        """The tolerance times the tensor's standard deviation."""
        return packed.meta[1]


@dataclass(frozen=True)
class Sz3(_Scientific):
    """SZ3: prediction, linear quantisation of the residual, entropy coding.

    COMET (VLDB 2022) compresses activations with it, at a bound of its own choosing.

    Attributes:
        tolerance: largest error in standard deviations of the tensor (own choice: 0.05).

    Raises:
        ModuleNotFoundError: the extra ``sz3`` is not installed.
        ValueError: the tolerance is not positive.

    Example:
        >>> Sz3(tolerance=0)
        Traceback (most recent call last):
        ValueError: Sz3(tolerance=0): must be a number > 0
    """

    tolerance: float = 0.05
    name = "sz3"
    library = "pysz"

    def _compress(self, values: np.ndarray, limit: float) -> np.ndarray:
        pysz = self._load()
        settings = pysz.szConfig()
        settings.errorBoundMode = pysz.szErrorBoundMode.ABS
        settings.absErrorBound = limit
        return pysz.sz.compress(values, settings)[0]

    def _decompress(self, stored: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return self._load().sz.decompress(stored, np.float32, shape)[0]


@dataclass(frozen=True)
class Zfp(_Scientific):
    """zfp in its fixed-accuracy mode: blocks of 4 per axis, lifted and bit-plane coded.

    Attributes:
        tolerance: largest error in standard deviations of the tensor (own choice: 0.05).

    Raises:
        ModuleNotFoundError: the extra ``zfp`` is not installed.
        ValueError: the tolerance is not positive.

    Example:
        >>> Zfp(tolerance=0)
        Traceback (most recent call last):
        ValueError: Zfp(tolerance=0): must be a number > 0
    """

    tolerance: float = 0.05
    name = "zfp"
    library = "zfpy"

    def _compress(self, values: np.ndarray, limit: float) -> np.ndarray:
        stored = self._load().compress_numpy(values, tolerance=limit)
        return np.frombuffer(stored, np.uint8)

    def _decompress(self, stored: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return self._load().decompress_numpy(stored.tobytes()).reshape(shape)
