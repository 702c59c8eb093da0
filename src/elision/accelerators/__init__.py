"""Costs of products on machines that need not exist: one file per machine."""

from elision.accelerators.base import Accelerator as Accelerator
from elision.accelerators.base import Cost as Cost
from elision.accelerators.energy import EnergyTable as EnergyTable
from elision.accelerators.energy import energy_table as energy_table
from elision.accelerators.inner.dense import Dense as Dense
from elision.accelerators.inner.intersection import Intersection as Intersection
from elision.accelerators.inner.one_sided import OneSided as OneSided
from elision.accelerators.outer.ant import Ant as Ant
from elision.accelerators.outer.scnn import Scnn as Scnn
from elision.accelerators.spatial.array import SpatialArray as SpatialArray
from elision.accelerators.systolic.intergrad import InterGrad as InterGrad
from elision.accelerators.systolic.mixed import SystolicMixed as SystolicMixed
from elision.accelerators.systolic.sram import Buffers as Buffers
from elision.accelerators.systolic.systolic import Systolic as Systolic

#: Machines by their name on the command line.
ACCELERATORS: dict[str, type[Accelerator]] = {
    "ant": Ant,
    "dense": Dense,
    "intersection": Intersection,
    "one-sided": OneSided,
    "intergrad": InterGrad,
    "scnn": Scnn,
    "spatial": SpatialArray,
    "systolic": Systolic,
    "systolic-mixed": SystolicMixed,
}
