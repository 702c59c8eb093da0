"""elision simulate."""

from pathlib import Path
from typing import Any

from elision.commands.flags import Specs

__all__ = ["simulate"]


def simulate(
    *,
    trace: Path | None = None,
    model: str = "resnet18",
    input: int = 32,
    batch: int = 1,
    sparsity: float = 0.9,
    accelerator: Specs = ("dense", "scnn", "ant"),
    seed: int = 0,
) -> None:
    """Cost of a trace, or of a model with random sparse operands, on accelerators.

    Parameters
    ----------
    trace
        File that a recording wrote; without it, operands are random.
    model
        Network whose layers are taken when there is no trace.
    input
        Height and width of its images.
    batch
        Images.
    sparsity
        Fraction of zeros of every random operand.
    accelerator
        NAME or NAME:parameter=value,...
    seed
        Of the random operands.
    """
    from elision.accelerators import ACCELERATORS
    from elision.report.table import rows_as_text
    from elision.simulation import random_products, total
    from elision.simulation import simulate as run
    from elision.specs import build
    from elision.trace import Trace

    machines = {s: build("accelerator", s, ACCELERATORS) for s in accelerator}
    products: Any = (
        random_products(model, input, batch, sparsity, seed)
        if trace is None
        else Trace.load(trace)
    )
    rows = [
        {
            "machine": machine,
            "product": product,
            "cycles": f"{cost.cycles:,}",
            "products issued": f"{cost.multiplies:,}",
            "redundant": f"{cost.redundant_multiplies:,}",
            "multiplier use": f"{100 * cost.utilisation:.1f} %",
            "energy nJ": f"{cost.energy_pj / 1000:,.1f}",
        }
        for machine, costs in total(run(products, machines)).items()
        for product, cost in costs.items()
    ]
    print(rows_as_text(rows))
