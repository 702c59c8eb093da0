"""Published methods as recipes: one file per method.

Each file gives the equation with shapes, the reference and every deviation from it.
"""

from collections.abc import Callable
from functools import partial

from elision.methods.base import Method as Method
from elision.methods.dense import Dense as Dense
from elision.methods.meprop import MeProp as MeProp
from elision.methods.resprop import ReSprop as ReSprop
from elision.methods.resprop import WReSprop as WReSprop
from elision.methods.swat import Swat as Swat
from elision.names import lookup

#: Methods by the names the command line knows them by.
METHODS: dict[str, Callable[..., Method]] = {
    "dense": Dense,
    "swat": Swat,
    "resprop": ReSprop,
    "w-resprop": WReSprop,
    "meprop": MeProp,
    "meprop-unified": partial(MeProp, unified=True),
}


def make_method(name: str, **parameters: object) -> Method:
    """Build a method by name.

    Args:
        name: a key of :data:`METHODS`.
        **parameters: the method's parameters.

    Raises:
        ValueError: unknown name (lists the known ones), a parameter that the method
            does not have, or one out of range.
    """
    build = lookup("recipe", name, METHODS)
    known = dict.fromkeys(build().parameters())
    for parameter in parameters:
        lookup(f"parameter of recipe {name!r}", parameter, known)
    return build(**parameters)
