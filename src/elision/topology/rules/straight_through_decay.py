"""Pull the weights that a straight-through mask leaves out towards zero (SR-STE)."""

from dataclasses import dataclass

from elision.common.checks import number
from elision.operands import TopNofM
from elision.topology.rule import Rule
from elision.topology.run import Run
from elision.topology.weights import SparseWeight

__all__ = ["StraightThroughDecay"]


@dataclass(frozen=True)
class StraightThroughDecay(Rule):
    """Add ``decay·(1 − M)·W`` to the gradient, ``M`` the N:M mask of the step.

    Attributes:
        decay: strength of the pull.

    Example:
        >>> StraightThroughDecay(decay=2e-4).masks_weights
        False
    """

    decay: float = 2e-4

    transform = TopNofM
    masks_gradients = False
    masks_weights = False

    def __post_init__(self) -> None:
        number("StraightThroughDecay", "decay", self.decay, ">= 0")

    def start(
        self, weights: list[SparseWeight], dense: dict[str, tuple[int, ...]]
    ) -> None:
        """Check that every layer divides into groups."""
        del dense
        for weight in weights:
            channels = weight.turned_shape[1]
            if channels % weight.transform.m:  # pyright: ignore[reportAttributeAccessIssue]
                raise ValueError(
                    f"layer {weight.name}: {weight.transform} does not divide its "
                    f"{channels} input channels; leave the layer dense"
                )

    def shape_gradients(self, run: Run) -> None:
        for weight in run.learning:
            w, grad = weight.weight.detach(), weight.weight.grad
            assert grad is not None
            kept = weight.transform.kept(weight.turned(w))  # pyright: ignore[reportAttributeAccessIssue]
            grad.add_(w.masked_fill(weight.turned(kept), 0), alpha=self.decay)
