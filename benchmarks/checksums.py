"""What checksums cost, and what it costs to name a gradient that is not finite.

    OMP_NUM_THREADS=1 torchrun --nproc_per_node=2 benchmarks/checksums.py \
        records/2026-11-30-checksums/run.json

Two ranks of one machine over gloo, backward passes of layers that together have about 25 MB
of gradients, in DDP's own buckets. ``none`` is DDP without a hook; every other candidate a
compressor, without and with ``checksum=true``. Candidates take turns, each round begins with
another; ratios are of one round. Medians and quartiles of wall-clock seconds on rank 0.
"""

import argparse
import json
import statistics
import time
import zlib
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn

from elision.engines.bench import machine
from elision.training.parallel import compress_hook

SIDE, LAYERS = 1024, 6
SPECS = ("fp32", "bf16", "int8", "top-k:share=0.01")


def layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(SIDE, SIDE) for _ in range(LAYERS)))


def backward(spec: str | None) -> Callable[[], None]:
    model = nn.parallel.DistributedDataParallel(layers(), gradient_as_bucket_view=True)
    if spec is not None:
        compress_hook(model, spec)
    x = torch.randn(8, SIDE)

    def call() -> None:
        model.zero_grad()
        model(x).square().sum().backward()

    return call


def quartiles(values: list[float], what: str) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return {what: middle, "low": low, "high": high}


def timed(rounds: int) -> dict[str, list[float]]:
    """Seconds of every candidate in every round."""
    both = [(s, f"{s}{',' if ':' in s else ':'}checksum=true") for s in SPECS]
    calls = {"none": backward(None)} | {s: backward(s) for s in chain(*both)}
    for call in calls.values():
        call()
        call()  # DDP makes its buckets anew after the first
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            distributed.barrier()
            began = time.perf_counter()
            calls[name]()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def crc_gigabytes_per_second(rounds: int) -> list[float]:
    data = torch.randn(SIDE * SIDE * LAYERS).numpy().data
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        zlib.crc32(data)
        found.append(data.nbytes / (time.perf_counter() - began) / 1e9)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=18)
    given = parser.parse_args()
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    before = machine()
    seconds = timed(given.rounds)
    rates = crc_gigabytes_per_second(given.rounds)
    if distributed.get_rank() == 0:

        def ratio(name: str, base: str) -> dict[str, float]:
            pairs = zip(seconds[name], seconds[base], strict=True)
            return quartiles([a / b for a, b in pairs], "ratio")

        rows: list[dict[str, Any]] = [
            {"candidate": name, **quartiles(found, "seconds")}
            for name, found in seconds.items()
        ]
        checked = {
            s: next(n for n in seconds if n.startswith(s) and n != s) for s in SPECS
        }
        record = {
            "machine": before,
            "ranks": distributed.get_world_size(),
            "values": LAYERS * (SIDE + 1) * SIDE,
            "rounds": given.rounds,
            "candidates": rows,
            "checked_over_unchecked": {s: ratio(checked[s], s) for s in SPECS},
            "fp32_over_no_hook": ratio("fp32", "none"),
            "crc32_gigabytes_per_second": quartiles(rates, "rate"),
            "load_after": machine()["load"],
        }
        given.file.parent.mkdir(parents=True, exist_ok=True)
        given.file.write_text(json.dumps(record, indent=1) + "\n")
        print(json.dumps(record, indent=1))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
