"""ANT's headline claims beside our model: RCPs anticipated, speed-up and energy.

Lew et al., "Anticipating and eliminating redundant computations in accelerated sparse
training", ISCA 2022 (abstract). The networks are the abstract's; 90 % of every operand
is zero, or the operands are those of a recorded run.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from elision.accelerators import Ant, Cost, Scnn
from elision.methods import METHODS
from elision.products import Geometry, LayerProduct, Product
from elision.specs import build
from elision.trace import synthetic_products
from elision.training import RunPlan, train
from elision.workloads import find_workload
from elision.workloads.models import make_model
from elision.workloads.shapes import layer_shapes

__all__ = [
    "NETWORKS",
    "PUBLISHED",
    "UNSTATED",
    "AntRow",
    "ant_rows",
    "ant_table",
    "geometric_mean",
    "network_layers",
    "recorded_products",
]

#: Name -> (our model, image size). The abstract names the networks; the image sizes are
#: ours (32 for the CIFAR-sized ones, 224 for ResNet-50), and so is the width of the
#: WRN.
NETWORKS: dict[str, tuple[str, int]] = {
    "DenseNet-121": ("densenet121", 32),
    "ResNet-18": ("resnet18", 32),
    "VGG-16": ("vgg16", 32),
    "WRN-16-8": ("wrn16-8", 32),
    "ResNet-50": ("resnet50-imagenet", 224),
}

#: The abstract: geometric means over its networks at 90 % sparsity; "over 90 %" of the
#: RCPs anticipated; RCPs are "up to 90 %" of the computations.
PUBLISHED = {
    "speedup": 3.71,
    "energy_ratio": 4.40,
    "anticipated_share": 0.90,
    "rcp_share": 0.90,
}

UNSTATED = (
    "The public sources state neither the number of elements, the multiplier array, the "
    "scan window, the start-up cycles, the energy table, the image sizes nor the batch "
    "of the paper, so these rows are in its range or not, and reproduce nothing: every "
    "one of these is a parameter of this project's own model, and the start-up alone "
    "moves the speed-up by a factor of about two."
)


@dataclass(frozen=True)
class AntRow:
    """One product of one network, simulated.

    Attributes:
        network: as in :data:`NETWORKS`, or the name of a recorded run.
        operands: where the operands come from.
        product: ``"forward"``, ``"input_grad"``, ``"weight_grad"`` or ``"all"``.
        rcp_share: RCPs among the products that the SCNN-like baseline executes.
        anticipated_share: share of these RCPs that ANT does not execute.
        speedup: cycles of the baseline over ANT's, without start-up.
        speedup_with_startup: the same with a start-up per pair of planes in both.
        energy_ratio: energy of the baseline over ANT's.
    """

    network: str
    operands: str
    product: str
    rcp_share: float
    anticipated_share: float
    speedup: float
    speedup_with_startup: float
    energy_ratio: float


def network_layers(name: str) -> list[tuple[str, Geometry]]:
    """Layer shapes of one of :data:`NETWORKS`, batch 1."""
    model_name, size = NETWORKS[name]
    classes = 1000 if size == 224 else 10
    model = make_model(model_name, in_channels=3, classes=classes, image_size=size)
    return layer_shapes(model, (1, 3, size, size))


def ant_rows(
    network: str,
    operands: str,
    products: Iterable[LayerProduct],
    ant: Ant | None = None,
    startup_cycles: int = 5,
) -> list[AntRow]:
    """Rows of a network: one per product, then all of them together.

    Args:
        network: name for the rows.
        operands: name for where the operands come from.
        products: the layer products, visited once.
        ant: the machine; its baseline has the same memories and multipliers.
        startup_cycles: for the column with start-up.
    """
    ant = ant or Ant()
    baseline = Scnn(
        grid=(1, ant.elements),
        multipliers=ant.multipliers,
        skip_empty_pairs=ant.skip_empty_pairs,
        buffer_kib=ant.buffer_kib,
        accumulator_kib=ant.accumulator_kib,
        global_kib=ant.global_kib,
        energy=ant.energy,
    )
    machines = [
        replace(machine, startup_cycles=cycles)
        for cycles in (0, startup_cycles)
        for machine in (baseline, ant)
    ]
    totals = {kind: [Cost()] * len(machines) for kind in Product}
    for product in products:
        costs = totals[product.kind]
        totals[product.kind] = [
            cost + machine.cost(product)
            for cost, machine in zip(costs, machines, strict=True)
        ]
    named = {kind.value: costs for kind, costs in totals.items()}
    named["all"] = [
        sum(costs, start=Cost()) for costs in zip(*totals.values(), strict=True)
    ]
    return [_row(network, operands, name, *costs) for name, costs in named.items()]


def _row(
    network: str,
    operands: str,
    product: str,
    scnn: Cost,
    ant: Cost,
    slow_scnn: Cost,
    slow_ant: Cost,
) -> AntRow:
    redundant = scnn.redundant_multiplies
    return AntRow(
        network=network,
        operands=operands,
        product=product,
        rcp_share=_ratio(redundant, scnn.multiplies),
        anticipated_share=_ratio(redundant - ant.redundant_multiplies, redundant),
        speedup=_ratio(scnn.cycles, ant.cycles),
        speedup_with_startup=_ratio(slow_scnn.cycles, slow_ant.cycles),
        energy_ratio=_ratio(scnn.energy_pj, ant.energy_pj),
    )


def _ratio(numerator: float, denominator: float) -> float:
    """The quotient; NaN where there is nothing to compare."""
    return numerator / denominator if denominator else math.nan


def ant_table(
    networks: Iterable[str] = tuple(NETWORKS),
    sparsity: float = 0.9,
    seed: int = 0,
    ant: Ant | None = None,
) -> Iterator[AntRow]:
    """Rows of the named networks with synthetic operands, every layer and pair exact.

    Args:
        networks: of :data:`NETWORKS`.
        sparsity: share of zeros in inputs, weights and output gradients.
        seed: of the operands.
        ant: the machine.
    """
    for network in networks:
        products = synthetic_products(network_layers(network), sparsity, seed)
        operands = f"synthetic, {sparsity:.0%} zeros"
        yield from ant_rows(network, operands, products, ant)


def geometric_mean(rows: Iterable[AntRow], column: str) -> float:
    """Geometric mean of a column over the rows of whole networks (product "all")."""
    values = [getattr(row, column) for row in rows if row.product == "all"]
    return math.exp(sum(map(math.log, values)) / len(values))


def recorded_products(
    recipe: str = "swat",
    workload: str = "photo-resnet8",
    epochs: int = 1,
    seed: int = 0,
) -> Iterator[LayerProduct]:
    """Products of one image in the last step of a training run under a recipe.

    Under ReSprop the gradient is the image's sparse difference from the reused one; the
    product with the reused gradient itself, shared by the batch, is not among them.

    Args:
        recipe: name of a method, at its default sparsity.
        workload: name of a workload.
        epochs: length of the run.
        seed: of the run.
    """
    chosen = replace(find_workload(workload), epochs=epochs)
    plan = RunPlan(seed=seed, record_epochs=(epochs - 1,), record_samples=1)
    result = train(
        chosen, build("recipe", recipe, METHODS), chosen.load_dataset(), plan
    )
    yield from result.trace.multiplied()
