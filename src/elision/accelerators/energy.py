"""Energy and area of single actions, as data: TOML files with units and sources.

A table prices *actions*. Arithmetic actions have a name of their own (``multiply``,
``add``, ``compare``). A memory action is priced by the memory's capacity: an SRAM by
interpolation between the table's capacities, a register file and the DRAM by their own
entries. All memory prices are per 32-bit word; an accelerator counts words.

A table has the keys ``name``, ``node_nm``, ``source``, ``register_pj``, ``dram_pj`` and
``sram_extended_kib``, and the tables ``energy_pj`` and ``area_um2`` (by action) and
``sram_pj`` (by capacity in KiB). Any other key is refused: a price under a misspelt name
would be left out in silence.
"""

import logging
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from elision.accelerators.narrow import derived
from elision.common.names import lookup
from elision.common.toml import from_toml

__all__ = [
    "TABLES",
    "EnergyTable",
    "checking_prices",
    "energy_table",
    "prices_unused",
    "shipped_text",
]

logger = logging.getLogger(__name__)

#: Capacity that marks a memory as off-chip DRAM or as a register, not an SRAM.
DRAM = math.inf
REGISTER = 0.0


@dataclass
class _Gaps:
    """What machines need and a table lacks, each named once."""

    actions: dict[str, None] = field(default_factory=dict)
    memories: dict[str, None] = field(default_factory=dict)
    areas: dict[str, None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.actions or self.memories or self.areas)

    def __str__(self) -> str:
        parts = [f"no {memory} price" for memory in self.memories]
        if self.actions:
            parts.insert(0, f"no price for the {_listed('action', self.actions)}")
        if self.areas:
            parts.append(f"areas, but none for {', '.join(map(repr, self.areas))}")
        return " and ".join(parts)


def _listed(noun: str, names: Iterable[str]) -> str:
    """``action 'add'``, or ``actions 'add', 'compare'``."""
    quoted = [repr(name) for name in names]
    return f"{noun}{'s' * (len(quoted) > 1)} {', '.join(quoted)}"


#: Gaps by table inside :func:`checking_prices`; None outside, where a gap is an error.
_found: ContextVar[dict[str, _Gaps] | None] = ContextVar("gaps", default=None)


#: True inside :func:`prices_unused`.
_unused: ContextVar[bool] = ContextVar("unused", default=False)


@contextmanager
def prices_unused() -> Iterator[None]:
    """Costs counted inside are not read for their energy: no price is warned of.

    Example:
        >>> table = EnergyTable("one size", 45, "example", {}, {}, {8.0: 4.0})
        >>> with prices_unused():
        ...     table.access_pj(4096)
        4.0
    """
    token = _unused.set(True)
    try:
        yield
    finally:
        _unused.reset(token)


