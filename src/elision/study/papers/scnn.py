"""SCNN's published operating points beside our planar model.

Parashar et al., "SCNN: An Accelerator for Compressed-sparse Convolutional Neural
Networks", ISCA 2017, as quoted by two independent reading notes. GoogLeNet with
synthetic operands whose density is the same for weights and activations; inference.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from elision.accelerators import Cost, Dense, Scnn
from elision.accelerators.base import ceil_div
from elision.accelerators.energy import energy_table
from elision.common.checks import number
from elision.common.columns import as_text, column, columns
from elision.common.files import to_csv, write_json, write_text
from elision.products import (
    Conv2dGeometry,
    Geometry,
    LayerProduct,
    Product,
    synthetic_products,
)
from elision.study.papers.base import Figure, Paper, Progress, Report, Table, silent

__all__ = [
    "PUBLISHED",
    "RULES",
    "ScnnPoints",
    "ScnnRow",
    "as_text_rows",
    "googlenet_layers",
    "scnn_table",
    "tiled_dense_cycles",
]

#: Per density (of weights and of activations): speed over the dense array, energy
#: relative to it, and speed over one-sided machines for (weights, activations).
PUBLISHED: dict[float, dict[str, float]] = {
    1.0: {"speedup": 0.79, "energy_share": 1.33},
    0.4: {"over_weight_sided": 1.7, "over_input_sided": 2.6},
    0.1: {"speedup": 24.0, "energy_share": 0.06},
}

#: The planar mapping under three sets of rules: those of the public simulator whose
#: figures it equals, the same without bank conflicts, and, besides, with the barrier
#: where notes on the paper have it.
RULES: dict[str, dict[str, str]] = {
    "public simulator": {"conflicts": "serialised", "barrier": "channel"},
    "ideal banks": {"conflicts": "ideal", "barrier": "channel"},
    "ideal banks, group barrier": {"conflicts": "ideal", "barrier": "group"},
}

#: Inception modules of GoogLeNet (Szegedy et al., CVPR 2015, table 1): name, input
#: channels, side of the plane, filters of 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5 and
#: pool projection.
_INCEPTION = (
    ("3a", 192, 28, 64, 96, 128, 16, 32, 32),
    ("3b", 256, 28, 128, 128, 192, 32, 96, 64),
    ("4a", 480, 14, 192, 96, 208, 16, 48, 64),
    ("4b", 512, 14, 160, 112, 224, 24, 64, 64),
    ("4c", 512, 14, 128, 128, 256, 24, 64, 64),
    ("4d", 512, 14, 112, 144, 288, 32, 64, 64),
    ("4e", 528, 14, 256, 160, 320, 32, 128, 128),
    ("5a", 832, 7, 256, 160, 320, 32, 128, 128),
    ("5b", 832, 7, 384, 192, 384, 48, 128, 128),
)


@dataclass(frozen=True)
class ScnnRow:
    """Simulated ratios at one density, summed over the layers.

    Attributes:
        density: of weights and activations.
        rules: one of :data:`RULES`.
        speedup: cycles of the ideal dense array over SCNN's.
        speedup_over_tiled: cycles of a dense machine whose elements share the output
            plane over SCNN's.
        energy_share: SCNN's energy over the dense array's.
        over_weight_sided: cycles of SCNN if it skipped zero weights only, over SCNN's.
        over_input_sided: the same if it skipped zero activations only.
        published: the columns that the paper has at this density.

    Example:
        >>> row = ScnnRow(0.4, "ideal banks", 4.0, 3.0, 0.25, 1.5, 2.5, {})
        >>> as_text(row, ("density", "speedup"))
        {'density': '0.4', 'over dense': '4x'}
    """

    density: float = column("density", "g")
    rules: str = column("rules")
    speedup: float = column("over dense", ".3g", "x")
    speedup_over_tiled: float = column("over tiled dense", ".3g", "x")
    energy_share: float = column("energy", ".3g", "x")
    over_weight_sided: float = column("over weight-sided", ".3g", "x")
    over_input_sided: float = column("over activation-sided", ".3g", "x")
    published: Mapping[str, float] = column("published")


def googlenet_layers() -> list[tuple[str, Geometry]]:
    """The 54 convolutions of GoogLeNet's inception modules, batch 1."""
    layers: list[tuple[str, Geometry]] = []
    for module, channels, side, one, reduce3, three, reduce5, five, pool in _INCEPTION:
        for name, inputs, filters, kernel in (
            ("1x1", channels, one, 1),
            ("3x3_reduce", channels, reduce3, 1),
            ("3x3", reduce3, three, 3),
            ("5x5_reduce", channels, reduce5, 1),
            ("5x5", reduce5, five, 5),
            ("pool_proj", channels, pool, 1),
        ):
            geometry = Conv2dGeometry.of(
                (1, inputs, side, side),
                (filters, inputs, kernel, kernel),
                padding=kernel // 2,
            )
            layers.append((f"inception_{module}/{name}", geometry))
    return layers


