"""Published methods as recipes: one file per method.

Each file gives the equation with shapes, the reference and every deviation from it.
:data:`METHODS` names them; :func:`make_recipe` builds the recipe that a person names.
"""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from elision.common.toml import from_toml
from elision.layers import elide as elide
from elision.layers.recipe import Recipe, read_names_with
from elision.methods import resolve as _resolve
from elision.methods.base import Method as Method
from elision.methods.bcgd import Bcgd as Bcgd
from elision.methods.bf16 import Bf16 as Bf16
from elision.methods.binary_connect import BinaryConnect as BinaryConnect
from elision.methods.bwn import BWN as BWN
from elision.methods.composed import Composed as Composed
from elision.methods.composed import read_parts_with
from elision.methods.dense import Dense as Dense
from elision.methods.dfp16 import Dfp16 as Dfp16
from elision.methods.dorefa import DoReFa as DoReFa
from elision.methods.dsr import DSR as DSR
from elision.methods.dst import DST as DST
from elision.methods.fp8 import Fp8 as Fp8
from elision.methods.fp16 import Fp16 as Fp16
from elision.methods.gradual import Gradual as Gradual
from elision.methods.int8 import Int8 as Int8
from elision.methods.lsq import LSQ as LSQ
from elision.methods.meprop import MeProp as MeProp
from elision.methods.mx import Mx as Mx
from elision.methods.n_m import NM as NM
from elision.methods.pact import PACT as PACT
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
from elision.methods.twn import TWN as TWN

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
    "bf16": Bf16,
    "fp16": Fp16,
    "fp8": Fp8,
    "dfp16": Dfp16,
    "dfp8": partial(Dfp16, bits=8),
    "mx": Mx,
    "mxfp8": Mx,
    "mxfp6": partial(Mx, format="mxfp6"),
    "mxfp4": partial(Mx, format="mxfp4", gradient_rounding="stochastic"),
    "mxint8": partial(Mx, format="mxint8"),
    "nvfp4": partial(Mx, format="nvfp4", gradient_rounding="stochastic"),
    "int8": Int8,
    "bcgd": Bcgd,
    "binary-connect": BinaryConnect,
    "bwn": BWN,
    "twn": TWN,
    "dorefa": DoReFa,
    "pact": PACT,
    "lsq": LSQ,
}


def make_recipe(spec: str, *, steps: int | None = None, **more: Any) -> Recipe:
    """The recipe that a person names.

    Args:
        spec: ``name`` or ``name:parameter=value,...`` of a method of :data:`METHODS`,
            or several with a plus sign between them;
            ``path.toml`` or ``path.json``, a recipe's file; or ``module:NAME``, a recipe
            in a module, which is imported (the current folder's modules included). So
            give no spec that a file of somebody else's holds.
        steps: length of the run to which a method's schedule is scaled, where the spec
            leaves it open; None: as published.
        **more: parameters given as they are; they win over those of the spec.

    Raises:
        ValueError: an unknown method, parameter, module or object (lists the known
            ones), a file that is no recipe, or a value out of its range.

    Example:
        >>> make_recipe("swat:sparsity=0.5", refresh=10).refresh
        10
    """
    return _resolve.resolve(spec, METHODS, steps=steps, **more)


read_names_with(make_recipe)


def check_recipe(spec: str) -> None:
    """Raise ValueError if a spec names no method or a wrong parameter.

    A file is not read and a module not imported.

    Example:
        >>> check_recipe("swat:sparsity=2")
        Traceback (most recent call last):
        ValueError: TopK(sparsity=2.0): must be a number in [0, 1)
    """
    if not is_external(spec):
        make_recipe(spec)


def parts_of(spec: str) -> list[str]:
    """The specs of the parts of a composed recipe; of another one, itself.

    Example:
        >>> parts_of("swat:sparsity=0.9+fp8")
        ['swat:sparsity=0.9', 'fp8']
    """
    return _resolve.parts_of(spec)


def is_external(spec: str) -> bool:
    """True if a spec names a file or a module's object instead of a method.

    Example:
        >>> is_external("package.recipes:MINE"), is_external("swat:sparsity=0.9")
        (True, False)
    """
    return _resolve.is_external(spec, METHODS)


def recipe_from_dict(values: Any) -> Recipe:
    """The recipe that ``recipe.to_dict()`` wrote, a method's or one of your own.

    Nothing is imported: methods are those of :data:`METHODS`, transforms those of
    :data:`elision.operands.TRANSFORMS`.

    Raises:
        ValueError: another version, an unknown name, or a value out of its range.

    Example:
        >>> recipe_from_dict(Swat(0.5).to_dict()) == Swat(0.5)
        True
    """
    return _resolve.from_dict(values, METHODS)


read_parts_with(recipe_from_dict)


def recipe_from_toml(text: str) -> Recipe:
    """The recipe that ``recipe.to_toml()`` wrote; see :func:`recipe_from_dict`.

    Example:
        >>> recipe_from_toml(Swat(0.5).to_toml()) == Swat(0.5)
        True
    """
    return recipe_from_dict(from_toml(text))


def recipe_from_json(text: str) -> Recipe:
    """The recipe that ``recipe.to_json()`` wrote; see :func:`recipe_from_dict`.

    Example:
        >>> recipe_from_json(Swat(0.5).to_json()) == Swat(0.5)
        True
    """
    return recipe_from_dict(json.loads(text))
