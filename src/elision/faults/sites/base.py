"""Sites of a network that infers: where the bits are, and how they are struck."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import ClassVar

from elision.faults.draw import Hits, Reach
from elision.faults.fault import Fault

__all__ = ["Site"]


class Site(ABC):
    """All bits of one kind in a model, that a fault reaches.

    While a site is entered, the model computes with the values as they are stored (rounded
    to the fault's format); on leaving, it is as before.

    Attributes:
        fault: what happens to them.
        reach: the bits.
        surviving: values among them that are not zero.
        by_sample: whether each inference has values, and so faults, of its own.

    Example:
        >>> import torch
        >>> from elision.faults.sites import site_of
        >>> site = site_of(torch.nn.Linear(2, 3), Fault(), torch.ones(1, 2))
        >>> isinstance(site, Site), site.reach.stored_bits, site.by_sample
        (True, 192, False)
    """

    fault: Fault
    reach: Reach
    surviving: int
    by_sample: ClassVar[bool]

    @abstractmethod
    def entered(self) -> AbstractContextManager[None]:
        """The model with its values as they are stored."""

    @abstractmethod
    def struck(self, draws: Sequence[list[Hits]]) -> AbstractContextManager[None]:
        """The model with faults; inside :meth:`entered`.

        Args:
            draws: one list of hits for all inferences, or, ``by_sample``, one for each
                example of the batch.
        """
