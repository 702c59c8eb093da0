"""A recipe put into a model's layers: elide, watch, record, meter, finalise."""

from elision.layers.elide import NoEffectWarning as NoEffectWarning
from elision.layers.elide import elidable_layers as elidable_layers
from elision.layers.elide import elide as elide
from elision.layers.elide import elided_layers as elided_layers
from elision.layers.elide import restore as restore
from elision.layers.extras import attach_extra as attach_extra
from elision.layers.extras import extra as extra
from elision.layers.meter import Work as Work
from elision.layers.meter import WorkMeter as WorkMeter
from elision.layers.meter import metered as metered
from elision.layers.modules import ELIDED as ELIDED
from elision.layers.modules import register as register
from elision.layers.modules.base import ElidedLayer as ElidedLayer
from elision.layers.modules.base import plan_of as plan_of
from elision.layers.modules.base import set_state as set_state
from elision.layers.modules.base import states_of as states_of
from elision.layers.modules.conv2d import ElidedConv2d as ElidedConv2d
from elision.layers.modules.linear import ElidedLinear as ElidedLinear
from elision.layers.observation import Observation as Observation
from elision.layers.observation import Observer as Observer
from elision.layers.recipe import Recipe as Recipe
from elision.layers.recipe import Table as Table
from elision.layers.record import record as record
from elision.layers.watch import Watch as Watch
from elision.layers.watch import watch as watch
