"""ANT's headline claims beside our model: RCPs anticipated, speed-up and energy.

Lew et al., "Anticipating and eliminating redundant computations in accelerated sparse
training", ISCA 2022 (abstract). The networks are the abstract's; 90 % of every operand
is zero, or the operands are those of a recorded run.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from elision.accelerators import Ant, Cost
from elision.common.checks import integer, number
from elision.common.columns import Column, as_text, column, columns
from elision.common.files import to_csv, write_json, write_text
from elision.common.names import lookup
from elision.common.specs import build
from elision.methods import make_recipe
from elision.products import Geometry, LayerProduct, Product, synthetic_products
from elision.study.papers.ant.machines import baseline, ratio
from elision.study.papers.ant.matmul import (
    MatmulRow,
    matmul_network,
    matmul_rows,
    recorded_matmuls,
)
from elision.study.papers.base import (
    Figure,
    Paper,
    Progress,
    Report,
    Table,
    silent,
    some,
)
from elision.training.loop import RunPlan, train
from elision.workloads import find_workload
from elision.workloads.models import make_model
from elision.workloads.shapes.of_model import layer_shapes

__all__ = [
    "NETWORKS",
    "PUBLISHED",
    "AntClaims",
    "AntRow",
    "ant_rows",
    "as_text_rows",
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

_ABSTRACT = "abstract, ISCA 2022"


@dataclass(frozen=True)
class AntRow:
    """One product of one network, simulated.

    Attributes:
        network: as in :data:`NETWORKS`, or the name of a recorded run.
        operands: origin of the operands.
        product: ``"forward"``, ``"input_grad"``, ``"weight_grad"`` or ``"all"``.
        rcp_share: RCPs among the products that the SCNN-like baseline executes.
        anticipated_share: share of these RCPs that ANT does not execute.
        speedup: cycles of the baseline over ANT's, without start-up.
        speedup_with_startup: the same with a start-up per pair of planes in both.
        energy_ratio: energy of the baseline over ANT's.

    Example:
        >>> row = AntRow("ResNet-18", "synthetic", "all", 0.5, 0.9, 3.5, 2.0, 4.0)
        >>> as_text(row, ("network", "rcp_share", "speedup"))
        {'network': 'ResNet-18', 'RCPs': '50.0 %', 'speed-up': '3.50x'}
    """

    network: str = column("network")
    operands: str = column("operands")
    product: str = column("product")
    rcp_share: float = column("RCPs", ".1f", " %", scale=100)
    anticipated_share: float = column("anticipated", ".1f", " %", scale=100)
    speedup: float = column("speed-up", ".2f", "x")
    speedup_with_startup: float = column("with start-up", ".2f", "x")
    energy_ratio: float = column("energy", ".2f", "x")


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
    machines = [
        machine
        for cycles in (0, startup_cycles)
        for own in (replace(ant, startup_cycles=cycles),)
        for machine in (baseline(own), own)
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
        rcp_share=ratio(redundant, scnn.multiplies),
        anticipated_share=ratio(redundant - ant.redundant_multiplies, redundant),
        speedup=ratio(scnn.cycles, ant.cycles),
        speedup_with_startup=ratio(slow_scnn.cycles, slow_ant.cycles),
        energy_ratio=ratio(scnn.energy_pj, ant.energy_pj),
    )


def geometric_mean(rows: Iterable[AntRow], column: str) -> float:
    """Geometric mean of a column over the rows of whole networks (product "all")."""
    values = [getattr(row, column) for row in rows if row.product == "all"]
    return math.exp(sum(map(math.log, values)) / len(values))


@dataclass(frozen=True)
class AntClaims(Paper):
    """ANT's claims: RCPs anticipated, speed-up and energy over an SCNN-like baseline.

    Convolutional networks first, then networks of matrix products on every machine.

    Attributes:
        network: Networks with random operands; default: all five of the abstract.
        recorded: Recipes of which short runs are trained and their operands recorded, a
            convolutional one and those of matmul.
        matmul: Networks of matrix products: MLP, LSTM, transformer, or any workload.
        matmul_tile: Rows and columns of a result whose planes meet whole, where the
            values of a matrix product do not meet by index.
        sparsity: Fraction of zeros of every random operand.
        accelerator: ant:parameter=value,...; the baseline has the same memories and
            multipliers.
        startup_cycles: Cycles before the first product of a pair, in the column that
            has them.
        seed: Of the random operands and of the runs.

    Raises:
        ValueError: an unknown network, recipe or parameter of the machine, or a number
            out of range.

    Example:
        >>> AntClaims(accelerator="ant:window=8").machine.window
        8
    """

    key = "ant"
    title = (
        "J. Lew et al., Anticipating and eliminating redundant computations in "
        "accelerated sparse training, ISCA 2022"
    )
    published = (
        Figure(
            "speed-up, mean at 90 % zeros", f"{PUBLISHED['speedup']:.2f}x", _ABSTRACT
        ),
        Figure(
            "energy, mean at 90 % zeros", f"{PUBLISHED['energy_ratio']:.2f}x", _ABSTRACT
        ),
        Figure(
            "RCPs anticipated",
            f"over {100 * PUBLISHED['anticipated_share']:.0f} %",
            _ABSTRACT,
        ),
        Figure(
            "RCPs of all computations",
            f"up to {100 * PUBLISHED['rcp_share']:.0f} %",
            _ABSTRACT,
        ),
        Figure(
            "sparse matrix products of FC layers, transformers and RNNs",
            "served by the same unit; no figure",
            _ABSTRACT,
        ),
    )
    unstated = (
        "The public sources state neither the number of elements, the multiplier array, "
        "the scan window, the start-up cycles, the energy table, the image sizes nor the "
        "batch of the paper, so these rows are in its range or not, and reproduce "
        "nothing: every one of these is a parameter of this project's own model, and the "
        "start-up alone moves the speed-up by a factor of about two. Nor do they state how "
        "the baseline pairs the values of a matrix product, which decides whether ANT "
        "gains anything on it: rows for both are given."
    )

    network: tuple[str, ...] = ()
    recorded: tuple[str, ...] = some("swat", "resprop")
    matmul: tuple[str, ...] = some("MLP", "LSTM", "transformer")
    matmul_tile: int = 32
    sparsity: float = 0.9
    accelerator: str = "ant"
    startup_cycles: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        for network in self.network:
            lookup("network", network, NETWORKS)
        for recipe in self.recorded:
            make_recipe(recipe)
        for network in self.matmul:
            matmul_network(network)
        integer("AntClaims", "matmul_tile", self.matmul_tile)
        number("AntClaims", "sparsity", self.sparsity, "[0, 1]")
        integer("AntClaims", "startup_cycles", self.startup_cycles, ">= 0")
        _ = self.machine  # refuses bad parameters

    @cached_property
    def machine(self) -> Ant:
        """The machine of the columns without start-up."""
        return build("accelerator", self.accelerator, {"ant": Ant})

    def rows(self, progress: Progress = silent) -> list[AntRow]:
        """Rows of every network with synthetic operands, then of every recorded run."""
        networks = self.network or tuple(NETWORKS)
        rows: list[AntRow] = []
        for done, name in enumerate((*networks, *self.recorded)):
            progress(done, self._units)
            if done < len(networks):
                layers = network_layers(name)
                products = synthetic_products(layers, self.sparsity, self.seed)
                source = (name, f"synthetic, {self.sparsity:.0%} zeros")
            else:
                products = recorded_products(name, seed=self.seed)
                source = ("ResNet-8", f"recorded, {name}")
            rows += ant_rows(*source, products, self.machine, self.startup_cycles)
        return rows

    def matmuls(self, progress: Progress = silent) -> list[MatmulRow]:
        """Rows of every network of matrix products under every recorded recipe."""
        runs = list(itertools.product(self.matmul, self.recorded))
        rows: list[MatmulRow] = []
        for done, (name, recipe) in enumerate(runs, start=self._units - len(runs)):
            progress(done, self._units)
            recorded = recorded_matmuls(name, recipe, self.seed)
            for part, products in recorded.items():
                rows += matmul_rows(
                    part,
                    f"recorded, {recipe}",
                    products,
                    self.machine,
                    self.matmul_tile,
                    self.startup_cycles,
                )
        return rows

    @property
    def _units(self) -> int:
        """Networks and runs in all."""
        runs = len(self.recorded) * (1 + len(self.matmul))
        return len(self.network or NETWORKS) + runs

    def run(
        self, folder: Path, progress: Progress = silent, report: Report = silent
    ) -> list[Table]:
        """Write ``ant.csv``, ``matmul.csv`` and ``ant.json``; see :meth:`Paper.run`."""
        rows, matmuls = self.rows(progress), self.matmuls(progress)
        synthetic = [row for row in rows if row.network in NETWORKS]
        means = {name: geometric_mean(synthetic, name) for name in MEANS if synthetic}
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "ant.csv", to_csv([asdict(row) for row in rows]))
        if matmuls:
            text = to_csv([asdict(row) for row in matmuls])
            write_text(folder / "matmul.csv", text)
        found = {
            "published": PUBLISHED,
            "unstated": self.unstated,
            "machine": asdict(self.machine),
            "startup_cycles": [0, self.startup_cycles],
            "sparsity": self.sparsity,
            "geometric_means": means,
            "rows": _as_json(rows),
            "matmul_tile": self.matmul_tile,
            "matmul_rows": _as_json(matmuls),
        }
        write_json(folder / "ant.json", found)
        tables = [Table("", as_text_rows(rows, self.startup_cycles))]
        if matmuls:
            title = _MATMULS.format(tile=self.matmul_tile, startup=self.startup_cycles)
            text = [as_text(row) for row in matmuls]
            tables.append(Table(title, text, origin="simulated"))
        return tables


#: Heading of the second table and the note under it.
_MATMULS = """\
Networks of matrix products
Operands recorded in the last step of short runs; under ReSprop the gradient is the sparse
difference, linear layers included; attention's two products are dense. "if random" is the
closed form for random operands of the same densities. In tiles, all values of {tile} rows
meet all values of {tile} columns; by index, only those of equal summation index do.
Start-up: {startup} cycles a pair."""


def _as_json(rows: Iterable[Any]) -> list[dict[str, Any]]:
    """Rows as plain values, null where there is no number."""
    return [{k: None if v != v else v for k, v in asdict(row).items()} for row in rows]


#: Columns of which a geometric mean over networks is taken; of the shares, the
#: arithmetic one.
MEANS = ("speedup", "speedup_with_startup", "energy_ratio")


def as_text_rows(
    rows: Sequence[AntRow], startup_cycles: int = 5
) -> list[dict[str, str]]:
    """The rows as a table, means over networks and the published figures last."""
    known = columns(AntRow)
    known["speedup_with_startup"] = Column(
        f"with start-up {startup_cycles}", ".2f", "x"
    )
    table = [as_text(row, known=known) for row in rows]
    synthetic = [r for r in rows if r.network in NETWORKS and r.product == "all"]
    if synthetic:
        means = {
            name: fmean(getattr(row, name) for row in synthetic)
            for name in ("rcp_share", "anticipated_share")
        }
        means |= {name: geometric_mean(synthetic, name) for name in MEANS}
        table.append(
            {"network": "mean", "operands": "geometric; of shares, arithmetic"}
            | {
                known[name].heading: known[name].text(mean)
                for name, mean in means.items()
            }
        )
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
