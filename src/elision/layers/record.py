"""record: keep the operands that a model's products really read."""

import itertools
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from elision.common.checks import integer
from elision.layers.between.call_readers import CALLS
from elision.layers.between.called import is_call
from elision.layers.observation import Observation
from elision.layers.reach import elidable_layers
from elision.layers.recomputation import is_recomputation
from elision.layers.watch import watch
from elision.products import Geometry, LayerProduct, MatmulGeometry, Trace

__all__ = ["record"]

_MIB = 2**20


@contextmanager
def record(
    model: nn.Module,
    *,
    layers: Collection[str] = ("*",),
    steps: Collection[int] | None = None,
    samples: int | None = None,
    first_step: int = 0,
    limit_mib: float = 1024.0,
    about: dict[str, Any] | None = None,
) -> Iterator[Trace]:
    """Record the operands of a model's products as the products read them.

    Every forward pass of the model in training mode is a step; passes in evaluation mode
    and recomputations are none, and not recorded. The operands are packed
    at once (bit mask and non-zeros), so dense copies are never kept.

    Args:
        model: elided or not; not compiled.
        layers: shell-style patterns of the layers to record, and of the products that
            modules compute by calls of their own (``"*.qk"``).
        steps: the steps to record; None for all.
        samples: images (rows of a matrix product, products of a batch of them) to keep
            of each batch, >= 1; None for all. The weight gradient recorded is that of the
            kept images.
        first_step: number of the first step.
        limit_mib: packed size at which recording stops, with a warning.
        about: facts to store with the trace.

    Yields:
        The trace, which fills as the model runs.

    Raises:
        ValueError: a pattern names no layer, ``samples`` is not positive, or the model
            is compiled.

    Example:
        >>> import torch, elision
        >>> model = torch.nn.Linear(4, 2)
        >>> with elision.record(model) as trace:
        ...     model(torch.ones(3, 4)).sum().backward()
        >>> [product.kind.name for product in trace]
        ['FORWARD', 'WEIGHT_GRAD']
    """
    names = list(elidable_layers(model))
    modules = [name for name, _ in model.named_modules()]
    for pattern in layers:
        named = any(fnmatchcase(name, pattern) for name in names)
        if not (named or is_call(pattern, modules)):
            raise ValueError(
                f"pattern {pattern!r} names no layer; layers: {', '.join(names)}, and "
                f"products of a module's own calls: {', '.join(CALLS)}"
            )
    if samples is not None:
        integer("record", "samples", samples)
    recorder = _Recorder(layers, steps, samples, first_step, limit_mib)
    recorder.trace.about.update(about or {})
    handle = model.register_forward_pre_hook(recorder.count_step)
    try:
        with watch(model, recorder):
            yield recorder.trace
    finally:
        handle.remove()


class _Recorder:
    """The observer of :func:`record`."""

    def __init__(
        self,
        layers: Collection[str],
        steps: Collection[int] | None,
        samples: int | None,
        first_step: int,
        limit_mib: float,
    ) -> None:
        self.trace = Trace()
        self._layers = layers
        self._steps = None if steps is None else set(steps)
        self._samples = samples
        self._step, self._in_step = first_step - 1, False
        self._limit_bytes = limit_mib * _MIB
        self._full = False
        # A layer that is called twice in a step reads other tensors the second time.
        self._calls: WeakKeyDictionary[object, int] = WeakKeyDictionary()
        self._numbers = itertools.count()

    def count_step(self, model: nn.Module, args: Any) -> None:
        """Count a training pass as a step (a forward pre-hook of the model)."""
        del args
        if not is_recomputation():
            self._in_step = model.training
            self._step += model.training

    def __call__(self, observation: Observation) -> None:
        """Add one product to the trace, if it is selected and the trace is not full."""
        product = observation.product
        unwanted = self._steps is not None and self._step not in self._steps
        if self._full or unwanted or not self._in_step:
            return
        if not any(fnmatchcase(product.name, p) for p in self._layers):
            return
        if self.trace.size_bytes > self._limit_bytes:
            self._full = True
            warnings.warn(
                f"the trace reached its limit of {self._limit_bytes / _MIB:g} MiB at "
                f"step {self._step}, layer {product.name}; the rest is not recorded",
                stacklevel=2,
            )
            return
        geometry, operands = _sampled(product, self._samples)
        first, second = operands
        kept = LayerProduct(
            product.kind,
            geometry,
            operands[first],
            operands[second],
            product.name,
            self._step,
            product.arithmetic,
        )
        call = observation.call
        if call not in self._calls:
            self._calls[call] = next(self._numbers)
        place = f"{self._step}/{product.name}/{self._calls[call]}"
        keys = (
            f"{place}/{observation.uses[first]}",
            f"{place}/{observation.uses[second]}",
        )
        self.trace.add(kept, keys, observation.recipe, observation.shared)


def _sampled(
    product: LayerProduct, samples: int | None
) -> tuple[Geometry, dict[str, Tensor]]:
    """The product's geometry and operands with so many examples, on the host."""
    geometry = product.geometry
    shared = not geometry.weight_is_batched
    operands = {
        # The examples of a layer share its weight; products of a batch each have one.
        name: (x if name == "weight" and shared else x[:samples]).cpu()
        for name, x in product.operands.items()
    }
    kept = operands[product.kind.operands[0]].shape[0]
    if isinstance(geometry, MatmulGeometry) and geometry.batch > 1 == kept:
        operands = {name: x[0] for name, x in operands.items()}
        return replace(geometry, batch=1), operands
    return geometry.with_batch(kept), operands
