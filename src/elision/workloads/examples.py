"""What every data set is: named examples for training and for test."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Self

__all__ = ["Examples"]


class Examples(ABC):
    """Examples of any kind; a task knows which it is and makes batches of them.

    Attributes:
        name: short name, as in the registry.
        source: where the examples come from.

    Example:
        >>> from elision.workloads import load_dataset
        >>> isinstance(load_dataset("digits"), Examples)
        True
    """

    name: str
    source: str

    @abstractmethod
    def limited(self, train: int | None = None, test: int | None = None) -> Self:
        """At most so many examples for training and for test; None keeps all."""

    def part(self, which: Sequence[int]) -> Self:
        """The training examples at these places, and all of the test.

        Raises:
            ValueError: data of this kind cannot be divided.
        """
        del which
        raise ValueError(
            f"data set {self.name!r}: a {type(self).__name__} cannot be divided; give the "
            "class a method part(which), which keeps the training examples at places"
        )

    @abstractmethod
    def content(self) -> Iterable[bytes]:
        """All that a run reads of the examples, for a digest."""
