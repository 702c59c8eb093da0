"""Counters on a fake tree of powercap files and a fake NVML; blocks measured by them."""

import logging
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from elision.energy import Coefficients, Meter, Nvml, Rapl, found_meters, measured
from elision.energy import measure as measuring
from elision.energy.meters import nvml, rapl

#: ``max_energy_range_uj`` of a common package.
RANGE = 262_143_328_850


def write_zone(
    root: Path, zone: str, name: str, counter_uj: int, range_uj: int = RANGE
) -> Path:
    folder = root / zone
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    (folder / "energy_uj").write_text(f"{counter_uj}\n")
    return folder / "energy_uj"


@pytest.fixture
def two_packages(tmp_path: Path) -> dict[str, Path]:
    """Two packages with memory, and everything that must not be added to them."""
    zones = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "dram",
        "intel-rapl:1": "package-1",
        "intel-rapl:1:0": "dram",
        "intel-rapl:2": "psys",
        "intel-rapl-mmio:0": "package-0",
    }
    return {
        zone: write_zone(tmp_path, zone, name, 1000) for zone, name in zones.items()
    }


def test_packages_and_memory_are_added_and_nothing_twice(
    two_packages: dict[str, Path], tmp_path: Path
) -> None:
    meter = Rapl.found(tmp_path)
    assert meter is not None
    for zone, more in zip(
        two_packages, (1, 10, 100, 1000, 10**4, 10**5, 10**6), strict=True
    ):
        two_packages[zone].write_text(f"{1000 + more * 10**6}\n")
    assert meter.joules() == 1 + 100 + 1000 + 10**4
    assert meter.domains == (
        "package-0",
        "dram of intel-rapl:0:1",
        "package-1",
        "dram of intel-rapl:1:0",
    )


def test_a_counter_that_begins_anew_goes_on(tmp_path: Path) -> None:
    counter = write_zone(tmp_path, "intel-rapl:0", "package-0", RANGE - 2_000_000)
    meter = Rapl.found(tmp_path)
    assert meter is not None
    counter.write_text("3000000")
    assert meter.joules() == 5.0
    for turn in range(1, 4):  # read in between, it may turn any number of times
        counter.write_text(str(RANGE - 1_000_000))
        meter.joules()
        counter.write_text("3000000")
        assert meter.joules() == pytest.approx(5 + turn * RANGE / 1e6)


def test_counters_that_may_not_be_read_are_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    counter = write_zone(tmp_path, "intel-rapl:0", "package-0", 1)
    read = Path.read_text

    def refuse(path: Path, *args: Any, **kwargs: Any) -> str:
        if path == counter:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", refuse)  # a test's root reads everything
    rapl._refused.cache_clear()
    with caplog.at_level(logging.WARNING, "elision"):
        assert Rapl.found(tmp_path) is None
        assert Rapl.found(tmp_path) is None
    (record,) = caplog.records
    assert "root only" in record.getMessage()
    assert str(tmp_path) in record.getMessage()


def test_a_tree_without_counters_is_none(tmp_path: Path) -> None:
    assert Rapl.found(tmp_path / "missing") is None
    (tmp_path / "intel-rapl").mkdir()  # the folder of the driver, not a zone
    assert Rapl.found(tmp_path) is None


class FakeNvml:
    """``pynvml`` with one GPU."""

    class NVMLError(Exception):
        """As pynvml's."""

    def __init__(self) -> None:
        self.millijoules = 1000

    def nvmlInit(self) -> None:
        """As pynvml's."""

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid != "GPU-here":
            raise self.NVMLError("Not Found")
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        assert handle == "GPU-here"
        if self.millijoules < 0:
            raise self.NVMLError("GPU is lost")
        return self.millijoules


def test_a_gpu_counts_from_when_the_meter_was_made() -> None:
    library = FakeNvml()
    meter = Nvml.found("GPU-here", library)
    assert meter is not None
    library.millijoules += 2500
    assert meter.joules() == 2.5
    library.millijoules = -1
    with pytest.raises(OSError, match="GPU is lost"):
        meter.joules()


def test_a_gpu_without_a_counter_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    nvml._missing.cache_clear()
    with caplog.at_level(logging.WARNING, "elision"):
        assert Nvml.found("GPU-other", FakeNvml()) is None
        assert Nvml.found("GPU-other", FakeNvml()) is None
    (record,) = caplog.records
    assert record.getMessage() == "the GPU's energy is not counted: Not Found"


