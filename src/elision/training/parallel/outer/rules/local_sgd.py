"""Local SGD and post-local SGD: averages of the weights after every H steps."""

from dataclasses import dataclass

from elision.common.checks import integer
from elision.training.parallel.outer.rules.base import OuterRule

__all__ = ["LocalSgd", "PostLocalSgd"]


@dataclass(frozen=True)
class LocalSgd(OuterRule):
    """Local SGD: the mean of the ranks' weights, each counting alike.

    ``w <- mean_i w_i`` after every ``every`` steps. Stich, Local SGD Converges Fast and
    Communicates Little, ICLR 2019. The default of 8 steps is this project's choice.

    Attributes:
        every: inner steps between two averages.

    Example:
        >>> LocalSgd(every=4).is_due(8), LocalSgd(every=4).is_due(6)
        (True, False)
    """

    name = "local-sgd"
    every: int = 8


@dataclass(frozen=True)
class PostLocalSgd(LocalSgd):
    """Post-local SGD: synchronous up to a step, local SGD from there.

    Lin et al., Don't Use Large Mini-Batches, Use Local SGD, ICLR 2020. The synchronous
    steps average gradients, so that they are exact for every inner optimiser. The
    defaults are this project's choice; the paper begins at the first decay of the
    learning rate.

    Attributes:
        begin: synchronous steps.
        every: inner steps between two averages after that.

    Example:
        >>> rule = PostLocalSgd(begin=3, every=4)
        >>> [steps for steps in range(1, 12) if rule.is_due(steps)]
        [7, 11]
    """

    name = "post-local-sgd"
    begin: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("PostLocalSgd", "begin", self.begin, ">= 0")

    def shares_gradients(self, step: int) -> bool:
        """Whether the step is one of the first ``begin``."""
        return step < self.begin

    def is_due(self, steps: int) -> bool:
        """Whether a period of local steps ends here."""
        return steps > self.begin and (steps - self.begin) % self.every == 0
