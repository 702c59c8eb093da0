"""Speed of spatial arrays: maps enumerated and simulated, costs by closed form.

Three tasks, each several times, in seconds of one processor:

* the 393 maps of a matrix product onto a plane: enumerated, and each simulated value by
  value on a ragged box;
* an output-stationary product of 64 x 256 by 256 x 64: register planes, against the
  register-by-register simulation of systolic arrays, and a small one against the walk that
  is the oracle of both; one ratio a run;
* the cost of the products of 30 convolutions of different shapes, each for the first time
  and again.

    python benchmarks/spatial.py [--runs 5] [--out FOLDER]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from elision.accelerators.spatial import LoopNest, SpaceTimeMap, SpatialArray, mappings
from elision.accelerators.spatial.simulate import simulate, walk
from elision.accelerators.systolic.pe_array import output_stationary
from elision.common.files import write_json
from elision.engines.bench import machine
from elision.products import Conv2dGeometry, LayerProduct, Product


def seconds(action: Callable[[], Any]) -> float:
    """Seconds of the processor."""
    begin = time.process_time()
    action()
    return time.process_time() - begin


def spread(values: list[float]) -> dict[str, float]:
    """Median, and the least and the most."""
    return {
        "median": statistics.median(values),
        "least": min(values),
        "most": max(values),
    }


def maps(runs: int) -> dict[str, Any]:
    nest = LoopNest.matmul(3, 4, 2)
    rng = np.random.default_rng(0)
    operands = {t: rng.integers(-9, 10, nest.tensor_shape(t)) for t in nest.inputs}
    every = list(mappings(nest))
    listed = [seconds(lambda: list(mappings(nest))) for _ in range(runs)]
    run = [
        seconds(lambda: [simulate(nest, map, operands) for map in every])
        for _ in range(runs)
    ]
    return {
        "maps": len(every),
        "enumerated_s": spread(listed),
        "simulated_s": spread(run),
    }


def simulations(runs: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    nest = LoopNest.matmul(64, 64, 256)
    map = SpaceTimeMap.keeping(nest, "C")
    a, b = rng.integers(-9, 10, (64, 256)), rng.integers(-9, 10, (256, 64))
    small = LoopNest.matmul(8, 8, 32)
    part = {"A": a[:8, :32].copy(), "B": b[:32, :8].copy()}
    planes, over_registers, over_walk = [], [], []
    for _ in range(runs):
        own = seconds(lambda: simulate(nest, map, {"A": a, "B": b}))
        registers = seconds(lambda: output_stationary(a, b, 64, 64))
        planes.append(nest.iterations / own / 1e6)
        over_registers.append(registers / own)
        slow = seconds(lambda: walk(small, SpaceTimeMap.keeping(small, "C"), part))
        fast = seconds(lambda: simulate(small, SpaceTimeMap.keeping(small, "C"), part))
        over_walk.append(slow / fast)
    return {
        "planes_mmac_per_s": spread(planes),
        "registers_over_planes": spread(over_registers),
        "walk_over_planes": spread(over_walk),
    }


def costs(runs: int) -> dict[str, Any]:
    found = {}
    for form in ("lowered", "direct"):
        first, again = [], []
        for run in range(runs):
            products = [
                LayerProduct(
                    kind,
                    Conv2dGeometry(1 + run, 16 + n, 20 + n, 30 + n, 24 + n, 3, 1, 1),
                )
                for n in range(30)
                for kind in Product
            ]
            array = SpatialArray(form=form, keep="output")
            for kept in (first, again):
                taken = seconds(
                    lambda a=array, p=products: [a.cost(each) for each in p]
                )
                kept.append(1e3 * taken / len(products))
        found[form] = {"first_ms": spread(first), "again_ms": spread(again)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    found = {
        "machine": machine(),
        "runs": chosen.runs,
        "time": "seconds of one processor",
        "maps": maps(chosen.runs),
        "simulations": simulations(chosen.runs),
        "costs": costs(chosen.runs),
    }
    for name in ("maps", "simulations", "costs"):
        print(name, found[name])
    if chosen.out is not None:
        chosen.out.mkdir(parents=True, exist_ok=True)
        write_json(chosen.out / "spatial.json", found)


if __name__ == "__main__":
    main()
