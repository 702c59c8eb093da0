"""Spatial arrays: loop nests, the maps that turn them into arrays, and what these cost."""

from elision.accelerators.spatial.array import SpatialArray as SpatialArray
from elision.accelerators.spatial.buffers import Buffer as Buffer
from elision.accelerators.spatial.buffers import IoNetwork as IoNetwork
from elision.accelerators.spatial.buffers import Stage as Stage
from elision.accelerators.spatial.enumerate import Mapping as Mapping
from elision.accelerators.spatial.enumerate import mappings as mappings
from elision.accelerators.spatial.legality import Verdict as Verdict
from elision.accelerators.spatial.legality import legal as legal
from elision.accelerators.spatial.map import SpaceTimeMap as SpaceTimeMap
from elision.accelerators.spatial.nest import Access as Access
from elision.accelerators.spatial.nest import LoopNest as LoopNest
from elision.accelerators.spatial.schedule import Schedule as Schedule
from elision.accelerators.spatial.simulate import Run as Run
