"""Sweep: many machines on many networks, in parallel, resumable.

A sweep is the product of networks, sparsities and machines; a recorded trace stands for
a network at one sparsity, its own. The unit of work is one network at one sparsity: its
operands are drawn once and every machine that looks at values counts them; a value-blind
machine is given the shapes alone. With more processes than units, a unit is split by
machine. Rows go to one file, all rows of a unit at once
(:mod:`elision.accelerators.design.rows`): a sweep that was killed continues, and gives the
rows of one that was not.
"""

import hashlib
import logging
import math
import multiprocessing
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path

from elision.accelerators.base import Cost
from elision.accelerators.design.grid import Machine, machines
from elision.accelerators.design.rows import (
    ALL,
    COLUMNS,
    SPARSITIES,
    Row,
    RowFile,
    as_cells,
    as_frame,
    parameter_columns,
    read_rows,
)
from elision.accelerators.step import (
    PRODUCT_NAMES,
    blind_products,
    check_layers,
    job_cost,
    job_name,
    jobs,
    paired,
    training_products,
)
from elision.common.checks import integer, number
from elision.common.names import lookup
from elision.common.workers import spread
from elision.products import OPERANDS, Geometry, LayerProduct, Trace, synthetic_products

__all__ = [
    "COLUMNS",
    "Machine",
    "Recorded",
    "as_cells",
    "as_frame",
    "machines",
    "read_rows",
    "shares_by_operand",
    "sweep",
    "swept_rows",
]

logger = logging.getLogger(__name__)

Layers = Sequence[tuple[str, Geometry]]

#: Share of zeros of all operands, or by operand; an operand that is not named is dense.
Sparsity = float | Mapping[str, float]


#: Columns of a row that a trace leaves empty.
_DRAWN = ("sparsity", *SPARSITIES, "seed", "first_input_grad")


@dataclass(frozen=True)
class Recorded:
    """Products of a trace file, in place of a network's layers.

    Attributes:
        path: the file.
        recipe: only the products of this recipe; empty for all.

    Example:
        >>> Recorded("runs/study/trace.safetensors", recipe="swat").recipe
        'swat'
    """

    path: str
    recipe: str = ""

    def products(self) -> Iterable[LayerProduct]:
        """The recorded products, as a machine multiplies them.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not a trace, or it is truncated.
        """
        trace = Trace.load(self.path)
        return (trace.of_recipe(self.recipe) if self.recipe else trace).multiplied()

    @property
    def content(self) -> str:
        """A digest of the file, and the recipe.

        Raises:
            FileNotFoundError: there is no such file.
        """
        if not Path(self.path).is_file():
            raise FileNotFoundError(f"{self.path}: no such trace file")
        with Path(self.path).open("rb") as file:
            return f"{hashlib.file_digest(file, 'sha256').hexdigest()} {self.recipe}"

    @property
    def columns(self) -> Row:
        """Its cells in a row: operands of no sparsity and no seed of ours."""
        return dict.fromkeys(_DRAWN, "")


@dataclass(frozen=True)
class _Drawn:
    """A network with random operands.

    Attributes:
        layers: its layers.
        sparsities: share of zeros by operand, in the order of ``OPERANDS``.
        seed: of the operands.
        first_input_grad: True if the first layer's input gradient counts, too.
    """

    layers: tuple[tuple[str, Geometry], ...]
    sparsities: tuple[float, ...]
    seed: int
    first_input_grad: bool

    def products(self) -> Iterable[LayerProduct]:
        """The products of a training step with their operands."""
        drawn: dict[str, float] = dict(zip(OPERANDS, self.sparsities, strict=True))
        products = synthetic_products(self.layers, drawn, self.seed)
        return training_products(products, self.first_input_grad)

    def shapes(self) -> Iterable[LayerProduct]:
        """The same products without operands."""
        return blind_products(self.layers, self.first_input_grad)

    @property
    def content(self) -> str:
        """All that its costs depend on."""
        return repr(self)

    @property
    def columns(self) -> Row:
        """Its cells in a row."""
        by_operand = {
            f"{operand}_sparsity": str(share)
            for operand, share in zip(OPERANDS, self.sparsities, strict=True)
        }
        uniform = len({*self.sparsities}) == 1
        return {
            "sparsity": str(self.sparsities[0]) if uniform else "",
            **by_operand,
            "seed": str(self.seed),
            "first_input_grad": "yes" if self.first_input_grad else "no",
        }


