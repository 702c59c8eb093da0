"""What a model computes between its layers: modules to build with, and replacements.

``modules`` are drop-in modules and losses. The rest lets :func:`elision.elide` replace
functions in unmodified models: ``calls`` names torch's functions, ``recurrent`` and
``attention`` write out those that compute a replaced one inside, ``work`` stands around a
running model, ``replace`` puts it there and takes it away.
"""

from elision.layers.between.modules import KGELU as KGELU
from elision.layers.between.modules import KSigmoid as KSigmoid
from elision.layers.between.modules import KSiLU as KSiLU
from elision.layers.between.modules import KTanh as KTanh
from elision.layers.between.modules import SMSoftmax as SMSoftmax
from elision.layers.between.modules import SMSoftmaxLoss as SMSoftmaxLoss
from elision.layers.between.modules import SMTaylorSoftmax as SMTaylorSoftmax
from elision.layers.between.modules import SMTaylorSoftmaxLoss as SMTaylorSoftmaxLoss
from elision.layers.between.modules import TaylorSoftmax as TaylorSoftmax
from elision.layers.between.modules import TaylorSoftmaxLoss as TaylorSoftmaxLoss
