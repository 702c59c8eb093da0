"""Sweep: many machines on many networks, in parallel, resumable.

A sweep is the product of networks, sparsities and machines; a recorded trace stands for
a network at one sparsity, its own. The unit of work is one network at one sparsity: its
operands are drawn once and every machine counts them; with more processes than units, a
unit is split by machine. Rows go to one CSV file, all rows of a unit in one append: a
sweep that was killed continues, and gives the rows of one that was not.
"""

import csv
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from elision.accelerators.base import QUANTITIES, Cost
from elision.accelerators.design.grid import Machine, machines
from elision.accelerators.step import (
    PRODUCT_NAMES,
    job_cost,
    job_name,
    jobs,
    paired,
)
from elision.common.checks import number
from elision.common.columns import Column
from elision.common.files import replacing
from elision.common.workers import spread
from elision.products import Geometry, LayerProduct, Product, Trace, synthetic_products

__all__ = [
    "COLUMNS",
    "Machine",
    "Recorded",
    "as_cells",
    "as_frame",
    "machines",
    "read_rows",
    "sweep",
]

Layers = Sequence[tuple[str, Geometry]]

#: Columns of the CSV file. ``parameters`` is a JSON object; ``product`` is one of the
#: three products, both gradients on a machine that interleaves them, or ``"all"``;
#: ``sparsity`` is empty for recorded operands, ``stall_cycles`` for a machine that does not
#: model its DRAM. The last ones are quantities of a cost.
COLUMNS: tuple[str, ...] = (
    "network",
    "sparsity",
    "seed",
    "accelerator",
    "parameters",
    "product",
    "cycles",
    "stall_cycles",
    "dense_macs",
    "multiplies",
    "valid_multiplies",
    "redundant_multiplies",
    "utilisation",
    "energy_pj",
    "area_mm2",
)

#: Columns that identify the rows of one unit on one machine.
_KEY = COLUMNS[:5]

#: Columns that hold text; all others hold numbers.
_TEXT = ("network", "accelerator", "parameters", "product")


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


@dataclass(frozen=True)
class _Unit:
    """One network at one sparsity, and the machines whose rows are missing.

    ``sparsity`` and ``seed`` of a trace are None.
    """

    network: str
    source: Layers | Recorded
    sparsity: float | None
    seed: int | None
    machines: tuple[Machine, ...]

    def _products(self) -> Iterable[LayerProduct]:
        if isinstance(self.source, Recorded):
            return self.source.products()
        assert self.sparsity is not None
        assert self.seed is not None
        return synthetic_products(self.source, self.sparsity, self.seed)

    def rows(self) -> list[dict[str, Any]]:
        """Rows of every machine: one per product, then all of them together."""
        built = [machine.build() for machine in self.machines]
        costs = [defaultdict[str, Cost](Cost) for _ in built]
        macs = [defaultdict[str, int](int) for _ in built]
        for together in paired(self._products()):
            for accelerator, cost, work in zip(built, costs, macs, strict=True):
                for job in jobs(accelerator, together):
                    name = job_name(job)
                    cost[name] += job_cost(accelerator, job)
                    work[name] += sum(product.dense_macs for product in job)
        rows = []
        for machine, cost, work in zip(self.machines, costs, macs, strict=True):
            for name in sorted(cost, key=PRODUCT_NAMES.index):
                rows.append(self._row(machine, name, work[name], cost[name]))
            total = sum(cost.values(), start=Cost())
            rows.append(self._row(machine, "all", sum(work.values()), total))
        return rows

    def key(self, machine: Machine) -> tuple[str, ...]:
        """Values of the key columns for the rows of one machine, as text."""
        parameters = machine.parameters_json
        given = (self.network, self.sparsity, self.seed, machine.name, parameters)
        return tuple("" if value is None else str(value) for value in given)

    def without(self, done: set[tuple[str, ...]]) -> list["_Unit"]:
        """The unit less the machines whose rows are done; empty if all are."""
        missing = tuple(m for m in self.machines if self.key(m) not in done)
        return [replace(self, machines=missing)] if missing else []

    def parts(self, number: int) -> list["_Unit"]:
        """Split by machine into at most ``number`` parts."""
        shares = [self.machines[i::number] for i in range(number)]
        return [replace(self, machines=share) for share in shares if share]

    def _row(
        self, machine: Machine, product: str, macs: int, cost: Cost
    ) -> dict[str, Any]:
        row = dict(zip(_KEY, self.key(machine), strict=True))
        row |= {"product": product, "dense_macs": macs}
        return row | {name: getattr(cost, name) for name in COLUMNS if name not in row}


