"""Partition: which client has which training examples."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from elision.common.checks import integer

__all__ = ["Partition", "Places", "generator", "labels_of"]

#: Places of examples among the training examples, int64.
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Partition(ABC):
    """Every training example to one client, none to two.

    Attributes:
        clients: their number.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> from elision.training.parallel.federated.partitions import PARTITIONS
        >>> parts = PARTITIONS["contiguous"](clients=2).parts(5, None, seed=0)
        >>> [part.tolist() for part in parts]
        [[0, 1], [2, 3, 4]]
    """

    name: ClassVar[str]
    #: Whether the labels decide.
    by_label: ClassVar[bool] = False
    clients: int = 10

    def __post_init__(self) -> None:
        integer(type(self).__name__, "clients", self.clients)

    def parts(
        self, count: int, labels: NDArray[np.int64] | None, seed: int
    ) -> list[Places]:
        """The places of each client's examples, rising.

        Args:
            count: training examples.
            labels: of them; None where there are none.
            seed: of what is drawn.

        Raises:
            ValueError: fewer examples than clients, or no labels where they decide.
        """
        owner = type(self).__name__
        if self.clients > count:
            raise ValueError(
                f"{owner}(clients={self.clients}): there are {count} training examples, "
                "and a client has one at least"
            )
        if self.by_label and labels is None:
            raise ValueError(
                f"{owner}: divides by label, and these examples have none; use iid, "
                "quantity or contiguous"
            )
        known = np.zeros(count, np.int64) if labels is None else labels
        found = self.divide(count, known, generator(seed, 0))
        return [np.sort(part) for part in found]

    @abstractmethod
    def divide(
        self, count: int, labels: NDArray[np.int64], random: np.random.Generator
    ) -> list[Places]:
        """The places of each client's examples, in any order."""


def generator(seed: int, *stream: int) -> np.random.Generator:
    """Random numbers of one use of a seed, unrelated to those of others."""
    return np.random.default_rng(np.random.SeedSequence((seed, *stream)))


def labels_of(dataset: object) -> NDArray[np.int64] | None:
    """The labels of a data set's training examples, if it has any."""
    labels = getattr(dataset, "train_labels", None)
    return None if labels is None else labels.numpy()
