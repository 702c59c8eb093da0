"""Parts drawn from Dirichlet distributions: of each label, or of the examples."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elision.common.checks import integer, number
from elision.training.parallel.federated.partitions.base import Partition, Places

__all__ = ["Dirichlet", "Quantity"]

#: Draws after which a least size is given up (this project's choice).
_DRAWS = 1000


@dataclass(frozen=True)
class Dirichlet(Partition):
    """For each label, shares of the clients drawn from ``Dir(alpha, ..., alpha)``.

    The expected sum of a label's squared shares is ``(alpha + 1) / (n alpha + 1)``: a small
    ``alpha`` gives a label to few clients. Hsu, Qi, Brown, Measuring the Effects of
    Non-Identical Data Distribution for Federated Visual Classification, 2019, draw per
    client over labels instead; the draw per label is that of Yurochkin et al., Bayesian
    Nonparametric Federated Learning of Neural Networks, ICML 2019.

    Attributes:
        clients: their number.
        alpha: concentration; infinity gives equal shares.
        least: examples that every client has at least. The shares are drawn again until
            they have, which changes their distribution where ``alpha`` is small.

    Raises:
        ValueError: a number is out of range, or no draw leaves every client its least.

    Example:
        >>> labels = np.repeat([0, 1], 50)
        >>> parts = Dirichlet(clients=4, alpha=0.5).parts(100, labels, seed=0)
        >>> sum(map(len, parts)), min(map(len, parts)) >= 2
        (100, True)
    """

    name = "dirichlet"
    by_label = True
    alpha: float = 0.5
    least: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        number("Dirichlet", "alpha", self.alpha, "> 0")
        integer("Dirichlet", "least", self.least)

    def divide(
        self, count: int, labels: NDArray[np.int64], random: np.random.Generator
    ) -> list[Places]:
        """Shares of every label, cut out of its shuffled examples."""
        each = [np.flatnonzero(labels == label) for label in np.unique(labels)]

        def draw() -> list[Places]:
            cut: list[list[Places]] = [[] for _ in range(self.clients)]
            for places in each:
                shares = random.dirichlet(np.full(self.clients, self.alpha))
                pieces = _cut(random.permutation(places), shares)
                for own, piece in zip(cut, pieces, strict=True):
                    own.append(piece)
            return [np.concatenate(own) for own in cut]

        return _until(draw, self.least, repr(self), count)


@dataclass(frozen=True)
class Quantity(Partition):
    """Shares of all shuffled examples drawn from ``Dir(alpha, ..., alpha)``.

    Clients have many or few examples, of all labels alike.

    Attributes:
        clients: their number.
        alpha: concentration.
        least: as for :class:`Dirichlet`.

    Raises:
        ValueError: as for :class:`Dirichlet`.

    Example:
        >>> parts = Quantity(clients=4, alpha=1.0).parts(100, None, seed=0)
        >>> sum(map(len, parts))
        100
    """

    name = "quantity"
    alpha: float = 0.5
    least: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        number("Quantity", "alpha", self.alpha, "> 0")
        integer("Quantity", "least", self.least)

    def divide(
        self, count: int, labels: NDArray[np.int64], random: np.random.Generator
    ) -> list[Places]:
        """Shares of the shuffled examples."""
        del labels

        def draw() -> list[Places]:
            shares = random.dirichlet(np.full(self.clients, self.alpha))
            return _cut(random.permutation(count), shares)

        return _until(draw, self.least, repr(self), count)


def _cut(places: Places, shares: NDArray[np.float64]) -> list[Places]:
    """Runs of the places in proportion to the shares."""
    ends = np.rint(np.cumsum(shares)[:-1] * len(places)).astype(int)
    return np.split(places, ends)


def _until(
    draw: Callable[[], list[Places]], least: int, owner: str, count: int
) -> list[Places]:
    for _ in range(_DRAWS):
        found = draw()
        if min(map(len, found)) >= least:
            return found
    raise ValueError(
        f"{owner}: none of {_DRAWS} draws of {count} examples leaves every client {least} "
        "of them; give fewer clients, a larger alpha or a smaller least"
    )
