"""What all campaigns are: kinds, each tried a number of times, and counts of the ends."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Campaign", "Row"]


@dataclass
class Row:
    """What the trials of one kind came to.

    Attributes:
        counts: ends of the trials, by name.
        bad: what no user should meet, in words; empty after a good campaign.
        facts: what else is worth keeping, for JSON.
    """

    counts: dict[str, int] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Campaign:
    """One campaign.

    Attributes:
        name: of the module, for the command line.
        unit: what is counted.
        count: trials of each kind in a whole campaign.
        kinds: each kind's trials, by a count and a seed.
    """

    name: str
    unit: str
    count: int
    kinds: Mapping[str, Callable[[int, int], Row]]
