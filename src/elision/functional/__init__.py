"""Functions between the layers: K-TanH and its kin, alternatives to softmax, their losses.

Plain functions of tensors, with gradients. :func:`elision.elide` puts them into unmodified
models, ``elide(model, recipe, functions={"tanh": "k-tanh"})``, by the names in
:data:`FUNCTIONS`; modules with the same parameters are in :mod:`elision.layers.between`.
"""

from elision.functional.baselines import hard_sigmoid as hard_sigmoid
from elision.functional.baselines import hard_tanh as hard_tanh
from elision.functional.baselines import plan_sigmoid as plan_sigmoid
from elision.functional.baselines import plan_tanh as plan_tanh
from elision.functional.baselines import rational_sigmoid as rational_sigmoid
from elision.functional.baselines import rational_tanh as rational_tanh
from elision.functional.losses import sm_softmax_loss as sm_softmax_loss
from elision.functional.losses import sm_taylor_softmax_loss as sm_taylor_softmax_loss
from elision.functional.losses import taylor_softmax_loss as taylor_softmax_loss
from elision.functional.named import FUNCTIONS as FUNCTIONS
from elision.functional.named import Replacement as Replacement
from elision.functional.named import make as make
from elision.functional.softmax import RangeWarning as RangeWarning
from elision.functional.softmax import forget_warnings as forget_warnings
from elision.functional.softmax import log_sm_softmax as log_sm_softmax
from elision.functional.softmax import log_sm_taylor_softmax as log_sm_taylor_softmax
from elision.functional.softmax import log_taylor_softmax as log_taylor_softmax
from elision.functional.softmax import sm_softmax as sm_softmax
from elision.functional.softmax import sm_taylor_softmax as sm_taylor_softmax
from elision.functional.softmax import taylor_softmax as taylor_softmax
from elision.functional.table import PUBLISHED as PUBLISHED
from elision.functional.table import KTanhTable as KTanhTable
from elision.functional.table import fitted as fitted
from elision.functional.tanh import k_gelu as k_gelu
from elision.functional.tanh import k_sigmoid as k_sigmoid
from elision.functional.tanh import k_silu as k_silu
from elision.functional.tanh import k_swish as k_swish
from elision.functional.tanh import k_tanh as k_tanh
