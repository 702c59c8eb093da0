"""Static sparse training: a random mask that never moves."""

from dataclasses import dataclass

from elision.methods.masked import Masked
from elision.topology import Fixed, Rule

__all__ = ["Static"]


@dataclass(frozen=True)
class Static(Masked):
    """A random mask, drawn once from a layer distribution: the floor to beat.

    The gain of a method that moves its masks is its lead over this one at the same
    layer densities. Attributes and table are those of :class:`Masked`.

    Reference: Mocanu et al., Scalable training of artificial neural networks with
    adaptive sparse connectivity inspired by network science, 2018, for the random
    (ER) masks; Evci et al., Rigging the Lottery, 2020, for ERK.

    Example:
        >>> print(Static(0.9, distribution="uniform").dense)
        (':first', ':depthwise', ':embedding')
    """

    key = "static"
    bibtex = """
        @inproceedings{evci2020rigging,
          title     = {Rigging the Lottery: Making All Tickets Winners},
          author    = {Evci, Utku and Gale, Trevor and Menick, Jacob and Castro, Pablo
                       Samuel and Elsen, Erich},
          booktitle = {International Conference on Machine Learning},
          year      = {2020}
        }
    """

    def rule(self) -> Rule:
        return Fixed(self.budget())
