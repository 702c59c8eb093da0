"""Published methods as recipes: one file per method.

Each file gives the equation with shapes, the reference and every deviation from it.
"""

from collections.abc import Callable
from functools import partial

from elision.methods.base import Method as Method
from elision.methods.dense import Dense as Dense
from elision.methods.dsr import DSR as DSR
from elision.methods.dst import DST as DST
from elision.methods.gradual import Gradual as Gradual
from elision.methods.meprop import MeProp as MeProp
from elision.methods.n_m import NM as NM
from elision.methods.resprop import ReSprop as ReSprop
from elision.methods.resprop import WReSprop as WReSprop
from elision.methods.rigl import RigL as RigL
from elision.methods.set_ import SET as SET
from elision.methods.snfs import SNFS as SNFS
from elision.methods.srigl import SRigL as SRigL
from elision.methods.static import Static as Static
from elision.methods.swat import Swat as Swat
from elision.methods.swat_erk import SwatErk as SwatErk
from elision.methods.swat_m import SwatM as SwatM
from elision.methods.swat_structured import SwatStructured as SwatStructured
from elision.methods.top_kast import TopKAST as TopKAST

#: Methods by the names the command line knows them by.
METHODS: dict[str, Callable[..., Method]] = {
    "dense": Dense,
    "swat": Swat,
    "swat-erk": SwatErk,
    "swat-m": SwatM,
    "swat-structured": SwatStructured,
    "swat-filter": partial(SwatStructured, slices="filter"),
    "resprop": ReSprop,
    "w-resprop": WReSprop,
    "meprop": MeProp,
    "meprop-unified": partial(MeProp, unified=True),
    "static": partial(Static, distribution="uniform"),
    "static-erk": Static,
    "set": SET,
    "rigl": RigL,
    "rigl-uniform": partial(RigL, distribution="uniform"),
    "snfs": SNFS,
    "dsr": DSR,
    "dst": DST,
    "gradual": Gradual,
    "top-kast": TopKAST,
    "srigl": SRigL,
    "n-m": NM,
}
