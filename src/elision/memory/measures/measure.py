"""Policies measured on training steps of a classifier, beside plain autograd.

Everything in a :class:`MemoryRow` is measured in one process: bytes by the ledger, the
peak by the allocator's own account, time against plain autograd in the same round, and
the error of every layer's weight gradient.
"""

import statistics
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.common.restoring import restored
from elision.common.timing import Elapsed, elapsed
from elision.memory.peak import measure_peak, watch_peak
from elision.memory.policies.base import Restricted
from elision.memory.policies.presets import policy_for
from elision.memory.saved.ledger import Ledger
from elision.memory.saved.roles import Role
from elision.memory.saver import saver

__all__ = [
    "SAVE_ON_CPU",
    "MemoryRow",
    "loss_under",
    "measure_policies",
    "step_peak",
]

#: Names PyTorch's own offloading, to be measured beside the policies.
SAVE_ON_CPU = "torch.autograd.graph.save_on_cpu"


@dataclass(frozen=True)
class MemoryRow:
    """One policy on one model, measured.

    Attributes:
        policy: its name.
        logical_bytes: bytes plain autograd would hold between forward and backward.
        stored_bytes: bytes held instead, by the ledger (of :data:`SAVE_ON_CPU`, which
            has none, by the allocator).
        held_bytes: bytes the allocator still counts after the forward pass, the batch
            excepted.
        batch_bytes: the batch, which the ledger includes.
        plain_peak_bytes, peak_bytes: peak of a step in plain autograd and here;
            parameters excepted, their gradients included.
        time_ratios: step time over plain autograd's, one per round.
        processor_time_ratios: the same in processor seconds of this process, which
            other processes do not add to.
        gradient_errors: parameter of two or more axes -> relative error of its gradient
            in a whole backward pass, the errors of later layers included.
        own_errors: the same if only the inputs of convolutions and linear layers are
            packed lossily, so that exact gradients arrive at every layer.
        elsewhere_bytes: packed tensors whose originals the model or caller kept alive.
    """

    policy: str
    logical_bytes: int
    stored_bytes: int
    held_bytes: int
    batch_bytes: int
    plain_peak_bytes: int
    peak_bytes: int
    time_ratios: tuple[float, ...]
    processor_time_ratios: tuple[float, ...]
    gradient_errors: dict[str, float]
    own_errors: dict[str, float]
    elsewhere_bytes: int = 0

    @property
    def tensor_ratio(self) -> float:
        """Bytes of the saved tensors in plain autograd over those stored."""
        return self.logical_bytes / max(self.stored_bytes, 1)

    @property
    def peak_ratio(self) -> float:
        """Measured peak of plain autograd over that under the policy."""
        return self.plain_peak_bytes / self.peak_bytes

    @property
    def time_ratio(self) -> float:
        """Median step time over plain autograd's."""
        return statistics.median(self.time_ratios)

    @property
    def processor_time_ratio(self) -> float:
        """Median processor time of a step over plain autograd's."""
        return statistics.median(self.processor_time_ratios)

    @property
    def ledger_over_measured(self) -> float:
        """Bytes by the ledger over bytes by the allocator after the forward pass."""
        return (self.stored_bytes - self.batch_bytes) / max(self.held_bytes, 1)


