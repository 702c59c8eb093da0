"""Float weights that follow their quantised values, and steps that learn beside them."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, distributed

from elision.common.checks import integer, number
from elision.common.sharding import full, local, scatter_like
from elision.layers import plan_of, states_of
from elision.operands import LearnedStep, QuantisedWeight, Transform
from elision.operands.chain import links_of
from elision.products import Product
from elision.topology.rule import Rule
from elision.topology.run import Run
from elision.topology.weights import SparseWeight

__all__ = ["Blended"]


class _Link(NamedTuple):
    """A transform of a layer's operand, or one in its chain, with its own state."""

    layer: str
    operand: str
    transform: Transform
    state: dict[str, Tensor]


class _Step(NamedTuple):
    """A learned step."""

    name: str
    operand: str
    transform: LearnedStep
    value: Tensor


@dataclass(frozen=True)
class Blended(Rule):
    """Blend weights with their quantised values before a step, train steps, clip weights.

    With ``w`` the float weights, ``q = Q(w)`` what the products read and ``g`` the gradient
    that they gave, the optimiser's step starts from a weighted mean::

        w ← (1 − rho)·w + rho·q         then the step by g, weight decay included

    ``rho = 0`` leaves the weights to the optimiser (straight-through training). The steps
    of every :class:`~elision.operands.LearnedStep` join the optimiser's group of their
    layer's weight, whose learning rate and weight decay act on them, and stay within their
    bounds. Where several processes train one model, all take the mean of the steps'
    gradients.

    Attributes:
        rho: weight of the quantised values, in [0, 1].
        rate: factor on ``rho`` after every ``every`` steps.
        every: steps between two of these.
        cap: what ``rho`` grows to at most; one that starts above it stays.
        clip: bound on the magnitude of a weight, applied after a step; None for none.

    Example:
        >>> Blended(rho=1e-4, rate=2.0, every=10).rho_in(step=21)
        0.0004
    """

    rho: float = 0.0
    rate: float = 1.0
    every: int = 391
    cap: float = 0.01
    clip: float | None = None

    transform = QuantisedWeight
    masks_gradients = False
    masks_weights = False

    def __post_init__(self) -> None:
        number("Blended", "rho", self.rho, "[0, 1]")
        number("Blended", "rate", self.rate, "> 0")
        integer("Blended", "every", self.every)
        number("Blended", "cap", self.cap, "[0, 1]")
        if self.clip is not None:
            number("Blended", "clip", self.clip, "> 0")

    def rho_in(self, step: int) -> float:
        """The weight of the quantised values in a step, from 1."""
        grown = self.rho * self.rate ** ((step - 1) // self.every)
        return max(min(self.rho, grown), min(grown, self.cap))

    def acts_on(self, weights: list[SparseWeight]) -> bool:
        """Whether anything happens around a step of the optimiser."""
        learned = (s for weight in weights for s in _steps(weight))
        acts = self.rho or self.clip is not None
        return bool(acts) or any(s.transform.learns for s in learned)

    def start(
        self, weights: list[SparseWeight], dense: dict[str, tuple[int, ...]]
    ) -> None:
        """Check the weights and give their steps first values."""
        del dense
        for weight in weights:
            values = full(weight.weight.detach())
            if isinstance(weight.transform, QuantisedWeight):
                try:
                    weight.transform.check_weight(values)
                except ValueError as error:
                    raise ValueError(f"layer {weight.name}: {error}") from None
            for step in _steps(weight):
                if step.operand == "weight" and not bool(step.value):
                    step.value.copy_(step.transform.first_step(values))

    def initial_state(self) -> dict[str, Tensor]:
        return {"at_bound": torch.zeros((), dtype=torch.int64)}

    def parameters(
        self, weights: list[SparseWeight]
    ) -> list[tuple[str, SparseWeight, Tensor]]:
        return [
            (step.name, weight, step.value.requires_grad_())
            for weight in weights
            for step in _steps(weight)
            if step.transform.learns
        ]

    def unattached(self, name: str) -> str:
        done = ["its steps do not learn"]
        if self.rho:
            done.insert(0, "its weights are not blended with their quantised values")
        if self.clip is not None:
            done.insert(0, "its weights are not clipped")
        return f"{name}: {' and '.join(done)}"

    def shape_gradients(self, run: Run) -> None:
        """Give every process the mean of the steps' gradients."""
        world = _processes()
        if world > 1:
            for step in run.trained.values():
                if step.grad is None:
                    step.grad = torch.zeros_like(step)
                distributed.all_reduce(step.grad)
                step.grad /= world

    def before_step(self, run: Run) -> bool:
        rho = self.rho_in(run.step)
        if run.step == 1 and _processes() > 1:
            for step in run.trained.values():  # each had a first batch of its own
                distributed.all_reduce(step)
                step /= _processes()
        if rho:
            for weight in run.learning:
                w = weight.weight
                q = scatter_like(_quantised(weight), w)
                local(w).mul_(1 - rho).add_(local(q), alpha=rho)
        return False

    def after_step(self, run: Run) -> None:
        stuck: list[str] = []
        for weight in run.learning:
            if self.clip is not None:
                local(weight.weight).clamp_(-self.clip, self.clip)
            for step in _steps(weight):
                low, high = step.transform.bounds
                if step.transform.learns and not low < float(step.value) < high:
                    step.value.clamp_(low, high)
                    stuck.append(f"{step.name} ({float(step.value):g})")
        known = run.state("at_bound")
        if len(stuck) > int(known):
            known.fill_(len(stuck))
            warnings.warn(
                f"step {run.step}: {', '.join(stuck)} has reached its bound; a smaller "
                "learning rate or another first step keeps it within",
                stacklevel=2,
            )


def _processes() -> int:
    """Number of processes that train together."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size()


def _quantised(weight: SparseWeight) -> Tensor:
    """The whole weight as the forward product of the last pass read it."""
    layer = weight.layers[0]
    plan = plan_of(layer)
    use = plan.use(Product.FORWARD, "weight")
    state = list(states_of(layer, use).values())
    return plan.uses[use](full(weight.weight.detach()), state, False)


def _links(weight: SparseWeight) -> Iterator[_Link]:
    """The transforms of all layers of a weight, those inside chains one by one."""
    for layer in weight.layers:
        plan = plan_of(layer)
        for use, transform in plan.uses.items():
            operand, state = plan.operand_of(use), states_of(layer, use)
            for prefix, link in links_of(transform):
                own = {n: state[f"{prefix}{n}"] for n in link.state_names}
                yield _Link(layer._elision_name, operand, link, own)


def _steps(weight: SparseWeight) -> Iterator[_Step]:
    """The steps of all layers of a weight, those that are fixed included."""
    for link in _links(weight):
        if isinstance(link.transform, LearnedStep):
            name = f"{link.layer}/{link.operand} step"
            yield _Step(name, link.operand, link.transform, link.state["step"])
