"""Costs: what a choice at one layer costs, counted, measured here or simulated.

================== =======================================================================
``macs``           multiply-accumulates of a training step that the choices leave to do
``weight-bits``    mean bits of a stored weight; zeros cost one bit of a bitmap, the others
                   that bit and their format
``weight-bytes``   the same over all weights, in bytes
``seconds``        seconds of a training step on this machine (processor time where torch
                   has one thread), choices timed in turns on the layer's own operands
``cycles:MACHINE`` simulated cycles of a step on an accelerator, such as ``cycles:ant``
``energy:MACHINE`` its simulated energy, in pJ
================== =======================================================================

A cost is a sum: a fixed part (layers without a place, and in seconds all that is no layer)
and a value for each place's choice. How far the sum is off is seen where the chosen recipe
is costed as a whole (:meth:`Cost.whole`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from torch import nn

from elision.accelerators import ACCELERATORS
from elision.accelerators.simulate import simulate
from elision.common.names import lookup
from elision.common.specs import build
from elision.common.timing import quoted_clock
from elision.layers.meter import WorkMeter, metered
from elision.layers.reach import elidable_layers
from elision.layers.recipe import Recipe, names_in_order
from elision.layers.record import record
from elision.products import Product, Trace
from elision.study.search.choices import LayerSpace, Option
from elision.study.search.seconds import seconds_of_layers, seconds_of_step
from elision.study.search.storage import FULL_BITS, bits_at, kept_share
from elision.study.search.subject import Subject, as_table, elided
from elision.topology import attach

__all__ = ["COSTS", "Cost", "Costs", "cost_named"]

#: Examples whose operands are simulated (own choice; a study keeps as many).
_SAMPLES = 2


@dataclass(frozen=True)
class Costs:
    """Costs of the choices of a space.

    Attributes:
        name: of the cost.
        unit: of its values.
        kind: ``"counted"``, ``"measured here"`` or ``"simulated"``.
        values: of each place, that of each choice.
        fixed: of all else.
        dense: of the network with nothing left out.

    Example:
        >>> found = Costs("macs", "MAC", "counted", [[4.0, 1.0]], 2.0, 6.0)
        >>> found.predicted([1])
        3.0
    """

    name: str
    unit: str
    kind: str
    values: list[list[float]]
    fixed: float
    dense: float

    def predicted(self, chosen: Sequence[int]) -> float:
        """The sum for a choice at each place."""
        parts = zip(self.values, chosen, strict=True)
        return self.fixed + sum(values[index] for values, index in parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which the costs are made again."""
        return asdict(self)


class Cost(ABC):
    """A kind of cost: of the choices of a space, and of a recipe as a whole.

    Attributes:
        name: as it is written.
        unit: of its values.
        kind: ``"counted"``, ``"measured here"`` or ``"simulated"``.

    Example:
        >>> cost_named("cycles:ant").kind
        'simulated'
    """

    name: str
    unit: str
    kind: str

    @abstractmethod
    def of(self, subject: Subject, space: LayerSpace) -> Costs:
        """The costs of a space's choices.

        Raises:
            ValueError: a place is one operand where the cost belongs to the layer.
        """

    @abstractmethod
    def whole(self, subject: Subject, recipe: Recipe, dense: float) -> float:
        """The cost of a recipe as a whole; ``dense`` is that of the network."""


