"""Published spatial arrays beside the rates that follow from their maps.

T2SP (IntelLabs/t2sp, its README and const-parameters.h) publishes a matrix product on two
FPGAs; AutoSA (Wang, Guo, Cong, FPGA 2021) one on a third. The rates here are derived: a
space-time map gives the cycles, the published clock the time.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from elision.accelerators.spatial import LoopNest, SpaceTimeMap, legal
from elision.accelerators.spatial.buffers import Buffer, time_order
from elision.accelerators.spatial.derived import elements, makespan, storage
from elision.accelerators.spatial.simulate import simulate
from elision.common.checks import integer
from elision.common.files import to_csv, write_json, write_text
from elision.study.papers.base import (
    Figure,
    Paper,
    Progress,
    Report,
    Rows,
    Table,
    silent,
)

__all__ = ["DESIGNS", "Design", "SpatialDesigns", "systolic_gemm"]


class Design(NamedTuple):
    """A published matrix product on an FPGA.

    Attributes:
        rows, columns: processing elements.
        lanes: multipliers of each, whose products a tree adds.
        clock_mhz: published clock.
        gflops: published rate, two operations a multiply-accumulate.

    Example:
        >>> DESIGNS["Arria 10"].multipliers
        1280
    """

    rows: int
    columns: int
    lanes: int
    clock_mhz: float
    gflops: float

    @property
    def multipliers(self) -> int:
        """Multipliers of the array."""
        return self.rows * self.columns * self.lanes


#: T2SP's matrix products of float32, by FPGA.
DESIGNS: Mapping[str, Design] = {
    "Arria 10": Design(10, 8, 16, 244, 620),
    "Stratix 10": Design(14, 16, 16, 251, 1790),
}

#: T2SP's convolutions, by FPGA: multipliers, clock in MHz, published GFLOP/s.
_CONVOLUTIONS = {"Arria 10": (1280, 237, 605), "Stratix 10": (3584, 211, 1509)}

#: AutoSA's matrix product of float32 on a U250: 260 x 256 outputs in tiles of 20 x 16, 8
#: lanes (its command for large_mm), and the published rate.
_AUTOSA = ((260 // 20) * (256 // 16) * 8, 934)

#: Turns of T2SP's loops in time, of I, J, K and of ii, jj, kk (const-parameters.h).
_TURNS = (32, 32, 32)


def systolic_gemm(
    blocks: tuple[int, int, int],
    inner: tuple[int, int, int],
    array: tuple[int, int, int],
) -> tuple[LoopNest, SpaceTimeMap]:
    """T2SP's matrix product: loops I, J, K, kk, ii, jj in time, iii, jjj, kkk in space.

    Independent sums ii, jj lie inside the loops of the sum, so that an adder has ii·jj
    cycles before its result is needed.

    Args:
        blocks: extents of I, J and K.
        inner: extents of ii, jj and kk.
        array: extents of iii, jjj and kkk: rows, columns and lanes.

    Example:
        >>> nest, map = systolic_gemm((2, 1, 2), (2, 3, 2), (2, 3, 2))
        >>> makespan(nest, map), storage(nest, map, "C")
        (51, 6)
    """
    extents = {
        name: extent
        for names, given in (("IJK", blocks), (("ii", "jj", "kk"), inner))
        for name, extent in zip(names, given, strict=True)
    } | dict(zip(("iii", "jjj", "kkk"), array, strict=True))
    i, j, k = (
        f"{extents[n * 2] * extents[n * 3]}*{n.upper()} + {extents[n * 3]}*{n * 2} + {n * 3}"
        for n in "ijk"
    )
    nest = LoopNest(extents, {"A": (i, k), "B": (k, j), "C": (i, j)}, "C")
    time, weight = {"iii": 1, "jjj": 1, "kkk": 0}, 1
    for loop in ("jj", "ii", "kk", "K", "J", "I"):
        time[loop] = weight
        weight *= extents[loop]
    return nest, SpaceTimeMap(("iii", "jjj", "kkk"), time)


@dataclass(frozen=True)
class SpatialDesigns(Paper):
    """Published spatial arrays beside the rates that follow from their maps.

    Attributes:
        seed: Of the operands of the small array that is simulated value by value.

    Raises:
        ValueError: a negative seed.

    Example:
        >>> [figure.value for figure in SpatialDesigns.published][:2]
        ['620 GFLOP/s', '1790 GFLOP/s']
    """

    key = "spatial"
    title = (
        "H. Rong et al., T2SP (github.com/IntelLabs/t2sp), and J. Wang, L. Guo, J. Cong, "
        "AutoSA: A Polyhedral Compiler for High-Performance Systolic Arrays on FPGA, "
        "FPGA 2021"
    )
    published = (
        *(
            Figure(f"float32 matrix product, {name}", f"{d.gflops:g} GFLOP/s", "README")
            for name, d in DESIGNS.items()
        ),
        *(
            Figure(f"float32 convolution, {name}", f"{rate} GFLOP/s", "README")
            for name, (_, _, rate) in _CONVOLUTIONS.items()
        ),
        Figure("float32 matrix product, U250", f"{_AUTOSA[1]} GFLOP/s", "FPGA 2021"),
    )
    unstated = (
        "The rates are derived from a map's cycles and the published clock, so that they leave "
        "out what starts and ends a kernel and waiting for the memory. Of T2SP's convolution "
        "only the multipliers and the clock are compared: how the padding of its loops is "
        "counted is not stated. AutoSA states no clock; the least one that its rate needs is "
        "given."
    )

    seed: int = 0

    def __post_init__(self) -> None:
        integer("SpatialDesigns", "seed", self.seed, ">= 0")

    def run(
        self, folder: Path, progress: Progress = silent, report: Report = silent
    ) -> list[Table]:
        """Write ``spatial.csv`` and ``spatial.json``; see :meth:`Paper.run`."""
        rates = _rates()
        progress(1, 2)
        small = _simulated(self.seed)
        progress(2, 2)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "spatial.csv", to_csv(rates))
        facts = {"unstated": self.unstated, "parameters": asdict(self)}
        write_json(folder / "spatial.json", facts | {"rates": rates, "small": small})
        shown: Rows = [
            {
                "design": row["design"],
                "multipliers": f"{row['multipliers']:,}",
                "published GFLOP/s": f"{row['published_gflops']:,}",
                "derived GFLOP/s": _text(row["derived_gflops"], ",.1f"),
                "published / derived": _text(row["share"], ".1%"),
                "note": row["note"],
            }
            for row in rates
        ]
        return [
            Table("Rates", shown),
            Table("T2SP's map in small, value by value", small, origin="simulated"),
        ]


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _rates() -> Rows:
    """Published and derived rates of every design."""
    rows: Rows = []
    for name, design in DESIGNS.items():
        array = (design.rows, design.columns, design.lanes)
        nest, map = systolic_gemm(_TURNS, _TURNS, array)
        legal(nest, map).check()
        cycles = makespan(nest, map)
        rate = 2 * nest.iterations / cycles * design.clock_mhz * 1e-3
        order = time_order(nest, map)
        period = Buffer("A", "K").period(nest, order).reads
        words = sum(Buffer(t, "K", copies=1).words(nest, order) for t in "AB")
        note = (
            f"{cycles:,} cycles, {cycles / design.clock_mhz * 1e-6:.2f} s; "
            f"{words / period:g} words a cycle"
        )
        pes = elements(nest, map)
        rows.append(
            _rate(f"T2SP matrix product, {name}", pes, design.gflops, rate, note)
        )
    for name, (multipliers, clock_mhz, published) in _CONVOLUTIONS.items():
        rate = 2 * multipliers * clock_mhz * 1e-3
        note = "multipliers x clock"
        rows.append(
            _rate(f"T2SP convolution, {name}", multipliers, published, rate, note)
        )
    multipliers, published = _AUTOSA
    clock_mhz = published / (2 * multipliers) * 1e3
    note = f"needs a clock of {clock_mhz:.1f} MHz or more; none is stated"
    rows.append(
        _rate("AutoSA matrix product, U250", multipliers, published, None, note)
    )
    return rows


def _rate(
    design: str, multipliers: int, published: float, derived: float | None, note: str
) -> dict[str, Any]:
    return {
        "design": design,
        "multipliers": multipliers,
        "published_gflops": published,
        "derived_gflops": derived,
        "share": None if derived is None else published / derived,
        "note": note,
    }


def _simulated(seed: int) -> Rows:
    """The same map with short loops: what its simulation counts, and what is derived."""
    nest, map = systolic_gemm((2, 1, 2), (2, 3, 2), (2, 3, 2))
    rng = np.random.default_rng(seed)
    operands = {t: rng.integers(-99, 100, nest.tensor_shape(t)) for t in nest.inputs}
    run = simulate(nest, map, operands)
    equal = "yes" if (run.values == operands["A"] @ operands["B"]).all() else "no"
    sums = storage(nest, map, "C")
    return [
        {"quantity": "cycles", "simulated": run.cycles, "derived": makespan(nest, map)},
        {
            "quantity": "elements",
            "simulated": run.elements,
            "derived": elements(nest, map),
        },
        {"quantity": "sums in an element", "simulated": "", "derived": sums},
        {"quantity": "values equal numpy's", "simulated": equal, "derived": ""},
    ]
