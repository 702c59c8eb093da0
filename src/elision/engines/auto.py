"""The engine that chooses: times both ways once, keeps the faster.

A choice is a function of the product and nothing else: its geometry, the density of the
sparse operand as its values show it, the data type and the number of threads. It is made
when such a product is met for the first time on this machine, before its result is
returned, and kept (:mod:`elision.engines.decision`). So a result never depends on how
many steps came before it in a process, and when the density of a layer moves to another
level, that is another question with a decision of its own. Nothing is ever slower than
dense by more than the trials.
"""

import functools
import math
import threading

import torch

from elision.common.sampling import spread_places
from elision.common.timing import fastest
from elision.engines.base import Engine, check_sparse
from elision.engines.decision import Decision, decisions
from elision.engines.native.engine import NativeEngine
from elision.engines.torch_engine import TorchEngine
from elision.products import Conv2dGeometry, Geometry, Product

__all__ = ["LEAST_MACS", "LEVELS", "AutoEngine", "density_level", "level_of"]

#: Densities that decisions are made for; an operand counts as the nearest in ratio. An
#: operand at 1 is dense, and its product torch's.
LEVELS = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)

#: Multiplications of the dense product below which torch computes without a trial: about
#: 0.1 ms of one core, which is what calling a kernel costs (an own choice).
LEAST_MACS = 4_000_000

#: Values of an operand that its density is estimated from (an own choice).
_SAMPLES = 4096
#: Serialises trials, so that two threads do not disturb each other's times.
TRYING = threading.RLock()


def density_level(x: torch.Tensor) -> float:
    """The member of :data:`LEVELS` nearest to a tensor's density.

    Estimated from the same :data:`_SAMPLES` places at every call, so it depends on the
    tensor's values alone.
    """
    if x.dim() == 4 and not x.is_contiguous():
        x = x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    flat = x.reshape(-1)
    if flat.numel() > _SAMPLES:
        flat = flat[_places(flat.numel())]
    return level_of(torch.count_nonzero(flat).item() / max(1, flat.numel()))


def level_of(density: float) -> float:
    """The member of :data:`LEVELS` nearest to a density, in ratio."""
    density = max(density, LEVELS[-1])
    return min(LEVELS, key=lambda level: abs(math.log(level / density)))


@functools.lru_cache(maxsize=256)
def _places(size: int) -> torch.Tensor:
    return spread_places(size, _SAMPLES)


class AutoEngine(Engine):
    """Computes each product by the faster of the native engine and torch.

    Args:
        trials: timed calls of each engine before a decision, after one that warms up
            (an own choice).
        keep: as for :class:`NativeEngine`.
    """

    name = "auto"

    def __init__(self, trials: int = 3, *, keep: bool = True) -> None:
        self.trials = trials
        self._native, self._torch = NativeEngine(keep=keep), TorchEngine()

    def unavailable(self) -> None:
        """Always there: without native kernels it is torch."""
        return

    def supports(self, kind: Product, geometry: Geometry, sparse: str | None) -> bool:
        """Every product of every layer."""
        return True

    def choose(
        self,
        kind: Product,
        geometry: Geometry,
        first: torch.Tensor,
        second: torch.Tensor,
        *,
        sparse: str | None = None,
        wanted: torch.Tensor | None = None,
    ) -> Engine:
        """The engine that was faster for such a product; see :meth:`Engine.choose`."""
        asked = (kind, geometry, first, second)
        check_sparse(kind, sparse, wanted)
        if geometry.dense_macs < LEAST_MACS:
            return self._torch
        able = self._native.choose(*asked, sparse=sparse, wanted=wanted)
        if able is not self._native:
            return self._torch
        operand = wanted
        if operand is None:
            operand = first if sparse == kind.operands[0] else second
        level = density_level(operand)
        if level == LEVELS[0]:
            return self._torch
        what = "wanted part" if wanted is not None else sparse
        question = (
            f"{kind.value} of {in_words(geometry)}, {what} at density {level:g}, "
            f"{_kind(first)}{torch.get_num_threads()} threads"
        )
        known = decisions()
        decision = known.find(question)
        if decision is None:
            with TRYING:
                decision = known.find(question) or known.add(
                    Decision(question, self._try(asked, sparse, wanted))
                )
        return self._native if decision.winner == "native" else self._torch

    def _try(
        self,
        asked: tuple[Product, Geometry, torch.Tensor, torch.Tensor],
        sparse: str | None,
        wanted: torch.Tensor | None,
    ) -> dict[str, float]:
        def native() -> None:
            if asked[0] is Product.FORWARD:  # weights move from step to step
                self._native.forget()
            self._native.product(*asked, sparse=sparse, wanted=wanted)

        def dense() -> None:
            self._torch.product(*asked, sparse=sparse, wanted=wanted)

        return fastest({"native": native, "torch": dense}, self.trials)

    def product(
        self,
        kind: Product,
        geometry: Geometry,
        first: torch.Tensor,
        second: torch.Tensor,
        *,
        sparse: str | None = None,
        wanted: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compute one product; see :meth:`Engine.product`."""
        asked = (kind, geometry, first, second)
        engine = self.choose(*asked, sparse=sparse, wanted=wanted)
        return engine.product(*asked, sparse=sparse, wanted=wanted)


def _kind(operand: torch.Tensor) -> str:
    usual = operand.dtype == torch.float32
    return "" if usual else f"{operand.dtype}".removeprefix("torch.") + ", "


def in_words(geometry: Geometry) -> str:
    """The geometry as a decision names it."""
    if not isinstance(geometry, Conv2dGeometry):
        return f"linear {geometry.rows} x {geometry.inner} -> {geometry.columns}"
    v = geometry
    extras = (
        (name, f"{value[0]}x{value[1]}")
        for name, value, usual in (
            ("stride", v.stride, (1, 1)),
            ("padding", v.padding, (0, 0)),
            ("dilation", v.dilation, (1, 1)),
            ("groups", (v.groups, 1), (1, 1)),
        )
        if value != usual
    )
    size = f"{v.batch} x {v.in_channels} @ {v.height}x{v.width} -> {v.out_channels}"
    words = [f"conv {size}", f"kernel {v.kernel[0]}x{v.kernel[1]}"]
    return ", ".join([*words, *(" ".join(extra) for extra in extras)])
