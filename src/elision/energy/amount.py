"""Energy that a piece of work took: joules with their range, their method and their scope."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from elision.common.checks import number
from elision.common.units import in_words

__all__ = ["MACHINE", "PROCESS", "Energy"]

#: Scopes: the joules are of this process alone, or of everything that the machine did.
PROCESS, MACHINE = "process", "machine"

JOULES_PER_WATT_HOUR = 3600.0


@dataclass(frozen=True)
class Energy:
    """Energy of a piece of work, never one number without its range or its method.

    A counter's reading has ``low_joules == high_joules``; an estimate is a range.

    Attributes:
        low_joules: least that the method allows.
        high_joules: most that it allows.
        methods: how the joules were found, in words; several where parts were found
            differently (the processor by a counter, a later process by an estimate).
        scope: whose joules these are: ``"process"``, ``"machine"`` (neighbours
            included), or ``"machine and process"`` of a sum of both.
        cpu_seconds: processor time of this process and its finished children, measured.
        wall_seconds: time from beginning to end, measured.
        peak_bytes: largest resident memory of the process, measured; None where the
            system does not tell.

    Raises:
        ValueError: a number is negative or not finite, or the range is upside down.

    Example:
        >>> hour = Energy(18000.0, 18000.0, ("RAPL",), "machine", 3600.0, 3600.0)
        >>> str(hour), str(hour * 0.001 + Energy(3.6, 7.2, ("estimated",), "process"))
        ('5 Wh (RAPL; machine)', '6 to 7 mWh (RAPL, estimated; machine and process)')
    """

    low_joules: float
    high_joules: float
    methods: tuple[str, ...]
    scope: str
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    peak_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in ("low_joules", "high_joules", "cpu_seconds", "wall_seconds"):
            number("Energy", name, getattr(self, name), ">= 0")
        if self.low_joules > self.high_joules:
            raise ValueError(
                f"Energy: low_joules {self.low_joules} is above high_joules "
                f"{self.high_joules}"
            )
        if not self.methods or not all(isinstance(m, str) for m in self.methods):
            raise ValueError("Energy: methods: say in words how the joules were found")
        if not isinstance(self.scope, str):
            raise ValueError(
                f"Energy: scope: say in words whose joules; got {self.scope!r}"
            )
        if self.peak_bytes is not None:
            number("Energy", "peak_bytes", self.peak_bytes, ">= 0")

    def __add__(self, other: "Energy") -> "Energy":
        """Both, one after the other: ranges, seconds and methods join."""
        peaks = [e.peak_bytes for e in (self, other) if e.peak_bytes is not None]
        scopes = {*self.scope.split(" and "), *other.scope.split(" and ")}
        return Energy(
            self.low_joules + other.low_joules,
            self.high_joules + other.high_joules,
            tuple(dict.fromkeys(self.methods + other.methods)),
            " and ".join(sorted(scopes)),
            self.cpu_seconds + other.cpu_seconds,
            self.wall_seconds + other.wall_seconds,
            max(peaks, default=None),
        )

    def __mul__(self, factor: float) -> "Energy":
        """So many times the work; the peak stays.

        Raises:
            ValueError: a factor below zero.
        """
        number("Energy", "factor", factor, ">= 0")
        names = ("low_joules", "high_joules", "cpu_seconds", "wall_seconds")
        return replace(self, **{n: getattr(self, n) * factor for n in names})

    __rmul__ = __mul__

    @classmethod
    def total(cls, parts: Iterable["Energy"]) -> "Energy | None":
        """Sum of parts; None of no part, whose method and scope nobody knows."""
        found = None
        for part in parts:
            found = part if found is None else found + part
        return found

    @property
    def is_range(self) -> bool:
        """Whether the joules are an estimate between two bounds."""
        return self.low_joules < self.high_joules

    @property
    def watt_hours(self) -> tuple[float, float]:
        """Lowest and highest in Wh."""
        low, high = self.low_joules, self.high_joules
        return low / JOULES_PER_WATT_HOUR, high / JOULES_PER_WATT_HOUR

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"methods": list(self.methods)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Energy":
        """The energy that :meth:`to_dict` wrote.

        Raises:
            ValueError: a value is missing, unknown or out of range.
        """
        known = {f.name for f in fields(cls)}
        if known != set(values):
            raise ValueError(
                f"energy: needs {', '.join(sorted(known))}; got {', '.join(sorted(values))}"
            )
        plain: dict[str, Any] = {**values, "methods": tuple(values["methods"])}
        return cls(**plain)

    def __str__(self) -> str:
        """The range in watt-hours, with method and scope."""
        return f"{in_words(*self.watt_hours, 'Wh')} ({', '.join(self.methods)}; {self.scope})"
