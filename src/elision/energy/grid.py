"""Electricity from the wall to carbon dioxide: PUE, grid intensity, SCI."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from elision.common.checks import number
from elision.common.names import lookup
from elision.common.units import in_words
from elision.energy.amount import Energy

__all__ = ["GRIDS", "Grid", "grid_named", "sci"]

#: Uptime Institute, Global Data Center Survey 2025: weighted average of the respondents'
#: largest data centres.
AVERAGE_PUE = 1.54
_PUE_SOURCE = "PUE: average of the Uptime Institute's Global Data Center Survey 2025"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Factors from the energy of the machine to that of the building and to CO2e.

    ``kWh = E_IT · PUE / 3.6e6`` with ``E_IT`` in joules, and
    ``g CO2e = kWh · intensity``.

    Attributes:
        pue: power usage effectiveness, energy of the building over that of its machines;
            1 for a machine without any.
        intensity_g_per_kwh: grams of CO2 equivalent a kWh from the grid.
        source: of both figures, with the year.

    Raises:
        ValueError: a PUE below 1, an intensity below 0, or no source.

    Example:
        >>> grid = Grid(pue=1.2, intensity_g_per_kwh=400, source="example")
        >>> hour = Energy(18000, 18000, ("5 W for an hour",), "process")
        >>> grid.kwh(hour), grid.grams(hour)
        ((0.006, 0.006), (2.4, 2.4))
    """

    pue: float
    intensity_g_per_kwh: float
    source: str

    def __post_init__(self) -> None:
        number("Grid", "pue", self.pue, ">= 1")
        number("Grid", "intensity_g_per_kwh", self.intensity_g_per_kwh, ">= 0")
        if not self.source.strip():
            raise ValueError("Grid(source=''): say where the figures come from")

    def kwh(self, energy: Energy) -> tuple[float, float]:
        """Lowest and highest electricity of the building for this energy, in kWh."""
        low, high = energy.low_joules, energy.high_joules
        return low * self.pue / 3.6e6, high * self.pue / 3.6e6

    def grams(self, energy: Energy) -> tuple[float, float]:
        """Lowest and highest CO2e of this energy, in grams."""
        low, high = self.kwh(energy)
        return low * self.intensity_g_per_kwh, high * self.intensity_g_per_kwh

    def text(self, energy: Energy) -> str:
        """Electricity and CO2e of this energy in words, with its method.

        Example:
            >>> hour = Energy(18000, 18000, ("RAPL",), "machine")
            >>> Grid(pue=1.2, intensity_g_per_kwh=400, source="example").text(hour)
            '6 Wh from the wall, 2.4 g CO2e (RAPL; machine; PUE 1.2, 400 g/kWh (example))'
        """
        methods = ", ".join(energy.methods)
        return f"{self.amounts(energy)} ({methods}; {energy.scope}; {self})"

    def amounts(self, energy: Energy) -> str:
        """Electricity and CO2e alone, where method and factors stand beside them.

        Example:
            >>> hour = Energy(18000, 36000, ("estimated",), "process")
            >>> Grid(pue=1.2, intensity_g_per_kwh=400, source="example").amounts(hour)
            '6 to 12 Wh from the wall, 2.4 to 4.8 g CO2e'
        """
        low, high = (1000 * kwh for kwh in self.kwh(energy))
        grams = in_words(*self.grams(energy), "g")
        return f"{in_words(low, high, 'Wh')} from the wall, {grams} CO2e"

    def __str__(self) -> str:
        """Both factors and their source."""
        source = self.source.strip()
        return f"PUE {self.pue:g}, {self.intensity_g_per_kwh:g} g/kWh ({source})"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


_EMBER = "intensity: Ember, Global Electricity Review 2025, of 2024"
_OWID = "intensity: Our World in Data from Ember and the Energy Institute, of 2023"


def _grid(intensity: float, source: str) -> Grid:
    return Grid(
        pue=AVERAGE_PUE,
        intensity_g_per_kwh=intensity,
        source=f"{_PUE_SOURCE}; {source}",
    )


#: Mean grids by name; lifecycle emissions a kWh generated, whole years. The first is the
#: default.
GRIDS: dict[str, Grid] = {
    "world": _grid(473, _EMBER),
    "china": _grid(582, _OWID),
    "france": _grid(56, _OWID),
    "germany": _grid(381, _OWID),
    "india": _grid(713, _OWID),
    "uk": _grid(238, _OWID),
    "us": _grid(369, _OWID),
}


def grid_named(grid: str | float | None = None, pue: float | None = None) -> Grid:
    """The grid that a person gave, or the stated default.

    Args:
        grid: a name of :data:`GRIDS`, or the intensity in g/kWh (a number, or a text that
            is one); None: ``"world"``.
        pue: power usage effectiveness; None: the stated average.

    Raises:
        ValueError: an unknown name (lists the known ones), or a number out of range.

    Example:
        >>> grid_named("400", pue=1.2).source
        'PUE given; intensity given'
        >>> grid_named("france").intensity_g_per_kwh
        56
    """
    given = _number(grid)
    if given is None:
        found = lookup("grid", "world" if grid is None else str(grid), GRIDS)
    else:
        found = _grid(given, "intensity given")
    if pue is None:
        return found
    source = found.source.replace(_PUE_SOURCE, "PUE given")
    return replace(found, pue=pue, source=source)


def _number(grid: str | float | None) -> float | None:
    """The intensity that was given as a number."""
    if grid is None:
        return None
    try:
        return float(grid)
    except ValueError:
        return None


def sci(
    energy: Energy, grid: Grid, *, embodied_g: float, units: float
) -> tuple[float, float]:
    """Software carbon intensity: grams of CO2e for each unit of what was done.

    ``SCI = (E · I + M) / R`` (Green Software Foundation, ISO/IEC 21031:2024), with ``E``
    the electricity in kWh, PUE included, ``I`` the grid's intensity, ``M`` the share of
    the hardware's own making, ``R`` the functional units.

    Args:
        energy: of the work.
        grid: PUE and intensity.
        embodied_g: grams of CO2e of making the hardware, its share for this work; no
            default, since no figure holds for an unknown machine.
        units: examples, epochs, trained networks: whatever the reader counts.

    Returns:
        Lowest and highest.

    Raises:
        ValueError: a negative embodied share, or no unit.

    Example:
        >>> hour = Energy(18000, 18000, ("5 W for an hour",), "process")
        >>> grid = Grid(pue=1.2, intensity_g_per_kwh=400, source="example")
        >>> sci(hour, grid, embodied_g=0.6, units=10)
        (0.3, 0.3)
    """
    number("sci", "embodied_g", embodied_g, ">= 0")
    number("sci", "units", units, "> 0")
    low, high = grid.grams(energy)
    return (low + embodied_g) / units, (high + embodied_g) / units
