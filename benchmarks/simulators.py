"""Speed of the simulators: dense multiply-accumulates covered per CPU-second.

Three tasks, 90 % of every operand zero at random positions, all three products (and the
forward product alone for the planar mapping of the first):

* one training step of ResNet-18 at 224x224, batch 1, its 20 convolutions;
* one of a transformer block of width 768 (ViT-B) on 1,024 tokens: five linear layers, and
  the two products of attention in 12 heads for 5 sequences of 197 tokens;
* one of an LSTM step of 1,024 units on 64 sequences: the products of input and state.

Every configuration runs several times on operands that no earlier run has counted;
compilation is excluded by a warm-up and reported apart.

    python benchmarks/simulators.py [--runs 5] [--out FOLDER]
"""

import argparse
import json
import os
import resource
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from elision.accelerators import Accelerator, Ant, Intersection, OneSided, Scnn
from elision.common.files import write_json
from elision.common.timing import elapsed
from elision.engines.bench import machine
from elision.products import (
    Conv2dGeometry,
    Geometry,
    LayerProduct,
    MatmulGeometry,
    Product,
    synthetic_products,
)
from elision.workloads.models import make_model
from elision.workloads.shapes.of_model import layer_shapes

Configurations = dict[str, tuple[tuple[Accelerator, ...], bool]]

CONVOLUTIONS: Configurations = {
    # machines, and whether the forward product alone is run
    "ant + scnn plane-pair, closed form": ((Ant(), Scnn()), False),
    "ant, exact scan": ((Ant(method="scan"),), False),
    "scnn planar, serialised, forward": ((Scnn(mapping="planar"),), True),
    "scnn planar, ideal, forward": (
        (Scnn(mapping="planar", conflicts="ideal"),),
        True,
    ),
    "scnn planar, serialised": ((Scnn(mapping="planar"),), False),
    "one-sided": ((OneSided(),), False),
    "intersection": ((Intersection(),), False),
}

TILE = 32
MATMULS: Configurations = {
    "ant + scnn by index": ((Ant(), Scnn()), False),
    "scnn in tiles": ((Scnn(matmul_tile=TILE),), False),
    "ant in tiles, closed form": ((Ant(matmul_tile=TILE),), False),
    "ant in tiles, exact scan": ((Ant(matmul_tile=TILE, method="scan"),), False),
    "scnn planar, serialised": ((Scnn(mapping="planar"),), False),
    "one-sided": ((OneSided(),), False),
    "intersection": ((Intersection(),), False),
}

WIDTH, HEADS, TOKENS = 768, 12, 197
BLOCK: list[tuple[str, Geometry]] = [
    ("qkv", MatmulGeometry(1024, WIDTH, 3 * WIDTH)),
    ("scores", MatmulGeometry(TOKENS, WIDTH // HEADS, TOKENS, batch=5 * HEADS)),
    ("values", MatmulGeometry(TOKENS, TOKENS, WIDTH // HEADS, batch=5 * HEADS)),
    ("out", MatmulGeometry(1024, WIDTH, WIDTH)),
    ("fc1", MatmulGeometry(1024, WIDTH, 4 * WIDTH)),
    ("fc2", MatmulGeometry(1024, 4 * WIDTH, WIDTH)),
]
LSTM: list[tuple[str, Geometry]] = [
    ("input", MatmulGeometry(64, 1024, 4096)),
    ("state", MatmulGeometry(64, 1024, 4096)),
]


def resnet18() -> list[tuple[str, Geometry]]:
    model = make_model("resnet18-imagenet", in_channels=3, classes=1000, image_size=224)
    layers = layer_shapes(model, (1, 3, 224, 224))
    return [pair for pair in layers if isinstance(pair[1], Conv2dGeometry)]


TASKS: dict[str, tuple[Callable[[], list[tuple[str, Geometry]]], Configurations]] = {
    "ResNet-18, 224x224, batch 1, 20 convolutions": (resnet18, CONVOLUTIONS),
    "transformer block, width 768, 1,024 tokens": (lambda: BLOCK, MATMULS),
    "LSTM step, 1,024 units, 64 sequences": (lambda: LSTM, MATMULS),
}


def fresh(products: Iterable[LayerProduct]) -> list[LayerProduct]:
    """The same products without the masks and counts that an earlier run cached."""
    return [
        LayerProduct(p.kind, p.geometry, p.first, p.second, p.name) for p in products
    ]


def cpu_seconds(work: Callable[[], object]) -> float:
    return elapsed(work).process


def measure(
    machines: tuple[Accelerator, ...],
    forward_only: bool,
    products: list[LayerProduct],
    runs: int,
) -> dict[str, Any]:
    chosen = [p for p in products if not forward_only or p.kind is Product.FORWARD]

    def run(these: list[LayerProduct]) -> list[int]:
        return [sum(m.cost(p).cycles for p in these) for m in machines]

    first_call = cpu_seconds(lambda: run(fresh(chosen[-3:])))
    seconds, cycles = [], []
    for _ in range(runs):
        these = fresh(chosen)
        seconds.append(cpu_seconds(lambda these=these: cycles.append(run(these))))
    macs = sum(p.dense_macs for p in chosen)
    return {
        "dense_macs": macs,
        "cycles": cycles[0],
        "cpu_seconds_median": statistics.median(seconds),
        "cpu_seconds_min": min(seconds),
        "cpu_seconds_max": max(seconds),
        "macs_per_cpu_second": macs / statistics.median(seconds),
        "first_call_cpu_seconds": first_call,
    }


def scan_gap(products: list[LayerProduct]) -> dict[str, float]:
    """Cycles of the exact scan over the closed form's, by product and in all."""
    busy = {
        method: {
            kind: sum(
                Ant(method=method).cost(p).details["busy_cycles"]
                for p in products
                if p.kind is kind
            )
            for kind in Product
        }
        for method in ("closed", "scan")
    }
    gap = {k.value: busy["scan"][k] / busy["closed"][k] for k in Product}
    totals = {method: sum(cycles.values()) for method, cycles in busy.items()}
    return gap | {"all": totals["scan"] / totals["closed"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, help="folder for simulators.json")
    arguments = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    for task, (layers, configurations) in TASKS.items():
        products = list(synthetic_products(layers(), 0.9))
        results[task] = {}
        print(task)
        for name, (machines, forward_only) in configurations.items():
            row = measure(machines, forward_only, products, arguments.runs)
            results[task][name] = row
            print(
                f"  {name:36s} {row['cpu_seconds_median']:8.3f} CPU-s "
                f"({row['cpu_seconds_min']:.3f} to {row['cpu_seconds_max']:.3f})  "
                f"{row['macs_per_cpu_second'] / 1e9:8.2f} G MAC/CPU-s"
            )
        if configurations is CONVOLUTIONS:
            gap = scan_gap(products)
            print("  cycles of the exact scan / closed form:", json.dumps(gap))
            results[task]["scan_over_closed_cycles"] = gap
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of the process: {peak_mib:.0f} MiB")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        record = {
            "runs": arguments.runs,
            "results": results,
            "peak_mib": peak_mib,
            "machine": machine(),
            "load_average": os.getloadavg(),
        }
        write_json(arguments.out / "simulators.json", record)


if __name__ == "__main__":
    main()
