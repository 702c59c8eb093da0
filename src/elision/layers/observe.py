"""Show the products of a running model to an observer."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from elision.layers.elide import elidable_layers, elide, elided_layers
from elision.layers.elide import restore as restore_plain
from elision.layers.observation import Observer
from elision.layers.recipe import Recipe

__all__ = ["observe"]


@contextmanager
def observe(model: nn.Module, observer: Observer) -> Iterator[None]:
    """Show every product of a model to ``observer`` while the context lasts.

    A model that is not elided is elided with the dense recipe for that time.

    Raises:
        ValueError: the model is compiled (a compiled graph cannot be watched), or has
            no layer to observe.
    """
    if hasattr(model, "_orig_mod"):
        raise ValueError(
            "a compiled model cannot be observed; pass the module it was compiled from "
            "(model._orig_mod) and run that one"
        )
    if not elidable_layers(model):
        raise ValueError(f"{type(model).__name__} has no Conv2d or Linear to observe")
    plain = not any(True for _ in elided_layers(model))
    if plain:
        elide(model, Recipe("dense"), engine="torch")
    layers = [layer for _, layer in elided_layers(model)]
    for layer in layers:
        layer._elision_observers = (*layer._elision_observers, observer)
    try:
        yield
    finally:
        for layer in layers:
            layer._elision_observers = tuple(
                o for o in layer._elision_observers if o is not observer
            )
        if plain:
            restore_plain(model)