@dataclass(frozen=True)
class _Unit:
    """One network at one sparsity, and the machines whose rows are missing.

    Attributes:
        network: name of the network.
        source: of its products.
        contents: machine -> digest of all that its rows depend on.
    """

    network: str
    source: _Drawn | Recorded
    contents: Mapping[Machine, str]

    def rows(self) -> list[Row]:
        """Rows of every machine: one a layer and product, then all of them together.

        Layers of one name share their rows.

        Raises:
            ValueError: there is no product, or operands that a machine refuses.
        """
        if multiprocessing.parent_process() is not None:  # it has been told there
            logging.getLogger("elision.accelerators.energy").setLevel(logging.ERROR)
        counts = [_Count(self, machine) for machine in self.contents]
        blind = [c for c in counts if c.built.value_blind]
        seeing = [c for c in counts if not c.built.value_blind]
        if isinstance(self.source, Recorded):
            blind, seeing = [], counts
        else:
            _count(self.source.shapes(), blind)
        if seeing:
            _count(self.source.products(), seeing)
        return [row for count in counts for row in count.rows()]

    @property
    def identity(self) -> Row:
        """Cells that name the unit."""
        return {"network": self.network} | self.source.columns

    def without(self, done: set[str]) -> list["_Unit"]:
        """The unit less the machines whose rows are done; empty if all are."""
        missing = {
            m: content for m, content in self.contents.items() if content not in done
        }
        return [replace(self, contents=missing)] if missing else []

    def parts(self, number: int) -> list["_Unit"]:
        """Split by machine into at most ``number`` parts."""
        shares = [dict([*self.contents.items()][i::number]) for i in range(number)]
        return [replace(self, contents=share) for share in shares if share]


class _Count:
    """Costs of one unit on one machine, by layer and product."""

    def __init__(self, unit: _Unit, machine: Machine) -> None:
        self._unit, self._machine = unit, machine
        self.built = machine.build()
        self._costs = defaultdict[tuple[str, str], Cost](Cost)
        self._macs = defaultdict[tuple[str, str], int](int)

    def add(self, together: tuple[LayerProduct, ...]) -> None:
        """Count one product, or the two gradients of a layer."""
        for job in jobs(self.built, together):
            key = job[0].name, job_name(job)
            self._costs[key] += job_cost(self.built, job)
            self._macs[key] += sum(product.dense_macs for product in job)

    def rows(self) -> Iterator[Row]:
        if not self._costs:
            raise ValueError(f"{self._unit.network}: no product to cost")
        order = list(dict.fromkeys(layer for layer, _ in self._costs))
        for key in sorted(
            self._costs, key=lambda k: (order.index(k[0]), PRODUCT_NAMES.index(k[1]))
        ):
            yield self._row(*key, self._macs[key], self._costs[key])
        total = sum(self._costs.values(), start=Cost())
        yield self._row(ALL, ALL, sum(self._macs.values()), total)

    def _row(self, layer: str, product: str, macs: int, cost: Cost) -> Row:
        found = {
            **self._unit.identity,
            "accelerator": self._machine.name,
            "machine": self._machine.spec,
            "multiplier_count": self.built.multiplier_count,
            "layer": layer,
            "product": product,
            "dense_macs": macs,
            **{name: getattr(cost, name) for name in _QUANTITIES},
            "energy_pj": None if cost.energy_dram_pj is None else cost.energy_pj,
            "notes": " ".join(cost.notes),
            "content": self._unit.contents[self._machine],
        }
        cells = {name: found.get(name) for name in COLUMNS}
        text = {n: "" if value is None else str(value) for n, value in cells.items()}
        return text | parameter_columns(self._machine.parameters)


#: Columns that are quantities of a cost.
_QUANTITIES = (
    "cycles",
    "stall_cycles",
    "multiplies",
    "valid_multiplies",
    "redundant_multiplies",
    "multiplier_slots",
    "utilisation",
    "energy_on_chip_pj",
    "energy_dram_pj",
    "area_mm2",
)


def _count(products: Iterable[LayerProduct], counts: Sequence[_Count]) -> None:
    for together in paired(products):
        for count in counts:
            count.add(together)


