"""Exports of trained networks: accuracy and bytes of each stage, agreement of the files.

    OMP_NUM_THREADS=1 python benchmarks/export.py records/2026-11-30-export/run.json

Trains networks on data that ships, exports each to every target that is installed, after
training and in a further training, with weights of 8 and of 3 bits, and runs the files on
1,000 images beside the network. Processor seconds, not those of the clock, are kept.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from elision.engines.bench import machine
from elision.export import TARGETS, exported
from elision.study.trained import trained_for
from elision.workloads import Workload, find_workload

#: Workload, changes and recipe of each network.
NETWORKS: dict[str, tuple[str, dict[str, Any], str]] = {
    "digits-cnn": ("digits-cnn", {}, "dense"),
    "photo-resnet8": ("photo-resnet8", {}, "dense"),
    "photo-resnet8, 80 % pruned": ("photo-resnet8", {}, "gradual:sparsity=0.8"),
    "photo-resnet8, RigL 80 %": ("photo-resnet8", {}, "rigl:sparsity=0.8"),
    "photo-resnet20": ("photo-resnet8", {"model": "resnet20", "epochs": 3}, "dense"),
    "photo-mobilenet-v2": (
        "photo-resnet8",
        {"model": "mobilenet-v2(width=0.5)", "epochs": 8},
        "dense",
    ),
}

#: Ways to quantise each network.
WAYS: tuple[dict[str, Any], ...] = (
    {"quantise": "post", "bits": 8},
    {"quantise": "aware", "bits": 8},
    {"quantise": "post", "bits": 3},
    {"quantise": "aware", "bits": 3},
)


def installed() -> dict[str, Any]:
    """Targets that can be written and run here."""
    found = {}
    for key, target in TARGETS.items():
        try:
            target.check()
        except (ModuleNotFoundError, FileNotFoundError) as error:
            print(error)
        else:
            found[key] = target
    return found


def network(name: str) -> dict[str, Any]:
    """A network's training and its exports."""
    base, changes, recipe = NETWORKS[name]
    workload: Workload = find_workload(base).changed(**changes)
    dataset: Any = workload.load_dataset()
    began = time.process_time()
    model = trained_for(workload, recipe, dataset)
    found: dict[str, Any] = {
        "workload": workload.to_dict(),
        "recipe": recipe,
        "training_cpu_seconds": time.process_time() - began,
        "ways": [],
    }
    # Quantising in training takes an epoch; small networks alone have it here.
    ways = WAYS if workload.model in ("cnn", "resnet8") else WAYS[:1]
    for way in ways:
        began = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            made = exported(model, workload, dataset, Path(folder), installed(), **way)
        row = {
            **way,
            "cpu_seconds": time.process_time() - began,
            "stages": made.rows(),
            "agreement": list(made.agreements),
        }
        found["ways"].append(row)
        print(name, way, [(s["stage"], s["accuracy %"]) for s in row["stages"]])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--network", nargs="+", choices=NETWORKS, default=list(NETWORKS)
    )
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"machine": machine(), "networks": {}}
    for name in chosen.network:
        found["networks"][name] = network(name)
        # Kept after each network, so that a run that is stopped has what it measured.
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
