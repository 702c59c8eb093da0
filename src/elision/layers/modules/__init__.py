"""The registry of layer types: a plain layer type -> its elided type, one file each.

``ELIDED`` is all that :func:`elision.elide` knows about layer types. A subclass with a
forward of its own is reached once it is registered::

    class ScaledLinear(nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    class ElidedScaledLinear(ElidedLayer, ScaledLinear):
        def forward(self, input):
            rows = input.flatten(0, -2)  # (rows, inner)
            return 2 * self.run_products(rows, self.weight, self.bias)

    register(ScaledLinear, ElidedScaledLinear)
"""

from typing import Any

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.utils import parametrize

from elision.layers.modules.attention import (
    ElidedMultiheadAttention,
    ElidedOutProjection,
)
from elision.layers.modules.base import ElidedLayer
from elision.layers.modules.bilinear import ElidedBilinear
from elision.layers.modules.conv1d import ElidedConv1d
from elision.layers.modules.conv2d import ElidedConv2d
from elision.layers.modules.conv3d import ElidedConv3d
from elision.layers.modules.conv_transpose1d import ElidedConvTranspose1d
from elision.layers.modules.conv_transpose2d import ElidedConvTranspose2d
from elision.layers.modules.conv_transpose3d import ElidedConvTranspose3d
from elision.layers.modules.embedding import ElidedEmbedding
from elision.layers.modules.inputs_first import loaded_pair
from elision.layers.modules.linear import ElidedLinear
from elision.layers.modules.part import ElidedPart, ElidedWhole
from elision.layers.modules.recurrent import (
    ElidedFusedGRU,
    ElidedFusedLSTM,
    ElidedGRU,
    ElidedGRUCell,
    ElidedLSTM,
    ElidedLSTMCell,
    ElidedRNN,
    ElidedRNNCell,
)
from elision.layers.parts import Part
from elision.nn import GRU, LSTM

__all__ = [
    "ELIDED",
    "WHOLES",
    "elided_whole",
    "is_derived",
    "plain_type",
    "register",
    "register_loaded",
]

#: Elided type of each plain layer type; ``elide`` changes the class of exactly these.
ELIDED: dict[type[nn.Module], type[ElidedLayer]] = {}

#: Elided type of each plain type of layer that has parts (:mod:`elision.layers.parts`).
WHOLES: dict[type[nn.Module], type[ElidedWhole]] = {
    nn.LSTM: ElidedLSTM,
    nn.GRU: ElidedGRU,
    nn.RNN: ElidedRNN,
    nn.LSTMCell: ElidedLSTMCell,
    nn.GRUCell: ElidedGRUCell,
    nn.RNNCell: ElidedRNNCell,
    nn.MultiheadAttention: ElidedMultiheadAttention,
    LSTM: ElidedFusedLSTM,
    GRU: ElidedFusedGRU,
}

#: The way back; an elided type that was replaced in ``ELIDED`` stays, for its layers.
_PLAIN: dict[type[ElidedLayer], type[nn.Module]] = {}

_PLAIN_WHOLES = {elided: plain for plain, elided in WHOLES.items()}

#: Elided types that were made for subclasses of the keys of ``WHOLES``.
_MADE: dict[type[nn.Module], type[ElidedWhole]] = {}


def elided_whole(module: nn.Module) -> type[ElidedWhole] | None:
    """Elided type of a plain layer that has parts; None: it is none, or stays dense.

    A subclass that does not override ``forward`` computes what its base does and gets a
    type of its own; one that was derived by torch (a parametrisation, FSDP) stays dense.

    Example:
        >>> class Encoder(nn.LSTM):
        ...     pass
        >>> elided_whole(Encoder(3, 4)).__name__, elided_whole(nn.Linear(3, 4))
        ('ElidedEncoder', None)
    """
    kind = type(module)
    known = WHOLES.get(kind) or _MADE.get(kind)
    if known is not None or isinstance(module, ElidedWhole):
        return known
    base = next((k for k in kind.__mro__ if k in WHOLES), None)
    if base is None or kind.forward is not base.forward or is_derived(module):
        return None
    body = {"__doc__": kind.__doc__, "__reduce_ex__": _reduced}
    made: Any = type(f"Elided{kind.__name__}", (WHOLES[base], kind), body)
    _MADE[kind], _PLAIN_WHOLES[made] = made, kind
    return made


def is_derived(module: nn.Module) -> bool:
    """Whether torch derived a module's class for a parametrisation or for FSDP."""
    return parametrize.is_parametrized(module) or type(module).__name__.startswith(
        "FSDP"
    )


def _reduced(self: Any, protocol: int) -> tuple[Any, ...]:
    """How a layer of a type that was made here is copied and pickled."""
    _, _, *state = object.__reduce_ex__(self, max(protocol, 2))
    return _empty, (plain_type(type(self)),), *state


