"""OuterOptimizer: ranks train alone, and meet after every few steps by a rule."""

import gc
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from elision.common.checks import number, one_of
from elision.common.specs import build
from elision.training.parallel.compressors import make_compressor
from elision.training.parallel.compressors.masked import Masked
from elision.training.parallel.masks import kept_masks, refuse_moving_masks
from elision.training.parallel.outer.compressed import CompressedMean
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
    must not be in ``DistributedDataParallel``, which exchanges at every step. Masks must
    stay (method ``static``): those that move would differ from rank to rank.

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
        compress: spec of one of :data:`~elision.training.parallel.COMPRESSORS` by which
            outer gradients travel, with the memory of what was not sent where it needs
            one; ``"mask"`` sends surviving weights alone. None: as they are.
        seed: of a compressor's random numbers.

    Attributes:
        rule: the rule.
        steps: inner steps taken.
        exchanges: exchanges done, those of a fragment each counted.
        sent_bytes: payload that one rank has handed over for averaging so far, in bytes,
            gradients of synchronous steps and averaged states included. What a
            collective makes of it on the wire is in
            :mod:`elision.training.parallel.scaling`.
        wire_bits: bits that this process sent in collectives so far, in rings.
        wire_dense: bits that it would have sent for gradients at every step.

    Raises:
        ValueError: an unknown rule, state, compressor or parameter; ranks whose parameters
            differ in number, shape, dtype or value; weights that the rule does not take;
            more fragments than parameters; a model in ``DistributedDataParallel`` or
            sharded; masks that move or differ.

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
        compress: str | None = None,
        seed: int = 0,
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
        first = self._ranks[0].parameters
        _refuse_wrapped(first)
        self._fragments = self._cut(self.rule.fragments)
        shares = self._checked(weights)
        self._mean = Mean(shares, group)
        self._check_equal()
        self._compressed: CompressedMean | None = None
        if compress is not None:
            made = make_compressor(compress)
            self._masked = isinstance(made, Masked)
            self._compressed = CompressedMean(made, self._mean, group, seed)
        self._anchors = [_wide(p.detach()).clone() for p in first]
        self._shared: list[Memory] = [{} for _ in first]
        self.steps = self.exchanges = self.sent_bytes = 0
        self.wire_bits = self.wire_dense = 0.0

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of every rank held here."""
        for rank in self._ranks:
            rank.optimizer.zero_grad(set_to_none)

    def step(self) -> None:
        """One inner step of every rank held here, and an exchange where one is due.

        A collective call where an exchange is due: every process takes as many steps.
        """
        if self.steps == 0:
            self._begin()
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
        self.wire_dense += self._ring_bits(self._ranks[0].parameters)
        if synchronous:
            # Ranks have taken the same step: its end is where local steps will begin.
            self._move_anchors()
        else:
            for number, fragment in enumerate(self._fragments):
                # The last fragment's turn ends a period, as that of a whole exchange.
                ahead = self.rule.every * (len(self._fragments) - 1 - number)
                if self.rule.is_due(self.steps + ahead // len(self._fragments)):
                    self._exchange(fragment)

    @torch.no_grad()
    def _begin(self) -> None:
        """Look for masks: they may have been attached since the ranks were given."""
        hashes: set[str] = set()
        for rank in self._ranks:
            refuse_moving_masks("OuterOptimizer", rank.optimizer)
            kept = kept_masks(rank.optimizer)
            sha = hashlib.sha256()
            for i, p in enumerate(rank.parameters):
                if id(p) in kept:
                    sha.update(f"{i}/".encode() + kept[id(p)].cpu().numpy().tobytes())
            hashes.add(sha.hexdigest())
            for p, anchor in zip(rank.parameters, self._anchors, strict=True):
                if id(p) in kept:
                    # An inner step drops these; of the anchor they would never go.
                    p *= kept[id(p)]
                    anchor *= kept[id(p)]
        if len(set[str]().union(*self._mean.gathered(hashes))) > 1:
            raise ValueError(
                "OuterOptimizer: the ranks' masks differ; elide all ranks with one recipe "
                "and seed"
            )

    def exchange(self) -> None:
        """Exchange everything now (a collective call): ranks go on from equal weights."""
        self._exchange(range(len(self._anchors)))

    @torch.no_grad()
    def _exchange(self, which: Sequence[int]) -> None:
        sent: list[list[Tensor]] = []
        for rank in self._ranks:
            own = [
                self.rule.messages(
                    self._anchors[i] - rank.parameters[i],
                    rank.travelled[i],
                    rank.memories[i],
                )
                for i in which
            ]
            sent.append([tensor for tensors in own for tensor in tensors])
        per_parameter = len(sent[0]) // len(which)
        names = [f"{i}/{m}" for i in which for m in range(per_parameter)]
        means = self._travel(names, sent)
        for place, i in enumerate(which):
            own_means = means[place * per_parameter : (place + 1) * per_parameter]
            anchor, shared = self._anchors[i], self._shared[i]
            anchor.copy_(self.rule.move(anchor, own_means, shared))
            for rank in self._ranks:
                rank.parameters[i].copy_(anchor)
                rank.travelled[i] = 0.0
                rank.memories[i] |= {name: shared[name] for name in self.rule.told}
        self._settle_states(which)
        self.exchanges += 1

    def _travel(self, names: list[str], sent: list[list[Tensor]]) -> list[Tensor]:
        """The mean of what the ranks send of the rule's messages."""
        if self._compressed is None:
            return self._averaged(sent)
        masks: list[Tensor | None] = [None] * len(names)
        if self._masked:
            known = kept_masks(self._ranks[0].optimizer)
            if not known:
                raise ValueError(
                    "OuterOptimizer: compress 'mask' sends surviving weights, and no mask "
                    "is attached to the optimiser; elide the model with method static and "
                    "call elision.topology.attach"
                )
            places = [int(name.partition("/")[0]) for name in names]
            ids = [id(self._ranks[0].parameters[i]) for i in places]
            masks = [known.get(each) for each in ids]
        before = self._compressed.sent
        means, bits = self._compressed(names, sent, masks)
        self.sent_bytes += bits // 8
        self.wire_bits += self._compressed.sent - before
        return means

    def _ring_bits(self, tensors: Sequence[Tensor]) -> float:
        """Bits that one process sends so that processes have the sums of tensors."""
        processes = self._mean.processes
        return sum(8 * t.nbytes for t in tensors) * 2 * (processes - 1) / processes

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Every rank's model with the mean weights of all, while the block runs.

        For evaluation between two exchanges (a collective call, not counted as sent).
        """
        with torch.no_grad():
            own = [[p.clone() for p in rank.parameters] for rank in self._ranks]
            self.average()
        try:
            yield
        finally:
            with torch.no_grad():
                for rank, kept in zip(self._ranks, own, strict=True):
                    for p, value in zip(rank.parameters, kept, strict=True):
                        p.copy_(value)

    @torch.no_grad()
    def average(self) -> None:
        """Leave the mean of all ranks' weights in every model: the end of training."""
        held = [[_wide(p) for p in rank.parameters] for rank in self._ranks]
        means = self._mean(held)
        for rank in self._ranks:
            for p, mean in zip(rank.parameters, means, strict=True):
                p.copy_(mean)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, for ``torch.save``, inner optimisers included."""
        inner = [rank.optimizer.state_dict() for rank in self._ranks]
        return {**self.own_state(), "inner": inner}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a :meth:`state_dict` of as many ranks.

        Raises:
            ValueError: the state is of another number of ranks or of other parameters.
        """
        self.load_own_state(state)
        for rank, inner in zip(self._ranks, state["inner"], strict=True):
            rank.optimizer.load_state_dict(inner)

    def own_state(self) -> dict[str, Any]:
        """The state without the inner optimisers': text as keys, for any kind of file."""
        return {
            "steps": self.steps,
            "exchanges": self.exchanges,
            "sent_bytes": self.sent_bytes,
            "wire": [self.wire_bits, self.wire_dense],
            "anchors": self._anchors,
            "shared": self._shared,
            "compressed": None
            if self._compressed is None
            else self._compressed.state_dict(),
            "ranks": [
                {"memories": rank.memories, "travelled": rank.travelled}
                for rank in self._ranks
            ],
        }

    def load_own_state(self, state: dict[str, Any]) -> None:
        """Continue from an :meth:`own_state`, as :meth:`load_state_dict` does."""
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
        self.wire_bits, self.wire_dense = state["wire"]
        self._anchors = [a.clone() for a in state["anchors"]]
        self._shared = [dict(memory) for memory in state["shared"]]
        if self._compressed is not None and state["compressed"] is not None:
            self._compressed.load_state_dict(state["compressed"])
        for rank, own in zip(self._ranks, state["ranks"], strict=True):
            rank.memories = [dict(memory) for memory in own["memories"]]
            rank.travelled = list(own["travelled"])

    def _cut(self, count: int) -> list[list[int]]:
        """The parameters in so many runs of about the same number of values."""
        sizes = [p.numel() for p in self._ranks[0].parameters]
        if count > len(sizes):
            raise ValueError(
                f"{type(self.rule).__name__}(fragments={count}): there are {len(sizes)} "
                "parameters, and a fragment has one at least"
            )
        cut: list[list[int]] = [[] for _ in range(count)]
        done, place = 0, 0
        for i, size in enumerate(sizes):
            left = len(sizes) - i
            full = done >= (place + 1) * sum(sizes) / count
            if cut[place] and place + 1 < count and (full or left < count - place):
                place += 1
            cut[place].append(i)
            done += size
        return cut

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
        self.sent_bytes += sum(t.nbytes for t in sent[0])
        self.wire_bits += self._ring_bits(sent[0])
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

    def _settle_states(self, which: Sequence[int]) -> None:
        """Keep, average or drop the inner optimisers' state of these parameters."""
        if self.states == "reset":
            for rank in self._ranks:
                for i in which:
                    rank.optimizer.state.pop(rank.parameters[i], None)
        if self.states == "average":
            kept = [_moments(rank, which) for rank in self._ranks]
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


