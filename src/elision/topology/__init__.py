"""Moving masks: score x schedule x distribution x pattern x state, and who moves them.

A rule (:class:`Rule`) is a short file of data and one decision; :func:`attach` calls it
around every step of an optimiser.
"""

from elision.topology import work as work
from elision.topology.controller import Topology as Topology
from elision.topology.controller import attach as attach
from elision.topology.distribution import densities as densities
from elision.topology.install import UPDATES as UPDATES
from elision.topology.install import ScheduleWarning as ScheduleWarning
from elision.topology.install import UnattachedWarning as UnattachedWarning
from elision.topology.install import install as install
from elision.topology.move import Move as Move
from elision.topology.pattern import Block as Block
from elision.topology.pattern import Channel as Channel
from elision.topology.pattern import Filter as Filter
from elision.topology.pattern import KernelSlice as KernelSlice
from elision.topology.pattern import Pattern as Pattern
from elision.topology.pattern import Unstructured as Unstructured
from elision.topology.rule import Budget as Budget
from elision.topology.rule import Fixed as Fixed
from elision.topology.rule import Rule as Rule
from elision.topology.rules.backward_superset import (
    BackwardSuperset as BackwardSuperset,
)
from elision.topology.rules.blended import Blended as Blended
from elision.topology.rules.constant_fan_in import ConstantFanIn as ConstantFanIn
from elision.topology.rules.global_threshold import GlobalThreshold as GlobalThreshold
from elision.topology.rules.gradual import GradualPruning as GradualPruning
from elision.topology.rules.learned_thresholds import (
    LearnedThresholds as LearnedThresholds,
)
from elision.topology.rules.momentum_budget import MomentumBudget as MomentumBudget
from elision.topology.rules.prune_and_grow import PruneAndGrow as PruneAndGrow
from elision.topology.rules.rounded_updates import RoundedUpdates as RoundedUpdates
from elision.topology.rules.straight_through_decay import (
    StraightThroughDecay as StraightThroughDecay,
)
from elision.topology.run import Run as Run
from elision.topology.schedule import CubicSparsity as CubicSparsity
from elision.topology.schedule import DropFraction as DropFraction
from elision.topology.schedule import Periodic as Periodic
from elision.topology.weights import SparseWeight as SparseWeight
