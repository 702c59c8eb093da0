"""A network of the user's own: a class or function of an importable module.

It is called with what its signature names of

===============================  ===============================================
``num_classes`` or ``classes``   number of classes of the data
``in_channels`` or ``in_chans``  channels of the images
``image_size`` or ``img_size``   ``(height, width)`` of the images
===============================  ===============================================

and with ``num_classes`` if it names neither form but takes further keyword arguments. A
network that takes none of them must fit the data as it is.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from elision.common.objects import maker, split

__all__ = ["build_own"]

#: What a builder may call the facts about the data.
_NAMES = {
    "classes": ("num_classes", "classes"),
    "in_channels": ("in_channels", "in_chans"),
    "image_size": ("image_size", "img_size"),
}


def build_own(
    name: str,
    given: Mapping[str, Any],
    options: Mapping[str, Any],
    libraries: tuple[str, ...] = (),
) -> nn.Module:
    """Build the network that ``package.module:NAME`` names.

    Args:
        name: its module, which is imported, and its class or function.
        given: ``classes``, ``in_channels`` and ``image_size`` of the data.
        options: further arguments; they win.
        libraries: names that could have stood for the module, for messages.

    Raises:
        ValueError: no such module or name, one that cannot be called so, or that builds
            no network.
    """
    # What a module draws while it is imported must not depend on who imports it first.
    with torch.random.fork_rng(devices=()):
        build = _builder(name, libraries)
    arguments = _wanted(build, given) | dict(options)
    try:
        model = build(**arguments)
    except Exception as error:  # the user's own code may fail in any way
        called = ", ".join(f"{k}={v!r}" for k, v in arguments.items())
        raise ValueError(
            f"model {name!r}, called with ({called}): {type(error).__name__}: "
            f"{str(error).partition(chr(10))[0]}"
        ) from error
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"model {name!r}: must build an nn.Module, it gave a {type(model).__name__}"
        )
    return model


def _builder(name: str, libraries: tuple[str, ...]) -> Callable[..., Any]:
    known = ", ".join(f"{library}:NAME" for library in libraries)
    parts = split(name)
    if parts is None:
        raise ValueError(f"model {name!r}: write {known} or package.module:NAME")
    try:
        build = maker("model", name)
    except ValueError as error:
        missing = getattr(error.__cause__, "name", None)
        if isinstance(error.__cause__, ModuleNotFoundError) and missing == parts[0]:
            raise ValueError(
                f"model {name!r}: unknown model library {missing!r}, and no module of "
                f"that name; known: {known} or package.module:NAME"
            ) from error
        raise
    if isinstance(build, nn.Module):
        raise ValueError(
            f"model {name!r}: is a network; name the class or a function that builds "
            "one, so that every recipe and seed begins with new weights"
        )
    return build


def _wanted(build: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that a builder's signature names, under its own names."""
    parameters = inspect.signature(build).parameters.values()
    named = {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
    wanted = {
        name: given[fact]
        for fact, names in _NAMES.items()
        for name in names
        if name in named
    }
    takes_more = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if takes_more and named.isdisjoint(_NAMES["classes"]):
        wanted["num_classes"] = given["classes"]
    return wanted