@contextmanager
def checking_prices() -> Iterator[None]:
    """Collect what the tables lack over several machines, and raise it as one error.

    Inside, a price that is missing is 0: the costs counted there mean nothing.

    Raises:
        ValueError: at the end, if a table lacks a price or an area that was asked for;
            the message lists all of them.

    Example:
        >>> table = EnergyTable("flat", 45, "example", {"add": 0.9}, {}, {})
        >>> with checking_prices():
        ...     _ = table.action_pj("multiply"), table.access_pj(8)
        Traceback (most recent call last):
        ValueError: energy table 'flat' has no price for the action 'multiply' and no SRAM price
    """
    token = _found.set(found := {})
    try:
        yield
    finally:
        _found.reset(token)
    if found:
        raise ValueError(
            "; ".join(
                f"energy table {name!r} has {gaps}" for name, gaps in found.items()
            )
        )


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
        sram_extended_kib: capacities outside those of ``sram_pj`` to which the table
            extends its prices on purpose.

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
    sram_extended_kib: tuple[float, ...] = ()

    def action_pj(self, action: str) -> float:
        """Energy of one arithmetic action.

        Raises:
            ValueError: the table does not price it; the message names it.
        """
        return self.prices({action: action}, {})[action]

    def access_pj(self, size_kib: float) -> float:
        """Energy of one 32-bit access of a memory of ``size_kib``.

        A size of ``0`` means a register, ``inf`` the DRAM. Between the table's SRAM
        capacities the price is interpolated linearly in log capacity and log energy;
        outside them the nearest segment is extended, and the log warns of it, once for
        each capacity that is not in ``sram_extended_kib``.

        Raises:
            ValueError: the table has no price of that kind.
        """
        return self.prices({}, {"memory": size_kib})["memory.read"]

    def prices(
        self, actions: Mapping[str, str], memories: Mapping[str, float]
    ) -> dict[str, float]:
        """Price list of one machine: ``{count name: pJ}``.

        Args:
            actions: name of the machine's count -> action of the table.
            memories: name of the memory -> capacity in KiB, see :meth:`access_pj`; gives
                the entries ``"<memory>.read"`` and ``"<memory>.write"`` (priced alike).

        Raises:
            ValueError: the table lacks prices; the message lists all of them.
        """
        gaps = _Gaps()
        listed: dict[str, float] = {}
        for name, action in actions.items():
            price = self.energy_pj.get(action, derived(self.energy_pj, action))
            listed[name] = price or 0.0
            if price is None:
                gaps.actions[action] = None
        for memory, size_kib in memories.items():
            price = self._memory_pj(size_kib)
            if price is None:
                gaps.memories[_kind(size_kib)] = None
            listed[f"{memory}.read"] = listed[f"{memory}.write"] = price or 0.0
        if gaps:
            self._refuse(gaps, f"; it prices: {', '.join(self.energy_pj)}")
        elif not _unused.get():
            self._warn_of(size for size in memories.values() if _kind(size) == "SRAM")
        return listed

    def area_mm2(self, units: Mapping[str, float]) -> float | None:
        """Area of hardware units by action; None if the table has no areas.

        Args:
            units: action -> number of units.

        Raises:
            ValueError: the table has areas, but not of all of these units (named).
        """
        if not self.area_um2:
            return None
        areas = {
            unit: self.area_um2.get(unit, derived(self.area_um2, unit))
            for unit in units
        }
        missing = dict.fromkeys(unit for unit, area in areas.items() if area is None)
        if missing:
            self._refuse(_Gaps(areas=missing), f"; it has: {', '.join(self.area_um2)}")
        return sum(n * (areas[unit] or 0.0) for unit, n in units.items()) / 1e6

    def _refuse(self, gaps: _Gaps, known: str) -> None:
        """Raise ValueError for gaps, or keep them for :func:`checking_prices`."""
        found = _found.get()
        if found is None:
            raise ValueError(f"energy table {self.name!r} has {gaps}{known}")
        kept = found.setdefault(self.name, _Gaps())
        kept.actions |= gaps.actions
        kept.memories |= gaps.memories
        kept.areas |= gaps.areas

    def _warn_of(self, sizes_kib: Iterable[float]) -> None:
        """Warn of SRAMs outside the table's capacities, but for those it extends to."""
        low, high = min(self.sram_pj), max(self.sram_pj)
        for size in sizes_kib:
            if not low <= size <= high and size not in self.sram_extended_kib:
                _warn(self.name, size, low, high)

    def _memory_pj(self, size_kib: float) -> float | None:
        """Price of a memory; None if the table has none of its kind."""
        if size_kib in (REGISTER, DRAM):
            return self.register_pj if size_kib == REGISTER else self.dram_pj
        if not size_kib > 0:
            raise ValueError(f"a memory's size_kib must be positive, got {size_kib}")
        sizes = list(self.sram_pj)
        if not sizes:
            return None
        if len(sizes) == 1:
            return self.sram_pj[sizes[0]]
        upper = next((i for i, s in enumerate(sizes) if s >= size_kib), len(sizes) - 1)
        low, high = sizes[max(upper, 1) - 1], sizes[max(upper, 1)]
        slope = math.log(self.sram_pj[high] / self.sram_pj[low]) / math.log(high / low)
        return self.sram_pj[low] * (size_kib / low) ** slope


def _kind(size_kib: float) -> str:
    return {REGISTER: "register", DRAM: "DRAM"}.get(size_kib, "SRAM")


@cache
def _warn(table: str, size_kib: float, low: float, high: float) -> None:
    """Warn of an SRAM outside the table's capacities, once for each capacity."""
    logger.warning(
        "energy table %r prices SRAMs of %g to %g KiB; the price of one of %g KiB is "
        "extrapolated",
        *(table, low, high, size_kib),
    )


def energy_table(name_or_path: str | Path) -> EnergyTable:
    """Load a table that ships with the library by name, or a user's TOML file by path.

    Raises:
        ValueError: unknown name (lists the known ones), or a file that is not a table
            (names the entry that is missing, unknown or malformed).
    """
    text = str(name_or_path)
    if text.endswith(".toml"):
        path = Path(text)
        if not path.is_file():
            raise ValueError(f"energy table {path}: no such file")
        return _parse(path.read_text(encoding="utf-8"), str(path))
    return lookup("energy table", text, _shipped())


