"""The engine that chooses by time: both engines are tried once, the faster is kept.

A choice is a function of the product and nothing else: its geometry, the density of the
sparse operand estimated from its values, the data type and the number of threads. It is
made at the first such product on this machine, before its result is returned, and kept
(:mod:`elision.engines.decision`). A result therefore never depends on the number of
earlier steps in a process; when the density of a layer moves to another member of
:data:`LEVELS`, a new decision is made. Beyond the trials, nothing is slower than dense.
"""

import functools
import math

import torch

from elision.common.checks import integer
from elision.common.forking import Lock
from elision.common.sampling import spread_places
from elision.common.timing import fastest
from elision.engines.base import NO_HINT, Engine, Hint
from elision.engines.decision import Decision, decisions
from elision.engines.native.engine import NativeEngine
from elision.engines.torch_engine import TorchEngine
from elision.products import Geometry, LayerProduct, Product

__all__ = ["LEAST_MACS", "LEVELS", "AutoEngine", "density_level", "level_of"]

#: Densities for which decisions are made; an operand's is rounded to the nearest in
#: ratio. A product whose operand is at 1 is dense, and torch's.
LEVELS = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)

#: Multiplications of the dense product below which torch computes without a trial: about
#: 0.1 ms of one core, which is what calling a kernel costs (an own choice).
LEAST_MACS = 4_000_000

#: Values of an operand that its density is estimated from (an own choice).
_SAMPLES = 4096
#: Serialises trials, so that two threads do not disturb each other's times.
TRYING = Lock()


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

    Raises:
        ValueError: ``trials`` is not an integer of at least 1.

    Example:
        >>> from elision.engines import AutoEngine, Hint
        >>> from elision.products import LayerProduct, MatmulGeometry, Product
        >>> operands = torch.ones(4, 8), torch.zeros(6, 8)
        >>> product = LayerProduct(Product.FORWARD, MatmulGeometry(4, 8, 6), *operands)
        >>> AutoEngine().choose(product, Hint("weight")).name  # too small for a trial
        'torch'
    """

    name = "auto"

    def __init__(self, trials: int = 3, *, keep: bool = True) -> None:
        self.trials = integer("AutoEngine", "trials", trials)
        self._native, self._torch = NativeEngine(keep=keep), TorchEngine()

    def unavailable(self) -> None:
        """None: without native kernels every product is torch's."""
        return

    def supports(self, product: LayerProduct, hint: Hint = NO_HINT) -> bool:
        """True: every product of every layer."""
        return True

    def choose(self, product: LayerProduct, hint: Hint = NO_HINT) -> Engine:
        """The engine that was faster for such a product; see :meth:`Engine.choose`."""
        hint.check(product)
        if product.dense_macs < LEAST_MACS:
            return self._torch
        zeros = hint.zeros_of(product)
        if zeros is None or not self._native.choose(product, hint).leaves_zeros_out:
            return self._torch
        level = density_level(zeros)
        if level == LEVELS[0]:
            return self._torch
        what = "wanted part" if hint.wanted is not None else hint.sparse
        threads = torch.get_num_threads()
        question = _question(
            product.kind, product.geometry, what, level, product.first.dtype, threads
        )
        known = decisions()
        decision = known.find(question)
        if decision is None:
            with TRYING:
                decision = known.find(question) or known.add(
                    Decision(question, self._try(product, hint))
                )
        return self._native if decision.winner == "native" else self._torch

    def _try(self, product: LayerProduct, hint: Hint) -> dict[str, float]:
        """Seconds of both engines, by name."""

        def native() -> None:
            if product.kind is Product.FORWARD:  # weights move from step to step
                self._native.forget()
            self._native.compute(product, hint)

        def dense() -> None:
            self._torch.compute(product, hint)

        return fastest({"torch": dense, "native": native}, self.trials)

    def compute(self, product: LayerProduct, hint: Hint = NO_HINT) -> torch.Tensor:
        """Compute one product by the chosen engine; see :meth:`Engine.compute`."""
        return self.choose(product, hint).compute(product, hint)


@functools.lru_cache(maxsize=1024)
def _question(
    kind: Product,
    geometry: Geometry,
    what: str | None,
    level: float,
    dtype: torch.dtype,
    threads: int,
) -> str:
    words = "" if dtype == torch.float32 else f"{dtype}".removeprefix("torch.") + ", "
    return (
        f"{kind.value} of {geometry.description}, {what} at density {level:g}, "
        f"{words}{threads} threads"
    )
