"""Sparse training of networks of matrix products, on every machine.

ANT's abstract says that its unit serves sparse matrix products as well, those of fully
connected layers, transformers and recurrent networks; the public sources state no figure
for them. Here are operands of short runs of this library's networks, under the recipes of
the first half, on every machine of equal size, beside what random operands of the same
densities would take.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from elision.accelerators import (
    Accelerator,
    Ant,
    Cost,
    Dense,
    InterGrad,
    Intersection,
    OneSided,
    Scnn,
    Systolic,
)
from elision.accelerators.expected import expected_cycles
from elision.accelerators.step import (
    GRADIENT_PAIR,
    PRODUCT_NAMES,
    job_cost,
    job_name,
    jobs,
)
from elision.common.columns import column
from elision.methods import make_recipe
from elision.products import LayerProduct, MatmulGeometry, Product
from elision.study.papers.ant.machines import baseline, ratio
from elision.training.loop import RunPlan, train
from elision.workloads import Workload, find_workload

__all__ = [
    "MATMULS",
    "MatmulNetwork",
    "MatmulRow",
    "machines",
    "matmul_network",
    "matmul_rows",
    "recorded_matmuls",
]


@dataclass(frozen=True)
class MatmulNetwork:
    """A short training run whose layers are matrix products.

    Attributes:
        workload: what is trained.
        rows: rows of each recorded product.

    Example:
        >>> MATMULS["LSTM"].rows
        64
    """

    workload: Workload
    rows: int


def _short(model: str, rows: int = 64, **settings: Any) -> MatmulNetwork:
    """Sixteen batches of photo patches."""
    defaults: dict[str, Any] = {"epochs": 1, "learning_rate": 0.05, "batch_size": 64}
    settings = defaults | settings
    workload = Workload(
        name=f"ant-{model}",
        dataset="photo-patches",
        model=model,
        train_images=16 * settings["batch_size"],
        test_images=100,
        **settings,
    )
    return MatmulNetwork(workload, rows)


#: Networks of matrix products; sizes and settings are this project's own. All rows of a
#: batch are kept: 64 images, or 64 tokens of 16 images.
MATMULS: dict[str, MatmulNetwork] = {
    "MLP": _short("mlp", model_options={"width": 512, "depth": 3}),
    "LSTM": _short("lstm", learning_rate=0.1),
    "transformer": _short("transformer", rows=1024, batch_size=16),
}


def matmul_network(name: str) -> MatmulNetwork:
    """One of :data:`MATMULS`, or any workload, of which a batch's rows are kept.

    Raises:
        ValueError: neither; the message lists the workloads.
    """
    if name in MATMULS:
        return MATMULS[name]
    try:
        workload = find_workload(name)
    except ValueError as error:
        raise ValueError(f"{error}; or one of {', '.join(MATMULS)}") from None
    return MatmulNetwork(workload, workload.batch_size)


@dataclass(frozen=True)
class MatmulRow:
    """One product of one network's step on one machine, simulated, layers summed.

    Attributes:
        network: key of :data:`MATMULS`, or a workload.
        operands: origin of the operands.
        product: one of :data:`~elision.accelerators.step.PRODUCT_NAMES`, or ``"all"``.
            InterGrad's gradients are pairs, that of a first layer among them.
        machine: key of :func:`machines`.
        cycles: on the recorded operands, without start-up.
        expected_cycles: on random operands of the same densities, by closed form
            (:func:`~elision.accelerators.expected.expected_cycles`).
        rcp_share: RCPs among the products issued; None on machines that form none.
        anticipated_share: share of the RCPs of SCNN in tiles that ANT does not issue;
            None on other machines.
        over_tiles: cycles of SCNN in tiles over this machine's.
        over_index: cycles of SCNN by index over this machine's.
        over_tiles_with_startup: as ``over_tiles``, with a start-up for each pair of
            planes on the machines that have one.
        over_index_with_startup: likewise.

    Example:
        >>> from elision.common.columns import as_text
        >>> row = MatmulRow("MLP", "swat", "all", "dense", 8, 8.0, None, None, 2, 1, 2, 1)
        >>> as_text(row, ("machine", "cycles", "over_tiles"))
        {'machine': 'dense', 'cycles': '8', 'over SCNN in tiles': '2x'}
    """

    network: str = column("network")
    operands: str = column("operands")
    product: str = column("product")
    machine: str = column("machine")
    cycles: int = column("cycles", ",")
    expected_cycles: float = column("if random", ",.0f")
    rcp_share: float | None = column("RCPs", ".1f", " %", scale=100)
    anticipated_share: float | None = column("anticipated", ".1f", " %", scale=100)
    over_tiles: float = column("over SCNN in tiles", ",.4g", "x")
    over_index: float = column("over SCNN by index", ",.4g", "x")
    over_tiles_with_startup: float = column("in tiles, start-up", ",.4g", "x")
    over_index_with_startup: float = column("by index, start-up", ",.4g", "x")


_TILES, _INDEX = "scnn, tiles", "scnn, by index"


def machines(ant: Ant, tile: int) -> dict[str, Accelerator]:
    """Every machine with as many multipliers as ``ant``; SCNN and ANT in both forms.

    Args:
        ant: SCNN has its memories and multipliers.
        tile: rows and columns of a tile (``matmul_tile``).
    """
    kinds = Dense, OneSided, Intersection, Systolic, InterGrad
    size = ant.multiplier_count
    names = ("dense", "one-sided", "intersection", "systolic", "intergrad")
    found: dict[str, Accelerator] = {
        name: kind(**kind.sized(size)) for name, kind in zip(names, kinds, strict=True)
    }
    for form, chosen in (("tiles", tile), ("by index", None)):
        own = replace(ant, matmul_tile=chosen)
        found |= {f"scnn, {form}": baseline(own), f"ant, {form}": own}
    return found


def matmul_rows(
    network: str,
    operands: str,
    products: Iterable[LayerProduct],
    ant: Ant | None = None,
    tile: int = 32,
    startup_cycles: int = 5,
) -> list[MatmulRow]:
    """Rows of a network: one per product and machine, then all products together.

    Args:
        network: name for the rows.
        operands: name for where the operands come from.
        products: the layer products; those that are no matrix products are left out.
        ant: the machine; its start-up is the argument's.
        tile: rows and columns of the result in a tile.
        startup_cycles: for the columns with start-up.

    Raises:
        ValueError: there is no matrix product.
    """
    chosen = [
        product
        for product in products
        if isinstance(product.canonical_shape.geometry, MatmulGeometry)
    ]
    if not chosen:
        raise ValueError(f"{network}: no product of it is a matrix product")
    ant = replace(ant or Ant(), startup_cycles=0)
    found = {
        name: _Work.of(machine, chosen) for name, machine in machines(ant, tile).items()
    }
    slow = replace(ant, startup_cycles=startup_cycles)
    started = {  # the other machines have no start-up
        name: _Work.of(machine, chosen).costs
        for name, machine in machines(slow, tile).items()
        if isinstance(machine, (Scnn, Ant))
    }
    rows = []
    for product in (*PRODUCT_NAMES, "all"):
        for name, work in found.items():
            if product not in work.costs:
                continue
            cost = work.costs[product]
            late = started.get(name, work.costs)[product].cycles
            tiles, index = (_sum(found[n].costs, product) for n in (_TILES, _INDEX))
            late_tiles, late_index = (
                _sum(started[n], product) for n in (_TILES, _INDEX)
            )
            removed = tiles.redundant_multiplies - cost.redundant_multiplies
            outer = name in started
            rows.append(
                MatmulRow(
                    network=network,
                    operands=operands,
                    product=product,
                    machine=name,
                    cycles=cost.cycles,
                    expected_cycles=work.expected[product],
                    rcp_share=ratio(cost.redundant_multiplies, cost.multiplies)
                    if outer
                    else None,
                    anticipated_share=ratio(removed, tiles.redundant_multiplies)
                    if name.startswith("ant")
                    else None,
                    over_tiles=ratio(tiles.cycles, cost.cycles),
                    over_index=ratio(index.cycles, cost.cycles),
                    over_tiles_with_startup=ratio(late_tiles.cycles, late),
                    over_index_with_startup=ratio(late_index.cycles, late),
                )
            )
    return rows


@dataclass(frozen=True)
class _Work:
    """Costs and expected cycles of a step on one machine, by product and in all."""

    costs: Mapping[str, Cost]
    expected: Mapping[str, float]

    @classmethod
    def of(cls, machine: Accelerator, products: list[LayerProduct]) -> "_Work":
        costs: dict[str, Cost] = defaultdict(Cost)
        expected: dict[str, float] = defaultdict(float)
        for job in jobs(machine, products):
            cost = job_cost(machine, job)
            cycles = cost.cycles
            if not machine.value_blind:
                (product,) = job
                cycles = _expected(machine, product)
            for name in (_named(machine, job), "all"):
                costs[name] += cost
                expected[name] += cycles
        return cls(costs, expected)


def _named(machine: Accelerator, job: tuple[LayerProduct, ...]) -> str:
    """Product of a job; of a machine that interleaves gradients, all are pairs."""
    if machine.interleaves and job[0].kind is not Product.FORWARD:
        return GRADIENT_PAIR
    return job_name(job)


def _expected(machine: Accelerator, product: LayerProduct) -> float:
    geometry: Any = product.canonical_shape.geometry
    first, second = product.canonical.densities.values()
    return expected_cycles(machine, product.kind, geometry, (first, second))


def _sum(costs: Mapping[str, Cost], product: str) -> Cost:
    """Cost of a product, or of both gradients of a pair."""
    return sum((costs[name] for name in product.split("+")), Cost())


def recorded_matmuls(
    name: str, recipe: str, seed: int = 0
) -> dict[str, list[LayerProduct]]:
    """Products of the last step of a network's run under a recipe.

    Products with weights stand under the network's name, those of a batch of two
    activations, as in attention, under one of their own: recipes leave them dense unless
    their ``products=`` names them.

    A recipe that leaves linear layers dense, as ReSprop does, is applied to them here.
    ReSprop's reference is then the gradient of the layer's previous call, in an LSTM that
    of the next time step; the product with the reference is not among those recorded.

    Args:
        name: as in :func:`matmul_network`.
        recipe: name of a method, at its default sparsity.
        seed: of the run.
    """
    network = matmul_network(name)
    workload, last = network.workload, network.workload.epochs - 1
    plan = RunPlan(seed=seed, record_epochs=(last,), record_samples=network.rows)
    method: Any = make_recipe(recipe)
    if any(f.name == "dense" for f in fields(method)):
        kept = tuple(part for part in method.dense if part != ":linear")
        method = replace(method, dense=kept)
    result = train(workload, method, workload.load_dataset(), plan)
    found: dict[str, list[LayerProduct]] = {}
    for product in result.trace.multiplied():
        geometry = product.geometry
        batched = isinstance(geometry, MatmulGeometry) and geometry.batch > 1
        part = f"{name}, attention" if batched else name
        found.setdefault(part, []).append(product)
    return found
