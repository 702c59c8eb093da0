"""Faults while training: each recipe and each memory policy, site by site, over seeds.

    OMP_NUM_THREADS=1 python benchmarks/struck_training.py out.json

A training of the workload is struck in five steps, by ten flips each, and compared with the
same training without: recovered (and after how many steps), not finite, silent (finite, and
the loss never came back), detected (an error ended it, such as that of a checksum or of
bytes that cannot be unpacked).
"""

import argparse
import json
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from elision.engines.bench import machine
from elision.faults import Fault
from elision.faults.intervals import wilson
from elision.study.faults import StruckTraining, struck_training
from elision.workloads import find_workload

RECIPES = ("dense", "swat:sparsity=0.8", "rigl:sparsity=0.8", "bcgd", "fp8", "twn")
SITES = ("weight", "activation", "gradient", "weight-gradient", "optimizer")
POLICIES = ("bits(4)", "bits(2)", "jpeg", "sfpr", "checked(bits(4))")


def ended(done: StruckTraining) -> str:
    if done.refused is not None:
        return "detected"
    if done.recovery.diverged_at is not None:
        return "not finite"
    return "silent" if done.recovery.steps is None else "recovered"


def row(name: str, site: str, ends: list[str], steps: list[int]) -> dict[str, Any]:
    count, number = Counter(ends), len(ends)
    found: dict[str, Any] = {"training": name, "struck": site, "trials": number}
    for end in ("recovered", "silent", "not finite", "detected"):
        limits = wilson(count[end], number, 0.95)
        found[end] = {"count": count[end], "low": limits.low, "high": limits.high}
    found["median steps to recovery"] = statistics.median(steps) if steps else None
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workload", default="digits-cnn")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", choices=("recipes", "policies"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    chosen = find_workload(given.workload)
    dataset = chosen.load_dataset(None)
    cases: list[tuple[str, str | None, tuple[str, ...]]] = [
        (recipe, None, SITES) for recipe in RECIPES
    ]
    if given.only == "policies":
        cases = []
    if given.only != "recipes":
        cases += [("dense", policy, ("saved",)) for policy in POLICIES]
    rows = []
    for recipe, policy, sites in cases:
        faults = {s: Fault(site=s, number=10, lifetime="transient") for s in sites}
        ends: dict[str, list[str]] = {s: [] for s in sites}
        steps: dict[str, list[int]] = {s: [] for s in sites}
        for seed in range(given.seeds):
            for done in struck_training(
                chosen,
                recipe,
                dataset,
                faults,
                first=20,
                steps=5,
                seed=seed,
                memory=policy,
            ):
                ends[done.site].append(ended(done))
                if done.recovery.steps is not None:
                    steps[done.site].append(done.recovery.steps)
        name = recipe if policy is None else f"{recipe}, {policy}"
        for site in sites:
            rows.append(row(name, site, ends[site], steps[site]))
            print(name, site, dict(Counter(ends[site])), flush=True)
        given.out.parent.mkdir(parents=True, exist_ok=True)
        found = {"machine": machine(), "workload": chosen.name, "rows": rows}
        given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
