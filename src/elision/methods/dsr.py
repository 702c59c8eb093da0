"""DSR: one threshold for the model, weights regrown across layers."""

from dataclasses import dataclass

from elision.common.checks import one_of
from elision.methods.masked import Masked, moving
from elision.topology import GlobalThreshold, Periodic, Rule

__all__ = ["DSR"]


@dataclass(frozen=True)
class DSR(Masked):
    """Dynamic sparse reparameterisation: prune by one threshold, regrow at random.

    Every ``every`` steps all active ``|w| < H`` are pruned, in every layer (one weight
    at least survives in each), and as many are grown at random, a layer's share being
    proportional to what survived in it. ``H`` doubles when fewer than 0.9 times the
    wanted number were pruned and halves above 1.1 times.

    Reference: Mostafa and Wang, Parameter Efficient Training of Deep Convolutional
    Neural Networks by Dynamic Sparse Reparameterization, ICML 2019.

    Deviations:
        - Layers start at ERK densities (this project's choice).
        - The wanted number is a share of the active weights by default, so that it
          fits any model (this project's choice; published for ResNet-50: 400 000).

    Attributes:
        every: steps between moves (published for ImageNet: 1000, then 2000, 4000, 8000).
        phases: ``(first step, every)`` pairs for later, longer periods.
        prune: weights wanted pruned in a move: a count, or a share of all active ones.
        threshold: ``H`` at the start (published: 1e-3).
        until: last step at which masks move; None for no end.

    Example:
        >>> DSR(0.9, prune=1000).fitted(steps=400).until
        300
    """

    every: int = 1000
    phases: tuple[tuple[int, int], ...] = ()
    prune: float | int = 0.1
    threshold: float = 1e-3
    until: int | None = None

    key = "dsr"
    bibtex = """
        @inproceedings{mostafa2019parameter,
          title     = {Parameter Efficient Training of Deep Convolutional Neural
                       Networks by Dynamic Sparse Reparameterization},
          author    = {Mostafa, Hesham and Wang, Xin},
          booktitle = {International Conference on Machine Learning},
          year      = {2019}
        }
    """

    def schedule(self, steps: int) -> dict[str, int]:
        return moving(steps, every=1000)

    def rule(self) -> Rule:
        one_of("DSR", "pattern", self.pattern, ("unstructured",))
        when = Periodic(self.every, self.until, self.phases)
        return GlobalThreshold(self.budget(), when, self.prune, self.threshold)
