"""NVIDIA's management library: the energy counter of a GPU, through ``nvidia-ml-py``."""

import logging
from functools import cache
from typing import Any

from elision.common.extras import not_installed
from elision.energy.meters.base import Meter

__all__ = ["Nvml"]

logger = logging.getLogger(__name__)


class Nvml(Meter):
    """Energy of one GPU since the driver was loaded, whoever uses it.

    The counter (``nvmlDeviceGetTotalEnergyConsumption``, in millijoules) is there from
    the Volta generation on.

    Example:
        >>> class Library:  # as nvidia-ml-py's module ``pynvml``, one GPU at 2 J
        ...     NVMLError = RuntimeError
        ...     nvmlInit = staticmethod(lambda: None)
        ...     nvmlDeviceGetHandleByUUID = staticmethod(lambda uuid: uuid)
        ...     nvmlDeviceGetTotalEnergyConsumption = staticmethod(lambda handle: 2000)
        >>> meter = Nvml.found("GPU-0", Library())
        >>> meter.method, meter.joules()
        ('NVML counter of GPU-0', 0.0)
    """

    covers = "gpu"

    def __init__(self, library: Any, handle: Any, uuid: str) -> None:
        self._library, self._handle = library, handle
        self.method = f"NVML counter of {uuid}"
        self._first_mj = self._read()

    @classmethod
    def found(cls, uuid: str, library: Any = None) -> "Nvml | None":
        """The counter of a GPU; None where there is none, which the log says once.

        Args:
            uuid: of the GPU, as NVML names it: ``GPU-...``.
            library: the module ``pynvml``; None imports it.
        """
        if library is None:
            try:
                import pynvml as library  # pyright: ignore[reportMissingImports]
            except ModuleNotFoundError:
                _missing(f"nvidia-ml-py {not_installed('energy')}")
                return None
        try:
            library.nvmlInit()
            return cls(library, library.nvmlDeviceGetHandleByUUID(uuid), uuid)
        except library.NVMLError as error:
            _missing(str(error))
            return None

    def joules(self) -> float:
        """Joules since the meter was made."""
        try:
            return (self._read() - self._first_mj) / 1000
        except self._library.NVMLError as error:
            raise OSError(f"{self.method}: {error}") from error

    def _read(self) -> int:
        return self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle)


@cache
def _missing(why: str) -> None:
    logger.warning("the GPU's energy is not counted: %s", why)
