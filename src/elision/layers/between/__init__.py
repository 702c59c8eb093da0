"""What a model computes between its layers: modules, replacements, and products.

``modules`` are drop-in modules and losses. ``passes`` lets a function mode stand around an
unmodified model's passes; two do:

- functions replaced: ``calls`` names torch's functions, ``work`` answers them, ``replace``
  puts that there and takes it away;
- products of the model's own calls: ``call_readers`` and ``contraction`` bring a call into
  the form of a layer's product, ``called`` answers it by a layer without a weight.
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
