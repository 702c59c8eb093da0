"""A few labels to each client: examples sorted by label and dealt out in shards."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elision.common.checks import integer
from elision.training.parallel.federated.partitions.base import Partition, Places

__all__ = ["Shards"]


@dataclass(frozen=True)
class Shards(Partition):
    """Examples sorted by label, cut into shards, and a few random shards to each client.

    McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized
    Data, AISTATS 2017: two shards a client, so that most have examples of two labels.

    Attributes:
        clients: their number.
        each: shards of a client.

    Raises:
        ValueError: a number is out of range, or there are more shards than examples.

    Example:
        >>> labels = np.tile([0, 1, 2, 3], 10)
        >>> parts = Shards(clients=2, each=2).parts(40, labels, seed=0)
        >>> [len(np.unique(labels[part])) for part in parts]
        [2, 2]
    """

    name = "shards"
    by_label = True
    each: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("Shards", "each", self.each)

    def divide(
        self, count: int, labels: NDArray[np.int64], random: np.random.Generator
    ) -> list[Places]:
        """Shards of almost equal size, dealt out."""
        shards = self.clients * self.each
        if shards > count:
            raise ValueError(
                f"{self!r}: {shards} shards of {count} examples; give fewer of either"
            )
        # Within a label the order is random, so that a shard is no run of the data set.
        order = np.lexsort((random.permutation(count), labels))
        cut = np.array_split(order, shards)
        dealt = random.permutation(shards).reshape(self.clients, self.each)
        return [np.concatenate([cut[s] for s in own]) for own in dealt]
