"""Equal parts of shuffled examples, or of examples in their order."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from elision.training.parallel.federated.partitions.base import Partition, Places

__all__ = ["Contiguous", "Iid"]


@dataclass(frozen=True)
class Iid(Partition):
    """Shuffled examples in equal parts: every client's are drawn from one distribution.

    Attributes:
        clients: their number.

    Example:
        >>> [len(part) for part in Iid(clients=3).parts(7, None, seed=0)]
        [3, 2, 2]
    """

    name = "iid"

    def divide(
        self, count: int, labels: NDArray[np.int64], random: np.random.Generator
    ) -> list[Places]:
        """Every ``clients``-th of the shuffled examples."""
        del labels
        order = random.permutation(count)
        return [order[client :: self.clients] for client in range(self.clients)]


@dataclass(frozen=True)
class Contiguous(Partition):
    """Runs of the examples in the data set's own order: the split by source.

    ``photo-patches`` lists its photographs one after the other, so ten clients have a
    photograph each; verses stand in the order of their book, so each client has a
    passage.

    Attributes:
        clients: their number.

    Example:
        >>> [part.tolist() for part in Contiguous(clients=2).parts(4, None, seed=0)]
        [[0, 1], [2, 3]]
    """

    name = "contiguous"

    def divide(
        self, count: int, labels: NDArray[np.int64], random: np.random.Generator
    ) -> list[Places]:
        """Equal runs."""
        del labels, random
        ends = np.arange(self.clients + 1) * count // self.clients
        return [np.arange(a, b) for a, b in pairwise(ends)]