def shipped_text(name: str) -> str:
    """The file of a table that ships with the library: a start for a table of one's own.

    Raises:
        ValueError: unknown name (lists the known ones).

    Example:
        >>> shipped_text("horowitz-45nm").splitlines()[1]
        'name = "horowitz-45nm"'
    """
    return lookup("energy table", name, _texts())


#: Tables that ship with the library, by name.
TABLES = ("aladdin-40nm", "horowitz-45nm")


@cache
def _texts() -> dict[str, str]:
    """Shipped files by the name of the table."""
    folder = resources.files("elision.accelerators") / "tables"
    return {
        name: (folder / f"{name}.toml").read_text(encoding="utf-8") for name in TABLES
    }


@cache
def _shipped() -> dict[str, EnergyTable]:
    return {name: _parse(text, name) for name, text in _texts().items()}


@cache
def _actions() -> dict[str, None]:
    """Actions that the shipped tables price or give an area: those that machines count."""
    tables = [tomllib.loads(text) for text in _texts().values()]
    parts = [
        part for table in tables for part in (table["energy_pj"], table["area_um2"])
    ]
    return dict.fromkeys(action for part in parts for action in part)


_REQUIRED = ("name", "node_nm", "source", "energy_pj")
_KEYS: dict[str, None] = dict.fromkeys(
    (*_REQUIRED, "register_pj", "dram_pj", "sram_extended_kib", "area_um2", "sram_pj")
)


@lru_cache
def _parse(text: str, where: str) -> EnergyTable:
    """The table in a TOML text.

    Raises:
        ValueError: the text is not such a table; the message names ``where``.
    """
    try:
        data = from_toml(text)
    except ValueError as error:
        raise ValueError(f"energy table {where}: not TOML: {error}") from error
    missing = [key for key in _REQUIRED if key not in data]
    if missing:
        raise ValueError(f"energy table {where}: missing {', '.join(missing)}")
    try:
        for key in data:
            lookup("key", key, _KEYS)
        sram = {
            _capacity(capacity): _price("sram_pj", capacity, price, positive=True)
            for capacity, price in _table(data, "sram_pj").items()
        }
        return EnergyTable(
            name=_word(data, "name"),
            node_nm=_price("", "node_nm", data["node_nm"]),
            source=_word(data, "source"),
            energy_pj=_by_action(data, "energy_pj"),
            area_um2=_by_action(data, "area_um2"),
            sram_pj=dict(sorted(sram.items())),
            register_pj=_optional(data, "register_pj"),
            dram_pj=_optional(data, "dram_pj"),
            sram_extended_kib=_extended(data),
        )
    except ValueError as error:
        raise ValueError(f"energy table {where}: {error}") from error


def _table(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = data.get(name, {})
    if not isinstance(found, dict):
        raise ValueError(f"{name} must be a table, [{name}], got {found!r}")
    return found


def _by_action(data: Mapping[str, Any], name: str) -> dict[str, float]:
    found = _table(data, name)
    for action in found:
        lookup(f"action in [{name}]", action, _actions())
    return {action: _price("", action, price) for action, price in found.items()}


def _word(data: Mapping[str, Any], name: str) -> str:
    if not isinstance(data[name], str) or not data[name].strip():
        raise ValueError(f"{name} must be a text, got {data[name]!r}")
    return data[name]


def _optional(data: Mapping[str, Any], name: str) -> float | None:
    return _price("", name, data[name]) if name in data else None


def _capacity(text: str) -> float:
    """The key of an SRAM price, which TOML keeps as text: a capacity in KiB."""
    try:
        capacity = float(text)
    except ValueError:
        capacity = math.nan
    if not 0 < capacity < math.inf:
        raise ValueError(
            f"sram_pj: a key is a capacity in KiB, which must be positive, got {text!r}"
        )
    return capacity


def _price(table: str, name: str, price: Any, positive: bool = False) -> float:
    """A price, capacity or length: a finite number of at least zero, or above it."""
    if isinstance(price, bool) or not isinstance(price, (int, float)):
        raise ValueError(f"could not convert {name} = {price!r} to a number")
    if positive and not 0 < price < math.inf:
        # Read on a logarithmic scale.
        raise ValueError(
            f"{table}: capacity and price must be positive, got {name} = {price}"
        )
    if not 0 <= price < math.inf:
        raise ValueError(f"{name} must be a number >= 0, got {price!r}")
    return float(price)


def _extended(data: Mapping[str, Any]) -> tuple[float, ...]:
    """Capacities to which the table extends its SRAM prices."""
    given = data.get("sram_extended_kib", [])
    if not isinstance(given, list):
        raise ValueError(f"sram_extended_kib must be a list of KiB, got {given!r}")
    return tuple(_price("", "sram_extended_kib", size) for size in given)
