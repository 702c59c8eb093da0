"""What every data set is: named examples for training and for test."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Self

from elision.common.checks import number

__all__ = ["Examples", "held_out_places"]

#: Neighbours that are held out together (own choice): examples that stand beside one
#: another are often alike, as patches of one tile of a photograph or digits of one writer.
_TOGETHER = 8
#: Runs that the smaller part has at least, where it has as many examples (own choice).
_RUNS = 4
#: Five times 0.2 is to be whole.
_EXACT = 1e-9


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

    def held_out(self, share: float = 0.2) -> Self:
        """Training examples alone, some of them in the place of the test examples.

        What is chosen by their score (a recipe, a network, a rate) has not seen the test.
        The same ones are held out at every call, in runs of eight neighbours at even
        distances (:func:`held_out_places`).

        Args:
            share: of the training examples that is held out, in (0, 1).

        Raises:
            ValueError: data of this kind cannot be divided, or a part would be empty.
        """
        del share
        raise ValueError(
            f"data set {self.name!r}: a {type(self).__name__} cannot be divided; give the "
            "class a method held_out(share), which puts training examples in place of the "
            "test"
        )

    @abstractmethod
    def content(self) -> Iterable[bytes]:
        """All that a run reads of the examples, for a digest."""


def held_out_places(count: int, share: float) -> tuple[list[int], list[int]]:
    """Places of the examples that stay in training, and of those held out.

    Args:
        count: examples in all.
        share: that is held out, in (0, 1); met but for one run of neighbours.

    Raises:
        ValueError: ``share`` is out of range, or so few examples leave a part empty.

    Example:
        >>> held_out_places(40, share=0.2)[1]
        [8, 9, 18, 19, 28, 29, 38, 39]
    """
    number("held_out", "share", share, "(0, 1)")
    fewest = int(min(share, 1 - share) * count)
    together = max(1, min(_TOGETHER, fewest // _RUNS))
    kept: list[int] = []
    held: list[int] = []
    for first in range(0, count, together):
        run, index = range(first, min(first + together, count)), first // together
        # A run is held out where the share of the runs so far passes a whole number.
        is_held = int((index + 1) * share + _EXACT) > int(index * share + _EXACT)
        (held if is_held else kept).extend(run)
    if not kept or not held:
        raise ValueError(
            f"held_out(share={share}): of {count} examples one part would be empty"
        )
    return kept, held
