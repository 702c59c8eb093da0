"""The part that methods with a moving mask share: a budget and one table."""

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
    """The schedule of moves in a run of ``steps`` steps: ``every`` and ``until``.

    Until three quarters of the run (as published for RigL), at least ``moves`` moves, but
    none more often than every fifth step (this project's choice).

    Args:
        steps: number of training steps of the run.
        every: steps between moves as published; a short run moves more often.
        moves: least number of moves, where every fifth step allows it.

    Example:
        >>> moving(steps=400, every=100)
        {'every': 10, 'until': 300}
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
        pattern: unit of weights that are active together: ``"unstructured"``, ``"kernel"``,
            ``"filter"``, ``"channel"`` or ``"block-<rows>x<columns>"``.
        seed: of the random draws of masks and ties.
        dense: layers left dense.

    Example:
        >>> from elision.methods import Static
        >>> Static(0.9).budget().sparsity
        0.9
    """

    sparsity: float = 0.9
    distribution: str = "erk"
    layers: tuple[tuple[str, float], ...] = ()
    pattern: str = "unstructured"
    seed: int = 0
    _: KW_ONLY
    dense: tuple[str, ...] = (":depthwise", ":embedding")

    #: True if the layers keep a moving average of the gradient beside the mask.
    averages_gradient: ClassVar[bool] = False

    #: True if weights outside the mask may learn.
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
        """The rule by which masks start and move.

        Raises:
            ValueError: a parameter is out of its range.
        """

    def budget(self) -> Budget:
        """The number of active weights, layer by layer."""
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
