"""Named microcontrollers: does a network fit, and how long and at what energy would it run.

Memory and clock are published. Latency and energy are estimates, always a range: cycles
and energy per multiply-accumulate of published runs of other networks, lowest to highest,
times the network's own multiply-accumulates. A device without runs of its own takes the
cycles of a named device with the same core, or has no estimate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from elision.common.names import lookup
from elision.export.planning.arena import Arena

__all__ = ["DEVICES", "Device", "Fit", "Run", "find_device", "fit"]


@dataclass(frozen=True)
class Run:
    """A published inference on a device.

    Args:
        network: what ran.
        macs: its multiply-accumulates [derived from its shapes].
        cycles: of the core for one inference: clock over published throughput, or as
            published.
        energy_uj: of one inference, if published.
        runtime: software that ran it.

    Example:
        >>> Run("DS-CNN", 2_656_768, cycles=8.7e6, energy_uj=None, runtime="x").macs
        2656768
    """

    network: str
    macs: int
    cycles: float
    energy_uj: float | None
    runtime: str


@dataclass(frozen=True)
class Device:
    """A microcontroller, or a board that it is named by.

    Args:
        name: for ``--device``.
        chip: the part.
        core: processor core.
        clock_mhz: highest clock, or that of the runs.
        flash_bytes: for code and constants.
        ram_bytes: for the arena and all else.
        source: where memory and clock are published.
        runs: published inferences.
        runs_source: where.
        like: name of the device with the same core whose cycles are taken where there
            are no runs.

    Example:
        >>> DEVICES["nucleo-l4r5zi"].ram_bytes
        655360
    """

    name: str
    chip: str
    core: str
    clock_mhz: int
    flash_bytes: int
    ram_bytes: int
    source: str
    runs: tuple[Run, ...] = ()
    runs_source: str = ""
    like: str = ""

    @property
    def cycles_per_mac(self) -> tuple[float, float] | None:
        """Lowest and highest of the published runs, or of the device that it is like."""
        if self.like:
            return DEVICES[self.like].cycles_per_mac
        each = [run.cycles / run.macs for run in self.runs]
        return (min(each), max(each)) if each else None

    @property
    def energy_pj_per_mac(self) -> tuple[float, float] | None:
        """Lowest and highest of the runs whose energy is published; never of another."""
        each = [
            1e6 * r.energy_uj / r.macs for r in self.runs if r.energy_uj is not None
        ]
        return (min(each), max(each)) if each else None

    @property
    def basis(self) -> str:
        """What the estimates stand on, in words."""
        if self.like:
            other = DEVICES[self.like]
            return (
                f"estimate: cycles per multiply-accumulate of {other.name}, which has the "
                f"same core ({other.core}); no energy is published"
            )
        if not self.runs:
            return "no estimate: no run on this core is published"
        count = len(self.runs)
        return f"estimate: range over {count} published runs ({self.runs_source})"


@dataclass(frozen=True)
class Fit:
    """A network on a device.

    Attributes:
        device: which.
        flash_left_bytes, ram_left_bytes: what remains for code, stack and all else;
            negative where the network does not fit.
        latency_ms: lowest and highest estimate, or None.
        energy_uj: likewise.

    Example:
        >>> Fit(DEVICES["pico"], 1_000, -5, None, None).fits
        False
    """

    device: Device
    flash_left_bytes: int
    ram_left_bytes: int
    latency_ms: tuple[float, float] | None
    energy_uj: tuple[float, float] | None

    @property
    def fits(self) -> bool:
        """Constants within flash and arena within RAM."""
        return self.flash_left_bytes >= 0 and self.ram_left_bytes >= 0

    def row(self) -> dict[str, Any]:
        """A row of a table."""
        return {
            "device": self.device.name,
            "core": self.device.core,
            "fits": "yes" if self.fits else "no",
            "flash left": self.flash_left_bytes,
            "RAM left": self.ram_left_bytes,
            "latency ms (estimate)": _range(self.latency_ms),
            "energy uJ (estimate)": _range(self.energy_uj),
        }

    def text(self) -> str:
        """The verdict in a line or two."""
        parts = []
        for left, memory in (
            (self.flash_left_bytes, "flash"),
            (self.ram_left_bytes, "RAM"),
        ):
            if left >= 0:
                parts.append(f"{left:,} bytes of {memory} left")
            else:
                parts.append(f"{-left:,} bytes of {memory} too few")
        verdict = "fits" if self.fits else "does not fit"
        first = f"{self.device.name}: {verdict}: {'; '.join(parts)}"
        if self.latency_ms is None:
            return f"{first}\n{self.device.basis}"
        energy = f", {_range(self.energy_uj)} uJ" if self.energy_uj else ""
        return f"{first}\n{_range(self.latency_ms)} ms{energy} ({self.device.basis})"


def find_device(name: str) -> Device:
    """The device of a name.

    Raises:
        ValueError: there is none; the message lists all.

    Example:
        >>> find_device("pico").core
        'Cortex-M0+'
    """
    return lookup("device", name, DEVICES)


def fit(plan: Arena, device: str | Device) -> Fit:
    """How a network fits a device.

    Args:
        plan: the network's memory and multiply-accumulates.
        device: a device or its name.

    Raises:
        ValueError: an unknown device.

    Example:
        >>> import torch
        >>> from elision.export import arena
        >>> plan = arena(torch.nn.Linear(1000, 300), torch.zeros(1, 1000))
        >>> print(fit(plan, "pico").text())
        pico: fits: 1,794,452 bytes of flash left; 269,036 bytes of RAM left
        no estimate: no run on this core is published
    """
    found = device if isinstance(device, Device) else find_device(device)
    macs, hertz = plan.macs, found.clock_mhz * 1e6
    return Fit(
        found,
        found.flash_bytes - plan.flash_bytes,
        found.ram_bytes - plan.arena_bytes,
        _times(found.cycles_per_mac, 1e3 * macs / hertz),
        _times(found.energy_pj_per_mac, 1e-6 * macs),
    )


def _times(
    ends: tuple[float, float] | None, factor: float
) -> tuple[float, float] | None:
    return None if ends is None else (ends[0] * factor, ends[1] * factor)


def _range(ends: tuple[float, float] | None) -> str:
    if ends is None:
        return "not published"
    return " to ".join(f"{end:.3g}" if end < 1000 else f"{end:,.0f}" for end in ends)


#: Multiply-accumulates of the networks of MLPerf Tiny (Banbury et al., 2021), derived from
#: their shapes; padded positions count.
_MACS = {
    "image classification": 12_501_632,
    "visual wake words": 7_489_664,
    "keyword spotting": 2_656_768,
    "anomaly detection": 264_192,
}


def _mlperf(
    clock_mhz: int, runtime: str, results: Mapping[str, tuple[float, float | None]]
) -> tuple[Run, ...]:
    """Runs of the benchmark from published (inferences per second, energy in uJ)."""
    return tuple(
        Run(name, _MACS[name], clock_mhz * 1e6 / rate, energy, runtime)
        for name, (rate, energy) in results.items()
    )


_L4R5ZI = (
    *_mlperf(
        120,
        "TensorFlow Lite for Microcontrollers 2.3.1",  # at 1.8 V
        {
            "image classification": (1.420, 29_207.010),
            "visual wake words": (1.665, 24_312.648),
            "keyword spotting": (5.497, 7_373.704),
            "anomaly detection": (99.487, 416.312),
        },
    ),
    *_mlperf(
        120,
        "X-CUBE-AI 8.0.0",  # at 3.0 V
        {
            "image classification": (4.505, 17_315.114),
            "visual wake words": (4.522, 16_573.080),
            "keyword spotting": (13.759, 5_481.633),
            "anomaly detection": (131.950, 528.881),
        },
    ),
    *_mlperf(
        120,
        "microTVM with CMSIS-NN",
        {
            "image classification": (2.567, None),
            "visual wake words": (3.324, None),
            "keyword spotting": (10.019, None),
            "anomaly detection": (116.212, None),
        },
    ),
)

_H7A3ZI = _mlperf(
    280,
    "X-CUBE-AI 8.0.0",  # at 3.0 V
    {
        "image classification": (18.215, 7_615.350),
        "visual wake words": (19.867, 6_928.315),
        "keyword spotting": (60.988, 2_362.103),
        "anomaly detection": (547.234, 235.833),
    },
)

_NRF5340 = _mlperf(
    128,
    "microTVM with CMSIS-NN",
    {
        "image classification": (3.146, None),
        "visual wake words": (4.286, None),
        "keyword spotting": (13.074, None),
        "anomaly detection": (159.020, None),
    },
)

#: Kernels of ESP-NN with vector instructions, cycles as published for 240 MHz.
_ESP32_S3 = (
    Run("1x1 convolution 10x10x64 to 64", 409_600, 461_398, None, "ESP-NN"),
    Run("1x1 convolution 8x8x16 to 16", 16_384, 43_578, None, "ESP-NN"),
    Run("3x3 convolution 10x10x3 to 64", 110_592, 643_689, None, "ESP-NN"),
    Run("3x3 depthwise convolution 18x18x16", 36_864, 191_931, None, "ESP-NN"),
)

_KIB, _MIB = 1024, 1024**2

_ALL = (
    Device(
        "nucleo-l4r5zi",
        "STM32L4R5ZIT6",
        "Cortex-M4",
        120,
        2 * _MIB,
        640 * _KIB,
        "MLPerf Tiny v0.5, closed/reference/systems/Nucleo_L4R5ZI_System_Description",
        _L4R5ZI,
        "MLPerf Tiny v0.5 closed/reference and v1.1 closed/Krai, "
        "github.com/mlcommons/tiny_results_v0.5 and _v1.1",
    ),
    Device(
        "nucleo-h7a3zi-q",
        "STM32H7A3ZIT6Q",
        "Cortex-M7",
        280,
        2 * _MIB,
        1_190_000,  # published as "1.19MB"
        "MLPerf Tiny v1.1, closed/Krai/systems/NUCLEO-H7A3ZI-Q_X-CUBE-AI-8.0",
        _H7A3ZI,
        "MLPerf Tiny v1.1 closed/Krai, github.com/mlcommons/tiny_results_v1.1",
    ),
    Device(
        "nrf5340-dk",
        "nRF5340",
        "Cortex-M33",
        128,
        1 * _MIB,
        512 * _KIB,
        "MLPerf Tiny v1.1, closed/Krai/systems/NRF5340-DK_MICROTVM-CMSIS-NN",
        _NRF5340,
        "MLPerf Tiny v1.1 closed/Krai, github.com/mlcommons/tiny_results_v1.1",
    ),
    Device(
        "nano-33-ble",
        "nRF52840",
        "Cortex-M4",
        64,
        1 * _MIB,
        256 * _KIB,
        "Nordic Semiconductor, nRF52840 Product Specification",
        like="nucleo-l4r5zi",
    ),
    Device(
        "stm32f746",
        "STM32F746xG",
        "Cortex-M7",
        216,
        1 * _MIB,
        320 * _KIB,
        "STMicroelectronics, STM32F745xx STM32F746xx datasheet",
        like="nucleo-h7a3zi-q",
    ),
    Device(
        "stm32h743",
        "STM32H743xI",
        "Cortex-M7",
        480,
        2 * _MIB,
        1 * _MIB,
        "STMicroelectronics, STM32H742xI/G STM32H743xI/G datasheet",
        like="nucleo-h7a3zi-q",
    ),
    Device(
        "esp32-s3",
        "ESP32-S3 with 8 MiB of external flash",
        "Xtensa LX7",
        240,
        8 * _MIB,
        512 * _KIB,
        "Espressif Systems, ESP32-S3 Series and ESP32-S3-WROOM-1 datasheets",
        _ESP32_S3,
        "kernels of github.com/espressif/esp-nn, README, ESP32-S3 at 240 MHz, optimised",
    ),
    Device(
        "pico",
        "RP2040 with 2 MiB of external flash",
        "Cortex-M0+",
        133,
        2 * _MIB,
        264 * _KIB,
        "Raspberry Pi Ltd, RP2040 and Raspberry Pi Pico datasheets",
    ),
)

#: By the name that ``--device`` takes.
DEVICES: dict[str, Device] = {device.name: device for device in _ALL}
