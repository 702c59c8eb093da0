"""Zero-cost proxies against real trainings: rank correlations over architectures.

    python benchmarks/proxies.py --seed 0 1 --out proxies.json

The workload's network at every width, depth and kernel; each is scored untrained on one
batch of 64, and trained. Processor seconds are those of one thread. An interrupted run goes
on with what ``--out`` holds.
"""

import argparse
import json
import os
import time
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from elision.common.files import write_json
from elision.engines.bench import machine
from elision.methods import Dense
from elision.report.table import rows_as_text
from elision.study.search.architectures import Architecture, architectures
from elision.study.search.proxies import PROXIES, proxy_scores, rank_correlations
from elision.training.loop import RunPlan, train
from elision.workloads import Workload, find_workload


def measure(architecture: Architecture, seed: int) -> dict[str, Any]:
    """Scores of one untrained network, and its accuracy after training."""
    workload = architecture.workload
    dataset = workload.load_dataset()
    torch.manual_seed(seed)
    model = workload.make_model(dataset)
    images, labels = next(iter(workload.train_batches(dataset, seed=seed, epoch=0)))
    seconds, scores = {}, {}
    for name in PROXIES:
        start = time.process_time()
        scores |= proxy_scores(model, images, labels, (name,))
        seconds[name] = time.process_time() - start
    start = time.process_time()
    plan = RunPlan(seed=seed, meter_every=10**9)
    history = train(workload, Dense(), dataset, plan).history
    return {
        "architecture": architecture.label,
        "seed": seed,
        "parameters": architecture.parameters,
        "macs": architecture.macs,
        "scores": scores | {"macs": float(architecture.macs)},
        "proxy_seconds": seconds,
        "test_accuracy": [epoch.score for epoch in history],
        "training_seconds": time.process_time() - start,
        "load": os.getloadavg()[0],
    }


def correlations(runs: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rank correlations by seed, and of the means over the seeds."""
    found = {}
    seeds = sorted({run["seed"] for run in runs})
    groups = {f"seed {s}": [run for run in runs if run["seed"] == s] for s in seeds}
    for label, group in groups.items():
        if len(group) >= 3:
            found[label] = rank_correlations(
                {n: [run["scores"][n] for run in group] for n in group[0]["scores"]},
                [run["test_accuracy"][-1] for run in group],
            )
    labels = list(dict.fromkeys(run["architecture"] for run in runs))
    whole = {x: [run for run in runs if run["architecture"] == x] for x in labels}
    whole = {x: group for x, group in whole.items() if len(group) == len(seeds)}
    if len(seeds) > 1 and len(whole) >= 3:
        found["mean of seeds"] = rank_correlations(
            {
                name: [mean(run["scores"][name] for run in g) for g in whole.values()]
                for name in runs[0]["scores"]
            },
            [mean(run["test_accuracy"][-1] for run in g) for g in whole.values()],
        )
    return found


def record_of(workload: Workload, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What is written down."""
    return {
        "schema": 1,
        "machine": machine(),
        "workload": workload.to_dict(),
        "runs": runs,
        "correlations": correlations(runs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--workload", default="photo-mobilenet-v1")
    parser.add_argument("--width", nargs="+", type=float, default=[0.5, 0.75, 1, 1.5])
    parser.add_argument("--depth", nargs="+", type=float, default=[0.5, 1])
    parser.add_argument("--kernel", nargs="+", type=int, default=[3, 5])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--train-images", type=int, help="default: the workload's")
    parser.add_argument("--test-images", type=int, help="default: the workload's")
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    workload = find_workload(arguments.workload).changed(
        epochs=arguments.epochs,
        train_images=arguments.train_images,
        test_images=arguments.test_images,
    )
    found = architectures(
        workload,
        width=arguments.width,
        depth=arguments.depth,
        kernel=arguments.kernel,
    )
    runs: list[dict[str, Any]] = []
    if arguments.out is not None and arguments.out.is_file():
        runs = json.loads(arguments.out.read_text(encoding="utf-8"))["runs"]
    done = {(run["architecture"], run["seed"]) for run in runs}
    for seed in arguments.seed:
        for architecture in found:
            if (architecture.label, seed) in done:
                continue
            run = measure(architecture, seed)
            runs.append(run)
            curve = " ".join(f"{a:.3f}" for a in run["test_accuracy"])
            print(
                f"{seed} {architecture.label:40} {run['parameters']:9,} {curve}",
                flush=True,
            )
            if arguments.out is not None:
                write_json(arguments.out, record_of(workload, runs))
    if arguments.out is not None:
        write_json(arguments.out, record_of(workload, runs))
    for label, rows in correlations(runs).items():
        print(label)
        print(rows_as_text(rows))


if __name__ == "__main__":
    main()
