"""Stragglers: clients of a round that are slow, and what becomes of their work."""

from dataclasses import dataclass
from typing import ClassVar

from elision.common.checks import integer, number

__all__ = ["STRAGGLERS", "Fewer", "Late", "Stragglers"]


@dataclass(frozen=True)
class Stragglers:
    """A share of the clients of each round, drawn anew, that are slow.

    Attributes:
        share: chance of a client to be one, in [0, 1].

    Example:
        >>> STRAGGLERS["late"](share=0.5).rounds
        1
    """

    name: ClassVar[str]
    share: float = 0.3

    def __post_init__(self) -> None:
        number(type(self).__name__, "share", self.share, "[0, 1]")

    def steps(self, steps: int) -> int:
        """Local steps of a straggler, of so many that others take."""
        return steps

    @property
    def delay(self) -> int:
        """Rounds after which its message comes."""
        return 0


@dataclass(frozen=True)
class Fewer(Stragglers):
    """A straggler takes a part of the local steps and reports in time.

    The partial work of Li et al., Federated Optimization in Heterogeneous Networks (FedProx),
    MLSys 2020.

    Attributes:
        share: chance of a client to be one, in [0, 1].
        work: part of the steps that it takes, in (0, 1]; one step at least.

    Example:
        >>> Fewer(work=0.25).steps(10)
        2
    """

    name = "fewer"
    work: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        number("Fewer", "work", self.work, "(0, 1]")

    def steps(self, steps: int) -> int:
        """A part of the steps."""
        return max(1, int(self.work * steps))


@dataclass(frozen=True)
class Late(Stragglers):
    """A straggler's message comes rounds later, and counts there as one of that round's.

    It says where the client went from weights that are no longer the server's.

    Attributes:
        share: chance of a client to be one, in [0, 1].
        rounds: that it is late.

    Example:
        >>> Late(rounds=2).delay
        2
    """

    name = "late"
    rounds: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("Late", "rounds", self.rounds)

    @property
    def delay(self) -> int:
        """The rounds."""
        return self.rounds


#: Kinds of stragglers by their name in specs.
STRAGGLERS: dict[str, type[Stragglers]] = {kind.name: kind for kind in (Fewer, Late)}
