"""Interleave the gradients or skip their zeros: the same sparse products on both kinds.

A systolic array multiplies every zero; its saving by interleaving does not depend on the
values. An outer-product machine skips zeros and pays with redundant products, index
logic and scattered accumulation. Neither is better everywhere, so this puts them side by
side at equal multiplier count, with one combination beside them: interleaving with PEs that
do not switch on a zero, which saves energy and no cycle.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from elision.accelerators.base import Accelerator, Cost
from elision.accelerators.outer.ant import Ant
from elision.accelerators.outer.scnn import Scnn
from elision.accelerators.step import products_cost
from elision.accelerators.systolic.intergrad import InterGrad
from elision.accelerators.systolic.mixed import SystolicMixed
from elision.accelerators.systolic.systolic import Systolic
from elision.common.columns import column
from elision.products import LayerProduct

__all__ = ["SkipRow", "interleave_or_skip", "machines_of_equal_size", "skip_rows"]


@dataclass(frozen=True)
class SkipRow:
    """Sparse products on one machine.

    Attributes:
        machine: its name.
        cycles: without waiting for the DRAM.
        speed_up: cycles of the first row over these; NaN if there are none.
        multiplies: products issued; gated ones are not.
        zero_multiplies: of these, products with a zero factor.
        redundant_multiplies: of these, non-zero products that belong to no output.
        idle_slots: multipliers times cycles less the products issued.
        useful_share: non-zero products of outputs, over multipliers times cycles.
        energy_on_chip_pj: without DRAM, which not every machine models.

    Example:
        >>> cost = Cost(cycles=10, multiplies=40, multiplier_slots=40)
        >>> skip_rows({"dense": cost}, useful=10)[0].useful_share
        0.25
    """

    machine: str = column("machine")
    cycles: int = column("cycles", ",")
    speed_up: float = column("speed-up over the first", ".2f", "x")
    multiplies: int = column("issued", ",")
    zero_multiplies: int = column("zeros", ",")
    redundant_multiplies: int = column("redundant", ",")
    idle_slots: int = column("idle", ",")
    useful_share: float = column("useful", ".1f", " %", scale=100)
    energy_on_chip_pj: float = column("energy on chip, nJ", ",.0f", scale=1e-3)


def machines_of_equal_size(energy: str = "horowitz-45nm") -> dict[str, Accelerator]:
    """Systolic, interleaving and zero-skipping machines of 1,024 multipliers each.

    1,024 is 32x32 PEs, and SCNN's 64 elements of 4x4 multipliers.
    """
    return {
        "WS": Systolic(32, 32, "ws", energy=energy),
        "OS": Systolic(32, 32, "os", weight_grad="GtX", energy=energy),
        "WS+OS": SystolicMixed(32, 32, energy=energy),
        "InterGrad": InterGrad(32, 32, energy=energy),
        "InterGrad, zeros gated": InterGrad(32, 32, zero_gating=True, energy=energy),
        "SCNN": Scnn(energy=energy),
        "ANT": Ant(energy=energy),
    }


def interleave_or_skip(
    products: Iterable[LayerProduct],
    machines: Mapping[str, Accelerator] | None = None,
) -> list[SkipRow]:
    """Cost of the same products, with their operands, on every machine.

    Args:
        products: of whole training steps, for instance a trace; both gradients of a layer
            must be there to be interleaved.
        machines: by name; None: :func:`machines_of_equal_size`.

    Raises:
        ValueError: a product has no operands, or there is no product.
    """
    products = list(products)
    chosen = machines or machines_of_equal_size()
    costs = {name: products_cost(m, products) for name, m in chosen.items()}
    return skip_rows(costs, sum(product.counts.valid for product in products))


def skip_rows(costs: Mapping[str, Cost], useful: int) -> list[SkipRow]:
    """Split the costs of the same products on several machines into rows.

    Args:
        costs: by the machine's name.
        useful: non-zero products of the layers' outputs.
    """
    rows: list[SkipRow] = []
    first = next((cost.cycles for cost in costs.values()), 0)
    for name, cost in costs.items():
        rows.append(
            SkipRow(
                machine=name,
                cycles=cost.cycles,
                speed_up=first / cost.cycles if cost.cycles else math.nan,
                multiplies=cost.multiplies,
                zero_multiplies=cost.multiplies - useful - cost.redundant_multiplies,
                redundant_multiplies=cost.redundant_multiplies,
                idle_slots=cost.multiplier_slots - cost.multiplies,
                useful_share=useful / max(cost.multiplier_slots, 1),
                energy_on_chip_pj=cost.energy_on_chip_pj,
            )
        )
    return rows
