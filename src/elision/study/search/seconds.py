"""Seconds of a training step on this machine, by layer and choice.

A layer is timed on its own operands of a dense step: forward product, both gradients. Its
choices take turns in one process, so that other load meets all (:mod:`elision.common.timing`).
What is no layer (normalisation, the optimiser, the loss) is the rest of a dense step. Small
steps are off by what the parts share, caches first; so a recipe as a whole is timed in turns
with the dense network, and its seconds are those of the dense step times the ratio.
"""

import copy
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elision.common.timing import interleaved
from elision.layers import elide
from elision.layers.recipe import Recipe, Table
from elision.study.search.choices import LayerSpace, Option, Place
from elision.study.search.subject import Subject, elided
from elision.topology import attach

__all__ = ["Timed", "seconds_of_layers", "seconds_of_step"]

#: Rounds in which a layer's choices are timed, and a step with the dense one (own choices).
_ROUNDS, _STEPS = 9, 9


@dataclass(frozen=True)
class Timed:
    """Seconds of the layers' choices and of a whole dense step.

    Attributes:
        values: of each place, that of each choice.
        layers: of all places, nothing left out.
        step: of a dense step.

    Example:
        >>> Timed([[0.5, 0.25]], layers=0.5, step=0.75).rest
        0.25
    """

    values: list[list[float]]
    layers: float
    step: float

    @property
    def rest(self) -> float:
        """Seconds of a step that are of no place."""
        return self.step - self.layers


def seconds_of_layers(subject: Subject, space: LayerSpace, engine: str) -> Timed:
    """Time every choice of every place, one layer after another.

    Args:
        subject: the network, with a batch.
        space: its choices, each of a whole layer.
        engine: who computes the products.
    """
    kept = _operands(subject, [place.layer for place in space.places])
    values, layers = [], 0.0
    # Every layer once, for each choice and round, is the work of a step at most.
    most = 1 + max(sum(not o.is_dense for o in p.options) for p in space.places)
    subject.count(subject.batches[0], 3 * _ROUNDS * most)
    for place in space.places:
        layer = subject.model.get_submodule(place.layer)
        every = {"dense": Option("dense", Table())} | {
            str(number): option
            for number, option in enumerate(place.options)
            if not option.is_dense
        }
        calls = {
            name: _call(_alone(layer, option, engine), kept[place.layer])
            for name, option in every.items()
        }
        found = {
            n: statistics.median(s) for n, s in interleaved(calls, _ROUNDS).items()
        }
        layers += found["dense"]
        values.append(
            [found.get(str(n), found["dense"]) for n in range(len(place.options))]
        )
    return Timed(values, layers, seconds_of_step(subject, Recipe("dense"), engine)[0])


def seconds_of_step(
    subject: Subject, recipe: Recipe, engine: str
) -> tuple[float, float]:
    """Median seconds of a dense training step, and the recipe's over them.

    Args:
        subject: the network, with a batch.
        recipe: of the step that takes turns with the dense one.
        engine: who computes the products.
    """
    with (
        elided(subject.model, Recipe("dense"), engine) as dense,
        elided(subject.model, recipe, engine) as made,
    ):
        calls = {"dense": _step(subject, dense), "recipe": _step(subject, made)}
        found = interleaved(calls, _STEPS)
    ratios = [r / d for d, r in zip(found["dense"], found["recipe"], strict=True)]
    return statistics.median(found["dense"]), statistics.median(ratios)


def _step(subject: Subject, model: nn.Module) -> Callable[[], None]:
    """One training step a call, at a rate so small that the weights stay."""
    optimizer = subject.workload.make_optimizer(model.train(), learning_rate=1e-9)
    attach(model, optimizer)
    batch = subject.batches[0]

    def call() -> None:
        subject.count(batch, 3)
        optimizer.zero_grad()
        subject.workload.task.loss(model, batch).backward()
        optimizer.step()

    return call


@dataclass
class _Operands:
    """What a layer reads: its input, whether it has a gradient, and the output's."""

    input: Tensor
    wants_gradient: bool
    grad_output: Tensor


def _operands(subject: Subject, names: list[str]) -> dict[str, _Operands]:
    """The operands of layers in a dense step."""
    inputs: dict[str, Any] = {}
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> None:
            if name in inputs:
                raise ValueError(
                    f"cost 'seconds': layer {name} is called more than once in a step; "
                    "choose for other layers, or another cost"
                )
            inputs[name] = args[0].detach().clone(), args[0].requires_grad
            outputs[name] = y

        return hook

    with elided(subject.model, Recipe("dense")) as model:
        for name in names:
            model.get_submodule(name).register_forward_hook(keep(name))
        batch = subject.batches[0]
        subject.count(batch, 3)
        loss = subject.workload.task.loss(model, batch)
        grads = torch.autograd.grad(loss, list(outputs.values()))
    return {
        name: _Operands(inputs[name][0], inputs[name][1], g)
        for name, g in zip(outputs, grads, strict=True)
    }


def _alone(layer: nn.Module, option: Option, engine: str) -> nn.Module:
    """A copy of one layer under one of its choices."""
    only = LayerSpace((Place("0", (option,)),), ("0",))
    model = nn.Sequential(copy.deepcopy(layer))
    return elide(model, only.recipe((0,)), engine=engine).train()


def _call(model: nn.Module, operands: _Operands) -> Callable[[], None]:
    """A forward and a backward pass of one layer."""
    attach(model, torch.optim.SGD(model.parameters(), lr=1e-9))

    def call() -> None:
        x = operands.input.detach().requires_grad_(operands.wants_gradient)
        for parameter in model.parameters():
            parameter.grad = None
        model(x).backward(operands.grad_output)

    return call