class Falling(Meter):
    """A counter of known values, of which the last ones may be a failure."""

    def __init__(self, covers: str, *values: float | None) -> None:
        self.method, self.covers = f"fake {covers}", covers
        self._values = list(values)

    def joules(self) -> float:
        value = self._values.pop(0)
        if value is None:
            raise OSError("gone")
        return value


def burn() -> None:
    x = torch.ones(200, 200)
    for _ in range(20):
        x = (x @ x) / 200


def test_a_block_with_a_counter_has_one_number_of_the_whole_machine() -> None:
    with measured(meters=[Falling("cpu", 10.0, 17.0)]) as reading:
        burn()
    energy = reading.energy
    assert (energy.low_joules, energy.high_joules) == (7.0, 7.0)
    assert (energy.scope, energy.methods) == ("machine", ("fake cpu",))
    assert energy.cpu_seconds > 0
    assert energy.wall_seconds > 0
    assert reading.energy is energy  # it stays what it was at the end


def test_a_block_without_a_counter_is_a_range_of_the_process() -> None:
    coefficients = Coefficients(core_watts=(1, 3), gib_watts=(0, 0), source="test")
    with measured(meters=(), coefficients=coefficients) as reading:
        burn()
        early = reading.energy
        burn()
    energy = reading.energy
    assert early.cpu_seconds <= energy.cpu_seconds
    assert energy.scope == "process"
    assert energy.low_joules == pytest.approx(energy.cpu_seconds)
    assert energy.high_joules == pytest.approx(3 * energy.cpu_seconds)


def test_a_gpu_joins_the_estimate_of_the_processor() -> None:
    with measured("cuda", meters=[Falling("gpu", 0.0, 100.0)]) as reading:
        burn()
    energy = reading.energy
    assert 100 < energy.low_joules < energy.high_joules
    assert energy.scope == "machine and process"
    assert energy.methods[-1] == "fake gpu"


def test_a_gpu_without_a_counter_is_named_in_the_method() -> None:
    with measured("cuda", meters=[Falling("cpu", 0.0, 1.0)]) as reading:
        pass
    assert reading.energy.methods == ("fake cpu", "cuda device not counted")


def test_a_counter_that_fails_in_the_block_gives_way_to_the_estimate(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        caplog.at_level(logging.WARNING, "elision"),
        measured(meters=[Falling("cpu", 0.0, None)]) as reading,
    ):
        burn()
    assert reading.energy.scope == "process"
    assert "estimated" in reading.energy.methods[0]
    assert "gone" in caplog.text


def test_a_long_block_reads_its_counters_in_between(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    counter = write_zone(tmp_path, "intel-rapl:0", "package-0", RANGE - 1_000_000)
    meter = Rapl.found(tmp_path)
    assert meter is not None
    monkeypatch.setattr(measuring, "_POLL_SECONDS", 1e-3)
    seen = threading.Event()
    update = meter.joules

    def joules() -> float:
        found = update()
        seen.set()
        return found

    monkeypatch.setattr(meter, "joules", joules)
    with measured(meters=[meter]) as reading:
        for value in (1_000_000, RANGE - 1_000_000, 1_000_000):
            counter.with_name("new").write_text(str(value))
            counter.with_name("new").replace(counter)  # whole, as the kernel writes it
            seen.clear()
            assert seen.wait(10)
            seen.clear()
            assert seen.wait(10)  # a reading that began after the counter moved
    assert reading.energy.low_joules == pytest.approx(2 + RANGE / 1e6)


def test_an_exception_in_the_block_leaves_a_reading() -> None:
    with pytest.raises(RuntimeError, match="stop"), measured(meters=()) as reading:
        raise RuntimeError("stop")
    assert reading.energy.wall_seconds > 0


def test_meters_of_the_processor_are_looked_for_in_the_usual_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_zone(tmp_path, "intel-rapl:0", "package-0", 1)
    found = Rapl.found
    monkeypatch.setattr(Rapl, "found", lambda: found(tmp_path))
    (meter,) = found_meters("cpu")
    assert meter.method == "RAPL counters package-0"