def _refuse_wrapped(parameters: Sequence[Tensor]) -> None:
    """Raise ValueError if a wrapper of the model exchanges its gradients already."""
    if any(hasattr(p, "full_tensor") for p in parameters):
        raise ValueError(
            "OuterOptimizer: the parameters are sharded (FSDP, tensor parallel), and a "
            "rank has no whole weights to train alone; give every rank the whole network"
        )
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    own = {id(p) for p in parameters}
    # A parameter does not know its wrapper, and the optimiser has the parameters alone.
    for thing in gc.get_objects():
        if issubclass(type(thing), nn.parallel.DistributedDataParallel) and any(
            id(p) in own for p in thing.parameters()
        ):
            raise ValueError(
                "OuterOptimizer: the model is in DistributedDataParallel, which averages "
                "gradients at every step; give the plain model to the inner optimiser"
            )


def _moments(rank: _Rank, which: Sequence[int]) -> dict[tuple[int, str], Tensor]:
    """State tensors of a parameter's shape: (number of the parameter, name) -> tensor.

    Step counters are left out: they are the same on all ranks.
    """
    return {
        (i, name): value
        for i in which
        for p in [rank.parameters[i]]
        for name, value in rank.optimizer.state.get(p, {}).items()
        if name != "step" and isinstance(value, Tensor) and value.shape == p.shape
    }


def _wide(tensor: Tensor) -> Tensor:
    """The tensor in at least 32 bits, in which means are taken."""
    return tensor.float() if tensor.element_size() < 4 else tensor
