"""Rules that move masks: their base, their budget, and the rule of a fixed mask."""

import warnings
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from elision.common.checks import number
from elision.common.names import lookup
from elision.layers import NoEffectWarning
from elision.layers.recipe import names_in_order, selects
from elision.operands import Mask, Transform
from elision.topology.distribution import DISTRIBUTIONS, densities, weight_counts
from elision.topology.pattern import Pattern, Unstructured
from elision.topology.run import Run
from elision.topology.selection import best, generator
from elision.topology.weights import SparseWeight

__all__ = ["Budget", "Fixed", "Rule"]


@dataclass(frozen=True)
class Budget:
    """Number of active weights, layer by layer.

    Attributes:
        sparsity: fraction of zeros, in [0, 1) (see
            :func:`elision.topology.distribution.densities`).
        distribution: ``"uniform"``, ``"er"`` or ``"erk"``.
        layers: ``(pattern of layer names, sparsity)`` pairs; the first that selects a
            layer fixes its sparsity, and ER and ERK give the rest what remains.
        pattern: what is active or inactive together.
        power: exponent of the ER and ERK ratios.
        seed: of everything random.

    Example:
        >>> Budget(sparsity=0.9, distribution="uniform").sparsity
        0.9
    """

    sparsity: float
    distribution: str = "erk"
    layers: tuple[tuple[str, float], ...] = ()
    pattern: Pattern = field(default_factory=Unstructured)
    power: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        lookup("distribution", self.distribution, DISTRIBUTIONS)
        for sparsity in (self.sparsity, *(share for _, share in self.layers)):
            number("Budget", "sparsity", sparsity, "[0, 1)")
        number("Budget", "power", self.power, ">= 0")

    def densities(
        self, weights: list[SparseWeight], dense: dict[str, tuple[int, ...]]
    ) -> dict[str, float]:
        """Density of each weight; ``dense`` are the shapes of those left dense.

        Raises:
            ValueError: the budget cannot be met.
        """
        fixed = dict.fromkeys(dense, 1.0)
        names = names_in_order({w.name: w.layers[0] for w in weights})
        for pattern, sparsity in reversed(self.layers):
            meant = [
                w.name for w in weights if selects(pattern, w.name, w.layers[0], names)
            ]
            fixed.update(dict.fromkeys(meant, 1 - sparsity))
            if not meant:
                warnings.warn(
                    f"layers: pattern {pattern!r} names no layer that has a mask",
                    NoEffectWarning,
                    stacklevel=2,
                )
        shapes = {**dense, **{w.name: w.shape for w in weights}}
        found = densities(
            shapes, self.sparsity, self.distribution, fixed=fixed, power=self.power
        )
        return {weight.name: found[weight.name] for weight in weights}

    def units(
        self, weights: list[SparseWeight], dense: dict[str, tuple[int, ...]]
    ) -> dict[str, int]:
        """Number of active units of each weight, exact in sum.

        Raises:
            ValueError: the budget cannot be met, or the pattern divides a layer not.
        """
        for weight in weights:
            weight.divided_by(self.pattern).check(weight.name, weight.shape)
        return weight_counts(
            {weight.name: weight.shape for weight in weights},
            self.densities(weights, dense),
            {
                weight.name: weight.divided_by(self.pattern).units(weight.shape)
                for weight in weights
            },
        )

    def draw(
        self, weights: list[SparseWeight], dense: dict[str, tuple[int, ...]]
    ) -> None:
        """Give every weight a random mask of its budget."""
        counts = self.units(weights, dense)
        for weight in weights:
            random = generator(self.seed, weight.name, 0)
            pattern = weight.divided_by(self.pattern)
            grid = pattern.grid(weight.shape)
            chosen = best(
                torch.rand(grid, generator=random, device=random.device),
                counts[weight.name],
                random,
            )
            weight.set_state("mask", pattern.expand(chosen, weight.shape))


