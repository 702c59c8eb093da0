"""Inner-product machines of equal elements, each with lanes that multiply at once."""

from typing import Any

from elision.accelerators.base import Accelerator
from elision.common.checks import integer

__all__ = ["ElementMachine"]


class ElementMachine(Accelerator):
    """A machine of ``elements`` that multiply ``lanes`` pairs of values per cycle each.

    A member has both as fields, with defaults of its own.

    Example:
        >>> from elision.accelerators import OneSided
        >>> OneSided.sized(2048, lanes=16), OneSided(elements=128).multiplier_count
        ({'elements': 128}, 2048)
    """

    elements: int
    lanes: int

    not_swept = ("elements",)  # their number follows from that of the multipliers

    @property
    def multiplier_count(self) -> int:
        """Multipliers of all elements."""
        return self.elements * self.lanes

    @classmethod
    def sized(cls, multipliers: int, **given: Any) -> dict[str, Any]:
        """Elements of ``lanes`` multipliers each; see :meth:`Accelerator.sized`.

        Raises:
            ValueError: the lanes do not divide the multipliers.
        """
        lanes = integer("sweep", "lanes", given.get("lanes", cls.lanes))
        if multipliers % lanes:
            raise ValueError(
                f"{multipliers} multipliers are no whole number of elements with "
                f"{lanes} lanes"
            )
        return {"elements": multipliers // lanes}