def measure_policies(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    policies: Sequence[Any],
    rounds: int = 5,
) -> Iterator[MemoryRow]:
    """Measure training steps of a classifier under each policy.

    Plain autograd and all policies take turns within each round, so that other load on
    the machine affects all of them. Parameters are not updated and buffers are put
    back.

    Args:
        model: the classifier, in training mode.
        images: a batch, ``(N, C, H, W)``.
        labels: its classes, ``(N,)``.
        policies: as for :class:`elision.memory.saver`, or :data:`SAVE_ON_CPU`.
        rounds: timed steps per policy.
    """
    step = _Step(model, images, labels)
    arms = [None, *policies]
    for arm in arms:  # compile, learn, allocate
        step.run(arm)
    exact = step.weight_gradients(None)
    seconds: dict[Any, list[Elapsed]] = {arm: [] for arm in arms}
    for _ in range(rounds):
        for arm in arms:
            with restored(model):
                seconds[arm].append(elapsed(partial(step.pass_through, arm)))
    plain_peak = step.peak(None)
    for arm in policies:
        held, ledger = step.held(arm)
        mine, plain = seconds[arm], seconds[None]
        batch_bytes = images.untyped_storage().nbytes()
        unled = arm == SAVE_ON_CPU
        yield MemoryRow(
            policy=str(arm),
            logical_bytes=ledger.logical_bytes,
            stored_bytes=held + batch_bytes if unled else ledger.stored_bytes,
            held_bytes=held,
            batch_bytes=batch_bytes,
            plain_peak_bytes=plain_peak,
            peak_bytes=step.peak(arm),
            time_ratios=_ratios([s.wall for s in mine], [s.wall for s in plain]),
            processor_time_ratios=_ratios(
                [s.process for s in mine], [s.process for s in plain]
            ),
            gradient_errors=_errors(step.weight_gradients(arm), exact),
            own_errors=_errors(step.weight_gradients(_own_inputs(model, arm)), exact),
            elsewhere_bytes=ledger.elsewhere_bytes,
        )


def step_peak(model: nn.Module, images: Tensor, labels: Tensor, policy: Any) -> int:
    """Peak bytes of one step under a policy (None: plain autograd), parameters excepted.

    A step goes before it, in which a policy may learn; arguments as for
    :func:`measure_policies`.
    """
    step = _Step(model, images, labels)
    if policy is not None:
        step.run(policy)
    return step.peak(policy)


def loss_under(
    policy: Any, model: nn.Module, images: Tensor, labels: Tensor, seed: int = 0
) -> Tensor:
    """Cross entropy of a batch, its forward pass under a policy (None: plain)."""
    with _context(policy, model, seed):
        return F.cross_entropy(model(images), labels)


def _context(policy: Any, model: nn.Module, seed: int) -> AbstractContextManager[Any]:
    if policy is None:
        return nullcontext()
    if policy == SAVE_ON_CPU:
        return torch.autograd.graph.save_on_cpu()
    return saver(model, policy, seed=seed)


def _own_inputs(model: nn.Module, policy: Any) -> Any:
    if policy == SAVE_ON_CPU:
        return policy
    return Restricted(policy_for(policy, model), {Role.LINEAR_INPUT})


@dataclass(frozen=True)
class _Step:
    """Training steps on one batch, with the same random numbers every time."""

    model: nn.Module
    images: Tensor
    labels: Tensor

    def run(self, policy: Any) -> None:
        """A forward and a backward pass that leaves nothing but gradients."""
        with restored(self.model):
            self.pass_through(policy)

    def pass_through(self, policy: Any) -> None:
        """A forward and a backward pass."""
        torch.manual_seed(1)
        self.model.zero_grad(set_to_none=True)
        loss_under(policy, self.model, self.images, self.labels).backward()

    def weight_gradients(self, policy: Any) -> dict[str, Tensor]:
        """Gradients of the parameters of two or more axes."""
        self.run(policy)
        return {
            name: p.grad.clone()
            for name, p in self.model.named_parameters()
            if p.grad is not None and p.dim() > 1
        }

    def peak(self, policy: Any) -> int:
        """Most bytes at any moment of a step."""
        # Dropped beforehand, so that the new gradients are not set off against the old.
        self.model.zero_grad(set_to_none=True)
        with restored(self.model):
            work = measure_peak(lambda: self.pass_through(policy), self.images.device)
        return work.peak_bytes

    def held(self, policy: Any) -> tuple[int, Ledger]:
        """Bytes alive after a forward pass, and the ledger's account of them.

        Without a ledger of its own the policy gets that of plain autograd.
        """
        with restored(self.model):
            context = _context(policy, self.model, seed=0)
            with watch_peak(self.images.device) as measured, context as saved:
                out = self.model(self.images)
            del out
        if not isinstance(saved, saver):
            return measured.end_bytes, self.held("none")[1]
        return measured.end_bytes, saved.ledger


def _ratios(mine: list[float], plain: list[float]) -> tuple[float, ...]:
    return tuple(a / b for a, b in zip(mine, plain, strict=True))


def _errors(got: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """Relative error per parameter."""
    return {
        name: float((got[name] - g).norm()) / max(float(g.norm()), 1e-30)
        for name, g in exact.items()
    }
