"""Measuring the energy of a block: by the machine's counters, else estimated."""

import logging
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from elision.energy.amount import MACHINE, Energy
from elision.energy.coefficients import Coefficients
from elision.energy.meters import Meter, found_meters

__all__ = ["Reading", "measured"]

logger = logging.getLogger(__name__)

#: Seconds between two readings of a counter that begins anew: own choice. A RAPL counter
#: of 262 kJ turns once in 262 s at 1 kW, so there is never more than one turn in between.
_POLL_SECONDS = 30.0


class Reading:
    """Energy of a block, while it runs and after it.

    Made by :func:`measured`.

    Example:
        >>> with measured(meters=()) as reading:
        ...     _ = sum(range(1000))
        >>> reading.energy.is_range, reading.energy.scope
        (True, 'process')
    """

    def __init__(
        self,
        meters: Sequence[Meter],
        coefficients: Coefficients,
        device: torch.device,
    ) -> None:
        self._coefficients, self._device = coefficients, device
        self._first = dict.fromkeys(meters, 0.0)
        self._first = self._counted()
        self._wall, self._cpu = time.perf_counter(), _cpu_seconds()
        self._final: Energy | None = None

    @property
    def energy(self) -> Energy:
        """Energy of the block; while it runs, so far."""
        return self._so_far() if self._final is None else self._final

    def _so_far(self) -> Energy:
        """Counters where there are any; processor and memory estimated where not."""
        cpu_seconds = max(0.0, _cpu_seconds() - self._cpu)
        wall_seconds, peak_bytes = time.perf_counter() - self._wall, _peak_bytes()
        counted = self._counted()
        covered = {meter.covers for meter in counted}
        parts = [Energy(j, j, (meter.method,), MACHINE) for meter, j in counted.items()]
        if "cpu" not in covered:
            estimate = self._coefficients.energy(cpu_seconds, wall_seconds, peak_bytes)
            parts.insert(0, estimate)
        found = sum(parts[1:], parts[0])
        missing: tuple[str, ...] = ()
        if self._device.type != "cpu" and "gpu" not in covered:
            missing = (f"{self._device.type} device not counted",)
        return replace(
            found,
            methods=found.methods + missing,
            cpu_seconds=cpu_seconds,
            wall_seconds=wall_seconds,
            peak_bytes=peak_bytes,
        )

    def _counted(self) -> dict[Meter, float]:
        """Joules by counter; one that fails is left out from then on, as if not there."""
        counted = {}
        for meter, first in list(self._first.items()):
            try:
                counted[meter] = meter.joules() - first
            except OSError as error:
                logger.warning("%s: what it covers is not measured in this run", error)
                del self._first[meter]
        return counted

    def _finish(self) -> None:
        self._final = self._so_far()


@contextmanager
def measured(
    device: str | torch.device = "cpu",
    *,
    coefficients: Coefficients | None = None,
    meters: Sequence[Meter] | None = None,
) -> Iterator[Reading]:
    """Measure the energy of a block, or estimate it where the machine has no counter.

    The processor's counters (RAPL) and those of an NVIDIA GPU are read where they are
    there and may be read; their scope is the machine, neighbours included. Else the
    processor's and the memory's energy is a range, by :class:`Coefficients`, of this
    process and the children it has waited for.

    Args:
        device: where the work runs; a GPU's counter joins the processor's.
        coefficients: watts of a core and of memory; None: the published range.
        meters: counters to read; None: those of this machine.

    Yields:
        The reading; its ``energy`` may be asked for in the block and after it.

    Example:
        >>> with measured() as reading:
        ...     _ = torch.ones(64, 64) @ torch.ones(64, 64)
        >>> reading.energy.cpu_seconds > 0, bool(reading.energy.methods)
        (True, True)
    """
    where = torch.device(device)
    found = found_meters(where) if meters is None else meters
    reading = Reading(found, coefficients or Coefficients(), where)
    done = threading.Event()
    polling = threading.Thread(target=_poll, args=(found, done), daemon=True)
    if found:
        polling.start()
    try:
        yield reading
    finally:
        done.set()
        if found:
            polling.join()
        reading._finish()


def _poll(meters: Sequence[Meter], done: threading.Event) -> None:
    """Read the counters often enough that none turns twice between two readings."""
    while not done.wait(_POLL_SECONDS):
        for meter in meters:
            try:
                meter.joules()
            except OSError:  # the reading itself says so
                return


def _cpu_seconds() -> float:
    """Processor time of this process and of the children that it has waited for."""
    own = time.process_time()
    try:
        import resource
    except ModuleNotFoundError:  # not on Windows
        return own
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own + children.ru_utime + children.ru_stime


def _peak_bytes() -> int | None:
    """Largest resident memory of this process since it began; None on Windows."""
    try:
        import resource
    except ModuleNotFoundError:
        return None
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024
