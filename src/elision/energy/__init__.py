"""Energy of work on this machine, measured or estimated, and of counted operations."""

from elision.energy.amount import Energy
from elision.energy.coefficients import Coefficients
from elision.energy.grid import GRIDS, Grid, grid_named, sci
from elision.energy.measure import Reading, measured
from elision.energy.meters import Meter, Nvml, Rapl, found_meters
from elision.energy.operations import (
    OperationEnergy,
    operation_energy,
    table_uncertainty,
    total_operations,
)

__all__ = [
    "GRIDS",
    "Coefficients",
    "Energy",
    "Grid",
    "Meter",
    "Nvml",
    "OperationEnergy",
    "Rapl",
    "Reading",
    "found_meters",
    "grid_named",
    "measured",
    "operation_energy",
    "sci",
    "table_uncertainty",
    "total_operations",
]
