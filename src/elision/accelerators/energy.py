"""Energy and area of single actions, as data: TOML files with units and sources.

A table prices *actions*. Arithmetic actions have a name of their own (``multiply``,
``add``, ``compare``). A memory action is priced by the memory's capacity: an SRAM by
interpolation between the table's capacities, a register file and the DRAM by their own
entries. All memory prices are per 32-bit word; an accelerator counts words.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from elision.common.names import lookup

__all__ = ["EnergyTable", "energy_table"]

#: Capacity that marks a memory as off-chip DRAM or as a register, not an SRAM.
DRAM = math.inf
REGISTER = 0.0


@dataclass(frozen=True)
class EnergyTable:
    """Energy per action and area per unit of one technology.

    Attributes:
        name: short name, as in the file.
        node_nm: technology node.
        source: where the figures come from.
        energy_pj: energy of one arithmetic action.
        area_um2: area of one unit of that action's hardware.
        sram_pj: energy of one 32-bit access by capacity in KiB, in rising order.
        register_pj: energy of one 32-bit register access.
        dram_pj: energy of one 32-bit DRAM access.

    Example:
        >>> table = EnergyTable("flat", 45, "example", {"add": 0.9}, {}, {8.0: 4.0, 32.0: 8.0})
        >>> table.action_pj("add"), round(table.access_pj(16), 2)
        (0.9, 5.66)
    """

    name: str
    node_nm: float
    source: str
    energy_pj: Mapping[str, float]
    area_um2: Mapping[str, float]
    sram_pj: Mapping[float, float]
    register_pj: float | None = None
    dram_pj: float | None = None

    def action_pj(self, action: str) -> float:
        """Energy of one arithmetic action.

        Raises:
            ValueError: the table does not price it; the message names it.
        """
        if action not in self.energy_pj:
            raise ValueError(
                f"energy table {self.name!r} has no price for the action {action!r}; "
                f"it prices: {', '.join(self.energy_pj)}"
            )
        return self.energy_pj[action]

    def access_pj(self, size_kib: float) -> float:
        """Energy of one 32-bit access of a memory of ``size_kib``.

        A size of ``0`` means a register, ``inf`` the DRAM. Between the table's SRAM
        capacities the price is interpolated linearly in log capacity and log energy;
        outside them the nearest segment is extended.

        Raises:
            ValueError: the table has no price of that kind.
        """
        if size_kib in (REGISTER, DRAM):
            kind = "register" if size_kib == REGISTER else "dram"
            price = self.register_pj if size_kib == REGISTER else self.dram_pj
            if price is None:
                raise ValueError(f"energy table {self.name!r} has no {kind} price")
            return price
        if not size_kib > 0:
            raise ValueError(f"a memory's size_kib must be positive, got {size_kib}")
        sizes = list(self.sram_pj)
        if not sizes:
            raise ValueError(f"energy table {self.name!r} has no SRAM price")
        if len(sizes) == 1:
            return self.sram_pj[sizes[0]]
        upper = next((i for i, s in enumerate(sizes) if s >= size_kib), len(sizes) - 1)
        low, high = sizes[max(upper, 1) - 1], sizes[max(upper, 1)]
        slope = math.log(self.sram_pj[high] / self.sram_pj[low]) / math.log(high / low)
        return self.sram_pj[low] * (size_kib / low) ** slope

    def area_mm2(self, units: Mapping[str, float]) -> float:
        """Area of hardware units by action; 0 if the table has no areas.

        Args:
            units: action -> number of units.

        Raises:
            ValueError: the table has areas, but not of one of these units (named).
        """
        if not self.area_um2:
            return 0.0
        missing = next((unit for unit in units if unit not in self.area_um2), None)
        if missing is not None:
            raise ValueError(
                f"energy table {self.name!r} has areas, but none for {missing!r}; "
                f"it has: {', '.join(self.area_um2)}"
            )
        return sum(n * self.area_um2[unit] for unit, n in units.items()) / 1e6

    def prices(
        self, actions: Mapping[str, str], memories: Mapping[str, float]
    ) -> dict[str, float]:
        """Price list of one machine: ``{count name: pJ}``.

        Args:
            actions: name of the machine's count -> action of the table.
            memories: name of the memory -> capacity in KiB; gives the entries
                ``"<memory>.read"`` and ``"<memory>.write"`` (priced alike).
        """
        listed = {name: self.action_pj(action) for name, action in actions.items()}
        for memory, size_kib in memories.items():
            price = self.access_pj(size_kib)
            listed[f"{memory}.read"] = listed[f"{memory}.write"] = price
        return listed


def energy_table(name_or_path: str | Path) -> EnergyTable:
    """Load a table that ships with the library by name, or a user's TOML file by path.

    Raises:
        ValueError: unknown name (lists the known ones), or a file that is not a table
            (names the entry that is missing or malformed).
    """
    text = str(name_or_path)
    if text.endswith(".toml"):
        path = Path(text)
        if not path.is_file():
            raise ValueError(f"energy table {path}: no such file")
        return _parse(path.read_text(encoding="utf-8"), str(path))
    return lookup("energy table", text, _shipped())


@cache
def _shipped() -> dict[str, EnergyTable]:
    folder = resources.files("elision.accelerators") / "tables"
    files = sorted(folder.iterdir(), key=lambda f: f.name)
    tables = [
        _parse(f.read_text(encoding="utf-8"), f.name)
        for f in files
        if f.name.endswith(".toml")
    ]
    return {table.name: table for table in tables}


def _parse(text: str, where: str) -> EnergyTable:
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"energy table {where}: not TOML: {error}") from error
    missing = {"name", "node_nm", "source", "energy_pj"} - data.keys()
    if missing:
        raise ValueError(f"energy table {where}: missing {', '.join(sorted(missing))}")
    try:
        _check_prices(data)
        sram = {float(k): float(v) for k, v in data.get("sram_pj", {}).items()}
        return EnergyTable(
            name=str(data["name"]),
            node_nm=float(data["node_nm"]),
            source=str(data["source"]),
            energy_pj={k: float(v) for k, v in data["energy_pj"].items()},
            area_um2={k: float(v) for k, v in data.get("area_um2", {}).items()},
            sram_pj=dict(sorted(sram.items())),
            register_pj=data.get("register_pj"),
            dram_pj=data.get("dram_pj"),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"energy table {where}: {error}") from error


def _check_prices(data: Mapping[str, Any]) -> None:
    """Raise ValueError for a price that is not a finite number of at least zero."""
    single = {k: data[k] for k in ("register_pj", "dram_pj", "node_nm") if k in data}
    for section in (single, *(data.get(s, {}) for s in ("energy_pj", "area_um2"))):
        for name, price in section.items():
            if not 0 <= float(price) < math.inf:
                raise ValueError(f"{name} must be a number >= 0, got {price!r}")
    for capacity, price in data.get("sram_pj", {}).items():
        # Both are read on logarithmic scales.
        if not (0 < float(capacity) < math.inf and 0 < float(price) < math.inf):
            raise ValueError(
                f"sram_pj: capacity and price must be positive, got {capacity} = {price}"
            )
