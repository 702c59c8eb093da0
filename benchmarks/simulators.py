"""Speed of the simulators: dense multiply-accumulates covered per CPU-second.

The task is one training step of ResNet-18 at 224x224, batch 1, its 20 convolutions, all
three products, 90 % of every operand zero at random positions (and the forward product
alone for the planar mapping). Every configuration runs several times on operands that
no earlier run has counted; compilation is excluded by a warm-up and reported apart.

    python benchmarks/simulators.py [--runs 5] [--out FOLDER]
"""

import argparse
import json
import os
import platform
import resource
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

from elision.accelerators import Accelerator, Ant, Intersection, OneSided, Scnn
from elision.common.files import write_json
from elision.common.timing import elapsed
from elision.products import Conv2dGeometry, LayerProduct, Product, synthetic_products
from elision.workloads.models import make_model
from elision.workloads.shapes.of_model import layer_shapes

CONFIGURATIONS: dict[str, tuple[tuple[Accelerator, ...], bool]] = {
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


def resnet18_products() -> list[LayerProduct]:
    model = make_model("resnet18-imagenet", in_channels=3, classes=1000, image_size=224)
    layers = layer_shapes(model, (1, 3, 224, 224))
    convolutions = [pair for pair in layers if isinstance(pair[1], Conv2dGeometry)]
    return list(synthetic_products(convolutions, 0.9))


def fresh(products: Iterable[LayerProduct]) -> list[LayerProduct]:
    """The same products without the masks and counts that an earlier run cached."""
    return [
        LayerProduct(p.kind, p.geometry, p.first, p.second, p.name) for p in products
    ]


def cpu_seconds(work: Callable[[], object]) -> float:
    return elapsed(work).process


def measure(name: str, products: list[LayerProduct], runs: int) -> dict[str, float]:
    machines, forward_only = CONFIGURATIONS[name]
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
    products = resnet18_products()
    results = {}
    for name in CONFIGURATIONS:
        results[name] = measure(name, products, arguments.runs)
        row = results[name]
        print(
            f"{name:36s} {row['cpu_seconds_median']:8.3f} CPU-s "
            f"({row['cpu_seconds_min']:.3f} to {row['cpu_seconds_max']:.3f})  "
            f"{row['macs_per_cpu_second'] / 1e6:10.1f} M MAC/CPU-s"
        )
    gap = scan_gap(products)
    print("cycles of the exact scan / closed form:", json.dumps(gap, indent=1))
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of the process: {peak_mib:.0f} MiB")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        record = {
            "task": "ResNet-18, 224x224, batch 1, 20 convolutions, 90 % zeros",
            "runs": arguments.runs,
            "results": results,
            "scan_over_closed_cycles": gap,
            "peak_mib": peak_mib,
            "machine": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "load_average": os.getloadavg(),
            "python": platform.python_version(),
        }
        write_json(arguments.out / "simulators.json", record)


def _processor() -> str:
    """Name of the processor, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
