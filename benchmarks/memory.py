"""Saved-activation policies on one model: bytes, measured peak, time, gradient error.

    python benchmarks/memory.py --model resnet18 --batch 32 --out resnet18.json
    python benchmarks/memory.py --model resnet50-imagenet --size 224 --peaks-only
    python benchmarks/memory.py --train digits-cnn --policies "bits(4)"

Times are ratios to plain autograd in the same round of the same run. Weights are
random; the images are crops of photographs.
"""

import argparse
import os
import platform
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F

from elision.files import write_json
from elision.reproduce.memory import (
    POLICIES,
    measure_peaks,
    measure_policies,
    train_policies,
)
from elision.workloads import find_workload
from elision.workloads.models import make_model

MIB = 2**20


def photographs(batch, size):
    """Crops of two public-domain photographs, standardised."""
    from skimage import data

    generator = torch.Generator().manual_seed(0)
    crops = []
    for index in range(batch):
        photo = torch.from_numpy(getattr(data, ("astronaut", "coffee")[index % 2])())
        photo = photo.permute(2, 0, 1).float()[None] / 255
        edge = min(photo.shape[2:]) // 2
        top, left = (
            int(torch.randint(n - edge, (), generator=generator))
            for n in photo.shape[2:]
        )
        crop = photo[..., top : top + edge, left : left + edge]
        crops.append(F.interpolate(crop, (size, size), mode="area")[0])
    x = torch.stack(crops)
    return (x - x.mean()) / x.std()


def machine():
    """What ran it."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":")[1].strip() for line in file if "model name" in line]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "accelerator": torch.accelerator.is_available(),
        "load": os.getloadavg()[0],
    }


def show(name, row):
    """One line of the table."""
    measured = row.held_bytes / MIB
    ledger = (row.stored_bytes - row.batch_bytes) / MIB
    print(
        f"{name:>18} {row.policy:<16} tensors {row.tensor_ratio:6.2f}x  peak "
        f"{row.peak_ratio:5.2f}x ({row.plain_peak_bytes / MIB:.0f} -> "
        f"{row.peak_bytes / MIB:.0f} MiB)  held {measured:.1f} (ledger {ledger:.1f})  "
        f"time {row.time_ratio:.2f}x [{min(row.time_ratios):.2f}, "
        f"{max(row.time_ratios):.2f}], processor {row.processor_time_ratio:.2f}x  "
        f"gradient error median {row.median_error:.4f} largest {row.largest_error:.4f}",
        flush=True,
    )


def measure(given):
    """The table of one model."""
    torch.manual_seed(0)
    model = make_model(given.model, classes=given.classes, image_size=given.size)
    x = photographs(given.batch, given.size)
    y = torch.arange(given.batch) % given.classes
    if given.peaks_only:
        peaks = measure_peaks(model, x, y, given.policies)
        for policy, peak in peaks.items():
            ratio = peaks["plain"] / peak
            print(f"{given.model} {policy:<16} peak {peak / MIB:.0f} MiB {ratio:.2f}x")
        return {"peak_bytes": peaks}
    rows = []
    for row in measure_policies(model, x, y, given.policies, given.rounds):
        show(given.model, row)
        rows.append(asdict(row))
    return {"rows": rows}


def train(given):
    """Accuracies of short trainings."""
    workload = find_workload(given.train)
    rows = []
    seeds = range(given.seeds)
    for row in train_policies(
        workload, workload.load_dataset(), given.policies, tuple(seeds)
    ):
        mean = sum(row.accuracies) / len(row.accuracies)
        each = ", ".join(f"{100 * a:.2f}" for a in row.accuracies)
        print(f"{given.train} {row.policy:<16} {100 * mean:.2f} % ({each})", flush=True)
        rows.append(asdict(row))
    return {"trainings": rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peaks-only", action="store_true")
    parser.add_argument("--train", metavar="WORKLOAD")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--policies", nargs="*", default=POLICIES)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = train(given) if given.train else measure(given)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        settings = {k: str(v) for k, v in vars(given).items() if k != "out"}
        write_json(given.out, {"machine": machine(), "settings": settings, **found})


if __name__ == "__main__":
    main()