class Rule:
    """Base of all rules: first masks and their moves. A frozen dataclass of parameters.

    The controller (:class:`elision.topology.Topology`) calls it around every optimiser
    step and does the common part: it zeroes gradients and weights outside the masks, and
    calls no rule in a step whose gradients it reads and are not finite. A weight without a
    gradient in a step (frozen, or not used) keeps its mask, its value and its scores: a
    rule moves the masks of ``run.learning`` alone.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Every(Rule):
        ...     steps: int
        ...     def moves(self, step: int) -> bool:
        ...         return step % self.steps == 0
        >>> Every(10).moves(20)
        True
    """

    #: Transform of the weights that the rule acts on.
    transform: ClassVar[type[Transform]] = Mask

    #: Whether gradients outside the mask are zeroed before a step.
    masks_gradients: ClassVar[bool] = True

    #: Whether weights outside the mask are zeroed after a step.
    masks_weights: ClassVar[bool] = True

    #: Whether masks move in the steps of a schedule, which may miss a run.
    is_scheduled: ClassVar[bool] = False

    #: What the rule's weights do, for messages.
    acts: ClassVar[str] = "have masks"

    #: Whether the rule reads the optimiser's momentum, which every process must have.
    reads_momentum: ClassVar[bool] = False

    def start(
        self, weights: list[SparseWeight], dense: dict[str, tuple[int, ...]]
    ) -> None:
        """Draw the first masks; ``dense`` are the shapes of the layers left dense."""

    def initial_state(self) -> dict[str, Tensor]:
        """State that the rule keeps for the whole model: scalar tensors by name."""
        return {}

    def parameters(
        self, weights: list[SparseWeight]
    ) -> list[tuple[str, SparseWeight, Tensor]]:
        """State that the optimiser trains beside each weight, if there is any.

        Each with a name of its own. A tensor that requires a gradient is trained as it
        is, by what the backward pass leaves in it; the gradient of another one is for
        :meth:`shape_gradients` to write into ``run.trained``.
        """
        del weights
        return []

    def unattached(self, name: str) -> str:
        """What does not happen while no controller is attached, after a method's name."""
        return f"the masks of {name} do not move and its inactive weights learn"

    def moves(self, step: int) -> bool:
        """True if masks may move in this step."""
        del step
        return False

    def until(self) -> int | None:
        """Last step in which masks may move; None: no end."""
        return None

    def goal(
        self, weights: list[SparseWeight], dense: dict[str, tuple[int, ...]]
    ) -> float | None:
        """Sparsity that training is to end at, over all ``weights``; None for no aim."""
        del weights, dense
        return None

    def reads_gradients(self, step: int) -> bool:
        """True if this step's gradients move masks or enter a score.

        One that is not finite then keeps the step from both.
        """
        return self.moves(step)

    def needs_dense_gradient(self, step: int) -> bool:
        """True if this step reads the gradient of inactive weights."""
        del step
        return False

    def gradient_density(self, weight: SparseWeight) -> float:
        """Fraction of a weight's gradient that a step without a move needs."""
        return weight.density

    def shape_gradients(self, run: Run) -> None:
        """Change the gradients that the optimiser reads, at every evaluation of the loss.

        An optimiser with a closure may evaluate it several times in a step.
        """

    def before_step(self, run: Run) -> bool:
        """Called once with the full gradients; True if this replaces the gradient step."""
        del run
        return False

    def after_step(self, run: Run) -> None:
        """Called after the optimiser's step, before weights are masked."""


@dataclass(frozen=True)
class Fixed(Rule):
    """A random mask, drawn once.

    Attributes:
        budget: how many weights are active, layer by layer.

    Example:
        >>> Fixed(Budget(0.9)).moves(step=100)
        False
    """

    budget: Budget

    def start(
        self, weights: list[SparseWeight], dense: dict[str, tuple[int, ...]]
    ) -> None:
        self.budget.draw(weights, dense)
