"""The built kernels as Python functions of torch tensors, one to one.

Tensors in the *blocked* layout have shape ``(ceil(N / 16), C, H, W, 16)``, float32,
contiguous: 16 images side by side, lanes after the last image zero. Every function
releases the interpreter lock while it runs and uses ``torch.get_num_threads()`` threads,
torch's own where it computes on GNU's OpenMP; torch's settings are never changed.
"""

import contextlib
import ctypes
import math
import threading
from collections.abc import Iterator

import torch

from elision.native.shared_object import load, path, unavailable
from elision.products import Conv2dGeometry

__all__ = [
    "LANES",
    "MOST_TAPS",
    "Weights",
    "from_blocked",
    "largest_places",
    "load",
    "multiplies_halves",
    "narrow",
    "path",
    "rows_weight_grad",
    "sparse_input_grad",
    "threshold",
    "to_blocked",
    "unavailable",
    "weight_grad",
    "widen",
]

#: Images side by side in the blocked layout.
LANES = 16

#: Taps of a kernel whose places are kept in 16 bits.
MOST_TAPS = 1 << 16


def multiplies_halves() -> bool:
    """Whether the kernels of this CPU compute in half precision (AVX512-FP16)."""
    return bool(load().elision_multiplies_halves())


def _integers(geometry: Conv2dGeometry) -> ctypes.Array[ctypes.c_int]:
    v = geometry
    return (ctypes.c_int * 13)(
        *(v.batch, v.in_channels, v.height, v.width, v.out_channels),
        *(*v.kernel, *v.stride, *v.padding, *v.dilation),
    )


def _done(result: int) -> int:
    if result < 0:
        raise MemoryError("the native kernels ran out of memory")
    return result


def _floats(size: int | tuple[int, ...]) -> torch.Tensor:
    """Memory for the kernels, whatever the program's default dtype and device."""
    return torch.empty(size, dtype=torch.float32, device="cpu")


class _Workspace(threading.local):
    """Buffers of a thread, reused by tensors that do not outlive a call.

    A fresh tensor costs a page fault for every 4 KiB, which for some megabytes takes as
    long as the work on it.
    """

    def __init__(self) -> None:
        self.buffers: dict[int, torch.Tensor] = {}

    def take(self, slot: int, shape: tuple[int, ...]) -> torch.Tensor:
        size = math.prod(shape)
        if slot not in self.buffers or self.buffers[slot].numel() < size:
            self.buffers.pop(slot, None)
            self.buffers[slot] = _floats(size)
        return self.buffers[slot][:size].view(shape)


_WORKSPACE = _Workspace()


def _workspace(slot: int | None, shape: tuple[int, ...]) -> torch.Tensor:
    return _floats(shape) if slot is None else _WORKSPACE.take(slot, shape)


