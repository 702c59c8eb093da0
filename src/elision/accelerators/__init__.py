"""What a product costs on a machine that need not exist: one file per machine."""

from elision.accelerators.ant import Ant as Ant
from elision.accelerators.base import Accelerator as Accelerator
from elision.accelerators.base import Cost as Cost
from elision.accelerators.dense import Dense as Dense
from elision.accelerators.energy import EnergyTable as EnergyTable
from elision.accelerators.energy import energy_table as energy_table
from elision.accelerators.scnn import Scnn as Scnn

#: Names by which the command line knows the machines.
ACCELERATORS: dict[str, type[Accelerator]] = {
    "ant": Ant,
    "dense": Dense,
    "scnn": Scnn,
}
