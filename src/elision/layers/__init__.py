"""A recipe put into a model's layers: elide, watch, record, meter, finalise."""

from elision.layers.between.replace import replaced_functions as replaced_functions
from elision.layers.between.work import Replaced as Replaced
from elision.layers.effects import NoEffectWarning as NoEffectWarning
from elision.layers.elide import TiedWeightWarning as TiedWeightWarning
from elision.layers.elide import elide as elide
from elision.layers.elide import restore as restore
from elision.layers.explain import Explanation as Explanation
from elision.layers.explain import Unreached as Unreached
from elision.layers.explain import explain as explain
from elision.layers.extras import attach_extra as attach_extra
from elision.layers.extras import drop_extra as drop_extra
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
from elision.layers.modules.base import tied_reader as tied_reader
from elision.layers.modules.conv1d import ElidedConv1d as ElidedConv1d
from elision.layers.modules.conv2d import ElidedConv2d as ElidedConv2d
from elision.layers.modules.conv3d import ElidedConv3d as ElidedConv3d
from elision.layers.modules.conv_transpose1d import (
    ElidedConvTranspose1d as ElidedConvTranspose1d,
)
from elision.layers.modules.conv_transpose2d import (
    ElidedConvTranspose2d as ElidedConvTranspose2d,
)
from elision.layers.modules.conv_transpose3d import (
    ElidedConvTranspose3d as ElidedConvTranspose3d,
)
from elision.layers.modules.linear import ElidedLinear as ElidedLinear
from elision.layers.nonfinite import FirstNonfinite as FirstNonfinite
from elision.layers.nonfinite import find_nonfinite as find_nonfinite
from elision.layers.observation import Observation as Observation
from elision.layers.observation import Observer as Observer
from elision.layers.reach import elidable_layers as elidable_layers
from elision.layers.reach import elided_layers as elided_layers
from elision.layers.readers import DenseReadWarning as DenseReadWarning
from elision.layers.recipe import Recipe as Recipe
from elision.layers.recipe import Table as Table
from elision.layers.record import record as record
from elision.layers.turned import groups_if_turned as groups_if_turned
from elision.layers.turned import turned_transform as turned_transform
from elision.layers.watch import Watch as Watch
from elision.layers.watch import watch as watch