def to_blocked(x: torch.Tensor, slot: int | None = None) -> tuple[torch.Tensor, bool]:
    """``(N, C, H, W)`` to blocked float32, and whether every value is finite.

    With ``slot``, the result lies in memory of this thread that the next call with the
    same slot overwrites.
    """
    x = x.to(torch.float32).contiguous()
    n, *rest = x.shape
    y = _workspace(slot, (-(-n // LANES), *rest, LANES))
    finite = load().elision_to_blocked(
        x.data_ptr(), y.data_ptr(), n, x[0].numel(), torch.get_num_threads()
    )
    return y, bool(finite)


def from_blocked(y: torch.Tensor, images: int) -> torch.Tensor:
    """Blocked to float32 ``(images, C, H, W)``."""
    y = y.contiguous()
    x = y.new_empty((images, *y.shape[1:-1]))
    load().elision_from_blocked(
        y.data_ptr(), x.data_ptr(), images, x[0].numel(), torch.get_num_threads()
    )
    return x


def threshold(x: torch.Tensor, keep: float, samples: int | None = None) -> float:
    """Magnitude above which the ``ceil(keep·n)`` largest of ``n`` values lie.

    Args:
        x: any shape.
        keep: fraction to keep; 1 gives a threshold below zero, which keeps zeros too.
        samples: values to estimate the threshold from, instead of all; the error of
            the fraction is then about ``sqrt(keep·(1 − keep)/samples)``.
    """
    x = x.to(torch.float32).contiguous()
    count = x.numel() if samples is None else min(samples, x.numel())
    if keep >= 1:
        return -1.0
    k = max(1, math.ceil(round(keep * count, 6)))
    found = load().elision_threshold(
        x.data_ptr(), x.numel(), k, count, torch.get_num_threads()
    )
    if math.isnan(found):
        raise MemoryError("the native kernels ran out of memory")
    return found


def largest_places(x: torch.Tensor, count: int) -> torch.Tensor | None:
    """Rising places of the ``count`` values of largest magnitude, ties cut at the end.

    Args:
        x: float32 values in memory of their order, one axis; a NaN counts as infinite.
        count: in [1, n].

    Returns:
        int64, ``(count,)``; None: so many are equal to the smallest that its places do
        not fit into the memory taken for them.
    """
    size = x.numel()
    level = threshold(x, count / size)
    # Places of a quarter more than are wanted, for equals; the kernel writes in sixteens.
    room = min(size, count + count // 4)
    places = torch.empty(room + 32, dtype=torch.int64, device="cpu")
    found = load().elision_places_above(
        x.data_ptr(), size, level, places.data_ptr(), room
    )
    if not count <= found <= room:
        return None
    places = places[:found]
    if found == count:
        return places
    magnitudes = x[places].abs().nan_to_num(math.inf, math.inf)
    least = magnitudes.min()
    equals = (magnitudes == least).nonzero().flatten()
    kept = torch.ones(found, dtype=torch.bool)
    kept[equals[len(equals) - (found - count) :]] = False
    return places[kept]


def narrow(
    x: torch.Tensor,
    memory: torch.Tensor | None,
    sent: torch.Tensor,
    left: torch.Tensor | None,
    most: float,
) -> bool:
    """16 bits of every value of ``x + memory``, in one pass.

    Args:
        x: float32 values in memory of their order.
        memory: likewise, as many; None: nothing is added.
        sent: bfloat16 or float16, as many, in memory of their order; written: the nearest
            to the values, whose magnitudes are brought down to ``most``.
        left: float32; written: the values minus what is sent.
        most: representable in the dtype of ``sent``; infinity: nothing is brought down.

    Returns:
        Whether every value of ``x + memory`` is finite.
    """
    return bool(
        load().elision_narrow(
            x.data_ptr(),
            None if memory is None else memory.data_ptr(),
            sent.data_ptr(),
            None if left is None else left.data_ptr(),
            x.numel(),
            sent.dtype == torch.float16,
            most,
            torch.get_num_threads(),
        )
    )


def widen(total: torch.Tensor, ranks: int, out: torch.Tensor) -> None:
    """``out = total / ranks``, float32, of a bfloat16 or float16 sum, in one pass."""
    load().elision_widen(
        total.data_ptr(),
        out.data_ptr(),
        total.numel(),
        total.dtype == torch.float16,
        ranks,
        torch.get_num_threads(),
    )


class Weights:
    """The non-zeros of one convolution's weight, as lists in the kernels' order.

    Either the values of a weight are taken (:meth:`compress`), or the places of a mask
    (:meth:`follow`), whose values are then read anew for each product. What was
    compressed may be read by several threads at once; all else is one call at a time.

    With ``halves`` the kernels round operands to half precision, sum up a run of
    products (216 at most, times the density) in it, and promote the sums, which are
    added in float32. The tensors stay float32. Values above 65,504 become infinite.

    Attributes:
        geometry: shape of the layer, batch included; no groups.
        halves: whether the products are of halves.
        count: weights taken by the last :meth:`compress` or :meth:`follow`.

    Raises:
        ValueError: ``halves`` where :func:`multiplies_halves` is false.
    """

    def __init__(self, geometry: Conv2dGeometry, *, halves: bool = False) -> None:
        if halves and not multiplies_halves():
            raise ValueError("this CPU's kernels do not compute in half precision")
        self.geometry, self.halves = geometry, halves
        self.count = 0
        self._follows = False
        self._weight: torch.Tensor | None = None
        self._library = load()
        self._handle = self._library.elision_weights_new(_integers(geometry), halves)
        if not self._handle:
            raise MemoryError("the native kernels ran out of memory")

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.elision_weights_free(self._handle)

    def compress(
        self,
        weight: torch.Tensor,
        above: float = 0.0,
        *,
        forward: bool = True,
        input_grad: bool = True,
    ) -> None:
        """Take the weights of magnitude above ``above`` (all, if it is negative).

        Args:
            weight: float32 ``(K, C, R, S)``.
            above: threshold; NaN weights are always taken.
            forward: whether :meth:`forward` will be called.
            input_grad: whether :meth:`input_grad` will be called.
        """
        weight = weight.contiguous()
        self._follows, self._weight = False, None
        self.count = _done(
            self._library.elision_weights_compress(
                self._handle,
                weight.data_ptr(),
                above,
                forward,
                input_grad,
                torch.get_num_threads(),
            )
        )

    def follow(self, mask: torch.Tensor, *, input_grad: bool = True) -> None:
        """Take the places where a mask is not zero.

        Args:
            mask: ``(K, C, R, S)``.
            input_grad: whether :meth:`input_grad` will be called.

        Raises:
            ValueError: the kernel has more than :data:`MOST_TAPS` taps.
        """
        if math.prod(self.geometry.kernel) > MOST_TAPS:
            raise ValueError(
                f"a kernel of {self.geometry.kernel} taps: places are kept of at most "
                f"{MOST_TAPS}"
            )
        ones = (mask != 0).to(torch.float32).contiguous()
        self._follows = True
        self.count = _done(
            self._library.elision_weights_follow(
                self._handle, ones.data_ptr(), input_grad
            )
        )

    def refresh(self, weight: torch.Tensor) -> None:
        """Let the products read this weight at the places of :meth:`follow`."""
        self._need_places()
        self._weight = weight.contiguous()

    def release(self) -> None:
        """Let other weights use the memory of the lists that were compressed."""
        self._library.elision_weights_release(self._handle)

    def abandon(self) -> None:
        """Never free the lists: a thread that no longer runs was making them."""
        self._handle = None

    def _need_places(self) -> None:
        if not self._follows:
            raise ValueError("follow a mask first")

    @contextlib.contextmanager
    def _filled(self, weight: torch.Tensor | None, forward: bool) -> Iterator[None]:
        """While the lists of places are made, with what a weight has there."""
        if not self._follows:
            yield
            return
        values = None if weight is None else weight.data_ptr()
        threads = torch.get_num_threads()
        _done(
            self._library.elision_weights_fill(self._handle, values, forward, threads)
        )
        try:
            yield
        finally:
            self.release()

    def forward(self, x: torch.Tensor, slot: int | None = None) -> torch.Tensor:
        """Blocked input to blocked output; ``slot`` as in :func:`to_blocked`."""
        v = self.geometry
        size = (v.out_channels, v.out_height, v.out_width)
        y = _workspace(slot, (x.shape[0], *size, LANES))
        with self._filled(self._weight, forward=True):
            _done(
                self._library.elision_forward(
                    self._handle, x.data_ptr(), y.data_ptr(), torch.get_num_threads()
                )
            )
        return y

    def input_grad(self, g: torch.Tensor, slot: int | None = None) -> torch.Tensor:
        """Blocked gradient of the output to that of the input; ``slot`` likewise."""
        v = self.geometry
        dx = _workspace(slot, (g.shape[0], v.in_channels, v.height, v.width, LANES))
        with self._filled(self._weight, forward=False):
            _done(
                self._library.elision_input_grad(
                    self._handle, g.data_ptr(), dx.data_ptr(), torch.get_num_threads()
                )
            )
        return dx

    def masked_grad(self, x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        """Weight gradient ``(K, C, R, S)`` at the places followed, zero elsewhere."""
        self._need_places()
        dw = x.new_empty(self.geometry.shape_of("weight"))
        with self._filled(None, forward=True):
            _done(
                self._library.elision_masked_grad(
                    self._handle,
                    x.data_ptr(),
                    g.data_ptr(),
                    dw.data_ptr(),
                    torch.get_num_threads(),
                )
            )
        return dw


def weight_grad(
    geometry: Conv2dGeometry,
    x: torch.Tensor,
    g: torch.Tensor,
    *,
    sparse: str,
    above: float = 0.0,
) -> tuple[torch.Tensor, int]:
    """Dense weight gradient ``(K, C, R, S)`` from one sparse operand.

    Args:
        geometry: shape of the layer.
        x: blocked input.
        g: blocked gradient of the output.
        sparse: ``"input"`` or ``"grad_output"``: which of the two is read as sparse.
        above: values of it that are not above this magnitude are left out.

    Returns:
        The gradient, and how many values were left in.
    """
    dw = x.new_empty(geometry.shape_of("weight"))
    first, second = (x, g) if sparse == "input" else (g, x)
    kept = _done(
        load().elision_weight_grad(
            _integers(geometry),
            sparse == "input",
            first.data_ptr(),
            second.data_ptr(),
            above,
            dw.data_ptr(),
            torch.get_num_threads(),
        )
    )
    return dw, kept


def rows_weight_grad(
    x: torch.Tensor, g: torch.Tensor, *, sparse: str
) -> torch.Tensor | None:
    """Dense weight gradient of a matrix product from one sparse operand.

    Args:
        x: input ``(rows, inner)``.
        g: gradient of the output ``(rows, columns)``.
        sparse: ``"input"`` or ``"grad_output"``: whose zeros are left out.

    Returns:
        float32 ``(columns, inner)``; None if an operand is not finite.
    """
    x, g = (_rows(operand) for operand in (x, g))
    dw = _floats((g.shape[1], x.shape[1]))
    of_input = sparse == "input"
    own, other = (x, g) if of_input else (g, x)
    read = [v for m in (own, other) for v in (m.data_ptr(), m.stride(0), m.shape[1])]
    finite = _done(
        load().elision_rows_weight_grad(
            *(*read, len(x), of_input, dw.data_ptr(), torch.get_num_threads())
        )
    )
    return dw if finite else None


def _rows(x: torch.Tensor) -> torch.Tensor:
    """A float32 matrix whose rows are contiguous each."""
    x = x.to(torch.float32)
    return x if x.stride(1) == 1 and x.stride(0) >= x.shape[1] else x.contiguous()


def sparse_input_grad(
    geometry: Conv2dGeometry,
    g: torch.Tensor,
    weight: torch.Tensor,
    slot: int | None = None,
) -> torch.Tensor:
    """Blocked input gradient from a sparse gradient of the output, dense weight.

    Args:
        geometry: shape of the layer.
        g: blocked gradient of the output; its zeros are left out.
        weight: float32 ``(K, C, R, S)``.
        slot: as in :func:`to_blocked`.
    """
    weight = weight.contiguous()
    shape = (g.shape[0], geometry.in_channels, geometry.height, geometry.width, LANES)
    dx = _workspace(slot, shape)
    _done(
        load().elision_sparse_input_grad(
            _integers(geometry),
            g.data_ptr(),
            weight.data_ptr(),
            dx.data_ptr(),
            torch.get_num_threads(),
        )
    )
    return dx