def _empty(kind: type[nn.Module]) -> nn.Module:
    """A layer of the elided type of ``kind``, for its state to follow."""
    plain = kind.__new__(kind)
    plain.__dict__.update(nn.Module().__dict__)
    made = elided_whole(plain)
    assert made is not None
    return made.__new__(made)


def register(plain: type[nn.Module], elided: type[ElidedLayer]) -> None:
    """Let ``elide`` change layers of type ``plain`` into layers of type ``elided``.

    Replaces an earlier registration of ``plain``; models elided under that keep its
    type until they are restored.

    Args:
        plain: a layer type with a parameter ``weight``, ``(K, C/groups, *kernel)``,
            ``(C, K/groups, *kernel)`` of a transposed convolution, or ``(columns, inner)``.
            Subclasses are not covered; each is registered itself.
        elided: a subclass of :class:`ElidedLayer` and of ``plain``, in this order,
            whose forward calls :meth:`ElidedLayer.run_products`.

    Raises:
        TypeError: ``elided`` cannot be the elided type of ``plain``; the message lists
            what it must provide.
        ValueError: ``elided`` is the elided type of another layer type already.

    Example:
        >>> from torch import nn
        >>> from elision.layers import ELIDED, ElidedLinear, register
        >>> class Named(nn.Linear): ...
        >>> class ElidedNamed(ElidedLinear, Named): ...
        >>> register(Named, ElidedNamed)
        >>> ELIDED.pop(Named).__name__
        'ElidedNamed'
    """
    missing = _missing(plain, elided)
    if missing:
        raise TypeError(
            f"{_name(elided)} cannot be the elided type of {_name(plain)}: {missing}; "
            "write class Elided(ElidedLayer, Plain) whose forward calls "
            "self.run_products(x, self.weight, self.bias)"
        )
    if _PLAIN.get(elided, plain) is not plain:
        raise ValueError(
            f"{_name(elided)} is the elided type of {_name(_PLAIN[elided])} already; "
            f"give {_name(plain)} a class of its own"
        )
    ELIDED[plain], _PLAIN[elided] = elided, plain


def register_loaded() -> None:
    """Register the types of libraries that the program has imported by now."""
    pair = loaded_pair()
    if pair is not None and pair[0] not in ELIDED:
        register(*pair)


def plain_type(elided: type[nn.Module]) -> type[nn.Module]:
    """The plain type that a layer of an elided type gets back.

    The registered one; or, of a class that torch derived from an elided type (for a
    parametrisation, for FSDP), the class that it would have derived from the plain one.
    """
    known: dict[Any, type[nn.Module]] = {**_PLAIN, **_PLAIN_WHOLES}
    if elided in known:
        return known[elided]
    bases = tuple(
        plain_type(base) if issubclass(base, ElidedLayer | ElidedWhole) else base
        for base in elided.__bases__
    )
    body = {
        name: value
        for name, value in vars(elided).items()
        if name not in ("__dict__", "__weakref__")
    }
    made: Any = type(elided.__name__.replace("Elided", ""), bases, body)
    return made


def _missing(plain: type[nn.Module], elided: type[ElidedLayer]) -> str:
    """The first requirement that a pair of types fails; empty if there is none."""
    if not (isinstance(plain, type) and issubclass(plain, nn.Module)):
        return f"{_name(plain)} is no subclass of torch.nn.Module"
    if not (isinstance(elided, type) and issubclass(elided, ElidedLayer)):
        return f"{_name(elided)} is no subclass of elision.layers.ElidedLayer"
    if not issubclass(elided, plain):
        return f"it is no subclass of {_name(plain)}"
    order = elided.__mro__
    if order.index(ElidedLayer) > order.index(plain):
        return f"{_name(plain)} comes before ElidedLayer among its bases"
    overridden = False
    for method in ("forward", "_conv_forward"):
        ours, theirs = _definer(elided, method), _definer(plain, method)
        if not issubclass(ours, theirs):
            return f"the {method} of {_name(ours)} hides that of {_name(theirs)}"
        overridden |= ours is not theirs
    return "" if overridden else f"it only inherits the forward of {_name(plain)}"


def _definer(kind: type, method: str) -> type:
    """The class that defines a method of ``kind``; object where none does."""
    return next((c for c in kind.__mro__ if method in vars(c)), object)


def _name(kind: object) -> str:
    return getattr(kind, "__name__", repr(kind))


register(nn.Conv1d, ElidedConv1d)
register(nn.Conv2d, ElidedConv2d)
register(nn.Conv3d, ElidedConv3d)
register(nn.ConvTranspose1d, ElidedConvTranspose1d)
register(nn.ConvTranspose2d, ElidedConvTranspose2d)
register(nn.ConvTranspose3d, ElidedConvTranspose3d)
register(nn.Linear, ElidedLinear)
register(nn.Bilinear, ElidedBilinear)
register(nn.Embedding, ElidedEmbedding)
register(NonDynamicallyQuantizableLinear, ElidedOutProjection)
register(Part, ElidedPart)
