"""Energy estimated from processor seconds, where the machine has no counter."""

from dataclasses import dataclass

from elision.common.checks import number
from elision.energy.amount import PROCESS, Energy

__all__ = ["Coefficients"]

_GIB = 2**30

_SOURCE = (
    "cores: whole servers at full load over their hardware threads, SPECpower_ssj2008 as "
    "averaged by processor generation in Cloud Carbon Footprint (AMD EPYC 2nd generation "
    "1.69 W, Intel Sandy Bridge 8.58 W; Skylake and Cascade Lake about 4 W); memory: 0.08 "
    "W/GB of Green Algorithms' present data, 0.392 W/GB of Cloud Carbon Footprint"
)


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """Watts of a busy core and of memory, as ranges.

    The energy is ``cpu_seconds · w_core + peak_GiB · w_GiB · wall_seconds``, at both
    ends of the ranges. It is the process's own: a neighbour's load is not in it, an idle
    machine's share neither.

    Attributes:
        core_watts: lowest and highest power of a busy hardware thread. Give your
            processor's own figure, such as its thermal design power over its cores, for a
            narrower range.
        gib_watts: lowest and highest power of a GiB of memory.
        source: where the figures come from.

    Raises:
        ValueError: a range is upside down or below zero.

    Example:
        >>> str(Coefficients(core_watts=(5, 5), gib_watts=(0, 0), source="example").energy(
        ...     cpu_seconds=3600, wall_seconds=4000, peak_bytes=None))
        '5 Wh (estimated, 5 W a busy core, 0 W a GiB; process)'
    """

    core_watts: tuple[float, float] = (1.69, 8.58)
    gib_watts: tuple[float, float] = (0.086, 0.421)
    source: str = _SOURCE

    def __post_init__(self) -> None:
        for name in ("core_watts", "gib_watts"):
            low, high = getattr(self, name)
            number("Coefficients", name, low, ">= 0")
            number("Coefficients", name, high, f">= {low}")

    def energy(
        self, cpu_seconds: float, wall_seconds: float, peak_bytes: int | None
    ) -> Energy:
        """Energy of work that was timed.

        Args:
            cpu_seconds: processor time of all threads.
            wall_seconds: how long its memory was held.
            peak_bytes: memory held; None leaves memory out, and says so.

        Raises:
            ValueError: a time is negative.
        """
        gib = (peak_bytes or 0) / _GIB
        low, high = (
            cpu_seconds * core + gib * memory * wall_seconds
            for core, memory in zip(self.core_watts, self.gib_watts, strict=True)
        )
        memory = (
            "memory not counted" if peak_bytes is None else self._watts("gib_watts")
        )
        if peak_bytes is None and not any(self.gib_watts):
            memory = self._watts("gib_watts")
        method = f"estimated, {self._watts('core_watts')}, {memory}"
        return Energy(
            low, high, (method,), PROCESS, cpu_seconds, wall_seconds, peak_bytes
        )

    def _watts(self, name: str) -> str:
        texts = dict.fromkeys(f"{watts:g}" for watts in getattr(self, name))
        noun = {"core_watts": "busy core", "gib_watts": "GiB"}[name]
        return f"{' to '.join(texts)} W a {noun}"
