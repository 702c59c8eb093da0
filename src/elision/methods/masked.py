"""What the methods with a moving mask share: a budget, and one table."""

from abc import abstractmethod
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from torch import nn

from elision.layers.recipe import Table
from elision.methods.base import Method
from elision.operands import Mask
from elision.products import Product
from elision.topology import Budget, Rule, install
from elision.topology.pattern import pattern_named

__all__ = ["Masked", "moving"]


#: Moves of a run in its first three quarters, where its length sets their period, and
#: the fewest steps between two: a move may take the place of a gradient step.
_MOVES, _APART = 30, 5


def moving(steps: int, every: int, moves: int = _MOVES) -> dict[str, int]:
    """When masks move in a run of so many steps.

    Until three quarters of the run (as published for RigL), ``moves`` times at least, but
    not more often than every fifth step (this project's choice).

    Args:
        steps: of the run.
        every: steps between moves as published; a short run moves more often.
        moves: how many times at least, if the steps between allow it.
    """
    until = max(1, 3 * steps // 4)
    return {"every": min(every, max(_APART, until // moves)), "until": until}


@dataclass(frozen=True)
class Masked(Method):
    """One mask ``M`` on a layer's weights; a rule moves it between the steps.

    ::

        Y = X · (W·M)        dX = G · (W·M)ᵀ        dW = (G · X)·M

    Weights outside the mask are zero, learn nothing, and hold no optimiser state. A
    member says by :meth:`rule` how the masks start and move; the model needs
    :func:`elision.topology.attach` for them to do so.

    Attributes:
        sparsity: fraction of zeros, in [0, 1): of all weights within reach, those left
            dense included, for ``"er"`` and ``"erk"``; of every sparse layer for
            ``"uniform"``.
        distribution: ``"uniform"``, ``"er"`` or ``"erk"``. Uniform leaves the first
            layer dense, unless ``layers`` gives it a sparsity as ``":first"``.
        layers: ``(pattern, sparsity)`` pairs that fix the sparsity of some layers;
            patterns are those of :func:`elision.recipe.selects`.
        pattern: what is active together: ``"unstructured"``, ``"kernel"``,
            ``"filter"``, ``"channel"`` or ``"block-<rows>x<columns>"``.
        seed: of everything random.
        dense: layers left dense.
    """

    sparsity: float = 0.9
    distribution: str = "erk"
    layers: tuple[tuple[str, float], ...] = ()
    pattern: str = "unstructured"
    seed: int = 0
    _: KW_ONLY
    dense: tuple[str, ...] = (":depthwise",)

    #: Whether the layers keep a moving average of the gradient beside the mask.
    averages_gradient: ClassVar[bool] = False

    #: Whether weights outside the mask may learn.
    learns_beyond: ClassVar[bool] = False

    def __post_init__(self) -> None:
        named_first = any(pattern == ":first" for pattern, _ in self.layers)
        if self.distribution == "uniform" and not named_first:
            dense = dict.fromkeys((":first", *self.dense))
            object.__setattr__(self, "dense", tuple(dense))
        self.rule()
        super().__post_init__()

    @abstractmethod
    def rule(self) -> Rule:
        """How the masks start and move.

        Raises:
            ValueError: a parameter is out of its range.
        """

    def budget(self) -> Budget:
        """How many weights are active, layer by layer."""
        pattern = pattern_named(self.pattern)
        return Budget(
            self.sparsity, self.distribution, self.layers, pattern, seed=self.seed
        )

    def build(self) -> Table:
        mask = Mask(self.averages_gradient, self.learns_beyond)
        return Table(
            {
                Product.FORWARD: {"weight": mask},
                Product.INPUT_GRAD: {"weight": mask},
            }
        )

    def prepare(self, model: nn.Module) -> None:
        install(model, self.rule(), self.key, self)
