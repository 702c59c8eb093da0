"""Meter: a counter of joules that the machine has."""

from abc import ABC, abstractmethod

__all__ = ["Meter"]


class Meter(ABC):
    """Counter of the energy of a part of the machine, whoever uses it.

    Attributes:
        method: the counter in words.
        covers: ``"cpu"`` or ``"gpu"``.

    Example:
        >>> class Constant(Meter):
        ...     method, covers = "a constant", "cpu"
        ...     def joules(self):
        ...         return 5.0
        >>> Constant().joules()
        5.0
    """

    method: str
    covers: str

    @abstractmethod
    def joules(self) -> float:
        """Joules since the meter was made; never less than at the call before.

        Raises:
            OSError: the counter can no longer be read.
        """
