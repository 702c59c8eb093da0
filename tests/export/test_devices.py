"""Named microcontrollers: published figures, estimates as ranges, what fits."""

from typing import Any

import pytest
import torch

from elision.export import arena
from elision.export.devices import DEVICES, Device, Fit, find_device, fit
from elision.export.planning import Graph, Operation
from elision.export.planning.arena import plan
from elision.export.planning.traced import Constants
from elision.workloads import make_model


def _fit(device: str, *, arena: int, weights: int = 0, macs: int = 0) -> Fit:
    step = Operation("layer", "linear", ("x",), ("y",), macs=macs)
    graph = Graph({"x": arena, "y": 0}, (step,), ("x",), ("y",))
    return fit(plan(graph, (Constants("layer", weights, 0),)), device)


@pytest.mark.parametrize("name", DEVICES)
def test_devices_are_whole(name: str) -> None:
    device = DEVICES[name]
    assert device.name == name
    assert device.source
    assert device.ram_bytes < device.flash_bytes
    assert bool(device.runs) == bool(device.runs_source)
    assert not (device.runs and device.like)
    if device.like:
        assert DEVICES[device.like].core == device.core
        assert device.energy_pj_per_mac is None


def test_estimates_contain_the_published_runs() -> None:
    """Every published latency and energy lies within the range of its own device."""
    for device in DEVICES.values():
        for run in device.runs:
            found = _fit(device.name, arena=1, macs=run.macs)
            assert found.latency_ms is not None
            low, high = found.latency_ms
            measured = 1e-3 * run.cycles / device.clock_mhz
            assert low <= measured * (1 + 1e-9)
            assert measured <= high * (1 + 1e-9)
            if run.energy_uj is not None:
                assert found.energy_uj is not None
                assert found.energy_uj[0] <= run.energy_uj * (1 + 1e-9)
                assert run.energy_uj <= found.energy_uj[1] * (1 + 1e-9)


@pytest.mark.parametrize(
    ("benchmark", "name", "options", "shape"),
    [
        ("image classification", "tiny-resnet8", {"classes": 10}, (3, 32, 32)),
        ("keyword spotting", "ds-cnn", {"classes": 12, "in_channels": 1}, (1, 49, 10)),
        (
            "visual wake words",
            "mobilenet-v1",
            {"classes": 2, "width": 0.25},
            (3, 96, 96),
        ),
        (
            "anomaly detection",
            "autoencoder",
            {"in_channels": 1, "image_size": (5, 128)},
            (1, 5, 128),
        ),
    ],
)
def test_macs_of_the_published_networks(
    benchmark: str, name: str, options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    """The multiply-accumulates that the runs are divided by, from the networks."""
    plan = arena(make_model(name, **options), torch.zeros(1, *shape))
    stored = {
        r.macs for d in DEVICES.values() for r in d.runs if r.network == benchmark
    }
    assert stored == {plan.macs}


def test_published_cycles() -> None:
    """The reference of MLPerf Tiny v0.5: 1.420 images a second at 120 MHz."""
    run = DEVICES["nucleo-l4r5zi"].runs[0]
    assert run.network == "image classification"
    assert run.cycles == pytest.approx(120e6 / 1.420)
    ends = DEVICES["nucleo-l4r5zi"].cycles_per_mac
    assert ends is not None
    assert 1.5 < ends[0] < ends[1] < 12


def test_memory_that_suffices_and_that_does_not() -> None:
    device = DEVICES["nucleo-l4r5zi"]
    exact = _fit(device.name, arena=device.ram_bytes, weights=device.flash_bytes)
    assert exact.fits
    assert (exact.flash_left_bytes, exact.ram_left_bytes) == (0, 0)
    over = _fit(device.name, arena=device.ram_bytes + 1)
    assert not over.fits
    assert "does not fit" in over.text()
    assert "1 bytes of RAM too few" in over.text()
    assert over.row()["fits"] == "no"


def test_estimates_say_what_they_stand_on() -> None:
    own = _fit("nrf5340-dk", arena=1, macs=10**6)
    assert "ms (estimate: range over 4 published runs (MLPerf Tiny" in own.text()
    assert own.row()["energy uJ (estimate)"] == "not published"
    like = _fit("nano-33-ble", arena=1, macs=10**6)
    assert "nucleo-l4r5zi, which has the same core (Cortex-M4)" in like.text()
    none = _fit("pico", arena=1, macs=10**6)
    assert none.latency_ms is None
    assert "no run on this core is published" in none.text()


def test_estimates_grow_with_work_and_fall_with_the_clock() -> None:
    once, twice = (_fit("nrf5340-dk", arena=1, macs=n) for n in (10**6, 2 * 10**6))
    assert once.latency_ms is not None
    assert twice.latency_ms == pytest.approx([2 * end for end in once.latency_ms])
    slow = Device(
        name="slow", chip="x", core="x", clock_mhz=64, flash_bytes=9, ram_bytes=9,
        source="x", runs=DEVICES["nrf5340-dk"].runs, runs_source="x",
    )  # fmt: skip
    graph = Graph(
        {"x": 1, "y": 0}, (Operation("l", "x", ("x",), ("y",), macs=10**6),), ("x",), ()
    )
    assert fit(plan(graph), slow).latency_ms == pytest.approx(twice.latency_ms)


def test_unknown_device() -> None:
    with pytest.raises(
        ValueError, match=r"unknown device 'piko' \(did you mean 'pico'"
    ):
        find_device("piko")
