"""Energy of a training step by product, from counted operations and bytes."""

from dataclasses import dataclass
from typing import Any

from elision.accelerators.energy import DRAM, energy_table
from elision.common.checks import integer
from elision.energy import (
    OperationEnergy,
    operation_energy,
    table_uncertainty,
    total_operations,
)
from elision.layers.observation import Observation
from elision.layers.watch import watch
from elision.products import Product
from elision.study.probes.base import Probe, Trained

__all__ = ["StepEnergy"]


#: Fields of a finding's row that are counts.
_COUNTS = tuple(OperationEnergy.__dataclass_fields__)


@dataclass(frozen=True)
class StepEnergy(Probe):
    """Multiply-accumulates and bytes of a step, layer by layer, priced by a table.

    A model of the three products alone (:mod:`elision.energy.operations`): dense in
    float32, and as the recipe left them in the last weights' next step. What the run cost
    on this machine is accounted for without a probe.

    Attributes:
        table: name of an energy table of the accelerators, or path of a TOML file.
        steps: training steps that are counted; the figures are of a step.

    Raises:
        ValueError: an unknown table, one without a price for the DRAM, or no step.

    Example:
        >>> StepEnergy(steps=0)
        Traceback (most recent call last):
        ValueError: energy(steps=0): must be an integer >= 1
    """

    table: str = "horowitz-45nm"
    steps: int = 1

    def __post_init__(self) -> None:
        integer("energy", "steps", self.steps)
        energy_table(self.table).prices(
            {"multiply": "multiply", "add": "add"}, {"memory": DRAM}
        )

    def headline(self, found: dict[str, Any]) -> str:
        """Energy of a step over that of a dense one."""
        rows = found["layers"]
        counts = [OperationEnergy(*(row[n] for n in _COUNTS)) for row in rows]
        return f"{total_operations(counts).ratio:.2f}x the energy"

    def run(self, trained: Trained) -> dict[str, Any]:
        """Count the steps that would have come next."""
        workload, model = trained.workload, trained.model
        table = energy_table(self.table)
        rows: dict[tuple[str, Product], OperationEnergy] = {}

        def count(seen: Observation) -> None:
            key = seen.product.name, seen.product.kind
            more = operation_energy(seen.product, seen.work, table=table)
            rows[key] = rows[key] + more if key in rows else more

        following = workload.train_batches(
            trained.dataset, seed=trained.seed, epoch=workload.epochs
        )
        examples = 0
        for _, batch in zip(range(self.steps), following, strict=False):
            with watch(model, count):
                workload.task.loss(model, batch).backward()
            model.zero_grad()
            examples += workload.task.size(batch)
        return {
            "table": table.name,
            "node_nm": table.node_nm,
            "factor": table_uncertainty(),
            "batch": examples / self.steps,
            "layers": [
                {
                    "layer": layer,
                    "product": product.value,
                    **{k: v / self.steps for k, v in found.to_dict().items()},
                }
                for (layer, product), found in rows.items()
            ],
        }