def sweep(
    networks: Mapping[str, Layers | Recorded],
    sparsities: Iterable[Sparsity],
    chosen: Iterable[Machine],
    out: str | Path,
    *,
    seed: int = 0,
    first_input_grad: bool = False,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Count a training step of every network at every sparsity on every machine.

    Args:
        networks: name -> layers, from a model, a topology file or a graph; or a
            recorded trace, which is counted once, with the operands that it holds.
        sparsities: share of zeros of all operands, at uniform random positions, or of
            each by its name; equal ones are counted once.
        chosen: from :func:`machines`.
        out: CSV file, or JSON if its name ends in ``.json``. Rows found there are kept and
            not counted again; rows of the same name that were counted from something else
            (an edited file or energy table, another version) are counted again.
        seed: of the operands.
        first_input_grad: True counts an input gradient of the first layer, which training
            does not compute. A trace holds what was computed.
        workers: processes; None: one for each processor; 1: this process alone.
        executor: runs the units elsewhere, for example on a cluster; it stays open. The
            work is then split for ``workers`` processes there.
        progress: called with (units done, units in all).

    Returns:
        ``out`` as a path.

    Raises:
        ValueError: ``out`` is another kind of file or holds rows of another network of
            the same name, a network has no layers, or a machine, a sparsity or the number
            of workers is out of range.
    """
    if workers is not None:
        integer("sweep", "workers", workers)
    units = _units(networks, sparsities, chosen, seed, first_input_grad)
    if not any(unit.contents for unit in units):
        raise ValueError("sweep: give a network, a sparsity and a machine at least")
    file = RowFile(out)
    _check_networks(units, file)
    _replace_stale(units, file)
    done = file.contents()
    units = [unit for whole in units for unit in whole.without(done)]
    workers = workers or os.cpu_count() or 1
    if 0 < len(units) < workers:
        shares = math.ceil(workers / len(units))
        units = [part for unit in units for part in unit.parts(shares)]
    if progress:
        progress(0, len(units))
    for finished, rows in enumerate(
        spread([unit.rows for unit in units], workers, executor), 1
    ):
        file.add(rows)
        if progress:
            progress(finished, len(units))
    return file.path


def swept_rows(
    networks: Mapping[str, Layers | Recorded],
    sparsities: Iterable[Sparsity],
    chosen: Iterable[Machine],
    out: str | Path,
    *,
    seed: int = 0,
    first_input_grad: bool = False,
) -> list[list[Row]]:
    """Rows of a sweep from its file, which may hold others: a list a unit and machine.

    Args and errors are those of :func:`sweep`; the order is that of its arguments.
    """
    found = defaultdict[str, list[Row]](list)
    for row in read_rows(out):
        found[row["content"]].append(row)
    units = _units(networks, sparsities, chosen, seed, first_input_grad)
    return [found[content] for unit in units for content in unit.contents.values()]


def shares_by_operand(sparsity: Sparsity) -> dict[str, float]:
    """Share of zeros of every operand; one that is not named is dense.

    Raises:
        ValueError: an unknown operand, or a share outside [0, 1).

    Example:
        >>> shares_by_operand({"weight": 0.9})
        {'input': 0.0, 'weight': 0.9, 'grad_output': 0.0}
    """
    if not isinstance(sparsity, Mapping):
        sparsity = dict.fromkeys(OPERANDS, sparsity)
    for operand, share in sparsity.items():
        lookup("operand", operand, dict.fromkeys(OPERANDS))
        number("sweep", "sparsity", share, "[0, 1)")
    # Adding zero makes -0 the zero that it equals.
    return {operand: float(sparsity.get(operand, 0)) + 0.0 for operand in OPERANDS}


def _units(
    networks: Mapping[str, Layers | Recorded],
    sparsities: Iterable[Sparsity],
    chosen: Iterable[Machine],
    seed: int,
    first_input_grad: bool,
) -> list[_Unit]:
    """The units in the order of the arguments, equal ones once."""
    shares = dict.fromkeys(tuple(shares_by_operand(s).values()) for s in sparsities)
    machines = {machine: machine.content for machine in chosen}
    units: list[_Unit] = []

    def add(network: str, source: _Drawn | Recorded) -> None:
        common = (_version(), network, source.content)
        contents = {m: _digest(*common, m.spec, text) for m, text in machines.items()}
        units.append(_Unit(network, source, contents))

    for network, source in networks.items():
        if isinstance(source, Recorded):
            add(network, source)
            continue
        try:
            layers = tuple(check_layers(source))
        except ValueError as error:
            raise ValueError(f"{network}: {error}") from error
        for share in shares:
            add(network, _Drawn(layers, share, seed, first_input_grad))
    return units


@cache
def _version() -> str:
    """Version of what counts: a digest of the code of the machines and the products."""
    digest = hashlib.sha256()
    for package in ("elision.accelerators", "elision.products"):
        root = resources.files(package)
        with resources.as_file(root) as folder:
            for path in sorted(folder.rglob("*.py")):
                digest.update(path.read_bytes())
    return digest.hexdigest()


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _check_networks(units: Iterable[_Unit], file: RowFile) -> None:
    """Raise ValueError for rows of other layers, another image size or batch.

    They are another experiment under the same name, not an edited one.
    """
    macs = {
        (unit.network, unit.identity["first_input_grad"]): sum(
            product.dense_macs for product in unit.source.shapes()
        )
        for unit in units
        if isinstance(unit.source, _Drawn)
    }
    for row in file.rows:
        expected = macs.get((row["network"], row["first_input_grad"]))
        if row["product"] != ALL or expected in (None, int(row["dense_macs"])):
            continue
        raise ValueError(
            f"{file.path}: its rows of {row['network']!r} are of other layers, images or "
            f"batch ({int(row['dense_macs']):,} multiply-accumulates, not "
            f"{expected:,}); choose another file"
        )


def _replace_stale(units: Iterable[_Unit], file: RowFile) -> None:
    """Remove rows that have the names of this sweep's and were counted from other things."""
    names = ("network", *_DRAWN, "machine")
    expected = {
        tuple((unit.identity | {"machine": machine.spec})[n] for n in names): content
        for unit in units
        for machine, content in unit.contents.items()
    }
    stale: dict[str, str] = {}
    for row in file.rows:
        content = row["content"]
        if expected.get(tuple(row[name] for name in names), content) != content:
            stale[content] = row["network"]
    if stale:
        logger.warning(
            "%s: its rows of %s were counted from something else, and are counted again",
            file.path,
            ", ".join(dict.fromkeys(stale.values())),
        )
    file.remove(stale)