class _OfStep(Cost):
    """A cost that one step tells of all layers."""

    @abstractmethod
    def step(self, subject: Subject, recipe: Recipe) -> dict[str, float]:
        """Costs of a training step by layer; what is no layer's has no name."""

    def of(self, subject: Subject, space: LayerSpace) -> Costs:
        """A step for each number of a choice: layers do not change each other's cost."""
        _refuse_operands(self.name, space)
        dense = self.step(subject, Recipe("dense"))
        values: list[list[float]] = [[] for _ in space.places]
        for index in range(max(len(p.options) for p in space.places)):
            chosen = [min(index, len(p.options) - 1) for p in space.places]
            found = self.step(subject, space.recipe(chosen))
            for place, of in zip(space.places, values, strict=True):
                if index < len(place.options):
                    of.append(found[place.layer])
        searched = {p.layer for p in space.places}
        fixed = sum(v for layer, v in dense.items() if layer not in searched)
        return Costs(
            self.name, self.unit, self.kind, values, fixed, sum(dense.values())
        )

    def whole(self, subject: Subject, recipe: Recipe, dense: float) -> float:
        del dense
        return sum(self.step(subject, recipe).values())


class _Macs(_OfStep):
    """Multiply-accumulates of a training step."""

    name, unit, kind = "macs", "MAC", "counted"

    def step(self, subject: Subject, recipe: Recipe) -> dict[str, float]:
        meter = _metered(subject, recipe)
        found: dict[str, float] = {"": float(sum(meter.outside.values()))}
        for (layer, _), work in meter.by_layer.items():
            found[layer] = found.get(layer, 0.0) + work.done_macs
        return found


class _Simulated(_OfStep):
    """Cycles or energy of a step on a machine that is not here."""

    kind = "simulated"

    def __init__(self, what: str, machine: str) -> None:
        self.name = f"{what}:{machine}"
        self.unit = "cycles" if what == "cycles" else "pJ"
        self._machine = {machine: build("accelerator", machine, ACCELERATORS)}

    def step(self, subject: Subject, recipe: Recipe) -> dict[str, float]:
        found: dict[str, float] = {}
        for row in simulate(_recorded(subject, recipe), self._machine):
            value = row.cost.cycles if self.unit == "cycles" else row.cost.energy_pj
            found[row.layer] = found.get(row.layer, 0.0) + value
        return found


class _Weights(Cost):
    """Bits of the stored weights: their mean, or the bytes of all."""

    kind = "counted"

    def __init__(self, name: str) -> None:
        self.name = name
        self.unit = "bits a weight" if name == "weight-bits" else "bytes"

    def of(self, subject: Subject, space: LayerSpace) -> Costs:
        sizes = _sizes(subject.model)
        scale = self._scale(sizes)
        values = []
        for place in space.places:
            if place.operand not in (None, "weight"):
                raise ValueError(
                    f"cost {self.name!r}: {place.name} has no weight to store"
                )
            size = scale * sizes[place.layer]
            values.append([size * _bits_of(option) for option in place.options])
        searched = {place.layer for place in space.places}
        rest = sum(n for layer, n in sizes.items() if layer not in searched)
        every = sum(sizes.values())
        return Costs(
            self.name,
            self.unit,
            self.kind,
            values,
            scale * FULL_BITS * rest,
            scale * FULL_BITS * every,
        )

    def whole(self, subject: Subject, recipe: Recipe, dense: float) -> float:
        """From the zeros that the products read, and the formats of the recipe's tables."""
        del dense
        meter = _metered(subject, recipe)
        layers = elidable_layers(subject.model)
        resolved, names = recipe.resolved(layers), names_in_order(layers)
        sizes = _sizes(subject.model)
        total = 0.0
        for name, layer in layers.items():
            how = resolved.table_for(name, layer, names)[Product.FORWARD, "weight"]
            read = meter.by_layer[name, Product.FORWARD].densities["weight"]
            total += sizes[name] * bits_at(read, how)
        return self._scale(sizes) * total

    def _scale(self, sizes: Mapping[str, int]) -> float:
        """The unit, in bits of all weights."""
        return 1 / sum(sizes.values()) if self.unit != "bytes" else 1 / 8


