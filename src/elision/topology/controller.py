"""The controller: calls a model's rule around every step of its optimiser.

By hooks that torch offers for it (before and after ``optimizer.step``), so schedulers,
scalers and wrappers that were made before or come later keep working.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from elision.common.checks import integer
from elision.layers import elidable_layers
from elision.topology.install import (
    UPDATES,
    Installed,
    divide_state,
    installed_in,
    left_dense,
)
from elision.topology.move import Move
from elision.topology.optimizers import Stepper, runs_hooks, steppers
from elision.topology.outcome import Outcome
from elision.topology.part import Part
from elision.topology.rule import Rule
from elision.topology.weights import SparseWeight, sparse_weights

__all__ = ["Topology", "attach"]


class Topology:
    """The moving masks of one model under its optimisers; made by :func:`attach`.

    Attributes:
        model: the elided module that holds the masks' state.
        rule: what moves them; None for a recipe that moves none.
        parts: what each optimiser moves, in the order given.
        weights: the weights that have a mask.
        history: every move so far in this process.

    Example:
        >>> import torch, elision
        >>> model = elision.elide(torch.nn.Linear(8, 4), elision.methods.RigL(0.5, dense=()))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> topology = elision.topology.attach(model, optimizer, steps=400)
        >>> print(topology.report().splitlines()[3])
        rigl: 0 steps, 0 with moves, next in step 10, until step 300
    """

    def __init__(
        self, model: nn.Module, optimizer: Any, steps: int | None = None
    ) -> None:
        root, self._installed = installed_in(model)
        self.model, self.rule = root, None
        self.weights: list[SparseWeight] = []
        self.parts: list[Part] = []
        self.history: list[Move] = []
        self._steppers = steppers(optimizer)
        # Weights are rounded before masks are applied to them.
        self._rounding = self._hooked(*installed_in(model, UPDATES))
        installed = self._installed
        if installed is None:
            return
        installed.fit(steps)
        self.rule: Rule | None = installed.rule
        self.parts = self._hooked(root, installed)
        self.weights = self.parts[0].weights

    def _hooked(self, root: nn.Module, installed: Installed | None) -> list[Part]:
        """The parts of a rule, one an optimiser, which follow its steps."""
        if installed is None:
            return []
        weights = sparse_weights(root, installed.rule.transform)
        own = self._own(installed.rule, weights)
        installed.silence()
        if installed.held.controller is not None:
            installed.held.controller.release()
        divide_state(root, len(own), installed.slot)
        parts = [
            Part(root, installed, stepper, weights, owned, i, self.history)
            for i, (stepper, owned) in enumerate(own)
        ]
        installed.held.controller = self
        for part in parts:
            part.hook()
        return parts

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimiser that owns the weights; the first of several."""
        return (self.parts[0].stepper if self.parts else self._steppers[0]).inner

    @property
    def trained(self) -> dict[str, Tensor]:
        """Parameters that the optimiser trains beside a weight, by name."""
        return {name: p for part in self.parts for name, p in part.trained.items()}

    @property
    def learning(self) -> list[SparseWeight]:
        """The weights with a gradient in the step under way."""
        return [weight for part in self.parts for weight in part.learning]

    @property
    def step(self) -> int:
        """The step under way, from 1; between steps, the next one (of the first part)."""
        return self._first().step

    @property
    def moves(self) -> int:
        """Steps in which masks moved, earlier processes of this run included."""
        return max((int(part.state("moves")) for part in self.parts), default=0)

    def state(self, name: str) -> Tensor:
        """Value that the rule keeps for the whole model, or for the first part of it."""
        return self._first().state(name)

    @property
    def sparsity(self) -> float:
        """Fraction of zeros over all weights that have a mask."""
        total = sum(weight.weight.numel() for weight in self.weights)
        return 1 - self.nnz / total if total else 0.0

    @property
    def nnz(self) -> int:
        """Active weights of the model."""
        return sum(weight.nnz for weight in self.weights)

    @property
    def left_dense(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the weights that a recipe can reach and that have no mask."""
        return left_dense(self.model, self.weights)

    def gradient(self, weight: SparseWeight) -> Tensor:
        """The dense gradient of a whole weight in the step under way.

        After the optimiser's step too, if the rule said that the step needs it.

        Raises:
            ValueError: the weight is none of this topology's.
        """
        return self._part_of(weight).gradient(weight)

    def masks(self) -> dict[str, Tensor]:
        """The mask of each layer, by name."""
        return {weight.name: weight.mask for weight in self.weights}

    def move(self, weight: SparseWeight, mask: Tensor) -> None:
        """Set a weight's mask; weights and optimiser state that leave or enter are zeroed.

        Raises:
            ValueError: the weight is none of this topology's.
        """
        self._part_of(weight).move(weight, mask)

    def record(self, weight: SparseWeight, mask: Tensor) -> None:
        """Set a weight's mask and add to the history; weight and optimiser state stay.

        Raises:
            ValueError: the weight is none of this topology's.
        """
        self._part_of(weight).record(weight, mask)

    def keep_optimizer_state(self, weight: SparseWeight, where: Tensor) -> None:
        """Zero what the optimiser keeps of a weight elsewhere.

        Raises:
            ValueError: the weight is none of this topology's.
        """
        self._part_of(weight).keep_optimizer_state(weight, where)

    def digest(self) -> str:
        """A hash of all masks, to compare ranks and runs by."""
        sha = hashlib.sha256()
        for name, mask in self.masks().items():
            sha.update(name.encode())
            sha.update(np.packbits(mask.cpu().numpy()).tobytes())
        return sha.hexdigest()

    def check_ranks(self) -> None:
        """Compare the masks of all processes (a collective call).

        Raises:
            RuntimeError: some process holds other masks than process 0.
        """
        from torch import distributed

        digests: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(digests, self.digest())
        other = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
        if other:
            raise RuntimeError(
                f"the masks of ranks {other} differ from those of rank 0 at step "
                f"{self.step}; elide with one seed everywhere, and load one checkpoint"
            )

    def report(self) -> str:
        """The layers (shape, active weights, density), the schedule, and what is dense."""
        outcome = self._outcome()
        return "this recipe moves no mask" if outcome is None else outcome.text()

    def __repr__(self) -> str:
        outcome = self._outcome()
        return f"<{self.report() if outcome is None else outcome.line()}>"

    def _repr_html_(self) -> str:
        outcome = self._outcome()
        return self.report() if outcome is None else outcome.html()

    def loaded(self) -> None:
        """The model's state was loaded: take its counts, and follow the rule given now."""
        for parts in (self._rounding, self.parts):
            if parts:
                divide_state(parts[0].model, len(parts), parts[0].slot)
            for part in parts:
                part.loaded()

    def detach(self) -> None:
        """Stop moving and applying masks; they stay as they are.

        Warns:
            ScheduleWarning: no mask ever moved, or the sparsity is far from its target.
        """
        attached = any(part.is_hooked for part in self.parts)
        self.release()
        if attached and self._installed is not None:
            self._installed.finalizing(self.model)

    def release(self) -> None:
        """Detach without a word, as for another controller."""
        for part in (*self._rounding, *self.parts):
            part.unhook()

    def _first(self) -> Part:
        if not self.parts:
            raise ValueError("this recipe moves no mask, so nothing counts its steps")
        return self.parts[0]

    def _part_of(self, weight: SparseWeight) -> Part:
        for part in self.parts:
            if any(weight.weight is own.weight for own in part.own):
                return part
        names = ", ".join(own.name for own in self.weights) or "none"
        raise ValueError(
            f"{weight.name} is no weight of this topology; its weights are {names}"
        )

    def _outcome(self) -> Outcome | None:
        if self._installed is None or self.rule is None:
            return None
        layers = elidable_layers(self.model)
        known = {id(p) for layer in layers.values() for p in layer.parameters()}
        masked = {id(layer) for weight in self.weights for layer in weight.layers}
        tables = [
            name
            for name, layer in layers.items()
            if isinstance(layer, nn.Embedding) and id(layer) not in masked
        ]
        bare = [
            name
            for name, p in self.model.named_parameters()
            if p.dim() > 1 and id(p) not in known
        ]
        return Outcome(
            self._installed.name,
            self.rule,
            self.weights,
            [*self.left_dense, *tables],
            bare,
            self.step,
            self.moves,
        )

    def _own(
        self, rule: Rule, weights: list[SparseWeight]
    ) -> list[tuple[Stepper, list[SparseWeight]]]:
        """The optimisers that own weights of a rule, each with its own.

        A frozen weight need have no owner; the first optimiser's part has it.
        """
        parts: list[tuple[Stepper, list[SparseWeight]]] = []
        left = list(weights)
        for stepper in self._steppers:
            owned = stepper.owned()
            own = [weight for weight in left if id(weight.weight) in owned]
            left = [weight for weight in left if id(weight.weight) not in owned]
            if own:
                parts.append((stepper, own))
                _check_shards(rule, stepper, own)
        if not self._steppers:
            raise ValueError("attach needs an optimiser, got an empty list")
        names = " and ".join(stepper.name for stepper in self._steppers)
        missing = [weight.name for weight in left if weight.weight.requires_grad]
        if missing:
            raise ValueError(
                f"{names} {'do' if len(self._steppers) > 1 else 'does'} not own the "
                f"weights of {', '.join(missing)}, which {rule.acts}; give it "
                "model.parameters() of the elided model, or leave those layers dense"
            )
        parts = parts or [(self._steppers[0], [])]
        parts[0][1].extend(left)
        return parts


def _check_shards(rule: Rule, stepper: Stepper, own: list[SparseWeight]) -> None:
    """Refuse a rule that reads or trains what another process alone has.

    Or weights of another process whose arrival no hook tells.
    """
    stepped = stepper.stepped()
    elsewhere = [w.name for w in own if id(w.weight) not in stepped]
    if elsewhere and (rule.reads_momentum or rule.parameters(own)):
        raise ValueError(
            f"{stepper.name} steps {', '.join(elsewhere)} in another process, and the "
            "method reads what the optimiser keeps of every weight; use an optimiser "
            "that is not sharded"
        )
    if elsewhere and not any(map(runs_hooks, stepper.wrappers)):
        raise ValueError(
            f"{stepper.name} steps {', '.join(elsewhere)} in another process, and its "
            "wrapper runs no step hooks of torch.optim.Optimizer, by which masks follow"
        )


def attach(
    model: nn.Module, optimizer: Any | Sequence[Any], *, steps: int | None = None
) -> Topology:
    """Let the masks of an elided model move with the steps of its optimiser.

    Call it once, after ``elide`` and after the model is on its device and wrapped, with
    the optimiser that owns the model's parameters::

        elision.elide(model, elision.methods.RigL(sparsity=0.9))
        topology = elision.topology.attach(model, optimizer, steps=epochs * len(loader))

    A recipe that moves nothing needs no call, and one does no harm. A second call takes
    the place of the first.

    A weight without a gradient in a step keeps its mask, its value and its scores.
    Optimisers inside wrappers (Lookahead, sharpness-aware minimisation, Accelerate,
    ``ZeroRedundancyOptimizer``) are found; theirs are the steps that count.

    Args:
        model: the elided model, or a wrapper of it (``DistributedDataParallel``,
            a compiled module).
        optimizer: its optimiser, or a list of those that share its parameters. Each of
            several moves the masks of the weights that it owns, and counts its own
            steps; growth from layer to layer stays within them.
        steps: length of the run, in steps of the optimiser, to which the method's
            schedule is fitted as by :meth:`elision.methods.Method.fitted` (moves in the
            first three quarters); parameters that differ from the published ones stay as
            they were given. None: the method's schedule as it is.

    Returns:
        What moves the masks: counts, history, report, hash.

    Raises:
        TypeError: what is given is no optimiser and wraps none.
        ValueError: the model is not elided, the optimiser does not own a weight that
            has a mask, or runs no step hooks; ``steps`` is no integer >= 1.
    """
    if steps is not None:
        integer("attach", "steps", steps)
    return Topology(model, optimizer, steps)
