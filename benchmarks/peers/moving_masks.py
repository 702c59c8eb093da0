"""RigL's steps, here and in libraries that mask dense weights."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.peers.base import DENSE, OURS, Agreement, Work
from elision.layers import elide
from elision.methods import RigL
from elision.topology import attach
from elision.workloads.models import make_model

__all__ = ["Masks", "compared"]

SPARSITY = 0.9
#: Steps of RigL's schedule; masks stop moving at the last.
UNTIL = 25_000


@dataclass(frozen=True)
class Masks:
    """What another library's masks are, by layer, and its optimiser's step."""

    masks: Callable[[], dict[str, torch.Tensor]]
    step: Callable[[], None]


@dataclass(frozen=True)
class _Side:
    model: nn.Module
    step: Callable[[], float]
    masks: Callable[[], dict[str, torch.Tensor]]


def compared(
    name: str, make: Callable[..., Masks], small: bool, least: int
) -> Iterator[Work]:
    """An ordinary step, and steps of which the last moves all masks.

    Args:
        name: of the other library.
        make: gives a model its masks.
        small: a network for a test.
        least: steps between two moves that it allows, at the least.
    """
    network, batch = ("resnet8", 8) if small else ("resnet18", 8)
    torch.manual_seed(0)
    plain = make_model(network, classes=10)
    x, y = torch.randn(batch, 3, 32, 32), torch.arange(batch) % 10
    title = f"{network}, {batch} images of 32x32, RigL at {SPARSITY:.0%}"
    moving = "a step that moves all masks"
    if least > 1:
        moving = f"{least} steps, of which the last moves all masks"
    for what, every, steps in (
        ("a step between two moves", UNTIL + 1, 1),
        (moving, least, least),
    ):
        theirs = _theirs(make, plain, x, y, every)
        ours = _ours(plain, x, y, every, theirs)
        dense = _step(copy.deepcopy(plain), x, y)
        here, there = _repeated(ours.step, steps)(), _repeated(theirs.step, steps)()
        agreement = [
            Agreement("loss of the last step, relative", abs(here / there - 1), 1e-4)
        ]
        before = theirs.masks()
        differing = sum(int((ours.masks()[n] != m).sum()) for n, m in before.items())
        active = sum(int(m.sum()) for m in before.values())
        # Rounding decides where two scores are all but equal.
        agreement.append(
            Agreement(
                "masks after it, share of the active weights that differ",
                differing / active,
                1e-3,
            )
        )
        yield Work(
            f"{title}: {what}",
            {
                OURS: _repeated(ours.step, steps),
                name: _repeated(theirs.step, steps),
                DENSE: _repeated(dense, steps),
            },
            tuple(agreement),
            "the dense step has no masks",
        )


def _repeated(step: Callable[[], float], steps: int) -> Callable[[], float]:
    """So many steps in one call, which returns the last loss."""
    return lambda: [step() for _ in range(steps)][-1]


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)


def _loss(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    model.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    return loss.item()


def _step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[], float]:
    optimizer = _optimizer(model)

    def step() -> float:
        loss = _loss(model, x, y)
        optimizer.step()
        return loss

    return step


def _theirs(make: Any, plain: nn.Module, x: Any, y: Any, every: int) -> _Side:
    torch.manual_seed(1)
    model = copy.deepcopy(plain)
    optimizer = _optimizer(model)
    masks = make(model, optimizer, sparsity=SPARSITY, every=every, until=UNTIL)

    def step() -> float:
        loss = _loss(model, x, y)
        masks.step()
        return loss

    return _Side(model, step, masks.masks)


def _ours(plain: nn.Module, x: Any, y: Any, every: int, theirs: _Side) -> _Side:
    """The same weights under the same masks."""
    model = copy.deepcopy(plain)
    recipe = RigL(
        SPARSITY,
        distribution="uniform",
        every=every,
        until=UNTIL,
        dense=(":first", ":last"),
    )
    elide(model, recipe)
    optimizer = _optimizer(model)
    topology = attach(model, optimizer)
    wanted = theirs.masks()
    named = {weight.name: weight for weight in topology.weights}
    if named.keys() != wanted.keys():
        raise ValueError(f"masks of {sorted(named)} here, of {sorted(wanted)} there")
    parameters = dict(plain.named_parameters())
    for name, weight in named.items():
        weight.set_state("mask", wanted[name])
        with torch.no_grad():
            weight.weight.copy_(parameters[f"{name}.weight"] * wanted[name])

    def step() -> float:
        loss = _loss(model, x, y)
        optimizer.step()
        return loss

    return _Side(model, step, lambda: {n: w.mask.clone() for n, w in named.items()})
