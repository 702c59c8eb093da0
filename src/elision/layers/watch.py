"""watch: show the products of a running model to an observer.

Recorders, meters and any other observer attach by :func:`watch` alone; any number of
them watch one model at a time and end in any order.
"""

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from torch import nn

from elision.layers.between.called import seen_by
from elision.layers.elide import elide, restore
from elision.layers.extras import attach_extra, extra
from elision.layers.modules.base import ElidedLayer, plan_of
from elision.layers.observation import Observer, without
from elision.layers.reach import elidable_layers, elided_layers
from elision.layers.recipe import Recipe

__all__ = ["Watch", "watch"]

#: Extra of a model that was elided only to be watched.
_ONLY_WATCHED = "only watched"


class Watch:
    """Handle of one observer on one model: a context manager, or ended by ``remove``.

    Made by :func:`watch`. A model that was elided only to be watched is restored when
    its last watch ends.

    Example:
        >>> import torch
        >>> from elision.layers import watch
        >>> model, seen = torch.nn.Linear(4, 2), []
        >>> handle = watch(model, lambda observation: seen.append(observation.product))
        >>> model(torch.ones(3, 4)).sum().backward()
        >>> handle.remove()
        >>> [product.kind.name for product in seen]
        ['FORWARD', 'WEIGHT_GRAD']
    """

    def __init__(self, model: nn.Module, observer: Observer) -> None:
        self._model, self._observer = model, observer
        self._layers = [layer for _, layer in elided_layers(model)]
        for layer in self._layers:
            layer._elision_observers = (*layer._elision_observers, observer)
        recipe = plan_of(self._layers[0]).recipe
        self._calls = ExitStack()
        self._calls.enter_context(seen_by(model, observer, recipe))

    def remove(self) -> None:
        """End the watch; a second call does nothing."""
        self._calls.close()
        layers, self._layers = self._layers, []
        for layer in layers:
            if isinstance(layer, ElidedLayer):  # it may have been restored since
                left = without(layer._elision_observers, self._observer)
                layer._elision_observers = left
        if (
            layers
            and extra(self._model, _ONLY_WATCHED)
            and not _is_watched(self._model)
        ):
            restore(self._model)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()


def watch(model: nn.Module, observer: Observer) -> Watch:
    """Show every product of a model to ``observer`` until the watch ends.

    A model that is not elided is elided with the dense recipe for that time.

    Args:
        model: elided or not; not compiled.
        observer: called with an :class:`elision.layers.Observation` of every product,
            in the order of computation.

    Returns:
        The handle: ``with watch(model, observer): ...``, or ``.remove()``.

    Raises:
        ValueError: the model is compiled (a compiled graph cannot be watched), or has
            no layer to watch.
    """
    if hasattr(model, "_orig_mod"):
        raise ValueError(
            "a compiled model cannot be observed; pass the module it was compiled from "
            "(model._orig_mod) and run that one"
        )
    if not elidable_layers(model):
        raise ValueError(f"{type(model).__name__} has no layer in reach to observe")
    if next(elided_layers(model), None) is None:
        elide(model, Recipe("dense"), engine="torch")
        attach_extra(model, _ONLY_WATCHED, True)
    return Watch(model, observer)


def _is_watched(model: nn.Module) -> bool:
    return any(layer._elision_observers for _, layer in elided_layers(model))
