"""Functions replaced in a model, and taken back.

The outermost module's class becomes a subclass of its own whose forward runs inside the
mode of :mod:`~elision.layers.between.work`; it bears the old name, copies and pickles, and
:func:`elision.restore` changes it back. Parameters and keys do not change.
"""

import copyreg
import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from elision.functional import Replacement, make
from elision.layers.between.work import Between, Replaced
from elision.layers.effects import NoEffectWarning
from elision.layers.extras import attach_extra, extra

__all__ = ["Functions", "named", "plain_class", "replace", "replaced_functions"]

#: What is replaced -> name of what stands for it, or a function.
Functions = Mapping[str, str | Callable[..., Tensor]]

#: Extra of a model that holds its replaced functions.
_KEY = "functions between the layers"

#: Other names of what is replaced.
_SYNONYMS = {"swish": "silu"}


def named(functions: Functions | None) -> dict[str, Replacement]:
    """The replacements that a person names, checked.

    Raises:
        TypeError: no mapping, or a value that is neither a name nor a function.
        ValueError: an unknown function to replace, name or parameter; lists the known.
    """
    if functions is None:
        return {}
    if not isinstance(functions, Mapping):
        raise TypeError(
            "functions must map what is replaced to a name or a function, such as "
            f'{{"tanh": "k-tanh"}}; got {type(functions).__name__}'
        )
    found = [make(_SYNONYMS.get(k, k), value) for k, value in functions.items()]
    return {replacement.kind: replacement for replacement in found}


def replace(model: nn.Module, replacements: Mapping[str, Replacement]) -> None:
    """Let a model compute replacements from its next forward pass on.

    Args:
        model: any module; whose functions were replaced before gets the new ones.
        replacements: from :func:`named`; none: nothing is done.

    Warns:
        NoEffectWarning: parts of the model are scripted, where nothing can be replaced.
    """
    if not replacements:
        return
    scripted = [
        name or "(the model itself)"
        for name, module in model.named_modules()
        if isinstance(module, torch.jit.ScriptModule)
    ]
    if scripted:
        warnings.warn(
            "scripted modules keep their own functions between the layers: "
            f"{', '.join(scripted)}",
            NoEffectWarning,
            stacklevel=4,
        )
    between = Between(replacements)
    handles: list[Any] = [_ClassHandle(model, between)]
    for module in model.modules():  # any of them may begin a recomputation
        if not isinstance(module, torch.jit.ScriptModule):
            handles += [
                module.register_forward_pre_hook(between.begin_again),
                module.register_forward_hook(between.end_again, always_call=True),
            ]
    attach_extra(model, _KEY, between, handles)
    if not issubclass(type(model), _Within):
        model.__class__ = _within(type(model))


def replaced_functions(model: nn.Module) -> tuple[Replaced, ...]:
    """The functions that are replaced in a model, with the calls of its latest pass."""
    between = extra(model, _KEY)
    return () if between is None else between.replaced


def plain_class(model: nn.Module) -> None:
    """Give a model the class that it had before its functions were replaced."""
    if isinstance(model, _Within):
        model.__class__ = _old_class(type(model))  # pyright: ignore[reportAttributeAccessIssue]


class _ClassHandle:
    """Handle that gives the model its class back, unless other functions stand there."""

    def __init__(self, model: nn.Module, between: Between) -> None:
        self._model, self._between = model, between

    def remove(self) -> None:
        if extra(self._model, _KEY) in (None, self._between):
            plain_class(self._model)


class _Within(nn.Module):
    """Marks the class of a model whose functions are replaced."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As the old class reduces, but that the class is made anew where it is read."""
        made, arguments, *rest = super().__reduce_ex__(protocol)
        if made is copyreg.__newobj__ and arguments == (type(self),):  # pyright: ignore[reportAttributeAccessIssue]
            return _blank, (_old_class(type(self)),), *rest
        return made, arguments, *rest


@functools.cache
def _within(kind: type[nn.Module]) -> type[nn.Module]:
    """The class whose forward computes the replacements."""

    @functools.wraps(kind.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        between = extra(self, _KEY)
        if between is None:
            return super(made, self).forward(*args, **kwargs)
        with between.at_work():
            return super(made, self).forward(*args, **kwargs)

    body = {
        "forward": forward,
        "__doc__": kind.__doc__,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
    }
    made: Any = type(kind.__name__, (_Within, kind), body)
    return made


def _old_class(kind: type[nn.Module]) -> type[nn.Module]:
    """The class that a model had before."""
    return kind.__bases__[1]


def _blank(kind: type[nn.Module]) -> nn.Module:
    """An object without state whose functions are to be replaced, of a pickle."""
    made = _within(kind)
    return made.__new__(made)
