"""The engine that chooses: times both ways on the first steps, keeps the faster.

One :class:`AutoEngine` belongs to one layer. Each product is decided on its own, from
the operands that the layer really sees, and decided again when the density of the sparse
operand has moved. Nothing is ever slower than dense by more than the trial.
"""

import time
from dataclasses import dataclass, field

import torch

from elision.engines.base import Engine, check_sparse
from elision.engines.native.engine import NativeEngine
from elision.engines.torch_engine import TorchEngine
from elision.products import Geometry, Product

__all__ = ["AutoEngine", "Decision"]


@dataclass(frozen=True)
class Decision:
    """Who computes one product of one layer, and why.

    Attributes:
        product: which of the three products.
        geometry: shape of the layer when it was decided.
        density: fraction of non-zeros of the sparse operand then.
        native_seconds: fastest of the trials of the native engine.
        torch_seconds: fastest of the trials of torch.
    """

    product: Product
    geometry: Geometry
    density: float
    native_seconds: float
    torch_seconds: float

    @property
    def engine(self) -> str:
        """Name of the engine that was faster."""
        return "native" if self.native_seconds < self.torch_seconds else "torch"

    def __str__(self) -> str:
        return (
            f"{self.product.value}: {self.engine} (native {self.native_seconds:.2e} s, "
            f"torch {self.torch_seconds:.2e} s at density {self.density:.3f})"
        )


@dataclass
class _Trial:
    """Seconds of each engine so far; the first of each only warms up."""

    seconds: dict[str, list[float]] = field(
        default_factory=lambda: {"native": [], "torch": []}
    )
    decision: Decision | None = None
    calls: int = 0


class AutoEngine(Engine):
    """Computes each product by the faster of the native engine and torch.

    Args:
        trials: timed calls of each engine before a decision, after one that warms up.
        review: calls after which the density is looked at again.
        drift: relative change of the density that reopens a decision. The three
            defaults are own choices.
    """

    name = "auto"

    def __init__(self, trials: int = 2, review: int = 200, drift: float = 0.25) -> None:
        self.trials, self.review, self.drift = trials, review, drift
        self._engines: dict[str, Engine] = {
            "native": NativeEngine(),
            "torch": TorchEngine(),
        }
        self._open: dict[tuple[Product, Geometry, bool], _Trial] = {}

    def unavailable(self) -> None:
        """Always there: without native kernels it is torch."""
        return

    def supports(self, kind: Product, geometry: Geometry, sparse: str | None) -> bool:
        """Every product of every layer."""
        return True

    @property
    def decisions(self) -> list[Decision]:
        """What has been decided so far."""
        return [t.decision for t in self._open.values() if t.decision is not None]

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
        check_sparse(kind, sparse, wanted)

        def by(name: str) -> torch.Tensor:
            return self._engines[name].product(
                kind, geometry, first, second, sparse=sparse, wanted=wanted
            )

        native = self._engines["native"]
        possible = wanted is not None or native.supports(kind, geometry, sparse)
        if not possible or native.unavailable() is not None:
            return by("torch")
        trial = self._open.setdefault((kind, geometry, wanted is not None), _Trial())
        trial.calls += 1
        operand = wanted
        if operand is None:
            operand = first if sparse == kind.operands[0] else second
        if trial.decision is not None:
            if trial.calls % self.review == 0 and self._moved(trial.decision, operand):
                self._open.pop((kind, geometry, wanted is not None), None)
            return by(trial.decision.engine)
        name = min(trial.seconds, key=lambda n: len(trial.seconds[n]))
        start = time.perf_counter()
        result = by(name)
        trial.seconds[name].append(time.perf_counter() - start)
        if all(len(s) > self.trials for s in trial.seconds.values()):
            fastest = {n: min(s[1:]) for n, s in trial.seconds.items()}
            trial.decision = Decision(
                kind, geometry, _density(operand), fastest["native"], fastest["torch"]
            )
        return result

    def _moved(self, decision: Decision, operand: torch.Tensor) -> bool:
        now, then = _density(operand), decision.density
        return abs(now - then) > self.drift * max(now, then)


def _density(x: torch.Tensor) -> float:
    return torch.count_nonzero(x).item() / max(1, x.numel())