def sweep(
    networks: Mapping[str, Layers | Recorded],
    sparsities: Iterable[float],
    chosen: Iterable[Machine],
    out: str | Path,
    *,
    seed: int = 0,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Count every network at every sparsity on every machine.

    Args:
        networks: name -> layers, from a model, a topology file or a graph; or a
            recorded trace, which is counted once, with the operands that it holds.
        sparsities: share of zeros in every operand, at uniform random positions.
        chosen: from :func:`machines`.
        out: CSV file; rows found there are kept and not counted again.
        seed: of the operands.
        workers: processes; None: one for each processor; 1: this process alone.
        executor: runs the units elsewhere, for example on a cluster; it stays open. The
            work is then split for ``workers`` processes there.
        progress: called with (units done, units in all).

    Returns:
        ``out`` as a path.

    Raises:
        ValueError: ``out`` is another kind of file or holds rows of another network of
            the same name, or a machine or sparsity is out of range.
    """
    path, chosen = Path(out), tuple(chosen)
    units = list(_units(networks, tuple(sparsities), seed, chosen))
    found = _tidy(path)
    _check_networks(networks, found, path)
    done = {tuple(row[c] for c in _KEY) for row in found}
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
        _append(path, rows)
        if progress:
            progress(finished, len(units))
    return path


def _units(
    networks: Mapping[str, Layers | Recorded],
    sparsities: Sequence[float],
    seed: int,
    chosen: tuple[Machine, ...],
) -> Iterator[_Unit]:
    for sparsity in sparsities:
        number("sweep", "sparsity", sparsity, "[0, 1)")
    for network, source in networks.items():
        if isinstance(source, Recorded):
            yield _Unit(network, source, None, None, chosen)
            continue
        for sparsity in sparsities:
            yield _Unit(network, tuple(source), sparsity, seed, chosen)


def _check_networks(
    networks: Mapping[str, Layers | Recorded],
    rows: Iterable[Mapping[str, str]],
    path: Path,
) -> None:
    """Raise ValueError for rows of other layers, another image size or batch."""
    macs = {
        name: len(Product) * sum(geometry.dense_macs for _, geometry in layers)
        for name, layers in networks.items()
        if not isinstance(layers, Recorded)
    }
    for row in rows:
        expected = macs.get(row["network"])
        if row["product"] != "all" or expected in (None, int(row["dense_macs"])):
            continue
        raise ValueError(
            f"{path}: its rows of {row['network']!r} are of other layers, images or "
            f"batch ({int(row['dense_macs']):,} multiply-accumulates, not "
            f"{expected:,}); choose another file"
        )


def _append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append the rows of one unit with a single write."""
    with path.open("a", newline="", encoding="utf-8", buffering=2**24) as file:
        csv.DictWriter(file, COLUMNS).writerows(rows)


def _tidy(path: Path) -> list[dict[str, str]]:
    """Complete rows of the file, each once; creates the file or drops its torn end."""
    rows = read_rows(path) if path.exists() and path.stat().st_size else []
    unique = {tuple(row[c] for c in (*_KEY, "product")): row for row in rows}
    whole = {key[:-1] for key in unique if key[-1] == "all"}
    rows = [row for key, row in unique.items() if key[:-1] in whole]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return rows


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """Rows of a sweep's CSV file, as text; a torn last line is left out.

    Raises:
        ValueError: the file has other columns.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        text = file.read()
    complete = text[: text.rfind("\n") + 1]
    reader = csv.DictReader(complete.splitlines())
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise ValueError(f"{path}: not a sweep's file, its columns are not {COLUMNS}")
    return [row for row in reader if None not in row.values()]


def as_cells(row: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Quantities of a row of :func:`read_rows`, as people read them.

    Args:
        row: values as text.
        names: quantities of a cost that are columns of the file.

    Example:
        >>> as_cells({"cycles": "12345", "stall_cycles": ""}, ("cycles", "stall_cycles"))
        {'cycles': '12,345', 'stalls': ''}
    """
    return {_READ[n].heading: _READ[n].text(_number(row[n])) for n in names}


#: Quantities of a sweep for people; single layers need the decimal of their energy.
_READ: Mapping[str, Column] = {
    **QUANTITIES,
    "energy_pj": replace(QUANTITIES["energy_pj"], form=",.1f"),
}


def _number(text: str) -> float | None:
    """The number in a cell of the file; None for an empty one."""
    if not text:
        return None
    return int(text) if text.isdigit() else float(text)


def as_frame(path: str | Path) -> Any:
    """The rows as a pandas ``DataFrame``; needs pandas, which is not a dependency.

    Raises:
        ImportError: pandas is not installed.
        ValueError: the file is not a sweep's.
    """
    import pandas  # pyright: ignore[reportMissingImports]

    frame = pandas.DataFrame(read_rows(path))
    for column in (c for c in COLUMNS if c not in _TEXT):
        frame[column] = pandas.to_numeric(frame[column])
    return frame
