"""Whole training steps with interleaved gradients, against plain systolic arrays."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product as grid

from elision.accelerators.base import Accelerator, Cost
from elision.accelerators.step import step_cost
from elision.accelerators.systolic.intergrad import InterGrad, estimated_pe_area_ratio
from elision.accelerators.systolic.mixed import SystolicMixed
from elision.accelerators.systolic.systolic import Systolic
from elision.common.names import lookup
from elision.workloads.shapes.networks import NETWORKS, network

__all__ = [
    "AREA_RULES",
    "DRAIN_RULES",
    "PUBLISHED_STEPS",
    "PublishedStep",
    "StepRow",
    "interleaving",
    "savings",
    "sram_words",
    "training_steps",
    "ws_os",
]


@dataclass(frozen=True)
class DrainRule:
    """Drains of the arrays that are compared.

    Attributes:
        plain: of an output-stationary pass, on either machine.
        interleaved: of the interleaved pass.
        meaning: in words.

    Example:
        >>> DRAIN_RULES["by wiring"].interleaved
        'overlapped'
    """

    plain: str
    interleaved: str
    meaning: str


#: Both arrays as favourable, both as unfavourable, and each as its wiring suggests.
DRAIN_RULES = {
    "overlapped": DrainRule("overlapped", "overlapped", "dW never costs a cycle"),
    "explicit": DrainRule("explicit", "explicit", "dW costs one shift a tile in both"),
    "by wiring": DrainRule(
        "explicit",
        "overlapped",
        "OS shifts dW out alone; interleaving does so while the next W shifts in",
    ),
}


#: Common property of the two machines. Equal area is ambiguous: an array with a few rows
#: less than a power of two wastes a tile on most layers, so three readings are shown.
AREA_RULES = {
    "equal PE count": "both have the array",
    "equal area, smaller array": "the interleaving array has fewer rows and columns",
    "equal area, fewer columns": "the interleaving array has fewer columns",
    "equal area, fewer arrays": "a chip of many arrays has fewer interleaving ones",
}


@dataclass(frozen=True)
class PublishedStep:
    """Published savings of a training step against a weight-stationary array, in percent.

    Attributes:
        energy: percent less energy.
        memory: percent fewer memory accesses.
        cycles: percent fewer cycles.

    Example:
        >>> PUBLISHED_STEPS["densenet-264"].cycles
        27
    """

    energy: float
    memory: float
    cycles: float


#: At equal area; the abstract of InterGrad, IEEE TCAS-I 70(5), 2023.
PUBLISHED_STEPS = {
    "inception-v4": PublishedStep(energy=12, memory=17, cycles=4),
    "densenet-264": PublishedStep(energy=18, memory=26, cycles=27),
}


@dataclass(frozen=True)
class StepRow:
    """Savings of interleaving over one whole training step, in percent of the baseline.

    The step is the forward product of every layer, all weight gradients, and all input
    gradients but the first layer's. Interleaving runs its forward products
    weight-stationary. A negative saving is a loss.

    Attributes:
        network: a name of :data:`~elision.workloads.shapes.networks.NETWORKS`.
        side: rows and columns of the plain array.
        batch: images.
        baseline: ``"WS"`` (dW in the faster of its two forms), ``"OS"``, or ``"WS+OS"``
            (forward and dX weight-stationary, dW output-stationary).
        drain: a name of :data:`DRAIN_RULES`.
        area: a name of :data:`AREA_RULES`.
        pe_area_ratio: area of an interleaving PE over a plain one, where areas are equal.
        baseline_cycles: of the step, without waiting for the DRAM.
        interleaved_cycles: likewise.
        cycles: saving of cycles.
        cycles_with_stalls: saving when waiting for the DRAM counts, too.
        sram: saving of SRAM accesses, no optimiser on either side.
        sram_with_update: the same with the optimiser's pass on the baseline's side and
            the update in the array on the interleaving side.
        dram: saving of DRAM accesses, no optimiser.
        energy: saving of energy, no optimiser, DRAM included.
        energy_on_chip: saving of energy without the DRAM.
        energy_with_update: saving of energy with updates counted as above.
        published_cycles: published saving where there is one for this baseline and for
            equal area, else None.
        published_memory: likewise.
        published_energy: likewise.

    Example:
        >>> row = training_steps(["alexnet"], [32], [1], ["explicit"])[0]
        >>> row.assumptions.split("; ")[:3]
        ['32x32 PEs', 'both have the array', 'batch 1']
    """

    network: str
    side: int
    batch: int
    baseline: str
    drain: str
    area: str
    pe_area_ratio: float
    baseline_cycles: int
    interleaved_cycles: int
    cycles: float
    cycles_with_stalls: float
    sram: float
    sram_with_update: float
    dram: float
    energy: float
    energy_on_chip: float
    energy_with_update: float
    published_cycles: float | None = None
    published_memory: float | None = None
    published_energy: float | None = None

    @property
    def assumptions(self) -> str:
        """Assumptions of the row that no abstract states."""
        ratio = f", PE {self.pe_area_ratio:.3f} times as large"
        return (
            f"{self.side}x{self.side} PEs; {AREA_RULES[self.area]}"
            f"{'' if self.area == 'equal PE count' else ratio}; batch {self.batch}; "
            f"drain {self.drain}: {DRAIN_RULES[self.drain].meaning}"
        )


def training_steps(
    networks: Sequence[str] = tuple(NETWORKS),
    sides: Sequence[int] = (32, 64, 128),
    batches: Sequence[int] = (1, 4, 16),
    drains: Sequence[str] = tuple(DRAIN_RULES),
    pe_area_ratio: float | None = None,
) -> list[StepRow]:
    """Savings of whole training steps over networks, arrays, batches and rules.

    Args:
        networks: names of :data:`~elision.workloads.shapes.networks.NETWORKS`.
        sides: rows and columns of the plain array.
        batches: images of a step.
        drains: names of :data:`DRAIN_RULES`.
        pe_area_ratio: area of an interleaving PE over a plain one; None: the lower bound
            of :func:`~elision.accelerators.systolic.intergrad.estimated_pe_area_ratio`.

    Raises:
        ValueError: unknown network or drain rule, a size below 1, or a ratio below 1.
    """
    ratio = estimated_pe_area_ratio() if pe_area_ratio is None else pe_area_ratio
    rows = []
    for name, side, batch in grid(networks, sides, batches):
        layers = network(name, batch)
        plain = Systolic(side, side)
        update = sum((plain.cost_update(geometry) for _, geometry in layers), Cost())
        for drain in drains:
            rule = lookup("drain rule", drain, DRAIN_RULES)
            baselines = {
                label: step_cost(machine, layers)
                for label, machine in _baselines(side, rule)
            }
            for area in AREA_RULES:
                ours, updated = (
                    step_cost(_replacing(side, rule, area, ratio, in_array), layers)
                    for in_array in (False, True)
                )
                slower = ratio if area == "equal area, fewer arrays" else 1.0
                for label, base in baselines.items():
                    rows.append(
                        StepRow(
                            network=name,
                            side=side,
                            batch=batch,
                            baseline=label,
                            drain=drain,
                            area=area,
                            pe_area_ratio=ratio,
                            baseline_cycles=base.cycles,
                            interleaved_cycles=math.ceil(ours.cycles * slower),
                            **savings(base, ours, slower),
                            **_savings_with_update(base + update, updated),
                            **_published(name, label, area),
                        )
                    )
    return rows


def _baselines(side: int, rule: DrainRule) -> Iterator[tuple[str, Accelerator]]:
    yield "WS", Systolic(side, side, "ws", weight_grad="faster")
    yield "OS", Systolic(side, side, "os", drain=rule.plain, weight_grad="faster")
    yield "WS+OS", ws_os(side, rule)


def ws_os(side: int, rule: DrainRule) -> SystolicMixed:
    """Forward and dX weight-stationary, dW output-stationary, on one array."""
    return SystolicMixed(side, side, drain=rule.plain)


def interleaving(side: int, rule: DrainRule, update: bool = False) -> InterGrad:
    """The interleaving array of equal PE count."""
    return InterGrad(
        side,
        side,
        drain=rule.interleaved,
        plain_drain=rule.plain,
        in_array_update=update,
    )


def _replacing(
    side: int, rule: DrainRule, area: str, ratio: float, update: bool
) -> InterGrad:
    """The interleaving array that takes the place of a plain one under an area rule."""
    machine = interleaving(side, rule, update)
    if area == "equal area, smaller array":
        return replace(machine, pe_area_ratio=ratio)
    if area == "equal area, fewer columns":
        return replace(machine, columns=max(1, math.floor(side / ratio)))
    return machine


def sram_words(cost: Cost) -> int:
    """Words read from and written to the SRAMs, all tensors together."""
    return sum(n for name, n in cost.accesses.items() if "_sram." in name)


def _percent(before: float, after: float) -> float:
    return 100 * (1 - after / before)


def savings(base: Cost, ours: Cost, slower: float) -> dict[str, float]:
    """Savings of ``ours`` over ``base`` in percent, no optimiser on either side.

    Args:
        base: of the plain array.
        ours: of the interleaving one.
        slower: factor on the cycles of the latter, where a chip has fewer such arrays.
    """

    def waited(cost: Cost) -> float:
        return cost.cycles + cost.details["stall_cycles"] + cost.details["fill_cycles"]

    def dram(cost: Cost) -> int:
        return cost.accesses["dram.read"] + cost.accesses["dram.write"]

    def on_chip_pj(cost: Cost) -> float:
        breakdown = cost.energy_breakdown_pj
        return cost.energy_pj - breakdown["dram.read"] - breakdown["dram.write"]

    return {
        "cycles": _percent(base.cycles, ours.cycles * slower),
        "cycles_with_stalls": _percent(waited(base), waited(ours) * slower),
        "sram": _percent(sram_words(base), sram_words(ours)),
        "dram": _percent(dram(base), dram(ours)),
        "energy": _percent(base.energy_pj, ours.energy_pj),
        "energy_on_chip": _percent(on_chip_pj(base), on_chip_pj(ours)),
    }


def _savings_with_update(base: Cost, ours: Cost) -> dict[str, float]:
    return {
        "sram_with_update": _percent(sram_words(base), sram_words(ours)),
        "energy_with_update": _percent(base.energy_pj, ours.energy_pj),
    }


def _published(name: str, baseline: str, area: str) -> dict[str, float]:
    published = PUBLISHED_STEPS.get(name)
    if published is None or baseline != "WS" or not area.startswith("equal area"):
        return {}
    return {
        f"published_{field.name}": getattr(published, field.name)
        for field in fields(published)
    }
