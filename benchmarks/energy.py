"""What estimators say of one training on this machine: ours, CodeCarbon's and Zeus's.

    OMP_NUM_THREADS=1 python benchmarks/energy.py records/2026-11-30-energy/run.json

CodeCarbon and Zeus are watched beside ours where they are installed (``pip install
codecarbon zeus``); a peer that is not, or that refuses, is in the record in its own words.
Two blocks of equal length: training a small network on the CPU, and this process asleep.
What an estimator bills to the second is not ours. Each is asked for the intensity of
Germany, so that the grams differ by the energy alone; CodeCarbon needs no network for that.

Then the price of asking: processor seconds of the same training without and with each of
them, in turns.
"""

import argparse
import contextlib
import json
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from elision.common.files import without_nan, write_json
from elision.energy import Coefficients, found_meters, grid_named, measured
from elision.energy.meters.rapl import POWERCAP
from elision.engines.bench import machine
from elision.methods import Dense
from elision.training import RunPlan, train
from elision.workloads import find_workload

GRID = grid_named("germany", pue=1.0)  # CodeCarbon's own PUE is 1
SECONDS_BETWEEN_READINGS = 1.0


@contextmanager
def ours(found: dict[str, Any]) -> Iterator[None]:
    """Counters where there are any, else a range."""
    with measured() as reading:
        yield
    energy = reading.energy
    found |= {
        "energy": energy.to_dict(),
        "wh": list(energy.watt_hours),
        "co2e_g": list(GRID.grams(energy)),
        "text": GRID.text(energy),
    }


@contextmanager
def codecarbon(found: dict[str, Any]) -> Iterator[None]:
    """CodeCarbon's offline tracker, its files and its upload off."""
    from codecarbon import OfflineEmissionsTracker  # pyright: ignore[reportMissingImports]

    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("codecarbon")
    tracker = OfflineEmissionsTracker(
        country_iso_code="DEU",
        measure_power_secs=SECONDS_BETWEEN_READINGS,
        save_to_file=False,
        log_level="warning",
        allow_multiple_runs=True,
    )
    logger.addHandler(handler)
    tracker.start()
    try:
        yield
    finally:
        tracker.stop()
        logger.removeHandler(handler)
    data = tracker.final_emissions_data
    found |= {
        "wh": 1000 * data.energy_consumed,
        "wh_cpu": 1000 * data.cpu_energy,
        "wh_memory": 1000 * data.ram_energy,
        "watts_cpu": data.cpu_power,
        "watts_memory": data.ram_power,
        "co2e_g": 1000 * data.emissions,
        "cpu_model": data.cpu_model,
        "scope": data.tracking_mode,
        "seconds": data.duration,
        "said": said,
        "hardware": [str(part) for part in getattr(tracker, "_hardware", [])],
    }


@contextmanager
def zeus(found: dict[str, Any]) -> Iterator[None]:
    """Zeus's window around the block."""
    from zeus.monitor import ZeusMonitor  # pyright: ignore[reportMissingImports]

    monitor = ZeusMonitor()
    monitor.begin_window("block", sync_execution=False)
    yield
    window = monitor.end_window("block", sync_execution=False)
    found |= {
        "seconds": window.time,
        "joules_cpu": window.cpu_energy,
        "joules_memory": window.dram_energy,
        "joules_gpu": window.gpu_energy,
    }


PEERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "ours": ours,
    "codecarbon": codecarbon,
    "zeus": zeus,
}


def watched(names: list[str], block: Callable[[], object]) -> dict[str, dict[str, Any]]:
    """What each of them says of one block; an error in its own words."""
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    with ExitStack() as watching:
        for name in reversed(names):  # ours is the innermost
            try:
                watching.enter_context(PEERS[name](found[name]))
            except Exception as error:
                found[name] = {"refused": f"{type(error).__name__}: {error}"}
        block()
    return found


def training(epochs: int) -> Callable[[], object]:
    """A whole training, by torch's kernels."""
    workload = replace(find_workload("digits-cnn"), epochs=epochs)
    dataset = workload.load_dataset()
    return lambda: train(workload, Dense(), dataset, RunPlan())


def price_of_asking(rounds: int, block: Callable[[], object]) -> dict[str, Any]:
    """Processor seconds of the block bare and watched by each, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ("bare", *PEERS)}
    for _ in range(rounds):
        for name, times in seconds.items():
            began = time.process_time()
            watched([] if name == "bare" else [name], block)
            times.append(time.process_time() - began)
    return {
        "cpu_seconds": seconds,
        "median_over_bare": {
            name: statistics.median(
                t / b for t, b in zip(times, seconds["bare"], strict=True)
            )
            for name, times in seconds.items()
        },
    }


def versions() -> dict[str, str]:
    """Versions of the peers that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("codecarbon", "zeus", "nvidia-ml-py"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    block = training(given.epochs)
    record: dict[str, Any] = {
        "machine": machine(),
        "versions": versions(),
        "powercap": POWERCAP.is_dir(),
        "counters": [meter.method for meter in found_meters()],
        "coefficients": vars(Coefficients()),
        "grid": GRID.to_dict(),
        "epochs": given.epochs,
    }
    began, cpu = time.perf_counter(), time.process_time()
    record["training"] = watched(list(PEERS), block)
    record["with_peers_begun_and_ended_seconds"] = {
        "wall": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
    }
    wall = record["training"]["ours"]["energy"]["wall_seconds"]
    record["asleep"] = watched(list(PEERS), lambda: time.sleep(wall))
    record["asking"] = price_of_asking(
        given.rounds, training(max(1, given.epochs // 6))
    )
    record["load_after"] = machine()["load"]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(given.out, without_nan(json.loads(json.dumps(record, default=str))))
    for block_name in ("training", "asleep"):
        for name, said in record[block_name].items():
            print(block_name, name, json.dumps(said, default=str))
    print(record["asking"]["median_over_bare"])


if __name__ == "__main__":
    main()
