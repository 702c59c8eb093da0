"""Energy of work on this machine, measured or estimated, and of counted operations."""

from elision.energy.amount import Energy
from elision.energy.coefficients import Coefficients
from elision.energy.grid import GRIDS, Grid, grid_named, sci
from elision.energy.measure import Reading, measured
from elision.energy.meters import Meter, Nvml, Rapl, found_meters

__all__ = [
    "GRIDS",
    "Coefficients",
    "Energy",
    "Grid",
    "Meter",
    "Nvml",
    "Rapl",
    "Reading",
    "found_meters",
    "grid_named",
    "measured",
    "sci",
]