class _Seconds(Cost):
    """Seconds of a training step on this machine."""

    name, kind = "seconds", "measured here"

    @property
    def unit(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """With the clock that is read."""
        return f"s ({quoted_clock()} time)"

    def of(self, subject: Subject, space: LayerSpace) -> Costs:
        _refuse_operands(self.name, space)
        found = seconds_of_layers(subject, space, subject.engine)
        return Costs(
            self.name, self.unit, self.kind, found.values, found.rest, found.step
        )

    def whole(self, subject: Subject, recipe: Recipe, dense: float) -> float:
        return dense * seconds_of_step(subject, recipe, subject.engine)[1]


#: Costs by the names of the command line; what is behind a colon is given to them.
COSTS: dict[str, Callable[[str], Cost]] = {
    "macs": lambda _: _Macs(),
    "weight-bits": lambda _: _Weights("weight-bits"),
    "weight-bytes": lambda _: _Weights("weight-bytes"),
    "seconds": lambda _: _Seconds(),
    "cycles": partial(_Simulated, "cycles"),
    "energy": partial(_Simulated, "energy"),
}

#: Costs of a machine that is named behind a colon.
_ON_MACHINES = ("cycles", "energy")


def cost_named(name: str) -> Cost:
    """A cost by its name.

    Args:
        name: key of :data:`COSTS`, with a machine behind a colon for ``cycles`` and
            ``energy``.

    Raises:
        ValueError: an unknown cost or machine, or a machine too few or too many.

    Example:
        >>> cost_named("cycles:antt")
        Traceback (most recent call last):
        ValueError: cost 'cycles:antt': unknown accelerator 'antt' (did you mean ...
    """
    kind, colon, machine = name.partition(":")
    make = lookup("cost", kind, COSTS)
    if kind not in _ON_MACHINES and colon:
        raise ValueError(f"cost {name!r}: {kind} takes nothing behind a colon")
    if kind in _ON_MACHINES and not machine:
        raise ValueError(f"cost {name!r}: name a machine, such as {kind}:ant")
    try:
        return make(machine)
    except ValueError as error:
        raise ValueError(f"cost {name!r}: {error}") from error


def _sizes(model: nn.Module) -> dict[str, int]:
    """Weights of each layer."""
    return {
        name: int(layer.weight.numel())  # pyright: ignore[reportCallIssue]
        for name, layer in elidable_layers(model).items()
    }


def _bits_of(option: Option) -> float:
    """Bits of a weight under a choice."""
    how = as_table(option)[Product.FORWARD, "weight"]
    return bits_at(kept_share(how), how)


def _metered(subject: Subject, recipe: Recipe) -> WorkMeter:
    """The work of a training step under a recipe."""
    with _in_training(subject, recipe) as model, metered(model) as meter:
        step(subject, model)
    return meter


def _recorded(subject: Subject, recipe: Recipe) -> Trace:
    """The operands of a training step under a recipe."""
    with _in_training(subject, recipe) as model:
        with record(model, samples=_SAMPLES) as trace:
            step(subject, model)
        return trace


@contextmanager
def _in_training(subject: Subject, recipe: Recipe) -> Iterator[nn.Module]:
    """A copy of the network under a recipe, in training mode, a step behind it.

    In the first step a rule for masks may want all gradients; those after it are usual.
    """
    with elided(subject.model, recipe) as model:
        optimizer = subject.workload.make_optimizer(model.train())
        if attach(model, optimizer).rule is not None:
            step(subject, model)
            optimizer.step()
        yield model


def step(subject: Subject, model: nn.Module) -> None:
    """The three products of every layer, of the first batch."""
    batch = subject.batches[0]
    subject.count(batch, 3)
    subject.workload.task.loss(model, batch).backward()


def _refuse_operands(name: str, space: LayerSpace) -> None:
    """Raise ValueError where a cost is of a layer and a place of one operand."""
    for place in space.places:
        if place.operand:
            raise ValueError(
                f"cost {name!r}: belongs to a layer, not to one operand of it; give the "
                f"choices of {place.layer} without /{place.operand}"
            )
