"""ANT's headline claims beside our model: RCPs anticipated, speed-up and energy.

Lew et al., "Anticipating and eliminating redundant computations in accelerated sparse
training", ISCA 2022 (abstract). The networks are the abstract's; 90 % of every operand
is zero, or the operands are those of a recorded run.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

from elision.accelerators import Ant, Cost, Scnn
from elision.common.files import to_csv, write_json, write_text
from elision.common.names import lookup
from elision.methods import make_recipe
from elision.products import Geometry, LayerProduct, Product, synthetic_products
from elision.training.loop import RunPlan, train
from elision.workloads import find_workload
from elision.workloads.models import make_model
from elision.workloads.shapes.of_model import layer_shapes

__all__ = [
    "NETWORKS",
    "PUBLISHED",
    "UNSTATED",
    "AntRow",
    "ant_rows",
    "ant_table",
    "as_text_rows",
    "geometric_mean",
    "network_layers",
    "recorded_products",
    "write",
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
    model_name, size = lookup("network", name, NETWORKS)
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
    startup_cycles: int = 5,
) -> Iterator[AntRow]:
    """Rows of the named networks with synthetic operands, every layer and pair exact.

    Args:
        networks: of :data:`NETWORKS`.
        sparsity: share of zeros in inputs, weights and output gradients.
        seed: of the operands.
        ant: the machine.
        startup_cycles: for the column with start-up.
    """
    for network in networks:
        products = synthetic_products(network_layers(network), sparsity, seed)
        operands = f"synthetic, {sparsity:.0%} zeros"
        yield from ant_rows(network, operands, products, ant, startup_cycles)


def geometric_mean(rows: Iterable[AntRow], column: str) -> float:
    """Geometric mean of a column over the rows of whole networks (product "all")."""
    values = [getattr(row, column) for row in rows if row.product == "all"]
    return math.exp(sum(map(math.log, values)) / len(values))


def write(
    folder: Path,
    networks: Sequence[str] = tuple(NETWORKS),
    recipes: Sequence[str] = ("swat", "resprop"),
    *,
    sparsity: float = 0.9,
    seed: int = 0,
    ant: Ant | None = None,
    startup_cycles: int = 5,
    progress: Callable[[int, int], None] | None = None,
) -> list[AntRow]:
    """Run everything and write ``ant.csv`` and ``ant.json``.

    Args:
        folder: where to.
        networks: of :data:`NETWORKS`, with synthetic operands.
        recipes: methods of which a run is trained and recorded.
        sparsity: share of zeros in the synthetic operands.
        seed: of the synthetic operands and of the runs.
        ant: the machine.
        startup_cycles: for the column with start-up.
        progress: told of (tables done, tables in all).

    Raises:
        ValueError: an unknown network or recipe.
        OSError: the folder cannot be written to.
    """
    for network in networks:
        lookup("network", network, NETWORKS)
    for recipe in recipes:
        make_recipe(recipe)
    how = {"ant": ant, "startup_cycles": startup_cycles}
    rows: list[AntRow] = []
    for done, name in enumerate((*networks, *recipes)):
        if progress:
            progress(done, len(networks) + len(recipes))
        if done < len(networks):
            rows += ant_table([name], sparsity, seed, **how)
        else:
            products = recorded_products(name, seed=seed)
            rows += ant_rows("ResNet-8", f"recorded, {name}", products, **how)
    synthetic = [row for row in rows if row.network in NETWORKS]
    means = {
        column: geometric_mean(synthetic, column)
        for column in ("speedup", "speedup_with_startup", "energy_ratio")
        if synthetic
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "ant.csv", to_csv([asdict(row) for row in rows]))
    found = {
        "published": PUBLISHED,
        "unstated": UNSTATED,
        "machine": asdict(ant or Ant()),
        "startup_cycles": [0, startup_cycles],
        "sparsity": sparsity,
        "geometric_means": means,
        "rows": [
            {k: None if v != v else v for k, v in asdict(row).items()} for row in rows
        ],
    }
    write_json(folder / "ant.json", found)
    return rows


def as_text_rows(
    rows: Sequence[AntRow], startup_cycles: int = 5
) -> list[dict[str, str]]:
    """The rows as a table, means over networks and the published figures last."""
    with_startup = f"with start-up {startup_cycles}"
    table = [
        {
            "network": row.network,
            "operands": row.operands,
            "product": row.product,
            "RCPs": f"{100 * row.rcp_share:.1f} %",
            "anticipated": f"{100 * row.anticipated_share:.1f} %",
            "speed-up": f"{row.speedup:.2f}x",
            with_startup: f"{row.speedup_with_startup:.2f}x",
            "energy": f"{row.energy_ratio:.2f}x",
        }
        for row in rows
    ]
    synthetic = [r for r in rows if r.network in NETWORKS and r.product == "all"]
    if synthetic:
        columns = ("speedup", "speedup_with_startup", "energy_ratio")
        means = [f"{geometric_mean(synthetic, column):.2f}x" for column in columns]
        shares = [
            f"{100 * fmean(getattr(row, column) for row in synthetic):.1f} %"
            for column in ("rcp_share", "anticipated_share")
        ]
        names = ("RCPs", "anticipated", "speed-up", with_startup, "energy")
        label = {"network": "mean", "operands": "geometric; of shares, arithmetic"}
        table.append(label | dict(zip(names, shares + means, strict=True)))
    table.append(
        {
            "network": "published",
            "operands": "not stated",
            "RCPs": f"up to {100 * PUBLISHED['rcp_share']:.0f} %",
            "anticipated": f"over {100 * PUBLISHED['anticipated_share']:.0f} %",
            "speed-up": f"{PUBLISHED['speedup']:.2f}x",
            "energy": f"{PUBLISHED['energy_ratio']:.2f}x",
        }
    )
    return table


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
    result = train(chosen, make_recipe(recipe), chosen.load_dataset(), plan)
    yield from result.trace.multiplied()
