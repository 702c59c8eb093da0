"""Seconds of planning: 200 layers, every schedule, 2 to 16 processors; 16 x 64 alone.

The first is one plan for each schedule and number of processors, two micro-batches per
processor, partitions included; the second is each schedule's arrangement of 64 micro-batches
on 16 processors. Where a schedule refuses a number (DualPipe an odd one), nothing is counted.

    python benchmarks/pipeline.py [--runs 5] [--out FILE]
"""

import argparse
import os
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from elision.common.files import write_json
from elision.common.timing import elapsed
from elision.engines.bench import machine
from elision.training.pipeline import SCHEDULES, LayerCost, plan


def chain(layers: int, seed: int) -> list[LayerCost]:
    drawn = np.random.default_rng(seed).uniform(0.5, 1.5, (layers, 3))
    return [LayerCost(float(f), float(i), float(w), unit="cycles") for f, i, w in drawn]


def all_plans(costs: list[LayerCost]) -> int:
    made = 0
    for processors in range(2, 17):
        for name in SCHEDULES:
            if name == "dualpipe" and processors % 2:
                continue
            plan(costs, processors, name, 2 * processors)
            made += 1
    return made


def spread(seconds: list[float]) -> dict[str, float]:
    return {
        "median_s": statistics.median(seconds),
        "least_s": min(seconds),
        "most_s": max(seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "load": os.getloadavg()[0]}
    all_plans(chain(200, seed=given.runs))  # warm
    # Another chain each time: partitions are remembered by their costs.
    chains = [chain(200, seed) for seed in range(given.runs)]
    times = [elapsed(lambda c=c: all_plans(c)) for c in chains]
    result["all_schedules"] = spread([t.thread for t in times])
    result["all_schedules_wall"] = spread([t.wall for t in times])
    result["sixteen_by_64"] = {}
    for name in SCHEDULES:
        calls = [elapsed(lambda c=c, name=name: plan(c, 16, name, 64)) for c in chains]
        result["sixteen_by_64"][name] = spread([t.thread for t in calls])
    for name in ("all_schedules", "all_schedules_wall"):
        print(name, {k: round(v, 3) for k, v in result[name].items()})
    for name, found in result["sixteen_by_64"].items():
        print(
            f"16 x 64 {name}: {found['median_s']:.3f} s, most {found['most_s']:.3f} s"
        )
    if given.out:
        write_json(given.out, result)


if __name__ == "__main__":
    main()
