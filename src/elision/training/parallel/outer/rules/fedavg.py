"""FedAvg: the mean of the ranks' weights by their numbers of examples."""

from dataclasses import dataclass

from elision.training.parallel.outer.rules.base import OuterRule

__all__ = ["FedAvg"]


@dataclass(frozen=True)
class FedAvg(OuterRule):
    """FedAvg: ``w <- sum_i n_i w_i / sum_i n_i``, with ``n_i`` a rank's examples.

    McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized
    Data, AISTATS 2017. A client's epochs are counted in steps here; the default of 8 is
    this project's choice.

    Attributes:
        every: inner steps of a round.

    Example:
        >>> FedAvg().weighted
        True
    """

    name = "fedavg"
    weighted = True
    every: int = 8
