"""Running average power limit: the processor's energy counters, as Linux shows them.

Read from the powercap files directly, ``/sys/class/powercap/intel-rapl:0/energy_uj`` and
so on; AMD's processors appear under the same names. A package and the memory at it
(``dram``) are added. ``core`` and ``uncore`` lie inside the package, ``psys`` around it:
they would be counted twice. So would ``intel-rapl-mmio``, another way to the same counters.

A counter runs to ``max_energy_range_uj`` and begins anew, within an hour at full load. A
difference below zero is one such turn; reading often enough that there is never more than
one is the caller's part (:mod:`elision.energy.measure`).

Since 2020 only root may read them (CVE-2020-8694: the power shows what others compute).
"""

import logging
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from elision.energy.meters.base import Meter

__all__ = ["POWERCAP", "Rapl"]

logger = logging.getLogger(__name__)

POWERCAP = Path("/sys/class/powercap")


@dataclass
class _Domain:
    """One counter: its files, what it read last, and what it counted since."""

    name: str
    counter: Path
    range_uj: int
    last_uj: int
    counted_uj: int = 0

    def update(self) -> None:
        now = int(self.counter.read_text(encoding="ascii"))
        more = now - self.last_uj
        self.counted_uj += more if more >= 0 else more + self.range_uj
        self.last_uj = now


class Rapl(Meter):
    """Energy of all packages and their memory; see the module.

    Attributes:
        domains: names of the counters that are added.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as empty:
        ...     Rapl.found(Path(empty)) is None
        True
    """

    covers = "cpu"

    def __init__(self, domains: list[_Domain]) -> None:
        self._domains = domains
        self._lock = threading.Lock()
        self.domains = tuple(domain.name for domain in domains)
        self.method = f"RAPL counters {' + '.join(self.domains)}"

    @classmethod
    def found(cls, root: Path = POWERCAP) -> "Rapl | None":
        """The counters of this machine; None without any, or none that may be read.

        Counters that may not be read are named in the log, once.

        Args:
            root: folder of the powercap files.
        """
        domains = []
        for zone in sorted(root.glob("intel-rapl:*"), key=_order):
            try:
                name = (zone / "name").read_text(encoding="ascii").strip()
                if not (name.startswith("package") or name == "dram"):
                    continue
                largest = (zone / "max_energy_range_uj").read_text(encoding="ascii")
                counter = zone / "energy_uj"
                now = int(counter.read_text(encoding="ascii"))
            except PermissionError:
                _refused(str(root))
                return None
            except (OSError, ValueError):  # a zone without a counter
                continue
            label = f"{name} of {zone.name}" if name == "dram" else name
            domains.append(_Domain(label, counter, int(largest), now))
        return cls(domains) if domains else None

    def joules(self) -> float:
        """Joules of all domains since the meter was made."""
        with self._lock:
            for domain in self._domains:
                domain.update()
            return sum(domain.counted_uj for domain in self._domains) / 1e6


def _order(zone: Path) -> list[int]:
    """Places of a zone among its siblings: ``intel-rapl:0:2`` is [0, 2]."""
    return [int(part) for part in zone.name.split(":")[1:] if part.isdigit()]


@cache
def _refused(root: str) -> None:
    """Say once that the counters are there and may not be read."""
    logger.warning(
        "the processor's energy counters, %s/intel-rapl:*/energy_uj, may be read by root "
        "only: energy is estimated (to measure it, let root make them readable)",
        root,
    )
