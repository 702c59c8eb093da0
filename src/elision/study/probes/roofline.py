"""Every product of a trained recipe under the roofline of this machine."""

from dataclasses import dataclass
from statistics import median
from typing import Any

from elision.common.checks import integer
from elision.common.timing import interleaved, quoted_clock, with_threads
from elision.engines.roofline import measured_ceilings, roof_of
from elision.layers import record
from elision.products import LayerProduct
from elision.study.probes.base import Probe, Trained

__all__ = ["Roofline"]


@dataclass(frozen=True)
class Roofline(Probe):
    """Dense rate of every product, and what bounds it: compute, bandwidth or latency.

    The products are those of one training step; torch computes each densely. Layers of
    one shape are measured once.

    Attributes:
        rounds: timed calls of each product.
        threads: of torch; 0 to leave its setting as it is.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> Roofline(rounds=0)
        Traceback (most recent call last):
        ValueError: roofline(rounds=0): must be an integer >= 1
    """

    rounds: int = 5
    threads: int = 0

    def __post_init__(self) -> None:
        integer("roofline", "rounds", self.rounds)
        integer("roofline", "threads", self.threads, ">= 0")

    def headline(self, found: dict[str, Any]) -> str:
        """Median share of what this machine could attain."""
        shares = [p["gflops"] / p["attainable_gflops"] for p in found["products"]]
        return f"{100 * median(shares):.0f} % of the roof"

    def run(self, trained: Trained) -> dict[str, Any]:
        """The machine's ceilings, and a row a shape and product."""
        with with_threads(self.threads):
            return self._run(trained)

    def _run(self, trained: Trained) -> dict[str, Any]:
        ceilings = measured_ceilings()
        workload = trained.workload
        batches = workload.train_batches(trained.dataset, seed=trained.seed, epoch=0)
        with record(trained.model) as trace:
            workload.task.loss(trained.model, next(iter(batches))).backward()
        shapes: dict[str, list[LayerProduct]] = {}
        for product in trace:
            key = f"{product.geometry}, {product.kind.value}"
            shapes.setdefault(key, []).append(product)
        calls = {key: same[0].compute for key, same in shapes.items()}
        seconds = interleaved(calls, self.rounds)
        rows = []
        for key, same in shapes.items():
            one, time = same[0], median(seconds[key])
            roof = roof_of(one.geometry, ceilings)
            gflops = 2 * one.dense_macs / time / 1e9
            rows.append(
                {
                    "layers": [product.name for product in same],
                    "shape": one.geometry.description,
                    "product": one.kind.value,
                    "intensity": roof.intensity,
                    "bound": roof.bound,
                    "attainable_gflops": roof.attainable_gflops,
                    "gflops": gflops,
                    "seconds": time,
                }
            )
        return {
            "ceilings": ceilings.to_dict(),
            "clock": "wall" if quoted_clock() == "wall" else "CPU",
            "products": rows,
        }