def scnn_table(
    densities: Iterable[float] = (1.0, 0.7, 0.4, 0.2, 0.1),
    layers: Iterable[tuple[str, Geometry]] | None = None,
    seed: int = 0,
    energy: str = "horowitz-45nm",
) -> Iterator[ScnnRow]:
    """One row per density and set of :data:`RULES`.

    Args:
        densities: of weights and activations.
        layers: layer shapes; None for :func:`googlenet_layers`.
        seed: of the operands.
        energy: energy table of all machines.
    """
    layers = list(googlenet_layers() if layers is None else layers)
    machines = {
        name: Scnn(mapping="planar", energy=energy, **rules)  # pyright: ignore[reportArgumentType]
        for name, rules in RULES.items()
    }
    for density in densities:
        dense, tiled_cycles = Cost(), 0
        costs = {name: [Cost(), Cost(), Cost()] for name in machines}
        for product in _forward(layers, 1 - density, seed):
            dense += Dense(energy=energy).cost(product)
            tiled_cycles += tiled_dense_cycles(product.geometry)
            variants = (product, _filled(product, "input"), _filled(product, "weight"))
            for name, machine in machines.items():
                for i, variant in enumerate(variants):
                    costs[name][i] += machine.cost(variant)
        for rules, (scnn, weight_sided, input_sided) in costs.items():
            yield ScnnRow(
                density=density,
                rules=rules,
                speedup=dense.cycles / scnn.cycles,
                speedup_over_tiled=tiled_cycles / scnn.cycles,
                energy_share=scnn.energy_pj / dense.energy_pj,
                over_weight_sided=weight_sided.cycles / scnn.cycles,
                over_input_sided=input_sided.cycles / scnn.cycles,
                published=PUBLISHED.get(density, {}),
            )


