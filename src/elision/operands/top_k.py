"""The largest values of a whole tensor."""

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from elision.common.checks import integer, number, one_of
from elision.common.sampling import spread_places
from elision.native import shared_object
from elision.operands.base import State, Transform, share_of
from elision.operands.blocked_form import LargestForm

__all__ = ["TopK", "keep_from", "kth_largest", "sampled_magnitudes"]


def kth_largest(magnitudes: Tensor, keep: float) -> Tensor:
    """The ``ceil(keep·n)``-th largest of ``n`` magnitudes, as a scalar tensor.

    A NaN counts as infinite: it is among the values kept and moves no other one's rank;
    the result is never NaN.
    """
    flat = magnitudes.flatten()
    kept = share_of(keep, flat.numel())
    if flat.numel() >= _MANY and _is_plain(flat) and shared_object.loaded():
        return _kth_by_kernel(flat, kept)
    level = flat.kthvalue(flat.numel() - kept + 1).values
    return level.nan_to_num(nan=torch.inf, posinf=torch.inf)


#: Magnitudes from which the kernel is the faster one (an own choice).
_MANY = 4096


def _is_plain(x: Tensor) -> bool:
    """Whether a kernel may read the memory of a tensor."""
    graph = torch.compiler.is_compiling()
    return not graph and type(x) is Tensor and x.is_cpu and x.dtype == torch.float32


def _kth_by_kernel(magnitudes: Tensor, kept: int) -> Tensor:
    """The same number, sought among those near it instead of by ordering all."""
    flat = magnitudes.detach().contiguous()
    size = flat.numel()
    below = shared_object.load().elision_threshold(
        *(flat.data_ptr(), size, kept, size, torch.get_num_threads())
    )
    if math.isnan(below):
        raise MemoryError("the kernel threshold ran out of memory")
    level = flat.new_tensor(max(below, 0.0))
    return level if below < 0 else torch.nextafter(level, level.new_tensor(torch.inf))


def sampled_magnitudes(x: Tensor, size: int) -> Tensor:
    """Magnitudes of ``size`` values of ``x``, the same ones at every call."""
    flat = x.flatten()
    if flat.numel() <= size:
        return flat.abs()
    return flat[spread_places(flat.numel(), size, x.device)].abs()


def keep_from(x: Tensor, level: Tensor) -> Tensor:
    """``x`` where ``|x| >= level``, zero elsewhere; NaN stays, so that a diverged run shows.

    Args:
        x: any shape.
        level: scalar tensor of the same dtype, not negative.
    """
    if not x.is_cpu or x.dtype.itemsize < 4 or torch.compiler.is_compiling():
        return torch.where(x.abs() < level, 0, x)
    # One pass over the tensor instead of three: a value is at least the level exactly
    # if it exceeds the number before the level.
    before = torch.nextafter(level, torch.zeros_like(level))
    return F.hardshrink(x, before.item())


@dataclass(frozen=True)
class TopK(Transform):
    """Keep the values of largest magnitude: ``|x| >= t``, ``t`` the k-th largest.

    ``k = ceil((1 − sparsity)·n)`` over the whole tensor; ties at ``t`` are kept, and a
    tensor that is sparser already is left alone (SWAT, ``top_d``). A NaN is kept and
    counts as infinite; a threshold that is not finite is applied, never cached.

    Attributes:
        sparsity: fraction set to zero, in [0, 1).
        threshold: ``"exact"``, or ``"sampled"``: ``t`` is the quantile of a fixed
            sample, whose realised density differs by about
            ``sqrt(s(1−s)/sample_size)``.
        refresh: steps between new thresholds; the cached one is applied between, so
            the realised density drifts with the values.
        sample_size: size of the sample of ``"sampled"`` (an own choice).

    Example:
        >>> TopK(0.5)(torch.tensor([3.0, -1.0, 0.5, -4.0]), [], True).tolist()
        [3.0, 0.0, 0.0, -4.0]
    """

    sparsity: float
    threshold: Literal["exact", "sampled"] = "exact"
    refresh: int = 1
    sample_size: int = 16384

    sparsifies = True
    reads_axes = False

    def check(self) -> None:
        number("TopK", "sparsity", self.sparsity, "[0, 1)")
        one_of("TopK", "threshold", self.threshold, ("exact", "sampled"))
        for name in ("refresh", "sample_size"):
            integer("TopK", name, getattr(self, name))

    def initial_state(self) -> State:
        if self.refresh == 1 or self.sparsity == 0:
            return {}
        return {
            "threshold": torch.zeros(()),
            "step": torch.zeros((), dtype=torch.int64),
        }

    def apply(self, x: Tensor, state: State, training: bool) -> Tensor:
        if self.sparsity == 0 or not x.numel():
            return x
        if state and training:
            level = state["threshold"].to(x.dtype)
            if state["step"].item() % self.refresh == 0:
                level = self._new_threshold(x)
                if torch.isfinite(level):
                    state["threshold"].copy_(level)
            state["step"].add_(1)
        else:
            level = self._new_threshold(x)
        return keep_from(x, level)

    def of_runs(
        self, x: Tensor, sizes: Sequence[int], state: list[Tensor], training: bool
    ) -> Tensor:
        """See :meth:`Transform.of_runs`; one call of a kernel, with the same result."""
        ready = _is_plain(x) and shared_object.loaded()
        if state or self.sparsity == 0 or not ready or not x.numel():
            return super().of_runs(x, sizes, state, training)
        flat = x.detach().contiguous()
        runs = [rows * x.shape[1] for rows in sizes if rows]
        samples = x.numel() if self.threshold == "exact" else self.sample_size
        ranks = [share_of(1 - self.sparsity, min(size, samples)) for size in runs]
        many = ctypes.c_int64 * len(runs)
        result = torch.empty_like(flat)
        done = shared_object.load().elision_keep_largest(
            *(flat.data_ptr(), result.data_ptr(), many(*runs), many(*ranks)),
            *(len(runs), samples, torch.get_num_threads()),
        )
        if done < 0:
            raise MemoryError("the kernel keep_largest ran out of memory")
        return result

    def _new_threshold(self, x: Tensor) -> Tensor:
        exact = self.threshold == "exact"
        magnitudes = x.abs() if exact else sampled_magnitudes(x, self.sample_size)
        return kth_largest(magnitudes, 1 - self.sparsity)

    def blocked_form(self) -> LargestForm:
        cached = dict(zip(("threshold", "step"), self.state_names, strict=False))
        samples = self.sample_size if self.threshold == "sampled" else None
        return LargestForm(1 - self.sparsity, samples, self.refresh, **cached)

    def __str__(self) -> str:
        words = f"top {1 - self.sparsity:.4g} by magnitude"
        if self.threshold == "sampled":
            words += ", sampled"
        return words if self.refresh == 1 else f"{words}, every {self.refresh} steps"
