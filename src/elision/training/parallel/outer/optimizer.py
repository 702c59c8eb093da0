"""OuterOptimizer: ranks train alone, and meet after every few steps by a rule."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from elision.common.checks import number, one_of
from elision.common.specs import build
from elision.training.parallel.outer.mean import Mean
from elision.training.parallel.outer.rules import OUTER_RULES, OuterRule
from elision.training.parallel.outer.rules.base import Memory

__all__ = ["OuterOptimizer"]

#: What becomes of the inner optimisers' state at an exchange.
_STATES = ("local", "average", "reset")


class _Rank:
    """One rank held by this process: its inner optimiser and what a rule remembers."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.parameters: list[Tensor] = [
            p for group in optimizer.param_groups for p in group["params"]
        ]
        self.memories: list[Memory] = [{} for _ in self.parameters]
        self.travelled = [0.0 for _ in self.parameters]

    def step(self) -> None:
        """One inner step; the learning rates are those it was taken with."""
        rates = [
            float(group["lr"])
            for group in self.optimizer.param_groups
            for _ in group["params"]
        ]
        self.optimizer.step()
        self.travelled = [t + r for t, r in zip(self.travelled, rates, strict=True)]


class OuterOptimizer:
    """Local training with a rare exchange, by one of :data:`OUTER_RULES`.

    Each rank has its own model, data and inner optimiser. :meth:`step` takes an inner
    step and, where the rule says so, exchanges. Ranks are the processes of
    ``torch.distributed``, or several optimisers of one process, or both. All ranks hold
    the same weights after an exchange. The parameters of the optimisers are exchanged;
    buffers, such as running means of a normalisation, stay each rank's own. The models
    must not be in ``DistributedDataParallel``, which exchanges at every step.

    Args:
        inner: the rank's optimiser, or one for each rank held here, over models with
            equal weights.
        rule: spec of an :class:`OuterRule`, such as ``"diloco:every=100,rate=0.7"``, or
            an instance.
        states: what becomes of the inner optimisers' state at an exchange: each rank
            keeps its own, all take the mean (step counters stay), or it is dropped.
        weights: how much each rank held here counts, such as its number of examples;
            default: alike. Only rules that weigh ranks take it.
        group: process group of ``torch.distributed``; default: all processes.

    Attributes:
        rule: the rule.
        steps: inner steps taken.
        exchanges: exchanges done.
        sent_bytes: payload that one rank has handed over for averaging so far, in bytes,
            gradients of synchronous steps and averaged states included. What a
            collective makes of it on the wire is in
            :mod:`elision.training.parallel.scaling`.

    Raises:
        ValueError: an unknown rule, state or parameter; ranks whose parameters differ in
            number, shape, dtype or value; weights that the rule does not take.

    Example:
        >>> models = [torch.nn.Linear(2, 1, bias=False) for _ in range(2)]
        >>> for model in models:
        ...     _ = torch.nn.init.ones_(model.weight)
        >>> inner = [torch.optim.SGD(m.parameters(), lr=1.0) for m in models]
        >>> outer = OuterOptimizer(inner, "local-sgd:every=1")
        >>> for rank, model in enumerate(models):
        ...     model(torch.full((1, 2), float(rank))).sum().backward()
        >>> outer.step()
        >>> models[0].weight.tolist() == models[1].weight.tolist() == [[0.5, 0.5]]
        True
    """

    def __init__(
        self,
        inner: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        rule: str | OuterRule = "local-sgd",
        *,
        states: Literal["local", "average", "reset"] = "local",
        weights: float | Sequence[float] | None = None,
        group: Any = None,
    ) -> None:
        one_of("OuterOptimizer", "states", states, _STATES)
        self.rule = (
            build("outer rule", rule, OUTER_RULES) if isinstance(rule, str) else rule
        )
        self.states = states
        several = isinstance(inner, Sequence)
        self._ranks = [_Rank(each) for each in (inner if several else [inner])]
        if not self._ranks:
            raise ValueError("OuterOptimizer: give at least one inner optimiser")
        for rank in self._ranks:
            self.rule.check_inner(rank.optimizer)
        self._mean = Mean(self._checked(weights), group)
        self._check_equal()
        first = self._ranks[0].parameters
        self._anchors = [_wide(p.detach()).clone() for p in first]
        self._shared: list[Memory] = [{} for _ in first]
        self.steps = self.exchanges = self.sent_bytes = 0

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of every rank held here."""
        for rank in self._ranks:
            rank.optimizer.zero_grad(set_to_none)

    def step(self) -> None:
        """One inner step of every rank held here, and an exchange where one is due.

        A collective call where an exchange is due: every process takes as many steps.
        """
        if self.rule.shares_gradients(self.steps):
            self._share_gradients()
        with torch.no_grad():
            for rank in self._ranks:
                for p, anchor, own in zip(
                    rank.parameters, self._anchors, rank.memories, strict=True
                ):
                    self.rule.correct(p, anchor, own)
        for rank in self._ranks:
            rank.step()
        synchronous = self.rule.shares_gradients(self.steps)
        self.steps += 1
        if synchronous:
            # Ranks have taken the same step: its end is where local steps will begin.
            self._move_anchors()
        elif self.rule.is_due(self.steps):
            self.exchange()

    @torch.no_grad()
    def exchange(self) -> None:
        """Exchange now (a collective call): all ranks go on from the same weights."""
        sent: list[list[Tensor]] = []
        for rank in self._ranks:
            own: list[list[Tensor]] = []
            for p, anchor, travelled, memory in zip(
                rank.parameters,
                self._anchors,
                rank.travelled,
                rank.memories,
                strict=True,
            ):
                own.append(self.rule.messages(anchor - p, travelled, memory))
            sent.append([tensor for tensors in own for tensor in tensors])
        means = self._averaged(sent)
        per_parameter = len(means) // len(self._anchors)
        for i, anchor in enumerate(self._anchors):
            own_means = means[i * per_parameter : (i + 1) * per_parameter]
            new = self.rule.move(anchor, own_means, self._shared[i])
            anchor.copy_(new)
            for rank in self._ranks:
                rank.parameters[i].copy_(anchor)
                self.rule.receive(own_means, rank.memories[i])
        for rank in self._ranks:
            rank.travelled = [0.0] * len(rank.parameters)
        self._settle_states()
        self.exchanges += 1

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, for ``torch.save``, inner optimisers included."""
        return {
            "steps": self.steps,
            "exchanges": self.exchanges,
            "sent_bytes": self.sent_bytes,
            "anchors": self._anchors,
            "shared": self._shared,
            "ranks": [
                {
                    "optimizer": rank.optimizer.state_dict(),
                    "memories": rank.memories,
                    "travelled": rank.travelled,
                }
                for rank in self._ranks
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a :meth:`state_dict` of as many ranks.

        Raises:
            ValueError: the state is of another number of ranks or of other parameters.
        """
        shapes = [a.shape for a in self._anchors]
        found = len(state["ranks"]), [a.shape for a in state["anchors"]]
        if found != (len(self._ranks), shapes):
            raise ValueError(
                f"OuterOptimizer: the state is of {found[0]} ranks with {len(found[1])} "
                f"parameters, here are {len(self._ranks)} with {len(shapes)}, or their "
                "shapes differ"
            )
        self.steps, self.exchanges = state["steps"], state["exchanges"]
        self.sent_bytes = state["sent_bytes"]
        self._anchors = [a.clone() for a in state["anchors"]]
        self._shared = [dict(memory) for memory in state["shared"]]
        for rank, own in zip(self._ranks, state["ranks"], strict=True):
            rank.optimizer.load_state_dict(own["optimizer"])
            rank.memories = [dict(memory) for memory in own["memories"]]
            rank.travelled = list(own["travelled"])

    def _checked(self, weights: float | Sequence[float] | None) -> list[float]:
        """A weight for each rank held here."""
        if weights is None:
            return [1.0] * len(self._ranks)
        if not self.rule.weighted:
            raise ValueError(
                f"OuterOptimizer: {self.rule.name} counts every rank alike; weights "
                f"{weights} would be ignored"
            )
        given = [weights] if isinstance(weights, (int, float)) else list(weights)
        if len(given) != len(self._ranks):
            raise ValueError(
                f"OuterOptimizer: {len(given)} weights for {len(self._ranks)} ranks"
            )
        return [number("OuterOptimizer", "weights", w, "> 0") for w in given]

    def _check_equal(self) -> None:
        """Raise ValueError unless all ranks begin with the same weights."""
        own = [(i, rank.parameters) for i, rank in enumerate(self._ranks)]
        kinds = [[(tuple(p.shape), p.dtype) for p in held] for _, held in own]
        told = self._mean.gathered([[str(kind) for kind in kinds]])
        everyone = [kind for process in told for kinds in process for kind in kinds]
        if len(set(everyone)) > 1:
            raise ValueError(
                "OuterOptimizer: the ranks' parameters differ in number, shape or dtype; "
                "give every rank the same network"
            )
        with torch.no_grad():
            for i, reference in enumerate(own[0][1]):
                common = self._mean.from_first(_wide(reference.detach()))
                same = all(
                    torch.equal(_wide(held[i].detach()), common) for _, held in own
                )
                if not all(self._mean.gathered(same)):
                    raise ValueError(
                        f"OuterOptimizer: the ranks begin with different weights in "
                        f"parameter {i} of shape {tuple(reference.shape)}; load the same "
                        "ones, or seed the ranks alike before the model is made"
                    )

    def _averaged(self, sent: list[list[Tensor]]) -> list[Tensor]:
        self.sent_bytes += sum(t.numel() * t.element_size() for t in sent[0])
        return self._mean(sent)

    @torch.no_grad()
    def _share_gradients(self) -> None:
        """Give every rank the mean gradient; one that a rank lacks counts as zero."""
        gradients = [
            [torch.zeros_like(p) if p.grad is None else p.grad for p in rank.parameters]
            for rank in self._ranks
        ]
        means = self._averaged([[_wide(g) for g in own] for own in gradients])
        for rank in self._ranks:
            for p, mean in zip(rank.parameters, means, strict=True):
                p.grad = mean.to(p.dtype, copy=True)

    @torch.no_grad()
    def _move_anchors(self) -> None:
        for anchor, parameter in zip(
            self._anchors, self._ranks[0].parameters, strict=True
        ):
            anchor.copy_(parameter)
        for rank in self._ranks:
            rank.travelled = [0.0] * len(rank.parameters)

    def _settle_states(self) -> None:
        """Keep, average or drop the inner optimisers' state."""
        if self.states == "reset":
            for rank in self._ranks:
                rank.optimizer.state.clear()
        if self.states == "average":
            kept = [_moments(rank) for rank in self._ranks]
            told = self._mean.gathered([sorted(own) for own in kept])
            if len({str(names) for process in told for names in process}) > 1:
                raise ValueError(
                    "OuterOptimizer(states='average'): the ranks' optimisers keep states "
                    "of different parameters; use states='local' or 'reset'"
                )
            names = sorted(kept[0])
            means = self._averaged([[_wide(own[n]) for n in names] for own in kept])
            for own in kept:
                for name, mean in zip(names, means, strict=True):
                    own[name].copy_(mean)


def _moments(rank: _Rank) -> dict[tuple[int, str], Tensor]:
    """State tensors of a parameter's shape: (number of the parameter, name) -> tensor.

    Step counters are left out: they are the same on all ranks.
    """
    return {
        (i, name): value
        for i, p in enumerate(rank.parameters)
        for name, value in rank.optimizer.state.get(p, {}).items()
        if name != "step" and isinstance(value, Tensor) and value.shape == p.shape
    }


def _wide(tensor: Tensor) -> Tensor:
    """The tensor in at least 32 bits, in which means are taken."""
    return tensor.float() if tensor.element_size() < 4 else tensor