@dataclass(frozen=True)
class ScnnPoints(Paper):
    """SCNN's published points on GoogLeNet, under three sets of rules.

    Attributes:
        density: Fractions of non-zeros of weights and activations.
        energy: Name of an energy table, or a TOML file.
        seed: Of the random operands.

    Raises:
        ValueError: a density outside (0, 1], or an unknown energy table.

    Example:
        >>> [figure.value for figure in ScnnPoints.published][:2]
        ['0.79x', '1.33x']
    """

    key = "scnn"
    title = (
        "A. Parashar et al., SCNN: An Accelerator for Compressed-sparse Convolutional "
        "Neural Networks, ISCA 2017"
    )
    published = tuple(
        Figure(f"{name}, density {density:g}", f"{value:g}x", "two reading notes")
        for density, figures in PUBLISHED.items()
        for name, value in figures.items()
    )
    unstated = (
        "The published dense machine was designed and priced by synthesis in 16 nm, and "
        "how it fills its elements is not known to us; ours are an ideal array with as "
        "many multipliers, and one whose elements share the output plane as SCNN's do, "
        "priced by the energy table named, so neither SCNN's crossbar nor the off-chip "
        "memory is in the energy ratio. The one-sided machines are taken to be SCNN with "
        "the zeros of the other operand kept. Whether the paper's simulator serialises "
        "bank conflicts is not known to us either, and the public one has a barrier at "
        "every channel where the paper is said to have one for each group of filters, so "
        "three rules are shown. Nothing was tuned to the published column."
    )

    density: tuple[float, ...] = (1.0, 0.7, 0.4, 0.2, 0.1)
    energy: str = "horowitz-45nm"
    seed: int = 0

    def __post_init__(self) -> None:
        for density in self.density:
            number("ScnnPoints", "density", density, "(0, 1]")
        energy_table(self.energy)  # refuses an unknown name

    def rows(self, progress: Progress = silent) -> list[ScnnRow]:
        """Rows of every density and set of :data:`RULES`."""
        rows: list[ScnnRow] = []
        for done, density in enumerate(self.density):
            progress(done, len(self.density))
            rows += scnn_table([density], seed=self.seed, energy=self.energy)
        return rows

    def run(
        self, folder: Path, progress: Progress = silent, report: Report = silent
    ) -> list[Table]:
        """Write ``scnn.csv`` and ``scnn.json``; see :meth:`Paper.run`."""
        rows = self.rows(progress)
        folder.mkdir(parents=True, exist_ok=True)
        flat = [asdict(row) for row in rows]
        for row in flat:
            published = row.pop("published")
            row |= {f"published_{name}": published.get(name) for name in _PUBLISHED}
        write_text(folder / "scnn.csv", to_csv(flat))
        facts = {"unstated": self.unstated, "rules": RULES, "energy": self.energy}
        write_json(folder / "scnn.json", facts | {"rows": flat})
        return [Table("", as_text_rows(rows))]


#: Columns that the paper has figures for.
_PUBLISHED = ("speedup", "energy_share", "over_weight_sided", "over_input_sided")


def as_text_rows(rows: Iterable[ScnnRow]) -> list[dict[str, str]]:
    """The rows as a table, the published figures above those of their density."""
    known = columns(ScnnRow)
    table: list[dict[str, str]] = []
    shown: set[float] = set()
    for row in rows:
        if row.published and row.density not in shown:
            cells = as_text(row, ("density",)) | {"rules": "published"}
            for name, value in row.published.items():
                cells[known[name].heading] = f"{value:g}x"
            table.append(cells)
        shown.add(row.density)
        table.append(
            as_text(row, ("density", "rules", *_PUBLISHED, "speedup_over_tiled"))
        )
    return table


def tiled_dense_cycles(
    geometry: Geometry, grid: tuple[int, int] = (8, 8), lanes: int = 16
) -> int:
    """Cycles of a dense machine whose elements share the output plane of a convolution.

    Each computes one dot product after the other, ``lanes`` values per cycle; the
    largest tile decides. A baseline of this project: what SCNN's own tiling of small
    planes costs a dense machine, too.
    """
    assert isinstance(geometry, Conv2dGeometry)
    sides = (geometry.out_height, geometry.out_width)
    tile = math.prod(ceil_div(n, m) for n, m in zip(sides, grid, strict=True))
    inner = geometry.in_channels // geometry.groups * math.prod(geometry.kernel)
    return geometry.batch * tile * geometry.out_channels * ceil_div(inner, lanes)


def _forward(
    layers: Iterable[tuple[str, Geometry]], sparsity: float, seed: int
) -> Iterator[LayerProduct]:
    sparsities = {"input": sparsity, "weight": sparsity}
    for product in synthetic_products(layers, sparsities, seed):
        if product.kind is Product.FORWARD:
            yield product


def _filled(product: LayerProduct, operand: str) -> LayerProduct:
    """The product with every value of one operand non-zero."""
    side = ("first", "second")[product.kind.operands.index(operand)]
    ones = np.ones(product.geometry.shape_of(operand), np.float32)
    return replace(product, **{side: ones})
