"""Functions replaced in a model, and taken back.

The mode of :mod:`~elision.layers.between.work` stands around the model's forward pass.
"""

import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from elision.functional import Replacement, make
from elision.layers.between.passes import FUNCTIONS, stand_around
from elision.layers.between.work import Between, Replaced
from elision.layers.effects import NoEffectWarning
from elision.layers.extras import extra

__all__ = ["Functions", "named", "replace", "replaced_functions"]

#: What is replaced -> name of what stands for it, or a function.
Functions = Mapping[str, str | Callable[..., Tensor]]

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
    stand_around(model, FUNCTIONS, Between(replacements))


def replaced_functions(model: nn.Module) -> tuple[Replaced, ...]:
    """The functions that are replaced in a model, with the calls of its latest pass."""
    between = extra(model, FUNCTIONS)
    return () if between is None else between.replaced
