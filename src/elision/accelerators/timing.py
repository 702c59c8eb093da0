"""Timing of a product on a machine: equal folds, and the phases of each port within one."""

from typing import NamedTuple

__all__ = ["Phase", "Timing"]


class Phase(NamedTuple):
    """Interval in which a port or a unit is busy, within a fold.

    Attributes:
        track: name of the port or unit.
        name: its activity.
        start: first cycle, the fold starting at 0.
        end: one past the last cycle; a phase that does not end later than it starts is
            empty.

    Example:
        >>> Phase("west port", "stream A", 0, 12).end
        12
    """

    track: str
    name: str
    start: int
    end: int


class Timing(NamedTuple):
    """Equal folds, one after the other.

    Attributes:
        folds: their number.
        period: cycles from one fold to the next.
        phases: busy intervals of one fold; results may drain under the next fold.
        lead: cycles before the first fold.

    Example:
        >>> Timing(3, 10, (Phase("array", "run", 0, 10),), lead=4).cycles
        34
    """

    folds: int
    period: int
    phases: tuple[Phase, ...]
    lead: int = 0

    @property
    def cycles(self) -> int:
        """Cycles of all folds."""
        return self.lead + self.folds * self.period
